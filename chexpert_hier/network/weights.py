"""A backbone's weights: where files of them are, and how they come into a network.

ImageNet weights come from Keras' own cache and addresses, but a file that is already there is never deleted or
replaced: Keras' `get_file` removes a cached file whose hash it does not know when it cannot download another.
"""

import hashlib
import logging
import os
import tempfile
import warnings
from pathlib import Path
from typing import Any

import keras
import numpy as np

from ..errors import InputError
from ..files import written_whole
from . import backbones
from .backbones import WeightsFile, backbone_of, check
from .opening import check_arrays, open_keras

log = logging.getLogger("chexpert_hier.network")


def find_weights(arch: str, weights: str | os.PathLike[str] | None) -> Path | None:
    """Say which file the weights come from, before any network is built; ImageNet weights are fetched when absent.

    Args:
        arch: a key of BACKBONES.
        weights: "none" or None (random start), "imagenet", or a file.

    Returns:
        an existing file, or None for a random start.

    Raises:
        InputError: the architecture is unknown, has no ImageNet weights, the file is missing, or the download fails.
    """
    row = check(arch, weights, backbone_of(arch).smallest)
    if weights is None or weights == "none":
        return None
    file = row.weights
    if weights != "imagenet" or file is None:
        return Path(weights)
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


def load_weights(backbone: keras.Model, path: str | os.PathLike[str], arch: str) -> keras.Model | None:
    """Load a backbone's weights from a file of this architecture, with or without layers on top.

    Takes .keras (safe mode: no code in the file is run), .weights.h5, older .h5 weights or whole models, and for
    densenet121 PyTorch's .pt, .pth and .safetensors.

    Args:
        backbone: the network as built by a row of BACKBONES, changed in place.
        path: the file.
        arch: a key of BACKBONES, for the message.

    Returns:
        the whole model that a .keras file holds, for what stands on its backbone; None for other files.

    Raises:
        InputError: the file cannot be read or is not of this architecture.
    """
    path = Path(path)
    if path.suffix in (".pt", ".pth", ".safetensors"):
        read = backbone_of(arch).from_torch
        if read is None:
            takes = ", ".join(name for name, row in backbones.BACKBONES.items() if row.from_torch)
            raise InputError(f"{path}: PyTorch weights are taken for {takes} only; received --arch {arch}")
        read(backbone, path)
        return None
    if path.suffix not in (".keras", ".h5", ".hdf5"):
        raise InputError(f"{path}: unknown kind of weights; expected .keras, .weights.h5, .h5, .pt, .pth or "
                         ".safetensors")
    try:
        if path.suffix == ".keras":
            whole = open_keras(path)
            assign_in_order(backbone, layer_arrays(whole))
            return whole
        check_arrays(path)
        if path.name.endswith(".weights.h5"):
            _load_by_place(backbone, path)
        else:
            assign_in_order(backbone, _legacy_layers(path))
        return None
    except Exception as error:  # damaged files end in errors of zipfile, HDF5, JSON and Keras itself
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


def _h5_order(layer: keras.layers.Layer) -> list[Any]:
    return [*layer.trainable_variables, *layer.non_trainable_variables]  # the order of Keras' older .h5 files


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
