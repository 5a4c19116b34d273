"""Write a network so that the same network gives the same bytes.

Keras puts memory addresses, the date and the time of writing into a `.keras` file; nothing reads them again.
"""

import json
import zipfile
from pathlib import Path
from typing import Any

import keras

DATE = (1980, 1, 1, 0, 0, 0)  # the first that a zip can hold


def save(model: keras.Model, path: Path) -> None:
    """Write a `.keras` file.

    Args:
        model: layers and weights; compiled state is written where it has any.
        path: ends in .keras; the caller sees to it that it appears whole.
    """
    first = path.with_name(f"{path.stem}.first{path.suffix}")
    try:
        model.save(first)
        with zipfile.ZipFile(first) as given, zipfile.ZipFile(path, "w") as written:
            for name in sorted(given.namelist()):
                data = given.read(name)
                if name == "config.json":
                    data = json.dumps(_numbered(json.loads(data), {})).encode()
                elif name == "metadata.json":
                    data = json.dumps({**json.loads(data), "date_saved": "1980-01-01@00:00:00"}).encode()
                written.writestr(zipfile.ZipInfo(name, DATE), data)
    finally:
        first.unlink(missing_ok=True)


def _numbered(value: Any, known: dict[int, int]) -> Any:
    """A configuration whose shared objects are numbered in order, instead of by their address."""
    if isinstance(value, dict):
        return {name: known.setdefault(one, len(known)) if name == "shared_object_id" else _numbered(one, known)
                for name, one in value.items()}
    return [_numbered(one, known) for one in value] if isinstance(value, list) else value
