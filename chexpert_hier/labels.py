"""The labels of the data sets, and the policies that turn raw codes (1, 0, -1, blank) into training targets.

Knows tables of numbers only: no files, no images, no models.
"""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .errors import InputError, one_of

# The order of the columns in CheXpert's CSV files (Irvin et al. 2019). Other files order them otherwise: read by name.
CHEXPERT_LABELS = (
    "No Finding", "Enlarged Cardiomediastinum", "Cardiomegaly", "Lung Opacity", "Lung Lesion", "Edema", "Consolidation",
    "Pneumonia", "Atelectasis", "Pneumothorax", "Pleural Effusion", "Pleural Other", "Fracture", "Support Devices",
)
# The five that CheXpert's competition scores (Irvin et al. 2019, section 4), in the order of Pham's Table 1.
COMPETITION_LABELS = ("Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Pleural Effusion")
# The order of Table 2 of CheXNet (Rajpurkar et al. 2017, arXiv v3).
CHESTXRAY14_LABELS = (
    "Atelectasis", "Cardiomegaly", "Effusion", "Infiltration", "Mass", "Nodule", "Pneumonia", "Pneumothorax",
    "Consolidation", "Edema", "Emphysema", "Fibrosis", "Pleural_Thickening", "Hernia",
)
# The three classes of U-MultiClass, in CheXpertNet's order (Irvin et al.'s own wrapper: uncertain, negative, positive).
CLASSES = ("negative", "positive", "uncertain")

LSR_ONES = (0.55, 0.85)  # Pham et al. 2019, section 4.3: U(a1, b1) for u-ones+lsr
LSR_ZEROS = (0.0, 0.3)  # the same: U(a0, b0) for u-zeros+lsr
LSR_DRAWS = ("fixed", "epoch", "mean")
BLANKS = ("negative", "ignore")
UNKNOWN = -9.0  # a code beside 1, 0, -1 and NaN (blank): the data set cannot say; it never counts, blank or not
TINY = 1e-30  # a float32 that leaves any probability above 1e-22 as it is


def key(path: str) -> str:
    """The part of a film's or study's path after the first "/", the whole where there is none.

    CheXpert's paths start with the name of the unpacked folder, which differs between downloads, so all joins and all
    random draws use this part.

    >>> key("CheXpert-v1.0-small/valid/patient64541/study1/view1_frontal.jpg")
    'valid/patient64541/study1/view1_frontal.jpg'
    """
    return path.partition("/")[2] or path


@dataclass(frozen=True)
class Policy:
    """How uncertain labels are used: the base policy, conditional training (ct), label smoothing (lsr)."""

    base: str
    ct: bool = False
    lsr: bool = False

    @classmethod
    def parse(cls, text: "str | Policy") -> "Policy":
        """Read e.g. "ct+U-Ones+lsr": parts in any order and case.

        Raises:
            InputError: no such policy; lists the valid ones.

        >>> Policy.parse("ct+U-Ones+lsr").name
        'u-ones+ct+lsr'
        """
        if isinstance(text, Policy):
            return text
        parts = [part.strip() for part in text.lower().split("+")]
        bases = [part for part in parts if part not in ("ct", "lsr")]
        policy = cls(bases[0] if len(bases) == 1 else "", "ct" in parts, "lsr" in parts)
        names = policy_names()
        if policy.name not in names or len(set(parts)) < len(parts):
            one_of("policy", text, names)
            raise InputError(f"policy is {text!r}; a part is given twice")
        return policy

    @property
    def name(self) -> str:
        """The name as the paper writes it in Table 1, e.g. "u-ones+ct+lsr"."""
        return self.base + "+ct" * self.ct + "+lsr" * self.lsr

    @property
    def rule(self) -> "Rule":
        """Its row of POLICIES."""
        return POLICIES[self.base]


@dataclass(frozen=True)
class Labelling:
    """How raw codes become training targets.

    Attributes:
        policy: one of `policy_names()`.
        seed: of the smoothed cells.
        blank: "negative": a blank cell is 0 under every policy, as in Stanford's own loader (deviations D2);
            "ignore": a blank cell does not count.
        lsr_draw: "fixed": one draw per cell; "epoch": a fresh one per epoch; "mean": its middle (deviations L3).
        lsr_ones: ends of the interval for uncertain cells under u-ones+lsr.
        lsr_zeros: the same under u-zeros+lsr.

    Raises:
        InputError: unknown policy or option, or an interval that is not inside [0, 1].
    """

    policy: str | Policy
    seed: int = 0
    blank: str = "negative"
    lsr_draw: str = "fixed"
    lsr_ones: tuple[float, float] = LSR_ONES
    lsr_zeros: tuple[float, float] = LSR_ZEROS

    def __post_init__(self) -> None:
        Policy.parse(self.policy)
        one_of("blank", self.blank, BLANKS)
        one_of("lsr_draw", self.lsr_draw, LSR_DRAWS)
        for low, high in (self.lsr_ones, self.lsr_zeros):
            if not 0.0 <= low <= high <= 1.0:
                raise InputError(f"label smoothing interval is ({low}, {high}); expected 0 <= low <= high <= 1")

    @property
    def parsed(self) -> Policy:
        """The policy."""
        return Policy.parse(self.policy)


@dataclass(frozen=True, eq=False)
class Cells:
    """What a policy works on: the arguments of `targets`, checked."""

    raw: np.ndarray
    keys: Sequence[str]
    labels: Sequence[str]
    how: Labelling
    epoch: int = 0
    selftrained: np.ndarray | None = None

    def filled(self, uncertain: np.ndarray | float) -> np.ndarray:
        """float32 (films, labels): the codes, blank cells as `how` has them, `uncertain` where the code is -1."""
        known = np.nan_to_num(self.raw, nan=0.0) if self.how.blank == "negative" else self.raw
        said = np.where(self.raw == UNKNOWN, np.nan, known)
        return np.where(self.raw == -1, uncertain, said).astype(np.float32)

    def smoothed(self, interval: tuple[float, float]) -> np.ndarray:
        """Numbers drawn from the interval, of which uncertain cells are given theirs (Pham et al. 2019, eq. 5)."""
        low, high = interval
        if self.how.lsr_draw == "mean":
            return np.full(self.raw.shape, (low + high) / 2, np.float32)
        if (len(self.keys), len(self.labels)) != self.raw.shape:
            raise ValueError(f"{len(self.keys)} keys and {len(self.labels)} labels for raw labels of shape "
                             f"{self.raw.shape}")
        rows = np.flatnonzero((self.raw == -1).any(axis=1)).tolist()
        result = np.zeros(self.raw.shape)
        # Stream 0 is the fixed draw; epoch 0 of the other rule is a draw of its own.
        stream = 0 if self.how.lsr_draw == "fixed" else self.epoch + 1
        drawn = uniform_draws([self.keys[row] for row in rows], self.labels, self.how.seed, stream)
        result[rows] = low + (high - low) * drawn
        return result


def u_ignore(cells: Cells) -> np.ndarray:
    """An uncertain cell does not count (Irvin et al. 2019, section 3; deviations M9)."""
    return cells.filled(np.nan)


def u_zeros(cells: Cells) -> np.ndarray:
    """An uncertain cell is negative (Irvin et al. 2019, section 3); +lsr: a number of U(0, 0.3)."""
    return cells.filled(cells.smoothed(cells.how.lsr_zeros) if cells.how.parsed.lsr else 0.0)


def u_ones(cells: Cells) -> np.ndarray:
    """An uncertain cell is positive (Irvin et al. 2019, section 3); +lsr: a number of U(0.55, 0.85)."""
    return cells.filled(cells.smoothed(cells.how.lsr_ones) if cells.how.parsed.lsr else 1.0)


def u_mean(cells: Cells) -> np.ndarray:
    """An uncertain cell is the label's `uncertain_mean` over the films at hand (Irvin et al. 2019, Table 2)."""
    return cells.filled(uncertain_mean(cells.raw))


def u_selftrained(cells: Cells) -> np.ndarray:
    """An uncertain cell is a finished model's probability (Irvin et al. 2019, section 3).

    Raises:
        ValueError: `selftrained` is not given for these films.
        InputError: a value is no probability.
    """
    given = cells.selftrained
    if given is None or np.shape(given) != cells.raw.shape:
        raise ValueError(f"selftrained must be given with shape {cells.raw.shape}; received "
                         f"{None if given is None else np.shape(given)}")
    values = np.asarray(given, np.float32)
    if ((values < 0) | (values > 1)).any():
        raise InputError("selftrained: a value is outside [0, 1]; expected probabilities")
    return cells.filled(values)


def u_multiclass(cells: Cells) -> np.ndarray:
    """An uncertain cell is a class of its own: one-hot over CLASSES, (films, labels, 3) (Irvin et al. 2019)."""
    codes = cells.filled(-1.0)
    hot = (codes[..., None] == np.array([0, 1, -1], np.float32)).astype(np.float32)
    return np.where(np.isnan(codes)[..., None], np.float32(np.nan), hot)


@dataclass(frozen=True)
class Rule:
    """A row of POLICIES.

    Attributes:
        targets: the whole policy: cells -> float32 (films, labels) in [0, 1], or (films, labels, 3) for three classes;
            NaN where a cell does not count.
        uncertain: the hard value of an uncertain cell, 1, 0 or NaN (none): as a parent it is present where it is 1.
        smoothing: whether +lsr may follow the name.
        three_class: whether the targets are one-hot over CLASSES.
        predictions: whether a finished run's predictions of the training films are needed.
    """

    targets: Callable[[Cells], np.ndarray]
    uncertain: float = np.nan
    smoothing: bool = False
    three_class: bool = False
    predictions: bool = False


POLICIES: dict[str, Rule] = {
    "u-ignore": Rule(u_ignore),
    "u-zeros": Rule(u_zeros, uncertain=0.0, smoothing=True),
    "u-ones": Rule(u_ones, uncertain=1.0, smoothing=True),
    "u-mean": Rule(u_mean),
    "u-selftrained": Rule(u_selftrained, predictions=True),
    "u-multiclass": Rule(u_multiclass, three_class=True),
}


def policy_names() -> tuple[str, ...]:
    """All policies: the rows of POLICIES with +ct and, where the row says so, +lsr."""
    return tuple(Policy(base, ct, lsr).name for base, rule in POLICIES.items()
                 for lsr in ((False, True) if rule.smoothing else (False,)) for ct in (False, True))


def hard_targets(raw: np.ndarray, policy: Policy | str, *, blank: str = "negative") -> np.ndarray:
    """The policy's value before smoothing; conditional training takes a parent for present where it is 1.

    Args:
        raw: (films, labels), 1, 0, -1, NaN (blank) or UNKNOWN.
        policy: one of `policy_names()`.
        blank: see `Labelling`.

    Returns:
        float32 (films, labels): 1, 0, or NaN where the cell has no hard value.

    Raises:
        InputError: unknown policy or blank rule.
        ValueError: raw holds another number.
    """
    how = Labelling(policy, blank=blank)
    return Cells(_checked(raw), (), (), how).filled(how.parsed.rule.uncertain)


def targets(raw: np.ndarray, keys: Sequence[str], labels: Sequence[str], how: Labelling | str, *, epoch: int = 0,
            selftrained: np.ndarray | None = None) -> np.ndarray:
    """Turn raw codes into training targets.

    A smoothed cell depends on (seed, key, label) alone, so it moves neither with the order of rows nor with the subset.

    Args:
        raw: (films, labels), 1, 0, -1, NaN (blank) or UNKNOWN.
        keys: the films' keys (see `key`), only used by +lsr.
        labels: names of the columns of `raw`, only used by +lsr.
        how: a Labelling, or the name of a policy with all else as in a Labelling's defaults.
        epoch: from 0, for lsr_draw="epoch".
        selftrained: (films, labels) in [0, 1], a finished model's probabilities for these rows; u-selftrained only.

    Returns:
        float32 (films, labels) in [0, 1], NaN = does not count; under u-multiclass (films, labels, 3), one-hot over
        CLASSES, NaN in all three where the cell does not count.

    Raises:
        InputError: unknown policy or option.
        ValueError: raw holds another number, or `selftrained` is needed and not given.

    One film with a present, an uncertain, an absent and a blank label:

    >>> raw = np.array([[1, -1, 0, np.nan]], np.float32)
    >>> targets(raw, ["film"], "abcd", "u-ignore")
    array([[ 1., nan,  0.,  0.]], dtype=float32)
    >>> targets(raw, ["film"], "abcd", "u-ones")
    array([[1., 1., 0., 0.]], dtype=float32)
    >>> targets(raw, ["film"], "abcd", Labelling("u-ones+lsr", lsr_draw="mean")).round(2)
    array([[1. , 0.7, 0. , 0. ]], dtype=float32)

    Source: Irvin et al. 2019, section 3; Pham et al. 2019, section 3.3, eq. 5.
    """
    how = Labelling(how) if isinstance(how, str) else how
    return how.parsed.rule.targets(Cells(_checked(raw), keys, labels, how, epoch, selftrained))


def uncertain_mean(raw: np.ndarray) -> np.ndarray:
    """U-Mean's target of uncertain cells: positives / (positives + explicit negatives), per label.

    Args:
        raw: (films, labels) of the training rows only.

    Returns:
        float32 (labels,), NaN (such cells do not count) where a label is nowhere explicitly positive or negative.

    Source: Irvin et al. 2019, Table 2, as their code has it.
    """
    raw = _checked(raw)
    positives, negatives = (raw == 1).sum(axis=0), (raw == 0).sum(axis=0)
    known = positives + negatives
    return np.asarray(np.where(known > 0, positives / np.maximum(known, 1), np.nan), np.float32)


def class_counts(raw: np.ndarray, *, blank: str = "negative") -> np.ndarray:
    """Films per class: int (labels, 3) in the order of CLASSES; see `hard_targets` for `raw` and `blank`."""
    hot = targets(raw, (), (), Labelling("u-multiclass", blank=blank))
    return np.asarray(np.nansum(hot, axis=0, dtype=np.float64), np.int64)


def positive_of_three(three: Any) -> Any:
    """p(positive) of negative, positive, uncertain, the uncertain class left out: p1 / (p0 + p1).

    Args:
        three: (..., 3) probabilities in the order of CLASSES; a NumPy array, or a tensor of any backend.

    Returns:
        (...,), of the same kind; 0.5 where the uncertain class has taken all (p0 = p1 = 0).

    Source: CheXpertNet (Wei and Jethani), evaluation; Irvin et al. 2019, U-MultiClass.
    """
    negative, positive = three[..., 0], three[..., 1]
    return (positive + TINY) / (negative + positive + 2 * TINY)


def class_weights(counts: np.ndarray) -> np.ndarray:
    """Weights of the three-class cross-entropy, w = (|N| + |P| + |U|) / |class|.

    Args:
        counts: (labels, 3), `class_counts` of the training rows.

    Returns:
        float32 (labels, 3); 0 for a class that no film has, which therefore trains nothing (No Finding, uncertain).

    Source: CheXpertNet (Wei and Jethani), section on the loss.
    """
    counts = np.asarray(counts, np.float64)
    total = counts.sum(axis=1, keepdims=True)
    return np.where(counts > 0, total / np.maximum(counts, 1), 0).astype(np.float32)


def balance_weights(target: np.ndarray) -> np.ndarray:
    """CheXNet's weights of the two terms of the binary cross-entropy.

    Args:
        target: (films, labels) in [0, 1], NaN = does not count; a soft target counts as that part of a positive.

    Returns:
        float32 (labels, 2): w+ = |N| / (|P| + |N|), w- = |P| / (|P| + |N|); both 0.5 where nothing counts.

    Source: Rajpurkar et al. 2017 (CheXNet), section 2.1.
    """
    positive = np.asarray(np.nansum(target, axis=0, dtype=np.float64))
    negative = np.asarray(np.nansum(1.0 - np.asarray(target), axis=0, dtype=np.float64))
    total = (positive + negative)[:, None]
    both = np.stack([negative, positive], axis=1)
    return np.asarray(np.divide(both, total, out=np.full(both.shape, 0.5), where=total > 0), np.float32)


def uniform_draws(keys: Iterable[str], labels: Sequence[str], seed: int, stream: int = 0) -> np.ndarray:
    """Uniform numbers in [0, 1) that depend on (seed, stream, key, label) alone: float64 (keys, labels).

    A counter-based hash: BLAKE2b of each name, mixed by SplitMix64 (Steele et al. 2014). The same on every platform.
    """
    start = _mix(np.array([(seed % 2**64)], np.uint64), np.array([stream], np.uint64))  # (1,)
    rows = _hashes(keys)[:, None]  # (keys, 1)
    columns = _mix(_hashes(labels), start)[None, :]  # (1, labels)
    return (_mix(rows, columns) >> np.uint64(11)) * 2.0**-53


def _hashes(names: Iterable[str]) -> np.ndarray:
    digests = b"".join(hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8).digest()
                       for name in names)
    return np.frombuffer(digests, "<u8").astype(np.uint64)


def _mix(value: np.ndarray, salt: np.ndarray) -> np.ndarray:
    # Two rounds, the salt between them, so that equal names as key and label do not cancel.
    for addend in (np.uint64(0), salt):
        value = (value ^ addend) + np.uint64(0x9E3779B97F4A7C15)
        value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        value = value ^ (value >> np.uint64(31))
    return value


def _checked(raw: np.ndarray) -> np.ndarray:
    raw = np.asarray(raw, np.float32)
    wrong = ~(np.isnan(raw) | (raw == 0) | (np.abs(raw) == 1) | (raw == UNKNOWN))
    if wrong.any():
        row, column = np.argwhere(wrong)[0]
        raise ValueError(f"raw[{row}, {column}] is {raw[row, column]}; expected 1, 0, -1, NaN or UNKNOWN")
    return raw
