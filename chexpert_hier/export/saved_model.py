"""The SavedModel: film bytes in, probabilities out, in plain TensorFlow without this package.

    python -m chexpert_hier.export --model RUN [RUN ...] --out saved_model
    python -m chexpert_hier.export --model RUN --onnx model.onnx

Decoding, rescaling, template matching, normalisation, networks, chain rule and calibration are one graph; several runs
become one ensemble that shares the decoding and the crop. `metadata.json` and `MODEL_CARD.md` beside it say what goes
in, what comes out, and how good it was on the validation films.
"""

import contextlib
import json
import logging
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from ..errors import InputError
from ..files import write_text, written_whole
from ..films.template import write_template
from ..finished import operating
from ..finished.members import Member, same_labels
from ..prepare.croppers import template_file
from . import decoding, model_card
from .contract import metadata
from .graph import Calling, answering, blank, called, calling, cropper_of
from .status import GOOD, MEANINGS

log = logging.getLogger("chexpert_hier.export")
SEED = "seed_generator_state"  # of Keras' dropout: drawn whenever a network is opened, and not used when it answers
AT_ONCE = 16  # films that the check sends as one request
TOLERANCE = 1e-4  # largest difference between the SavedModel and the run's own predictions that passes for rounding


def export(members: Sequence[Member], out: Path) -> Path:
    """Write the SavedModel of one run or of an ensemble, with metadata.json, MODEL_CARD.md and the template inside.

    Signatures; the outputs are those of contract.outputs:
        serving_default: `film`, string (n,), the bytes of JPEG or PNG files.
        films: `film`, uint8 (n, h, w, 1), decoded grey films.
        calibrated: as serving_default; also `calibrated` and `present`. Left out where the run has no evaluation.

    A film that cannot be used gets a status and NaN; the others of its batch are answered. The same members give the
    same bytes.

    Args:
        members: finished runs with the same labels, opened with Keras.
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

    names = same_labels(list(members))
    validation = operating.validation([member.folder for member in members], names)
    how = calling(members[0], names, validation)
    about = metadata(members, validation if how is not None else None)
    # Keras' own archive would store every variable twice, in an order that changes from run to run.
    weights = tf.Module()
    weights.variables_in_order = [variable.value for member in members for variable in member.model.variables
                                  if variable.name != SEED]
    with written_whole(out) as beside:
        with _quiet():
            tf.saved_model.save(weights, str(beside), signatures=_signatures(members, names, how, about))
        _sign(beside)
        write_text(beside / "metadata.json", json.dumps(about, indent=1) + "\n")
        write_text(beside / "MODEL_CARD.md", model_card.text(about))
        view, cropper = cropper_of(members[0])
        if cropper.mode == "template":
            write_template(beside / template_file(view), cropper.template)
    return Path(out)


def _signatures(members: Sequence[Member], names: Sequence[str], how: Calling | None,
                about: dict) -> dict:
    """The traced functions by name."""
    import tensorflow as tf

    answer = answering(members, names)
    in_bytes = [tf.TensorSpec((None,), tf.string, name="film")]

    def calibrated(film):
        result = answer(film, decoding.decode)
        more = {name: value for name, value in called(result["probabilities"], how).items() if name in about["outputs"]}
        return {**result, **blank(more, result["status"] == GOOD)}

    functions = {"serving_default": (lambda film: answer(film, decoding.decode), in_bytes),
                 "films": (lambda film: answer(film, decoding.checked),
                           [tf.TensorSpec((None, None, None, 1), tf.uint8, name="film")])}
    if how is not None:
        functions["calibrated"] = (calibrated, in_bytes)
    return {name: tf.function(function, input_signature=given, autograph=False).get_concrete_function()
            for name, (function, given) in functions.items()}


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without TensorFlow's warnings of how it names the variables that a function uses."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


def _sign(folder: Path) -> None:
    """TensorFlow's fingerprint holds a random number; this one follows from the rest of it."""
    from tensorflow.core.protobuf import fingerprint_pb2

    file = folder / "fingerprint.pb"
    mark = fingerprint_pb2.FingerprintDef()
    mark.ParseFromString(file.read_bytes())
    mark.uuid = ""
    mark.uuid = str(uuid.uuid5(uuid.NAMESPACE_OID, str(mark)))
    file.write_bytes(mark.SerializeToString(deterministic=True))


def check(saved_model: Path, files: Sequence[Path], expected: np.ndarray) -> float:
    """Load a SavedModel as any TensorFlow program would and compare its answers.

    Films of a kind that it does not read (DICOM and the like: `predict` reads them) are named in the log.

    Args:
        saved_model: the folder.
        files: films; their bytes are sent as they are.
        expected: float (films, labels), the run's own probabilities.

    Returns:
        the largest absolute difference; NaN where no film was answered.

    Raises:
        InputError: it is above TOLERANCE.
    """
    import tensorflow as tf

    serve = tf.saved_model.load(str(saved_model)).signatures["serving_default"]
    parts = [serve(film=tf.constant([file.read_bytes() for file in files[start:start + AT_ONCE]]))
             for start in range(0, len(files), AT_ONCE)]
    status, answers = (np.concatenate([part[name].numpy() for part in parts]) if parts else np.empty(0)
                       for name in ("status", "probabilities"))
    refused = [(file, int(code)) for file, code in zip(files, status) if code != GOOD]
    if refused:
        log.warning("%s: does not answer %d of %d films, e.g. %s (%s)", saved_model, len(refused), len(files),
                    refused[0][0], MEANINGS[refused[0][1]])
    differences = [float(np.abs(answer - wanted).max())
                   for answer, wanted, code in zip(answers, expected, status) if code == GOOD]
    worst = float(np.max(differences)) if differences else float("nan")
    if differences and not worst <= TOLERANCE:
        raise InputError(f"{saved_model}: differs from the run's own probabilities by {worst:.2g}, expected at most "
                         f"{TOLERANCE:g}; do not serve it, and report this")
    return worst
