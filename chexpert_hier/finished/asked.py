"""Which films are asked about: files, folders, globs and CSV files of the command line."""

import glob
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from ..errors import InputError

FILM_SUFFIXES = (".jpg", ".jpeg", ".png", ".dcm", ".dicom")


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


def find_films(sources: list[str]) -> list[Film]:
    """Films named on the command line: files, folders (searched), globs, CSV files with a Path column.

    Raises:
        InputError: nothing there.
    """
    films = []
    for source in sources:
        path = Path(source)
        if path.suffix.lower() == ".csv" and path.is_file():
            films += _from_csv(path)
        elif path.is_dir():
            found = sorted(file for file in path.rglob("*") if _looks_like_film(file))
            if not found:
                raise InputError(f"{path}: no film there; expected files ending in {', '.join(FILM_SUFFIXES)}")
            films += [Film(file, file.as_posix()) for file in found]
        elif path.is_file():
            films.append(Film(path, path.as_posix()))
        elif found := sorted(glob.glob(source, recursive=True)):
            films += find_films(found)
        else:
            raise InputError(f"{path}: no such file or folder; expected films, a folder of films, or a CSV with a Path "
                             "column")
    return films


def _looks_like_film(file: Path) -> bool:
    """By its ending; without any, as archives write DICOM, by its mark."""
    if file.suffix:
        return file.suffix.lower() in FILM_SUFFIXES and file.is_file()
    if not file.is_file():
        return False
    with open(file, "rb") as handle:
        return handle.read(132)[128:] == b"DICM"


def _from_csv(path: Path) -> list[Film]:
    from ..datasets.reading import read_rows

    return [Film(file, name, view) for file, name, view in read_rows(path)]
