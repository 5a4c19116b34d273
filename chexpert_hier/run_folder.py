"""What a run folder says of itself; imported by all that use finished runs."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from . import schema
from .errors import InputError
from .recipes import Recipe


@dataclass(frozen=True)
class Data:
    """What a run was trained on.

    Attributes:
        name, fingerprint, counts: of its films.
        root, roots: where they lay; None where the run keeps it to itself.
        synthetic: whether they were drawn.
    """

    name: str
    fingerprint: str
    counts: dict[str, dict[str, int]]
    root: str | None = None
    roots: tuple[str, ...] | None = None
    synthetic: bool = False


@dataclass(frozen=True)
class Facts:
    """The fields of recipe.json that later commands rely on, with their types; others may stand beside them."""

    recipe: Recipe
    outputs: tuple[str, ...]
    tree: str | dict[str, tuple[str, ...]]
    normalisation: tuple[tuple[float, float, float], tuple[float, float, float]]
    data: Data
    versions: dict[str, str]
    labels: tuple[str, ...] | None = None
    limit: int | None = None
    options: dict[str, Any] = field(default_factory=dict)


def read_facts(run: Path) -> dict[str, Any]:
    """What a run folder says of itself (recipe.json).

    Raises:
        InputError: it is no run folder, or a field of `Facts` is missing or not of its type.
    """
    path = Path(run) / "recipe.json"
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{run}: no recipe.json there; expected the folder of a run") from None
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: cannot be read ({error})") from error
    schema.read(Facts, facts, str(path), extras=True)
    return {"labels": None, "limit": None, "options": {}, **facts}


def read_part(run: Path, name: str, columns: Sequence[str], numbers: Sequence[str] = ()) -> pd.DataFrame:
    """A table of a run folder, e.g. split.csv.

    Args:
        run: the folder.
        name: the file.
        columns: needed, read as text.
        numbers: needed, as numbers.

    Raises:
        InputError: it is missing or damaged.
    """
    path = Path(run) / name
    try:
        table = pd.read_csv(path, dtype=dict.fromkeys(columns, str))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({' '.join(str(error).split())[:200]})") from None
    wrong = [column for column in (*columns, *numbers) if column not in table.columns
             or (column in numbers and not pd.api.types.is_numeric_dtype(table[column]))]
    if wrong or not len(table):
        why = f"its column {wrong[0]!r} is missing or holds something else" if wrong else "it has no rows"
        raise InputError(f"{path}: is damaged: {why}")
    return table


def read_log(run: Path) -> pd.DataFrame:
    """log.csv of a run: one row per finished epoch of every stage.

    Raises:
        InputError: it is missing or damaged.
    """
    return read_part(run, "log.csv", ("stage",), ("epoch", "learning_rate", "loss", "valid_loss", "valid_auroc",
                                                  "seconds"))


def patients_of(run: Path, films: list[str]) -> list[str]:
    """The patients of films, from a run's split.csv; NaN for films that are not there.

    Raises:
        InputError: split.csv is missing or damaged.
    """
    table = read_part(run, "split.csv", ("path", "patient"))
    if table["path"].duplicated().any():
        raise InputError(f"{Path(run) / 'split.csv'}: is damaged: it names a film twice")
    return table.set_index("path")["patient"].reindex(films).tolist()


def is_synthetic(facts: dict[str, Any]) -> bool:
    """Whether a run was trained on drawn films, so that its answers mean nothing for real ones."""
    data = facts["data"]
    if "synthetic" in data:
        return bool(data["synthetic"])
    return bool(data["name"].startswith("phantom") or facts["recipe"]["name"] == "phantom")  # runs of before


def data_folders(facts: dict[str, Any]) -> list[Path]:
    """The folders of the data sets that a run was trained on; none where it keeps them to itself (--no-paths)."""
    data = facts["data"]
    return [Path(folder) for folder in data.get("roots") or [data.get("root")] if folder]
