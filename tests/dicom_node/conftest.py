"""A tiny finished run, its films, and the model that reports on them, for all tests of this folder."""

import json
import shutil

import cv2
import pytest
from finished import make_films, make_run


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    return make_films(tmp_path_factory.mktemp("dicom_node"))


@pytest.fixture(scope="session")
def run(data):
    return make_run(data.parent / "run", data)


@pytest.fixture(scope="session")
def other_run(data):
    return make_run(data.parent / "other", data, seed=1)


@pytest.fixture(scope="session")
def real_run(run):
    """The same model, as if it had been trained on patients: it calls findings present or absent on real films."""
    folder = run.parent / "real"
    shutil.copytree(run, folder)
    facts = json.loads((folder / "recipe.json").read_text())
    facts["data"]["name"], facts["recipe"]["name"] = "made-up hospital", "pham2019"
    (folder / "recipe.json").write_text(json.dumps(facts))
    return folder


@pytest.fixture(scope="session")
def frontal(data):
    """Frontal films, uint8 (h, w)."""
    return [cv2.imread(str(file), cv2.IMREAD_GRAYSCALE) for file in sorted((data / "valid").rglob("*frontal.jpg"))]


@pytest.fixture(scope="session")
def lateral(data):
    return cv2.imread(str(next(iter(sorted(data.rglob("*lateral.jpg"))))), cv2.IMREAD_GRAYSCALE)


@pytest.fixture(scope="session")
def answerer(real_run):
    """The model, opened once; the libraries' checks are put back afterwards."""
    pytest.importorskip("highdicom")
    import pydicom

    from chexpert_hier.dicom_node.answering import Answerer

    before = pydicom.config.settings.writing_validation_mode
    yield Answerer([str(real_run)])
    pydicom.config.settings.writing_validation_mode = before
