"""Batches, sources and what a decoder is asked for, each by value: how much is read, in which order, by which name."""

import os
import re

import cv2
import numpy as np
import pytest

from chexpert_hier.films import augment, batches, decode, normalisation
from chexpert_hier.films.batches import Batches, CropSource, FilmSource, crop_batches, film_errors
from chexpert_hier.films.grey import DamagedError, FilmError
from chexpert_hier.films.template import Cropper

CROPS = np.random.default_rng(0).integers(0, 256, (7, 8, 8), dtype=np.uint8)
KEYS = [f"film {k}" for k in range(7)]


# sources

@pytest.fixture
def films(tmp_path):
    files = [tmp_path / f"{k}.png" for k in range(3)]
    for file, crop in zip(files, CROPS):
        file.write_bytes(cv2.imencode(".png", cv2.resize(crop, (40, 40)))[1].tobytes())
    return files


def test_a_source_of_films(films, monkeypatch):
    source = FilmSource(films, Cropper("none", size=8))
    assert len(source) == 3 and source.side == 8
    assert source(np.array([], int)).shape == (0, 8, 8) and source(np.array([], int)).dtype == np.uint8
    expected = np.concatenate([source.cropper.crop([decode.read_film(film)]).crops for film in films])
    np.testing.assert_array_equal(source([2, 0, 1, 1]), expected[[2, 0, 1, 1]])
    two = FilmSource(films, (Cropper("none", size=8), Cropper("none", size=8, resize="area")), cropper_of=[1, 0, 1])
    assert two.side == 8
    np.testing.assert_array_equal(two([0])[0], two.cropper[1].crop([decode.read_film(films[0])]).crops[0])
    films[1].write_bytes(b"")
    with pytest.raises(FilmError, match=f"^{re.escape(str(films[1]))}: the file is empty"):
        source([0, 1])
    with pytest.raises(FilmError, match=r"^row 9: the file is empty"):
        FilmSource(films, Cropper("none", size=8), ["a", "row 9", "c"])([1])
    cv2.setNumThreads(2)
    for workers, cores, expected in ((None, 5, 5), (None, None, 1), (3, 5, 3)):
        monkeypatch.setattr(os, "cpu_count", lambda cores=cores: cores)
        assert FilmSource(films, Cropper("none", size=8), workers=workers)._pool._max_workers == expected
    assert cv2.getNumThreads() == 1                                   # the films are what is done side by side


@pytest.mark.parametrize(("films", "workers", "parts"), [(0, 3, [0]), (2, 3, [1, 1]), (7, 3, [2, 2, 3]), (5, 1, [5])])
def test_films_are_shared_out_to_the_workers(films, workers, parts, monkeypatch):
    shared = []
    monkeypatch.setattr(FilmSource, "_some", lambda self, rows: shared.append(len(rows)) or np.zeros((len(rows), 8, 8)))
    source = FilmSource([""] * 7, Cropper("none", size=8), workers=workers)
    assert source(np.arange(films)).shape == (films, 8, 8) and sorted(shared) == parts


def test_a_source_of_crops_at_their_places():
    plain, moved = CropSource(CROPS), CropSource(CROPS, np.array([6, 2, 2]))
    assert (len(plain), len(moved), plain.side) == (7, 3, 8)
    np.testing.assert_array_equal(plain(np.array([3, 0])), CROPS[[3, 0]])
    np.testing.assert_array_equal(moved(np.array([2, 0])), CROPS[[2, 6]])


# batches

def some(**more):
    return Batches(CropSource(CROPS), np.array([6, 0, 5, 1, 4, 2, 3]), 3, **more)


def test_batches_by_hand():
    bare = some(how=None)
    assert len(bare) == 3 and len(some(how=None, targets=np.zeros((7, 2)))) == 3
    assert [len(bare[k]) for k in range(3)] == [3, 3, 1] and bare.side == 8
    np.testing.assert_array_equal(bare[1][..., 0], CROPS[[1, 4, 2]])
    x, y = some(how=None, targets=np.arange(7))[1]
    np.testing.assert_array_equal(x[..., 0], CROPS[[1, 4, 2]])
    assert y.tolist() == [3, 4, 5]
    x, w = some(how=None, weights=np.arange(7) / 7)[2]
    assert len(x) == 1 and w.tolist() == [6 / 7]
    assert [len(part) for part in some(targets=np.arange(7), weights=np.arange(7))[0]] == [3] * 3
    small = some(image_size=4)
    assert small.side == 4
    np.testing.assert_array_equal(small[2], normalisation.normalise(CROPS[[3]], "imagenet", 4))
    cut = some(how=None, augment=("random_crop:5",), keys=KEYS)
    assert cut.side == 5 and cut[0].shape == (3, 5, 5, 1)


@pytest.mark.parametrize(("draw", "seed", "epoch"), [((0, 0), 0, 0), ((3, 5), 3, 5), ((3, 2, 5), 3, 2 * 1009 + 5),
                                                     ((1, 4, 0, 6), 1, 4 * 1009 ** 2 + 6)])
def test_draws_depend_on_seed_stage_and_epoch(draw, seed, epoch):
    found = some(how=None, augment=("random_crop:4", "hflip"), keys=KEYS, draw=draw)[0][..., 0]
    keys = [KEYS[k] for k in (6, 0, 5)]
    expected = augment.augmented(CROPS[[6, 0, 5]], keys, ("random_crop:4", "hflip"), seed, epoch)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(("workers", "cores", "threads"), [(None, 1, 2), (None, None, 2), (None, 8, 4), (None, 9, 4),
                                                           (None, 128, 16), (3, 8, 3), (20, 8, 20)])
def test_batches_are_read_ahead_by_half_the_cores(workers, cores, threads, monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    form = crop_batches(some(), workers)
    assert form.pool._max_workers == threads and (form.workers, form.use_multiprocessing) == (1, False)


def test_how_far_is_read_ahead(monkeypatch):
    read = []
    monkeypatch.setattr(Batches, "__getitem__", lambda self, number: read.append(number) or number)
    long = Batches(CropSource(CROPS), np.arange(7), 1)
    form = crop_batches(long, 1)
    assert len(form) == 7 and form[0] == 0 and sorted(form.coming) == [1, 2]
    assert form[1] == 1 and sorted(form.coming) == [2, 3] and [form[k] for k in range(2, 7)] == [2, 3, 4, 5, 6]
    form.pool.shutdown()
    assert sorted(read) == list(range(7)) and not form.coming         # each once


def test_an_error_line_comes_back_out_of_tensorflows():
    def fail():
        raise FilmError("row 3: cut off")

    with pytest.raises(ValueError, match=r"^<film error>row 3: cut off</film error>$") as marked:
        batches._marked(fail)()
    assert batches._marked(lambda x: x + 1)(1) == 2
    with pytest.raises(FilmError, match=r"^row 3: cut off$"), film_errors():
        raise RuntimeError(f"in a graph: {marked.value} and more")
    for half in ("<film error>x", "x</film error>"):
        with pytest.raises(RuntimeError, match=half), film_errors():
            raise RuntimeError(half)


# decoding

def encoded(image, suffix=".png"):
    return cv2.imencode(suffix, image)[1].tobytes()


def test_a_decoder_may_hold_so_many_bytes_a_pixel(monkeypatch):
    asked = []
    monkeypatch.setattr(decode, "check_size", lambda *words: asked.append(words))
    grey = cv2.resize(CROPS[0], (50, 40))
    for data in (encoded(grey), encoded(grey.astype(np.uint16) * 100), encoded(cv2.merge([grey] * 3)),
                 encoded(cv2.merge([grey.astype(np.uint16) * 100] * 4)), encoded(grey, ".jpg"),
                 encoded(cv2.merge([grey] * 3), ".jpg")):
        decode.read_film(data, min_side=7)
    assert asked == [(40, 50, 7, count) for count in (1, 2, 3, 8, 2, 6)]


@pytest.mark.parametrize("image", [None, np.zeros((40, 49), np.uint8), np.zeros((50, 40), np.uint8)])
def test_a_decoder_that_fails_or_gives_another_size(image, monkeypatch):
    data = encoded(cv2.resize(CROPS[0], (50, 40)))
    monkeypatch.setattr(decode.cv2, "imdecode", lambda *_: image)
    with pytest.raises(FilmError, match=r"^film: damaged: the PNG decoder could not read it"):
        decode.read_film(data)


def test_transparency_and_colour_by_hand():
    def grey(*colour, dtype=np.uint8):
        return decode._to_grey(np.array([[colour]], dtype)).tolist()

    assert grey(0, 0, 255) == [[76]] and grey(255, 0, 0) == [[29]] and grey(0, 255, 0) == [[150]]        # BGR
    assert [grey(1, 1, 1, alpha) for alpha in (127, 128, 255, 0)] == [[[0]], [[1]], [[1]], [[0]]]        # half up
    assert grey(200, 200, 200, 51) == [[40]]
    assert grey(65535, 65535, 65535, 32768, dtype=np.uint16) == [[128]] == grey(*[32768] * 3, dtype=np.uint16)
    plain = np.array([[3]], np.uint8)
    assert decode._to_grey(plain) is plain and decode._to_grey(np.array([[0, 1023]], np.uint16)).tolist() == [[0, 255]]
    assert decode._turn(plain, 1) is plain


def test_what_cannot_be_read_is_named(tmp_path, monkeypatch):
    (tmp_path / "a.png").write_bytes(b"x")
    assert decode.read_bytes(tmp_path / "a.png", "film") == b"x"
    for read in (decode.read_film, decode.read_bytes):
        for place, words in ((tmp_path / "none", "no such file"), (tmp_path, "is a folder; expected a film")):
            with pytest.raises(FilmError, match=f"^row 2: {words}$"):
                read(place, "row 2")
    assert decode._why_unreadable(tmp_path / "a.png", PermissionError(13, "Permission denied")) == (
        "cannot be read (Permission denied)")
    with pytest.raises(FilmError, match=f"^{re.escape(str(tmp_path / 'a.png'))}: not an image"):
        decode.read_film(tmp_path / "a.png")
    with pytest.raises(FilmError, match=r"^film: not an image"):
        decode.read_film(b"x")
    with pytest.raises(FilmError, match="at least 41"):
        decode.read_film(encoded(cv2.resize(CROPS[0], (50, 40))), min_side=41)


def test_damage_is_passed_over_only_where_it_is_accepted(monkeypatch):
    seen = []

    def broken(data, min_side, whole=True):
        seen.append((min_side, whole))
        if whole:
            raise DamagedError("cut off: x")
        return CROPS[0]

    monkeypatch.setattr(decode, "_decode", broken)
    found = decode.decode_film(b"", "film", 9, accept_damaged=True)
    assert found.damage == "cut off: x" and found.grey is not None and seen == [(9, True), (9, False)]
    with pytest.raises(DamagedError, match=r"^film: cut off: x$"):
        decode.decode_film(b"", "film")
    assert seen[2:] == [(32, True)]
    monkeypatch.setattr(decode, "_decode", lambda *_, **__: cv2.resize(None, (1, 1)))
    with pytest.raises(FilmError, match=r"^film: the image decoder failed"):
        decode.decode_film(b"", "film")


# views

def test_what_comes_from_outside_a_view_is_black_and_the_rest_bilinear():
    white = np.full((40, 64, 64), 255, np.uint8)
    keys = [f"patient{number}" for number in range(40)]
    matrices = augment.tta_matrices(keys, 0, 1, 64)
    view = next(augment.tta_views(white, keys, 1, seed=1))
    rotated = np.abs(matrices[:, 1, 0]) > 0.05
    assert rotated.any() and (view[rotated][:, [0, 0, -1, -1], [0, -1, 0, -1]] == 0).all()
    assert (view[:, 8:-8, 8:-8] == 255).all()


def test_an_augmentations_place_and_name_are_drawn_from():
    once = augment.augmented(CROPS, KEYS, ["random_crop:6"], 0)
    twice = augment.augmented(CROPS, KEYS, ["random_crop:6", "random_crop:5"], 0)
    draws = augment.uniform_draws(KEYS, ["1 random_crop a", "1 random_crop b"], 0, stream=0)
    np.testing.assert_array_equal(twice, augment.random_crop(once, draws, 5))


def test_which_view_and_how_much_of_it_are_drawn_apart():
    """The view by the draw "kind", its amount, from -1 to 1, by the draw of the view's own name."""
    keys = [f"patient{number}" for number in range(30)]
    found = augment.tta_matrices(keys, 2, 7, 11)
    kind = (4 * augment.uniform_draws(keys, ["kind"], 7, stream=2)[:, 0]).astype(int)
    for place, (name, view) in enumerate(augment.TTA_VIEWS.items()):
        amount = 2 * augment.uniform_draws(keys, [name], 7, stream=2)[:, 0] - 1
        expected = view(amount, False)[kind == place]
        assert len(expected)
        np.testing.assert_allclose(found[kind == place][:, :, :2], expected)
    np.testing.assert_allclose(found[:, :, 2], 5 - found[:, :, :2].sum(2) * 5, atol=1e-12)       # about (5, 5)


def test_the_line_of_a_normalisation_by_value():
    slope, intercept = normalisation.Normalisation((0.5, 0.25, 0.0), (0.25, 0.5, 1.0)).line
    np.testing.assert_allclose(slope * 255, (4, 2, 1), rtol=1e-6)
    np.testing.assert_array_equal(intercept, np.float32((-2, -0.5, 0)))


def test_crops_may_have_an_axis_for_their_channel():
    np.testing.assert_array_equal(normalisation.normalise(CROPS[..., None]), normalisation.normalise(CROPS))
