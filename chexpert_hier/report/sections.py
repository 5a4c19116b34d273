"""The report's sections: what each says, as plain values for the templates, which escape every name from a file."""

import base64
import dataclasses
import shlex
import sys
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup

from .. import hierarchy, labels, recipes
from ..evaluate import Findings, figures, page
from ..evaluate.frames import rows
from ..evaluate.page import in_digits, line, with_interval
from ..evaluate.units import UNITS
from . import learning, unsure
from .films import Example
from .judged import Run

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
ROWS = {"conditional": "parents present", "all": "all"}
LAYERS = {"head": "last Dense layer"}


def html(run: Run, pictures: figures.Pictures, examples: Sequence[Example] = ()) -> str:
    """The page of a run: results first, then what was done.

    Args:
        run: of `judged.read_run`.
        pictures: of `evaluate.figures`, of its result.
        examples: of `films.examples`.
    """
    findings, made = Findings([run.result]), _macros()
    judged = {anchor: Markup(content) for anchor, _, content in page.sections(findings, pictures)}
    parts = [
        ("results", "AUROC", _results(run) + judged["results"]), ("sets", "Each data set", judged.get("subgroups", "")),
        ("notes", "Read with this", judged["notes"]),
        ("product", "Chain rule on and off", _product(run)), ("tree", "The disease tree", judged.get("tree", "")),
        ("examples", "Films, right and wrong", made.examples(_by_label(examples))),
        ("labels", "Label by label", judged["labels"]), ("thresholds", "At a threshold", judged.get("thresholds", "")),
        ("calibration", "Calibration", judged.get("calibration", "")),
        ("uncertain", "Uncertain cases", _uncertain(run)),
        ("learning", "Learning curves", made.learning(learning.pictures(run.log), list(learning.last_epochs(run.log)))),
        ("recipe", "Recipe and deviations", _recipe(run)), ("data", "Data", _data(run)),
        ("environment", "Environment", made.environment(_environment(run))),
        ("fields", "Every field of the recipe", _fields(run)), ("how", "How it was judged", judged["how"])]
    style = _environment_of_templates().get_template("report.css").render()
    return page.document(f"Run {run.folder.resolve().name}", made.lead(run, _cards(run)),
                         [part for part in parts if part[2].strip()], style)


@cache
def _environment_of_templates() -> jinja2.Environment:
    """The evaluation page's templates with the report's beside them."""
    base = page.environment()
    loader = jinja2.ChoiceLoader([jinja2.PackageLoader("chexpert_hier.report"), base.loader])
    found = base.overlay(loader=loader)
    found.filters = {**base.filters, "jpeg": as_source}
    return found


def _macros() -> Any:
    return _environment_of_templates().get_template("report.html").module


def as_source(jpeg: bytes) -> str:
    """JPEG bytes as the `src` of an HTML image."""
    return "data:image/jpeg;base64," + base64.b64encode(jpeg).decode()


def _cards(run: Run) -> list[tuple[str, str]]:
    mean, cases = run.result.table.iloc[-1], run.result.cases
    cards = [(in_digits(mean.auroc), f"AUROC, {mean.label}, by {cases.unit} (95 % interval {in_digits(mean.auroc_low)} "
                                     f"to {in_digits(mean.auroc_high)})"),
             (f"{len(run.films.keys):,}", f"films of {cases.total_patients:,} patients judged"),
             (f"{run.facts['data']['counts']['train']['films']:,}", "training films"),
             (learning.duration(run.log["seconds"].sum()), "of training")]
    if run.result.tree is not None:
        cards.append((f"{int(run.result.tree['above_after'].sum()):,}", "contradictions of the disease tree after the "
                      f"chain rule, {int(run.result.tree['above_before'].sum()):,} before it"))
    return cards


def _results(run: Run) -> str:
    """The labels below chance, and for CheXpert's own films the paper's row beside the run's."""
    low = [row.label for row in rows(run.result.table.iloc[:-1]) if row.auroc < 0.5]
    return _macros().below_chance(low) + _paper(run)


def _paper(run: Run) -> str:
    """The five labels beside the row of the paper's Table 1 with the run's policy, where the films are CheXpert's."""
    name = labels.Policy.parse(run.recipe.policy).name
    table = run.result.table
    published = recipes.PHAM2019_TABLE_1.get(name) if _paper_recipe(run).name == "pham2019" else None
    chexpert = not run.synthetic and str(run.facts["data"]["name"]).lower().startswith("chexpert")
    if published is None or not chexpert or not set(labels.COMPETITION_LABELS) <= set(table["label"]):
        return ""
    found = table.set_index("label")
    names = [*labels.COMPETITION_LABELS, run.result.mean_name]
    lines = [line(label, [with_interval(*found.loc[label, ["auroc", "auroc_low", "auroc_high"]]), in_digits(value)],
                  label == names[-1]) for label, value in zip(names, published)]
    return _macros().paper(name, lines)


def _product(run: Run) -> str:
    if not run.result.comparisons:
        return ""
    table = next(iter(run.result.comparisons.values()))
    lines = [line(row.label, [in_digits(row.auroc_first), in_digits(row.auroc_second),
                              with_interval(row.difference, row.difference_low, row.difference_high),
                              in_digits(row.p_delong), in_digits(row.p_holm), row.verdict], row.Index == len(table) - 1)
             for row in table.reset_index(drop=True).itertuples()]
    return _macros().product(run.recipe.chain, lines)


def _by_label(examples: Sequence[Example]) -> dict[str, list[Example]]:
    return {label: [one for one in examples if one.label == label]
            for label in dict.fromkeys(one.label for one in examples)}


def _shown(value: object) -> str:
    if isinstance(value, tuple | list):
        return ", ".join(map(str, value)) or "none"
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)


def _paper_recipe(run: Run) -> recipes.Recipe:
    """The recipe of the paper that the run follows: Pham et al.'s for the phantom, else the one of its name."""
    return recipes.RECIPES.get(run.recipe.name if run.recipe.name != "phantom" else "pham2019", recipes.PHAM2019)


def _field_names() -> list[str]:
    return [field.name for field in dataclasses.fields(recipes.Recipe)
            if field.name not in ("name", "source", "stages", "notes")]


def _recipe(run: Run) -> str:
    paper, recipe = _paper_recipe(run), run.recipe
    changed = [name for name in _field_names() if getattr(recipe, name) != getattr(paper, name)]
    changed += ["stages"] if recipe.plan() != paper.plan() else []
    opened = [line(name, [what, _shown(getattr(recipe, name))]) for name, what in OPEN] \
        if paper.name == "pham2019" else []
    few = {"reading": recipe.ct_rows, "share": f"{hierarchy.FEW_SEEN:.0%}", "labels": [
        f"{label} ({share:.0%})" for label, share in run.facts.get("positives_seen", {}).items()
        if share is not None and share < hierarchy.FEW_SEEN]}
    return _macros().recipe(recipe.source[:1].upper() + recipe.source[1:], paper.name, changed, list(_stages(run)), few,
                            opened)


def _fields(run: Run) -> str:
    paper, value = _paper_recipe(run), _macros().value
    lines = []
    for name in _field_names():
        own, usual = _shown(getattr(run.recipe, name)), _shown(getattr(paper, name))
        lines.append(line(name, [value(own, usual), usual]))
    return _macros().fields(paper.name, lines)


def _stages(run: Run) -> Iterator[page.Line]:
    for stage in run.recipe.plan():
        seen = run.log[run.log["stage"] == stage.name]
        rate = f"{stage.learning_rate:g}" + (f", divided by {stage.learning_rate_drop:g} every {stage.drop_every} "
                                             f"epoch{'s' * (stage.drop_every > 1)}" if stage.schedule == "divide" else
                                             f", {stage.schedule}")
        films = f"{int(seen['films'].iloc[-1]):,}" if len(seen) else "–"
        yield line(stage.name, [ROWS.get(stage.rows, stage.rows), films, LAYERS.get(stage.layers, stage.layers),
                                stage.loss, f"{len(seen)} of {stage.epochs}", str(stage.batch_size), rate,
                                learning.duration(seen["seconds"].sum())])


def _data(run: Run) -> str:
    data = run.facts["data"]
    counts = [line(split, [f"{part[name]:,}" for name in ("films", "studies", "patients")])
              for split, part in data["counts"].items() if part["films"]]
    return _macros().data(data, counts, _codes(run))


def _codes(run: Run) -> list[page.Line] | None:
    """How often each label is positive, uncertain, negative, blank, in training and where the run is judged."""
    cases = run.result.cases
    if run.dataset is None:
        return None
    train = run.dataset.split("train").raw
    lines = []
    for k, label in enumerate(run.facts["outputs"]):
        codes = [int((train[:, k] == 1).sum()), int((train[:, k] == -1).sum()), int((train[:, k] == 0).sum()),
                 int(np.isnan(train[:, k]).sum())]
        open_share = codes[1] / max(codes[0] + codes[1], 1)
        at = cases.labels.index(label) if label in cases.labels else None
        known = ["–", "–"] if at is None else [f"{int((cases.truth[:, at] == value).sum()):,}" for value in (1, 0)]
        lines.append(line(label, [*(f"{count:,}" for count in codes), f"{100 * open_share:.0f} %", *known]))
    return lines


def _uncertain(run: Run) -> str:
    targets = unsure.targets(run)
    films, gains = unsure.films(run)
    unit = run.result.cases.unit
    return _macros().uncertain(run.recipe.policy, targets, {"one": unit.capitalize(), "many": UNITS[unit]}, films,
                               gains)


def _environment(run: Run) -> dict[str, object]:
    facts = run.facts
    typed = {"Command": shlex.join(["chexpert_hier.run", *facts["command"]])} if facts.get("command") else {}
    return {**typed, "Started": facts["started"],
            "Seed": run.recipe.seed, "Precision": run.recipe.precision, **facts["versions"],
            "Page written on": sys.platform}
