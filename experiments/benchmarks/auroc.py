"""Speed of the bootstrap and of DeLong's variance beside the usual ways to compute them.

Theirs: a loop over resamples and labels around scikit-learn's roc_auc_score (timed on some replicates, scaled up), and
DeLong with the full matrix of pairs, as the paper writes it; where the package `confidenceinterval` is installed
(`pip install confidenceinterval`) also its DeLong (Sun and Xu's fast algorithm). Both must give the same numbers.

    python experiments/benchmarks/auroc.py
"""

import argparse
import os
import platform
import sys
import time
from datetime import date
from pathlib import Path

import numpy as np

from chexpert_hier import commands
from chexpert_hier.evaluate import bootstrap_auroc, delong
from chexpert_hier.evaluate.ranking import resamples
from chexpert_hier.files import write_text

RESULTS = Path(__file__).resolve().parents[1] / "results"


def films(count: int, labels: int = 14) -> tuple[np.ndarray, np.ndarray]:
    """Scores and truth (films, labels) with prevalences from 1 to 50 %; scores rounded, so that there are ties."""
    random = np.random.default_rng(0)
    truth = (random.random((count, labels)) < np.geomspace(0.01, 0.5, labels)).astype(float)
    truth[:2] = [[0.0], [1.0]]
    return np.round(1 / (1 + np.exp(-(random.normal(size=truth.shape) + 1.2 * truth - 1))), 4), truth


def sklearn_loop(scores: np.ndarray, truth: np.ndarray, replicates: int) -> np.ndarray:
    """The usual way: resample, call roc_auc_score per label; the same resamples as ours."""
    from sklearn.metrics import roc_auc_score
    out = np.full((replicates, scores.shape[1]), np.nan)
    for counts in resamples(len(scores), replicates, 0):
        for r in range(min(counts.shape[1], replicates)):
            rows = np.repeat(np.arange(len(scores)), counts[:, r].astype(int))
            for k in range(scores.shape[1]):
                if 0 < truth[rows, k].sum() < len(rows):
                    out[r, k] = roc_auc_score(truth[rows, k], scores[rows, k])
        break
    return out


def delong_by_pairs(scores: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
    """AUROC and its variance from the matrix of all pairs (DeLong et al. 1988, as printed)."""
    positive, negative = scores[truth == 1], scores[truth == 0]
    wins = (positive[:, None] > negative) + 0.5 * (positive[:, None] == negative)
    parts = [wins.mean(1).var(ddof=1) / len(positive), wins.mean(0).var(ddof=1) / len(negative)]
    return float(wins.mean()), float(sum(parts))


def timed(function, *arguments) -> tuple[float, object]:
    """Seconds and result of a call."""
    start = time.perf_counter()
    result = function(*arguments)
    return time.perf_counter() - start, result


def _bootstrap(count: int, replicates: int, sample: int, lines: list[str]) -> float:
    scores, truth = films(count)
    ours, values = min((timed(lambda: bootstrap_auroc(scores, truth, replicates=replicates)) for _ in range(2)),
                       key=lambda run: run[0])
    theirs, reference = timed(sklearn_loop, scores, truth, sample)
    theirs *= replicates / sample
    gap = float(np.nanmax(np.abs(values[:sample] - reference)))
    if not gap < 1e-9:
        raise AssertionError(f"the two ways differ by {gap}")
    lines.append(f"| bootstrap, {replicates:,} resamples x {count:,} films x 14 labels | {ours:.2f} | {theirs:.0f} "
                 f"(from {sample} resamples) | {theirs / ours:.0f} | {gap:.0e} |")
    return ours / theirs


def _delong(lines: list[str]) -> None:
    scores, truth = films(22433)
    s, t = scores[:, -3], truth[:, -3]
    ours, (areas, covariance) = min((timed(delong, s, t) for _ in range(3)), key=lambda run: run[0])
    theirs, (area, variance) = timed(delong_by_pairs, s, t)
    gap = max(abs(areas[0] - area), abs(covariance[0, 0] - variance) / variance)
    lines.append(f"| DeLong, 22,433 films, all pairs as printed | {ours:.4f} | {theirs:.2f} | {theirs / ours:.0f} | "
                 f"{gap:.0e} |")
    try:
        from confidenceinterval.delong import delong_roc_variance
    except ImportError:
        return
    theirs, (area, variance) = min((timed(delong_roc_variance, t == 1, s) for _ in range(3)), key=lambda run: run[0])
    gap = max(abs(areas[0] - float(area)), abs(covariance[0, 0] - float(variance)) / float(variance))
    lines.append(f"| DeLong, 22,433 films, package confidenceinterval | {ours:.4f} | {theirs:.4f} | "
                 f"{theirs / ours:.1f} | {gap:.0e} |")


def main(argv: list[str] | None = None) -> int:
    """Time everything, write the table, end with the ratio."""
    args = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    args.add_argument("--out", type=Path, default=RESULTS)
    args.add_argument("--no-write", action="store_true", help="only print")
    args = args.parse_args(argv)
    lines: list[str] = []
    ratio = _bootstrap(500, 10000, 50, lines)
    _bootstrap(22433, 1000, 5, lines)
    _delong(lines)
    text = "\n".join(["# Speed of the rank statistics", "",
                      f"`python experiments/benchmarks/auroc.py` · {platform.system()} {platform.machine()}, "
                      f"{os.cpu_count()} CPU cores, Python {platform.python_version()} · {date.today().isoformat()}",
                      "",
                      "Theirs: scikit-learn's roc_auc_score in a loop over the same resamples; DeLong as named. "
                      "The last column is the largest difference of the numbers (variances: relative). Other work ran "
                      "on the machine at the same time; the ratio of the two sides is what to read.", "",
                      "| what | ours, s | theirs, s | times faster | difference |", "| --- | --- | --- | --- | --- |",
                      *lines, ""])
    if not args.no_write:
        write_text(args.out / "benchmark_auroc.md", text)
    print(text)
    print(f"ratio: {ratio:.5f}")
    return 0


if __name__ == "__main__":
    sys.exit(commands.answer(main))
