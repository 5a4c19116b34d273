"""What a run folder says of itself; imported by all that use finished runs."""

import json
from pathlib import Path

from .errors import InputError


def read_facts(run: Path) -> dict:
    """What a run folder says of itself (recipe.json).

    Raises:
        InputError: it is no run folder.
    """
    path = Path(run) / "recipe.json"
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{run}: no recipe.json there; expected the folder of a run") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({error})") from error


def data_folders(facts: dict) -> list[Path]:
    """The folders of the data sets that a run was trained on."""
    return [Path(folder) for folder in facts["data"].get("roots") or [facts["data"]["root"]]]
