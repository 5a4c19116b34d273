"""The SavedModel in plain TensorFlow, its signatures, calibration, REST requests, model card, and the ONNX file."""

import base64
import json
import re
import shutil
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from finished import make_films, make_run

from chexpert_hier import hierarchy
from chexpert_hier.errors import InputError
from chexpert_hier.export import __main__ as export_command
from chexpert_hier.export import saved_model
from chexpert_hier.films import plausible
from chexpert_hier.films.decode import read_film
from chexpert_hier.finished import asked, operating
from chexpert_hier.finished.members import Saved, open_model, open_run
from chexpert_hier.labels import CHEXPERT_LABELS, key
from chexpert_hier.predict import __main__ as predict_command
from chexpert_hier.predict import predicting

tf = pytest.importorskip("tensorflow")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_films(tmp_path_factory.mktemp("export"))


@pytest.fixture(scope="module")
def run(data):
    return of_a_hospital(make_run(data.parent / "run", data))


def of_a_hospital(run):
    """As if its films had not been drawn: a model of drawn films makes no calls."""
    facts = json.loads((run / "recipe.json").read_text())
    facts["recipe"]["name"], facts["data"]["name"] = "pham2019", "hospital"
    (run / "recipe.json").write_text(json.dumps(facts))
    return run


@pytest.fixture(scope="module")
def saved(run):
    return saved_model.export([open_run(run)], run.parent / "saved")


@pytest.fixture(scope="module")
def model(saved):
    return tf.saved_model.load(str(saved))


@pytest.fixture(scope="module")
def frontal(data):
    return sorted((data / "valid").rglob("*frontal.jpg"))


@pytest.fixture(scope="module")
def own(run, frontal):
    """The run's own probabilities of the films, (films, labels)."""
    table = pd.read_csv(run / "predictions.csv")
    by_key = dict(zip(table["Path"].map(key), table.index))
    rows = [next(row for name, row in by_key.items() if file.as_posix().endswith(name)) for file in frontal]
    return table.loc[rows, list(CHEXPERT_LABELS)].to_numpy()


def test_bytes_and_pixels_one_and_many_give_the_runs_own_answer(model, frontal, own):
    data = [file.read_bytes() for file in frontal]
    many = model.signatures["serving_default"](film=tf.constant(data))
    one = model.signatures["serving_default"](film=tf.constant(data[:1]))
    pixels = model.signatures["films"](film=tf.constant(read_film(frontal[0])[None, ..., None]))
    np.testing.assert_allclose(many["probabilities"], own, atol=1e-5)
    for answer in (one, pixels):
        np.testing.assert_allclose(answer["probabilities"], own[:1], atol=1e-5)
    np.testing.assert_allclose(many["probabilities"], hierarchy.chain_rule(many["conditional"].numpy(),
                                                                          hierarchy.CHEXPERT_TREE), atol=1e-6)


def test_the_match_is_the_croppers(model, run, frontal):
    member = open_run(run)
    scores = member.croppers["Frontal"].crop([read_film(file) for file in frontal]).scores
    answer = model.signatures["serving_default"](film=tf.constant([file.read_bytes() for file in frontal]))
    np.testing.assert_allclose(answer["match"], scores, atol=1e-5)


def test_calibrated_is_platt_on_the_validation_films_under_the_tree(model, saved, run, frontal, own):
    answer = model.signatures["calibrated"](film=tf.constant([file.read_bytes() for file in frontal]))
    points = operating.validation([run], CHEXPERT_LABELS)
    expected = operating.calibrated(own, points, CHEXPERT_LABELS, hierarchy.CHEXPERT_TREE)
    np.testing.assert_allclose(answer["calibrated"], expected, atol=1e-3)  # steep fits enlarge rounding
    calls = operating.calls(own, points, CHEXPERT_LABELS)
    np.testing.assert_array_equal(answer["present"].numpy()[:, ~np.isnan(calls[0])], calls[:, ~np.isnan(calls[0])] == 1)
    assert not hierarchy.contradictions(answer["calibrated"].numpy(), hierarchy.CHEXPERT_TREE).above.any()
    assert calls[~np.isnan(calls)].min() == 0 and np.nanmax(calls) == 1
    metadata = json.loads((saved / "metadata.json").read_text())
    assert metadata["validation"] == json.loads(json.dumps(points))
    for label, row in metadata["validation"]["labels"].items():
        k = CHEXPERT_LABELS.index(label)
        assert row["threshold"] is None or np.isclose(own[:, k], row["threshold"], rtol=1e-4).any()


def test_metadata_names_every_input_and_output_of_every_signature(model, saved):
    metadata = json.loads((saved / "metadata.json").read_text())
    assert set(metadata["inputs"]) == set(model.signatures) == {"serving_default", "films", "calibrated"}
    for name, signature in model.signatures.items():
        described = {output for output, about in metadata["outputs"].items()
                     if about.get("signature", name) == name}
        assert set(signature.structured_outputs) == described
        for output, spec in signature.structured_outputs.items():
            assert metadata["outputs"][output]["dtype"] == spec.dtype.name
        (_, inputs) = signature.structured_input_signature
        assert {k: v.dtype.name for k, v in inputs.items()} == {
            k: v["dtype"] for k, v in metadata["inputs"][name].items()}
    assert metadata["labels"] == list(CHEXPERT_LABELS)


# ---------------------------------------------------------------------------------------------------- REST

def decode(value):
    """A JSON value as TensorFlow Serving reads it: {"b64": "..."} is binary, lists are tensors."""
    if isinstance(value, dict) and set(value) == {"b64"}:
        return base64.b64decode(value["b64"], validate=True)
    return [decode(item) for item in value] if isinstance(value, list) else value


def serve(model, body: str) -> dict:
    """Answer a request as https://www.tensorflow.org/tfx/serving/api_rest says (row and column format)."""
    request = json.loads(body)
    assert set(request) <= {"signature_name", "instances", "inputs"}
    assert ("instances" in request) != ("inputs" in request)
    signature = model.signatures[request.get("signature_name", "serving_default")]
    names = list(signature.structured_input_signature[1])
    if "instances" in request:
        rows = [row if isinstance(row, dict) and set(row) != {"b64"} else {names[0]: row}
                for row in request["instances"]]
        assert all(set(row) == set(names) for row in rows)
        columns = {name: [decode(row[name]) for row in rows] for name in names}
    else:
        columns = {name: decode(value) for name, value in request["inputs"].items()}
    specs = signature.structured_input_signature[1]
    tensors = {name: tf.constant(value, specs[name].dtype) for name, value in columns.items()}
    answer = {name: value.numpy().tolist() for name, value in signature(**tensors).items()}
    if "inputs" in request:
        return json.loads(json.dumps({"outputs": answer}, allow_nan=False))
    count = len(request["instances"])
    return json.loads(json.dumps({"predictions": [{name: value[k] for name, value in answer.items()}
                                                  for k in range(count)]}, allow_nan=False))


def test_requests_of_the_documented_form_are_answered(model, frontal, own):
    b64 = [{"b64": base64.b64encode(file.read_bytes()).decode()} for file in frontal[:2]]
    rows = serve(model, json.dumps({"signature_name": "calibrated", "instances": [{"film": film} for film in b64]}))
    np.testing.assert_allclose([row["probabilities"] for row in rows["predictions"]], own[:2], atol=1e-5)
    assert set(rows["predictions"][0]) == {"probabilities", "conditional", "calibrated", "present", "match", "flags",
                                            "place", "status"}
    columns = serve(model, json.dumps({"inputs": {"film": b64}}))
    np.testing.assert_allclose(columns["outputs"]["probabilities"], own[:2], atol=1e-5)
    pixels = read_film(frontal[0])[..., None].tolist()
    films = serve(model, json.dumps({"signature_name": "films", "instances": [{"film": pixels}]}))
    np.testing.assert_allclose(films["predictions"][0]["probabilities"], own[0], atol=1e-5)


def test_the_request_in_the_documentation_is_of_that_form(model):
    text = (Path(__file__).parents[2] / "docs" / "serving.md").read_text(encoding="utf-8")
    body = text.split(":predict -d '")[1].split("}]}'")[0] + "}]}"
    request = json.loads(body.replace("'\"$(base64 -w0 film.jpg)\"'", ""))
    assert request == {"signature_name": "calibrated", "instances": [{"film": {"b64": ""}}]}
    answer = json.loads(text.split("```json\n")[1].split("```")[0])
    assert set(answer["predictions"][0]) == set(model.signatures["calibrated"].structured_outputs)


def test_the_readme_s_snippet_runs_as_it_stands(saved, frontal, own, tmp_path, monkeypatch, capsys):
    text = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    snippet = next(block for block in re.findall("```python\n(.*?)```", text, re.DOTALL) if "saved_model.load" in block)
    (tmp_path / "runs" / "mine").mkdir(parents=True)
    (tmp_path / "runs" / "mine" / "saved_model").symlink_to(saved)
    (tmp_path / "film.jpg").write_bytes(frontal[0].read_bytes())
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(snippet, names)
    np.testing.assert_allclose(names["answer"]["probabilities"][0], own[0], atol=1e-5)
    assert "tf.Tensor" in capsys.readouterr().out


# ---------------------------------------------------------------------------------------------------- refusals

def png_of_size(width: int, height: int) -> bytes:
    """A PNG whose header says so, with hardly any pixels."""
    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
            + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b""))


def png(image) -> bytes:
    return cv2.imencode(".png", image)[1].tobytes()


BAD = {png_of_size(60000, 60000): "too large", png_of_size(8, 8): "too small", b"": "empty",
       b"<html>": "no JPEG or PNG",
       bytes(128) + b"DICM" + bytes(100): "DICOM", png(np.zeros((64, 64), np.uint8)): "no picture content",
       png(np.eye(64, dtype=np.uint8))[:-20]: "cut off", b"\xff\xd8\xff": "damaged"}


def test_a_bad_film_gets_its_status_and_the_others_of_its_batch_are_answered(model, saved, frontal, own):
    metadata = json.loads((saved / "metadata.json").read_text())
    films = [frontal[0].read_bytes(), *BAD, frontal[1].read_bytes()]
    answer = {name: value.numpy() for name, value in model.signatures["calibrated"](film=tf.constant(films)).items()}
    for code, reason in zip(answer["status"][1:-1], BAD.values()):
        assert code > 0 and reason in metadata["status"][str(code)]
    good = [0, -1]
    assert (answer["status"][good] == 0).all() and (answer["place"][good] >= 0).all()
    np.testing.assert_allclose(answer["probabilities"][good], own[:2], atol=1e-5)
    for name in ("probabilities", "conditional", "calibrated", "match"):
        assert np.isnan(answer[name][1:-1]).all() and not np.isnan(answer[name][good]).any()
    assert not answer["present"][1:-1].any() and (answer["place"][1:-1] == -1).all()
    assert not answer["flags"][1:-1].any()
    pixels = np.stack([np.zeros((40, 40), np.uint8), np.eye(40, dtype=np.uint8)])[..., None]
    assert model.signatures["films"](film=tf.constant(pixels))["status"].numpy().tolist() == [8, 0]


def test_every_kind_of_png_and_jpeg_is_read_as_predict_reads_it(model):
    """Probabilities of one film stored in every way; pixels that lose nothing give the same to the last bit."""
    random = np.random.default_rng(0)
    grey = np.sort(random.integers(0, 256, (60, 70), dtype=np.uint8))
    colour = np.dstack([grey, grey // 2, random.integers(0, 256, grey.shape, dtype=np.uint8)])
    alpha = random.integers(0, 256, grey.shape, dtype=np.uint8)
    deep = random.integers(0, 65536, (60, 70, 4), dtype=np.uint16)
    films = [png(image) for image in (grey, colour, np.dstack([colour, alpha]), deep, deep[..., :3], deep[..., 0],
                                      deep[..., 0] // 64)]
    films += [cv2.imencode(".jpg", image)[1].tobytes() for image in (grey, colour)]
    films.append(pypng_palette(grey))
    answer = model.signatures["serving_default"](film=tf.constant(films))
    assert not answer["status"].numpy().any()
    for k, film in enumerate(films):
        pixels = read_film(film)
        alone = model.signatures["films"](film=tf.constant(pixels[None, ..., None]))
        np.testing.assert_array_equal(alone["conditional"].numpy()[0], answer["conditional"].numpy()[k])
        np.testing.assert_array_equal(alone["match"], answer["match"][k:k + 1])
        code = plausible.flag(pixels, plausible.colour(film))
        assert int(answer["flags"][k]) == code and int(alone["flags"][0]) == code & ~plausible.FLAGS["colour"].bit


def pypng_palette(grey) -> bytes:
    """A palette PNG whose indices are not the levels."""
    order = np.random.default_rng(1).permutation(256).astype(np.uint8)
    rows = b"".join(b"\0" + row.tobytes() for row in np.argsort(order).astype(np.uint8)[grey])

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", *grey.shape[::-1], 8, 3, 0, 0, 0)
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"PLTE", np.repeat(order, 3).tobytes())
            + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))


def test_a_changed_savedmodel_does_not_pass_the_check(saved, frontal, own):
    assert saved_model.check(saved, frontal[:3], own[:3]) < 1e-5
    with pytest.raises(InputError, match="differs from the run's own probabilities"):
        saved_model.check(saved, frontal[:3], own[:3] + 0.01)


# ---------------------------------------------------------------------------------------------------- as a model again

def test_predict_takes_the_savedmodel_as_it_takes_the_run(saved, run, frontal, tmp_path, capsys):
    film = frontal[0]
    answers = []
    for model in (saved, run, run / "model.keras"):
        assert predict_command.main([str(film), "--model", str(model), "--quiet"]) == 0
        answers.append(capsys.readouterr().out)
    assert answers[0] == answers[1] == answers[2] and len(answers[0].splitlines()) == 15
    assert isinstance(open_model(saved), Saved)
    for arguments in (("--tta", "2"), ("--average", "conditional"), ("--heatmaps", str(tmp_path / "maps"))):
        with pytest.raises(InputError, match="run folder"):
            predict_command.main([str(film), "--model", str(saved), *arguments, "--quiet"])
    (tmp_path / "saved_model.pb").write_bytes(b"")
    with pytest.raises(InputError, match=r"metadata\.json"):
        open_model(tmp_path)


def test_an_ensemble_is_the_mean_with_its_spread(run, data, frontal, tmp_path, capsys):
    other = make_run(tmp_path / "other", data, seed=1)
    members = [open_run(run), open_run(other)]
    folder = saved_model.export(members, tmp_path / "both")
    answer = tf.saved_model.load(str(folder)).signatures["calibrated"](film=tf.constant([frontal[0].read_bytes()]))
    table, _ = next(predicting.predict_films(members, [asked.Film(frontal[0], "x")]))
    np.testing.assert_allclose(answer["probabilities"], table[list(CHEXPERT_LABELS)], atol=1e-5)
    np.testing.assert_allclose(answer["spread"], table[[f"{name} [sd]" for name in CHEXPERT_LABELS]], atol=1e-5)
    arguments = [str(frontal[0]), "--model", str(folder), "--out", str(tmp_path / "x.csv"), "--quiet"]
    assert predict_command.main(arguments) == 0
    again = pd.read_csv(tmp_path / "x.csv")
    np.testing.assert_allclose(again["Edema [sd]"], table["Edema [sd]"], atol=1e-5)
    assert "ensemble of 2" in (folder / "MODEL_CARD.md").read_text()


def test_a_run_without_evaluation_is_served_without_calibration(run, data, tmp_path):
    bare = make_run(tmp_path / "bare", data)
    for name in ("predictions.csv", "truth.csv"):
        (bare / name).unlink()
    folder = saved_model.export([open_run(bare)], tmp_path / "saved")
    assert set(tf.saved_model.load(str(folder)).signatures) == {"serving_default", "films"}
    assert json.loads((folder / "metadata.json").read_text())["validation"] is None
    assert "Not known" in (folder / "MODEL_CARD.md").read_text()


def test_the_model_card_holds_the_runs_own_facts(saved):
    card, metadata = (saved / "MODEL_CARD.md").read_text(), json.loads((saved / "metadata.json").read_text())
    assert "not a medical device" in card.lower() and "drawn films" not in card
    assert metadata["synthetic"] is None
    for label, row in metadata["validation"]["labels"].items():
        assert label in card and f"| {row['positives']:.0f}" in card
        if row["auroc"] is not None:
            assert f"{row['auroc']:.3f} ({row['auroc_low']:.3f} to {row['auroc_high']:.3f})" in card
    recipe = metadata["members"][0]["recipe"]
    assert recipe["policy"] in card and metadata["members"][0]["data"]["fingerprint"][:16] in card


@pytest.mark.slow
def test_saved_model_cli_reads_it(saved):
    code = "import sys; from tensorflow.python.tools.saved_model_cli import main; sys.argv[0] = 'x'; main()"
    shown = subprocess.run([sys.executable, "-c", code, "show", "--dir", str(saved), "--tag_set", "serve",
                            "--signature_def", "calibrated"], capture_output=True, text=True, timeout=200)
    for text in ("inputs['film']", "DT_STRING", "outputs['calibrated']", "(-1, 14)", "outputs['present']", "DT_BOOL"):
        assert text in shown.stdout, shown.stdout + shown.stderr[-2000:]


def test_the_same_run_gives_the_same_bytes_and_no_place_of_this_machine(run, saved, tmp_path):
    """In another process, whose hash seed, memory and start differ."""
    code = ("import sys; from chexpert_hier.export import export; from chexpert_hier.finished import open_run; "
            "export([open_run(sys.argv[1])], sys.argv[2])")
    again = []
    for name in ("one", "two"):
        subprocess.run([sys.executable, "-c", code, str(run), str(tmp_path / name)], check=True, timeout=200,
                       capture_output=True, cwd=Path(__file__).parents[2])
        again.append({file.relative_to(tmp_path / name): file.read_bytes() for file in (tmp_path / name).rglob("*")
                      if file.is_file()})
    assert again[0] == again[1] and len(again[0]) >= 7
    assert all(str(run.parent).encode() not in content for content in again[0].values())


def test_a_run_with_dropout_gives_the_same_weights_each_time(run, tmp_path):
    """Keras draws the seed of dropout whenever a network is opened."""
    from chexpert_hier.network.model import build_model

    shutil.copytree(run, tmp_path / "run")
    labels = open_run(run).labels
    build_model("tiny", labels, image_size=32, head="hbce", seed=0).save(tmp_path / "run" / "model.keras")
    folders = [saved_model.export([open_run(tmp_path / "run")], tmp_path / name) for name in ("one", "two")]
    for name in ("variables.index", "variables.data-00000-of-00001"):  # a process counts on in the graph's names
        assert len({(folder / "variables" / name).read_bytes() for folder in folders}) == 1, name


def test_a_model_of_drawn_films_says_so_and_makes_no_calls(run, data, tmp_path):
    drawn = make_run(tmp_path / "drawn", data)
    folder = saved_model.export([open_run(drawn)], tmp_path / "saved")
    metadata = json.loads((folder / "metadata.json").read_text())
    assert "drawn films" in metadata["synthetic"] and "present" not in metadata["outputs"]
    signature = tf.saved_model.load(str(folder)).signatures["calibrated"]
    assert "present" not in signature.structured_outputs and "calibrated" in signature.structured_outputs
    assert "drawn films" in (folder / "MODEL_CARD.md").read_text()


def test_the_command_wants_something_to_write_and_replaces_nothing(run, saved):
    with pytest.raises(InputError, match="nothing to write"):
        export_command.main(["--model", str(run)])
    with pytest.raises(InputError, match="exists"):
        export_command.main(["--model", str(run), "--out", str(saved)])
