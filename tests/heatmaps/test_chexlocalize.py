"""CheXlocalize's format and its two measures: made-up masks against numbers worked by hand and COCO's own decoder."""

import json

import numpy as np
import pandas as pd
import pytest

from chexpert_hier import commands
from chexpert_hier.errors import InputError
from chexpert_hier.heatmaps import chexlocalize
from chexpert_hier.heatmaps.overlays import FilmMaps, write_maps

SHAPE = (40, 60)
FILMS = [f"patient6454{k}_study1_view1_frontal" for k in range(4)]


def coded(mask):
    """COCO's compressed run lengths, written from its description (maskApi.c, rleToString)."""
    flat = np.asarray(mask, np.uint8).T.ravel()
    runs = np.diff(np.r_[0, np.flatnonzero(np.diff(np.r_[0, flat])), flat.size])
    text = ""
    for place, run in enumerate(runs):
        value, more = int(run - (runs[place - 2] if place > 2 else 0)), True
        while more:
            group, value = value & 31, value >> 5
            more = value != (-1 if group & 16 else 0)
            text += chr(48 + (group | (32 if more else 0)))
    return {"size": list(mask.shape), "counts": text}


def box(top, left, bottom, right):
    mask = np.zeros(SHAPE, bool)
    mask[top:bottom, left:right] = True
    return mask


@pytest.fixture
def files(tmp_path):
    """Truth and segmentations of four films; Airspace Opacity is their name of Lung Opacity."""
    nothing = np.zeros(SHAPE, bool)
    truth = {FILMS[0]: {"Edema": box(0, 0, 20, 30), "Airspace Opacity": box(5, 5, 15, 25)},
             FILMS[1]: {"Edema": box(10, 10, 30, 40), "Airspace Opacity": nothing},
             FILMS[2]: {"Edema": nothing, "Airspace Opacity": box(20, 20, 40, 60)},
             FILMS[3]: {"Edema": box(0, 0, 10, 10), "Airspace Opacity": nothing}}
    marked = {FILMS[0]: {"Edema": box(0, 0, 20, 15), "Airspace Opacity": box(5, 15, 15, 35)},
              FILMS[1]: {"Edema": box(10, 10, 30, 40), "Airspace Opacity": box(0, 0, 5, 5)},
              FILMS[2]: {"Edema": nothing, "Airspace Opacity": nothing}}
    for name, masks in (("gt", truth), ("pred", marked)):
        (tmp_path / f"{name}.json").write_text(json.dumps(
            {film: {label: coded(mask) for label, mask in found.items()} for film, found in masks.items()}))
    return tmp_path


def test_masks_are_cocos(files):
    own = chexlocalize.decoded
    mask = pytest.importorskip("pycocotools.mask")
    random = np.random.default_rng(0)
    for made in (box(3, 4, 9, 50), random.random(SHAPE) < 0.5, np.ones(SHAPE, bool)):
        theirs = mask.encode(np.asfortranarray(made.astype(np.uint8)))
        assert theirs["counts"].decode() == coded(made)["counts"]
        np.testing.assert_array_equal(own(theirs["counts"].decode(), *SHAPE), made)


def test_overlap_by_hand(files):
    found = chexlocalize.localisation(files / "gt.json", chexlocalize.from_segments(files / "pred.json"), draws=200)
    values = {(row.film, row.finding): row.iou for row in found.films.itertuples()}
    assert values[FILMS[0], "Edema"] == pytest.approx(300 / 600) and values[FILMS[1], "Edema"] == 1
    assert values[FILMS[0], "Lung Opacity"] == pytest.approx(100 / 300)
    assert np.isnan(values[FILMS[2], "Lung Opacity"]) and np.isnan(values[FILMS[3], "Edema"])   # nothing marked
    assert (FILMS[1], "Lung Opacity") not in values                  # not outlined: no row
    summary = found.summary.set_index("finding")
    assert summary.loc["Edema", ["films", "marked", "iou"]].tolist() == [3, 2, 0.75]
    assert summary.loc["Lung Opacity", "iou"] == pytest.approx(1 / 3)
    assert summary.loc["mean of 2", "iou"] == pytest.approx((0.75 + 1 / 3) / 2)
    assert summary["hit"].isna().all() and summary.loc["mean of 2", "films"] == 4
    assert summary.loc["Edema", "iou_low"] == 0.5 and summary.loc["Edema", "iou_high"] == 1
    whole = chexlocalize.localisation(files / "gt.json", chexlocalize.from_segments(files / "pred.json"),
                                      all_films=True, draws=0).summary.set_index("finding")
    assert whole.loc["Edema", "iou"] == pytest.approx(0.5) and whole.loc["Lung Opacity", "iou"] == pytest.approx(1 / 6)


def maps_of(film, peak, shape=SHAPE):
    """A film's map with one bright corner of its 4 x 6 cells, the crop being the whole film."""
    heat = np.zeros((2, 6, 6), np.float32)
    heat[:, peak[0], peak[1]] = 1
    patient, study, view = film.split("_", 2)
    return FilmMaps(f"CheXpert-v1.0/valid/{patient}/{study}/{view}.jpg", ("Edema", "Lung Opacity"),
                    np.array([0.5, 0.5], np.float32), heat, shape, (0, 0), 6, 6, (0.5 / 6, 1 / 6))


def test_a_maps_peak_hits_or_misses_and_is_laid_onto_the_masks_pixels(files):
    folder = files / "maps"
    folder.mkdir()
    for film, peak, shape in ((FILMS[0], (1, 1), SHAPE), (FILMS[1], (5, 5), SHAPE), (FILMS[2], (4, 4), (20, 30))):
        write_maps(folder / f"{film}.npz", maps_of(film, peak, shape))
    found = chexlocalize.localisation(files / "gt.json", chexlocalize.from_maps(folder, 0.5), draws=50)
    values = {(row.film, row.finding): row for row in found.films.itertuples()}
    assert set(values) == {(FILMS[0], "Edema"), (FILMS[0], "Lung Opacity"), (FILMS[1], "Edema"),
                           (FILMS[2], "Lung Opacity")}               # the fourth film has no maps
    assert values[FILMS[0], "Edema"].hit == values[FILMS[0], "Lung Opacity"].hit == 1
    assert values[FILMS[1], "Edema"].hit == 0 and values[FILMS[1], "Edema"].iou == 0
    assert values[FILMS[2], "Lung Opacity"].hit == 1                 # a -small film: half the size, the same place
    heat = maps_of(FILMS[0], (1, 1)).on_film("Edema")               # from 0 to 1
    heat = (heat - heat.min()) / (heat.max() - heat.min())
    region = box(0, 0, 20, 30)
    assert values[FILMS[0], "Edema"].iou == pytest.approx(((heat > 0.5) & region).sum() / ((heat > 0.5) | region).sum())
    summary = found.summary.set_index("finding")
    assert summary.loc["Edema", "hit"] == 0.5 and summary.loc["Lung Opacity", "hit"] == 1
    tuned = chexlocalize.localisation(files / "gt.json", chexlocalize.from_maps(folder, {"Edema": 0.9}), draws=0)
    assert tuned.films["iou"].iloc[0] < found.films["iou"].iloc[0]


def test_films_of_another_form_are_refused(files):
    (files / "maps").mkdir()
    write_maps(files / "maps" / "a.npz", maps_of(FILMS[0], (1, 1), (40, 40)))
    with pytest.raises(InputError, match="expected the same film, whole"):
        chexlocalize.localisation(files / "gt.json", chexlocalize.from_maps(files / "maps"))


def test_films_are_drawn_together_for_all_findings(files):
    values = np.array([[1, np.nan], [0, 1], [np.nan, 0], [1, 1.0]])
    drawn = chexlocalize._drawn(values, 400, 3)
    np.testing.assert_allclose(drawn[:, 2], np.nanmean(drawn[:, :2], axis=1))
    random = np.random.default_rng(3)
    for draw in range(5):
        chosen = values[random.integers(0, 4, 4)]
        np.testing.assert_allclose(drawn[draw, :2], [np.nanmean(chosen[:, k]) if np.isfinite(chosen[:, k]).any()
                                                     else np.nan for k in (0, 1)])


def test_the_command_writes_both_tables(files, capsys):
    ask = ["--masks", str(files / "gt.json"), "--segments", str(files / "pred.json"), "--out", str(files / "out")]
    assert commands.answer(chexlocalize.main, ask) == 0
    shown = capsys.readouterr().out
    assert "Edema             3  –" in shown and "0.750 (0.500 to 1.000)" in shown
    table = pd.read_csv(files / "out" / "localisation.csv")
    assert table["finding"].tolist() == ["Edema", "Lung Opacity", "mean of 2"]
    assert len(pd.read_csv(files / "out" / "localisation_films.csv")) == 5


@pytest.mark.parametrize(("changes", "words"), [
    ({"--masks": "none.json"}, "cannot be read"), ({"--masks": "text.json"}, "no JSON"),
    ({"--masks": "list.json"}, "expected CheXlocalize's masks"), ({"--masks": "odd.json"}, "expected {size, counts}"),
    ({"--segments": "other.json"}, "expected the same film"), ({"--draws": "-1"}, "0 or more"),
    ({"--segments": None, "--maps": "."}, "no maps there"),
    ({"--segments": None, "--maps": ".", "--threshold": "2"}, "is none; expected otsu")])
def test_mistakes_are_one_line(files, monkeypatch, capsys, changes, words):
    monkeypatch.chdir(files)
    (files / "text.json").write_text("masks")
    (files / "list.json").write_text("[1]")
    (files / "odd.json").write_text(json.dumps({FILMS[0]: {"Edema": {"size": [4, 4], "counts": "zz"}}}))
    (files / "other.json").write_text(json.dumps({FILMS[0]: {"Edema": coded(np.ones((3, 3), bool))}}))
    ask = {"--masks": "gt.json", "--segments": "pred.json", "--out": "out"} | changes
    argv = [word for name, value in ask.items() if value is not None for word in (name, value)]
    assert commands.answer(chexlocalize.main, argv) == 2
    error = capsys.readouterr().err.strip()
    assert words in error and "\n" not in error and not (files / "out").exists()


def test_tuned_thresholds_are_read_by_task(tmp_path):
    (tmp_path / "t.csv").write_text("threshold,task\n0.4,Airspace Opacity\n0.2,Edema\n")
    assert chexlocalize.read_thresholds(str(tmp_path / "t.csv")) == {"Lung Opacity": 0.4, "Edema": 0.2}
    assert chexlocalize.read_thresholds("0.3") == 0.3 and chexlocalize.read_thresholds("otsu") == "otsu"
    assert chexlocalize.film_id("test/patient1/study2/view1_lateral.png") == "patient1_study2_view1_lateral"
    assert chexlocalize.film_id("film.png") == "film.png"
