"""What `pip install` puts on the path: chexpert-hier-run is `python -m chexpert_hier.run`, and so on."""

import importlib
from functools import partial

from . import commands


def _command(module: str) -> int:
    """Answer the command line with a module's main; imported here, so that `--help` loads no more than it needs."""
    commands.answer_early_interrupts()
    return commands.answer(importlib.import_module(f"chexpert_hier.{module}").main)


# One for each module that is a command, under the module's own name; setup.cfg names them, a test compares.
run = partial(_command, "run")
predict = partial(_command, "predict")
evaluate = partial(_command, "evaluate.__main__")
heatmaps = partial(_command, "heatmaps")
export = partial(_command, "export")
prepare = partial(_command, "prepare")
datasets = partial(_command, "datasets")
phantom = partial(_command, "phantom")
report = partial(_command, "report")
