"""The server over real HTTP: its numbers against `predict`'s, bad films beside good ones, limits, token, silence."""

import json
import logging
import re
import socket
import struct
import time
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pandas as pd
import pytest
from served import b64, open_model, serving

from chexpert_hier.finished.asked import Film
from chexpert_hier.finished.members import open_run
from chexpert_hier.labels import CHEXPERT_LABELS
from chexpert_hier.predict import __main__ as predict
from chexpert_hier.serve.batching import Limits

NAMES = list(CHEXPERT_LABELS)


def predicted(tmp_path, films, *models):
    """What the command `predict` writes for these films."""
    out = tmp_path / "predicted.csv"
    sources = [str(film) for film in films]
    assert predict.main([*sources, "--model", *map(str, models), "--out", str(out), "--quiet", *(
        ["--uncertainty", "ensemble"] if len(models) > 1 else [])]) == 0
    return pd.read_csv(out), out.read_text().splitlines()


def columns(table, what):
    return table[[f"{name} [{what}]" for name in NAMES]].to_numpy(float)


def test_v1_answers_as_predict_does(client, runs, frontal, tmp_path):
    table, _ = predicted(tmp_path, frontal[:3], runs[0])
    status, answer = client.v1(*[film.read_bytes() for film in frontal[:3]], signature_name="calibrated")
    assert status == 200 and set(answer["predictions"][0]) == {"probabilities", "conditional", "calibrated", "present",
                                                               "match"}
    got = {name: np.array([row[name] for row in answer["predictions"]], float) for name in answer["predictions"][0]}
    np.testing.assert_allclose(got["probabilities"], table[NAMES], atol=1e-6)
    np.testing.assert_allclose(got["calibrated"], columns(table, "calibrated"), atol=1e-5)
    np.testing.assert_array_equal(got["present"], columns(table, "call") == 1)
    np.testing.assert_allclose(got["match"], table["[match]"], atol=1e-4)
    cardiomegaly, above = NAMES.index("Cardiomegaly"), NAMES.index("Enlarged Cardiomediastinum")
    np.testing.assert_allclose(got["probabilities"][:, cardiomegaly],
                               got["conditional"][:, cardiomegaly] * got["conditional"][:, above], atol=1e-6)


def test_columns_pixels_and_the_default_signature(client, frontal):
    film = frontal[0].read_bytes()
    _, rows = client.v1(film)
    _, cols = client.call("/v1/models/chest/versions/1:predict", {"inputs": {"film": [b64(film)]}})
    pixels = cv2.imread(str(frontal[0]), cv2.IMREAD_GRAYSCALE)[..., None].tolist()
    _, decoded = client.call("/v1/models/chest:predict", {"signature_name": "films", "instances": [{"film": pixels}]})
    assert set(rows["predictions"][0]) == {"probabilities", "conditional", "match"}
    for name, value in rows["predictions"][0].items():
        np.testing.assert_allclose(cols["outputs"][name][0], value, atol=1e-6)
        np.testing.assert_allclose(decoded["predictions"][0][name], value, atol=1e-6)


def test_an_ensemble_tells_how_far_its_members_agree(runs, frontal, tmp_path):
    table, _ = predicted(tmp_path, frontal[:2], *runs)
    with serving(open_model(*runs)) as client:
        _, answer = client.v2(*[film.read_bytes() for film in frontal[:2]])
    got = {one["name"]: np.array(one["data"], object).reshape(one["shape"]) for one in answer["outputs"]}
    np.testing.assert_allclose(got["probabilities"].astype(float), table[NAMES], atol=1e-6)
    for name, column in (("spread", "sd"), ("entropy", "entropy"), ("mutual_information", "mutual information")):
        np.testing.assert_allclose(got[name].astype(float), columns(table, column), atol=1e-6)
    assert got["spread"].astype(float).max() > 0


def test_v2_binary_answers_are_the_json_answers(client, frontal):
    film = frontal[0].read_bytes()
    _, plain = client.v2(film, outputs=("probabilities", "flag"))
    head = json.dumps({"inputs": [{"name": "film", "shape": [1], "datatype": "BYTES", "parameters": {
        "binary_data_size": len(film) + 4}}], "outputs": [{"name": "probabilities", "parameters": {
            "binary_data": True}}]}).encode()
    status, data = client.call("/v2/models/chest/versions/1/infer", head + struct.pack("<I", len(film)) + film,
                               Inference_Header_Content_Length=len(head))
    place = int(client.last["inference-header-content-length"])
    assert status == 200 and client.last["content-type"] == "application/octet-stream"
    np.testing.assert_allclose(np.frombuffer(data[place:], "<f4"), plain["outputs"][0]["data"], atol=1e-6)


def test_maps_on_request_are_those_of_heatmaps(client, runs, frontal):
    from chexpert_hier.films.decode import read_film
    from chexpert_hier.heatmaps.maps import film_maps

    grey = read_film(frontal[0])
    expected = film_maps(open_run(runs[0]), [Film(frontal[0], "x")], [grey], NAMES)[0]
    _, answer = client.v2(frontal[0].read_bytes(), outputs=("maps", "map_place"))
    maps, place = (np.array(one["data"]).reshape(one["shape"]) for one in answer["outputs"])
    np.testing.assert_allclose(maps[0], expected.heat, atol=1e-5)
    np.testing.assert_allclose(place[0], [*expected.place, expected.crop, expected.rescaled, *expected.cells])


def test_metadata_readiness_and_names(client):
    status, about = client.call("/v2/models/chest")
    assert status == 200 and about["parameters"]["labels"] == NAMES
    names = {one["name"] for one in about["outputs"]}
    assert names >= {"probabilities", "conditional", "calibrated", "present", "maps"}
    _, answer = client.call("/v2")
    assert answer["extensions"] == ["binary_tensor_data"]
    for path in ("/v2/health/live", "/v2/health/ready", "/v2/models/chest/ready", "/v1/models/chest"):
        assert client.call(path)[0] == 200, path
    assert client.call("/v1/models/other")[0] == client.call("/v2/models/other/ready")[0] == 404
    status, answer = client.call("/v1/models/other:predict", {"instances": []})
    assert status == 404 and answer == {"error": "no model of this name; this server has chest"}
    status, answer = client.call("/nowhere")
    assert status == 404 and list(answer) == ["error"]


def test_a_bad_film_is_named_and_its_neighbours_are_answered(client, frontal):
    good, cut = frontal[0].read_bytes(), frontal[1].read_bytes()[:4000]
    status, answer = client.v1(good, cut, b"")
    assert status == 422
    assert answer == {"error": "film 1: cut off: the JPEG ends before the picture does; copy the file again; "
                               "film 2: the file is empty"}
    status, answer = client.v1(good, cut, skip_bad=True)
    assert status == 200 and answer["predictions"][1]["probabilities"] == [None] * 14
    assert [row["error"][:7] for row in answer["predictions"]] == ["", "cut off"]
    assert answer["predictions"][0]["probabilities"] == client.v1(good)[1]["predictions"][0]["probabilities"]
    status, answer = client.v2(cut, skip_bad=True)
    assert status == 200 and answer["outputs"][0]["data"] == [None] * 14


def test_clients_at_the_same_time_share_batches_and_get_their_own_answers(model, frontal):
    films = [film.read_bytes() for film in frontal[:6]]
    with serving(model, Limits(wait=0.2)) as client:
        alone = [client.v1(film)[1]["predictions"][0]["probabilities"] for film in films]
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(client.v1, [*films, b"no film", b"no film"]))
        metrics = client.call("/metrics")[1].decode()
    assert [status for status, _ in answers] == [200] * 6 + [422] * 2
    for k in range(6):
        np.testing.assert_allclose(answers[k][1]["predictions"][0]["probabilities"], alone[k], atol=1e-6)
    batches = int(re.search(r"chexpert_hier_batch_films_count (\d+)", metrics)[1])
    assert "chexpert_hier_batch_films_sum 12.0" in metrics and batches < 12
    assert 'chexpert_hier_films_total{outcome="refused"} 2.0' in metrics
    assert 'chexpert_hier_requests_total{code="422",route="/v1/models/{name}:predict"} 2.0' in metrics


def test_dicom_with_16_bits_and_the_kinds_that_are_refused(client, dicom, frontal):
    status, answer = client.v1(dicom())
    jpeg = client.v1(frontal[0].read_bytes())[1]["predictions"][0]
    assert status == 200
    np.testing.assert_allclose(answer["predictions"][0]["probabilities"], jpeg["probabilities"], atol=0.02)
    assert client.v1(dicom(Modality="CT"))[1] == {"error": "film 0: modality is CT, not CR or DX"}
    lateral = "a lateral film; the model was trained on frontal films only"
    for answer in (client.v1(dicom(ViewPosition="LL")), client.v1(frontal[0].read_bytes(), view="lateral")):
        assert answer == (422, {"error": f"film 0: {lateral}"})


def test_bodies_are_bounded_in_bytes_time_and_number(model, frontal):
    film = frontal[0].read_bytes()
    with serving(model, Limits(body=100_000, films=2, read=0.3)) as client:
        assert client.call("/v1/models/chest:predict", b"x" * 100_001)[0] == 413
        assert client.call("/v1/models/chest:predict", iter([b"x" * 60_000] * 2), "POST")[0] == 413  # of unsaid length
        assert client.v1(film, film, film) == (400, {"error": "3 films; expected 1 to 2 in one request"})
        assert client.call("/v1/models/chest:predict", b"", "POST")[0] == 400
        assert client.call("/v1/models/chest:predict", b"x", Content_Encoding="gzip")[0] == 400
        with socket.create_connection(("127.0.0.1", client.port)) as slow:
            slow.sendall(b"POST /v1/models/chest:predict HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nx")
            assert b" 408 " in slow.recv(1000).splitlines()[0]
        assert client.v1(film)[0] == 200 and client.service.body_bytes == 0


def test_what_is_too_much_at_once_is_told_to_come_back(model, frontal):
    film = frontal[0].read_bytes()
    with serving(model, Limits(waiting=0)) as client:
        status, answer = client.v1(film)
        assert status == 503 and "try again" in answer["error"] and client.last["retry-after"] == "2"
    with serving(model, Limits(bodies=1000)) as client:
        assert client.v1(film)[0] == 503


def test_a_token_guards_all_but_the_empty_page_and_the_probes(model, frontal):
    with serving(model, token="secret-token") as client:
        assert client.v1(frontal[0].read_bytes())[0] == 200
        guarded = ("/v1/models/chest", "/v2/models/chest", "/metrics", "/page/model", "/openapi.json", "/nowhere")
        for wrong in ("Bearer secret-tokem", "secret-token", "Bearer ", "Basic secret-token"):
            for path in guarded:
                assert client.call(path, Authorization=wrong)[0] == 401, (path, wrong)
        for path in ("/", "/static/main.js", "/v2/health/live", "/v2/health/ready"):
            assert client.call(path, Authorization="none")[0] == 200, path


def test_answers_are_not_to_be_kept_and_the_page_may_ask_nobody_else(client, frontal):
    for path in ("/", "/page/model", "/static/main.js", "/v2/health/live"):
        client.call(path)
        assert client.last["cache-control"] == "no-store" and client.last["x-content-type-options"] == "nosniff"
        assert "default-src 'none'" in client.last["content-security-policy"]


@pytest.mark.filterwarnings("ignore")
def test_no_name_path_or_tag_reaches_a_log(client, dicom, frontal, caplog, capfd):
    caplog.set_level(logging.DEBUG)
    odd = dicom(PatientName="Doe^Jane", StudyDate="not a date", ViewPosition="PA")
    for data in (odd, odd[:-500], dicom(Modality="CT"), dicom(BodyPartExamined="KNEE"), frontal[0].read_bytes()):
        client.v1(data)
        client.call("/page/film?view=frontal&name=Doe", data)
    client.call("/Doe^Jane/4711-0815")
    time.sleep(0.1)
    printed = caplog.text + "".join(capfd.readouterr())
    for word in ("Doe", "Jane", "4711", "not a date", "KNEE", "CT", str(frontal[0]), frontal[0].name):
        assert word not in printed, printed


def test_the_unforeseen_is_a_500_without_words_of_the_request(model, frontal, caplog, monkeypatch):
    def broken(asked):
        raise RuntimeError("about Jane Doe")

    with serving(model) as client:
        monkeypatch.setattr(client.service.batcher, "_work", broken)
        status, answer = client.v1(frontal[0].read_bytes())
        assert status == 500 and answer == {"error": "internal error; the server's log says where"}
        monkeypatch.undo()
        assert client.v1(frontal[0].read_bytes())[0] == 200
    assert "RuntimeError" in caplog.text and "broken" in caplog.text and "Jane" not in caplog.text


def test_the_page_is_answered_with_predicts_csv_and_a_study_by_the_rule(client, runs, frontal, tmp_path):
    _, lines = predicted(tmp_path, frontal[:1], runs[0])
    answers = [client.call("/page/film", film.read_bytes())[1] for film in frontal[:2]]
    assert ["Path", *answers[0]["row"]] == lines[0].split(",")
    assert [frontal[0].as_posix(), *answers[0]["row"].values()] == lines[1].split(",")
    rows = [answer["values"]["probabilities"] for answer in answers]
    _, study = client.call("/page/study", {"probabilities": rows})
    np.testing.assert_array_equal(study["values"]["probabilities"], np.max(rows, axis=0))
    assert client.call("/page/study", {"probabilities": [[2] * 14]})[0] == 400
    assert client.call("/page/film", b"no film") == (422, {
        "error": "not an image; expected JPEG, PNG, TIFF, WebP or DICOM"})


@pytest.mark.slow
def test_exported_models_are_served_as_the_run_that_they_are_of(client, runs, frontal, tmp_path):
    from chexpert_hier.export import __main__ as export

    pytest.importorskip("onnxruntime")
    pytest.importorskip("tf2onnx")
    saved, onnx = tmp_path / "saved_model", tmp_path / "model.onnx"
    assert export.main(["--model", str(runs[0]), "--out", str(saved), "--onnx", str(onnx)]) == 0
    film = frontal[0].read_bytes()
    expected = client.v1(film, signature_name="calibrated")[1]["predictions"][0]
    for path in (saved, onnx):
        with serving(open_model(path)) as other:
            got = other.v1(film, signature_name="calibrated")[1]["predictions"][0]
            for name, values in expected.items():
                np.testing.assert_allclose(np.array(got[name], float), np.array(values, float), atol=1e-4)
            status, answer = other.v2(film, outputs=("maps",))
            assert status == 400 and "maps" in answer["error"]
