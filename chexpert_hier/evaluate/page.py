"""The report for people: one HTML page that needs no network and no other file."""

import base64
import html as escaping
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from .. import __version__
from .evaluation import Result
from .figures import KINDS, Picture, Pictures
from .findings import Findings
from .radiologists import Readers

UNITS = {"film": "films", "study": "studies", "patient": "patients"}
STYLE = """
:root{color-scheme:light;--ink:#1b1f24;--soft:#505a66;--line:#d5dae0;--wash:#f4f6f8;--accent:#005a8c;--warn:#7a3b00}
*{box-sizing:border-box}
body{margin:0;color:var(--ink);background:#fff;font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
main,header,footer{max-width:72rem;margin:0 auto;padding:0 1.25rem}
header{padding-top:2rem}footer{padding-bottom:3rem;color:var(--soft);font-size:.9rem}
h1{font-size:1.7rem;line-height:1.2;margin:0 0 .3rem}h2{font-size:1.25rem;margin:2.5rem 0 .6rem;
border-bottom:2px solid var(--line);padding-bottom:.25rem}h3{font-size:1.02rem;margin:1.4rem 0 .4rem}
.lead{color:var(--soft);margin:0}.cards{display:grid;gap:.8rem;
grid-template-columns:repeat(auto-fit,minmax(11rem,1fr));margin:1.3rem 0}
.card{background:var(--wash);border-radius:.5rem;padding:.8rem 1rem}
.card b{display:block;font-size:1.55rem;line-height:1.2;font-variant-numeric:tabular-nums;overflow-wrap:anywhere}
.card span{color:var(--soft);font-size:.9rem}
.scroll{overflow-x:auto;margin:.6rem 0}
.scroll:focus-visible,summary:focus-visible,a:focus-visible{outline:3px solid #005a8c}
table{border-collapse:collapse;font-size:.9rem;font-variant-numeric:tabular-nums;width:100%}
caption{text-align:left;color:var(--soft);padding:.2rem 0 .4rem;font-size:.9rem}
th,td{padding:.32rem .7rem .32rem 0;text-align:right;border-bottom:1px solid var(--line);white-space:nowrap}
th:first-child,td.text,th.text{text-align:left}td.text{white-space:normal;min-width:12rem}thead th{color:var(--soft);
vertical-align:bottom}tbody th{font-weight:600;position:sticky;left:0;
background:#fff}caption{max-width:min(70rem,88vw)}tr.mean th,tr.mean td{background:var(--wash);font-weight:600}
.narrow td .soft{display:block;font-weight:400}
.flag{display:inline-block;margin-left:.4rem;padding:0 .35rem;border:1px solid var(--warn);border-radius:.25rem;
color:var(--warn);font-size:.75rem;font-weight:600}
.soft{color:var(--soft)}ul.notes{padding-left:1.2rem}ul.notes li{margin:.25rem 0;overflow-wrap:anywhere}
.panels{display:grid;grid-template-columns:repeat(auto-fit,minmax(15rem,1fr));gap:.6rem;max-width:64rem}
figure{margin:0}figure img{width:100%;height:auto;display:block}figcaption{font-size:.85rem;color:var(--soft)}
.wide{max-width:46rem}details{border-top:1px solid var(--line);padding:.5rem 0}summary{cursor:pointer;font-weight:600}
nav{margin-top:1rem}nav a{color:var(--accent);margin-right:1rem;display:inline-block;padding:.2rem 0}
@media(max-width:36rem){.wide{overflow-x:auto}.wide img{width:36rem;max-width:none}}
@media print{details>*{display:block}.scroll{overflow:visible}}
"""


def html(findings: Findings, pictures: Pictures) -> str:
    """The whole page.

    Args:
        findings: what was found.
        pictures: of `figures.draw`.

    Returns:
        HTML; every name that came from a file is escaped.
    """
    main = findings.results[0]
    return document(f"Evaluation of {main.name}", _lead(main) + _cards(findings), sections(findings, pictures))


def sections(findings: Findings, pictures: Pictures) -> list[tuple[str, str, str]]:
    """The parts of the page that have content: (anchor, title, HTML) each."""
    main = findings.results[0]
    parts = [("results", "AUROC", _ranks(findings, pictures)), ("notes", "Read with this", _notes(findings)),
             ("labels", "Label by label", _panels(main, pictures)),
             ("thresholds", "At a threshold", _thresholds(main)), ("calibration", "Calibration", _calibration(main)),
             ("radiologists", "Radiologists", _radiologists(findings)),
             ("comparison", "Comparison", _comparisons(findings)), ("subgroups", "Subgroups", _subgroups(main)),
             ("tree", "The disease tree", _tree(main)), ("how", "How it was done", _settings(main))]
    return [part for part in parts if part[2]]


def document(title: str, lead: str, parts: Sequence[tuple[str, str, str]], style: str = "") -> str:
    """One page that needs no other file, with a line of links to its sections.

    Args:
        title: plain text.
        lead: HTML below the title.
        parts: (anchor, title in plain text, HTML) of each section.
        style: further CSS.
    """
    links = "".join(f'<a href="#{anchor}">{escaped(name)}</a>' for anchor, name, _ in parts)
    body = "".join(f'<section id="{anchor}"><h2>{escaped(name)}</h2>{content}</section>'
                   for anchor, name, content in parts)
    return ('<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
            '<meta name="viewport" content="width=device-width,initial-scale=1">'
            f"<title>{escaped(title)}</title><style>{STYLE}{style}</style></head><body>"
            f'<header><h1>{escaped(title)}</h1>{lead}<nav aria-label="Sections">{links}</nav></header>'
            f"<main>{body}</main><footer><p>chexpert_hier {__version__}. "
            "For research; no result here is fit for clinical use.</p></footer></body></html>\n")


def escaped(value: object) -> str:
    """Plain text for HTML, also inside attributes."""
    return escaping.escape(str(value), quote=True)


def in_digits(value: object, digits: int = 3) -> str:
    """A number to so many decimals; a dash where there is none."""
    if value is None or (isinstance(value, float | np.floating) and not np.isfinite(value)):
        return "inf" if isinstance(value, float | np.floating) and value > 0 else "–"
    return f"{value:.{digits}f}"


def _count(value: object) -> str:
    return "–" if value != value else f"{int(value):,}"


def with_interval(value: float, low: float, high: float, digits: int = 3) -> str:
    """A number and, softer, its interval; HTML."""
    interval = "" if low != low else f' <span class="soft">{in_digits(low, digits)} to {in_digits(high, digits)}</span>'
    return in_digits(value, digits) + interval


def html_table(caption: str, head: Sequence[str], rows: Iterable[tuple[str, Sequence[str], bool]],
           text: Sequence[int] = (), narrow: bool = False) -> str:
    """A table that scrolls sideways on small screens; rows are (first cell, other cells, is the mean), all HTML."""
    columns = "".join(f'<th scope="col"{" class=text" if k in text else ""}>{name}</th>' for k, name in enumerate(head))
    lines = []
    for first, cells, mean in rows:
        data = "".join(f"<td{' class=text' if k in text else ''}>{cell}</td>" for k, cell in enumerate(cells, 1))
        lines.append(f'<tr{" class=mean" if mean else ""}><th scope="row">{first}</th>{data}</tr>')
    kind = " class=narrow" if narrow else ""                         # intervals below their values
    return (f'<div class="scroll" tabindex="0" role="region" aria-label="{escaped(caption)}"><table{kind}><caption>'
            f"{escaped(caption)}</caption><thead><tr>{columns}</tr></thead><tbody>{''.join(lines)}</tbody></table></div>")


def html_image(picture: Picture, caption: str = "") -> str:
    """A picture that lies inside the page, with its words for those who do not see it."""
    data = base64.b64encode(picture.svg.encode()).decode()
    words = f"<figcaption>{escaped(caption)}</figcaption>" if caption else ""
    return f'<figure><img alt="{escaped(picture.alt)}" src="data:image/svg+xml;base64,{data}">{words}</figure>'


def _units(result: Result, count: int) -> str:
    return f"{count:,} {result.cases.unit if count == 1 else UNITS[result.cases.unit]}"


def _lead(result: Result) -> str:
    patients = "" if result.cases.unit == "patient" else f" of {result.cases.total_patients:,} patients"
    return f'<p class="lead">{_units(result, len(result.cases.keys))}{patients}, {len(result.cases.labels)} labels</p>'


def _cards(findings: Findings) -> str:
    main, mean = findings.results[0], findings.results[0].table.iloc[-1]
    cards = [(in_digits(mean.auroc), f"AUROC, {mean.label} (95 % interval {in_digits(mean.auroc_low)} to "
                                   f"{in_digits(mean.auroc_high)})")]
    if main.name in findings.readers:
        below = findings.readers[main.name].below.iloc[-1]
        cards.append((in_digits(below.below_roc, 1), "radiologists below the ROC curve, on average "
                      f"(strictly below: {in_digits(below.strictly_below_roc, 1)})"))
    few = int(main.table["few_positives"].iloc[:-1].sum())
    cards.append((str(few), "labels with fewer than 10 positives, whose numbers mean little"))
    return html_cards(cards)


def html_cards(cards: Sequence[tuple[str, str]]) -> str:
    """A row of large numbers, each with its words."""
    return '<div class="cards">' + "".join(
        f'<div class="card"><b>{escaped(value)}</b><span>{escaped(words)}</span></div>' for value, words in cards
    ) + "</div>"


def _flagged(row) -> str:
    return escaped(row.label) + ('<span class="flag">few positives</span>' if row.few_positives else "")


def _ranks(findings: Findings, pictures: Pictures) -> str:
    parts = ['<div class="wide" tabindex="0" role="region" aria-label="AUROC and intervals as a picture">'
             f"{html_image(pictures.auroc)}</div>"]
    for result in findings.results:
        last = len(result.table) - 1
        rows = [(_flagged(row), [with_interval(row.auroc, row.auroc_low, row.auroc_high),
                                 "–" if row.delong_low != row.delong_low else
                                 f"{in_digits(row.delong_low)} to {in_digits(row.delong_high)}",
                                 with_interval(row.average_precision, row.average_precision_low,
                                                row.average_precision_high),
                                 _count(row.positives), _count(row.negatives), _count(row.uncertain)], k == last)
                for k, row in enumerate(result.table.itertuples())]
        parts.append(html_table(f"{result.name}: AUROC with 95 % bootstrap interval over patients",
                            ["Label", "AUROC", "DeLong interval", "Average precision", "Positives", "Negatives",
                             "Uncertain, left out"], rows))
    return "".join(parts)


def _notes(findings: Findings) -> str:
    """What holds for all predictions once, then what is special to each."""
    shared = [note for note in findings.results[0].notes if all(note in r.notes for r in findings.results)]
    parts = [_list(shared)]
    for result in findings.results:
        if own := [note for note in result.notes if note not in shared]:
            parts.append(f"<h3>{escaped(result.name)}</h3>{_list(own)}")
    return "".join(parts)


def _list(notes: Sequence[str]) -> str:
    return '<ul class="notes">' + "".join(f"<li>{escaped(note)}</li>" for note in notes) + "</ul>"


def _panels(main: Result, pictures: Pictures) -> str:
    parts = ['<p class="soft">Bands are 95 % bootstrap intervals, point by point. Open markers are radiologists. Grey '
             "lines: chance, prevalence, perfect calibration.</p>"]
    table = main.table.set_index("label")
    shown = main.settings.get("mean_over", [])[:5]
    for label, panels in pictures.panels.items():
        row = table.loc[label]
        words = f"{escaped(label)}: AUROC {in_digits(row.auroc)}, {_count(row.positives)} positives"
        content = "".join(html_image(panel, KINDS[kind]) for kind, panel in panels.items()) or "<p>No curve.</p>"
        parts.append(f'<details{" open" if label in shown else ""}><summary>{words}</summary><div class="panels">'
                     f"{content}</div></details>")
    return "".join(parts)


def _measures(main: Result, columns: dict[str, str], form: Callable) -> list[tuple[str, list[str], bool]]:
    last = len(main.table) - 1
    return [(_flagged(row), [form(row, column) for column in columns], k == last)
            for k, row in enumerate(main.table.itertuples())]


def _thresholds(main: Result) -> str:
    columns = {"threshold": "Threshold", "sensitivity": "Sensitivity", "specificity": "Specificity", "ppv": "PPV",
               "npv": "NPV", "f1": "F1"}

    def form(row, column: str) -> str:
        if column == "threshold":
            return in_digits(row.threshold, 4)
        return with_interval(getattr(row, column), getattr(row, f"{column}_low"), getattr(row, f"{column}_high"))

    note = next((note for note in main.notes if note.startswith("Thresholds:")), "")
    return f"<p>{escaped(note)}</p>" + html_table(
        "Called present at or above the threshold; 95 % bootstrap intervals over patients",
        ["Label", *columns.values()], _measures(main, columns, form),
                                            narrow=True)


def _calibration(main: Result) -> str:
    note = next((note for note in main.notes if note.startswith(("Calibration:", "Scores were not"))
                 or "outside [0, 1]" in note), "")
    if not main.reliability:
        return f"<p>{escaped(note)}</p>"
    columns = {"brier": "Brier score", "brier_calibrated": "after scaling", "calibration_error": "Calibration error",
               "calibration_error_calibrated": "after scaling"}
    rows = _measures(main, columns, lambda row, column: in_digits(getattr(row, column)))
    return f"<p>{escaped(note)}</p>" + html_table(
        "Brier score and expected calibration error (10 equal bins); 0 is perfect", ["Label", *columns.values()], rows)


def _radiologists(findings: Findings) -> str:
    parts = []
    for name, readers in findings.readers.items():
        head = f"<h3>{escaped(name)}</h3>" if len(findings.readers) > 1 else ""
        parts.append(head + _list(readers.notes) + _below(readers) + _f1(readers)
                     + _points_table(readers) + _kappas(readers))
    return "".join(parts)


def _below(readers: Readers) -> str:
    last = len(readers.below) - 1
    rows = [(escaped(row.label), [in_digits(value, 0 if k < last else 1) for value in
                                (row.below_roc, row.strictly_below_roc, row.below_pr)], k == last)
            for k, row in enumerate(readers.below.itertuples())]
    return html_table("Radiologists below the curve",
                      ["Label", "ROC (≥)", "ROC, strictly", "Precision-recall (≥)"], rows)


def _f1(readers: Readers) -> str:
    rows = []
    for row in readers.f1.to_dict("records"):
        cells = [with_interval(row[k], row.get(f"{k}_low", np.nan), row.get(f"{k}_high", np.nan))
                 for k in ("model", "radiologists", "difference")]
        rows.append((escaped(row["label"]), [*cells, escaped(row["sentence"])], False))
    return html_table("F1 against the other raters, with 95 % bootstrap intervals",
                  ["Label", "Predictions", "Radiologists, mean", "Difference", "In words"], rows, text=(4,),
                  narrow=True)


def _points_table(readers: Readers) -> str:
    rows = [(f"{escaped(row.label)}, {escaped(row.radiologist)}",
             [in_digits(v) for v in (row.sensitivity, row.specificity, row.auc, row.precision, row.f1, row.kappa,
                                   row.curve_sensitivity)] + ["below" if row.below_roc else "above"], False)
            for row in readers.points.itertuples()]
    return "<details><summary>Operating points</summary>" + html_table(
        "Each radiologist against the truth; AUC of one point is (sensitivity + specificity) / 2; the curve's "
        "sensitivity is at the radiologist's specificity",
        ["Label, radiologist", "Sensitivity", "Specificity", "AUC", "Precision", "F1", "Kappa", "Curve's sensitivity",
         "Point is"], rows) + "</details>"


def _kappas(readers: Readers) -> str:
    if readers.agreement.empty:
        return ""
    rows = [(escaped(row.label), [escaped(f"{row.first} and {row.second}"), in_digits(row.kappa)], False)
            for row in readers.agreement.itertuples()]
    return "<details><summary>Agreement of radiologists</summary>" + html_table(
        "Cohen's kappa of each pair", ["Label", "Pair", "Kappa"], rows, text=(1,)) + "</details>"


def _comparisons(findings: Findings) -> str:
    parts = []
    for name, table in {**findings.results[0].comparisons, **findings.comparisons}.items():
        last = len(table) - 1
        rows = [(escaped(row.label), [in_digits(row.auroc_first), in_digits(row.auroc_second),
                                    with_interval(row.difference, row.difference_low, row.difference_high),
                                    in_digits(row.p_delong), in_digits(row.p_bootstrap), in_digits(row.p_holm),
                                    escaped(row.verdict)], k == last) for k, row in enumerate(table.itertuples())]
        parts.append(html_table(
            f"{name}: second minus first on the same cases, with paired 95 % bootstrap intervals; p of DeLong's test "
            "and of the bootstrap, and corrected over labels (Holm)",
            ["Label", "First", "Second", "Difference", "p DeLong", "p bootstrap", "p corrected", "In words"], rows,
            text=(7,)))
    return "".join(parts)


def _subgroups(main: Result) -> str:
    if main.subgroups is None:
        return ""
    parts = []
    for column, table in main.subgroups.groupby("by", sort=False):
        groups = table.groupby("group", sort=False)
        head = ["Label", *(f"{escaped(group)}<br>{_units(main, int(part['cases'].iloc[0]))}" for group, part in groups)]
        cells: dict[str, list[str]] = {}
        for _, part in groups:
            for row in part.itertuples():
                mark = '<span class="flag">few</span>' if row.few_positives else ""
                cells.setdefault(row.label, []).append(with_interval(row.auroc, row.auroc_low, row.auroc_high)
                                                       + f' <span class="soft">({_count(row.positives)})</span>{mark}')
        rows = [(escaped(label), found, label == main.mean_name) for label, found in cells.items()]
        parts.append(html_table(f"AUROC by {column}, with 95 % intervals and (positives)", head, rows,
                            narrow=True))
    return "".join(parts)


def _tree(main: Result) -> str:
    if main.tree is None:
        return ""
    total = main.tree["films"].sum()
    given = "conditional" in main.settings
    before, after = main.tree["above_before"].sum(), main.tree["above_after"].sum()
    later = ("no chain rule, for the scores are no probabilities" if main.tree["above_after"].isna().all() else
             f"{int(after):,} after it" if given else
             f"{int(after):,} after the chain rule, if the scores are read as conditional")
    words = (f"A finding is given a higher score than a finding it implies in {before:,} of {total:,} checks"
             f"{' before the chain rule' if given else ''}; {later}. The truth itself breaks the tree in "
             f"{main.tree['truth_broken'].sum():,} of {main.tree['truth_checked'].sum():,} checks.")
    rows = [(f"{escaped(row.child)} implies {escaped(row.parent)}",
             [_count(v) for v in (row.films, row.above_before, row.crossed_before, row.above_after, row.crossed_after,
                                  row.truth_broken)], False) for row in main.tree.itertuples()]
    return f"<p>{words}</p>" + html_table(
        "Contradictions of the disease tree; crossed: child above 0.5 and parent below",
        ["Rule", "Checks", "Child above parent", "Crossed", "Above, after the chain rule", "Crossed, after",
         "Broken by the truth"], rows)


def _settings(main: Result) -> str:
    rows = [(escaped(name.replace("_", " ")), [escaped(", ".join(value) if isinstance(value, list) else
                                                   in_digits(value, 4) if isinstance(value, float) else value)], False)
            for name, value in main.settings.items()]
    return html_table("Settings", ["Setting", "Value"], rows, text=(1,)) + (
        "<p>AUROC: share of pairs of a positive and a negative case in the right order, ties one half. Bootstrap: "
        "patients drawn with replacement, the same draws for all labels and their mean, percentile interval. DeLong: "
        "DeLong et al. 1988, with Obuchowski's variance (1997) where a patient has several cases. Average precision: "
        "without interpolation.</p>")
