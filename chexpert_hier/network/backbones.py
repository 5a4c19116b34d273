"""The six networks of the paper, and a tiny one for tests: input films -> last feature maps, with random weights.

A row of BACKBONES is all that a network needs: the command's help, its checks and the tests read this table, which
imports no Keras before a network is built. Pooling and the findings' outputs belong to `model`, files of weights to
`weights`.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..errors import InputError, did_you_mean, one_of

if TYPE_CHECKING:
    import keras

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
        from_torch: puts a file of PyTorch's weights (.pt, .pth, .safetensors) into the network; None where it takes
            none.
    """

    name: str
    build: Callable[[int], "keras.Model"]
    native: str
    image_size: int
    smallest: int
    weights: WeightsFile | None
    from_torch: Callable[["keras.Model", Path], None] | None = None


def _application(name: str) -> Callable[[int], "keras.Model"]:
    # weights=None always: the file is checked before the network is built and loaded by us. That also spares the
    # versions of Keras that insist on 331 pixels for NASNetLarge with ImageNet weights, although its convolutions fit
    # any size.
    def build(image_size: int) -> "keras.Model":
        import keras

        builder = getattr(keras.applications, name)
        return builder(include_top=False, weights=None, input_shape=(image_size, image_size, 3), pooling=None)

    return build


def _tiny(image_size: int) -> "keras.Model":
    """Four strided convolutions (0.1 M weights), for tests and small demonstrations; maps of image_size / 16."""
    import keras

    x = films = keras.Input((image_size, image_size, 3), name="films")
    for block, channels in enumerate((16, 32, 64, 128), start=1):
        x = keras.layers.Conv2D(channels, 3, 2, padding="same", use_bias=False, name=f"conv{block}")(x)
        # A short training must move the statistics that inference uses; 0.99 would need some 500 steps.
        x = keras.layers.BatchNormalization(momentum=0.9, name=f"conv{block}_bn")(x)
        x = keras.layers.Activation("relu", name=f"conv{block}_relu")(x)
    return keras.Model(films, x, name="tiny")


def _densenet(depth: int, md5: str, from_torch: Callable[["keras.Model", Path], None] | None = None) -> Backbone:
    file = f"densenet{depth}_weights_tf_dim_ordering_tf_kernels_notop.h5"
    return Backbone(f"densenet{depth}", _application(f"DenseNet{depth}"), "torch", 224, 32,
                    WeightsFile(file, f"{KERAS_STORE}/densenet/{file}", md5), from_torch)


def _torch_densenet121(backbone: "keras.Model", path: Path) -> None:
    from . import torch_weights

    torch_weights.load_densenet121(backbone, path)


_INCEPTION = "inception_resnet_v2_weights_tf_dim_ordering_tf_kernels_notop.h5"
_XCEPTION = "xception_weights_tf_dim_ordering_tf_kernels_notop.h5"

# The six of Pham et al. 2019, section 4.4. Hashes and addresses as in keras.applications 3.12-3.15.
BACKBONES = {
    "densenet121": _densenet(121, "30ee3e1110167f948a6b9946edeeb738", _torch_densenet121),
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


def backbone_of(arch: str) -> Backbone:
    """A row of BACKBONES; names count in any case, with or without hyphens (DenseNet-121).

    Raises:
        InputError: there is none of this name.
    """
    name = arch.lower().replace("-", "").replace("_", "")
    if name not in BACKBONES:
        one_of("architecture (--arch)", arch, BACKBONES)
    return BACKBONES[name]


def check(arch: str, weights: str | os.PathLike[str] | None, image_size: int) -> Backbone:
    """The backbone, if it takes these weights and this size; nothing is opened.

    Args:
        arch: a key of BACKBONES.
        weights: "none" or None, "imagenet", or a file.
        image_size: side in pixels.

    Raises:
        InputError: no such architecture or file, no ImageNet weights of it, or too few pixels.
    """
    row = backbone_of(arch)
    if weights == "imagenet" and row.weights is None:
        raise InputError(f"--weights imagenet: {row.name} has no ImageNet weights; use --weights none")
    if weights not in (None, "none", "imagenet") and not Path(weights).is_file():
        what = "is a folder" if Path(weights).is_dir() else "no such file"
        raise InputError(f"--weights {weights}: {what}; expected none, imagenet, or a file (.keras, .weights.h5, .h5, "
                         "or DenseNet-121 from PyTorch as .pt, .pth, .safetensors)"
                         f"{did_you_mean(str(weights), ('none', 'imagenet'))}")
    if image_size < row.smallest:
        raise InputError(f"image size (--image-size) is {image_size}; {row.name} takes {row.smallest} or more pixels")
    return row


def memory_per_film(model: "keras.Model") -> dict[str, int]:
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
    import keras

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
