"""Hierarchical BCE: plain, as published, differentiable, and conditional training, on equal budgets; uncertainty.

    python experiments/hbce.py

The phantom's clean truth stands for VisualCheXbert's labels. Finished runs are kept in `--work`; the result folder gets
the raw outputs, from which `--tables-only` computes the tables.
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from companions import HERE, Bench, bootstrap, half_for_test, heading, interval, read, table, verdict, write_facts

from chexpert_hier import commands, evaluate, hierarchy, labels, recipes
from chexpert_hier.evaluate.tree import totals
from chexpert_hier.files import write_text, written_whole
from chexpert_hier.predict import uncertainty

LOSSES = {
    "BCE": "bce", "literal, fixed": "hbce_literal", "literal, data-driven": "hbce_literal+data-driven",
    "soft, fixed": "hbce_soft", "soft, data-driven": "hbce_soft+data-driven",
    "soft in log space, fixed": "hbce_soft+log",
}
CONDITIONAL = "conditional training"
PASSES = 20
# Asadi et al. 2025: what they released, default_model_predictions_vs_groundtruth_with_errors.csv of their repository
# (the-mercury/CIHMLC, default_model_files/test_predictions/): `<label>_GT` and `<label>_Pred` of 668 films.
RELEASED = "default_model_predictions_vs_groundtruth_with_errors.csv"


def plan(base: recipes.Recipe) -> dict[str, recipes.Recipe]:
    """Name of a run -> its recipe; all see the same number of epochs."""
    stage = base.stages[0]
    runs = {name: replace(base, stages=(replace(stage, loss=loss),)) for name, loss in LOSSES.items()}
    first = replace(stage, loss="bce", rows="conditional", epochs=stage.epochs - stage.epochs // 3, keep="last")
    second = replace(stage, name="stage2", loss="bce", layers="head", epochs=stage.epochs // 3)
    runs[CONDITIONAL] = replace(base, policy="u-ones+ct", product="auto", stages=(first, second))
    return runs


def parser() -> argparse.ArgumentParser:
    answer = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    answer.add_argument("--arch", default="tiny")
    answer.add_argument("--size", type=int, default=64, help="pixels")
    answer.add_argument("--epochs", type=int, default=9)
    answer.add_argument("--seeds", type=int, default=3)
    answer.add_argument("--patients", type=int, default=900, help="training patients of the phantom")
    answer.add_argument("--valid-patients", type=int, default=1600, help="one half chooses the epoch, one half judges")
    answer.add_argument("--phantom-seed", type=int, default=21)
    answer.add_argument("--work", type=Path, default=HERE / "work" / "companions")
    answer.add_argument("--out", type=Path, default=HERE / "results" / "hbce")
    answer.add_argument("--scores", type=Path, metavar="DIR", help=f"folder of the paper's {RELEASED}, to recompute "
                        "its figures; without it those of an earlier call stand")
    answer.add_argument("--tables-only", action="store_true")
    return answer


def main(argv: list[str] | None = None) -> int:
    args = parser().parse_args(argv)
    if not args.tables_only:
        _train_all(args)
    if args.scores:
        write_text(args.out / "published.csv", published(args.scores).to_csv(index=False))
    tables(args.out)
    return 0


def base_recipe(args: argparse.Namespace) -> recipes.Recipe:
    """The published recipe, made small: pixels, epochs, a rate for random weights."""
    stage = replace(recipes.HBCE.stages[0], epochs=args.epochs, learning_rate=1e-3)
    return replace(recipes.HBCE, arch=args.arch, rescaled_size=args.size, crop_size=args.size, image_size=args.size,
                   cache=True, batchnorm_momentum=0.9, train_file="train_truth.csv", stages=(stage,))


def _train_all(args: argparse.Namespace) -> None:
    bench, base = Bench(args.work), base_recipe(args)
    settings = {"patients": args.patients, "valid_patients": args.valid_patients, "seed": args.phantom_seed,
                "laterals": True, "most_studies": 3, "report_noise": 1.0}
    dataset = half_for_test(read(base, bench.phantom(**settings)))
    made = []

    def source():
        made[:] = made or [bench.source(dataset, base)]
        return made[0]

    test = dataset.split("test")
    arrays = {"truth": np.nan_to_num(test.raw).astype(np.int8), "patients": test.films["patient"].to_numpy(str)}
    logs = {}
    for name, recipe in plan(base).items():  # all seeds of a loss one after the other: they share a trace
        for seed in range(args.seeds):
            tag = f"hbce {name} {args.arch} {args.size} {args.epochs} {seed}"
            found = bench.run(tag, replace(recipe, seed=seed), source, "test", _with_dropout if name == "BCE" else None)
            arrays[f"{name}|{seed}"] = found["outputs"].astype(np.float16)
            rows = json.loads(str(found["log"]))
            logs[f"{name}|{seed}"] = [[row["learning_rate"], row["valid_auroc"]] for row in rows]
            if name == "BCE" and seed == 0:
                arrays["passes"] = found["passes"]
    with written_whole(args.out / "outputs.npz") as beside:
        np.savez_compressed(beside, **arrays)
    write_facts(args.out, bench, base, dataset, seeds=args.seeds, runs=list(plan(base)), phantom=settings, logs=logs)


def _with_dropout(network, source) -> dict[str, np.ndarray]:
    """The test films' probabilities in passes with dropout."""
    from chexpert_hier.network.model import feature_model, mc_dropout

    films = source.films("test")
    features = feature_model(network).predict(films.batches(np.arange(len(films)), batch_size=256), verbose=0)
    return {"passes": mc_dropout(network, features.astype(np.float32), PASSES, 0).astype(np.float16)}


# ---------------------------------------------------------------------------------------------------- the tables

def published(folder: Path) -> pd.DataFrame:
    """The figures of the paper's released predictions, computed by this package's evaluation, film by film.

    Returns:
        one row: weighted 21 (mean AUROC weighted by positives, the paper's "mean"), macro 21, five, crossed at 0.5 and
        child > parent (shares of the checks), the two as counts, checks, films.
    """
    path = folder / RELEASED
    result = evaluate.evaluate(
        evaluate.read_predictions(path), evaluate.read_truth(path), evaluate.Joining(unit="film"),
        evaluate.Judging(replicates=0, curves=False, calibrate="none", mean="weighted"))
    plain, weighted = result.means["auroc"]
    edges = totals(result.tree)
    return pd.DataFrame([{
        "weighted 21": weighted, "macro 21": plain, "five": result.table["auroc"].iloc[-1],
        "crossed at 0.5": edges.crossed / edges.checks, "child > parent": edges.above / edges.checks,
        "crossed": edges.crossed, "above": edges.above, "checks": edges.checks, "films": len(result.cases.keys)}])


def tables(out: Path) -> None:
    """Write table.csv, differences.csv, uncertainty.csv and README.md from outputs.npz, facts.json, published.csv."""
    facts, raw = json.loads((out / "facts.json").read_text()), np.load(out / "outputs.npz")
    truth, patients = raw["truth"].astype(np.float32), raw["patients"]
    judged = {name: [_judge(_final(name, raw[f"{name}|{seed}"]), truth, patients) for seed in range(facts["seeds"])]
              for name in facts["runs"]}
    rows = pd.DataFrame([{"loss": name, **{key: float(np.mean([part["point"][key] for part in parts]))
                                           for key in parts[0]["point"]}} for name, parts in judged.items()])
    told = pd.read_csv(out / "published.csv") if (out / "published.csv").exists() else pd.DataFrame()
    if len(told):
        theirs = told[["weighted 21", "macro 21", "five", "crossed at 0.5", "child > parent"]].assign(
            loss=f"published predictions, CheXpert test ({told['films'].iloc[0]} films)")
        rows = pd.concat([rows, theirs], ignore_index=True)
    differences = pd.DataFrame([_difference(name, parts, judged["BCE"], what) for name, parts in judged.items()
                                for what in ("macro 21", "five") if name != "BCE"])
    sure = _uncertainty(raw, truth, facts["seeds"])
    for name, value in (("table", rows), ("differences", differences), ("uncertainty", sure)):
        write_text(out / f"{name}.csv", value.to_csv(index=False, float_format="%.5f"))
    page = _page(facts, rows, differences, sure) + _theirs(told)
    write_text(out / "README.md", page)
    print(page)


def _theirs(told: pd.DataFrame) -> str:
    """The paper's figures, recomputed, in words."""
    if not len(told):
        return ""
    row = told.iloc[0]
    return (f"\nThe published predictions, recomputed by `--scores`: AUROC weighted by positives over 21 outputs "
            f"{row['weighted 21']:.4f} (the paper's \"mean\" AUROC of .903), plain mean {row['macro 21']:.4f}, mean of "
            f"the five {row['five']:.4f}; child above and parent below 0.5 in {row['crossed']:.0f}, child above parent "
            f"in {row['above']:.0f} of {row['checks']:,.0f} checks.\n")


def _final(name: str, outputs: np.ndarray) -> np.ndarray:
    outputs = outputs.astype(np.float64)
    return hierarchy.chain_rule(outputs, hierarchy.HBCE_TREE) if name == CONDITIONAL else outputs


def _judge(p: np.ndarray, truth: np.ndarray, patients: np.ndarray) -> dict:
    areas, drawn = bootstrap(p, truth, patients)
    known = ~np.isnan(areas)
    weights = truth.sum(axis=0)
    five = [hierarchy.HBCE_TREE.labels.index(name) for name in labels.COMPETITION_LABELS]
    edges = hierarchy.contradictions(p, hierarchy.HBCE_TREE)
    point = {"macro 21": areas[known].mean(), "weighted 21": np.average(areas[known], weights=weights[known]),
             "five": areas[five].mean(), "crossed at 0.5": edges.crossed_rate, "child > parent": edges.above_rate,
             "Brier": ((p - truth) ** 2).mean(), "calibration error": _calibration_error(p, truth)}
    return {"point": point, "macro 21": drawn[known].mean(axis=0), "five": drawn[five].mean(axis=0)}


def _calibration_error(p: np.ndarray, truth: np.ndarray, bins: int = 15) -> float:
    """Expected calibration error, mean over the outputs."""
    place, errors = np.minimum((p * bins).astype(int), bins - 1), []
    for k in range(p.shape[1]):
        gap = np.bincount(place[:, k], p[:, k] - truth[:, k], bins)
        errors.append(np.abs(gap).sum() / len(p))
    return float(np.mean(errors))


def _difference(name: str, ours: list[dict], theirs: list[dict], what: str) -> dict:
    """Against BCE, paired within seeds: the same resample of patients and the same seed on both sides."""
    seeds = [a["point"][what] - b["point"][what] for a, b in zip(ours, theirs)]
    low, high = interval(np.mean([a[what] - b[what] for a, b in zip(ours, theirs)], axis=0))
    return {"loss": name, "AUROC": what, "against BCE": float(np.mean(seeds)), "low": low, "high": high,
            "seeds": " ".join(f"{d:+.4f}" for d in seeds), "verdict": verdict(low, high, seeds)}


def _uncertainty(raw, truth: np.ndarray, seeds: int) -> pd.DataFrame:
    """Does uncertainty tell where the call at 0.5 is wrong? Area under risk over coverage, mean over the outputs."""
    samples = {f"dropout, {PASSES} passes": raw["passes"].astype(np.float64),
               f"ensemble of {seeds}": np.stack([raw[f"BCE|{seed}"] for seed in range(seeds)]).astype(np.float64)}
    rows = []
    for name, drawn in samples.items():
        found = uncertainty.decompose(drawn)
        wrong = ((found.mean > 0.5) != (truth == 1)).astype(float)
        order = {"entropy": found.total, "expected entropy": found.expected, "mutual information": found.mutual,
                 "standard deviation": found.sd}
        row = {"samples": name, "errors": float(wrong.mean()),
               "no information": float(np.mean([wrong[:, k].mean() for k in range(wrong.shape[1])])),
               "knowing the errors": _area(wrong, wrong)}
        rows.append(row | {what: _area(values, wrong) for what, values in order.items()}
                    | {"errors in the surest half (entropy)": _surest_half(found.total, wrong)})
    return pd.DataFrame(rows)


def _area(values: np.ndarray, wrong: np.ndarray) -> float:
    return float(np.mean([uncertainty.risk_coverage(values[:, k], wrong[:, k])[2] for k in range(wrong.shape[1])]))


def _surest_half(values: np.ndarray, wrong: np.ndarray) -> float:
    order = np.argsort(values, axis=0, kind="stable")[: len(values) // 2]
    return float(np.take_along_axis(wrong, order, axis=0).mean())


def _page(facts: dict, rows: pd.DataFrame, differences: pd.DataFrame, sure: pd.DataFrame) -> str:
    lines = heading(facts, "Hierarchical BCE: which loss helps what")
    lines += ["Labels of training: the phantom's clean truth, which stands for VisualCheXbert's. The epoch is "
              "chosen on one half of the validation patients (lowest validation loss), everything below is measured on "
              "the other half. Mean over seeds. Contradictions: share of films x 20 edges with the parent below and "
              "the child above 0.5, and with the child above the parent. The last row: another data set, network.", ""]
    lines += table(rows, 4)
    lines += ["Differences of AUROC against BCE, paired within seeds; 95 % interval over patients.", ""]
    lines += [*table(differences, 4), "## What helps what", "", *_statements(rows, differences), *_same_path(facts), ""]
    lines += ["## Uncertainty and errors", "", "Area under the risk-coverage curve (mean error of those answered, "
              "averaged over coverages), mean over the 21 outputs; lower is better, \"no information\" is the error of "
              "answering in any order.", ""]
    return "\n".join(lines + table(sure, 4))


def _statements(rows: pd.DataFrame, differences: pd.DataFrame) -> list[str]:
    """Plain sentences, computed from the tables."""
    by = rows.set_index("loss")
    told = []
    for name in [*LOSSES, CONDITIONAL]:
        if name == "BCE":
            continue
        changes = differences[differences["loss"] == name].set_index("AUROC")["verdict"]
        above, crossed = by.loc[name, "child > parent"], by.loc[name, "crossed at 0.5"]
        told.append(f"- {name}: AUROC over 21 outputs {changes['macro 21']}, over the five {changes['five']}; child "
                    f"above parent {above:.4f} (BCE {by.loc['BCE', 'child > parent']:.4f}), crossed at 0.5 "
                    f"{crossed:.4f} ({by.loc['BCE', 'crossed at 0.5']:.4f}), calibration error "
                    f"{by.loc[name, 'calibration error']:.4f} ({by.loc['BCE', 'calibration error']:.4f}).")
    return told


def _same_path(facts: dict) -> list[str]:
    """How far the literal loss and BCE went the same way: their validation AUROC, epoch by epoch."""
    told = []
    for name in ("literal, fixed", "literal, data-driven"):
        for seed in range(facts["seeds"]):
            ours, plain = facts["logs"][f"{name}|{seed}"], facts["logs"][f"BCE|{seed}"]
            rates = next((k for k, (a, b) in enumerate(zip(ours, plain)) if a[0] != b[0]), len(plain))
            apart = next((k for k, (a, b) in enumerate(zip(ours, plain)) if a[1] != b[1]), len(plain))
            told.append(f"{name}, seed {seed}: {rates + 1} and {apart + 1}")
    return ["- The literal penalty has gradient zero: it trains as BCE does, number for number, until the loss it "
            "reports moves the plateau schedule. Its difference from BCE is that schedule's and the kept epoch's. "
            "First epoch with another rate than BCE's, and with another validation AUROC (one more than there are "
            "epochs: never): " + "; ".join(told) + "."]


if __name__ == "__main__":
    raise SystemExit(commands.answer(main))
