"""The disease trees: which finding implies which, what stage 1 may learn from, and what follows for probabilities.

Stage 1 learns p(label | parents present); `chain_rule` turns that into p(label).
Knows label names only: no files but a user's own tree, no images, no models.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple, TypeGuard

import numpy as np

from .errors import InputError, one_of
from .labels import CHESTXRAY14_LABELS, CHEXPERT_LABELS

FEW_SEEN = 0.1  # log and report name the labels of whose positives stage 1 sees a smaller share (ours)


@dataclass(frozen=True)
class Tree:
    """Labels and, for those that have any, their direct parents (a DAG: a label may have several).

    Raises:
        InputError: a parent or child that is no label, a label given twice, or a cycle.

    >>> lungs = Tree(("Opacity", "Consolidation", "Pneumonia"),
    ...              {"Consolidation": ("Opacity",), "Pneumonia": ("Opacity", "Consolidation")})
    >>> lungs.depth.tolist(), lungs.ancestors[2].tolist()
    ([0, 1, 2], [True, True, True])
    """

    labels: tuple[str, ...]
    parents: Mapping[str, tuple[str, ...]]

    def __post_init__(self) -> None:
        if len(set(self.labels)) < len(self.labels) or not self.labels:
            raise InputError(f"tree: labels are {list(self.labels)}; expected at least one, each once")
        for child, parents in self.parents.items():
            for name in (child, *parents):
                one_of("tree: label", name, self.labels)
        unsorted = {label: set(self.parents.get(label, ())) for label in self.labels}
        while unsorted:
            ready = [label for label, parents in unsorted.items() if not parents & unsorted.keys()]
            if not ready:
                raise InputError(f"tree: a cycle goes through {', '.join(sorted(unsorted))}; "
                                 "a label cannot be its own ancestor")
            for label in ready:
                del unsorted[label]

    @cached_property
    def parents_matrix(self) -> np.ndarray:
        """bool (labels, labels): [m, j] says that j is a direct parent of m."""
        place = {label: index for index, label in enumerate(self.labels)}
        matrix = np.zeros((len(self.labels),) * 2, bool)
        for child, parents in self.parents.items():
            matrix[place[child], [place[parent] for parent in parents]] = True
        return matrix

    @cached_property
    def ancestors(self) -> np.ndarray:
        """bool (labels, labels): [m, j] says that j is m itself or an ancestor of m, by whatever path."""
        reach = self.parents_matrix | np.eye(len(self.labels), dtype=bool)
        for _ in self.labels:
            reach = (reach.astype(int) @ reach.astype(int)) > 0
        return reach

    @cached_property
    def depth(self) -> np.ndarray:
        """int (labels,): edges on the longest path to a root."""
        depth = np.zeros(len(self.labels), int)
        for _ in self.labels:
            depth = np.where(self.parents_matrix, depth[None, :] + 1, 0).max(axis=1)
        return depth

    @cached_property
    def edges(self) -> np.ndarray:
        """int (edges, 2): places of (parent, child), children in label order."""
        return np.argwhere(self.parents_matrix)[:, ::-1]

    @cached_property
    def children(self) -> np.ndarray:
        """bool (labels,): has a parent."""
        return np.asarray(self.parents_matrix.any(axis=1))

    @cached_property
    def has_children(self) -> np.ndarray:
        """bool (labels,): is a parent."""
        return np.asarray(self.parents_matrix.any(axis=0))

    def subset(self, labels: Sequence[str]) -> "Tree":
        """The tree over some of the labels; who loses a parent gets that parent's parents."""
        def kept(label: str) -> list[str]:
            return [found for parent in self.parents.get(label, ())
                    for found in ([parent] if parent in labels else kept(parent))]
        return Tree(tuple(labels), {label: tuple(dict.fromkeys(kept(label))) for label in labels if kept(label)})


def flat(labels: Sequence[str]) -> Tree:
    """A tree without edges: conditional training and the chain rule then change nothing."""
    return Tree(tuple(labels), {})


# Irvin et al. 2019, Figure 1 (deviations C3). The unlabelled node above the pleural findings is no output;
# No Finding is no factor. Lung Opacity -> Pneumonia is implied by the path through Consolidation; it is drawn, so it is
# kept.
CHEXPERT_TREE = Tree(CHEXPERT_LABELS, {
    "Cardiomegaly": ("Enlarged Cardiomediastinum",),
    "Lung Lesion": ("Lung Opacity",),
    "Edema": ("Lung Opacity",),
    "Consolidation": ("Lung Opacity",),
    "Pneumonia": ("Lung Opacity", "Consolidation"),
    "Atelectasis": ("Lung Opacity",),
})

# Asadi et al. 2025 (HBCE), 21 outputs and 20 edges in the order of their code.
HBCE_TREE = Tree(
    (*sorted(CHEXPERT_LABELS), "Uncertain", "Abnormal", "Cardiac", "Fluid Accumulation", "Missing Lung Tissue",
     "Opacity", "Other"),
    {
        "Opacity": ("Abnormal",), "Cardiac": ("Abnormal",), "Other": ("Abnormal",),
        "Lung Opacity": ("Opacity",), "Lung Lesion": ("Opacity",), "Fluid Accumulation": ("Opacity",),
        "Missing Lung Tissue": ("Opacity",),
        "Edema": ("Fluid Accumulation",), "Consolidation": ("Fluid Accumulation",),
        "Pleural Effusion": ("Fluid Accumulation",), "Pneumonia": ("Fluid Accumulation", "Consolidation"),
        "Atelectasis": ("Missing Lung Tissue",), "Pneumothorax": ("Missing Lung Tissue",),
        "Pleural Other": ("Missing Lung Tissue",),
        "Enlarged Cardiomediastinum": ("Cardiac",), "Cardiomegaly": ("Cardiac", "Enlarged Cardiomediastinum"),
        "Fracture": ("Other",), "Support Devices": ("Other",),
    },
)

TREES: dict[str, Tree] = {
    "chexpert": CHEXPERT_TREE,
    "chestxray14": flat(CHESTXRAY14_LABELS),
    "hbce": HBCE_TREE,
    "flat": flat(CHEXPERT_LABELS),
}


def named(tree: Tree | str | Mapping[str, Sequence[str]], labels: Sequence[str]) -> Tree:
    """The tree over `labels`: one of TREES by name (cut down to them), a Tree, or {child: [parents]}.

    Raises:
        InputError: no such tree, or one that `Tree` refuses.
    """
    if isinstance(tree, str):
        one_of("tree", tree, TREES)
        tree = TREES[tree]
    if isinstance(tree, Mapping):
        tree = Tree(tuple(labels), {child: tuple(parents) for child, parents in tree.items()})
    return tree if tree.labels == tuple(labels) else tree.subset(labels)


def read_tree(path: str | Path, labels: Sequence[str] | None = None) -> Tree:
    """Read a user's tree: JSON {"labels": ["A", "B"], "parents": {"B": ["A"]}}, or the inner object alone.

    Args:
        path: the JSON file.
        labels: the labels in order; None takes the file's own.

    Raises:
        InputError: no such file, no JSON, another shape, or a tree that `Tree` refuses.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); expected a tree as JSON") from None
    except (ValueError, RecursionError):
        raise InputError(f"{path}: not JSON; expected {{\"labels\": [...], \"parents\": {{\"child\": [\"parent\"]}}}}"
                         ) from None
    parents = content.get("parents", None if "labels" in content else content) if isinstance(content, dict) else None
    names = labels if labels is not None else content.get("labels") if isinstance(content, dict) else None
    if not (_is_names(names) and isinstance(parents, dict) and all(map(_is_names, parents.values()))):
        raise InputError(f"{path}: expected {{\"labels\": [...], \"parents\": {{\"child\": [\"parent\", ...]}}}} "
                         "with names as text")
    try:
        return Tree(tuple(names), {child: tuple(above) for child, above in parents.items()})
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def _is_names(value: object) -> TypeGuard[Sequence[str]]:
    return isinstance(value, list | tuple) and all(isinstance(name, str) for name in value)


def close_upward(raw: np.ndarray, tree: Tree) -> np.ndarray:
    """Give every finding's ancestors at least its certainty: 1 above a 1, -1 above a -1 (unless 1 already).

    Reports name the specific finding and leave its parent out (91.6 % of CheXpert's positive Cardiomegaly have a blank
    Enlarged Cardiomediastinum); the paper never mentions repairing this, so it is an option (deviations C5).

    Args:
        raw: (films, labels), 1, 0, -1 or NaN.
        tree: whose labels are the columns.

    Returns:
        raw codes, float32, same shape; a 0 or blank below changes nothing above.

    >>> lungs = Tree(("Opacity", "Consolidation"), {"Consolidation": ("Opacity",)})
    >>> close_upward([[np.nan, 1], [0, -1], [1, 0]], lungs).tolist()
    [[1.0, 1.0], [-1.0, -1.0], [1.0, 0.0]]
    """
    raw = np.asarray(raw, np.float32)
    _columns(raw, tree)
    below = tree.ancestors.astype(np.float32)  # (descendant, ancestor)
    positive = (raw == 1).astype(np.float32) @ below > 0
    uncertain = (raw == -1).astype(np.float32) @ below > 0
    return np.where(positive, np.float32(1), np.where(uncertain, np.float32(-1), raw))


class StageOne(NamedTuple):
    """What stage 1 learns from.

    Attributes:
        rows: bool (films,).
        cells: bool (films, labels), False outside `rows`. A cell whose target is NaN still does not count.
    """

    rows: np.ndarray
    cells: np.ndarray


def conditional_cells(hard: np.ndarray, tree: Tree) -> np.ndarray:
    """The cells that p(label | parents present) is learned from: those whose parents are all present.

    Args:
        hard: (films, labels) of `labels.hard_targets`: a parent is present where it is 1. NaN is not present.
        tree: whose labels are the columns.

    Returns:
        bool (films, labels), True in every row for a label without parents.

    Source: Chen et al. 2019, eq. 2.
    """
    _columns(hard, tree)
    absent = (np.asarray(hard) != 1).astype(np.float32)
    return np.asarray(absent @ tree.parents_matrix.T.astype(np.float32) == 0)


def _leaves(hard: np.ndarray, tree: Tree) -> StageOne:
    roots = tree.has_children & ~tree.children
    return StageOne((hard[:, roots] == 1).any(axis=1), np.broadcast_to(~roots, hard.shape))


def _union(hard: np.ndarray, tree: Tree) -> StageOne:
    return StageOne(_leaves(hard, tree).rows, conditional_cells(hard, tree) & tree.children)


def _all_parents(hard: np.ndarray, tree: Tree) -> StageOne:
    rows = (hard[:, tree.has_children] == 1).all(axis=1) & tree.has_children.any()
    return StageOne(rows, np.broadcast_to(tree.children, hard.shape))


def _any_parent(hard: np.ndarray, tree: Tree) -> StageOne:
    return StageOne((hard[:, tree.has_children] == 1).any(axis=1), np.ones(hard.shape, bool))


def _chen(hard: np.ndarray, tree: Tree) -> StageOne:
    return StageOne(np.ones(len(hard), bool), conditional_cells(hard, tree))


# Name -> rows and cells (which may lie outside the rows) of a reading; the first one is the default.
READINGS: dict[str, Callable[[np.ndarray, Tree], StageOne]] = {
    "leaves": _leaves, "union": _union, "all-parents": _all_parents, "any-parent": _any_parent, "chen": _chen,
}


def stage_one(hard: np.ndarray, tree: Tree, reading: str = "leaves") -> StageOne:
    """Which rows and cells stage 1 (conditional training) learns from.

    The paper's sentence, a partial training set "containing all positive parent labels" on which child labels are
    learned (Pham et al. 2019, section 3.2), leaves it open (deviations C1-C4). The readings, with their number
    of CheXpert's 191,027 training frontals under u-ignore and u-zeros / u-ones:

    - "leaves" (default): rows where a root with children is positive (Lung Opacity or Enlarged Cardiomediastinum:
      98,882 / 107,475); on them every label but these roots trains, unmasked, also labels without parents.
    - "union": the same rows; a child's cell counts only where all its parents are positive (Pneumonia: Lung Opacity
      and Consolidation: 4,897 / 22,847); labels without parents do not train.
    - "all-parents": the literal sentence: rows where every label with children is positive (209 / 2,404); all children
      train, labels without parents do not.
    - "any-parent": rows where any label with children is positive (106,666 / 120,584); all outputs train, unmasked.
    - "chen": all rows (191,027); a child's cell counts where all its parents are positive, others always (Chen et al.
      2019, eq. 2).

    Args:
        hard: (films, labels) of `labels.hard_targets`: a parent is present where it is 1. NaN is not present.
        tree: whose labels are the columns.
        reading: one of READINGS.

    Raises:
        InputError: there is no such reading.
        ValueError: the number of columns is not the tree's number of labels.

    >>> lungs = Tree(("Opacity", "Consolidation", "Effusion"), {"Consolidation": ("Opacity",)})
    >>> rows, cells = stage_one(np.array([[1, 0, 1], [0, 1, 1], [1, np.nan, 0]]), lungs)
    >>> rows.tolist(), cells.tolist()
    ([True, False, True], [[False, True, True], [False, False, False], [False, True, True]])
    """
    one_of("ct-rows", reading, READINGS)
    hard = np.asarray(hard)
    _columns(hard, tree)
    rows, cells = READINGS[reading](hard, tree)
    return StageOne(rows, cells & rows[:, None])


def positives_seen(hard: np.ndarray, cells: np.ndarray) -> np.ndarray:
    """The share of each label's positives that stage 1 sees.

    Args:
        hard: (films, labels) of `labels.hard_targets`; positive is 1.
        cells: bool (films, labels) of `stage_one`.

    Returns:
        float64 (labels,) in [0, 1]; NaN for a label that is nowhere positive.
    """
    positive = np.asarray(hard) == 1
    total = positive.sum(axis=0)
    seen = (positive & cells).sum(axis=0)
    return np.asarray(np.divide(seen, total, out=np.full(total.shape, np.nan), where=total > 0))


def chain_rule(conditional: np.ndarray, tree: Tree) -> np.ndarray:
    """Turn p(label | parents present) into p(label): the product over the label and its ancestors, each once.

    Args:
        conditional: float (films, labels), each in [0, 1].
        tree: the hierarchy whose labels are the columns.

    Returns:
        p(label), same shape and type; never above any ancestor's, not even by rounding.

    Raises:
        ValueError: the number of columns is not the tree's number of labels.

    >>> lungs = Tree(("Opacity", "Consolidation", "Pneumonia"),
    ...              {"Consolidation": ("Opacity",), "Pneumonia": ("Opacity", "Consolidation")})
    >>> chain_rule(np.array([[0.5, 0.4, 0.25]]), lungs)
    array([[0.5 , 0.2 , 0.05]])

    Source: Pham et al. 2019, section 3.2, eqs. 3-4; Chen et al. 2019, eq. 3 for "each once" (deviations C11).
    """
    conditional = np.asarray(conditional)
    _columns(conditional, tree)
    result = np.ones_like(conditional)
    # One factor after the other, in the same order for all labels: that keeps the order exact in floating point.
    for place in range(len(tree.labels)):
        result = np.where(tree.ancestors[:, place], result * conditional[:, [place]], result)
    return result


def log_chain_rule(logits: np.ndarray, tree: Tree) -> tuple[np.ndarray, np.ndarray]:
    """The chain rule on logits: log p(label) and log(1 - p(label)), without loss of precision near 0 and 1.

    With s the sum of softplus(-logit) over the label and its ancestors, log p = -s and log(1 - p) = log(1 - exp(-s)),
    which is taken in the form that is exact for the size of s (log1mexp); where s is too small to hold, 1 - p is the
    sum of exp(-logit).

    Args:
        logits: float (films, labels), of p(label | parents present).
        tree: the hierarchy whose labels are the columns.

    Returns:
        log p and log(1 - p), float64, each (films, labels), finite for finite logits.

    Source: Chen et al. 2019, eqs. 5-7, in an equivalent form.
    """
    logits = np.asarray(logits, np.float64)
    _columns(logits, tree)
    s = np.logaddexp(0, -logits) @ tree.ancestors.T.astype(np.float64)
    near_one = np.stack([np.logaddexp.reduce(-logits[:, above], axis=1) for above in tree.ancestors], axis=1)
    tiny, small = s < 1e-12, s < np.log(2)
    with np.errstate(divide="ignore"):  # the branches that are not taken
        return -s, np.where(tiny, near_one, np.where(small, np.log(-np.expm1(-s)), np.log1p(-np.exp(-s))))


@dataclass(frozen=True)
class Contradictions:
    """How often probabilities break the tree, per edge.

    Attributes:
        edges: (parent, child) names.
        films: number of rows.
        above: int (edges,), rows with p(child) > p(parent).
        crossed: int (edges,), rows with p(child) > threshold > p(parent).
    """

    edges: tuple[tuple[str, str], ...]
    films: int
    above: np.ndarray
    crossed: np.ndarray

    @property
    def above_rate(self) -> float:
        """Share of all edge checks (films x edges) with p(child) > p(parent); NaN without any."""
        return float(self.above.sum() / (self.films * len(self.edges))) if self.films and self.edges else float("nan")

    @property
    def crossed_rate(self) -> float:
        """Share of all edge checks with the child above and the parent below the threshold; NaN without any."""
        return float(self.crossed.sum() / (self.films * len(self.edges))) if self.films and self.edges else float("nan")


def contradictions(probabilities: np.ndarray, tree: Tree, threshold: float = 0.5) -> Contradictions:
    """Count where a child is more probable than its parent, and where the two fall on both sides of the threshold.

    Args:
        probabilities: float (films, labels); a NaN contradicts nothing.
        tree: the hierarchy whose labels are the columns.
        threshold: parent below and child above it is a contradiction in the sense of Asadi et al. 2025.
    """
    probabilities = np.asarray(probabilities)
    _columns(probabilities, tree)
    parent, child = probabilities[:, tree.edges[:, 0]], probabilities[:, tree.edges[:, 1]]  # (films, edges)
    names = tuple((tree.labels[above], tree.labels[below]) for above, below in tree.edges)
    return Contradictions(names, len(probabilities), (child > parent).sum(axis=0),
                          ((parent < threshold) & (child > threshold)).sum(axis=0))


def hbce_outputs(raw: np.ndarray, labels: Sequence[str] = CHEXPERT_LABELS) -> np.ndarray:
    """Build the 21 outputs of HBCE from the 14 findings.

    Uncertain: none of the 14 is there; Abnormal: neither No Finding nor Uncertain; the other groups: any finding below
    them. Their labels are binary (VisualCheXbert). Ours for uncertain codes: a group is -1 where nothing below it is 1
    and something is -1, so that a policy may follow.

    Args:
        raw: (films, 14) of 1, 0, -1, NaN (blank, taken as 0).
        labels: the 14 names in the order of the columns.

    Returns:
        float32 (films, 21) of 1, 0, -1, columns as HBCE_TREE.labels.

    Raises:
        ValueError: other labels than the 14.

    Source: Asadi et al. 2025 and their code; the released test table is from an older builder (deviations H7).
    """
    raw = np.nan_to_num(np.asarray(raw, np.float32), nan=0.0)
    if sorted(labels) != sorted(CHEXPERT_LABELS) or raw.shape[1:] != (14,):
        raise ValueError(f"raw labels of shape {raw.shape} for {list(labels)}; expected the 14 of CheXpert")
    place = {label: index for index, label in enumerate(HBCE_TREE.labels)}
    result = np.zeros((len(raw), len(HBCE_TREE.labels)), np.float32)
    result[:, [place[label] for label in labels]] = raw
    findings = result[:, :14].copy()

    def any_of(columns: np.ndarray) -> np.ndarray:
        below = findings[:, columns]
        return np.where((below == 1).any(axis=1), 1, np.where((below == -1).any(axis=1), -1, 0))

    for group in ("Cardiac", "Fluid Accumulation", "Missing Lung Tissue", "Opacity", "Other"):
        result[:, place[group]] = any_of(HBCE_TREE.ancestors[:14, place[group]])
    result[:, place["Uncertain"]] = ~findings.any(axis=1)
    normal = findings[:, place["No Finding"]] == 1
    result[:, place["Abnormal"]] = np.where(normal, 0, any_of(np.ones(14, bool)))
    return result


def edge_penalties(target: np.ndarray, tree: Tree, scale: float = 1.0, epsilon: float = 1e-6) -> np.ndarray:
    """HBCE's data-driven penalties: scale x (1 - how often the child occurs where the parent does not).

    Args:
        target: (films, labels) of the training rows, 1 or 0; a film with NaN in parent or child does not count for
            that edge.
        tree: whose labels are the columns.
        scale: the largest possible penalty.
        epsilon: keeps an edge whose parent is always present at scale / 2.

    Returns:
        float64 (edges,), as tree.edges: scale * (1 - (n(p=0, c=1) + eps) / (n(p=0) + 2 eps)).

    Source: Asadi et al. 2025, their published code (default of their configuration).
    """
    target = np.asarray(target)
    _columns(target, tree)
    parent, child = target[:, tree.edges[:, 0]], target[:, tree.edges[:, 1]]  # (films, edges)
    absent = (parent == 0) & ~np.isnan(child)
    alone = (absent & (child == 1)).sum(axis=0)
    return np.asarray(scale * (1 - (alone + epsilon) / (absent.sum(axis=0) + 2 * epsilon)))


def _columns(values: np.ndarray, tree: Tree) -> None:
    if np.ndim(values) != 2 or np.shape(values)[1] != len(tree.labels):
        raise ValueError(f"expected shape (films, {len(tree.labels)}) for the tree's labels; got {np.shape(values)}")
