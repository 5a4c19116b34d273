"""Reading films of every kind, normalisation, views, and the batches that training sees."""

import csv
import struct
import zlib

import cv2
import numpy as np
import pytest

from chexpert_hier.errors import InputError
from chexpert_hier.export import decoding, status
from chexpert_hier.films import augment, normalisation
from chexpert_hier.films.batches import Batches, CropSource, FilmSource, crop_batches, film_errors, stream
from chexpert_hier.films.decode import read_film
from chexpert_hier.films.grey import FilmError, luminance
from chexpert_hier.films.template import Cropper


def chest(shape=(80, 60), seed=0):
    """Smooth grey picture, uint8."""
    noise = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    return cv2.GaussianBlur(noise, (0, 0), 3)


def encode(image, suffix=".png", *settings):
    return cv2.imencode(suffix, image, list(settings))[1].tobytes()


def with_exif(jpeg, orientation, order="II"):
    """The JPEG with an EXIF segment that says so."""
    mark = "<" if order == "II" else ">"
    entries = struct.pack(mark + "HHII", 0x0100, 3, 1, 7) + struct.pack(mark + "HHIHH", 0x0112, 3, 1, orientation, 0)
    body = b"Exif\0\0" + order.encode() + struct.pack(mark + "HIH", 42, 8, 2) + entries
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + jpeg[2:]


def with_chunk(png, kind, body):
    """The PNG with one more chunk before its pixels."""
    place = png.index(b"IDAT") - 4
    chunk = struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    return png[:place] + chunk + png[place:]


@pytest.fixture(scope="module")
def graph_decode():
    """A film's pixels and status as the SavedModel's own operations find them."""
    import tensorflow as tf

    function = tf.function(lambda data: decoding.decode(data)[:2], input_signature=[tf.TensorSpec([], tf.string)])
    return lambda data: [tensor.numpy() for tensor in function(data)]


# ---------------------------------------------------------------------------------------------------- reading

def test_grey_films_are_read_bit_for_bit_in_both_forms(tmp_path, graph_decode):
    picture = chest()
    png, jpeg = encode(picture), encode(picture, ".jpg", cv2.IMWRITE_JPEG_QUALITY, 90)
    np.testing.assert_array_equal(read_film(png), picture)
    for data in (png, jpeg, encode(picture, ".jpg", cv2.IMWRITE_JPEG_PROGRESSIVE, 1)):
        np.testing.assert_array_equal(graph_decode(data)[0], read_film(data))
    (tmp_path / "film.png").write_bytes(jpeg)  # the content counts, not the name
    np.testing.assert_array_equal(read_film(tmp_path / "film.png"), read_film(jpeg))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("order", ["II", "MM"])
def test_exif_orientation(orientation, order, graph_decode):
    stored = encode(chest(), ".jpg")
    plain = read_film(stored)
    upright = {1: plain, 2: plain[:, ::-1], 3: plain[::-1, ::-1], 4: plain[::-1], 5: plain.T,
               6: cv2.rotate(plain, cv2.ROTATE_90_CLOCKWISE), 7: plain[::-1, ::-1].T,
               8: cv2.rotate(plain, cv2.ROTATE_90_COUNTERCLOCKWISE)}[orientation]
    data = with_exif(stored, orientation, order)
    np.testing.assert_array_equal(read_film(data), upright)
    np.testing.assert_array_equal(graph_decode(data)[0], upright)


def test_exif_that_makes_no_sense_is_no_orientation(graph_decode):
    stored = encode(chest(), ".jpg")
    lost = with_exif(stored, 6).replace(b"II*\0\x08\0\0\0", b"II*\0\xff\xff\xff\x7f")  # the directory is not there
    for data in (with_exif(stored, 0), with_exif(stored, 9), lost):
        np.testing.assert_array_equal(read_film(data), read_film(stored))
        np.testing.assert_array_equal(graph_decode(data)[0], read_film(stored))


def test_colour_jpeg_gives_its_luminance_in_both_forms(graph_decode):
    grey = chest()
    colour = np.stack([grey, grey // 2, 255 - grey], axis=2)
    data = encode(colour, ".jpg", cv2.IMWRITE_JPEG_QUALITY, 100)
    expected = luminance(colour[..., 2], colour[..., 1], colour[..., 0])
    assert np.abs(read_film(data).astype(int) - expected).max() <= 2  # JPEG's own loss
    np.testing.assert_array_equal(graph_decode(data)[0], read_film(data))


@pytest.mark.parametrize("bits", [10, 12, 15, 16])
def test_more_than_8_bits_are_scaled_by_the_depth_in_use(bits):
    picture = np.linspace(0, 2 ** bits - 1, 64 * 64).round().astype(np.uint16).reshape(64, 64)
    expected = np.rint(picture / (2 ** bits - 1) * 255)
    assert np.abs(read_film(encode(picture)).astype(int) - expected).max() <= 1
    assert read_film(encode(picture)).max() == 255


def test_transparency_is_laid_on_black():
    picture = chest()
    alpha = np.full_like(picture, 255)
    alpha[:, :10], alpha[:, 10:20] = 0, 128
    bgra = np.stack([picture, picture, picture, alpha], axis=2)
    bgra[:, :10, 1] = 255  # green under what cannot be seen
    found = read_film(encode(bgra))
    assert found[:, :10].max() == 0
    assert np.abs(found[:, 10:20] - picture[:, 10:20] * (128 / 255)).max() <= 1
    np.testing.assert_array_equal(found[:, 20:], picture[:, 20:])


def refused():
    picture = encode(chest())
    jpeg = encode(chest(), ".jpg")
    damaged = bytearray(picture)
    damaged[len(picture) // 2] ^= 255
    bomb = encode(np.zeros((64, 64), np.uint8)).replace(struct.pack(">II", 64, 64), struct.pack(">II", 60000, 60000))
    colour = encode(np.dstack([chest((64, 64))] * 3), ".jpg").replace(struct.pack(">HH", 64, 64),
                                                                      struct.pack(">HH", 7000, 7000), 1)
    bomb = bomb[:29] + struct.pack(">I", zlib.crc32(bomb[12:29])) + bomb[33:]
    return {
        "empty": (b"", "the file is empty"),
        "text": (b"<html>not found</html>", "not an image"),
        "short text": (b"x", "not an image"),
        "cut-off png": (picture[:len(picture) // 2], "cut off"),
        "cut-off jpeg": (jpeg[:len(jpeg) // 2], "cut off"),
        "jpeg without its end": (jpeg[:-2], "cut off"),
        "jpeg of two bytes": (jpeg[:3], "cut off"),
        "header only": (picture[:33], "cut off"),
        "damaged png": (bytes(damaged), "damaged"),
        "damaged jpeg": (jpeg[:20] + b"\0" * 40 + jpeg[60:], "damaged|cut off"),
        "colour jpeg above the decoder's bytes": (colour, "too large: 7000x7000"),
        "bomb": (bomb, "too large: 60000x60000"),
        "1x1": (encode(np.zeros((1, 1), np.uint8)), "too small: 1x1"),
        "24x24": (encode(chest((24, 24))), "at least 32"),
        "black": (encode(np.zeros((64, 64), np.uint8)), "no picture content"),
        "webp": (b"RIFF\x04\0\0\0WEBP", "the WebP holds no picture"),
        "gif": (b"GIF89a", "GIF is not supported"),
        "dicom": (bytes(128) + b"DICM", "DICOM"),
    }


GRAPH_SAYS = {  # the status that the SavedModel gives where `read_film` says this
    "the file is empty": status.EMPTY, "not an image": status.OTHER, "the WebP holds no picture": status.OTHER,
    "GIF is not supported": status.OTHER, "DICOM": status.DICOM, "cut off": status.DAMAGED,
    "damaged": status.DAMAGED, "damaged|cut off": status.DAMAGED, "too large: 7000x7000": status.LARGE,
    "too large: 60000x60000": status.LARGE, "too small: 1x1": status.SMALL, "at least 32": status.SMALL,
    "no picture content": status.FLAT}


@pytest.mark.parametrize("name", refused())
def test_what_is_no_film_is_refused_in_one_line(name, graph_decode):
    data, reason = refused()[name]
    with pytest.raises(FilmError, match=reason) as error:
        read_film(data, "train.csv, row 7: film.png")
    assert str(error.value).startswith("train.csv, row 7: film.png: ") and "\n" not in str(error.value)
    assert graph_decode(data)[1] == GRAPH_SAYS[reason]


@pytest.mark.parametrize("kind", ["16 bits", "colour", "transparent", "tRNS", "eXIf"])
def test_the_graph_reads_every_png_as_read_film_does(kind, graph_decode):
    picture = chest()
    data = {"16 bits": encode(picture.astype(np.uint16) * 200), "colour": encode(np.dstack([picture] * 3)),
            "transparent": encode(np.dstack([picture] * 4)), "tRNS": with_chunk(encode(picture), b"tRNS", b"\0\7"),
            "eXIf": with_chunk(encode(picture), b"eXIf", b"II*\0")}[kind]
    pixels, code = graph_decode(data)
    assert code == status.GOOD
    np.testing.assert_array_equal(pixels, read_film(data))


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(FilmError, match=r"nothing\.jpg: no such file"):
        read_film(tmp_path / "nothing.jpg")
    with pytest.raises(FilmError, match="is a folder"):
        read_film(tmp_path)


def test_awkward_files(shared_data, graph_decode):
    """Everything in the collection that is not DICOM does as its manifest says; the graph agrees or refuses."""
    folder = shared_data / "awkward"
    for row in csv.DictReader((folder / "manifest.csv").read_text(encoding="utf-8").splitlines()):
        file = folder / row["file"]
        if file.suffix == ".dcm":
            continue
        if row["what_to_do"].startswith("reject"):
            with pytest.raises(FilmError, match=row["file"]):
                read_film(file)
            assert graph_decode(file.read_bytes())[1] != status.GOOD
            continue
        found = read_film(file)
        twin, _, columns = row["same_picture_as"].partition(" ")
        if twin:
            other = read_film(folder / twin)
            if columns:
                found, other = found[:, 40:472], other[:, 40:472]
            pair = [cv2.resize(image, (256, 256), interpolation=cv2.INTER_AREA).ravel() for image in (found, other)]
            assert np.corrcoef(*pair)[0, 1] > 0.98, row["file"]
        pixels, code = graph_decode(file.read_bytes())
        if code == status.GOOD:
            np.testing.assert_array_equal(pixels, read_film(file))


def test_real_films_are_decoded_alike(shared_data, graph_decode):
    for file in sorted((shared_data / "nih_mini").rglob("*.jpg")):
        np.testing.assert_array_equal(graph_decode(file.read_bytes())[0], read_film(file))


# ---------------------------------------------------------------------------------------------------- normalisation

def test_normalisation_by_hand():
    crops = np.array([[[0, 255], [51, 102]]], np.uint8)
    out = normalisation.normalise(crops, "imagenet")
    assert out.dtype == np.float32 and out.shape == (1, 2, 2, 3)
    np.testing.assert_allclose(out[0, 0, 0], [-0.485 / 0.229, -0.456 / 0.224, -0.406 / 0.225], rtol=1e-6)
    np.testing.assert_allclose(out[0, 1, 0], [(0.2 - 0.485) / 0.229, (0.2 - 0.456) / 0.224, (0.2 - 0.406) / 0.225],
                               rtol=1e-5)
    native = normalisation.normalise(crops, "native:tf")[0, :, :, 0]
    np.testing.assert_allclose(native, [[-1, 1], [-0.6, -0.2]], rtol=1e-6)
    np.testing.assert_allclose(normalisation.normalise(crops, "none")[0, :, :, 2], [[0, 1], [0.2, 0.4]], rtol=1e-6)
    how = normalisation.Normalisation.named("dataset", dataset=(0.2, 0.4))
    np.testing.assert_allclose(normalisation.normalise(crops, how)[0, :, :, 1], [[-0.5, 2], [0, 0.5]], atol=1e-6)


@pytest.mark.parametrize("side", [64, 32, 48, 23, 1])
@pytest.mark.parametrize("how", ["imagenet", "native:tf", "none"])
def test_both_forms_of_normalisation_agree(side, how):
    crops = np.stack([chest((64, 64), seed) for seed in range(3)])
    how = normalisation.Normalisation.named(how)
    ours, graph = normalisation.normalise(crops, how, side), np.asarray(normalisation.graph_normalise(crops, how, side))
    assert ours.shape == graph.shape == (3, side, side, 3)
    np.testing.assert_allclose(graph, ours, atol=1e-5)
    if side == 64:
        np.testing.assert_array_equal(graph, ours)
        np.testing.assert_array_equal(normalisation.normalise(crops[..., None], how), ours)


def test_smaller_images_are_means_over_areas():
    crop = np.arange(16, dtype=np.uint8).reshape(1, 4, 4) * 10
    expected = crop.reshape(1, 2, 2, 2, 2).mean((2, 4)) / 255
    np.testing.assert_allclose(normalisation.normalise(crop, "none", 2)[..., 0], expected, rtol=1e-6)


@pytest.mark.parametrize(("call", "message"), [
    (lambda: normalisation.normalise(np.zeros((1, 8, 8), np.uint8), "imagenet", 9), "expected at most 8"),
    (lambda: normalisation.Normalisation.named("image-net"), "imagenet, native, dataset, none"),
    (lambda: normalisation.Normalisation.named("native:caffe"), "torch, tf"),
    (lambda: normalisation.Normalisation.named("dataset"), "prepare a cache"),
    (lambda: normalisation.Normalisation((0,) * 3, (0,) * 3), "positive standard deviations"),
    (lambda: normalisation.Normalisation((0,) * 3, (1, 1, -1)), "positive standard deviations"),
    (lambda: normalisation.Normalisation((0,) * 4, (1,) * 3), "three finite means"),
    (lambda: normalisation.Normalisation((0,) * 3, (1,) * 4), "three finite means"),
    (lambda: normalisation.Normalisation((0, 0, np.inf), (1,) * 3), "three finite means"),
    (lambda: normalisation.checked_side(8, 0), "image size 0: expected at most 8"),
    (lambda: augment.read_augmentation("turn"), "hflip"),
    (lambda: augment.read_augmentation("hflip:3"), "expected NAME or NAME:NUMBER"),
    (lambda: augment.read_augmentation("random_crop:x"), "expected NAME or NAME:NUMBER"),
    (lambda: augment.augmented(np.zeros((1, 8, 8), np.uint8), ["a"], ["random_crop:9"], 0), "cannot cut 9 pixels"),
])
def test_what_makes_no_sense_is_refused(call, message):
    with pytest.raises(InputError, match=message):
        call()


# ---------------------------------------------------------------------------------------------------- changed views

CROPS = np.stack([chest((64, 64), seed) for seed in range(40)])
KEYS = [f"patient{number:05d}/study1/view1_frontal.jpg" for number in range(40)]


@pytest.mark.parametrize("name", [*augment.AUGMENTATIONS])
def test_augmentations_depend_on_seed_epoch_and_film_alone(name):
    text = f"{name}:48" if "crop" in name else name
    whole = augment.augmented(CROPS, KEYS, [text], seed=1, epoch=2)
    assert whole.dtype == np.uint8 and len(whole) == 40
    np.testing.assert_array_equal(augment.augmented(CROPS[7:9][::-1], KEYS[7:9][::-1], [text], 1, 2), whole[7:9][::-1])
    if name != "centre_crop":
        assert not np.array_equal(augment.augmented(CROPS, KEYS, [text], 1, 3), whole)
        assert not np.array_equal(augment.augmented(CROPS, KEYS, [text], 2, 2), whole)


def test_hflip_mirrors_about_half_of_the_films():
    out = augment.augmented(CROPS, KEYS, ["hflip"], 0)
    mirrored = np.array([np.array_equal(view, crop[:, ::-1]) for view, crop in zip(out, CROPS)])
    kept = np.array([np.array_equal(view, crop) for view, crop in zip(out, CROPS)])
    assert np.all(mirrored ^ kept) and 10 <= mirrored.sum() <= 30


def test_crops_and_intensities_by_hand():
    draws = np.array([[0.0, 0.999999], [0.5, 0.5]])
    cut = augment.random_crop(CROPS[:2], draws, 48)
    np.testing.assert_array_equal(cut[0], CROPS[0, 0:48, 16:64])
    np.testing.assert_array_equal(augment.centre_crop(CROPS[:2], draws, 48)[0], CROPS[0, 8:56, 8:56])
    flat = np.full((1, 2, 2), 100, np.uint8)
    assert augment.brightness(flat, np.ones((1, 2)), 0.1).max() == 126  # 100 + 25.5 is half way: to the even level
    assert augment.brightness(np.full((1, 2, 2), 250, np.uint8), np.ones((1, 2)), 0.1).max() == 255
    two = np.array([[[100, 120]]], np.uint8)  # mean 110
    np.testing.assert_array_equal(augment.contrast(two, np.ones((1, 2)), 0.1)[0, 0], [99, 121])


def test_views_are_the_papers_and_each_as_likely():
    matrices = np.concatenate([augment.tta_matrices(KEYS, draw, 3, 224) for draw in range(60)])
    linear, centre = matrices[:, :, :2], np.array([111.5, 111.5, 1])
    np.testing.assert_allclose(matrices @ centre, np.full((len(matrices), 2), 111.5), atol=1e-9)
    mirrored = linear[:, 0, 0] < 0
    rotated = ~mirrored & (np.abs(linear[:, 1, 0]) > 1e-12)
    sheared = ~mirrored & ~rotated & (np.abs(linear[:, 0, 1]) > 1e-12)
    scaled = ~mirrored & ~rotated & ~sheared
    for chosen in (mirrored, rotated, sheared, scaled):
        assert 0.2 < chosen.mean() < 0.3
    np.testing.assert_array_equal(linear[mirrored][0], [[-1, 0], [0, 1]])
    angles = np.degrees(np.arctan2(linear[rotated][:, 1, 0], linear[rotated][:, 0, 0]))
    assert 6.8 < np.abs(angles).max() <= 7 and np.abs(angles.mean()) < 1
    assert 4.8 < np.abs(linear[sheared][:, 0, 1]).max() * 224 <= 5
    scales = 1 / linear[scaled][:, 0, 0]
    assert 0.98 <= scales.min() < 0.981 and 1.019 < scales.max() <= 1.02


def test_composed_views_apply_all_four():
    linear = augment.tta_matrices(KEYS, 0, 3, 224, composed=True)[:, :, :2]
    mirrored = linear[:, 0, 0] < 0
    assert 0.25 < mirrored.mean() < 0.75
    assert np.all(np.abs(linear[:, 1, 0]) > 0)  # rotated, every one


def test_views_do_not_depend_on_order_or_company():
    views = list(augment.tta_views(CROPS, KEYS, 10, seed=5))
    few = list(augment.tta_views(CROPS[[9, 3]], [KEYS[9], KEYS[3]], 10, seed=5))
    assert len(views) == 10
    for whole, part in zip(views, few):
        assert whole.dtype == np.uint8
        np.testing.assert_array_equal(part, whole[[9, 3]])
    assert not np.array_equal(next(augment.tta_views(CROPS, KEYS, 1, seed=6)), views[0])
    with_original = list(augment.tta_views(CROPS, KEYS, 2, seed=5, include_original=True))
    np.testing.assert_array_equal(with_original[0], CROPS)
    np.testing.assert_array_equal(with_original[2], views[1])


def test_views_are_what_keras_makes_of_the_same_matrices():
    from keras import ops

    matrices = augment.tta_matrices(KEYS, 1, 5, 64)
    flat = np.concatenate([matrices.reshape(-1, 6), np.zeros((40, 2))], axis=1).astype(np.float32)
    expected = ops.image.affine_transform(CROPS[..., None].astype(np.float32), flat, interpolation="bilinear",
                                          fill_mode="constant", fill_value=0)
    view = list(augment.tta_views(CROPS, KEYS, 2, seed=5))[1]
    # Rounding, and 1/32 pixel where OpenCV computes in fixed point.
    difference = np.abs(np.asarray(expected)[..., 0] - view)
    assert difference.mean() < 0.5 and np.percentile(difference, 99) < 3


# ---------------------------------------------------------------------------------------------------- batches

@pytest.fixture
def film_files(tmp_path):
    files = []
    for number in range(10):
        files.append(tmp_path / f"film{number}.png")
        files[-1].write_bytes(encode(chest((70 + number, 80), number)))
    return files


@pytest.fixture
def batches(film_files):
    source = FilmSource(film_files, Cropper("centre", rescaled=64, size=48), [f"row {k}: x" for k in range(10)])
    targets = np.arange(20, dtype=np.float32).reshape(10, 2)
    rows = np.array([3, 1, 4, 0, 5, 9, 2, 6, 8, 7])
    return Batches(source, rows, 4, normalisation.IMAGENET, targets=targets, weights=np.arange(10, dtype=np.float32))


def test_all_forms_of_batches_hold_the_same(batches, film_files):
    crops = Batches(CropSource(batches.source(np.arange(10))), batches.rows, 4, targets=batches.targets,
                           weights=batches.weights)
    keras_form = crop_batches(crops)
    assert len(batches) == len(crops) == len(keras_form) == 3
    seen = 0
    for number, tensors in enumerate(stream(batches)):
        for streamed, direct, cached, fed in zip(tensors, batches[number], crops[number], keras_form[number]):
            np.testing.assert_array_equal(streamed.numpy(), direct)
            np.testing.assert_array_equal(cached, direct)
            np.testing.assert_array_equal(fed, direct)
        for x, place in zip(tensors[0].numpy(), batches.rows[seen:]):
            alone = batches.source.cropper.crop([read_film(film_files[place])]).crops
            np.testing.assert_array_equal(x, normalisation.normalise(alone)[0])
        np.testing.assert_array_equal(tensors[1].numpy(), batches.targets[seen:seen + 4])  # already in the rows' order
        seen += len(tensors[0])
    assert seen == 10 and stream(batches).cardinality() == 3


def test_batches_come_in_order_after_a_look_at_the_first(batches):
    """As `fit` takes them; Keras' own threads, of which there are none, would go on from the second."""
    form = crop_batches(batches)
    assert form.workers == 1
    form[0]
    for number in (*range(len(form)), 0, 2):
        for fed, direct in zip(form[number], batches[number], strict=True):
            np.testing.assert_array_equal(fed, direct)


def test_stream_knows_its_shapes(batches):
    inputs, targets, _ = stream(batches).element_spec
    assert inputs.shape.as_list() == [None, 48, 48, 3] and targets.shape.as_list() == [None, 2]


def test_bytes_for_normalising_on_the_device(batches):
    raw = Batches(batches.source, batches.rows, 4, how=None)
    assert raw[2].dtype == np.uint8 and raw[2].shape == (2, 48, 48, 1)
    normalised = normalisation.graph_normalise(raw[0], normalisation.IMAGENET)
    np.testing.assert_array_equal(np.asarray(normalised), batches[0][0])
    assert next(iter(stream(raw))).dtype == "uint8"


def test_augmented_batches(batches):
    keys = [str(k) for k in range(10)]
    pair = [Batches(batches.source, batches.rows, 4, augment=("hflip", "random_crop:32"), keys=keys, draw=draw)
            for draw in ((0, 1, 0), (0, 1, 1))]
    assert pair[0][0].shape == (4, 32, 32, 3)
    np.testing.assert_array_equal(pair[0][1], pair[0][1])
    assert not np.array_equal(pair[0][0], pair[1][0])
    assert stream(pair[0]).element_spec.shape.as_list() == [None, 32, 32, 3]


def test_two_views_have_their_own_croppers(film_files):
    croppers = (Cropper("centre", rescaled=64, size=48), Cropper("none", size=48))
    source = FilmSource(film_files, croppers, cropper_of=[0, 1] * 5)
    np.testing.assert_array_equal(source(np.array([1, 0])), np.concatenate(
        [croppers[k].crop([read_film(film_files[k])]).crops for k in (1, 0)]))


def test_an_unreadable_film_is_named_in_the_stream_and_in_fit(batches, film_files):
    import keras

    film_files[5].write_bytes(b"")
    with pytest.raises(FilmError, match=r"^row 5: x: the file is empty$"), film_errors():
        list(stream(batches))
    model = keras.Sequential([keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(2)])
    model.compile("sgd", "mse")
    with pytest.raises(FilmError, match=r"^row 5: x: the file is empty$"), film_errors():
        model.fit(stream(batches), verbose=0, shuffle=False)
    with pytest.raises(FilmError, match="row 5"):
        batches[1]
    with pytest.raises(ZeroDivisionError), film_errors():
        raise ZeroDivisionError


def test_real_films_serve_as_they_train(shared_data):
    """The pixel path: film file to network input, as training computes it and as the SavedModel does."""
    import tensorflow as tf

    from chexpert_hier.films.template import learn_template

    files = sorted((shared_data / "nih_mini").rglob("*.jpg"))
    train = [read_film(file) for file in files if "train" in file.parts]
    cropper = Cropper(template=learn_template(map(Cropper("centre").rescale, train)))
    trained = Batches(FilmSource(files, cropper), np.arange(len(files)), len(files))[0]

    @tf.function(input_signature=[tf.TensorSpec([], tf.string)])
    def serve(data):
        crops = cropper.graph(decoding.decode(data)[0]).crops[None]
        return normalisation.graph_normalise(crops, normalisation.IMAGENET)

    for file, expected in zip(files, trained):
        np.testing.assert_array_equal(serve(file.read_bytes())[0].numpy(), expected)
