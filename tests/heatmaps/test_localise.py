"""Localisation: hits, overlaps, the best constant point, intervals; each against numbers worked by hand."""

import numpy as np
import pytest

from chexpert_hier.errors import InputError
from chexpert_hier.heatmaps import localise


def test_boxes_cover_their_pixels():
    mask = localise.box_mask([(1, 2, 3, 1), (0, 0, 1, 1)], (4, 5))
    assert np.argwhere(mask).tolist() == [[0, 0], [2, 1], [2, 2], [2, 3]]
    assert localise.box_mask([(0.6, 0, 1.0, 1)], (1, 3)).tolist() == [[False, True, False]]  # by pixel centres
    assert not localise.box_mask([], (2, 2)).any()


def test_a_hit_is_the_largest_pixel_inside():
    heat = np.array([[0.1, 0.9], [np.nan, 0.2]])
    assert localise.hit(heat, np.array([[False, True], [False, False]]))
    assert not localise.hit(heat, np.array([[True, False], [True, True]]))
    assert not localise.hit(np.full((2, 2), np.nan), np.ones((2, 2), bool))
    assert localise.hit_at((0.99, 0.0), np.array([[0, 0], [1, 0]], bool))
    with pytest.raises(ValueError, match="differ"):
        localise.hit(heat, np.ones((3, 3), bool))


def test_best_constant_point_lies_in_most_regions():
    regions = [np.zeros((100, 50), bool) for _ in range(3)]
    regions[0][10:40, 10:30] = True
    regions[1][30:60, 20:40] = True  # both: rows 30-39, columns 20-29
    regions[2][90:, :] = True
    row, column = localise.best_constant_point(regions)
    assert 0.3 <= row < 0.4 and 0.4 <= column < 0.6
    assert [localise.hit_at((row, column), region) for region in regions] == [True, True, False]
    with pytest.raises(InputError, match="no training film"):
        localise.best_constant_point([np.zeros((4, 4), bool)])


def test_segments_by_share_and_by_otsu():
    heat = np.array([[-1.0, 0.0], [1.0, np.nan]])  # scaled: 0, 0.5, 1
    assert localise.segment(heat, 0.4).tolist() == [[False, True], [True, False]]
    assert localise.segment(heat, 0.5).tolist() == [[False, False], [True, False]]
    two = np.array([[0.0, 0.1, 0.05], [0.9, 1.0, 0.95]])
    assert localise.segment(two).tolist() == [[False] * 3, [True] * 3]
    assert not localise.segment(np.ones((2, 2))).any() and not localise.segment(np.full((2, 2), np.nan)).any()


def test_otsu_is_the_split_of_greatest_variance():
    heat = np.random.default_rng(0).gamma(2.0, size=(40, 40))
    levels = (255 * (heat - heat.min()) / (heat.max() - heat.min())).astype(int)
    spread = [(levels <= t).mean() * (levels > t).mean() * (levels[levels <= t].mean() - levels[levels > t].mean()) ** 2
              for t in range(levels.max())]
    np.testing.assert_array_equal(localise.segment(heat), levels > int(np.argmax(spread)))


def test_overlap_by_hand():
    marked, region = np.array([1, 1, 1, 0], bool), np.array([0, 1, 1, 1], bool)
    nothing = np.zeros(4, bool)
    assert localise.iou(marked, region) == 0.5
    assert np.isnan(localise.iou(marked, nothing)) and np.isnan(localise.iou(nothing, region))
    assert localise.iou(nothing, region, true_positives_only=False) == 0.0


def test_intervals_hold_the_mean_and_know_patients():
    rng = np.random.default_rng(1)
    values = (rng.random(400) < 0.3).astype(float)
    mean = localise.bootstrap_mean(values, draws=2000)
    error = np.sqrt(values.mean() * (1 - values.mean()) / 400)
    assert mean.mean == values.mean() and mean.films == 400
    assert (mean.high - mean.low) / 2 == pytest.approx(1.96 * error, rel=0.1)
    doubled = localise.bootstrap_mean(np.repeat(values, 2), np.repeat(np.arange(400), 2), draws=2000)
    assert doubled.high - doubled.low == pytest.approx(mean.high - mean.low, rel=0.1)  # no news in a second copy
    again = localise.bootstrap_mean([*values, np.nan], draws=2000)
    assert again == mean
    assert localise.bootstrap_mean([np.nan]).films == 0 and np.isnan(localise.bootstrap_mean([]).mean)
