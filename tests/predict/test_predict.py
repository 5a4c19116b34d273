"""From any film to an answer: what is printed and written, odd films, bad films, SavedModels, DICOM."""

import json
import logging
import shutil

import cv2
import numpy as np
import pandas as pd
import pytest

from chexpert_hier import evaluate, hierarchy
from chexpert_hier.errors import InputError
from chexpert_hier.films.decode import read_film
from chexpert_hier.finished import asked, operating
from chexpert_hier.finished.members import open_run
from chexpert_hier.heatmaps.maps import map_file
from chexpert_hier.labels import CHEXPERT_LABELS, COMPETITION_LABELS
from chexpert_hier.predict import __main__ as predict_command
from chexpert_hier.predict import answers, reading


def ask(capsys, *arguments):
    code = predict_command.main([str(argument) for argument in arguments])
    assert code == 0
    return capsys.readouterr().out


def test_one_film_is_answered_as_a_tree_with_its_operating_points(run, frontal, capsys):
    lines = ask(capsys, frontal[0], "--model", run).splitlines()
    assert lines[0] == frontal[0].as_posix() and len(lines) == 15
    own = pd.read_csv(run / "predictions.csv").set_index("Path")
    row = own.loc[next(path for path in own.index if frontal[0].as_posix().endswith(path))]
    points = operating.validation([run], CHEXPERT_LABELS)
    for line in lines[1:]:
        name = next(label for label in sorted(CHEXPERT_LABELS, key=len, reverse=True) if line.strip().startswith(label))
        assert f"{row[name]:.3f}" in line
        threshold = points["labels"][name]["threshold"]
        if threshold is not None:
            assert ("PRESENT" in line) == (row[name] >= threshold - 1e-4 * threshold), line
    depth = {line.split("0.")[0].strip(): len(line) - len(line.lstrip()) for line in lines[1:]}
    assert depth["No Finding"] == 2 and depth["Edema"] == 4 and depth["Pneumonia"] == 6


def test_one_film_on_the_screen_says_what_its_calls_are_based_on(run, frontal, tmp_path, capsys, caplog):
    points = operating.validation([run], CHEXPERT_LABELS)
    begins = (f"calls: thresholds by {points['rule']} on {points['films']:,} validation films of "
              f"{points['patients']:,} patients; sensitivity and specificity are those films'")
    ends = ". Research use only; not a medical device"
    other = tmp_path / "other.png"  # not as the phantom wrote it: nothing is called, so nothing is said of calls
    cv2.imwrite(str(other), cv2.imread(str(frontal[0]), cv2.IMREAD_GRAYSCALE))
    told = "; the thresholds were chosen without test-time views"
    for asked_for, line in (([frontal[0]], begins + ends), ([frontal[0], "--tta", 2], begins + told + ends),
                            ([*frontal[:2]], None), ([other], None)):
        with caplog.at_level(logging.INFO, logger="chexpert_hier"):
            ask(capsys, *asked_for, "--model", run)
        assert [text for text in caplog.messages if text.startswith("calls:")] == ([line] if line else [])
        caplog.clear()


def test_dropout_that_is_not_there_is_refused_before_a_model_is_opened(run, frontal, monkeypatch):
    from chexpert_hier.predict import engine

    monkeypatch.setattr(engine, "open_model", None)
    for model in (run, run / "model.keras"):
        with pytest.raises(InputError, match=r"--uncertainty mc: .*run has no dropout to draw \(head dense; only hbce"):
            predict_command.main([str(frontal[0]), "--model", str(model), "--uncertainty", "mc:20"])


def test_tree_order_puts_every_child_under_its_deepest_parent():
    order = dict(answers.in_tree_order(hierarchy.CHEXPERT_TREE))
    assert set(order) == set(CHEXPERT_LABELS)
    names = list(order)
    assert names.index("Pneumonia") == names.index("Consolidation") + 1 and order["Pneumonia"] == 2


def test_csv_keeps_labels_plain_and_evaluate_passes_over_the_rest(run, data, tmp_path, capsys):
    ask(capsys, data / "valid.csv", "--model", run, "--skip-bad", "--out", tmp_path / "x.csv", "--quiet")
    table = pd.read_csv(tmp_path / "x.csv")
    assert [name for name in table if not name.endswith("]")] == ["Path", *CHEXPERT_LABELS]
    own = pd.read_csv(run / "predictions.csv").set_index("Path")
    got = table.set_index("Path").loc[own.index]
    np.testing.assert_allclose(got[list(own.columns)], own, atol=1e-5)
    points = operating.validation([run], CHEXPERT_LABELS)
    np.testing.assert_array_equal(got[[f"{name} [call]" for name in own]],
                                  operating.calls(own.to_numpy(), points, list(own)))
    scaled = got[[f"{name} [calibrated]" for name in own]].to_numpy()
    tree = hierarchy.CHEXPERT_TREE
    assert not hierarchy.contradictions(scaled, tree).above.any() and not np.allclose(scaled, own)
    judged = evaluate.evaluate(evaluate.read_predictions(tmp_path / "x.csv"), evaluate.read_truth(run / "truth.csv"),
                               judging=evaluate.Judging(replicates=0, curves=False))
    assert set(judged.cases.labels) <= set(CHEXPERT_LABELS)
    assert pd.read_csv(tmp_path / "x.skipped.csv")["reason"].str.contains("lateral").all()


def test_json_says_the_same_as_csv(run, frontal, tmp_path, capsys):
    films = [*frontal[:2], frontal[0]]
    ask(capsys, *films, "--model", run, run, "--out", tmp_path / "x.json", "--quiet")
    ask(capsys, *films, "--model", run, run, "--out", tmp_path / "x.csv", "--quiet")
    found, table = json.loads((tmp_path / "x.json").read_text()), pd.read_csv(tmp_path / "x.csv")
    assert "not a medical device" in found["intended_use"] and found["left_out"] == []
    for film, row in zip(found["films"], table.to_dict("records")):
        assert film["film"] == row["Path"] and film["match"] == pytest.approx(row["[match]"])
        for finding in film["findings"]:
            name = finding["finding"]
            assert finding["probability"] == pytest.approx(row[name]) and finding["sd"] == pytest.approx(0, abs=1e-6)
            assert finding["calibrated"] == pytest.approx(row[f"{name} [calibrated]"])
            if "present" in finding:
                assert finding["present"] == bool(row[f"{name} [call]"])


def test_a_bad_film_is_named_and_the_others_are_answered(run, frontal, tmp_path, capsys):
    (tmp_path / "films").mkdir()
    shutil.copy(frontal[0], tmp_path / "films" / "good.jpg")
    (tmp_path / "films" / "bad.png").write_bytes(b"<html>")
    with pytest.raises(InputError, match="1 of 2 films left out"):
        predict_command.main([str(tmp_path / "films"), "--model", str(run), "--out", str(tmp_path / "x.csv"),
                              "--quiet"])
    assert "bad.png: left out, not an image" in capsys.readouterr().err
    assert pd.read_csv(tmp_path / "x.csv")["Path"].str.endswith("good.jpg").tolist() == [True]
    skipped = pd.read_csv(tmp_path / "x.skipped.csv")
    assert skipped["Path"].str.endswith("bad.png").all() and skipped["reason"].tolist() == [
        "not an image; expected JPEG, PNG, TIFF, WebP or DICOM"]
    ask(capsys, tmp_path / "films", "--model", run, "--skip-bad", "--quiet")
    with pytest.raises(InputError, match=r"bad\.png: not an image"):
        predict_command.main([str(tmp_path / "films" / "bad.png"), "--model", "no run is even opened"])


def test_globs_and_folders_find_films_by_name_and_dicom_by_its_mark(tmp_path):
    for name in ("a.jpg", "b.PNG", "c.dcm", "notes.txt", "d[1].png"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "IM0001").write_bytes(bytes(128) + b"DICM")
    (tmp_path / "README").write_bytes(b"x")
    assert {film.file.name for film in asked.find_films([str(tmp_path)])} == {"a.jpg", "b.PNG", "c.dcm", "IM0001",
                                                                               "d[1].png"}
    assert [film.file.name for film in asked.find_films([f"{tmp_path}/?.[jP]*"])] == ["a.jpg", "b.PNG"]
    assert [film.file.name for film in asked.find_films([f"{tmp_path}/d[1].png"])] == ["d[1].png"]
    with pytest.raises(InputError, match="no such file or folder"):
        asked.find_films([f"{tmp_path}/*.gif"])


def test_dicom_is_answered_as_the_same_film_and_no_name_gets_out(run, frontal, tmp_path, capsys, caplog):
    pytest.importorskip("pydicom")
    from dicom_film import SECRETS, film

    caplog.set_level(logging.DEBUG)
    grey = read_film(frontal[0])
    for name, tags in (("front.dcm", {}), ("side.dcm", {"ViewPosition": "LL"})):
        (tmp_path / name).write_bytes(film(grey.astype(int), bits=8, **tags))
    cv2.imwrite(str(tmp_path / "front.png"), grey)
    with pytest.raises(InputError, match="1 of 3 films left out"):
        predict_command.main([str(tmp_path / "*"), "--model", str(run), "--out", str(tmp_path / "x.json")])
    text = (tmp_path / "x.json").read_text()
    found = json.loads(text)
    one, two = (film["findings"] for film in found["films"])
    for first, second in zip(one, two):
        assert first["probability"] == pytest.approx(second["probability"], abs=1e-6)
    assert found["left_out"] == [{"film": (tmp_path / "side.dcm").as_posix(), "reason": reading.FRONTAL_ONLY}]
    out = capsys.readouterr()
    for secret in SECRETS.values():
        for part in secret.replace("^", " ").split():
            assert len(part) < 4 or part not in text + out.out + out.err + caplog.text


def test_heatmaps_are_drawn_beside_the_answer(run, frontal, tmp_path, capsys):
    ask(capsys, *frontal[:2], "--model", run, "--heatmaps", tmp_path / "maps", "--quiet")
    pictures = sorted(file.name for file in (tmp_path / "maps").glob("*.png"))
    ask(capsys, *frontal[:2], "--model", run, "--out", tmp_path / "calls.csv", "--quiet")
    calls = pd.read_csv(tmp_path / "calls.csv")  # what is called absent gets no map
    expected = sorted(map_file(tmp_path, row["Path"], f" {label}.png").name for _, row in calls.iterrows()
                      for label in COMPETITION_LABELS if row[f"{label} [call]"] == 1)
    assert pictures == expected and 0 < len(expected) < 10
    first = tmp_path / "maps" / pictures[0]
    assert cv2.imread(str(first)).shape[:2] in {read_film(film).shape for film in frontal[:2]}


# ---------------------------------------------------------------------------------------------------- odd films

@pytest.fixture(scope="module")
def odd(frontal, tmp_path_factory):
    """Four films: as it is, inverted, upside down, its second half lost."""
    folder = tmp_path_factory.mktemp("odd")
    grey, data = read_film(frontal[0]), frontal[0].read_bytes()
    for name, image in (("a.png", grey), ("b.png", 255 - grey), ("c.png", np.rot90(grey, 2))):
        cv2.imwrite(str(folder / name), image)
    (folder / "d.jpg").write_bytes(data[:len(data) * 2 // 3] + b"\xff\xd9")
    return folder


def test_odd_films_are_counted_at_the_end(run, odd, capsys, tmp_path):
    out = tmp_path / "out.csv"
    for extra in ([], ["--out", out]):
        assert predict_command.main([str(part) for part in (odd, "--model", run, "--skip-bad", *extra)]) == 0
        said = capsys.readouterr().err.splitlines()
        assert any("d.jpg: left out, damaged" in line for line in said)
        assert said[-1].startswith("2 of 3 films are flagged: 1 its grey scale looks inverted (lungs bright); 1 looks "
                                   "upside down") and "--refuse-odd" in said[-1]
    table = pd.read_csv(out, keep_default_na=False)
    assert [bool(flag) for flag in table["[flag]"]] == [False, True, True]
    assert all(table["Edema"].astype(str) != "")


def test_odd_films_are_refused_and_damaged_ones_accepted_on_request(run, odd, capsys, tmp_path):
    out, maps = tmp_path / "out.csv", tmp_path / "maps"
    asked = [odd, "--model", run, "--accept-damaged", "--refuse-odd", "--out", out, "--heatmaps", maps]
    assert predict_command.main([str(part) for part in asked]) == 0
    assert capsys.readouterr().err.splitlines()[-1].startswith("3 of 4 films are flagged: ")
    table = pd.read_csv(out)
    names = [name for name in table.columns if name != "Path" and not name.endswith("]")]
    assert table[names].notna().all(axis=1).tolist() == [True, False, False, False]
    assert table[names].isna().all(axis=1).tolist() == [False, True, True, True] and table["[match]"].notna().all()
    assert "the file is damaged" in table["[flag]"][3]
    points = operating.thresholds(open_run(run).validation(), COMPETITION_LABELS)  # of one film
    present = [label for label, point in zip(COMPETITION_LABELS, points) if table[label][0] >= point]
    assert 0 < len(present) < 5
    assert sorted(file.name.rsplit("a.png ")[1] for file in maps.glob("*.png")) == [f"{label}.png" for label in present]
    assert predict_command.main([str(part) for part in (odd / "c.png", "--model", run, "--refuse-odd")]) == 0
    assert capsys.readouterr().out.strip().endswith("180 degrees would set it upright): not answered")
    answered = tmp_path / "out.json"
    assert predict_command.main([str(part) for part in (odd / "d.jpg", "--model", run, "--accept-damaged", "--out",
                                                        answered)]) == 0
    film = json.loads(answered.read_text())["films"][0]
    assert "damaged" in film["flag"] and all(0 <= one["probability"] <= 1 for one in film["findings"])


def test_no_line_about_flags_where_none_is():
    assert answers.of_flags(["", ""], False) == "" and answers.of_flags([], True) == ""
    assert answers.of_flags(["x", ""], True) == "1 of 2 films is flagged: x. They are not answered"


# ---------------------------------------------------------------------------------------------------- operating points

def test_an_ensembles_operating_points_are_those_of_the_mean(run, tmp_path):
    other = shutil.copytree(run, tmp_path / "other")
    table = pd.read_csv(run / "predictions.csv")
    shuffled = table.sample(frac=1, random_state=1)
    shuffled[list(CHEXPERT_LABELS)] = np.sqrt(shuffled[list(CHEXPERT_LABELS)])
    shuffled.to_csv(other / "predictions.csv", index=False)
    found = operating.validation([run, other], CHEXPERT_LABELS)
    mean = table.set_index("Path").add(shuffled.set_index("Path")) / 2
    for label in CHEXPERT_LABELS:
        threshold = found["labels"][label]["threshold"]
        assert threshold is None or np.isclose(mean[label], threshold).any()
    shuffled.iloc[1:].to_csv(other / "predictions.csv", index=False)
    assert operating.validation([run, other], CHEXPERT_LABELS) is None
    (run.parent / "empty").mkdir()
    assert operating.validation([run.parent / "empty"], CHEXPERT_LABELS) is None


def test_a_traced_network_answers_any_number_of_films_as_before_with_two_graphs(run):
    plain, traced = open_run(run), open_run(run)
    side = next(iter(plain.croppers.values())).size
    crops = np.random.default_rng(0).integers(0, 256, (7, side, side), dtype=np.uint8)
    traced.trace()
    for films in (1, 2, 3, 7):
        np.testing.assert_allclose(traced.outputs(crops[:films]), plain.outputs(crops[:films]), atol=1e-6)
    assert traced.model.predict_function.experimental_get_tracing_count() == 2
    np.testing.assert_allclose(traced.outputs(crops, batch_size=4), plain.outputs(crops), atol=1e-6)  # more than fit


def test_an_interval_without_an_end_is_not_shown():
    point = {"sensitivity": 0.5, "sensitivity_low": 0.25, "sensitivity_high": None}
    assert answers._rate(point, "sensitivity") == "0.50"
    assert answers._rate(point | {"sensitivity_high": 0.75}, "sensitivity") == "0.50 (0.25-0.75)"
