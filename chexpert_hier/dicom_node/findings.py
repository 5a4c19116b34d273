"""What one model says of one film, finding by finding, and which model that is: what report and picture both show."""

import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from .. import __version__
from ..predict.answers import NOT_A_DEVICE, SYNTHETIC, in_tree_order
from ..serve.model import Reading, ServedModel
from .codes import Coding, of_finding

POINT = ("sensitivity", "specificity")


@dataclass(frozen=True)
class Finding:
    """One finding on one film.

    Attributes:
        label: its name in the data set.
        depth: in the tree of findings, 0 for a root.
        probability: after the chain rule.
        present: the call at the operating point; None where there is none.
        threshold: the operating point; None where it is not known.
        rates: its sensitivity and specificity on the validation films, in words, "" where they are not known.
    """

    label: str
    depth: int
    probability: float
    present: bool | None
    threshold: float | None
    rates: str

    @property
    def code(self) -> Coding:
        """What it is called by code."""
        return of_finding(self.label)


@dataclass(frozen=True)
class About:
    """Which model answers, as reports name it.

    Attributes:
        model: the model.
        fingerprint: hash of all that decides its answers.
    """

    model: ServedModel
    fingerprint: str

    @cached_property
    def name(self) -> str:
        """Recipe and network, e.g. "chexpert_hier pham2019 densenet121"; at most 64 characters."""
        recipe, count = self.model.engine.recipe, self.model.networks
        return f"chexpert_hier {recipe.name} {recipe.arch}{f' x{count}' if count > 1 else ''}"[:64]

    @property
    def version(self) -> str:
        """Version of the package and fingerprint; at most 64 characters."""
        return f"{__version__} {self.fingerprint}"

    @cached_property
    def words(self) -> list[str]:
        """What must be said with every answer."""
        synthetic = [SYNTHETIC] if self.model.engine.synthetic else []
        return [NOT_A_DEVICE, *synthetic]

    @cached_property
    def rule(self) -> str:
        """How the operating points were chosen, "" without any."""
        found = self.model.engine.validation
        if not found:
            return ""
        return f"{found['rule']} on {found['films']:,} validation films of {found['patients']:,} patients"

    @cached_property
    def trained_on(self) -> str:
        """Names of the data sets."""
        return ", ".join(dict.fromkeys(Path(one["name"]).name for one in self.model.engine.data))

    @property
    def no_call(self) -> str:
        """Why a finding has no call, where it has none."""
        return "no call: a model of drawn films makes none on others" if self.rule and self.model.engine.synthetic \
            else "no call: no operating point is known"

    def findings(self, reading: Reading) -> list[Finding]:
        """A film's findings in tree order."""
        engine = self.model.engine
        place = {label: k for k, label in enumerate(self.model.labels)}
        points = (engine.validation or {}).get("labels", {})
        calls = reading.answers.more.get("call")
        found = []
        for label, depth in in_tree_order(engine.tree):
            call = math.nan if calls is None else float(calls[0, place[label]])
            point = points.get(label, {})
            found.append(Finding(label, depth, float(reading.answers.probabilities[0, place[label]]),
                                 None if math.isnan(call) else call == 1, point.get("threshold"), _rates(point)))
        return found


def _rates(point: dict) -> str:
    known = [f"{name} {point[name]:.2f}" for name in POINT if point.get(name) is not None]
    return ", ".join(known) + (" (few positives)" if known and point.get("few_positives") else "")
