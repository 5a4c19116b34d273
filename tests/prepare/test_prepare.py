"""The cache of crops: the same bytes whatever happens on the way, and refused wherever it does not belong."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time

import cv2
import numpy as np
import pandas as pd
import pytest

from chexpert_hier import commands, paths, recipes
from chexpert_hier.datasets import reading
from chexpert_hier.errors import InputError
from chexpert_hier.films import decode
from chexpert_hier.labels import CHEXPERT_LABELS
from chexpert_hier.prepare import __main__ as prepare_command
from chexpert_hier.prepare import making, sources
from chexpert_hier.prepare.cache import Cache, sha256
from chexpert_hier.prepare.croppers import in_words, search_report

RECIPE = dataclasses.replace(recipes.PHAM2019, rescaled_size=48, crop_size=40, image_size=40, template_films=20)


def write_data(folder, count=50, views=("Frontal",), seed=0):
    """A data set of small films in CheXpert's layout: four in five films are for training."""
    rng = np.random.default_rng(seed)
    lines = {"train": [], "valid": []}
    for number in range(count):
        split, view = ("valid" if number % 5 == 0 else "train"), views[number % len(views)]
        path = f"{split}/patient{number:05d}/study1/view1_{view.lower()}.jpg"
        film = cv2.GaussianBlur(rng.integers(0, 256, (60, 50 + number % 3), dtype=np.uint8), (0, 0), 4)
        (folder / path).parent.mkdir(parents=True)
        cv2.imwrite(str(folder / path), film)
        projection = "PA" if view == "Frontal" else ""
        lines[split].append(f"{folder.name}/{path},Female,50,{view},{projection}" + ",0.0" * 14)
    head = "Path,Sex,Age,Frontal/Lateral,AP/PA," + ",".join(CHEXPERT_LABELS)
    for split, rows in lines.items():
        (folder / f"{split}.csv").write_text("\n".join([head, *rows, ""]))
    return folder


@pytest.fixture
def data(tmp_path, monkeypatch):
    monkeypatch.setattr(making, "CHUNK", 8)
    monkeypatch.setattr(making, "PART", 3)
    return reading.read(write_data(tmp_path / "films"))


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != ".lock"}


def test_the_cache_holds_what_the_films_give(data, tmp_path):
    cache = making.prepare(data, RECIPE, tmp_path / "cache")
    cropper = cache.croppers["Frontal"]
    expected = cropper.crop([decode.read_film(file) for file in data.files])
    np.testing.assert_array_equal(cache.crops, expected.crops)
    np.testing.assert_array_equal(cache.index[["row", "col"]], expected.places)
    np.testing.assert_array_equal(cache.index["score"].to_numpy(np.float32), expected.scores)
    assert list(cache.index["path"]) == list(data.films["path"])
    assert cache.index["sha256"].iloc[0] == sha256(data.files[0].read_bytes())
    train = cache.crops[(data.films["split"] == "train").to_numpy()].astype(np.float64) / 255
    assert cache.pixel_statistics == pytest.approx((train.mean(), train.std()), abs=1e-12)


def test_pixel_statistics_are_of_pixels_not_of_films():
    films = [np.array([0, 0]), np.array([255, 255])]  # each film flat: the mean of their own deviations would be 0
    sums = [int(film.sum()) for film in films]
    squares = [int((film ** 2).sum()) for film in films]
    assert making.pixel_statistics(sums, squares, 2) == (0.5, 0.5)
    assert np.isnan(making.pixel_statistics([], [], 2)).all()


def test_the_template_comes_from_training_films_only(tmp_path, data):
    cache = making.prepare(data, RECIPE, tmp_path / "cache")
    for file in data.split("valid").files:
        cv2.imwrite(str(file), 255 - decode.read_film(file))
    other = making.prepare(data, RECIPE, tmp_path / "other")
    np.testing.assert_array_equal(other.croppers["Frontal"].template, cache.croppers["Frontal"].template)
    train = np.flatnonzero(data.films["split"] == "train")
    np.testing.assert_array_equal(other.crops[train], cache.crops[train])


def test_laterals_have_a_template_of_their_own(tmp_path):
    data = reading.read(write_data(tmp_path / "films", views=("Frontal", "Lateral")), views="both")
    cache = making.prepare(data, dataclasses.replace(RECIPE, views="both"), tmp_path / "cache")
    assert (tmp_path / "cache" / "template_lateral.png").exists()
    assert cache.croppers["Frontal"].identity != cache.croppers["Lateral"].identity
    lateral = int(np.flatnonzero(data.films["view"] == "Lateral")[0])
    expected = cache.croppers["Lateral"].crop([decode.read_film(data.files[lateral])])
    np.testing.assert_array_equal(cache.crops[lateral], expected.crops[0])


def test_workers_and_interruptions_leave_no_trace(data, tmp_path, monkeypatch):
    making.prepare(data, RECIPE, tmp_path / "whole", workers=1)
    read, left = decode.read_film, iter(range(200))

    class Killed(BaseException):
        pass

    def dies(source, name=None):
        if next(left) in (20, 45):
            raise Killed
        return read(source, name)

    monkeypatch.setattr(decode, "read_film", dies)
    for _ in range(2):
        with pytest.raises(Killed):
            making.prepare(data, RECIPE, tmp_path / "pieces", resume=True, workers=1)
    with open(tmp_path / "pieces" / "done.jsonl", "a") as handle:
        handle.write('{"chunk": 6, "films": [[')  # a line that was not finished
    before = [json.loads(line)["chunk"] for line in open_lines(tmp_path / "pieces" / "done.jsonl")[:-1]]
    assert before
    opened = []
    monkeypatch.setattr(decode, "read_film", lambda source, name=None: (opened.append(name), read(source, name))[1])
    making.prepare(data, RECIPE, tmp_path / "pieces", resume=True, workers=4)
    assert len(opened) == len(data) - 8 * len(before)  # what was finished is not done again
    assert contents(tmp_path / "pieces") == contents(tmp_path / "whole")


def open_lines(path):
    return path.read_text().splitlines()


@pytest.mark.slow
def test_killed_twice_equals_unkilled(tmp_path):
    write_data(tmp_path / "films", 1500)
    command = [sys.executable, "-m", "chexpert_hier.prepare", "--data", str(tmp_path / "films"), "--resume", "--quiet"]
    subprocess.run([*command, "--out", str(tmp_path / "whole")], check=True)
    for _ in range(2):
        work = subprocess.Popen([*command, "--out", str(tmp_path / "killed")])
        record = tmp_path / "killed" / "done.jsonl"
        before = record.stat().st_size if record.exists() else 0
        deadline = time.monotonic() + 60
        while work.poll() is None and time.monotonic() < deadline:
            if record.exists() and record.stat().st_size > before:
                os.kill(work.pid, signal.SIGKILL)
                break
            time.sleep(0.005)
        work.wait()
    subprocess.run([*command, "--out", str(tmp_path / "killed")], check=True)
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")


def test_a_finished_cache_is_opened_and_not_made_again(data, tmp_path, monkeypatch):
    making.prepare(data, RECIPE, tmp_path / "cache")
    monkeypatch.setattr(decode, "read_film", None)
    assert len(making.prepare(data, RECIPE, tmp_path / "cache", resume=True).crops) == len(data)
    with pytest.raises(InputError, match="add --resume"):
        making.prepare(data, RECIPE, tmp_path / "cache")


def test_some_of_the_films_in_another_order(data, tmp_path):
    cache = making.prepare(data, RECIPE, tmp_path / "cache")
    part = data.select(np.array([7, 3, 7]))
    np.testing.assert_array_equal(cache.rows(part), [7, 3, 7])
    np.testing.assert_array_equal(cache.source(part)(np.arange(3)), cache.crops[[7, 3, 7]])
    assert cache.source(data).at is None


def other_dataset(data, **columns):
    return dataclasses.replace(data, films=data.films.assign(**columns))


def test_a_cache_is_refused_where_it_does_not_belong(data, tmp_path):
    cache = making.prepare(data, RECIPE, tmp_path / "cache")
    with pytest.raises(InputError, match="another split"):
        cache.rows(other_dataset(data, split=data.films["split"].map({"train": "valid", "valid": "train"})))
    with pytest.raises(InputError, match="has patient patient00001, now"):
        cache.rows(other_dataset(data, patient="patient00001x"))
    with pytest.raises(InputError, match="made for other films"):
        cache.rows(other_dataset(data, path=data.films["path"] + "x"))
    for field, value in (("crop_size", 32), ("resize", "area"), ("crop", "centre"), ("rescaled_size", 64)):
        with pytest.raises(InputError, match=f"made with {field}"):
            recipe = dataclasses.replace(RECIPE, **{field: value, "image_size": 16})
            Cache.open(tmp_path / "cache", data, recipe)
    with pytest.raises(InputError, match="no lateral films"):
        Cache.open(tmp_path / "cache", data, dataclasses.replace(RECIPE, views="both"))
    with pytest.raises(InputError, match="another seed"):
        making.prepare(data, dataclasses.replace(RECIPE, seed=1), tmp_path / "cache", resume=True)
    with pytest.raises(InputError, match="another CSV or split"):
        making.prepare(data.select(np.arange(9)), RECIPE, tmp_path / "cache", resume=True)
    with pytest.raises(InputError, match="no finished cache"):
        Cache.open(tmp_path / "films")
    cv2.imwrite(str(data.files[0]), np.eye(60, dtype=np.uint8) * 200)
    with pytest.raises(InputError, match="has changed since"):
        cache.rows(data)


def test_a_damaged_cache_is_refused(data, tmp_path):
    cache = tmp_path / "cache"
    making.prepare(data, RECIPE, cache)
    whole = contents(cache)
    pixels = bytearray(whole["template.png"])
    for name, damaged, message in (
            ("crops.npy", whole["crops.npy"][:-100], "is damaged"),
            ("index.csv", whole["index.csv"][:900], "is damaged"),
            ("meta.json", b"{", "cannot be read"), ("template.png", bytes(pixels[:40]), "expected the template"),
            ("template.png", cv2.imencode(".png", np.eye(40, dtype=np.uint8))[1].tobytes(), "is not the one")):
        (cache / name).write_bytes(damaged)
        with pytest.raises(InputError, match=message):
            Cache.open(cache, data, RECIPE)
        (cache / name).write_bytes(whole[name])
    Cache.open(cache, data, RECIPE)


def test_bad_films_stop_the_work_or_are_listed(data, tmp_path):
    bad = [2, 30]
    data.files[2].write_bytes(b"")
    data.files[30].write_bytes(data.files[30].read_bytes()[:200])
    with pytest.raises(InputError, match=r"row \d+: .*(empty|cut off)"):
        making.prepare(data, RECIPE, tmp_path / "cache")
    cache = making.prepare(data, RECIPE, tmp_path / "cache", resume=True, skip_bad=True)
    np.testing.assert_array_equal(np.flatnonzero(~cache.readable(data)), bad)
    assert cache.crops[2].max() == 0 and cache.meta["skipped"] == 2
    listed = (tmp_path / "cache" / "skipped.csv").read_text().splitlines()
    assert listed[0] == "path,table,row,reason" and len(listed) == 3
    assert data.films["path"].iloc[2] in listed[1] and "empty" in listed[1]
    with pytest.raises(InputError, match="could not be read"):
        cache.rows(data)
    cache.rows(data.select(cache.readable(data)))


def test_a_full_disk_is_refused_before_starting(data, tmp_path, monkeypatch):
    usage = making.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(making.shutil, "disk_usage", lambda path: usage._replace(free=10 ** 6))
    with pytest.raises(InputError, match=r"50 crops of 40x40 need 0\.00 GB, the disk has"):
        making.prepare(data, RECIPE, tmp_path / "cache")
    assert not (tmp_path / "cache" / "crops.npy").exists()


def test_two_processes_do_not_work_in_one_folder(data, tmp_path):
    from chexpert_hier.files import locked

    with locked(tmp_path / "cache"), pytest.raises(InputError, match="another process"):
        making.prepare(data, RECIPE, tmp_path / "cache", resume=True)


def test_a_run_reads_the_same_from_cache_and_from_files(data, tmp_path):
    run = tmp_path / "runs" / "one"
    run.mkdir(parents=True)
    cached = sources.from_cache(data, RECIPE, run, "torch")
    streamed = sources.from_files(data, RECIPE, run, "torch")  # finds the cache's template in the run folder
    for split in ("train", "valid"):
        ours, theirs = cached.films(split), streamed.films(split)
        rows = np.arange(len(ours))[::-1]
        np.testing.assert_array_equal(ours.pixels(rows), theirs.pixels(rows))
    assert [path.name for path in run.parent.iterdir() if path.name.startswith("crops-40-")]
    again = sources.from_cache(data, dataclasses.replace(RECIPE, policy="u-zeros"), run, "torch")
    np.testing.assert_array_equal(again.crops.crops, cached.crops.crops)


def test_the_command(data, tmp_path, capsys):
    films, out = str(tmp_path / "films"), str(tmp_path / "cache")
    size = ["--set", "image_size=40", "--set", "crop_size=40", "--set", "rescaled_size=48"]
    assert commands.answer(prepare_command.main, ["--data", films, "--out", out, *size, "--quiet"]) == 0
    assert "50 crops of 40 pixels" in capsys.readouterr().out
    for arguments, message in ((["--data", films, "--out", out], "--resume"),
                               (["--data", "nowhere", "--out", out], "nowhere"),
                               (["--data", films, "--out", out, "--recipe", "x"], "pham2019"),
                               (["--data", films, "--out", out, "--set", "x"], "FIELD=VALUE"),
                               (["--data", films, "--out", out, "--workers", "0"], "1 or more")):
        assert commands.answer(prepare_command.main, arguments) == 2
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("years of work")
    assert commands.answer(prepare_command.main, ["--data", films, "--out", str(tmp_path / "mine"), "--resume"]) == 2
    assert "--resume: holds thesis.tex and no cache" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "mine").iterdir() if path.name != ".lock"] == ["thesis.tex"]


def test_preparing_imports_neither_tensorflow_nor_keras(tmp_path):
    write_data(tmp_path / "films", 10)
    code = ("import sys; from chexpert_hier.prepare import __main__ as prepare\n"
            f"prepare.main(['--data', {str(tmp_path / 'films')!r}, '--out', {str(tmp_path / 'cache')!r}, '--quiet'])\n"
            "assert not {'tensorflow', 'keras'} & set(sys.modules), 'heavy import'")
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_the_search_reports_itself(data, tmp_path, capsys):
    cache = making.prepare(data, RECIPE, tmp_path / "cache")
    report = cache.search()["Frontal"]
    places, last = cache.index[["row", "col"]].to_numpy(), RECIPE.rescaled_size - RECIPE.crop_size
    scores = cache.index["score"].to_numpy(float)
    assert report == {"films": 50, "border": int(sum(row in (0, last) or col in (0, last) for row, col in places)),
                      "low": int((scores < 0.3).sum()), "lowest": scores.min(), "places": last + 1}
    by_hand = search_report(np.array([[0, 3], [4, 8], [4, 4], [0, 0]]), np.array([.9, .2, .5, np.nan]),
                            cache.croppers["Frontal"])
    assert by_hand == {"films": 3, "border": 2, "low": 1, "lowest": .2, "places": 9}
    assert "2 of 3 films (67%) end on the border of the 9 x 9 places; 1 match below 0.3" in in_words(by_hand)


def test_the_least_match_belongs_to_the_cache(data, tmp_path):
    whole = making.prepare(data, RECIPE, tmp_path / "cache")
    recipe = dataclasses.replace(RECIPE, least_match=float(np.median(whole.index["score"])))
    with pytest.raises(InputError, match=r"geometry|least_match"):
        making.prepare(data, recipe, tmp_path / "cache", resume=True)
    strict = making.prepare(data, recipe, tmp_path / "strict")
    low = (whole.index["score"] < np.float32(recipe.least_match)).to_numpy()
    assert 0 < low.sum() < 50 and (strict.index[["row", "col"]].to_numpy()[low] == 4).all()
    np.testing.assert_array_equal(strict.crops[~low], whole.crops[~low])
    assert Cache.open(tmp_path / "strict", data, recipe).meta["geometry"]["least_match"] > 0
    assert "least_match" not in whole.meta["geometry"]  # caches of version 0.1 are found again


def test_prepare_refuses_links_that_leave_the_folder(data, tmp_path, capsys):
    film = data.files[0]
    film.rename(tmp_path / "elsewhere.png")
    film.symlink_to(tmp_path / "elsewhere.png")
    size = ["--set", "image_size=40", "--set", "crop_size=40", "--set", "rescaled_size=48", "--quiet"]
    arguments = ["--data", str(data.root), "--out", str(tmp_path / "cache"), *size]
    assert commands.answer(prepare_command.main, arguments) == 2
    assert "is a link that leaves the data folder" in capsys.readouterr().err
    assert commands.answer(prepare_command.main, [*arguments, "--allow-outside"]) == 0


def test_films_whose_names_no_table_can_hold(tmp_path):
    folder, names = tmp_path / "films", [b"a\nb.png", b"caf\xe9.png", "x\u2028y\x85.png".encode(), b"c,d\"e.png",
                                         b"=1+1.png", b"back\\slash.png", b"plain.png"]
    (folder / "train").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name in names:
        pixels = cv2.imencode(".png", rng.integers(0, 255, (60, 60), dtype=np.uint8))[1].tobytes()
        (folder / "train" / os.fsdecode(name)).write_bytes(pixels)
    rows = [paths.escaped(f"set/train/{os.fsdecode(name)}") for name in names]
    pd.DataFrame({"Path": rows, "Patient": [f"p{k}" for k in range(len(rows))], "Edema": 1}).to_csv(
        folder / "train.csv", index=False)
    data = reading.read(folder, reader="csv", labels=["Edema"], fractions=(0.5, 0.5, 0.0))
    assert [os.fsencode(file.name) for file in data.files] == names
    making.prepare(data, RECIPE, tmp_path / "cache")
    again = Cache.open(tmp_path / "cache", data, RECIPE)  # index.csv is read back
    assert again.index["path"].tolist() == rows and len(again.rows(data)) == len(names)
