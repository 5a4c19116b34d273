"""Augmentations and test-time views: every row of both tables holds its contract, and a new row is one function."""

import numpy as np
import pytest

from chexpert_hier.errors import InputError
from chexpert_hier.films import augment

CROPS = np.random.default_rng(0).integers(0, 256, (30, 32, 32), dtype=np.uint8)
KEYS = [f"patient{number:05d}" for number in range(30)]


@pytest.mark.parametrize("name", augment.AUGMENTATIONS)
def test_every_augmentation_gives_bytes_and_leaves_its_input_alone(name):
    function, parameter = augment.AUGMENTATIONS[name]
    before = CROPS.copy()
    out = function(CROPS, np.full((30, 2), 0.25), 24 if parameter and parameter > 1 else parameter)
    assert out.dtype == np.uint8 and out.ndim == 3 and len(out) == 30 and out.shape[1] == out.shape[2]
    np.testing.assert_array_equal(CROPS, before)
    assert function.__doc__
    read = augment.read_augmentation(name)
    assert read == (function, name, parameter)


def test_a_new_augmentation_is_one_function_and_one_row(monkeypatch):
    def darker(crops, draws, parameter):
        return (crops * parameter).astype(np.uint8)

    monkeypatch.setattr(augment, "AUGMENTATIONS", {**augment.AUGMENTATIONS, "darker": (darker, 0.5)})
    np.testing.assert_array_equal(augment.augmented(CROPS, KEYS, ["darker"], 0), (CROPS * 0.5).astype(np.uint8))
    np.testing.assert_array_equal(augment.augmented(CROPS, KEYS, ["darker:0.25"], 0), (CROPS * 0.25).astype(np.uint8))
    with pytest.raises(InputError, match="darker"):
        augment.read_augmentation("lighter")


@pytest.mark.parametrize("name", augment.TTA_VIEWS)
@pytest.mark.parametrize("composed", [False, True])
def test_every_view_keeps_the_size_and_stays_small(name, composed):
    """Linear maps that a chest survives: areas within 5 %, no change without an amount but for the mirror."""
    amounts = np.linspace(-1, 1, 9)
    found = augment.TTA_VIEWS[name](amounts, composed)
    assert found.shape == (9, 2, 2) and found.dtype == np.float64
    np.testing.assert_allclose(np.abs(np.linalg.det(found)), 1, atol=0.05)
    if name != "hflip":
        np.testing.assert_allclose(found[4], np.eye(2), atol=1e-12)


def test_views_by_hand():
    """7 degrees, 2 %, 5 pixels in 224 (Pham et al. 2019, section 4.4)."""
    one = np.array([1.0, -1.0])
    angle = np.pi * 7 / 180
    np.testing.assert_allclose(augment.rotated(one, False)[0],
                               [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    np.testing.assert_allclose(augment.scaled(one, False), [np.eye(2) / 1.02, np.eye(2) / 0.98])
    np.testing.assert_allclose(augment.sheared(one, False)[1], [[1, -5 / 224], [0, 1]])
    assert augment.mirrored(one, False)[:, 0, 0].tolist() == [-1, -1]
    assert augment.mirrored(one, True)[:, 0, 0].tolist() == [-1, 1] and augment.mirrored(one * 0, True)[0, 0, 0] == 1


def test_a_new_view_is_one_function_and_one_row(monkeypatch):
    monkeypatch.setattr(augment, "TTA_VIEWS", {"upside down": lambda amounts, composed:
                                               np.broadcast_to(np.diag([1.0, -1.0]), (len(amounts), 2, 2))})
    for view in augment.tta_views(CROPS, KEYS, 2, seed=0):
        np.testing.assert_array_equal(view, CROPS[:, ::-1])


@pytest.mark.parametrize(("names", "expected"), [((), (0, 32)), (("centre_crop:24",), (4, 24)),
                                                 (("centre_crop:24", "centre_crop:9"), (12, 9))])
def test_the_plain_view_is_where_centre_crops_lie(names, expected):
    first, side = augment.plain_window(names, 32)
    assert (first, side) == expected
    np.testing.assert_array_equal(augment.plain(CROPS, names), augment.augmented(CROPS, KEYS, names, 0))


@pytest.mark.parametrize("names", [("hflip",), ("centre_crop:33",), ("centre_crop:24", "centre_crop:25")])
def test_a_plain_view_that_draws_or_does_not_fit_is_refused(names):
    with pytest.raises(InputError, match="plain_view"):
        augment.plain_window(names, 32)


@pytest.mark.parametrize("text", ["brightness:0", "brightness:-1", "brightness:10000", "vflip:1", "contrast:"])
def test_parameters_out_of_range_are_refused(text):
    with pytest.raises(InputError, match="expected NAME or NAME:NUMBER"):
        augment.read_augmentation(text)
