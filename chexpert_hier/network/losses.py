"""Losses for labels that may be missing, weighted, three-fold or hierarchical.

NaN in the truth means "does not count here". Each loss is a mean over what counts: `normaliser` counts it in the truth
alone, `share` divides by a count given from outside, so that a batch taken in pieces gives the loss of the whole batch:

    counts = loss.normaliser(whole_truth)
    sum(loss.share(truth, prediction, counts) for truth, prediction in pieces) == loss(whole_truth, whole_prediction)
"""

import logging

import keras
import numpy as np
from keras import ops

from .. import labels
from ..errors import InputError, one_of

log = logging.getLogger("chexpert_hier.network")

CLIP = 1e-7  # Keras' epsilon: a float32 probability is kept this far from 0 and 1
serialisable = keras.saving.register_keras_serializable("chexpert_hier")


class MaskedLoss(keras.losses.Loss):
    """A loss that counts the cells of y_true that are not NaN.

    Args:
        from_logits: the prediction is logits (model.logits_model) instead of probabilities.
        name: shown in logs.
    """

    def __init__(self, from_logits: bool = False, name: str | None = None, **kwargs):
        # The sum over Keras' single value leaves it as it is: the mean over counted cells is taken here.
        super().__init__(name=name or type(self).__name__, reduction="sum", dtype="float32")
        self.from_logits = from_logits

    def normaliser(self, y_true):
        """How much counts in y_true: number of cells that are not NaN (a scalar tensor, at least 1)."""
        return ops.maximum(ops.sum(_mask(y_true)), 1.0)

    def share(self, y_true, y_pred, normaliser):
        """This piece's part of the loss, a scalar tensor, given the whole batch's `normaliser`."""
        y_true, y_pred = _float(y_true), _float(y_pred)
        return ops.sum(self.cells(y_true, y_pred)) / normaliser

    def cells(self, y_true, y_pred):
        """The loss of each cell, float32 (n, labels), 0 where y_true is NaN."""
        raise NotImplementedError

    def call(self, y_true, y_pred):
        return self.share(y_true, y_pred, self.normaliser(y_true))

    def __call__(self, y_true, y_pred, sample_weight=None):
        if sample_weight is not None:
            raise ValueError("film weights are not taken; mark what does not count as NaN in the truth")
        return self.call(y_true, y_pred)

    def get_config(self):
        return {"from_logits": self.from_logits, "name": self.name}

    def logs(self, y_pred):
        """log p and log(1 - p), each shaped like y_pred."""
        if self.from_logits:
            return -ops.softplus(-y_pred), -ops.softplus(y_pred)
        p = ops.clip(y_pred, CLIP, 1.0 - CLIP)
        return ops.log(p), ops.log1p(-p)

    def logits(self, y_pred):
        """The prediction as logits."""
        if self.from_logits:
            return y_pred
        log_p, log_not = self.logs(y_pred)
        return log_p - log_not


def _float(x):
    return ops.cast(ops.convert_to_tensor(x), "float32")


def _mask(y_true):
    return ops.cast(ops.logical_not(ops.isnan(_float(y_true))), "float32")


def _filled(y_true):
    # NaN times 0 is NaN, also in a gradient: masked cells get a number before anything is computed from them.
    return ops.where(ops.isnan(y_true), ops.zeros_like(y_true), y_true)


@serialisable
class BCE(MaskedLoss):
    """Mean binary cross-entropy over the counted cells; targets may lie anywhere in [0, 1].

    Source: Pham et al. 2019, eq. 2, with the minus sign and the mean that it lacks (deviations M3), masked for
    U-Ignore and for conditional training (deviations M9, C1).
    """

    def cells(self, y_true, y_pred):
        log_p, log_not = self.logs(y_pred)
        truth = _filled(y_true)
        return -_mask(y_true) * (truth * log_p + (1.0 - truth) * log_not)


@serialisable
class BCESum(BCE):
    """Binary cross-entropies summed over labels, mean over films with a counted cell.

    Source: Rajpurkar et al. 2017 (CheXNet), 14-class network.
    """

    def normaliser(self, y_true):
        return ops.maximum(ops.sum(ops.max(_mask(y_true), axis=-1)), 1.0)


@serialisable
class WeightedBCE(MaskedLoss):
    """Mean over counted cells of -w₊ y log p - w₋ (1-y) log(1-p).

    Args:
        positive: w₊ per label.
        negative: w₋ per label; see `labels.balance_weights`.

    Source: Rajpurkar et al. 2017 (CheXNet), eq. 1.
    """

    def __init__(self, positive, negative, from_logits: bool = False, name: str | None = None, **kwargs):
        super().__init__(from_logits, name)
        self.positive = [float(w) for w in np.atleast_1d(positive)]
        self.negative = [float(w) for w in np.atleast_1d(negative)]

    def cells(self, y_true, y_pred):
        _check_length("weights", self.positive, y_pred.shape[1])
        log_p, log_not = self.logs(y_pred)
        truth = _filled(y_true)
        positive, negative = _float(self.positive), _float(self.negative)
        return -_mask(y_true) * (positive * truth * log_p + negative * (1.0 - truth) * log_not)

    def get_config(self):
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

    def __init__(self, weights=None, normalise: str = "n", from_logits: bool = False, name: str | None = None,
                 **kwargs):
        super().__init__(from_logits, name)
        if normalise not in ("n", "weights"):
            raise InputError(f"normalise is {normalise!r}; expected one of: n, weights")
        self.weights = None if weights is None else np.asarray(weights, float).tolist()
        self.normalise = normalise

    def normaliser(self, y_true):
        if self.normalise == "n":
            return ops.maximum(ops.sum(ops.max(_mask(y_true), axis=-1)), 1.0)
        weight = ops.sum(self._weighted(y_true), axis=(0, 2))  # (labels,)
        weighed = ops.maximum(ops.sum(ops.cast(weight > 0, "float32")), 1.0)
        return ops.where(weight > 0, weight, ops.ones_like(weight)) * weighed

    def cells(self, y_true, y_pred):
        log_p = ops.log_softmax(y_pred, axis=-1) if self.from_logits else ops.log(ops.maximum(y_pred, CLIP))
        return -ops.sum(self._weighted(y_true) * log_p, axis=-1)

    def share(self, y_true, y_pred, normaliser):
        return ops.sum(ops.sum(self.cells(_float(y_true), _float(y_pred)), axis=0) / normaliser)

    def _weighted(self, y_true):
        truth = _filled(_float(y_true))
        return truth if self.weights is None else truth * _float(self.weights)

    def get_config(self):
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

    def __init__(self, ancestors, from_logits: bool = False, name: str | None = None, **kwargs):
        super().__init__(from_logits, name)
        self.ancestors = np.asarray(ancestors, int).tolist()
        if any(not row[m] for m, row in enumerate(self.ancestors)):
            raise InputError("ancestors: each label must count as its own ancestor (ones on the diagonal)")

    def cells(self, y_true, y_pred):
        _check_length("ancestors", self.ancestors, y_pred.shape[1])
        log_p, log_not = self._log_products(self.logits(y_pred))
        truth = _filled(y_true)
        return -_mask(y_true) * (truth * log_p + (1.0 - truth) * log_not)

    def _log_products(self, y):
        lists = [np.flatnonzero(row) for row in self.ancestors]
        depth = max(map(len, lists))
        # Shorter lists are filled with a logit so high that its factor is exactly 1 (and finite: no NaN gradient).
        place = np.array([[*row, *[y.shape[1]] * (depth - len(row))] for row in lists])  # (labels, depth)
        minus_y = ops.concatenate([-y, ops.full_like(y[:, :1], -1e4)], axis=1)
        s = g = None
        for k in range(depth):
            column = ops.take(minus_y, place[:, k], axis=1)  # (n, labels)
            factor = ops.softplus(column)
            s = factor if s is None else s + factor
            # Not ops.logaddexp: its gradient at equal arguments goes to one of them alone.
            g = column if g is None else g + ops.softplus(column + ops.softplus(-g))
        return -s, ops.minimum(g - s, 0.0)

    def get_config(self):
        return {**super().get_config(), "ancestors": self.ancestors}


class _WithPenalty(BCE):
    """Mean BCE over counted cells + per film the sum over edges of weight · penalty, mean over films."""

    def __init__(self, edges, weights=0.5, from_logits: bool = False, name: str | None = None, **kwargs):
        super().__init__(from_logits, name)
        self.edges = [[int(parent), int(child)] for parent, child in edges]
        self.weights = np.broadcast_to(np.asarray(weights, float), len(self.edges)).tolist()

    def normaliser(self, y_true):
        films = ops.cast(ops.shape(y_true)[0], "float32")
        return ops.stack([super().normaliser(y_true), ops.maximum(films, 1.0)])

    def share(self, y_true, y_pred, normaliser):
        y_true, y_pred = _float(y_true), _float(y_pred)
        parents, children = np.array(self.edges, "int32").reshape(-1, 2).T
        penalty = self.penalty(ops.take(y_pred, parents, axis=1), ops.take(y_pred, children, axis=1))  # (n, edges)
        return (ops.sum(self.cells(y_true, y_pred)) / normaliser[0]
                + ops.sum(_float(self.weights) * penalty) / normaliser[1])

    def penalty(self, parent, child):
        """Penalty per film and edge, from predictions of parent and child (n, edges)."""
        raise NotImplementedError

    def get_config(self):
        return {**super().get_config(), "edges": self.edges, "weights": self.weights}


@serialisable
class HBCELiteral(_WithPenalty):
    """BCE + Σ over edges of w · 1[p_parent < 0.5 and p_child > 0.5], as the authors' code has it.

    The penalty is a constant behind a comparison: its gradient is exactly zero, so the weights train as under plain
    BCE; it only moves the reported loss, hence checkpoints, plateau schedule and early stopping.

    Args:
        edges: (parent, child) places, as hierarchy.Tree.edges has them.
        weights: one number (0.5 in their configuration) or one per edge (`data_driven_weights`).

    Source: Asadi et al. 2025 (arXiv 2502.03591), their published code.
    """

    def __init__(self, edges, weights=0.5, from_logits: bool = False, name: str | None = None, **kwargs):
        super().__init__(edges, weights, from_logits, name)
        log.info("hbce_literal: the penalty has no gradient; it changes the reported loss only")

    def penalty(self, parent, child):
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

    def __init__(self, edges, weights=0.5, space: str = "probability", from_logits: bool = False,
                 name: str | None = None, **kwargs):
        super().__init__(edges, weights, from_logits, name)
        if space not in ("probability", "log"):
            raise InputError(f"space is {space!r}; expected one of: probability, log")
        self.space = space

    def penalty(self, parent, child):
        if self.space == "log":
            parent, child = self.logs(parent)[0], self.logs(child)[0]
        elif self.from_logits:
            parent, child = ops.sigmoid(parent), ops.sigmoid(child)
        return ops.relu(child - parent)

    def get_config(self):
        return {**super().get_config(), "space": self.space}


def data_driven_weights(targets: np.ndarray, edges, scale: float = 1.0, epsilon: float = 1e-6) -> np.ndarray:
    """w = scale · (1 - (n(parent 0, child 1) + ε) / (n(parent 0) + 2ε)) per edge, counted on the training table.

    Args:
        targets: float (n, labels), hard; a row with NaN in parent or child does not count for the edge.
        edges: (parent, child) places.
        scale: the largest possible weight.
        epsilon: keeps an edge without parent-negative rows at scale / 2.

    Returns:
        float64 (edges,).

    Source: Asadi et al. 2025, their published code (default of their configuration).
    """
    targets, weights = np.asarray(targets), []
    for parent, child in edges:
        known = ~np.isnan(targets[:, parent]) & ~np.isnan(targets[:, child])
        absent = known & (targets[:, parent] == 0)
        broken = absent & (targets[:, child] == 1)
        weights.append(scale * (1.0 - (broken.sum() + epsilon) / (absent.sum() + 2.0 * epsilon)))
    return np.array(weights)


def _check_length(what: str, values: list, count: int) -> None:
    if len(values) not in (1, count):
        raise InputError(f"loss: {what} for {len(values)} labels; the network has {count}")


# What a recipe's `loss` names; the values are made with the recipe's numbers.
LOSSES = {
    "bce": BCE,
    "bce_sum": BCESum,
    "weighted_bce": WeightedBCE,
    "three_class": ThreeClassCE,
    "product_bce": ProductBCE,
    "hbce_literal": HBCELiteral,
    "hbce_soft": HBCESoft,
}

# What may follow a name after "+", e.g. "hbce_soft+data-driven+log".
OPTIONS = {"three_class": ("by-weights", "unweighted"), "hbce_literal": ("data-driven",),
           "hbce_soft": ("data-driven", "log")}


def build(name: str, targets: np.ndarray | None = None, tree=None, from_logits: bool = False) -> MaskedLoss:
    """Make the loss that a recipe names, with the weights that the training set gives.

    Args:
        name: a key of LOSSES, perhaps with options: "three_class+by-weights" (normalised by the batch's weights, as
            CheXpertNet's code), "three_class+unweighted" (Irvin et al.'s U-MultiClass), "hbce_literal+data-driven",
            "hbce_soft+data-driven", "hbce_soft+log".
        targets: the training targets (n, labels) or (n, labels, 3), for weights that are counted.
        tree: hierarchy.Tree over the labels, for losses along its edges.
        from_logits: the network gives logits.

    Raises:
        InputError: unknown name or option.
    """
    base, *options = name.split("+")
    one_of("loss", base, LOSSES)
    for option in options:
        one_of(f"option of loss {base}", option, OPTIONS.get(base, ("none",)))
    if base == "weighted_bce":
        return WeightedBCE(*labels.balance_weights(targets).T, from_logits)
    if base == "three_class":
        weights = None if "unweighted" in options else labels.class_weights(np.nansum(targets, axis=0))
        return ThreeClassCE(weights, "weights" if "by-weights" in options else "n", from_logits)
    if base == "product_bce":
        return ProductBCE(tree.ancestors, from_logits)
    if base.startswith("hbce"):
        weights = data_driven_weights(targets, tree.edges) if "data-driven" in options else 0.5
        if base == "hbce_literal":
            return HBCELiteral(tree.edges, weights, from_logits)
        return HBCESoft(tree.edges, weights, "log" if "log" in options else "probability", from_logits)
    return LOSSES[base](from_logits)
