"""Fixtures for several modules of unit tests."""

from __future__ import annotations

import shutil

import pytest

from dispatcher.content import (
    Catalog,
    Template,
    load,
)
from tests.support.template_folder import small_folder, write


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    folder = write(tmp_path_factory.mktemp("templates"), small_folder())
    loaded = load(folder)
    shutil.rmtree(folder)  # nothing is read from the disk after loading
    return loaded


@pytest.fixture(scope="module")
def hello(catalog: Catalog) -> Template:
    return catalog["hello"]
