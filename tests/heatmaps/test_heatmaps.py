"""Maps: a network made by hand, Grad-CAM against CAM and finite differences, the command on a run."""

import csv

import cv2
import keras
import numpy as np
import pytest

from chexpert_hier import hierarchy, recipes
from chexpert_hier.errors import InputError
from chexpert_hier.films import normalisation
from chexpert_hier.films.template import Cropper
from chexpert_hier.finished import members
from chexpert_hier.heatmaps import __main__ as heatmaps_command
from chexpert_hier.heatmaps import maps as mapping
from chexpert_hier.heatmaps import overlays
from chexpert_hier.heatmaps.maps import heatmaps, layer_of, map_file
from chexpert_hier.network.maps import map_cells, map_layers, map_model
from chexpert_hier.network.model import build_model, head_layer, logits_model

LABELS = ("No Finding", "Edema", "Fracture")


@pytest.fixture(scope="module")
def films():
    return np.random.default_rng(0).normal(size=(3, 48, 64, 3)).astype("float32")[:, :, :48]


def by_hand():
    """Two maps: the film's first channel and its second; label 0 looks at the first, label 1 at the second, label 2 at
    neither. Kernel rows and columns differ, and the numbers of maps and labels too."""
    model = build_model("tiny", LABELS, image_size=16, seed=0)
    for layer in model.layers:
        if isinstance(layer, keras.layers.Conv2D):
            kernel = np.zeros(layer.kernel.shape, "float32")
            kernel[0, 0, 0, 0] = kernel[0, 0, 1, 1] = 1.0  # "same" padding of stride 2 begins at the first pixel
            layer.kernel.assign(kernel)
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.moving_variance.assign(np.full(layer.moving_variance.shape, 1 - layer.epsilon))
    kernel = np.zeros((128, 3), "float32")
    kernel[:2, :2] = [[3.0, 0.0], [0.0, 5.0]]
    kernel[0, 2] = -1.0
    head_layer(model).kernel.assign(kernel)
    return model


def test_cam_of_a_network_made_by_hand():
    film = np.zeros((1, 16, 16, 3), "float32")
    film[0, 0, 0] = [1, 2, 7]
    model = by_hand()
    to_maps, _, _ = map_model(model)
    assert keras.ops.convert_to_numpy(to_maps(film))[0, 0, 0, :3].tolist() == pytest.approx([1, 2, 0], abs=1e-5)
    cam = heatmaps(model, film, method="cam")
    assert cam.shape == (1, 1, 1, 3)
    assert cam[0, 0, 0].tolist() == pytest.approx([3, 10, -1], abs=1e-4)  # columns; rows would give 3, 10, 0
    two = heatmaps(model, film, ["Fracture", "No Finding"])
    assert two[0, 0, 0].tolist() == pytest.approx([-1, 3], abs=1e-4)


@pytest.mark.parametrize("head", ["dense", "three-class"])
def test_grad_cam_is_cam_over_the_area_behind_plain_pooling(films, head):
    model = build_model("tiny", LABELS, image_size=48, head=head, seed=1)
    cam = heatmaps(model, films, method="cam")
    grad = heatmaps(model, films, method="grad-cam")
    assert cam.shape == (3, 3, 3, 3) and np.abs(cam).max() > 1e-3
    np.testing.assert_allclose(grad * 9, cam, rtol=1e-3, atol=1e-6)


def test_cam_adds_up_to_the_logit(films):
    model = build_model("tiny", LABELS, image_size=48, seed=1)
    head_layer(model).bias.assign([0.1, 0.2, 0.3])
    cam = heatmaps(model, films)
    logits = keras.ops.convert_to_numpy(logits_model(model)(films, training=False))
    np.testing.assert_allclose(cam.mean(axis=(1, 2)) + np.array([0.1, 0.2, 0.3]), logits, atol=1e-5)


def test_grad_cam_of_a_deeper_head_by_finite_differences(films):
    model = build_model("tiny", LABELS, image_size=48, head="hbce", seed=1)
    with pytest.raises(InputError, match="grad-cam"):
        heatmaps(model, films, method="cam")
    found = heatmaps(model, films[:1], ["Edema"])
    to_maps, to_logits, plain = map_model(model)
    assert not plain
    maps = keras.ops.convert_to_numpy(to_maps(films[:1], training=False))
    steps = np.concatenate([maps + sign * 3e-3 * one.reshape(1, 1, 1, -1) for sign in (1, -1)
                            for one in np.eye(512, dtype="float32")])  # each map raised or lowered as a whole
    logits = keras.ops.convert_to_numpy(to_logits(steps, training=False))[:, 1]
    strength = (logits[:512] - logits[512:]) / 6e-3 / 9  # mean slope over the nine places
    np.testing.assert_allclose(found[0, ..., 0], maps[0] @ strength, atol=2e-2 * np.abs(found).max())


def test_the_network_is_cut_where_nothing_leads_around():
    """Behind any cut the rest gives the whole network's logits; where it cannot be cut, nothing is offered."""
    for arch, size, offered in (("tiny", 48, {"conv1_relu": 24, "conv2_relu": 12, "conv3_relu": 6, "conv4_relu": 3}),
                                ("densenet121", 64, {"conv1_relu", "pool2_conv", "pool3_conv", "pool4_conv", "relu"})):
        model = build_model(arch, LABELS, image_size=size, seed=1)
        film = np.random.default_rng(0).random((1, size, size, 3), "float32")
        logits = keras.ops.convert_to_numpy(logits_model(model)(film, training=False))
        layers = map_layers(model)
        assert layers == offered if isinstance(offered, dict) else offered <= set(layers)
        for name, side in list(layers.items())[-2:]:
            to_maps, to_logits, plain = map_model(model, name)
            maps = to_maps(film, training=False)
            assert maps.shape[1] == side and not plain
            found = keras.ops.convert_to_numpy(to_logits(maps, training=False))
            np.testing.assert_allclose(found, logits, atol=1e-5)
    with pytest.raises(InputError, match="pool3_conv"):
        map_model(model, "pool3_relu")


def test_maps_of_too_few_cells_give_way_to_an_earlier_layer():
    small, large = (build_model("tiny", LABELS, image_size=size, seed=1) for size in (64, 112))
    assert map_model(small)[0].output_shape[1] == 4 and layer_of(small) == "conv3_relu"
    assert map_model(large)[0].output_shape[1] == 7 and layer_of(large) is None
    assert layer_of(small, "last") is None and layer_of(small, "conv2_relu") == "conv2_relu"
    with pytest.raises(InputError, match="--layer"):
        layer_of(small, "conv9")
    first, step = map_cells(small, "conv3_relu")
    assert step == pytest.approx(1 / 8) and 0 < first < 1 / 8


def test_layer_cam_by_finite_differences(films):
    """Each place of each map moved by itself: the slope's positive part times the map, added over the maps."""
    model = build_model("tiny", LABELS, image_size=48, seed=1)
    found = heatmaps(model, films[:1], ["Edema"], layer="conv4_relu")[0, ..., 0]
    to_maps, to_logits, _ = map_model(model, "conv4_relu")
    maps = keras.ops.convert_to_numpy(to_maps(films[:1], training=False))
    steps = np.eye(maps.size, dtype="float32").reshape(-1, *maps.shape[1:]) * 0.05
    up, down = (keras.ops.convert_to_numpy(to_logits(maps + sign * steps, training=False))[:, 1] for sign in (1, -1))
    slope = ((up - down) / 0.1).reshape(maps.shape)
    expected = (np.maximum(slope, 0) * maps)[0].sum(-1)
    np.testing.assert_allclose(found, expected, atol=1e-3 * np.abs(expected).max())
    assert (found >= 0).all() and found.max() > 0


@pytest.mark.parametrize("method", ["grad-cam", "layer-cam"])
def test_maps_of_all_labels_at_once_are_those_of_each_label(films, method, monkeypatch):
    model = build_model("tiny", LABELS, image_size=48, seed=1)
    one_by_one = np.concatenate([heatmaps(model, films, [label], method) for label in LABELS], axis=-1)
    assert len(films) > 1 and np.ptp(one_by_one, axis=(0, 3)).max() > 0
    for together in (1, 2 * len(films), 1000):  # one label, two, all in one pass
        monkeypatch.setattr(mapping, "AT_ONCE", together)
        np.testing.assert_allclose(heatmaps(model, films, LABELS, method), one_by_one, rtol=1e-4, atol=1e-7)


def test_unknown_labels_and_methods_are_told(films):
    model = build_model("tiny", LABELS, image_size=48)
    with pytest.raises(InputError, match="No Finding, Edema"):
        heatmaps(model, films, ["Oedema"])
    with pytest.raises(InputError, match="grad-cam"):
        heatmaps(model, films, method="saliency")


@pytest.fixture
def opened(monkeypatch, tmp_path):
    """A run with a tiny network, of frontal films cut in the centre."""
    recipe = recipes.change(recipes.named("phantom"), image_size=48)
    model = build_model("tiny", LABELS, image_size=48, seed=1)
    member = members.Member(tmp_path, recipe, LABELS, hierarchy.flat(LABELS),
                            {"Frontal": Cropper("centre", None, 64, 48)},
                            normalisation.Normalisation((0.5,) * 3, (0.25,) * 3), model, tmp_path / "model.keras")
    monkeypatch.setattr(members, "open_run", lambda run: member)
    rng = np.random.default_rng(0)
    for name, shape in {"a/one.png": (90, 70), "a/two.png": (50, 120), "b/one.png": (64, 64)}.items():
        (tmp_path / "films" / name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(tmp_path / "films" / name), rng.integers(0, 255, shape).astype("uint8"))
    return member


def test_the_command_draws_stores_and_lists(opened, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    argv = ["films", "--model", "run", "--out", "maps", "--labels", "Fracture", "Edema", "--batch-size", "2", "--quiet",
            "--all"]
    assert heatmaps_command.main(argv) == 0
    assert "6 maps of 3 films" in capsys.readouterr().out
    names = sorted(path.name for path in (tmp_path / "maps").iterdir() if not path.name.startswith("."))
    assert len(names) == 3 + 6 + 1 and "films__b__one.png.npz" in names and "films__a__two.png Edema.png" in names
    assert cv2.imread("maps/films__a__one.png Edema.png").shape == (90, 70, 3)
    maps = overlays.read_maps("maps/films__a__two.png.npz")
    film = cv2.imread("films/a/two.png", cv2.IMREAD_GRAYSCALE)
    crops = opened.croppers["Frontal"].crop([film])
    inputs = np.asarray(opened.inputs(crops.crops))
    expected = heatmaps(opened.model, inputs, ["Fracture", "Edema"], layer=layer_of(opened.model))[0]
    np.testing.assert_allclose(maps.heat, expected.transpose(2, 0, 1), atol=1e-5)
    assert (maps.place, maps.crop, maps.rescaled, maps.film_shape) == ((8, 8), 48, 64, (50, 120))
    with open("maps/maps.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["label"] for row in rows] == ["Fracture", "Edema"] * 3
    row = next(row for row in rows if row["Path"] == "films/a/two.png" and row["label"] == "Edema")
    peak = np.unravel_index(np.nanargmax(maps.on_film("Edema")), (50, 120))
    assert (int(row["row"]), int(row["column"])) == peak

    with pytest.raises(InputError, match="not empty"):
        heatmaps_command.main(argv)
    (tmp_path / "maps" / "films__b__one.png.npz").unlink()
    kept = (tmp_path / "maps" / "films__a__one.png.npz").stat().st_mtime_ns
    assert heatmaps_command.main([*argv, "--resume"]) == 0
    assert (tmp_path / "maps" / "films__a__one.png.npz").stat().st_mtime_ns == kept
    assert (tmp_path / "maps" / "films__b__one.png.npz").exists()
    with open("maps/maps.csv", newline="") as file:
        assert sorted(map(str, csv.DictReader(file))) == sorted(map(str, rows))
    assert maps.stretched
    for other, what in ((["--place", "centred"], "options"), (["--labels", "Edema"], "labels"),
                        (["--threshold", "0.5"], "options")):
        with pytest.raises(InputError, match=f"the job there had other {what}"):
            heatmaps_command.main([*argv, "--resume", *other])
    with pytest.raises(InputError, match="the job there had other films"):
        heatmaps_command.main(["films/b", *argv[1:], "--resume"])
    opened.file.write_bytes(b"another network")
    with pytest.raises(InputError, match="the job there had other model"):
        heatmaps_command.main([*argv, "--resume"])
    (tmp_path / "maps" / ".asked.json").unlink()
    with pytest.raises(InputError, match="cannot be told of which job"):
        heatmaps_command.main([*argv, "--resume"])
    assert heatmaps_command.main([*argv, "--out", "centred", "--place", "centred", "--resume"]) == 0
    maps = overlays.read_maps("centred/films__a__two.png.npz")
    assert maps.cells == pytest.approx((15.5 / 48, 16 / 48)) and not maps.stretched


def test_findings_called_absent_get_no_picture(opened, tmp_path, monkeypatch, capsys):
    points = {"labels": {"Edema": {"threshold": 1.0}, "Fracture": {"threshold": 0.0}}}
    monkeypatch.setattr(type(opened), "validation", lambda self: points)
    argv = [str(tmp_path / "films"), "--model", "run", "--out", str(tmp_path / "maps"), "--labels", "Fracture", "Edema",
            "--quiet"]
    heatmaps_command.main(argv)
    assert "3 maps of 3 films" in capsys.readouterr().out
    assert len(list((tmp_path / "maps").glob("*Fracture.png"))) == 3
    assert not list((tmp_path / "maps").glob("*Edema.png"))
    heatmaps_command.main([*argv, "--out", str(tmp_path / "all"), "--all"])
    assert "6 maps of 3 films" in capsys.readouterr().out and len(list((tmp_path / "all").glob("*Edema.png"))) == 3
    assert map_file(tmp_path, "/a/b c.png", ".npz").name == "a__b_c.png.npz"


def test_the_command_tells_what_it_cannot_use(opened, tmp_path, capsys):
    films = str(tmp_path / "films")
    for extra, told in ((["--labels", "Oedema"], "expected one of: No Finding"), (["--threshold", "1"], "share"),
                        (["--method", "grad-cam", "--batch-size", "0"], "1 or more")):
        with pytest.raises(InputError, match=told):
            heatmaps_command.main([films, "--model", "run", "--out", str(tmp_path / "new"), *extra])
    (tmp_path / "films" / "a" / "two.png").write_bytes(b"no picture")
    cv2.imwrite(str(tmp_path / "films" / "b" / "view2_lateral.png"), np.zeros((9, 9), "uint8"))
    with pytest.raises(InputError, match=r"two\.png"):
        heatmaps_command.main([films, "--model", "run", "--out", str(tmp_path / "new")])
    heatmaps_command.main([films, "--model", "run", "--out", str(tmp_path / "other"), "--skip-bad"])
    assert "of 2 films" in capsys.readouterr().out
