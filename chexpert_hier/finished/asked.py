"""Which films are asked about: files, folders, globs and CSV files of the command line."""

import glob
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from ..datasets.reading import read_rows
from ..errors import InputError
from ..paths import escaped, outside

log = logging.getLogger("chexpert_hier.finished")
FILM_SUFFIXES = (".jpg", ".jpeg", ".jfif", ".png", ".webp", ".tif", ".tiff", ".dcm", ".dicom")
MOST_NAMED = 5  # files that the log names


@dataclass(frozen=True)
class Film:
    """A film to answer for: its file, its name in the output, and the view if known."""

    file: Path
    name: str
    view: str = ""

    @cached_property
    def lateral(self) -> bool:
        """Whether table, DICOM header (once read) or file name say that it is a lateral film."""
        return (self.view or ("lateral" if "lateral" in self.file.stem.lower() else "frontal")).lower() == "lateral"


def find_films(sources: Sequence[str], *, root: Path | None = None, allow_outside: bool = False,
               missing_too: bool = False) -> list[Film]:
    """Films named on the command line: files, folders (searched), globs, CSV files with a Path column.

    Names are in the written form of `paths`. A folder's films and a table's may not lie outside the folder.

    Args:
        sources: as typed.
        root: the folder that the paths in tables start from; None: each table's own.
        allow_outside: paths in a table and links in a folder may leave it.
        missing_too: what is not there is a film as well, which whoever opens it will leave out.

    Raises:
        InputError: nothing there, or a film outside.
    """
    films = []
    for source in sources:
        path = Path(source)
        if path.suffix.lower() == ".csv" and os.path.isfile(path):
            films += [Film(*row) for row in read_rows(path, root=root, allow_outside=allow_outside)]
        elif os.path.isdir(path):
            found = _in_folder(path)
            if not allow_outside:
                _require_inside(path, found)
            films += [_named(file) for file in found]
        elif os.path.isfile(path):  # False too for what no file may be called
            films.append(_named(path))
        elif found := sorted(glob.glob(source, recursive=True)):
            films += find_films(found, root=root, allow_outside=allow_outside)
        elif missing_too:
            films.append(_named(path))
        else:
            raise InputError(f"{path}: no such file or folder; expected films, a folder of films, or a CSV with a Path "
                             "column")
    return films


def _named(file: Path) -> Film:
    return Film(file, escaped(file.as_posix()))


def _in_folder(folder: Path) -> list[Path]:
    """The films below a folder; the log names what is passed over."""
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    films = [file for file in files if _looks_like_film(file)]
    if not films:
        raise InputError(f"{folder}: no film there; expected files ending in {', '.join(FILM_SUFFIXES)}")
    if len(films) < len(files):
        known = set(films)
        others = [escaped(file.relative_to(folder).as_posix()) for file in files if file not in known]
        more = f" and {len(others) - MOST_NAMED:,} more" if len(others) > MOST_NAMED else ""
        log.info("%s: %s films; passed over: %s%s", folder, f"{len(films):,}", ", ".join(others[:MOST_NAMED]), more)
    return films


def _looks_like_film(file: Path) -> bool:
    """By its ending; without any, as archives write DICOM, by its mark."""
    if file.suffix:
        return file.suffix.lower() in FILM_SUFFIXES
    with open(file, "rb") as handle:
        return handle.read(132)[128:] == b"DICM"


def _require_inside(folder: Path, files: list[Path]) -> None:
    names = [escaped(file.relative_to(folder).as_posix()) for file in files]
    for name, why in zip(names, outside(folder, names)):
        if why:
            raise InputError(f"{folder}: {name} {why} (--allow-outside if you trust this folder)")
