"""Odd films: the detector's whole numbers, its classes on synthetic and real films, codes and words, colour."""

import cv2
import numpy as np
import pytest

from chexpert_hier.films import detector, plausible
from chexpert_hier.films.decode import read_film
from chexpert_hier.films.plausible import FLAGS
from chexpert_hier.films.rescaling import rescale
from chexpert_hier.phantom import making

CHANGES = {
    "upright": (lambda film: film, 0),
    "mirrored": (lambda film: film[:, ::-1], 0),
    "inverted": (lambda film: 255 - film, FLAGS["inverted"].bit),
    "turned counter-clockwise": (np.rot90, FLAGS["turn 90"].bit),
    "upside down": (lambda film: np.rot90(film, 2), FLAGS["turn 180"].bit),
    "turned clockwise": (lambda film: np.rot90(film, 3), FLAGS["turn 270"].bit),
    "flipped": (lambda film: film[::-1], FLAGS["turn 180"].bit),
    "inverted and upside down": (lambda film: 255 - film[::-1], FLAGS["not frontal"].bit),
    "pixels shuffled": (lambda film: np.random.default_rng(0).permutation(film.ravel()).reshape(film.shape),
                        FLAGS["not frontal"].bit),
    "one half of the chest": (lambda film: film[:, :int(0.45 * film.shape[1])], FLAGS["not frontal"].bit),
}


@pytest.fixture(scope="module")
def phantom(tmp_path_factory):
    folder = making.make(tmp_path_factory.mktemp("odd") / "phantom", patients=4, valid_patients=8, seed=5, processes=1)
    return {view: [read_film(file) for file in sorted(folder.rglob(f"*{view}.jpg"))] for view in ("frontal", "lateral")}


@pytest.mark.parametrize("name", CHANGES)
def test_a_synthetic_film_is_called_what_it_is(name, phantom):
    change, expected = CHANGES[name]
    for film in phantom["frontal"]:
        assert plausible.flag(np.ascontiguousarray(change(film))) == expected


def test_laterals_are_odd_unless_they_are_expected(phantom):
    assert phantom["lateral"]
    for film in phantom["lateral"]:
        assert plausible.flag(film) == FLAGS["not frontal"].bit and plausible.flag(film, frontal=False) == 0


def test_turning_as_the_words_say_sets_a_film_upright(phantom):
    film = np.ascontiguousarray(np.rot90(phantom["frontal"][0]))  # counter-clockwise
    assert "90 degrees clockwise" in plausible.words(plausible.flag(film))
    assert plausible.flag(np.ascontiguousarray(np.rot90(film, -1))) == 0


def test_neither_brightness_nor_contrast_nor_size_matter(phantom):
    for film in phantom["frontal"][:4]:
        dim = (100 + film // 6).astype(np.uint8)
        assert [plausible.flag(other) for other in (dim, cv2.resize(film, (1200, 1000)), film[::4, ::4])] == [0, 0, 0]


def test_codes_are_bits_of_their_own_and_say_their_words():
    bits = [flag.bit for flag in FLAGS.values()]
    assert sum(bits) == 2 ** len(bits) - 1 and all(flag.words for flag in FLAGS.values())
    assert plausible.words(0) == ""
    for name, flag in FLAGS.items():
        assert plausible.words(flag.bit) == flag.words, name
    assert plausible.words(2 + 32) == f"{FLAGS['inverted'].words}; {FLAGS['colour'].words}"
    assert set(detector.CLASSES[1:]) - {"other"} <= set(FLAGS)


@pytest.mark.parametrize(("scores", "expected"), [
    ((10, 0, 0, 0, 0, 0), 0),
    ((0, 0, 0, 0, 0, 64), 0),  # at the limit: the best other is 64 above
    ((0, 0, 0, 0, 0, 65), 1),
    ((0, 128, 0, 64, 0, 0), 2),  # 64 above all others: sure
    ((0, 127, 0, 64, 0, 0), 1),
    ((0, 0, 200, 0, 0, 0), 4), ((0, 0, 0, 200, 0, 0), 8), ((0, 0, 0, 0, 200, 0), 16),
    ((0, 0, 0, 0, 0, 200), 1),
])
def test_the_code_follows_from_the_scores(scores, expected, monkeypatch):
    """By hand: LEAST is -64, SURE 64."""
    import tensorflow as tf

    assert plausible.view_code(np.array([scores], np.int32)).tolist() == [expected]
    monkeypatch.setattr(detector, "graph_scores", lambda grey: tf.constant(scores, tf.int32))
    assert int(plausible.graph_flag(None)) == expected


def by_hand(small):
    """The oracle: one picture, loops over pixels and channels, Python's integers but for the one square root."""
    values = [int(value) for value in small.ravel()]
    count, total = len(values), sum(values)
    variance = max(count * sum(value * value for value in values) - total * total, 1)
    units = [max(-127, min(127, round(32 * (count * value - total) / variance ** 0.5))) for value in values]
    image = np.array(units, np.int64).reshape(64, 64, 1)
    convolutions, dense = detector.layers()
    for layer in convolutions:
        kernel = layer.weights.astype(np.int64).reshape(3, 3, image.shape[2], -1)
        side = len(image) // 2
        out = np.zeros((side, side, kernel.shape[3]), np.int64)
        for row in range(side):
            for column in range(side):
                for y in range(3):
                    for x in range(3):
                        if 2 * row + y >= 1 and 2 * column + x >= 1:
                            out[row, column] += image[2 * row + y - 1, 2 * column + x - 1] @ kernel[y, x]
        image = np.clip((out + layer.bias.astype(np.int64)) // int(layer.divisor), 0, 255)
    hidden = np.clip((image.ravel() @ dense[0].weights.astype(np.int64) + dense[0].bias.astype(np.int64))
                     // int(dense[0].divisor), 0, 255)
    return (hidden @ dense[1].weights.astype(np.int64) + dense[1].bias.astype(np.int64)) // int(dense[1].divisor)


def test_scores_are_those_of_plain_integers(phantom):
    noise = np.random.default_rng(1).integers(0, 256, (64, 64), dtype=np.uint8)
    for small in (rescale(phantom["frontal"][0], 64, "area"), 255 - rescale(phantom["lateral"][0], 64, "area"), noise):
        assert detector.small_scores(small[None])[0].tolist() == by_hand(small).tolist()


def test_no_sum_leaves_what_float32_holds_exactly():
    convolutions, dense = detector.layers()
    largest = 127
    for layer in (*convolutions, *dense):
        assert np.all(layer.weights == np.rint(layer.weights)) and np.log2(layer.divisor) % 1 == 0
        assert np.max(np.abs(layer.weights).sum(0) * largest + np.abs(layer.bias)) < 2 ** 24
        largest = 255


def test_a_flat_picture_has_scores_and_the_batch_is_its_films(phantom):
    flat = np.full((50, 70), 9, np.uint8)
    assert plausible.flag(flat) == FLAGS["not frontal"].bit
    small = np.stack([rescale(film, 64, "area") for film in [flat, *phantom["frontal"][:3]]])
    assert detector.small_scores(small).tolist() == [detector.scores(film).tolist()
                                                     for film in [flat, *phantom["frontal"][:3]]]


def test_tensorflow_finds_the_same_scores_and_flags(phantom):
    import tensorflow as tf

    both = tf.function(lambda grey: (detector.graph_scores(grey), plausible.graph_flag(grey)),
                       input_signature=[tf.TensorSpec([None, None], tf.uint8)])
    films = [np.ascontiguousarray(change(phantom["frontal"][k % 4])) for k, (change, _) in enumerate(CHANGES.values())]
    for film in [*films, phantom["lateral"][0], films[0][:40, :900], np.zeros((64, 64), np.uint8)]:
        scores, code = both(film)
        assert scores.numpy().tolist() == detector.scores(film).tolist() and int(code) == plausible.flag(film)


def test_colour_is_seen_but_not_where_it_is_hidden(phantom):
    grey = np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)

    def png(image, suffix=".png"):
        return cv2.imencode(suffix, image)[1].tobytes()

    assert plausible.colour(png(grey)) == plausible.colour(png(cv2.merge([grey] * 3))) == 0
    tinted = cv2.merge([grey // 2, grey // 2, grey])
    assert plausible.colour(png(tinted)) == pytest.approx((grey - grey // 2).mean())
    assert plausible.colour(png(np.full((64, 64, 3), (0, 0, 200), np.uint8), ".jpg")) > 100
    hidden = cv2.merge([grey, grey, grey, np.full_like(grey, 255)])
    hidden[:20] = 0, 255, 0, 0
    assert plausible.colour(png(hidden)) == 0
    film = phantom["frontal"][0]
    assert plausible.flag(film, 3.1) == FLAGS["colour"].bit and plausible.flag(film, 3.0) == 0
    assert plausible.flag(255 - film, 30.0) == FLAGS["colour"].bit + FLAGS["inverted"].bit


def test_real_films_are_called_what_they_are(shared_data):
    """What experiments/results/plausibility.md promises, on a smaller set."""
    films = [read_film(file) for file in sorted((shared_data / "nih_mini").rglob("*.jpg"))]
    films += [read_film(file) for file in sorted((shared_data / "hannover" / "films").glob("*.png"))[::3]]
    for name, (change, expected) in CHANGES.items():
        codes = np.array([plausible.flag(np.ascontiguousarray(change(film))) for film in films])
        if expected:
            assert np.mean(codes != 0) >= 0.95, name
            advised = codes[(codes != 0) & (codes != FLAGS["not frontal"].bit)]
            assert not len(advised) or np.mean(advised == expected) >= 0.9, name
        else:
            assert np.mean(codes != 0) <= 0.03, name


def test_the_region_stands_in_the_words():
    region = FLAGS["region"]
    assert plausible.words(region.bit, "RIBCAGE") == f"{region.words} (RIBCAGE)"
    assert plausible.words(FLAGS["colour"].bit, "RIBCAGE") == FLAGS["colour"].words
    assert plausible.words(region.bit + 1, "RIB") == f"{FLAGS['not frontal'].words}; {region.words} (RIB)"


def test_how_coloured_a_file_is(monkeypatch):
    """Largest less smallest channel, to 255 of whatever depth; grey kinds of file are not looked into."""
    def found(image, suffix=".png"):
        return plausible.colour(cv2.imencode(suffix, image)[1].tobytes())

    colour = np.zeros((40, 40, 4), np.uint8)
    colour[...] = 10, 30, 110, 255
    deep = colour[..., :3].astype(np.uint16) * 257
    assert found(colour) == found(colour[..., :3]) == found(deep) == pytest.approx(100)
    assert found(colour[..., :3], ".jpg") == pytest.approx(100, abs=3)
    colour[20:, :, 3] = 1                                             # hardly to be seen, and seen
    colour[20:, :, :3] = 50
    assert found(colour) == pytest.approx(50)
    colour[..., 3] = 0
    assert found(colour) == 0 and plausible.colour(b"") == plausible.colour(b"II*\0 no such film") == 0
    opened = []
    monkeypatch.setattr(plausible.cv2, "imdecode", lambda data, flags: opened.append(flags))
    png = bytearray(cv2.imencode(".png", colour)[1].tobytes())
    for kind, looked_into in ((0, 0), (2, 1), (3, 1), (4, 0), (6, 1)):
        png[25] = kind
        assert plausible.colour(bytes(png)) == 0 and len(opened) == looked_into
        opened.clear()
    assert found(colour[..., 0], ".jpg") == 0 and not opened
    assert found(colour[..., :3], ".jpg") == 0
    assert opened == [cv2.IMREAD_REDUCED_COLOR_4 | cv2.IMREAD_IGNORE_ORIENTATION]
