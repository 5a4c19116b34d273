"""The SavedModel: film bytes in, probabilities out, in plain TensorFlow without this package.

    python -m chexpert_hier.export --model RUN [RUN ...] --out saved_model
    python -m chexpert_hier.export --model RUN --onnx model.onnx

Decoding, rescaling, template matching, normalisation, networks, chain rule and calibration are one graph; several runs
become one ensemble that shares the decoding and the crop. `metadata.json` and `MODEL_CARD.md` beside it say what goes
in, what comes out, and how good it was on the validation films.
"""

import importlib.metadata
import json
import logging
from pathlib import Path

import numpy as np

from .. import __version__
from ..errors import InputError
from ..files import write_text, written_whole
from ..films import decode
from ..films.template import write_template
from ..finished import operating
from ..finished.members import Member, same_labels
from ..predict.answers import NOT_A_DEVICE
from ..prepare.croppers import template_file
from ..run_folder import read_facts
from . import model_card
from .graph import answering, calibrating, cropper_of

log = logging.getLogger("chexpert_hier.export")
TOLERANCE = 1e-4  # largest difference between the SavedModel and the run's own predictions that passes for rounding


def export(members: list[Member], out: Path) -> Path:
    """Write the SavedModel of one run or of an ensemble, with metadata.json, MODEL_CARD.md and the template inside.

    Signatures; all answer with `probabilities` and `conditional`, float32 (n, labels), `match`, float32 (n,), the
    template match (where the recipe crops by it), and for an ensemble `spread`, the standard deviation of the members'
    probabilities:
        serving_default: `film`, string (n,), the bytes of JPEG or PNG files.
        films: `film`, uint8 (n, h, w, 1), decoded grey films.
        calibrated: as serving_default; also `calibrated`, float32 (n, labels), Platt-scaled on the validation films,
            and `present`, bool (n, labels), the call at the operating point. Left out where the run has no evaluation.

    Args:
        members: finished runs with the same labels.
        out: folder to write; appears whole or not at all.

    Returns:
        `out`.

    Raises:
        InputError: the members' labels differ, the backend is not TensorFlow, or the disk is full.
    """
    import keras

    if keras.backend.backend() != "tensorflow":
        raise InputError(f"export: a SavedModel needs the TensorFlow backend, not {keras.backend.backend()}; run the "
                         "command with KERAS_BACKEND=tensorflow")
    import tensorflow as tf

    names = same_labels(members)
    validation = operating.validation([member.folder for member in members], names)
    answer, scale = answering(members, names), calibrating(members[0], names, validation)
    archive = keras.export.ExportArchive()
    for member in members:
        archive.track(member.model)

    def from_bytes(film):
        return answer(film, decode.graph_decode)

    def from_pixels(film):
        return answer(film, lambda grey: grey)

    def calibrated(film):
        result = answer(film, decode.graph_decode)
        return {**result, **scale(result["probabilities"])}

    in_bytes = [tf.TensorSpec((None,), tf.string, name="film")]
    archive.add_endpoint("serving_default", from_bytes, in_bytes)
    archive.add_endpoint("films", from_pixels, [tf.TensorSpec((None, None, None, 1), tf.uint8, name="film")])
    if scale is not None:
        archive.add_endpoint("calibrated", calibrated, in_bytes)
    about = metadata(members, validation if scale is not None else None)
    with written_whole(out) as beside:
        archive.write_out(str(beside), verbose=False)
        write_text(beside / "metadata.json", json.dumps(about, indent=1) + "\n")
        write_text(beside / "MODEL_CARD.md", model_card.text(about))
        view, cropper = cropper_of(members[0])
        if cropper.mode == "template":
            write_template(beside / template_file(view), cropper.template)
    return Path(out)


def metadata(members: list[Member], validation: dict | None = None) -> dict:
    """What goes into the SavedModel, what comes out, how good it was, and where it comes from; plain JSON values."""
    facts = [read_facts(member.folder) for member in members]
    names = list(members[0].labels)
    view, cropper = cropper_of(members[0])
    in_bytes = {"film": {"dtype": "string", "shape": [None], "content": "bytes of JPEG (grey or colour) or 8-bit grey "
                         "PNG files, one per film; DICOM and other PNGs are read by python -m chexpert_hier.predict"}}
    inputs = {"serving_default": in_bytes,
              "films": {"film": {"dtype": "uint8", "shape": [None, None, None, 1], "range": [0, 255],
                                 "content": "decoded grey films of one size, bone bright"}}}
    output = {"dtype": "float32", "shape": [None, len(names)], "range": [0, 1]}
    outputs = {"probabilities": {**output, "meaning": "probability of each finding, after the chain rule where the "
                                 "recipe uses it"},
               "conditional": {**output, "meaning": "the network's own outputs; after conditional training "
                               "p(finding | its parents present)"}}
    if len(members) > 1:
        outputs["spread"] = {**output, "meaning": "standard deviation over the members"}
    if cropper.mode == "template":
        outputs["match"] = {"dtype": "float32", "shape": [None], "range": [-1, 1], "meaning": "template match; below "
                            "0.5 the film is hardly an upright frontal chest film"}
    if validation:
        inputs["calibrated"] = in_bytes
        outputs["calibrated"] = {**output, "signature": "calibrated", "meaning": "Platt-scaled on the validation "
                                 "films, then no finding above an ancestor"}
        outputs["present"] = {"dtype": "bool", "shape": [None, len(names)], "signature": "calibrated", "meaning":
                              "probability reaches the operating point's threshold (validation.labels)"}
    return {
        "name": "chexpert_hier", "version": __version__, "intended_use": NOT_A_DEVICE, "labels": names, "view": view,
        "inputs": inputs, "outputs": outputs, "validation": validation,
        "versions": {name: importlib.metadata.version(name) for name in ("tensorflow", "keras", "numpy")},
        "members": [{"recipe": fact["recipe"], "tree": fact["tree"], "data": fact["data"],
                     "trained_with": fact["versions"]} for fact in facts],
    }


def check(saved_model: Path, files: list[Path], expected: np.ndarray) -> float:
    """Load a SavedModel as any TensorFlow program would and compare its answers.

    Films of a kind that it refuses (DICOM, 16-bit PNG and the like: `predict` reads them) are named in the log.

    Args:
        saved_model: the folder.
        files: films; their bytes are sent as they are.
        expected: float (films, labels), the run's own probabilities.

    Returns:
        the largest absolute difference; NaN where every film was refused.

    Raises:
        InputError: it is above TOLERANCE.
    """
    import tensorflow as tf

    serve = tf.saved_model.load(str(saved_model)).signatures["serving_default"]
    differences, refused = [], []
    for file, wanted in zip(files, expected):
        try:
            got = serve(film=tf.constant([file.read_bytes()]))["probabilities"].numpy()[0]
        except tf.errors.InvalidArgumentError:
            refused.append(file)
            continue
        differences.append(float(np.abs(got - wanted).max()))
    if refused:
        log.warning("%s: refuses %d of %d films, e.g. %s (it reads 8-bit JPEG and PNG; predict reads more)",
                    saved_model, len(refused), len(files), refused[0])
    worst = float(np.max(differences)) if differences else float("nan")
    if differences and not worst <= TOLERANCE:
        raise InputError(f"{saved_model}: differs from the run's own probabilities by {worst:.2g}, expected at most "
                         f"{TOLERANCE:g}; do not serve it, and report this")
    return worst
