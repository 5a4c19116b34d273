"""A Keras network as ONNX nodes: one function per kind of layer that the six networks and the heads are made of.

Reads the layers' weights through Keras on any backend; needs neither TensorFlow nor a traced graph. Maps are
(n, channels, h, w) here, (n, h, w, channels) in Keras.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from ..errors import InputError
from ..labels import TINY
from .onnx_graph import Graph


def write(graph: Graph, model: Any, films: str) -> dict[str, str]:
    """Write a functional model's layers.

    Args:
        graph: where to.
        model: a keras.Model of one input and one output.
        films: name of its input, float32 (n, 3, s, s).

    Returns:
        layer name -> name of its output.

    Raises:
        InputError: a layer of a kind that has no row in LAYERS.
    """
    values = {id(model.inputs[0]): films}
    outputs = {}
    for depth in sorted(model._nodes_by_depth, reverse=True):
        for node in model._nodes_by_depth[depth]:
            if not node.input_tensors:
                continue
            before = [values[id(tensor)] for tensor in node.input_tensors]
            value = _writer(node.operation)(graph, node.operation, *before)
            values[id(node.outputs[0])] = outputs[node.operation.name] = value
    return outputs


def _writer(layer: Any) -> Callable[..., str]:
    for kind in type(layer).__mro__:
        if kind.__name__ in LAYERS:
            return LAYERS[kind.__name__]
    raise InputError(f"ONNX: the layer {layer.name!r} is a {type(layer).__name__}; expected one of "
                     f"{', '.join(LAYERS)}")


def array(variable: Any) -> np.ndarray:
    """A variable's value, float32."""
    import keras

    return np.asarray(keras.ops.convert_to_numpy(variable), np.float32)


# ---------------------------------------------------------------------------------------------------- layers

def _padding(layer: Any, sides: tuple[int, int], window: tuple[int, int]) -> list[int]:
    """ONNX's pads (top, left, bottom, right) for Keras' "same" or "valid": what is odd goes to the end."""
    if layer.padding == "valid":
        return [0, 0, 0, 0]
    dilation = getattr(layer, "dilation_rate", (1, 1))
    spare = [max((width - 1) * wide + 1 - (side % stride or stride), 0)
             for side, width, stride, wide in zip(sides, window, layer.strides, dilation)]
    return [part // 2 for part in spare] + [part - part // 2 for part in spare]


def _window(layer: Any, window: tuple[int, int]) -> dict[str, Any]:
    return {"kernel_shape": list(window), "strides": list(layer.strides),
            "pads": _padding(layer, layer.input.shape[1:3], window)}


def _conv(graph: Graph, layer: Any, maps: str) -> str:
    kernel = array(layer.kernel).transpose(3, 2, 0, 1)  # (out, in, h, w)
    value = graph.add("Conv", maps, kernel, *_bias(layer), group=layer.groups,
                      dilations=list(layer.dilation_rate), **_window(layer, layer.kernel_size))
    return _activate(graph, layer.activation, value)


def _separable(graph: Graph, layer: Any, maps: str) -> str:
    deep = array(layer.depthwise_kernel)  # (h, w, in, multiplier)
    groups = deep.shape[2]
    kernel = deep.transpose(2, 3, 0, 1).reshape(groups * deep.shape[3], 1, *deep.shape[:2])
    value = graph.add("Conv", maps, kernel, group=groups, dilations=list(layer.dilation_rate),
                      **_window(layer, layer.kernel_size))
    value = graph.add("Conv", value, array(layer.pointwise_kernel).transpose(3, 2, 0, 1), *_bias(layer))
    return _activate(graph, layer.activation, value)


def _bias(layer: Any) -> list[np.ndarray]:
    return [array(layer.bias)] if layer.use_bias else []


def _dense(graph: Graph, layer: Any, features: str) -> str:
    value = graph.add("MatMul", features, array(layer.kernel))
    value = graph.add("Add", value, *_bias(layer)) if layer.use_bias else value
    return _activate(graph, layer.activation, value)


def batch_normalisation(layer: Any) -> tuple[np.ndarray, np.ndarray]:
    """Slope and offset per channel in inference mode, float32 (channels,) each."""
    slope = 1 / np.sqrt(array(layer.moving_variance).astype(np.float64) + layer.epsilon)
    slope = slope * array(layer.gamma) if layer.scale else slope
    offset = -array(layer.moving_mean) * slope + (array(layer.beta) if layer.center else 0)
    return slope.astype(np.float32), offset.astype(np.float32)


def _normalise(graph: Graph, layer: Any, maps: str) -> str:
    count = len(array(layer.moving_mean))
    gamma = array(layer.gamma) if layer.scale else np.ones(count, np.float32)
    beta = array(layer.beta) if layer.center else np.zeros(count, np.float32)
    return graph.add("BatchNormalization", maps, gamma, beta, array(layer.moving_mean),
                     array(layer.moving_variance), epsilon=float(layer.epsilon))


def _activation(graph: Graph, layer: Any, value: str) -> str:
    return _activate(graph, layer.activation, value)


def _activate(graph: Graph, activation: Any, value: str) -> str:
    name = getattr(activation, "__name__", str(activation))
    if name == "linear":
        return value
    if name not in ("relu", "sigmoid"):
        raise InputError(f"ONNX: the activation {name!r} is not one of: linear, relu, sigmoid")
    return graph.add({"relu": "Relu", "sigmoid": "Sigmoid"}[name], value)


def _zero_padding(graph: Graph, layer: Any, maps: str) -> str:
    (top, bottom), (left, right) = layer.padding
    return graph.add("Pad", maps, np.array([0, 0, top, left, 0, 0, bottom, right]))


def _cropping(graph: Graph, layer: Any, maps: str) -> str:
    (top, bottom), (left, right) = layer.cropping
    height, width = layer.input.shape[1:3]
    return graph.add("Slice", maps, np.array([top, left]), np.array([height - bottom, width - right]),
                     np.array([2, 3]))


def _largest(graph: Graph, layer: Any, maps: str) -> str:
    return graph.add("MaxPool", maps, **_window(layer, layer.pool_size))


def _average(graph: Graph, layer: Any, maps: str) -> str:
    return graph.add("AveragePool", maps, count_include_pad=0, **_window(layer, layer.pool_size))


def _global_average(graph: Graph, layer: Any, maps: str) -> str:
    return graph.add("ReduceMean", maps, axes=[2, 3], keepdims=0)


def _concatenate(graph: Graph, layer: Any, *maps: str) -> str:
    return graph.add("Concat", *maps, axis=1)  # Keras' last axis


def _sum(graph: Graph, layer: Any, first: str, *rest: str) -> str:
    for other in rest:
        first = graph.add("Add", first, other)
    return first


def _scale(graph: Graph, layer: Any, first: str, second: str) -> str:
    """Inception-ResNet's: the first input and the scaled second."""
    return graph.add("Add", first, graph.add("Mul", second, np.float32(layer.scale)))


def _same(graph: Graph, layer: Any, value: str) -> str:
    return value


def _three_class(graph: Graph, layer: Any, logits: str) -> str:
    """(n, 3 labels) -> (n, labels, 3); see network.model.ThreeClass."""
    logits = graph.add("Reshape", logits, np.array([0, -1, 3]))
    never = np.zeros((layer.input.shape[1] // 3, 3), np.float32)
    never[list(layer.certain), 2] = -1e9
    return graph.add("Softmax", graph.add("Add", logits, never), axis=-1)


def _positive(graph: Graph, layer: Any, three: str) -> str:
    """labels.positive_of_three."""
    negative, positive = (graph.add("Gather", three, np.int64(state), axis=2) for state in (0, 1))
    certain = graph.add("Add", graph.add("Add", negative, positive), np.float32(2 * TINY))
    return graph.add("Div", graph.add("Add", positive, np.float32(TINY)), certain)


# Class name of a layer (or of a parent class) -> (graph, layer, *names of inputs) -> name of its output.
LAYERS: dict[str, Callable[..., str]] = {
    "SeparableConv2D": _separable,
    "Conv2D": _conv,
    "Dense": _dense,
    "BatchNormalization": _normalise,
    "Activation": _activation,
    "ZeroPadding2D": _zero_padding,
    "Cropping2D": _cropping,
    "MaxPooling2D": _largest,
    "AveragePooling2D": _average,
    "GlobalAveragePooling2D": _global_average,
    "Concatenate": _concatenate,
    "Add": _sum,
    "CustomScaleLayer": _scale,
    "Dropout": _same,
    "ThreeClass": _three_class,
    "PositiveProbability": _positive,
}
