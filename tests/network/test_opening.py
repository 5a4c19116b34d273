"""`.keras` and HDF5 files of strangers: what would take more memory than the file is worth is refused before."""

import io
import json
import tracemalloc
import zipfile

import h5py
import keras
import numpy as np
import pytest

from chexpert_hier.errors import InputError
from chexpert_hier.network import opening, weights
from chexpert_hier.network.model import build_model, load_model

LABELS = ("Edema", "Fracture")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    path = tmp_path_factory.mktemp("opening") / "model.keras"
    build_model("tiny", LABELS, image_size=48, seed=1).save(path)
    return path


def changed(whole, path, name, change, packed=zipfile.ZIP_STORED):
    """The archive with one member changed."""
    with zipfile.ZipFile(whole) as given, zipfile.ZipFile(path, "w", packed) as written:
        for member in given.namelist():
            data = given.read(member)
            written.writestr(member, change(data) if member == name else data)
    return path


def with_layer(kind, **values):
    """A change of the configuration: the values of the first layer of that kind."""
    def change(data):
        config = json.loads(data)
        layer = next(one for one in config["config"]["layers"] if one["class_name"].endswith(kind))
        assert set(values) <= set(layer["config"])
        layer["config"] |= values
        layer.pop("build_config", None)
        return json.dumps(config).encode()
    return change


def with_array(change):
    """A change of the weights, an HDF5 file."""
    def changes(data):
        file = io.BytesIO(data)
        with h5py.File(file, "r+") as root:
            change(root)
        return file.getvalue()
    return changes


def vast(root):
    root.create_dataset("vast", (10 ** 6, 10 ** 6), "f4", chunks=(1000, 1000))


def elsewhere(root):
    root["linked"] = h5py.ExternalLink("/etc/passwd", "x")


def outside(root):
    root.create_dataset("outside", (4,), "u1", external=[("/etc/passwd", 0, 4)])


CONFIG, H5 = "config.json", "model.weights.h5"
HOSTILE = {
    "a member of zeros": ("metadata.json", lambda data: data + bytes(60_000_000), "unpack to 6"),
    "a billion filters": (CONFIG, with_layer("Conv2D", filters=10 ** 9), "more weights than the"),
    "a billion outputs": (CONFIG, with_layer("Findings", units=10 ** 9), "more weights than the|cannot be loaded"),
    "a huge kernel": (CONFIG, with_layer("Conv2D", kernel_size=[10 ** 4, 10 ** 4]), "more weights than the"),
    "a vast film": (CONFIG, with_layer("InputLayer", batch_shape=[None, 10 ** 6, 10 ** 6, 3]),
                    "films of 1000000 x 1000000 pixels"),
    "films of any size": (CONFIG, with_layer("InputLayer", batch_shape=[None, None, None, 3]), "expected films"),
    "many objects": (CONFIG, lambda data: data[:-1] + b', "more": [' + b'{"class_name": "x"}, ' * 40_000 + b"0]}",
                     "describes 40,"),
    "a vast array": (H5, with_array(vast), "claim 4,000,000,"),
    "a link": (H5, with_array(elsewhere), "a link to somewhere else"),
    "an array in another file": (H5, with_array(outside), "lie in other files"),
    "a group inside itself": (H5, with_array(lambda root: root["layers"].__setitem__("again", root["layers"])),
                              "in more than 100,000 arrays|weights claim 3"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_larger_than_its_file_is_refused_before_memory_is_taken(name, whole, tmp_path):
    member, change, words = HOSTILE[name]
    path = changed(whole, tmp_path / "model.keras", member, change, zipfile.ZIP_DEFLATED)
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match=words) as error:
            load_model(path)
        assert tracemalloc.get_traced_memory()[1] < 200e6
    finally:
        tracemalloc.stop()
    assert "\n" not in str(error.value) and str(path) in str(error.value)


def test_a_layer_that_makes_much_of_a_film_is_refused(tmp_path):
    film = keras.Input((48, 48, 3))
    large = keras.layers.ZeroPadding2D(5000, name="padding")(film)
    with pytest.raises(opening.TooLargeError, match=r"'padding' makes \(10048, 10048, 3\) of each film"):
        opening.check_given(keras.Model(film, keras.layers.GlobalAveragePooling2D()(large)))
    inside = keras.Model(film, keras.layers.UpSampling2D(20)(film))
    with pytest.raises(opening.TooLargeError, match="makes"):
        opening.check_given(keras.Sequential([film, inside, keras.layers.GlobalAveragePooling2D()]))
    opening.check_given(keras.Model(film, keras.layers.Conv2D(128, 3, padding="same")(film)))


def test_whole_files_are_opened_as_ever(whole, tmp_path):
    network, film = load_model(whole), np.random.default_rng(0).random((2, 48, 48, 3), np.float32)
    packed = load_model(changed(whole, tmp_path / "packed.keras", CONFIG, lambda data: data, zipfile.ZIP_DEFLATED))
    np.testing.assert_array_equal(network.predict(film, verbose=0), packed.predict(film, verbose=0))
    assert opening.open_keras(whole).count_params() == network.count_params()
    before = keras.layers.Layer.add_weight
    with pytest.raises(InputError):
        load_model(changed(whole, tmp_path / "bad.keras", CONFIG, with_layer("Conv2D", filters=10 ** 9)))
    assert keras.layers.Layer.add_weight is before


def test_weights_of_strangers_too(whole, tmp_path):
    network = build_model("tiny", LABELS, image_size=48, seed=1)
    path = tmp_path / "x.weights.h5"
    network.save_weights(path)
    opening.check_arrays(path)
    with h5py.File(path, "r+") as root:
        vast(root)
    with pytest.raises(InputError, match="claim 4,000,000,"):
        weights.load_weights(network, path, "tiny")
