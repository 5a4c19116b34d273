"""The SavedModel: film bytes in, probabilities out, in plain TensorFlow without this package.

    python -m chexpert_hier.export --model RUN [RUN ...] --out saved_model
    python -m chexpert_hier.export --model RUN --onnx model.onnx

Decoding, rescaling, template matching, normalisation, networks, chain rule and calibration are one graph; several runs
become one ensemble that shares the decoding and the crop. `metadata.json` and `MODEL_CARD.md` beside it say what goes
in, what comes out, and how good it was on the validation films.
"""

import argparse
import importlib.metadata
import json
import logging
import sys
from pathlib import Path

import numpy as np

from . import __version__, augment, commands, films, images, model_card, operating
from .answers import NOT_A_DEVICE
from .errors import InputError
from .files import write_text, written_whole
from .members import Member, open_run, same_labels
from .run import read_facts
from .sources import template_file
from .template import Cropper, write_template

log = logging.getLogger("chexpert_hier.export")

TOLERANCE = 1e-4  # largest difference between the SavedModel and the run's own predictions that passes for rounding
EDGE = 1e-6  # as evaluate.calibration: probabilities are kept this far from 0 and 1 before the logit


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
        return answer(film, films.graph_decode)

    def from_pixels(film):
        return answer(film, lambda grey: grey)

    def calibrated(film):
        result = answer(film, films.graph_decode)
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


def cropper_of(member: Member) -> tuple[str, Cropper]:
    """The view that is served and how its films are cropped: frontal, unless the run knows lateral films only."""
    view = "Frontal" if "Frontal" in member.croppers else next(iter(member.croppers))
    return view, member.croppers[view]


def answering(members: list[Member], names: tuple[str, ...]):
    """The graph from films to named outputs; `decode` turns one element of the batch into uint8 (h, w) or (h, w, 1)."""
    import tensorflow as tf

    croppers = {cropper.identity: cropper for cropper in (cropper_of(member)[1] for member in members)}
    first = cropper_of(members[0])[1]

    def answer(films, decode):
        kinds = list(croppers.values())
        specs = tuple((tf.TensorSpec((k.size, k.size), tf.uint8), tf.TensorSpec((), tf.float32)) for k in kinds)

        def crop_all(element):
            grey = decode(element)
            found = [k.graph(grey) for k in kinds]
            return tuple((tf.ensure_shape(crop.crops, (k.size, k.size)), crop.scores) for k, crop in zip(kinds, found))

        found = dict(zip(croppers, tf.map_fn(crop_all, films, fn_output_signature=specs)))
        crops = {identity: pair[0] for identity, pair in found.items()}
        result = of_crops(members, names, crops)
        if first.mode == "template":
            result["match"] = found[first.identity][1]
        return result

    return answer


def of_crops(members: list[Member], names: tuple[str, ...], crops: dict) -> dict:
    """The graph from crops to named outputs.

    Args:
        members: finished runs.
        names: order of the outputs.
        crops: a cropper's identity -> uint8 tensor (n, c, c) or (n, c, c, 1).
    """
    import tensorflow as tf

    pairs = [_network(member, names, crops[cropper_of(member)[1].identity]) for member in members]
    finals = tf.stack([final for final, _ in pairs])  # (members, n, labels)
    result = {"probabilities": tf.reduce_mean(finals, 0),
              "conditional": tf.reduce_mean(tf.stack([conditional for _, conditional in pairs]), 0)}
    if len(members) > 1:
        result["spread"] = tf.math.reduce_std(finals, 0)
    return result


def _network(member: Member, names: tuple[str, ...], crops):
    """One member's probabilities after and before the chain rule, each (n, labels)."""
    import tensorflow as tf

    crops = augment.plain(crops, member.recipe.plain_view)
    conditional = member.model(images.graph_normalise(crops, member.normalisation, member.recipe.image_size),
                               training=False)
    conditional = tf.cast(conditional, tf.float32)
    if len(conditional.shape) == 3:  # negative, positive, uncertain: the last is masked (CheXpertNet)
        conditional = conditional[..., 1] / tf.maximum(conditional[..., 0] + conditional[..., 1], 1e-37)
    final = chain_rule(conditional, member.tree.ancestors) if member.recipe.chain else conditional
    order = [member.labels.index(name) for name in names]
    return tf.gather(final, order, axis=1), tf.gather(conditional, order, axis=1)


def chain_rule(conditional, ancestors: np.ndarray):
    """hierarchy.chain_rule in graph operations: the product over a label and its ancestors, each once."""
    import tensorflow as tf

    return tf.reduce_prod(tf.where(ancestors[None], conditional[:, None, :], 1.0), axis=2)


def calibrating(member: Member, names: tuple[str, ...], validation: dict | None):
    """The graph from probabilities (n, labels) to `calibrated` and `present`; None without a calibration.

    The same as operating.calibrated and operating.calls: Platt scaling per label, then no label above an ancestor.
    """
    import tensorflow as tf

    if not validation or set(validation["calibration"]) != set(names):
        return None
    scalings = [validation["calibration"][name] for name in names]
    slope, intercept = (np.array([scaling[part] for scaling in scalings], np.float32)
                        for part in ("slope", "intercept"))
    fitted = np.array([scaling["method"] == "platt" for scaling in scalings])
    order = [member.tree.labels.index(name) for name in names]
    ancestors = member.tree.ancestors[np.ix_(order, order)]
    limit = operating.thresholds(validation, names)
    limit = np.where(np.isnan(limit), np.inf, limit - operating.SLACK * np.abs(limit)).astype(np.float32)

    def scale(probabilities):
        inside = tf.clip_by_value(probabilities, EDGE, 1 - EDGE)
        logit = tf.math.log(inside) - tf.math.log1p(-inside)
        scaled = tf.where(fitted[None], tf.sigmoid(slope * logit + intercept), probabilities)
        under = tf.reduce_min(tf.where(ancestors[None], scaled[:, None, :], 1.0), axis=2)
        return {"calibrated": under, "present": probabilities >= limit}

    return scale


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


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    answer = argparse.ArgumentParser(prog="python -m chexpert_hier.export", description=__doc__.splitlines()[0])
    answer.add_argument("--model", nargs="+", required=True, metavar="RUN",
                        help="finished runs; several are an ensemble")
    answer.add_argument("--out", type=Path, help="folder of the SavedModel")
    answer.add_argument("--onnx", type=Path, metavar="FILE", help="also, or only, an ONNX file: uint8 crops in, "
                        "probabilities out")
    answer.add_argument("--resume", action="store_true", help="replace what exists in --out and --onnx")
    return answer


def main(argv: list[str] | None = None) -> int:
    """Run the command; 0 when done."""
    args = parser().parse_args(argv)
    if not args.out and not args.onnx:
        raise InputError("export: nothing to write; expected --out FOLDER (SavedModel), --onnx FILE, or both")
    for name, path in (("--out", args.out), ("--onnx", args.onnx)):
        if path and path.exists() and not args.resume:
            raise InputError(f"{path}: exists; choose another {name}, or --resume to replace it")
    members = [open_run(run) for run in args.model]
    if args.out:
        export(members, args.out)
        print(f"SavedModel: {args.out}")
    if args.onnx:
        from . import onnx_export

        worst = onnx_export.export(members, args.onnx)
        print(f"ONNX: {args.onnx} (in ONNX Runtime at most {worst:.1g} from the network)")
    return 0


if __name__ == "__main__":
    sys.exit(commands.answer(main))
