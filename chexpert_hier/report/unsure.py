"""What was uncertain: labels of the training reports, and the films that the network is least sure of."""

import numpy as np

from .. import labels
from ..evaluate.names import mean_labels
from ..evaluate.page import Line, in_digits, line
from ..predict import uncertainty
from .judged import Run


def targets(run: Run) -> list[Line]:
    """What the policy made of the training reports' "uncertain"."""
    recipe = run.recipe
    if run.dataset is None or recipe.three_class or recipe.labelling.parsed.rule.predictions:
        return []
    train = run.dataset.split("train")
    made = labels.targets(train.raw, train.keys, train.labels, recipe.labelling)
    lines = []
    for k, label in enumerate(train.labels):
        cells = made[train.raw[:, k] == -1, k]
        known = cells[~np.isnan(cells)]
        words = "not learned from" if not len(known) else f"{known.mean():.2f} ({known.min():.2f} to {known.max():.2f})"
        if len(cells):
            lines.append(line(label, [f"{len(cells):,}", words]))
    return lines


def films(run: Run) -> tuple[list[Line], list[Line]]:
    """The cases whose calibrated answers are nearest to a coin's, and what leaving such cases out would gain."""
    result, cases = run.result, run.result.cases
    if result.calibrated is None:
        return [], []
    five = [cases.labels.index(label) for label in mean_labels(cases.labels)[1]]
    entropy = uncertainty.entropy(result.calibrated)
    unsure = entropy[:, five].mean(1)
    lines = []
    for case in np.argsort(-unsure, kind="stable")[:8]:
        k = five[int(entropy[case, five].argmax())]
        truth = {1.0: "present", 0.0: "absent"}.get(float(cases.truth[case, k]), "unknown")
        lines.append(line(cases.labels[k], [in_digits(result.calibrated[case, k], 2), truth, in_digits(unsure[case]),
                                            labels.key(cases.keys[case])]))
    gains = [line(cases.labels[k], _selective(entropy[:, k], result.calibrated[:, k], cases.truth[:, k]))
             for k in five]
    return lines, gains


def _selective(entropy: np.ndarray, probability: np.ndarray, truth: np.ndarray) -> list[str]:
    coverage, risk, _ = uncertainty.risk_coverage(entropy, (probability - truth) ** 2)
    return [in_digits(risk[np.searchsorted(coverage, share)]) if len(risk) else "–" for share in (1.0, 0.8, 0.5)]
