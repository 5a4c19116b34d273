"""Training: which films and cells, rates, stages, what is frozen, resume, features against the whole network."""

from dataclasses import replace

import keras
import numpy as np
import pandas as pd
import pytest

from chexpert_hier import hierarchy, recipes
from chexpert_hier.errors import InputError
from chexpert_hier.films import normalisation
from chexpert_hier.films.batches import Batches, CropSource, stream
from chexpert_hier.labels import CHEXPERT_LABELS
from chexpert_hier.network import losses, model
from chexpert_hier.training import callbacks, stages
from chexpert_hier.training.checkpoint import save_checkpoint
from chexpert_hier.training.targets import epoch_order, stage_targets

TREE = hierarchy.CHEXPERT_TREE
LO, ECM, CM, CO, PN, PE = (CHEXPERT_LABELS.index(name) for name in (
    "Lung Opacity", "Enlarged Cardiomediastinum", "Cardiomegaly", "Consolidation", "Pneumonia", "Pleural Effusion"))
FIRST = recipes.Stage("stage1", rows="conditional", epochs=2, batch_size=8, learning_rate=1e-3)
SECOND = recipes.Stage("stage2", rows="all", layers="head", epochs=3, batch_size=8, learning_rate=1e-2)
RECIPE = replace(recipes.PHAM2019, name="test", arch="tiny", weights="none", crop="none", rescaled_size=32,
                 crop_size=32, image_size=32, stages=(FIRST, SECOND), batchnorm_momentum=0.9)


class Films:
    """Random crops and labels, handed out as training asks for them."""

    def __init__(self, count: int, seed: int = 0):
        random = np.random.default_rng(seed)
        self.raw = random.choice(np.array([1, 0, -1, np.nan], np.float32), (count, 14), p=[.4, .3, .1, .2])
        self.raw[:, LO] = random.choice(np.array([1, 0], np.float32), count)
        self.keys = np.array([f"patient{k:05d}/study1/view1_frontal.jpg" for k in range(count)], object)
        self.labels = CHEXPERT_LABELS
        self.crops = random.integers(0, 256, (count, 32, 32), dtype=np.uint8)
        self.asked = []

    def __len__(self):
        return len(self.raw)

    def batches(self, rows, targets=None, batch_size=32, augment=(), draw=(0, 0)):
        self.asked.append((np.array(rows), targets, draw))
        return stream(Batches(
            CropSource(self.crops), np.asarray(rows), batch_size, normalisation.IMAGENET, 32, targets, augment=augment,
            keys=self.keys, draw=draw))


def fresh(seed: int = 0) -> keras.Model:
    return model.build_model("tiny", CHEXPERT_LABELS, "none", 32, seed=seed, batchnorm_momentum=0.9)


def train(*arguments, **options):
    return stages.train(stages.Training(*arguments, **options))


def weights_of(network: keras.Model) -> list[np.ndarray]:
    return [np.array(value) for value in network.get_weights()]


def test_the_callback_divides_the_rate_by_ten_after_each_epoch():
    network = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    network.compile("adam", "mse")
    rates = []
    seen = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: rates.append(
        float(network.optimizer.learning_rate)))
    network.fit(np.ones((4, 2)), np.ones((4, 1)), epochs=5, verbose=0,
                callbacks=[callbacks.LearningRateDrop(1e-4), seen])
    np.testing.assert_allclose(rates, [1e-4, 1e-5, 1e-6, 1e-7, 1e-8], rtol=1e-5)


def test_the_plateau_rate_by_hand():
    stage = recipes.Stage("s", schedule="plateau", learning_rate=1.0, learning_rate_drop=10.0, patience=0)
    assert [callbacks.plateau_rate(stage, losses) for losses in ([], [3.0], [3, 2], [3, 2, 2.5], [3, 2, 2.5, 2.6])] == [
        1.0, 1.0, 1.0, 0.1, pytest.approx(0.01)]
    patient = replace(stage, patience=1)
    assert callbacks.plateau_rate(patient, [3, 2, 2.5]) == 1.0
    assert callbacks.plateau_rate(patient, [3, 2, 2.5, 2.6]) == pytest.approx(0.1)


def test_stage_one_by_hand():
    raw = np.full((4, 14), np.nan, np.float32)
    raw[0, [LO, CO, PN]] = 1, 1, -1   # all parents of Pneumonia present
    raw[1, [LO, PN]] = -1, 1          # an uncertain parent is positive under u-ones; Consolidation blank
    raw[2, [ECM, CM]] = 1, 1
    raw[3, CO] = 1                    # Consolidation alone opens no row
    films = Films(4)
    films.raw = raw
    rows, targets = stage_targets(replace(RECIPE, policy="u-ones+ct"), TREE, films, FIRST)
    assert rows.tolist() == [0, 1, 2]
    assert np.isnan(targets[:, [LO, ECM]]).all() and not np.isnan(np.delete(targets, [LO, ECM], axis=1)).any()
    assert targets[:, PN].tolist() == [1, 1, 0] and targets[:, CM].tolist() == [0, 0, 1]
    union = replace(RECIPE, policy="u-ones+ct", ct_rows="union")
    rows, targets = stage_targets(union, TREE, films, FIRST)
    assert rows.tolist() == [0, 1, 2]
    assert targets[0, PN] == 1 and np.isnan(targets[1, PN]) and targets[1, CO] == 0
    assert targets[2, CM] == 1 and np.isnan(targets[2, CO])
    assert np.isnan(targets[:, [LO, ECM, PE]]).all()


def test_stage_two_may_keep_children_conditional_and_refit_only_what_stage_one_left():
    raw = np.full((3, 14), np.nan, np.float32)
    raw[0, [LO, CO]] = 1
    raw[1, CO] = 1
    raw[2, [ECM, PE]] = 1
    films = Films(3)
    films.raw = raw
    recipe = replace(RECIPE, policy="u-ones+ct")

    def counted(recipe=recipe, **changes):
        rows, targets = stage_targets(recipe, TREE, films, replace(SECOND, **changes))
        assert rows.tolist() == [0, 1, 2]
        return ~np.isnan(targets)

    assert counted().all()
    conditional = counted(cells="conditional")
    assert conditional[:, [LO, ECM, PE]].all()  # labels without parents train on every film
    assert conditional[:, CO].tolist() == [True, False, False] and conditional[:, CM].tolist() == [False, False, True]
    assert conditional[:, PN].tolist() == [True, False, False]  # both parents
    left = counted(labels="parents")
    assert left[:, [LO, ECM]].all() and not np.delete(left, [LO, ECM], axis=1).any()
    left = counted(replace(recipe, ct_rows="union"), labels="parents")
    assert left[:, ~TREE.children].all() and not left[:, TREE.children].any()


def test_columns_that_stage_two_does_not_fit_stay_bit_for_bit(tmp_path):
    recipe = replace(RECIPE, stages=(FIRST, replace(SECOND, labels="parents")))
    train(recipe, TREE, fresh(), Films(40), Films(12, 1), tmp_path)
    first, final = (model.load_model(tmp_path / name).get_layer("findings").get_weights()
                    for name in ("stage1.keras", "model.keras"))
    for before, after in zip(first, final):
        changed = (before != after).reshape(-1, 14).any(axis=0)
        assert np.flatnonzero(changed).tolist() == sorted([ECM, LO])


def test_the_random_control_has_as_many_films_and_all_cells():
    films = Films(200)
    conditional = stage_targets(RECIPE, TREE, films, FIRST)[0]
    rows, targets = stage_targets(RECIPE, TREE, films, replace(FIRST, rows="random"))
    assert abs(len(rows) - len(conditional)) <= 1 and rows.tolist() != conditional.tolist()
    assert not np.isnan(targets[:, PE]).any()


def test_three_classes_are_validated_as_two(tmp_path):
    recipe = replace(RECIPE, policy="u-multiclass", stages=(replace(FIRST, rows="all", epochs=1,
                                                                    loss="three_class"),))
    valid = Films(12, 1)
    assert (valid.raw == -1).any()
    network = model.build_model("tiny", CHEXPERT_LABELS, image_size=32, head="three-class", seed=0)
    train(recipe, TREE, network, Films(24), valid, tmp_path)
    p = stages.outputs_of(network, valid).astype(float)
    loss = -np.where(valid.raw == 1, np.log(p), np.log1p(-p))[valid.raw != -1].mean()  # blank is negative
    assert pd.read_csv(tmp_path / "log.csv")["valid_loss"].item() == pytest.approx(loss, rel=1e-4)


def test_every_film_once_per_epoch_in_an_order_of_seed_and_epoch():
    orders = [epoch_order(50, 3, 0, epoch) for epoch in (0, 1)]
    assert sorted(orders[0]) == list(range(50)) and orders[0].tolist() != orders[1].tolist()
    assert orders[0].tolist() == epoch_order(50, 3, 0, 0).tolist()


def test_stage_two_changes_the_head_alone_and_batchnorm_stays_as_it_was(tmp_path):
    network, films = fresh(), Films(40)
    train(RECIPE, TREE, network, films, Films(12, 1), tmp_path)
    first, final = (model.load_model(tmp_path / name) for name in ("stage1.keras", "model.keras"))
    changed = [a.path for a, b in zip(first.weights, final.weights) if not np.array_equal(a, b)]
    assert changed == [weight.path for weight in final.get_layer("findings").weights]


@pytest.mark.parametrize("augment", [(), ("hflip",)])
def test_stage_two_on_features_equals_fitting_through_the_frozen_network(tmp_path, augment, monkeypatch):
    films, valid = Films(40), Films(12, 1)
    recipe = replace(RECIPE, policy="u-ones+lsr", stages=(replace(FIRST, rows="all", epochs=1), SECOND))
    on_features = fresh()
    train(recipe, TREE, on_features, films, valid, tmp_path / "a")
    through = fresh()
    monkeypatch.setattr(stages.HeadRun, "prepare", lambda self: pytest.fail("features of augmented films"))
    # An augmentation that does nothing sends stage 2 through the whole network.
    monkeypatch.setattr(films, "batches", lambda rows, targets=None, batch_size=32, augment=(), draw=(0, 0):
                        Films.batches(films, rows, targets, batch_size, (), draw))
    train(replace(recipe, augment=("hflip",)), TREE, through, films, valid, tmp_path / "b")
    for ours, theirs in zip(weights_of(on_features), weights_of(through)):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_a_resumed_run_ends_with_the_weights_and_the_log_of_an_uninterrupted_one(tmp_path, monkeypatch):
    recipe = replace(RECIPE, stages=(replace(FIRST, epochs=2), replace(SECOND, epochs=2)))
    whole = fresh()
    monkeypatch.setattr(stages, "SAVED_EVERY", 0.0)
    train(recipe, TREE, whole, Films(40), Films(12, 1), tmp_path / "whole")
    saved, save = [], save_checkpoint

    class Killed(BaseException):
        pass

    def killed_after(count):
        def checkpoint(*arguments):
            save(*arguments)
            saved.append(1)
            if len(saved) == count:
                raise Killed

        return checkpoint

    for count in range(1, 7):  # after every checkpoint there is
        saved.clear()
        folder = tmp_path / f"killed{count}"
        monkeypatch.setattr(stages, "save_checkpoint", killed_after(count))
        with pytest.raises(Killed):
            train(recipe, TREE, fresh(), Films(40), Films(12, 1), folder)
        monkeypatch.setattr(stages, "save_checkpoint", save)
        again = fresh(seed=99)  # what it starts from does not matter
        train(recipe, TREE, again, Films(40), Films(12, 1), folder, resume=True)
        for ours, theirs in zip(weights_of(again), weights_of(whole)):
            np.testing.assert_allclose(ours, theirs, atol=1e-6)
        logs = [[line.rsplit(",", 1)[0] for line in (place / "log.csv").read_text().splitlines()]
                for place in (folder, tmp_path / "whole")]
        assert [line.split(",")[:4] for line in logs[0]] == [line.split(",")[:4] for line in logs[1]]


def test_a_network_trained_again_from_the_same_weights_gives_the_same_weights_without_a_second_trace(tmp_path):
    network, recipe = fresh(), replace(RECIPE, policy="u-ones", stages=(FIRST, SECOND))
    start = weights_of(network)
    results = []
    for name in ("a", "b"):
        network.set_weights(start)
        train(recipe, TREE, network, Films(40), Films(12, 1), tmp_path / name)
        results.append(weights_of(network))
        function = network.train_function
    assert network.train_function is function
    for ours, theirs in zip(*results):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_a_loss_that_is_not_finite_names_stage_epoch_batch_and_films(tmp_path):
    network, films = fresh(), Films(40)
    network.set_weights([np.full_like(value, np.nan) for value in network.get_weights()])
    with pytest.raises(InputError, match=r"stage1, epoch 1, batch 1: .*patient\d{5}/study1"):
        train(RECIPE, TREE, network, films, Films(12, 1), tmp_path)


def test_no_film_to_learn_from_is_said(tmp_path):
    films = Films(10)
    films.raw[:] = 0
    with pytest.raises(InputError, match="no film to learn from"):
        train(RECIPE, TREE, fresh(), films, Films(4, 1), tmp_path)


def test_another_networks_checkpoint_is_refused(tmp_path):
    train(replace(RECIPE, policy="u-ones"), TREE, fresh(), Films(20), Films(4, 1), tmp_path)
    other = model.build_model("tiny", CHEXPERT_LABELS[:5], "none", 32)
    with pytest.raises(InputError, match="another network"):
        train(replace(RECIPE, policy="u-ones"), TREE, other, Films(20), Films(4, 1), tmp_path, resume=True)


@pytest.mark.parametrize("name", losses.LOSSES)
def test_every_loss_is_made_from_targets_and_tree(name):
    targets = np.random.default_rng(0).integers(0, 2, (30, 14)).astype(np.float32)
    if name == "three_class":
        targets = np.eye(3, dtype=np.float32)[np.random.default_rng(0).integers(0, 3, (30, 14))]
    loss = losses.build(name, targets, TREE)
    value = float(keras.ops.convert_to_numpy(loss(targets, np.full(targets.shape, 0.4, np.float32))))
    assert np.isfinite(value) and value > 0


@pytest.mark.parametrize("every", [1, 3])
def test_a_run_killed_within_an_epoch_goes_on_from_its_last_batch_with_the_same_bits(tmp_path, monkeypatch, every):
    recipe = replace(RECIPE, policy="u-ones+lsr", stages=(replace(FIRST, rows="all", epochs=2),))
    whole = fresh()
    train(recipe, TREE, whole, Films(44), Films(12, 1), tmp_path / "whole", checkpoint_every=every)
    save, saved = save_checkpoint, []

    class Killed(BaseException):
        pass

    def killed(*arguments):
        save(*arguments)
        saved.append((arguments[3].epoch, arguments[3].batch))
        if saved[-1] == (1, 3):  # in the middle of the second epoch of six batches
            raise Killed

    monkeypatch.setattr(stages, "save_checkpoint", killed)
    with pytest.raises(Killed):
        train(recipe, TREE, fresh(), Films(44), Films(12, 1), tmp_path / "killed", checkpoint_every=every)
    monkeypatch.setattr(stages, "save_checkpoint", save)
    again, films = fresh(seed=99), Films(44)
    train(recipe, TREE, again, films, Films(12, 1), tmp_path / "killed", resume=True)
    assert [len(rows) for rows, targets, draw in films.asked if targets is not None] == [44 - 3 * 8]
    for ours, theirs in zip(weights_of(again), weights_of(whole)):
        np.testing.assert_array_equal(ours, theirs)
    logs = [[line.rsplit(",", 1)[0] for line in (tmp_path / name / "log.csv").read_text().splitlines()]
            for name in ("killed", "whole")]
    assert logs[0] == logs[1]
