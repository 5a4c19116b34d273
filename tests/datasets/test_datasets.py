"""Readers on trees that the tests build and on real films; splits, limits, faults, damaged tables."""

import gzip
import hashlib
import os
import string
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chexpert_hier import hierarchy
from chexpert_hier.datasets import chestxray14, presence, reading, tables
from chexpert_hier.datasets.dataset import SPLITS
from chexpert_hier.datasets.splits import draw_split, frontal_only_fair
from chexpert_hier.errors import InputError
from chexpert_hier.labels import CHESTXRAY14_LABELS, CHEXPERT_LABELS

HEADER = "Path,Sex,Age,Frontal/Lateral,AP/PA," + ",".join(CHEXPERT_LABELS)
EDEMA = CHEXPERT_LABELS.index("Edema")


def row(path, codes="", sex="Male", age="60", view="Frontal", projection="AP"):
    """A line of CheXpert's CSV; `codes`: label -> text, or one text for all."""
    cells = [codes.get(label, "") for label in CHEXPERT_LABELS] if isinstance(codes, dict) else [codes] * 14
    return ",".join([path, sex, age, view, projection, *cells])


def film(patient, study=1, view="view1_frontal.jpg", split="train", root="CheXpert-v1.0-small"):
    return f"{root}/{split}/patient{patient:05d}/study{study}/{view}"


def write(folder, train, valid=None, header=HEADER, films=True):
    """A data set: lines of train.csv and valid.csv, and a film (not an image) for each."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, lines in (("train.csv", train), ("valid.csv", valid)):
        if lines is not None:
            (folder / name).write_text("\n".join([header, *lines]) + "\n")
            for line in lines if films else ():
                path = folder / line.split(",")[0].partition("/")[2]
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(b"film " + line.encode())
    return folder


@pytest.fixture
def small(tmp_path):
    """Three training patients and one validation patient, with a lateral and each code."""
    return write(tmp_path / "CheXpert-v1.0-small", [
        row(film(1), {"Edema": "1.0", "Cardiomegaly": "-1.0", "No Finding": "0.0"}, sex="Female", age="47"),
        row(film(1, view="view2_lateral.jpg"), {"Edema": "1.0"}, view="Lateral", projection=""),
        row(film(2), "0.0", sex="Unknown", age="0", projection="LL"),
        row(film(3, study=2), "", age="90", projection="RL"),
    ], [row(film(64541, split="valid"), "0.0")])


def test_chexpert_as_it_unpacks(small):
    both = reading.read(small, views="both")
    assert len(both) == 5 and both.labels == CHEXPERT_LABELS and both.name == "CheXpert-v1.0-small"
    first = both.films.iloc[0]
    assert (first["path"], first["patient"], first["study"]) == (film(1), "patient00001", "train/patient00001/study1")
    assert (first["sex"], first["age"], first["view"], first["projection"]) == ("Female", 47, "Frontal", "AP")
    np.testing.assert_array_equal(both.films["projection"], ["AP", "", "LL", "RL", "AP"])
    np.testing.assert_array_equal(both.films["split"], ["train"] * 4 + ["valid"])
    np.testing.assert_array_equal(both.films["row"], [2, 3, 4, 5, 2])
    assert both.raw.dtype == np.float32 and both.raw.shape == (5, 14)
    np.testing.assert_array_equal(both.raw[0, [EDEMA, 2, 0, 3]], [1, -1, 0, np.nan])
    assert np.isnan(both.raw[3]).all()
    assert both.keys[0] == "train/patient00001/study1/view1_frontal.jpg"
    assert [path.read_bytes()[:4] for path in both.files] == [b"film"] * 5
    assert len(reading.read(small).split("train")) == 3
    lateral = reading.read(small, views="lateral")
    assert lateral.films["path"].tolist() == [film(1, view="view2_lateral.jpg")]


@pytest.mark.parametrize("name", ["CheXpert-v1.0", "CheXpert-v1.0-small", "renamed by hand"])
def test_the_folder_may_have_any_name(tmp_path, small, name):
    os.rename(small, tmp_path / name)
    assert all(path.is_file() for path in reading.read(tmp_path / name).files)


def test_paths_may_be_below_the_parent_or_the_folder_itself(tmp_path):
    beside = write(tmp_path / "tables", [row(film(1)), row(film(2))], films=False)
    for patient in (1, 2):
        path = tmp_path / film(patient)
        path.parent.mkdir(parents=True)
        path.write_bytes(b"film")
    assert all(path.is_file() for path in reading.read(beside).files)
    inside = write(tmp_path / "own", [row(f"a/patient{number}/study1/f.jpg") for number in (1, 2)], films=False)
    for number in (1, 2):
        path = inside / f"a/patient{number}/study1/f.jpg"
        path.parent.mkdir(parents=True)
        path.write_bytes(b"film")
    assert all(path.is_file() for path in reading.read(inside).files)


def test_columns_are_found_by_name(tmp_path, small):
    lines = [line.split(",") for line in (small / "train.csv").read_text().splitlines()]
    order = np.random.default_rng(0).permutation(len(lines[0]))
    shuffled = [",".join([cells[at] for at in order] + ["extra"]) for cells in lines]
    other = write(tmp_path / "other", shuffled[1:], header=shuffled[0], films=False)
    (other / "valid.csv").write_text((small / "valid.csv").read_text())
    assert reading.read(other, views="both").fingerprint == reading.read(small, views="both").fingerprint


@pytest.mark.parametrize("change", [
    lambda text: text.replace("\n", "\r\n").encode(),
    lambda text: b"\xef\xbb\xbf" + text.encode(),
    lambda text: text.replace("\n", "\r").encode(),
    lambda text: "\n".join(",".join(f'"{cell}"' for cell in line.split(",")) for line in text.splitlines()).encode(),
    lambda text: text.replace("\n", "\n\n").encode() + b"\n  \n",
    lambda text: text.rstrip("\n").encode(),
    lambda text: text.replace("1.0,", "1,").replace("0.0,", " 0 ,").encode(),
], ids=["CRLF", "BOM", "CR", "quoted", "blank lines", "no last line end", "other spellings"])
def test_the_same_table_written_otherwise(small, change):
    before = reading.read(small, views="both")
    (small / "train.csv").write_bytes(change((small / "train.csv").read_text()))
    assert reading.read(small, views="both").fingerprint == before.fingerprint


def damaged(text, old, new):
    assert old in text
    return text.replace(old, new, 1).encode()


@pytest.mark.parametrize("change, message", [
    (lambda text: damaged(text, ",0.0,0.0,0.0,0.0,0.0,0.0", ",0.0,0.0,0.0,0.0,0.0,2.0"),
     r"^train.csv, row 4: Edema is 2.0; expected 1, 0, -1 or blank. Is this a CheXpert CSV\?$"),
    (lambda text: damaged(text, ",1.0", ",yes"), "row 2: Edema is yes; expected 1, 0, -1 or blank"),
    (lambda text: damaged(text, ",1.0", ",inf"), "row 2: Edema is inf"),
    (lambda text: damaged(text, "Edema,Cons", "Oedema,Kons"), "no column Edema, Consolidation; found Path, Sex"),
    (lambda text: damaged(text, "Path", "File"), "no column Path"),
    (lambda text: damaged(text, "Edema", "Fracture"), "names Fracture twice"),
    (lambda text: text[:-8].encode(), "row 5: 12 fields; expected 19 as in the header"),
    (lambda text: text.encode() + b"x,y\n", "row 6: 2 fields; expected 19"),
    (lambda text: damaged(text, "47,", "47,,"), "row 2: 20 fields; expected 19"),
    (lambda text: b"", "is empty"),
    (lambda text: b" \n", "is empty"),
    (lambda text: text.splitlines()[0].encode(), "no rows below the header"),
    (lambda text: text.encode("utf-16"), "not UTF-8"),
    (lambda text: text.encode() + b"\xff\xfe\n", "row 6: not UTF-8"),
    (lambda text: damaged(text, "Female", "Fem\0le"), "row 2: holds a zero byte"),
    (lambda text: damaged(text, "Female", '"Female'), "row|CSV|quotation"),
    (lambda text: damaged(text, "Female", "Weiblich"), "row 2: Sex is 'Weiblich'; expected Male, Female, Unknown"),
    (lambda text: damaged(text, "47", "old"), "row 2: Age is 'old'; expected years"),
    (lambda text: damaged(text, "Frontal,AP", "Front,AP"), "row 2: Frontal/Lateral is 'Front'; expected Frontal"),
    (lambda text: damaged(text, "Frontal,AP", "Frontal,XX"), "row 2: AP/PA is 'XX'; expected AP, PA, LL, RL"),
    (lambda text: damaged(text, "patient00002", "pat2"), "row 4: Path is .*; expected .../patientN/studyN"),
    (lambda text: damaged(text, film(2), ""), "row 4: Path is blank"),
    (lambda text: damaged(text, film(2), film(1)), r"row 4: .* is listed twice \(first in train.csv, row 2\)"),
    (lambda text: damaged(text, film(2), "../" + film(2)), "row 4: .* leaves the data folder"),
    (lambda text: damaged(text, film(2), "/etc/patient1/study1/passwd"), "row 4: .* leaves the data folder"),
    (lambda text: damaged(text, film(2), "a/../../patient1/study1/x.jpg"), "row 4: .* leaves the data folder"),
    (lambda text: damaged(text, film(2), r"C:\a/patient1/study1/x.jpg"), "row 4: .* leaves the data folder"),
    (lambda text: damaged(text, film(2), film(64541)), r"valid.csv, row 2: patient64541 is in valid and in train"),
])
def test_a_damaged_table_is_refused_in_one_line(small, change, message):
    (small / "train.csv").write_bytes(change((small / "train.csv").read_text()))
    with pytest.raises(InputError, match=message) as caught:
        reading.read(small, views="both")
    assert "\n" not in str(caught.value)


def test_a_missing_folder_or_table_says_what_to_do(tmp_path, small):
    with pytest.raises(InputError, match="no such folder"):
        reading.read(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"no train.csv in this folder; did you mean .*CheXpert-v1.0-small"):
        reading.read(tmp_path)
    with pytest.raises(InputError, match=r"no train_visualCheXbert.csv"):
        reading.read(small, train_file="train_visualCheXbert.csv")
    for options in ({"reader": "dicom"}, {"views": "oblique"}, {"split": "random"}, {"limit": 0}, {"labels": ["Flu"]}):
        with pytest.raises(InputError):
            reading.read(small, **options)
    with pytest.raises(InputError, match="no lateral films"):
        reading.read(write(tmp_path / "frontal", [row(film(1)), row(film(2))]), views="lateral")


def test_other_label_files_of_the_same_films(small):
    text = (small / "train.csv").read_text().replace("-1.0", "1.0")
    (small / "train_visualCheXbert.csv").write_text(text)
    visual = reading.read(small, labels=hierarchy.HBCE_TREE.labels, train_file="train_visualCheXbert.csv")
    assert visual.raw.shape == (4, 21)
    first = {label for label, value in zip(visual.labels, visual.raw[0]) if value == 1}
    assert first == {"Edema", "Cardiomegaly", "Cardiac", "Fluid Accumulation", "Opacity", "Abnormal"}
    assert visual.raw[2, visual.labels.index("Uncertain")] == 1
    assert visual.films["table"].tolist() == ["train_visualCheXbert.csv"] * 3 + ["valid.csv"]


# ------------------------------------------------------------------------------------------------- splits

def many(tmp_path, patients=60, valid=None):
    rng = np.random.default_rng(4)
    return write(tmp_path / "many", [row(film(patient, study)) for patient in range(patients)
                                     for study in range(rng.integers(1, 5))], valid, films=False)


def test_without_valid_csv_the_split_is_by_patient_and_by_seed(tmp_path):
    folder = many(tmp_path)
    one, again, other = (reading.read(folder, seed=seed) for seed in (1, 1, 2))
    assert one.fingerprint == again.fingerprint != other.fingerprint
    train, valid = (set(one.split(name).films["patient"]) for name in ("train", "valid"))
    assert len(valid) == 6 and len(train) == 54 and not train & valid
    np.testing.assert_array_equal(one.films["row"], np.arange(len(one)) + 2)  # the file's order
    third = reading.read(folder, split="paper")
    assert [third.split(name).films["patient"].nunique() for name in SPLITS] == [42, 6, 12]


@settings(max_examples=30, deadline=None)
@given(patients=st.lists(st.integers(0, 12), max_size=40).map(lambda more: [*range(8), *more]), seed=st.integers(0, 99),
       fractions=st.sampled_from([(.9, .1, 0.), (.7, .1, .2), (.5, .5, 0.)]))
def test_a_drawn_split_never_divides_a_patient(patients, seed, fractions):
    names = [f"patient{number}" for number in patients]
    split = draw_split(names, seed, fractions)
    assert len({(name, part) for name, part in zip(names, split)}) == len(set(names))
    shuffled = np.random.default_rng(seed).permutation(len(names))
    np.testing.assert_array_equal(draw_split([names[at] for at in shuffled], seed, fractions), split[shuffled])


def test_too_few_patients_or_wrong_fractions():
    with pytest.raises(InputError, match="only 1 patients"):
        draw_split(["a", "a"], 0, (.9, .1, 0))
    with pytest.raises(InputError, match="sum 1"):
        draw_split(["a", "b"], 0, (.9, .3, 0))


def test_limit_keeps_whole_patients_and_does_not_change_their_labels(tmp_path):
    folder = many(tmp_path, valid=[row(film(number, split="valid")) for number in range(900, 930)])
    whole, part, less = reading.read(folder), reading.read(folder, limit=20), reading.read(folder, limit=10)
    counts = whole.split("train").films.groupby("patient").size()
    for limited, most in ((part, 20), (less, 10)):
        found = limited.split("train").films.groupby("patient").size()
        assert (found == counts[found.index]).all() and most - 3 <= found.sum() <= most
        assert limited.split("valid").fingerprint == whole.split("valid").fingerprint  # left alone
    assert set(less.keys) <= set(part.keys) <= set(whole.keys)
    assert reading.read(folder, limit=20, seed=1).fingerprint != part.fingerprint
    assert len(reading.read(folder, limit=10**9)) == len(whole)
    assert reading.read(folder, limit=1).split("train").films["patient"].nunique() == 1


def test_fair_frontal_only_draw(tmp_path):
    lines = [row(film(patient, view=f"view{number}_{view}.jpg"), view=view.capitalize(), projection="")
             for patient, views in enumerate((["frontal"] * 3 + ["lateral"] * 2, ["frontal"], ["lateral"]))
             for number, view in enumerate(views)]
    both = reading.read(write(tmp_path / "views", lines, films=False), views="both", fractions=(1, 0, 0))
    fair = frontal_only_fair(both, seed=0)
    assert len(fair) == len(both) and (fair.films["view"] == "Frontal").all()
    assert fair.films["patient"].tolist()[:6] == both.films["patient"].tolist()[:6]
    assert fair.films["patient"].tolist()[6] == "patient00000"  # the one without a frontal: a patient with laterals
    assert frontal_only_fair(both, seed=0).fingerprint == fair.fingerprint
    with pytest.raises(InputError, match="both views"):
        frontal_only_fair(both.select([5, 6]))


# -------------------------------------------------------------------------------------------------- films

def test_faults_of_films_name_the_row(small, tmp_path):
    folder = small / "train"
    dataset = reading.read(small, views="both")
    assert presence.require_films(dataset) == (dataset, [])
    (folder / "patient00002/study1/view1_frontal.jpg").write_bytes(b"")
    os.remove(folder / "patient00003/study2/view1_frontal.jpg")
    with pytest.raises(InputError, match=r"train.csv, row 4: .*patient00002.* is empty .*2 of 5 films"):
        presence.require_films(dataset)
    left, bad = presence.require_films(dataset, skip_bad=True)
    assert len(left) == 3 and [(film.row, film.reason) for film in bad] == [(4, "is empty"), (5, "is missing")]
    assert presence.require_films(dataset.select([0, 1]))[1] == []  # only films that are used are looked for
    with pytest.raises(InputError, match="is missing"):  # nothing would be left
        presence.require_films(dataset.select([3]), skip_bad=True)


def test_links_may_not_leave_the_data_folder_unless_allowed(small, tmp_path):
    secret = tmp_path / "secret.jpg"
    secret.write_bytes(b"secret")
    path = small / "train/patient00002/study1/view1_frontal.jpg"
    path.unlink()
    path.symlink_to(secret)
    outside = tmp_path / "outside"
    os.rename(small / "train/patient00003", outside)
    (small / "train/patient00003").symlink_to(outside)
    inside = small / "train/patient00001/study1/view2_lateral.jpg"
    inside.unlink()
    inside.symlink_to(small / "train/patient00001/study1/view1_frontal.jpg")
    dataset = reading.read(small, views="both")
    _, bad = presence.require_films(dataset, skip_bad=True)
    assert [(film.row, film.reason) for film in bad] == [
        (4, "is a link that leaves the data folder"), (5, "lies behind a link that leaves the data folder")]
    assert presence.require_films(dataset, allow_outside=True)[1] == []
    linked = tmp_path / "linked"  # the data folder itself may be a link
    linked.symlink_to(small)
    assert len(presence.require_films(reading.read(linked, views="both"), skip_bad=True)[1]) == 2


def test_absolute_paths_are_found_where_they_are_allowed(tmp_path):
    elsewhere = tmp_path / "elsewhere/patient1/study1/view1_frontal.jpg"
    elsewhere.parent.mkdir(parents=True)
    elsewhere.write_bytes(b"film")
    folder = write(tmp_path / "set", [row(str(elsewhere)), row(str(elsewhere).replace("patient1", "patient2"))],
                   films=False)
    with pytest.raises(InputError, match="leaves the data folder"):
        reading.read(folder)
    dataset = reading.read(folder, allow_outside=True)
    assert dataset.files[0] == elsewhere
    _, bad = presence.require_films(dataset, allow_outside=True, skip_bad=True)
    assert [film.reason for film in bad] == ["is missing"]


def test_a_very_deep_path_is_only_missing(tmp_path):
    folder = write(tmp_path / "set", [row("set/" + "a/" * 3000 + f"patient{n}/study1/x.jpg") for n in (1, 2)],
                   films=False)
    with pytest.raises(InputError, match=r"cannot be read|is missing"):
        presence.require_films(reading.read(folder))


def test_a_rows_table_without_labels(small):
    path = small / "mine.csv"
    path.write_text(f"Path\n{film(1)}\n{film(1, view='view2_lateral.jpg')}\n")
    rows = reading.read_rows(path)
    assert [(file.is_file(), name, view) for file, name, view in rows] == [
        (True, film(1), "Frontal"), (True, film(1, view="view2_lateral.jpg"), "Lateral")]
    path.write_text("Path\n../../x.jpg\n")
    with pytest.raises(InputError, match=r"mine.csv, row 2: .* leaves the data folder"):
        reading.read_rows(path)


def test_predictions_are_joined_by_key(tmp_path):
    path = tmp_path / "predictions.csv"
    path.write_text("Path,Edema\nother/a/b.jpg,0.25\nother/c.jpg,1\n")
    np.testing.assert_array_equal(reading.read_predictions(path, ["c.jpg", "a/b.jpg"], ["Edema"]), [[1], [.25]])
    with pytest.raises(InputError, match=r"no prediction for d.jpg \(1 films\)"):
        reading.read_predictions(path, ["d.jpg"], ["Edema"])
    path.write_text("Path,Edema\nother/c.jpg,high\n")
    with pytest.raises(InputError, match="row 2: Edema is 'high'; expected a probability"):
        reading.read_predictions(path, ["c.jpg"], ["Edema"])


def test_fingerprint_tells_labels_splits_and_films_but_not_the_folders_name(small):
    before = reading.read(small)
    assert before.fingerprint == reading.read(small).fingerprint and len(before.fingerprint) == 64
    others = [before.select([1, 0, 2, 3]), before.split("train"), reading.read(small, labels=CHEXPERT_LABELS[::-1])]
    (small / "train.csv").write_text((small / "train.csv").read_text().replace("-1.0", "1.0"))
    others.append(reading.read(small))
    assert len({other.fingerprint for other in others} | {before.fingerprint}) == 5


# ---------------------------------------------------------------------------------------------- own labels

def test_a_users_own_labels_in_the_csv_shape(tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "train.csv").write_text("Patient,Path,Cat,Dog\n" + "".join(
        f"p{number // 2},set/{number}.png,{number % 2},-1\n" for number in range(20)))
    mine = reading.read(folder, reader="csv", labels=["Dog", "Cat"])
    assert mine.labels == ("Dog", "Cat") and mine.raw[1].tolist() == [-1, 1]
    assert mine.films["patient"].nunique() == 10 and mine.split("valid").films["patient"].nunique() == 1
    assert (mine.films["view"] == "Frontal").all() and mine.films["age"].isna().all()
    with pytest.raises(InputError, match="--labels A,B"):
        reading.read(folder, reader="csv")
    with pytest.raises(InputError, match="no column Bird; found Patient, Path, Cat, Dog"):
        reading.read(folder, reader="csv", labels=["Bird"])


def test_names_must_differ_after_the_first_slash(tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "train.csv").write_text("Patient,Path,Cat\np1,one/1.png,1\np2,two/1.png,0\n")
    with pytest.raises(InputError, match=r"row 3: two/1.png is another's name after the first .*row 2"):
        reading.read(folder, reader="csv", labels=["Cat"])


# --------------------------------------------------------------------------------------------- ChestX-ray14

HEADER_2017 = ("Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
               "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y],")


def chestxray(folder, edition=2017, lists=True, one_folder=False):
    folder.mkdir()
    findings = ["No Finding", "Effusion", "Cardiomegaly|Effusion", "Pleural_Thickening", "Hernia|Mass"] * 8
    end = "," if edition == 2017 else ""
    lines = [f"{number // 2:08d}_{number % 2:03d}.png,{finding},{number % 2},{number // 2},"
             f"{'060Y' if edition == 2017 and number == 0 else 60},{'FM'[number % 2]},{('PA', 'AP')[number % 2]},"
             f"2500,2048,0.168,0.168{end}" for number, finding in enumerate(findings)]
    name = "Data_Entry_2017.csv" if edition == 2017 else "Data_Entry_2017_v2020.csv"
    (folder / name).write_text("\n".join([HEADER_2017 if edition == 2017 else HEADER_2017[:-1], *lines]) + "\n")
    images = [line.split(",")[0] for line in lines]
    for number, image in enumerate(images):
        place = folder / ("images" if one_folder else f"images_{number % 3 + 1:03d}/images")
        place.mkdir(parents=True, exist_ok=True)
        (place / image).write_bytes(b"film")
    if lists:
        (folder / "train_val_list.txt").write_text("\n".join(images[:32]))
        (folder / "test_list.txt").write_text("\n".join(images[32:]) + "\n")
    return folder


@pytest.mark.parametrize("edition, one_folder", [(2017, False), (2020, True)])
def test_chestxray14_as_it_unpacks(tmp_path, edition, one_folder):
    nih = reading.read(chestxray(tmp_path / "nih", edition, one_folder=one_folder), reader="chestxray14")
    assert nih.labels == CHESTXRAY14_LABELS and len(nih) == 40 and all(path.is_file() for path in nih.files)
    assert {split: nih.split(split).films["patient"].nunique() for split in SPLITS} == {
        "train": 14, "valid": 2, "test": 4}
    assert nih.split("test").films["path"].tolist()[0] == "00000016_000.png"
    effusion = nih.raw[:, CHESTXRAY14_LABELS.index("Effusion")]
    np.testing.assert_array_equal(effusion, [0, 1, 1, 0, 0] * 8)
    assert nih.raw.sum() == 6 * 8 and not np.isnan(nih.raw).any()
    assert nih.films["age"].tolist() == [60] * 40 and nih.films["sex"][1] == "Male"


def test_chestxray14_splits(tmp_path):
    folder = chestxray(tmp_path / "nih")
    paper = reading.read(folder, reader="chestxray14", split="paper")
    assert [paper.split(name).films["patient"].nunique() for name in SPLITS] == [14, 2, 4]
    assert paper.split("test").films["path"].tolist() != reading.read(folder, reader="chestxray14").split("test").films[
        "path"].tolist()
    (folder / "test_list.txt").write_text((folder / "test_list.txt").read_text() + "00000000_000.png\n")
    with pytest.raises(InputError, match=r"row 2: 00000000_000.png is in both of"):
        reading.read(folder, reader="chestxray14")
    lines = (folder / "train_val_list.txt").read_text().split("\n")
    (folder / "train_val_list.txt").write_text("\n".join(lines[1:]))  # the other film of that patient stays
    with pytest.raises(InputError, match=r"0 is in .* and in .*; expected a patient in one split"):
        reading.read(folder, reader="chestxray14")
    (folder / "test_list.txt").unlink()
    assert reading.read(folder, reader="chestxray14").split("test").films["patient"].nunique() == 4
    with pytest.raises(InputError, match="official split needs them"):
        reading.read(folder, reader="chestxray14", split="official")


def test_chestxray14_with_chexperts_labels_and_faults(tmp_path):
    folder = chestxray(tmp_path / "nih")
    bridged = reading.read(folder, reader="chestxray14", labels=["Pleural Effusion", "Lung Lesion", "Support Devices"])
    np.testing.assert_array_equal(bridged.raw[:5], [[0, 0, np.nan], [1, 0, np.nan], [1, 0, np.nan], [0, 0, np.nan],
                                                    [0, 1, np.nan]])
    path = folder / "Data_Entry_2017.csv"
    path.write_text(path.read_text().replace("Hernia|Mass", "Hernia|Gout", 1))
    with pytest.raises(InputError, match=r"row 6: Finding Labels is 'Hernia\|Gout'"):
        reading.read(folder, reader="chestxray14")
    with pytest.raises(InputError, match="'Flu': expected one of: Atelectasis"):
        reading.read(folder, reader="chestxray14", labels=["Flu"])
    path.unlink()
    with pytest.raises(InputError, match=r"no Data_Entry_2017.csv"):
        reading.read(folder, reader="chestxray14")


def test_boxes_with_nihs_broken_header(tmp_path):
    path = tmp_path / "BBox_List_2017.csv"
    path.write_text("Image Index,Finding Label,Bbox [x,y,w,h],,,\n00000001_000.png,Infiltrate,10.5,20,30,40\n")
    box = chestxray14.read_boxes(path).iloc[0].tolist()
    assert box == ["00000001_000.png", "Infiltration", 10.5, 20, 30, 40]
    for cells in ("a,20,30,40", "1,20,30,-4", "1,20,30,nan"):
        path.write_text(f"Image Index,Finding Label,Bbox [x,y,w,h],,,\n00000001_000.png,Mass,{cells}\n")
        with pytest.raises(InputError, match="row 2: expected a box"):
            chestxray14.read_boxes(path)


# -------------------------------------------------------------------------------------------------- MIMIC

def mimic(folder, compress=False):
    folder.mkdir()
    written = {"metadata": ["dicom_id,subject_id,study_id,ViewPosition,Rows"],
               "split": ["dicom_id,study_id,subject_id,split"],
               "chexpert": ["subject_id,study_id," + ",".join(sorted(CHEXPERT_LABELS))]}
    splits = {10000032: "train", 11000033: "train", 12000034: "validate", 13000035: "test"}
    for subject, split in splits.items():
        study = 50000000 + subject % 100
        for number, view in enumerate(("AP", "LATERAL", "PA LLD", "")):
            name = f"{subject:x}-{number}"
            written["metadata"].append(f"{name},{subject},{study},{view},3000")
            written["split"].append(f"{name},{study},{subject},{split}")
        codes = {"Edema": "1.0", "Fracture": "-1.0", "Atelectasis": "0.0"}
        written["chexpert"].append(f"{subject},{study}," + ",".join(codes.get(label, "")
                                                                    for label in sorted(CHEXPERT_LABELS)))
    written["metadata"].append("unlabelled,10000032,59999999,AP,3000")
    written["split"].append("unlabelled,59999999,10000032,train")
    for kind, lines in written.items():
        data = ("\n".join(lines) + "\n").encode()
        name = f"mimic-cxr-2.0.0-{kind}.csv"
        (folder / (name + ".gz" if compress else name)).write_bytes(gzip.compress(data) if compress else data)
    return folder


@pytest.mark.parametrize("compress", [False, True])
def test_mimic_as_it_unpacks(tmp_path, compress):
    both = reading.read(mimic(tmp_path / "mimic", compress), reader="mimic", views="both")
    assert both.labels == CHEXPERT_LABELS and len(both) == 8  # of 17: others are oblique, unknown or without labels
    assert both.films["path"][0] == "files/p10/p10000032/s50000032/9896a0-0.jpg"
    assert both.films["split"].tolist() == ["train"] * 4 + ["valid"] * 2 + ["test"] * 2
    assert both.films["view"].tolist() == ["Frontal", "Lateral"] * 4 and both.films["patient"][0] == "p10000032"
    np.testing.assert_array_equal(both.raw[0, [EDEMA, CHEXPERT_LABELS.index("Fracture"), 8, 0]], [1, -1, 0, np.nan])
    np.testing.assert_array_equal(both.raw, np.repeat(both.raw[:1], 8, axis=0))


def test_mimic_faults(tmp_path):
    folder = mimic(tmp_path / "mimic")
    path = folder / "mimic-cxr-2.0.0-chexpert.csv"
    text = path.read_text()
    path.write_text(text.replace("1.0", "3", 1))
    with pytest.raises(InputError, match=r"chexpert.csv, row 2: Edema is 3"):
        reading.read(folder, reader="mimic")
    path.write_text(text)
    split = folder / "mimic-cxr-2.0.0-split.csv"
    split.write_text(split.read_text().replace("validate", "maybe"))
    with pytest.raises(InputError, match="no split of film"):
        reading.read(folder, reader="mimic")
    path.unlink()
    with pytest.raises(InputError, match=r"no mimic-cxr-2.\*-chexpert.csv"):
        reading.read(folder, reader="mimic")


# --------------------------------------------------------------------------------------------- real films

def test_real_films(shared_data):
    for name, train, valid in (("nih_600", 500, 121), ("nih_mini", 40, 16)):
        dataset, bad = presence.require_films(reading.read(shared_data / name))
        assert (len(dataset.split("train")), len(dataset.split("valid")), bad) == (train, valid, [])
    whole = reading.read(shared_data / "nih_600")
    positives = dict(zip(whole.labels, (whole.split("train").raw == 1).sum(axis=0)))
    assert positives["Lung Opacity"] == 276 and positives["Lung Lesion"] == 119 and positives["Edema"] == 14
    nih = reading.read(shared_data / "nih_600", reader="chestxray14")
    assert dict(zip(nih.labels, nih.split("train").raw.sum(axis=0)))["Infiltration"] == 99
    # The folder's own CheXpert labels were made by the same bridge from the same NIH labels.
    bridged = reading.read(shared_data / "nih_600", reader="chestxray14", labels=CHEXPERT_LABELS)
    order = {key: place for place, key in enumerate(bridged.keys)}
    ours = bridged.raw[[order[key] for key in whole.keys]]
    np.testing.assert_array_equal(ours == 1, whole.raw == 1)
    boxes = chestxray14.read_boxes(shared_data / "nih_600/bbox.csv")
    assert len(boxes) == 12
    # NIH's own tables with the films renamed into CheXpert's folders: nih_index.csv tells where each one is.
    mini, bad = presence.require_films(reading.read(shared_data / "nih_mini", reader="chestxray14"))
    assert (len(mini.split("train")), len(mini.split("valid")), bad) == (40, 16, [])
    moved = chestxray14.read_boxes(shared_data / "nih_mini/BBox_List_2017.csv")
    assert set(moved["path"]) <= set(mini.films["path"])
    assert sorted(moved["path"].str.partition("/")[2]) == sorted(boxes["path"].str.partition("/")[2])


# ---------------------------------------------------------------------------------------------- at scale

def test_as_many_rows_as_chexpert_are_read_and_checked_in_seconds(tmp_path):
    rng = np.random.default_rng(0)
    texts = np.array(["", "1.0", "0.0", "-1.0"])[rng.integers(0, 4, (2000, 14))]
    ends = ["Male,60,Frontal,AP," + ",".join(cells) for cells in texts]
    lines = [f"{film(number // 4, number % 4)},{ends[number % 2000]}" for number in range(223_414)]
    folder = write(tmp_path / "large", lines, [row(film(99999, split="valid"))], films=False)
    start = time.process_time()
    dataset = reading.read(folder, views="both")
    with pytest.raises(InputError, match="223415 of 223415 films"):
        presence.require_films(dataset)
    assert len(dataset) == 223_415 and time.process_time() - start < 30  # about 5 s on an idle machine


# -------------------------------------------------------------------------------------------------- fuzz

CELL = st.text(alphabet=string.printable + "é\ufeff\0\x85", max_size=6)


@settings(max_examples=120, deadline=None)
@given(data=st.one_of(st.binary(max_size=300), st.lists(st.lists(CELL, max_size=5).map(",".join), max_size=6).map(
    lambda lines: "\n".join(["Path,Edema", *lines]).encode("utf-8", "replace"))))
def test_any_bytes_are_a_table_or_one_line(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / f"fuzz-{hashlib.md5(data).hexdigest()}.csv"
    path.write_bytes(data)
    try:
        table = tables.read_table(path)
    except InputError as error:
        assert len(str(error).splitlines()) == 1
    else:
        assert len(table) and all(isinstance(cell, str) for cell in table.to_numpy().ravel())
    finally:
        path.unlink()


@settings(max_examples=60, deadline=None)
@given(codes=st.lists(st.lists(st.sampled_from(["1.0", "0.0", "-1.0", ""]), min_size=14, max_size=14), min_size=2,
                      max_size=8), quote=st.booleans(), end=st.sampled_from(["\n", "\r\n"]),
       wrong=st.one_of(st.none(), st.tuples(st.integers(0, 7), st.integers(0, 13), st.sampled_from(
           ["2", "-2.0", "x", "1.5", "1,0", "--1", "nane", "1e9", "0x1"]))))
def test_a_table_is_read_as_written_or_its_first_wrong_cell_is_named(tmp_path_factory, codes, quote, end, wrong):
    folder = tmp_path_factory.mktemp("csv")
    if wrong:
        at, label, text = wrong
        at %= len(codes)
        codes[at][label] = text
    cells = [[film(number), "Male", "60", "Frontal", "AP", *values] for number, values in enumerate(codes)]
    mark = '"' if quote or (wrong and "," in wrong[2]) else ""
    (folder / "train.csv").write_bytes((end.join([HEADER, *(",".join(f"{mark}{cell}{mark}" for cell in line)
                                                            for line in cells)]) + end).encode())
    if wrong:
        with pytest.raises(InputError) as caught:
            reading.read(folder)
        assert f"train.csv, row {at + 2}: {CHEXPERT_LABELS[label]} is {text}; expected 1, 0, -1" in str(caught.value)
    else:
        expected = [[float(cell) if cell else np.nan for cell in values] for values in codes]
        np.testing.assert_array_equal(reading.read(folder).raw, np.array(expected, np.float32))


# ------------------------------------------------------------------------------ tables of other spreadsheets

def test_semicolons_and_tabs_are_recognised(small, caplog):
    before, text = reading.read(small, views="both"), (small / "train.csv").read_text()
    for mark, word in ((";", "semicolons"), ("\t", "tabs")):
        (small / "train.csv").write_text(text.replace(",", mark))
        with caplog.at_level("INFO", logger="chexpert_hier.datasets"):
            assert reading.read(small, views="both").fingerprint == before.fingerprint
        assert word in caplog.text
    (small / "train.csv").write_text(text.replace(",", ";").replace("Female", "Fem;ale", 1))
    with pytest.raises(InputError, match="row 2: 20 fields; expected 19"):
        reading.read(small)


def test_columns_named_in_other_letters_and_meant_otherwise(small):
    before, text = reading.read(small, views="both"), (small / "train.csv").read_text()
    header, _, rest = text.partition("\n")
    (small / "train.csv").write_text(f"{header.lower().replace('path', 'path').replace(' ', '_')}\n{rest}")
    assert reading.read(small, views="both").fingerprint == before.fingerprint
    (small / "train.csv").write_text(f"{header.replace('Pneumonia', 'Pnuemonia')}\n{rest}")
    with pytest.raises(InputError, match=r"no column Pneumonia; .* Did you mean Pnuemonia\?"):
        reading.read(small)


def test_a_header_of_many_columns_is_checked_in_no_time(tmp_path):
    path = tmp_path / "wide.csv"
    names = [f"c{number}" for number in range(20_000)]
    path.write_text(",".join(names) + "\n" + ",".join("1" * 20_000) + "\n")
    start = time.process_time()
    tables._header(path, names, None)
    assert time.process_time() - start < 1  # 2.5 s when each name was counted in the whole header
    with pytest.raises(InputError, match="the header names c7 twice"):
        tables._header(path, [*names, "c7"], None)


def test_a_row_table_finds_films_below_another_folder_and_by_its_column_file(small, tmp_path):
    table = tmp_path / "ask.csv"
    table.write_text(f"path,View\n{film(1)},x\n")
    [row_] = reading.read_rows(table, root=small)
    assert row_.file.is_file() and row_.path == film(1) and row_.view == "Frontal"
    table.write_text("Path,File\nanything,train/patient00002/study1/view1_frontal.jpg\n")
    assert reading.read_rows(table, root=small)[0].file.is_file()
    for line, message in (("x,../secret", "its path leaves"), ("../x,a", "leaves the data folder")):
        table.write_text(f"Path,File\n{line}\n")
        with pytest.raises(InputError, match=message):
            reading.read_rows(table, root=small)
    (small / "link").symlink_to(tmp_path)
    table.write_text("Path,File\nx,link/ask.csv\n")
    with pytest.raises(InputError, match=r"row 2: x lies behind a link that leaves the data folder"):
        reading.read_rows(table, root=small)
    assert reading.read_rows(table, root=small, allow_outside=True)[0].file.is_file()


def test_names_that_no_table_can_hold_are_read_back_to_the_same_files(tmp_path):
    from chexpert_hier import paths

    names = [b"a\nb.png", b"caf\xe9.png", "x\u2028y\x85.png".encode(), b"c,d\"e.png", b"\\x41.png", b"r\r.png"]
    folder = tmp_path / "set"
    folder.mkdir()
    for name in names:
        (folder / os.fsdecode(name)).write_bytes(name)
    lines = ['Path,Patient,Cat'] + [f'"{paths.escaped("s/" + os.fsdecode(name)).replace(chr(34), chr(34) * 2)}",p{k},1'
                                    for k, name in enumerate(names)]
    (folder / "train.csv").write_text("\n".join(lines) + "\n")
    data, bad = presence.require_films(reading.read(folder, reader="csv", labels=["Cat"]))
    assert not bad and [file.read_bytes() for file in data.files] == names
    # The same names as another program writes them: raw, between quotation marks.
    raw = ['"s/' + os.fsdecode(name).replace('"', '""') + f'",p{k},1' for k, name in enumerate(names)
           if k in (0, 2, 3, 5)]
    (folder / "train.csv").write_bytes(("\n".join(["Path,Patient,Cat", *raw]) + "\n").encode())
    again = reading.read(folder, reader="csv", labels=["Cat"])
    assert [file.read_bytes() for file in again.files] == [names[k] for k in (0, 2, 3, 5)]
