"""Trees, stage-1 masks by hand, the chain rule against the obvious product, contradictions, HBCE's outputs."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from chexpert_hier import hierarchy, recipes
from chexpert_hier.errors import InputError
from chexpert_hier.hierarchy import CHEXPERT_TREE, HBCE_TREE, READINGS, TREES, Tree, flat, stage_one
from chexpert_hier.labels import CHEXPERT_LABELS, hard_targets

NAN = np.nan
CHAIN = Tree(("A", "B", "C"), {"B": ("A",), "C": ("B",)})
# Names in an order of their own, so that nothing can rely on parents coming first.
DIAMOND = Tree(("D", "B", "A", "C"), {"B": ("A",), "C": ("A",), "D": ("B", "C")})
ALL_TREES = {**TREES, "chain": CHAIN, "diamond": DIAMOND}


def place(*names):
    return [CHEXPERT_LABELS.index(name) for name in names]


def ancestors_by_walking(tree, label):
    """The slow, obvious way."""
    found = {label}
    for parent in tree.parents.get(label, ()):
        found |= ancestors_by_walking(tree, parent)
    return found


@pytest.mark.parametrize("name", ALL_TREES)
def test_matrices_against_walking_the_tree(name):
    tree = ALL_TREES[name]
    for row, label in enumerate(tree.labels):
        assert {tree.labels[at] for at in np.flatnonzero(tree.ancestors[row])} == ancestors_by_walking(tree, label)
        assert {tree.labels[at] for at in np.flatnonzero(tree.parents_matrix[row])} == set(tree.parents.get(label, ()))
        expected = max((1 + tree.depth[tree.labels.index(parent)] for parent in tree.parents.get(label, ())), default=0)
        assert tree.depth[row] == expected
    assert {(tree.labels[a], tree.labels[b]) for a, b in tree.edges} == {
        (parent, label) for label in tree.labels for parent in tree.parents.get(label, ())}


def test_chexperts_tree_is_irvins_figure():
    assert CHEXPERT_TREE.labels == CHEXPERT_LABELS and len(CHEXPERT_TREE.edges) == 7
    assert {label for label, child in zip(CHEXPERT_LABELS, CHEXPERT_TREE.children) if child} == {
        "Cardiomegaly", "Lung Lesion", "Edema", "Consolidation", "Pneumonia", "Atelectasis"}
    assert CHEXPERT_TREE.depth[place("Pneumonia")[0]] == 2


def test_hbces_graph_has_21_outputs_and_20_edges():
    assert len(HBCE_TREE.labels) == 21 and len(HBCE_TREE.edges) == 20
    several = [label for label, count in zip(HBCE_TREE.labels, HBCE_TREE.parents_matrix.sum(axis=1)) if count > 1]
    assert several == ["Cardiomegaly", "Pneumonia"]
    assert HBCE_TREE.labels[14:] == ("Uncertain", "Abnormal", "Cardiac", "Fluid Accumulation", "Missing Lung Tissue",
                                     "Opacity", "Other")


@pytest.mark.parametrize("labels, parents, message", [
    (("A", "B"), {"A": ("B",), "B": ("A",)}, "cycle"),
    (("A",), {"A": ("A",)}, "cycle"),
    (("A",), {"B": ("A",)}, "'B'"),
    (("A",), {"A": ("X",)}, "'X'"),
    (("A", "A"), {}, "each once"),
    ((), {}, "at least one"),
])
def test_impossible_trees_are_refused(labels, parents, message):
    with pytest.raises(InputError, match=message):
        Tree(labels, parents)


def test_a_users_tree(tmp_path):
    path = tmp_path / "tree.json"
    path.write_text(json.dumps({"labels": ["A", "B", "C"], "parents": {"B": ["A"], "C": ["B"]}}))
    np.testing.assert_array_equal(hierarchy.read_tree(path).ancestors, CHAIN.ancestors)
    path.write_text(json.dumps({"B": ["A"]}))
    assert hierarchy.read_tree(path, ["B", "A"]).labels == ("B", "A")
    for text in ("", "{", "[1]", "3", '{"labels": "AB", "parents": {}}', '{"labels": ["A"], "parents": {"A": "A"}}',
                 '{"B": ["A"]}', '{"labels": ["A"], "parents": {"B": ["A"]}}', '{"labels": [1], "parents": {}}'):
        path.write_text(text)
        with pytest.raises(InputError, match=r"tree\.json"):
            hierarchy.read_tree(path)
    with pytest.raises(InputError, match="cannot be read"):
        hierarchy.read_tree(tmp_path / "none.json")


def test_named_trees_are_cut_down_to_the_labels_at_hand():
    tree = hierarchy.named("chexpert", ("Pneumonia", "Lung Opacity", "Mine"))
    assert tree.labels == ("Pneumonia", "Lung Opacity", "Mine") and tree.parents == {"Pneumonia": ("Lung Opacity",)}
    assert CHAIN.subset(("C", "A")).parents == {"C": ("A",)}  # who loses a parent gets the parent's parents
    assert hierarchy.named({"B": ["A"]}, ("A", "B")).parents == {"B": ("A",)}
    with pytest.raises(InputError, match="expected one of: chexpert"):
        hierarchy.named("oak", ("A",))


# ------------------------------------------------------------------------------------------------ stage 1

# One row per case. A blank or uncertain parent is not present.
HARD = np.array([
    # A    B    C
    [1, 1, 1],
    [1, 1, 0],
    [1, 0, 1],
    [0, 1, 1],
    [NAN, 1, 1],
    [1, NAN, 1],
    [0, 0, 0],
])
CHAIN_BY_HAND = {
    "leaves": ([1, 1, 1, 0, 0, 1, 0], [[0, 1, 1]] * 3 + [[0, 0, 0]] * 2 + [[0, 1, 1], [0, 0, 0]]),
    "union": ([1, 1, 1, 0, 0, 1, 0], [[0, 1, 1], [0, 1, 1], [0, 1, 0], [0, 0, 0], [0, 0, 0], [0, 1, 0], [0, 0, 0]]),
    "all-parents": ([1, 1, 0, 0, 0, 0, 0], [[0, 1, 1]] * 2 + [[0, 0, 0]] * 5),
    "any-parent": ([1, 1, 1, 1, 1, 1, 0], [[1, 1, 1]] * 6 + [[0, 0, 0]]),
    "chen": ([1] * 7, [[1, 1, 1], [1, 1, 1], [1, 1, 0], [1, 0, 1], [1, 0, 1], [1, 1, 0], [1, 0, 0]]),
}


@pytest.mark.parametrize("reading", READINGS)
def test_stage_one_of_a_three_level_chain_by_hand(reading):
    rows, cells = stage_one(HARD, CHAIN, reading)
    expected_rows, expected_cells = CHAIN_BY_HAND[reading]
    np.testing.assert_array_equal(rows, np.array(expected_rows, bool))
    np.testing.assert_array_equal(cells, np.array(expected_cells, bool))


def test_stage_one_on_chexperts_tree_by_hand():
    """Rows: Lung Opacity; it and Consolidation; Consolidation alone; Enlarged Cardiomediastinum; only leaves."""
    raw = np.full((5, 14), NAN, np.float32)
    for row, names in enumerate((("Lung Opacity",), ("Lung Opacity", "Consolidation"), ("Consolidation",),
                                 ("Enlarged Cardiomediastinum",), ("Pleural Effusion", "Cardiomegaly", "Edema"))):
        raw[row, place(*names)] = 1
    rows, cells = stage_one(hard_targets(raw, "u-ones"), CHEXPERT_TREE)
    np.testing.assert_array_equal(rows, [True, True, False, True, False])
    for row in (0, 1, 3):  # all but the two roots, unmasked, Pleural Effusion and No Finding among them
        assert set(np.flatnonzero(~cells[row])) == set(place("Lung Opacity", "Enlarged Cardiomediastinum"))
    rows, cells = stage_one(hard_targets(raw, "u-ones"), CHEXPERT_TREE, "union")
    under_opacity = place("Lung Lesion", "Edema", "Consolidation", "Atelectasis")
    np.testing.assert_array_equal(rows, [True, True, False, True, False])  # Consolidation alone opens no row
    expected = np.zeros((5, 14), bool)
    expected[0, under_opacity] = expected[1, under_opacity] = True
    expected[1, place("Pneumonia")] = True
    expected[3, place("Cardiomegaly")] = True
    np.testing.assert_array_equal(cells, expected)
    rows, cells = stage_one(hard_targets(raw, "u-ones"), CHEXPERT_TREE, "chen")
    assert rows.all() and cells[:, ~CHEXPERT_TREE.children].all()
    assert not cells[2, place("Pneumonia")[0]]  # both parents are needed
    np.testing.assert_array_equal(stage_one(hard_targets(raw, "u-ones"), CHEXPERT_TREE, "any-parent")[0],
                                  [True, True, True, True, False])


@pytest.mark.parametrize("policy, present", [("u-ignore", False), ("u-zeros", False), ("u-zeros+lsr", False),
                                             ("u-ones", True), ("u-ones+lsr", True), ("u-mean", False)])
def test_an_uncertain_parent_is_present_under_u_ones_alone(policy, present):
    raw = np.full((1, 14), 0, np.float32)
    raw[0, place("Lung Opacity")] = -1
    rows, cells = stage_one(hard_targets(raw, policy), CHEXPERT_TREE)
    assert rows[0] == present and cells[0, place("Edema")[0]] == present


def test_subset_sizes_of_a_constructed_table():
    """Counts of rows as the published ones are counted: Lung Opacity or ECM; all three parents; any of the three."""
    lo, co, ecm = place("Lung Opacity", "Consolidation", "Enlarged Cardiomediastinum")
    values = [1, -1, 0, NAN]
    raw = np.zeros((64, 14), np.float32)
    raw[:, [lo, co, ecm]] = [[a, b, c] for a in values for b in values for c in values]  # each combination once
    for policy, present in (("u-zeros", 1), ("u-ignore", 1), ("u-ones", 2)):  # of 4 values so many are present
        hard = hard_targets(raw, policy)
        absent = 4 - present
        sizes = {"leaves": 64 - absent * absent * 4, "union": 64 - absent * absent * 4, "all-parents": present**3,
                 "any-parent": 64 - absent**3, "chen": 64}
        assert {reading: stage_one(hard, CHEXPERT_TREE, reading)[0].sum() for reading in sizes} == sizes
        cells = stage_one(hard, CHEXPERT_TREE, "union")[1].sum(axis=0)
        assert cells[place("Pneumonia")[0]] == present * present * 4
        assert cells[place("Edema")[0]] == present * 16 and cells[place("Cardiomegaly")[0]] == present * 16
        assert cells[~CHEXPERT_TREE.children].sum() == 0


LOOPED = ("leaves", "union", "all-parents", "any-parent", "chen")  # a further reading is tested by hand above


@settings(max_examples=50, deadline=None)
@given(hard=arrays(np.float32, st.tuples(st.integers(0, 10), st.just(14)), elements=st.sampled_from([1, 0, NAN])),
       reading=st.sampled_from(LOOPED))
def test_masks_against_loops_over_films_and_labels(hard, reading):
    parents = {CHEXPERT_LABELS.index(child): place(*above) for child, above in CHEXPERT_TREE.parents.items()}
    lo, co, ecm = place("Lung Opacity", "Consolidation", "Enlarged Cardiomediastinum")
    rows, cells = stage_one(hard, CHEXPERT_TREE, reading)
    for film, values in enumerate(hard):
        opens = {"leaves": values[lo] == 1 or values[ecm] == 1, "union": values[lo] == 1 or values[ecm] == 1,
                 "all-parents": values[lo] == 1 and values[ecm] == 1 and values[co] == 1,
                 "any-parent": values[lo] == 1 or values[ecm] == 1 or values[co] == 1, "chen": True}[reading]
        assert rows[film] == opens
        for label in range(14):
            given_parents = all(values[above] == 1 for above in parents.get(label, ()))
            counts = {"leaves": label not in (lo, ecm),
                      "union": label in parents and given_parents, "all-parents": label in parents,
                      "any-parent": True, "chen": given_parents}[reading]
            assert cells[film, label] == (opens and counts)


def test_a_new_reading_is_one_function_and_one_row(monkeypatch):
    def children(hard, tree):
        return hierarchy.StageOne((hard[:, tree.children] == 1).any(axis=1), np.ones(hard.shape, bool))

    monkeypatch.setattr(hierarchy, "READINGS", {**READINGS, "children": children})
    rows, cells = stage_one(HARD, CHAIN, "children")
    assert rows.tolist() == cells[:, 0].tolist() == [True, True, True, True, True, True, False]
    assert recipes.change(recipes.PHAM2019, "ct_rows=children").ct_rows == "children"


def test_unknown_reading_and_wrong_shapes():
    with pytest.raises(InputError, match="expected one of: leaves, union, all-parents, any-parent, chen"):
        stage_one(HARD, CHAIN, "every")
    for function in (stage_one, hierarchy.chain_rule, hierarchy.log_chain_rule, hierarchy.close_upward,
                     hierarchy.contradictions, hierarchy.edge_penalties, hierarchy.conditional_cells):
        with pytest.raises(ValueError, match="films, 3"):
            function(np.zeros((2, 4)), CHAIN)


def test_a_flat_tree_opens_nothing_and_changes_nothing():
    tree = flat(("A", "B"))
    for reading in ("leaves", "union", "all-parents", "any-parent"):
        assert not stage_one(np.ones((3, 2)), tree, reading)[0].any()
    values = np.random.default_rng(0).random((5, 2))
    np.testing.assert_array_equal(hierarchy.chain_rule(values, tree), values)


def test_conditional_cells_by_hand():
    np.testing.assert_array_equal(hierarchy.conditional_cells(HARD, CHAIN)[[0, 2, 4, 5]], np.array(
        [[1, 1, 1], [1, 1, 0], [1, 0, 1], [1, 1, 0]], bool))
    both = hierarchy.conditional_cells(np.array([[0, 1, 1, 0], [0, 1, 1, 1]]), DIAMOND)  # D needs B and C
    np.testing.assert_array_equal(both, np.array([[0, 1, 1, 1], [1, 1, 1, 1]], bool))


def test_the_share_of_positives_that_stage_one_sees_by_hand():
    cells = stage_one(HARD, CHAIN)[1]  # rows 0, 1, 2, 5; A is masked
    np.testing.assert_allclose(hierarchy.positives_seen(HARD, cells), [0, 2 / 4, 3 / 5])
    assert np.isnan(hierarchy.positives_seen(np.zeros((2, 1)), np.ones((2, 1), bool))).all()


def test_close_upward_by_hand():
    raw = np.array([[NAN, NAN, 1], [0, NAN, 1], [NAN, 0, -1], [1, NAN, -1], [-1, 1, 0], [NAN, 0, 0]])
    np.testing.assert_array_equal(hierarchy.close_upward(raw, CHAIN), [
        [1, 1, 1], [1, 1, 1], [-1, -1, -1], [1, -1, -1], [1, 1, 0], [NAN, 0, 0]])


@settings(max_examples=50, deadline=None)
@given(raw=arrays(np.float32, st.tuples(st.integers(0, 8), st.just(14)), elements=st.sampled_from([1, 0, -1, NAN])))
def test_closure_commutes_with_the_policies_that_make_all_cells_hard(raw):
    closed = hierarchy.close_upward(raw, CHEXPERT_TREE)
    np.testing.assert_array_equal(hierarchy.close_upward(closed, CHEXPERT_TREE), closed)
    for policy in ("u-zeros", "u-ones"):
        hard = hard_targets(raw, policy)
        np.testing.assert_array_equal(hard_targets(closed, policy), hierarchy.close_upward(hard, CHEXPERT_TREE))


# --------------------------------------------------------------------------------------------- chain rule

def test_chain_rule_multiplies_along_the_path_to_the_root():
    opacity, consolidation, pneumonia = 0.5, 0.4, 0.25  # by hand: 0.5, 0.2, 0.05
    conditional = np.full((1, 14), .9)
    conditional[0, place("Lung Opacity", "Consolidation", "Pneumonia")] = opacity, consolidation, pneumonia
    result = hierarchy.chain_rule(conditional, CHEXPERT_TREE)[0]
    np.testing.assert_allclose(result[place("Lung Opacity", "Consolidation", "Pneumonia")], [.5, .2, .05], rtol=1e-15)
    np.testing.assert_allclose(result[place("Edema", "Cardiomegaly", "Pleural Effusion")], [.45, .81, .9], rtol=1e-15)


@pytest.mark.parametrize("name", ALL_TREES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_no_child_is_above_its_parent_not_even_by_rounding(name, dtype):
    tree = ALL_TREES[name]
    rng = np.random.default_rng(1)
    for near_one in (0, 1):
        conditional = (near_one - rng.random((2000, len(tree.labels))) * 10.0 ** rng.integers(-8, 1, (2000, 1))).astype(
            dtype) if near_one else rng.random((2000, len(tree.labels))).astype(dtype)
        result = hierarchy.chain_rule(conditional, tree)
        assert result.dtype == dtype and (result >= 0).all() and (result <= 1).all()
        assert (result[:, tree.edges[:, 1]] <= result[:, tree.edges[:, 0]]).all()
        assert hierarchy.contradictions(result, tree).above.sum() == 0
        walked = np.stack([np.prod([conditional[:, tree.labels.index(above)].astype(float) for above in
                                    ancestors_by_walking(tree, label)], axis=0) for label in tree.labels], axis=1)
        np.testing.assert_allclose(result, walked, rtol=1e-5 if dtype == np.float32 else 1e-13)


@pytest.mark.parametrize("name", ALL_TREES)
def test_log_space_equals_the_plain_product(name):
    tree = ALL_TREES[name]
    logits = np.random.default_rng(2).uniform(-12, 12, (500, len(tree.labels)))
    probability = hierarchy.chain_rule(1 / (1 + np.exp(-logits)), tree)
    log_p, log_not = hierarchy.log_chain_rule(logits, tree)
    np.testing.assert_allclose(np.exp(log_p), probability, rtol=1e-12)
    np.testing.assert_allclose(np.exp(log_not), 1 - probability, rtol=1e-8, atol=1e-15)


@pytest.mark.parametrize("size", [60, 300, 800])
def test_log_space_is_finite_and_right_at_extreme_logits(size):
    from decimal import Decimal, localcontext

    logits = np.array([[a, b, c] for a in (size, 0, -size) for b in (size, 0, -size) for c in (size, 0, -size)], float)
    log_p, log_not = hierarchy.log_chain_rule(logits, CHAIN)
    assert np.isfinite(log_p).all() and np.isfinite(log_not).all()
    with localcontext() as context:
        context.prec = size + 50  # enough digits for 1 - exp(-2 size)
        for row in logits:
            log_p, log_not = (values[0, 2] for values in hierarchy.log_chain_rule(row[None], CHAIN))
            p = Decimal(1)
            for logit in row:
                p /= 1 + Decimal(-logit).exp()
            assert log_p == pytest.approx(float(p.ln()), rel=1e-12)
            assert log_not == pytest.approx(float((1 - p).ln()), rel=1e-9)


@settings(max_examples=60, deadline=None)
@given(logits=arrays(np.float64, (3, 14), elements=st.floats(-1e4, 1e4)))
def test_log_space_is_finite_and_ordered_for_any_logits(logits):
    log_p, log_not = hierarchy.log_chain_rule(logits, CHEXPERT_TREE)
    assert np.isfinite(log_p).all() and np.isfinite(log_not).all() and (log_p <= 0).all() and (log_not <= 1e-12).all()
    parent, child = CHEXPERT_TREE.edges.T
    assert (log_p[:, child] <= log_p[:, parent] + 1e-9 * np.abs(log_p[:, parent])).all()


def test_contradictions_by_hand():
    found = hierarchy.contradictions(np.array([[.6, .7, .1], [.4, .6, .6], [.5, .5, .5], [NAN, .9, .2]]), CHAIN)
    assert found.edges == (("A", "B"), ("B", "C")) and found.films == 4
    np.testing.assert_array_equal(found.above, [2, 0])  # A < B in the first two rows; a NaN contradicts nothing
    np.testing.assert_array_equal(found.crossed, [1, 0])
    assert found.above_rate == 2 / 8 and found.crossed_rate == 1 / 8
    on_it = hierarchy.contradictions(np.array([[.4, .5, .4], [.4, .6, .5]]), CHAIN)  # at the threshold is neither side
    np.testing.assert_array_equal(on_it.crossed, [1, 0])
    assert np.isnan(hierarchy.contradictions(np.zeros((2, 1)), flat("A")).above_rate)


# --------------------------------------------------------------------------------------------------- HBCE

def test_hbce_outputs_by_hand():
    def outputs(*names, uncertain=()):
        raw = np.full((1, 14), NAN, np.float32)
        raw[0, place(*names)] = 1
        raw[0, place(*uncertain)] = -1
        result = hierarchy.hbce_outputs(raw)[0]
        return {value: {label for label, found in zip(HBCE_TREE.labels, result) if found == value} for value in (1, -1)}

    assert outputs()[1] == {"Uncertain"}
    assert outputs("No Finding")[1] == {"No Finding"}
    assert outputs("No Finding", "Support Devices")[1] == {"No Finding", "Support Devices", "Other"}
    assert outputs("Pneumonia")[1] == {"Pneumonia", "Fluid Accumulation", "Opacity", "Abnormal"}
    assert outputs("Lung Lesion")[1] == {"Lung Lesion", "Opacity", "Abnormal"}
    assert outputs("Pneumothorax")[1] == {"Pneumothorax", "Missing Lung Tissue", "Opacity", "Abnormal"}
    assert outputs("Cardiomegaly")[1] == {"Cardiomegaly", "Cardiac", "Abnormal"}
    assert outputs("Fracture")[1] == {"Fracture", "Other", "Abnormal"}
    assert outputs("Edema", uncertain=("Fracture",)) == {1: {"Edema", "Fluid Accumulation", "Opacity", "Abnormal"},
                                                         -1: {"Fracture", "Other"}}
    assert outputs(uncertain=("Edema",)) == {1: set(), -1: {"Edema", "Fluid Accumulation", "Opacity", "Abnormal"}}
    with pytest.raises(ValueError, match="the 14 of CheXpert"):
        hierarchy.hbce_outputs(np.zeros((1, 2)), ("A", "B"))
    for raw, names in ((np.zeros((1, 13)), CHEXPERT_LABELS), (np.zeros((1, 14)), HBCE_TREE.labels[7:])):
        with pytest.raises(ValueError, match="the 14 of CheXpert"):
            hierarchy.hbce_outputs(raw, names)


def test_edge_penalties_by_hand():
    target = np.array([[0, 1], [0, 0], [0, 0], [1, 1], [NAN, 1], [0, NAN]])  # NaN on either side: does not count
    penalty = hierarchy.edge_penalties(target, Tree(("A", "B"), {"B": ("A",)}))
    np.testing.assert_allclose(penalty, [1 - 1 / 3], atol=1e-6)  # the child occurs in 1 of 3 films without the parent
    np.testing.assert_allclose(hierarchy.edge_penalties(target, CHAIN.subset(("A", "B")), scale=3), [2], atol=1e-5)
    always = np.ones((4, 2))  # a parent that is never absent
    np.testing.assert_allclose(hierarchy.edge_penalties(always, CHAIN.subset(("A", "B"))), [0.5])
    one = hierarchy.edge_penalties(np.array([[0, 1]]), CHAIN.subset(("A", "B")), epsilon=1.0)
    np.testing.assert_allclose(one, [1 - 2 / 3])


def test_penalties_of_groups_built_by_or_are_one():
    rng = np.random.default_rng(0)
    built = hierarchy.hbce_outputs(rng.random((300, 14)) < .15)
    penalties = dict(zip([(HBCE_TREE.labels[a], HBCE_TREE.labels[b]) for a, b in HBCE_TREE.edges],
                         hierarchy.edge_penalties(built, HBCE_TREE)))
    built_by_or = [edge for edge in penalties if edge[0] in HBCE_TREE.labels[16:]]
    assert len(built_by_or) == 15
    np.testing.assert_allclose([penalties[edge] for edge in built_by_or], 1, atol=1e-5)
    assert .7 < penalties["Consolidation", "Pneumonia"] < .95
