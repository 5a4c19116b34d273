"""The Open Inference Protocol (V2) over HTTP, with Triton's binary tensors: requests to films, answers to tensors.

https://github.com/kserve/open-inference-protocol, and
https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_binary_data.md
"""

import base64
import binascii
import json
import math
from typing import Any

import numpy as np
from pydantic import BaseModel, Field, ValidationError

from ..errors import InputError
from ..predict.answers import NOT_A_DEVICE
from .asked import Asked, Film
from .model import ServedModel

HEADER_LENGTH = "inference-header-content-length"
TYPES = {"BOOL": np.dtype("?"), "FP32": np.dtype("<f4"), "UINT8": np.dtype("u1")}  # BYTES apart: of any length


class RequestInput(BaseModel):
    """One input tensor; its values stand in `data`, or behind the JSON with `binary_data_size` in `parameters`."""

    name: str
    shape: list[int] = Field(max_length=8)
    datatype: str
    parameters: dict[str, Any] = {}
    data: list | None = None


class RequestOutput(BaseModel):
    """One output that is asked for; `binary_data` in `parameters` has it sent behind the JSON."""

    name: str
    parameters: dict[str, Any] = {}


class InferenceRequest(BaseModel):
    """The body of POST /v2/models/NAME/infer.

    `parameters` may hold `view` ("frontal" or "lateral", for all films), `skip_bad` (answer for the other films where
    some cannot be used) and `binary_data_output`.
    """

    id: str = ""
    parameters: dict[str, Any] = {}
    inputs: list[RequestInput]
    outputs: list[RequestOutput] = []


def parse(body: bytes, header_length: str | None, most_films: int) -> tuple[InferenceRequest, Asked]:
    """Read a request.

    Args:
        body: the JSON, with tensors in binary behind it where `header_length` (the HTTP header) says where it ends.
        most_films: more are refused.

    Raises:
        InputError: it does not follow the protocol, or asks for what the model has not.
    """
    if header_length is not None and not (header_length.isdecimal() and int(header_length) <= len(body)):
        raise InputError(f"Inference-Header-Content-Length: expected a number up to the body's {len(body)} bytes")
    end = len(body) if header_length is None else int(header_length)
    try:
        request = InferenceRequest.model_validate_json(body[:end])
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"])) or "body"
        raise InputError(f"{where}: {first['msg']}; expected a request of the Open Inference Protocol") from None
    values = _take_binary(request, memoryview(body)[end:])
    if [one.name for one in request.inputs] not in (["film"], ["pixels"]):
        raise InputError("inputs: expected one, `film` (BYTES, the bytes of JPEG, PNG, TIFF, WebP or DICOM "
                         "files) or `pixels` (UINT8, decoded grey films)")
    films = (_files if request.inputs[0].name == "film" else _pixels)(request.inputs[0], values[0], most_films)
    view, skip = request.parameters.get("view", ""), request.parameters.get("skip_bad", False)
    maps = any(one.name in ("maps", "map_place") for one in request.outputs)
    return request, Asked(tuple(films), view, skip, maps)


def _take_binary(request: InferenceRequest, rest: memoryview) -> list[memoryview | None]:
    """Each input's part of what stands behind the JSON; None for those in the JSON itself."""
    parts, place = [], 0
    for one in request.inputs:
        size = one.parameters.get("binary_data_size")
        if size is None:
            parts.append(None)
            continue
        if not isinstance(size, int) or size < 0 or place + size > len(rest):
            raise InputError(f"input {one.name}: binary_data_size goes beyond the body's end")
        parts.append(rest[place:place + size])
        place += size
    if place != len(rest):
        raise InputError(f"{len(rest) - place} bytes behind the JSON belong to no input; is "
                         "Inference-Header-Content-Length right?")
    return parts


def _files(one: RequestInput, binary: memoryview | None, most: int) -> list[Film]:
    """`film`: BYTES (n,) or (n, 1)."""
    if one.datatype != "BYTES" or len(one.shape) not in (1, 2) or one.shape[1:] not in ([], [1]):
        raise InputError(f"input film: expected BYTES of shape [n] or [n, 1], received {_shown(one)}")
    count = _count(one, most)
    found = _from_json(one) if binary is None else _from_binary(binary, count)
    if len(found) != count:
        raise InputError(f"input film: the shape says {count} films, the data hold {len(found)}")
    return [Film(data) for data in found]


def _count(one: RequestInput, most: int) -> int:
    if not 1 <= one.shape[0] <= most:
        raise InputError(f"input {one.name}: {one.shape[0]} films; expected 1 to {most} in one request")
    return one.shape[0]


def _from_json(one: RequestInput) -> list[bytes]:
    values = one.data or []
    values = [value for row in values for value in (row if isinstance(row, list) else [row])]
    try:
        return [base64.b64decode(value, validate=True) for value in values]
    except (TypeError, ValueError, binascii.Error):
        raise InputError("input film: expected strings in base64 in `data`, for JSON cannot hold a file's bytes "
                         "(or binary tensors behind it)") from None


def _from_binary(rest: memoryview, count: int) -> list[bytes]:
    """Elements of a BYTES tensor: 4 bytes of length, little-endian, then the bytes."""
    found, place = [], 0
    while place < len(rest) and len(found) <= count:
        size = int.from_bytes(rest[place:place + 4], "little")
        if place + 4 + size > len(rest):
            raise InputError("input film: an element of the binary tensor is longer than the tensor")
        found.append(bytes(rest[place + 4:place + 4 + size]))
        place += 4 + size
    return found


def _pixels(one: RequestInput, binary: memoryview | None, most: int) -> list[Film]:
    """`pixels`: UINT8 (n, h, w) or (n, h, w, 1), bone bright."""
    if one.datatype != "UINT8" or not (len(one.shape) == 3 or (len(one.shape) == 4 and one.shape[3] == 1)):
        raise InputError(f"input pixels: expected UINT8 of shape [n, h, w] or [n, h, w, 1], received {_shown(one)}")
    count = _count(one, most)
    if min(one.shape) < 1:
        raise InputError(f"input pixels: expected sides of 1 or more, received {one.shape}")
    try:
        flat = np.array(one.data, np.uint8).ravel() if binary is None else np.frombuffer(binary, np.uint8)
        films = flat.reshape(one.shape[:3])
    except (TypeError, ValueError, OverflowError):
        raise InputError(f"input pixels: expected {math.prod(one.shape):,} values from 0 to 255") from None
    return [Film(pixels=films[k]) for k in range(count)]


def _shown(one: RequestInput) -> str:
    return f"{one.datatype[:10]} {one.shape}"


# ---------------------------------------------------------------------------------------------------- answers

def metadata(name: str, model: ServedModel) -> dict[str, Any]:
    """The answer of GET /v2/models/NAME; the findings' names, in the outputs' order, in `parameters`."""
    count = len(model.labels)
    per_label = ["probabilities", *model.outputs]
    outputs = [{"name": one, "datatype": "BOOL" if one == "present" else "FP32", "shape": [-1, count]}
               for one in per_label]
    outputs += [{"name": "match", "datatype": "FP32", "shape": [-1]},
                {"name": "flag", "datatype": "BYTES", "shape": [-1]},
                {"name": "error", "datatype": "BYTES", "shape": [-1]}]
    if model.has_maps:
        outputs += [{"name": "maps", "datatype": "FP32", "shape": [-1, count, -1, -1]},
                    {"name": "map_place", "datatype": "FP32", "shape": [-1, 6]}]
    return {"name": name, "versions": ["1"], "platform": "chexpert_hier",
            "inputs": [{"name": "film", "datatype": "BYTES", "shape": [-1]}], "outputs": outputs,
            "parameters": {"labels": list(model.labels), "intended_use": NOT_A_DEVICE}}


def render(name: str, request: InferenceRequest, tensors: dict[str, np.ndarray]) \
        -> tuple[bytes, int | None]:
    """The answer's body, and the length of its JSON where binary tensors stand behind it.

    Args:
        name: of the model.
        request: what was asked.
        tensors: of asked.outputs; all are given when the request names none.

    Raises:
        InputError: an output is asked for that the model has not.
    """
    asked = request.outputs or [RequestOutput(name=one) for one in tensors]
    outputs, behind = [], []
    for one in asked:
        if one.name not in tensors:
            raise InputError(f"output {one.name[:40]!r} is not known; expected one of: {', '.join(tensors)}")
        values = tensors[one.name]
        kind = datatype(values)
        entry = {"name": one.name, "datatype": kind, "shape": list(values.shape)}
        if one.parameters.get("binary_data", request.parameters.get("binary_data_output", False)):
            data = _to_binary(values, kind)
            behind.append(data)
            entry["parameters"] = {"binary_data_size": len(data)}
        else:
            entry["data"] = plain(values.ravel())
        outputs.append(entry)
    answer = {"model_name": name, "model_version": "1", "id": request.id, "outputs": outputs}
    head = json.dumps(answer, allow_nan=False).encode()
    return b"".join([head, *behind]), len(head) if behind else None


def datatype(values: np.ndarray) -> str:
    """The protocol's name of an array's type."""
    return {"b": "BOOL", "f": "FP32", "O": "BYTES"}[values.dtype.kind]


def _to_binary(values: np.ndarray, kind: str) -> bytes:
    if kind != "BYTES":
        return np.ascontiguousarray(values, TYPES[kind]).tobytes()
    texts = [text.encode() for text in values.ravel()]
    return b"".join(len(text).to_bytes(4, "little") + text for text in texts)


def plain(values: np.ndarray) -> list:
    """Nested lists for JSON, which has no NaN: null."""
    if values.dtype.kind == "f":
        values = np.where(np.isnan(values), None, values.astype(object))
    return values.tolist()
