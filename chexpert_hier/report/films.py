"""Films for the report: where a run was right and wrong, with a map of what each answer rests on."""

import logging
from dataclasses import dataclass

import cv2
import numpy as np

from ..errors import InputError
from ..evaluate.names import mean_labels
from ..finished.members import Member
from ..heatmaps import overlays
from ..heatmaps.maps import film_maps
from ..heatmaps.overlays import FilmMaps
from ..labels import key
from .judged import Run

log = logging.getLogger("chexpert_hier.report")

WIDTH = 224  # pixels on the page
# What the case is called, the truth, the call, and whether the highest or the lowest score is shown.
KINDS = (("Right: present and found", 1, 1, "highest"), ("Wrong: absent but called present", 0, 1, "highest"),
         ("Wrong: present but missed", 1, 0, "lowest"), ("Right: absent, called absent", 0, 0, "lowest"))


@dataclass(frozen=True)
class Example:
    """One film and one finding on it.

    Attributes:
        label: the finding.
        kind: right or wrong, in words.
        path: the film's name.
        probability: as the run reports it.
        film: JPEG bytes of the film.
        overlay: JPEG bytes of the film with the map; empty where the finding is called absent.
        maps: a sentence on whose maps these are.
    """

    label: str
    kind: str
    path: str
    probability: float
    film: bytes
    overlay: bytes
    maps: str = ""


def chosen(run: Run) -> list[tuple[str, str, int]]:
    """(label, kind, case) for the mean's labels: in each kind the case that the network was most sure of."""
    cases, thresholds = run.films, run.result.table.set_index("label")["threshold"]
    found = []
    for label in mean_labels(cases.labels).labels[:5]:
        k = cases.labels.index(label)
        for words, truth, call, which in KINDS:
            rows = np.flatnonzero((cases.truth[:, k] == truth) & ((cases.scores[:, k] >= thresholds[label]) == call))
            if len(rows):
                scores = cases.scores[rows, k]
                found.append((label, words, int(rows[scores.argmax() if which == "highest" else scores.argmin()])))
    return found


def examples(run: Run, member: Member | None = None) -> list[Example]:
    """Draw the chosen cases; empty, with a warning, where films or network cannot be read.

    Args:
        run: of `judged.read_run`.
        member: the run with its network, where it is at hand; it is loaded otherwise.
    """
    from ..films.decode import read_film
    from ..finished import asked, members

    picks = chosen(run)
    files = {key(path): (file, path, view) for file, path, view in zip(
        run.dataset.files, run.dataset.films["path"], run.dataset.films["view"])}
    wanted = {case: files.get(key(run.films.keys[case])) for _, _, case in picks}
    try:
        films = {case: asked.Film(*place) for case, place in wanted.items() if place}
        greys = {case: read_film(film.file, film.name) for case, film in films.items()}
        member = member or members.open_run(run.folder)
        maps = _maps(member, films, greys, tuple(dict.fromkeys(label for label, _, _ in picks)))
    except (InputError, OSError) as error:
        log.warning("the report goes without examples on films: %s", error)
        return []
    return [_example(label, kind, maps[case], greys[case], run, case) for label, kind, case in picks if case in maps]


def _maps(member: Member, films: dict, greys: dict, labels: tuple[str, ...]) -> dict:
    found = {}
    for lateral in (False, True):
        rows = [case for case, film in films.items() if film.lateral == lateral]
        for start in range(0, len(rows), 16):
            part = rows[start:start + 16]
            found |= zip(part, film_maps(member, [films[c] for c in part], [greys[c] for c in part], labels))
    return found


def _example(label: str, kind: str, maps: FilmMaps, grey: np.ndarray, run: Run, case: int) -> Example:
    cases = run.films
    probability = float(cases.scores[case, cases.labels.index(label)])
    called = next(call for words, _, call, _ in KINDS if words == kind)
    drawn = _jpeg(overlays.overlay(grey, overlays.rectified(maps.on_film(label), 0.2))) if called else b""
    rows, columns = maps.heat.shape[1:]
    words = f"The maps have {rows} x {columns} cells" + (
        "." if maps.layer == "last" else f": LayerCAM at the layer {maps.layer}, for the last maps are coarser.")
    return Example(label, kind, maps.path, probability, _jpeg(grey), drawn, words)


def _jpeg(picture: np.ndarray) -> bytes:
    height = round(picture.shape[0] * WIDTH / picture.shape[1])
    small = cv2.resize(picture, (WIDTH, height), interpolation=cv2.INTER_AREA)
    return cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, 82])[1].tobytes()
