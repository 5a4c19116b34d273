"""What the experiments compute on their own: mutations of a module, classic multi-label learners, splits of rows."""

import sys
from pathlib import Path

import numpy as np
import pytest

EXPERIMENTS = Path(__file__).parents[1] / "experiments"


@pytest.fixture(autouse=True)
def on_path(monkeypatch):
    monkeypatch.setattr(sys, "path", [str(EXPERIMENTS), *sys.path])


SOURCE = '''"""Doc 1."""
LIMIT = 3

def share(a, b):
    """Part of the whole."""
    check(a)
    if a < b and not b == 0:
        return a / b
    raise ValueError(f"{a + b}")
'''


def test_every_kind_of_change_and_no_other():
    import mutate

    found = {f"{one.line} {one.name.split(' #')[0]}" for one in mutate.mutations(SOURCE)}
    assert found == {
        "2 : 3 -> 4", "6 share: check(a) -> pass", "7 share: a < b and not b == 0 -> (a < b or not b == 0)",
        "7 share: a < b and not b == 0 -> (not (a < b and (not b == 0)))", "7 share: a < b -> (a <= b)",
        "7 share: not b == 0 -> (b == 0)", "7 share: b == 0 -> (b != 0)", "7 share: 0 -> 1",
        "8 share: return a / b -> return None", "8 share: a / b -> (a * b)"}


def test_a_change_stands_where_it_belongs_also_behind_letters_of_several_bytes():
    import mutate

    source = "a = 'ü'; b = 1\n"
    change = mutate.mutations(source)[0]
    data = source.encode()
    assert (data[:change.start] + change.new.encode() + data[change.end:]).decode() == "a = 'ü'; b = 2\n"


@pytest.fixture(scope="module")
def features():
    """Three labels, the third the conjunction of the others; a tenth of the cells is uncertain."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(900, 6)).astype(np.float32)
    y = np.stack([x[:, 0] > 0.3, x[:, 1] > 0, (x[:, 0] > 0.3) & (x[:, 1] > 0)], axis=1).astype(float)
    known = y.copy()
    known[rng.random(y.shape) < 0.1] = np.nan
    return x[:600], known[:600], x[600:], y[600:]


@pytest.mark.parametrize("name", ["Ignore-BR", "Ignore-LP", "Ignore-CC"])
def test_classic_learners_on_features(features, name):
    from pham2019_table2_ignore import METHODS
    from sklearn.metrics import roc_auc_score

    x, y, judged, truth = features
    p = METHODS[name](x, y, judged)
    assert p.shape == truth.shape and (p >= 0).all() and (p <= 1 + 1e-9).all()
    # The conjunction is no linear function of the features.
    assert min(roc_auc_score(truth[:, k], p[:, k]) for k in range(3)) > 0.93
    if name == "Ignore-LP":  # only sets that occur have a class: the conjunction is never surer than a part of it
        assert (p[:, 2] <= p[:, :2].min(axis=1) + 1e-9).all()
    if name == "Ignore-BR":  # an uncertain cell leaves the film out for its own label alone
        known = ~np.isnan(y[:, 0])
        np.testing.assert_allclose(METHODS[name](x[known], y[known][:, :1], judged)[:, 0], p[:, 0])
