"""The ONNX file: the SavedModel's and the run's own answers from films of any size, by ONNX Runtime alone."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from finished import make_films, make_run
from test_export import of_a_hospital

from chexpert_hier.errors import InputError
from chexpert_hier.export import __main__ as export_command
from chexpert_hier.export import saved_model
from chexpert_hier.films import plausible
from chexpert_hier.films.decode import read_film
from chexpert_hier.films.template import Cropper
from chexpert_hier.finished import members
from chexpert_hier.finished.asked import Film
from chexpert_hier.finished.members import open_model, open_onnx, open_run
from chexpert_hier.heatmaps import maps
from chexpert_hier.predict import predicting
from chexpert_hier.predict.engine import Engine

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_films(tmp_path_factory.mktemp("onnx"))


@pytest.fixture(scope="module")
def run(data):
    from chexpert_hier.export import onnx as onnx_export

    run = of_a_hospital(make_run(data.parent / "run", data))
    assert onnx_export.export([open_run(run)], run / "model.onnx") <= 1e-6
    return run


@pytest.fixture(scope="module")
def films(data):
    """Films of many shapes, some of them nothing like a film."""
    random = np.random.default_rng(0)
    real = [read_film(file) for file in sorted((data / "valid").rglob("*frontal.jpg"))[:6]]
    odd = [random.integers(0, 256, shape, dtype=np.uint8)
           for shape in ((32, 32), (256, 256), (513, 100), (1100, 900), (40, 700), (512, 512))]
    steps = np.kron(random.integers(0, 2, (8, 8)), np.ones((40, 40))).astype(np.uint8) * 255
    nearly_flat = np.zeros((300, 300), np.uint8)
    nearly_flat[0, 0] = 1
    return [*real, *odd, steps, nearly_flat, real[0][::-1].copy(), 255 - real[1]]


def test_films_of_any_size_get_the_savedmodels_answers_at_the_same_place(run, films):
    folder = saved_model.export([open_run(run)], run.parent / "saved")
    ours, theirs = (open_model(model).answer(films) for model in (run / "model.onnx", folder))
    crops = open_run(run).croppers["Frontal"].crop(films)
    np.testing.assert_array_equal(ours["place"], crops.places)
    np.testing.assert_array_equal(ours["place"], theirs["place"])
    np.testing.assert_allclose(ours["match"], crops.scores, atol=1e-6)
    for name in ("probabilities", "conditional", "match"):
        np.testing.assert_allclose(ours[name], theirs[name], atol=1e-5)
    np.testing.assert_array_equal(ours["flags"], [plausible.flag(film) for film in films])
    np.testing.assert_array_equal(ours["flags"], theirs["flags"])
    assert len(set(ours["flags"].tolist())) > 2 and not ours["status"].any()


def test_the_docs_snippet_answers_without_this_package(run, data, tmp_path):
    text = (Path(__file__).parents[2] / "docs" / "serving.md").read_text(encoding="utf-8")
    snippet = text.split("<!-- onnx -->\n```python\n")[1].split("```")[0]
    assert "chexpert_hier" not in snippet and len(snippet.strip().splitlines()) <= 10
    film = sorted((data / "valid").rglob("*frontal.jpg"))[0]
    (tmp_path / "film.png").write_bytes(film.read_bytes())
    (tmp_path / "model.onnx").write_bytes((run / "model.onnx").read_bytes())
    shown = subprocess.run([sys.executable, "-W", "error", "-c", snippet], capture_output=True, text=True, cwd=tmp_path,
                           timeout=100, check=True)
    expected = open_onnx(run / "model.onnx").answer([read_film(film)])["probabilities"][0]
    found = {line.rsplit(" ", 1)[0]: float(line.rsplit(" ", 1)[1]) for line in shown.stdout.splitlines()}
    assert [found[name] for name in open_run(run).labels] == pytest.approx(expected, abs=1e-3) and not shown.stderr


def test_calls_calibration_and_maps_are_those_of_predict(run, data):
    files = sorted((data / "valid").rglob("*frontal.jpg"))[:3]
    greys, member = [read_film(file) for file in files], open_run(run)
    found = open_onnx(run / "model.onnx").answer(greys)
    engine = Engine([member], validation=member.validation())
    table, _ = next(predicting.predict_films(engine, [Film(file, file.name) for file in files]))
    np.testing.assert_allclose(found["calibrated"], table[[f"{name} [calibrated]" for name in member.labels]],
                               atol=1e-3)  # steep fits enlarge rounding
    calls = table[[f"{name} [call]" for name in member.labels]].to_numpy()
    np.testing.assert_array_equal(found["present"][~np.isnan(calls)], calls[~np.isnan(calls)] == 1)
    crops = member.croppers["Frontal"].crop(greys).crops
    heat = maps.heatmaps(member.model, np.asarray(member.inputs(crops)), method="cam")
    np.testing.assert_allclose(found["maps"], heat.transpose(0, 3, 1, 2), atol=1e-5)


@pytest.mark.parametrize(("changes", "head"), [
    ({"head": "hbce"}, "hbce"), ({"policy": "u-multiclass"}, "three-class"),
    ({"crop": "none", "resize": "area"}, "dense"),
    ({"crop": "centre", "plain_view": ("centre_crop:200",), "resize": "bilinear"}, "dense")])
def test_every_head_and_every_way_of_cropping(changes, head, run, data, tmp_path):
    from chexpert_hier.export import onnx as onnx_export
    from chexpert_hier.network.model import build_model

    member = open_run(run)
    recipe = dataclasses.replace(member.recipe, **changes)
    cropper = Cropper(recipe.crop, member.croppers["Frontal"].template if recipe.crop == "template" else None,
                      224 if recipe.crop == "none" else 256, 224, recipe.resize)
    model = build_model("tiny", member.labels, image_size=32, head=head, seed=1)
    changed = dataclasses.replace(member, recipe=recipe, croppers={"Frontal": cropper}, model=model)
    assert onnx_export.export([changed], tmp_path / "x.onnx") <= 1e-6
    film = read_film(sorted((data / "valid").rglob("*frontal.jpg"))[0])
    found = open_onnx(tmp_path / "x.onnx").answer([film])
    crops = cropper.crop([film])
    np.testing.assert_allclose(found["conditional"], changed.outputs(crops.crops), atol=1e-6)
    assert (found["place"] == crops.places).all() and ("match" in found) == (recipe.crop == "template")
    heat = maps.heatmaps(model, np.asarray(changed.inputs(crops.crops)))  # CAM, or Grad-CAM behind the head of HBCE
    np.testing.assert_allclose(found["maps"][0], heat[0].transpose(2, 0, 1), atol=1e-6)


def test_an_ensemble_is_one_file_also_where_members_crop_differently(run, data, films, tmp_path):
    from chexpert_hier.export import onnx as onnx_export

    other = make_run(tmp_path / "other", data, seed=1, crop="centre")
    both = [open_run(run), open_run(other)]
    assert onnx_export.export(both, tmp_path / "both.onnx") <= 1e-6
    found = open_onnx(tmp_path / "both.onnx").answer(films[:2])
    each = [one.final(one.outputs(one.croppers["Frontal"].crop(films[:2]).crops)) for one in both]
    np.testing.assert_allclose(found["probabilities"], np.mean(each, axis=0), atol=1e-6)
    np.testing.assert_allclose(found["spread"], np.std(each, axis=0), atol=1e-6)
    with pytest.raises(InputError, match="crop films differently"):
        onnx_export.export(both, tmp_path / "x.onnx", crops_only=True)
    assert not (tmp_path / "x.onnx").exists()


def test_the_file_of_the_network_alone_takes_crops(run, films, tmp_path):
    export_command.main(["--model", str(run), "--onnx", str(tmp_path / "x.onnx"), "--crops"])
    session = onnxruntime.InferenceSession(str(tmp_path / "x.onnx"))
    member = open_run(run)
    crops = member.croppers["Frontal"].crop(films).crops
    found = dict(zip([one.name for one in session.get_outputs()], session.run(None, {"crops": crops})))
    np.testing.assert_allclose(found["conditional"], member.outputs(crops), atol=1e-6)
    assert set(found) == {"probabilities", "conditional", "maps"}
    with pytest.raises(InputError, match="takes crops"):
        open_onnx(tmp_path / "x.onnx")


def test_the_file_says_what_it_is_the_same_bytes_every_time(run, tmp_path):
    from chexpert_hier.export import onnx as onnx_export

    onnx_export.export([open_run(run)], tmp_path / "again.onnx")
    content = (run / "model.onnx").read_bytes()
    assert (tmp_path / "again.onnx").read_bytes() == content and str(run.parent).encode() not in content
    model = onnx.load(str(run / "model.onnx"))
    onnx.checker.check_model(model, full_check=True)
    about = {entry.key: entry.value for entry in model.metadata_props}
    metadata = json.loads(about["metadata"])
    assert json.loads(about["labels"]) == list(open_run(run).labels) and "not a medical device" in about["intended_use"]
    assert set(metadata["outputs"]) == {output.name for output in model.graph.output} and "synthetic" not in about


# ---------------------------------------------------------------------------------------------------- as an engine

def test_a_film_that_is_not_good_has_a_status_and_no_numbers(run):
    flat, small = np.full((60, 60), 7, np.uint8), np.eye(20, dtype=np.uint8)
    found = open_onnx(run / "model.onnx").answer([flat, small])
    assert found["status"].tolist() == [8, 6] and np.isnan(found["probabilities"]).all()
    assert np.isnan(found["match"]).all() and np.isnan(found["maps"]).all() and not found["present"].any()
    assert (found["place"] == -1).all() and not found["flags"].any()


def test_a_run_opens_with_its_own_onnx_file_only(run, data, tmp_path):
    assert open_run(run, "auto").engine == open_run(run, "onnx").engine == "onnx" and open_run(run).engine == "keras"
    other = make_run(tmp_path / "other", data, seed=1)
    assert open_run(other, "auto").engine == "keras"
    with pytest.raises(InputError, match=r"model\.onnx: is missing; write it"):
        open_run(other, "onnx")
    (other / members.ONNX).write_bytes((run / "model.onnx").read_bytes())
    assert open_run(other, "auto").engine == "keras"
    with pytest.raises(InputError, match="is of another network"):
        open_run(other, "onnx")
    (other / members.ONNX).write_bytes((run / "model.onnx").read_bytes()[:2000])
    assert open_run(other, "auto").engine == "keras"
    with pytest.raises(InputError, match=r"model\.onnx: (is damaged|expected an ONNX file)"):
        open_run(other, "onnx")


def test_weights_in_other_files_and_foreign_operations_are_refused(run, tmp_path):
    model = onnx.load(str(run / "model.onnx"))
    onnx.save(model, str(tmp_path / "far.onnx"), save_as_external_data=True, size_threshold=0, location="weights")
    with pytest.raises(InputError, match="weights lie in other files"):
        open_onnx(tmp_path / "far.onnx")
    model = onnx.load(str(run / "model.onnx"))
    constant = model.graph.node.add(op_type="Constant", output=["far"]).attribute.add(name="sparse_value")
    constant.type = onnx.AttributeProto.SPARSE_TENSOR
    constant.sparse_tensor.values.external_data.add(key="location", value="/etc/passwd")
    (tmp_path / "sparse.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(InputError, match="weights lie in other files"):
        open_onnx(tmp_path / "sparse.onnx")
    model = onnx.load(str(run / "model.onnx"))
    about = next(one for one in model.metadata_props if one.key == "metadata")
    about.value = "[" * 100_000
    onnx.save(model, str(tmp_path / "deep.onnx"))
    with pytest.raises(InputError, match="with its metadata"):
        open_onnx(tmp_path / "deep.onnx")
    model = onnx.load(str(run / "model.onnx"))
    del model.graph.output[:]
    (tmp_path / "silent.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(InputError, match=r"silent\.onnx: gives no outputs"):
        open_onnx(tmp_path / "silent.onnx")
    model = onnx.load(str(run / "model.onnx"))
    model.graph.node[0].domain = "com.example"
    onnx.save(model, str(tmp_path / "foreign.onnx"))
    with pytest.raises(InputError, match=r"operations of 'com\.example'"):
        open_onnx(tmp_path / "foreign.onnx")
