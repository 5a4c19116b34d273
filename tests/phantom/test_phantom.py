"""The phantom: CheXpert's layout and statistics, same seed same bytes, masks, whole or not at all."""

import hashlib
import json
import re
import subprocess
import sys
import time

import cv2
import numpy as np
import pandas as pd
import pytest

from chexpert_hier import hierarchy, labels, recipes
from chexpert_hier.datasets import reading
from chexpert_hier.errors import InputError
from chexpert_hier.phantom import __main__ as phantom_command
from chexpert_hier.phantom import making
from chexpert_hier.phantom.films import Film, curve
from chexpert_hier.phantom.frontal import render_frontal
from chexpert_hier.phantom.lateral import render_lateral
from chexpert_hier.phantom.reports import FINDINGS, draw_studies
from chexpert_hier.phantom.signs import draw_anatomy, draw_signs

NAMES = list(labels.CHEXPERT_LABELS)
SMALL = {"patients": 6, "valid_patients": 3, "seed": 5, "most_studies": 2}


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return making.make(tmp_path_factory.mktemp("phantoms") / "small", **SMALL, processes=1)


@pytest.fixture(scope="module")
def studies():
    """Truth (n, 14), reports (n, 14) and the studies of 2,500 patients."""
    drawn = [study for patient in range(2500)
             for study in draw_studies(np.random.default_rng([9, patient]), 3, 1.0, True)[1]]
    return np.stack([s.truth for s in drawn]), np.stack([s.report for s in drawn]), drawn


def read(folder, name):
    return pd.read_csv(folder / name)


def hashes(folder, kinds=(".jpg", ".png", ".csv")):
    return {str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest()
            for file in sorted(folder.rglob("*")) if file.suffix in kinds}


def test_files_lie_as_in_chexpert(small):
    pattern = re.compile(r"small/(train|valid)/patient\d{5}/study\d+/view\d+_(frontal|lateral)\.jpg")
    for name in ("train.csv", "valid.csv", "train_truth.csv"):
        table = read(small, name)
        assert list(table.columns) == ["Path", "Sex", "Age", "Frontal/Lateral", "AP/PA", *NAMES]
        for row in table.itertuples():
            assert pattern.fullmatch(row.Path)
            film = cv2.imread(str(small.parent / row.Path), cv2.IMREAD_UNCHANGED)
            assert film.dtype == np.uint8 and film.ndim == 2 and min(film.shape) == 320 and max(film.shape) <= 420
    patients = [set(read(small, name)["Path"].str.extract(r"(patient\d+)")[0]) for name in ("train.csv", "valid.csv")]
    assert [len(each) for each in patients] == [6, 3] and not patients[0] & patients[1]


def test_hbce_finds_its_tables_and_a_test_split_of_other_patients(tmp_path):
    made = making.make(tmp_path / "all", patients=4, valid_patients=2, test_patients=3, seed=5, most_studies=1)
    recipe = recipes.named("hbce")
    both = reading.read(made, labels=recipe.outputs, train_file=recipe.train_file, views=recipe.views)
    patients = {split: set(both.split(split).films["patient"]) for split in ("train", "valid", "test")}
    assert [len(each) for each in patients.values()] == [4, 2, 3] and len(set.union(*patients.values())) == 9
    assert set(np.unique(both.codes)) == {0.0, 1.0}  # VisualCheXbert's labels: nothing blank, nothing uncertain
    assert (made / recipe.train_file).read_bytes() == (made / "train_truth.csv").read_bytes()
    plain = making.make(tmp_path / "plain" / "all", patients=4, valid_patients=2, seed=5, most_studies=1)
    shared = [name for name in hashes(made) if not name.startswith(("test", "masks/test"))]
    assert hashes(plain) == {name: hashes(made)[name] for name in shared}


def test_truth_is_complete_and_reports_are_codes(small):
    train, truth, valid = (read(small, name) for name in ("train.csv", "train_truth.csv", "valid.csv"))
    assert list(train["Path"]) == list(truth["Path"])
    assert set(np.unique(truth[NAMES])) | set(np.unique(valid[NAMES])) <= {0.0, 1.0}
    codes = train[NAMES].to_numpy()
    assert set(np.unique(codes[~np.isnan(codes)])) <= {-1.0, 0.0, 1.0} and np.isnan(codes).any()
    study = train["Path"].str.rsplit("/", n=1).str[0]
    assert (train[NAMES].fillna(9).groupby(study).nunique() == 1).all().all()  # all views carry the same labels


def test_same_seed_same_bytes_whatever_the_processes(small, tmp_path):
    again = making.make(tmp_path / "small", **SMALL, processes=2)
    assert hashes(again) == hashes(small)
    other = making.make(tmp_path / "other" / "small", **{**SMALL, "seed": 6}, processes=1)
    assert not set(hashes(other, [".jpg"]).values()) & set(hashes(small, [".jpg"]).values())


def test_many_processes_draw_the_bytes_of_one(tmp_path):
    settings = {"patients": 39, "valid_patients": 2, "seed": 1, "most_studies": 1, "laterals": False}
    two = making.make(tmp_path / "a" / "x", **settings, processes=2)  # from 40 patients on in parallel
    one = making.make(tmp_path / "b" / "x", **settings, processes=1)
    assert hashes(one) == hashes(two)


def test_a_present_finding_has_a_mask_and_an_absent_one_none(small):
    present = missed = 0
    for table in (read(small, "train_truth.csv"), read(small, "valid.csv")):
        for _, row in table.iterrows():
            film = small.parent / row["Path"]
            masks = making.read_masks(film)
            height, width = cv2.imread(str(film), cv2.IMREAD_GRAYSCALE).shape
            assert masks.shape == (13, (height + 1) // 2, (width + 1) // 2) and masks.dtype == bool
            drawn = masks.any(axis=(1, 2))
            truth = row[list(FINDINGS)].to_numpy(float) == 1
            assert not (drawn & ~truth).any()
            present, missed = present + truth.sum(), missed + (truth & ~drawn).sum()
    assert present > 20 and missed <= 0.05 * present  # a rib may be broken outside the film


@pytest.mark.parametrize("finding", FINDINGS)
def test_each_finding_changes_the_film_where_its_mask_says(finding):
    """With and without the finding, all else equal: the film changes, and more inside the mask than far from it."""
    inside, outside, marked = [], [], 0
    for patient in range(8):
        films = []
        for present in (False, True):
            truth = np.array([float(name == finding and present) for name in NAMES])
            signs = draw_signs(np.random.default_rng([patient, 3]), truth)
            anatomy = draw_anatomy(np.random.default_rng([patient, 0]), "Male")
            films.append(render_frontal(np.random.default_rng([patient, 1]), anatomy, signs, "PA"))
        (without, empty), (film, bits) = films
        assert not empty.any() and film.shape == without.shape
        mask = cv2.resize((bits > 0).astype(np.uint8), film.shape[::-1], interpolation=cv2.INTER_NEAREST) > 0
        marked += mask.any()
        change = cv2.absdiff(film, without).astype(float)
        if mask.any():
            inside.append(change[mask].mean())
            outside.append(change[~mask].mean())
    assert marked >= 7
    assert np.mean(inside) > 2 and np.mean(inside) > 1.3 * np.mean(outside)


def test_lung_opacity_is_drawn_as_the_union_of_what_lies_below_it():
    truth = np.array([float(name in ("Lung Opacity", "Edema")) for name in NAMES])
    anatomy = draw_anatomy(np.random.default_rng(0), "Female")
    for draw in (lambda signs: render_frontal(np.random.default_rng(1), anatomy, signs, "AP"),
                 lambda signs: render_lateral(np.random.default_rng(1), anatomy, signs)):
        bits = draw(draw_signs(np.random.default_rng(2), truth))[1]
        edema, opacity = (bits >> FINDINGS.index(name) & 1 for name in ("Edema", "Lung Opacity"))
        assert edema.any() and (opacity == edema).all()


def test_clean_states_are_closed_under_the_tree(studies):
    truth, _, _ = studies
    tree = hierarchy.CHEXPERT_TREE
    for child, name in enumerate(tree.labels):
        for parent in np.flatnonzero(tree.ancestors[child]):
            row, above = truth[:, NAMES.index(name)], truth[:, NAMES.index(tree.labels[parent])]
            assert not ((row == 1) & (above == 0)).any()
    others = [NAMES.index(name) for name in FINDINGS if name != "Support Devices"]
    assert not (truth[:, 0].astype(bool) & truth[:, others].any(axis=1)).any()


# CheXpert's frontal training films, shares of positive and uncertain labels (Irvin et al. 2019, counted in train.csv),
# and how far the phantom may be away: rare findings are more frequent here on purpose.
@pytest.mark.parametrize(("name", "positive", "uncertain", "within"), [
    ("No Finding", 0.089, 0.0, 0.03), ("Enlarged Cardiomediastinum", 0.048, 0.054, 0.02),
    ("Cardiomegaly", 0.122, 0.035, 0.03), ("Lung Opacity", 0.493, 0.023, 0.05), ("Lung Lesion", 0.037, 0.006, 0.02),
    ("Edema", 0.260, 0.062, 0.03), ("Consolidation", 0.068, 0.128, 0.02), ("Pneumonia", 0.024, 0.084, 0.02),
    ("Atelectasis", 0.156, 0.156, 0.03), ("Pneumothorax", 0.093, 0.014, 0.02),
    ("Pleural Effusion", 0.403, 0.050, 0.04), ("Pleural Other", 0.013, 0.009, 0.01),
    ("Fracture", 0.039, 0.003, 0.02), ("Support Devices", 0.561, 0.005, 0.07)])
def test_report_labels_are_as_frequent_as_in_chexpert(studies, name, positive, uncertain, within):
    column = studies[1][:, NAMES.index(name)]
    assert np.mean(column == 1) == pytest.approx(positive, abs=within)
    assert np.mean(column == -1) == pytest.approx(uncertain, abs=within)


# Rates between the two radiologist-labelled sets, counted, given the condition.
@pytest.mark.parametrize(("name", "given", "low", "high"), [
    ("Cardiomegaly", "Enlarged Cardiomediastinum", 0.56, 0.67), ("Edema", "Lung Opacity", 0.28, 0.42),
    ("Consolidation", "Lung Opacity", 0.11, 0.30), ("Pneumonia", "Consolidation", 0.22, 0.42),
    ("Atelectasis", "Lung Opacity", 0.56, 0.68), ("Lung Opacity", "Pleural Effusion", 0.86, 0.95),
    ("Enlarged Cardiomediastinum", "Lung Opacity", 0.6, 0.72),
    ("Lung Opacity", "Enlarged Cardiomediastinum", 0.64, 0.76)])
def test_clean_rates_are_a_radiologists(studies, name, given, low, high):
    truth = studies[0]
    assert low < truth[truth[:, NAMES.index(given)] == 1][:, NAMES.index(name)].mean() < high


# P(parent named | child positive) and P(second uncertain | first uncertain) (counted in train.csv), within 0.12.
@pytest.mark.parametrize(("name", "code", "given", "given_code", "share"), [
    ("Lung Opacity", 1, "Edema", 1, 0.529), ("Lung Opacity", 1, "Atelectasis", 1, 0.425),
    ("Lung Opacity", 1, "Consolidation", 1, 0.377), ("Enlarged Cardiomediastinum", 1, "Cardiomegaly", 1, 0.068),
    ("Atelectasis", -1, "Consolidation", -1, 0.750), ("Consolidation", -1, "Atelectasis", -1, 0.613),
    ("Edema", -1, "Pneumonia", -1, 0.276)])
def test_reports_omit_parents_and_share_doubts(studies, name, code, given, given_code, share):
    report = studies[1]
    rows = report[report[:, NAMES.index(given)] == given_code]
    assert np.mean(rows[:, NAMES.index(name)] == code) == pytest.approx(share, abs=0.12)


def test_no_finding_only_without_findings(studies):
    report = studies[1]
    others = [NAMES.index(name) for name in FINDINGS if name != "Support Devices"]
    assert not ((report[:, 0] == 1) & (np.abs(np.nan_to_num(report[:, others])) == 1).any(axis=1)).any()
    assert set(np.unique(report[~np.isnan(report[:, 0]), 0])) == {1.0}  # 1 or blank


def test_uncertain_labels_per_report(studies):
    uncertain = (studies[1] == -1).sum(axis=1)
    assert np.mean(uncertain == 0) == pytest.approx(0.619, abs=0.06)
    assert np.mean(uncertain == 2) == pytest.approx(0.151, abs=0.04)


def test_views_projections_and_ages(studies):
    drawn = studies[2]
    assert np.mean([s.projection == "PA" for s in drawn]) == pytest.approx(0.154, abs=0.03)
    assert np.mean(["L" in s.views for s in drawn]) == pytest.approx(0.1675, abs=0.03)
    ages = np.array([s.age for s in drawn])
    assert ages.mean() == pytest.approx(60.4, abs=2) and ages.min() >= 18 and ages.max() <= 90


def test_no_report_noise_means_no_wrong_and_no_uncertain_label():
    for patient in range(60):
        for study in draw_studies(np.random.default_rng(patient), 3, 0.0, True)[1]:
            said = ~np.isnan(study.report)
            assert (study.report[said] == study.truth[said]).all()
            assert (study.report[study.truth == 1] == 1).all()


def test_without_laterals_every_study_keeps_a_frontal(tmp_path):
    out = making.make(tmp_path / "frontal", **SMALL, laterals=False, processes=1)
    assert set(read(out, "train.csv")["Frontal/Lateral"]) == {"Frontal"}


def test_ensure_makes_once_and_anew_when_the_generator_changes(tmp_path, monkeypatch):
    made = making.ensure(tmp_path / "auto", processes=1, patients=2, valid_patients=1, most_studies=1)
    stamp = (made / making.MARKER).stat().st_mtime_ns
    assert making.ensure(made, patients=2, valid_patients=1, most_studies=1) == made
    assert (made / making.MARKER).stat().st_mtime_ns == stamp
    monkeypatch.setattr(making, "GENERATOR_VERSION", 10**6)
    making.ensure(made, patients=2, valid_patients=1, most_studies=1, processes=1)
    assert json.loads((made / making.MARKER).read_text())["version"] == 10**6
    assert [file.name for file in tmp_path.iterdir()] == ["auto"]


def test_an_interrupted_phantom_leaves_nothing(tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(making, "_write_film", interrupt)
    with pytest.raises(KeyboardInterrupt):
        making.make(tmp_path / "broken", patients=2, valid_patients=0, processes=1)
    assert not list(tmp_path.iterdir())


def test_what_a_killed_phantom_left_goes_with_the_next_one_but_nothing_that_is_in_use(tmp_path):
    """kill -9 in the middle; at once the next one; then two at the same time."""
    out, part = tmp_path / "phantom", tmp_path / ".phantom.part"
    words = [sys.executable, "-m", "chexpert_hier.phantom", "--out", str(out), "--patients", "39", "--valid-patients",
             "0", "--no-laterals", "--processes", "1"]
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while not list(part.rglob("*.jpg")):
            assert process.poll() is None
            time.sleep(0.01)
        with pytest.raises(InputError, match="another process"):
            making.make(out, patients=3, valid_patients=0)
        assert list(part.rglob("*.jpg")) and process.poll() is None
    finally:
        process.kill()
        process.wait()
    assert not out.exists() and part.exists()
    making.make(out, patients=3, valid_patients=0, processes=1)
    assert [path.name for path in tmp_path.iterdir()] == ["phantom"]
    assert not [path for path in out.rglob("*") if path.name.startswith(".")]


def test_a_folder_with_other_files_is_not_touched(tmp_path):
    (tmp_path / "thesis.txt").write_text("three years of work")
    with pytest.raises(InputError, match="no phantom"):
        making.make(tmp_path, patients=1, valid_patients=0)
    assert (tmp_path / "thesis.txt").read_text() == "three years of work"


@pytest.mark.parametrize(("settings", "words"), [
    ({"patients": 0}, "patients is 0"), ({"report_noise": -1.0}, "report_noise"), ({"colour": 1}, "colour")])
def test_settings_out_of_range_are_one_line(tmp_path, settings, words):
    with pytest.raises(InputError, match=words):
        making.ensure(tmp_path / "x", **settings)


def test_the_command_says_where_and_that_it_is_synthetic(tmp_path, capsys):
    arguments = ["--out", str(tmp_path / "p"), "--patients", "2", "--valid-patients", "1", "--seed", "3"]
    assert phantom_command.main([*arguments, "--most-studies", "1", "--processes", "1"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("drawing 2 training, 1 validation and 1 test patients\n")
    assert str(tmp_path / "p") in said and "synthetic" in said
    with pytest.raises(InputError, match="already"):
        phantom_command.main(arguments)


def test_masks_of_a_strange_file_are_refused(tmp_path):
    (tmp_path / "x.png").write_bytes(b"no image")
    with pytest.raises(InputError, match="16-bit mask"):
        making.read_masks(tmp_path / "x.png")


def test_curve_passes_through_its_points_and_film_coordinates_return():
    points = np.array([[0.0, 0.0], [1.0, 2.0], [3.0, 1.0]])
    smooth = curve(points, per_point=5)
    assert all(np.abs(smooth - point).sum(axis=1).min() < 1e-12 for point in points)
    film = Film(np.random.default_rng(0), (320, 390), 1.1, 7.0, (0.1, -0.05))
    row, column = 40, 60
    place = np.array([[film.x[row, column], film.y[row, column]]])
    assert film.pixels(place, half=True)[0, 0] / 16 == pytest.approx([column, row], abs=0.05)
