"""What a run says of itself: recipe.json and split.csv, and what stage 1 sees of the positives."""

import datetime
import importlib.metadata
import json
import logging
import platform
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import __version__, hierarchy, labels, recipes
from ..datasets.dataset import SPLITS
from ..files import write_text
from ..settings import Settings

if TYPE_CHECKING:
    from ..prepare.sources import Films, Source

log = logging.getLogger("chexpert_hier.run")


def write_facts(out: Path, facts: dict[str, Any], source: "Source") -> None:
    """recipe.json, of which a resumed run keeps its own, and split.csv."""
    if not (out / "recipe.json").exists():
        write_text(out / "recipe.json", json.dumps(facts, indent=1))
    write_text(out / "split.csv", source.dataset.films[["path", "patient", "study", "split"]].to_csv(index=False))


def facts_of(settings: Settings, source: "Source", command: list[str]) -> dict[str, Any]:
    """What recipe.json says: all that later commands need to know of this run."""
    from ..phantom import making

    dataset, folders = source.dataset, settings.data or []
    counts = {split: {"films": len(part), "studies": int(part.films[["patient", "study"]].drop_duplicates().shape[0]),
                      "patients": int(part.films["patient"].nunique())}
              for split in SPLITS for part in [dataset.split(split)]}
    places = [] if settings.no_paths else [str(folder) for folder in folders]
    return {
        "recipe": settings.kept_recipe.to_json(), "outputs": list(dataset.labels), "labels": settings.labels,
        "tree": settings.tree, "limit": settings.limit,
        "normalisation": [list(source.normalisation.mean), list(source.normalisation.std)],
        "data": {"root": places[0] if places else None, "roots": places, "name": dataset.name,
                 "fingerprint": dataset.fingerprint, "counts": counts,
                 "synthetic": any(map(making.read_marker, folders))},
        "versions": versions(),
        "options": settings.kept_options, **({} if settings.no_paths else {"command": command}),
        "started": datetime.datetime.now().isoformat(timespec="seconds"),
    }


def versions() -> dict[str, str]:
    """Of Python, this package, what it computes with and Keras' backend."""
    return {"python": platform.python_version(), "chexpert_hier": __version__,
            **{name: importlib.metadata.version(name) for name in ("keras", "numpy", "pandas", "scikit-learn")},
            "backend": _backend()}


def _backend() -> str:
    import keras

    name = keras.backend.backend()
    return f"{name} {importlib.metadata.version(name)}"


def positives_seen(recipe: recipes.Recipe, tree: hierarchy.Tree, train: "Films") -> dict[str, float | None]:
    """The share of each label's positives that conditional training's stage 1 sees; the log names those under 10 %.

    Returns:
        label -> 0 to 1, None for a label that is nowhere positive.
    """
    raw = hierarchy.close_upward(train.raw, tree) if recipe.closure else train.raw
    hard = labels.hard_targets(raw, recipe.policy, blank=recipe.blank)
    shares = hierarchy.positives_seen(hard, hierarchy.stage_one(hard, tree, recipe.ct_rows).cells)
    few = [f"{label} ({share:.0%})" for label, share in zip(train.labels, shares) if share < hierarchy.FEW_SEEN]
    if few:
        log.info("stage 1 (--ct-rows %s) sees under %s of the positives of %s: what is known of these comes from "
                 "stage 2", recipe.ct_rows, f"{hierarchy.FEW_SEEN:.0%}", ", ".join(few))
    return {label: None if np.isnan(share) else round(float(share), 4) for label, share in zip(train.labels, shares)}
