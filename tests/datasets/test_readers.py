"""Every row of READERS on a small table in its exact layout, and what each bridge to CheXpert's labels decides."""

import json

import layouts
import numpy as np
import pytest

from chexpert_hier import datasets
from chexpert_hier.datasets import __main__ as command
from chexpert_hier.datasets import (
    bridge,
    checks,
    chexlocalize,
    openi,
    padchest,
    presence,
    readers,
    reading,
    rsna,
    vindr,
)
from chexpert_hier.errors import InputError
from chexpert_hier.labels import CHEXPERT_LABELS, targets

AT = {label: place for place, label in enumerate(CHEXPERT_LABELS)}
NAN = np.nan


def made(tmp_path, name, layout=None):
    folder = tmp_path / name
    folder.mkdir()
    (layout or layouts.LAYOUTS[name])(folder)
    return folder


def labels_of(name):
    return ("Dog", "Cat") if name == "csv" else None


@pytest.mark.parametrize("name", reading.READERS)
def test_every_reader_reads_its_layout(tmp_path, name):
    assert name in layouts.LAYOUTS, "a new reader needs a small made-up data set in its exact layout"
    folder = made(tmp_path, name)
    data = reading.read(folder, reader=name, labels=labels_of(name), views="both")
    _, bad = presence.require_films(data, skip_bad=True)
    assert bad == [] and len({file.read_bytes() for file in data.files}) == len(data)  # each its own file
    films = data.films
    assert set(films["view"]) <= {"Frontal", "Lateral"} and set(films["projection"]) <= {"AP", "PA", "LL", "RL", ""}
    assert set(films["sex"]) <= {"Male", "Female", "Unknown"} and set(films["split"]) <= {"train", "valid", "test"}
    assert films["age"].dtype == np.float32 and (films[["path", "patient", "study", "table"]] != "").all(axis=None)
    assert len(set(data.keys)) == len(data) and films.groupby("patient")["split"].nunique().max() == 1
    assert data.raw.dtype == np.float32 and set(np.unique(data.raw[~np.isnan(data.raw)])) <= {1, 0, -1}
    assert np.isnan(data.raw[~data.known]).all()
    assert (np.unique(data.raw[~np.isnan(data.raw)]) != 0).any()  # something is present or uncertain
    assert data.fingerprint == reading.read(folder, reader=name, labels=labels_of(name), views="both").fingerprint


@pytest.mark.parametrize("name", reading.READERS)
def test_what_is_unknown_never_becomes_negative(tmp_path, name):
    data = reading.read(made(tmp_path, name), reader=name, labels=labels_of(name), views="both")
    for policy in ("u-ones+ct+lsr", "u-zeros", "u-ignore"):
        made_of = targets(data.codes, data.keys, data.labels, policy)
        np.testing.assert_array_equal(np.isnan(made_of), ~data.known | ((policy == "u-ignore") & (data.raw == -1)))


@pytest.mark.parametrize("name", [name for name in reading.READERS if name not in ("csv", "chestxray14")])
def test_every_reader_gives_some_of_chexperts_labels(tmp_path, name):
    folder = made(tmp_path, name)
    whole = reading.read(folder, reader=name, views="both")
    two = reading.read(folder, reader=name, labels=["Edema", "Pneumonia"], views="both")
    assert whole.labels == CHEXPERT_LABELS and two.labels == ("Edema", "Pneumonia")
    np.testing.assert_array_equal(two.raw, whole.raw[:, [AT["Edema"], AT["Pneumonia"]]])
    np.testing.assert_array_equal(two.known, whole.known[:, [AT["Edema"], AT["Pneumonia"]]])
    with pytest.raises(InputError, match="Flu"):
        reading.read(folder, reader=name, labels=["Flu"])


@pytest.mark.parametrize("name", reading.READERS)
def test_every_reader_refuses_an_empty_folder_in_one_line(tmp_path, name):
    with pytest.raises(InputError, match=r"no .* in this folder|no .* there|is this") as caught:
        reading.read(tmp_path, reader=name, labels=labels_of(name))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", reading.READERS)
def test_the_command_checks_every_layout(tmp_path, name, capsys):
    folder = made(tmp_path, name)
    extra = ["--labels", "Dog,Cat"] if name == "csv" else []
    assert command.main([str(folder), "--reader", name, "--tables-only", *extra]) == 0
    out = capsys.readouterr().out
    assert "0 kinds of errors" in out
    if reading.READERS[name].films:
        assert f"{reading.READERS[name].films:,} films" in out


def test_a_new_row_of_readers_is_picked_up(tmp_path, monkeypatch, capsys):
    def mine(folder, options, problems):
        return readers.chexpert(folder, options, problems)

    monkeypatch.setattr(reading, "READERS", {**reading.READERS, "mine": reading.Reader(mine)})
    folder = made(tmp_path, "chexpert")
    assert datasets.read(folder, reader="mine").fingerprint == datasets.read(folder).fingerprint
    assert command.main([str(folder), "--reader", "mine", "--tables-only"]) == 0
    with pytest.raises(InputError, match="mine"):
        reading.read(folder, reader="yours")


@pytest.mark.parametrize("module", [padchest, vindr, openi, rsna])
def test_bridges_name_their_sources(module):
    assert set(module.BRIDGE) <= set(CHEXPERT_LABELS)
    assert all(row.own and len(row.source) > 10 and len(set(row.own)) == len(row.own) for row in module.BRIDGE.values())


def test_bridged_by_hand():
    rows = {"Edema": bridge.Row(("a", "b"), True, ""), "Fracture": bridge.Row(("b",), False, "")}
    codes = np.array([[1, 0], [0, 0], [0, 1], [-1, 0], [NAN, 0], [NAN, NAN]], np.float32)
    found = bridge.bridged(codes, ("a", "b"), rows, ("Edema", "Fracture", "Pneumonia", "Support Devices"),
                           normal=np.array([0, 1, 0, 0, 0, 0], bool))
    np.testing.assert_array_equal(found.raw, [[1, NAN, NAN, NAN], [0, 0, 0, NAN], [1, 1, NAN, NAN],
                                              [-1, NAN, NAN, NAN], [NAN, NAN, NAN, NAN], [NAN, NAN, NAN, NAN]])
    np.testing.assert_array_equal(found.unknown, [[0, 1, 1, 1], [0, 0, 0, 1], [0, 0, 1, 1], [0, 1, 1, 1], [0, 1, 1, 1],
                                                  [0, 0, 1, 1]])


# ------------------------------------------------------------------------------------------- each data set

def cells(data, film, *labels):
    """Codes of a film and whether they are known, as [(code, known), ...]."""
    return [(float(data.raw[film, AT[label]]), bool(data.known[film, AT[label]])) for label in labels]


def same(found, expected):
    np.testing.assert_array_equal(np.array(found, float), np.array(expected, float))


def test_padchest(tmp_path):
    data = reading.read(made(tmp_path, "padchest"), reader="padchest", views="both")
    assert len(data) == 30 - 4  # excluded, two without labels, one rib projection
    assert data.films["view"].tolist().count("Lateral") == 1 and data.films["age"][0] == 84
    names = data.films["path"].str.extract(r"128(\d\d)_")[0].astype(int).tolist()
    at = {number: place for place, number in enumerate(names)}
    assert data.films["projection"][at[12]] == "AP" and data.films["file"][at[4]].startswith("1/")
    same(cells(data, at[0], "No Finding", "Edema", "Fracture", "Support Devices"), [(1, 1), (0, 1), (0, 1), (0, 1)])
    same(cells(data, at[1], "No Finding", "Pleural Effusion", "Atelectasis", "Lung Opacity", "Edema"),
         [(0, 1), (1, 1), (1, 1), (1, 1), (NAN, 1)])  # silence is blank
    same(cells(data, at[2], "No Finding", "Edema"), [(NAN, 0), (NAN, 0)])  # only compared: silence is unknown
    same(cells(data, at[3], "Cardiomegaly", "Enlarged Cardiomediastinum", "Edema"), [(1, 1), (1, 1), (NAN, 0)])
    same(cells(data, at[4], "No Finding", "Support Devices", "Edema"), [(NAN, 1), (1, 1), (NAN, 1)])
    same(cells(data, at[5], "No Finding", "Lung Lesion", "Edema"), [(0, 1), (1, 1), (NAN, 1)])  # not normal after all
    same(cells(data, at[9], "No Finding", "Lung Lesion"), [(0, 1), (NAN, 1)])  # scoliosis is something
    own = reading.read(data.root, reader="padchest", labels=["laminar atelectasis", "scoliosis"], views="both")
    np.testing.assert_array_equal(own.raw[[at[0], at[1], at[9]]], [[0, 0], [1, NAN], [NAN, 1]])


def test_padchest_faults(tmp_path):
    folder = made(tmp_path, "padchest")
    path = folder / padchest.TABLE
    import gzip

    text = gzip.decompress((folder / f"{padchest.TABLE}.gz").read_bytes()).decode()
    path.write_text(text.replace("['scoliosis']", "scoliosis"))
    with pytest.raises(InputError, match=r"row 11: Labels is 'scoliosis'; expected a list"):
        reading.read(folder, reader="padchest")
    path.write_text(text.replace("Labels,Local", "Etiquetas,Local"))
    with pytest.raises(InputError, match="no column Labels"):
        reading.read(folder, reader="padchest")


def test_vindr(tmp_path):
    data = reading.read(made(tmp_path, "vindr"), reader="vindr")
    assert [len(data.split(name)) for name in datasets.SPLITS] == [18, 2, 1]
    assert (data.films["projection"] == "PA").all()
    at = {path[-2:]: place for place, path in enumerate(data.films["path"])}
    same(cells(data, at["00"], "No Finding", "Edema", "Pleural Other", "Fracture", "Support Devices"),
         [(1, 1), (0, 1), (0, 1), (0, 1), (NAN, 0)])
    same(cells(data, at["01"], "No Finding", "Cardiomegaly", "Enlarged Cardiomediastinum", "Edema", "Pleural Other"),
         [(0, 1), (1, 1), (1, 1), (0, 1), (NAN, 0)])  # two of three readers
    same(cells(data, at["02"], "No Finding", "Lung Lesion", "Lung Opacity"), [(1, 1), (0, 1), (0, 1)])  # one of three
    same(cells(data, at["03"], "Fracture", "Cardiomegaly", "Enlarged Cardiomediastinum"), [(1, 1), (0, 1), (NAN, 0)])
    same(cells(data, at["63"], "Pleural Effusion", "Lung Opacity", "Fracture"), [(1, 1), (1, 1), (NAN, 0)])
    own = reading.read(data.root, reader="vindr", labels=["Other diseases", "Rib fracture"])
    np.testing.assert_array_equal(own.raw[at["03"]], [0, 1])


def test_vindr_as_kaggle_gave_it(tmp_path):
    data = reading.read(made(tmp_path, "kaggle", layouts.vindr_kaggle), reader="vindr")
    assert len(data) == 21 and presence.require_films(data)[1] == []
    at = {path[-2:]: place for place, path in enumerate(data.films["path"])}
    same(cells(data, at["32"], "Cardiomegaly", "Lung Lesion", "No Finding", "Edema", "Pneumothorax"),
         [(1, 1), (NAN, 0), (0, 1), (NAN, 0), (0, 1)])  # two readers, three boxes; a mass by one of three
    same(cells(data, at["00"], "No Finding", "Cardiomegaly", "Lung Opacity", "Pneumonia"),
         [(1, 1), (0, 1), (NAN, 0), (NAN, 0)])


def test_rsna_and_its_patients(tmp_path):
    folder = made(tmp_path, "rsna")
    data = reading.read(folder, reader="rsna")
    assert len(data) == 24 and data.films["patient"].nunique() == 12 and data.films["patient"][3] == "1"
    same(cells(data, 0, "Pneumonia", "Lung Opacity", "No Finding", "Edema"), [(1, 1), (1, 1), (0, 1), (NAN, 0)])
    same(cells(data, 1, "Pneumonia", "Lung Opacity", "No Finding", "Edema", "Support Devices"),
         [(0, 1), (0, 1), (1, 1), (0, 1), (NAN, 0)])
    same(cells(data, 2, "Pneumonia", "Lung Opacity", "No Finding", "Edema"), [(0, 1), (NAN, 0), (0, 1), (NAN, 0)])
    (folder / rsna.MAPPING).write_text("{}[")
    with pytest.raises(InputError, match="expected RSNA's mapping"):
        reading.read(folder, reader="rsna")
    (folder / rsna.MAPPING).unlink()
    assert reading.read(folder, reader="rsna").films["patient"].nunique() == 24
    text = (folder / rsna.TABLE).read_text()
    (folder / rsna.TABLE).write_text(text.replace(",,,,,0", ",,,,,1", 1))
    with pytest.raises(InputError, match=r"row 4: Target is '1', .* says 'Normal'"):
        reading.read(folder, reader="rsna")


def test_brax(tmp_path):
    data = reading.read(made(tmp_path, "brax"), reader="brax", views="both")
    assert len(data) == 14 and data.films["view"].tolist().count("Lateral") == 7  # decubitus and unnamed views are out
    assert data.films["age"][0] == 85 and data.films["patient"][0].startswith("id_")
    same(cells(data, 0, "Edema", "Fracture", "Pneumonia", "Atelectasis"), [(1, 1), (-1, 1), (0, 1), (NAN, 1)])


@pytest.mark.parametrize("layout", [layouts.openi, layouts.openi_xml])
def test_openi(tmp_path, layout):
    data = reading.read(made(tmp_path, "openi", layout), reader="openi")
    assert len(data) == 22 and presence.require_films(data)[1] == []
    same(cells(data, 0, "No Finding", "Edema", "Support Devices"), [(1, 1), (0, 1), (0, 1)])
    same(cells(data, 1, "Cardiomegaly", "Enlarged Cardiomediastinum", "No Finding", "Edema"),
         [(-1, 1), (-1, 1), (0, 1), (NAN, 1)])  # borderline
    same(cells(data, 2, "Lung Opacity", "Atelectasis"), [(1, 1), (1, 1)])
    same(cells(data, 3, "No Finding", "Edema"), [(NAN, 0), (NAN, 0)])  # not indexed
    same(cells(data, 4, "Pleural Other", "Lung Opacity"), [(1, 1), (NAN, 1)])  # an opacity of ribs is none of the lung
    same(cells(data, 5, "Support Devices", "No Finding"), [(1, 1), (NAN, 1)])


def test_chexpertplus(tmp_path):
    folder = made(tmp_path, "chexpertplus")
    data = reading.read(folder, reader="chexpertplus", views="both")
    assert [len(data.split(name)) for name in datasets.SPLITS] == [4, 2, 0]
    assert data.films["patient"][0] == "patient00001"
    assert data.films["projection"].tolist() == ["AP", ""] * 3 and (data.films["age"] == 68).all()
    same(cells(data, 0, "Edema", "Fracture", "Pneumonia", "Atelectasis"), [(1, 1), (-1, 1), (0, 1), (NAN, 1)])
    impression = reading.read(folder, reader="chexpertplus", train_file="impression_fixed.json")
    same(cells(impression, 0, "Edema"), [(0, 1)])
    with pytest.raises(InputError, match=r"findings_fixed.json"):
        reading.read(folder, reader="chexpertplus", train_file="findings_fixed.json")
    path = folder / "chexbert_labels/report_fixed.json"
    entry = json.loads(path.read_text().splitlines()[1])
    path.write_text(path.read_text().splitlines()[0] + "\n" + json.dumps({**entry, "Edema": 7}) + "\n")
    with pytest.raises(InputError, match=r"line 2: a label is 7.0; expected 1, 0, -1 or null"):
        reading.read(folder, reader="chexpertplus")


def test_chexlocalize(tmp_path):
    folder = made(tmp_path, "chexlocalize")
    data = reading.read(folder, reader="chexlocalize")
    assert [len(data.split(name)) for name in datasets.SPLITS] == [0, 2, 2]
    assert data.films["path"][2] == "test/patient64741/study1/view1_frontal.jpg"
    [mask] = chexlocalize.read_masks(folder / "CheXlocalize/gt_segmentations_test.json")
    assert (mask.film, mask.label) == ("patient64741_study1_view1_frontal", "Edema")
    np.testing.assert_array_equal(mask.mask, [[0, 1, 0], [1, 0, 0]])
    (folder / "bad.json").write_text('{"film": {"Edema": {"size": [2, 3], "counts": "9"}}}')
    with pytest.raises(InputError, match="runs of 9 pixels for a mask of 2 x 3"):
        chexlocalize.read_masks(folder / "bad.json")


def test_run_lengths_as_coco_writes_them():
    """Against an encoder written from the format's description: differences to the run two before."""
    def encoded(mask):
        flat = mask.T.ravel()
        edges = np.flatnonzero(np.diff(np.concatenate([[False], flat, [flat[-1] ^ True]])))
        runs = np.diff(np.concatenate([[0], edges])).tolist()
        text = ""
        for place, run in enumerate(runs):
            value, more = int(run) - (int(runs[place - 2]) if place > 2 else 0), True
            while more:
                group, value = value & 31, value >> 5
                more = value != -1 if group & 16 else value != 0
                text += chr((group | 32 if more else group) + 48)
        return text

    random = np.random.default_rng(0)
    for shape in ((2, 3), (40, 30), (300, 7), (1, 1)):
        for density in (0.0, 0.02, 0.5, 1.0):
            mask = random.random(shape) < density
            np.testing.assert_array_equal(chexlocalize.decoded(encoded(mask), *shape), mask)


def test_mimic_whole(tmp_path):
    folder = made(tmp_path, "mimic")
    data = reading.read(folder, reader="mimic", views="both")
    assert len(data) == 12 and data.films["projection"].tolist()[:3] == ["AP", "", "PA"]  # the third by its code
    assert data.films["sex"].tolist()[::3] == ["Female", "Unknown", "Male", "Unknown"]
    assert data.films["age"].tolist()[::6] == [52, 50] and np.isnan(data.films["age"][3])  # 40 in 2170, film of 2180
    assert reading.read(folder, reader="mimic", train_file="negbio", views="both").fingerprint == data.fingerprint
    expert = reading.read(folder, reader="mimic", train_file="test-set-labeled")
    assert len(expert) == 2 and set(expert.films["split"]) == {"test"}
    same(cells(expert, 0, "Lung Opacity", "Edema", "Fracture"), [(1, 1), (0, 1), (NAN, 1)])
    with pytest.raises(InputError, match="chexpert, negbio, test-set-labeled"):
        reading.read(folder, reader="mimic", train_file="other.csv")


def test_counts_of_the_report_stand_beside_the_published_ones(tmp_path):
    report = checks.check(made(tmp_path, "rsna"), reader="rsna", open_films=False)
    assert report["published"] == {"films": 26684, "patients": None, "source": reading.READERS["rsna"].source}
