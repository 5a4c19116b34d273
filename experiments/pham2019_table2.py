"""Table 2, Figure 4 and Figure 5 of Pham et al. 2019: single networks, test-time augmentation, the ensemble.

    python experiments/pham2019_table2.py                                   # members trained on the phantom
    python experiments/pham2019_table2.py --runs RUN RUN ... --films CheXpert-v1.0-small/valid.csv

Trains the members that are missing (or takes finished runs), predicts the validation films with each one and with all
of them, without and with ten random views, and judges everything beside the paper's rows. What is done is kept in
`--work`.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
from companions import circumstances

from chexpert_hier import commands, evaluate
from chexpert_hier.evaluate import comparison
from chexpert_hier.evaluate.ranking import roc_curve
from chexpert_hier.files import write_text, written_whole
from chexpert_hier.labels import COMPETITION_LABELS
from chexpert_hier.phantom import making
from chexpert_hier.recipes import SIX

HERE = Path(__file__).parent
# Pham et al. 2019, Table 2: AT, CM, CO, ED, PE, mean, on CheXpert's 200 validation studies.
PAPER = {
    "Ignore-LP (Pham et al., citing [46])": (.720, .870, .770, .870, .900, .826),
    "Ignore-BR (Pham et al., citing [46])": (.720, .880, .770, .870, .900, .828),
    "Ignore-CC (Pham et al., citing [46])": (.700, .870, .740, .860, .900, .814),
    "U-Ignore (Irvin et al.)": (.818, .828, .938, .934, .928, .889),
    "U-Zeros (Irvin et al.)": (.811, .840, .932, .929, .931, .888),
    "U-Ones (Irvin et al.)": (.858, .832, .899, .941, .934, .893),
    "U-SelfTrained (Irvin et al.)": (.833, .831, .939, .935, .932, .894),
    "U-MultiClass (Irvin et al.)": (.821, .854, .937, .928, .936, .895),
    "U-Ones+CT+LSR, DenseNet-121 (Pham et al., Table 1)": (.825, .855, .937, .930, .923, .894),
    "ensemble of six, 10 views (Pham et al.)": (.909, .910, .957, .958, .964, .940),
}
PHANTOM = {"patients": 2200, "valid_patients": 1000, "seed": 21, "report_noise": 0.3, "laterals": False,
           "most_studies": 3}


def main(argv: list[str] | None = None) -> int:
    args = parser().parse_args(argv)
    if args.tables_only:
        write_page(args.out)
        return 0
    began = time.monotonic()
    data = args.data or (None if args.runs else making.ensure(args.work / "phantom", **PHANTOM))
    runs = args.runs or _train(args, data)
    films = args.films or data / "valid.csv"
    members = {f"{k + 1} {run.name}": [run] for k, run in enumerate(runs)} | {f"ensemble of {len(runs)}": runs}
    files = {}
    for name, models in members.items():
        for views in (0, args.tta):
            files[name, views] = _predict(args, name, models, views, films)
    results = _judge(args, files, films)
    _write(args, results, films, runs, time.monotonic() - began)
    return 0


def parser() -> argparse.ArgumentParser:
    answer = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    answer.add_argument("--data", type=Path, help="CheXpert, to train the members on; without it the phantom")
    answer.add_argument("--runs", type=Path, nargs="+", help="finished runs as members")
    answer.add_argument("--films", type=Path, help="CSV of films with truth (the data's valid.csv)")
    answer.add_argument("--arch", nargs="+", default=list(SIX), help="members to train, seeds 0, 1, ... in order")
    answer.add_argument("--recipe", help="pham2019 with --data, phantom without")
    answer.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE")
    answer.add_argument("--tta", type=int, default=10)
    answer.add_argument("--radiologists", type=Path, nargs="*", default=[], help="files of 1 and 0 for Figure 4")
    answer.add_argument("--work", type=Path, default=HERE / "work" / "table2")
    answer.add_argument("--out", type=Path, default=HERE / "results" / "pham2019_table2")
    answer.add_argument("--tables-only", action="store_true", help="write the page again, from the tables that are "
                        "there, those of pham2019_table2_ignore.py among them")
    return answer


def _train(args, data: Path) -> list[Path]:
    """Each member in a process of its own, so that its memory goes back; a finished one is left as it is."""
    runs = []
    for seed, arch in enumerate(args.arch):
        run = args.work / f"{arch}-{seed}"
        if not (run / "evaluation.csv").exists():
            recipe = args.recipe or ("pham2019" if args.data else "phantom")
            command = [sys.executable, "-m", "chexpert_hier.run", "--data", data, "--recipe", recipe, "--arch", arch,
                       "--seed", seed, "--out", run, "--resume", "--no-export",
                       *(part for text in args.set for part in ("--set", text))]
            subprocess.run([str(part) for part in command], check=True)
        runs.append(run)
    return runs


def _predict(args, name: str, models: list[Path], views: int, films: Path) -> Path:
    out = args.work / f"{name.replace(' ', '-')}-tta{views}.csv"
    if not out.exists():
        command = [sys.executable, "-m", "chexpert_hier.predict", films, "--model", *models, "--tta", views,
                   "--out", out, "--resume", "--skip-bad"]
        subprocess.run([str(part) for part in command], check=True)
    return out


def _judge(args, files: dict, films: Path) -> dict:
    truth = evaluate.read_truth(films)
    joining = evaluate.Joining(unit="study", intersect=True)
    return {place: evaluate.evaluate(evaluate.read_predictions(file), truth, joining, evaluate.Judging(
        name=f"{place[0]}{', 10 views' if place[1] else ''}")) for place, file in files.items()}


def _write(args, results: dict, films: Path, runs: list[Path], seconds: float) -> None:
    rows = []
    for (name, views), result in results.items():
        table = result.table.set_index("label")
        mean = table.loc["mean of five"]
        rows.append({"method": name, "views": views,
                     **{label: table.loc[label, "auroc"] for label in COMPETITION_LABELS},
                     "mean": mean["auroc"], "low": mean["auroc_low"], "high": mean["auroc_high"]})
    table = pd.DataFrame(rows)
    ensemble = list(results)[-1][0]
    singles = [place for place in results if place[0] != ensemble]
    best = max((place for place in singles if place[1] == 0), key=lambda place: table[
        (table["method"] == place[0]) & (table["views"] == 0)]["mean"].iloc[0])
    pairs = [((ensemble, 0), (ensemble, args.tta)), (best, (ensemble, 0)), (best, (ensemble, args.tta))]
    compared = []
    for first, second in pairs:
        named = results[first].name, results[second].name
        found = comparison.compare(results[first].cases, results[second].cases, named).set_index("label")
        compared.append({"comparison": f"{named[1]} against {named[0]}", **found.loc["mean of five"].to_dict()})
    write_text(args.out / "table.csv", table.to_csv(index=False, float_format="%.6f"))
    write_text(args.out / "differences.csv", pd.DataFrame(compared).to_csv(index=False, float_format="%.4f"))
    _figure4(args, results[ensemble, args.tta], args.out / "figure4.png")
    _figure5(args, results[ensemble, args.tta], films, args.out / "figure5.png")
    facts = {**circumstances(), "seconds": round(seconds),
             "members": [_described(json.loads((run / "recipe.json").read_text())["recipe"]) for run in runs],
             "phantom": None if args.data or args.runs else PHANTOM, "films": len(results[ensemble, 0].cases.keys)}
    write_text(args.out / "facts.json", json.dumps(facts, indent=1))
    write_page(args.out)


def write_page(out: Path) -> None:
    """README.md from facts.json, table.csv, differences.csv and, where it is there, ignore.csv."""
    facts = json.loads((out / "facts.json").read_text())
    table, compared = pd.read_csv(out / "table.csv"), pd.read_csv(out / "differences.csv")
    ignore = None
    if (out / "ignore.csv").exists():
        ignore = pd.read_csv(out / "ignore.csv"), json.loads((out / "ignore.json").read_text())
    write_text(out / "README.md", page(facts, table, compared, ignore))


def _described(recipe: dict) -> str:
    weights = "random" if recipe["weights"] == "none" else recipe["weights"]
    return f"{recipe['arch']} at {recipe['image_size']} pixels from {weights} weights"


def page(facts: dict, table: pd.DataFrame, compared: pd.DataFrame,
         ignore: tuple[pd.DataFrame, dict] | None = None) -> str:
    """The result page; `ignore` is what pham2019_table2_ignore.py found, table and facts."""
    lines = ["# Table 2 of Pham et al. 2019", "",
             f"`{' '.join(facts['command'])}`, {facts['date']}, {facts['machine']}.",
             f"Members: {', '.join(facts['members'])}. {facts['films']:,} studies"
             + (f" of the phantom (synthetic; {facts['phantom']})." if facts["phantom"] else "."), "",
             "The paper's rows are CheXpert's validation set and no target for synthetic films.", "",
             "| method | " + " | ".join(COMPETITION_LABELS) + " | mean | 95 % interval |", "|---|" + "---|" * 7]
    for row in table.to_dict("records"):
        name = row["method"] + (f", {row['views']} views" if row["views"] else "")
        lines.append(f"| {name} | " + " | ".join(f"{row[label]:.3f}" for label in COMPETITION_LABELS)
                     + f" | {row['mean']:.3f} | {row['low']:.3f} to {row['high']:.3f} |")
    for row in ignore[0].to_dict("records") if ignore else ():
        lines.append(f"| {row['method']} | " + " | ".join(f"{row[label]:.3f}" for label in COMPETITION_LABELS)
                     + f" | {row['mean']:.3f} | {row['low']:.3f} to {row['high']:.3f} |")
    lines += [f"| *{name}* | " + " | ".join(f"{v:.3f}" for v in values) + " | |" for name, values in PAPER.items()]
    if ignore:
        films = ignore[1]["films"]
        lines += ["", f"Ignore-BR, -LP and -CC (`{' '.join(ignore[1]['command'])}`, {ignore[1]['date']}): logistic "
                  f"regressions on {ignore[1]['features']:,} features of {ignore[1]['network']}; uncertain labels are "
                  f"left out: of {films['train']:,} training films {films['complete']:,} have none among the five and "
                  "serve label powerset and classifier chains."]
        if "phantom_generator" in ignore[1]:
            lines[-1] += (f" Their synthetic films are of version {ignore[1]['phantom_generator']} of the phantom, the "
                          "networks above learned from an earlier one: compare these four rows with each other.")
    lines += ["", "| comparison of the mean of five | difference | 95 % interval | in words |", "|---|---|---|---|"]
    for row in compared.to_dict("records"):
        lines.append(f"| {row['comparison']} | {row['difference']:+.4f} | {row['difference_low']:+.4f} to "
                     f"{row['difference_high']:+.4f} | {row['verdict']} |")
    return "\n".join([*lines, "", "![ROC curves](figure4.png)", "", "![films](figure5.png)", ""])


def _figure4(args, result, path: Path) -> None:
    """ROC curve per finding with radiologists' points where they are given."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    points = None
    if args.radiologists:
        from chexpert_hier.evaluate import radiologists

        tables = {file.stem: evaluate.read_truth(file) for file in args.radiologists}
        points = radiologists.beside(result, tables, evaluate.read_truth(args.films), replicates=100).points
    figure, axes = plt.subplots(1, 5, figsize=(15, 3.4), sharey=True, layout="constrained")
    for axis, label in zip(axes, COMPETITION_LABELS):
        k = result.cases.labels.index(label)
        x, y, _ = roc_curve(result.cases.scores[:, k], result.cases.truth[:, k])
        area = result.table.set_index("label").loc[label, "auroc"]
        axis.plot([0, 1], [0, 1], color="#999999", linewidth=0.8)
        axis.plot(x, y, color="#0072B2", label=f"ensemble, AUROC {area:.3f}")
        if points is not None:
            at = points[points["label"] == label]
            axis.plot(1 - at["specificity"], at["sensitivity"], "^", color="#D55E00", label="radiologists")
        axis.set(title=label, xlabel="1 - specificity", aspect="equal")
        axis.legend(loc="lower right", fontsize=8)
    axes[0].set_ylabel("sensitivity")
    with written_whole(path) as beside:
        figure.savefig(beside, dpi=110)
    plt.close(figure)


def _figure5(args, result, films: Path, path: Path) -> None:
    """Six example films with the ensemble's probabilities of the five labels and the truth."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    from chexpert_hier.datasets import reading
    from chexpert_hier.films.decode import read_film
    from chexpert_hier.labels import key

    places = {}  # by film and by study, whichever a case is
    for file, name, view in reading.read_rows(films):
        if view != "Lateral":
            places |= {key(name): file, key(name).rsplit("/", 1)[0]: file}
    cases = result.cases
    columns = [cases.labels.index(label) for label in COMPETITION_LABELS]
    richest = np.argsort(-np.nansum(cases.truth[:, columns], axis=1), kind="stable")
    chosen = [*richest[:3], *richest[-3:]]
    figure, axes = plt.subplots(1, 6, figsize=(16, 3.1), layout="constrained")
    for axis, row in zip(axes, chosen):
        axis.imshow(read_film(places[key(cases.keys[row])]), cmap="gray")
        axis.set_axis_off()
        lines = [f"{label}: {cases.scores[row, k]:.2f}{'  (present)' if cases.truth[row, k] == 1 else ''}"
                 for label, k in zip(COMPETITION_LABELS, columns)]
        axis.set_title("\n".join(lines), fontsize=8, loc="left")
    with written_whole(path) as beside:
        figure.savefig(beside, dpi=80)
    plt.close(figure)


if __name__ == "__main__":
    raise SystemExit(commands.answer(main))
