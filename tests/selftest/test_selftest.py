"""The shipped model gives the shipped answers, and one that does not is found out."""

import json
import subprocess
import sys

import numpy as np
import pytest

from chexpert_hier.errors import InputError
from chexpert_hier.selftest import __main__ as command
from chexpert_hier.selftest import checking


def test_every_installed_engine_gives_the_shipped_answers(capsys):
    assert command.main([]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(checking.ENGINES) and lines[0].startswith("Keras") and " good " in lines[0]
    assert sum(file.stat().st_size for file in checking.FOLDER.iterdir()) < 3e6


def test_without_tensorflow_and_keras_onnx_runtime_answers():
    pytest.importorskip("onnxruntime")
    code = ("import sys; sys.modules['keras'] = sys.modules['tensorflow'] = None\n"
            "from chexpert_hier.selftest import checking\n"
            "print(checking.compare('x', checking.answer(checking.ENGINES['ONNX Runtime, crops'][1]())).good)\n"
            "print(checking.compare('x', checking.answer(checking.ENGINES['ONNX Runtime, films'][1]())).good)")
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100)
    assert shown.stdout.split() == ["True", "True"], shown.stderr


@pytest.mark.parametrize("change", ["probabilities", "match", "flags"])
def test_a_wrong_answer_is_found_out(change, tmp_path, monkeypatch, capsys):
    wanted = json.loads(checking.ANSWERS.read_text())
    film = wanted["films"]["film2.jpg"]
    if change == "probabilities":
        film[change][3] += 2e-4
    else:
        film[change] += 1
    (tmp_path / "answers.json").write_text(json.dumps(wanted))
    monkeypatch.setattr(checking, "ANSWERS", tmp_path / "answers.json")
    monkeypatch.setattr(checking, "ENGINES", {"Keras": checking.ENGINES["Keras"]})
    with pytest.raises(InputError, match="Keras does not give the shipped answers"):
        command.main([])
    assert "WRONG" in capsys.readouterr().out


def test_the_films_are_told_apart():
    """Answers that do not depend on the film would check nothing."""
    films = json.loads(checking.ANSWERS.read_text())["films"]
    answers = np.array([film["probabilities"] for film in films.values()])
    assert len(films) == 3 and np.ptp(answers, axis=0).max() > 0.05
