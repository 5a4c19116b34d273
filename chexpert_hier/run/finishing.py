"""What is done after training: predictions, evaluation, export, report."""

import argparse
import logging
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from .. import hierarchy, recipes, tracking
from ..files import write_text
from .opening import Job

if TYPE_CHECKING:
    from ..evaluate import Result
    from ..finished.members import Member
    from ..prepare.sources import Films

log = logging.getLogger("chexpert_hier.run")
LARGE = 1_000_000  # weights; a smaller network is exported sooner than a process for the pictures has started
CHECKED_FILMS = 100  # sent through the reloaded SavedModel


def finish(args: argparse.Namespace, job: Job, conditional: np.ndarray, judged: "Films", out: Path) -> None:
    """What is done after training: predictions, evaluation, export, report.

    Args:
        args: the flags.
        job: what was run.
        conditional: outputs for the judged films, float32 (n, labels).
        judged: these films.
        out: the run folder.
    """
    settings, tree, recipe, steps = job.settings, job.tree, job.settings.recipe, job.steps
    answers = _predictions(recipe, tree, conditional, judged, out)
    with steps("evaluation"):
        result = _evaluate(recipe, tree, judged, answers, out)
    from ..finished import members
    from ..report import page

    apart = job.network.count_params() >= LARGE and not args.no_export
    with page.drawn_beside(result, out, apart, settings.data) as drawn:
        member = members.open_run(out)  # from its file, as `export` does: the same bytes
        if not args.no_export:
            with steps("export"):
                _export(member, judged, answers)
        with steps("report"):
            page.write(out, member=member, drawn=drawn())
    if args.mlflow is not None:
        tracking.log_run(out, args.mlflow or None)
    print(f"run folder: {out}\nreport: {out / 'report.html'}")


def _predictions(recipe: recipes.Recipe, tree: hierarchy.Tree, conditional: np.ndarray, valid: "Films", out: Path
                 ) -> pd.DataFrame:
    """The judged films' probabilities: before the chain rule in conditional.csv, after it in predictions.csv."""
    final = hierarchy.chain_rule(conditional, tree) if recipe.chain else conditional
    tables = {}
    for name, values in (("conditional", conditional), ("predictions", final)):
        tables[name] = pd.DataFrame(values, columns=list(valid.labels))
        tables[name].insert(0, "Path", valid.dataset.films["path"])
        write_text(out / f"{name}.csv", tables[name].to_csv(index=False, float_format="%.9g"))
    truth = valid.dataset.films[["path", "sex", "age", "projection", *valid.labels]].rename(
        columns={"path": "Path", "sex": "Sex", "age": "Age", "projection": "AP/PA"})
    truth[list(valid.labels)] = valid.dataset.truth
    if valid.dataset.roots:
        truth["Set"] = valid.dataset.sets
    write_text(out / "truth.csv", truth.to_csv(index=False))
    return tables["predictions"]


def _evaluate(recipe: recipes.Recipe, tree: hierarchy.Tree, valid: "Films", answers: pd.DataFrame, out: Path
              ) -> "Result":
    """Judge the run: a study's score is that of its films (deviations D9), with and without the chain rule (C10).

    Films without studies in their paths (ChestX-ray14) are judged as films.
    """
    from .. import evaluate
    from ..evaluate.runs import joining_of

    joining = joining_of(recipe, valid.labels, list(answers["Path"]), list(valid.dataset.films["patient"]))
    result = evaluate.evaluate(answers, pd.read_csv(out / "truth.csv"), joining, evaluate.Judging(
        seed=recipe.seed, tree=tree, name=recipe.name, by=("Set",) if valid.dataset.roots else ()),
        conditional=pd.read_csv(out / "conditional.csv"))
    evaluate.write(result, out, page=False)
    print(table(result.table))
    return result


def table(rows: pd.DataFrame) -> str:
    """The AUROCs with their 95 % intervals as lines of text."""
    lines = [f"{'':<28}{'AUROC':>7}  {'95 % interval':<16}{'positives':>10}{'negatives':>11}"]
    for row in rows.to_dict("records"):
        interval = f"{row['auroc_low']:.3f} to {row['auroc_high']:.3f}"
        counts = "" if pd.isna(row["positives"]) else f"{row['positives']:>10.0f}{row['negatives']:>11.0f}"
        lines.append(f"{row['label']:<28}{row['auroc']:>7.3f}  {interval:<16}{counts}")
    return "\n".join(lines)


def _export(member: "Member", valid: "Films", answers: pd.DataFrame) -> None:
    """The ONNX file where its packages are installed, and under TensorFlow the SavedModel."""
    import keras

    from ..export import onnx, saved_model
    from ..finished import members, onnx_network

    out = member.folder
    if onnx_network.installed() and member.recipe.precision == "float32":  # its numbers are float32's
        worst = onnx.export([member], out / members.ONNX)
        log.info("export: %s (in ONNX Runtime at most %.1g from the network)", out / members.ONNX, worst)
    if keras.backend.backend() != "tensorflow":
        log.info("the SavedModel is left out: it needs the TensorFlow backend, this is %s", keras.backend.backend())
        return
    log.info("export: %s", out / "saved_model")
    saved_model.export([member], out / "saved_model")
    films = range(0, len(valid), max(1, len(valid) // CHECKED_FILMS))
    worst = saved_model.check(out / "saved_model", [valid.dataset.files[k] for k in films],
                              answers[list(valid.labels)].to_numpy()[list(films)])
    if worst == worst:
        log.info("reloaded in TensorFlow: %d films give the run's own probabilities (largest difference %.1g)",
                 len(films), worst)
