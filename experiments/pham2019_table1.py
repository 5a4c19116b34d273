"""Table 1 of Pham et al. 2019: ten label policies on one network, with controls, seeds and intervals.

    python experiments/pham2019_table1.py                                  # the phantom, made if needed
    python experiments/pham2019_table1.py --data CheXpert-v1.0-small --recipe pham2019 --arch densenet121

Every run that is finished is kept (`--work`), so a stopped experiment goes on where it was. One network per
architecture is traced and used for all runs; only weights and optimizer start anew. The result folder gets the raw
outputs of every run (outputs.npz) and the tables that `--tables-only` computes from them alone.
"""

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from companions import circumstances, interval, verdict

from chexpert_hier import commands, hierarchy, labels, recipes
from chexpert_hier.datasets import presence
from chexpert_hier.datasets.dataset import Dataset
from chexpert_hier.datasets.reading import read
from chexpert_hier.evaluate.ranking import Ranks, resamples
from chexpert_hier.files import write_text, written_whole

HERE = Path(__file__).parent
PAPER = recipes.PHAM2019_TABLE_1
ROWS = tuple(PAPER)
PHANTOM = {"patients": 3000, "valid_patients": 5000, "seed": 11, "report_noise": 1.0, "laterals": False,
           "most_studies": 3}
STAGE1 = {"epochs": 5, "drop_every": 4, "batch_size": 32}
REPLICATES = 1000


def plan(base: recipes.Recipe, large: str) -> dict[str, recipes.Recipe]:
    """Name of a run -> its recipe; the ten rows, the controls, the readings, and three rows of the large network."""
    first, second = base.stages
    runs = {row: replace(base, policy=row) for row in ROWS}
    flat = replace(base, policy="u-ones+lsr")
    runs["u-ones+lsr, frozen refit"] = replace(flat, stages=(replace(first, rows="all"), second))
    runs["u-ones+lsr, random subset"] = replace(flat, stages=(replace(first, rows="random"), second))
    final = replace(base, policy="u-ones+ct+lsr")
    runs["u-ones+ct+lsr, children conditional"] = recipes.change(final, "stage2.cells=conditional")
    runs["u-ones+ct+lsr, parents only"] = recipes.change(final, "stage2.labels=parents")
    runs["u-ones+ct+lsr, closure"] = replace(final, closure=True)
    runs |= {f"{row}, union": replace(base, policy=row, ct_rows="union") for row in ROWS if "+ct" in row}
    runs |= {f"u-ones+ct+lsr, {reading}": replace(final, ct_rows=reading) for reading in ("any-parent", "chen")}
    if large != base.arch:
        runs |= {f"{row}, {large}": replace(base, policy=row, arch=large) for row in ("u-ones", "u-ones+ct+lsr")}
        runs[f"u-ones+ct+lsr, union, {large}"] = replace(final, ct_rows="union", arch=large)
    return runs


def main(argv: list[str] | None = None) -> int:
    args = parser().parse_args(argv)
    if not args.tables_only:
        _train_all(args)
    tables(args.out)
    return 0


def parser() -> argparse.ArgumentParser:
    answer = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    answer.add_argument("--data", type=Path, help="a CheXpert folder; without it the phantom")
    answer.add_argument("--recipe", default="phantom")
    answer.add_argument("--arch", default="tiny", help="backbone of all rows")
    answer.add_argument("--large", default="densenet121", help="backbone of three rows more")
    answer.add_argument("--seeds", type=int, default=3)
    answer.add_argument("--rows", nargs="+", help="only these runs")
    answer.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", help="change the recipe")
    answer.add_argument("--noise", type=float, default=1.0, help="label noise of the phantom, 1 = as in CheXpert")
    answer.add_argument("--patients", type=int, default=PHANTOM["patients"], help="training patients of the phantom")
    answer.add_argument("--pretrained", action="store_true", help="start every run from a backbone that learned the "
                        "flat U-Ones row on as many other films of the phantom: a stand-in for ImageNet's weights")
    answer.add_argument("--work", type=Path, default=HERE / "work" / "table1", help="finished runs, crops, the phantom")
    answer.add_argument("--out", type=Path, default=HERE / "results" / "pham2019_table1")
    answer.add_argument("--collect", action="store_true", help="train nothing more; put together what is finished")
    answer.add_argument("--tables-only", action="store_true", help="compute the tables from the raw outputs again")
    return answer


def _train_all(args: argparse.Namespace) -> None:
    base = replace(recipes.named(args.recipe), arch=args.arch)
    if args.recipe == "phantom":  # a schedule of its own: the recipe's is cut to the minutes of the first command
        base = replace(base, stages=(replace(base.stages[0], **STAGE1), base.stages[1]))
    base = recipes.change(base, *args.set)
    dataset = _dataset(args)
    if args.pretrained:
        base = replace(base, weights=str(_pretrained(args, base)))
    runs = plan(base, args.large)
    chosen = [name for name in runs if not args.rows or name in args.rows]
    seconds, networks, source = {}, {}, None
    for seed in range(args.seeds if not args.collect else 0):
        for name in chosen:
            done = args.work / "runs" / f"{name.replace(', ', '--')}--{seed}.npz"
            if done.exists():
                seconds[f"{name}|{seed}"] = float(np.load(done)["seconds"])
                continue
            if source is None:
                source = _source(dataset, base, args.work)
            began = time.monotonic()
            outputs, log = _one(replace(runs[name], seed=seed), source, networks, args.work)
            seconds[f"{name}|{seed}"] = time.monotonic() - began
            with written_whole(done) as beside:
                np.savez(beside, outputs=outputs, seconds=seconds[f"{name}|{seed}"], log=json.dumps(log))
            print(f"{name}, seed {seed}: {seconds[f'{name}|{seed}']:.0f} s", flush=True)
    seconds |= {f"{name}|{seed}": float(np.load(done)["seconds"]) for name in chosen for seed in range(args.seeds)
                if (done := args.work / "runs" / f"{name.replace(', ', '--')}--{seed}.npz").exists()}
    _collect(args, base, dataset, chosen, seconds)


def _dataset(args) -> Dataset:
    data = args.data
    if data is None:
        from chexpert_hier.phantom import making

        data = making.ensure(args.work / "phantom", **_phantom(args))
    return presence.require_films(read(data))[0]


def _phantom(args) -> dict:
    return {**PHANTOM, "report_noise": args.noise, "patients": args.patients}


def _pretrained(args, base: recipes.Recipe) -> Path:
    """The file of a backbone that was trained on films of no patient of this experiment."""
    from chexpert_hier.network import backbones, maps
    from chexpert_hier.phantom import making

    done = args.work / f"{base.arch}.weights.h5"
    if not done.exists():
        other = {**_phantom(args), "valid_patients": 100, "seed": PHANTOM["seed"] + 1}
        films = presence.require_films(read(making.ensure(args.work / "other-phantom", **other)))[0]
        work = args.work / "pretraining"
        (work / "present").mkdir(parents=True, exist_ok=True)
        networks = {}
        _one(replace(base, policy="u-ones", seed=100), _source(films, base, work), networks, work)
        backbone = backbones.BACKBONES[base.arch].build(base.image_size)
        backbone.set_weights(maps.map_model(networks[base.arch])[0].get_weights())
        backbone.save_weights(work / "present" / "backbone.weights.h5")
        (work / "present" / "backbone.weights.h5").replace(done)
    return done


def _source(dataset, base, work):
    from chexpert_hier.network.backbones import BACKBONES
    from chexpert_hier.prepare import sources

    (work / "templates").mkdir(parents=True, exist_ok=True)
    return sources.from_cache(dataset, base, work / "templates", BACKBONES[base.arch].native)


def _one(recipe, source, networks: dict, work: Path):
    """Train one run and give its validation outputs, before any product, and its log."""
    from chexpert_hier.network import model
    from chexpert_hier.training import stages

    train, valid = source.films("train"), source.films("valid")
    fresh = model.build_model(recipe.arch, train.labels, recipe.weights, recipe.image_size, seed=recipe.seed,
                              batchnorm_momentum=recipe.batchnorm_momentum)
    network = networks.setdefault(recipe.arch, fresh)
    if network is not fresh:
        network.set_weights(fresh.get_weights())
    folder = work / "present"
    for old in folder.glob("*"):
        old.unlink()
    folder.mkdir(exist_ok=True)
    tree = hierarchy.named(recipe.tree, train.labels)
    stages.train(stages.Training(recipe, tree, network, train, valid, folder))
    log = pd.read_csv(folder / "log.csv").to_dict("records")
    return stages.outputs_of(network, valid, 256), log


def _collect(args, base, dataset, chosen, seconds) -> None:
    """Put the raw outputs of all runs, the truth and the conditions into the result folder."""
    valid = dataset.split("valid")
    arrays = {"truth": valid.raw.astype(np.int8), "patients": valid.films["patient"].to_numpy(str)}
    for name in chosen:
        for seed in range(args.seeds):
            done = args.work / "runs" / f"{name.replace(', ', '--')}--{seed}.npz"
            if done.exists():
                arrays[f"{name}|{seed}"] = _logits(np.load(done)["outputs"]).astype(np.float16)
    with written_whole(args.out / "outputs.npz") as beside:
        np.savez_compressed(beside, **arrays)
    train = dataset.split("train")
    if args.pretrained:
        base = replace(base, weights=Path(base.weights).name)
    facts = {**circumstances(), "labels": list(dataset.labels), "runs": chosen, "seeds": args.seeds,
             "films": {"train": len(train), "valid": len(valid)},
             "patients": {"train": train.films["patient"].nunique(), "valid": valid.films["patient"].nunique()},
             "recipe": base.to_json(), "phantom": None if args.data else
             _phantom(args), "seconds": seconds}
    write_text(args.out / "facts.json", json.dumps(facts, indent=1))


def _logits(p: np.ndarray) -> np.ndarray:
    p = np.clip(p.astype(np.float64), 1e-7, 1 - 1e-7)
    return np.log(p) - np.log1p(-p)


# ---------------------------------------------------------------------------------------------------- the tables

def tables(out: Path) -> None:
    """Write table.csv, differences.csv, figure.png and README.md from outputs.npz and facts.json."""
    facts = json.loads((out / "facts.json").read_text())
    raw = np.load(out / "outputs.npz")
    names = facts["labels"]
    facts["runs"] = [run for run in facts["runs"] if f"{run}|0" in raw]
    tree = hierarchy.named("chexpert", names)
    truth = raw["truth"].astype(np.float32)
    patients = np.unique(raw["patients"], return_inverse=True)[1]
    judged = {}
    for run in facts["runs"]:
        for product in (False, True):
            judged[run, product] = [_judge(raw[f"{run}|{seed}"], truth, patients, names, tree, product)
                                    for seed in range(facts["seeds"]) if f"{run}|{seed}" in raw]
    table = pd.DataFrame([_row(run, product, judged, names) for run, product in judged])
    differences = pd.DataFrame([row for run in facts["runs"] for baseline in baselines(run)
                                if (row := _difference(run, baseline, judged)) is not None])
    write_text(out / "table.csv", table.to_csv(index=False, float_format="%.4f"))
    write_text(out / "differences.csv", differences.to_csv(index=False, float_format="%.4f"))
    _figure(table, out / "figure.png")
    text = _page(out, facts, table, differences)
    write_text(out / "README.md", text)
    print(text)


def baselines(run: str) -> tuple[str, ...]:
    """What a run is set against: its policy's flat row, the flat U-Ones, and what differs from it in one thing only."""
    policy, _, rest = run.partition(", ")
    flat = policy.replace("+ct", "")
    if "net" in rest:
        return (f"u-ones, {rest.rpartition(', ')[2]}",)
    if run == "u-ones+ct+lsr":
        return (flat, "u-ones", "u-ones+lsr, frozen refit", "u-ones+lsr, random subset")
    return tuple(dict.fromkeys((flat, "u-ones", *[policy] * ("+ct" in policy and rest != ""))))


def _reported(run: str) -> bool:
    """Whether the product is part of what the run reports (deviations C10): for conditional training."""
    return "+ct" in run


def _judge(logits: np.ndarray, truth, patients, names, tree, product: bool) -> dict:
    p = 1 / (1 + np.exp(-logits.astype(np.float64)))
    p = hierarchy.chain_rule(p, tree) if product else p
    columns = [names.index(label) for label in labels.COMPETITION_LABELS]
    total = patients.max() + 1
    areas, replicates = [], []
    ranks = [Ranks.of(p[:, k], truth[:, k], patients, total) for k in range(len(names))]
    ones = np.ones((total, 1), np.float32)
    with np.errstate(invalid="ignore"):
        areas = np.array([float(rank.measure(ones)[0][0]) for rank in ranks])
        replicates = np.stack([np.concatenate([ranks[k].measure(counts)[0] for counts in
                                               resamples(total, REPLICATES, 0)]) for k in columns])  # (5, replicates)
    edges = hierarchy.contradictions(p, tree)
    return {"areas": areas, "mean": float(areas[columns].mean()), "replicates": replicates.mean(axis=0),
            "by_label": replicates, "above_parent": float(edges.above.sum() / (edges.films * len(edges.edges))),
            "brier": float(((p - truth)[:, columns] ** 2).mean()), "calibration": _calibration_error(p, truth, columns)}


def _calibration_error(p, truth, columns, bins: int = 15) -> float:
    """Expected calibration error, mean over the five labels."""
    errors = []
    for k in columns:
        place = np.minimum((p[:, k] * bins).astype(int), bins - 1)
        errors.append(sum(abs((p[place == b, k] - truth[place == b, k]).sum()) for b in range(bins)) / len(p))
    return float(np.mean(errors))


def _row(run: str, product: bool, judged: dict, names) -> dict:
    parts = judged[run, product]
    areas = np.mean([part["areas"] for part in parts], axis=0)
    over = np.mean([part["replicates"] for part in parts], axis=0)
    paper = PAPER.get(run) if product == _reported(run) else None
    return {"run": run, "product": product, "reported": product == _reported(run),
            "mean": float(np.mean([part["mean"] for part in parts])), "low": np.percentile(over, 2.5),
            "high": np.percentile(over, 97.5), "seeds": " ".join(f"{part['mean']:.4f}" for part in parts),
            "paper": paper[-1] if paper else np.nan, **dict(zip(names, areas)),
            **{name: float(np.mean([part[name] for part in parts]))
               for name in ("above_parent", "brier", "calibration")}}


def _difference(run: str, baseline: str, judged: dict) -> dict | None:
    """Paired within seeds: the same resample of patients and the same seed on both sides.

    As the rows are reported (the product for conditional training alone), and with one setting of the product on both
    sides.
    """
    if run == baseline or (baseline, False) not in judged:
        return None
    paper = PAPER[run][-1] - PAPER[baseline][-1] if run in PAPER and baseline in PAPER else np.nan
    row = {"run": run, "baseline": baseline, "paper": paper}
    for way, ours, theirs in (("", _reported(run), _reported(baseline)), ("both without product, ", False, False),
                              ("both with product, ", True, True)):
        pairs = list(zip(judged[run, ours], judged[baseline, theirs]))
        seeds = [a["mean"] - b["mean"] for a, b in pairs]
        over = np.mean([a["replicates"] - b["replicates"] for a, b in pairs], axis=0)
        low, high = interval(over)
        row |= {f"{way}difference": float(np.mean(seeds)), f"{way}low": low, f"{way}high": high,
                f"{way}seeds": " ".join(f"{d:+.4f}" for d in seeds),
                f"{way}verdict": verdict(low, high, seeds) if len(seeds) > 1 else "one seed"}
        if not way:
            by_label = np.mean([a["by_label"] - b["by_label"] for a, b in pairs], axis=0)
            row |= {f"{label} difference": float(values.mean())
                    for label, values in zip(labels.COMPETITION_LABELS, by_label)}
    return row


def _figure(table: pd.DataFrame, path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    rows = table[table["reported"]].iloc[::-1].reset_index(drop=True)
    figure, axis = plt.subplots(figsize=(8, 0.36 * len(rows) + 1.2), layout="constrained")
    interval = [rows["mean"] - rows["low"], rows["high"] - rows["mean"]]
    axis.errorbar(rows["mean"], range(len(rows)), xerr=interval, fmt="o", color="#0072B2", capsize=2,
                  label="here: mean over seeds, 95 % interval over patients")
    for k, row in rows.iterrows():
        seeds = [float(value) for value in row["seeds"].split()]
        axis.plot(seeds, [k + 0.22] * len(seeds), "|", color="#56B4E9", label="seeds" if k == 0 else None)
    axis.plot(rows["paper"], range(len(rows)), "D", mfc="none", color="#D55E00",
              label="paper, on CheXpert's validation set")
    axis.set_yticks(range(len(rows)), rows["run"])
    axis.set_xlabel("mean AUROC over the five competition labels")
    axis.grid(axis="x", alpha=0.3)
    figure.legend(loc="outside lower center", ncols=3, fontsize=8)
    with written_whole(path) as beside:
        figure.savefig(beside, dpi=130)
    plt.close(figure)


def _page(out: Path, facts: dict, table: pd.DataFrame, differences: pd.DataFrame) -> str:
    stages = facts["recipe"]["stages"]
    start = "random" if facts["recipe"]["weights"] == "none" else "a backbone's pretrained" if (
        "--pretrained" in facts["command"]) else facts["recipe"]["weights"]
    where = f"the phantom (synthetic; {facts['phantom']})" if facts["phantom"] else "the data given"
    lines = [
        "# Table 1 of Pham et al. 2019", "",
        f"`{' '.join(facts['command'])}`, {facts['date']}, {facts['machine']}; "
        f"{sum(facts['seconds'].values()) / 60:.0f} minutes of training.",
        f"Films: {facts['films']['train']:,} training, {facts['films']['valid']:,} validation "
        f"({facts['patients']['valid']:,} patients) of {where}. Network {facts['recipe']['arch']} at "
        f"{facts['recipe']['image_size']} pixels from {start} weights unless a row says otherwise; stage 1 "
        f"{stages[0]['epochs']} epochs, stage 2 {stages[1]['epochs']}. The paper's numbers are CheXpert's, no target "
        "for synthetic films: what can be compared is the order of the rows.", "",
        "AUROC against the clean truth, mean over the five competition labels and over seeds, 95 % bootstrap interval "
        "over patients; the five labels, as reported. Rows with conditional training are reported with the product, "
        "flat rows without it, as in the paper; both numbers are shown for every row.", "",
        "| run | reported | 95 % interval | seeds | without product | with product | AT | CM | CO | ED | PE | child "
        "above parent | ECE | paper |", "|" + "---|" * 14]
    both = table.set_index(["run", "product"])["mean"]
    for row in table[table["reported"]].to_dict("records"):
        five = " | ".join(f"{row[label]:.3f}" for label in labels.COMPETITION_LABELS)
        lines.append(f"| {row['run']} | {row['mean']:.3f} | {row['low']:.3f} to {row['high']:.3f} | {row['seeds']} | "
                     f"{both[row['run'], False]:.3f} | {both[row['run'], True]:.3f} | {five} | "
                     f"{row['above_parent']:.3f} | {row['calibration']:.3f} | "
                     f"{'' if np.isnan(row['paper']) else format(row['paper'], '.3f')} |")
    lines += ["", "Differences, paired within seeds: as reported, and with one setting of the product on both sides. "
              "\"better\" or \"worse\" only where the interval excludes 0 and all seeds agree.", "",
              "| run | against | as reported | 95 % interval | seeds | verdict | both without product | both with "
              "product | paper |", "|" + "---|" * 9]
    for row in differences.to_dict("records"):
        paper = "" if np.isnan(row["paper"]) else f"{row['paper']:+.3f}"
        alike = " | ".join(f"{row[f'both {way} product, difference']:+.4f} ({row[f'both {way} product, low']:+.4f} to "
                           f"{row[f'both {way} product, high']:+.4f}; {row[f'both {way} product, verdict']})"
                           for way in ("without", "with"))
        lines.append(f"| {row['run']} | {row['baseline']} | {row['difference']:+.4f} | {row['low']:+.4f} to "
                     f"{row['high']:+.4f} | {row['seeds']} | {row['verdict']} | {alike} | {paper} |")
    reading = HERE / "results" / "pham2019_table1_reading.md"
    if facts["phantom"] and out.name == "pham2019_table1" and reading.exists():
        lines += ["", reading.read_text(encoding="utf-8").strip()]
    lines += ["", "![the rows](figure.png)", ""]
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(commands.answer(main))
