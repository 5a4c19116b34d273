"""The model as one ONNX file: grey films of any size in, answers out; checked in ONNX Runtime before it is kept.

Rescaling, crop search, flags, networks, tree, maps and calibration are inside, so that a program in any language needs
ONNX Runtime and pixels only. Needs onnx and onnxruntime: pip install "chexpert_hier[onnx]".

The graph is written node by node from Keras' layers (`onnx_network`). Converters that trace TensorFlow (tf2onnx, and
Keras' own export through it) took 13 s for DenseNet-121 instead of 0.4 s and know nothing of the crop search.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..errors import InputError, install
from ..files import written_whole
from ..films.grey import MIN_SIDE
from ..finished import operating
from ..finished.members import Member, same_labels
from ..finished.onnx_network import CONDITIONAL, CROPS, MAPS, OnnxFile
from . import contract
from .graph import EDGE, Calling, calling, cropper_of, croppers_of
from .status import FLAT, GOOD, SMALL

TOLERANCE = 1e-4
CHECKED = 4  # films


def export(members: Sequence[Member], out: Path, crops_only: bool = False) -> float:
    """Write the ONNX file of one run or of an ensemble.

    Input `film`, uint8 (n, h, w), films of one size, bone bright. Outputs as contract.outputs says, beside the
    SavedModel's `maps`, float32 (n, labels, rows, columns), of the first member; `calibrated` and `present` where the
    run has an evaluation. The file's metadata holds `labels` (JSON) and `metadata` (contract.metadata, JSON).

    Args:
        members: finished runs with the same labels, opened with Keras.
        out: the file; appears whole or not at all.
        crops_only: leave out the crop search: the input is `crops`, uint8 (n, c, c), and the outputs are
            `probabilities`, `conditional`, `maps`, for an ensemble `spread`.

    Returns:
        the largest difference between ONNX Runtime and the networks on made-up films.

    Raises:
        InputError: packages are missing, members crop differently (crops_only), or the outputs differ by more than
            TOLERANCE.
    """
    try:
        import onnx
    except ImportError as error:
        raise InputError(f"--onnx needs {error.name}; {install('onnx')}") from None
    if crops_only and len(croppers_of(members)) > 1:
        raise InputError("--crops: the members crop films differently, so that no crop serves all; export them one by "
                         "one, or without --crops")
    model = _model(members, crops_only)
    with written_whole(out) as beside:
        onnx.save(model, str(beside))
        worst = _difference(beside, members, crops_only)
        if not worst <= TOLERANCE:
            raise InputError(f"{out}: ONNX Runtime differs from the network by {worst:.2g}, expected at most "
                             f"{TOLERANCE:g}; nothing is kept")
    return worst


def _model(members: Sequence[Member], crops_only: bool):
    """The graph with its metadata, an onnx.ModelProto."""
    from .onnx_graph import Graph

    names = same_labels(list(members))
    validation = operating.validation([member.folder for member in members], names)
    how = calling(members[0], names, validation)
    about = contract.metadata(members, validation if how is not None else None)
    about["outputs"] |= {"maps": {"dtype": "float32", "shape": [None, len(names), None, None], "meaning": "where the "
                                  "first network looks for each finding, on the grid of its last maps laid over the "
                                  "crop; not rectified"}}
    graph = Graph()
    size = cropper_of(members[0])[1].size
    if crops_only:
        crops = {identity: graph.input(CROPS, "uint8", ["films", size, size]) for identity in croppers_of(members)}
        found = _answers(graph, members, names, crops)
        about["inputs"] = {"onnx": {"crops": {"dtype": "uint8", "shape": [None, size, size], "range": [0, 255]}}}
        about["outputs"] = {name: about["outputs"][name] for name in found}
    else:
        film = graph.input("film", "uint8", ["films", "height", "width"])
        found = _of_films(graph, members, names, film, how, about["synthetic"] is not None)
        about["inputs"] = {"onnx": {"film": {"dtype": "uint8", "shape": [None, None, None], "range": [0, 255],
                                             "content": "decoded grey films of one size, bone bright"}}}
    for output in about["outputs"].values():
        output.pop("signature", None)
    for name, value in found.items():
        output = about["outputs"][name]
        graph.output(value, name, output["dtype"], ["films", *output["shape"][1:]])
    said = {"labels": json.dumps(list(names)), "metadata": json.dumps(about), "intended_use": about["intended_use"]}
    return graph.model("chexpert_hier", said | ({"synthetic": about["synthetic"]} if about["synthetic"] else {}))


def _of_films(graph, members: Sequence[Member], names: Sequence[str], film: str, how: Calling | None,
              synthetic: bool) -> dict[str, str]:
    """Names of all outputs; NaN, -1 and False for films that are not good."""
    from .onnx_crop import crop
    from .onnx_flag import flag

    view, first = cropper_of(members[0])
    status = _status(graph, film)
    good = graph.add("Equal", status, np.int32(GOOD))
    croppers = croppers_of(members)
    cut = {identity: crop(graph, film, cropper) for identity, cropper in croppers.items()}
    crops = {identity: one.crops for identity, one in cut.items()}
    if len(crops) == 1:
        crops = {identity: graph.named(value, CROPS, "uint8", ["films", first.size, first.size])
                 for identity, value in crops.items()}
    found = _answers(graph, members, names, crops)
    if first.mode == "template":
        found["match"] = cut[first.identity].scores
    if how is not None:
        found |= _called(graph, found["probabilities"], how)
    if synthetic:
        found.pop("present", None)
    found = {name: _blank(graph, value, good, name) for name, value in found.items()}
    places = graph.cast(cut[first.identity].places, "int32")
    found["place"] = graph.add("Where", graph.add("Unsqueeze", good, np.array([1])), places, np.int32(-1))
    odd = flag(graph, film) if view == "Frontal" else graph.add("Mul", status, np.int32(0))
    return found | {"status": status, "flags": graph.add("Where", good, odd, np.int32(0))}


def _answers(graph, members: Sequence[Member], names: Sequence[str], crops: dict[str, str]) -> dict[str, str]:
    """Mean and spread over the members, and the first one's maps; float32 (n, labels), maps (n, labels, h, w)."""
    from .onnx_answer import of_member

    count = len(names)
    each = [of_member(graph, member, names, crops[cropper_of(member)[1].identity], cropper_of(member)[1].size)
            for member in members]
    if len(members) == 1:
        (only,) = each
        conditional = graph.named(only.conditional, CONDITIONAL, "float32", ["films", count])
        maps = graph.named(only.maps, MAPS, "float32", ["films", count, *only.grid])
        return {"probabilities": only.probabilities, "conditional": conditional, "maps": maps}
    finals, conditionals = (graph.add("Concat", *(graph.add("Unsqueeze", value, np.array([0])) for value in values),
                                      axis=0) for values in list(zip(*each))[:2])  # (members, n, labels)
    mean = graph.add("ReduceMean", finals, axes=[0], keepdims=0)
    away = graph.add("Sub", finals, mean)
    spread = graph.add("Sqrt", graph.add("ReduceMean", graph.add("Mul", away, away), axes=[0], keepdims=0))
    return {"probabilities": mean, "conditional": graph.add("ReduceMean", conditionals, axes=[0], keepdims=0),
            "maps": each[0].maps, "spread": spread}


def _status(graph, film: str) -> str:
    """int32 (n,): whether the films are large enough and show anything."""
    sides = graph.add("Slice", graph.add("Shape", film), [1], [3])
    small = graph.add("Less", graph.add("ReduceMin", sides, keepdims=0), np.int64(MIN_SIDE))
    least, most = (graph.add(operation, film, axes=[1, 2], keepdims=0) for operation in ("ReduceMin", "ReduceMax"))
    flat = graph.add("Equal", graph.cast(least, "int32"), graph.cast(most, "int32"))
    return graph.add("Where", small, np.int32(SMALL), graph.add("Where", flat, np.int32(FLAT), np.int32(GOOD)))


def _blank(graph, value: str, good: str, name: str) -> str:
    """NaN for films that are not good, False in calls."""
    if name == "present":
        return graph.add("And", value, graph.add("Unsqueeze", good, np.array([1])))
    more = {"match": [], "maps": [1, 2, 3]}.get(name, [1])
    kept = graph.add("Unsqueeze", good, np.array(more)) if more else good
    return graph.add("Where", kept, value, np.float32(np.nan))


def _called(graph, probabilities: str, how: Calling) -> dict[str, str]:
    """`calibrated` and `present`: graph.called."""
    from .onnx_answer import under_tree

    inside = graph.add("Min", graph.add("Max", probabilities, np.float32(EDGE)), np.float32(1 - EDGE))
    logit = graph.add("Log", graph.add("Div", inside, graph.add("Sub", np.float32(1), inside)))
    scaled = graph.add("Sigmoid", graph.add("Add", graph.add("Mul", logit, how.slope), how.intercept))
    scaled = graph.add("Where", how.fitted[None], scaled, probabilities)
    return {"calibrated": under_tree(graph, "ReduceMin", scaled, how.ancestors),
            "present": graph.add("GreaterOrEqual", probabilities, how.limit)}


# ---------------------------------------------------------------------------------------------------- the check

def _difference(file: Path, members: Sequence[Member], crops_only: bool) -> float:
    """The largest difference of the probabilities from the networks' own, on made-up films."""
    names, worst = same_labels(list(members)), 0.0
    run = OnnxFile(file).crops() if crops_only else OnnxFile(file).films()
    for film in _made_up():
        finals, crops = [], None
        for member in members:
            crops = cropper_of(member)[1].crop([film]).crops
            order = [member.labels.index(name) for name in names]
            finals.append(member.final(member.outputs(crops))[:, order])
        got = run(crops if crops_only else film[None])["probabilities"]
        worst = max(worst, float(np.abs(got - np.mean(finals, axis=0)).max()))
    return worst


def _made_up() -> list[np.ndarray]:
    """Films of all levels, smooth and rough, of several sizes: uint8 (h, w)."""
    random = np.random.default_rng(0)
    films = []
    for k, (height, width) in enumerate(((390, 320), (256, 256), (700, 900), (100, 64))[:CHECKED]):
        rough, share = random.integers(0, 256, (height, width)), k / (CHECKED - 1)
        slope = np.linspace(0, 255, height)[:, None] * np.ones((1, width))
        films.append(np.round(share * rough + (1 - share) * slope).astype(np.uint8))
    return films
