"""Which model this is, and which job: hashes of the files that decide the answers, and what a job was asked for."""

import hashlib
import json
from pathlib import Path
from typing import Any

from ..errors import InputError

# What a run folder's answers depend on, calls and calibration included.
DECISIVE = ("recipe.json", "template*.png", "evaluation.json", "predictions.csv", "truth.csv", "split.csv", "*.onnx")


def of_file(file: Path) -> str:
    """sha256 of a file's bytes, in hex."""
    with open(file, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def of_model(path: Path) -> dict[str, str]:
    """Hashes of all that decides a model's answers, by file name below its folder.

    Args:
        path: a run folder, a `.keras` file in one, a SavedModel folder, or an `.onnx` file.
    """
    path = Path(path)
    if path.suffix == ".onnx":
        return {path.name: of_file(path)}
    home = path if path.is_dir() else path.parent
    if (home / "saved_model.pb").is_file():
        files = sorted(file for file in home.rglob("*") if file.is_file())
    else:
        model = path if path.suffix == ".keras" else home / "model.keras"
        files = sorted({model, *(file for pattern in DECISIVE for file in home.glob(pattern))})
    return {file.relative_to(home).as_posix(): of_file(file) for file in files if file.is_file()}


def of_films(films: Any) -> list[list]:
    """What tells films (`asked.Film`) from others: names, views, sizes and times of their files, zeros for missing."""
    return [[film.name, film.view, *_state(film.file)] for film in films]


def _state(file: Path) -> tuple[int, int]:
    try:
        found = file.stat()
    except (OSError, ValueError):
        return 0, 0
    return found.st_size, found.st_mtime_ns


def goes_on(record: Path, asked: dict, out: Path) -> bool:
    """Whether an interrupted job is there to go on with, by what its record says that it was asked for.

    Args:
        record: a JSON file.
        asked: all that decides this job's result, as JSON values by name.
        out: what errors begin with.

    Raises:
        InputError: it is another job's, or damaged.
    """
    try:
        before = json.loads(record.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return False
    except (OSError, ValueError, RecursionError):
        raise InputError(f"{record}: is damaged, so that it cannot be told what the finished films answer; start anew "
                         "without --resume, or choose another --out") from None
    now = json.loads(json.dumps(asked))
    if before != now:
        other = [name for name in now if not isinstance(before, dict) or before.get(name) != now[name]]
        raise InputError(f"{out}: --resume: the job there had other {' and '.join(other)}, and its finished films "
                         "would not fit; start anew without --resume, or choose another --out")
    return True
