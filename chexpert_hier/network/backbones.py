"""The six networks of the paper, and a tiny one for tests: input films -> last feature maps, with or without weights.

Pooling and the findings' outputs belong to `model`. ImageNet weights come from Keras' own cache and addresses, but a
file that is already there is never deleted or replaced: Keras' `get_file` removes a cached file whose hash it does not
know when it cannot download another.
"""

import hashlib
import logging
import os
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from ..errors import InputError, one_of
from ..files import written_whole

log = logging.getLogger("chexpert_hier.network")

KERAS_STORE = "https://storage.googleapis.com/tensorflow/keras-applications"


@dataclass(frozen=True)
class WeightsFile:
    """ImageNet weights without the classifier as Keras names, places and fetches them.

    Attributes:
        name: the name in Keras' cache, not always the last part of the address.
        url: Keras' documented address.
        md5: hash of Keras' own file, checked after a download.
    """

    name: str
    url: str
    md5: str

    @property
    def path(self) -> Path:
        """Where Keras looks for it: `$KERAS_HOME/models` or `~/.keras/models`."""
        home = os.environ.get("KERAS_HOME") or Path.home() / ".keras"
        return Path(home).expanduser() / "models" / self.name


@dataclass(frozen=True)
class Backbone:
    """One row of BACKBONES.

    Attributes:
        name: as in `--arch`.
        build: image size in pixels -> keras.Model from (n, size, size, 3) to the last maps (n, h, w, channels), with
            random weights.
        native: how the ImageNet weights' inputs were normalised: "torch" (ImageNet mean and standard deviation on
            [0, 1]) or "tf" ([-1, 1]).
        image_size: the side in pixels that it was pre-trained at; the paper feeds 224 to all.
        smallest: the smallest side in pixels that it takes.
        weights: its ImageNet weights, None where there are none.
    """

    name: str
    build: Callable[[int], keras.Model]
    native: str
    image_size: int
    smallest: int
    weights: WeightsFile | None


def _application(name: str) -> Callable[[int], keras.Model]:
    # weights=None always: the file is checked before the network is built and loaded by us. That also spares the
    # versions of Keras that insist on 331 pixels for NASNetLarge with ImageNet weights, although its convolutions fit
    # any size.
    def build(image_size: int) -> keras.Model:
        builder = getattr(keras.applications, name)
        return builder(include_top=False, weights=None, input_shape=(image_size, image_size, 3), pooling=None)

    return build


def _tiny(image_size: int) -> keras.Model:
    """Four strided convolutions (0.1 M weights), for tests and small demonstrations; maps of image_size / 16."""
    x = films = keras.Input((image_size, image_size, 3), name="films")
    for block, channels in enumerate((16, 32, 64, 128), start=1):
        x = keras.layers.Conv2D(channels, 3, 2, padding="same", use_bias=False, name=f"conv{block}")(x)
        # A short training must move the statistics that inference uses; 0.99 would need some 500 steps.
        x = keras.layers.BatchNormalization(momentum=0.9, name=f"conv{block}_bn")(x)
        x = keras.layers.Activation("relu", name=f"conv{block}_relu")(x)
    return keras.Model(films, x, name="tiny")


def _densenet(depth: int, md5: str) -> Backbone:
    file = f"densenet{depth}_weights_tf_dim_ordering_tf_kernels_notop.h5"
    return Backbone(f"densenet{depth}", _application(f"DenseNet{depth}"), "torch", 224, 32,
                    WeightsFile(file, f"{KERAS_STORE}/densenet/{file}", md5))


_INCEPTION = "inception_resnet_v2_weights_tf_dim_ordering_tf_kernels_notop.h5"
_XCEPTION = "xception_weights_tf_dim_ordering_tf_kernels_notop.h5"

# The six of Pham et al. 2019, section 4.4. Hashes and addresses as in keras.applications 3.12-3.15.
BACKBONES = {
    "densenet121": _densenet(121, "30ee3e1110167f948a6b9946edeeb738"),
    "densenet169": _densenet(169, "b8c4d4c20dd625c148057b9ff1c1176b"),
    "densenet201": _densenet(201, "c13680b51ded0fb44dff2d8f86ac8bb1"),
    "inceptionresnetv2": Backbone(
        "inceptionresnetv2", _application("InceptionResNetV2"), "tf", 299, 75,
        WeightsFile(_INCEPTION, f"{KERAS_STORE}/inception_resnet_v2/{_INCEPTION}", "d19885ff4a710c122648d3b5c3b684e4")),
    "xception": Backbone(
        "xception", _application("Xception"), "tf", 299, 71,
        WeightsFile(_XCEPTION, f"{KERAS_STORE}/xception/{_XCEPTION}", "b0042744bf5b25fce3cb969f33bebb97")),
    "nasnetlarge": Backbone(
        "nasnetlarge", _application("NASNetLarge"), "tf", 331, 32,
        WeightsFile("nasnet_large_no_top.h5", f"{KERAS_STORE}/nasnet/NASNet-large-no-top.h5",
                    "d81d89dc07e6e56530c4e77faddd61b5")),
    "tiny": Backbone("tiny", _tiny, "torch", 224, 16, None),
}


def find_weights(arch: str, weights: str | os.PathLike | None) -> Path | None:
    """Say which file the weights come from, before any network is built; ImageNet weights are fetched when absent.

    Args:
        arch: a key of BACKBONES.
        weights: "none" or None (random start), "imagenet", or a file.

    Returns:
        an existing file, or None for a random start.

    Raises:
        InputError: the architecture is unknown, has no ImageNet weights, the file is missing, or the download fails.
    """
    one_of("architecture (--arch)", arch, BACKBONES)
    if weights is None or weights == "none":
        return None
    if weights != "imagenet":
        path = Path(weights)
        if not path.is_file():
            raise InputError(f"--weights {path}: no such file; expected none, imagenet, or a file (.keras, "
                             ".weights.h5, .h5, or DenseNet-121 from PyTorch as .pt, .pth, .safetensors)")
        return path
    file = BACKBONES[arch].weights
    if file is None:
        raise InputError(f"--weights imagenet: {arch} has no ImageNet weights; use --weights none")
    if file.path.is_file():
        if _md5(file.path) != file.md5:
            log.warning("%s is not Keras' own file (other md5); it is used as it is", file.path)
    else:
        _download(arch, file)
    return file.path


def _download(arch: str, file: WeightsFile) -> None:
    try:
        # Fetched and checked in a folder beside, so that an interrupted download never passes for the file.
        with written_whole(file.path) as beside, tempfile.TemporaryDirectory(dir=file.path.parent) as folder:
            got = keras.utils.get_file(file.name, file.url, cache_dir=folder, cache_subdir="", file_hash=file.md5)
            os.replace(got, beside)
    except Exception as error:  # Keras wraps the network's error in a bare Exception; or the disk is full or locked
        reason = " ".join(str(error).split())
        raise InputError(f"ImageNet weights of {arch}: {file.name} is not in {file.path.parent} and could not be "
                         f"fetched ({reason}); download {file.url} and save it as {file.path}, or use --weights none"
                         ) from error


def _md5(path: Path) -> str:
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "md5").hexdigest()


def load_weights(backbone: keras.Model, path: str | os.PathLike, arch: str) -> keras.Model | None:
    """Load a backbone's weights from a file of this architecture, with or without layers on top.

    Takes .keras (safe mode: no code in the file is run), .weights.h5, older .h5 weights or whole models, and for
    densenet121 PyTorch's .pt, .pth and .safetensors.

    Args:
        backbone: the network as built by BACKBONES[arch].build, changed in place.
        path: the file.
        arch: a key of BACKBONES, for the message.

    Returns:
        the whole model that a .keras file holds, for what stands on its backbone; None for other files.

    Raises:
        InputError: the file cannot be read or is not of this architecture.
    """
    path = Path(path)
    if path.suffix in (".pt", ".pth", ".safetensors"):
        if arch != "densenet121":
            raise InputError(f"{path}: PyTorch weights are taken for densenet121 only; received --arch {arch}")
        from . import torch_weights

        torch_weights.load_densenet121(backbone, path)
        return None
    if path.suffix not in (".keras", ".h5", ".hdf5"):
        raise InputError(f"{path}: unknown kind of weights; expected .keras, .weights.h5, .h5, .pt, .pth or "
                         ".safetensors")
    try:
        if path.suffix == ".keras":
            whole = keras.models.load_model(path, compile=False, safe_mode=True)
            assign_in_order(backbone, layer_arrays(whole))
            return whole
        if path.name.endswith(".weights.h5"):
            _load_by_place(backbone, path)
        else:
            assign_in_order(backbone, _legacy_layers(path))
        return None
    except (ValueError, OSError, KeyError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise InputError(f"{path}: does not hold weights of {arch} ({reason}); give a file of this architecture, or if "
                         "it was cut short, remove it and fetch it again") from error


def _load_by_place(backbone: keras.Model, path: Path) -> None:
    before = backbone.get_weights()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # Keras only warns when it leaves layers as they were
            backbone.load_weights(path)  # layers on top are left out
    except Exception as error:
        backbone.set_weights(before)
        raise ValueError(str(error)) from error


def layers_with_weights(model: keras.Model) -> list[keras.layers.Layer]:
    """All layers that have weights, in the network's order, going into models inside the model."""
    layers = []
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            layers += layers_with_weights(layer)
        elif layer.weights:
            layers.append(layer)
    return layers


def _h5_order(layer: keras.layers.Layer) -> list:
    return layer.trainable_variables + layer.non_trainable_variables  # the order of Keras' older .h5 files


def layer_arrays(model: keras.Model) -> list[list[np.ndarray]]:
    """The weights of all layers that have some, in the network's order; makes the model trainable."""
    model.trainable = True  # a frozen layer would list its variables in another order
    return [[keras.ops.convert_to_numpy(v) for v in _h5_order(layer)] for layer in layers_with_weights(model)]


def _legacy_layers(path: Path) -> list[list[np.ndarray]]:
    import h5py

    with h5py.File(path, "r") as file:
        group = file["model_weights"] if "layer_names" not in file.attrs and "model_weights" in file else file
        layers = []
        for layer in _names(group, "layer_names"):
            arrays = [np.asarray(group[layer][name]) for name in _names(group[layer], "weight_names")]
            if arrays:
                layers.append(arrays)
    if not layers:
        raise ValueError("no layers with weights in it")
    return layers


def _names(group: Any, what: str) -> list[str]:
    # HDF5 limits an attribute to 64 kB; Keras cuts longer lists into what0, what1, ...
    if what in group.attrs:
        pieces = [group.attrs[what]]
    else:
        pieces = []
        while f"{what}{len(pieces)}" in group.attrs:
            pieces.append(group.attrs[f"{what}{len(pieces)}"])
    return [name.decode() if isinstance(name, bytes) else str(name) for piece in pieces for name in piece]


def assign_in_order(model: keras.Model, found: list[list[np.ndarray]]) -> None:
    """Assign layer by layer in order, as Keras does, once all shapes are found equal; more layers than needed are left.

    Raises:
        ValueError: too few layers, or one of another shape.
    """
    expected = layers_with_weights(model)
    if len(found) < len(expected):
        raise ValueError(f"expected {len(expected)} layers with weights, received {len(found)}")
    for layer, arrays in zip(expected, found):
        shapes, got = [tuple(v.shape) for v in _h5_order(layer)], [a.shape for a in arrays]
        if shapes != got:
            raise ValueError(f"layer {layer.name}: expected shapes {shapes}, received {got}")
    for layer, arrays in zip(expected, found):
        for variable, array in zip(_h5_order(layer), arrays):
            variable.assign(array)


def memory_per_film(model: keras.Model) -> dict[str, int]:
    """Estimate the memory of a training step from the layers' output shapes.

    Counts each convolution's, normalisation's, activation's, pooling's, sum's and concatenation's output once, and what
    a separable convolution holds between its two halves, in the layer's own precision: what back-propagation may keep.
    Padding, the gradients' passing copies and the allocator's reserve are left out. docs/memory.md sets the numbers of
    the six networks beside measured ones (0.6 to 1.1 times these).

    Args:
        model: any functional model with fixed image size.

    Returns:
        bytes: "activations" per film; "weights", "gradients" and "optimizer" (Adam: two numbers per weight) once.
    """
    activations = 0
    for layer in model.layers:
        if isinstance(layer, keras.layers.InputLayer | keras.layers.ZeroPadding2D | keras.layers.Cropping2D):
            continue
        width = 2 if "16" in layer.compute_dtype else 4
        activations += width * int(np.prod(layer.output.shape[1:]))
        if isinstance(layer, keras.layers.SeparableConv2D):
            activations += width * int(np.prod(layer.output.shape[1:3])) * layer.input.shape[3]
    weights = 4 * sum(int(np.prod(w.shape)) for w in model.weights)
    trained = 4 * sum(int(np.prod(w.shape)) for w in model.trainable_weights)
    return {"activations": activations, "weights": weights, "gradients": trained, "optimizer": 2 * trained}
