"""The report of a run: made from files, escaped, offline, with pictures in words; examples right and wrong."""

import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest

from chexpert_hier import hierarchy, labels, recipes
from chexpert_hier.errors import InputError
from chexpert_hier.phantom import making
from chexpert_hier.report import learning, sections
from chexpert_hier.report.films import Example, chosen
from chexpert_hier.report.judged import read_run
from chexpert_hier.report.page import drawn_beside, write

HOSTILE = '<img src=x onerror="alert(1)">&$x$'
VOID = {"meta", "img", "br", "link", "input", "hr"}


class Page(HTMLParser):
    """Collects what tests ask for and refuses tags that do not close."""

    def __init__(self, text):
        super().__init__()
        self.images, self.tags, self.links, self.anchors, self.open, self.words = [], set(), [], set(), [], []
        self.order = []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.tags.add(tag)
        self.anchors.add(attributes.get("id"))
        self.order.append(attributes.get("id"))
        if tag == "img":
            self.images.append(attributes)
        if tag == "a":
            self.links.append(attributes["href"])
        assert not [name for name in attributes if name.startswith("on")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


def make_run(folder, recipe=recipes.PHAM2019, names=labels.CHEXPERT_LABELS, tree="chexpert", root="gone", films=40):
    """A finished run without a network, from drawn numbers."""
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 2, (films, len(names))).astype(float)
    conditional = np.clip(0.3 * truth + 0.6 * rng.random(truth.shape), 0, 1)
    paths = [f"data/valid/patient{k:05d}/study1/view1_frontal.jpg" for k in range(films)]
    final = hierarchy.chain_rule(conditional, hierarchy.named(tree, names)) if recipe.chain else conditional
    folder.mkdir(parents=True)
    for name, values in (("conditional", conditional), ("predictions", final), ("truth", truth)):
        table = pd.DataFrame(values, columns=list(names))
        table.insert(0, "Path", paths)
        table.to_csv(folder / f"{name}.csv", index=False)
    pd.DataFrame({"path": paths, "patient": [f"p{k // 2}" for k in range(films)], "split": "valid"}).to_csv(
        folder / "split.csv", index=False)
    pd.DataFrame([{"stage": stage.name, "epoch": epoch, "learning_rate": 1e-4, "films": 100, "loss": 0.5 / epoch,
                   "valid_loss": 0.6 / epoch, "valid_auroc": 0.7, "valid_auroc_labels": 5, "seconds": 40.0}
                  for stage in recipe.plan() for epoch in (1, 2)]).to_csv(folder / "log.csv", index=False)
    count = {"films": films, "studies": films, "patients": films // 2}
    facts = {"recipe": recipe.to_json(), "outputs": list(names), "labels": None, "tree": tree, "limit": None,
             "normalisation": [[0.0] * 3, [1.0] * 3],
             "data": {"root": str(root), "name": "data", "fingerprint": "f" * 64,
                      "counts": {split: count for split in ("train", "valid", "test")}},
             "positives_seen": dict(zip(names, (0.04, 0.5, None))),
             "versions": {"python": "3.11"}, "command": ["--data", "x"], "started": "2026-01-01T00:00:00"}
    (folder / "recipe.json").write_text(json.dumps(facts))
    return folder


def page_of(folder, **settings):
    return Page(write(folder, replicates=50, **settings).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    return page_of(make_run(tmp_path_factory.mktemp("runs") / "run"))


def test_a_run_whose_films_are_gone_still_has_its_report(page):
    words = " ".join(page.words)
    assert not re.search("<[a-z]", words)  # nothing is escaped twice
    assert "The films are no longer where" in words and "films or the network could not be read" in words
    assert "sees under 10% of the positives of No Finding (4%): what is known" in " ".join(words.split())
    for said in ("u-ones+ct+lsr", "Every field is that of the recipe pham2019", "2 min 40 s", "f" * 64):
        assert said in words
    assert {"recipe", "data", "learning", "results", "product", "tree", "labels", "calibration", "uncertain",
            "environment"} <= page.anchors
    assert all(link[1:] in page.anchors for link in page.links)


def test_the_page_needs_nothing_else_and_every_picture_has_words(page):
    assert not page.tags & {"script", "link", "iframe", "object"}
    assert page.images and all(len(image["alt"]) > 10 for image in page.images)
    assert all(image["src"].startswith("data:image/") for image in page.images)


def test_hostile_names_stay_text(tmp_path):
    names = (HOSTILE, "b</td>", "c")
    folder = make_run(tmp_path / 'run"><b>', replace(recipes.PHAM2019, policy="u-ones", reader="csv"), names,
                      {"b</td>": [HOSTILE]}, root=HOSTILE)
    facts = json.loads((folder / "recipe.json").read_text())
    facts["versions"] = {HOSTILE: HOSTILE}
    facts["command"] = [HOSTILE]
    (folder / "recipe.json").write_text(json.dumps(facts))
    page = page_of(folder)
    assert HOSTILE in " ".join(page.words)
    assert all(image["src"].startswith("data:") for image in page.images)
    example = Example(HOSTILE, "Wrong: missed", HOSTILE, 0.5, b"film", b"map", HOSTILE)
    shown = Page(sections._macros().examples({HOSTILE: [example]}))
    assert [image["src"][:23] for image in shown.images] == ["data:image/jpeg;base64,"] * 2
    assert "".join(shown.words).count(HOSTILE) == 3  # heading, path, whose maps
    shown = Page(sections._macros().examples({HOSTILE: [replace(example, overlay=b"")]}))
    assert len(shown.images) == 1  # called absent: nothing to show


def test_the_chain_rule_is_reported_on_and_off_whatever_the_run_used(tmp_path):
    for policy, state in (("u-ones+ct", "on"), ("u-ones", "off")):
        run = read_run(make_run(tmp_path / state, replace(recipes.PHAM2019, policy=policy)), replicates=20)
        assert run.recipe.chain == (state == "on")
        table = run.result.comparisons["Chain rule on, against off"]
        reported = table["auroc_second" if run.recipe.chain else "auroc_first"].to_numpy()
        np.testing.assert_allclose(reported, run.result.table["auroc"], atol=1e-12)
        assert run.result.tree["above_before"].sum() > 0 == run.result.tree["above_after"].sum()
        text = sections._product(run)
        assert f"with the chain rule {state}" in text and "First" not in text
        assert re.search(r">Off</th>\s*<th[^>]*>On</th>", text)


def test_changed_fields_are_named(tmp_path):
    changed = replace(recipes.PHAM2019, blank="ignore", image_size=128)
    text = sections._recipe(read_run(make_run(tmp_path / "run", changed), replicates=0))
    assert "departs from the recipe pham2019 in 2 fields: blank, image_size" in text


def test_the_paper_s_table_holds_the_means_of_its_rows():
    for row in recipes.PHAM2019_TABLE_1.values():
        assert np.mean(row[:5]) == pytest.approx(row[5], abs=6e-4)
    assert all(labels.Policy.parse(name).name == name for name in recipes.PHAM2019_TABLE_1)


def test_labels_below_chance_are_named(tmp_path):
    folder = make_run(tmp_path / "run", replace(recipes.PHAM2019, policy="u-ones"))
    for name in ("predictions", "conditional"):
        table = pd.read_csv(folder / f"{name}.csv")
        table["Edema"] = 1 - pd.read_csv(folder / "truth.csv")["Edema"]
        table.to_csv(folder / f"{name}.csv", index=False)
    run = read_run(folder, replicates=0)
    assert re.search(r"Below 0\.5:</b> Edema\. ", sections._results(run))
    assert "Below 0.5" not in sections._results(read_run(make_run(tmp_path / "good"), replicates=0))


def test_results_come_first(page):
    order = [anchor for anchor in page.order if anchor in ("results", "examples", "recipe", "data", "fields")]
    assert order == ["results", "examples", "recipe", "data", "fields"]


def test_an_unfinished_run_is_one_line(tmp_path):
    folder = make_run(tmp_path / "run")
    (folder / "predictions.csv").unlink()
    with pytest.raises(InputError, match=r"predictions\.csv is missing; the run is not finished"):
        write(folder)


def test_examples_are_the_surest_cases_of_each_kind(tmp_path):
    run = read_run(make_run(tmp_path / "run"), replicates=0)
    cases = run.films
    calls = cases.scores >= run.result.table["threshold"].to_numpy()[:-1]
    picks = chosen(run)
    assert {label for label, _, _ in picks} == set(labels.COMPETITION_LABELS)
    for label, kind, case in picks:
        k = cases.labels.index(label)
        assert kind.startswith("Right") == (cases.truth[case, k] == calls[case, k])
        same = (cases.truth[:, k] == cases.truth[case, k]) & (calls[:, k] == calls[case, k])
        best = cases.scores[same, k].max() if calls[case, k] else cases.scores[same, k].min()
        assert cases.scores[case, k] == best


def test_films_and_their_maps_are_shown(tmp_path):
    from chexpert_hier.network import model
    from chexpert_hier.training import checkpoint

    data = making.make(tmp_path / "films", patients=2, valid_patients=6, seed=1, processes=1, laterals=False)
    recipe = replace(recipes.PHANTOM, arch="tiny", crop="centre", image_size=32)
    folder = make_run(tmp_path / "run", recipe, root=data, films=6)
    valid = pd.read_csv(data / "valid.csv")["Path"]
    for name in ("conditional", "predictions", "truth", "split"):
        table = pd.read_csv(folder / f"{name}.csv")
        table.iloc[:, 0] = valid
        table.to_csv(folder / f"{name}.csv", index=False)
    checkpoint.save_model(model.build_model("tiny", labels.CHEXPERT_LABELS, image_size=32), folder / "model.keras")
    page = page_of(folder)
    films = [image for image in page.images if image["src"].startswith("data:image/jpeg")]
    mapped = [image for image in films if re.search("with the map of .* probability 0[.]", image["alt"])]
    assert len(films) >= 10 and 0 < len(mapped) < len(films) / 2
    assert "Synthetic films" in " ".join(page.words)


@pytest.mark.parametrize("name", recipes.RECIPES)
def test_every_recipe_has_its_report(name, tmp_path):
    recipe = recipes.RECIPES[name]
    names = recipe.outputs or (labels.CHEXPERT_LABELS if recipe.tree != "flat" else labels.CHESTXRAY14_LABELS)
    run = read_run(make_run(tmp_path / "run", recipe, names, recipe.tree), replicates=10)
    assert run.result.cases.unit == recipe.unit
    text = sections._recipe(run) + sections._data(run) + sections._uncertain(run) + sections._fields(run)
    Page(text)
    assert recipe.source.split()[-1] in text and ("in 0 fields" not in text)
    assert not sections._paper(run)  # the films are not CheXpert's
    run.facts["data"]["name"] = "CheXpert-v1.0-small"
    assert bool(sections._paper(run)) == (name == "pham2019")
    assert bool(run.result.comparisons) == bool(len(run.tree.edges))


def test_a_training_of_one_epoch_has_its_curves():
    """Matplotlib warns where what stands at an axis does not fit; a warning is an error here."""
    log = pd.DataFrame([{"stage": "stage1", "epoch": 1, "learning_rate": 1e-3, "loss": 0.5, "valid_loss": 0.6,
                         "valid_auroc": 0.7}])
    assert [picture.alt[:8] for picture in learning.pictures(log)] == ["loss by ", "AUROC, v"]


@pytest.mark.slow
def test_a_report_drawn_in_another_process_is_the_same(tmp_path):
    folder = make_run(tmp_path / "run", films=12)
    run = read_run(folder)
    assert not (folder / "evaluation.html").exists()
    with drawn_beside(run.result, folder, apart=True) as drawn:
        beside = write(folder, tmp_path / "beside.html", films=False, drawn=drawn())
    assert (folder / "evaluation.html").is_file()
    assert beside.read_bytes() == write(folder, tmp_path / "here.html", films=False).read_bytes()
