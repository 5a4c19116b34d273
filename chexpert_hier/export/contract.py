"""What goes into an exported model, what comes out, how good it was, and where it comes from: its metadata."""

import importlib.metadata
from collections.abc import Sequence
from pathlib import Path

from .. import __version__
from ..films.plausible import FLAGS
from ..finished import fingerprint
from ..finished.members import Member
from ..predict.answers import NOT_A_DEVICE, SYNTHETIC
from ..run_folder import is_synthetic, read_facts
from .graph import cropper_of
from .status import MEANINGS

ANSWERED = ("not frontal", "inverted", "turn 90", "turn 180", "turn 270", "colour")  # what pixels and JPEG or PNG tell


def metadata(members: Sequence[Member], validation: dict | None = None) -> dict:
    """The metadata of one run or of an ensemble, in plain JSON values.

    Nothing in it says where anything lay on this machine.

    Args:
        members: finished runs with the same labels.
        validation: of operating.validation; None leaves out calibrated probabilities and calls.
    """
    facts = [read_facts(member.folder) for member in members]
    synthetic = any(map(is_synthetic, facts))
    view, cropper = cropper_of(members[0])
    return {
        "name": "chexpert_hier", "version": __version__, "intended_use": NOT_A_DEVICE,
        "synthetic": SYNTHETIC if synthetic else None, "labels": list(members[0].labels), "view": view,
        "inputs": inputs(validation), "outputs": outputs(members, validation, synthetic),
        "status": {str(code): meaning for code, meaning in MEANINGS.items()},
        "flags": {str(flag.bit): flag.words for name, flag in FLAGS.items() if name in ANSWERED},
        "crop": {"mode": cropper.mode, "rescaled": cropper.rescaled, "size": cropper.size},
        "validation": validation,
        "versions": {name: importlib.metadata.version(name) for name in ("keras", "numpy")},
        "members": [_origin(member, fact) for member, fact in zip(members, facts)],
    }


def _origin(member: Member, fact: dict) -> dict:
    """What a network was made of, without the places of its files."""
    recipe = {**fact["recipe"]}
    if Path(recipe["weights"]).name != recipe["weights"]:
        recipe["weights"] = Path(recipe["weights"]).name
    data = {name: fact["data"].get(name) for name in ("name", "fingerprint", "counts", "synthetic")}
    return {"recipe": recipe, "tree": fact["tree"], "data": data, "trained_with": fact["versions"],
            "model": fingerprint.of_file(member.file)}


def inputs(validation: dict | None) -> dict:
    """The SavedModel's signatures and what they take."""
    in_bytes = {"film": {"dtype": "string", "shape": [None], "content": "bytes of JPEG (grey or colour) or PNG files "
                         "(8 or 16 bits, grey, colour, palette, with or without transparency), one per film; other "
                         "files get a status"}}
    in_pixels = {"film": {"dtype": "uint8", "shape": [None, None, None, 1], "range": [0, 255],
                          "content": "decoded grey films of one size, bone bright"}}
    return {"serving_default": in_bytes, "films": in_pixels} | ({"calibrated": in_bytes} if validation else {})


def outputs(members: Sequence[Member], validation: dict | None, synthetic: bool) -> dict:
    """The outputs by name; those with "signature" belong to that one alone."""
    count = len(members[0].labels)
    each = {"dtype": "float32", "shape": [None, count], "range": [0, 1]}
    found = {
        "probabilities": {**each, "meaning": "probability of each finding, after the chain rule where the recipe uses "
                          "it"},
        "conditional": {**each, "meaning": "the network's own outputs; after conditional training p(finding | its "
                        "parents present)"},
        "status": {"dtype": "int32", "shape": [None], "meaning": "0: the film is good; else why it is not (\"status\")"
                   ", and its numbers are NaN"},
        "flags": {"dtype": "int32", "shape": [None], "meaning": "what is odd about the film: the sum of the bits of "
                  "\"flags\", 0 for nothing"},
        "place": {"dtype": "int32", "shape": [None, 2], "meaning": "row and column of the crop's upper left corner in "
                  "the rescaled film (\"crop\"); -1 for a film that is not good"},
    }
    if len(members) > 1:
        found["spread"] = {**each, "meaning": "standard deviation over the members"}
    if cropper_of(members[0])[1].mode == "template":
        found["match"] = {"dtype": "float32", "shape": [None], "range": [-1, 1], "meaning": "template match"}
    if validation:
        found["calibrated"] = {**each, "signature": "calibrated", "meaning": "Platt-scaled on the validation films, "
                               "then no finding above an ancestor"}
    if validation and not synthetic:  # a call on a real film would be made up
        found["present"] = {"dtype": "bool", "shape": [None, count], "signature": "calibrated", "meaning":
                            "probability reaches the operating point's threshold (validation.labels)"}
    return found
