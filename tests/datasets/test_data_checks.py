"""The data check finds each planted fault, and the counts are those of a table worked by hand."""

import json
import struct
import zlib

import cv2
import numpy as np
import pytest

from chexpert_hier.commands import answer
from chexpert_hier.datasets import __main__ as datasets_command
from chexpert_hier.datasets import checks
from chexpert_hier.datasets.reading import read
from chexpert_hier.errors import InputError
from chexpert_hier.hierarchy import CHEXPERT_TREE
from chexpert_hier.labels import CHEXPERT_LABELS

HEADER = "Path,Sex,Age,Frontal/Lateral,AP/PA," + ",".join(CHEXPERT_LABELS)


def picture(seed=0, channels=1, dtype=np.uint8):
    values = np.random.default_rng(seed).integers(0, 256, (64, 48, channels)[: 2 + (channels > 1)])
    return (values * (np.iinfo(dtype).max // 255)).astype(dtype)


def jpeg(image, *parameters):
    return cv2.imencode(".jpg", image, list(parameters))[1].tobytes()


def png(image):
    return cv2.imencode(".png", image)[1].tobytes()


def with_exif(data, orientation):
    tiff = b"II*\0\x08\0\0\0" + struct.pack("<HHHIHHI", 1, 0x0112, 3, 1, orientation, 0, 0)
    segment = b"Exif\0\0" + tiff
    return data[:2] + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + data[2:]


def palette_png(image):
    def chunk(mark, body):
        return struct.pack(">I", len(body)) + mark + body + struct.pack(">I", zlib.crc32(mark + body))

    rows = b"".join(b"\0" + line.tobytes() for line in image)
    size = struct.pack(">IIBBBBB", image.shape[1], image.shape[0], 8, 3, 0, 0, 0)
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size)
            + chunk(b"PLTE", bytes(range(256)) * 3) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))


@pytest.fixture
def folder(tmp_path):
    """A data set with films of every kind; `expected` says which row of train.csv is of which."""
    plain = jpeg(picture(1))
    films = {
        "plain": plain, "same film twice": plain, "same film in two splits": jpeg(picture(2)), "empty file": b"",
        "missing film": None, "film cut off": jpeg(picture(3))[:-40], "not an image": b"<html>not here</html>",
        "damaged film": png(picture(4))[:80] + b"x" + png(picture(4))[81:], "film too small": png(picture(5)[:9, :9]),
        "film without content": png(np.zeros((64, 64), np.uint8)), "colour film": jpeg(picture(6, 3)),
        "16-bit film": png(picture(7, dtype=np.uint16)), "transparent film": png(picture(8, 4)),
        "rotated film (EXIF)": with_exif(jpeg(picture(9)), 6), "palette film": palette_png(picture(10)),
    }
    root = tmp_path / "set"
    lines = {"train.csv": [HEADER], "valid.csv": [HEADER]}
    for number, (kind, data) in enumerate([*films.items(), ("valid", films["same film in two splits"])]):
        split = "valid" if kind == "valid" else "train"
        path = f"{split}/patient{number:05d}/study1/view1_frontal.jpg"
        lines[f"{split}.csv"].append(f"set/{path},Male,60,Frontal,AP,1.0" + ",0.0" * 13)
        if data is not None:
            (root / path).parent.mkdir(parents=True)
            (root / path).write_bytes(data)
    for name, text in lines.items():
        (root / name).write_text("\n".join(text) + "\n")
    return root, list(films)


def test_every_planted_fault_is_found_with_its_row(folder):
    root, kinds = folder
    report = checks.check(root, workers=2)
    found = {entry["kind"]: entry for entry in report["problems"]}
    expected = {*kinds, "colour film"} - {"plain"}
    assert set(found) == expected
    for kind in expected - {"same film in two splits"}:
        rows = [kinds.index(kind) + 2] if kind != "colour film" else [12, 14]  # transparency comes with colour
        assert found[kind]["count"] == len(rows), kind
        for row, example in zip(rows, found[kind]["examples"]):
            assert example.startswith(f"train.csv, row {row}: set/train/patient"), example
    assert found["same film in two splits"]["examples"][0].startswith("valid.csv, row 2")
    errors = {kind for kind, entry in found.items() if entry["level"] == "error"}
    assert errors == {"same film in two splits", "empty file", "missing film", "film cut off", "not an image",
                      "damaged film", "film too small", "film without content"}
    assert report["splits"]["train"]["films"] == 15 and report["films"] == 16


def test_the_command_reports_and_is_strict_only_when_told(folder, tmp_path, capsys):
    root, _ = folder
    out = tmp_path / "report.json"
    assert answer(datasets_command.main, [str(root), "--out", str(out)]) == 0
    text = capsys.readouterr().out
    assert "error: film cut off: 1; refused; --skip-bad leaves the film out" in text and "note: 16-bit film: 1" in text
    assert json.loads(out.read_text())["problems"] and "8 kinds of errors" in text
    assert answer(datasets_command.main, [str(root), "--strict"]) == 1
    assert answer(datasets_command.main, [str(root), "--strict", "--tables-only"]) == 1  # one is missing, one empty
    assert answer(datasets_command.main, [str(tmp_path)]) == 2
    assert "did you mean" in capsys.readouterr().err


def test_faults_of_tables_are_gathered_not_only_the_first(folder):
    root, _ = folder
    text = (root / "train.csv").read_text().splitlines()
    text[1] = text[1].replace(",1.0,", ",3.0,").replace("Male,60", "Unknown,0")
    text[2] = text[2].replace(",1.0,", ",4.0,").replace("60", "130", 1)
    text[3] = "set/train/patient00002/study1/view1_frontal.jpg,Male,60,Frontal,AP" + "," * 14
    # A validation patient:
    text.append("set/train/patient00015/study1/view1_lateral.jpg,Male,60,Lateral," + ",1.0" * 14)
    text.append("set/../patient00020/study1/view1_frontal.jpg,Male,60,Frontal,LL" + ",1.0" * 14)
    text.append(text[3])
    (root / "train.csv").write_text("\n".join(text) + "\n")
    report = checks.check(root, open_films=False)
    found = {entry["kind"]: entry for entry in report["problems"]}
    assert found["impossible code"]["count"] == 2
    assert "row 2: No Finding is 3.0" in found["impossible code"]["examples"][0]
    assert found["age 0"]["count"] == found["age above 120"]["count"] == found["sex not known"]["count"] == 1
    assert found["all labels blank"]["count"] == 2 and found["film listed twice"]["count"] == 1
    assert found["patient in two splits"]["count"] == 1 and found["path leaves the data folder"]["count"] == 1
    assert found["frontal film that is neither AP nor PA"]["count"] == 1
    with pytest.raises(InputError):
        read(root)


def test_nothing_is_found_in_real_films_but_rows_without_labels(shared_data):
    report = checks.check(shared_data / "nih_600", workers=2)
    assert [(entry["kind"], entry["count"]) for entry in report["problems"]] == [("all labels blank", 66)]
    assert report["labels"]["train"]["Edema"] == {"positive": 14, "uncertain": 0, "negative": 81, "blank": 405}


@pytest.fixture
def counted(tmp_path):
    """Four frontals and a lateral whose counts are worked by hand below."""
    root = tmp_path / "set"
    root.mkdir()
    rows = [({"Lung Opacity": "1.0", "Edema": "1.0"}, "frontal"),
            ({"Lung Opacity": "-1.0", "Edema": "-1.0"}, "frontal"),
            ({"Lung Opacity": "1.0", "Consolidation": "1.0", "Pneumonia": "-1.0"}, "frontal"),
            ({"Consolidation": "1.0", "Edema": "0.0"}, "frontal"), ({"Enlarged Cardiomediastinum": "1.0"}, "lateral")]
    lines = [f"set/train/patient{number}/study1/view1_{view}.jpg,Male,60,{view.capitalize()},,"
             + ",".join(codes.get(label, "") for label in CHEXPERT_LABELS) for number, (codes, view) in enumerate(rows)]
    (root / "train.csv").write_text("\n".join([HEADER, *lines]) + "\n")
    (root / "valid.csv").write_text("\n".join([HEADER, lines[0].replace("train/patient0", "valid/patient9")]) + "\n")
    return root


def indexed(folder, **options):
    table = checks.counts(read(folder, views="both"), CHEXPERT_TREE, **options)
    return table.set_index(["views", "policy", "reading", "label"]).sort_index()


def test_counts_by_hand(counted):
    table = indexed(counted)
    rows = {("u-zeros", "leaves"): 2, ("u-ones", "leaves"): 3, ("u-zeros", "union"): 2, ("u-ones", "union"): 3,
            ("u-zeros", "all-parents"): 0, ("u-ones", "all-parents"): 0, ("u-zeros", "any-parent"): 3,
            ("u-ones", "any-parent"): 4, ("u-zeros", "chen"): 4, ("u-ones", "chen"): 4}
    assert {how: table.loc[("frontal", *how, "Edema"), "rows"] for how in rows} == rows
    assert table.loc[("all", "u-zeros", "union", "Edema"), "rows"] == 3
    for policy, label, cells, counted_cells, mean in (
            ("u-ignore", "Edema", 2, 2, .5), ("u-zeros", "Edema", 2, 2, .5), ("u-ones", "Edema", 3, 3, 2 / 3),
            ("u-ignore", "Pneumonia", 1, 0, np.nan), ("u-zeros", "Pneumonia", 1, 1, 0),
            ("u-ones", "Pneumonia", 1, 1, 1)):
        line = table.loc[("frontal", policy, "union", label)]
        assert (line["cells"], line["counted"]) == (cells, counted_cells), (policy, label)
        assert line["mean"] == pytest.approx(mean, nan_ok=True)
    # Consolidation is positive in films 3 and 4; film 3 has Lung Opacity, film 4 has no parent of the root
    assert table.loc[("frontal", "u-ones", "leaves", "Consolidation"), ["cells", "positives", "seen"]].tolist() == [
        3, 2, .5]
    assert table.loc[("frontal", "u-ones", "leaves", "Lung Opacity"), ["cells", "positives", "seen"]].tolist() == [
        0, 3, 0]
    assert table.loc[("frontal", "u-ones", "leaves", "Pleural Effusion"), "cells"] == 3
    assert table.loc[("frontal", "u-ones", "flat", "Edema"), "seen"] == 1
    assert np.isnan(table.loc[("frontal", "u-ones", "leaves", "Fracture"), "seen"])
    assert table.loc[("frontal", "u-ignore", "flat", "Edema"), "counted"] == 3
    assert .55 <= table.loc[("frontal", "u-ones+lsr", "union", "Pneumonia"), "mean"] <= .85
    assert table.loc[("frontal", "u-mean", "flat", "Edema"), "mean"] == pytest.approx((1 + .5 + 0 + 0) / 4)
    closed = indexed(counted, closure=True)  # Consolidation makes Lung Opacity positive
    assert closed.loc[("frontal", "u-zeros", "union", "Edema"), "rows"] == 3


def test_the_counts_command(counted, tmp_path, capsys):
    assert answer(datasets_command.main, [str(counted), "--counts", "--out", str(tmp_path / "counts.csv")]) == 0
    text = capsys.readouterr().out
    assert "3 0.3333 50.0%" in text
    assert "frontal views, u-ones" in text and "all views, u-mean" in text and "w uncertain" in text
    assert (tmp_path / "counts.csv").read_text().startswith(
        "views,policy,reading,label,rows,cells,counted,mean,positives,seen\n")
    assert answer(datasets_command.main, [str(counted), "--counts", "--tree", "nowhere.json"]) == 2
    (counted / "valid.csv").unlink()  # no split of its own: all five films are counted, none is drawn away
    assert answer(datasets_command.main, [str(counted), "--counts"]) == 0
    assert "train 5 films of 5 studies and 5 patients" in capsys.readouterr().out
    tree = tmp_path / "tree.json"
    tree.write_text('{"Edema": ["Consolidation"]}')
    arguments = [str(counted), "--counts", "--tree", str(tree), "--closure", "--blank", "ignore"]
    assert answer(datasets_command.main, arguments) == 0
