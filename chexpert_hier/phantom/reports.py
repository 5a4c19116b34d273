"""What is true of a phantom study, and what its report says: clean states, report labels, patients and views.

The statistics follow CheXpert's own, counted in its train.csv, as rounded rates; rare findings are made more
frequent than in life so that a few hundred validation patients have positives for all thirteen.
Knows label names only: no images.
"""

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from ..labels import CHEXPERT_LABELS

FINDINGS = CHEXPERT_LABELS[1:]  # all but No Finding, in CSV order
POSITIVE, UNCERTAIN, NEGATIVE, BLANK = 1.0, -1.0, 0.0, math.nan
CODES = np.array([POSITIVE, UNCERTAIN, NEGATIVE, BLANK])  # the order of the columns p, u, n, b below

# P(finding | its condition), radiologist-like: between CheXpert's valid and test sets, counted. The
# last five are rarer in life (0-4 % there).
CLEAN_RATES = {
    "Lung Opacity": 0.56,
    "Enlarged Cardiomediastinum | Lung Opacity": 0.66,
    "Enlarged Cardiomediastinum | no Lung Opacity": 0.36,
    "Cardiomegaly | Enlarged Cardiomediastinum": 0.62,
    "Edema | Lung Opacity": 0.36,
    "Consolidation | Lung Opacity": 0.24,
    "Pneumonia | Consolidation": 0.38,
    "Atelectasis | Lung Opacity": 0.62,
    "Pleural Effusion | Lung Opacity": 0.46,
    "Pleural Effusion | no Lung Opacity": 0.065,
    "Support Devices | any finding": 0.58,
    "Support Devices | no finding": 0.28,
    "Lung Lesion | Lung Opacity": 0.11,
    "Pneumothorax": 0.06,
    "Pleural Other": 0.055,
    "Fracture": 0.06,
}

# How much of a finding's variance belongs to the patient and comes back in the next study, counted in train.csv.
PATIENT_SHARE = {"Lung Opacity": 0.4, "Enlarged Cardiomediastinum": 0.5, "Cardiomegaly": 0.6, "Edema": 0.5,
                 "Consolidation": 0.5, "Pneumonia": 0.4, "Atelectasis": 0.4, "Lung Lesion": 0.75,
                 "Pleural Effusion": 0.6, "Pneumothorax": 0.75, "Pleural Other": 0.7, "Fracture": 0.75,
                 "Support Devices": 0.6}
# Shift of a finding's latent for an upright (PA) film and per 17 years of age (fitted to train.csv).
PA_SHIFT = {"Lung Opacity": -0.35, "Edema": -0.4, "Pleural Effusion": -0.2, "Support Devices": -0.65,
            "Pneumothorax": -0.2, "Lung Lesion": 0.3, "Pleural Other": 0.35, "Pneumonia": 0.2}
AGE_SHIFT = {"Lung Opacity": 0.12, "Enlarged Cardiomediastinum": 0.1, "Cardiomegaly": 0.1, "Edema": 0.05,
             "Pleural Effusion": 0.08, "Pneumothorax": -0.12, "Lung Lesion": 0.05}

# P(report says p, u, n, blank | truth): first row truth 1, second row truth 0. Rounded from the automatic labels of
# the CheXpert test set against its radiologists, counted, smoothed where a row has few studies.
REPORTED = {
    "Enlarged Cardiomediastinum": ((0.05, 0.07, 0.04, 0.84), (0.03, 0.05, 0.20, 0.72)),
    "Cardiomegaly": ((0.28, 0.04, 0.02, 0.66), (0.06, 0.03, 0.08, 0.83)),
    "Lung Opacity": ((0.62, 0.01, 0.01, 0.36), (0.24, 0.03, 0.06, 0.67)),
    "Lung Lesion": ((0.50, 0.03, 0.01, 0.46), (0.02, 0.007, 0.005, 0.968)),
    "Edema": ((0.55, 0.17, 0.05, 0.23), (0.18, 0.04, 0.12, 0.66)),
    "Consolidation": ((0.24, 0.07, 0.10, 0.59), (0.05, 0.13, 0.15, 0.67)),
    "Pneumonia": ((0.08, 0.27, 0.02, 0.63), (0.02, 0.07, 0.01, 0.90)),
    "Atelectasis": ((0.20, 0.29, 0.005, 0.505), (0.13, 0.11, 0.005, 0.755)),
    "Pneumothorax": ((0.85, 0.04, 0.01, 0.10), (0.04, 0.01, 0.28, 0.67)),
    "Pleural Effusion": ((0.72, 0.09, 0.03, 0.16), (0.24, 0.04, 0.20, 0.52)),
    "Pleural Other": ((0.12, 0.08, 0.01, 0.79), (0.008, 0.007, 0.001, 0.984)),
    "Fracture": ((0.30, 0.02, 0.05, 0.63), (0.025, 0.002, 0.01, 0.963)),
    "Support Devices": ((0.79, 0.005, 0.02, 0.185), (0.22, 0.005, 0.035, 0.74)),
}
# "atelectasis or consolidation": P(second uncertain | first uncertain) (counted in train.csv).
UNCERTAIN_TOGETHER = {
    "Atelectasis": {"Consolidation": 0.75, "Pneumonia": 0.335},
    "Edema": {"Pneumonia": 0.276},
    "Pleural Effusion": {"Pleural Other": 0.71, "Pneumothorax": 0.216},
}
# Factor on the odds that the report names Lung Opacity when it names a more specific finding, positive and uncertain
# ("omitted parent", counted in train.csv: e.g. of the reports with Atelectasis only 42 % also name an opacity).
PARENT_NAMED = {"Edema": (0.95, 1.7), "Lung Lesion": (1.1, 1.1), "Atelectasis": (0.7, 2.2),
                "Consolidation": (0.5, 1.4), "Pneumonia": (2.0, 2.6)}
REPORT_ORDER = ("Pleural Other", "Pneumothorax", "Consolidation", "Pneumonia", "Edema", "Atelectasis",
                "Pleural Effusion", "Enlarged Cardiomediastinum", "Cardiomegaly", "Lung Lesion", "Fracture",
                "Support Devices", "Lung Opacity")

# Views per study and the share of studies, counted in train.csv.
VIEWS = {"F": 0.8188, "FL": 0.1581, "FF": 0.0135, "FLL": 0.0051, "FFL": 0.0042, "FFF": 0.0002, "L": 0.0001}
STUDIES = (0.520, 0.173, 0.092, 0.057)  # patients with 1-4 studies; the others follow a geometric tail
AGE_QUANTILES = ((0, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.985, 1), (18, 20, 27, 49, 62, 74, 87, 90, 90))


@dataclass(frozen=True)
class Study:
    """One study: what was taken, what is true (14 of 0/1) and what the report says (14 of 1, 0, -1, NaN)."""

    projection: str
    age: int
    views: str
    truth: np.ndarray
    report: np.ndarray


def draw_studies(rng: np.random.Generator, most: int, report_noise: float, laterals: bool) -> tuple[str, list[Study]]:
    """Draw a patient's sex and studies.

    Args:
        rng: the patient's own generator.
        most: no more studies than this (CheXpert: 91).
        report_noise: factor on everything a report gets wrong, leaves open or omits; 0 gives the clean truth with
            negatives that may be blank.
        laterals: with lateral views; without them every study keeps its frontal ones.

    Returns:
        sex ("Male" or "Female") and the studies in order.
    """
    sex = "Male" if rng.random() < 0.555 else "Female"  # 35,811 of 64,540 patients of train.csv
    age = float(np.interp(rng.random(), *AGE_QUANTILES))
    latent = {name: rng.standard_normal() for name in FINDINGS}
    upright = rng.standard_normal()
    studies = []
    for _ in range(min(_number_of_studies(rng), most)):
        pa_rate = 0.154 + 0.03 * (61 - age) / 17
        pa = 0.7 * upright + math.sqrt(1 - 0.7**2) * rng.standard_normal() < NormalDist().inv_cdf(pa_rate)
        truth = clean_state(rng, latent, pa, age)
        report = report_labels(rng, truth, report_noise)
        studies.append(Study("PA" if pa else "AP", min(round(age), 90), _views(rng, pa, laterals), truth, report))
        age += rng.exponential(0.4)
    return sex, studies


def _number_of_studies(rng: np.random.Generator) -> int:
    draw = rng.random()
    for number, below in enumerate(np.cumsum(STUDIES), start=1):
        if draw < below:
            return number
    return 4 + int(rng.geometric(1 / 5.75))  # mean 9.75 in the tail makes 2.91 over all, as in train.csv


def _views(rng: np.random.Generator, pa: bool, laterals: bool) -> str:
    names, shares = list(VIEWS), np.array(list(VIEWS.values()))
    # Laterals are taken of who can stand: most PA studies have one, few AP studies; overall the shares of VIEWS.
    shares = shares * np.array([1.0 if "L" not in name else (4.2 if pa else 0.42) for name in names])
    shares[0] += 1 - shares.sum()
    views = names[int(np.searchsorted(np.cumsum(shares), rng.random() * 0.999999))]
    return views if laterals else (views.replace("L", "") or "F")


def clean_state(rng: np.random.Generator, latent: dict[str, float], pa: bool, age: float) -> np.ndarray:
    """Draw the true state of one study, closed under the CheXpert tree.

    Args:
        rng: the generator.
        latent: the patient's own standard normal number per finding.
        pa: an upright PA film, else AP.
        age: in years.

    Returns:
        float (14,) of 0 and 1 in the order of CHEXPERT_LABELS.
    """
    def present(name: str, condition: str = "", factor: float = 1.0) -> bool:
        share = PATIENT_SHARE[name]
        z = math.sqrt(share) * latent[name] + math.sqrt(1 - share) * rng.standard_normal()
        # The shifts are centred so that the rates stay: 15.4 % of the studies are PA, mean age 61.
        z += PA_SHIFT.get(name, 0.0) * (pa - 0.154) + AGE_SHIFT.get(name, 0.0) * (age - 61) / 17
        rate = CLEAN_RATES[f"{name} | {condition}" if condition else name] * factor
        return z > -NormalDist().inv_cdf(rate)

    state = dict.fromkeys(FINDINGS, False)
    opacity = state["Lung Opacity"] = present("Lung Opacity")
    given = "Lung Opacity" if opacity else "no Lung Opacity"
    state["Enlarged Cardiomediastinum"] = present("Enlarged Cardiomediastinum", given)
    if state["Enlarged Cardiomediastinum"]:
        state["Cardiomegaly"] = present("Cardiomegaly", "Enlarged Cardiomediastinum")
    if opacity:
        for name in ("Edema", "Consolidation", "Atelectasis", "Lung Lesion"):
            heart = 1.25 if state["Cardiomegaly"] else 0.85  # heart failure
            state[name] = present(name, given, heart if name == "Edema" else 1.0)
    if state["Consolidation"]:
        state["Pneumonia"] = present("Pneumonia", "Consolidation")
    state["Pleural Effusion"] = present("Pleural Effusion", given)
    for name in ("Pneumothorax", "Pleural Other", "Fracture"):
        state[name] = present(name)
    healthy = not any(state.values())
    state["Support Devices"] = present("Support Devices", "no finding" if healthy else "any finding")
    return np.array([healthy, *state.values()], dtype=float)


def report_labels(rng: np.random.Generator, truth: np.ndarray, noise: float) -> np.ndarray:
    """Draw what the report says of a study.

    Specific findings first, with their common uncertainty; then Lung Opacity, often omitted when something more
    specific is named; No Finding only when nothing but Support Devices is positive or uncertain.

    Args:
        rng: the generator.
        truth: float (14,) of 0 and 1.
        noise: see `draw_studies`.

    Returns:
        float (14,) of 1, 0, -1 and NaN (not mentioned).
    """
    state = dict(zip(FINDINGS, truth[1:] > 0))
    said: dict[str, str] = {}
    for name in REPORT_ORDER:
        rates = _with_noise(REPORTED[name], state[name], noise)
        if name in UNCERTAIN_TOGETHER:
            rates = _with_common_uncertainty(rates, name, said, noise)
        if name == "Lung Opacity":
            rates = _with_omission(rates, said, noise)
        said[name] = "punb"[int(np.searchsorted(np.cumsum(rates), rng.random() * 0.999999))]
    open_findings = [name for name in FINDINGS if name != "Support Devices" and said[name] in "pu"]
    # One in five reports without a finding has No Finding blank all the same, as in train.csv.
    healthy = not open_findings and rng.random() < 1 - 0.2 * min(noise, 1.0)
    codes = [CODES["punb".index(said[name])] for name in FINDINGS]
    return np.array([POSITIVE if healthy else BLANK, *codes])


def _with_noise(rows: tuple, present: bool, noise: float) -> np.ndarray:
    """p, u, n, b for a truth, with the wrong, open and omitted part scaled by `noise`."""
    rates = np.array(rows[0] if present else rows[1])
    wrong = np.array([0.0, 1, 1, 1]) if present else np.array([1.0, 1, 0, 0])
    scale = min(noise, 0.999 / (rates @ wrong))
    right = rates * (1 - wrong)
    return rates * wrong * scale + right / right.sum() * (1 - scale * (rates @ wrong))


def _with_common_uncertainty(rates: np.ndarray, name: str, said: dict[str, str], noise: float) -> np.ndarray:
    """Raise P(u) when a partner is uncertain and lower it when none is, so that P(u) stays about as it was."""
    partners = UNCERTAIN_TOGETHER[name]
    together = [rate for partner, rate in partners.items() if said[partner] == "u"]
    if together:
        uncertain = max(together)
    else:
        expected = {partner: min(noise, 1.0) * REPORTED[partner][1][1] for partner in partners}
        explained = sum(expected[partner] * rate for partner, rate in partners.items())
        uncertain = max(0.0, rates[1] - explained) / (1 - sum(expected.values()))
    changed = rates * (1 - uncertain) / (1 - rates[1])
    changed[1] = uncertain
    return changed


def _with_omission(rates: np.ndarray, said: dict[str, str], noise: float) -> np.ndarray:
    """Change the odds that the parent is named, by what more specific finding is."""
    odds = rates[0] / max(1 - rates[0], 1e-9)
    for child, (positive, uncertain) in PARENT_NAMED.items():
        odds *= {"p": positive, "u": uncertain}.get(said[child], 1.0) ** min(noise, 1.0)
    named = odds / (1 + odds)
    changed = rates * (1 - named) / max(1 - rates[0], 1e-9)
    changed[0] = named
    return changed
