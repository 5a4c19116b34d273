"""The report's sections as HTML. Every name that came from a file is escaped; pictures lie inside the page."""

import dataclasses
import shlex
import sys
from collections.abc import Sequence

import numpy as np
import pandas as pd

from .. import hierarchy, labels, recipes
from ..evaluate import Findings, figures, page
from ..evaluate.names import mean_labels
from ..evaluate.page import escaped, html_table, in_digits, with_interval
from ..predict import uncertainty
from .films import Example, as_source

# Where Pham et al. 2019 are silent or inconsistent: field, what the paper leaves open (section), as in
# docs/deviations.md.
OPEN = (
    ("views", "“frontal-view”, yet “over 200,000” films (1)"), ("blank", "blank cells are never mentioned (4.1)"),
    ("lsr_draw", "one random target per cell or a fresh one per epoch (3.3)"),
    ("drop_uncertain_rows", "U-Ignore: leave out the cell or the film (3.3)"),
    ("closure", "child positive, parent blank (3.2)"),
    ("ct_rows", "which films stage 1 learns from; the sentence leaves 209 (3.2)"),
    ("product", "product of probabilities although stage 2 is unconditional (3.2)"),
    ("crop", "where the template comes from, and its score (4.2)"),
    ("resize", "interpolation and aspect ratio of the rescaling (4.2)"),
    ("normalise", "ImageNet statistics also where the weights expect others (4.2)"),
    ("augment", "no augmentation in training is stated (4.3)"),
    ("study_score", "the score of a study with two films (4.1)"), ("seed", "no seeds, repeats or intervals"),
)
STYLE = """
.note{border-left:4px solid var(--warn);background:#fdf6ee;padding:.6rem .9rem;margin:1rem 0;border-radius:.25rem}
td.changed{font-weight:600;color:var(--warn)}dl{display:grid;grid-template-columns:minmax(8rem,max-content) 1fr;
gap:.2rem 1rem;margin:.6rem 0}dt{color:var(--soft)}dd{margin:0;overflow-wrap:anywhere}
.films{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(15rem,100%),1fr));gap:1rem;margin:.6rem 0 1.4rem}
.films figure{background:var(--wash);border-radius:.5rem;padding:.6rem}.films .pair{display:flex;gap:.3rem}
.films .pair img{width:50%;min-width:0}.films figcaption{margin-top:.4rem;overflow-wrap:anywhere}
.films figcaption b{color:var(--ink)}
@media(max-width:34rem){dl{grid-template-columns:1fr}dd{margin-bottom:.4rem}}
"""


def html(run, examples: Sequence[Example] = ()) -> str:
    """The page of a run.

    Args:
        run: of `report.read_run`.
        examples: of `report_films.examples`.
    """
    findings = Findings([run.result])
    judged = {anchor: content for anchor, _, content in page.sections(findings, figures.draw(findings))}
    parts = [
        ("recipe", "Recipe and deviations", _recipe(run)), ("data", "Data", _data(run)),
        ("learning", "Learning curves", _learning(run.log)),
        ("results", "AUROC", _paper(run) + judged["results"]), ("notes", "Read with this", judged["notes"]),
        ("product", "Chain rule on and off", _product(run, judged)), ("tree", "The disease tree", judged.get("tree")),
        ("labels", "Label by label", judged["labels"]), ("calibration", "Calibration", judged.get("calibration")),
        ("thresholds", "At a threshold", judged.get("thresholds")), ("examples", "Films, right and wrong",
                                                                      _examples(run, examples)),
        ("uncertain", "Uncertain cases", _uncertain(run)), ("environment", "Environment", _environment(run)),
        ("how", "How it was judged", judged["how"])]
    return page.document(f"Run {run.folder.resolve().name}", _lead(run), [part for part in parts if part[2]], STYLE)


def _lead(run) -> str:
    mean, cases = run.result.table.iloc[-1], run.result.cases
    cards = [(in_digits(mean.auroc), f"AUROC, {mean.label} (95 % interval {in_digits(mean.auroc_low)} to "
                                     f"{in_digits(mean.auroc_high)})"),
             (f"{len(run.films.keys):,}", f"films of {cases.total_patients:,} patients judged"),
             (f"{run.facts['data']['counts']['train']['films']:,}", "training films"),
             (_duration(run.log["seconds"].sum()), "of training")]
    if run.result.tree is not None:
        cards.append((f"{int(run.result.tree['above_after'].sum()):,}", "contradictions of the disease tree after the "
                      f"chain rule, {int(run.result.tree['above_before'].sum()):,} before it"))
    words = (f'<p class="lead">Recipe {escaped(run.recipe.name)}, {escaped(run.recipe.arch)}, policy '
             f"{escaped(run.recipe.policy)}, on {escaped(run.facts['data']['name'])}</p>")
    note = ('<p class="note"><b>Synthetic films.</b> These films were drawn by a program; no number here says anything '
            "about real chest X-rays, and none can be compared with a published one.</p>" if run.synthetic else "")
    return words + note + page.html_cards(cards)


def _duration(seconds: float) -> str:
    hours, rest = divmod(round(seconds), 3600)
    return f"{hours} h {rest // 60} min" if hours else f"{rest // 60} min {rest % 60} s" if rest >= 60 else f"{rest} s"


def _shown(value: object) -> str:
    if isinstance(value, tuple | list):
        return ", ".join(map(str, value)) or "none"
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)


def _paper_recipe(run) -> recipes.Recipe:
    """The recipe of the paper that the run follows: Pham et al.'s for the phantom, else the one of its name."""
    return recipes.RECIPES.get(run.recipe.name if run.recipe.name != "phantom" else "pham2019", recipes.PHAM2019)


def _recipe(run) -> str:
    paper, recipe = _paper_recipe(run), run.recipe
    fields = [field.name for field in dataclasses.fields(recipes.Recipe)
              if field.name not in ("name", "source", "stages", "notes")]
    rows = [(escaped(name), [_marked(_shown(getattr(recipe, name)), _shown(getattr(paper, name))),
                             escaped(_shown(getattr(paper, name)))], False) for name in fields]
    changed = [name for name in fields if getattr(recipe, name) != getattr(paper, name)]
    changed += ["stages"] if recipe.plan() != paper.plan() else []
    words = (f"<p>{escaped(recipe.source[:1].upper() + recipe.source[1:])}.</p><p>" +
             (f"It departs from the recipe {escaped(paper.name)} in {len(changed)} fields: "
              f"{escaped(', '.join(changed))}." if changed else
              f"Every field is that of the recipe {escaped(paper.name)}.") + "</p>")
    opened = ""
    if paper.name == "pham2019":
        opened = html_table(
            "Where the paper (section) is silent or inconsistent, and what this run does",
            ["Field", "The paper leaves open", "This run"],
            [(escaped(name), [escaped(what), escaped(_shown(getattr(recipe, name)))], False) for name, what in OPEN],
            text=(1, 2))
    every = html_table(f"Fields of the recipe beside {paper.name}", ["Field", "This run", escaped(paper.name)], rows,
                       text=(1, 2))
    return words + _stages(run) + opened + f"<details><summary>Every field</summary>{every}</details>"


def _marked(value: str, usual: str) -> str:
    flag = "" if value == usual else '<span class="flag">differs</span>'
    return escaped(value) + flag


def _stages(run) -> str:
    rows = []
    for stage in run.recipe.plan():
        seen = run.log[run.log["stage"] == stage.name]
        rate = f"{stage.learning_rate:g}" + (f", divided by {stage.learning_rate_drop:g} every {stage.drop_every} "
                                             f"epoch{'s' * (stage.drop_every > 1)}" if stage.schedule == "divide" else
                                             f", {stage.schedule}")
        films = f"{int(seen['films'].iloc[-1]):,}" if len(seen) else "–"
        rows.append((escaped(stage.name), [escaped(v) for v in (
            {"conditional": "parents present", "all": "all"}.get(stage.rows, stage.rows), films,
            {"head": "last Dense layer"}.get(stage.layers, stage.layers), stage.loss, f"{len(seen)} of {stage.epochs}",
            stage.batch_size, rate, _duration(seen["seconds"].sum()))], False))
    columns = ["Stage", "Films", "How many", "Layers", "Loss", "Epochs", "Batch", "Learning rate", "Time"]
    return html_table("What was trained, stage by stage", columns, rows, text=(1, 3, 4, 7)) + _few_seen(run)


def _few_seen(run) -> str:
    """The labels that conditional training's stage 1 hardly sees."""
    few = [f"{escaped(label)} ({share:.0%})" for label, share in run.facts.get("positives_seen", {}).items()
           if share is not None and share < hierarchy.FEW_SEEN]
    return (f"<p>Stage 1 (ct_rows {escaped(run.recipe.ct_rows)}) sees under {hierarchy.FEW_SEEN:.0%} of the positives "
            f"of {', '.join(few)}: what is known of these comes from stage 2.</p>") if few else ""


def _data(run) -> str:
    data = run.facts["data"]
    rows = [(split, [f"{part[name]:,}" for name in ("films", "studies", "patients")], False)
            for split, part in data["counts"].items() if part["films"]]
    words = f"<dl><dt>Read from</dt><dd>{escaped(data['root'])}</dd><dt>Split</dt><dd>no patient in two parts; " \
            f"split.csv lists every film</dd><dt>Fingerprint</dt><dd>{escaped(data['fingerprint'])}</dd></dl>"
    counts = html_table("Films, studies and patients", ["Part", "Films", "Studies", "Patients"], rows)
    return words + counts + _codes(run)


def _codes(run) -> str:
    """How often each label is positive, uncertain, negative, blank, in training and validation."""
    cases = run.result.cases
    if run.dataset is None:
        return "<p>The films are no longer where recipe.json says, so that training labels cannot be counted.</p>"
    train = run.dataset.split("train").raw
    rows = []
    for k, label in enumerate(run.facts["outputs"]):
        codes = [int((train[:, k] == 1).sum()), int((train[:, k] == -1).sum()), int((train[:, k] == 0).sum()),
                 int(np.isnan(train[:, k]).sum())]
        open_share = codes[1] / max(codes[0] + codes[1], 1)
        at = cases.labels.index(label) if label in cases.labels else None
        known = ["–", "–"] if at is None else [f"{int((cases.truth[:, at] == value).sum()):,}" for value in (1, 0)]
        rows.append((escaped(label), [*(f"{count:,}" for count in codes), f"{100 * open_share:.0f} %", *known], False))
    return html_table("Labels in training (as the reports were read) and where the run is judged; the share is "
                      "uncertain of positive and uncertain", ["Label", "Positive", "Uncertain", "Negative", "Blank",
                                                 "Uncertain share", "Judged positive", "negative"], rows)


def _learning(log: pd.DataFrame) -> str:
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(figures.STYLE):
        pictures = [_curve(log, {"loss": "training", "valid_loss": "validation"}, "loss", Figure),
                    _curve(log, {"valid_auroc": "validation"}, "AUROC, validation", Figure)]
    last = log.groupby("stage", sort=False).tail(1)
    rows = [(escaped(row.stage), [str(row.epoch), f"{row.learning_rate:.0e}", in_digits(row.loss, 4),
                                  in_digits(row.valid_loss, 4), in_digits(row.valid_auroc)], False)
            for row in last.itertuples()]
    return ('<p class="soft">Training and validation losses are not on one scale: training targets are smoothed and in '
            "stage 1 only cells with present parents count; in validation every known cell counts. AUROC is the "
            "network's own, before the chain rule.</p>"
            '<div class="panels">' + "".join(map(page.html_image, pictures)) + "</div>" + html_table(
                "The last epoch of each stage", ["Stage", "Epoch", "Learning rate", "Training loss", "Validation loss",
                                                 "Validation AUROC"], rows))


def _curve(log: pd.DataFrame, columns: dict[str, str], what: str, figure_class) -> figures.Picture:
    figure = figure_class(figsize=(4.4, 3.2), layout="constrained")
    axes = figure.subplots()
    epoch = np.arange(1, len(log) + 1)
    starts = [0, *(np.flatnonzero(log["stage"].to_numpy()[1:] != log["stage"].to_numpy()[:-1]) + 1)]
    for place, (column, name) in enumerate(columns.items()):
        for part in np.split(np.arange(len(log)), starts[1:]):
            axes.plot(epoch[part], log[column].to_numpy()[part], figures.DASHES[place], color=figures.COLOURS[place],
                      marker=figures.MARKERS[place], markersize=3, label=name if part[0] == 0 else None)
    for number, start in enumerate(starts):
        if start:
            axes.axvline(start + 0.5, color="#888888", linewidth=0.8, linestyle=":")
        axes.annotate(str(log["stage"].iloc[start]).replace("$", r"\$"), (start + 0.6, 1.0 + 0.06 * (number % 2)),
                      xycoords=("data", "axes fraction"), va="bottom", fontsize=8, color="#505a66")
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


def _paper(run) -> str:
    """The five labels beside the row of the paper's Table 1 that has the run's policy."""
    name = labels.Policy.parse(run.recipe.policy).name
    table = run.result.table
    published = recipes.PHAM2019_TABLE_1.get(name) if _paper_recipe(run).name == "pham2019" else None
    if published is None or not set(labels.COMPETITION_LABELS) <= set(table["label"]):
        return ""
    found = table.set_index("label")
    names = [*labels.COMPETITION_LABELS, run.result.mean_name]
    rows = [(escaped(label), [with_interval(*found.loc[label, ["auroc", "auroc_low", "auroc_high"]]),
                              in_digits(value)], label == names[-1])
            for label, value in zip(names, published)]
    return html_table(f"This run, and the paper's row “{name}” (Pham et al. 2019, Table 1: DenseNet-121 on CheXpert's "
                      "own validation films, without intervals). The two can be compared only where this run was "
                      "trained and judged on CheXpert", ["Label", "This run", "The paper"], rows, narrow=True)


def _product(run, judged: dict) -> str:
    if "comparison" not in judged:
        return ""
    state = "on" if run.recipe.chain else "off"
    return (f"<p>The run reports its probabilities with the chain rule {state} (predictions.csv); the other column is "
            "what the same network gives with nothing else changed (first: off, second: on). Each label's "
            "probability is multiplied by those of the findings that it implies.</p>" + judged["comparison"])


def _examples(run, examples: Sequence[Example]) -> str:
    if not examples:
        return "<p>Left out: the films or the network could not be read when this page was written.</p>"
    parts = ['<p class="soft">For each finding the case the run was most sure of, right and wrong. Left the film, '
             "right the evidence for the finding (class activation map; yellow is strongest), drawn where it reaches a "
             "fifth of its maximum; no colour: no place speaks for it. A map shows where the network's evidence "
             "lies, not why, and not that it is right.</p>"]
    for label in dict.fromkeys(example.label for example in examples):
        shown = [_figure(example) for example in examples if example.label == label]
        parts.append(f'<h3>{escaped(label)}</h3><div class="films">{"".join(shown)}</div>')
    return "".join(parts)


def _figure(example: Example) -> str:
    what = f"{example.label}, {example.kind.lower()}, probability {example.probability:.2f}"
    return (f'<figure><div class="pair"><img loading="lazy" alt="Film {escaped(example.path)}" '
            f'src="{as_source(example.film)}"><img loading="lazy" alt="The same film with the map of '
            f'{escaped(what)}" src="{as_source(example.overlay)}"></div><figcaption>'
            f"<b>{escaped(example.kind)}</b>, probability {example.probability:.2f}<br>{escaped(example.path)}"
            "</figcaption></figure>")


def _uncertain(run) -> str:
    return _uncertain_labels(run) + _unsure_films(run)


def _uncertain_labels(run) -> str:
    """What the policy made of the training reports' "uncertain"."""
    recipe = run.recipe
    if run.dataset is None or recipe.three_class or recipe.labelling.parsed.rule.predictions:
        return ""
    train = run.dataset.split("train")
    targets = labels.targets(train.codes, train.keys, train.labels, recipe.labelling)
    rows = []
    for k, label in enumerate(train.labels):
        open_cells = targets[train.raw[:, k] == -1, k]
        known = open_cells[~np.isnan(open_cells)]
        made = "not learned from" if not len(known) else f"{known.mean():.2f} ({known.min():.2f} to {known.max():.2f})"
        if len(open_cells):
            rows.append((escaped(label), [f"{len(open_cells):,}", made], False))
    return html_table(f"Uncertain labels of the training films and the targets that the policy {recipe.policy} made of "
                      "them: mean (lowest to highest)", ["Label", "Uncertain", "Target"], rows) if rows else ""


def _unsure_films(run) -> str:
    """The films whose calibrated answers are nearest to a coin's, and what leaving them out would gain."""
    result, cases = run.result, run.result.cases
    if result.calibrated is None:
        return ""
    five = [cases.labels.index(label) for label in mean_labels(cases.labels).labels]
    entropy = uncertainty.entropy(result.calibrated)
    unsure = entropy[:, five].mean(1)
    rows = []
    for case in np.argsort(-unsure, kind="stable")[:8]:
        k = five[int(entropy[case, five].argmax())]
        truth = {1.0: "present", 0.0: "absent"}.get(cases.truth[case, k], "unknown")
        rows.append((escaped(cases.labels[k]), [in_digits(result.calibrated[case, k], 2), truth,
                                                in_digits(unsure[case]), escaped(labels.key(cases.keys[case]))], False))
    films = html_table(f"The {page.UNITS[cases.unit]} the network is least sure of: entropy of the calibrated "
                       "probabilities, mean over the labels of the mean (at most 0.693)",
                       ["Least sure of", "Calibrated probability", "Truth",
                        "Entropy", cases.unit.capitalize()], rows, text=(4,))
    gains = [(escaped(cases.labels[k]), _selective(entropy[:, k], result.calibrated[:, k], cases.truth[:, k]), False)
             for k in five]
    return films + html_table("Answering only where it is surest: Brier score of the calibrated probabilities "
                              "(0 is perfect)", ["Label", "All", "Surest 80 %", "Surest 50 %"], gains)


def _selective(entropy: np.ndarray, probability: np.ndarray, truth: np.ndarray) -> list[str]:
    coverage, risk, _ = uncertainty.risk_coverage(entropy, (probability - truth) ** 2)
    return [in_digits(risk[np.searchsorted(coverage, share)]) if len(risk) else "–" for share in (1.0, 0.8, 0.5)]


def _environment(run) -> str:
    facts = run.facts
    told = {"Command": shlex.join(["chexpert_hier.run", *facts["command"]]), "Started": facts["started"],
            "Seed": run.recipe.seed, "Precision": run.recipe.precision, **facts["versions"],
            "Page written on": sys.platform}
    return "<dl>" + "".join(f"<dt>{escaped(name)}</dt><dd>{escaped(value)}</dd>" for name, value in told.items()) + (
        "</dl><p>recipe.json holds all of this; <code>python -m chexpert_hier.run --like RUN --out NEW</code> repeats "
        "the run.</p>")
