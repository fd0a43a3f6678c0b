"""Names and signatures: no class name is defined in two modules, no test name is too long, no function has too many parameters."""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).parents[2]
SHORT_TEST_NAMES = ("tests/unit",)  # folders whose test functions have names of at most TEST_NAME_MAX characters
TEST_NAME_MAX = 60
PACKAGES = ("dispatcher", "channels", "benchmarks", "tests")
TREES = {path: ast.parse(path.read_text(encoding="utf-8")) for package in PACKAGES for path in (ROOT / package).rglob("*.py")}


def test_no_class_name_is_defined_in_two_modules() -> None:
    defined = defaultdict(list)
    for path, tree in TREES.items():
        for node in tree.body:
            if isinstance(node, ast.ClassDef):
                defined[node.name].append(str(path.relative_to(ROOT)))
    assert {name: paths for name, paths in defined.items() if len(paths) > 1} == {}


def test_no_import_alias_in_the_program() -> None:
    """`from dispatcher.x import y as z` hides what `z` is; the name is changed where it is defined, or the module is imported."""
    aliases = [
        f"{path.relative_to(ROOT)}: {alias.name} as {alias.asname}"
        for path, tree in TREES.items()
        if path.is_relative_to(ROOT / "dispatcher")
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(("dispatcher", "channels"))
        for alias in node.names
        if alias.asname is not None
    ]
    assert aliases == []


def test_test_functions_have_short_names() -> None:
    too_long = [
        node.name
        for path, tree in TREES.items()
        if path.relative_to(ROOT).as_posix().startswith(tuple(f"{folder}/" for folder in SHORT_TEST_NAMES))
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_") and len(node.name) > TEST_NAME_MAX
    ]
    assert not too_long


def test_functions_have_fewer_than_seven_parameters() -> None:
    """A small frozen dataclass says better what belongs together. Exempt: a command's parameters are its options."""
    # The signatures of an SDK's HTTP client and of OpenTelemetry's `Sampler`; a command that the module adds to the root itself.
    exempt = {
        "channels/providers/twilio.py: request",
        "dispatcher/cli/messages.py: send",
        "dispatcher/runtime/trace_export.py: should_sample",
    }
    too_many = {
        f"{path.relative_to(ROOT)}: {node.name}"
        for path, tree in TREES.items()
        if not path.is_relative_to(ROOT / "tests")
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and _count_parameters(node) >= 7 and not _is_command(node)
    }
    assert too_many == exempt


def _count_parameters(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    parameters = (*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs)
    return sum(parameter.arg not in ("self", "cls") for parameter in parameters)


def _is_command(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    return any(ast.unparse(decorator).startswith("app.command(") for decorator in function.decorator_list)
