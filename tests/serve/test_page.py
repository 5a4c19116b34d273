"""The page in a real browser: films of many kinds, the tree, maps, warnings, keys, downloads; nothing leaves the host.

Chromium is Debian's, driven by Playwright's Python package.
"""

import re
from pathlib import Path

import cv2
import numpy as np
import pytest
from served import open_model, serving

from chexpert_hier.labels import CHEXPERT_LABELS
from chexpert_hier.predict import __main__ as predict

pytestmark = [pytest.mark.browser, pytest.mark.filterwarnings("ignore")]


class Page:
    """The page as a person uses it."""

    def __init__(self, browser, client, **settings):
        self.context = browser.new_context(viewport={"width": 1400, "height": 900}, accept_downloads=True, **settings)
        self.tab = self.context.new_page()
        self.asked, self.errors = [], []
        self.tab.on("request", lambda request: self.asked.append(request.url))
        self.tab.on("pageerror", lambda error: self.errors.append(str(error)))
        self.client = client
        self.tab.goto(client.address)
        self.tab.locator("#model", has_text="recipe").wait_for()

    def choose(self, *films):
        """Choose files and wait until all are read or refused."""
        before = self.tab.locator("#list li").count()
        self.tab.set_input_files("#file", [film if isinstance(film, dict) else str(film) for film in films])
        for place in range(before, before + len(films)):
            state = self.tab.locator("#list li").nth(place).locator("small")
            state.filter(has_not_text=re.compile("^waiting$|^being read")).wait_for(timeout=60_000)

    def film(self, place):
        self.tab.locator("#list .film").nth(place).click()

    def probabilities(self):
        """label -> what the tree shows, from the sentences that a screen reader reads."""
        rows = [row.get_attribute("aria-label") for row in self.tab.locator(".finding").all()]
        return {row.split(":")[0]: float(re.search(r"probability ([\d.]+)", row)[1]) for row in rows}

    def text(self, selector):
        return self.tab.locator(selector).inner_text()

    def canvas(self):
        """What the canvas shows above the caption, uint8 (h, w, 3)."""
        picture = self.tab.locator("#canvas").screenshot()
        return cv2.imdecode(np.frombuffer(picture, np.uint8), cv2.IMREAD_COLOR)[10:-70, 10:-10]

    def download(self, selector):
        with self.tab.expect_download() as waiting:
            self.tab.locator(selector).click()
        return waiting.value.suggested_filename, Path(waiting.value.path()).read_bytes()

    def close(self):
        """Nobody but the server was asked, and no script failed."""
        self.context.close()
        foreign = [url for url in self.asked if not url.startswith((self.client.address, "blob:"))]
        assert not foreign and not self.errors, (foreign, self.errors)


@pytest.fixture
def page(browser, client):
    opened = Page(browser, client)
    yield opened
    opened.close()


def film_file(data, name):
    return {"name": name, "mimeType": "", "buffer": data}


def test_a_film_is_read_as_predict_reads_it(page, runs, frontal, tmp_path):
    assert "synthetic films" in page.text("#synthetic") and "Research use only" in page.text("header")
    page.choose(frontal[0])
    out = tmp_path / "out.csv"
    assert predict.main([str(frontal[0]), "--model", str(runs[0]), "--out", str(out), "--quiet"]) == 0
    header, row = out.read_text().splitlines()
    name, csv = page.download("#csv")
    assert name == "predictions.csv"
    assert csv.decode().splitlines() == [header, row.replace(frontal[0].as_posix(), frontal[0].name)]
    expected = dict(zip(header.split(","), row.split(",")))
    shown = page.probabilities()
    assert set(shown) == set(CHEXPERT_LABELS)
    for label, value in shown.items():
        assert value == pytest.approx(float(expected[label]), abs=0.0051), label
    present = {label for label in CHEXPERT_LABELS if expected[f"{label} [call]"] in ("1", "1.0")}
    assert {row.get_attribute("data-label") for row in page.tab.locator(".finding.present").all()} == present
    assert re.search(r"from 0\.\d+ on: sensitivity .* specificity", page.text(".finding .point >> nth=0"))


def test_the_tree_is_nested_lists(page, frontal):
    page.choose(frontal[0])
    above = "#tree > ul > li:has(> [data-label='Lung Opacity']) > ul > li:has(> [data-label='Consolidation']) > ul > li"
    assert page.tab.locator(f"{above} > [data-label='Pneumonia']").count() == 1
    assert page.tab.locator("#tree > ul > li").count() == 8


def test_a_finding_shows_its_map_and_what_is_behind_its_number(page, model, frontal):
    page.choose(frontal[0])
    reading = model.answer([(model.read(frontal[0].read_bytes()), True)])[0]
    some = next(label for k, label in enumerate(model.labels) if reading.maps.heat[k].max() > 0)
    plain = page.canvas()
    assert np.ptp(plain.astype(int), axis=2).max() <= 8  # grey
    page.tab.locator(f"[data-label='{some}']").click()
    mapped = page.canvas()
    assert f"map of {some}" in page.text("#caption") and np.ptp(mapped.astype(int), axis=2).max() > 40
    page.tab.locator("#opacity").fill("0")
    coloured = np.ptp(page.canvas().astype(int), axis=2) > 60  # all but the dashed frame is grey again
    assert coloured.mean() < 0.01
    page.tab.locator("[data-label='Cardiomegaly']").click()
    words = page.text(".detail")
    assert "Before the chain rule" in words and "given Enlarged Cardiomediastinum" in words
    assert "95 % intervals" in words and "AUROC" in words
    page.tab.locator("[data-label='Cardiomegaly']").click()
    assert page.tab.locator(".detail").count() == 0 and "map" not in page.text("#caption")


def test_the_map_lies_where_heatmaps_lays_it(page, model, frontal):
    """The page's own drawing of a map against overlays.onto_film, on the film's pixels."""
    film = model.read(frontal[0].read_bytes())
    maps = model.answer([(film, True)])[0].maps
    label = max(maps.labels, key=lambda one: np.nanmax(maps.on_film(one)))
    heat = np.maximum(maps.on_film(label), 0)
    expected = np.nan_to_num(heat / np.nanmax(heat))
    levels = page.tab.evaluate("""async ([heat, place, crop, rescaled, cells]) => {
        const { drawn } = await import("/static/maps.js");
        const canvas = drawn(heat, { place, crop, rescaled, cells });
        const { data } = canvas.getContext("2d").getImageData(0, 0, rescaled, rescaled);
        return Array.from({ length: rescaled * rescaled }, (_, k) => data[4 * k + 3]);
    }""", [maps.heat[maps.labels.index(label)].astype(float).tolist(), list(map(int, maps.place)), maps.crop,
           maps.rescaled, [float(cell) for cell in maps.cells]])
    drawn = np.array(levels).reshape(maps.rescaled, maps.rescaled) / 255
    expected = cv2.resize(expected, (maps.rescaled, maps.rescaled), interpolation=cv2.INTER_AREA)
    inside = (expected > 0.02) & (drawn > 0.02)
    assert inside.mean() > 0.05
    np.testing.assert_allclose(drawn[inside], expected[inside], atol=0.08)


def test_dicom_with_and_without_suffix_16_bits_and_what_is_refused(page, dicom, frontal):
    png = cv2.imencode(".png", cv2.imread(str(frontal[1]), cv2.IMREAD_GRAYSCALE).astype(np.uint16) * 257)[1].tobytes()
    page.choose(film_file(dicom(), "film.dcm"), film_file(dicom(), "IM0001"), film_file(png, "deep.png"),
                film_file(dicom(Modality="CT"), "slice"), film_file(dicom(ViewPosition="LL"), "side"),
                film_file(frontal[0].read_bytes()[:3000], "cut.jpg"), film_file(b"", "empty.dcm"),
                film_file(b"%PDF-1.7 report", "report.pdf"))
    states = [one.inner_text() for one in page.tab.locator("#list small").all()]
    assert all("present" in state or state.startswith("read") for state in states[:3])
    reasons = ("modality is CT", "a lateral film", "cut off", "empty", "PDF is not supported")
    for state, words in zip(states[3:], reasons, strict=True):
        assert words in state
    page.film(1)
    assert page.tab.locator(".finding").count() == 14 and "IM0001" in page.text("#caption")
    assert "No calls: the model was trained on synthetic films" in page.text("#lead")
    page.film(3)  # what cannot be read leaves nothing of another film on the screen
    assert "slice cannot be used" in page.text("#message") and page.tab.locator(".finding").count() == 0
    assert "modality is CT" in page.text("#flags") and page.text("#caption") == "" and page.canvas().max() == 255
    page.film(4)
    assert "a lateral film" in page.text("#flags")


def test_an_odd_film_is_answered_with_a_warning_in_words(page, frontal):
    negative = cv2.imencode(".png", 255 - cv2.imread(str(frontal[0]), cv2.IMREAD_GRAYSCALE))[1].tobytes()
    page.choose(film_file(negative, "negative.png"))
    assert page.tab.locator(".finding").count() == 14
    assert "Is this film what it should be?" in page.text("#flags") and "inverted" in page.text("#flags")


def test_a_film_named_lateral_counts_as_one_until_the_reader_says_otherwise(page, frontal):
    page.choose(film_file(frontal[0].read_bytes(), "view2_lateral.jpg"))
    assert "a lateral film" in page.text("#flags")
    page.tab.locator("#view").select_option("frontal")
    page.tab.locator(".finding").first.wait_for()


def test_a_film_of_40_megabytes(page, frontal, tmp_path):
    grey = cv2.resize(cv2.imread(str(frontal[0]), cv2.IMREAD_GRAYSCALE), (6200, 6600), interpolation=cv2.INTER_LINEAR)
    data = cv2.imencode(".png", grey, [cv2.IMWRITE_PNG_COMPRESSION, 0])[1].tobytes()
    assert len(data) > 40_000_000
    (tmp_path / "large.png").write_bytes(data)
    page.choose(frontal[0], tmp_path / "large.png")
    first = page.probabilities()
    page.film(1)
    assert "6200 × 6600 pixels, shown at 45 %" in page.text("#caption")
    for label, value in page.probabilities().items():
        assert value == pytest.approx(first[label], abs=0.06)


def test_window_zoom_inversion_and_keys(page, frontal):
    page.choose(frontal[0])
    before = page.canvas().astype(int)
    page.tab.locator("[data-do=invert]").click()
    inverted = page.canvas().astype(int)
    centre = np.s_[200:400, 250:400, 0]
    np.testing.assert_allclose(inverted[centre], 255 - before[centre], atol=3)
    page.tab.locator("#canvas").focus()
    page.tab.keyboard.press("i")
    np.testing.assert_allclose(page.canvas().astype(int)[centre], before[centre], atol=3)
    box = page.tab.locator("#canvas").bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.tab.mouse.move(x, y)
    page.tab.mouse.down()
    page.tab.mouse.move(x, y - 100)
    page.tab.mouse.up()
    assert page.canvas()[centre].mean() > before[centre].mean() + 20  # up: brighter
    page.tab.keyboard.press("0")
    np.testing.assert_allclose(page.canvas().astype(int)[centre], before[centre], atol=3)
    page.tab.mouse.wheel(0, -800)
    zoomed = page.canvas().astype(int)
    assert np.abs(zoomed - before).mean() > 3
    page.tab.mouse.dblclick(x, y)
    np.testing.assert_allclose(page.canvas().astype(int)[centre], before[centre], atol=3)
    page.tab.locator("[data-do=full]").click()
    page.tab.wait_for_timeout(300)
    assert page.tab.evaluate("document.fullscreenElement.id") == "viewer"
    page.tab.locator("[data-do=full]").click()


def test_by_keyboard_alone(page, frontal):
    page.choose(frontal[0])
    page.tab.locator(".finding").first.focus()
    for _ in range(2):
        page.tab.keyboard.press("ArrowDown")
    page.tab.keyboard.press("Enter")
    focused = page.tab.evaluate("document.activeElement.dataset.label")
    assert focused == "Cardiomegaly" and page.tab.locator(".detail").count() == 1
    names = page.tab.evaluate("""[...document.querySelectorAll("button, input, select, #canvas, a")]
        .filter((one) => one.offsetParent).map((one) =>
            one.getAttribute("aria-label") || one.textContent.trim() || one.labels?.[0]?.textContent.trim())""")
    assert all(names), names  # everything that can be reached has a name
    assert "was read" in page.tab.locator("#status").text_content()


def test_two_films_are_one_study_by_the_rule(page, client, frontal):
    page.choose(*frontal[:2])
    single = [client.call("/page/film", film.read_bytes())[1]["values"]["probabilities"] for film in frontal[:2]]
    for place in (0, 1):
        page.tab.locator("#list input").nth(place).check()
    page.tab.locator("#study").click()
    page.tab.locator("#findings-title", has_text="Study of 2 films").wait_for()
    for label, value in page.probabilities().items():
        place = CHEXPERT_LABELS.index(label)
        assert value == pytest.approx(max(single[0][place], single[1][place]), abs=0.0051)
    assert "highest score of the films" in page.text("#lead")


def test_an_ensemble_shows_its_spread_and_a_savedmodel_no_maps(browser, runs, frontal, tmp_path):
    from chexpert_hier.export.saved_model import export
    from chexpert_hier.finished.members import open_run

    saved = export([open_run(runs[0])], tmp_path / "saved_model")
    for models, words in ((runs, "between the models"), ([saved], "probability")):
        with serving(open_model(*models)) as client:
            page = Page(browser, client)
            page.choose(frontal[0])
            assert words in page.text("#legend")
            page.tab.locator("[data-label='Edema']").click()
            if len(models) > 1:
                assert re.search(r"2 models: standard deviation .*mutual information", page.text(".detail"))
            else:
                assert "holds no maps" in page.text("#about") and "map of" not in page.text("#caption")
            page.close()


def test_the_picture_is_downloaded_with_its_map_and_words(page, frontal):
    page.choose(frontal[0])
    page.tab.locator("[data-label='Edema']").click()
    name, data = page.download("#save")
    picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    height, width = cv2.imread(str(frontal[0]), cv2.IMREAD_GRAYSCALE).shape
    assert name == f"{frontal[0].stem} Edema.png"
    assert picture.shape[1] == width and picture.shape[0] > height and picture[height + 5:].max() > 200


@pytest.mark.parametrize("settings", [{"viewport": {"width": 360, "height": 740}, "is_mobile": True, "has_touch": True},
                                      {"color_scheme": "dark"}])
def test_on_a_telephone_and_in_the_dark(browser, client, frontal, settings):
    context = browser.new_context(**{"viewport": {"width": 1280, "height": 800}, **settings})
    tab = context.new_page()
    tab.goto(client.address)
    tab.set_input_files("#file", str(frontal[0]))
    tab.locator(".finding").first.wait_for()
    wide, seen = tab.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    assert wide <= seen  # nothing to scroll sideways
    dark = tab.evaluate("getComputedStyle(document.body).backgroundColor")
    levels = [int(level) for level in re.findall(r"\d+", dark)]
    assert (max(levels) < 60) == (settings.get("color_scheme") == "dark")
    context.close()


def test_a_token_is_asked_for_once_and_leaves_the_address(browser, model, frontal):
    with serving(model, token="secret-token") as client:
        for start in ("/", "/#token=secret-token"):
            context = browser.new_context()
            tab = context.new_page()
            tab.goto(client.address + start)
            if start == "/":
                tab.locator("#token").fill("wrong-token")
                tab.locator("#ask button").click()
                tab.locator("#token").fill("secret-token")
                tab.locator("#ask button").click()
            tab.locator("#model", has_text="recipe").wait_for()
            assert "token" not in tab.url
            context.close()


def test_nothing_stays_behind(browser, client, frontal, tmp_path, monkeypatch):
    """No cookie, no storage, no cache; on the server's side no file."""
    before = set(Path("/tmp").glob("*"))
    page = Page(browser, client)
    page.choose(frontal[0])
    kept = page.tab.evaluate("""async () => [document.cookie, localStorage.length, sessionStorage.length,
        (await indexedDB.databases()).length, (await navigator.serviceWorker?.getRegistrations() ?? []).length]""")
    assert kept == ["", 0, 0, 0, 0] and page.context.cookies() == []
    page.close()
    new = {path for path in set(Path("/tmp").glob("*")) - before if "playwright" not in path.name.lower()
           and "chromium" not in path.name.lower()}
    films = [file for path in new for file in ([path] if path.is_file() else path.rglob("*"))
             if file.is_file() and file.stat().st_size == frontal[0].stat().st_size]
    assert not films
