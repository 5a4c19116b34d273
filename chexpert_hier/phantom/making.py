"""A synthetic CheXpert: films drawn by this program, in CheXpert's own layout, with known truth and finding masks.

    python -m chexpert_hier.phantom --out DIR --patients N --valid-patients M --test-patients T --seed S

DIR holds `train.csv` (report labels: 1, 0, -1, blank), `valid.csv` and `test.csv` (the clean truth),
`train_truth.csv` (the clean truth of the training films) and the same as `train_visualCheXbert.csv` (VisualCheXbert's
labels are binary and guess what a radiologist sees on the film: Jain et al. 2021, arXiv 2102.11467), the films (8-bit
grey JPEG, short side 320) and `masks/`, one 16-bit PNG of half the film's size for each film, bit k set where finding
k of `FINDINGS` is drawn. Paths in the CSV files start with DIR's own name. Same settings, same bytes, however many
processes draw. No real patient is shown.
"""

import csv
import json
import logging
import multiprocessing
import os
import shutil
import uuid
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import IO, Any, NamedTuple

import cv2
import numpy as np

from .. import commands
from ..errors import InputError
from ..files import locked, raise_if_disk, remove_all_but, remove_held, replace_folder
from ..labels import CHEXPERT_LABELS
from .films import finish, jpeg
from .frontal import render_frontal
from .lateral import render_lateral
from .reports import FINDINGS, draw_studies
from .settings import Settings
from .signs import Anatomy, draw_anatomy, draw_signs

GENERATOR_VERSION = 5  # raise it when the films or labels of a seed change; automatic phantoms are then made anew
MARKER = "phantom.json"  # written last: a folder with it is whole
COLUMNS = ("Path", "Sex", "Age", "Frontal/Lateral", "AP/PA", *CHEXPERT_LABELS)

TRUTH_TABLES = ("train_truth", "train_visualCheXbert")  # the training films' clean truth, under both names

_log = logging.getLogger("chexpert_hier.phantom")


def make(out: str | os.PathLike, *, processes: int | None = None, **settings: Any) -> Path:
    """Write a phantom data set; it appears whole or not at all.

    Args:
        out: the folder to make; must not exist, be empty, or hold an older phantom (which is replaced).
        processes: how many processes draw; all cores when None.
        **settings: by name, see `Settings`; e.g. patients=60, valid_patients=40, seed=0.

    Returns:
        the folder.

    Raises:
        InputError: a setting is unknown or out of range, `out` holds something else, or the disk is full.
    """
    wanted, out = Settings.of(settings), Path(out).resolve()
    _check_free(out)
    with _at_work(out) as beside:
        _draw(beside, out, wanted, processes)
    return out


def _draw(beside: Path, out: Path, settings: Settings, processes: int | None) -> None:
    """Draw in the folder `beside`; once it is whole it takes the place `out`."""
    counts = _draw_all(beside, out.name, settings, processes or os.cpu_count() or 1)
    marker = {"synthetic": "drawn by chexpert_hier.phantom; no real patient", "version": GENERATOR_VERSION,
              "settings": asdict(settings), "films": counts}
    (beside / MARKER).write_text(json.dumps(marker, indent=2) + "\n", encoding="utf-8")
    if out.exists():
        replace_folder(out, beside)
    else:
        os.replace(beside, out)


def ensure(out: str | os.PathLike | None = None, processes: int | None = None, **settings: Any) -> Path:
    """Make the phantom at `out` unless it is there already with these settings and this generator's version.

    Args:
        out: its folder; None takes `default_folder()`.
        processes, **settings: as for `make`.

    Returns:
        the folder.

    Raises:
        InputError: as `make`.
    """
    wanted, out = Settings.of(settings), Path(default_folder() if out is None else out).resolve()
    if not _is_there(out, wanted):
        _check_free(out)
        with _at_work(out, wait=True) as beside:  # another process may be drawing the same
            if not _is_there(out, wanted):
                why = "an older one is replaced" if read_marker(out) else "made once"
                _log.info("phantom: drawing synthetic chest films, no real patients, into %s (%s)", out, why)
                _draw(beside, out, wanted, processes)
                return out
    _log.info("phantom: using the synthetic films in %s", out)
    return out


def _is_there(out: Path, wanted: Settings) -> bool:
    found = read_marker(out)
    return found is not None and found["version"] == GENERATOR_VERSION and found["settings"] == asdict(wanted)


def default_folder(recipe: str = "phantom") -> Path:
    """Where the automatic phantom of a recipe lies: in CHEXPERT_HIER_HOME, or else the user's cache folder."""
    home = os.environ.get("CHEXPERT_HIER_HOME") or Path.home() / ".cache" / "chexpert_hier"
    return Path(home) / (recipe if recipe.startswith("phantom") else f"phantom-{recipe}")


def read_marker(folder: str | os.PathLike) -> dict | None:
    """What a phantom folder says of itself (version, settings, films), or None if it is no finished phantom."""
    try:
        found = json.loads((Path(folder) / MARKER).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) and {"version", "settings", "films"} <= found.keys() else None


def mask_path(film: str | os.PathLike) -> Path:
    """Where the mask of a film lies: `DIR/train/…/view1_frontal.jpg` -> `DIR/masks/train/…/view1_frontal.png`."""
    film = Path(film)
    root = film.parents[3]
    return root / "masks" / film.relative_to(root).with_suffix(".png")


def read_masks(path: str | os.PathLike) -> np.ndarray:
    """The finding masks of one film.

    Args:
        path: the mask's PNG, or the film's JPEG (then the mask beside it is found).

    Returns:
        bool (13, h, w), in the order of `FINDINGS`; h and w are half the film's, rounded up.

    Raises:
        InputError: there is no such mask.
    """
    file = Path(path)
    file = mask_path(file) if file.suffix.lower() == ".jpg" else file
    bits = cv2.imdecode(np.fromfile(file, np.uint8), cv2.IMREAD_UNCHANGED) if file.is_file() else None
    if bits is None or bits.dtype != np.uint16:
        raise InputError(f"{file}: no 16-bit mask of a phantom film; is the folder one of chexpert_hier.phantom?")
    return (bits[None] >> np.arange(len(FINDINGS), dtype=np.uint16)[:, None, None] & 1).astype(bool)


def _check_free(out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise InputError(f"{out}: is a file; choose another --out")
    if out.is_dir() and any(out.iterdir()) and read_marker(out) is None:
        raise InputError(f"{out}: holds files that are no phantom; choose an empty or new folder for --out")


@contextmanager
def _at_work(out: Path, wait: bool = False) -> Iterator[Path]:
    """An empty folder to draw in, within one beside `out` that this process holds; what a killed one left is removed.

    Args:
        out: what is made.
        wait: for another process that is drawing it; else that is an error.

    Raises:
        InputError: another process is drawing it, or the disk is full.
    """
    folder = out.with_name(f".{out.name}.part")
    try:
        with locked(folder, wait) as held:
            if held:
                remove_all_but(folder, ".lock")
            beside = folder / uuid.uuid4().hex
            beside.mkdir()
            try:
                yield beside
            finally:
                shutil.rmtree(beside, ignore_errors=True)
                if held:
                    remove_held(folder)
    except OSError as error:
        raise_if_disk(error, out)
        raise


def _draw_all(folder: Path, name: str, settings: Settings, processes: int) -> dict[str, int]:
    """Draw all patients and write the CSV files; returns the number of films per split."""
    patients = settings.split_patients
    splits = [split for split, number in patients.items() if number or split != "test"]
    numbers = range(1, sum(patients.values()) + 1)
    draw = partial(_draw_patient, folder, name, settings)
    files = {table: _open_csv(folder / f"{table}.csv") for table in (*splits, *TRUTH_TABLES)}
    films = dict.fromkeys(splits, 0)
    pool = _pool(1 if len(numbers) < 40 else processes)
    bar = commands.Bar("phantom", len(numbers), "patients")
    try:
        with pool as executor:
            results = map(draw, numbers) if executor is None else executor.map(draw, numbers, chunksize=8)
            for split, reported, clean in results:
                films[split] += len(clean)
                files[split].rows.writerows(reported if split == "train" else clean)
                for table in TRUTH_TABLES if split == "train" else ():
                    files[table].rows.writerows(clean)
                bar.add()
    except BrokenProcessPool:
        raise InputError(f"{name}: a drawing process was ended from outside, perhaps for want of memory; nothing "
                         "half-written is left. Run the command again, with fewer --processes") from None
    finally:
        for table in files.values():
            table.file.close()
    bar.close()
    return films


def _pool(processes: int) -> AbstractContextManager[ProcessPoolExecutor | None]:
    """Processes that draw; None where one is enough, or where the system has no shared memory to set up several."""
    if processes == 1:
        return nullcontext()
    try:
        return ProcessPoolExecutor(processes, multiprocessing.get_context("spawn"), initializer=_start_worker)
    except (OSError, ImportError) as error:
        _log.info("phantom: one process draws, for this system lacks what several need (%s)", error)
        return nullcontext()


class _Table(NamedTuple):
    """A CSV file that is being written, and what writes its rows."""

    file: IO[str]
    rows: Any


def _open_csv(path: Path) -> _Table:
    file = open(path, "w", newline="", encoding="utf-8")
    rows = csv.writer(file, lineterminator="\n")
    rows.writerow(COLUMNS)
    return _Table(file, rows)


def _start_worker() -> None:
    cv2.setNumThreads(1)  # the processes share the cores already
    commands.start_worker()


class _Patient(NamedTuple):
    """A patient whose films are drawn: the split, the rows with report labels and those with the clean truth."""

    split: str
    reported: list[list]
    clean: list[list]


def _draw_patient(folder: Path, name: str, settings: Settings, number: int) -> _Patient:
    """Draw and write one patient's films.

    Every patient, study and film has its own generator, counted from the seed, so that neither the number of
    processes nor another patient moves it.
    """
    seed, ends = settings.seed, np.cumsum(list(settings.split_patients.values()))
    split = ("train", "valid", "test")[int(np.searchsorted(ends, number))]
    rng = np.random.default_rng([seed, number])
    most = settings.most_studies if split == "train" else 1
    sex, studies = draw_studies(rng, most, settings.report_noise, settings.laterals)
    anatomy = draw_anatomy(np.random.default_rng([seed, number, 0]), sex)
    reported, clean = [], []
    for study_number, study in enumerate(studies, start=1):
        signs = draw_signs(np.random.default_rng([seed, number, study_number]), study.truth)
        place = f"{split}/patient{number:05d}/study{study_number}"
        for film_number, view in enumerate(study.views, start=1):
            lateral = view == "L"
            path = f"{place}/view{film_number}_{'lateral' if lateral else 'frontal'}.jpg"
            film_rng = np.random.default_rng([seed, number, study_number, film_number])
            _write_film(folder / path, film_rng, anatomy, signs, "" if lateral else study.projection)
            row = [f"{name}/{path}", sex, study.age, "Lateral" if lateral else "Frontal",
                   "" if lateral else study.projection]
            reported.append(row + _cells(study.report))
            clean.append(row + _cells(study.truth))
    return _Patient(split, reported, clean)


def _write_film(path: Path, rng: np.random.Generator, anatomy: Anatomy, signs: dict, projection: str) -> None:
    if projection:
        grey, marks = render_frontal(rng, anatomy, signs, projection)
    else:
        grey, marks = render_lateral(rng, anatomy, signs)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(jpeg(finish(grey, rng, projection), rng))
    mask = mask_path(path)
    mask.parent.mkdir(parents=True, exist_ok=True)
    mask.write_bytes(cv2.imencode(".png", marks, [cv2.IMWRITE_PNG_COMPRESSION, 1])[1].tobytes())


def _cells(values: np.ndarray) -> list[str]:
    return ["" if np.isnan(value) else f"{value:.1f}" for value in values]
