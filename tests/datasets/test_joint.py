"""Several data sets read as one: keys, patients, splits, and what a set cannot say."""

import layouts
import numpy as np
import pytest

from chexpert_hier.datasets import joint, presence
from chexpert_hier.datasets.options import Options
from chexpert_hier.errors import InputError
from chexpert_hier.labels import CHEXPERT_LABELS, targets


def made(tmp_path, *names):
    folders = []
    for place, name in enumerate(names):
        folder = tmp_path / f"{place}" / name
        folder.mkdir(parents=True)
        layouts.LAYOUTS[name](folder)
        folders.append(folder)
    return folders


def test_two_sets_of_the_same_names_do_not_collide(tmp_path):
    one, two = made(tmp_path, "chexpert", "chexpert")
    for table in two.glob("*.csv"):  # another hospital's films in CheXpert's shape, under the same names
        table.write_text(table.read_text().replace("CheXpert-v1.0-small", "elsewhere"))
    both = joint.read_all([one, two], Options())
    assert len(both) == 6 and len(set(both.keys)) == 6 and both.films["patient"].nunique() == 6
    assert both.name == "chexpert-1 + chexpert-2" and set(both.sets) == {"chexpert-1", "chexpert-2"}
    assert [file.is_relative_to(one) for file in both.files] == [True, True, True, False, False, False]
    assert presence.require_films(both)[1] == [] and both.films["path"][0].startswith("joint/chexpert-1/train/")
    assert both.split("valid").films["set"].tolist() == ["chexpert-1", "chexpert-2"]
    assert both.select([5, 0]).files == [both.files[5], both.files[0]]


def test_patients_that_sets_share_stay_in_one_split(tmp_path):
    nih, rsna = made(tmp_path, "chestxray14", "rsna")
    for seed in range(5):
        both = joint.read_all([rsna, nih], Options("rsna+chestxray14", seed=seed))
        assert both.films.groupby("patient")["split"].nunique().max() == 1
        shared = set(both.films["patient"][both.sets == "rsna"]) & set(both.films["patient"][both.sets != "rsna"])
        assert shared == {f"chestxray14:{n}" for n in range(12)}
    chexpert, plus = made(tmp_path, "chexpert", "chexpertplus")
    both = joint.read_all([chexpert, plus], Options("chexpert+chexpertplus", views="both"))
    assert both.films["patient"].nunique() == 3 and len(both) == 9
    local = made(tmp_path / "c", "chexlocalize")[0]
    table = local / "CheXpert/test_labels.csv"  # a film of CheXpert's validation set as a test film
    table.write_text(table.read_text().replace("patient64741", "patient64541"))
    with pytest.raises(InputError, match=r"chexpert:patient64541 is in test and in valid"):
        joint.read_all([chexpert, local], Options("chexpert+chexlocalize"))


def test_what_a_set_lacks_is_unknown_and_never_trained_on(tmp_path):
    chexpert, rsna = made(tmp_path, "chexpert", "rsna")
    both = joint.read_all([chexpert, rsna], Options("chexpert+rsna"))
    assert both.labels == CHEXPERT_LABELS
    mine, theirs = both.sets == "chexpert", both.sets == "rsna"
    devices = CHEXPERT_LABELS.index("Support Devices")
    assert both.known[mine].all() and not both.known[theirs, devices].any()
    made_of = targets(both.codes, both.keys, both.labels, "u-ones+lsr")
    assert np.isnan(made_of[theirs, devices]).all() and not np.isnan(made_of[mine]).any()
    assert (both.truth[theirs, devices] == -1).all() and np.isnan(both.truth[mine, devices]).all()
    np.testing.assert_array_equal(both.select(theirs).known, both.known[theirs])
    alone = joint.read_all([rsna], Options("rsna"))
    np.testing.assert_array_equal(alone.raw, both.raw[theirs])


def test_links_are_judged_by_each_sets_own_folder(tmp_path):
    one, two = made(tmp_path, "chestxray14", "chestxray14")
    film = next((two / "images_001/images").iterdir())
    film.unlink()
    film.symlink_to(next((one / "images_001/images").iterdir()))
    both = joint.read_all([one, two], Options("chestxray14", split="seeded"))
    assert sum(map(bool, presence.outside_faults(both))) == 1
    with pytest.raises(InputError, match="is a link that leaves the data folder; 1 of 40"):
        presence.require_inside(both)


def test_faults_of_joint_reading(tmp_path):
    one, two = made(tmp_path, "chexpert", "rsna")
    for folders, reader, message in (([one, two], "chexpert+rsna+mimic", "3 readers for 2 data sets"),
                                     ([one, one], "chexpert", "given twice"), ([one, two], "chexpert+rnsa", "rnsa"),
                                     ([one, tmp_path / "none"], "chexpert", "no such folder")):
        with pytest.raises(InputError, match=message):
            joint.read_all(folders, Options(reader))
