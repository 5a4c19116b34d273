"""Pictures of an evaluation: intervals, ROC and PR curves with bands, reliability. Matplotlib is used only here."""

import io
import re
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from .findings import Findings
from .frames import rows
from .radiologists import Readers
from .ranking import BAND

# Okabe and Ito's colours, which people with colour-blindness tell apart; every line also has its own dash, every
# radiologist an own marker.
COLOURS = ("#0072B2", "#D55E00", "#007A58", "#AA4499", "#5B5B5B", "#B58900")
DASHES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1)), (0, (1, 1)))
MARKERS = "osD^vPX*<>"
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none", "svg.hashsalt": "chexpert_hier", "font.family": "sans-serif", "font.size": 9,
    "axes.spines.top": False, "axes.spines.right": False, "axes.titlesize": 10}
KINDS = {"roc": "ROC curve", "pr": "Precision and recall", "reliability": "Reliability"}


@dataclass
class Picture:
    """One picture: its name without suffix, what it shows in words, and its SVG."""

    name: str
    alt: str
    svg: str


@dataclass
class Pictures:
    """All pictures.

    Attributes:
        auroc: of all labels; None of decisions.
        panels: label -> kind -> picture.
        files: name -> bytes to write.
    """

    auroc: Picture | None
    panels: dict[str, dict[str, Picture]] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)


def draw(findings: Findings) -> Pictures:
    """Draw everything: one SVG per label and kind, and one PNG per kind with all labels; decisions have no picture."""
    import matplotlib
    main = findings.main
    if main.cases.decisions:
        return Pictures(None, {label: {} for label in main.cases.labels})
    with matplotlib.rc_context(STYLE):
        auroc = _intervals(findings)
        pictures = Pictures(auroc, files={"evaluation_auroc.svg": auroc.svg.encode()})
        for label in main.cases.labels:
            panels = {kind: panel for kind in KINDS if (panel := _panel(findings, label, kind))}
            pictures.panels[label] = panels
        for kind in KINDS:
            labels = [label for label, panels in pictures.panels.items() if kind in panels]
            if labels:
                pictures.files[f"evaluation_{kind}.png"] = _sheet(findings, labels, kind)
    return pictures


def _figure(**settings: Any) -> Any:
    """A Matplotlib figure that belongs to no window."""
    from matplotlib.figure import Figure
    return Figure(**settings)


def svg_of(figure: Any) -> str:
    """A Matplotlib figure as SVG text, the same bytes every time."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    return re.sub(r"<!--.*?-->\s*", "", text[text.index("<svg"):], flags=re.S)


def _plain(text: str) -> str:
    """A name for Matplotlib, which would read dollar signs as mathematics."""
    return text.replace("$", r"\$")


def _short(name: str, most: int = 28) -> str:
    return _plain(name if len(name) <= most else name[:most - 1] + "…")


def _intervals(findings: Findings) -> Picture:
    table, count = findings.main.table, len(findings.results)
    lines = len(table)
    figure = _figure(figsize=(7, max(2.2, 0.9 + 0.32 * lines * max(1, 0.6 * count))), layout="constrained")
    axes = figure.subplots()
    for place, result in enumerate(findings.results):
        found = result.table.set_index("label").reindex(table["label"])
        y = np.arange(lines) + (place - (count - 1) / 2) * 0.8 / count
        colour = COLOURS[place % len(COLOURS)]
        axes.hlines(y, found["auroc_low"], found["auroc_high"], color=colour, linewidth=2)
        axes.plot(found["auroc"], y, MARKERS[place % len(MARKERS)], color=colour, markersize=5,
                  label=_short(result.name))
    axes.set_yticks(np.arange(lines), [_short(row.label) + (" *" if row.few_positives else "") for row in rows(table)])
    axes.set_ylim(lines - 0.4, -0.6)
    axes.axhline(lines - 1.5, color="#888888", linewidth=0.6)
    axes.set_xlim(_left([result.table for result in findings.results]), 1.0)
    axes.grid(axis="x", color="#dddddd", linewidth=0.6)
    axes.set_xlabel("AUROC with 95 % interval" + ("   (* fewer than 10 positives)" if table["few_positives"].any()
                                                 else ""))
    if count > 1:
        figure.legend(loc="outside upper center", ncols=2, frameon=False)
    last = table.iloc[-1]
    return Picture("evaluation_auroc", f"AUROC and its interval for each of {lines - 1} labels; {last.label} "
                   f"{last.auroc:.3f}. The numbers are in the table.", svg_of(figure))


def _left(tables: list[pd.DataFrame]) -> float:
    """Where the axis of AUROCs begins: at 0.5, or further left where an interval reaches there."""
    low = np.nanmin([np.nanmin(table[["auroc", "auroc_low"]].to_numpy(float), initial=1.0) for table in tables])
    return float(max(0.0, min(0.5, np.floor(low * 10) / 10)))


def _panel(findings: Findings, label: str, kind: str) -> Picture | None:
    main = findings.main
    if label not in (main.reliability if kind == "reliability" else main.curves):
        return None
    figure = _figure(figsize=(3.3, 3.3))
    _fill(figure.subplots(gridspec_kw={"left": 0.16, "right": 0.98, "bottom": 0.14, "top": 0.97}), findings, label,
          kind)
    row = main.table.set_index("label").loc[label]
    numbers = {"roc": f"AUROC {row.auroc:.3f} ({row.auroc_low:.3f} to {row.auroc_high:.3f})",
               "pr": f"average precision {row.average_precision:.3f}, prevalence "
                     f"{row.positives / max(row.positives + row.negatives, 1):.3f}",
               "reliability": f"calibration error {row.get('calibration_error', np.nan):.3f} as given, "
                              f"{row.get('calibration_error_calibrated', np.nan):.3f} after scaling"}[kind]
    return Picture(f"evaluation_{kind}", f"{KINDS[kind]} of {label}: {numbers}", svg_of(figure))


def _sheet(findings: Findings, labels: list[str], kind: str) -> bytes:
    columns = min(4, len(labels))
    lines = -(-len(labels) // columns)
    figure = _figure(figsize=(3.1 * columns, 3.3 * lines))
    spaces = {"left": 0.16 / columns, "right": 1 - 0.03 / columns, "bottom": 0.14 / lines, "top": 1 - 0.1 / lines,
              "wspace": 0.26, "hspace": 0.32}
    axes = np.atleast_1d(figure.subplots(lines, columns, gridspec_kw=spaces)).ravel()
    for axis, label in zip(axes, labels):
        _fill(axis, findings, label, kind)
        axis.set_title(_short(label))
    for axis in axes[len(labels):]:
        axis.set_axis_off()
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120, metadata={"Software": None})
    return buffer.getvalue()


def _fill(axes: Any, findings: Findings, label: str, kind: str) -> None:
    {"roc": _roc, "pr": _pr, "reliability": _reliability}[kind](axes, findings, label)
    axes.set_xlim(-0.02, 1.02)
    axes.set_ylim(-0.02, 1.02)
    axes.set_aspect("equal")
    axes.grid(color="#e4e4e4", linewidth=0.5)
    if axes.get_legend_handles_labels()[0]:
        place = {"roc": "lower right", "pr": "lower left", "reliability": "upper left"}[kind]
        axes.legend(loc=place, fontsize=7, frameon=True, framealpha=0.8, edgecolor="none")


def _lines(axes: Any, findings: Findings, label: str, kind: str) -> None:
    several = len(findings.results) > 1
    for place, result in enumerate(findings.results):
        curve = result.curves.get(label)
        if curve is None:
            continue
        colour = COLOURS[place % len(COLOURS)]
        x, y = (np.r_[0, BAND], np.r_[0, curve[kind]]) if kind == "roc" else (BAND, curve[kind])
        axes.plot(x, y, color=colour, linestyle=DASHES[place % len(DASHES)], linewidth=1.5,
                  label=_short(result.name, 22) if several else None)
        if place == 0 and not np.isnan(curve[f"{kind}_low"]).any():
            axes.fill_between(BAND, curve[f"{kind}_low"], curve[f"{kind}_high"], color=colour, alpha=0.18, linewidth=0)


def _points(axes: Any, readers: Readers | None, label: str, x: str, y: str) -> None:
    if readers is None:
        return
    found = readers.points[readers.points["label"] == label]
    for place, row in enumerate(rows(found)):
        across = 1 - row.specificity if x == "fpr" else row.sensitivity
        axes.plot(across, getattr(row, y), MARKERS[place % len(MARKERS)], color="#222222", markersize=5,
                  markerfacecolor="none", label=_short(row.radiologist, 22))


def _roc(axes: Any, findings: Findings, label: str) -> None:
    axes.plot([0, 1], [0, 1], color="#999999", linewidth=0.8)
    _lines(axes, findings, label, "roc")
    _points(axes, findings.readers.get(findings.main.name), label, "fpr", "sensitivity")
    axes.set_xlabel("1 − specificity")
    axes.set_ylabel("sensitivity")


def _pr(axes: Any, findings: Findings, label: str) -> None:
    truth = findings.main.cases.truth[:, findings.main.cases.labels.index(label)]
    axes.axhline(float(np.nanmean(truth)), color="#999999", linewidth=0.8)
    _lines(axes, findings, label, "precision")
    _points(axes, findings.readers.get(findings.main.name), label, "recall", "precision")
    axes.set_xlabel("recall (sensitivity)")
    axes.set_ylabel("precision (PPV)")


def _reliability(axes: Any, findings: Findings, label: str) -> None:
    axes.plot([0, 1], [0, 1], color="#999999", linewidth=0.8)
    tables = findings.main.reliability[label]
    for place, (kind, name) in enumerate((("raw", "as given"), ("scaled", "after scaling"))):
        table = tables[kind]
        reach = np.abs(table[["observed_low", "observed_high"]].to_numpy().T - table["observed"].to_numpy())
        axes.errorbar(table["predicted"], table["observed"], yerr=reach, color=COLOURS[place],
                      marker=MARKERS[place], markersize=4, linewidth=1.1, elinewidth=0.8, linestyle=DASHES[place],
                      label=name)
    axes.set_xlabel("predicted probability")
    axes.set_ylabel("observed frequency")
