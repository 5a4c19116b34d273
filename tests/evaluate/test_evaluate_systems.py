"""Several systems, decisions, tables for papers, meta files, the hierarchical-BCE paper's own file."""

import itertools
import json

import numpy as np
import pandas as pd
import pytest
from asking import joined, judged
from sklearn.metrics import f1_score, matthews_corrcoef
from test_evaluate_judging import LABELS, tables

from chexpert_hier import commands, evaluate
from chexpert_hier.errors import InputError
from chexpert_hier.evaluate import comparison, terminal, thresholds, units, variance
from chexpert_hier.evaluate.__main__ import main
from chexpert_hier.evaluate.tables import FORMATS, paper_table


@pytest.fixture(scope="module")
def systems():
    """Truth and three systems of clearly different worth, as results of 400 patients."""
    made = {noise: tables(films=400, patients=400, seed=4, noise=noise) for noise in (0.5, 1.5, 6.0)}
    truth = made[0.5][1]
    results = [judged(predicted, truth, replicates=200, name=name, curves=False)
               for name, (predicted, _) in zip(("good", "fair", "bad & <worst>"), made.values())]
    return evaluate.Findings(results, comparison.compare_systems(results, "all", replicates=200))


def test_all_pairs_share_one_correction(systems):
    assert list(systems.comparisons) == ["fair against good", "bad & <worst> against good",
                                         "bad & <worst> against fair"]
    found = list(systems.comparisons.values())
    raw = np.concatenate([table["p_delong"].to_numpy()[:-1] for table in found])
    whole = np.concatenate([table["p_holm"].to_numpy()[:-1] for table in found])
    order, worst = np.argsort(raw), 0.0
    for place, k in enumerate(order):                                 # Holm 1979 by hand: 15 tests
        worst = max(worst, min(1.0, (15 - place) * raw[k]))
        assert whole[k] == pytest.approx(worst)
    means = comparison.holm(np.array([table["p_delong"].iloc[-1] for table in found]))
    np.testing.assert_allclose([table["p_holm"].iloc[-1] for table in found], means)
    one = comparison.compare(systems.results[0].cases, systems.results[1].cases, replicates=200)
    np.testing.assert_allclose(one["p_holm"][:-1], comparison.holm(found[0]["p_delong"].to_numpy()[:-1]))


def test_pairs_against_one(systems):
    results = systems.results
    assert list(comparison.compare_systems(results, "fair", replicates=0)) == ["good against fair",
                                                                                "bad & <worst> against fair"]
    assert list(comparison.compare_systems(results, replicates=0)) == ["fair against good",
                                                                       "bad & <worst> against good"]
    with pytest.raises(InputError, match=r"--pairs is 'best'; expected one of: first, all, good, fair"):
        comparison.compare_systems(results, "best")


def test_the_means_p_value_is_that_of_the_bootstraps_spread(systems):
    """p of the mean: its variance by the patients' influence agrees with that of 2,000 resamples."""
    first, second = (result.cases for result in systems.results[:2])
    table = comparison.compare(first, second, replicates=2000)
    row = table.iloc[-1]
    spread = (row["difference_high"] - row["difference_low"]) / (2 * 1.96)
    from scipy.stats import norm
    assert row["p_delong"] == pytest.approx(2 * norm.sf(abs(row["difference"]) / spread), rel=0.5, abs=0.01)
    inf = [np.diff(variance.influence(np.stack([first.scores[:, k], second.scores[:, k]], 1), first.truth[:, k],
                                     first.patients, 400), axis=1)[:, 0] for k in range(5)]
    assert np.sqrt(comparison.variance_of(np.mean(inf, 0))) == pytest.approx(spread, rel=0.12)
    for k in range(5):                                                # one label: DeLong's own variance
        covariance = variance.delong(first.scores[:, k], first.truth[:, k]).covariance[0, 0]
        alone = variance.influence(first.scores[:, [k]], first.truth[:, k], first.patients, 400)[:, 0]
        assert comparison.variance_of(alone) == pytest.approx(covariance, rel=0.08)  # m and n for n - 1


# tables for papers

def test_bold_is_only_what_is_certainly_best(systems):
    text = paper_table(systems, "markdown").text
    rows = {line.split(" | ")[0].strip("| "): line for line in text.splitlines() if line.startswith("| ")}
    mean = systems.results[0].table.iloc[-1]
    bold = f"**{mean.auroc:.3f}** ({mean.auroc_low:.3f} to {mean.auroc_high:.3f})"
    assert bold in rows["mean of five"] and rows["mean of five"].count("**") == 2
    good, close = systems.results[:1], judged(*tables(films=400, patients=400, seed=4, noise=0.5), replicates=100,
                                              name="the same")
    twins = [*good, close]
    same = evaluate.Findings(twins, comparison.compare_systems(twins, replicates=100))
    assert "**" not in paper_table(same, "markdown").text
    assert "**" not in paper_table(evaluate.Findings(systems.results), "markdown").text      # nothing was compared
    first = comparison.compare_systems(systems.results, "bad & <worst>", replicates=100)
    assert "**" not in paper_table(evaluate.Findings(systems.results, first), "markdown").text   # good never met fair


def test_latex_is_escaped_and_whole(systems):
    table = paper_table(systems, "latex")
    assert table.file == "table.tex" and "bad \\& \\textless{}worst\\textgreater{}" in table.text
    lines = table.text.splitlines()
    body = lines[lines.index("\\midrule") + 1:lines.index("\\bottomrule")]
    rows = [line for line in body if line != "\\midrule"]
    assert len(rows) == 6 and all(line.endswith(" \\\\") and line.count(" & ") == 4 for line in rows)
    assert table.text.count("{") == table.text.count("}") and "\\begin{tabular}{lrrrr}" in table.text
    row = systems.results[0].table.iloc[0]
    assert f"{row.auroc:.3f}}} ({row.auroc_low:.3f}--{row.auroc_high:.3f})" in rows[0]      # bold
    assert "\\textbf{" in rows[-1] and rows[-1].startswith("mean of five & ")


def test_many_systems_have_their_intervals_below(systems):
    many = [*systems.results, *[judged(*tables(films=60, patients=60, seed=9), replicates=20, name="a_4$^~\\#")]]
    text = paper_table(evaluate.Findings(many), "latex").text
    assert "a\\_4\\$\\textasciicircum{}\\textasciitilde{}\\textbackslash{}\\#" in text
    assert text.count("{\\scriptsize (") == 4 * 6


def test_the_csv_table_has_plain_numbers(systems, tmp_path):
    (tmp_path / "t.csv").write_text(paper_table(systems, "csv").text)
    table = pd.read_csv(tmp_path / "t.csv")
    np.testing.assert_allclose(table["good"], systems.results[0].table["auroc"], atol=5e-5)
    np.testing.assert_allclose(table["fair high"], systems.results[1].table["auroc_high"], atol=5e-5)
    assert table["good certainly best"].iloc[-1] == "yes" and table["fair certainly best"].isna().all()


def test_one_system_has_more_columns():
    result = judged(*tables(), replicates=20, name="one")
    for kind in FORMATS:
        text = paper_table(evaluate.Findings([result]), kind).text
        assert "Average precision" in text and "Sensitivity" in text
    assert f"{result.table['specificity'].iloc[1]:.3f} ({result.table['specificity_low'].iloc[1]:.3f}" in paper_table(
        evaluate.Findings([result]), "markdown").text


# decisions

def decided(predicted):
    out = predicted.copy()
    out[list(LABELS)] = (predicted[list(LABELS)] > 0.5).astype(float)
    return out


def test_decisions_are_judged_as_decisions():
    predicted, truth = tables(films=300, patients=300)
    calls = decided(predicted)
    result = judged(calls, truth, replicates=100)
    table = result.table.set_index("label")
    for label in LABELS:
        assert table.loc[label, "f1"] == pytest.approx(f1_score(truth[label], calls[label]))
        assert table.loc[label, "mcc"] == pytest.approx(matthews_corrcoef(truth[label], calls[label]))
        assert table.loc[label, "sensitivity"] == pytest.approx(calls[label][truth[label] == 1].mean())
        assert table.loc[label, "mcc_low"] < table.loc[label, "mcc"] < table.loc[label, "mcc_high"]
    assert table["auroc"].isna().all() and not result.curves and result.calibrated is None
    assert table.loc["mean of five", "mcc"] == pytest.approx(table.loc[list(LABELS), "mcc"].mean())
    assert table.loc["mean of five", "mcc_low"] < table.loc["mean of five", "mcc"]
    assert any("decisions (0 and 1 only)" in note for note in result.notes)
    one = predicted.copy()
    one["Edema"] = calls["Edema"]
    assert judged(one, truth, replicates=0).table["auroc"].notna().all()        # one coarse column among scores


def test_decisions_have_their_page_and_their_comparison(tmp_path):
    predicted, truth = tables(films=300, patients=300)
    worse = tables(films=300, patients=300, noise=6.0)[0]
    results = [judged(decided(predicted), truth, replicates=200, name="calls"),
               judged(worse, truth, replicates=200, name="scores")]
    found = comparison.compare_systems(results, replicates=200)
    table = found["scores against calls"].set_index("label")
    for k, label in enumerate(results[0].cases.labels):
        expected = matthews_corrcoef(truth[label], results[1].calls[:, k])
        assert table.loc[label, "mcc_second"] == pytest.approx(expected)
    assert table.loc["mean of five", "verdict"] == "calls is better, beyond noise"
    bare = comparison.compare_systems(results, replicates=0)["scores against calls"]
    assert bare["difference_low"].isna().all() and bare["difference"].notna().all()
    evaluate.write(evaluate.Findings(results, found), tmp_path, tables=["latex"])
    text = (tmp_path / "evaluation.html").read_text(encoding="utf-8")
    assert "<h2>Decisions</h2>" in text and "Matthews" in text and ">nan" not in text
    assert "Matthews" in (tmp_path / "table.tex").read_text()
    assert "for decisions" in terminal.report(evaluate.Findings(results, found))[0]
    assert json.loads((tmp_path / "evaluation.json").read_text())["settings"]["decisions"] is True


def test_matthews_correlation_by_hand():
    found = thresholds.rates(np.array([[3, 1, 4, 2], [0, 0, 5, 1]]))  # tp, fn, tn, fp
    assert found["mcc"][0] == pytest.approx((3 * 4 - 2 * 1) / np.sqrt(5 * 4 * 6 * 5)) and np.isnan(found["mcc"][1])


# the ensemble, the meta file, the folder

def test_an_ensemble_of_raw_scores_says_so():
    predicted, truth = tables()
    raw = predicted.copy()
    raw[list(LABELS)] = predicted[list(LABELS)] * 3
    raw.attrs["source"] = "raw.csv"
    mean = evaluate.ensemble([predicted, raw])
    count = int((raw[list(LABELS)] > 1).to_numpy().sum())
    assert f"raw.csv ({count} of 1,000)" in mean.attrs["notes"][0] and "mean of raw scores" in mean.attrs["notes"][0]
    assert mean.attrs["notes"][0] in joined(mean, truth).notes
    assert not evaluate.ensemble([predicted, predicted]).attrs["notes"]


def written(folder, name, table):
    table.to_csv(folder / name, index=False)
    return folder / name


@pytest.mark.parametrize("by", ["Path", "Study", "Patient"])
def test_a_meta_file_joins_by_film_study_or_patient(tmp_path, by):
    predicted, truth = tables(films=60, patients=30)
    keys = {"Path": truth["Path"], "Study": truth["Path"].str.rsplit("/", n=1).str[0],
            "Patient": truth["Path"].str.extract(r"(patient\d+)", expand=False)}[by]
    site = pd.Series(["here", "there"] * 30).where(keys.ne(keys.iloc[0]), "here")
    table = pd.DataFrame({by: keys, "Site": site}).drop_duplicates(by).iloc[::-1]
    meta = evaluate.read_meta(written(tmp_path, "m.csv", table[table[by] != keys.iloc[5]]))
    cases = joined(predicted, truth, meta=meta)
    known = dict(zip(table[by], table["Site"]))
    expected = [np.nan if key == keys.iloc[5] else known[key] for key in keys]
    assert cases.about["Site"].fillna("?").tolist() == pd.Series(expected).fillna("?").tolist()
    assert cases.about["Sex"].tolist() == truth["Sex"].tolist()
    assert any("cases are not in it" in note for note in cases.notes)
    part = evaluate.evaluation.judge(cases, evaluate.Judging(replicates=0, by=["Site"], curves=False)).subgroups
    assert set(part["group"]) == {"here", "there", "unknown"}
    with pytest.raises(InputError, match=r"column 'Ward'; there are: Sex, Age, Site$"):
        evaluate.evaluation.judge(cases, evaluate.Judging(by=["Ward"]))


def test_a_meta_file_that_fits_nothing_is_refused(tmp_path):
    predicted, truth = tables(films=20)
    for table, words in ((pd.DataFrame({"Path": ["a/b.jpg"], "Site": ["x"]}), "none of its 1 rows"),
                         (pd.DataFrame({"Path": ["a"]}), "only the column"),
                         (pd.DataFrame({"Who": ["a"], "Site": ["b"]}), "no column Path or Study")):
        with pytest.raises(InputError, match=words):
            joined(predicted, truth, meta=evaluate.read_meta(written(tmp_path, "m.csv", table)), unit="film")
    meta = evaluate.read_meta(written(tmp_path, "m.csv", pd.DataFrame({"Path": truth["Path"], "Sex": "F"})))
    cases = joined(predicted, truth, meta=meta)
    assert set(cases.about["Sex"]) == {"F"} and any("Sex replace" in note for note in cases.notes)


def test_a_folder_with_another_evaluation_is_refused(tmp_path, capsys):
    predicted, truth = tables(films=40, patients=40, labels=("Edema",))
    files = [str(written(tmp_path, name, table)) for name, table in (("p.csv", predicted), ("t.csv", truth))]
    ask = ["--predictions", files[0], "--truth", files[1], "--replicates", "20", "--no-page", "--out",
           str(tmp_path / "out")]
    assert commands.answer(main, ask) == 0 == commands.answer(main, ask)                       # the same: made anew
    before = (tmp_path / "out" / "evaluation.json").read_bytes()
    assert commands.answer(main, [*ask, "--threshold", "f1"]) == 2
    written(tmp_path, "p.csv", predicted.assign(Edema=predicted["Edema"] / 2))
    assert commands.answer(main, ask) == 2
    assert capsys.readouterr().err.count("holds another evaluation") == 2
    assert (tmp_path / "out" / "evaluation.json").read_bytes() == before
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "evaluation.json").write_text("[]")
    assert commands.answer(main, [*ask[:-1], str(tmp_path / "old")]) == 2


def test_the_command_compares_tables_and_groups(tmp_path, capsys):
    made = {f"{name}.csv": tables(films=80, patients=80, seed=1, noise=noise)
            for name, noise in (("a_predictions", 1.0), ("b_predictions", 2.0), ("c_predictions", 4.0))}
    truth = written(tmp_path, "t.csv", made["a_predictions.csv"][1])
    files = [str(written(tmp_path, name, table[0])) for name, table in made.items()]
    out = tmp_path / "out"
    main(["--predictions", *files, "--truth", str(truth), "--by", "Sex", "Age", "--pairs", "all", "--table", "latex",
          "markdown", "csv", "--replicates", "50", "--no-page", "--out", str(out)])
    shown = capsys.readouterr().out
    assert shown.count("Thresholds:") == 1 and shown.count(" against ") == 3 and ", corrected " in shown
    assert shown.splitlines()[0] == "80 studies of 51 patients; AUROC"
    found = pd.read_csv(out / "comparisons.csv")
    assert len(found) == 3 * 6 and set(found["comparison"]) == {"b against a", "c against a", "c against b"}
    groups = pd.read_csv(out / "subgroups.csv")
    assert set(groups["predictions"]) == {"a", "b", "c"} and set(groups["by"]) == {"Sex", "Age"}
    assert {"table.tex", "table.md", "table.csv"} <= {path.name for path in out.iterdir()}


def test_names_from_files_cannot_command_the_terminal(tmp_path, capsys):
    evil = "\x1b]0;title\x07\x85\nerror: forged"
    predicted, truth = tables(films=30, labels=("Edema",))
    p = written(tmp_path, "p.csv", predicted.assign(**{evil: 0.5}))
    t = written(tmp_path, "t.csv", truth.assign(**{evil: 1.0}))
    main(["--predictions", str(p), "--truth", str(t), "--replicates", "10", "--no-page", "--out", str(tmp_path / "o")])
    shown = capsys.readouterr().out
    assert not set("\x1b\x07\x85") & set(shown) and r"\x1b]0;title\x07\x85\nerror: forged" in shown


# the hierarchical-BCE paper's file

def test_a_file_of_truths_and_predictions_is_read_as_it_is(tmp_path):
    labels = [f"{name}_{ending}" for name, ending in itertools.product(("Edema", "Big Mass"), ("GT", "Pred", "AE"))]
    rows = [["test/patient00001/study1/view1_frontal.jpg", 1, 0.7, 0.3, 0, 0.1, 0.1],
            ["test/patient00002/study1/view1_frontal.jpg", 0, 0.2, 0.2, 1, 0.3, 0.7]]
    path = written(tmp_path, "both.csv", pd.DataFrame(rows, columns=["Path", *labels]))
    cases = joined(evaluate.read_predictions(path), evaluate.read_truth(path))
    assert cases.labels == ("Edema", "Big Mass")
    np.testing.assert_array_equal(cases.scores, [[0.7, 0.1], [0.2, 0.3]])
    np.testing.assert_array_equal(cases.truth, [[1, 0], [0, 1]])
    assert "Columns read without their endings: _Pred, _GT." in cases.notes


def test_the_papers_figures_come_out_of_its_file(shared_data):
    path = shared_data / "hbce_preds" / "default_model_predictions_vs_groundtruth_with_errors.csv"
    result = judged(evaluate.read_predictions(path), evaluate.read_truth(path), unit="film", replicates=20,
                    mean="weighted", curves=False)
    assert result.table["auroc"].iloc[-1] == pytest.approx(0.8918, abs=5e-5)
    plain, weighted = result.means["auroc"]
    assert (plain, weighted) == (pytest.approx(0.8823, abs=5e-5), pytest.approx(0.9047, abs=5e-5))
    assert list(result.means["label"]) == ["mean of 21", "mean of 21, weighted by positives"]
    assert (result.means["auroc_low"] < result.means["auroc"]).all()
    report = terminal.report(evaluate.Findings([result]))
    assert any("953 of 13,360 checks (7.13 %), on both sides of 0.5 in 18 (0.13 %)" in line for line in report)
    assert "668 films of 500 patients" in report[0]


def test_units_are_said():
    cases = joined(*tables(films=9, patients=3))
    assert cases.in_words == "9 studies of 3 patients"
    assert joined(*tables(films=9, patients=3), unit="patient").in_words == "3 patients"
    assert joined(*tables(films=2, patients=1), unit="film").in_words == "2 films of 1 patient"
    assert set(units.UNITS) == {"film", "study", "patient"}


def test_p_values_at_their_edges():
    assert comparison.normal_p(0.1, 0.0) == 0.0 and comparison.normal_p(0.0, 0.0) == 1.0     # the same order of films
    assert np.isnan(comparison.normal_p(0.1, np.nan)) and np.isnan(comparison.normal_p(np.nan, 0.1))
    assert comparison.normal_p(1.959964, 1.0) == pytest.approx(0.05, abs=1e-6) == comparison.normal_p(-1.959964, 1.0)
    predicted, truth = tables(films=40, patients=40)
    truth["Edema"] = 0.0
    cases = joined(predicted, truth)
    table = comparison.compare(cases, cases, replicates=20).set_index("label")
    assert np.isnan(table.loc["Edema", "p_delong"]) and table.loc["Edema", "verdict"] == comparison.UNKNOWN
    assert table.loc["mean of five", "difference"] == 0 and table.loc["mean of five", "verdict"] == comparison.NOISE


def test_bootstrap_p_by_hand():
    """Of four differences one lies on the other side of 0: twice (1 + 1) / (4 + 1); NaN is no replicate."""
    assert comparison._bootstrap_p(np.array([1.0, 2.0, 3.0, -1.0, np.nan])) == pytest.approx(0.8)
    assert comparison._bootstrap_p(np.array([1.0, 2.0, 3.0])) == pytest.approx(0.5)
    assert comparison._bootstrap_p(np.zeros(5)) == 1 and np.isnan(comparison._bootstrap_p(np.array([np.nan])))


def test_the_same_call_gives_the_same_numbers_and_seeds_are_used(systems):
    first, second = (result.cases for result in systems.results[:2])
    one, again, other = (comparison.compare(first, second, replicates=50, **seed) for seed in ({}, {"seed": 0},
                                                                                               {"seed": 1}))
    pd.testing.assert_frame_equal(one, again)
    assert (one["difference_low"] != other["difference_low"]).any()


def test_a_wrong_column_of_subgroups_is_refused_before_anything_is_judged(monkeypatch):
    from chexpert_hier.evaluate import evaluation

    monkeypatch.setattr(evaluation, "rank_table", None)  # the first that takes long
    with pytest.raises(InputError, match=r"--by: neither the truth nor a --meta file has a column 'sexx'.*mean Sex\?"):
        judged(*tables(), by=["Age", "sexx"])


def test_names_are_no_formulas_in_the_files_that_spreadsheets_open(tmp_path):
    odd = ["=1+1", "@x", "Edema"]
    predicted, truth = tables(labels=odd)
    truth["Sex"] = np.where(truth["Sex"] == "Male", "-cmd", "+2")
    result = judged(predicted, truth, by=["Sex"], replicates=20)
    evaluate.write(result, tmp_path, page=False, tables=["csv"])
    plain = pd.read_csv(tmp_path / "evaluation.csv")
    assert set(plain["label"][:3]) == {r"\x3d1+1", r"\x40x", "Edema"}
    np.testing.assert_array_equal(plain["auroc"], result.table["auroc"])
    assert set(pd.read_csv(tmp_path / "subgroups.csv")["group"]) == {r"\x2dcmd", r"\x2b2"}
    assert {r"\x3d1+1", r"\x40x"} < set(pd.read_csv(tmp_path / "table.csv")["label"])
