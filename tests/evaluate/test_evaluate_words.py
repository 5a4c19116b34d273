"""Names, units, groups and sentences of an evaluation, each by value."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from asking import joined, judged
from test_evaluate_judging import LABELS, tables

from chexpert_hier import evaluate, hierarchy
from chexpert_hier.errors import InputError
from chexpert_hier.evaluate import aggregate, names, subgroups, terminal, tree, units
from chexpert_hier.evaluate import tables as paper
from chexpert_hier.labels import CHEXPERT_LABELS, COMPETITION_LABELS

NAN = np.nan


# from films to studies

def test_rules_of_a_study_by_hand():
    values, group = np.array([0.2, 0.9, 0.4, 0.05, 0.3]), np.array([0, 0, 1, 1, 2])
    for rule, expected in (("max", [0.9, 0.4, 0.3]), ("mean", [0.55, 0.225, 0.3]), ("confident", [0.9, 0.05, 0.3])):
        np.testing.assert_allclose(aggregate.combine(values, group, rule), expected)
    assert aggregate.combine(np.array([0.9, 0.1]), np.array([0, 0]), "confident").tolist() == [0.9]   # the first
    assert aggregate.combine(np.array([0.0, 1.0]), np.array([0, 1]), "confident").tolist() == [0, 1]
    assert aggregate.combine(np.array([-1.0, 2.0]), np.array([0, 0]), "max").tolist() == [2]
    assert all(len(aggregate.combine(np.empty(0), np.empty(0, int), rule)) == 0 for rule in aggregate.RULES)
    for wrong in (-0.1, 1.1):
        with pytest.raises(InputError, match="confident needs probabilities"):
            aggregate.combine(np.array([wrong]), np.array([0]), "confident")
    with pytest.raises(InputError, match="--rule is 'median'"):
        aggregate.combine(values, group, "median")
    with pytest.raises(InputError, match="--rule is 'median'"):
        aggregate.check_rule({"A": "max", "B": "median"})


def test_a_study_has_a_finding_that_any_of_its_films_has():
    side = pd.DataFrame({aggregate.KEY: list("abcdef"), aggregate.JOINED: ["s", "s", "t", "t", "u", "u"],
                         "A": [0, 1, 0, -1, 0, 0], "B": [NAN, 0, -1, 1, 0, NAN], "Sex": list("FFMMFF")})
    truth = aggregate.aggregate(side, "study", "max", ["A", "B"], "truth")
    np.testing.assert_array_equal(truth[["A", "B"]], [[1, NAN], [NAN, 1], [0, NAN]])
    assert truth[aggregate.KEY].tolist() == ["a", "c", "e"] and truth["Sex"].tolist() == ["F", "M", "F"]
    scores = aggregate.aggregate(side.fillna(0), "study", {"A": "mean", "*": "confident"}, ["A", "B"][:1], "score")
    assert scores["A"].tolist() == [0.5, -0.5, 0] and scores[aggregate.KEY].tolist() == ["s", "t", "u"]
    unnamed = aggregate.aggregate(side.fillna(0), "study", {"B": "mean"}, ["A"], "score")
    assert unnamed["A"].tolist() == [1, 0, 0]                        # neither named nor "*": the highest
    assert len(aggregate.aggregate(side, "film", "max", ["A"], "truth")) == 6


# names

@pytest.mark.parametrize(("column", "expected"), [
    ("Pleural_Effusion", "pleural effusion"), ("prob_Edema", "edema"), ("  Lung-Opacity ", "lung opacity"),
    ("Label  No   Finding", "no finding"), ("prob", "prob"), ("Problem", "problem")])
def test_columns_without_case_and_prefix(column, expected):
    assert names.plain(column) == expected


@pytest.mark.parametrize(("path", "patient", "study", "view"), [
    ("CheXpert-v1.0/valid/patient64541/study1/view1_frontal.jpg", "patient64541",
     None, "Frontal"), ("files/p10/p10000032/s50414267", "p10000032", "files/p10/p10000032", None),
    ("images/00000013_005.png", "00000013", None, None), ("00000013_005", "00000013", None, None),
    ("xp10000032/a_lateral.png", None, None, "Lateral"), ("p100000321/a.png", None, None, None),
    ("a/00000013_0051.png", None, None, None), ("film.png", None, None, None), ("a_frontally.png", None, None, None)])
def test_what_a_path_says(path, patient, study, view):
    found = names.patients_of([path])
    assert (None if found is None else found[0]) == patient and names.view_of(path) == view
    expected = {"CheXpert-v1.0/valid/patient64541/study1/view1_frontal.jpg": "CheXpert-v1.0/valid/patient64541/study1"}
    assert names.study_of(path) == expected.get(path)


def test_studies_and_patients_of_paths():
    assert names.study_of("files/p10/p10000032/s50414267/a.jpg") == "files/p10/p10000032/s50414267"
    assert names.study_of("study1") is None and names.study_of("a/b1/c.jpg") is None
    assert names.patients_of(["patient1/a", "b"]) is None
    assert names.patients_of(["patient1/a", "patient22/a"]).tolist() == ["patient1", "patient22"]


def test_the_mean_is_named_after_its_labels():
    assert names.mean_labels([*COMPETITION_LABELS, "Hernia"]) == ("mean of five", COMPETITION_LABELS)
    assert names.mean_labels(COMPETITION_LABELS[:4]) == ("mean of 4", COMPETITION_LABELS[:4])


def test_keys_are_found_under_their_other_names():
    assert names.key_column(["x", "Image Index"], "a.csv") == "Image Index"
    assert names.key_column(["Study", "Path"], "a.csv") == "Path"
    assert names.key_column(["Edema", "Study"], "a.csv") == "Study"
    assert names.key_column(["Path", "filename"], "a.csv") == "Path"
    with pytest.raises(InputError, match=r"a\.csv: no column Path or Study \(found: a, b, c, d, e, f, \.\.\.\)"):
        names.key_column(list("abcdefg"), "a.csv")


def test_label_columns_and_their_pairs():
    scores = names.label_columns(["Path", "Edema", "Edema [sd]", "Mass", "Nodule", "Effusion", "Sex"], "p.csv")
    assert scores == {"edema": "Edema", "mass": "Mass", "nodule": "Nodule", "effusion": "Effusion"}
    known = names.label_columns(["Path", "Pleural Effusion", "Lung Lesion", "Edema"], "t.csv", "truth")
    assert names.paired_labels(scores, known) == [
        ("Lung Lesion", ("Mass", "Nodule"), ("Lung Lesion",)), ("Edema", ("Edema",), ("Edema",)),
        ("Pleural Effusion", ("Effusion",), ("Pleural Effusion",))]
    assert [pair.label for pair in names.paired_labels({"hernia": "Hernia", "edema": "EDEMA"},
                                                       {"hernia": "HERNIA", "edema": "edema"})] == ["Edema", "HERNIA"]
    with pytest.raises(InputError, match=r"p\.csv: columns 'Edema' and 'prob_edema' are the same label"):
        names.label_columns(["Edema", "prob_edema"], "p.csv")


# groups

def test_ages_are_banded_and_what_is_blank_is_unknown():
    cases = joined(*tables(films=8, patients=8))
    cases.about["Age"] = [0, 49, 50, 69, 70, 998, NAN, -1]
    cases.about["Ward"] = ["a", " a ", "", None, "b", "b", "b", "a"]
    found = {name: np.flatnonzero(rows).tolist() for name, rows in subgroups.groups(cases, "Age").items()}
    assert found == {"under 50": [0, 1], "50 to 69": [2, 3], "70 and over": [4, 5], "unknown": [6, 7]}
    found = {name: np.flatnonzero(rows).tolist() for name, rows in subgroups.groups(cases, "Ward").items()}
    assert found == {"a": [0, 1, 7], "b": [4, 5, 6], "unknown": [2, 3]}


def test_at_most_fifty_groups():
    cases = joined(*tables(films=51, patients=51))
    cases.about["Ward"] = [f"w{min(k, 49)}" for k in range(51)]
    assert len(subgroups.groups(cases, "Ward")) == 50
    cases.about["Ward"] = [f"w{k}" for k in range(51)]
    with pytest.raises(InputError, match="51 different values; choose a column with at most 50"):
        subgroups.groups(cases, "Ward")


# units

def side(keys, key="Path", patients=None):
    table = pd.DataFrame({aggregate.KEY: keys, units.PATIENT: patients or [None] * len(keys)})
    table.attrs = {"source": "x.csv", "key": key}
    return table


def test_cases_are_named_by_film_study_or_patient():
    films = side(["a/valid/patient00001/study1/view1_frontal.jpg", "a/valid/patient00001/study2/view1_frontal.jpg"])
    assert units.unit_keys(films, "film").tolist() == [key.partition("/")[2] for key in films[aggregate.KEY]]
    assert units.unit_keys(films, "study").tolist() == ["valid/patient00001/study1", "valid/patient00001/study2"]
    assert units.unit_keys(films, "patient").tolist() == ["patient00001"] * 2
    assert units.unit_keys(side(["a/b", "c"], patients=["P", "Q"]), "patient").tolist() == ["P", "Q"]
    assert units.unit_keys(side(["x/s1", "x/s2"], "Study"), "study").tolist() == ["s1", "s2"]
    for unit, words in (("study", "tell the study of film.jpg"), ("patient", "tell the patients from Path")):
        with pytest.raises(InputError, match=words):
            units.unit_keys(side(["film.jpg"], patients=[None]), unit)


def test_films_of_other_views_are_left_out_and_counted():
    keys = [f"a/patient00001/study1/view{k}_{view}.jpg" for k, view in enumerate(["frontal", "lateral", "lateral"])]
    for views, left, count in (("frontal", 1, 2), ("lateral", 2, 1), ("both", 3, 0)):
        notes = []
        sides = units.to_common_unit(side(keys), side(keys), "film", views, notes)
        assert len(sides.known) == left and sides.unit == "film"
        said = [f"x.csv: {count} films that are not {views} were left out."] * 2 if count else []
        assert notes == said
    with pytest.raises(InputError, match="no lateral films found"):
        units.to_common_unit(side(keys[:1]), side(keys[:1]), None, "lateral", [])
    with pytest.raises(InputError, match=r"view0_frontal\.jpg appears 2 times \(1 rows too many\)"):
        units.to_common_unit(side([keys[0]] * 2), side(keys), None, "both", [])


def test_the_unit_follows_from_what_both_sides_tell():
    films, studies = ["a/patient00001/study1/view1_frontal.jpg"], ["a/patient00001/study1"]
    assert units.to_common_unit(side(films), side(films), None, "both", []).unit == "study"
    assert units.to_common_unit(side(films), side(studies, "Study"), None, "both", []).unit == "study"
    assert units.to_common_unit(side(["a/f.png"]), side(["b/f.png"]), None, "both", []).unit == "film"
    with pytest.raises(InputError, match="use --unit study"):
        units.to_common_unit(side(films), side(studies, "Study"), "film", "both", [])
    notes, deep = [], side(["x/y/patient00001/study1"], "Study")
    found = units.to_common_unit(deep, side(studies, "Study"), None, "both", notes)
    assert found.known[aggregate.JOINED].tolist() == ["patient00001/study1"] == found.scored[aggregate.JOINED].tolist()
    assert len(notes) == 1
    with pytest.raises(InputError, match="different folders hold the same patient and study"):
        units.to_common_unit(side(["x/y/patient00001/study1", "x/z/patient00001/study1"], "Study"),
                             side(studies, "Study"), None, "both", [])
    with pytest.raises(InputError, match="share no key; found patient00002/study1 and patient00001/study1"):
        units.to_common_unit(side(["a/patient00002/study1"], "Study"), side(studies, "Study"), None, "both", [])


# the tree

def test_the_tree_report_by_hand():
    predicted, truth = tables(films=4, patients=4, labels=("Lung Opacity", "Edema", "Cardiomegaly"))
    predicted[["Lung Opacity", "Edema"]] = [[0.5, 0.6], [0.4, 0.6], [0.4, 0.5], [0.7, 0.7]]
    truth[["Lung Opacity", "Edema"]] = [[0, 1], [1, 1], [-1, 1], [0, 0]]
    cases = joined(predicted, truth)
    report = tree.tree_report(cases, hierarchy.CHEXPERT_TREE)
    row = report[(report["parent"] == "Lung Opacity") & (report["child"] == "Edema")].iloc[0]
    assert row.to_dict() == {"parent": "Lung Opacity", "child": "Edema", "films": 4, "above_before": 3,
                             "crossed_before": 1, "above_after": 0, "crossed_after": 0, "truth_checked": 3,
                             "truth_broken": 1}
    assert len(report) == 1 and tree.totals(report) == (4, 3, 1) and tree.totals(report, True) == (4, 0, 0)
    raw = predicted.assign(Edema=predicted["Edema"] * 3)
    assert np.isnan(tree.tree_report(joined(raw, truth), hierarchy.CHEXPERT_TREE)["above_after"]).all()
    assert tree.tree_report(cases, hierarchy.flat(cases.labels)) is None
    assert tree.tree_report(cases, hierarchy.flat(("A", "B"))) is None
    assert tree.Totals(8, 2, 1).in_words == (
        "Contradictions of the tree: a finding scored above one that it implies in 2 of 8 checks (25.00 %), on both "
        "sides of 0.5 in 1 (12.50 %).")
    assert "0 of 0 checks (0.00 %)" in tree.Totals(0, 0, 0).in_words
    assert tree.tree_for(CHEXPERT_LABELS) is hierarchy.CHEXPERT_TREE and not len(tree.tree_for(("A", "B")).edges)


# words and numbers

def test_numbers_in_tables_and_lines():
    assert [paper.number(value) for value in (0.12349, -0.5, NAN)] == ["0.123", "-0.500", "–"]
    assert paper.number(0.126, 2) == "0.13"
    assert [paper._tex_number(value) for value in (0.5, -0.5, 0.0, NAN)] == ["0.500", "$-0.500$", "0.000", "--"]
    assert paper._tex("a_b–c\x07|\"") == "a\\_b--c \\textbar{}\\textquotedbl{}"
    assert paper._md("a|b_\x07<c>") == "a\\|b\\_ \\<c\\>"
    assert [terminal._p(value) for value in (0.0009, 0.001, 0.0496, NAN)] == ["< 0.001", "0.001", "0.050", "–"]


def test_the_line_of_a_comparison():
    table = pd.DataFrame({"label": ["A", "B", "mean of 2"], "difference": [0.1, 0.1, 0.1234],
                          "difference_low": 0.01, "difference_high": 0.2, "p_delong": [0.1, 0.1, 0.02],
                          "p_bootstrap": 0.5, "p_holm": 0.04, "verdict": ["x is better, beyond noise", "no", "yes"]})
    assert terminal._compared("x against y", table) == (
        "x against y: mean of 2 +0.1234 (+0.0100 to +0.2000), p 0.020, corrected 0.040: yes; beyond noise in A")
    bare = terminal._compared("x against y", table.assign(p_delong=NAN, verdict="no"))
    assert bare.endswith("p 0.500, corrected 0.040: no")
    better = table["verdict"][0]
    last = terminal._compared("x against y", table.assign(verdict=["no", better, better]))
    assert last.endswith(f"corrected 0.040: {better}; beyond noise in B")             # the mean is no label


def test_radiologists_and_contradictions_in_one_line():
    result = judged(*tables(films=30, patients=30, labels=("Lung Opacity", "Edema")), replicates=2, name="mine")
    below = pd.DataFrame({"label": ["A", "B", "mean of 2"], "below_roc": [1.0, 3.0, 2.0],
                          "strictly_below_roc": [0.0, 3.0, 1.5]})
    for results, start in (([result], ""), ([result, result], "mine: ")):
        readers = {"mine": SimpleNamespace(below=below)}
        lines = terminal.report(evaluate.Findings(results, readers=readers))
        assert f"  - {start}Radiologists below the ROC curve: 2.0 on average (strictly: 1.5)." in lines
        assert f"  - {start}{tree.totals(result.tree, False).in_words}" in lines
    after = result.tree.assign(above_after=1, crossed_after=0)
    given = SimpleNamespace(name="x", tree=after, settings={"conditional": "given"})
    assert list(terminal._contradictions([given])) == [f"  - {tree.totals(given.tree, True).in_words}"]
    assert list(terminal._contradictions([SimpleNamespace(tree=None)])) == []


def test_decisions_are_told_with_their_rates():
    predicted, truth = tables(films=60, patients=60, labels=("Edema",))
    result = judged(predicted.assign(Edema=(predicted["Edema"] > 0.5).astype(float)), truth, replicates=20)
    row = result.table.iloc[0]
    parts = [f"{name} {row[m]:.3f} ({row[f'{m}_low']:.3f} to {row[f'{m}_high']:.3f})" for name, m in (
        ("sensitivity", "sensitivity"), ("specificity", "specificity"), ("F1", "f1"), ("MCC", "mcc"))]
    assert list(terminal._system(result))[1].startswith(f"  Edema      {', '.join(parts)}  {row.positives} positives, ")


def test_one_system_is_told_label_by_label():
    predicted, truth = tables(films=60, patients=60, labels=("Edema", "Atelectasis"))
    truth["Edema"] = [1.0] * 9 + [0.0] * 51
    result = judged(predicted, truth, replicates=20, name="mine", curves=False)
    lines = terminal.report(evaluate.Findings([result]))
    rows = {row.label: row for row in result.table.itertuples()}
    edema, other = rows["Edema"], rows["Atelectasis"]
    assert lines[0] == f"mine: 60 studies of {result.cases.total_patients} patients"
    expected = (f"AUROC {edema.auroc:.4f} ({edema.auroc_low:.3f} to {edema.auroc_high:.3f})  9 positives, 51 negatives"
                "  FEW POSITIVES")
    assert lines[1] == f"  Edema        {expected}"
    assert lines[2].endswith(f"{other.positives} positives, {other.negatives} negatives")
    assert sum("Fewer than 10 positives" in line for line in lines) == 1
    several = terminal.report(evaluate.Findings([result, judged(predicted, truth, replicates=20, name="again",
                                                                curves=False)]))
    assert several[0] == f"60 studies of {result.cases.total_patients} patients; AUROC"
    assert several[1].split() == ["positives", "mine", "again"]
    assert several[2].split() == ["Edema", "9", f"{edema.auroc:.3f}", f"{edema.auroc:.3f}"]


def test_outside_in_one_line():
    row = {"label": "Edema", "auroc_inside": 0.9, "auroc_outside": 0.8, "difference": -0.1, "difference_low": -0.2,
           "difference_high": 0.0, "verdict": "within noise", "sensitivity_inside": 0.7, "sensitivity_outside": 0.6,
           "specificity_inside": 0.5, "specificity_outside": 0.4, "slope_inside": 1.0, "slope_outside": 0.5}
    found = SimpleNamespace(notes=["Inside.", "More."], table=pd.DataFrame([row, {**row, "difference": NAN}]))
    first, known, unknown = terminal._external(found)
    assert first == "Inside."
    end = ("within noise); at the carried threshold sensitivity 0.70 to 0.60, specificity 0.50 to 0.40; calibration "
           "slope 1.00 to 0.50")
    assert known == f"  Edema  AUROC 0.900 inside, 0.800 outside (-0.100, -0.200 to +0.000: {end}"
    assert unknown == f"  Edema  AUROC 0.900 inside, 0.800 outside ({end}"


def test_the_notes_of_an_evaluation():
    predicted, truth = tables(films=100, patients=100, labels=LABELS)
    truth["Edema"] = [1.0] * 29 + [0.0] * 71
    truth["Cardiomegaly"] = [1.0] * 30 + [0.0] * 70
    truth["Consolidation"] = [1.0] * 10 + [0.0] * 90
    truth["Atelectasis"] = [1.0] * 9 + [0.0] * 91
    truth["Pleural Effusion"] = [1.0] * 50 + [0.0] * 50
    notes = judged(predicted, truth, replicates=10, curves=False).notes
    few, = (note for note in notes if note.startswith("Fewer than 10"))
    some, = (note for note in notes if note.startswith("Fewer than 30"))
    assert few.endswith(": Atelectasis (9).") and some.endswith(": Edema (29), Consolidation (10).")
    assert "The mean of five is over 5 labels." in notes
    assert any("Platt scaling for every label; each patient's scores" in note for note in notes)
    assert "Scores were not calibrated." in judged(predicted, truth, replicates=0, calibrate="none").notes
    four = judged(predicted, truth.assign(Edema=0.0), replicates=0).notes
    assert "The mean of five is over 4 labels; without AUROC: Edema." in four
    one = judged(predicted[["Path", "Edema"]], truth, replicates=0, threshold={"Hernia": 0.5}).notes
    assert "The mean of 1 is over 1 label." in one and "No threshold was given for Edema." in one


def test_one_study_and_none():
    one = pd.DataFrame({aggregate.KEY: ["a", "b"], aggregate.JOINED: ["s", "s"], "A": [1.0, 0.0]}, index=[7, 9])
    for kind, expected in (("truth", [1.0]), ("score", [1.0])):
        found = aggregate.aggregate(one, "study", "max", ["A"], kind)
        assert found["A"].tolist() == expected and list(found.columns) == [aggregate.KEY, aggregate.JOINED, "A"]
        assert found.index.tolist() == [0]
        assert len(aggregate.aggregate(one.iloc[:0], "study", "max", ["A"], kind)) == 0


def test_scores_and_truths_side_by_side():
    columns = ["Path", "Edema_Pred", "Edema_GT", "Edema_AE", "Mass"]
    assert names.label_columns(columns, "x.csv") == {"edema": "Edema_Pred"}
    assert names.label_columns(columns, "x.csv", "truth") == {"edema": "Edema_GT"}
    assert names.label_columns(["Edema_Pred", "Mass"], "x.csv") == {"edema": "Edema_Pred", "mass": "Mass"}
    assert names.label_columns(["Edema_GT", "Mass"], "x.csv", "truth") == {"edema": "Edema_GT", "mass": "Mass"}
    pairs = names.paired_labels({"pleural effusion": "Pleural Effusion"}, {"effusion": "Effusion"})
    assert pairs == [("Pleural Effusion", ("Pleural Effusion",), ("Effusion",))]
    assert names.paired_labels({"mass": "Mass"}, {"lung lesion": "Lung Lesion"}) == []   # a part is not the whole


def test_columns_to_split_by_are_looked_for_before_anything_is_computed():
    cases = joined(*tables(films=6, patients=6))
    subgroups.require_columns(cases, ["Sex", "Age"])
    with pytest.raises(InputError, match="column 'Ward'"):
        subgroups.require_columns(cases, ["Sex", "Ward"])
    parts = subgroups.subgroups(cases, ["Sex", "Age"], evaluate.intervals.Resampling(2))
    assert parts.index.tolist() == list(range(len(parts))) and set(parts["by"]) == {"Sex", "Age"}
    assert "1 of 1 checks (100.00 %)" in tree.Totals(1, 1, 1).in_words


def test_the_patients_of_the_truth_are_those_of_the_scores_too():
    known = side(["a/f1.png", "a/f2.png", "a/f3.png"], patients=["P", "P", "Q"])
    found = units.to_common_unit(side(["b/f1.png", "b/f2.png", "b/f3.png"]), known, "patient", "both", [])
    assert found.scored[aggregate.JOINED].tolist() == ["P", "P", "Q"] == found.known[aggregate.JOINED].tolist()
    lateral = [f"a/patient00001/study{k}/view1_{view}.jpg" for k, view in enumerate(["lateral", "frontal"])]
    kept = units.to_common_unit(side(lateral), side(lateral), "film", "frontal", []).known
    assert kept.index.tolist() == [0] and list(kept.columns) == [aggregate.KEY, units.PATIENT, aggregate.JOINED]


def test_several_systems_in_columns_with_their_own_notes():
    predicted, truth = tables(films=60, patients=60, labels=("Edema", "Atelectasis"))
    raw = predicted.assign(Edema=predicted["Edema"] * 3)
    results = [judged(table, truth, replicates=5, name=name, curves=False) for name, table in (
        ("a", predicted), ("raw scores", raw))]
    lines = terminal.report(evaluate.Findings(results))
    means = [result.table["auroc"].iloc[-1] for result in results]
    assert lines[1] == "               positives      a  raw scores"
    assert lines[4] == f"  mean of 2    {results[0].table['positives'].iloc[-1]:>9}  {means[0]:.3f}  {means[1]:>10.3f}"
    first, second = (f"{result.table['auroc'].iloc[1]:.3f}" for result in results)
    assert lines[3].split() == ["Atelectasis", str(results[0].table["positives"].iloc[1]), first, second]
    assert "  - The mean of 2 is over 2 labels." in lines
    assert sum(line.startswith("  - raw scores: ") and "outside [0, 1]" in line for line in lines) == 1
    other = judged(predicted[["Path", "Edema"]], truth, replicates=5, name="b", curves=False)
    row = terminal.report(evaluate.Findings([results[0], other]))[4]
    assert row.split()[-1] == "–"                                     # another mean is not set beside it


def test_the_lines_of_a_paper_table():
    result = judged(*tables(films=60, patients=60, labels=("Edema", "Atelectasis")), replicates=5, curves=False)
    lines = paper.paper_table(evaluate.Findings([result]), "markdown").text.splitlines()
    assert lines[2] == "| Label | Positives | AUROC | Average precision | Sensitivity | Specificity |"
    assert lines[3] == "|---|---:|---:|---:|---:|---:|" and lines[-1].startswith("| mean of 2 | ")
    tex = paper.paper_table(evaluate.Findings([result]), "latex").text.splitlines()
    rules = [place for place, line in enumerate(tex) if line == "\\midrule"]
    mean = next(place for place, line in enumerate(tex) if line.startswith("mean of 2 & "))
    assert len(rules) == 2 and rules[1] == mean - 1


def test_a_meta_file_joins_its_first_row_of_a_case():
    about = pd.DataFrame({"Sex": ["F", "M", "F"]})
    meta = pd.DataFrame({"Patient": list("QPP"), "Site": ["s1", "s2", "s3"], "Sex": list("xyz")}, index=[5, 6, 7])
    meta.attrs = {"source": "m.csv", "key": "Patient"}
    notes = []
    found = units.with_meta(about, meta, pd.Series(["a", "b", "c"]), np.array(["P", "Q", "R"]), "film", notes)
    assert found["Site"].tolist()[:2] == ["s2", "s1"] and pd.isna(found["Site"][2])
    assert found["Sex"].tolist()[:2] == ["y", "x"] and found.index.tolist() == [0, 1, 2]
    assert notes == ["m.csv: 1 of 3 cases are not in it; they are unknown in its columns.",
                     "m.csv: its Sex replace the truth file's."]
    with pytest.raises(InputError, match="none of its 3 rows belongs to a judged case; found Q, expected such as X"):
        units.with_meta(about, meta, pd.Series(["a", "b", "c"]), np.array(["X", "Y", "Z"]), "film", [])
