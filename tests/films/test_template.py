"""Template matching: exact scores, the same bytes in OpenCV and in TensorFlow operations."""

import cv2
import numpy as np
import pytest

from chexpert_hier.errors import InputError
from chexpert_hier.films import decode, template
from chexpert_hier.films.rescaling import in_numpy, rescale, rescale_exactly
from chexpert_hier.films.template import Cropper, learn_template

SHAPES = [(320, 390), (389, 320), (391, 333), (512, 512), (513, 512), (600, 601), (1024, 1024), (1300, 1001), (90, 100),
          (40, 900), (256, 256), (257, 255)]


def synthetic(count, seed=0, shape=(320, 320)):
    """Smooth bright ovals at random places: near enough to films for a search to have work to do."""
    rng, out = np.random.default_rng(seed), []
    y, x = np.mgrid[:shape[0], :shape[1]]
    for _ in range(count):
        dy, dx = rng.uniform(-12, 12, 2)
        film = 60 + 120 * np.exp(-((y - 160 - dy) / 90) ** 2) * np.exp(-((x - 160 - dx) / 70) ** 2)
        film += 40 * np.sin((y - dy) / 17) + rng.normal(0, 12, shape)
        out.append(np.clip(film, 0, 255).astype(np.uint8))
    return out


@pytest.fixture(scope="module")
def chest_films():
    return synthetic(12)


@pytest.fixture(scope="module")
def cropper(chest_films):
    return Cropper(template=learn_template(rescale(film) for film in chest_films))


@pytest.fixture(scope="session")
def mini(shared_data):
    return [decode.read_film(file) for file in sorted((shared_data / "nih_mini").rglob("*.jpg"))]


def exact_scores(film, chest):
    """The oracle: Pearson's correlation at every place, in Python integers up to the last division."""
    places, size = film.shape[0] - chest.shape[0] + 1, chest.shape[0]
    pixels, count = chest.astype(np.int64), size * size
    own = count * int((pixels * pixels).sum()) - int(pixels.sum()) ** 2
    scores = np.zeros((places, places))
    for row in range(places):
        for column in range(places):
            window = film[row:row + size, column:column + size].astype(np.int64)
            energy = count * int((window * window).sum()) - int(window.sum()) ** 2
            product = count * int((window * pixels).sum()) - int(window.sum()) * int(pixels.sum())
            scores[row, column] = product / (energy ** 0.5 * own ** 0.5) if energy else 0.0
    return scores


def exact_rescale(grey, size, area):
    """The oracle: exact fractions as a pair of integer matrices, half to even."""
    def matrix(length):
        if area:
            pixel, cell = np.arange(length), np.arange(size)[:, None]
            overlap = np.minimum((cell + 1) * length, (pixel + 1) * size) - np.maximum(cell * length, pixel * size)
            return np.maximum(overlap, 0), length
        weights = np.zeros((size, length), np.int64)
        for cell in range(size):
            place = (2 * cell + 1) * length - size
            low, share = divmod(place, 2 * size)
            weights[cell, min(max(low, 0), length - 1)] += 2 * size - share
            weights[cell, min(max(low + 1, 0), length - 1)] += share
        return weights, 2 * size
    (rows, down), (columns, across) = matrix(grey.shape[0]), matrix(grey.shape[1])
    total = rows.astype(float) @ grey.astype(float) @ columns.T.astype(float)  # whole numbers far below 2^53
    total, parts = total.astype(np.int64), down * across
    level, rest = np.divmod(total, parts)
    return (level + ((2 * rest > parts) | ((2 * rest == parts) & (level % 2 == 1)))).astype(np.uint8)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("size", [256, 73])
def test_rescaling_is_exact_in_both_forms(shape, size):
    import tensorflow as tf

    grey = np.random.default_rng(shape[0]).integers(0, 256, shape, dtype=np.uint8)
    for resize in template.RESIZES:
        area = max(shape) > 2 * size if resize == "auto" else resize == "area"
        expected = exact_rescale(grey, size, area)
        np.testing.assert_array_equal(rescale(grey, size, resize), expected)
        graph = Cropper("none", None, size=size, resize=resize).graph(tf.constant(grey))
        np.testing.assert_array_equal(graph.crops.numpy(), expected)


@pytest.mark.parametrize("shape", [(320, 390), (700, 257), (100, 1300), (513, 512)])
@pytest.mark.parametrize("area", [False, True])
def test_ties_are_settled_in_integers(shape, area):
    """Levels of 0 and 1, whose means are often half way; without TensorFlow."""
    grey = np.random.default_rng(shape[0]).integers(0, 2, shape, dtype=np.uint8)
    expected = exact_rescale(grey, 64, area)
    np.testing.assert_array_equal(rescale(grey, 64, "area" if area else "bilinear"), expected)
    np.testing.assert_array_equal(rescale_exactly(grey, 64, area, in_numpy()), expected)


def test_bilinear_is_opencvs_on_float_and_area_its_area():
    grey = np.random.default_rng(1).integers(0, 256, (700, 320), dtype=np.uint8)
    bilinear = cv2.resize(grey.astype(np.float32), (256, 256))
    assert np.abs(rescale(grey, 256, "bilinear") - bilinear).max() <= 0.5 + 1e-3
    area = cv2.resize(grey.astype(np.float32), (256, 256), interpolation=cv2.INTER_AREA)
    assert np.abs(rescale(grey) - area).max() <= 0.5 + 1e-3


def test_film_of_the_right_size_is_left_alone():
    grey = np.random.default_rng(2).integers(0, 256, (256, 256), dtype=np.uint8)
    np.testing.assert_array_equal(rescale(grey), grey)


def test_template_is_the_rounded_mean_of_centre_crops():
    films_ = [np.full((6, 6), value, np.uint8) for value in (10, 11, 11)]  # mean 10.67
    films_[0][1, 1] = 12  # outside the 2 x 2 in the middle
    np.testing.assert_array_equal(learn_template(films_, 2), np.full((2, 2), 11))
    half = [np.full((4, 4), value, np.uint8) for value in (10, 11)]  # a tie goes to the even level
    assert learn_template(half, 4)[0, 0] == 10
    with pytest.raises(InputError, match="no training film"):
        learn_template([], 4)


def test_scores_equal_the_integer_oracle(cropper, chest_films):
    for film in map(rescale, chest_films[:2]):
        scores = exact_scores(film, cropper.template)
        row, column, score = cropper.find(film)
        assert (row, column) == divmod(int(scores.argmax()), 33)
        assert score == pytest.approx(scores.max(), abs=3e-6)


def test_a_piece_cut_from_the_film_is_found_where_it_was_cut(chest_films):
    film = rescale(chest_films[0])
    assert Cropper(template=film[7:231, 29:253].copy()).find(film) == pytest.approx((7, 29, 1.0))


@pytest.mark.parametrize(("rescaled", "size"), [(256, 224), (364, 320), (73, 64), (40, 40)])
def test_both_forms_agree_at_other_sizes(chest_films, rescaled, size):
    import tensorflow as tf

    cropper = Cropper("template", learn_template((rescale(f, rescaled) for f in chest_films), size), rescaled, size)
    ours, graph = cropper.crop(chest_films), cropper.graph(tf.constant(np.stack(chest_films)))
    for mine, theirs in zip(ours, graph):
        np.testing.assert_array_equal(theirs.numpy(), mine)
    one = cropper.graph(tf.constant(chest_films[3][..., None]))
    np.testing.assert_array_equal(one.crops.numpy(), ours.crops[3])
    assert one.places.shape == (2,) and one.scores.shape == ()


def awkward_films():
    """Films whose windows are flat, almost flat, tied or far from the film's own contrast."""
    tile = np.tile(np.random.default_rng(0).integers(0, 256, (8, 8), dtype=np.uint8), (32, 32))
    black, border = np.zeros((256, 256), np.uint8), np.full((256, 256), 255, np.uint8)
    border[20:240, 20:240] = 100
    frame = np.zeros((256, 256), np.uint8)
    frame[:2], frame[:, :2] = 255, 255
    faint = np.full((256, 256), 100, np.uint8)
    faint[100, 100] = 101
    return {"black": black, "white": black + 255, "tied": tile, "border": border, "frame": frame, "faint": faint,
            "noise": np.random.default_rng(3).integers(0, 256, (256, 256), dtype=np.uint8)}


@pytest.mark.parametrize("name", awkward_films())
def test_awkward_films_have_a_defined_place_in_both_forms(cropper, name):
    import tensorflow as tf

    film = awkward_films()[name]
    found, graph = cropper.crop([film]), cropper.graph(tf.constant(film))
    np.testing.assert_array_equal(found.places[0], graph.places.numpy())
    np.testing.assert_array_equal(found.crops[0], graph.crops.numpy())
    assert found.scores[0] == graph.scores.numpy() and np.isfinite(found.scores[0])
    scores = exact_scores(film, cropper.template)
    assert tuple(found.places[0]) == divmod(int(scores.argmax()), 33)
    assert found.scores[0] == pytest.approx(scores.max(), abs=3e-6)
    if name in ("black", "white"):
        assert tuple(found.places[0]) == (0, 0) and found.scores[0] == 0


def test_single_precision_is_trusted_with_even_films_alone(cropper, monkeypatch):
    """A bright frame around faint noise: trusted up to 300 times the energy of the flattest window."""
    exactly, find, film = [], Cropper._find_exactly, np.random.default_rng(0).integers(99, 102, (256, 256), np.uint8)
    monkeypatch.setattr(Cropper, "_find_exactly", lambda *words: exactly.append(1) or find(*words))
    ratios = []
    for level in range(110, 255, 6):
        film[:2], film[:, :2] = level, level
        windows = np.lib.stride_tricks.sliding_window_view(film, (224, 224))[::8, ::8]
        ratios.append((256 / 224) ** 2 * film.var() / windows.var((2, 3)).min())
        exactly.clear()
        cropper.find(film)
        assert bool(exactly) == (ratios[-1] >= 300) or abs(ratios[-1] - 300) < 5
    assert ratios[0] < 100 and ratios[-1] > 500


def test_ties_go_to_the_first_place_in_row_order():
    film = np.tile(np.random.default_rng(0).integers(0, 256, (8, 8), dtype=np.uint8), (32, 32))
    row, column, score = Cropper(template=film[:224, :224].copy()).find(film)  # the same picture 25 times
    assert (row, column) == (0, 0) and score == pytest.approx(1)


def test_centre_and_none(chest_films):
    import tensorflow as tf

    film = chest_films[0]
    centre = Cropper("centre")
    crops, places, scores = centre.crop([film])
    np.testing.assert_array_equal(crops[0], rescale(film)[16:240, 16:240])
    assert tuple(places[0]) == (16, 16) and np.isnan(scores[0])
    np.testing.assert_array_equal(centre.graph(tf.constant(film)).crops.numpy(), crops[0])
    whole = Cropper("none", size=224)
    np.testing.assert_array_equal(whole.crop([film]).crops[0], rescale(film, 224))
    assert whole.crop([]).crops.shape == (0, 224, 224)


@pytest.mark.parametrize(("arguments", "message"), [
    ({"mode": "templat"}, "expected one of: template, centre, none"),
    ({"mode": "template"}, r"expected uint8 \(224, 224\)"),
    ({"template": np.zeros((224, 224), np.uint8)}, "every pixel is the same"),
    ({"template": np.zeros((64, 64), np.uint8)}, r"received uint8 \(64, 64\)"),
    ({"mode": "centre", "size": 300}, "expected 1 to 256"),
    ({"mode": "centre", "resize": "cubic"}, "auto, bilinear, area"),
])
def test_what_does_not_fit_is_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        Cropper(**arguments)


def test_identity_tells_croppers_apart(cropper):
    other = cropper.template.copy()
    other[0, 0] ^= 1
    kinds = [cropper, Cropper(template=other), Cropper("centre"), Cropper("none"), Cropper("centre", resize="area"),
             Cropper("centre", rescaled=260)]
    assert len({kind.identity for kind in kinds}) == len(kinds)
    assert Cropper(template=cropper.template.copy()).identity == cropper.identity


def test_template_file(tmp_path, cropper):
    template.write_template(tmp_path / "template.png", cropper.template)
    np.testing.assert_array_equal(template.read_template(tmp_path / "template.png"), cropper.template)
    with pytest.raises(InputError, match="received nothing"):
        template.read_template(tmp_path / "other.png")
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(InputError, match="received something else"):
        template.read_template(tmp_path / "text.png")


def test_real_films_have_the_same_place_in_both_forms(mini):
    import tensorflow as tf

    cropper = Cropper(template=learn_template(map(rescale, mini[:40])))
    ours, graph = cropper.crop(mini), cropper.graph(tf.constant(np.stack(mini)))
    for mine, theirs in zip(ours, graph):
        np.testing.assert_array_equal(theirs.numpy(), mine)
    assert ours.scores.min() > 0.2


@pytest.mark.slow
def test_all_of_nih_600(shared_data):
    """Every film, at its own size and enlarged past the change to the area form; every score against integers."""
    import tensorflow as tf

    everything = [decode.read_film(file) for file in sorted((shared_data / "nih_600").rglob("*.jpg"))]
    cropper = Cropper(template=learn_template(map(rescale, everything[:500])))
    graph = tf.function(cropper.graph, input_signature=[tf.TensorSpec([None, None], tf.uint8)])
    spectrum = np.conj(np.fft.rfft2(cropper.template.astype(np.float64), (256, 256)))
    near = 0
    for number, film in enumerate(everything):
        if number % 6 == 0:
            film = cv2.resize(film, (1021 + number % 7, 1024), interpolation=cv2.INTER_CUBIC)
        ours, theirs = cropper.crop([film]), graph(film)
        for mine, other in zip(ours, theirs):
            np.testing.assert_array_equal(other.numpy(), mine[0])
        small = rescale(film).astype(np.float64)
        cross = np.rint(np.fft.irfft2(np.fft.rfft2(small) * spectrum, (256, 256))[:33, :33])
        windows = np.lib.stride_tricks.sliding_window_view(small, (224, 224))
        sums, squares = windows.sum((2, 3)), np.einsum("ijkl,ijkl->ij", windows, windows)
        scores = (224 ** 2 * cross - sums * cropper.template.sum()) / np.sqrt(224 ** 2 * squares - sums ** 2)
        scores /= np.sqrt(cropper._template_energy)
        assert tuple(ours.places[0]) == divmod(int(scores.argmax()), 33)
        assert ours.scores[0] == pytest.approx(scores.max(), abs=3e-6)
        near += np.sort(scores, axis=None)[-2] > scores.max() - 1e-5
    assert near >= 10  # the films are hard enough: near-ties are common


def test_a_match_below_the_least_takes_the_centre_in_every_form(cropper, chest_films):
    import tensorflow as tf

    films = [*chest_films[:3], np.zeros((300, 300), np.uint8)]  # a black film matches 0
    found = cropper.crop(films)
    least = float(np.sort(found.scores)[2])  # a chest and the black film match less
    strict = Cropper(template=cropper.template, least=least)
    ours = strict.crop(films)
    low = found.scores < np.float32(least)
    assert low.any() and not low.all()
    np.testing.assert_array_equal(ours.places[low], np.full((low.sum(), 2), 16))
    np.testing.assert_array_equal(ours.places[~low], found.places[~low])
    np.testing.assert_array_equal(ours.scores, found.scores)
    for k, film in enumerate(films):
        graph = strict.graph(tf.constant(film))
        np.testing.assert_array_equal(graph.crops.numpy(), ours.crops[k])
        np.testing.assert_array_equal(graph.places.numpy(), ours.places[k])
    assert strict.identity != cropper.identity == Cropper(template=cropper.template, least=-1.0).identity
