"""The faces of the areas: a public name is imported from its module when it is first asked for.

So `from chexpert_hier import films` costs nothing, and no face imports Keras or TensorFlow.
"""

import importlib
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType


def lazily(package: str, public: Mapping[str, Sequence[str]]) -> tuple[Callable[[str], object],
                                                                      Callable[[], list[str]]]:
    """A package's `__getattr__` and `__dir__` (PEP 562).

    Args:
        package: the package's `__name__`.
        public: module in the package -> the public names that are defined there.

    Returns:
        the two functions.
    """
    homes = {name: module for module, names in public.items() for name in names}

    def get(name: str) -> object:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(importlib.import_module(f"{package}.{homes[name]}"), name)

    return get, lambda: sorted(homes)


def moved(name: str) -> ModuleType:
    """The module that version 0.1 kept under `name` beside the areas, e.g. images.

    Raises:
        AttributeError: there was none.
    """
    if name not in MOVED:
        raise AttributeError(f"module 'chexpert_hier' has no attribute {name!r}")
    return importlib.import_module(f"chexpert_hier.{MOVED[name]}")


# Addresses of version 0.1, so that `from chexpert_hier import template` goes on working.
MOVED = {
    "answers": "predict.answers", "augment": "films.augment", "backbones": "network.backbones",
    "bridge": "datasets.bridge", "cache": "prepare.cache", "chestxray14": "datasets.chestxray14",
    "data_checks": "datasets.checks", "dicom": "films.dicom", "images": "films",
    "localise": "heatmaps.localise", "losses": "network.losses", "members": "finished.members",
    "microbatch": "training.microbatch", "mimic": "datasets.mimic", "model": "network.model",
    "model_card": "export.model_card", "onnx_export": "export.onnx", "operating": "finished.operating",
    "overlays": "heatmaps.overlays", "plausible": "films.plausible", "presence": "datasets.presence",
    "readers": "datasets.readers", "report_films": "report.films", "report_sections": "report.sections",
    "sources": "prepare.sources", "splits": "datasets.splits", "tables": "datasets.tables",
    "template": "films.template", "torch_weights": "network.torch_weights",
    "uncertainty": "predict.uncertainty",
}
