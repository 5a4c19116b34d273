"""Losses for labels that may be missing, weighted, three-fold or hierarchical.

NaN in the truth means "does not count here". Each loss is a mean over what counts: `normaliser` counts it in the truth
alone, `share` divides by a count given from outside, so that a batch taken in pieces gives the loss of the whole batch:

    counts = loss.normaliser(whole_truth)
    sum(loss.share(truth, prediction, counts) for truth, prediction in pieces) == loss(whole_truth, whole_prediction)
"""

import logging
from collections.abc import Sequence
from typing import Any, TypeVar

import keras
import numpy as np
from keras import ops

from .. import labels
from ..errors import InputError, one_of
from ..hierarchy import Tree, edge_penalties

log = logging.getLogger("chexpert_hier.network")

CLIP = 1e-7  # Keras' epsilon: a float32 probability is kept this far from 0 and 1
Tensor = Any  # of the backend, or what it converts
Numbers = np.ndarray | Sequence[Any] | float
Given = TypeVar("Given")
serialisable = keras.saving.register_keras_serializable("chexpert_hier")


class MaskedLoss(keras.losses.Loss):
    """A loss that counts the cells of y_true that are not NaN.

    Args:
        from_logits: the prediction is logits (model.logits_model) instead of probabilities.
        name: shown in logs.
    """

    options: tuple[str, ...] = ()

    @classmethod
    def from_data(cls, targets: np.ndarray | None, tree: Tree | None, options: tuple[str, ...],
                  from_logits: bool = False) -> "MaskedLoss":
        """Make the loss with the numbers that it takes from the training targets and the tree.

        Args:
            targets: float (n, labels) or (n, labels, 3), NaN where a cell does not count.
            tree: over the labels.
            options: some of `options`.
            from_logits: the network gives logits.
        """
        return cls(from_logits=from_logits)

    def __init__(self, from_logits: bool = False, name: str | None = None, **kwargs: Any) -> None:
        # The sum over Keras' single value leaves it as it is: the mean over counted cells is taken here.
        super().__init__(name=name or type(self).__name__, reduction="sum", dtype="float32")
        self.from_logits = from_logits

    def normaliser(self, y_true: Tensor) -> Tensor:
        """How much counts in y_true: number of cells that are not NaN (a scalar tensor, at least 1)."""
        return ops.maximum(ops.sum(_mask(y_true)), 1.0)

    def share(self, y_true: Tensor, y_pred: Tensor, normaliser: Tensor) -> Tensor:
        """This piece's part of the loss, a scalar tensor, given the whole batch's `normaliser`."""
        y_true, y_pred = _float(y_true), _float(y_pred)
        return ops.sum(self.cells(y_true, y_pred)) / normaliser

    def cells(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """The loss of each cell, float32 (n, labels), 0 where y_true is NaN."""
        raise NotImplementedError

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        return self.share(y_true, y_pred, self.normaliser(y_true))

    def __call__(self, y_true: Tensor, y_pred: Tensor, sample_weight: Tensor = None) -> Tensor:
        if sample_weight is not None:
            raise ValueError("film weights are not taken; mark what does not count as NaN in the truth")
        return self.call(y_true, y_pred)

    def get_config(self) -> dict[str, Any]:
        return {"from_logits": self.from_logits, "name": self.name}

    def logs(self, y_pred: Tensor) -> tuple[Tensor, Tensor]:
        """log p and log(1 - p), each shaped like y_pred."""
        if self.from_logits:
            return -ops.softplus(-y_pred), -ops.softplus(y_pred)
        p = ops.clip(y_pred, CLIP, 1.0 - CLIP)
        return ops.log(p), ops.log1p(-p)

    def logits(self, y_pred: Tensor) -> Tensor:
        """The prediction as logits."""
        if self.from_logits:
            return y_pred
        log_p, log_not = self.logs(y_pred)
        return log_p - log_not


def _float(x: Tensor) -> Tensor:
    return ops.cast(ops.convert_to_tensor(x), "float32")


def _mask(y_true: Tensor) -> Tensor:
    return ops.cast(ops.logical_not(ops.isnan(_float(y_true))), "float32")


def _filled(y_true: Tensor) -> Tensor:
    # NaN times 0 is NaN, also in a gradient: masked cells get a number before anything is computed from them.
    return ops.where(ops.isnan(y_true), ops.zeros_like(y_true), y_true)


@serialisable
class BCE(MaskedLoss):
    """Mean binary cross-entropy over the counted cells; targets may lie anywhere in [0, 1].

    Source: Pham et al. 2019, eq. 2, with the minus sign and the mean that it lacks (deviations M3), masked for
    U-Ignore and for conditional training (deviations M9, C1).
    """

    def cells(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        log_p, log_not = self.logs(y_pred)
        truth = _filled(y_true)
        return -_mask(y_true) * (truth * log_p + (1.0 - truth) * log_not)


@serialisable
class BCESum(BCE):
    """Binary cross-entropies summed over labels, mean over films with a counted cell.

    Source: Rajpurkar et al. 2017 (CheXNet), 14-class network.
    """

    def normaliser(self, y_true: Tensor) -> Tensor:
        return ops.maximum(ops.sum(ops.max(_mask(y_true), axis=-1)), 1.0)


@serialisable
class WeightedBCE(MaskedLoss):
    """Mean over counted cells of -w₊ y log p - w₋ (1-y) log(1-p).

    Args:
        positive: w₊ per label.
        negative: w₋ per label; see `labels.balance_weights`.

    Source: Rajpurkar et al. 2017 (CheXNet), eq. 1.
    """

    def __init__(self, positive: Numbers, negative: Numbers, from_logits: bool = False, name: str | None = None,
                 **kwargs: Any) -> None:
        super().__init__(from_logits, name)
        self.positive = [float(w) for w in np.atleast_1d(positive)]
        self.negative = [float(w) for w in np.atleast_1d(negative)]

    @classmethod
    def from_data(cls, targets: np.ndarray | None, tree: Tree | None, options: tuple[str, ...],
                  from_logits: bool = False) -> "WeightedBCE":
        """The weights are counted on the targets."""
        positive, negative = labels.balance_weights(_needed(targets)).T
        return cls(positive, negative, from_logits)

    def cells(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        _check_length("weights", self.positive, y_pred.shape[1])
        log_p, log_not = self.logs(y_pred)
        truth = _filled(y_true)
        positive, negative = _float(self.positive), _float(self.negative)
        return -_mask(y_true) * (positive * truth * log_p + negative * (1.0 - truth) * log_not)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "positive": self.positive, "negative": self.negative}


@serialisable
class ThreeClassCE(MaskedLoss):
    """Weighted cross-entropy of negative, positive, uncertain: y_true and y_pred are (n, labels, 3), NaN as elsewhere.

    Args:
        weights: (labels, 3), see `labels.class_weights`; None weighs all alike.
        normalise: "n", the mean over counted cells (CheXpertNet's paper), or "weights", per label the sum of losses
            over the sum of the batch's weights, then the mean over labels (PyTorch's CrossEntropyLoss, their code).

    Source: Wei & Jethani (CheXpertNet), loss with w = (|N|+|P|+|U|) / |class|.
    """

    options = ("by-weights", "unweighted")

    def __init__(self, weights: Numbers | None = None, normalise: str = "n", from_logits: bool = False,
                 name: str | None = None, **kwargs: Any) -> None:
        super().__init__(from_logits, name)
        if normalise not in ("n", "weights"):
            raise InputError(f"normalise is {normalise!r}; expected one of: n, weights")
        self.weights = None if weights is None else np.asarray(weights, float).tolist()
        self.normalise = normalise

    @classmethod
    def from_data(cls, targets: np.ndarray | None, tree: Tree | None, options: tuple[str, ...],
                  from_logits: bool = False) -> "ThreeClassCE":
        """The weights are counted on the targets, unless the option says unweighted."""
        weights = None if "unweighted" in options else labels.class_weights(np.nansum(_needed(targets), axis=0))
        return cls(weights, "weights" if "by-weights" in options else "n", from_logits)

    def normaliser(self, y_true: Tensor) -> Tensor:
        if self.normalise == "n":
            return ops.maximum(ops.sum(ops.max(_mask(y_true), axis=-1)), 1.0)
        weight = ops.sum(self._weighted(y_true), axis=(0, 2))  # (labels,)
        weighed = ops.maximum(ops.sum(ops.cast(weight > 0, "float32")), 1.0)
        return ops.where(weight > 0, weight, ops.ones_like(weight)) * weighed

    def cells(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        log_p = ops.log_softmax(y_pred, axis=-1) if self.from_logits else ops.log(ops.maximum(y_pred, CLIP))
        return -ops.sum(self._weighted(y_true) * log_p, axis=-1)

    def share(self, y_true: Tensor, y_pred: Tensor, normaliser: Tensor) -> Tensor:
        return ops.sum(ops.sum(self.cells(_float(y_true), _float(y_pred)), axis=0) / normaliser)

    def _weighted(self, y_true: Tensor) -> Tensor:
        truth = _filled(_float(y_true))
        return truth if self.weights is None else truth * _float(self.weights)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "weights": self.weights, "normalise": self.normalise}


@serialisable
class ProductBCE(MaskedLoss):
    """Mean binary cross-entropy of the chain rule's products p(label) = Π of the outputs of label and ancestors.

    In log space and from logits y: log p = -s with s = Σ softplus(-y); log(1-p) = g - s with g₁ = -y₁ and
    g_k = log(exp(g_{k-1}) + exp(-y_k) (1 + exp(g_{k-1}))): no product is formed, so nothing underflows and each
    ancestor keeps its gradient.

    Args:
        ancestors: 0/1 (labels, labels); [m, j] says that j is m or an ancestor of m (Tree.ancestors).

    Source: Chen et al. 2019 (HLUP-finetune), eqs. 3-7; the recursion is an equivalent of their eq. 7.
    """

    @classmethod
    def from_data(cls, targets: np.ndarray | None, tree: Tree | None, options: tuple[str, ...],
                  from_logits: bool = False) -> "ProductBCE":
        """The ancestors are the tree's."""
        return cls(_needed(tree).ancestors, from_logits)

    def __init__(self, ancestors: Numbers, from_logits: bool = False, name: str | None = None, **kwargs: Any) -> None:
        super().__init__(from_logits, name)
        self.ancestors = np.asarray(ancestors, int).tolist()
        if any(not row[m] for m, row in enumerate(self.ancestors)):
            raise InputError("ancestors: each label must count as its own ancestor (ones on the diagonal)")

    def cells(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        _check_length("ancestors", self.ancestors, y_pred.shape[1])
        log_p, log_not = self._log_products(self.logits(y_pred))
        truth = _filled(y_true)
        return -_mask(y_true) * (truth * log_p + (1.0 - truth) * log_not)

    def _log_products(self, y: Tensor) -> tuple[Tensor, Tensor]:
        lists = [np.flatnonzero(row) for row in self.ancestors]
        depth = max(map(len, lists))
        # Shorter lists are filled with a logit so high that its factor is exactly 1 (and finite: no NaN gradient).
        place = np.array([[*row, *[y.shape[1]] * (depth - len(row))] for row in lists])  # (labels, depth)
        minus_y = ops.concatenate([-y, ops.full_like(y[:, :1], -1e4)], axis=1)
        g = ops.take(minus_y, place[:, 0], axis=1)  # (n, labels)
        s = ops.softplus(g)
        for k in range(1, depth):
            column = ops.take(minus_y, place[:, k], axis=1)
            s = s + ops.softplus(column)
            # Not ops.logaddexp: its gradient at equal arguments goes to one of them alone.
            g = g + ops.softplus(column + ops.softplus(-g))
        return -s, ops.minimum(g - s, 0.0)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "ancestors": self.ancestors}


class _WithPenalty(BCE):
    """Mean BCE over counted cells + per film the sum over edges of weight · penalty, mean over films."""

    options: tuple[str, ...] = ("data-driven",)

    @classmethod
    def from_data(cls, targets: np.ndarray | None, tree: Tree | None, options: tuple[str, ...],
                  from_logits: bool = False) -> "_WithPenalty":
        """The edges are the tree's; "data-driven" counts their weights on the targets."""
        tree = _needed(tree)
        weights = edge_penalties(_needed(targets), tree) if "data-driven" in options else 0.5
        return cls(tree.edges, weights, from_logits=from_logits, **cls._set_by(options))

    @staticmethod
    def _set_by(options: tuple[str, ...]) -> dict[str, Any]:
        """Further arguments of the class that options set."""
        return {}

    def __init__(self, edges: Numbers, weights: Numbers = 0.5, from_logits: bool = False, name: str | None = None,
                 **kwargs: Any) -> None:
        super().__init__(from_logits, name)
        self.edges = [[int(parent), int(child)] for parent, child in np.asarray(edges).tolist()]
        self.weights = np.broadcast_to(np.asarray(weights, float), len(self.edges)).tolist()

    def normaliser(self, y_true: Tensor) -> Tensor:
        films = ops.cast(ops.shape(y_true)[0], "float32")
        return ops.stack([super().normaliser(y_true), ops.maximum(films, 1.0)])

    def share(self, y_true: Tensor, y_pred: Tensor, normaliser: Tensor) -> Tensor:
        y_true, y_pred = _float(y_true), _float(y_pred)
        parents, children = np.array(self.edges, "int32").reshape(-1, 2).T
        penalty = self.penalty(ops.take(y_pred, parents, axis=1), ops.take(y_pred, children, axis=1))  # (n, edges)
        return (ops.sum(self.cells(y_true, y_pred)) / normaliser[0]
                + ops.sum(_float(self.weights) * penalty) / normaliser[1])

    def penalty(self, parent: Tensor, child: Tensor) -> Tensor:
        """Penalty per film and edge, from predictions of parent and child (n, edges)."""
        raise NotImplementedError

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "edges": self.edges, "weights": self.weights}


@serialisable
class HBCELiteral(_WithPenalty):
    """BCE + Σ over edges of w · 1[p_parent < 0.5 and p_child > 0.5], as the authors' code has it.

    The penalty is a constant behind a comparison: its gradient is exactly zero, so the weights train as under plain
    BCE; it only moves the reported loss, hence checkpoints, plateau schedule and early stopping.

    Args:
        edges: (parent, child) places, as hierarchy.Tree.edges has them.
        weights: one number (0.5 in their configuration) or one per edge (`hierarchy.edge_penalties`).

    Source: Asadi et al. 2025 (arXiv 2502.03591), their published code.
    """

    def __init__(self, edges: Numbers, weights: Numbers = 0.5, from_logits: bool = False, name: str | None = None,
                 **kwargs: Any) -> None:
        super().__init__(edges, weights, from_logits, name)
        log.info("hbce_literal: the penalty has no gradient; it changes the reported loss only")

    def penalty(self, parent: Tensor, child: Tensor) -> Tensor:
        half = 0.0 if self.from_logits else 0.5
        return ops.cast(ops.logical_and(parent < half, child > half), "float32")


@serialisable
class HBCESoft(_WithPenalty):
    """BCE + Σ over edges of w · max(0, p_child - p_parent): our differentiable form of the published penalty.

    Args:
        edges: (parent, child) places, as hierarchy.Tree.edges has them.
        weights: one number or one per edge.
        space: "probability", or "log" for max(0, log p_child - log p_parent), which also pulls at small probabilities.
    """

    options = ("data-driven", "log")

    @staticmethod
    def _set_by(options: tuple[str, ...]) -> dict[str, Any]:
        return {"space": "log" if "log" in options else "probability"}

    def __init__(self, edges: Numbers, weights: Numbers = 0.5, space: str = "probability", from_logits: bool = False,
                 name: str | None = None, **kwargs: Any) -> None:
        super().__init__(edges, weights, from_logits, name)
        if space not in ("probability", "log"):
            raise InputError(f"space is {space!r}; expected one of: probability, log")
        self.space = space

    def penalty(self, parent: Tensor, child: Tensor) -> Tensor:
        if self.space == "log":
            parent, child = self.logs(parent)[0], self.logs(child)[0]
        elif self.from_logits:
            parent, child = ops.sigmoid(parent), ops.sigmoid(child)
        return ops.relu(child - parent)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "space": self.space}


def _needed(value: Given | None) -> Given:
    if value is None:
        raise ValueError("this loss takes numbers from the training targets or the tree; give both to `build`")
    return value


def _check_length(what: str, values: list[Any], count: int) -> None:
    if len(values) not in (1, count):
        raise InputError(f"loss: {what} for {len(values)} labels; the network has {count}")


# What a recipe's `loss` names. A row is a class with `options` (what may follow the name after "+") and `from_data`.
LOSSES: dict[str, type[MaskedLoss]] = {
    "bce": BCE,
    "bce_sum": BCESum,
    "weighted_bce": WeightedBCE,
    "three_class": ThreeClassCE,
    "product_bce": ProductBCE,
    "hbce_literal": HBCELiteral,
    "hbce_soft": HBCESoft,
}


def build(name: str, targets: np.ndarray | None = None, tree: Tree | None = None,
          from_logits: bool = False) -> MaskedLoss:
    """Make the loss that a recipe names, with the weights that the training set gives.

    Args:
        name: a key of LOSSES, perhaps with options: "three_class+by-weights" (normalised by the batch's weights, as
            CheXpertNet's code), "three_class+unweighted" (Irvin et al.'s U-MultiClass), "hbce_literal+data-driven",
            "hbce_soft+data-driven", "hbce_soft+log".
        targets: the training targets (n, labels) or (n, labels, 3), for weights that are counted.
        tree: over the labels, for losses along its edges.
        from_logits: the network gives logits.

    Raises:
        InputError: unknown name or option.
    """
    base, *options = name.split("+")
    one_of("loss", base, LOSSES)
    for option in options:
        one_of(f"option of loss {base}", option, LOSSES[base].options or ("none",))
    return LOSSES[base].from_data(targets, tree, tuple(options), from_logits)
