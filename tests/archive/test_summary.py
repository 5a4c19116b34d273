"""The summary against values worked by hand and against numpy on all values at once."""

import numpy as np
import pandas as pd
import pytest

from chexpert_hier.archive import summary

pa = pytest.importorskip("pyarrow", reason="archive needs pyarrow")


def table(values, errors=None, flags=None, calls=None):
    count = len(values)
    return pa.table({"Edema": pa.array(values, pa.float32(), from_pandas=True),
                     "Edema [call]": pa.array(calls or [None] * count, pa.float32()),
                     "[flag]": flags or [""] * count, "error": pa.array(errors or [None] * count, pa.string()),
                     "seconds": pa.array([0.5] * count, pa.float32())})


def tally(tables, against=None):
    reference = None if against is None else summary.Reference({"Edema": np.sort(np.array(against))})
    found = summary.Tally(["Edema"], reference)
    for one in tables:
        found.add(one)
    return found.as_json()


def test_counts_and_kinds():
    found = tally([table([0.25, None, None], ["", "too small: 10x12 pixels; expected 32", "too small: 4x9 pixels"],
                         calls=[1, None, None]),
                   table([0.75, 0.5], flags=["turned; 90 degrees", ""], calls=[0, None])])
    assert (found["films"], found["answered"], found["errors"], found["flagged"]) == (5, 3, 2, 1)
    assert found["errors_by_kind"] == {"too small: NxN pixels": 2} and found["flags_by_kind"] == {"turned": 1}
    assert found["findings"]["Edema"]["called_present"] == 0.5 and found["worker_seconds"] == 2.5
    assert found["drift"]["known"] is False and "drift" not in found["findings"]["Edema"]


def test_many_kinds_of_errors_do_not_grow_without_bound():
    letters = [f"reason {chr(97 + k // 26)}{chr(97 + k % 26)}" for k in range(200)]
    kinds = tally([table([None] * 200, letters)])["errors_by_kind"]
    assert len(kinds) == summary.MOST_KINDS + 1 and kinds["other"] == 200 - summary.MOST_KINDS


def test_distribution_in_portions_is_that_of_all_values():
    values = np.random.default_rng(0).beta(2, 5, 5000).astype(np.float32)
    found = tally([table(part) for part in np.array_split(values, 7)])["findings"]["Edema"]
    assert found["mean"] == pytest.approx(values.mean(), abs=1e-6)
    assert found["sd"] == pytest.approx(values.std(), abs=1e-6)
    for q, value in found["quantiles"].items():
        assert value == pytest.approx(np.quantile(values, float(q)), abs=0.0015)


def test_drift_by_hand():
    """Ten validation films at 0.05 ... 0.95, one in each group; of the archive's films all lie in the lower half.

    Each of five groups has a fifth instead of a tenth, five have none, which count as 0.0001:
    5 (0.2 - 0.1) ln 2 + 5 (0.0001 - 0.1) ln 0.001.
    """
    against = np.arange(10) / 10 + 0.05
    found = tally([table(np.repeat(against[:5], 20))], against)["findings"]["Edema"]["drift"]
    assert found["psi"] == pytest.approx(0.5 * np.log(2) - 5 * 0.0999 * np.log(0.001), rel=1e-6)
    assert found["largest_difference_of_shares"] == pytest.approx(0.5) and found["validation_films"] == 10


def test_the_same_films_do_not_drift_and_chance_is_about_right():
    random = np.random.default_rng(1)
    against = random.beta(2, 5, 400)
    same = tally([table(against)], against)["findings"]["Edema"]["drift"]
    assert same["psi"] == pytest.approx(0, abs=1e-3) and same["largest_difference_of_shares"] <= 1 / 400 + 1e-9
    below = [drift["psi"] < drift["by_chance"] for drift in (
        tally([table(random.beta(2, 5, 2000))], random.beta(2, 5, 400))["findings"]["Edema"]["drift"]
        for _ in range(200))]
    assert 0.9 <= np.mean(below) <= 0.99  # 0.95 but for what 200 repeats leave open


def test_reference_of_runs(tmp_path):
    for name, values in (("a", [0.2, 0.4]), ("b", [0.6, 0.4])):
        (tmp_path / name).mkdir()
        pd.DataFrame({"Path": ["x", "y"], "Edema": values}).to_csv(tmp_path / name / "predictions.csv", index=False)
    runs = [str(tmp_path / "a"), str(tmp_path / "b" / "model.keras")]
    assert summary.reference(runs, ["Edema"]).values["Edema"].tolist() == pytest.approx([0.4, 0.4])
    assert summary.reference([str(tmp_path)], ["Edema"]) is None and summary.reference(runs, ["Other"]) is None


def test_text_shows_what_there_is():
    against = np.arange(10) / 10 + 0.05
    shown = summary.text(tally([table(np.repeat(against[:5], 20)), table([None], ["no such file"])], against))
    assert "101 films: 100 answered, 1 with an error" in shown and "error: 1 x no such file" in shown
    assert "*" in next(line for line in shown.splitlines() if line.startswith("Edema"))
    assert summary.text(tally([table([None], ["no such file"])])).count("Edema") == 0
