"""The main job as a user runs it: one command, the run folder, the SavedModel in plain TensorFlow, resume, damage."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from chexpert_hier import evaluate, hierarchy
from chexpert_hier.phantom import making

QUICK = ("--recipe", "phantom", "--arch", "tiny", "--image-size", "32", "--epochs", "1", "--set", "template_films=20",
         "--quiet")
FILES = {"recipe.json", "split.csv", "template.png", "log.csv", "stage1.keras", "model.keras", "predictions.csv",
         "conditional.csv", "truth.csv", "evaluation.csv", "evaluation.json", "evaluation.html", "report.html",
         "saved_model"}


def command(module: str, *arguments, home: Path, code: int = 0) -> subprocess.CompletedProcess:
    environment = {**os.environ, "CHEXPERT_HIER_HOME": str(home), "KERAS_HOME": str(home / "keras")}
    answer = subprocess.run([sys.executable, "-m", f"chexpert_hier.{module}", *map(str, arguments)], text=True,
                            capture_output=True, env=environment, cwd=home, timeout=500)
    assert answer.returncode == code, answer.stderr[-3000:]
    assert "Traceback" not in answer.stderr
    return answer


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def data(home) -> Path:
    return making.make(home / "films", patients=24, valid_patients=12, seed=3, processes=1)


@pytest.fixture(scope="module")
def run(home, data) -> Path:
    command("run", *QUICK, "--data", data, "--out", home / "run", home=home)
    return home / "run"


def test_the_run_folder_holds_all_that_later_commands_need(run, data):
    assert {path.name for path in run.iterdir()} >= FILES
    assert not [path for path in run.rglob("*.part*")]
    valid = pd.read_csv(data / "valid.csv")
    predictions, conditional = pd.read_csv(run / "predictions.csv"), pd.read_csv(run / "conditional.csv")
    frontal = valid[valid["Frontal/Lateral"] == "Frontal"]
    assert predictions["Path"].tolist() == frontal["Path"].tolist()
    tree = hierarchy.CHEXPERT_TREE
    product = hierarchy.chain_rule(conditional[list(tree.labels)].to_numpy(), tree)
    np.testing.assert_allclose(predictions[list(tree.labels)], product, atol=1e-6)
    seen = json.loads((run / "recipe.json").read_text())["positives_seen"]
    assert seen["Lung Opacity"] == seen["Enlarged Cardiomediastinum"] == 0 < seen["Pleural Effusion"] < 1
    log = pd.read_csv(run / "log.csv")
    assert log["stage"].tolist() == ["stage1", "stage2"]


def test_the_files_alone_give_the_same_evaluation(run):
    result = evaluate.evaluate(evaluate.read_predictions(run / "predictions.csv"),
                               evaluate.read_truth(run / "truth.csv"), judging=evaluate.Judging(replicates=10))
    stored = pd.read_csv(run / "evaluation.csv")
    np.testing.assert_allclose(result.table["auroc"], stored["auroc"], atol=1e-6)


def test_plain_tensorflow_serves_the_runs_own_probabilities(run, data, home):
    code = """
import sys, json, numpy as np, tensorflow as tf
assert not any(name.startswith("chexpert_hier") for name in sys.modules)
model = tf.saved_model.load(sys.argv[1])
films = sys.argv[2:]
answer = model.signatures["serving_default"](film=tf.constant([open(f, "rb").read() for f in films]))
pixels = tf.io.decode_jpeg(open(films[0], "rb").read(), dct_method="INTEGER_ACCURATE")
one = model.signatures["films"](film=pixels[None])
print(json.dumps([{k: v.numpy().tolist() for k, v in a.items()} for a in (answer, one)]))
"""
    predictions = pd.read_csv(run / "predictions.csv").head(5)
    films = [str(data.parent / path) for path in predictions["Path"]]
    answer = subprocess.run([sys.executable, "-c", code, str(run / "saved_model"), *films], capture_output=True,
                            text=True, cwd=home, timeout=300)
    assert answer.returncode == 0, answer.stderr[-2000:]
    batch, one = json.loads(answer.stdout.splitlines()[-1])
    expected = predictions.drop(columns="Path").to_numpy()
    np.testing.assert_allclose(batch["probabilities"], expected, atol=1e-5)
    np.testing.assert_allclose(one["probabilities"], expected[:1], atol=1e-5)
    metadata = json.loads((run / "saved_model" / "metadata.json").read_text())
    assert metadata["labels"] == list(predictions.columns[1:]) and "research use only" in metadata["intended_use"]


def test_predict_answers_as_the_run_did_and_an_ensemble_is_the_mean(run, data, home):
    command("predict", data / "valid.csv", "--model", run, "--skip-bad", "--out", home / "one.csv", home=home)
    one = pd.read_csv(home / "one.csv").set_index("Path")
    own = pd.read_csv(run / "predictions.csv").set_index("Path")
    np.testing.assert_allclose(one.loc[own.index, own.columns], own, atol=1e-5)
    assert pd.read_csv(home / "one.skipped.csv")["reason"].str.contains("lateral").all()
    film = data.parent / own.index[0]
    command("predict", film, "--model", run, run, "--out", home / "two.csv", home=home)
    both = pd.read_csv(home / "two.csv")
    np.testing.assert_allclose(both[own.columns], own.iloc[:1], atol=1e-5)
    np.testing.assert_allclose(both["Edema [sd]"], 0, atol=1e-6)
    assert list(home.glob(".two*")) == [home / ".two.csv.job"]  # whose answers these are, for --resume
    printed = command("predict", film, "--model", run, home=home).stdout
    assert "Pneumonia" in printed and len(printed.splitlines()) == 15


def test_resuming_a_finished_run_changes_nothing(run, data, home):
    before = {name: (run / name).read_bytes() for name in ("log.csv", "predictions.csv", "split.csv")}
    command("run", "--out", run, "--resume", "--quiet", home=home)
    assert before == {name: (run / name).read_bytes() for name in before}


def test_a_run_is_not_resumed_with_another_recipe_nor_overwritten(run, data, home):
    other = command("run", *QUICK, "--data", data, "--out", run, "--resume", "--policy", "u-zeros", home=home, code=2)
    assert "policy" in other.stderr and len(other.stderr.strip().splitlines()) == 1
    again = command("run", *QUICK, "--data", data, "--out", run, home=home, code=2)
    assert "--resume" in again.stderr


def test_the_users_own_labels_and_tree(data, home):
    for name in ("train", "valid"):
        table = pd.read_csv(data / f"{name}.csv").rename(columns={"Lung Opacity": "Haze", "Edema": "Wet lung"})
        (home / "own" / name).mkdir(parents=True, exist_ok=True)
        table["Path"] = table["Path"].str.replace("films/", "own/")
        table.to_csv(home / "own" / f"{name}.csv", index=False)
        shutil.copytree(data / name, home / "own" / name, dirs_exist_ok=True)
    (home / "tree.json").write_text(json.dumps({"Wet lung": ["Haze"]}))
    command("run", *QUICK, "--reader", "csv", "--labels", "Haze,Wet lung,Fracture", "--tree", home / "tree.json",
            "--data", home / "own", "--out", home / "own run", "--no-export", home=home)
    table = pd.read_csv(home / "own run" / "predictions.csv")
    assert list(table.columns) == ["Path", "Haze", "Wet lung", "Fracture"]
    assert (table["Wet lung"] <= table["Haze"]).all()


@pytest.mark.parametrize(("damage", "hint"), [
    (b"", "empty"), (b"<html>not found</html>", "row 2"), (None, "row 2")])
def test_a_film_that_cannot_be_used_is_named_or_left_out_on_request(damage, hint, data, home, request):
    place = home / f"damaged{abs(hash(request.node.name))}" / "films"
    shutil.copytree(data, place)
    film = place.parent / pd.read_csv(place / "train.csv")["Path"][0]
    film.unlink() if damage is None else film.write_bytes(damage)
    arguments = (*QUICK, "--data", place, "--no-export")
    refused = command("run", *arguments, "--out", place.parent / "refused", home=home, code=2)
    assert hint in refused.stderr and "patient00001" in refused.stderr
    if damage:  # one of them is enough to see that the run goes on
        command("run", *arguments, "--out", place.parent / "skipped", "--skip-bad", home=home)
        assert len(pd.read_csv(place.parent / "skipped" / "skipped.csv")) == 1


def test_missing_imagenet_weights_are_said_before_any_work(data, home):
    answer = command("run", "--data", data, "--arch", "densenet121", "--out", home / "weights", home=home, code=2)
    assert "densenet121_weights_tf_dim_ordering_tf_kernels_notop.h5" in answer.stderr
    assert not (home / "weights" / "log.csv").exists()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["nih_mini", "nih_600"])
def test_real_films_run_to_the_end(name, shared_data, home):
    command("run", "--data", shared_data / name, "--weights", "none", "--arch", "tiny", "--epochs", "1", "--out",
            home / name, "--quiet", home=home)
    assert {path.name for path in (home / name).iterdir()} >= FILES


@pytest.mark.slow
def test_the_first_command_of_the_readme_reaches_what_it_promises(home):
    command("run", "--arch", "densenet121", "--out", home / "first", home=home)
    table = pd.read_csv(home / "first" / "evaluation.csv").set_index("label")
    assert len(pd.read_csv(home / "first" / "predictions.csv")) >= 300
    assert table.loc["mean of five", "auroc"] >= 0.75


@pytest.mark.slow
def test_a_run_without_paths_names_no_place_and_is_resumed_with_data(data, home):
    out = home / "nowhere" / "run"
    command("run", *QUICK, "--data", data, "--cache", home / "kept-crops", "--no-paths", "--out", out, home=home)
    typed = [str(home).encode(), b"--no-paths", b"template_films=20"]
    found = {(path.name, word) for path in out.rglob("*") if path.is_file() for word in typed
             if word in path.read_bytes()}
    assert not found
    assert "Read from</dt><dd>not kept" in (out / "report.html").read_text()
    assert "<img" in (out / "report.html").read_text()  # examples on films all the same
    (out / "model.keras").unlink()
    words = command("run", "--out", out, "--resume", "--quiet", home=home, code=2).stderr
    assert "give --data and --cache again" in words
    before = (out / "recipe.json").read_bytes(), (out / "predictions.csv").read_bytes()
    command("run", "--out", out, "--resume", "--data", data, "--cache", home / "kept-crops", "--quiet", home=home)
    assert before == ((out / "recipe.json").read_bytes(), (out / "predictions.csv").read_bytes())


@pytest.mark.slow
def test_a_run_is_repeated_bit_for_bit(data, home):
    command("run", *QUICK, "--data", data, "--deterministic", "--no-export", "--out", home / "first-time", home=home)
    command("run", "--like", home / "first-time", "--no-export", "--out", home / "second-time", "--quiet", home=home)
    names = ("predictions.csv", "conditional.csv", "split.csv", "template.png", "evaluation.csv")
    assert [(home / "first-time" / name).read_bytes() for name in names] == [
        (home / "second-time" / name).read_bytes() for name in names]
    facts = [json.loads((home / name / "recipe.json").read_text()) for name in ("first-time", "second-time")]
    assert facts[0]["options"] == facts[1]["options"] and facts[1]["options"]["deterministic"]
