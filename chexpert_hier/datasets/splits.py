"""Which films: splits and subsets by patient, drawn from a seed and the patients' names alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ..errors import InputError
from ..labels import uniform_draws

if TYPE_CHECKING:
    from .dataset import Dataset

def draw_split(patients: Sequence[str], seed: int, fractions: tuple[float, float, float]) -> np.ndarray:
    """Draw a split by patient: a patient's films stay together, whatever else is in the table.

    Args:
        patients: one name per film.
        seed: of the order of patients.
        fractions: of the patients in train, valid, test; sum 1. A fraction above 0 gets at least one patient.

    Returns:
        str (films,), "train", "valid" or "test".

    Raises:
        InputError: fractions that are no fractions, or too few patients.
    """
    if min(fractions) < 0 or abs(sum(fractions) - 1) > 1e-6:
        raise InputError(f"fractions are {fractions}; expected train, valid, test from 0 to 1 with sum 1")
    names, place = np.unique(np.asarray(patients, str), return_inverse=True)
    sizes = [0 if fraction == 0 else max(round(fraction * len(names)), 1) for fraction in fractions[1:]]
    if len(names) - sum(sizes) < (fractions[0] > 0):
        raise InputError(f"only {len(names)} patients; too few to split them into {fractions} (train, valid, test)")
    order = np.argsort(uniform_draws(names, ("split",), seed)[:, 0], kind="stable")
    chosen = np.full(len(names), "train", object)
    chosen[order[: sizes[0]]] = "valid"
    chosen[order[sizes[0]: sum(sizes)]] = "test"
    return chosen[place]


def limited(films: pd.DataFrame, limit: int, seed: int) -> pd.DataFrame:
    """At most `limit` training films: whole patients in a drawn order, until the next would not fit.

    The first patient is always kept; the other splits stay whole, as does the order of films.

    Raises:
        InputError: a limit below 1.
    """
    if limit < 1:
        raise InputError(f"limit is {limit}; expected at least 1 film")
    training = (films["split"] == "train").to_numpy()
    if not training.any():
        return films
    names, patient, counts = np.unique(films["patient"].to_numpy(str)[training], return_inverse=True,
                                       return_counts=True)
    order = np.argsort(uniform_draws(names, ("limit",), seed)[:, 0], kind="stable")
    fit = max(int(np.searchsorted(np.cumsum(counts[order]), limit, side="right")), 1)
    kept = ~training
    kept[training] = np.isin(patient, order[:fit])
    return films[kept]


def frontal_only_fair(both: Dataset, seed: int = 0) -> Dataset:
    """As many frontal films as `both` has films of either view, from the same patients.

    Each lateral film is replaced by a frontal one of the same patient, drawn with replacement, so films may repeat. A
    patient without a frontal (6 in CheXpert) has none to give: one of another patient with laterals stands in.

    Source: CheXpertNet's frontal-only comparison (deviations N11).
    """
    lateral = (both.films["view"] == "Lateral").to_numpy()
    patient = both.films["patient"].to_numpy()
    frontals: dict[str, list[int]] = {}
    for place in np.flatnonzero(~lateral):
        frontals.setdefault(patient[place], []).append(int(place))
    pool = [place for name in dict.fromkeys(patient[lateral]) for place in frontals.get(name, ())]
    if lateral.any() and not pool:
        raise InputError(f"{both.name}: no patient has both views; a fair frontal-only draw needs them")
    places = np.arange(len(both))
    draws = uniform_draws(both.keys[lateral], ("frontal",), seed)[:, 0]
    for place, draw in zip(np.flatnonzero(lateral), draws):
        own = frontals.get(patient[place], pool)
        places[place] = own[int(draw * len(own))]
    return both.select(places)
