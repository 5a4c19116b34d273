"""The whole run on one page: report.html, which needs no network and no other file.

    python -m chexpert_hier.report runs/mine

Takes a finished run folder; the films are read where recipe.json says they lie, and left out where they are gone.
"""

import contextlib
import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from .. import commands, evaluate
from ..evaluate.figures import Pictures, draw
from ..files import write_text
from ..finished.members import Member
from .judged import Run, read_run

Drawn = tuple[Run, Pictures]


def write(folder: str | Path, out: str | Path | None = None, *, replicates: int = 1000, films: bool = True,
          data: Sequence[Path] | None = None, member: Member | None = None, drawn: Drawn | None = None) -> Path:
    """Write a run's report.

    Args:
        folder: the finished run.
        out: the page; None: report.html in the run folder.
        replicates: bootstrap resamples of patients.
        films: show examples with heatmaps (loads the network).
        data: the folders of its films; None: those that recipe.json names.
        member: the run with its network, where it is at hand.
        drawn: of `drawn_beside`, which has judged it already.

    Returns:
        the page.

    Raises:
        InputError: it is no finished run.
    """
    from . import sections
    from .films import examples

    run, pictures = drawn or _judged(folder, replicates, data)
    shown = examples(run, member) if films and run.dataset is not None else []
    out = Path(out or Path(folder) / "report.html")
    write_text(out, sections.html(run, pictures, shown))
    return out


@contextlib.contextmanager
def drawn_beside(result: evaluate.Result, folder: Path, apart: bool, data: Sequence[Path] | None = None
                 ) -> Iterator[Callable[[], Drawn]]:
    """Draw a run's evaluation and judge it for its report, while this process does something else.

    Drawing takes a third of a minute of one core, and so does an export; neither needs the other.

    Args:
        result: the run's evaluation, whose page and figures are written into the folder.
        folder: the run, its tables written.
        apart: in another process; else, and where that process cannot start, in this one when it is asked for.
        data: the folders of its films; None: those that recipe.json names.

    Yields:
        what waits for it and gives what `write` takes.
    """
    if not apart:
        yield lambda: _drawn(result, folder, data)
        return
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), commands.start_worker) as pool:
        found = pool.submit(_drawn, result, folder, data)

        def wait() -> Drawn:
            try:
                return found.result()
            except BrokenProcessPool:  # such as in a script without `if __name__ == "__main__"`
                return _drawn(result, folder, data)

        yield wait


def _drawn(result: evaluate.Result, folder: Path, data: Sequence[Path] | None) -> Drawn:
    evaluate.write(result, folder)
    return _judged(folder, 1000, data)


def _judged(folder: str | Path, replicates: int, data: Sequence[Path] | None) -> Drawn:
    run = read_run(folder, replicates, data)
    return run, draw(evaluate.Findings([run.result]))
