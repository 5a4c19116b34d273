"""What `pip install` puts on the path: chexpert-hier-run is `python -m chexpert_hier.run`, and so on."""

import importlib
from collections.abc import Callable
from functools import partial

from . import commands

# Every command, an area with a __main__; setup.cfg, README and the tests are compared with it.
COMMANDS = ("run", "predict", "evaluate", "heatmaps", "export", "prepare", "datasets", "phantom", "report",
            "serve", "archive", "dicom_node", "selftest")


def module_of(command: str) -> str:
    """The module whose `parser` and `main` are the command's."""
    return f"chexpert_hier.{command}.__main__"


def _command(command: str) -> int:
    """Answer the command line; the module is imported here, so that `--help` loads no more than it needs."""
    commands.answer_early_interrupts()
    return commands.answer(importlib.import_module(module_of(command)).main)


def __getattr__(name: str) -> Callable[[], int]:
    """The entry point `chexpert_hier.console:<command>`."""
    if name not in COMMANDS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return partial(_command, name)
