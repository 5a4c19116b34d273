"""DenseNet-121 weights in PyTorch's layout (.pt, .pth, .safetensors) brought into Keras' DenseNet-121.

A file never runs code: .safetensors is plain numbers and is read here; .pt and .pth go through torch.load with
weights_only=True, which needs torch.
"""

import json
import logging
import os
import re
from pathlib import Path
from typing import Any

import keras
import numpy as np

from ..errors import InputError

log = logging.getLogger("chexpert_hier.network")

BLOCKS = (6, 12, 24, 16)  # DenseNet-121's layers per block (Huang et al. 2017, table 1)
TORCH_EPSILON = 1e-5  # of torch.nn.BatchNorm2d; Keras' DenseNet has 1.001e-5
FLOATS = {"F64": "<f8", "F32": "<f4", "F16": "<f2"}
LARGEST_HEADER = 100_000_000  # bytes, the limit of the safetensors format


def load_densenet121(backbone: keras.Model, path: str | os.PathLike[str]) -> None:
    """Set the weights of Keras' DenseNet-121 from a PyTorch state dict.

    Takes torchvision's names, the older ones with a dot (`norm.1`), any prefix (`module.`, `model.densenet121.`), and a
    dict that holds the state dict as `state_dict`, `model` or the like. A first convolution over one channel, as films
    have, becomes one over three equal channels with a third of the weight each. The classifier is left out.

    Args:
        backbone: backbones.BACKBONES["densenet121"].build(size) or a model that begins with it; changed in place.
        path: .pt, .pth or .safetensors.

    Raises:
        InputError: the file cannot be read safely, or is not a DenseNet-121's.
    """
    arrays = _torchvision_names(read_state(path), path)
    wanted = {name: _converted(backbone.get_layer(layer), kind, arrays, name, path)
              for layer, kind, name in _pairs()}
    for layer, _, name in _pairs():  # all shapes fit: nothing is changed before that is known
        backbone.get_layer(layer).set_weights(wanted[name])
    used = {f"{name}.{part}" for _, _, name in _pairs() for part in
            ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")}
    left = sorted(set(arrays) - used)
    if left:
        log.info("%s: left out: %s", path, ", ".join(left[:6]) + (" ..." if len(left) > 6 else ""))


def _pairs() -> list[tuple[str, str, str]]:
    """(Keras layer, kind, PyTorch name below `features.`) for all 242 layers with weights."""
    pairs = [("conv1_conv", "conv", "conv0"), ("conv1_bn", "norm", "norm0")]
    for block, layers in enumerate(BLOCKS, start=1):
        for layer in range(1, layers + 1):
            ours, theirs = f"conv{block + 1}_block{layer}", f"denseblock{block}.denselayer{layer}"
            pairs += [(f"{ours}_0_bn", "norm", f"{theirs}.norm1"), (f"{ours}_1_conv", "conv", f"{theirs}.conv1"),
                      (f"{ours}_1_bn", "norm", f"{theirs}.norm2"), (f"{ours}_2_conv", "conv", f"{theirs}.conv2")]
        if block < len(BLOCKS):
            pairs += [(f"pool{block + 1}_bn", "norm", f"transition{block}.norm"),
                      (f"pool{block + 1}_conv", "conv", f"transition{block}.conv")]
    return [*pairs, ("bn", "norm", "norm5")]


def _converted(layer: Any, kind: str, arrays: dict[str, Any], name: str,
               path: str | os.PathLike[str]) -> list[np.ndarray]:
    parts = ("weight",) if kind == "conv" else ("weight", "bias", "running_mean", "running_var")
    missing = [f"features.{name}.{part}" for part in parts if f"{name}.{part}" not in arrays]
    if missing:
        raise InputError(f"{path}: {missing[0]} is not in it; expected the state dict of a DenseNet-121 as torchvision "
                         f"names it, received {len(arrays)} arrays")
    values = [arrays[f"{name}.{part}"] for part in parts]
    if kind == "conv":
        values = [values[0].transpose(2, 3, 1, 0)] if values[0].ndim == 4 else values  # (h, w, in, out)
        if name == "conv0" and values[0].ndim == 4 and values[0].shape[2] == 1:
            values = [np.repeat(values[0] / 3.0, 3, axis=2)]
    else:
        # Same sum of variance and epsilon as in PyTorch, so that outputs agree where a variance is tiny.
        values[3] = values[3] + (TORCH_EPSILON - layer.epsilon)
    expected = [tuple(w.shape) for w in layer.weights]
    if [v.shape for v in values] != expected:
        raise InputError(f"{path}: features.{name} has shape {[v.shape for v in values]} in Keras' order; expected "
                         f"{expected}. Is it a DenseNet-121?")
    return [v.astype("float32") for v in values]


def _torchvision_names(arrays: dict[str, Any], path: str | os.PathLike[str]) -> dict[str, Any]:
    """Names below `features.`, whatever stands before it, in torchvision's present spelling."""
    starts = {name[:-len("conv0.weight")] for name in arrays if re.search(r"(^|\.)conv0\.weight$", name)}
    if len(starts) != 1:
        raise InputError(f"{path}: expected one DenseNet-121 (an array ...features.conv0.weight), found {len(starts)}; "
                         f"its first names are: {', '.join(list(arrays)[:3])}")
    start = starts.pop()
    return {re.sub(r"\.(norm|conv)\.([12])\.", r".\1\2.", name[len(start):]): array
            for name, array in arrays.items() if name.startswith(start)}


def read_state(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Read a state dict without running code from the file: name -> array.

    Raises:
        InputError: unreadable, damaged, not a state dict, or torch is needed and not installed.
    """
    path = Path(path)
    return _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path)


def _read_torch(path: Path) -> dict[str, np.ndarray]:
    try:
        import torch
    except ImportError:
        raise InputError(f"{path}: reading .pt and .pth needs torch (pip install torch); or convert it to "
                         ".safetensors, which is read without") from None
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged files raise almost anything
        reason = " ".join(str(error).split())[:160]
        raise InputError(f"{path}: not read, because it is damaged or holds more than numbers, and unpickling could "
                         f"run code ({reason}); save the network's state_dict() instead") from error
    for key in ("state_dict", "model_state_dict", "model", "net"):  # common wrappings of training scripts
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict):
        raise InputError(f"{path}: holds a {type(state).__name__}; expected a state dict")
    return {name: value.detach().to(torch.float32).numpy() for name, value in state.items()
            if isinstance(value, torch.Tensor)}


def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
    """Format: length (8 bytes, little endian) of a JSON header {name: dtype, shape, data_offsets}, header, numbers."""
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    try:
        if len(data) < 8 or length > min(LARGEST_HEADER, len(data) - 8):
            raise ValueError("cut short, or not of this format")
        header = json.loads(data[8:8 + length])
        numbers = memoryview(data)[8 + length:]
        return {name: _array(entry, numbers) for name, entry in header.items()
                if name != "__metadata__" and entry["dtype"] in (*FLOATS, "BF16")}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"{path}: not a readable .safetensors file ({error})") from error


def _array(entry: dict[str, Any], numbers: memoryview) -> np.ndarray:
    start, end = entry["data_offsets"]
    if not 0 <= start <= end <= len(numbers):
        raise ValueError("an array lies outside the file")
    if entry["dtype"] == "BF16":  # the upper half of a float32
        values = (np.frombuffer(numbers[start:end], "<u2").astype("<u4") << 16).view("<f4")
    else:
        values = np.frombuffer(numbers[start:end], FLOATS[entry["dtype"]])
    return values.reshape(entry["shape"]).astype("float32")
