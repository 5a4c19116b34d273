"""Joining, reading and asking in their details: cases, notes, keys, names of files, each by value."""

import json

import numpy as np
import pandas as pd
import pytest
from asking import joined
from test_evaluate_judging import tables

from chexpert_hier import evaluate, hierarchy
from chexpert_hier.errors import InputError
from chexpert_hier.evaluate import __main__ as command
from chexpert_hier.evaluate import joining, reading

NAN = np.nan
KEYS = [f"a/valid/patient{k:05d}/study1/view1_frontal.jpg" for k in range(4)]


def two(scores=(0.1, 0.2, 0.3, 0.4), truth=(0.0, 1.0, 0.0, 1.0), keys=KEYS, **more):
    return pd.DataFrame({"Path": keys, "Edema": scores}), pd.DataFrame({"Path": keys, "Edema": truth, **more})


# cases

def test_some_rows_and_labels_of_cases():
    cases = joined(*tables(films=30, patients=8))
    rows = np.array([20, 3, 4, 29])
    for chosen in (rows, np.isin(np.arange(30), rows)):
        order = rows if chosen is rows else np.sort(rows)
        part = cases.subset(chosen)
        assert list(part.keys) == list(cases.keys[order]) and list(part.who) == list(cases.who[order])
        assert part.patients.tolist() == np.unique(part.who, return_inverse=True)[1].tolist()
        np.testing.assert_array_equal(part.scores, cases.scores[order])
        np.testing.assert_array_equal(part.truth, cases.truth[order])
        assert part.about["Age"].tolist() == cases.about["Age"].iloc[order].tolist() and part.notes == []
    labels = cases.labels[3], cases.labels[0]
    part = cases.only(labels)
    np.testing.assert_array_equal(part.scores, cases.scores[:, [3, 0]])
    np.testing.assert_array_equal(part.truth, cases.truth[:, [3, 0]])
    assert part.labels == labels and part.notes == [] and part.uncertain.tolist() == cases.uncertain[[3, 0]].tolist()
    empty = cases.subset(np.arange(0))
    assert empty.total_patients == 0 and empty.in_words == "0 studies of 0 patients"
    assert cases.subset(np.arange(1)).in_words == "1 study of 1 patient"


def test_decisions_are_zeros_and_ones_alone():
    assert joined(*two((0.0, 1.0, 1.0, 0.0))).decisions and not joined(*two((0.0, 1.0, 0.5, 0.0))).decisions


def test_the_defaults_of_joining():
    assert evaluate.Joining() == evaluate.Joining(None, None, None, "max", "negative", False, "both")
    assert evaluate.Joining(("A",), "who").elsewhere(("B",)) == evaluate.Joining(("B",), "who")
    assert evaluate.Joining(("A",), ["P"], "film").elsewhere(("B",)) == evaluate.Joining(("B",), None, "film")
    for words in ({"truth_blank": "no"}, {"views": "side"}, {"unit": "case"}, {"rule": "median"}):
        with pytest.raises(InputError, match=f"--{next(iter(words)).replace('_', '-')} is"):
            evaluate.Joining(**words)


def test_notes_of_a_join():
    scores, truth = two(truth=(-1.0, NAN, -1.0, 1.0))
    scores["Fracture"], scores["Hernia"], truth["Pneumonia"] = 0.5, 0.5, 1.0
    notes = joined(scores, truth).notes
    assert notes[:4] == ["Not judged, for only the predictions have them: Fracture, Hernia.",
                         "Not judged, for only the truth has it: Pneumonia.",
                         "1 blank truths count as absent (--truth-blank ignore leaves them out).",
                         "Uncertain truths (-1) are left out: Edema 2."]
    assert "1 blank truths count as unknown and are left out." in joined(scores, truth, truth_blank="ignore").notes
    words = scores.assign(Fracture="x")[["Path", "Edema", "Fracture"]]
    assert joined(words, truth[["Path", "Edema"]].assign(Edema=1.0)).notes == []     # a column of words is no label


def test_films_that_become_studies_are_counted():
    keys = [*KEYS[:3], KEYS[0].replace("view1", "view2")]
    scores, truth = two(keys=keys)
    for words, by in (({}, "the highest"), ({"rule": {"Edema": "mean"}}, "one rule per label")):
        note, = (note for note in joined(scores, truth, **words).notes if "joined into" in note)
        assert note.startswith("4 films were joined into 3 studies by ") and by in note
    assert not any("joined into" in note for note in joined(*two()).notes + joined(scores, truth, unit="film").notes)


def test_keys_that_tell_no_patients_are_their_own():
    scores, truth = two(keys=["a/x.png", "a/y.png", "a/z.png", "a/w.png"])
    cases = joined(scores, truth)
    assert cases.notes == ["The keys do not tell patients apart: every row counts as its own patient (--patients "
                           "COLUMN)."]
    assert cases.total_patients == 4 and cases.who.tolist() == ["x.png", "y.png", "z.png", "w.png"]
    named = joined(scores, truth, patients=[1, 1, 2, 2])
    assert named.patients.tolist() == [0, 0, 1, 1] and named.who.tolist() == ["1", "1", "2", "2"] and not named.notes
    with pytest.raises(InputError, match="patients has 3 values; expected one per row of the truth, 4"):
        joined(scores, truth, patients=[1, 2, 3])
    with pytest.raises(InputError, match=r"truth: no column 'who' for the patients; found Path, Edema$"):
        joined(scores, truth, patients="who")


def test_what_else_the_truth_says_stays_with_its_row():
    scores, truth = two(Sex=list("FMFM"), Edema_note=list("abcd"))
    cases = joined(scores.iloc[::-1], truth)
    assert cases.about.to_dict("list") == {"Sex": list("FMFM"), "Edema_note": list("abcd")}
    np.testing.assert_array_equal(cases.scores[:, 0], [0.1, 0.2, 0.3, 0.4])


def test_a_blank_key_and_wrong_cells_are_named():
    for blank in ("", " NaN "):
        scores, truth = two(keys=[KEYS[0], blank, *KEYS[2:]])
        with pytest.raises(InputError, match=r", row 3 .*: Path is blank; expected a path or study"):
            joined(scores, truth)
    with pytest.raises(InputError, match=r"row 4 .*Edema is 0\.5; expected 1, 0, -1 or blank"):
        joined(*two(truth=(1.0, 0.0, 0.5, 2.0)))
    with pytest.raises(InputError, match=r"row 2 .*Edema is inf; expected a finite score"):
        joined(*two(scores=(np.inf, NAN, 0.5, 2.0)))


def test_labels_are_asked_for_by_name():
    scores, truth = two()
    scores["Hernia"], truth["Hernia"] = 0.5, 1.0
    assert joined(scores, truth, ["hernia", "Edema", "hernia"]).labels == ("Hernia", "Edema")
    with pytest.raises(InputError, match=r"'Mass' is not in both predictions and truth; both have: Edema, Hernia$"):
        joined(scores, truth, ["Edema", "Mass"])
    with pytest.raises(InputError, match=r"both have: none$"):
        joined(scores[["Path", "Hernia"]], truth[["Path", "Edema"]], ["Mass"])
    many = pd.DataFrame({"Path": KEYS, **{f"L{k}": 0.5 for k in range(6)}})
    with pytest.raises(InputError, match=r"no label in common; found L0, L1, L2, L3, L4, \.\.\. and Edema$"):
        joined(many, truth[["Path", "Edema"]])
    assert joining._few(list("abcde")) == "a, b, c, d, e" and joining._few([]) == "none"


def test_names_of_columns_that_were_changed():
    scores, truth = two()
    scores = scores.rename(columns={"Edema": "prob_edema"}).assign(Mass=0.1, Nodule=0.3, Hernia_pred=0.2)
    truth = truth.assign(**{"Lung Lesion": 1.0, "Hernia_true": 1.0})
    cases = joined(scores, truth)
    assert cases.notes[-2:] == ["Columns read without their endings: _pred, _true.",
                                "Columns read under another name: Mass or Nodule (predictions) as Lung Lesion; "
                                "prob_edema (predictions) as Edema."]
    np.testing.assert_allclose(cases.scores[0], [0.3, 0.1, 0.2])


def test_keys_that_one_side_lacks():
    scores, truth = two()
    with pytest.raises(InputError, match=r"^predictions: 2 of 4 keys are missing, first .*patient00000.*; give all"):
        joined(scores.iloc[2:], truth)
    with pytest.raises(InputError, match=r"^truth: 1 of 4 keys are missing, first .*patient00003"):
        joined(scores, truth.iloc[:3])
    cases = joined(scores.iloc[[3, 1, 0]], truth.iloc[1:], intersect=True)
    assert [key.split("/")[2] for key in cases.keys] == ["patient00001", "patient00003"]
    np.testing.assert_array_equal(cases.scores[:, 0], [0.2, 0.4])
    assert cases.notes == ["1 of 3 keys are missing in predictions and were dropped (--intersect).",
                           "1 of 3 keys are missing in truth and were dropped (--intersect)."]


# files

def test_a_meta_files_key(tmp_path):
    for columns, expected in ((["Patient", "Site"], "Patient"), (["Patient", "Path"], "Path"),
                              (["Study", "Age"], "Study"), (["Site", "patient_id"], "patient_id")):
        pd.DataFrame({column: ["x"] for column in columns}).to_csv(tmp_path / "m.csv", index=False)
        table = evaluate.read_meta(tmp_path / "m.csv")
        assert table.attrs["key"] == expected and table.index.tolist() == [0]
    pd.DataFrame({"Patient": ["x"]}).to_csv(tmp_path / "m.csv", index=False)
    with pytest.raises(InputError, match="only the column Patient; expected others beside it"):
        evaluate.read_meta(tmp_path / "m.csv")
    with pytest.raises(InputError, match=r"none\.csv: no such file; expected a CSV"):
        evaluate.read_predictions(tmp_path / "none.csv")


def test_numbers_and_words_of_a_file(tmp_path):
    (tmp_path / "t.csv").write_text("Path,Edema,Sex,Note,Empty\na/b, 1 ,F,1,\nc/d,NA,M,x,\ne/f,-1,F,y,None\n")
    table = evaluate.read_truth(tmp_path / "t.csv")
    np.testing.assert_array_equal(table["Edema"], [1, NAN, -1])
    assert table["Note"].tolist() == ["1", "x", "y"] and table["Empty"].isna().all() and table["Empty"].dtype == float
    (tmp_path / "t.csv").write_text("Path,Edema\na/b,1\nc/d,high\ne/f,x\ng/h,0\ni/j,1\n")
    with pytest.raises(InputError, match=r"t\.csv, row 3 \(c/d\): Edema is 'high'; expected a number"):
        evaluate.read_predictions(tmp_path / "t.csv")
    half = pd.Series(["1", "x", "", "2"])
    assert reading._is_number_like(half) and not reading._is_number_like(half[:2])
    assert reading._is_number_like(half[2:3])                         # nothing but blanks


def test_a_row_as_a_person_finds_it():
    table = pd.DataFrame({"Path": ["a", "b"]}, index=pd.Index([7, 9], name="row"))
    assert reading.where(table, 1) == "table, row 9 (b)"
    assert reading.where(table.reset_index(drop=True), 1) == "table, row 3 (b)"


def test_an_ensemble_needs_the_same_films_once():
    first, _ = two()
    first["Hernia"], first.attrs["source"] = 0.5, "a.csv"
    second = first.iloc[::-1].assign(Edema=[0.8, 0.6, 0.4, 0.2])[["Path", "Edema"]]
    second.attrs = {"source": "b.csv"}
    mean = evaluate.ensemble([first, second, second])
    np.testing.assert_allclose(mean["Edema"], [0.5 / 3, 1.0 / 3, 1.5 / 3, 2.0 / 3])
    assert list(mean.columns) == ["Path", "Edema"] and mean.attrs == {"source": "ensemble of 3", "notes": []}
    twice = second.assign(Path=[KEYS[3], KEYS[3], KEYS[1], KEYS[0]])
    for wrong in (twice, second.iloc[:3], pd.concat([second, second.iloc[:1]]), second.assign(Path=list("abcd"))):
        wrong.attrs = {"source": "b.csv"}
        with pytest.raises(InputError, match=r"b\.csv: other films than a\.csv, or one of them twice"):
            evaluate.ensemble([first, wrong])
    with pytest.raises(InputError, match=r"a\.csv: no label that all 2 files of predictions have"):
        evaluate.ensemble([first, second.rename(columns={"Edema": "Mass"})])
    raw = evaluate.ensemble([first, second.assign(Edema=[0.0, 1.0, -0.1, 1.1])])
    assert "predictions 2" not in raw.attrs["notes"][0] and "b.csv (2 of 4)" in raw.attrs["notes"][0]
    assert "a.csv" not in raw.attrs["notes"][0]


# the command

@pytest.mark.parametrize(("paths", "names"), [
    (["x/a.csv"], ["a"]), (["x/a_predictions.csv"], ["a_predictions"]),
    (["a_predictions.csv", "b_predictions.csv.gz"], ["a", "b"]), (["x/a.csv", "y/a.csv"], ["x/a", "y/a"]),
    (["a.csv", "a_predictions.csv"], ["a", "a_predictions"]), (["x/_predictions.csv", "b.csv"], ["_predictions", "b"]),
    (["x/a.csv", "x/a.csv", "b.csv"], ["1: x/a", "2: x/a", "b"]),
    (["x/a_predictions.csv", "y/a_predictions.csv"], ["x/a", "y/a"])])
def test_files_have_short_names_that_tell_them_apart(paths, names):
    assert command._names(paths) == names


def test_rules_and_trees_from_files(tmp_path):
    file = tmp_path / "rules.json"
    file.write_text(json.dumps({"Edema": "mean", "*": "max"}))
    assert command._rule(str(file)) == {"Edema": "mean", "*": "max"} and command._rule("max") == "max"
    for text in ("[1]", "{", "[" * 100_000):
        file.write_text(text)
        with pytest.raises(InputError, match=r"rules\.json: cannot be read as JSON \{label: rule\}"):
            command._rule(str(file))
    file.write_text(json.dumps({"Edema": "median"}))
    with pytest.raises(InputError, match="--rule is 'median'"):
        command._rule(str(file))
    assert command._tree(None) is None and command._tree("chexpert") is hierarchy.CHEXPERT_TREE
    file.write_text(json.dumps({"Edema": ["Lung Opacity"]}))
    with pytest.raises(InputError):
        command._tree("oak")


def ask(*words):
    return command.parser().parse_args(["--out", "o", *words])


def test_what_a_run_or_files_are_asked_for():
    found = command._asked(ask("--predictions", "p", "q", "--truth", "t", "--by", "Sex", "--table", "csv", "--quiet"))
    assert {name: [file["name"] for file in files] for name, files in found["files"].items()} == {
        "predictions": ["p", "q"], "truth": ["t"], "run": [], "radiologists": [], "meta": [], "fit": [],
        "conditional": []}
    assert found["settings"] == {
        "data": None, "reader": None, "ensemble": False, "labels": None, "by": ["Sex"], "unit": None, "rule": None,
        "views": "both", "patients": None, "threshold": "youden", "calibrate": "platt", "mean": "plain", "tree": None,
        "truth_blank": None, "intersect": False, "pairs": None, "replicates": 1000, "stratified": False, "seed": 0}
    run = command._asked(ask("--run", "R"))["files"]
    assert [file["name"] for file in run["run"]] == ["predictions.csv", "truth.csv"] and run["truth"] == []


def test_the_columns_to_split_by_and_the_rest_reach_the_judging(monkeypatch):
    seen = []
    monkeypatch.setattr(command, "_files", lambda args, judging: seen.append(judging))
    command._judge(ask("--predictions", "p", "--truth", "t", "--by", "Sex, Age,", "AP/PA", "--seed", "3", "--mean",
                       "weighted", "--stratified", "--replicates", "7", "--threshold", "f1", "--calibrate", "none"))
    assert seen == [evaluate.Judging(7, 3, True, "f1", "none", ["Sex", "Age", "AP/PA"], None, mean="weighted")]
