"""The list of films: every source becomes the same kind of blocks, in a portion of memory."""

import numpy as np
import pandas as pd
import pytest

from chexpert_hier.archive import manifest as manifests
from chexpert_hier.archive import places
from chexpert_hier.errors import InputError
from chexpert_hier.finished.asked import find_films
from chexpert_hier.paths import escaped

pa = pytest.importorskip("pyarrow", reason="archive needs pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")


def films_in(folder, names=("b/2.png", "b/10.JPG", "a.png", "c/d/deep.dcm", "odd\nname.png")):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"film")
    return folder


def made(source, folder, rows=2, **changes):
    return manifests.make(manifests.Source(str(source), **changes), places.at(folder / "kept"), rows)


def all_rows(manifest):
    return [row for number in range(manifest.blocks) for row in manifest.block(number).to_pylist()]


def test_a_folder_gives_the_films_that_predict_finds(tmp_path):
    folder = films_in(tmp_path / "films")
    (folder / "notes.txt").write_text("no film")
    (folder / "no_ending").write_bytes(bytes(128) + b"DICM")
    (folder / "other").write_bytes(b"short")
    manifest = made(folder, tmp_path)
    rows = all_rows(manifest)
    assert manifest.rows == 6 and manifest.blocks == 3 and [row["id"] for row in rows] == list(range(6))
    assert {row["name"] for row in rows} == {escaped(str(film.file)) for film in find_films([str(folder)])}
    assert all(row["path"] == row["name"] and row["view"] == "" for row in rows)
    assert all_rows(made(folder, tmp_path)) == rows  # and always in the same order
    assert len(all_rows(made(folder, tmp_path, every_file=True))) == 8


def test_blocks_lie_across_portions_and_parts(tmp_path, monkeypatch):
    """Seven rows, read three at a time, in blocks of two, two blocks a part."""
    monkeypatch.setattr(manifests, "PORTION", 3)
    monkeypatch.setattr(manifests, "BLOCKS_A_PART", 2)
    ids = [70, 10, 20, 30, 60, 50, 40]
    paths = [f"/films/{number}.png" for number in ids]
    parquet.write_table(pa.table({"id": ids, "Path": paths}), tmp_path / "m.parquet")
    manifest = made(tmp_path / "m.parquet", tmp_path)
    assert [manifest.block(number)["id"].to_pylist() for number in range(4)] == [[70, 10], [20, 30], [60, 50], [40]]
    assert manifest.ids().tolist() == ids and [manifest.rows_in(number) for number in range(4)] == [2, 2, 2, 1]
    assert manifest.block(3).to_pylist() == [{"id": 40, "path": "/films/40.png", "name": "/films/40.png", "view": ""}]


def test_a_table_as_chexpert_writes_it(tmp_path):
    """Its first part is the folder's own name, whatever the folder is called here."""
    films_in(tmp_path / "here", ["valid/p1/s1/view1_frontal.jpg"])
    table = pd.DataFrame({"Path": ["CheXpert-v1.0/valid/p1/s1/view1_frontal.jpg", "/abs/x.png", "s3://bucket/y.png"],
                          "Frontal/Lateral": ["Frontal", "Lateral", ""], "Edema": [1, 0, -1]})
    table.to_csv(tmp_path / "here" / "valid.csv", index=False)
    rows = all_rows(made(tmp_path / "here" / "valid.csv", tmp_path))
    assert [row["name"] for row in rows] == table["Path"].tolist()
    assert [row["path"] for row in rows] == [str(tmp_path / "here/valid/p1/s1/view1_frontal.jpg"), *table["Path"][1:]]
    assert [row["view"] for row in rows] == ["Frontal", "Lateral", ""]


def test_names_that_no_table_can_hold(tmp_path):
    folder = films_in(tmp_path / "films", ["a\nb.png"])
    assert [row["path"] for row in all_rows(made(folder, tmp_path))] == [f"{folder}/a\\x0ab.png"]


@pytest.mark.parametrize(("columns", "words"), [
    ({"Path": ["a", "b", "c"], "id": [3, 1, 3]}, "id 3 occurs more than once"),
    ({"Path": ["a", "b"], "id": [1, None]}, "no column of integers"),
    ({"Path": ["a", "b"], "id": ["x", "y"]}, "no column of integers"),
    ({"Path": ["a", ""]}, "a Path is blank"),
    ({"file": ["a"]}, "no column Path"),
    ({"Path": pa.array([], pa.string())}, "no film there"),
])
@pytest.mark.parametrize("ending", ["parquet", "csv"])
def test_what_is_refused(tmp_path, columns, words, ending):
    file = tmp_path / f"m.{ending}"
    table = pa.table(columns)
    parquet.write_table(table, file) if ending == "parquet" else table.to_pandas().to_csv(file, index=False)
    with pytest.raises(InputError, match=words):
        made(file, tmp_path)


def test_nothing_there(tmp_path):
    with pytest.raises(InputError, match="no such file or folder"):
        manifests.Source(str(tmp_path / "none")).fingerprint()
    with pytest.raises(InputError, match="no film there"):
        made(tmp_path, tmp_path)
    (tmp_path / "m.parquet").write_bytes(b"no parquet")
    with pytest.raises(InputError, match="cannot be read as Parquet"):
        made(tmp_path / "m.parquet", tmp_path)


def test_more_files_than_recovery_can_tell_apart(tmp_path, monkeypatch):
    monkeypatch.setattr(manifests, "MOST_BLOCKS", 3)
    with pytest.raises(InputError, match="larger --rows-per-file"):
        made(films_in(tmp_path / "films"), tmp_path)


def test_the_fingerprint_is_the_contents_of_a_file_and_the_place_of_a_folder(tmp_path):
    file = tmp_path / "m.csv"
    file.write_text("Path\na.png\n")
    first = manifests.Source(str(file)).fingerprint()
    file.write_text("Path\nb.png\n")
    assert manifests.Source(str(file)).fingerprint() != first
    films = films_in(tmp_path / "films")
    before = manifests.Source(str(films)).fingerprint()
    (films / "new.png").write_bytes(b"film")
    assert manifests.Source(str(films)).fingerprint() == before


def test_a_list_left_by_a_killed_attempt_is_overwritten(tmp_path):
    films = films_in(tmp_path / "films")
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "000007.parquet").write_bytes(b"half")
    assert np.array_equal(made(films, tmp_path).ids(), np.arange(5))
    assert [file.name for file in (tmp_path / "kept").iterdir()] == ["000000.parquet"]
