"""The command, its files and its page."""

import json
import re
import subprocess
import sys
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from asking import judged

from chexpert_hier import commands, evaluate
from chexpert_hier.evaluate.__main__ import main, parser

LABELS = ("Lung Opacity", "Edema", "Atelectasis")


@pytest.fixture
def files(tmp_path):
    random = np.random.default_rng(0)
    keys = [f"CheXpert-v1.0/test/patient{p:05d}/study1" for p in range(80)]
    truth = pd.DataFrame({"Study": keys, "Sex": random.choice(["F", "M"], 80)})
    first, second = pd.DataFrame({"Study": keys}), pd.DataFrame({"Study": keys})
    reader, other = truth[["Study"]].copy(), truth[["Study"]].copy()
    for label in LABELS:
        truth[label] = (random.random(80) < 0.35).astype(int)
        for table in (first, second):
            table[label] = np.clip(0.3 * truth[label] + 0.7 * random.random(80), 0, 1)
        for table in (reader, other):
            table[label] = np.where(random.random(80) < 0.2, 1 - truth[label], truth[label])
    paths = {}
    tables = {"truth": truth, "first": first, "second <b>&": second, "reader": reader, "other": other}
    for name, table in tables.items():
        paths[name.split()[0]] = tmp_path / f"{name}.csv"
        table.to_csv(paths[name.split()[0]], index=False)
    return {name: str(path) for name, path in paths.items()}


class Page(HTMLParser):
    """Collects what the tests look at; fails on tags that are not closed."""

    def __init__(self):
        super().__init__()
        self.open, self.images, self.links, self.text = [], [], [], ""

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)
        if tag == "img":
            self.images.append(attributes)
        self.links += [value for name, value in attributes.items() if name in ("src", "href")]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def test_the_command_writes_table_json_page_and_figures(files, tmp_path, capsys):
    out = tmp_path / "out"
    code = main(["--predictions", files["first"], files["second"], "--truth", files["truth"], "--radiologists",
                 files["reader"], files["other"], "--by", "Sex", "--replicates", "100", "--out", str(out)])
    assert code == 0 and "evaluation.html" in capsys.readouterr().out
    table = pd.read_csv(out / "evaluation.csv")
    assert list(table["label"]) == [*LABELS, "mean of 3"] * 2
    assert set(table["predictions"]) == {"first", "second <b>&"}
    found = json.loads((out / "evaluation.json").read_text())
    assert found["labels"]["Edema"]["auroc"] == pytest.approx(table["auroc"][1])
    assert found["mean"]["label"] == "mean of 3" and len(found["subgroups"]) == 2 * 4
    assert set(found["radiologists"]["first"]) == {"points", "below", "f1", "agreement", "notes"}
    assert list(found["comparisons"]) == ["second <b>& against first"]
    assert found["calibration"]["Edema"]["method"] == "platt"
    assert sorted(p.name for p in (out / "figures").iterdir()) == [
        "evaluation_auroc.svg", "evaluation_pr.png", "evaluation_reliability.png", "evaluation_roc.png"]


def test_the_page_stands_alone_escapes_names_and_describes_its_pictures(files, tmp_path):
    out = tmp_path / "out"
    main(["--predictions", files["first"], files["second"], "--truth", files["truth"], "--radiologists",
          files["reader"], "--out", str(out), "--replicates", "50", "--quiet"])
    text = (out / "evaluation.html").read_text(encoding="utf-8")
    page = Page()
    page.feed(text)
    assert page.open == [] and "second <b>&" in page.text and "<b>&" not in text
    assert all(link.startswith(("data:image/svg+xml;base64,", "#")) for link in page.links)
    assert len(page.images) == 1 + 3 * len(LABELS) and all(len(image["alt"]) > 20 for image in page.images)
    assert not re.search(r"https?://(?!www\.w3\.org)", text) and 'lang="en"' in text


def test_the_page_of_labels_without_a_class_and_scores_that_are_no_probabilities(files, tmp_path):
    predictions, truth = evaluate.read_predictions(files["first"]), evaluate.read_truth(files["truth"])
    truth["Edema"] = 0.0
    predictions["Atelectasis"] += 1
    result = judged(predictions, truth, replicates=30, name="$x$ of a_{b}")
    evaluate.write(result, tmp_path / "out")
    text = (tmp_path / "out" / "evaluation.html").read_text(encoding="utf-8")
    assert "no AUROC" in text and "outside [0, 1]" in text and "few positives" in text
    assert json.loads((tmp_path / "out" / "evaluation.json").read_text())["labels"]["Edema"]["auroc"] is None
    assert "nan" not in re.sub(r"base64,[^\"]*", "", text).lower().replace("finance", "")


def test_fitting_on_other_films_writes_calibrated_scores(files, tmp_path):
    truth, first = pd.read_csv(files["truth"]), pd.read_csv(files["first"])
    for name, table in {"t2": truth, "p2": first}.items():
        table.assign(Study=table["Study"].str.replace("test/patient", "valid/patient9")).to_csv(
            tmp_path / f"{name}.csv", index=False)
    out = tmp_path / "out"
    main(["--predictions", files["first"], "--truth", files["truth"], "--fit", str(tmp_path / "p2.csv"),
          str(tmp_path / "t2.csv"), "--out", str(out), "--replicates", "20", "--no-page", "--quiet"])
    again = judged(evaluate.read_predictions(files["first"]), evaluate.read_truth(files["truth"]),
                              threshold=str(out / "evaluation.json"), replicates=0)
    assert list(again.table["sensitivity"]) == list(pd.read_csv(out / "evaluation.csv")["sensitivity"])
    table = evaluate.read_predictions(out / "calibrated.csv")
    assert list(table.columns) == ["Study", *LABELS] and (table["Edema"] <= table["Lung Opacity"]).all()
    assert not (out / "evaluation.html").exists()


def test_the_same_evaluation_writes_the_same_bytes(files, tmp_path):
    result = judged(evaluate.read_predictions(files["first"]), evaluate.read_truth(files["truth"]),
                               replicates=30)
    for name in ("a", "b"):
        evaluate.write(result, tmp_path / name)
    for path in (tmp_path / "a").rglob("*.*"):
        if path.is_file():
            assert path.read_bytes() == (tmp_path / "b" / path.relative_to(tmp_path / "a")).read_bytes(), path.name


@pytest.mark.parametrize(("arguments", "hint"), [
    (["--truth", "none.csv"], "no such file"), (["--threshold", "magic"], "youden"),
    (["--rule", "median"], "confident"),
    (["--tree", "oak"], "chexpert"), (["--by", "Ward"], "Ward"), (["--labels", "Hernia"], "Hernia"),
    (["--replicates", "-1"], "0 or more"), (["--unit", "film"], "--unit study"), (["--tree", "none.json"], "none.json"),
    (["--rule", "none.json"], "none.json")])
def test_mistakes_are_one_line_and_exit_code_2(files, tmp_path, capsys, arguments, hint):
    argv = ["--predictions", files["first"], "--truth", files["truth"], "--out", str(tmp_path / "out"), *arguments]
    assert commands.answer(main, argv) == 2
    error = capsys.readouterr().err.strip()
    assert hint in error and "\n" not in error
    assert not (tmp_path / "out").exists()


def test_an_output_folder_that_is_a_file_is_refused(files, capsys):
    argv = ["--predictions", files["first"], "--truth", files["truth"], "--out", files["truth"]]
    assert commands.answer(main, argv) == 2 and "is a file" in capsys.readouterr().err


def test_help_loads_neither_tensorflow_nor_matplotlib():
    code = ("import sys, runpy\nsys.argv = ['evaluate', '--help']\ntry:\n"
            "    runpy.run_module('chexpert_hier.evaluate', run_name='__main__')\n"
            "except SystemExit as stop:\n    print(stop.code)\nprint([m for m in ('tensorflow', "
            "'keras', 'matplotlib', 'sklearn') if m in sys.modules])")
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert answer.stdout.strip().endswith("0\n[]"), answer.stdout + answer.stderr
    assert parser().parse_args(["--predictions", "p", "--truth", "t", "--out", "o"]).replicates == 1000
