"""Requests and answers of both protocols, byte by byte, by their published rules."""

import base64
import json
import struct

import numpy as np
import pytest

from chexpert_hier.errors import InputError
from chexpert_hier.serve import protocol_v1, protocol_v2
from chexpert_hier.serve.asked import Film

FILM = base64.b64encode(b"\xff\xd8film").decode()


def request(**changes):
    tensor = {"name": "film", "shape": [1], "datatype": "BYTES", "data": [FILM], **changes.pop("tensor", {})}
    return {"inputs": [{name: value for name, value in tensor.items() if value is not None}], **changes}


def parse_v2(asked, behind=b"", most=4):
    head = json.dumps(asked).encode()
    return protocol_v2.parse(head + behind, str(len(head)) if behind else None, most)


@pytest.mark.parametrize("body", [
    {"instances": [{"film": {"b64": FILM}}]}, {"instances": [{"b64": FILM}]},
    {"inputs": {"film": [{"b64": FILM}]}}, {"inputs": [{"b64": FILM}]}])
def test_v1_rows_and_columns_named_and_unnamed_are_the_same_film(body):
    form, asked = protocol_v1.parse(json.dumps(body).encode(), 4)
    assert asked.films == (Film(b"\xff\xd8film"),) and form == ("serving_default", "instances" in body)


def test_v1_takes_pixels_as_the_savedmodel_does():
    body = {"signature_name": "films", "instances": [{"film": [[[1], [2], [3]], [[4], [5], [255]]]}]}
    _, asked = protocol_v1.parse(json.dumps(body).encode(), 4)
    np.testing.assert_array_equal(asked.films[0].pixels, [[1, 2, 3], [4, 5, 255]])
    assert asked.films[0].pixels.dtype == np.uint8


@pytest.mark.parametrize("body, words", [
    (b"{", "expected JSON"), (b"[" * 100_000, "expected JSON"), (b"\xff", "expected JSON"), (b"3", "instances"),
    (b"{}", "instances"), (b'{"instances": [], "inputs": []}', "either"), (b'{"instances": []}', "0 films"),
    (b'{"instances": 3}', "expected a list"), (b'{"instances": [{"b64": "?"}]}', "not base64"),
    (b'{"instances": [{"picture": 1}]}', "film"), (b'{"instances": ["x"]}', "b64"),
    (b'{"instances": [1,1,1,1,1]}', "1 to 4"), (b'{"instances": [1], "signature_name": "x"}', "signature_name"),
    (b'{"instances": [1], "signature_name": []}', "signature_name"),
    (b'{"instances": [[[300]]], "signature_name": "films"}', "rows of pixels"),
    (b'{"instances": [[[1],[2,3]]], "signature_name": "films"}', "rows of pixels"),
    (b'{"instances": [{"b64": ""}], "view": "above"}', "frontal, lateral"),
    (b'{"instances": [{"b64": ""}], "skip_bad": "yes"}', "true or false")])
def test_v1_refuses_with_words(body, words):
    with pytest.raises(InputError, match=words):
        protocol_v1.parse(body, 4)


def test_v2_json_and_binary_tensors_are_the_same_films():
    _, asked = parse_v2(request())
    films = b"".join(struct.pack("<I", len(film)) + film for film in (b"one", b"", b"three"))
    tensor = {"data": None, "shape": [3, 1], "parameters": {"binary_data_size": len(films)}}
    sent, binary = parse_v2(request(tensor=tensor, id="7"), films)
    assert asked.films == (Film(b"\xff\xd8film"),) and sent.id == "7"
    assert [film.data for film in binary.films] == [b"one", b"", b"three"]


def test_v2_takes_pixels():
    tensor = {"name": "pixels", "datatype": "UINT8", "shape": [2, 1, 3]}
    _, asked = parse_v2(request(tensor={**tensor, "data": [1, 2, 3, 4, 5, 255]}))
    _, binary = parse_v2(request(tensor={**tensor, "data": None, "parameters": {"binary_data_size": 6}}),
                         bytes([1, 2, 3, 4, 5, 255]))
    for film, other, values in zip(asked.films, binary.films, ([[1, 2, 3]], [[4, 5, 255]]), strict=True):
        np.testing.assert_array_equal(film.pixels, values)
        np.testing.assert_array_equal(other.pixels, values)


@pytest.mark.parametrize("changes, behind, words", [
    ({"tensor": {"datatype": "FP32"}}, b"", "expected BYTES"), ({"tensor": {"shape": [2]}}, b"", "says 2 films"),
    ({"tensor": {"shape": [-1]}}, b"", "1 to 4"), ({"tensor": {"shape": [9]}}, b"", "1 to 4"),
    ({"tensor": {"shape": [1, 2]}}, b"", "expected BYTES"), ({"tensor": {"data": ["?"]}}, b"", "base64"),
    ({"tensor": {"data": [3]}}, b"", "base64"), ({"tensor": {"name": "x"}}, b"", "expected one"),
    ({"inputs": []}, b"", "expected one"), ({"inputs": 3}, b"", "Open Inference"),
    ({"tensor": {"parameters": {"binary_data_size": 9}}}, b"1234", "beyond"), ({}, b"1234", "belong to no input"),
    ({"tensor": {"data": None, "parameters": {"binary_data_size": 6}}}, b"\xff\xff\xff\x7fab", "longer than"),
    ({"tensor": {"data": None, "parameters": {"binary_data_size": -1}}}, b"1", "beyond"),
    ({"tensor": {"name": "pixels", "datatype": "UINT8", "shape": [1, 2, 2], "data": [1, 2, 3]}}, b"", "4 values"),
    ({"tensor": {"name": "pixels", "datatype": "UINT8", "shape": [1, 2, 2], "data": [1, 2, 3, 256]}}, b"", "0 to 255"),
    ({"tensor": {"name": "pixels", "datatype": "UINT8", "shape": [1, 0, 2], "data": []}}, b"", "sides")])
def test_v2_refuses_with_words(changes, behind, words):
    with pytest.raises(InputError, match=words):
        parse_v2(request(**changes), behind)


@pytest.mark.parametrize("length", ["-1", "x", "99999999", ""])
def test_v2_header_length_is_checked(length):
    with pytest.raises(InputError, match="Inference-Header-Content-Length"):
        protocol_v2.parse(b"{}", length, 4)


TENSORS = {"probabilities": np.array([[0.5, np.nan]], np.float32), "present": np.array([[True, False]]),
           "flag": np.array(["é"], object)}


def test_v2_answers_in_json_where_nothing_else_is_asked():
    sent, _ = parse_v2(request(id="a"))
    body, head = protocol_v2.render("chest", sent, TENSORS)
    assert head is None and json.loads(body) == {
        "model_name": "chest", "model_version": "1", "id": "a", "outputs": [
            {"name": "probabilities", "datatype": "FP32", "shape": [1, 2], "data": [0.5, None]},
            {"name": "present", "datatype": "BOOL", "shape": [1, 2], "data": [True, False]},
            {"name": "flag", "datatype": "BYTES", "shape": [1], "data": ["é"]}]}


def test_v2_answers_in_binary_where_asked():
    sent, _ = parse_v2(request(parameters={"binary_data_output": True}, outputs=[
        {"name": "flag"}, {"name": "probabilities"}, {"name": "present", "parameters": {"binary_data": False}}]))
    body, head = protocol_v2.render("chest", sent, TENSORS)
    sizes = [one.get("parameters") for one in json.loads(body[:head])["outputs"]]
    assert sizes == [{"binary_data_size": 6}, {"binary_data_size": 8}, None]
    assert body[head:head + 6] == b"\x02\0\0\0\xc3\xa9"
    np.testing.assert_array_equal(np.frombuffer(body[head + 6:], "<f4"), [0.5, np.nan])


def test_v2_refuses_an_output_that_is_not_there():
    sent, _ = parse_v2(request(outputs=[{"name": "maps"}]))
    with pytest.raises(InputError, match="probabilities, present, flag"):
        protocol_v2.render("chest", sent, TENSORS)
