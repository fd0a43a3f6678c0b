"""Files of other projects are unchanged, and their versions and licences are written down."""

from __future__ import annotations

import hashlib
import re

from dispatcher.web.pages import vendor


def test_each_file_of_another_project_is_the_listed_one() -> None:
    listed = dict(re.findall(r"^\| `([^`]+)` .* `([0-9a-f]{64})` \|$", vendor.read("README.md").decode(), re.MULTILINE))
    there = {path.name for path in vendor.FOLDER.iterdir() if path.is_file()} - {"README.md", "__init__.py"}
    assert there == set(listed)
    assert {name: hashlib.sha256(vendor.read(name)).hexdigest() for name in there} == listed
    assert b"v1.6.32" in vendor.read("uplot.js")
