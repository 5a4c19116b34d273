"""Pictures of an evaluation: intervals, ROC and PR curves with bands, reliability. Matplotlib is used only here."""

import io
import re
from dataclasses import dataclass, field

import numpy as np

from .findings import Findings
from .radiologists import Readers
from .ranking import BAND

# Okabe and Ito's colours, which people with colour-blindness tell apart; every line also has its own dash, every
# radiologist an own marker.
COLOURS = ("#0072B2", "#D55E00", "#007A58", "#AA4499", "#5B5B5B", "#B58900")
DASHES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1)), (0, (1, 1)))
MARKERS = "osD^vPX*<>"
STYLE = {"svg.fonttype": "none", "svg.hashsalt": "chexpert_hier", "font.family": "sans-serif", "font.size": 9,
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
    """All pictures: `auroc` for all labels, `panels` label -> kind -> picture, `files` name -> bytes to write."""

    auroc: Picture
    panels: dict[str, dict[str, Picture]] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)


def draw(findings: Findings) -> Pictures:
    """Draw everything: one SVG per label and kind, and one PNG per kind with all labels."""
    import matplotlib
    from matplotlib.figure import Figure
    main = findings.results[0]
    with matplotlib.rc_context(STYLE):
        pictures = Pictures(_intervals(findings, Figure))
        pictures.files["evaluation_auroc.svg"] = pictures.auroc.svg.encode()
        for label in main.cases.labels:
            panels = {kind: panel for kind in KINDS if (panel := _panel(findings, label, kind, Figure))}
            pictures.panels[label] = panels
        for kind in KINDS:
            labels = [label for label, panels in pictures.panels.items() if kind in panels]
            if labels:
                pictures.files[f"evaluation_{kind}.png"] = _sheet(findings, labels, kind, Figure)
    return pictures


def svg_of(figure) -> str:
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


def _intervals(findings: Findings, figure_class) -> Picture:
    table = findings.results[0].table
    rows = len(table)
    height = max(2.2, 0.9 + 0.32 * rows * max(1, 0.6 * len(findings.results)))
    figure = figure_class(figsize=(7, height), layout="constrained")
    axes = figure.subplots()
    for place, result in enumerate(findings.results):
        shift = (place - (len(findings.results) - 1) / 2) * 0.8 / len(findings.results)
        found = result.table.set_index("label").reindex(table["label"])
        y = np.arange(rows) + shift
        colour = COLOURS[place % len(COLOURS)]
        axes.hlines(y, found["auroc_low"], found["auroc_high"], color=colour, linewidth=2)
        axes.plot(found["auroc"], y, MARKERS[place % len(MARKERS)], color=colour, markersize=5,
                  label=_short(result.name))
    axes.set_yticks(np.arange(rows), [_short(label) + (" *" if few else "") for label, few in
                                      zip(table["label"], table["few_positives"])])
    axes.set_ylim(rows - 0.4, -0.6)
    axes.axhline(rows - 1.5, color="#888888", linewidth=0.6)
    low = float(np.nanmin([np.nanmin(r.table[["auroc", "auroc_low"]].to_numpy(float), initial=1.0)
                           for r in findings.results]))
    axes.set_xlim(max(0.0, min(0.5, np.floor(low * 10) / 10)), 1.0)
    axes.grid(axis="x", color="#dddddd", linewidth=0.6)
    axes.set_xlabel("AUROC with 95 % interval" + ("   (* fewer than 10 positives)" if table["few_positives"].any()
                                                 else ""))
    if len(findings.results) > 1:
        figure.legend(loc="outside upper center", ncols=2, frameon=False)
    last = table.iloc[-1]
    return Picture("evaluation_auroc", f"AUROC and its interval for each of {rows - 1} labels; {last.label} "
                   f"{last.auroc:.3f}. The numbers are in the table.", svg_of(figure))


def _panel(findings: Findings, label: str, kind: str, figure_class) -> Picture | None:
    main = findings.results[0]
    if (kind == "reliability" and label not in main.reliability) or (kind != "reliability" and
                                                                     label not in main.curves):
        return None
    figure = figure_class(figsize=(3.3, 3.3))
    _fill(figure.subplots(gridspec_kw={"left": 0.16, "right": 0.98, "bottom": 0.14, "top": 0.97}), findings, label,
          kind)
    row = main.table.set_index("label").loc[label]
    numbers = {"roc": f"AUROC {row.auroc:.3f} ({row.auroc_low:.3f} to {row.auroc_high:.3f})",
               "pr": f"average precision {row.average_precision:.3f}, prevalence "
                     f"{row.positives / max(row.positives + row.negatives, 1):.3f}",
               "reliability": f"calibration error {row.calibration_error:.3f} as given, "
                              f"{row.calibration_error_calibrated:.3f} after scaling"}[kind]
    return Picture(f"evaluation_{kind}", f"{KINDS[kind]} of {label}: {numbers}", svg_of(figure))


def _sheet(findings: Findings, labels: list[str], kind: str, figure_class) -> bytes:
    columns = min(4, len(labels))
    rows = -(-len(labels) // columns)
    figure = figure_class(figsize=(3.1 * columns, 3.3 * rows))
    spaces = {"left": 0.16 / columns, "right": 1 - 0.03 / columns, "bottom": 0.14 / rows, "top": 1 - 0.1 / rows,
              "wspace": 0.26, "hspace": 0.32}
    axes = np.atleast_1d(figure.subplots(rows, columns, gridspec_kw=spaces)).ravel()
    for axis, label in zip(axes, labels):
        _fill(axis, findings, label, kind)
        axis.set_title(_short(label))
    for axis in axes[len(labels):]:
        axis.set_axis_off()
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120, metadata={"Software": None})
    return buffer.getvalue()


def _fill(axes, findings: Findings, label: str, kind: str) -> None:
    {"roc": _roc, "pr": _pr, "reliability": _reliability}[kind](axes, findings, label)
    axes.set_xlim(-0.02, 1.02)
    axes.set_ylim(-0.02, 1.02)
    axes.set_aspect("equal")
    axes.grid(color="#e4e4e4", linewidth=0.5)
    if axes.get_legend_handles_labels()[0]:
        place = {"roc": "lower right", "pr": "lower left", "reliability": "upper left"}[kind]
        axes.legend(loc=place, fontsize=7, frameon=True, framealpha=0.8, edgecolor="none")


def _lines(axes, findings: Findings, label: str, kind: str) -> None:
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


def _points(axes, readers: Readers | None, label: str, x: str, y: str) -> None:
    if readers is None:
        return
    found = readers.points[readers.points["label"] == label]
    for place, row in enumerate(found.itertuples()):
        across = 1 - row.specificity if x == "fpr" else row.sensitivity
        axes.plot(across, getattr(row, y), MARKERS[place % len(MARKERS)], color="#222222", markersize=5,
                  markerfacecolor="none", label=_short(row.radiologist, 22))


def _roc(axes, findings: Findings, label: str) -> None:
    axes.plot([0, 1], [0, 1], color="#999999", linewidth=0.8)
    _lines(axes, findings, label, "roc")
    _points(axes, findings.readers.get(findings.results[0].name), label, "fpr", "sensitivity")
    axes.set_xlabel("1 − specificity")
    axes.set_ylabel("sensitivity")


def _pr(axes, findings: Findings, label: str) -> None:
    truth = findings.results[0].cases.truth[:, findings.results[0].cases.labels.index(label)]
    axes.axhline(float(np.nanmean(truth)), color="#999999", linewidth=0.8)
    _lines(axes, findings, label, "precision")
    _points(axes, findings.readers.get(findings.results[0].name), label, "recall", "precision")
    axes.set_xlabel("recall (sensitivity)")
    axes.set_ylabel("precision (PPV)")


def _reliability(axes, findings: Findings, label: str) -> None:
    axes.plot([0, 1], [0, 1], color="#999999", linewidth=0.8)
    tables = findings.results[0].reliability[label]
    for place, (kind, name) in enumerate((("raw", "as given"), ("scaled", "after scaling"))):
        table = tables[kind]
        reach = np.abs(table[["observed_low", "observed_high"]].to_numpy().T - table["observed"].to_numpy())
        axes.errorbar(table["predicted"], table["observed"], yerr=reach, color=COLOURS[place],
                      marker=MARKERS[place], markersize=4, linewidth=1.1, elinewidth=0.8, linestyle=DASHES[place],
                      label=name)
    axes.set_xlabel("predicted probability")
    axes.set_ylabel("observed frequency")
