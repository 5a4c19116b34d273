"""Studies: what belongs together, what is no chest film, and a study's row by the recipe's rule."""

import io

import numpy as np
import pandas as pd
import pytest

from chexpert_hier.archive import places, studies
from chexpert_hier.archive.commits import ResultStore

pa = pytest.importorskip("pyarrow", reason="archive needs pyarrow")


def dicom_bytes(study="1.2.3", **tags):
    pydicom = pytest.importorskip("pydicom")
    data = pydicom.Dataset()
    data.file_meta = pydicom.dataset.FileMetaDataset()
    data.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    data.StudyInstanceUID, data.PatientName = study, "Doe^Jane"
    for name, value in {"Modality": "DX", "Rows": 64, **tags}.items():
        if value is not None:
            setattr(data, name, value)
    text = io.BytesIO()
    pydicom.dcmwrite(text, data, enforce_file_format=False, implicit_vr=False, little_endian=True)
    return bytes(128) + b"DICM" + text.getvalue()[132:] if text.getvalue()[128:132] == b"DICM" else \
        bytes(128) + b"DICM" + text.getvalue()


@pytest.mark.parametrize(("tags", "other"), [
    ({}, ""), ({"BodyPartExamined": "CHEST"}, ""), ({"Modality": "CR", "BodyPartExamined": "thorax"}, ""),
    ({"Modality": "CT"}, "modality CT"), ({"BodyPartExamined": "FOOT"}, "another body part"),
    ({"Modality": "SR", "Rows": None}, "modality SR"), ({"Rows": None}, "no picture")])
def test_headers(tags, other):
    assert studies.header(dicom_bytes(**tags)) == studies.Header("1.2.3", other)


def test_what_is_no_dicom():
    assert studies.header(b"\x89PNG").other == "no DICOM file" and studies.header(b"").other == "no DICOM file"


def films():
    """Two films of study a, of b one film with an error and one that is skipped, one of c, and a file of no study."""
    return pd.DataFrame({"id": [5, 1, 2, 3, 4, 6], "study": ["a", "a", "b", "b", "c", ""],
                         "skipped": [None, None, None, "modality CT", None, "no DICOM file"],
                         "error": [None, None, "cut off", None, None, None],
                         "Edema": [0.9, 0.2, np.nan, np.nan, 0.4, np.nan]})


@pytest.mark.parametrize(("rule", "expected"), [("max", 0.9), ("mean", 0.55), ("confident", 0.9)])
def test_rows_by_the_rule(rule, expected):
    found = studies.of_films(films().iloc[:5], ["Edema"], rule).set_index("study")
    assert found.loc["a", "Edema"] == pytest.approx(expected) and found.loc["c", "Edema"] == pytest.approx(0.4)
    assert np.isnan(found.loc["b", "Edema"]) and "none of its films" in found.loc["b", "error"]
    assert found[["id", "films", "skipped", "failed"]].to_dict("index") == {
        "a": {"id": 1, "films": 2, "skipped": 0, "failed": 0}, "b": {"id": 2, "films": 0, "skipped": 1, "failed": 1},
        "c": {"id": 4, "films": 1, "skipped": 0, "failed": 0}}


@pytest.mark.parametrize("at_once", [2, 100])
def test_written_in_as_many_passes_as_memory_needs(tmp_path, monkeypatch, at_once):
    from pyarrow import parquet

    monkeypatch.setattr(studies, "FILMS_AT_ONCE", at_once)
    store = ResultStore(places.at(tmp_path))
    for folder in ("results", "checkpoint"):
        (tmp_path / folder).mkdir()
    for number, part in enumerate((films().iloc[:3], films().iloc[3:])):
        whole = pa.Table.from_pandas(part, preserve_index=False)
        parquet.write_table(whole, store.rows_file(f"x_{number:06d}").path)
        parquet.write_table(whole.select(["id"]), (store.checkpoint / f"x_{number:06d}.parquet").path)
    assert studies.write(store, ["Edema"], "max", 6) == 3
    found = pd.concat([pd.read_parquet(file) for file in sorted((tmp_path / "studies").iterdir())])
    assert set(found["study"]) == {"a", "b", "c"} and found.set_index("study").loc["a", "films"] == 2
    assert studies.write(store, ["Edema"], "max", 6) == 3  # again: replaced, not added
