"""What a run folder says of itself; imported by all that use finished runs."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

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


def is_synthetic(facts: dict[str, Any]) -> bool:
    """Whether a run was trained on drawn films, so that its answers mean nothing for real ones."""
    data = facts["data"]
    return bool(data.get("synthetic")) or data["name"].startswith("phantom") or facts["recipe"]["name"] == "phantom"


def data_folders(facts: dict[str, Any]) -> list[Path]:
    """The folders of the data sets that a run was trained on."""
    return [Path(folder) for folder in facts["data"].get("roots") or [facts["data"]["root"]]]
