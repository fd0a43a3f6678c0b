"""One word, one meaning: no class name is defined in two modules, and no module hides behind an alias."""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("dispatcher", "channels", "benchmarks", "tests")
TREES = {path: ast.parse(path.read_text(encoding="utf-8")) for package in PACKAGES for path in (ROOT / package).rglob("*.py")}


def test_no_class_name_is_defined_in_two_modules() -> None:
    defined = defaultdict(list)
    for path, tree in TREES.items():
        for node in tree.body:
            if isinstance(node, ast.ClassDef):
                defined[node.name].append(str(path.relative_to(ROOT)))
    assert {name: paths for name, paths in defined.items() if len(paths) > 1} == {}


def test_no_module_of_the_program_imports_another_under_an_alias() -> None:
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
