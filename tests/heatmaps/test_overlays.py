"""Maps on films: back onto the film's own pixels, drawn, stored and read again."""

import cv2
import numpy as np
import pytest

from chexpert_hier.errors import InputError
from chexpert_hier.heatmaps import overlays


def test_a_map_goes_back_to_where_it_came_from():
    """The network's way forwards: rescale, crop, look; a bright spot in the film must be the map's largest pixel."""
    for height, width, spot, place in [(320, 390, (100, 200), (16, 16)), (700, 400, (500, 90), (32, 0))]:
        film = np.zeros((height, width), "float32")
        film[spot] = 1
        film = cv2.GaussianBlur(film, (0, 0), height / 12)
        square = cv2.resize(film, (256, 256), interpolation=cv2.INTER_AREA)
        crop = square[place[0]:place[0] + 224, place[1]:place[1] + 224]
        heat = cv2.resize(crop, (56, 56), interpolation=cv2.INTER_AREA)
        back = overlays.onto_film(heat, film.shape, place, 224, 256)
        assert back.shape == film.shape
        peak = np.unravel_index(np.nanargmax(back), back.shape)
        assert np.abs(np.subtract(peak, spot)).max() <= max(height, width) / 256 * 4
        np.testing.assert_allclose(np.nan_to_num(back), np.where(np.isnan(back), 0, film), atol=film.max() * 0.05)


def test_outside_the_crop_the_map_knows_nothing():
    back = overlays.onto_film(np.ones((7, 7)), (512, 256), (8, 0), 224, 256)
    seen = ~np.isnan(back)
    assert seen[16:464, :224].all() and not seen[:16].any() and not seen[464:].any() and not seen[:, 224:].any()
    assert (overlays.onto_film(np.ones((7, 7)), (10, 10), (8, 0), 224, 256, outside=0.0)[:, 9] == 0).all()


def test_uncropped_maps_are_resized_as_opencv_does():
    heat = np.random.default_rng(0).random((7, 7)).astype("float32")
    back = overlays.onto_film(heat, (100, 130))
    np.testing.assert_allclose(back, cv2.resize(heat, (130, 100), interpolation=cv2.INTER_LINEAR), atol=2e-2)
    assert not np.isnan(back).any()
    np.testing.assert_allclose(overlays.onto_film(heat, (7, 7)), heat, atol=1e-6)


def test_rectified_maps_lie_between_zero_and_one():
    heat = np.array([[-2, 1], [2, 4]], "float32")
    assert overlays.rectified(heat).tolist() == [[0, 0.25], [0.5, 1]]
    assert overlays.rectified(heat, 0.5).tolist() == [[0, 0], [0.5, 1]]
    assert not overlays.rectified(-np.ones((2, 2))).any()
    assert np.isnan(overlays.rectified(np.array([[np.nan, 1.0]]))).tolist() == [[True, False]]


def test_overlay_colours_what_is_hot_and_keeps_the_rest(tmp_path):
    film = np.full((100, 80), 90, "uint8")
    heat = np.full((100, 80), -1.0, "float32")
    heat[40:60, 30:50] = 2
    heat[:, 70:] = np.nan
    drawn = overlays.overlay(film, heat, boxes=[(5, 5, 10, 12)])
    assert drawn.shape == (100, 80, 3) and (drawn[80:, :30] == 90).all() and (drawn[80:, 75:] == 90).all()
    assert np.abs(drawn[50, 40] - (0.4 * 90 + 0.6 * np.array([164, 255, 252]))).max() < 1  # the top of inferno
    assert (drawn[5, 5:15] == 255).all() and (drawn[17, 5:15] == 255).all()
    overlays.write_png(tmp_path / "a" / "x.png", drawn)
    np.testing.assert_array_equal(cv2.imread(str(tmp_path / "a" / "x.png")), drawn)
    assert (overlays.overlay(film, np.nan_to_num(heat), "Edema")[:30] > 150).any()  # the title
    with pytest.raises(ValueError, match="differ"):
        overlays.overlay(film, heat[:50])


def test_cells_that_do_not_tile_the_crop_are_laid_where_they_look():
    heat = np.zeros((4, 4), "float32")
    heat[1, 2] = 1
    film = overlays.onto_film(heat, (160, 160), cells=(0.25, 0.125))  # centred on pixel edges 40, 60, 80, 100
    assert np.argwhere(film > 0.9).mean(axis=0).tolist() == [59.5, 79.5]
    tiled = overlays.onto_film(heat, (160, 160))
    np.testing.assert_allclose(overlays.onto_film(heat, (160, 160), cells=(0.125, 0.25)), tiled, atol=1e-6)


def test_stored_maps_come_back(tmp_path):
    heat = np.random.default_rng(0).random((2, 7, 7)).astype("float32")
    maps = overlays.FilmMaps("train/p1/view1.jpg", ("Edema", "Fracture"), np.array([0.2, 0.9], "float32"), heat,
                             (320, 390), (3, 8), 224, 256, (0.1, 0.13))
    overlays.write_maps(tmp_path / "p1.npz", maps)
    again = overlays.read_maps(tmp_path / "p1.npz")
    assert (again.path, again.labels, again.film_shape, again.place) == (maps.path, maps.labels, (320, 390), (3, 8))
    np.testing.assert_array_equal(again.heat, heat)
    np.testing.assert_array_equal(again.on_film("Fracture"), overlays.onto_film(heat[1], (320, 390), (3, 8), 224, 256,
                                                                                     cells=(0.1, 0.13)))
    assert not again.stretched
    with pytest.raises(InputError, match="Edema, Fracture"):
        again.on_film("Oedema")
    np.savez(tmp_path / "other.npz", x=1)
    (tmp_path / "text.npz").write_text("x")
    for name in ("other.npz", "text.npz", "absent.npz"):
        with pytest.raises(InputError, match="expected maps"):
            overlays.read_maps(tmp_path / name)
