"""Fixtures that several rooms' tests share."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder with real films and reference labels; tests that need it are skipped where it is absent."""
    folder = Path(os.environ.get("CHEXPERT_HIER_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real films at {folder}; set CHEXPERT_HIER_DATA to their folder")
    return folder
