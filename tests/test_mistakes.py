"""Mistakes of a person who starts a run: one line each, at once, and neither a folder nor a lock is left behind."""

import json
import os
import shutil

import numpy as np
import pytest
from finished import make_films

from chexpert_hier import commands, run
from chexpert_hier.run import steps

QUICK = ("--recipe", "phantom", "--arch", "tiny", "--image-size", "32", "--epochs", "1", "--no-export", "--quiet")


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    return make_films(tmp_path_factory.mktemp("films"))


@pytest.fixture
def changed(films, tmp_path):
    """A copy of the films whose table `change` edits: text -> text."""
    def copy(change, name="train.csv"):
        folder = tmp_path / "data" / films.name
        shutil.copytree(films, folder)
        (folder / name).write_text(change((folder / name).read_text()))
        return folder
    return copy


def damaged(films, changed, tmp_path):
    folder = changed(lambda text: text)
    for film in folder.rglob("train/**/*frontal.jpg"):
        film.write_bytes(b"no picture")
    return ["--data", folder]


def missing_film(films, changed, tmp_path):
    folder = changed(lambda text: text)
    next(folder.rglob("valid/**/*frontal.jpg")).unlink()
    return ["--data", folder]


def another_cache(films, changed, tmp_path):
    cache = tmp_path / "cache"
    cache.mkdir()
    (cache / "meta.json").write_text("{}")
    return ["--data", films, "--cache", cache]


def written(name, text):
    def write(films, changed, tmp_path):
        (tmp_path / name).write_text(text)
        return tmp_path / name
    return write


def tree(films, changed, tmp_path):
    file = written("tree.json", json.dumps({"Edemaa": ["Lung Opacity"]}))(films, changed, tmp_path)
    return ["--data", films, "--reader", "csv", "--labels", "Edema,Lung Opacity", "--tree", file]


# What is given beside QUICK and --out, and words of the answer.
MISTAKES = {
    "architecture": (["--arch", "densenet12"], "Did you mean densenet121"),
    "policy": (["--policy", "u-one+ct"], "Did you mean u-ones"),
    "recipe": (["--recipe", "phantum"], "Did you mean phantom"),
    "precision": (["--precision", "float64"], "Did you mean float32"),
    "reading of conditional training": (["--ct-rows", "leafs"], "Did you mean leaves"),
    "weights": (["--weights", "imagenett"], "Did you mean imagenet"),
    "weights that do not exist for it": (["--weights", "imagenet"], "tiny has no ImageNet weights"),
    "field": (["--set", "stage1.epoch=3"], "Did you mean epochs"),
    "epochs": (["--epochs", "0"], "expected 1 or more"),
    "batch size": (["--batch-size", "0"], "expected 1 or more"),
    "learning rate": (["--learning-rate", "0"], "learning_rate"),
    "image size": (["--image-size", "8"], "16"),
    "limit": (["--limit", "0"], "expected 1 or more"),
    "checkpoints": (["--checkpoint-every", "-1"], "expected 1 or more"),
    "split": (["--split", "officially"], "Did you mean official"),
    "reader": (["--reader", "chexpart"], "Did you mean chexpert"),
    "tree": (["--tree", "chexper"], "Did you mean chexpert"),
    "a run to repeat": (["--like", "nowhere"], "nowhere"),
    "policy without its predictions": (["--policy", "u-selftrained"], "needs --selftrained"),
    "another layout without data": (["--recipe", "chexnet", "--weights", "none"], "give --data"),
    "no such folder": (["--data", "nowhere"], "no such folder"),
    "a file of weights that is none": (lambda *at: ["--data", at[0], "--weights", written("w.h5", "no")(*at)], "w.h5"),
    "a file for a folder": (lambda films, *_: ["--data", films / "train.csv"], "is a file"),
    "an archive for a folder": (lambda *at: ["--data", written("x.zip", "PK")(*at)], "is a file"),
    "an empty folder": (lambda films, changed, tmp_path: ["--data", tmp_path], "no train.csv"),
    "an empty table": (lambda films, changed, _: ["--data", changed(lambda text: "")], "is empty"),
    "a cell": (lambda films, changed, _: ["--data", changed(lambda text: text.replace("1.0", "7.0", 1))], "7.0"),
    "a column": (lambda films, changed, _: ["--data", changed(lambda text: text.replace("Edema", "Oedema"))],
                 "Did you mean Oedema"),
    "a row": (lambda films, changed, _: ["--data", changed(lambda text: text + "x,y\n")], "fields"),
    "labels": (lambda films, *_: ["--data", films, "--reader", "csv", "--labels", "Edma"], "Did you mean Edema"),
    "tree of other labels": (tree, "Edemaa"),
    "a film is missing": (missing_film, "is missing"),
    "films are damaged": (damaged, "not an image"),
    "statistics without a cache": (lambda films, *_: ["--data", films, "--normalise", "dataset", "--set",
                                                      "cache=false"], "add --cache"),
    "a cache of something else": (another_cache, "cache"),
    "predictions that are none": (lambda *at: ["--data", at[0], "--policy", "u-selftrained", "--selftrained",
                                               written("p.csv", "Path,Edema\nx.jpg,2\n")(*at)], "p.csv"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_gets_one_line_and_leaves_nothing(name, films, changed, tmp_path, monkeypatch, capsys):
    given, words = MISTAKES[name]
    given = given(films, changed, tmp_path) if callable(given) else given
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.chdir(home)
    monkeypatch.setenv("CHEXPERT_HIER_HOME", str(tmp_path / "no-films-are-drawn"))
    assert commands.answer(run.main, [*QUICK, "--out", "new/run", *map(str, given)]) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert said[-1].startswith("error: ") and words in said[-1]
    assert os.listdir(home) == [] and not (tmp_path / "no-films-are-drawn").exists()


def test_a_folder_that_was_there_stays_empty(films, tmp_path):
    out = tmp_path / "mine"
    out.mkdir()
    assert commands.answer(run.main, [*QUICK, "--out", str(out), "--data", str(films), "--normalise", "dataset",
                                     "--set", "cache=false"]) == 2
    assert out.is_dir() and not list(out.iterdir())


def test_nothing_is_kept_of_what_ctrl_c_ends_before_training(films, tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(steps, "_source", interrupt)
    assert commands.answer(run.main, [*QUICK, "--out", str(tmp_path / "a" / "b"), "--data", str(films)]) == 130
    assert not list(tmp_path.iterdir())


def test_a_mistake_in_going_on_leaves_the_run_as_it_was(films, tmp_path):
    out = tmp_path / "run"
    out.mkdir()
    (out / "notes.txt").write_text("mine")
    assert commands.answer(run.main, [*QUICK, "--out", str(out), "--data", str(films)]) == 2
    assert commands.answer(run.main, [*QUICK, "--out", str(out), "--resume", "--data", "nowhere"]) == 2
    assert (out / "notes.txt").read_text() == "mine"
    assert np.all([path.name in (".lock", "notes.txt") for path in out.iterdir()])
