"""Tables, figure and page of experiments/readings.py, from the raw outputs of its finished cells alone."""

import json
from collections import defaultdict
from pathlib import Path

import numpy as np
import pandas as pd
from companions import bootstrap, interval, table, verdict

from chexpert_hier import hierarchy
from chexpert_hier.files import write_text, written_whole
from chexpert_hier.labels import COMPETITION_LABELS

COLUMNS = (*COMPETITION_LABELS, "Enlarged Cardiomediastinum", "Lung Opacity")  # and what the product needs
TREE = hierarchy.named("chexpert", COLUMNS)
FIVE = range(len(COMPETITION_LABELS))
SHOWN = ("flat", "flat, refit", "leaves", "union", "any-parent", "chen", "flat, twice the epochs",
         "leaves, children conditional", "leaves, parents only", "union, children conditional", "union, parents only")
DRAWN = {"flat, refit": "#999999", "leaves": "#0072B2", "union": "#D55E00", "any-parent": "#009E73", "chen": "#CC79A7"}
WAYS = {"as the paper compares": "with product against flat without", "both without product": "without, both",
        "both with product": "with, both"}
READING = Path(__file__).parent / "results" / "readings_reading.md"


def tables(out: Path) -> None:
    """Write cells.csv, table.csv, differences.csv, halves.csv, figure.png and README.md into `out`."""
    facts, raw = json.loads((out / "facts.json").read_text()), np.load(out / "outputs.npz")
    truth, patients = raw["truth"].astype(np.float32), raw["patients"]
    judged = {tuple(name.split("|")): judge(raw[name], truth, patients) for name in raw.files if "|" in name}
    halves = {place: raw["|".join(place)] for place in judged if is_half(place[-1])}
    cells = pd.DataFrame([_cell(place, found, truth) for place, found in judged.items()])
    found = {"cells": cells, "table": _table(judged, truth), "differences": _differences(judged),
             "halves": _halves(judged, halves, truth, patients)}
    for name, rows in found.items():
        write_text(out / f"{name}.csv", rows.to_csv(index=False, float_format="%.5f"))
    _figure(found["differences"], out / "figure.png")
    write_text(out / "README.md", _page(facts, found))


def is_half(row: str) -> bool:
    """Whether a row belongs to the experiment on halves of the patients."""
    return row.split(",")[0].split()[-1] in ("A", "B")


def _probabilities(logits: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-logits.astype(np.float64)))


def judge(logits: np.ndarray, truth: np.ndarray, patients: np.ndarray, p: np.ndarray | None = None) -> dict:
    """For both settings of the product: AUROC per label, their mean, resamples of the mean, and the probabilities."""
    p, answer = _probabilities(logits) if p is None else p, {}
    for product in (False, True):
        final = hierarchy.chain_rule(p, TREE) if product else p
        areas, drawn = bootstrap(final, truth, patients, FIVE)
        answer[product] = {"areas": areas, "mean": float(areas.mean()), "replicates": drawn.mean(axis=0), "p": final}
    return answer


def reported(row: str) -> bool:
    """Whether the row's reported number has the product (docs/deviations.md C10): conditional training has."""
    return not row.startswith("flat")


def _calibration(p: np.ndarray, truth: np.ndarray) -> dict:
    """Means over the five labels: Brier score, expected calibration error (15 bins), mean p less the share present."""
    errors = []
    for k in FIVE:
        place = np.minimum((p[:, k] * 15).astype(int), 14)
        errors.append(sum(abs((p[place == b, k] - truth[place == b, k]).sum()) for b in range(15)) / len(p))
    return {"brier": float(((p - truth)[:, FIVE] ** 2).mean()), "ece": float(np.mean(errors)),
            "mean p": float(p[:, FIVE].mean()), "present": float(truth[:, FIVE].mean())}


def _place(place: tuple[str, ...]) -> dict:
    network, start, size, seed, row = place
    noise, start = start.split("-")
    return {"network": network, "noise": int(noise[-1]), "start": start, "films": int(size), "seed": int(seed),
            "row": row}


def _cell(place: tuple[str, ...], found: dict, truth: np.ndarray) -> dict:
    both = {f"AUROC, {'with' if product else 'without'} product": found[product]["mean"] for product in found}
    return {**_place(place), **both}


def _groups(judged: dict) -> dict:
    """(network, noise-start, films, row) -> {seed: what was judged}."""
    groups = defaultdict(dict)
    for (network, start, size, seed, row), found in judged.items():
        groups[network, start, size, row][seed] = found
    return groups


def _table(judged: dict, truth: np.ndarray) -> pd.DataFrame:
    """Mean over seeds of every row, with and without the product."""
    rows = []
    for (network, start, size, row), seeds in _groups(judged).items():
        if row not in SHOWN:
            continue
        for product in (False, True):
            parts = [found[product] for found in seeds.values()]
            low, high = interval(np.mean([part["replicates"] for part in parts], axis=0))
            place = _place((network, start, size, "0", row))
            del place["seed"]
            rows.append({**place, "product": product, "reported": product == reported(row), "seeds": len(parts),
                         "AUROC": float(np.mean([part["mean"] for part in parts])), "low": low, "high": high,
                         **dict(zip(COMPETITION_LABELS, np.mean([part["areas"] for part in parts], axis=0))),
                         **pd.DataFrame([_calibration(part["p"], truth) for part in parts]).mean().to_dict()})
    return _sorted(pd.DataFrame(rows))


def _sorted(rows: pd.DataFrame) -> pd.DataFrame:
    order = rows["row"].map({row: k for k, row in enumerate(SHOWN)}).fillna(len(SHOWN))
    keys = [key for key in ("network", "noise", "start", "films") if key in rows]
    return rows.assign(order=order).sort_values([*keys, "order"], kind="stable").drop(columns="order")


def _differences(judged: dict) -> pd.DataFrame:
    """Every row against flat training on the same films from the same seed; intervals over patients, paired."""
    groups, rows = _groups(judged), []
    for (network, start, size, row), seeds in groups.items():
        flat = groups.get((network, start, size, "flat"), {})
        shared = sorted(set(seeds) & set(flat))
        if row == "flat" or row not in SHOWN or not shared:
            continue
        for way, (ours, theirs) in zip(WAYS, ((reported(row), False), (False, False), (True, True))):
            rows.append({**{key: value for key, value in _place((network, start, size, "0", row)).items()
                            if key != "seed"}, "way": way,
                         **_paired([seeds[seed][ours] for seed in shared], [flat[seed][theirs] for seed in shared])})
    return _sorted(pd.DataFrame(rows))


def _paired(ours: list[dict], theirs: list[dict]) -> dict:
    each = [a["mean"] - b["mean"] for a, b in zip(ours, theirs)]
    low, high = interval(np.mean([a["replicates"] - b["replicates"] for a, b in zip(ours, theirs)], axis=0))
    return {"difference": float(np.mean(each)), "low": low, "high": high,
            "by seed": " ".join(f"{d:+.3f}" for d in each), "verdict": verdict(low, high, each) if len(each) > 1 else
            "one seed"}


def _halves(judged: dict, logits: dict, truth: np.ndarray, patients: np.ndarray) -> pd.DataFrame:
    """What the refit costs on the patients of stage 1, on others, on all; and as a mean of two networks.

    Against stage 1 itself for flat training; for conditional training against the refit on stage 1's own patients.
    """
    rows, places = [], sorted({place[:4] for place in logits})
    for kind, base in (("flat", "stage 1 alone"), ("leaves", "same half")):
        for product in (False, True):
            found = defaultdict(list)
            for place in places:
                pairs = {"stage 1 alone": ("A", "B"), "same half": ("A, refit A", "B, refit B"),
                         "other half": ("A, refit B", "B, refit A"), "both halves": ("A, refit AB", "B, refit AB")}
                for name, two in pairs.items():
                    cells = [(*place, f"{kind} {one}") for one in two]
                    if not all(cell in judged for cell in cells):
                        continue
                    for cell in cells:
                        found[place[:3], name].append(judged[cell][product])
                    p = np.mean([_probabilities(logits[cell]) for cell in cells], axis=0)
                    found[place[:3], f"{name}, mean of two networks"].append(judge(p, truth, patients, p)[product])
            for (place, name), parts in found.items():
                against = found.get((place, base + ", mean of two networks" * ("mean of two" in name)))
                head = {key: value for key, value in _place((*place, "0", "")).items() if key not in ("seed", "row")}
                rows.append({**head, "stage 1": kind, "refit on": name, "product": product,
                             "AUROC": float(np.mean([part["mean"] for part in parts])),
                             **(_paired(parts, against) if against is not None and against is not parts else {})})
    return pd.DataFrame(rows)


def _figure(differences: pd.DataFrame, path: Path) -> None:
    """Difference to flat against films: one panel per way of comparing, one row of panels per noise and start."""
    from matplotlib.figure import Figure

    kinds = list(differences.groupby(["network", "noise", "start"]).groups)
    figure = Figure(figsize=(12, 3.3 * len(kinds)), layout="constrained")
    axes = figure.subplots(len(kinds), len(WAYS), sharey=True, squeeze=False)
    for line, (network, noise, start) in zip(axes, kinds):
        part = differences[(differences[["network", "noise", "start"]] == (network, noise, start)).all(axis=1)]
        for axis, way in zip(line, WAYS):
            axis.axhline(0, color="#444444", linewidth=0.8)
            for k, (row, colour) in enumerate(DRAWN.items()):
                some = part[(part["row"] == row) & (part["way"] == way)]
                if len(some):
                    axis.errorbar(some["films"] * 1.02**(k - 2), some["difference"], fmt="o-", color=colour, label=row,
                                  yerr=[some["difference"] - some["low"], some["high"] - some["difference"]],
                                  capsize=2, markersize=4, linewidth=1.2)
            axis.set_xscale("log")
            films = sorted(part["films"].unique())
            axis.set_xticks(films, [f"{count:,}" for count in films])
            axis.minorticks_off()
            axis.set_title(f"{way}\n{network}, {start} start, reports {'with' if noise else 'without'} errors",
                           fontsize=9)
            axis.set_xlabel("training films")
            axis.grid(alpha=0.3)
        line[0].set_ylabel("mean AUROC less that of flat training")
    handles = {label: handle for axis in axes.flat for handle, label in zip(*axis.get_legend_handles_labels())}
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=len(DRAWN), fontsize=9)
    with written_whole(path) as beside:
        figure.savefig(beside, dpi=110)


def _page(facts: dict, found: dict[str, pd.DataFrame]) -> str:
    stages = facts["recipe"]["stages"]
    seconds = sum(facts["seconds"].values())
    lines = [
        "# When does conditional training pay? The readings against the number of films", "",
        f"`{' '.join(facts['command'])}` and further sizes, {facts['date']}, {facts['machine']}, one thread beside "
        f"other work; {seconds / 60:.0f} minutes of training and answering in {len(facts['seconds'])} cells. Synthetic "
        f"films at {facts['recipe']['image_size']} pixels; stage 1 {stages[0]['epochs']} epochs, stage 2 "
        f"{stages[1]['epochs']}; judged on the clean truth of the same {facts['judges']['valid_patients']:,} "
        "validation patients. A larger training set contains the smaller ones.", "",
        *READING.read_text(encoding="utf-8").splitlines(), "",
        "![difference to flat training against the number of films](figure.png)", "",
        "## Differences to flat training", "",
        "Mean AUROC over the five competition labels, same films, same seed; 95 % intervals over patients, paired, of "
        "the mean over seeds. \"Better\" or \"worse\" only where the interval excludes 0 and all seeds agree. The "
        "paper compares rows with the product against flat rows without it.", "", *table(found["differences"]),
        "## Every row, with the product and without", "",
        "Brier score, expected calibration error, mean probability and share present: means over the five labels.", "",
        *table(found["table"])]
    if len(found["halves"]):
        lines += ["## A refit on patients that stage 1 has not seen", "",
                  "Stage 1 on half of the patients. The difference is to stage 1 itself (flat), or to the refit on "
                  "stage 1's own patients (conditional training under `leaves`), from the same stage-1 weights. \"Mean "
                  "of two networks\" averages the probabilities of the network of each half; with the other half it is "
                  "the cross-fitted answer.", "", *table(found["halves"])]
    return "\n".join([*lines, ""])
