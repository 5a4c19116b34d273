"""The same film in every engine: crop place, flags and probabilities of Keras, SavedModel and ONNX file, compared.

    python -m experiments.engines_alike --model RUN FOLDER [FOLDER ...]

Prints, over all JPEG and PNG films of the folders, in how many place or flags differ, and the largest differences.
"""

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np

from chexpert_hier import commands
from chexpert_hier.errors import InputError
from chexpert_hier.export import onnx, saved_model
from chexpert_hier.films import plausible
from chexpert_hier.films.decode import read_film
from chexpert_hier.finished.asked import find_films
from chexpert_hier.finished.members import open_onnx, open_run, open_saved


def compare(run: Path, folders: list[str]) -> dict[str, float]:
    """How many films were compared, in how many place or flags differ, and the largest differences."""
    member = open_run(run)
    with tempfile.TemporaryDirectory() as folder:
        onnx.export([member], Path(folder) / "model.onnx")
        forms = [open_onnx(Path(folder) / "model.onnx"),
                 open_saved(saved_model.export([member], Path(folder) / "saved"))]
    found = dict.fromkeys(("films", "places differ", "flags differ", "probabilities", "match"), 0.0)
    for film in commands.progress(find_films(folders), "films"):
        try:
            grey = read_film(film.file)
        except InputError:
            continue
        crop = member.croppers["Frontal"].crop([grey])
        final = member.final(member.outputs(crop.crops))
        found["films"] += 1
        for answer in (form.answer([grey]) for form in forms):
            found["places differ"] += not np.array_equal(answer["place"], crop.places)
            found["flags differ"] += int(answer["flags"][0]) != plausible.flag(grey)
            for name, ours in (("probabilities", final), ("match", crop.scores)):
                found[name] = max(found[name], float(np.abs(answer[name] - ours).max()))
    return found


def main(argv: list[str] | None = None) -> int:
    """Compare and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="+")
    parser.add_argument("--model", type=Path, required=True)
    args = parser.parse_args(argv)
    for name, value in compare(args.model, args.folders).items():
        print(f"{name}: {value:g}")
    return 0


if __name__ == "__main__":
    sys.exit(commands.answer(main))
