"""A worker with an engine made by hand: every film a row, in order, whatever is wrong with it."""

import os
import threading
import time
from types import SimpleNamespace

import pandas as pd
import pytest

from chexpert_hier.archive import apart
from chexpert_hier.archive import worker as workers
from chexpert_hier.archive.worker import Opening, Worker
from chexpert_hier.errors import InputError

pa = pytest.importorskip("pyarrow", reason="archive needs pyarrow")
pytest.importorskip("fsspec")


class Lengths:
    """Answers with the number of bytes; refuses what begins with x."""

    def __init__(self):
        self.takes_lateral, self.portions = False, []

    def read(self, data, film):
        name = film.name
        if data.startswith(b"x"):
            raise InputError(f"{name}: begins\nwith x")
        if data.startswith(b"big"):
            raise MemoryError
        return name, len(data)

    def answer(self, films):
        self.portions += [len(films)] if films else []
        columns = {"Path": [name for name, _ in films], "Edema": [length for _, length in films],
                   "[flag]": ["odd" if length == 3 else "" for _, length in films]}
        return SimpleNamespace(table=lambda: pd.DataFrame(columns))


def block(tmp_path, contents):
    for name, data in contents.items():
        if data is not None:
            (tmp_path / name).write_bytes(data)
    rows = [{"id": 10 * k, "path": str(tmp_path / name), "name": f"films/{name}", "view": ""}
            for k, name in enumerate(contents)]
    return pa.Table.from_pylist(rows)


def test_every_film_is_a_row(tmp_path):
    engine = Lengths()
    (tmp_path / "folder").mkdir()
    films = {"a": b"1", "bad": b"x", "none": None, "folder": None, "b": b"123", "big": b"big", "c": b"12"}
    found = Worker(engine, Opening(("run",), "f00", portion=3)).score(block(tmp_path, films))
    assert found.column_names == ["id", "Path", "Edema", "[flag]", "error", "model_fingerprint", "seconds"]
    rows = found.to_pylist()
    assert [row["id"] for row in rows] == [0, 10, 20, 30, 40, 50, 60]
    assert [row["Path"] for row in rows] == [f"films/{name}" for name in films]
    assert [row["Edema"] for row in rows] == [1, None, None, None, 3, None, 2]
    assert [row["[flag]"] for row in rows] == ["", None, None, None, "odd", None, ""]
    assert [row["error"] for row in rows] == [None, "begins with x", "no such file", "is a folder; expected a film",
                                              None, "too large for this worker's memory", None]
    assert {row["model_fingerprint"] for row in rows} == {"f00"} and min(row["seconds"] for row in rows) >= 0
    assert engine.portions == [1, 1, 1]


def test_a_block_without_a_single_good_film_has_the_same_schema(tmp_path):
    good = Worker(Lengths(), Opening(("run",), "f")).score(block(tmp_path, {"a": b"1"}))
    bad = Worker(Lengths(), Opening(("run",), "f")).score(block(tmp_path, {"b": b"x"}))
    assert bad.schema == good.schema and bad["Edema"].null_count == 1


def test_the_next_portion_is_fetched_meanwhile_and_no_more(tmp_path):
    """While portion k is answered, films of portion k + 1 are read, none of k + 2: memory holds two."""
    events, lock = [], threading.Lock()

    class Watched(Lengths):
        def read(self, data, film):
            with lock:
                events.append(int(data))
            return super().read(data, film)

        def answer(self, films):
            if films:
                time.sleep(0.1)
                with lock:
                    seen.append(max(events))
            return super().answer(films)

    seen = []
    films = {str(k): str(k).encode() for k in range(8)}
    Worker(Watched(), Opening(("run",), "f", portion=2)).score(block(tmp_path, films))
    assert seen == [3, 5, 7, 7]


def killing(data, film, takes_lateral):
    """Stands for a decoder; in another process, as the real one would be."""
    if data == b"kill":
        os.kill(os.getpid(), 9)
    return film.name, len(data)


def test_a_film_that_kills_its_reader_is_a_row(tmp_path, monkeypatch):
    monkeypatch.setattr(apart, "read_data", killing)
    worker = Worker(Lengths(), Opening(("run",), "f", portion=2))
    films = block(tmp_path, {"a": b"1", "k": b"kill", "b": b"123", "none": None, "c": b"12"})
    rows = worker.score_after(1, films).to_pylist()
    assert [row["Edema"] for row in rows] == [1, None, 3, None, 2]
    assert [row["error"] for row in rows] == [None, apart.DIED, None, "no such file", None]
    assert worker.score_after(0, films)["error"].null_count == 4  # and afterwards as before, in this process
    given_up = worker.score_after(workers.MOST_DEATHS, films).to_pylist()
    assert {row["error"] for row in given_up} == {"10 workers died with its block in hand", "no such file"}


def test_studies(tmp_path, monkeypatch):
    """What is no chest film and laterals that the model does not know are skipped before they are decoded."""
    heads = {b"a": ("1.2", ""), b"ct": ("1.2", "modality CT"), b"lat": ("1.3", ""), b"no": ("", "no DICOM file"),
             b"x": ("1.3", "")}
    monkeypatch.setattr(workers.studies, "header", lambda data: workers.studies.Header(*heads[data]))
    monkeypatch.setattr(workers.dicom, "view", lambda data: "Lateral" if data == b"lat" else "")
    opening = Opening(("run",), "f", by_study=True)
    contents = {name.decode(): name for name in heads}
    rows = Worker(Lengths(), opening).score(block(tmp_path, contents)).to_pylist()
    assert [row["study"] for row in rows] == ["1.2", "1.2", "1.3", "", "1.3"]
    assert [row["skipped"] for row in rows] == [None, "modality CT", workers.LATERAL, "no DICOM file", None]
    assert [row["error"] for row in rows] == [None, None, None, None, "begins with x"]
    assert [row["Edema"] for row in rows] == [1, None, None, None, None] and rows[2]["view"] == "Lateral"
