"""A table of answers as a person reads it (the tree of findings) and as another program does (JSON)."""

import math
from collections import Counter
from collections.abc import Sequence

import pandas as pd

from .. import __version__
from ..hierarchy import Tree
from .engine import Engine

NOT_A_DEVICE = "research use only; not a medical device"
SYNTHETIC = "trained on drawn films (a phantom), not on patients: its answers mean nothing for real films"


def in_tree_order(tree: Tree) -> list[tuple[str, int]]:
    """Labels with their depth, every child below the deepest of its parents, otherwise in the tree's own order."""
    children = {label: [] for label in tree.labels}
    roots = []
    for label in tree.labels:
        parents = tree.parents.get(label, ())
        deepest = max(parents, key=lambda parent: tree.depth[tree.labels.index(parent)], default=None)
        (roots if deepest is None else children[deepest]).append(label)
    order = []

    def visit(label: str, depth: int) -> None:
        order.append((label, depth))
        for child in children[label]:
            visit(child, depth + 1)

    for root in roots:
        visit(root, 0)
    return order


def legend(validation: dict, draws: int = 0) -> str:
    """What the calls are based on, in one line."""
    views = "; the thresholds were chosen without test-time views" if draws else ""
    return (f"calls: thresholds by {validation['rule']} on {validation['films']:,} validation films of "
            f"{validation['patients']:,} patients; sensitivity and specificity are those films'{views}. Research use "
            "only; not a medical device")


def as_text(table: pd.DataFrame, tree: Tree, validation: dict | None) -> str:
    """One film: its findings as a tree with calls; several: one line each. Odd films are marked."""
    names = [name for name in table.columns if name != "Path" and not name.endswith("]")]
    if not len(table):
        return ""
    if len(table) > 1:
        lines = [table[["Path", *names]].round(3).to_string(index=False)]
        lines += [f"{row['Path']}: {row['[flag]']}" for _, row in table.iterrows() if row["[flag]"]]
        return "\n".join(lines)
    row = table.iloc[0]
    lines = [row["Path"] + (f"  ({row['[flag]']})" if row["[flag]"] else "")]
    if row[names].isna().all():
        return f"{lines[0]}: not answered"
    for name, depth in in_tree_order(tree):
        spread = f" ±{row[f'{name} [sd]']:.3f}" if f"{name} [sd]" in row else ""
        lines.append(f"{'  ' * (1 + depth) + name:<34}{row[name]:.3f}{spread}{_call(name, row, validation)}")
    return "\n".join(lines)


def of_flags(flags: Sequence[str], refused: bool) -> str:
    """How many films are flagged and why, in one line; "" when none is.

    Args:
        flags: what is odd about each film, "" for nothing.
        refused: whether flagged films were given no probabilities.
    """
    counts = Counter(flag for flag in flags if flag)
    if not counts:
        return ""
    reasons = "; ".join(f"{count} {flag}" if len(counts) > 1 else flag for flag, count in counts.most_common())
    done = "They are not answered" if refused else "They are answered all the same; with --refuse-odd they are not"
    are = "is" if sum(counts.values()) == 1 else "are"
    return f"{sum(counts.values())} of {len(flags)} films {are} flagged: {reasons}. {done}"


def _call(name: str, row: pd.Series, validation: dict | None) -> str:
    """The call at the operating point with its sensitivity and specificity."""
    point = (validation or {}).get("labels", {}).get(name)
    if "[model]" in row and point is not None and math.isnan(row[f"{name} [call]"]):
        return ""  # a call that a model of drawn films makes on a real one would be made up
    if point is None or point["threshold"] is None or math.isnan(row[f"{name} [call]"]):
        return "" if validation is None else "  no operating point"
    word = "PRESENT" if row[f"{name} [call]"] else "absent"
    few = "; few positives" if point["few_positives"] else ""
    return (f"  {word:<8}from {point['threshold']:.3f} on: sensitivity {_rate(point, 'sensitivity')}, specificity "
            f"{_rate(point, 'specificity')}{few}")


def _rate(point: dict, name: str) -> str:
    value, low, high = (point[f"{name}{ending}"] for ending in ("", "_low", "_high"))
    if value is None:
        return "unknown"
    return f"{value:.2f}" if low is None or high is None else f"{value:.2f} ({low:.2f}-{high:.2f})"


def as_json(table: pd.DataFrame, engine: Engine, left_out: Sequence[tuple[str, str]]) -> dict:
    """The answers as plain JSON values: one entry per film with its findings, and the films left out."""
    validation = engine.validation
    order, points = in_tree_order(engine.tree), (validation or {}).get("labels", {})
    films = []
    for row in table.to_dict("records"):
        findings = []
        for name, _ in order:
            finding = {"finding": name, "probability": None if math.isnan(row[name]) else row[name]}
            finding |= {what: row[f"{name} [{what}]"] for what in ("sd", "calibrated")
                        if not math.isnan(row.get(f"{name} [{what}]", math.nan))}
            if f"{name} [call]" in row and not math.isnan(row[f"{name} [call]"]):
                point = points.get(name, {})
                finding |= {"present": bool(row[f"{name} [call]"]), "threshold": point.get("threshold"),
                            "sensitivity": point.get("sensitivity"), "specificity": point.get("specificity")}
            findings.append(finding)
        match = row["[match]"]
        films.append({"film": row["Path"], "flag": row["[flag]"], "match": None if math.isnan(match) else match,
                      "findings": findings})
    return {"package": f"chexpert_hier {__version__}", "intended_use": NOT_A_DEVICE,
            "synthetic": SYNTHETIC if engine.synthetic else None,
            "models": [str(member.folder) for member in engine.members],
            "validation": validation and {key: validation[key] for key in ("films", "patients", "rule")},
            "tree": {child: list(parents) for child, parents in engine.tree.parents.items()}, "films": films,
            "left_out": [{"film": name, "reason": reason} for name, reason in left_out]}
