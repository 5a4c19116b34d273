"""A model inside and outside: numbers against their definitions, the run folder, and the command on another phantom."""

import json
import os
import shutil
from dataclasses import replace

import cv2
import numpy as np
import pandas as pd
import pytest
from asking import joined
from finished import make_films, make_run
from sklearn.linear_model import LogisticRegression
from test_evaluate_judging import tables

from chexpert_hier import commands, datasets, evaluate, recipes
from chexpert_hier.errors import InputError
from chexpert_hier.evaluate import external, output, runs
from chexpert_hier.evaluate.__main__ import main
from chexpert_hier.evaluate.comparison import holm, normal_p, variance_of
from chexpert_hier.evaluate.variance import influence
from chexpert_hier.labels import CHEXPERT_LABELS


@pytest.fixture(scope="module")
def found():
    """Inside scores that mean what they say; outside the findings are rarer and the scores overconfident."""
    inside = joined(*tables(films=400, patients=400, seed=1))
    outside = joined(*tables(films=500, patients=500, seed=2, noise=2.5))
    return inside, outside, external.compare_outside(inside, outside, evaluate.Judging(
        replicates=300, by=["Sex"], curves=False), "elsewhere")


def test_differences_are_those_of_independent_samples(found):
    inside, outside, result = found
    table = result.table.set_index("label")
    for k, label in enumerate(inside.labels):
        row = table.loc[label]
        areas = [evaluate.auroc(side.scores[:, k], side.truth[:, k]) for side in (inside, outside)]
        assert row["auroc_inside"] == pytest.approx(areas[0]) and row["auroc_outside"] == pytest.approx(areas[1])
        assert row["difference"] == pytest.approx(areas[1] - areas[0])
        error = np.sqrt(sum(evaluate.delong(side.scores[:, k], side.truth[:, k], side.patients).covariance[0, 0]
                            for side in (inside, outside)))
        width = row["difference_high"] - row["difference_low"]
        assert width == pytest.approx(2 * 1.96 * error, rel=0.25)
    assert table.loc["mean of five", "difference"] == pytest.approx(table["difference"].iloc[:-1].mean())
    assert table.loc["mean of five", "verdict"] == "worse outside, beyond noise"
    assert table.loc["mean of five", "p_delong"] < 0.01 and (table["p_holm"] >= table["p_delong"] - 1e-12).all()


def test_operating_points_are_carried_over(found):
    inside, outside, result = found
    for k, label in enumerate(inside.labels):
        row = result.table.set_index("label").loc[label]
        chosen = evaluate.evaluation.thresholds.choose(inside.scores[:, k], inside.truth[:, k], "youden")
        called = outside.scores[:, k] >= chosen
        assert row["threshold"] == chosen
        assert row["sensitivity_outside"] == pytest.approx(called[outside.truth[:, k] == 1].mean())
        assert row["specificity_outside"] == pytest.approx(1 - called[outside.truth[:, k] == 0].mean())
        assert row["sensitivity_low_outside"] <= row["sensitivity_outside"] <= row["sensitivity_high_outside"]


def test_calibration_drift_is_coxs_regression(found):
    _, outside, result = found
    scores, truth = outside.scores[:, 0], outside.truth[:, 0]
    logit = np.log(scores / (1 - scores))[:, None]
    theirs = LogisticRegression(C=1e12, tol=1e-10, max_iter=1000).fit(logit, truth)
    row = result.table.iloc[0]
    assert row["slope_outside"] == pytest.approx(theirs.coef_[0, 0], abs=1e-3)
    assert row["intercept_outside"] == pytest.approx(theirs.intercept_[0], abs=1e-3)
    assert row["mean_score_outside"] == pytest.approx(scores.mean())
    assert row["prevalence_outside"] == pytest.approx(truth.mean())
    assert row["brier_outside"] == pytest.approx(((scores - truth) ** 2).mean())
    assert np.isnan(external.drift(np.array([2.0, 0.1]), np.array([1.0, 0.0])).slope)
    assert np.isnan(external.drift(np.array([0.2, 0.1]), np.array([0.0, 0.0])).slope)
    counted = external.drift(np.array([0.2, 0.4, 0.9]), np.array([1.0, 0.0, np.nan]))
    assert counted.mean_score == pytest.approx(0.3)


def test_groups_outside_are_judged_at_the_carried_thresholds(found):
    inside, outside, result = found
    women = outside.about["Sex"].to_numpy() == "Female"
    row = result.subgroups[(result.subgroups["group"] == "Female") & (result.subgroups["label"] == "Edema")].iloc[0]
    k = inside.labels.index("Edema")
    called = outside.scores[women, k] >= result.table.set_index("label").loc["Edema", "threshold"]
    assert row["sensitivity"] == pytest.approx(called[outside.truth[women, k] == 1].mean())
    assert row["auroc"] == pytest.approx(evaluate.auroc(outside.scores[women, k], outside.truth[women, k]))
    assert row["cases"] == women.sum()


def test_few_positives_are_no_verdict_and_other_labels_an_error(found):
    inside, outside, _ = found
    truth = outside.truth.copy()
    truth[:, 0] = 0
    truth[0, 0] = 1
    few = external.compare_outside(inside, replace(outside, truth=truth), evaluate.Judging(replicates=50), "x")
    assert few.table["verdict"].iloc[0] == "cannot be told"
    with pytest.raises(InputError, match="no label in common"):
        external.compare_outside(inside, replace(outside, labels=tuple("abcde")), evaluate.Judging(), "x")


def small_data(folder, seed):
    """A data set in CheXpert's layout: 20 training and 20 validation patients with films of noise."""
    random = np.random.default_rng(seed)
    for split, first in (("train", 1), ("valid", 101)):
        paths = [f"{folder.name}/{split}/patient{p:05d}/study1/view1_frontal.jpg" for p in range(first, first + 20)]
        table = pd.DataFrame({"Path": paths, "Sex": "Female", "Age": 50, "Frontal/Lateral": "Frontal", "AP/PA": "AP"})
        for label in CHEXPERT_LABELS:
            table[label] = (random.random(20) < 0.4).astype(float)
        for path in paths:
            (folder.parent / path).parent.mkdir(parents=True)
            cv2.imwrite(str(folder.parent / path), random.integers(0, 256, (64, 64), dtype=np.uint8))
        table.to_csv(folder / f"{split}.csv", index=False)
    return folder


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A data set and what a run on it leaves, without the network that nothing here asks."""
    folder = tmp_path_factory.mktemp("external")
    films, run = small_data(folder / "data", 1), folder / "run"
    run.mkdir()
    dataset = datasets.read(films, reader="chexpert")
    facts = {"recipe": recipes.named("phantom").to_json(), "outputs": list(dataset.labels), "labels": None,
             "tree": "chexpert", "normalisation": [[0.5] * 3, [0.2] * 3], "versions": {}, "data": {
                 "root": str(films), "name": "data", "fingerprint": dataset.fingerprint, "counts": {}}}
    (run / "recipe.json").write_text(json.dumps(facts))
    dataset.films[["path", "patient", "study", "split"]].to_csv(run / "split.csv", index=False)
    valid = dataset.split("valid").films.rename(columns={"path": "Path"})[["Path", *dataset.labels]]
    valid.to_csv(run / "truth.csv", index=False)
    scores = np.clip(0.2 + 0.3 * valid[list(dataset.labels)] + 0.4 * np.random.default_rng(2).random((20, 14)), 0, 1)
    for name in ("predictions", "conditional"):
        scores.assign(Path=valid["Path"]).to_csv(run / f"{name}.csv", index=False)
    (run / "model.keras").write_bytes(b"no network")
    return folder, films, run


def test_a_run_is_judged_as_it_judges_itself(place, capsys):
    folder, _, run = place
    read = runs.read_run(run)
    assert read.joining.unit == "study" and read.joining.rule == read.recipe.study_score and read.name == "run"
    assert main(["--run", str(run), "--replicates", "10", "--no-page", "--out", str(folder / "own")]) == 0
    own = pd.read_csv(folder / "own" / "evaluation.csv").set_index("label")["auroc"]
    main(["--predictions", str(run / "predictions.csv"), "--truth", str(run / "truth.csv"), "--replicates", "10",
          "--no-page", "--out", str(folder / "files")])              # one number for one run
    files = pd.read_csv(folder / "files" / "evaluation.csv").set_index("label")["auroc"]
    pd.testing.assert_series_equal(own, files)
    assert "studies of" in capsys.readouterr().out


@pytest.mark.slow
def test_the_command_on_another_data_set(tmp_path, monkeypatch):
    """Predict in a process of its own, then inside beside outside; asked again, the model need not answer again."""
    folder, run = tmp_path, make_run(tmp_path / "run", make_films(tmp_path))
    (run / "conditional.csv").write_bytes((run / "predictions.csv").read_bytes())
    other = small_data(folder / "other", 3)
    ask = ["--run", str(run), "--data", str(other), "--by", "Sex", "--replicates", "20", "--out", str(folder / "out")]
    assert commands.answer(main, ask) == 0
    found = json.loads((folder / "out" / "evaluation.json").read_text())
    assert found["external"]["data"] == "other" and found["external"]["subgroups"]
    assert "<h2>Inside and outside</h2>" in (folder / "out" / "evaluation.html").read_text(encoding="utf-8")
    monkeypatch.setattr(runs, "_predict", lambda *_: pytest.fail("asked twice"))
    assert commands.answer(main, ask) == 0
    (run / "model.keras").touch()
    assert commands.answer(main, ask) == 2


def test_the_runs_own_films_are_left_out(place, monkeypatch):
    folder, films, run = place
    read, asked = runs.read_run(run), []
    monkeypatch.setattr(runs, "_predict", lambda run, root, out: asked.append(root))
    with pytest.raises(InputError, match="all its films are films of the run"):
        runs.answer_outside(read, films, folder / "same")
    moved = replace(read, facts={**read.facts, "data": {"root": str(folder / "gone" / "far")}})
    with pytest.raises(InputError, match=r"predictions\.csv"):       # nobody answered
        runs.answer_outside(moved, films, folder / "unknown")
    truth = pd.read_csv(folder / "unknown" / "truth.csv")
    assert asked and len(truth) == len(pd.read_csv(run / "split.csv")) and "Patient" in truth
    with pytest.raises(InputError, match="another model or on other films"):
        runs.answer_outside(replace(moved, facts={**moved.facts, "recipe": {}}), films, folder / "unknown")


@pytest.mark.parametrize(("arguments", "words"), [
    (["--data", "x"], "belong to --run"), ([], "--predictions and --truth, or --run"),
    (["--run", "RUN", "--truth", "t.csv"], "leave --predictions and --truth out"),
    (["--run", "RUN", "--unit", "film"], "judges itself"),
    (["--run", "RUN", "--data", "x", "--meta", "m"], "leave --meta out"),
    (["--run", "RUN", "--truth-blank", "ignore", "--fit", "p", "t"], "leave --truth-blank, --fit out"),
    (["--run", "RUN", "--intersect", "--radiologists", "r", "--pairs", "all"],
     "leave --intersect, --pairs, --radiologists out"),
    (["--run", "none"], "recipe.json"), (["--run", "RUN", "--data", "none"], "no such folder")])
def test_what_does_not_go_together_is_one_line(place, tmp_path, capsys, arguments, words):
    arguments = [str(place[2]) if word == "RUN" else word for word in arguments]
    assert commands.answer(main, [*arguments, "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err.strip()
    assert words in error and "\n" not in error
    assert not (tmp_path / "out" / "evaluation.json").exists()


@pytest.mark.parametrize(("gap", "low", "high", "p", "words"), [
    (0.1, 0.02, 0.2, 0.01, "better outside, beyond noise"), (-0.1, -0.2, -0.02, 0.01, "worse outside, beyond noise"),
    (-0.1, -0.2, 0.0, 0.01, "within noise"), (0.1, 0.0, 0.2, 0.01, "within noise"),
    (0.1, 0.02, 0.2, 0.2, "within noise"), (0.1, -0.1, 0.2, 0.01, "within noise"),
    (0.1, 0.02, 0.2, np.nan, "cannot be told"), (np.nan, np.nan, np.nan, np.nan, "cannot be told")])
def test_a_difference_counts_where_interval_and_p_value_agree(gap, low, high, p, words):
    row = {"difference": gap, "difference_low": low, "difference_high": high, "p_holm": p}
    assert external._verdict(row) == words


def test_the_mean_inside_and_outside_by_hand(found):
    inside, outside, result = found
    row, here, there = result.table.iloc[-1], result.inside, result.outside
    for side, judged_ in (("inside", here), ("outside", there)):
        means = judged_.replicates.mean(1)
        assert [row[f"auroc_low_{side}"], row[f"auroc_high_{side}"]] == pytest.approx(np.quantile(means, [.025, .975]))
        assert row[f"positives_{side}"] == judged_.table["positives"].iloc[:-1].sum()
        assert row[f"negatives_{side}"] == judged_.table["negatives"].iloc[:-1].sum()
    gap = there.replicates.mean(1) - here.replicates.mean(1)
    assert [row["difference_low"], row["difference_high"]] == pytest.approx(np.quantile(gap, [.025, .975]))
    variance = 0.0
    for cases in (inside, outside):
        parts = [influence(cases.scores[:, [k]], cases.truth[:, k], cases.patients, cases.total_patients)[:, 0]
                 for k in range(5)]
        variance += variance_of(np.mean(parts, 0))
    assert row["p_delong"] == row["p_holm"] == pytest.approx(normal_p(row["difference"], variance))
    assert row[["threshold", "sensitivity_low_inside", "specificity_high_outside"]].isna().all()
    for column in ("prevalence_outside", "mean_score_inside", "slope_outside", "sensitivity_outside", "brier_inside"):
        assert row[column] == pytest.approx(result.table[column].iloc[:-1].mean())
    first = result.table.iloc[0]
    drawn = there.replicates[:, 0] - here.replicates[:, 0]
    assert [first["difference_low"], first["difference_high"]] == pytest.approx(np.quantile(drawn, [.025, .975]))
    areas = sum(evaluate.delong(c.scores[:, 0], c.truth[:, 0], c.patients).covariance[0, 0] for c in (inside, outside))
    assert first["p_delong"] == pytest.approx(normal_p(first["difference"], areas))
    np.testing.assert_allclose(result.table["p_holm"][:-1], holm(result.table["p_delong"].to_numpy()[:-1]))
    assert first["prevalence_inside"] == pytest.approx(inside.truth[:, 0].mean())
    assert first["brier_calibrated_outside"] == there.table["brier_calibrated"].iloc[0] != first["brier_outside"]
    assert result.name == "elsewhere" and len(result.notes) == 3
    written = output._csv_tables(evaluate.Findings([here, there], external=result))
    assert written["external.csv"] is result.table and written["external_subgroups.csv"] is result.subgroups
    plain = evaluate.Findings([here, there], external=replace(result, subgroups=None))
    assert list(output._csv_tables(plain)) == ["evaluation.csv", "external.csv"]
    assert output.as_json(plain)["external"] == {**output.as_json(evaluate.Findings([here, there], external=result))[
        "external"], "subgroups": []}
    assert result.notes[0] == f"Inside: {inside.in_words}; outside (elsewhere): {outside.in_words}."
    assert (here.settings["seed"], there.settings["seed"]) == (0, 1)  # drawn apart
    assert (here.name, there.name, here.subgroups, there.subgroups) == ("inside", "outside", None, None)
    assert list(there.cases.who[:1]) == [f"outside: {outside.who[0]}"]


def test_a_label_without_a_class_outside_leaves_the_mean(found):
    inside, outside, _ = found
    truth = outside.truth.copy()
    truth[:, 0] = 0
    part = external.compare_outside(inside, replace(outside, truth=truth), evaluate.Judging(replicates=20), "x")
    row = part.table.iloc[0]
    assert np.isnan(row["difference"]) and row["prevalence_outside"] == 0 and part.subgroups is None
    mean = part.table.iloc[-1]
    assert mean["difference"] == pytest.approx(part.table["difference"].iloc[1:-1].mean())
    assert mean["positives_inside"] == part.inside.table["positives"].iloc[1:-1].sum()
    assert mean["auroc_low_outside"] == pytest.approx(np.quantile(part.outside.replicates[:, 1:].mean(1), 0.025))
    nothing = replace(outside, truth=truth * np.nan)
    empty = external.compare_outside(inside, nothing, evaluate.Judging(replicates=20), "x").table
    assert empty["verdict"].tolist() == ["cannot be told"] * 6 and np.isnan(empty["auroc_low_inside"].iloc[-1])
    assert empty["prevalence_outside"].iloc[0] == 0 and np.isnan(empty["mean_score_outside"].iloc[0])


def test_how_a_recipes_films_are_judged():
    recipe = replace(recipes.named("phantom"), unit="study", study_score="mean", blank="ignore")
    studies = ["a/valid/patient00001/study1/v.jpg"] * 2
    films = [studies[0], "b/00000013_005.png"]
    assert runs.joining_of(recipe, ("Edema",), studies, "PQ") == evaluate.Joining(
        ("Edema",), None, "study", "mean", "ignore")
    assert runs.joining_of(recipe, ("Edema",), films, "PQ") == evaluate.Joining(
        ("Edema",), ["P", "Q"], "film", "mean", "ignore")
    assert runs.joining_of(replace(recipe, unit="patient"), ("Edema",), films, "PQ").unit == "patient"


def test_a_film_of_a_run_is_found_below_its_data_or_beside(tmp_path):
    for place in ("data/train/a.jpg", "data/b.jpg", "c.jpg"):
        (tmp_path / place).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / place).touch()
    root = tmp_path / "data"
    for name, expected in (("b.jpg", "data/b.jpg"), ("c.jpg", "c.jpg"), ("data/b.jpg", "data/b.jpg"),
                           ("old/train/a.jpg", "data/train/a.jpg"), ("d.jpg", None)):
        assert runs._file_of(root, name) == (expected and tmp_path / expected)


def test_a_folder_holds_one_jobs_answers(tmp_path):
    runs._keep_job(tmp_path, {"b": 1, "a": tmp_path})
    assert json.loads((tmp_path / "outside.json").read_text()) == {"a": str(tmp_path), "b": 1}
    runs._keep_job(tmp_path, {"a": tmp_path, "b": 1})
    with pytest.raises(InputError, match=r"answers of another model or on other films \(outside\.json\)"):
        runs._keep_job(tmp_path, {"b": 2})
    (tmp_path / "predictions.csv").touch()
    runs._keep_job(tmp_path, {"a": tmp_path, "b": 1})
    (tmp_path / "outside.json").unlink()
    with pytest.raises(InputError, match=r"holds predictions\.csv of something else"):
        runs._keep_job(tmp_path, {"b": 1})
    assert not (tmp_path / "outside.json").exists()


def test_answers_outside_are_read_beside_the_truth_and_not_asked_for_twice(place, tmp_path, monkeypatch):
    other, read, asked = small_data(tmp_path / "other", 3), runs.read_run(place[2]), []
    own = place[1] / "train" / "patient00001" / "study1" / "view1_frontal.jpg"
    (other / own.relative_to(place[1])).write_bytes(own.read_bytes())
    near = place[1] / "train" / "patient00002" / "study1" / "view1_frontal.jpg"       # as large, as old
    twin = other / near.relative_to(place[1])
    twin.write_bytes(near.read_bytes()[:-3] + bytes([near.read_bytes()[-3] ^ 1]) + b"\xff\xd9")
    os.utime(twin, ns=(near.stat().st_atime_ns, near.stat().st_mtime_ns))

    def answer(run, root, out):
        asked.append((run.folder, root))
        pd.read_csv(out / "truth.csv")[["Path"]].iloc[3:].assign(Edema=0.5).to_csv(out / "predictions.csv", index=False)

    monkeypatch.setattr(runs, "_predict", answer)
    with pytest.raises(InputError, match=r"--by: .*other has no column 'sex'; there are: Path, File, Patient, "
                       r"Frontal/Lateral, Sex, Age, AP/PA\. Did you mean Sex"):
        runs.answer_outside(read, other, tmp_path / "out", by=["Sex", "sex"])
    assert not asked and not (tmp_path / "out").exists()
    for _ in range(2):
        found = runs.answer_outside(read, other, tmp_path / "out", by=["Sex"])
    assert asked == [(place[2], other)] and found.name == "other"
    assert found.truth["Path"].tolist() == found.predictions["Path"].tolist() and len(found.truth) == 40 - 1 - 3
    assert found.truth.index.tolist() == list(range(36))
    assert found.joining == evaluate.Joining(None, None, "study", read.recipe.study_score, read.recipe.blank)
    assert found.notes == ["1 films of other are films of the run itself and are left out.",
                           "3 films could not be answered for and are left out (predictions.skipped.csv)."]
    gone = replace(read, facts={**read.facts, "data": {"root": str(tmp_path / "gone" / "far")}})
    notes = runs.answer_outside(gone, other, tmp_path / "out2").notes
    assert len(notes) == 2 and notes[0].startswith("40 films have the same paths as films of the run, whose own films")


def test_a_run_that_is_not_finished_and_one_without_a_model(place, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(place[2], run)
    (run / "conditional.csv").unlink()
    read = runs.read_run(run)
    assert read.conditional is None and runs.read_run(place[2]).conditional is not None
    size = runs._model_size(read)
    assert size == [len(b"no network"), (run / "model.keras").stat().st_mtime_ns]
    (run / "model.keras").unlink()
    with pytest.raises(InputError, match=r"has no model\.keras"):
        runs._model_size(read)
    for name in ("split.csv", "truth.csv"):
        (run / name).unlink()
        with pytest.raises(InputError, match=rf"{name} is missing; the run is not finished\. Go on.*--resume$"):
            runs.read_run(run)


def test_the_model_answers_in_a_process_of_its_own(place, tmp_path, monkeypatch):
    read, calls = runs.read_run(place[2]), []
    monkeypatch.setattr(runs.subprocess, "run", lambda command: calls.append(command) or replace_code(len(calls) - 1))

    def replace_code(code):
        return type("Done", (), {"returncode": code})

    runs._predict(read, tmp_path / "films", tmp_path)
    assert calls[0][1:] == [
        "-m", "chexpert_hier.predict", str(tmp_path / "truth.csv"), "--root", str(tmp_path / "films"), "--model",
        str(place[2]), "--out", str(tmp_path / "predictions.csv"), "--skip-bad", "--resume"]
    with pytest.raises(InputError, match=r"could not answer for the films of .*films; the reason stands above"):
        runs._predict(read, tmp_path / "films", tmp_path)
