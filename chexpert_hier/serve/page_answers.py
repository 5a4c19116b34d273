"""What the page's scripts are answered: the model in words, one film with its picture and maps, a study."""

import base64
import json
import math
from typing import Any

import cv2
import numpy as np

from ..errors import InputError
from ..evaluate.aggregate import RULES, combine
from ..finished import operating
from ..predict.answers import NOT_A_DEVICE, in_tree_order
from .asked import BadFilm
from .model import Reading, ServedModel
from .protocol_v2 import plain

MOST_SIDE = 3000  # pixels; larger films are shown smaller, which the page says
POINT = ("threshold", "sensitivity", "sensitivity_low", "sensitivity_high", "specificity", "specificity_low",
         "specificity_high", "auroc", "auroc_low", "auroc_high", "positives", "few_positives")


def about(model: ServedModel, most_bytes: int) -> dict[str, Any]:
    """The model as the page shows it: findings in tree order, operating points, what it was trained on."""
    engine, recipe = model.engine, model.engine.recipe
    found = engine.validation or {}
    points = {label: {name: row.get(name) for name in POINT} for label, row in found.get("labels", {}).items()}
    data = list(dict.fromkeys(one["name"] for one in engine.data))
    return {
        "use": NOT_A_DEVICE, "synthetic": engine.synthetic, "data": ", ".join(data),
        "recipe": recipe.name, "arch": recipe.arch, "models": model.networks, "chain": recipe.chain,
        "lateral": engine.takes_lateral, "maps": model.has_maps, "most_bytes": most_bytes,
        "labels": list(model.labels),
        "tree": [{"label": label, "depth": depth, "parents": list(engine.tree.parents.get(label, ()))}
                 for label, depth in in_tree_order(engine.tree)],
        "validation": {name: found[name] for name in ("films", "patients", "rule")} if found else None,
        "points": points, "study_rule": recipe.study_score, "study_words": RULES[recipe.study_score],
    }


def picture(grey: np.ndarray) -> dict[str, Any]:
    """The film as the model was given it, uint8 (h, w), as PNG for the page; the larger ones smaller."""
    height, width = grey.shape
    scale = min(1.0, MOST_SIDE / max(height, width))
    if scale < 1:
        size = max(1, round(width * scale)), max(1, round(height * scale))
        grey = cv2.resize(grey, size, interpolation=cv2.INTER_AREA)
    data = cv2.imencode(".png", grey, [cv2.IMWRITE_PNG_COMPRESSION, 1])[1].tobytes()
    return {"png": base64.b64encode(data).decode(), "width": width, "height": height, "scale": scale}


def film(model: ServedModel, answer: Reading | BadFilm, shown: dict[str, Any] | None) -> bytes:
    """One film's answer as JSON, or why there is none."""
    if isinstance(answer, BadFilm):
        return json.dumps({"error": answer.reason}).encode()
    values = {name: plain(np.asarray(answer.value(name), float)) for name in ("probabilities", *model.outputs)}
    row = answer.answers.table().iloc[0].drop("Path")
    found = {"values": values, "flag": answer.flag, "match": None if math.isnan(answer.match) else answer.match,
             "picture": shown, "row": {name: _csv(value) for name, value in row.items()},
             "maps": None if answer.maps is None else _maps(answer.maps)}
    return json.dumps(found, allow_nan=False).encode()


def _csv(value: Any) -> str:
    """As `predict --out` writes it."""
    if isinstance(value, str):
        return value
    return "" if math.isnan(value) else f"{value:.7g}"


def _maps(maps) -> dict[str, Any]:
    """Maps on the network's grid and where its cells lie, for the page to lay onto the film as overlays.onto_film."""
    return {"heat": [np.round(heat, 6).tolist() for heat in maps.heat.astype(float)], "place": list(maps.place),
            "crop": maps.crop, "rescaled": maps.rescaled, "cells": list(maps.cells)}


def study(model: ServedModel, body: bytes) -> dict[str, Any]:
    """Films of one study together: {"probabilities": rows of films, in the order of `labels`} by the recipe's rule.

    Raises:
        InputError: expected rows of probabilities.
    """
    try:
        rows = np.array(json.loads(body)["probabilities"], float)
    except (ValueError, TypeError, KeyError, RecursionError):
        rows = np.empty(0)
    if rows.ndim != 2 or rows.shape[1] != len(model.labels) or not ((rows >= 0) & (rows <= 1)).all():
        raise InputError(f'body: expected {{"probabilities": [...]}}, a row of {len(model.labels)} numbers in [0, 1] '
                         "for each film")
    group = np.zeros(len(rows), int)
    together = np.array([combine(column, group, model.engine.recipe.study_score)[0] for column in rows.T])
    values = {"probabilities": together.tolist()}
    found = model.engine.validation
    if found:
        values["present"] = plain(operating.calls(together[None], found, model.labels)[0])
    return {"values": values}
