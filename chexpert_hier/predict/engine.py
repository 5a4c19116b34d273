"""Finished models that answer for films in memory: the one way in for `predict`, a server, an archive.

    engine = Engine.open(["runs/mine"])
    film = engine.read(Path("film.png").read_bytes(), "film.png")
    engine.answer([film]).probabilities                                    # (1, findings)
"""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from .. import hierarchy, labels, run_folder
from ..errors import InputError
from ..films.template import Cropper, Crops
from ..finished import operating
from ..finished.asked import Film
from ..finished.members import Member, Saved, Views, open_model, same_labels
from ..finished.onnx_network import cores
from . import reading, uncertainty
from .reading import Caution, Read

AS_IT_IS = Views()
NO_CAUTION = Caution()
TRAINED_ON_DRAWN = "trained on drawn films"


@dataclass(frozen=True, eq=False)
class Answers:
    """What finished models say of films: one row per film, one column per label.

    Attributes:
        films: names of the films.
        labels: names of the columns.
        probabilities: float (n, labels), after the chain rule where the recipe uses it; mean over models.
        conditional: float (n, labels), the networks' own outputs before it; None where they are not known.
        match: float (n,), the template match, NaN without a template.
        flags: what is odd about each film in words, "" for nothing.
        more: float (n, labels) by what it is: "sd" (of several models, or of samples), "calibrated", "call" (1
            present, 0 absent at the operating point, NaN without one), "entropy" and "mutual information" (nats), "mc
            mean".
        codes: the flags as sums of bits of films.plausible.FLAGS.
        synthetic: a model was trained on drawn films: nothing of this means anything for real ones.
    """

    films: tuple[str, ...]
    labels: tuple[str, ...]
    probabilities: np.ndarray
    conditional: np.ndarray | None
    match: np.ndarray
    flags: tuple[str, ...]
    more: dict[str, np.ndarray]
    codes: tuple[int, ...] = ()
    synthetic: bool = False

    def table(self) -> pd.DataFrame:
        """As `predict --out` writes it: Path, a column per label, `<label> [what]` for `more`, `[match]`, `[flag]`."""
        columns: dict[str, Any] = {"Path": list(self.films)}
        columns |= {name: self.probabilities[:, k] for k, name in enumerate(self.labels)}
        columns |= {f"{name} [{what}]": values[:, k] for what, values in self.more.items()
                    for k, name in enumerate(self.labels)}
        columns |= {"[match]": np.round(self.match, 4), "[flag]": list(self.flags)}
        return pd.DataFrame(columns | ({"[model]": TRAINED_ON_DRAWN} if self.synthetic else {}))

class Engine:
    """Finished models, opened once.

    Attributes:
        members: the models.
        labels: names of the answers' columns.
        tree: the hierarchy of the labels.
        recipe: the first model's.
        validation: of operating.validation, for calls and calibrated probabilities; None where nothing is known.
        takes_lateral: whether lateral films are answered.
    """

    def __init__(self, members: Sequence[Member | Saved], views: Views = AS_IT_IS, average: str = "probabilities",
                 validation: dict | None = None, caution: Caution = NO_CAUTION):
        """Make an engine of models that are open.

        Args:
            members: finished runs with the same labels (in any order), or SavedModels.
            views: test-time augmentation, and samples for the uncertainty.
            average: "probabilities" (mean over members after the chain rule) or "conditional" (before it).
            validation: of operating.validation; None gives neither calls nor calibrated probabilities.
            caution: what is done about odd films; those that are refused have NaN for every number but the match.

        Raises:
            InputError: they do not fit together, or cannot answer in this way.
        """
        self.members, self.labels = list(members), same_labels(list(members))
        self.views, self.average, self.validation, self.caution = views, average, validation, caution
        self.tree, self.recipe = members[0].tree, members[0].recipe
        self.takes_lateral = all("Lateral" in member.views for member in members)
        for member in self.members:
            if isinstance(member, Saved) and (views.draws or views.uncertainty or average != "probabilities"):
                raise InputError(f"{member.folder}: an exported model answers for the film as it is; --tta, "
                                 "--uncertainty and --average conditional need the run folders")
        if views.uncertainty == "ensemble" and len(self.members) < 2:
            raise InputError("--uncertainty ensemble: needs several models; for one with dropout use mc:10")

    @classmethod
    def open(cls, models: Sequence[str | os.PathLike[str]], views: Views = AS_IT_IS, average: str = "probabilities",
             engine: str = "auto", caution: Caution = NO_CAUTION) -> "Engine":
        """Open finished models.

        Args:
            models: run folders, `.keras` files in them, SavedModels or ONNX files; several are an ensemble.
            views, average, caution: as for `Engine`.
            engine: what computes run folders: "auto", "keras" or "onnx"; see members.open_run.

        Raises:
            InputError: a model cannot be opened, or they do not fit together.
        """
        for model in models if views.passes else ():
            _require_dropout(Path(model))
        engine = "keras" if views.passes and engine == "auto" else engine  # dropout is drawn by Keras
        members = [open_model(model, engine) for model in models]
        return cls(members, views, average, _validation(members, average), caution)

    @cached_property
    def data(self) -> list[dict]:
        """What each network was trained on: name, fingerprint and counts of its films."""
        return [facts["data"] for facts in self._facts]

    @cached_property
    def synthetic(self) -> bool:
        """Whether a network was trained on drawn films."""
        return any(map(run_folder.is_synthetic, self._facts))

    @cached_property
    def _facts(self) -> list[dict]:
        return [facts for member in self.members for facts in (
            member.metadata["members"] if isinstance(member, Saved) else [run_folder.read_facts(member.folder)])]

    @property
    def has_spread(self) -> bool:
        """Whether the answers tell how far several models differ."""
        first = self.members[0]
        return len(self.members) > 1 or (isinstance(first, Saved) and "spread" in first.metadata["outputs"])

    def read(self, data: bytes, film: Film | str) -> Read:
        """A film's pixels from a file's content (JPEG, PNG, TIFF, WebP or DICOM), from any thread.

        Raises:
            FilmError: it cannot be used; the line begins with the film's name.
        """
        return reading.read_data(data, film, self.takes_lateral, self.caution.accept_damaged)

    def take(self, grey: np.ndarray, film: Film | str) -> Read:
        """Pixels that were decoded elsewhere, uint8 (h, w), bone bright.

        Raises:
            FilmError: they are no film; the line begins with the film's name.
        """
        return reading.take(grey, film, self.takes_lateral)

    def answer(self, films: Sequence[Read]) -> Answers:
        """Answer for films of any sizes; each is cropped once for all models and views. One thread at a time."""
        if not films:
            return self._nothing()
        found = self._outputs(films)
        mean = found.probabilities
        more: dict[str, np.ndarray] = {}
        if found.spread is not None and not self.views.uncertainty:
            more["sd"] = found.spread
        scaled = operating.calibrated(mean, self.validation, self.labels, self.tree)
        if scaled is not None:
            more["calibrated"] = scaled
        if self.validation:
            more["call"] = operating.calls(mean, self.validation, self.labels)
            if self.synthetic:  # a call on a real film would be made up
                more["call"][[not one.drawn for one in films]] = np.nan
        if self.views.uncertainty:
            more |= _uncertainty(found.samples, self.views)
        codes = tuple(one.code for one in films)
        if self.caution.refuse_odd:
            for values in (mean, found.conditional, *more.values()):
                values[np.flatnonzero(codes)] = np.nan
        return Answers(tuple(one.film.name for one in films), tuple(self.labels), mean, found.conditional, found.match,
                       tuple(one.flag for one in films), more, codes, self.synthetic)

    def _nothing(self) -> Answers:
        """The answer for no film: every column, no row."""
        empty = np.empty((0, len(self.labels)))
        found = self.validation or {}
        drawn = self.views.uncertainty
        there = [("sd", self.has_spread and not drawn), ("calibrated", found.get("calibration")), ("call", found),
                 ("sd", drawn), ("entropy", drawn), ("mutual information", drawn), ("mc mean", self.views.passes)]
        more = {what: empty for what, known in there if known}  # in the order of `answer`: job files have this header
        return Answers((), tuple(self.labels), empty, empty, np.empty(0), (), more, (),
                       self.synthetic)

    def _outputs(self, films: Sequence[Read]) -> "_Outputs":
        """What the models give for at least one film.

        Source: Pham et al. 2019, section 4.4 (deviations E2, E7).
        """
        keys = np.array([labels.key(one.film.name) for one in films])
        crops: dict[tuple, Crops] = {}  # what members share: cropper and films -> crops
        finals, conditionals, spread, drawn, match = [], [], None, [], []
        for member in self.members:
            order = [member.labels.index(name) for name in self.labels]
            if isinstance(member, Saved):
                found = member.answer([one.grey for one in films])
                final, conditional, spread = found["probabilities"], found["conditional"], found.get("spread")
                match.append(found.get("match", np.full(len(films), np.nan)))
            else:
                match.append(self._crop(member, films, crops))
                conditional = _conditional(member, films, keys, self.views, crops)
                final = conditional if self.average == "conditional" else member.final(conditional)
                drawn += [member.final(sample)[:, order] for sample in _samples(member, films, self.views, crops)]
            finals.append(final[:, order])
            conditionals.append(conditional[:, order])
        stack = np.stack(finals)  # (members, films, labels)
        mean = stack.mean(axis=0)
        if self.average == "conditional" and self.recipe.chain:
            mean = hierarchy.chain_rule(mean, self.tree)
        return _Outputs(np.mean(conditionals, axis=0), mean, stack.std(axis=0) if len(self.members) > 1 else spread,
                        np.stack(drawn) if drawn else stack, match[0])

    def _crop(self, member: Member, films: Sequence[Read], crops: dict[tuple, Crops]) -> np.ndarray:
        """Crop the films as a member wants them into `crops`, and give their match, float (n,)."""
        match = np.full(len(films), np.nan)
        for cropper, rows in _by_view(member, films):
            place = (cropper.identity, tuple(rows))
            if place not in crops:
                parts = self._each(lambda row, how=cropper: how.crop([films[row].grey]), rows)
                crops[place] = Crops(*map(np.concatenate, zip(*parts)))
            match[rows] = crops[place].scores
        return match

    def _each(self, what: Callable[[Any], Any], items: Sequence[Any]) -> list[Any]:
        """`what` of every item, on all cores; one item stays in this thread."""
        return list(map(what, items) if len(items) == 1 else self._pool.map(what, items))

    @cached_property
    def _pool(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(cores())


class _Outputs(NamedTuple):
    """What several models give: float (films, labels) each, spread None for one, samples (samples, films, labels).

    The samples are what the uncertainty is measured on: the models' answers, or with dropout those of every drawn
    network, always after the chain rule. match: float (films,).
    """

    conditional: np.ndarray
    probabilities: np.ndarray
    spread: np.ndarray | None
    samples: np.ndarray
    match: np.ndarray


def _require_dropout(model: Path) -> None:
    """Refuse, before anything is loaded, a run whose recipe has no dropout."""
    home = model.parent if model.suffix == ".keras" else model
    if (home / "recipe.json").is_file() and (recipe := run_folder.read_facts(home)["recipe"]).get("head") != "hbce":
        raise InputError(f"--uncertainty mc: {home} has no dropout to draw (head {recipe.get('head', 'dense')}; only "
                         "hbce has it); use ensemble with several models")


def _validation(members: Sequence[Member | Saved], average: str) -> dict | None:
    """Operating points of the model or ensemble, where its validation films tell them."""
    if len(members) == 1:
        return members[0].validation()
    if average != "probabilities" or any(isinstance(member, Saved) for member in members):
        return None
    return operating.validation([member.folder for member in members], members[0].labels)


def _uncertainty(samples: np.ndarray, views: Views) -> dict[str, np.ndarray]:
    """What the samples (samples, films, labels) say, and the mean of those drawn by dropout."""
    found = uncertainty.decompose(samples)
    parts = {"sd": found.sd, "entropy": found.total, "mutual information": found.mutual}
    return parts | ({"mc mean": found.mean} if views.passes else {})


def _samples(member: Member, films: Sequence[Read], views: Views, crops: dict[tuple, Crops]) -> np.ndarray:
    """Outputs with dropout, float32 (passes, films, labels)."""
    out = np.empty((views.passes, len(films), len(member.labels)), np.float32)
    if views.passes:
        for cropper, rows in _by_view(member, films):
            out[:, rows] = member.samples(crops[cropper.identity, tuple(rows)].crops, views)
    return out


def _conditional(member: Member, films: Sequence[Read], keys: np.ndarray, views: Views,
                 crops: dict[tuple, Crops]) -> np.ndarray:
    """The network's outputs, every film by its view's cropper."""
    conditional = np.empty((len(films), len(member.labels)), np.float32)
    for cropper, rows in _by_view(member, films):
        conditional[rows] = member.conditional(crops[cropper.identity, tuple(rows)].crops, keys[rows], views)
    return conditional


def _by_view(member: Member, films: Sequence[Read]) -> list[tuple[Cropper, list[int]]]:
    """The member's croppers with the places of the films that each is for."""
    both = len(member.croppers) > 1
    found = [(cropper, [k for k, one in enumerate(films) if not both or one.film.lateral == (view == "Lateral")])
             for view, cropper in member.croppers.items()]
    return [(cropper, rows) for cropper, rows in found if rows]

