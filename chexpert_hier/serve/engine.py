"""What the server asks of a finished model: read a film's bytes, answer for several films, draw maps.

The one place where the server meets the rest of the package; the numbers are those of `chexpert_hier.predict`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from ..errors import InputError
from ..films import dicom, plausible
from ..films.decode import read_film
from ..films.grey import MIN_SIDE, FilmError, check_size
from ..finished import operating
from ..finished.asked import Film
from ..finished.members import Member, Saved, Views, open_model, same_labels
from ..predict import predicting as predict


@dataclass(frozen=True)
class Reading:
    """What the model says of one film.

    Attributes:
        probabilities: float (labels,), after the chain rule.
        conditional: float (labels,), the network's own outputs before it; None where the model does not tell.
        more: float (labels,) each: "calibrated", "present" (1, 0; NaN without an operating point), "spread" (standard
            deviation of an ensemble), "entropy" and "mutual_information" (nats).
        match: template match, NaN without a template.
        flag: what is odd about the film, else "".
        maps: heatmaps.overlays.FilmMaps of all findings, where asked for.
        row: columns and values as `predict --out` writes them, without Path.
    """

    probabilities: np.ndarray
    conditional: np.ndarray | None
    match: float
    flag: str
    more: dict[str, np.ndarray] = field(default_factory=dict)
    maps: object = None
    row: dict = field(default_factory=dict)


class Engine:
    """A finished model or ensemble, loaded once.

    Args:
        paths: run folders, `.keras` files in them, or SavedModels; several are an ensemble.

    Raises:
        InputError: it is no model, or the models do not fit together.
    """

    def __init__(self, paths: Sequence[str | Path]):
        self._members = [open_model(path) for path in paths]
        self.labels = same_labels(self._members)
        first = self._members[0]
        self.tree, self.recipe = first.tree, first.recipe
        self.validation = first.validation() if len(self._members) == 1 else operating.validation(
            [member.folder for member in self._members], self.labels)
        self.has_maps = isinstance(first, Member)
        self.takes_lateral = all("Lateral" in member.croppers for member in self._members)
        self._views = Views(uncertainty="ensemble" if len(self._members) > 1 and self.has_maps else "")
        self.data = _data(first)
        self.models = len(self._members) if self.has_maps else len(first.metadata["members"])

    @property
    def outputs(self) -> tuple[str, ...]:
        """The names of what it says of each finding, beside the probabilities."""
        first = self._members[0]
        several = len(self._members) > 1
        spread = several or (isinstance(first, Saved) and "spread" in first.metadata["outputs"])
        found = self.validation or {}
        known = {"conditional": self.has_maps, "spread": spread, "calibrated": found.get("calibration"),
                 "present": found, "entropy": several and self.has_maps,
                 "mutual_information": several and self.has_maps}
        return tuple(name for name, there in known.items() if there)

    def read(self, data: bytes, view: str = "") -> predict.Read:
        """A film's pixels, from any thread.

        Args:
            data: JPEG, PNG or DICOM.
            view: "frontal", "lateral" or "" where nobody knows; then a DICOM header may say it.

        Raises:
            FilmError: it cannot be used; without a name in front.
        """
        film = Film(Path(), "", view)
        is_dicom = dicom.is_dicom(data)
        try:
            grey = read_film(data, "film")
        except FilmError as error:
            raise FilmError(str(error).removeprefix("film: ")) from None
        if is_dicom:
            film = replace(film, view=film.view or dicom.view(data))
        return self._of_view(predict.Read(film, grey, 0.0 if is_dicom else plausible.colour(data)))

    def take(self, grey: np.ndarray, view: str = "") -> predict.Read:
        """Pixels that were decoded already, uint8 (h, w), bone bright; checked as `read` checks a file's.

        Raises:
            FilmError: they are no film.
        """
        check_size(*grey.shape, MIN_SIDE)
        if grey.min() == grey.max():
            raise FilmError("no picture content: every pixel has the same value")
        return self._of_view(predict.Read(Film(Path(), "", view), grey, 0.0))

    def _of_view(self, one: predict.Read) -> predict.Read:
        if one.film.lateral and not self.takes_lateral:
            raise FilmError(predict.FRONTAL_ONLY)
        return one

    def warm_up(self) -> None:
        """Answer for a made-up film, so that the first real one does not wait for what is set up once."""
        ramp = np.tile(np.arange(256, dtype=np.uint8), (256, 1))
        view = "" if "Frontal" in self._members[0].croppers else "lateral"
        self.answer([(self.take(ramp, view), self.has_maps)])

    def answer(self, asked: Sequence[tuple[predict.Read, bool]]) -> list[Reading]:
        """Answer for films, each with whether its maps are wanted; from one thread at a time."""
        read = [one for one, _ in asked]
        table = predict._answer(self._members, self.labels, read, self._views, "probabilities", self.validation)
        conditional = self._conditional(read)
        answers = []
        for k, (one, wanted) in enumerate(asked):
            row = table.iloc[k].to_dict()
            row.pop("Path")
            more = {name: np.array([row[f"{label} [{column}]"] for label in self.labels], float)
                    for name, column in _COLUMNS.items() if f"{self.labels[0]} [{column}]" in row}
            answers.append(Reading(np.array([row[label] for label in self.labels]),
                                   None if conditional is None else conditional[k], row["[match]"], row["[flag]"],
                                   more, self._maps(one) if wanted else None, row))
        return answers

    def _conditional(self, read) -> np.ndarray | None:
        if any(isinstance(member, Saved) for member in self._members):
            return None
        keys = np.array([hash(k) for k in range(len(read))])
        return np.mean([predict._conditional(member, read, keys, self._views, {}) for member in self._members], axis=0)

    def _maps(self, one: predict.Read):
        from ..heatmaps.maps import film_maps

        if not self.has_maps:
            raise InputError("this model holds no maps; start the server with the run folder")
        return film_maps(self._members[0], [one.film], [one.grey], self.labels)[0]


_COLUMNS = {"calibrated": "calibrated", "present": "call", "spread": "sd", "entropy": "entropy",
            "mutual_information": "mutual information"}


def _data(member) -> dict:
    """What the model was trained on, as its records say."""
    from ..run_folder import read_facts

    return member.metadata["members"][0]["data"] if isinstance(member, Saved) else read_facts(member.folder)["data"]
