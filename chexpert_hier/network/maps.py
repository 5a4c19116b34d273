"""Where a network is cut to see what it looks at: its maps, the way from there to the logits, where cells lie."""

import weakref

import keras
import numpy as np

from ..errors import one_of
from .model import Findings, head_layer, is_three_class, logits_of

Cut = tuple[keras.Model, keras.Model, bool]
# Cuts that were made: every new one would stay with the network's layers as long as they live.
_CUTS: weakref.WeakKeyDictionary[keras.Model, dict[str | None, Cut]] = weakref.WeakKeyDictionary()


def map_model(model: keras.Model, layer: str | None = None) -> Cut:
    """Cut the network at its last maps, or at those of an earlier layer.

    Args:
        model: from model.build_model.
        layer: one of `map_layers`; None: the last convolution's output.

    Returns:
        films -> maps (n, h, w, k);
        maps -> logits (n, labels) (of positive against negative for the three-class head);
        whether the way between is only average pooling and the last Dense layer, so that class activation maps exist.

    Raises:
        InputError: the network cannot be cut at that layer.
    """
    cuts = _CUTS.setdefault(model, {})
    if layer not in cuts:
        cuts[layer] = _cut(model, layer)
    return cuts[layer]


def _cut(model: keras.Model, layer: str | None) -> Cut:
    if layer is not None:
        one_of("layer (--layer)", layer, map_layers(model))
        maps = model.get_layer(layer).output
        x = logits_of(model, head_layer(model).input)
        x = x[..., 1] - x[..., 0] if is_three_class(model) else x
        return keras.Model(model.input, maps, name="maps"), keras.Model(maps, x, name="maps_to_logits"), False
    names = [one.name for one in model.layers]
    pool = model.get_layer("pool")
    maps = model.get_layer("head_conv").output if "head_conv" in names else pool.input
    top = keras.Input(maps.shape[1:], name="maps")
    x = top
    for one in model.layers[names.index("head_bn") if "head_bn" in names else names.index("pool"):]:
        if isinstance(one, Findings):
            break
        x = one(x)
    x = logits_of(model, x)
    if is_three_class(model):
        x = x[..., 1] - x[..., 0]
    return (keras.Model(model.input, maps, name="maps"), keras.Model(top, x, name="maps_to_logits"),
            "head_conv" not in names)


def map_layers(model: keras.Model) -> dict[str, int]:
    """The layers at which the network can be cut, the last for each size of maps, from the film's side on.

    A cut needs a layer through which everything goes: no connection leads around it.

    Returns:
        name -> rows (and columns) of its maps; empty for a network whose maps have one size.
    """
    layers = [layer for layer in model.layers if layer.__class__.__name__ != "InputLayer"]
    place = {id(tensor): k for k, layer in enumerate(layers) for tensor in keras.tree.flatten(layer.output)}
    reach = [-1] * len(layers)  # the last layer that each one's output goes into
    for k, layer in enumerate(layers):
        for tensor in keras.tree.flatten(layer.input):
            if id(tensor) in place:
                reach[place[id(tensor)]] = k
    found: dict[str, int] = {}
    farthest = 0
    for k, layer in enumerate(layers):
        if farthest <= k and k and len(layer.output.shape) == 4:
            side = layer.output.shape[1]
            found = {name: size for name, size in found.items() if size != side} | {layer.name: side}
        farthest = max(farthest, reach[k])
    return {name: size for name, size in found.items() if size > 1}


def map_cells(model: keras.Model, layer: str | None = None) -> tuple[float, float]:
    """Where the cells of maps lie on the network's input.

    They do not see the film in equal tiles: behind a convolution with a stride, kernel 3, "same" padding and an even
    size a cell looks further right and down than the tile that it stands for when maps are stretched over the film.

    Args:
        model: from model.build_model.
        layer: see `map_model`.

    Returns:
        (first, step), shares of the input's side, the same for rows and columns: cell k's receptive field is centred at
        first + step k. Where branches meet that look at places a little apart, the mean.
    """
    to_maps = map_model(model, layer)[0]
    seen = {id(to_maps.inputs[0]): (0.0, 1.0)}  # tensor -> pixel on which cell 0 is centred, pixels from cell to cell
    for nodes in (to_maps._nodes_by_depth[depth] for depth in sorted(to_maps._nodes_by_depth, reverse=True)):
        for node in nodes:
            if not node.input_tensors:
                continue
            before = [seen[id(tensor)] for tensor in node.input_tensors]
            start, step = float(np.mean([at[0] for at in before])), before[0][1]
            after = _shifted(node.operation, start, step, node.input_tensors[0].shape[1])
            seen |= {id(tensor): after for tensor in node.outputs}
    (start, step), side = seen[id(to_maps.outputs[0])], to_maps.inputs[0].shape[1]
    return (start + 0.5) / side, step / side


def _shifted(layer: keras.layers.Layer, start: float, step: float, size: int) -> tuple[float, float]:
    """The same pixel and pixels from cell to cell behind one layer, whose input has `size` rows."""
    if isinstance(layer, keras.layers.ZeroPadding2D):
        return start - layer.padding[0][0] * step, step
    if isinstance(layer, keras.layers.Cropping2D):
        return start + layer.cropping[0][0] * step, step
    window = getattr(layer, "pool_size", None) or getattr(layer, "kernel_size", None)
    if window is None:
        return start, step
    stride, dilation = layer.strides[0], getattr(layer, "dilation_rate", (1, 1))[0]
    width = (window[0] - 1) * dilation + 1
    padded = max(width - (size % stride or stride), 0) // 2 if layer.padding == "same" else 0
    return start + ((width - 1) / 2 - padded) * step, step * stride


def map_weights(model: keras.Model) -> np.ndarray:
    """The last Dense layer's kernel as (k, labels): column c weighs the maps for label c.

    For the three-class head: positive minus negative, which is what p(positive) depends on at evaluation.
    """
    kernel: np.ndarray = keras.ops.convert_to_numpy(head_layer(model).kernel)
    if is_three_class(model):
        three: np.ndarray = kernel.reshape(len(kernel), -1, 3)  # (k, labels, states)
        return np.asarray(three[..., 1] - three[..., 0])
    return kernel
