"""Films and a finished run of its own for each module of this folder."""

import pytest
from finished import make_films, make_run


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_films(tmp_path_factory.mktemp("predict"))


@pytest.fixture(scope="module")
def run(data):
    return make_run(data.parent / "run", data)


@pytest.fixture(scope="module")
def frontal(data):
    return sorted((data / "valid").rglob("*frontal.jpg"))
