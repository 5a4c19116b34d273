"""Maps: a network made by hand, Grad-CAM against CAM and finite differences, back onto the film's own pixels."""

import cv2
import keras
import numpy as np
import pytest

from chexpert_hier import heatmaps
from chexpert_hier.errors import InputError
from chexpert_hier.model import build_model, head_layer, logits_model, map_model

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
    cam = heatmaps.heatmaps(model, film, method="cam")
    assert cam.shape == (1, 1, 1, 3)
    assert cam[0, 0, 0].tolist() == pytest.approx([3, 10, -1], abs=1e-4)  # columns; rows would give 3, 10, 0
    two = heatmaps.heatmaps(model, film, ["Fracture", "No Finding"])
    assert two[0, 0, 0].tolist() == pytest.approx([-1, 3], abs=1e-4)


@pytest.mark.parametrize("head", ["dense", "three-class"])
def test_grad_cam_is_cam_over_the_area_behind_plain_pooling(films, head):
    model = build_model("tiny", LABELS, image_size=48, head=head, seed=1)
    cam = heatmaps.heatmaps(model, films, method="cam")
    grad = heatmaps.heatmaps(model, films, method="grad-cam")
    assert cam.shape == (3, 3, 3, 3) and np.abs(cam).max() > 1e-3
    np.testing.assert_allclose(grad * 9, cam, rtol=1e-3, atol=1e-6)


def test_cam_adds_up_to_the_logit(films):
    model = build_model("tiny", LABELS, image_size=48, seed=1)
    head_layer(model).bias.assign([0.1, 0.2, 0.3])
    cam = heatmaps.heatmaps(model, films)
    logits = keras.ops.convert_to_numpy(logits_model(model)(films, training=False))
    np.testing.assert_allclose(cam.mean(axis=(1, 2)) + np.array([0.1, 0.2, 0.3]), logits, atol=1e-5)


def test_grad_cam_of_a_deeper_head_by_finite_differences(films):
    model = build_model("tiny", LABELS, image_size=48, head="hbce", seed=1)
    with pytest.raises(InputError, match="grad-cam"):
        heatmaps.heatmaps(model, films, method="cam")
    found = heatmaps.heatmaps(model, films[:1], ["Edema"])
    to_maps, to_logits, plain = map_model(model)
    assert not plain
    maps = keras.ops.convert_to_numpy(to_maps(films[:1], training=False))
    steps = np.concatenate([maps + sign * 3e-3 * one.reshape(1, 1, 1, -1) for sign in (1, -1)
                            for one in np.eye(512, dtype="float32")])  # each map raised or lowered as a whole
    logits = keras.ops.convert_to_numpy(to_logits(steps, training=False))[:, 1]
    strength = (logits[:512] - logits[512:]) / 6e-3 / 9  # mean slope over the nine places
    np.testing.assert_allclose(found[0, ..., 0], maps[0] @ strength, atol=2e-2 * np.abs(found).max())


def test_unknown_labels_and_methods_are_told(films):
    model = build_model("tiny", LABELS, image_size=48)
    with pytest.raises(InputError, match="No Finding, Edema"):
        heatmaps.heatmaps(model, films, ["Oedema"])
    with pytest.raises(InputError, match="grad-cam"):
        heatmaps.heatmaps(model, films, method="saliency")


def test_a_map_goes_back_to_where_it_came_from():
    """The network's way forwards: rescale, crop, look; a bright spot in the film must be the map's largest pixel."""
    for height, width, spot, place in [(320, 390, (100, 200), (16, 16)), (700, 400, (500, 90), (32, 0))]:
        film = np.zeros((height, width), "float32")
        film[spot] = 1
        film = cv2.GaussianBlur(film, (0, 0), height / 12)
        square = cv2.resize(film, (256, 256), interpolation=cv2.INTER_AREA)
        crop = square[place[0]:place[0] + 224, place[1]:place[1] + 224]
        heat = cv2.resize(crop, (56, 56), interpolation=cv2.INTER_AREA)
        back = heatmaps.onto_film(heat, film.shape, place, 224, 256)
        assert back.shape == film.shape
        peak = np.unravel_index(np.nanargmax(back), back.shape)
        assert np.abs(np.subtract(peak, spot)).max() <= max(height, width) / 256 * 4
        np.testing.assert_allclose(np.nan_to_num(back), np.where(np.isnan(back), 0, film), atol=film.max() * 0.05)


def test_outside_the_crop_the_map_knows_nothing():
    back = heatmaps.onto_film(np.ones((7, 7)), (512, 256), (8, 0), 224, 256)
    seen = ~np.isnan(back)
    assert seen[16:464, :224].all() and not seen[:16].any() and not seen[464:].any() and not seen[:, 224:].any()
    assert (heatmaps.onto_film(np.ones((7, 7)), (10, 10), (8, 0), 224, 256, outside=0.0)[:, 9] == 0).all()


def test_uncropped_maps_are_resized_as_opencv_does():
    heat = np.random.default_rng(0).random((7, 7)).astype("float32")
    back = heatmaps.onto_film(heat, (100, 130))
    np.testing.assert_allclose(back, cv2.resize(heat, (130, 100), interpolation=cv2.INTER_LINEAR), atol=2e-2)
    assert not np.isnan(back).any()
    np.testing.assert_allclose(heatmaps.onto_film(heat, (7, 7)), heat, atol=1e-6)


def test_rectified_maps_lie_between_zero_and_one():
    heat = np.array([[-2, 1], [2, 4]], "float32")
    assert heatmaps.rectified(heat).tolist() == [[0, 0.25], [0.5, 1]]
    assert heatmaps.rectified(heat, 0.5).tolist() == [[0, 0], [0.5, 1]]
    assert not heatmaps.rectified(-np.ones((2, 2))).any()
    assert np.isnan(heatmaps.rectified(np.array([[np.nan, 1.0]]))).tolist() == [[True, False]]


def test_overlay_colours_what_is_hot_and_keeps_the_rest(tmp_path):
    film = np.full((100, 80), 90, "uint8")
    heat = np.full((100, 80), -1.0, "float32")
    heat[40:60, 30:50] = 2
    heat[:, 70:] = np.nan
    drawn = heatmaps.overlay(film, heat, boxes=[(5, 5, 10, 12)])
    assert drawn.shape == (100, 80, 3) and (drawn[80:, :30] == 90).all() and (drawn[80:, 75:] == 90).all()
    blue, _, red = drawn[50, 40]
    assert red > 90 > blue and (drawn[5, 5:15] == 255).all() and (drawn[17, 5:15] == 255).all()
    heatmaps.write_png(tmp_path / "a" / "x.png", drawn)
    np.testing.assert_array_equal(cv2.imread(str(tmp_path / "a" / "x.png")), drawn)
    assert (heatmaps.overlay(film, np.nan_to_num(heat), "Edema")[:30] > 150).any()  # the title
    with pytest.raises(ValueError, match="differ"):
        heatmaps.overlay(film, heat[:50])
