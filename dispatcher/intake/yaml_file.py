"""Campaign files in YAML, read so that each value is what it looks like."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

import yaml

from dispatcher.domain.notation import ambiguous_number
from dispatcher.intake.errors import BadInput, InputError, read_text
from dispatcher.intake.json_limits import DEPTH_MAX

NUMBER_LENGTH_MAX = 100
# YAML 1.1 reads 010 as 8 (octal) and 1:30 as 90 (base 60): https://yaml.org/type/int.html
_DECIMAL = re.compile(r"[+-]?(?:(?:0|[1-9][0-9]*)(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-][0-9]+)?", re.ASCII)


def read_yaml(path: Path) -> tuple[dict[str, Any], dict[str, int]]:
    """A YAML mapping, and the line of each of its top-level keys. Raises BadInput."""
    text = read_text(path)
    try:
        _refuse_events(path, text)
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        _refuse_values(path, node)
        value = yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 0
        raise BadInput(InputError(str(path), line, "", f"is not YAML: {error.problem}")) from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise BadInput(InputError(str(path), line, "", "is not YAML: it has a character that is not allowed there")) from None
    except (yaml.YAMLError, ValueError, RecursionError):
        raise BadInput(InputError(str(path), 0, "", "is not YAML")) from None
    if not isinstance(value, dict) or not isinstance(node, yaml.MappingNode):
        raise BadInput(InputError(str(path), 1, "", "should hold `key: value` lines"))
    lines: dict[str, int] = {}
    faults = []
    for key, _ in node.value:
        if key.value in lines:
            faults.append(InputError(str(path), key.start_mark.line + 1, key.value, "is given twice"))
        lines[key.value] = key.start_mark.line + 1
    if faults:
        raise BadInput(*faults)
    return value, lines


def _refuse_events(path: Path, text: str) -> None:
    """Refuse `*name`, because nine lines of aliases of aliases become gigabytes; what is nested too deeply to be read; and tags
    such as `!!int`: with one, a value is not what it looks like.
    """
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        line = event.start_mark.line + 1 if event.start_mark else 0
        if isinstance(event, yaml.AliasEvent):
            raise BadInput(InputError(str(path), line, "", f"uses the alias *{event.anchor}; write the value out"))
        if tag := getattr(event, "tag", None):
            name = tag.replace("tag:yaml.org,2002:", "!!")
            raise BadInput(InputError(str(path), line, "", f"uses the tag {name}; leave it out"))
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > DEPTH_MAX:
            raise BadInput(InputError(str(path), line, "", f"is nested more than {DEPTH_MAX} levels deep"))


def _refuse_values(path: Path, node: yaml.Node | None) -> None:
    """Refuse names that a nested mapping has twice, dates that do not exist, and numbers that YAML 1.1 reads as others than they
    look or that have two readings: a person who writes 12.000 may mean twelve thousand.

    A value in quotes is text, and is taken.
    """
    waiting = [("", node)]
    while waiting:
        field, each = waiting.pop()
        if isinstance(each, yaml.MappingNode):
            pairs = [(key, value) for key, value in each.value if isinstance(key, yaml.ScalarNode)]
            counts = Counter(key.value for key, _ in pairs)
            for key, value in pairs:
                place = f"{field}.{key.value}" if field else key.value
                if field and counts[key.value] > 1:
                    raise BadInput(InputError(str(path), key.start_mark.line + 1, place, "is given twice"))
                waiting.append((place, value))
        elif isinstance(each, yaml.SequenceNode):
            waiting += [(field, value) for value in each.value]
        elif isinstance(each, yaml.ScalarNode) and each.style is None and (message := _odd_value(each.tag, each.value)):
            raise BadInput(InputError(str(path), each.start_mark.line + 1, field, message))


def _odd_value(tag: str, text: str) -> str | None:
    kind = tag.rpartition(":")[2]
    if kind == "timestamp":
        return None if _is_time(text) else "is no date or time that exists; write it as 2026-11-23 or 2026-11-23T10:00:00+01:00"
    if kind not in {"int", "float"}:
        return None
    if len(text) > NUMBER_LENGTH_MAX:
        return f"is a number of more than {NUMBER_LENGTH_MAX} digits"
    right = "write a decimal number without leading zeros, or a text in quotes"
    return ambiguous_number(text) if _DECIMAL.fullmatch(text) else f"is a number of YAML that is not decimal; {right}"


def _is_time(text: str) -> bool:
    try:
        yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, OverflowError):
        return False
    return True
