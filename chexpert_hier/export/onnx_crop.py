"""How a film becomes a crop, in ONNX operations: `template.Cropper` in exact integers, so the same bytes and place.

All values are names in a Graph; shapes as in `template`, batches of films of one size.
"""

from typing import NamedTuple

import numpy as np

from ..films.template import Cropper
from .onnx_graph import Graph

MIDDLE = 128  # grey levels are shifted by it, which makes products of two bytes fit 32 bits


class Crop(NamedTuple):
    """As template.Crops: crops uint8 (n, c, c), places int64 (n, 2), scores float32 (n,)."""

    crops: str
    places: str
    scores: str


def crop(graph: Graph, films: str, cropper: Cropper) -> Crop:
    """uint8 (n, h, w) -> `Crop`."""
    rescaled = rescale_to(graph, films, cropper.rescaled, cropper.resize)  # int64 (n, r, r)
    count = graph.add("Slice", graph.add("Shape", films), [0], [1])
    if cropper.mode == "template":
        places, scores = find(graph, rescaled, cropper)
        if cropper.least > -1:
            enough = graph.add("Unsqueeze", graph.add("GreaterOrEqual", scores, np.float32(cropper.least)), [1])
            places = graph.add("Where", enough, places, np.array((cropper.places - 1) // 2, np.int64))
    else:
        shape = graph.add("Concat", count, np.array([2], np.int64), axis=0)
        places = graph.add("Expand", np.array((cropper.places - 1) // 2, np.int64), shape)
        scores = graph.add("Expand", np.float32(np.nan), count)
    return Crop(_cut(graph, rescaled, places, cropper), places, scores)


def _cut(graph: Graph, films: str, places: str, cropper: Cropper) -> str:
    """int64 (n, r, r) at places (n, 2) -> uint8 (n, c, c)."""
    size, side = cropper.size, cropper.rescaled
    if size == side:
        return graph.cast(films, "uint8")
    within = graph.add("Add", np.arange(size)[:, None] * side, np.arange(size))  # (c, c)
    first = graph.add("ReduceSum", graph.add("Mul", places, np.array([[side, 1]])), np.array([1]))  # (n, 1)
    index = graph.add("Add", graph.add("Reshape", within, np.array([1, -1])), first)  # (n, c c)
    pixels = graph.add("Reshape", graph.cast(films, "uint8"), np.array([0, side * side]))
    return graph.add("Reshape", graph.add("GatherElements", pixels, index, axis=1), np.array([0, size, size]))


# ---------------------------------------------------------------------------------------------------- rescaling

def rescale_to(graph: Graph, films: str, size: int, resize: str) -> str:
    """uint8 (n, h, w) -> int64 (n, size, size): films.rescaling.rescale, by whole numbers all the way."""
    if resize != "auto":
        return _rescale(graph, films, size, resize == "area")
    sides = graph.add("Slice", graph.add("Shape", films), [1], [3])
    large = graph.add("Greater", graph.add("ReduceMax", sides, keepdims=0), np.int64(2 * size))
    return graph.branch(large, lambda inner: [_rescale(inner, films, size, True)],
                        lambda inner: [_rescale(inner, films, size, False)], ["int64"])[0]


def _rescale(graph: Graph, films: str, size: int, area: bool) -> str:
    total, denominator = films, None
    for axis in (1, 2):
        length = graph.add("Gather", graph.add("Shape", films), np.array(axis))
        total, parts = (_average_along if area else _interpolate_along)(graph, total, axis, length, size)
        denominator = parts if denominator is None else graph.add("Mul", denominator, parts)
    return _half_to_even(graph, total, denominator)


def _along(graph: Graph, values: str, axis: int) -> str:
    """(k,) -> (k, 1) for rows; (k,) is right for columns."""
    return graph.add("Unsqueeze", values, np.array([1])) if axis == 1 else values


def _interpolate_along(graph: Graph, values: str, axis: int, length: str, size: int) -> tuple[str, str]:
    """2 size times the linear interpolation along an axis, and that factor."""
    odd = np.arange(1, 2 * size, 2, dtype=np.int64)  # 2 k + 1
    position = graph.add("Sub", graph.add("Mul", odd, length), np.int64(size))  # in 1/(2 size) pixel
    # Division cuts off towards zero and a place before the first pixel is not inside anyway.
    low = graph.add("Div", graph.add("Max", position, np.int64(0)), np.int64(2 * size))
    last = graph.add("Sub", length, np.int64(1))
    inside = graph.add("And", graph.add("GreaterOrEqual", position, np.int64(0)), graph.add("Less", low, last))
    share = graph.add("Mul", graph.add("Mod", position, np.int64(2 * size)), graph.cast(inside, "int64"))
    low = graph.add("Min", low, last)
    high = graph.add("Min", graph.add("Add", low, np.int64(1)), last)
    share = _along(graph, share, axis)
    first, second = (graph.cast(graph.add("Gather", values, index, axis=axis), "int64") for index in (low, high))
    total = graph.add("Add", graph.add("Mul", first, graph.add("Sub", np.int64(2 * size), share)),
                      graph.add("Mul", second, share))
    return total, graph.constant(np.int64(2 * size))


def _average_along(graph: Graph, values: str, axis: int, length: str, size: int) -> tuple[str, str]:
    """`length` times the mean over each of `size` equal parts of an axis, and that factor."""
    edge = graph.add("Mul", np.arange(size + 1, dtype=np.int64), length)  # in 1/size pixel
    whole, part = graph.add("Div", edge, np.int64(size)), graph.add("Mod", edge, np.int64(size))
    part = _along(graph, part, axis)
    last = graph.add("Sub", length, np.int64(1))
    # Sum of the pixels before each edge: that up to and with the pixel, without the pixel itself.
    at = graph.add("Min", whole, last)
    # Sums of a column of bytes fit 32 bits up to 8 million rows, which no film has.
    values = graph.cast(values, "int32" if axis == 1 else "int64")
    sums = graph.cast(graph.add("Gather", graph.add("CumSum", values, np.int64(axis)), at, axis=axis), "int64")
    pixel = graph.cast(graph.add("Gather", values, at, axis=axis), "int64")
    # At the far edge `whole` is one past the last pixel: the sum keeps that pixel then.
    beyond = _along(graph, graph.cast(graph.add("Greater", whole, last), "int64"), axis)
    before = graph.add("Sub", sums, graph.add("Mul", pixel, graph.add("Sub", np.int64(1), beyond)))
    below = graph.add("Add", graph.add("Mul", before, np.int64(size)), graph.add("Mul", pixel, part))
    upper = graph.add("Slice", below, [1], [size + 1], [axis])
    lower = graph.add("Slice", below, [0], [size], [axis])
    return graph.add("Sub", upper, lower), length


def _half_to_even(graph: Graph, total: str, denominator: str) -> str:
    """round(total / denominator) of whole numbers that are not negative, half to even."""
    level = graph.add("Div", total, denominator)
    left = graph.add("Sub", total, graph.add("Mul", level, denominator))
    above = graph.add("Sub", graph.add("Mul", left, np.int64(2)), denominator)
    odd = graph.add("Equal", graph.add("Mod", level, np.int64(2)), np.int64(1))
    tie = graph.add("And", graph.add("Equal", above, np.int64(0)), odd)
    up = graph.add("Or", graph.add("Greater", above, np.int64(0)), tie)
    return graph.add("Add", level, graph.cast(up, "int64"))


# ---------------------------------------------------------------------------------------------------- search

def find(graph: Graph, films: str, cropper: Cropper) -> tuple[str, str]:
    """int64 (n, r, r) -> places int64 (n, 2), scores float32 (n,): template.Cropper.find, exactly."""
    size, places = cropper.size, cropper.places
    template = cropper.template.astype(np.int64) - MIDDLE
    weights = int(template.sum())
    energy_of_template = float(size ** 2 * int((template ** 2).sum()) - weights ** 2)
    match = graph.cast(_correlation(graph, films, cropper), "int64")  # (n, p, p) of levels less 128
    shifted = graph.add("Sub", films, np.int64(MIDDLE))
    sums = _window_sums(graph, shifted, size, cropper.rescaled)
    squares = _window_sums(graph, graph.add("Mul", shifted, shifted), size, cropper.rescaled)
    many = np.int64(size ** 2)
    energy = graph.add("Sub", graph.add("Mul", squares, many), graph.add("Mul", sums, sums))
    product = graph.add("Sub", graph.add("Mul", match, many), graph.add("Mul", sums, np.int64(weights)))
    energy, product = graph.cast(energy, "float64"), graph.cast(product, "float64")
    seen = graph.add("Greater", energy, np.float64(0))
    root = graph.add("Sqrt", graph.add("Where", seen, energy, np.float64(1)))
    score = graph.add("Div", graph.add("Div", product, root), np.float64(np.sqrt(energy_of_template)))
    score = graph.add("Reshape", graph.add("Where", seen, score, np.float64(0)), np.array([0, places * places]))
    best = graph.add("ArgMax", score, axis=1, keepdims=1)  # (n, 1), the first of equals
    top = graph.add("ReduceMax", score, axes=[1], keepdims=0)
    place = graph.add("Concat", graph.add("Div", best, np.int64(places)), graph.add("Mod", best, np.int64(places)),
                      axis=1)
    return place, graph.cast(top, "float32")


def _window_sums(graph: Graph, films: str, size: int, side: int) -> str:
    """int64 (n, r, r) -> (n, p, p), sums over all size x size windows."""
    for axis in (1, 2):
        table = graph.add("CumSum", films, np.int64(axis))
        pads = np.zeros(6, np.int64)
        pads[axis] = 1
        table = graph.add("Pad", table, pads)
        upper = graph.add("Slice", table, [size], [side + 1], [axis])
        films = graph.add("Sub", upper, graph.add("Slice", table, [0], [side + 1 - size], [axis]))
    return films


def _correlation(graph: Graph, films: str, cropper: Cropper) -> str:
    """Sums over each window of (film - 128)(template - 128): int32 (n, p, p).

    The rows under a window follow each other in the film, so that one matrix product does it: places by rows times
    rows by places, the template shifted by one column from column to column of the second. ConvInteger gives the same
    and takes five times as long.
    """
    size, side, places = cropper.size, cropper.rescaled, cropper.places
    rows = graph.add("Add", np.arange(places)[:, None], np.arange(size))  # (p, c)
    under = graph.add("Gather", graph.cast(films, "uint8"), rows, axis=1)  # (n, p, c, r)
    under = graph.add("Reshape", under, np.array([0, places, size * side]))
    spare = np.full((size, places - 1), MIDDLE, np.uint8)  # beside the template: counts as zero
    wide = np.concatenate([spare, cropper.template, spare], axis=1)  # (c, r + p - 1)
    column = graph.add("Sub", np.arange(side)[:, None] + places - 1, np.arange(places))  # (r, p)
    shifted = graph.add("Reshape", graph.add("Gather", wide, column, axis=1), np.array([size * side, places]))
    return graph.add("MatMulInteger", under, shifted, np.uint8(MIDDLE), np.uint8(MIDDLE))
