"""A prediction into a file: what it goes on with after an interruption, what it refuses, which films it names."""

import json
import logging
import os
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from finished import make_run

from chexpert_hier import paths
from chexpert_hier.errors import InputError
from chexpert_hier.finished.asked import find_films
from chexpert_hier.labels import CHEXPERT_LABELS
from chexpert_hier.predict import __main__ as predict_command
from chexpert_hier.predict import job, predicting
from chexpert_hier.predict.engine import Engine


class Killed(Exception):
    pass


def interrupted(monkeypatch, films, out, model, portions=1):
    """A job of portions of two films that dies after some of them."""
    whole, count = predicting.answer_files, [0]

    def dying(*arguments, **named):
        if count[0] == portions:
            raise Killed
        count[0] += 1
        return whole(*arguments, **named)

    monkeypatch.setattr(job, "answer_files", dying)
    with pytest.raises(Killed):
        predict_command.main([*films, "--model", str(model), "--out", str(out), "--quiet", "--resume"])
    monkeypatch.setattr(job, "answer_files", whole)
    assert not out.exists()


def test_a_job_goes_on_with_its_own_films_and_models_only(run, data, frontal, tmp_path, monkeypatch, capsys):
    films = [str(shutil.copy(file, tmp_path / f"{k}.jpg")) for k, file in enumerate(frontal[:5])]
    model, out = tmp_path / "model", tmp_path / "x.csv"
    shutil.copytree(run, model)
    monkeypatch.setattr(job, "CHUNK", 2)
    predict_command.main([*films, "--model", str(model), "--out", str(tmp_path / "whole.csv"), "--quiet"])
    interrupted(monkeypatch, films, out, model)
    command = [*films, "--model", str(model), "--out", str(out), "--quiet", "--resume"]
    asked = predict_command.main(command)
    assert asked == 0 and out.read_bytes() == (tmp_path / "whole.csv").read_bytes()
    out.unlink()

    interrupted(monkeypatch, films, out, model)
    other = make_run(tmp_path / "other", data, seed=1)
    kept = (model / "model.keras").read_bytes()
    (model / "model.keras").write_bytes((other / "model.keras").read_bytes())
    with pytest.raises(InputError, match="had other models"):
        predict_command.main(command)
    (model / "model.keras").write_bytes(kept)
    stamp = os.stat(films[0]).st_mtime_ns
    os.utime(films[0], ns=(stamp, stamp + 1))
    with pytest.raises(InputError, match="had other films"):
        predict_command.main(command)
    os.utime(films[0], ns=(stamp, stamp))
    with pytest.raises(InputError, match="had other options"):
        predict_command.main([*command, "--tta", "2"])
    (tmp_path / ".x.csv.work" / job.ASKED).write_text("{")
    with pytest.raises(InputError, match=r"asked\.json: is damaged"):
        predict_command.main(command)
    predict_command.main([*command[:-1]])  # anew, without --resume
    assert out.read_bytes() == (tmp_path / "whole.csv").read_bytes() and not (tmp_path / ".x.csv.work").exists()


def test_a_list_of_films_left_out_does_not_outlive_them(run, frontal, tmp_path, capsys):
    film = tmp_path / "a.jpg"
    film.write_bytes(b"x")
    command = [str(film), str(frontal[0]), "--model", str(run), "--out", str(tmp_path / "x.csv"), "--quiet"]
    predict_command.main([*command, "--skip-bad"])
    assert len(pd.read_csv(tmp_path / "x.skipped.csv")) == 1
    shutil.copy(frontal[1], film)
    (tmp_path / "x.csv").unlink()
    predict_command.main([*command, "--resume"])
    assert not (tmp_path / "x.skipped.csv").exists() and len(pd.read_csv(tmp_path / "x.csv")) == 2


def test_a_finished_job_is_kept_and_no_other_ones_answers_are(run, frontal, tmp_path, capsys):
    out, bad = tmp_path / "x.csv", tmp_path / "bad.jpg"
    bad.write_bytes(b"x")
    command = [str(frontal[0]), str(bad), "--model", str(run), "--out", str(out), "--quiet", "--skip-bad"]
    predict_command.main(command)
    kept = out.read_bytes(), out.stat().st_mtime_ns
    capsys.readouterr()
    assert predict_command.main([*command, "--resume"]) == 0
    assert "bad.jpg: left out" in capsys.readouterr().err                # as the first time
    with pytest.raises(InputError, match="1 of 2 films left out"):
        predict_command.main([*command[:-1], "--resume"])
    for other in ([*command, "--tta", "2"], [str(frontal[1]), *command[1:]]):
        with pytest.raises(InputError, match="not of this very job"):
            predict_command.main([*other, "--resume"])
    assert (out.read_bytes(), out.stat().st_mtime_ns) == kept and not (tmp_path / ".x.csv.work").exists()
    out.write_bytes(kept[0].replace(b"0.", b"0.9", 1))                   # somebody's own numbers
    with pytest.raises(InputError, match="changed since"):
        predict_command.main([*command, "--resume"])


def test_names_that_no_table_holds_come_back(run, frontal, tmp_path, capsys):
    names = ["line\nbreak.jpg", "\udce9.jpg", "x\x85y\u2028.jpg", "=SUM(A1).jpg", 'a,"b".jpg', "x\x1cy.jpg", "é.jpg"]
    (tmp_path / "films").mkdir()
    for name in names:
        shutil.copy(frontal[0], os.path.join(tmp_path, "films", name))
    (tmp_path / "films" / "bad\n.jpg").write_bytes(b"x")
    predict_command.main([str(tmp_path / "films"), "--model", str(run), "--out", str(tmp_path / "x.csv"), "--skip-bad",
                          "--quiet"])
    table = pd.read_csv(tmp_path / "x.csv")
    back = {os.path.basename(paths.unescaped(name)) for name in table["Path"]}
    assert back == set(names) and np.ptp(table["Edema"]) == 0
    assert pd.read_csv(tmp_path / "x.skipped.csv")["Path"].str.endswith(r"bad\x0a.jpg").tolist() == [True]
    predict_command.main([str(tmp_path / "films"), "--model", str(run), "--out", str(tmp_path / "x.json"), "--skip-bad",
                          "--quiet"])
    found = json.loads((tmp_path / "x.json").read_text(encoding="utf-8"))
    assert [film["film"] for film in found["films"]] == table["Path"].tolist()


def test_a_missing_film_is_left_out_with_skip_bad_and_a_folder_names_what_it_passes_over(run, frontal, tmp_path, capsys,
                                                                                          caplog):
    missing = tmp_path / "missing.png"
    command = [str(frontal[0]), str(missing), str(frontal[1]), "--model", str(run), "--out", str(tmp_path / "x.csv")]
    with pytest.raises(InputError, match=r"missing\.png: no such file"):
        predict_command.main(command)
    assert predict_command.main([*command, "--skip-bad"]) == 0
    assert len(pd.read_csv(tmp_path / "x.csv")) == 2
    assert "missing.png: left out, no such file" in capsys.readouterr().err
    (tmp_path / "films").mkdir()
    for name in ("a.jfif", "b.webp", "c.tif", "notes.txt", "table.csv"):
        (tmp_path / "films" / name).write_bytes(b"x")
    with caplog.at_level(logging.INFO, logger="chexpert_hier"):
        found = find_films([str(tmp_path / "films")])
    assert [film.file.name for film in found] == ["a.jfif", "b.webp", "c.tif"]
    assert "passed over: notes.txt, table.csv" in caplog.text


def test_a_model_of_drawn_films_makes_no_calls_on_other_films(run, frontal, tmp_path, capsys):
    """The same pixels, once as the phantom wrote them, once saved by another program."""
    import cv2

    other = tmp_path / "other.png"
    cv2.imwrite(str(other), cv2.imread(str(frontal[0]), cv2.IMREAD_GRAYSCALE))
    engine = Engine.open([run])
    answers = engine.answer([engine.read(file.read_bytes(), file.name) for file in (frontal[0], other)])
    np.testing.assert_allclose(*answers.probabilities, atol=1e-6)
    assert engine.synthetic and np.isnan(answers.more["call"][1]).all() and not np.isnan(answers.more["call"][0]).all()
    assert set(answers.table()["[model]"]) == {"trained on drawn films"}
    predict_command.main([str(other), "--model", str(run)])
    out = capsys.readouterr()
    assert "PRESENT" not in out.out and "absent" not in out.out
    predict_command.main([str(other), "--model", str(run), "--out", str(tmp_path / "x.json"), "--quiet"])
    found = json.loads((tmp_path / "x.json").read_text())
    assert "drawn films" in found["synthetic"] and "present" not in found["films"][0]["findings"][0]


def test_onnx_runtime_answers_without_tensorflow_and_keras_the_same_csv(run, frontal, tmp_path, capsys):
    pytest.importorskip("onnxruntime")
    from chexpert_hier.export import onnx
    from chexpert_hier.finished.members import open_run

    model = shutil.copytree(run, tmp_path / "model")
    onnx.export([open_run(model)], model / "model.onnx")
    code = ("import sys; sys.modules['keras'] = sys.modules['tensorflow'] = None\n"
            "from chexpert_hier.predict.__main__ import main; main(sys.argv[1:])")
    command = [*map(str, frontal[:3]), "--model", str(model), "--quiet"]
    more = {"plain": [], "tta": ["--tta", "2"], "twice": ["--model", str(model), str(model)]}
    for name, arguments in more.items():
        ours, theirs = tmp_path / f"{name}.onnx.csv", tmp_path / f"{name}.keras.csv"
        subprocess.run([sys.executable, "-c", code, *command, *arguments, "--out", str(ours)], check=True, timeout=100)
        predict_command.main([*command, *arguments, "--engine", "keras", "--out", str(theirs)])
        one, other = pd.read_csv(ours), pd.read_csv(theirs)
        assert list(one) == list(other) and len(one) == 3
        columns = [name for name in one if name in CHEXPERT_LABELS or name.endswith(("[sd]", "[match]"))]
        np.testing.assert_allclose(one[columns], other[columns], atol=1e-5)
        calls = [name for name in one if name.endswith(("[call]", "[flag]", "Path"))]
        pd.testing.assert_frame_equal(one[calls], other[calls])
