"""What is odd about a film, in ONNX operations: films.detector and films.plausible, the same whole numbers."""

import numpy as np

from ..films.detector import HIGHEST, LOWEST, SIDE, UNITS, Layer, layers
from ..films.plausible import ADVICE, FLAGS, LEAST, SURE
from .onnx_crop import rescale_to
from .onnx_graph import Graph


def flag(graph: Graph, films: str) -> str:
    """uint8 (n, h, w) -> int32 (n,): the view's bit, 0 for an upright frontal film (plausible.view_code)."""
    scores = _scores(graph, films)  # (n, classes)
    frontal = graph.add("Gather", scores, np.int64(0), axis=1)
    odd = graph.add("Slice", scores, np.array([1]), np.array([len(ADVICE) + 1]), np.array([1]))  # (n, classes - 1)
    best_odd = graph.add("ReduceMax", odd, axes=[1], keepdims=0)
    two, _ = graph.add_many("TopK", 2, scores, np.array([2]), axis=1)
    lead = graph.add("Sub", *(graph.add("Gather", two, np.int64(k), axis=1) for k in (0, 1)))
    advice = graph.add("Gather", ADVICE, graph.add("ArgMax", odd, axis=1, keepdims=0))
    sure = graph.add("GreaterOrEqual", lead, np.float32(SURE))
    advised = graph.add("Where", sure, advice, np.int32(FLAGS["not frontal"].bit))
    plain = graph.add("GreaterOrEqual", graph.add("Sub", frontal, best_odd), np.float32(LEAST))
    return graph.add("Where", plain, np.int32(0), advised)


def _scores(graph: Graph, films: str) -> str:
    """uint8 (n, h, w) -> float32 (n, classes), whole numbers: detector.scores."""
    convolutions, (hidden, last) = layers()
    values = graph.add("Unsqueeze", _contrast_free(graph, rescale_to(graph, films, SIDE, "area")), np.array([1]))
    for layer in convolutions:
        values = _positive(graph, _convolved(graph, values, layer))
    values = graph.add("Transpose", values, perm=[0, 2, 3, 1])  # the dense layer's order
    values = graph.add("Reshape", values, np.array([-1, len(hidden.weights)]))
    return _dense(graph, _positive(graph, _dense(graph, values, hidden)), last)


def _contrast_free(graph: Graph, small: str) -> str:
    """int64 (n, s, s) -> float32 (n, s, s): UNITS times (value - mean) / standard deviation, rounded half to even."""
    count = np.int64(SIDE ** 2)
    total = graph.add("ReduceSum", small, np.array([1, 2]))  # (n, 1, 1)
    squares = graph.add("ReduceSum", graph.add("Mul", small, small), np.array([1, 2]))
    away = graph.add("Sub", graph.add("Mul", small, count), total)
    variance = graph.add("Sub", graph.add("Mul", squares, count), graph.add("Mul", total, total))
    root = graph.add("Sqrt", graph.add("Max", graph.cast(variance, "float64"), np.float64(1)))
    units = graph.add("Round", graph.add("Div", graph.add("Mul", graph.cast(away, "float64"), np.float64(UNITS)), root))
    inside = graph.add("Max", graph.add("Min", units, np.float64(-LOWEST)), np.float64(LOWEST))
    return graph.cast(inside, "float32")


def _convolved(graph: Graph, values: str, layer: Layer) -> str:
    """(n, c, s, s) -> (n, outputs, s / 2, s / 2): each second pixel with the eight around it, black outside."""
    kernel = layer.weights.reshape(3, 3, -1, layer.weights.shape[1]).transpose(3, 2, 0, 1)  # (outputs, c, 3, 3)
    found = graph.add("Conv", values, np.ascontiguousarray(kernel), layer.bias, kernel_shape=[3, 3], strides=[2, 2],
                      pads=[1, 1, 0, 0])
    return graph.add("Floor", graph.add("Div", found, np.float32(layer.divisor)))


def _dense(graph: Graph, values: str, layer: Layer) -> str:
    found = graph.add("Add", graph.add("MatMul", values, layer.weights), layer.bias)
    return graph.add("Floor", graph.add("Div", found, np.float32(layer.divisor)))


def _positive(graph: Graph, values: str) -> str:
    return graph.add("Min", graph.add("Max", values, np.float32(0)), np.float32(HIGHEST))
