"""From films and finished runs to probabilities: crops, test-time views, chain rule, ensemble mean, one row per film.

    python -m chexpert_hier.predict film.dcm --model runs/mine
    python -m chexpert_hier.predict CheXpert-v1.0/valid.csv --model run1 run2 run3 --tta 10 --out predictions.csv
"""

import logging
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from .. import hierarchy, labels
from ..errors import InputError
from ..films import dicom, plausible
from ..films.decode import read_bytes, read_film
from ..films.grey import FilmError
from ..films.template import Cropper
from ..finished import operating
from ..finished.asked import Film
from ..finished.members import Member, Saved, Views, same_labels
from . import uncertainty

log = logging.getLogger("chexpert_hier.predict")
CHUNK = 256  # films held in memory at once
AS_IT_IS = Views()
FRONTAL_ONLY = "a lateral film; the model was trained on frontal films only"


@dataclass(frozen=True)
class Read:
    """A film that was read.

    Attributes:
        film: with its view, where the file itself says it.
        grey: uint8 (h, w).
        colour: see plausible.colour.
    """

    film: Film
    grey: np.ndarray
    colour: float


def predict_films(members: list[Member | Saved], films: list[Film], *, views: Views = AS_IT_IS,
                  average: str = "probabilities", skip_bad: bool = False, validation: dict | None = None,
                  seen: Callable[[list[Read]], None] | None = None) \
        -> Iterator[tuple[pd.DataFrame, list[tuple[str, str]]]]:
    """Answer for films, a bounded number at a time; each film is decoded and cropped once for all members and views.

    Args:
        members: finished runs with the same labels (in any order).
        films: what to answer for.
        views: test-time augmentation.
        average: "probabilities" (mean over members after the chain rule) or "conditional" (before it).
        skip_bad: list unreadable films instead of stopping.
        validation: of operating.validation, for calls and calibrated probabilities.
        seen: given the films of each portion, e.g. to draw heatmaps.

    Yields:
        a table with Path, one column per label, for several members `<label> [sd]`, with `validation` also
        `<label> [calibrated]` and `<label> [call]` (1 present, 0 absent at the operating point), with
        `views.uncertainty` also `<label> [sd]`, `[entropy]` and `[mutual information]` (nats; uncertainty.Uncertainty)
        and for mc `[mc mean]`, `[match]` (score of the template match) and `[flag]` (what is odd about the film, else
        blank); and the films left out, as (name, reason).

    Raises:
        InputError: members do not fit together, or a film cannot be read.

    Source: Pham et al. 2019, section 4.4 (deviations E2-E7).
    """
    names = same_labels(members)
    for member in members:
        if isinstance(member, Saved) and (views.draws or views.uncertainty or average != "probabilities"):
            raise InputError(f"{member.folder}: a SavedModel answers for the film as it is; --tta, --uncertainty and "
                             "--average conditional need the run folders")
    if views.uncertainty == "ensemble" and len(members) < 2:
        raise InputError("--uncertainty ensemble: needs several models; for one with dropout use mc:10")
    for start in range(0, len(films), CHUNK):
        read, bad = _read(members, films[start:start + CHUNK], skip_bad)
        if seen is not None and read:
            seen(read)
        yield _answer(members, names, read, views, average, validation), bad


def _answer(members, names, read, views, average, validation) -> pd.DataFrame:
    tree = members[0].tree
    mean, spread, stack = (_probabilities(members, names, read, views, average) if read else
                           (np.empty((0, len(names))), None, np.empty((1, 0, len(names)))))
    if not read and (len(members) > 1 or _is_ensemble(members[0])):
        spread = mean
    table = pd.DataFrame(mean, columns=list(names))
    table.insert(0, "Path", [one.film.name for one in read])
    if views.uncertainty:
        spread = None  # it is among the uncertainty's columns
    scaled = operating.calibrated(mean, validation, names, tree)
    called = operating.calls(mean, validation, names) if validation else None
    for values, what in ((spread, "sd"), (scaled, "calibrated"), (called, "call")):
        if values is not None:
            table[[f"{name} [{what}]" for name in names]] = values
    if views.uncertainty:
        table = pd.concat([table, pd.DataFrame(_uncertainty(stack, names, bool(views.passes)))], axis=1)
    table[["[match]", "[flag]"]] = pd.DataFrame([_look(one, members[0].croppers) for one in read],
                                                columns=["[match]", "[flag]"], index=table.index)
    return table


def _uncertainty(samples: np.ndarray, names, passes: bool) -> dict[str, np.ndarray]:
    """Columns from the samples (samples, films, labels), and the mean of those drawn by dropout."""
    found = uncertainty.decompose(samples)
    parts = {"sd": found.sd, "entropy": found.total, "mutual information": found.mutual}
    parts |= {"mc mean": found.mean} if passes else {}
    return {f"{name} [{what}]": values[:, k] for what, values in parts.items() for k, name in enumerate(names)}


def _is_ensemble(member) -> bool:
    return isinstance(member, Saved) and "spread" in member.metadata["outputs"]


def _probabilities(members, names, read, views, average) -> tuple[np.ndarray, np.ndarray | None, np.ndarray]:
    """float (films, labels): the mean over members and, for several, their standard deviation.

    Third what the uncertainty is measured on, (samples, films, labels): the members' answers, or with dropout those of
    every drawn network, always after the chain rule.
    """
    keys = np.array([labels.key(one.film.name) for one in read])
    crops, per_member, spread, drawn = {}, [], None, []
    for member in members:
        if isinstance(member, Saved):
            values, spread = member.answer([one.grey for one in read])
        else:
            conditional = _conditional(member, read, keys, views, crops)
            values = conditional if average == "conditional" else member.final(conditional)
            order = [member.labels.index(name) for name in names]
            drawn += [member.final(sample)[:, order] for sample in _samples(member, read, views, crops)]
        per_member.append(values[:, [member.labels.index(name) for name in names]])
    stack = np.stack(per_member)  # (members, films, labels)
    mean = stack.mean(axis=0)
    if average == "conditional" and members[0].recipe.chain:
        mean = hierarchy.chain_rule(mean, members[0].tree)
    return mean, stack.std(axis=0) if len(members) > 1 else spread, np.stack(drawn) if drawn else stack


def _samples(member: Member, read: list[Read], views: Views, crops: dict) -> np.ndarray:
    """Outputs with dropout, float32 (passes, films, labels); `crops` as `_conditional` left it."""
    out = np.empty((views.passes, len(read), len(member.labels)), np.float32)
    if views.passes:
        for cropper, rows in _by_view(member, read):
            out[:, rows] = member.samples(crops[cropper.identity, tuple(rows)], views)
    return out


def _conditional(member: Member, read: list[Read], keys: np.ndarray, views: Views, crops: dict) -> np.ndarray:
    """The network's outputs, every film by its view's cropper; `crops` keeps what members share."""
    conditional = np.empty((len(read), len(member.labels)), np.float32)
    for cropper, rows in _by_view(member, read):
        seen = (cropper.identity, tuple(rows))
        if seen not in crops:
            crops[seen] = cropper.crop([read[k].grey for k in rows]).crops
        conditional[rows] = member.conditional(crops[seen], keys[rows], views)
    return conditional


def _by_view(member: Member, read: list[Read]) -> Iterator[tuple[Cropper, list[int]]]:
    """The member's croppers with the places of the films that each is for."""
    both = len(member.croppers) > 1
    for view, cropper in member.croppers.items():
        rows = [k for k, one in enumerate(read) if not both or one.film.lateral == (view == "Lateral")]
        if rows:
            yield cropper, rows


def _look(one: Read, croppers: dict) -> tuple[float, str]:
    """Template match and what is odd about a film."""
    cropper = croppers.get("Lateral" if one.film.lateral else "Frontal") or next(iter(croppers.values()))
    match = float(cropper.crop([one.grey]).scores[0])
    return round(match, 4), plausible.flag(one.grey, cropper, match, one.colour)


def _read(members, films, skip_bad) -> tuple[list[Read], list[tuple[str, str]]]:
    takes_lateral = all("Lateral" in member.croppers for member in members)

    def one(film: Film) -> Read | tuple[str, str]:
        try:
            return open_film(film, takes_lateral)
        except InputError as error:
            if not skip_bad:
                raise
            return film.name, str(error).removeprefix(f"{film.name}: ")

    with ThreadPoolExecutor() as pool:
        results = list(pool.map(one, films))
    return [r for r in results if isinstance(r, Read)], [r for r in results if not isinstance(r, Read)]


def open_film(film: Film, takes_lateral: bool) -> Read:
    refused = FilmError(f"{film.name}: {FRONTAL_ONLY}")
    if film.lateral and not takes_lateral:
        raise refused
    data = read_bytes(film.file, film.name)
    if dicom.is_dicom(data):
        grey = read_film(data, film.name)  # first, for it says best what is wrong
        film = replace(film, view=film.view or dicom.view(data))
        if film.lateral and not takes_lateral:
            raise refused
        return Read(film, grey, 0.0)
    return Read(film, read_film(data, film.name), plausible.colour(data))
