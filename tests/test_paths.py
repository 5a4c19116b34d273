"""Names of films in tables, round trip for every name that a file system allows, and the rule on links and `..`."""

import csv
import io
import os

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chexpert_hier import paths

ODD = ["plain.png", "a\\b.png", "a\\x41.png", "line\nbreak", "carriage\rreturn", "tab\there", "x\x85y", "x\u2028y",
       "x\x0by", "x\x0cy", "x\x1cy", "comma,quote\".png", "=SUM(A1)", "+1", "-1.png", "@x", "é", "\udce9.png",
       "\\", "\\\\x0a", " lead and trail "]


@pytest.mark.parametrize("name", ODD)
def test_odd_names_come_back(name):
    cell = paths.escaped(name)
    assert paths.unescaped(cell) == name
    assert cell.encode("utf-8") and cell.splitlines() == [cell] and cell[0] not in "=+-@"


@given(st.binary(min_size=1, max_size=30).filter(lambda data: b"\0" not in data))
def test_any_bytes_of_a_file_name_come_back_through_a_table(data):
    path = paths.escaped(os.fsdecode(data))
    text = pd.DataFrame({"Path": [path, "next"], "p": [0.5, 1.0]}).to_csv(index=False)
    rows = list(csv.reader(io.StringIO(text.encode("utf-8").decode("utf-8"), newline="")))
    assert rows[1] == [path, "0.5"] and os.fsencode(paths.unescaped(path)) == data
    assert paths.canonical(path) == path == paths.canonical(os.fsdecode(data).replace("\\", "\\\\"))


@given(st.text(alphabet="\\x0aAfé\n=/.", max_size=12))
def test_what_is_not_an_escape_stands_for_itself(text):
    assert paths.unescaped(paths.escaped(text)) == text
    assert "\\" in text or paths.unescaped(text) == text


def test_escapes_by_hand():
    assert paths.escaped("é\udce9\n") == "é\\xe9\\x0a"
    assert paths.escaped("\x85\u2028") == "\\xc2\\x85\\xe2\\x80\\xa8"  # UTF-8 of U+0085 and U+2028
    assert paths.unescaped("C:\\films\\a.png") == "C:\\films\\a.png"


@pytest.mark.parametrize("path, out", [
    ("a/b.png", False), ("a..b/c", False), ("a\\b.png", False), ("/a", True), ("../a", True), ("a/../b", True),
    ("a/..", True), ("C:/a", True), ("..\\a", True), ("\\\\host\\a", True)])
def test_paths_that_leave(path, out):
    assert paths.leaves(path) is out


def test_links(tmp_path):
    root, away = tmp_path / "data", tmp_path / "away"
    for folder in (root / "a", away / "deep"):
        folder.mkdir(parents=True)
        (folder / "film.png").write_bytes(b"x")
    (root / "inside.png").symlink_to("a/film.png")
    (root / "out.png").symlink_to(away / "deep/film.png")
    (root / "folder").symlink_to(away)
    (tmp_path / "linked").symlink_to(root)
    files = ["a/film.png", "inside.png", "out.png", "folder/deep/film.png", "../away/deep/film.png", "a/none.png"]
    for top in (root, tmp_path / "linked"):
        found = [reason.partition(" that")[0] for reason in paths.outside(top, files)]
        assert found == ["", "", "is a link", "lies behind a link", "is outside: its path leaves the data folder", ""]
