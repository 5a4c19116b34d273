"""A folder holds one job; another model, list or setting is refused."""

import json
from dataclasses import replace

import pytest

from chexpert_hier.archive import job, places
from chexpert_hier.archive.manifest import Source
from chexpert_hier.errors import InputError

pytest.importorskip("pyarrow", reason="archive needs pyarrow")
ASKED = job.Asked("films", "model", "keras", 2, False)


@pytest.fixture
def begun(tmp_path):
    (tmp_path / "films").mkdir()
    for name in ("a.png", "b.png", "c.png"):
        (tmp_path / "films" / name).write_bytes(b"film")
    source, out = Source(str(tmp_path / "films")), places.at(tmp_path / "out")
    return source, out, job.begin(out, source, ASKED, resume=False)


def test_the_same_job_goes_on_with_the_list_it_began_with(begun, tmp_path):
    source, out, manifest = begun
    (tmp_path / "films" / "later.png").write_bytes(b"film")
    assert job.begin(out, source, ASKED, resume=True) == manifest and manifest.rows == 3
    with pytest.raises(InputError, match="go on with it: --resume"):
        job.begin(out, source, ASKED, resume=False)


@pytest.mark.parametrize(("change", "words"), [
    ({"films": "x"}, "the list of films is another"), ({"model": "x"}, "the model is another"),
    ({"engine": "onnx"}, "--engine is another"), ({"rows_per_file": 3}, "--rows-per-file is another"),
    ({"by_study": True}, "--by-study is another")])
def test_another_job_is_refused(begun, change, words):
    source, out, _ = begun
    with pytest.raises(InputError, match=words):
        job.begin(out, source, replace(ASKED, **change), resume=True)


def test_a_folder_with_other_things_is_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(InputError, match=r"holds thesis\.tex and no job"):
        job.begin(places.at(tmp_path), Source(str(tmp_path)), ASKED, resume=True)


def test_a_damaged_job_file_is_one_line(begun):
    source, out, _ = begun
    (out / job.FILE).write(json.dumps({"asked": {"films": "x"}}).encode())
    with pytest.raises(InputError, match="damaged, or of another version"):
        job.begin(out, source, ASKED, resume=True)


def test_the_fingerprint_is_of_all_that_decides_the_answers(tmp_path):
    run, other = tmp_path / "run", tmp_path / "other"
    for folder in (run, other):
        folder.mkdir()
        (folder / "model.keras").write_bytes(b"weights")
        (folder / "recipe.json").write_text("{}")
        (folder / "log.csv").write_text(folder.name)  # decides nothing
    first = job.fingerprint([str(run)])
    assert job.fingerprint([str(other)]) == first == job.fingerprint([str(run / "model.keras")])
    (run / "template.png").write_bytes(b"chest")
    assert job.fingerprint([str(run)]) != first
    (other / "stage1.keras").write_bytes(b"other weights")  # not the one that is asked
    assert job.fingerprint([str(other)]) == first != job.fingerprint([str(other / "stage1.keras")])
    assert job.fingerprint([str(run), str(other)]) != job.fingerprint([str(other), str(run)])
    with pytest.raises(InputError, match="expected a finished run"):
        job.fingerprint([str(tmp_path)])
