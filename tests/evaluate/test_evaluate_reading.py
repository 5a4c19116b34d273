"""Reading, joining and aggregating: by name, never silently, mistakes in one line."""

import numpy as np
import pandas as pd
import pytest
from asking import joined

from chexpert_hier import evaluate
from chexpert_hier.errors import InputError
from chexpert_hier.evaluate import __main__ as evaluate_command
from chexpert_hier.evaluate import aggregate, names


def film(patient, study=1, view=1, root="CheXpert-v1.0", kind="frontal"):
    return f"{root}/valid/patient{patient:05d}/study{study}/view{view}_{kind}.jpg"


def written(folder, name, text):
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def scores(*rows, columns=("Path", "Edema", "Atelectasis")):
    return pd.DataFrame(rows, columns=list(columns))


TRUTH = scores((film(1), 1.0, 0.0), (film(2), 0.0, 1.0), (film(3), 1.0, 1.0), (film(4), 0.0, 0.0))
PREDICTED = scores((film(1), 0.9, 0.1), (film(2), 0.2, 0.6), (film(3), 0.7, 0.7), (film(4), 0.4, 0.2))


def test_columns_are_read_by_name_and_keys_by_what_follows_the_root():
    other = PREDICTED[["Atelectasis", "Path", "Edema"]].iloc[::-1].copy()
    other["Path"] = other["Path"].str.replace("CheXpert-v1.0", "small")
    cases, same = joined(PREDICTED, TRUTH), joined(other, TRUTH)
    assert cases.labels == ("Edema", "Atelectasis")
    np.testing.assert_array_equal(cases.scores, PREDICTED[["Edema", "Atelectasis"]])
    np.testing.assert_array_equal(same.scores, cases.scores)
    assert cases.unit == "study" and cases.total_patients == 4        # the paths tell their studies
    assert joined(PREDICTED, TRUTH, unit="film").unit == "film"


def test_an_ensemble_is_the_mean_by_film_and_label(tmp_path, capsys):
    other = PREDICTED[["Atelectasis", "Path", "Edema"]].iloc[::-1].assign(Fracture=0.5)
    other[["Edema", "Atelectasis"]] *= 0.5
    mean = evaluate.reading.ensemble([PREDICTED, other])
    assert mean.columns.tolist() == ["Path", "Edema", "Atelectasis"]
    np.testing.assert_allclose(mean[["Edema", "Atelectasis"]], 0.75 * PREDICTED[["Edema", "Atelectasis"]])
    for tables, reason in (([PREDICTED], "received one"), ([PREDICTED, other[:3]], "other films"),
                           ([PREDICTED, other[["Path", "Fracture"]]], "no label that all")):
        with pytest.raises(InputError, match=reason):
            evaluate.reading.ensemble(tables)
    for name, table in (("a", PREDICTED), ("b", other), ("truth", TRUTH)):
        table.to_csv(tmp_path / f"{name}.csv", index=False)
    files = [str(tmp_path / name) for name in ("a.csv", "b.csv", "truth.csv", "out")]
    argv = ["--predictions", *files[:2], "--ensemble", "--truth", files[2], "--out", files[3], "--replicates", "20"]
    assert evaluate_command.main(argv) == 0
    shown = capsys.readouterr().out
    assert "4 studies of 4 patients; AUROC" in shown and "ensemble of 2" in shown


def test_spelling_variants_are_mapped_and_reported():
    odd = PREDICTED.rename(columns={"Edema": "prob_edema", "Atelectasis": "ATELECTASIS"})
    odd["Airspace_Opacity"] = 0.5
    truth = TRUTH.assign(**{"Lung Opacity": 1.0})
    cases = joined(odd, truth)
    assert cases.labels == ("Lung Opacity", "Edema", "Atelectasis")
    assert any("prob_edema" in note and "Airspace_Opacity" in note for note in cases.notes)


def test_labels_of_chestxray14_map_onto_chexperts():
    keys = {"Path": [film(1), film(2)]}
    chexpert = pd.DataFrame({**keys, "Pleural Effusion": [1.0, 0.0], "Lung Lesion": [1.0, 0.0],
                             "Pleural Other": [0, 1.0]})
    nih = pd.DataFrame({**keys, "Effusion": [0.3, 0.4], "Mass": [0.1, 0.8], "Nodule": [0.5, 0.2],
                        "Pleural_Thickening": [0.6, 0.7], "Infiltration": [0.5, 0.5]})
    cases = joined(nih, chexpert)
    assert cases.labels == ("Lung Lesion", "Pleural Effusion", "Pleural Other")
    np.testing.assert_allclose(cases.scores, [[0.5, 0.3, 0.6], [0.8, 0.4, 0.7]])    # Lung Lesion: the larger of two
    back = joined(chexpert, nih.assign(Effusion=[1, 0], Mass=[0, 0], Nodule=[0, 1], Pleural_Thickening=[0, 1],
                                             Infiltration=0))
    assert set(back.labels) == {"Lung Lesion", "Pleural Effusion", "Pleural Other"}
    np.testing.assert_array_equal(back.truth[:, back.labels.index("Lung Lesion")], [0, 1])
    assert joined(nih, nih.round()).labels == ("Effusion", "Mass", "Nodule", "Pleural_Thickening", "Infiltration")


def test_one_file_may_hold_scores_and_truth_side_by_side(tmp_path):
    text = ("Path,Edema_pred,Edema_true,Big_Mass_pred,Big_Mass_true\n"
            "a/patient1/x,0.7,1,0.1,0\na/patient2/x,0.2,0,0.3,1\n")
    path = written(tmp_path, "both.csv", text)
    cases = joined(evaluate.read_predictions(path), evaluate.read_truth(path))
    assert cases.labels == ("Edema", "Big_Mass")
    np.testing.assert_array_equal(cases.scores, [[0.7, 0.1], [0.2, 0.3]])
    np.testing.assert_array_equal(cases.truth, [[1, 0], [0, 1]])


def test_what_only_one_side_has_is_named():
    cases = joined(PREDICTED.assign(Fracture=0.1), TRUTH)
    assert any("Fracture" in note for note in cases.notes)
    with pytest.raises(InputError, match="Fracture"):
        joined(PREDICTED, TRUTH, ["Fracture"])


def test_uncertain_truth_is_left_out_and_counted_and_blanks_are_negative_with_a_note():
    truth = TRUTH.copy()
    truth.loc[0, "Edema"], truth.loc[1, "Edema"] = -1.0, np.nan
    cases = joined(PREDICTED, truth)
    np.testing.assert_array_equal(cases.truth[:, 0], [np.nan, 0, 1, 0])
    assert list(cases.uncertain) == [1, 0]
    assert any("1 blank" in note and "absent" in note for note in cases.notes)
    ignored = joined(PREDICTED, truth, truth_blank="ignore")
    np.testing.assert_array_equal(ignored.truth[:, 0], [np.nan, np.nan, 1, 0])


@pytest.mark.parametrize(("value", "words"), [(np.nan, "Edema is nan"), (np.inf, "Edema is inf")])
def test_scores_that_are_no_numbers_name_row_and_column(value, words):
    bad = PREDICTED.copy()
    bad.loc[2, "Edema"] = value
    with pytest.raises(InputError, match=words) as error:
        joined(bad, TRUTH)
    assert "row 4" in str(error.value) and "patient00003" in str(error.value)


def test_a_truth_that_is_no_code_names_row_and_column():
    bad = TRUTH.copy()
    bad.loc[1, "Atelectasis"] = 0.5
    with pytest.raises(InputError, match=r"row 3 .*Atelectasis is 0\.5"):
        joined(PREDICTED, bad)


def test_keys_twice_and_keys_missing():
    with pytest.raises(InputError, match="appears 2 times"):
        joined(pd.concat([PREDICTED, PREDICTED.iloc[:1]]), TRUTH)
    with pytest.raises(InputError, match=r"1 of 4 keys are missing.*intersect"):
        joined(PREDICTED.iloc[:3], TRUTH)
    cases = joined(PREDICTED.iloc[:3], TRUTH.iloc[1:], intersect=True)
    assert len(cases.keys) == 2 and sum("1 of 3 keys" in note for note in cases.notes) == 2
    with pytest.raises(InputError, match="share no key"):
        joined(PREDICTED, TRUTH.assign(Path=["a/b", "a/c", "a/d", "a/e"]))


def test_uncertain_and_blank_truths_are_counted_among_the_judged_films_only():
    truth = TRUTH.copy()
    truth.loc[[0, 3], "Edema"], truth.loc[[1, 3], "Atelectasis"] = -1.0, np.nan
    cases = joined(PREDICTED.iloc[:3], truth, intersect=True)
    assert list(cases.uncertain) == [1, 0] and any(note.startswith("1 blank") for note in cases.notes)


def test_the_test_release_without_its_first_folder_still_joins():
    short = PREDICTED.assign(Path=PREDICTED["Path"].str.replace("CheXpert-v1.0/valid/", "valid/"))
    cases = joined(short, TRUTH)
    np.testing.assert_array_equal(cases.scores, PREDICTED[["Edema", "Atelectasis"]])
    assert any("patient's folder on" in note for note in cases.notes)


def test_films_become_studies_by_the_rule():
    films = scores((film(1), 0.1, 0.6), (film(1, view=2), 0.8, 0.3), (film(1, 2), 0.2, 0.2), (film(2), 0.4, 0.45))
    studies = [film(1).rsplit("/", 1)[0], film(1, 2).rsplit("/", 1)[0], film(2).rsplit("/", 1)[0]]
    truth = pd.DataFrame({"Study": studies, "Edema": [1, 0, 0], "Atelectasis": [0, 1, 1]})
    expected = {"max": [[0.8, 0.6], [0.2, 0.2], [0.4, 0.45]], "mean": [[0.45, 0.45], [0.2, 0.2], [0.4, 0.45]],
                "confident": [[0.1, 0.3], [0.2, 0.2], [0.4, 0.45]]}             # 0.9 beats 0.8; 0.7 beats 0.6
    for rule, values in expected.items():
        cases = joined(films, truth, rule=rule)
        assert cases.unit == "study" and cases.total_patients == 2
        np.testing.assert_allclose(cases.scores, values)
    mixed = joined(films, truth, rule={"Edema": "mean", "*": "max"})
    np.testing.assert_allclose(mixed.scores[0], [0.45, 0.6])
    with pytest.raises(InputError, match="max, mean, confident"):
        joined(films, truth, rule="median")


def test_the_confident_rule_takes_the_film_farthest_from_a_half_per_finding():
    values, group = np.array([0.6, 0.2, 0.9, 0.5, 0.5]), np.array([0, 0, 0, 1, 1])
    slow = [max((v for v, g in zip(values, group) if g == k), key=lambda p: max(p, 1 - p)) for k in (0, 1)]
    np.testing.assert_array_equal(aggregate.combine(values, group, "confident"), slow)
    with pytest.raises(InputError, match="probabilities"):
        aggregate.combine(np.array([1.2]), np.array([0]), "confident")


def test_patients_are_units_and_a_patient_has_what_any_film_has():
    truth = scores((film(1), 0.0, np.nan), (film(1, 2), 1.0, 0.0), (film(2), -1.0, 0.0), (film(2, 2), 0.0, 0.0))
    films = scores((film(1), 0.1, 0.2), (film(1, 2), 0.3, 0.1), (film(2), 0.5, 0.2), (film(2, 2), 0.2, 0.9))
    cases = joined(films, truth, unit="patient", truth_blank="ignore")
    np.testing.assert_array_equal(cases.truth, [[1, np.nan], [np.nan, 0]])
    np.testing.assert_array_equal(cases.scores, [[0.3, 0.2], [0.5, 0.9]])


def test_patients_come_from_paths_nih_names_or_a_column():
    assert list(names.patients_of(["a/patient00012/study1/x.jpg"])) == ["patient00012"]
    assert list(names.patients_of(["00000013_005.png", "images/00000013_006.png"])) == ["00000013"] * 2
    assert list(names.patients_of(["files/p10/p10000032/s50414267/x.jpg"])) == ["p10000032"]
    assert names.patients_of(["film1.png"]) is None
    cases = joined(PREDICTED, TRUTH.assign(who=["a", "b", "a", "b"]), patients="who")
    assert list(cases.patients) == [0, 1, 0, 1]
    assert list(joined(PREDICTED, TRUTH, patients=["x", "y", "z", "z"]).patients) == [0, 1, 2, 2]
    with pytest.raises(InputError, match="no column 'nobody'"):
        joined(PREDICTED, TRUTH, patients="nobody")


def test_views_can_be_chosen():
    both = pd.concat([PREDICTED, scores((film(1, view=2, kind="lateral"), 0.99, 0.99))])
    truth = pd.concat([TRUTH, scores((film(1, view=2, kind="lateral"), 1.0, 0.0))])
    assert len(joined(both, truth, views="frontal").keys) == 4
    assert joined(both, truth, unit="study", views="frontal").scores[0, 0] == 0.9
    assert joined(both, truth, unit="study").scores[0, 0] == 0.99


@pytest.mark.parametrize(("text", "words"), [
    ("", "is empty"), ("Path,Edema\n", "no rows"), ("Film,Edema\na,0.5\n", "no column Path or Study"),
    ("Path,Edema,Edema\na,0.1,0.2\n", "names Edema twice"), ("Path,Edema,edema\na,0.1,0.2\n", "same label"),
    ("Path,Edema\na,0.1\nb,0.2\nc,high\n", "row 4"), ("Path,Edema\na,0.1\n\"b", "row 3")])
def test_files_that_cannot_be_used_are_one_line(tmp_path, text, words):
    with pytest.raises(InputError, match=words) as error:
        evaluate.read_predictions(written(tmp_path, "p.csv", text))
    assert "\n" not in str(error.value) and "p.csv" in str(error.value)


def test_files_are_read_whole_with_blanks_and_byte_order_mark(tmp_path):
    text = "\ufeffPath,Sex,Edema\na/patient1/x,Male,\na/patient2/x,Female,-1.0\n"
    table = evaluate.read_truth(written(tmp_path, "t.csv", text))
    assert np.isnan(table["Edema"][0]) and table["Edema"][1] == -1 and list(table["Sex"]) == ["Male", "Female"]
    with pytest.raises(InputError, match="no such file"):
        evaluate.read_truth(tmp_path / "none.csv")
