"""Models of strangers: what could do more than compute is not opened, and damaged ones are one line."""

import json
import shutil
import zipfile

import numpy as np
import pytest
from finished import make_films, make_run

from chexpert_hier.errors import InputError
from chexpert_hier.export import saved_model
from chexpert_hier.finished.members import open_model, open_run
from chexpert_hier.finished.trusted import OPERATIONS, check_saved_model
from chexpert_hier.network.saving import save
from chexpert_hier.run_folder import read_facts

tf = pytest.importorskip("tensorflow")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    data = make_films(tmp_path_factory.mktemp("trusted"))
    return make_run(data.parent / "run", data)


@pytest.fixture(scope="module")
def saved(run):
    return saved_model.export([open_run(run)], run.parent / "saved")


def test_what_export_writes_is_opened(saved):
    check_saved_model(saved)
    for name in ("WriteFile", "ReadFile", "PyFunc", "EagerPyFunc", "MatchingFiles", "SaveV2", "RestoreV2", "FileSystem",
                 "TFRecordReaderV2", "LookupTableImportV2", "InitializeTableFromTextFileV2", "PrintV2", "LoadLibrary"):
        assert name not in OPERATIONS


class Attack(tf.Module):
    """The signature `films`, which predict calls, with something beside the answer."""

    def __init__(self, act):
        super().__init__()
        self.act = act

    @tf.function(input_signature=[tf.TensorSpec((None, None, None, 1), tf.uint8, name="film")], autograph=False)
    def films(self, film):
        with tf.control_dependencies([self.act()]):
            return {"probabilities": tf.zeros([1, 14]), "conditional": tf.zeros([1, 14])}


def test_a_model_that_writes_or_reads_files_is_not_opened(saved, tmp_path):
    target = str(tmp_path / "written")
    acts = {"WriteFile": lambda: tf.io.write_file(target, "x"), "ReadFile": lambda: tf.io.read_file("/etc/passwd"),
            "SaveV2": lambda: tf.raw_ops.SaveV2(prefix=target, tensor_names=["a"], shape_and_slices=[""],
                                                tensors=[tf.zeros(2)]),
            "PrintV2": lambda: tf.print("x", output_stream=f"file://{target}")}
    for name, act in acts.items():
        folder, module = tmp_path / name, Attack(act)
        tf.saved_model.save(module, str(folder), signatures={"films": module.films})
        shutil.copy(saved / "metadata.json", folder)
        shutil.copy(saved / "template.png", folder)
        with pytest.raises(InputError, match=r"(operation|reads or writes files)"):
            open_model(folder)
    assert not list(tmp_path.glob("written*"))


def test_other_forms_and_damaged_files_are_one_line(saved, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(saved, folder)
    (folder / "saved_model.pbtxt").write_text("")
    with pytest.raises(InputError, match="is no form"):
        open_model(folder)
    (folder / "saved_model.pbtxt").unlink()
    content = (folder / "saved_model.pb").read_bytes()
    (folder / "saved_model.pb").write_bytes(content[:len(content) // 2])
    with pytest.raises(InputError, match=r"saved_model\.pb is damaged|another version|TensorFlow cannot load"):
        open_model(folder)
    metadata = json.loads((folder / "metadata.json").read_text())
    for change in ({"labels": 3}, {"members": []}, {"members": [{}]}, {"view": None}, {"labels": ["a", "a"]}):
        (folder / "metadata.json").write_text(json.dumps({**metadata, **change}))
        with pytest.raises(InputError, match=r"metadata\.json"):
            open_model(folder)


def test_a_damaged_network_or_recipe_is_one_line(run, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(run, folder)
    content = (run / "model.keras").read_bytes()
    for share in (0.0, 0.3, 0.7, 0.99):
        (folder / "model.keras").write_bytes(content[:int(len(content) * share)])
        with pytest.raises(InputError, match=r"model\.keras: cannot be loaded as a Keras model"):
            open_run(folder)
    facts = json.loads((run / "recipe.json").read_text())
    for name in ("recipe", "outputs", "tree", "normalisation", "data", "versions"):
        for wrong in ("x", 3, None, [], {}, [[1, 2]]):
            (folder / "recipe.json").write_text(json.dumps({**facts, name: wrong}))
            if (name in ("tree", "versions") and wrong == {}) or (name == "outputs" and wrong == []):
                continue  # a flat tree, no versions, no outputs: of their type
            with pytest.raises(InputError, match=r"recipe\.json"):
                open_run(folder)
        (folder / "recipe.json").write_text(json.dumps({key: value for key, value in facts.items() if key != name}))
        with pytest.raises(InputError, match=rf"recipe\.json: the field '{name}' is missing"):
            read_facts(folder)


def test_the_same_network_gives_the_same_file(run, tmp_path):
    """Built twice, at other addresses and times."""
    import keras

    from chexpert_hier.network.model import build_model, load_model

    kept = []
    for name in ("one.keras", "two.keras"):
        kept.append(np.zeros(1000))  # other addresses
        save(build_model("tiny", ("A", "B"), image_size=32, seed=3), tmp_path / name)
        keras.backend.clear_session()
    one, two = ((tmp_path / name).read_bytes() for name in ("one.keras", "two.keras"))
    assert one == two and zipfile.ZipFile(tmp_path / "one.keras").testzip() is None
    model = load_model(tmp_path / "one.keras")
    expected = build_model("tiny", ("A", "B"), image_size=32, seed=3)
    for ours, theirs in zip(model.get_weights(), expected.get_weights()):
        np.testing.assert_array_equal(ours, theirs)
