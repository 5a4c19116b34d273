"""The companion recipes as a user runs them: other outputs, three classes, both views, plain views, uncertainty."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from chexpert_hier import hierarchy, labels, recipes, run
from chexpert_hier.datasets import reading
from chexpert_hier.errors import InputError
from chexpert_hier.films import augment
from chexpert_hier.phantom import making
from chexpert_hier.prepare import sources
from chexpert_hier.report import page

# A report's figure of twelve patients and one epoch may have no room for its axes; what it shows is tested elsewhere.
pytestmark = pytest.mark.filterwarnings("ignore:constrained_layout not applied")
QUICK = ("--arch", "tiny", "--image-size", "32", "--weights", "none", "--epochs", "1", "--quiet")


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """CheXpert's layout with lateral films, and VisualCheXbert's file: the clean truth."""
    folder = making.make(tmp_path_factory.mktemp("companions") / "films", patients=24, valid_patients=12, seed=3,
                          processes=1)
    (folder / "train_visualCheXbert.csv").write_bytes((folder / "train_truth.csv").read_bytes())
    return folder


@pytest.fixture(scope="module")
def nih(data) -> Path:
    """ChestX-ray14's layout with the phantom's frontal films."""
    folder = data.parent / "nih"
    (folder / "images").mkdir(parents=True)
    films = pd.read_csv(data / "train.csv").query("`Frontal/Lateral` == 'Frontal'")
    rows = []
    for number, path in enumerate(films["Path"]):
        name = f"{number:08d}_000.png"
        (folder / "images" / name).write_bytes((data.parent / path).read_bytes())
        finding = ["Pneumonia", "No Finding", "Effusion|Mass"][number % 3]
        rows.append((name, finding, 0, number, 50, "F", "PA"))
    columns = ["Image Index", "Finding Labels", "Follow-up #", "Patient ID", "Patient Age", "Patient Gender",
               "View Position"]
    pd.DataFrame(rows, columns=columns).to_csv(folder / "Data_Entry_2017.csv", index=False)
    return folder


@pytest.fixture(scope="module")
def chexpertnet(data) -> Path:
    return trained("chexpertnet", data, data.parent / "chexpertnet", "--set", "crop_size=48", "--set",
                   "rescaled_size=48", "--set", "augment=random_crop:40,hflip", "--set", "plain_view=centre_crop:40")


@pytest.fixture(scope="module")
def hbce(data) -> Path:
    return trained("hbce", data, data.parent / "hbce", "--no-export")


def trained(recipe: str, data: Path, out: Path, *more: str, with_page: bool = False) -> Path:
    """Run the main job; its report page, which takes longest, only where asked for."""
    with pytest.MonkeyPatch.context() as patch:
        if not with_page:
            patch.setattr(page, "write", lambda folder, **already: None)
        assert run.main(["--recipe", recipe, "--data", str(data), "--out", str(out), *QUICK, *more]) == 0
    return out


def facts(folder: Path) -> dict:
    return json.loads((folder / "recipe.json").read_text())


def test_enlarged_cardiomediastinum_positive_weighs_20_69_in_chexpertnets_loss():
    # All 223,414 training films of CheXpert, counted: negative and blank, positive, uncertain.
    counts = np.array([[223414 - 10798 - 12403, 10798, 12403], [223414 - 22381, 22381, 0]])
    weights = labels.class_weights(counts)
    assert weights[0, 1] == pytest.approx(223414 / 10798, rel=1e-6) and round(float(weights[0, 1]), 2) == 20.69
    np.testing.assert_allclose(weights.round(2), [[1.12, 20.69, 18.01], [1.11, 9.98, 0]], atol=1e-6)


def test_chexpertnet_reads_both_views_judges_patients_and_exports_probabilities(chexpertnet, data):
    table = pd.read_csv(chexpertnet / "predictions.csv")
    valid = pd.read_csv(data / "valid.csv")
    assert table["Path"].tolist() == valid["Path"].tolist()  # frontal and lateral
    values = table[list(labels.CHEXPERT_LABELS)].to_numpy()
    assert values.shape == (len(valid), 14) and ((values > 0) & (values < 1)).all()
    evaluation = json.loads((chexpertnet / "evaluation.json").read_text())
    assert "patient" in json.dumps(evaluation)
    rows = pd.read_csv(chexpertnet / "evaluation.csv").set_index("label")
    assert rows.loc["Edema", ["positives", "negatives"]].sum() == 12  # patients, not films
    assert (chexpertnet / "saved_model" / "saved_model.pb").exists()  # the run compared its answers with its own


def test_predict_shows_the_network_the_plain_view_and_takes_laterals(chexpertnet, data, tmp_path):
    from chexpert_hier.predict import __main__ as predict_command

    assert predict_command.main([str(data / "valid.csv"), "--model", str(chexpertnet), "--out", str(tmp_path / "p.csv"),
                         "--quiet"]) == 0
    own = pd.read_csv(chexpertnet / "predictions.csv").set_index("Path")
    answer = pd.read_csv(tmp_path / "p.csv").set_index("Path")
    np.testing.assert_allclose(answer.loc[own.index, own.columns], own, atol=1e-5)


def test_maps_of_three_classes_lie_where_the_plain_view_lies(chexpertnet, data):
    from chexpert_hier.films.decode import read_film
    from chexpert_hier.finished import asked, members
    from chexpert_hier.heatmaps.maps import film_maps

    member = members.open_run(chexpertnet)
    film = asked.find_films([str(data / "valid.csv")])[0]
    maps = film_maps(member, [film], [read_film(film.file)], ("Edema",))[0]
    assert (maps.place, maps.crop, maps.rescaled) == ((4, 4), 40, 48)
    seen = ~np.isnan(maps.on_film("Edema"))
    assert seen.mean() == pytest.approx((40 / 48) ** 2, abs=0.03)


def test_hbce_has_21_outputs_from_visualchexberts_table(hbce, data):
    table = pd.read_csv(hbce / "predictions.csv")
    assert tuple(table.columns[1:]) == hierarchy.HBCE_TREE.labels
    truth, valid = pd.read_csv(hbce / "truth.csv"), pd.read_csv(data / "valid.csv")
    built = hierarchy.hbce_outputs(valid[list(labels.CHEXPERT_LABELS)].to_numpy(), labels.CHEXPERT_LABELS)
    np.testing.assert_array_equal(truth[list(hierarchy.HBCE_TREE.labels)], built)
    assert facts(hbce)["recipe"]["train_file"] == "train_visualCheXbert.csv"


def test_uncertainty_columns_by_dropout_and_by_ensemble(hbce, chexpertnet, data, tmp_path):
    from chexpert_hier.predict import __main__ as predict_command

    film = str(data / "valid.csv")
    for name, models, how in (("mc", [hbce], "mc:4"), ("many", [hbce, hbce], "ensemble")):
        assert predict_command.main([film, "--model", *map(str, models), "--uncertainty", how, "--out",
                             str(tmp_path / f"{name}.csv"), "--quiet"]) == 0
        table = pd.read_csv(tmp_path / f"{name}.csv")
        entropy, mutual = table["Edema [entropy]"], table["Edema [mutual information]"]
        assert ((0 <= mutual) & (mutual <= entropy) & (entropy <= np.log(2) + 1e-6)).all()
        assert (table["Edema [sd]"] > 0).all() == (how == "mc:4")
    with pytest.raises(InputError, match="no dropout"):
        predict_command.main([film, "--model", str(chexpertnet), "--uncertainty", "mc:4",
                              "--out", str(tmp_path / "x.csv")])
    with pytest.raises(InputError, match="several models"):
        predict_command.main([film, "--model", str(hbce), "--uncertainty", "ensemble",
                              "--out", str(tmp_path / "y.csv")])
    with pytest.raises(InputError, match="mc:10"):
        predict_command.main([film, "--model", str(hbce), "--uncertainty", "mc:0", "--out", str(tmp_path / "z.csv")])


@pytest.mark.parametrize("recipe", ["chexnet", "chexnet-pneumonia"])
def test_chexnet_reads_chestxray14_and_is_judged_on_its_own_test_patients(recipe, nih, tmp_path):
    out = trained(recipe, nih, tmp_path / "run", "--no-export")
    names = labels.CHESTXRAY14_LABELS if recipe == "chexnet" else ("Pneumonia",)
    table, split = pd.read_csv(out / "predictions.csv"), pd.read_csv(out / "split.csv").set_index("path")["split"]
    assert tuple(table.columns[1:]) == names
    assert set(split[table["Path"]]) == {"test"}
    log = pd.read_csv(out / "log.csv")
    assert log["films"].iloc[0] == (split == "train").sum()


def test_a_layout_that_the_synthetic_films_do_not_have_is_one_line(tmp_path):
    with pytest.raises(InputError, match="give --data DIR"):
        run.main(["--recipe", "chexnet", "--out", str(tmp_path / "run"), *QUICK])


def test_as_many_frontal_films_of_the_same_patients(data):
    both = sources.read_data(recipes.CHEXPERTNET, data)
    fair = sources.read_data(replace(recipes.CHEXPERTNET, views="frontal", fair_frontal=True), data)
    assert (both.split("train").films["view"] == "Lateral").any()
    assert (fair.films["view"] == "Frontal").all()
    assert len(fair.split("train")) == len(both.split("train"))
    assert set(fair.split("train").films["patient"]) <= set(both.split("train").films["patient"])
    frontal = reading.read(data, views="frontal").split("valid")
    assert fair.split("valid").keys.tolist() == frontal.keys.tolist()


def test_the_plain_view_is_the_centre_crop_and_draws_nothing():
    crops = np.arange(2 * 11 * 11, dtype=np.uint8).reshape(2, 11, 11)
    assert augment.plain_window(("centre_crop:8",), 11) == (2, 8)
    expected = augment.augmented(crops, ["a", "b"], ("centre_crop:8",), 0)
    np.testing.assert_array_equal(augment.plain(crops, ("centre_crop:8",)), expected)
    np.testing.assert_array_equal(augment.plain(crops, ()), crops)
    with pytest.raises(InputError, match="draws nothing"):
        augment.plain_window(("random_crop:8",), 11)
    with pytest.raises(InputError, match="cannot be cut"):
        augment.plain_window(("centre_crop:12",), 11)


@pytest.mark.slow
def test_u_multiclass_and_own_statistics_work_in_the_main_recipe(data, tmp_path):
    out = trained("pham2019", data, tmp_path / "run", "--policy", "u-multiclass", "--normalise", "dataset", "--cache",
                  str(tmp_path / "crops"), "--set", "template_films=20", "--no-export", with_page=True)
    table = pd.read_csv(out / "predictions.csv")
    assert tuple(table.columns[1:]) == labels.CHEXPERT_LABELS
    mean, std = (values[0] for values in facts(out)["normalisation"])
    crops = np.load(tmp_path / "crops" / "crops.npy")[:len(pd.read_csv(data / "train.csv").query(
        "`Frontal/Lateral` == 'Frontal'"))] / 255
    assert (mean, std) == pytest.approx((crops.mean(), crops.std()), abs=1e-9)


@pytest.mark.slow
def test_early_stop_keeps_the_epoch_with_the_lowest_validation_loss(hbce, data, tmp_path):
    out = trained("hbce", data, tmp_path / "run", "--no-export", "--epochs", "4", "--set",
                  "stage1.learning_rate=0.05", "--set", "stage1.stop_after=1", with_page=True)
    assert (out / "report.html").stat().st_size > 10000
    log = pd.read_csv(out / "log.csv")
    assert len(log) < 4 or log["valid_loss"].idxmin() == 3 or log["valid_loss"].iloc[-2] == log["valid_loss"].min()
    from chexpert_hier.finished import members
    from chexpert_hier.network import losses
    from chexpert_hier.training.stages import outputs_of
    from chexpert_hier.training.targets import stage_targets

    member = members.open_run(out)
    recipe = member.recipe
    dataset = sources.read_data(recipe, data)
    films = sources.from_files(dataset, recipe, out, "torch")
    _, targets = stage_targets(recipe, member.tree, films.films("train"), recipe.plan()[0])
    valid = films.films("valid")
    loss = losses.build(recipe.plan()[0].loss, targets, member.tree)
    value = float(loss(np.nan_to_num(valid.raw), outputs_of(member.model, valid)))
    assert value == pytest.approx(log["valid_loss"].min(), rel=1e-4)
