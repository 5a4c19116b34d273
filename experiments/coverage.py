"""How often 95 % intervals of the AUROC hold the true AUROC: bootstrap and DeLong on simulated studies.

Scores of 500 studies are normal with unit variance, the positives' mean shifted so that the true AUROC is 0.8 or 0.95;
1,000 data sets per row. Writes experiments/results/coverage.csv and .md.

    python experiments/coverage.py
"""

import argparse
import os
import platform
import sys
import time
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import norm

from chexpert_hier import commands
from chexpert_hier.evaluate import bootstrap_auroc, delong, delong_interval
from chexpert_hier.evaluate.ranking import percentile_interval
from chexpert_hier.files import write_text

RESULTS = Path(__file__).resolve().parent / "results"


def simulate(positives: int, area: float, studies: int, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draw one data set: scores (studies,) and truth (studies,), the first `positives` studies positive."""
    truth = (np.arange(studies) < positives).astype(float)
    return random.normal(size=studies) + np.sqrt(2) * norm.ppf(area) * truth, truth


def coverage(positives: int, area: float, *, studies: int = 500, data_sets: int = 1000, replicates: int = 1000,
             seed: int = 0) -> dict:
    """Share of data sets whose interval holds the true AUROC, per kind of interval, and the mean widths."""
    random = np.random.default_rng(seed)
    found = {name: [] for name in ("bootstrap", "bootstrap_stratified", "delong", "delong_logit")}
    dropped = 0
    for number in commands.progress(range(data_sets), f"{positives} positives, AUROC {area}", unit="data sets"):
        scores, truth = simulate(positives, area, studies, random)
        drawn = bootstrap_auroc(scores, truth, replicates=replicates, seed=number)
        dropped += int(np.isnan(drawn).sum())
        found["bootstrap"].append(percentile_interval(drawn))
        found["bootstrap_stratified"].append(percentile_interval(
            bootstrap_auroc(scores, truth, replicates=replicates, seed=number, stratified=True)))
        areas, covariance = delong(scores, truth)
        for name, scale in (("delong", "plain"), ("delong_logit", "logit")):
            found[name].append(delong_interval(areas[0], covariance[0, 0], scale=scale))
    row = {"positives": positives, "auroc": area}
    for name, intervals in found.items():
        low, high = np.array(intervals).T
        row[name] = float(((low <= area) & (area <= high)).mean())
        row[f"{name}_width"] = float((high - low).mean())
    return {**row, "dropped_replicates": dropped}


def main(argv: list[str] | None = None) -> int:
    """Compute the table and write it."""
    args = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    args.add_argument("--data-sets", type=int, default=1000)
    args.add_argument("--replicates", type=int, default=1000)
    args.add_argument("--out", type=Path, default=RESULTS)
    args = args.parse_args(argv)
    start = time.monotonic()
    table = pd.DataFrame([coverage(positives, area, data_sets=args.data_sets, replicates=args.replicates, seed=place)
                          for place, (positives, area) in enumerate((p, a) for p in (10, 30, 100)
                                                                    for a in (0.8, 0.95))])
    error = np.sqrt(0.95 * 0.05 / args.data_sets)
    write_text(args.out / "coverage.csv", table.to_csv(index=False, float_format="%.4f", lineterminator="\n"))
    shown = table.drop(columns="dropped_replicates")
    rows = "\n".join("| " + " | ".join(f"{v:.0f}" if c == "positives" else f"{v:.3f}" for c, v in row.items()) + " |"
                     for row in shown.to_dict("records"))
    text = f"""# Coverage of 95 % intervals of the AUROC

`python experiments/coverage.py` · {platform.system()} {platform.machine()}, {os.cpu_count()} CPU cores, Python \
{platform.python_version()} · {date.today().isoformat()} · {time.monotonic() - start:.0f} s

500 studies, one per patient; {args.data_sets:,} data sets per row, {args.replicates:,} resamples each; the share of
intervals that hold the true AUROC (its own standard error is {error:.3f}), and their mean width.

| {" | ".join(shown.columns)} |
| {" | ".join(["---"] * shown.shape[1])} |
{rows}

{table["dropped_replicates"].sum():,} resamples lacked a class and were dropped.
"""
    write_text(args.out / "coverage.md", text)
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(commands.answer(main))
