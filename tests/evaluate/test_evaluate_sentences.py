"""What an evaluation says beside its numbers, what the command passes on, scores at the ends of [0, 1]; by value."""

import json
import logging
from types import SimpleNamespace

import numpy as np
import pytest
from asking import joined, judged
from test_evaluate_judging import tables

from chexpert_hier import evaluate, hierarchy
from chexpert_hier.errors import InputError
from chexpert_hier.evaluate import __main__ as command
from chexpert_hier.evaluate import calibration, evaluation, page, thresholds

NAN = np.nan
TWO = ("Edema", "Atelectasis")


def others(**words):
    """Tables as `tables`, of other patients."""
    made = tables(films=60, patients=60, seed=1, **words)
    for table in made:
        table["Path"] = table["Path"].str.replace("/patient0", "/patient7")
    return made


# notes

def test_missing_classes_and_dropped_resamples_are_told():
    predicted, truth = tables(films=40, patients=40, labels=(*TWO, "Cardiomegaly", "Hernia"))
    truth["Edema"], truth["Atelectasis"], truth["Hernia"] = 1.0, [1.0] + [0.0] * 39, 0.0
    result = judged(predicted, truth, replicates=30, curves=False)
    dropped = result.table.set_index("label").loc["Atelectasis", "dropped_replicates"]
    assert "Edema: no AUROC, for there are 40 positives and 0 negatives." in result.notes and 0 < dropped < 30
    assert "Hernia: no AUROC, for there are 0 positives and 40 negatives." in result.notes
    told = [note for note in result.notes if "resamples lacked a class" in note]
    assert told == [f"Atelectasis: {dropped} resamples lacked a class and were dropped."]


def test_decisions_have_their_own_notes():
    predicted, truth = tables(films=60, patients=60, labels=TWO)
    truth["Edema"] = [1.0] * 20 + [0.0] * 40
    truth["Atelectasis"] = 0.0
    calls = predicted.assign(Edema=1.0, Atelectasis=(predicted["Atelectasis"] > 0.5).astype(float))
    notes = judged(calls, truth, replicates=5).notes
    assert any(note.startswith("These are decisions (0 and 1 only)") for note in notes)
    assert "Atelectasis: no measure of both classes, for there are 0 positives and 60 negatives." in notes
    assert not any("all scores are the same" in note or note.startswith("Fewer than 30") for note in notes)
    assert "The mean of 2 is over 1 label; without both classes: Atelectasis." in notes
    scores = judged(predicted.assign(Edema=0.25), truth, replicates=5).notes
    assert "Edema: all scores are the same, which makes the AUROC 0.5 by ties." in scores
    assert any(note.startswith("Fewer than 30 positives") and note.endswith(": Edema (20).") for note in scores)
    assert not any("decisions" in note for note in scores)


def test_thresholds_in_words():
    words, fitting = "the largest F1", object()
    assert evaluation._threshold_in_words("f1", fitting) == f"Thresholds: {words}, chosen on the fitting films only."
    assert evaluation._threshold_in_words(0.5, fitting) == "Thresholds: given (0.5)."
    assert evaluation._threshold_in_words("f1", None) == (
        f"Thresholds: {words}. Each patient's films are judged at a threshold chosen on the other patients (5-fold "
        "cross-fitting); the threshold shown is that of all films, for later use.")


def test_calibration_in_words():
    def words(*methods, method="platt", fitting=None):
        made = {f"L{k}": calibration.Scaling(name) for k, name in enumerate(methods)}
        return evaluation._calibration_in_words(SimpleNamespace(scalings=made), method, fitting)

    end = "; then no label above an ancestor of it. Isotonic regression is used from 200 positives on."
    other = "each patient's scores scaled by a fit to the other patients"
    assert words("platt", "platt") == f"Calibration: Platt scaling for every label; {other}{end}"
    assert words("platt", "isotonic", "platt", "none", fitting=object()) == (
        "Calibration: Platt scaling for L0, L2; isotonic regression for L1; none (a class is missing) for L3; fitted "
        f"on the fitting films{end}")
    assert words("none", method="none") == "Scores were not calibrated."


def test_what_was_done_stands_in_the_settings():
    predicted, truth = tables(films=60, patients=60, labels=TWO)
    found = judged(predicted, truth, fit=others(labels=TWO), replicates=7, seed=3, stratified=True, calibrate="none",
                   curves=False)
    assert found.settings == {
        "unit": "study", "cases": 60, "patients": found.cases.total_patients, "replicates": 7, "seed": 3,
        "stratified": True, "threshold": "the largest sensitivity + specificity (Youden)", "calibrate": "none",
        "fitted_on": "other films", "decisions": False, "mean_of_all": pytest.approx(found.table["auroc"][:-1].mean()),
        "mean_of_all_labels": 2, "mean_over": ["Edema", "Atelectasis"]}
    calls = judged(predicted.round(), truth, replicates=0).settings
    assert (calls["threshold"], calls["calibrate"], calls["fitted_on"]) == (
        "the file's own decisions", "none", "cross-fitted by patient")


# scores at the ends of [0, 1], and what other films teach

def test_probabilities_reach_from_0_to_1():
    predicted, truth = tables(films=60, patients=60, labels=TWO)
    fit = others(labels=TWO)
    ends = predicted.assign(Edema=[0.0, 1.0, *predicted["Edema"][2:]])
    assert judged(ends, truth, fit=(fit[0].assign(Edema=[0.0, 1.0, *fit[0]["Edema"][2:]]), fit[1]), replicates=0,
                  curves=False).table["brier_calibrated"][:-1].notna().all()
    for first, fitted, count in ((1.001, 0.5, 1), (-0.001, 0.5, 1), (0.5, 1.5, 0), (0.5, -0.1, 0)):
        far = fit[0].assign(Edema=[fitted, *fit[0]["Edema"][1:]])
        result = judged(predicted.assign(Edema=[first, *predicted["Edema"][1:]]), truth, fit=(far, fit[1]),
                        replicates=0, curves=False)
        assert result.table["brier"].isna().all() and result.calibrated is None and not result.scalings
        assert any(note.startswith(f"{count} of 120 scores lie outside [0, 1]") for note in result.notes)


def test_thresholds_and_scalings_of_other_films_are_used_as_they_are():
    predicted, truth = tables(films=60, patients=60, labels=TWO)
    fit = others(labels=TWO, noise=3.0)
    result, fitting = judged(predicted, truth, fit=fit, replicates=0, curves=False), joined(*fit)
    for k, label in enumerate(result.cases.labels):
        scaling = calibration.fit(fitting.scores[:, k], fitting.truth[:, k])
        assert result.scalings[label] == scaling
        np.testing.assert_array_equal(result.calibrated[:, k], scaling(result.cases.scores[:, k]))
        chosen = thresholds.choose(fitting.scores[:, k], fitting.truth[:, k], "youden")
        np.testing.assert_array_equal(result.calls[:, k], result.cases.scores[:, k] >= chosen)
    alone = judged(predicted, truth, replicates=0, curves=False)
    expected = thresholds.cross_fitted(alone.cases.scores[:, 0], alone.cases.truth[:, 0], alone.cases.patients,
                                       calibration.fit, lambda learned, s: learned(s))
    np.testing.assert_array_equal(alone.calibrated[:, 0], expected)
    table = alone.table
    assert table["brier"][0] == pytest.approx(np.mean((alone.cases.scores[:, 0] - alone.cases.truth[:, 0]) ** 2))
    assert table["brier_calibrated"][0] == pytest.approx(np.mean((expected - alone.cases.truth[:, 0]) ** 2))
    assert list(alone.reliability) == list(alone.cases.labels) and list(alone.reliability["Edema"]) == ["raw", "scaled"]


def test_patients_to_fit_on_are_others():
    predicted, truth = tables(films=30, patients=30, labels=TWO)
    with pytest.raises(InputError, match=r"--fit: \d+ patients to fit on are also judged, first patient0000\d; fit on"):
        judged(predicted, truth, fit=(predicted, truth), replicates=0)
    blank = others(labels=TWO)
    blank[1].loc[0, "Edema"] = NAN
    notes = judged(predicted, truth, fit=blank, replicates=0).notes
    assert "Fitting films: 1 blank truths count as absent (--truth-blank ignore leaves them out)." in notes
    same = judged(predicted, truth.assign(Edema=[NAN, *truth["Edema"][1:]]), fit=blank, replicates=0).notes
    assert sum("1 blank truths" in note for note in same) == 1        # said once


def test_scores_before_the_chain_rule_are_of_the_same_films():
    predicted, truth = tables(films=30, patients=30, labels=TWO)
    cases = joined(predicted, truth)
    with pytest.raises(InputError, match="have other keys than those after it"):
        evaluation.judge(cases, evaluate.Judging(replicates=0), conditional=cases.subset(np.arange(29, -1, -1)))
    found = evaluation.judge(cases, evaluate.Judging(replicates=5, seed=2), conditional=cases)
    table = found.comparisons["after the chain rule against before"]
    assert found.settings["conditional"] == "given" and (table["difference"] == 0).all()
    assert (table["first"].iloc[0], table["second"].iloc[0]) == ("before the chain rule", "after it")


# the command

@pytest.fixture
def files(tmp_path):
    """Predictions, truth, and those of other patients, as files."""
    made = dict(zip(("p", "t", "fp", "ft"), (*tables(films=60, patients=60, labels=TWO), *others(labels=TWO))))
    for name, table in made.items():
        table.to_csv(tmp_path / f"{name}.csv", index=False)
    return SimpleNamespace(folder=tmp_path, **{name: str(tmp_path / f"{name}.csv") for name in made})


def asked(files, *words):
    return command._judge(command.parser().parse_args([
        "--predictions", files.p, "--truth", files.t, "--out", "o", "--replicates", "0", *words]))


def test_the_command_learns_from_the_files_to_fit_on(files):
    found = asked(files, "--fit", files.fp, files.ft).main
    fitting = joined(evaluate.read_predictions(files.fp), evaluate.read_truth(files.ft))
    assert found.table["threshold"][0] == thresholds.choose(fitting.scores[:, 0], fitting.truth[:, 0], "youden")
    assert found.settings["fitted_on"] == "other films" and found.name == "p"


def test_the_command_sets_scores_before_the_chain_rule_beside(files):
    found = asked(files, "--conditional", files.p)
    assert list(found.compared) == ["after the chain rule against before"] and not asked(files).compared
    several = command._judge(command.parser().parse_args([
        "--predictions", files.p, files.p, "--truth", files.t, "--out", "o", "--replicates", "0", "--conditional",
        files.p]))
    assert [list(result.comparisons) for result in several.results] == [["after the chain rule against before"], []]


def test_quiet_says_errors_alone(files, capsys):
    logger = logging.getLogger("chexpert_hier")
    before = logger.level
    try:
        for words, level in (([], logging.INFO), (["--quiet"], logging.ERROR)):
            logger.setLevel(logging.INFO)
            assert command.main(["--predictions", files.p, "--truth", files.t, "--out", str(files.folder / f"o{level}"),
                                 "--replicates", "0", "--no-page", *words]) == 0
            assert logger.level == level and bool(capsys.readouterr().out) == (not words)
    finally:
        logger.setLevel(before)


def test_what_the_command_says_at_its_end(files, capsys):
    out = files.folder / "o"
    ask = ["--predictions", files.p, "--truth", files.t, "--out", str(out), "--replicates", "0"]
    command.main([*ask, "--no-page"])
    assert capsys.readouterr().out.endswith(f"written: {out / 'evaluation.csv'}\n")
    assert json.loads((out / "evaluation.json").read_text())["asked"] == json.loads(json.dumps(command._asked(
        command.parser().parse_args(ask))))


@pytest.mark.parametrize("words", [["--predictions", "p"], ["--truth", "t"], []])
def test_predictions_and_truth_go_together(words):
    with pytest.raises(InputError, match=r"^give --predictions and --truth, or --run$"):
        command._check(command.parser().parse_args(["--out", "o", *words]))


def test_a_run_is_judged_by_its_own_tree_and_seed_unless_others_are_asked_for():
    tree, own = hierarchy.CHEXPERT_TREE, hierarchy.flat(("A", "B"))
    run = SimpleNamespace(name="mine", tree=own, recipe=SimpleNamespace(seed=7))
    found = command._as_the_run(run, evaluate.Judging())
    assert (found.name, found.tree, found.seed) == ("mine", own, 7)
    found = command._as_the_run(run, evaluate.Judging(tree=tree, seed=3))
    assert (found.tree, found.seed) == (tree, 3)


def test_how_the_page_reads_its_templates():
    made = page.environment.__wrapped__()                             # not the one that is kept
    assert made.autoescape is True and made.trim_blocks is True and made.lstrip_blocks is True
    notes = [SimpleNamespace(notes=["a", "b"]), SimpleNamespace(notes=["b"])]
    assert [made.tests["in_all"](note, notes) for note in "abc"] == [False, True, False]
    assert made.from_string("{{ x|digits(1) }} {{ y|count }}").render(x=0.25, y=1e4) == "0.2 10,000"
