"""Fixtures that the tests of several areas share."""

import os
import shutil
from pathlib import Path

import pytest

CHROMIUM_FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
                  "--disable-background-networking",
                  "--disable-component-update", "--disable-sync"]


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder with real films and reference labels; tests that need it are skipped where it is absent."""
    folder = Path(os.environ.get("CHEXPERT_HIER_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real films at {folder}; set CHEXPERT_HIER_DATA to their folder")
    return folder


@pytest.fixture(scope="session")
def missing():
    """A function that skips for the reason it is given, or fails where the tests of the system are required."""
    return pytest.fail if os.environ.get("CHEXPERT_HIER_REQUIRE") else pytest.skip


@pytest.fixture(scope="session")
def browser(missing):
    """The system's Chromium without a window, driven by Playwright's Python package."""
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if not program:
        missing("no chromium; apt-get install chromium")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        missing("no Playwright; pip install playwright")
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=program, args=CHROMIUM_FLAGS)
        yield running
        running.close()
