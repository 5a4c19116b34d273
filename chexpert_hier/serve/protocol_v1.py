"""TensorFlow Serving's REST form (V1, `:predict`): the requests that TensorFlow Serving itself takes.

https://www.tensorflow.org/tfx/serving/api_rest
"""

import base64
import json
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ..errors import InputError
from .asked import Asked, Film
from .protocol_v2 import plain

SIGNATURES = {
    "serving_default": ("probabilities", "conditional", "spread", "match"),
    "films": ("probabilities", "conditional", "spread", "match"),
    "calibrated": ("probabilities", "conditional", "spread", "match", "calibrated", "present"),
    # Ours: all there is. TensorFlow Serving has no such signature.
    "reading": ("probabilities", "conditional", "spread", "match", "calibrated", "present", "entropy",
                "mutual_information", "flag", "maps", "map_place"),
}


class Request(NamedTuple):
    """What decides the answer's form: the signature, and whether rows (`instances`) or columns (`inputs`) came."""

    signature: str
    rows: bool


def parse(body: bytes, most_films: int) -> tuple[Request, Asked]:
    """Read a request.

    Args:
        body: JSON with `instances` or `inputs`, binary values as {"b64": "..."}; also `signature_name`, and ours:
            `view` and `skip_bad`.
        most_films: more are refused.

    Raises:
        InputError: it is no such request.
    """
    try:
        asked = json.loads(body)
    except (ValueError, RecursionError):
        raise InputError("body: expected JSON") from None
    if not isinstance(asked, dict) or ("instances" in asked) == ("inputs" in asked):
        raise InputError('body: expected an object with either "instances" (rows) or "inputs" (columns)')
    signature = asked.get("signature_name", "serving_default")
    if not isinstance(signature, str) or signature not in SIGNATURES:
        raise InputError(f"signature_name: expected one of {', '.join(SIGNATURES)}")
    rows = "instances" in asked
    values = _rows(asked["instances"]) if rows else _columns(asked["inputs"])
    if not 1 <= len(values) <= most_films:
        raise InputError(f"{len(values)} films; expected 1 to {most_films} in one request")
    films = [_pixels(value) if signature == "films" else _file(value) for value in values]
    return Request(signature, rows), Asked(tuple(films), asked.get("view", ""), asked.get("skip_bad", False),
                                           maps=signature == "reading")


def _rows(values: Any) -> list:
    if not isinstance(values, list):
        raise InputError("instances: expected a list, one value a film")
    return [_named(value) if isinstance(value, dict) and "b64" not in value else value for value in values]


def _columns(values: Any) -> list:
    if isinstance(values, dict) and "b64" not in values:
        values = _named(values)
    return values if isinstance(values, list) else [values]


def _named(value: dict) -> Any:
    if list(value) != ["film"]:
        raise InputError("expected one named value, `film`")
    return value["film"]


def _file(value: Any) -> Film:
    if isinstance(value, dict) and list(value) == ["b64"] and isinstance(value["b64"], str):
        try:
            return Film(base64.b64decode(value["b64"], validate=True))
        except ValueError:
            raise InputError("film: the value of b64 is not base64") from None
    raise InputError('film: expected {"b64": "..."}, the bytes of a JPEG, PNG, TIFF, WebP or DICOM file in base64')


def _pixels(value: Any) -> Film:
    try:
        pixels = np.array(value, np.uint8)
    except (TypeError, ValueError, OverflowError):
        pixels = np.empty(0)
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[..., 0]
    if pixels.ndim != 2 or not pixels.size:
        raise InputError("film: expected rows of pixels, 0 to 255, as (h, w, 1) or (h, w)")
    return Film(pixels=pixels)


def render(request: Request, tensors: dict[str, np.ndarray]) -> bytes:
    """The answer's body; `tensors` as asked.outputs gives them.

    `error` is added where a film could not be used (`skip_bad`).

    Raises:
        InputError: the signature needs what the model has not.
    """
    if request.signature == "calibrated" and "probabilities" in tensors and "calibrated" not in tensors:
        raise InputError("signature_name: the model was not validated, so nothing is `calibrated`; use serving_default")
    wanted = [*SIGNATURES[request.signature], *["error"] * any(tensors["error"])]
    values = {name: plain(tensors[name]) for name in wanted if name in tensors}
    if not request.rows:
        return json.dumps({"outputs": values}, allow_nan=False).encode()
    return json.dumps({"predictions": _as_rows(values)}, allow_nan=False).encode()


def _as_rows(values: dict[str, list]) -> list[dict]:
    counts: Sequence[int] = [len(column) for column in values.values()]
    return [{name: column[k] for name, column in values.items()} for k in range(min(counts))]
