"""How the run learned: losses and AUROC by epoch, as pictures and numbers."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from ..evaluate import figures
from ..evaluate.page import Line, in_digits, line


def duration(seconds: float) -> str:
    """Such as "41 s", "2 min 5 s" or "3 h 10 min"."""
    hours, rest = divmod(round(seconds), 3600)
    return f"{hours} h {rest // 60} min" if hours else f"{rest // 60} min {rest % 60} s" if rest >= 60 else f"{rest} s"


def last_epochs(log: pd.DataFrame) -> Iterator[Line]:
    """A row for each stage."""
    for row in log.groupby("stage", sort=False).tail(1).to_dict("records"):
        yield line(row["stage"], [str(row["epoch"]), f"{row['learning_rate']:.0e}", in_digits(row["loss"], 4),
                                  in_digits(row["valid_loss"], 4), in_digits(row["valid_auroc"])])


def pictures(log: pd.DataFrame) -> list[figures.Picture]:
    """Losses, and the validation AUROC, by epoch over all stages."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(figures.STYLE):
        return [_curve(log, {"loss": "training", "valid_loss": "validation"}, "loss", Figure),
                _curve(log, {"valid_auroc": "validation"}, "AUROC, validation", Figure)]


def _curve(log: pd.DataFrame, columns: dict[str, str], what: str, figure_class: Any) -> figures.Picture:
    figure = figure_class(figsize=(4.4, 3.2), layout="constrained")
    axes = figure.subplots()
    epoch = np.arange(1, len(log) + 1)
    starts = [0, *(np.flatnonzero(log["stage"].to_numpy()[1:] != log["stage"].to_numpy()[:-1]) + 1)]
    for place, (column, name) in enumerate(columns.items()):
        for part in np.split(np.arange(len(log)), starts[1:]):
            axes.plot(epoch[part], log[column].to_numpy()[part], linestyle=figures.DASHES[place],
                      color=figures.COLOURS[place], marker=figures.MARKERS[place], markersize=3,
                      label=name if part[0] == 0 else None)
    _mark_stages(axes, log, starts)
    axes.set_xlim(0.5, len(log) + 0.5)
    axes.set_xlabel("epoch, all stages")
    axes.set_ylabel(what)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.grid(color="#e4e4e4", linewidth=0.5)
    if len(columns) > 1:
        axes.legend(frameon=False)
    ends = "; ".join(f"{name} {log[column].iloc[0]:.3f} in the first epoch, {log[column].iloc[-1]:.3f} in the last"
                     for column, name in columns.items())
    return figures.Picture(f"learning_{what}", f"{what} by epoch: {ends}", figures.svg_of(figure))


def _mark_stages(axes: Any, log: pd.DataFrame, starts: list[int]) -> None:
    for number, start in enumerate(starts):
        if start:
            axes.axvline(start + 0.5, color="#888888", linewidth=0.8, linestyle=":")
        axes.annotate(str(log["stage"].iloc[start]).replace("$", r"\$"), (start + 0.6, 1.0 + 0.06 * (number % 2)),
                      xycoords=("data", "axes fraction"), va="bottom", fontsize=8, color="#505a66")
