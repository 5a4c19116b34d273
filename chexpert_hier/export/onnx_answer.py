"""From crops to answers in ONNX operations: inputs, network, tree, maps, calls; the numbers of `export.graph`.

All values are names in a Graph.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..films import augment
from ..films.normalisation import area_matrix
from ..finished.members import Member
from . import onnx_network
from .onnx_graph import Graph


class Answer(NamedTuple):
    """What one member says: probabilities and conditional float32 (n, labels), maps float32 (n, labels, *grid)."""

    probabilities: str
    conditional: str
    maps: str
    grid: tuple[int, int]


def of_member(graph: Graph, member: Member, names: Sequence[str], crops: str, side: int) -> Answer:
    """Write one member's network.

    Args:
        graph: where to.
        member: a finished run, opened with Keras.
        names: order of the labels.
        crops: uint8 (n, side, side).
        side: of the crops in pixels.
    """
    from ..network.model import probability_model

    network = probability_model(member.model)
    values = onnx_network.write(graph, network, _inputs(graph, member, crops, side))
    conditional = values[network.layers[-1].name]
    final = under_tree(graph, "ReduceProd", conditional, member.tree.ancestors) if member.recipe.chain else conditional
    order = np.array([member.labels.index(name) for name in names])
    found = (graph.add("Gather", value, order, axis=1)
             for value in (final, conditional, _maps(graph, member.model, values)))
    return Answer(*found, _last(member.model).output.shape[1:3])


def _last(model: Any) -> Any:
    """The layer that gives the last maps."""
    if any(layer.name == "head_conv" for layer in model.layers):
        return model.get_layer("head_conv")
    return model.get_layer("pool").input._keras_history.operation


def _inputs(graph: Graph, member: Member, crops: str, side: int) -> str:
    """films.normalisation.normalise: uint8 (n, c, c) -> float32 (n, 3, s, s)."""
    first, view = augment.plain_window(member.recipe.plain_view, side)
    if view != side:
        crops = graph.add("Slice", crops, np.array([first, first]), np.array([first + view] * 2), np.array([1, 2]))
    crops = graph.add("Unsqueeze", crops, np.array([1]))  # (n, 1, c, c)
    how, size = member.normalisation, member.recipe.image_size
    if size == view:
        level = graph.cast(crops, "int32")
        channels = (graph.add("Gather", np.ascontiguousarray(how.table[:, k]), level) for k in range(3))
        return graph.add("Concat", *channels, axis=1)
    weights = area_matrix(view, size)  # (s, c)
    small = graph.add("MatMul", weights, graph.cast(crops, "float32"))
    small = graph.add("MatMul", small, np.ascontiguousarray(weights.T))
    slope, offset = (part.reshape(1, 3, 1, 1) for part in how.line)
    return graph.add("Add", graph.add("Mul", small, slope), offset)


def under_tree(graph: Graph, operation: str, values: str, ancestors: np.ndarray) -> str:
    """ReduceProd (the chain rule) or ReduceMin over a label and its ancestors, each once; float32 (n, labels)."""
    every = graph.add("Where", ancestors[None], graph.add("Unsqueeze", values, np.array([1])), np.float32(1))
    return graph.add(operation, every, axes=[2], keepdims=0)


def _maps(graph: Graph, model: Any, values: Mapping[str, str]) -> str:
    """Where the network looks, float32 (n, labels, h, w): class activation maps, heatmaps.maps.class_activation.

    Behind the head of HBCE it is Grad-CAM, heatmaps.maps.grad_cam, whose gradient can be written down there.
    """
    from ..network.maps import map_weights

    weights = np.ascontiguousarray(map_weights(model).T)  # (labels, k)
    if _last(model).name == "head_conv":
        return _gradient_maps(graph, model, values, weights)
    return graph.add("Conv", values[_last(model).name], weights[:, :, None, None])


def _gradient_maps(graph: Graph, model: Any, values: Mapping[str, str], weights: np.ndarray) -> str:
    """Behind BatchNorm, pooling, Dense with ReLU, Dense: the maps weighted by the logit's gradient (Selvaraju 2017)."""
    height, width = model.get_layer("head_conv").output.shape[1:3]
    slope, _ = onnx_network.batch_normalisation(model.get_layer("head_bn"))  # (k,)
    kernel = onnx_network.array(model.get_layer("head_dense").kernel) * slope[:, None] / (height * width)  # (k, units)
    active = graph.cast(graph.add("Greater", values["head_dense"], np.float32(0)), "float32")  # (n, units)
    back = graph.add("Mul", graph.add("Unsqueeze", active, np.array([1])), weights[None])  # (n, labels, units)
    strength = graph.add("MatMul", back, np.ascontiguousarray(kernel.T))  # (n, labels, k)
    maps = graph.add("Reshape", values["head_conv"], np.array([0, len(slope), height * width]))
    return graph.add("Reshape", graph.add("MatMul", strength, maps), np.array([0, len(weights), height, width]))
