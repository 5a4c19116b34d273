"""Answer the shipped films with the shipped model and compare with the shipped answers.

The model is tiny and was trained on a phantom (experiments/selftest_data.py); it knows nothing of real films. What it
shows is whether decoding, crop, network and chain rule give on this machine what they gave where it was made.
"""

import importlib.util
import json
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..errors import InputError
from ..finished.asked import Film
from ..finished.members import Member, Saved, open_model, open_onnx, open_run
from ..finished.onnx_network import installed
from ..predict.engine import Answers, Engine

FOLDER = Path(__file__).parent / "data"
ANSWERS = FOLDER / "answers.json"
# Float32 networks of different kernels stay below 1e-6 here; a wrong pixel or crop moves an answer by more than 1e-3.
TOLERANCE = 1e-4


class Result(NamedTuple):
    """What an engine gave.

    Attributes:
        engine: its name.
        difference: the largest from the shipped probabilities; NaN where it could not be asked.
        match: the largest difference from the shipped template matches.
        flags: whether all films have their shipped flags.
        problem: why it was not asked, or what went wrong.
    """

    engine: str
    difference: float
    match: float
    flags: bool
    problem: str = ""

    @property
    def good(self) -> bool:
        """Whether the answers are the shipped ones."""
        return not self.problem and self.difference <= TOLERANCE and self.match <= TOLERANCE and self.flags


def check() -> Iterator[Result]:
    """Ask every engine; those that are not installed say so."""
    for name, (needs, opened) in ENGINES.items():
        if not needs():
            yield Result(name, np.nan, np.nan, False, "not installed")
            continue
        try:
            yield compare(name, answer(opened()))
        except InputError as error:
            yield Result(name, np.nan, np.nan, False, str(error))


def answer(member: Member | Saved) -> Answers:
    """The shipped films' answers."""
    engine = Engine([member], validation=None)
    films = sorted(FOLDER.glob("film*.jpg"))
    return engine.answer([engine.read(file.read_bytes(), Film(file, file.name)) for file in films])


def compare(name: str, found: Answers) -> Result:
    """An engine's answers beside the shipped ones."""
    wanted = json.loads(ANSWERS.read_text(encoding="utf-8"))
    if list(found.films) != list(wanted["films"]) or list(found.labels) != wanted["labels"]:
        return Result(name, np.nan, np.nan, False, "other films or findings than were shipped")
    shipped = [wanted["films"][film] for film in found.films]
    probabilities = np.array([one["probabilities"] for one in shipped])
    return Result(name, float(np.abs(found.probabilities - probabilities).max()),
                  float(np.abs(found.match - [one["match"] for one in shipped]).max()),
                  list(found.codes) == [one["flags"] for one in shipped])


def _saved_model() -> Saved:
    """The shipped model's SavedModel, exported now, into a folder that is gone when it is open."""
    from ..export.saved_model import export

    with tempfile.TemporaryDirectory() as folder:
        return open_model(export([open_run(FOLDER)], Path(folder) / "saved_model"))  # type: ignore[return-value]


def _there(*names: str) -> Callable[[], bool]:
    return lambda: all(importlib.util.find_spec(name) is not None for name in names)


# Name -> whether it is installed, and how the shipped model is opened with it.
ENGINES: dict[str, tuple[Callable[[], bool], Callable[[], Member | Saved]]] = {
    "Keras": (_there("keras"), lambda: open_run(FOLDER)),
    "ONNX Runtime, crops": (installed, lambda: open_run(FOLDER, "onnx")),
    "ONNX Runtime, films": (installed, lambda: open_onnx(FOLDER / "model.onnx")),
    "SavedModel": (_there("keras", "tensorflow"), _saved_model),
}
