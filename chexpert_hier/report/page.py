"""The whole run on one page: report.html, which needs no network and no other file.

    python -m chexpert_hier.report runs/mine

Takes a finished run folder; the films are read where recipe.json says they lie, and left out where they are gone.
"""

from collections.abc import Sequence
from pathlib import Path

from ..files import write_text
from .judged import read_run


def write(folder: str | Path, out: str | Path | None = None, *, replicates: int = 1000, films: bool = True,
          data: Sequence[Path] | None = None) -> Path:
    """Write a run's report.

    Args:
        folder: the finished run.
        out: the page; None: report.html in the run folder.
        replicates: bootstrap resamples of patients.
        films: show examples with heatmaps (loads the network).
        data: the folders of its films; None: those that recipe.json names.

    Returns:
        the page.

    Raises:
        InputError: it is no finished run.
    """
    from . import sections
    from .films import examples

    run = read_run(folder, replicates, data)
    shown = examples(run) if films and run.dataset is not None else []
    out = Path(out or Path(folder) / "report.html")
    write_text(out, sections.html(run, shown))
    return out
