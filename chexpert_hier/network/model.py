"""The network: a backbone, global average pooling and a sigmoid per finding; which layers train; its parts for maps.

The last layer with weights is `Findings`, a Dense layer named "findings" that carries the labels' names, so that a
saved model says what its outputs are.
"""

import logging
import os
import weakref
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np

from .. import recipes
from ..errors import InputError, one_of
from ..labels import positive_of_three
from . import kernels
from .backbones import check
from .opening import check_given, open_keras
from .weights import assign_in_order, find_weights, layer_arrays, load_weights

Tensor = Any  # of the backend
Shape = tuple[int | None, ...]
log = logging.getLogger("chexpert_hier.network")
_HALVES: weakref.WeakKeyDictionary[keras.Model, "Halves"] = weakref.WeakKeyDictionary()


@keras.saving.register_keras_serializable("chexpert_hier")
class Findings(keras.layers.Dense):
    """The last Dense layer; knows its labels. Units: one per label, or three per label before `ThreeClass`."""

    def __init__(self, units: int, labels: Sequence[str] = (), **kwargs: Any) -> None:
        super().__init__(units, **kwargs)
        self.labels = tuple(labels)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "labels": list(self.labels)}


@keras.saving.register_keras_serializable("chexpert_hier")
class ThreeClass(keras.layers.Layer):
    """Logits (n, 3 labels) -> probabilities (n, labels, 3) of negative, positive, uncertain.

    Args:
        certain: places of the labels that are never uncertain; their third probability is 0 (Wei & Jethani: No
            Finding has two outputs only).
        activation: "softmax" or "linear" (logits).
    """

    def __init__(self, certain: Sequence[int] = (), activation: str = "softmax", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.certain, self.activation = tuple(certain), activation

    def call(self, logits: Tensor) -> Tensor:
        logits = keras.ops.reshape(logits, (-1, logits.shape[-1] // 3, 3))
        never = np.zeros(logits.shape[1:], "float32")
        never[list(self.certain), 2] = -1e9  # finite, so that no gradient becomes NaN
        logits = logits + keras.ops.convert_to_tensor(never)
        return keras.ops.softmax(logits, axis=-1) if self.activation == "softmax" else logits

    def compute_output_shape(self, shape: Shape) -> Shape:
        return (shape[0], int(shape[1] or 0) // 3, 3)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "certain": list(self.certain), "activation": self.activation}


def build_model(arch: str, labels: Iterable[str], weights: str | os.PathLike[str] = "none", image_size: int = 224,
                head: str = "dense", seed: int | None = None, batchnorm_momentum: float | None = None) -> keras.Model:
    """Build the network: normalised films (n, size, size, 3) -> probabilities (n, labels).

    Args:
        arch: a key of backbones.BACKBONES.
        labels: names of the outputs, in order.
        weights: "none", "imagenet" or a file for the backbone (see weights.load_weights). A .keras file of a model
            with the same labels and head brings these outputs too.
        image_size: side in pixels.
        head: "dense" (pooling + Dense with sigmoid: Pham et al. 2019, section 4.3), "three-class" (softmax over
            negative, positive, uncertain per label, output (n, labels, 3): CheXpertNet), or "hbce" (Conv 3x3 512, ReLU,
            BatchNorm, pooling, Dense 128, ReLU, Dropout 0.5, Dense with sigmoid: Asadi et al. 2025, their code).
        seed: makes the random start repeatable; sets the seeds of Python, NumPy and the backend. None leaves them.
        batchnorm_momentum: replaces Keras' 0.99, for trainings shorter than some 500 steps, whose inference would still
            lean on the statistics' start values.

    Returns:
        a functional model with float32 outputs under any precision policy.

    Raises:
        InputError: an unknown name, a size that is too small, or weights that are missing or do not fit; said before
            anything is built wherever that is possible.
    """
    labels = tuple(labels)
    one_of("head", head, recipes.HEADS)
    row = check(arch, weights, image_size)
    file = find_weights(arch, weights)
    if not labels or len(set(labels)) != len(labels):
        raise InputError(f"labels are {list(labels)}; expected at least one, each once")
    if seed is not None:
        keras.utils.set_random_seed(seed)
    backbone = row.build(image_size)
    old = load_weights(backbone, file, arch) if file is not None else None
    model = keras.Model(backbone.input, _head(backbone.output, labels, head), name=arch)
    if batchnorm_momentum is not None:
        for layer in _batch_normalisations(model):
            layer.momentum = batchnorm_momentum
    if old is not None and file is not None:
        _take_over_head(model, old, file)
    return kernels.fuse(model)


def _head(maps: Tensor, labels: tuple[str, ...], head: str) -> Tensor:
    # Pooling and outputs in float32 also under a 16-bit policy: a mean over maps and a sigmoid near 0 or 1 need it.
    x = maps
    if head == "hbce":
        x = keras.layers.Conv2D(512, 3, padding="same", activation="relu", name="head_conv")(x)
        x = keras.layers.BatchNormalization(name="head_bn")(x)
    x = keras.layers.GlobalAveragePooling2D(dtype="float32", name="pool")(x)
    if head == "hbce":
        x = keras.layers.Dense(128, activation="relu", dtype="float32", name="head_dense")(x)
        x = keras.layers.Dropout(0.5, dtype="float32", name="head_dropout")(x)
    if head == "three-class":
        certain = [k for k, label in enumerate(labels) if label == "No Finding"]
        x = Findings(3 * len(labels), labels, dtype="float32", name="findings")(x)
        return ThreeClass(certain, dtype="float32", name="three_class")(x)
    return Findings(len(labels), labels, activation="sigmoid", dtype="float32", name="findings")(x)


def _take_over_head(model: keras.Model, old: keras.Model, file: Path) -> None:
    found = [layer.labels for layer in old.layers if isinstance(layer, Findings)]
    if found != [labels_of(model)]:
        log.info("%s: only its backbone is used; its outputs are %s", file, found[0] if found else "not findings")
        return
    try:
        assign_in_order(model, layer_arrays(old))
        log.info("%s: same labels, its outputs are taken over too", file)
    except ValueError:
        log.info("%s: same labels but another head, only its backbone is used", file)


def load_model(path: str | os.PathLike[str]) -> keras.Model:
    """Load a saved .keras model without its compiled state; `opening` says what a stranger's file cannot do.

    Raises:
        InputError: no such file, not a .keras file, or not a model of this package.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file; expected a .keras model")
    try:
        model = open_keras(path)
        head_layer(model)
        check_given(model)
    except InputError:
        raise
    except Exception as error:  # damaged files end in errors of zipfile, HDF5, JSON and Keras itself
        reason = " ".join(str(error).split())[:300]
        raise InputError(f"{path}: cannot be loaded as a Keras model ({reason})") from error
    return kernels.fuse(model)


def head_layer(model: keras.Model) -> Findings:
    """The last layer with weights.

    Raises:
        InputError: the model has none, so it is not of this package.
    """
    found = [layer for layer in model.layers if isinstance(layer, Findings)]
    if len(found) != 1:
        raise InputError(f"model {model.name!r} has {len(found)} layers of kind Findings; expected one. "
                         "Was it built by chexpert_hier?")
    return found[0]


def labels_of(model: keras.Model) -> tuple[str, ...]:
    """Names of the outputs, in order."""
    return head_layer(model).labels


def is_three_class(model: keras.Model) -> bool:
    """Whether the output is (n, labels, 3) instead of (n, labels)."""
    return any(isinstance(layer, ThreeClass) for layer in model.layers)


def feature_model(model: keras.Model) -> keras.Model:
    """Films -> the features (n, k) that go into the last Dense layer; shares all layers."""
    return keras.Model(model.input, head_layer(model).input, name=f"{model.name}_features")


def head_model(model: keras.Model) -> keras.Model:
    """Features (n, k) -> the model's outputs; shares the last Dense layer, so training it trains the model."""
    head = head_layer(model)
    features = keras.Input(head.input.shape[1:], dtype="float32", name="features")
    x = head(features)
    for layer in model.layers:
        if isinstance(layer, ThreeClass):
            x = layer(x)
    return keras.Model(features, x, name=f"{model.name}_head")


class Halves(NamedTuple):
    """A model cut before its last Dense layer; both halves share its layers, so that training one trains the model.

    Attributes:
        features: films -> float32 (n, k).
        head: features (n, k) -> the model's outputs.
    """

    features: keras.Model
    head: keras.Model


def halves(model: keras.Model) -> Halves:
    """Cut a model before its last Dense layer, the same halves whenever the same model is asked for: validation,
    features and answers then share one trace of the large half.
    """
    if model not in _HALVES:
        _HALVES[model] = Halves(feature_model(model), head_model(model))
    return _HALVES[model]


class _Logits(keras.layers.Layer):
    """The last Dense layer without its sigmoid; its weights are the same variables."""

    def __init__(self, head: Findings) -> None:
        super().__init__(dtype="float32", name="logits")
        self.head = head

    def call(self, features: Tensor) -> Tensor:
        return keras.ops.matmul(features, self.head.kernel) + self.head.bias

    def compute_output_shape(self, shape: Shape) -> Shape:
        return (shape[0], self.head.units)


def logits_model(model: keras.Model) -> keras.Model:
    """Films -> logits (n, labels), or (n, labels, 3) for the three-class head; shares all weights.

    For losses with `from_logits=True`: a probability that has rounded to 0 or 1 has no gradient, its logit has.
    """
    return keras.Model(model.input, logits_of(model, head_layer(model).input), name=f"{model.name}_logits")


def logits_of(model: keras.Model, features: Tensor) -> Tensor:
    """The logits of features that go into the last Dense layer; see `logits_model`."""
    x = _Logits(head_layer(model))(features)
    for layer in model.layers:
        if isinstance(layer, ThreeClass):
            x = ThreeClass(layer.certain, "linear", dtype="float32", name="three_logits")(x)
    return x


@keras.saving.register_keras_serializable("chexpert_hier")
class PositiveProbability(keras.layers.Layer):
    """`labels.positive_of_three` as a layer: (n, labels, 3) -> p(positive), the uncertain class left out."""

    def call(self, three: Tensor) -> Tensor:
        return positive_of_three(three)

    def compute_output_shape(self, shape: Shape) -> Shape:
        return shape[:-1]


def probability_model(model: keras.Model) -> keras.Model:
    """Films -> probabilities (n, labels) whatever the head: the model itself, or p(positive) of the three classes."""
    if not is_three_class(model):
        return model
    x = PositiveProbability(dtype="float32", name="positive_probability")(model.output)
    return keras.Model(model.input, x, name=model.name)


def present(outputs: np.ndarray) -> np.ndarray:
    """Outputs as p(finding is present), (n, labels): those of three classes by `labels.positive_of_three`."""
    return outputs if outputs.ndim == 2 else positive_of_three(outputs).astype(outputs.dtype)


def freeze_all_but_head(model: keras.Model) -> None:
    """Let only the last Dense layer train (Pham et al. 2019, section 3.2, second stage).

    Keras runs a frozen BatchNormalization in inference mode: its statistics neither move nor depend on the batch
    (deviations C8). Compile the model again afterwards.
    """
    head = head_layer(model)
    for layer in model.layers:
        layer.trainable = layer is head


def unfreeze(model: keras.Model) -> None:
    """Let all layers train; compile the model again afterwards."""
    for layer in model.layers:
        layer.trainable = True


def freeze_backbone(model: keras.Model) -> None:
    """Let everything behind the backbone train, nothing in it (CheXpertNet's caption: "Freezing all Conv layers")."""
    names = [layer.name for layer in model.layers]
    first = min(names.index(name) for name in ("pool", "head_conv") if name in names)
    for place, layer in enumerate(model.layers):
        layer.trainable = place >= first


def reset_head(model: keras.Model, seed: int) -> None:
    """Draw the last Dense layer's weights anew (Glorot uniform, zero bias; deviations C7's option)."""
    head = head_layer(model)
    head.kernel.assign(keras.initializers.GlorotUniform(seed)(head.kernel.shape))
    head.bias.assign(keras.ops.zeros(head.bias.shape))


def _batch_normalisations(model: keras.Model) -> list[keras.layers.BatchNormalization]:
    return [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]


def mc_dropout(model: keras.Model, features: np.ndarray, passes: int, seed: int) -> np.ndarray:
    """Predict with dropout switched on, everything else (BatchNormalization too) in inference mode.

    Each pass draws one thinned network and gives it all films, so that a film's result does not depend on its batch or
    place; the backbone, which has no dropout, is not run again.

    Args:
        model: with a Dropout before its last Dense layer (head "hbce").
        features: float32 (n, k) from `feature_model(model)`, which passes dropout through.
        passes: how many networks to draw.
        seed: of the draws; pass t is the same whatever `passes` is.

    Returns:
        float32 (passes, n, labels).

    Raises:
        InputError: the model has no dropout there.

    Source: Gal & Ghahramani 2016; Asadi et al. 2025 use 10 passes.
    """
    dropouts = [layer for layer in model.layers if isinstance(layer, keras.layers.Dropout)]
    if len(dropouts) != 1 or dropouts[0].output is not head_layer(model).input:
        raise InputError(f"model {model.name!r} has no dropout before its outputs, so mc has nothing to draw; "
                         "train with the hbce head, or give several models as an ensemble")
    rate, head = dropouts[0].rate, head_model(model)
    drawn = []
    for t in range(passes):
        kept = np.random.default_rng([seed, t]).random(features.shape[1]) >= rate
        thinned = features * (kept / (1.0 - rate)).astype("float32")
        drawn.append(keras.ops.convert_to_numpy(head(thinned, training=False)))
    return np.stack(drawn)
