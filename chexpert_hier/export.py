"""The SavedModel: film bytes in, probabilities out, in plain TensorFlow without this package.

    python -m chexpert_hier.export --model RUN [RUN ...] --out saved_model

Decoding, rescaling, template matching, normalisation, networks and chain rule are one graph; several runs become one
ensemble that shares the decoding and the crop. `metadata.json` beside it says what goes in and what comes out.
"""

import argparse
import importlib.metadata
import json
import logging
import sys
from pathlib import Path

import numpy as np

from . import __version__, commands, films, images
from .errors import InputError
from .files import remove_leftovers_of, write_text, written_whole
from .predict import Member, open_run
from .run import read_facts

log = logging.getLogger("chexpert_hier.export")

TOLERANCE = 1e-4  # largest difference between the SavedModel and the run's own predictions that passes for rounding


def export(members: list[Member], out: Path) -> Path:
    """Write the SavedModel of one run or of an ensemble, with metadata.json inside.

    Signatures, both with outputs `probabilities` and `conditional`, float32 (n, labels), and for an ensemble `spread`
    (standard deviation of the members' probabilities):
        serving_default: `film`, string (n,), the bytes of JPEG or PNG files.
        films: `film`, uint8 (n, h, w, 1), decoded grey films.

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

    names = members[0].labels
    for member in members:
        if set(member.labels) != set(names):
            raise InputError(f"{member.folder}: its labels differ from {members[0].folder}'s; expected the same ones")
    answer = _answering(members, names)
    archive = keras.export.ExportArchive()
    for member in members:
        archive.track(member.model)

    def from_bytes(film):
        return answer(film, films.graph_decode)

    def from_pixels(film):
        return answer(film, lambda grey: grey)

    archive.add_endpoint("serving_default", from_bytes, [tf.TensorSpec((None,), tf.string, name="film")])
    archive.add_endpoint("films", from_pixels, [tf.TensorSpec((None, None, None, 1), tf.uint8, name="film")])
    with written_whole(out) as beside:
        archive.write_out(str(beside), verbose=False)
        write_text(beside / "metadata.json", json.dumps(metadata(members), indent=1))
    return Path(out)


def _answering(members: list[Member], names: tuple[str, ...]):
    """The graph from films to named outputs; `decode` turns one element of the batch into uint8 (h, w, 1)."""
    import tensorflow as tf

    from .model import probability_model

    croppers = {}
    for member in members:
        cropper = member.croppers.get("Frontal") or next(iter(member.croppers.values()))
        croppers.setdefault(cropper.identity, cropper)

    def network(member, crops):
        crops = augment.plain(crops, member.recipe.plain_view)
        inputs = images.graph_normalise(crops, member.normalisation, member.recipe.image_size)
        conditional = probability_model(member.model)(inputs, training=False)
        conditional = tf.cast(conditional, tf.float32)
        final = chain_rule(conditional, member.tree.ancestors) if member.recipe.chain else conditional
        order = [member.labels.index(name) for name in names]
        return tf.gather(final, order, axis=1), tf.gather(conditional, order, axis=1)

    def answer(films, decode):
        kinds = list(croppers.values())
        specs = tuple(tf.TensorSpec((k.size, k.size), tf.uint8) for k in kinds)

        def crop_all(element):
            grey = decode(element)
            return tuple(tf.ensure_shape(k.graph(grey)[0], (k.size, k.size)) for k in kinds)

        crops = dict(zip(croppers, tf.map_fn(crop_all, films, fn_output_signature=specs)))
        pairs = [network(m, crops[(m.croppers.get("Frontal") or next(iter(m.croppers.values()))).identity])
                 for m in members]
        finals = tf.stack([final for final, _ in pairs])  # (members, n, labels)
        result = {"probabilities": tf.reduce_mean(finals, 0),
                  "conditional": tf.reduce_mean(tf.stack([conditional for _, conditional in pairs]), 0)}
        if len(members) > 1:
            result["spread"] = tf.math.reduce_std(finals, 0)
        return result

    return answer


def chain_rule(conditional, ancestors: np.ndarray):
    """hierarchy.chain_rule in graph operations: the product over a label and its ancestors, each once."""
    import tensorflow as tf

    return tf.reduce_prod(tf.where(ancestors[None], conditional[:, None, :], 1.0), axis=2)


def metadata(members: list[Member]) -> dict:
    """What goes into the SavedModel, what comes out, and where it comes from; plain JSON values."""
    facts = [read_facts(member.folder) for member in members]
    names = list(members[0].labels)
    film = {"serving_default": {"film": {"dtype": "string", "shape": [None],
                                         "content": "bytes of 8-bit grey JPEG or PNG files, one per film"}},
            "films": {"film": {"dtype": "uint8", "shape": [None, None, None, 1], "range": [0, 255],
                               "content": "decoded grey films of one size, bone bright"}}}
    output = {"dtype": "float32", "shape": [None, len(names)], "range": [0, 1]}
    return {
        "name": "chexpert_hier", "version": __version__, "intended_use": "research use only; not a medical device",
        "labels": names, "inputs": film,
        "outputs": {"probabilities": {**output, "meaning": "probability of each finding, after the chain rule where "
                                      "the recipe uses it"},
                    "conditional": {**output, "meaning": "the network's own outputs; after conditional training "
                                    "p(finding | its parents present)"},
                    **({"spread": {**output, "meaning": "standard deviation over the members"}} if len(members) > 1
                       else {})},
        "versions": {name: importlib.metadata.version(name) for name in ("tensorflow", "keras", "numpy")},
        "members": [{"recipe": fact["recipe"], "tree": fact["tree"], "data": fact["data"],
                     "trained_with": fact["versions"]} for fact in facts],
    }


def check(saved_model: Path, files: list[Path], expected: np.ndarray) -> float:
    """Load a SavedModel as any TensorFlow program would and compare its answers.

    Args:
        saved_model: the folder.
        files: films; their bytes are sent as they are.
        expected: float (films, labels), the run's own probabilities.

    Returns:
        the largest absolute difference.

    Raises:
        InputError: it is above TOLERANCE.
    """
    import tensorflow as tf

    serve = tf.saved_model.load(str(saved_model)).signatures["serving_default"]
    got = [serve(film=tf.constant([file.read_bytes() for file in files[k:k + 32]]))["probabilities"].numpy()
           for k in range(0, len(files), 32)]
    worst = float(np.abs(np.concatenate(got) - expected).max())
    if not worst <= TOLERANCE:
        raise InputError(f"{saved_model}: differs from the run's own probabilities by {worst:.2g}, expected at most "
                         f"{TOLERANCE:g}; do not serve it, and report this")
    return worst


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    answer = argparse.ArgumentParser(prog="python -m chexpert_hier.export", description=__doc__.splitlines()[0])
    answer.add_argument("--model", nargs="+", required=True, metavar="RUN",
                        help="finished runs; several are an ensemble")
    answer.add_argument("--out", type=Path, required=True, help="folder of the SavedModel")
    answer.add_argument("--resume", action="store_true", help="replace an existing SavedModel in --out")
    return answer


def main(argv: list[str] | None = None) -> int:
    """Run the command; 0 when done."""
    args = parser().parse_args(argv)
    if args.out.exists() and not args.resume:
        raise InputError(f"{args.out}: exists; choose another --out, or --resume to replace it")
    remove_leftovers_of(args.out)
    export([open_run(run) for run in args.model], args.out)
    print(f"SavedModel: {args.out}")
    return 0


if __name__ == "__main__":
    sys.exit(commands.answer(main))
