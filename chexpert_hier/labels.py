"""The labels of the data sets, and the policies that turn raw codes (1, 0, -1, blank) into training targets.

Knows tables of numbers only: no files, no images, no models.
"""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

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
    def parse(cls, text: str) -> "Policy":
        """Read e.g. "ct+U-Ones+lsr": parts in any order and case.

        Raises:
            InputError: no such policy; lists the valid ones.

        >>> Policy.parse("ct+U-Ones+lsr").name
        'u-ones+ct+lsr'
        """
        parts = [part.strip() for part in text.lower().split("+")]
        bases = [part for part in parts if part not in ("ct", "lsr")]
        policy = cls(bases[0] if len(bases) == 1 else "", "ct" in parts, "lsr" in parts)
        if policy.name not in POLICY_NAMES or len(set(parts)) < len(parts):
            one_of("policy", text, POLICY_NAMES)
            raise InputError(f"policy is {text!r}; a part is given twice")
        return policy

    @property
    def name(self) -> str:
        """The name as the paper writes it in Table 1, e.g. "u-ones+ct+lsr"."""
        return self.base + "+ct" * self.ct + "+lsr" * self.lsr


def u_ignore(raw: np.ndarray) -> np.ndarray:
    """An uncertain cell does not count (Irvin et al. 2019, section 3; Pham et al. 2019, section 3.3; deviations M9)."""
    return np.where(raw == -1, np.float32(np.nan), raw)


def u_zeros(raw: np.ndarray) -> np.ndarray:
    """An uncertain cell is negative (Irvin et al. 2019, section 3)."""
    return np.where(raw == -1, np.float32(0), raw)


def u_ones(raw: np.ndarray) -> np.ndarray:
    """An uncertain cell is positive (Irvin et al. 2019, section 3)."""
    return np.where(raw == -1, np.float32(1), raw)


# Name -> what an uncertain cell is before smoothing: 1, 0 or NaN (no hard value). u-mean, u-selftrained and
# u-multiclass give an uncertain cell a value that is neither: as a parent it is not positive.
POLICIES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "u-ignore": u_ignore,
    "u-zeros": u_zeros,
    "u-ones": u_ones,
    "u-mean": u_ignore,
    "u-selftrained": u_ignore,
    "u-multiclass": u_ignore,
}
_SMOOTHED = {"u-ones", "u-zeros"}
POLICY_NAMES = tuple(
    Policy(base, ct, lsr).name for base in POLICIES for lsr in (False, True) for ct in (False, True)
    if not lsr or base in _SMOOTHED
)
# The ten rows of Pham et al. 2019, Table 1, in its order.
TABLE_1 = ("u-ignore", "u-ignore+ct", "u-zeros", "u-zeros+ct", "u-zeros+lsr", "u-zeros+ct+lsr",
           "u-ones", "u-ones+ct", "u-ones+lsr", "u-ones+ct+lsr")


def hard_targets(raw: np.ndarray, policy: "Policy | str", *, blank: str = "negative") -> np.ndarray:
    """The policy's value before smoothing; conditional training takes a parent for present where it is 1.

    Args:
        raw: (films, labels), 1, 0, -1 or NaN (blank).
        policy: one of POLICY_NAMES.
        blank: "negative": a blank cell is 0 under every policy, as Stanford's own loader has it (deviations D2);
            "ignore": a blank cell does not count.

    Returns:
        float32 (films, labels): 1, 0, or NaN where the cell has no hard value.

    Raises:
        InputError: unknown policy or blank rule.
        ValueError: raw holds another number.
    """
    one_of("blank", blank, BLANKS)
    raw = _checked(raw)
    base = (Policy.parse(policy) if isinstance(policy, str) else policy).base
    hard = POLICIES[base](raw)
    if blank == "negative":
        hard = np.where(np.isnan(raw), np.float32(0), hard)
    return hard.astype(np.float32)


def targets(raw: np.ndarray, keys: Sequence[str], labels: Sequence[str], policy: "Policy | str", seed: int = 0, *,
            blank: str = "negative", lsr_draw: str = "fixed", epoch: int = 0,
            lsr_ones: tuple[float, float] = LSR_ONES, lsr_zeros: tuple[float, float] = LSR_ZEROS,
            selftrained: np.ndarray | None = None, mean: np.ndarray | None = None) -> np.ndarray:
    """Turn raw codes into training targets.

    A smoothed cell depends on (seed, key, label) alone, so it moves neither with the order of rows nor with the subset.

    Args:
        raw: (films, labels), 1, 0, -1 or NaN (blank).
        keys: the films' keys (see `key`), only used by +lsr.
        labels: names of the columns of `raw`, only used by +lsr.
        policy: one of POLICY_NAMES.
        seed: of the smoothed cells.
        blank: see `hard_targets`.
        lsr_draw: "fixed": one draw per cell; "epoch": a fresh one per epoch; "mean": the interval's middle
            (deviations L3).
        epoch: from 0, for lsr_draw="epoch".
        lsr_ones: ends of the interval for uncertain cells under u-ones+lsr.
        lsr_zeros: the same under u-zeros+lsr.
        selftrained: (films, labels) in [0, 1], a finished model's probabilities for these rows; u-selftrained only.
        mean: (labels,), `uncertain_mean` of the training rows; u-mean only.

    Returns:
        float32 (films, labels) in [0, 1], NaN = does not count; under u-multiclass (films, labels, 3), see
        `multiclass_targets`.

    Raises:
        InputError: unknown policy or option, or an interval that is not inside [0, 1].
        ValueError: raw holds another number, or `selftrained` or `mean` is needed and not given.

    One film with a present, an uncertain, an absent and a blank label:

    >>> raw = np.array([[1, -1, 0, np.nan]], np.float32)
    >>> targets(raw, ["film"], "abcd", "u-ignore")
    array([[ 1., nan,  0.,  0.]], dtype=float32)
    >>> targets(raw, ["film"], "abcd", "u-ones")
    array([[1., 1., 0., 0.]], dtype=float32)
    >>> targets(raw, ["film"], "abcd", "u-ones+lsr", lsr_draw="mean").round(2)
    array([[1. , 0.7, 0. , 0. ]], dtype=float32)

    Source: Irvin et al. 2019, section 3; Pham et al. 2019, section 3.3, eq. 5.
    """
    policy = Policy.parse(policy) if isinstance(policy, str) else policy
    if policy.base == "u-multiclass":
        return multiclass_targets(raw, blank=blank)
    result = hard_targets(raw, policy, blank=blank)
    uncertain = np.asarray(raw) == -1
    if policy.lsr:
        low, high = lsr_ones if policy.base == "u-ones" else lsr_zeros
        smooth = _smooth(uncertain, keys, labels, (low, high), seed, lsr_draw, epoch)
    elif policy.base == "u-mean":
        smooth = np.broadcast_to(_given(mean, "mean", (result.shape[1],)), result.shape)
    elif policy.base == "u-selftrained":
        smooth = _given(selftrained, "selftrained", result.shape)
    else:
        return result
    return np.where(uncertain, smooth, result).astype(np.float32)


def uncertain_mean(raw: np.ndarray) -> np.ndarray:
    """U-Mean's target of uncertain cells: positives / (positives + explicit negatives), per label.

    Args:
        raw: (films, labels) of the training rows only.

    Returns:
        float32 (labels,), NaN (such cells do not count) where a label is nowhere explicitly positive or negative.

    Source: Irvin et al. 2019, Table 2 as their code has it.
    """
    raw = _checked(raw)
    positives, negatives = (raw == 1).sum(axis=0), (raw == 0).sum(axis=0)
    known = positives + negatives
    return np.where(known > 0, positives / np.maximum(known, 1), np.nan).astype(np.float32)


def multiclass_targets(raw: np.ndarray, *, blank: str = "negative") -> np.ndarray:
    """One-hot targets over CLASSES: float32 (films, labels, 3), NaN in all three where the cell does not count.

    Args:
        raw: (films, labels), 1, 0, -1 or NaN (blank).
        blank: see `hard_targets`.

    Source: Irvin et al. 2019, U-MultiClass.
    """
    one_of("blank", blank, BLANKS)
    raw = _checked(raw)
    known = np.nan_to_num(raw, nan=0.0) if blank == "negative" else raw
    hot = (known[..., None] == np.array([0, 1, -1], np.float32)).astype(np.float32)
    return np.where(np.isnan(known)[..., None], np.float32(np.nan), hot)


def class_counts(raw: np.ndarray, *, blank: str = "negative") -> np.ndarray:
    """Films per class: int (labels, 3) in the order of CLASSES; see `hard_targets` for `raw` and `blank`."""
    return np.nansum(multiclass_targets(raw, blank=blank), axis=0, dtype=np.float64).astype(np.int64)


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
    positive = np.nansum(target, axis=0, dtype=np.float64)
    negative = np.nansum(1.0 - np.asarray(target), axis=0, dtype=np.float64)
    total = (positive + negative)[:, None]
    both = np.stack([negative, positive], axis=1)
    return np.divide(both, total, out=np.full(both.shape, 0.5), where=total > 0).astype(np.float32)


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


def _smooth(uncertain: np.ndarray, keys: Sequence[str], labels: Sequence[str], interval: tuple[float, float],
            seed: int, draw: str, epoch: int) -> np.ndarray:
    one_of("lsr_draw", draw, LSR_DRAWS)
    low, high = interval
    if not 0.0 <= low <= high <= 1.0:
        raise InputError(f"label smoothing interval is ({low}, {high}); expected 0 <= low <= high <= 1")
    if draw == "mean":
        return np.full(uncertain.shape, (low + high) / 2, np.float32)
    if (len(keys), len(labels)) != uncertain.shape:
        raise ValueError(f"{len(keys)} keys and {len(labels)} labels for raw labels of shape {uncertain.shape}")
    rows = np.flatnonzero(uncertain.any(axis=1))
    result = np.zeros(uncertain.shape)
    # Stream 0 is the fixed draw; epoch 0 of the other rule is a draw of its own.
    drawn = uniform_draws([keys[row] for row in rows], labels, seed, 0 if draw == "fixed" else epoch + 1)
    result[rows] = low + (high - low) * drawn
    return result


def _given(values: np.ndarray | None, name: str, shape: tuple[int, ...]) -> np.ndarray:
    if values is None or np.shape(values) != shape:
        raise ValueError(f"{name} must be given with shape {shape}; received "
                         f"{None if values is None else np.shape(values)}")
    values = np.asarray(values, np.float32)
    if ((values < 0) | (values > 1)).any():
        raise InputError(f"{name}: a value is outside [0, 1]; expected probabilities")
    return values


def _checked(raw: np.ndarray) -> np.ndarray:
    raw = np.asarray(raw, np.float32)
    wrong = ~(np.isnan(raw) | (raw == 0) | (np.abs(raw) == 1))
    if wrong.any():
        row, column = np.argwhere(wrong)[0]
        raise ValueError(f"raw[{row}, {column}] is {raw[row, column]}; expected 1, 0, -1 or NaN")
    return raw
