"""What is written of an evaluation: its pictures as Matplotlib's own objects, its page's cells, its files; by value."""

import hashlib
import json
from types import SimpleNamespace

import cv2
import numpy as np
import pandas as pd
import pytest
from asking import judged
from markupsafe import Markup
from test_evaluate_judging import LABELS, tables

from chexpert_hier import evaluate
from chexpert_hier.errors import InputError
from chexpert_hier.evaluate import figures, output, page, tree

NAN = np.nan


@pytest.fixture(scope="module")
def two():
    """Two systems on the same studies, the first with few positives of one label, and two radiologists."""
    predicted, truth = tables(films=120, patients=120)
    truth["Edema"] = [1.0] * 9 + [0.0] * 111
    worse = tables(films=120, patients=120, noise=4.0)[0]
    results = [judged(table, truth, replicates=20, name=name)
               for table, name in ((predicted, "mine"), (worse, "a name of more than 28 letters"))]
    points = pd.DataFrame({"label": "Edema", "radiologist": ["Ann", "Bob"], "sensitivity": [0.7, 0.6],
                           "specificity": [0.9, 0.75], "precision": [0.5, 0.4]})
    return evaluate.Findings(results, readers={"mine": SimpleNamespace(points=points)})


@pytest.fixture
def drawn(monkeypatch):
    """The figures in the order in which they are made."""
    made, make = [], figures._figure
    monkeypatch.setattr(figures, "_figure", lambda **words: made.append(make(**words)) or made[-1])
    return made


def test_the_intervals_of_two_systems(two, drawn):
    picture = figures._intervals(two)
    axes, = drawn[0].axes
    table, other = (result.table for result in two.results)
    np.testing.assert_allclose(drawn[0].get_size_inches(), [7, 0.9 + 0.32 * 6 * 1.2])
    assert axes.get_ylim() == (5.6, -0.6) and axes.get_xlim() == (figures._left([table, other]), 1.0)
    first, second = (line for line in axes.lines if len(line.get_ydata()) == 6)
    np.testing.assert_allclose(first.get_ydata(), np.arange(6) - 0.2)
    np.testing.assert_allclose(second.get_ydata(), np.arange(6) + 0.2)
    np.testing.assert_allclose(first.get_xdata(), table["auroc"])
    np.testing.assert_allclose(second.get_xdata(), other["auroc"])
    for bars, found in zip(axes.collections, (table, other), strict=True):
        ends = np.array([segment[:, 0] for segment in bars.get_segments()])
        np.testing.assert_allclose(ends, found[["auroc_low", "auroc_high"]].to_numpy(float))
    rule, = (line for line in axes.lines if len(line.get_ydata()) == 2)
    assert list(rule.get_ydata()) == [4.5, 4.5] and rule.get_linewidth() < 1         # between labels and their mean
    words = [text.get_text() for text in axes.get_yticklabels()]
    assert words == [f"{label} *" if label in ("Edema", "mean of five") and few else label
                     for label, few in zip(table["label"], table["few_positives"])] and words.count("Edema *") == 1
    assert axes.get_xlabel() == "AUROC with 95 % interval   (* fewer than 10 positives)"
    legend, = drawn[0].legends
    assert not legend.get_frame_on()
    assert [text.get_text() for text in legend.get_texts()] == ["mine", "a name of more than 28 lett…"]
    assert [first.get_color(), second.get_color()] == list(figures.COLOURS[:2])
    assert [first.get_marker(), second.get_marker()] == list(figures.MARKERS[:2])
    assert picture.alt.startswith("AUROC and its interval for each of 5 labels; mean of five "
                                  f"{table['auroc'].iloc[-1]:.3f}. The numbers")


def test_the_intervals_of_one_system_have_no_legend(two, drawn):
    result = judged(*tables(films=60, patients=60, labels=LABELS[:1]), replicates=5, name="x")
    figures._intervals(evaluate.Findings([result]))
    axes, = drawn[0].axes
    np.testing.assert_allclose(drawn[0].get_size_inches(), [7, 2.2])  # no lower than this
    assert not drawn[0].legends and axes.get_xlabel() == "AUROC with 95 % interval"
    assert list(axes.lines[0].get_ydata()) == [0, 1]


def test_where_the_axis_of_areas_begins():
    def left(*low):
        return figures._left([pd.DataFrame({"auroc": 0.9, "auroc_low": value}, index=[0]) for value in low])

    assert [left(0.73), left(0.5), left(0.49), left(0.93, 0.31), left(NAN)] == [0.5, 0.5, 0.4, 0.3, 0.5]
    assert left(0.0) == 0.0 and left(-0.2) == 0.0
    assert figures._left([pd.DataFrame({"auroc": [NAN], "auroc_low": [NAN]})]) == 0.5


def test_long_names_are_cut():
    assert figures._short("x" * 28) == "x" * 28 and figures._short("x" * 29) == "x" * 27 + "…"
    assert figures._short("abcdef", 3) == "ab…" and figures._short("a$b") == r"a\$b"


def lines_of(axes):
    return [(list(line.get_xdata()), list(line.get_ydata())) for line in axes.lines]


def test_a_roc_panel_holds_curves_bands_and_radiologists(two, drawn):
    picture = figures._panel(two, "Edema", "roc")
    axes, = drawn[0].axes
    np.testing.assert_allclose(axes.get_position(original=True).bounds, [0.16, 0.14, 0.82, 0.83])
    np.testing.assert_allclose(drawn[0].get_size_inches(), [3.3, 3.3])
    assert axes.get_xlim() == axes.get_ylim() == (-0.02, 1.02) and axes.get_aspect() == 1
    diagonal, mine, other, ann, bob = lines_of(axes)
    assert diagonal == ([0, 1], [0, 1])
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("1 − specificity", "sensitivity")
    curve = two.results[0].curves["Edema"]
    np.testing.assert_array_equal(mine, [np.r_[0, figures.BAND], np.r_[0, curve["roc"]]])
    np.testing.assert_array_equal(other[1][1:], two.results[1].curves["Edema"]["roc"])
    np.testing.assert_allclose([ann[0][0], ann[1][0], bob[0][0], bob[1][0]], [0.1, 0.7, 0.25, 0.6])
    band, = axes.collections                                          # of the first system alone
    edge = band.get_paths()[0].vertices
    assert {(0.5, curve["roc_low"][50]), (0.5, curve["roc_high"][50])} <= set(map(tuple, edge.tolist()))
    legend = [text.get_text() for text in axes.get_legend().get_texts()]
    assert legend == ["mine", "a name of more than 2…", "Ann", "Bob"]
    assert len({line.get_linestyle() for line in axes.lines[1:3]}) == 2
    assert [line.get_marker() for line in axes.lines[3:]] == list(figures.MARKERS[:2])
    row = two.main.table.set_index("label").loc["Edema"]
    assert picture.alt == (f"ROC curve of Edema: AUROC {row.auroc:.3f} ({row.auroc_low:.3f} to {row.auroc_high:.3f})")


def test_a_precision_panel_begins_at_the_prevalence(two, drawn):
    picture = figures._panel(two, "Edema", "pr")
    level, mine, _, ann, _ = lines_of(drawn[0].axes[0])
    assert level[1] == pytest.approx([9 / 120] * 2)
    np.testing.assert_array_equal(mine, [figures.BAND, two.results[0].curves["Edema"]["precision"]])
    assert (ann[0][0], ann[1][0]) == (0.7, 0.5)                       # recall and precision
    assert drawn[0].axes[0].get_xlabel() == "recall (sensitivity)"
    assert drawn[0].axes[0].get_ylabel() == "precision (PPV)"
    assert picture.alt.endswith(f"{two.main.table['average_precision'].iloc[1]:.3f}, prevalence 0.075")


def test_a_reliability_panel_shows_observed_over_predicted(two, drawn):
    picture = figures._panel(two, "Cardiomegaly", "reliability")
    axes, = drawn[0].axes
    shown = [line for line in axes.lines if len(line.get_xdata()) > 2]
    for line, kind in zip(shown, ("raw", "scaled"), strict=True):
        table = two.main.reliability["Cardiomegaly"][kind]
        np.testing.assert_allclose(np.c_[line.get_xdata(), line.get_ydata()].astype(float),
                                   table[["predicted", "observed"]].to_numpy(float))
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted probability", "observed frequency")
    for bars, kind in zip(axes.collections, ("raw", "scaled"), strict=True):
        ends = np.array([segment[:, 1] for segment in bars.get_segments()], float)
        table = two.main.reliability["Cardiomegaly"][kind]
        np.testing.assert_allclose(ends, table[["observed_low", "observed_high"]].to_numpy(float))
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["as given", "after scaling"]
    row = two.main.table.iloc[0]
    assert picture.alt.endswith(f"{row.calibration_error:.3f} as given, {row.calibration_error_calibrated:.3f} after "
                                "scaling")


def test_one_system_has_no_legend_of_curves_and_no_panel_where_there_is_no_curve(two, drawn):
    one = evaluate.Findings(two.results[:1])
    figures._panel(one, "Edema", "roc")
    assert drawn[0].axes[0].get_legend() is None and len(drawn[0].axes[0].lines) == 2
    assert figures._panel(one, "Hernia", "roc") is None is figures._panel(one, "Hernia", "reliability")


def test_a_sheet_has_four_panels_a_row(two, drawn):
    png = figures._sheet(two, list(two.main.cases.labels), "roc")
    image = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)
    assert image.shape == (792, 1488, 3)                              # 2 x 3.3 and 4 x 3.1 inches at 120 dots
    axes = drawn[0].axes
    assert [axis.get_title() for axis in axes[:5]] == list(two.main.cases.labels)
    assert [axis.axison for axis in axes] == [True] * 5 + [False] * 3
    first, second, last, below = (axes[k].get_position(original=True) for k in (0, 1, 3, 4))
    assert (below.x0, below.y0, last.x1, first.y1) == pytest.approx((0.04, 0.07, 1 - 0.0075, 0.95))
    assert second.x0 - first.x1 == pytest.approx(0.26 * first.width)
    assert first.y0 - below.y1 == pytest.approx(0.32 * first.height)
    assert figures._sheet(two, ["Edema"], "roc") and drawn[1].get_size_inches() == pytest.approx([3.1, 3.3])


def test_everything_is_drawn_once(two, monkeypatch):
    monkeypatch.setattr(figures, "_sheet", lambda findings, labels, kind: repr((len(labels), kind)).encode())
    found = figures.draw(two)
    assert {name: content for name, content in found.files.items() if name.endswith(".png")} == {
        f"evaluation_{kind}.png": repr((5, kind)).encode() for kind in figures.KINDS}
    assert list(found.panels) == list(two.main.cases.labels)
    assert all(list(panels) == list(figures.KINDS) for panels in found.panels.values())
    assert found.files["evaluation_auroc.svg"] == found.auroc.svg.encode() and found.auroc.svg.startswith("<svg")
    assert "<!--" not in found.auroc.svg


# the page's words and cells

def test_digits_and_counts_of_the_page():
    assert [page.in_digits(value) for value in (0.12349, -0.5, 1, None, NAN, np.float64(NAN), np.inf, -np.inf)] == [
        "0.123", "-0.500", "1.000", "–", "–", "–", "inf", "–"]
    assert page.in_digits(0.126, 2) == "0.13"
    assert [page.in_count(value) for value in (0, 1234567.0, NAN)] == ["0", "1,234,567", "–"]
    assert page._base64("a<é>") == "YTzDqT4="
    assert page.line("<b>", ["x"], few=True) == ("<b>", ["x"], False, "few positives")
    assert page.line(7, [], True) == ("7", [], True, "") and isinstance(page.line(Markup("<b>"), []).first, Markup)
    assert page.with_interval(0.5, 0.25, 0.75) == '0.500 <span class="soft">0.250 to 0.750</span>'
    assert page.with_interval(0.5, NAN, NAN) == "0.500"


def test_rows_of_rates_and_of_f1():
    table = pd.DataFrame({"label": ["A", "mean of 1"], "threshold": [0.12345, NAN], "positives": [1200, 1200],
                          "negatives": [3, 3], "few_positives": [True, False], "f1": 0.5, "f1_low": NAN,
                          "f1_high": 0.7})
    result = SimpleNamespace(table=table)
    assert list(page.rate_rows(result, ["f1"], threshold=True, counts=True)) == [
        ("A", ["0.1235", "0.500", "1,200", "3"], False, "few positives"),
        ("mean of 1", ["–", "0.500", "1,200", "3"], True, "")]
    assert [row.cells for row in page.rate_rows(result, ["f1"])] == [["0.500"]] * 2
    study = pd.DataFrame({"label": ["A"], "model": 0.5, "model_low": 0.4, "model_high": 0.6, "radiologists": 0.25,
                          "difference": NAN, "sentence": "So."})
    assert list(page._f1_rows(SimpleNamespace(f1=study))) == [
        ("A", ['0.500 <span class="soft">0.400 to 0.600</span>', "0.250", "–", "So."], False, "")]


def test_notes_are_found_by_their_beginnings():
    result = SimpleNamespace(notes=["Thresholds: one.", "A: no AUROC, for", "A: x", "Thresholds: two."])
    assert page._first_note(result, "Thresholds") == "Thresholds: one."
    assert page._first_note(result, "B", "A", within="x") == "A: x" and page._first_note(result, "C") == ""


def test_tables_of_subgroups():
    table = pd.DataFrame({"by": ["Sex"] * 4 + ["Age"], "group": ["F", "F", "M", "M", "old"], "cases": [1, 1, 2, 2, 3],
                          "label": ["A", "mean of 1", "A", "mean of 1", "A"], "few_positives": False, "positives": 30,
                          "negatives": 4, "auroc": 0.5, "auroc_low": NAN, "auroc_high": NAN})
    result = SimpleNamespace(subgroups=table, cases=SimpleNamespace(unit="study", decisions=False))
    (sex, head, rows), (age, _, others) = page._subgroup_tables(result)
    assert (sex, age, len(head)) == ("Sex", "Age", 3) and "1 study" in head[1] and "2 studies" in head[2]
    assert [(row.first, len(row.cells), row.mean) for row in rows] == [("A", 2, False), ("mean of 1", 2, True)]
    assert [len(row.cells) for row in others] == [1]
    assert list(page._subgroup_tables(SimpleNamespace(subgroups=None))) == []


def test_the_tree_in_words():
    table = pd.DataFrame({"above_before": [3, 2], "above_after": [1.0, NAN], "films": [2000, 10],
                          "truth_broken": [4, 0], "truth_checked": [1500, 10]})
    start = "A finding is given a higher score than a finding it implies in 5 of 2,010 checks"
    end = ". The truth itself breaks the tree in 4 of 1,510 checks."
    words = page._tree_words(SimpleNamespace(tree=table, settings={"conditional": "given"}))
    assert words == f"{start} before the chain rule; 1 after it{end}"
    assert page._tree_words(SimpleNamespace(tree=table, settings={})) == (
        f"{start}; 1 after the chain rule, if the scores are read as conditional{end}")
    none = page._tree_words(SimpleNamespace(tree=table.assign(above_after=NAN), settings={}))
    assert none == f"{start}; no chain rule, for the scores are no probabilities{end}"
    assert page._tree_words(SimpleNamespace(tree=None, settings={})) == ""


# the files

def test_where_an_evaluation_was_written(tmp_path, monkeypatch):
    result = judged(*tables(films=40, patients=40), replicates=0, curves=False)
    assert evaluate.write(result, str(tmp_path / "out"), page=False) == tmp_path / "out"
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["evaluation.csv", "evaluation.json"]
    assert (tmp_path / "out" / "evaluation.csv").read_text().startswith("label,auroc,auroc_low,")


def test_plain_values_for_json():
    value = {1: (np.float32(0.5), NAN, np.inf), "a": np.array([[1, 2]]),
             "b": [np.bool_(True), False, None, np.int64(3)], "c": pd.Timedelta(0), "d": "x"}
    found = output._plain(value)
    assert found == {"1": [0.5, None, None], "a": [[1, 2]], "b": [True, False, None, 3], "c": "0 days 00:00:00",
                     "d": "x"}
    assert [type(item) for item in found["b"]] == [bool, bool, type(None), int] and type(found["1"][0]) is float


def test_an_evaluation_knows_what_it_was_asked_for(tmp_path):
    (tmp_path / "a.csv").write_bytes(b"abc")
    found = output.asked({"truth": [tmp_path / "a.csv", tmp_path / "none.csv"]}, {"seed": 1, "by": ("Sex",)})
    assert found["files"]["truth"] == [{"name": "a.csv", "sha256": hashlib.sha256(b"abc").hexdigest()},
                                       {"name": "none.csv", "sha256": None}]
    assert found["settings"] == {"seed": 1, "by": ["Sex"]}
    output.refuse_another(tmp_path, found)                            # nothing there yet
    (tmp_path / "evaluation.json").write_text(json.dumps({"asked": found}))
    output.refuse_another(tmp_path, found)
    for text in ("{", json.dumps({"asked": {}}), "[" * 100_000):
        (tmp_path / "evaluation.json").write_text(text)
        with pytest.raises(InputError, match="holds another evaluation"):
            output.refuse_another(tmp_path, found)


def test_the_csv_files_of_an_evaluation(two):
    tables_ = output._csv_tables(two)
    whole = tables_["evaluation.csv"]
    assert list(tables_) == ["evaluation.csv"] and len(whole) == 12
    assert whole["predictions"].tolist() == ["mine"] * 6 + ["a name of more than 28 letters"] * 6
    one = judged(*tables(films=60, patients=60), replicates=5, by=["Sex"], mean="weighted", curves=False)
    found = output._csv_tables(evaluate.Findings([one], {"x against y": pd.DataFrame({"p": [0.5, 0.1]})}))
    assert list(found) == ["evaluation.csv", "comparisons.csv", "subgroups.csv"]
    assert found["evaluation.csv"]["label"].tolist()[5:] == ["mean of five", "mean of 5", "mean of 5, weighted by "
                                                            "positives"]
    assert "predictions" not in found["evaluation.csv"] and "predictions" not in found["subgroups.csv"]
    assert found["comparisons.csv"].to_dict("list") == {"p": [0.5, 0.1], "comparison": ["x against y"] * 2}
    named = output._csv_tables(evaluate.Findings([*two.results[:1], one]))["subgroups.csv"]
    assert set(named["predictions"]) == {"predictions"}


@pytest.mark.parametrize(("unit", "column"), [("film", "Path"), ("study", "Study"), ("patient", "Patient")])
def test_calibrated_scores_are_written_where_others_were_learned_from(unit, column):
    predicted, truth = tables(films=60, patients=60)
    others = tables(films=60, patients=60, seed=1)
    for table in others:
        table["Path"] = table["Path"].str.replace("/patient0", "/patient7")
    result = judged(predicted, truth, fit=others, unit=unit, replicates=0, curves=False)
    found = output._csv_tables(evaluate.Findings([result]))["calibrated.csv"]
    assert list(found.columns) == [column, *result.cases.labels] and found[column].tolist() == list(result.cases.keys)
    np.testing.assert_array_equal(found[list(result.cases.labels)], result.calibrated)


def test_the_json_of_an_evaluation(two):
    found = output.as_json(evaluate.Findings(two.results))
    main, other = two.results
    assert found["predictions"] == "mine" and "external" not in found
    assert list(found["labels"]) == list(main.cases.labels) and found["mean"]["label"] == "mean of five"
    assert found["labels"]["Edema"]["auroc"] == main.table["auroc"][1] and found["means"] == []
    assert [one["predictions"] for one in found["others"]] == [other.name]
    assert found["curves"]["Edema"]["roc"] == [round(value, 5) for value in main.curves["Edema"]["roc"].tolist()]
    assert len(found["reliability"]["Edema"]["raw"]) == len(main.reliability["Edema"]["raw"])
    assert found["calibration"]["Edema"] == json.loads(json.dumps(main.scalings["Edema"].as_dict()))
    assert found["contradictions"] is None and found["tree"] == [] and found["subgroups"] == []


def test_contradictions_of_the_given_scores_or_of_those_before_the_chain_rule():
    predicted, truth = tables(films=40, patients=40, labels=("Lung Opacity", "Edema"))
    product = predicted.assign(Edema=predicted["Edema"] * predicted["Lung Opacity"])
    for words, given in (({}, False), ({"conditional": predicted}, True)):
        result = judged(product if given else predicted, truth, replicates=0, curves=False, **words)
        found = output.as_json(evaluate.Findings([result]))
        assert found["contradictions"] == tree.totals(result.tree, given)._asdict()
        assert (found["contradictions"]["above"] == 0) == given and len(found["tree"]) == 1
