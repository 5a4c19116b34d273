"""What the server asks of a finished model: read a film's bytes, answer for several films, draw their maps.

The one place where the server meets the rest of the package: `predict.engine` answers, `heatmaps` draws.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ..errors import InputError
from ..films.grey import FilmError
from ..finished.asked import Film
from ..finished.members import Member, Saved, Views
from ..finished.onnx_network import cores
from ..heatmaps.overlays import FilmMaps
from ..predict.engine import Answers, Engine
from ..predict.reading import Read

# The outputs' names, as far as the SavedModel has them its own, and the engine's.
MORE = {"spread": "sd", "calibrated": "calibrated", "present": "call", "entropy": "entropy",
        "mutual_information": "mutual information"}
NAME = "film"  # all films': what they are called elsewhere stays with the client


@dataclass(frozen=True, eq=False)
class Reading:
    """What the model says of one film.

    Attributes:
        answers: of this one film.
        maps: of all findings, where asked for.
    """

    answers: Answers
    maps: FilmMaps | None = None

    def value(self, name: str) -> np.ndarray:
        """One of the outputs `probabilities`, `conditional`, and those of MORE: float (labels,)."""
        found = self.answers
        if name in MORE:
            return found.more[MORE[name]][0]
        values = found.probabilities if name == "probabilities" else found.conditional
        assert values is not None
        return values[0]

    @property
    def match(self) -> float:
        """The template match, NaN without a template."""
        return float(self.answers.match[0])

    @property
    def flag(self) -> str:
        """What is odd about the film, in words, else ""."""
        return self.answers.flags[0]


class ServedModel:
    """A finished model or ensemble that is open for as long as the server runs.

    Attributes:
        engine: answers.
        outputs: names of what it says of each finding, beside the probabilities.
        networks: how many there are.
        together: films that are worth answering at once: where every film has a core for itself, the next ones are read
            meanwhile; Keras' networks are the faster the more come together.
        has_maps: whether maps can be drawn.
    """

    def __init__(self, models: Sequence[str | Path], engine: str = "auto"):
        """Open it.

        Args:
            models: run folders, `.keras` files in them, SavedModels or ONNX files; several are an ensemble.
            engine: what computes run folders: "auto", "keras" or "onnx"; see finished.members.open_run.

        Raises:
            InputError: it is no model, or the models do not fit together.
        """
        opened = Engine.open(models, engine=engine)
        if len(opened.members) > 1 and all(isinstance(member, Member) for member in opened.members):
            opened = Engine(opened.members, Views(uncertainty="ensemble"), validation=opened.validation)
        self.engine = opened
        for member in opened.members:
            if isinstance(member, Member):
                member.trace()
        self.has_maps = isinstance(opened.members[0], Member)
        self.networks = len(opened.data)
        self.together = 2 * cores() if all(_one_a_core(member) for member in opened.members) else sys.maxsize
        ramp = np.tile(np.arange(256, dtype=np.uint8), (256, 1))
        view = "frontal" if "Frontal" in opened.members[0].views else "lateral"
        first = self.answer([(self.take(ramp, view), self.has_maps)])[0].answers  # also sets up what is set up once
        self.outputs = ("conditional",) * (first.conditional is not None) + tuple(
            name for name, what in MORE.items() if what in first.more)

    @property
    def labels(self) -> tuple[str, ...]:
        """The findings, in the outputs' order."""
        return tuple(self.engine.labels)

    def read(self, data: bytes, view: str = "") -> Read:
        """A film's pixels, from any thread.

        Args:
            data: JPEG, PNG, TIFF, WebP or DICOM.
            view: "frontal", "lateral" or "" where nobody knows; then a DICOM header may say it.

        Raises:
            FilmError: it cannot be used; without a name in front.
        """
        try:
            return self.engine.read(data, Film(Path(), NAME, view))
        except FilmError as error:
            raise FilmError(str(error).removeprefix(f"{NAME}: ")) from None

    def take(self, grey: np.ndarray, view: str = "") -> Read:
        """Pixels that were decoded already, uint8 (h, w), bone bright; else as `read`."""
        try:
            return self.engine.take(grey, Film(Path(), NAME, view))
        except FilmError as error:
            raise FilmError(str(error).removeprefix(f"{NAME}: ")) from None

    def answer(self, asked: Sequence[tuple[Read, bool]]) -> list[Reading]:
        """Answer for films, each with whether its maps are wanted; one thread at a time."""
        answers = self.engine.answer([one for one, _ in asked])
        return [Reading(_one(answers, k), self._maps(one) if wanted else None)
                for k, (one, wanted) in enumerate(asked)]

    def _maps(self, one: Read) -> FilmMaps:
        """Of the first network, as `predict --heatmaps` draws them."""
        from ..heatmaps.maps import film_maps

        if not self.has_maps:
            raise InputError("this model holds no maps; start the server with the run folder")
        return film_maps(self.engine.members[0], [one.film], [one.grey], self.labels)[0]


def _one_a_core(member: Member | Saved) -> bool:
    """Whether it answers films one by one, each on a core."""
    return member.engine == "onnx" if isinstance(member, Member) else member.parallel > 1


def _one(answers: Answers, k: int) -> Answers:
    """The answer for the k-th film alone."""
    row = slice(k, k + 1)
    return replace(answers, films=answers.films[row], probabilities=answers.probabilities[row],
                   conditional=None if answers.conditional is None else answers.conditional[row],
                   match=answers.match[row], flags=answers.flags[row], codes=answers.codes[row],
                   more={what: values[row] for what, values in answers.more.items()})
