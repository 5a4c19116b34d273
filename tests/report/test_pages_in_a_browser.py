"""The report and the evaluation page in a real browser: at three widths, in the dark, and on paper."""

import shutil
import subprocess
from dataclasses import replace

import pytest
from test_report import make_run

from chexpert_hier import recipes
from chexpert_hier.evaluate import __main__ as evaluate_command
from chexpert_hier.report.page import write

pytestmark = [pytest.mark.browser, pytest.mark.filterwarnings("ignore")]
WIDTHS = (390, 820, 1280)


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    folder = make_run(tmp_path_factory.mktemp("pages") / "run")
    evaluate_command.main(["--predictions", str(folder / "predictions.csv"), "--truth", str(folder / "truth.csv"),
                           "--out", str(folder / "judged"), "--replicates", "50", "--quiet"])
    return {"report": write(folder, replicates=50), "evaluation": folder / "judged" / "evaluation.html"}


@pytest.fixture(params=["report", "evaluation"])
def page(request, pages):
    return pages[request.param]


@pytest.mark.parametrize("width", WIDTHS)
def test_nothing_is_cut_off_at_any_width(browser, page, width):
    tab = browser.new_page(viewport={"width": width, "height": 900})
    asked = []
    tab.on("request", lambda request: asked.append(request.url))
    tab.goto(page.as_uri())
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    # What is wider than its box lies in a box that scrolls, and that says so by a shadow.
    cut = tab.evaluate("""[...document.querySelectorAll("table")].filter(table => {
        const box = table.parentElement;
        return box.scrollWidth > box.clientWidth && (getComputedStyle(box).overflowX !== "auto"
            || !getComputedStyle(box).backgroundImage.includes("radial-gradient"));
    }).length""")
    assert cut == 0 and [url for url in asked if not url.startswith(("file:", "data:"))] == []
    picture = tab.screenshot()
    assert picture[:4] == b"\x89PNG" and len(picture) > 10_000
    tab.close()


HOSTILE = ('<img src=x onerror="window.hit=1">', "<script>window.hit=1</script>",
           "</td></table><svg onload=window.hit=1>",
           "javascript:window.hit=1", "{{7*7}}${7*7}", "&lt;b&gt;", "\u202eedoc", "x" * 300)


def test_hostile_labels_run_nothing_and_are_shown_as_they_are(browser, tmp_path):
    recipe = replace(recipes.PHAM2019, policy="u-ones", reader="csv")
    folder = make_run(tmp_path / "run", recipe, HOSTILE, {HOSTILE[1]: [HOSTILE[0]]}, root=HOSTILE[2])
    evaluate_command.main(["--predictions", str(folder / "predictions.csv"), "--truth", str(folder / "truth.csv"),
                           "--out", str(folder / "judged"), "--replicates", "20", "--tree", "flat", "--quiet"])
    for page in (write(folder, replicates=20), folder / "judged" / "evaluation.html"):
        _look_at_hostile(browser.new_page(), page)


def _look_at_hostile(tab, page):
    said, asked = [], []
    tab.on("dialog", lambda dialog: said.append(dialog.message))
    tab.on("pageerror", lambda error: said.append(str(error)))
    tab.on("request", lambda request: asked.append(request.url))
    tab.goto(page.as_uri())
    for folded in tab.query_selector_all("summary"):
        folded.click()
    words = tab.inner_text("body")
    assert tab.evaluate("window.hit") is None and said == []
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
    assert tab.query_selector("a[href^=javascript]") is None
    assert all(label in words for label in HOSTILE[:6]), page.name
    tab.close()


def test_in_the_dark_the_page_is_dark_and_its_words_are_light(browser, page):
    tab = browser.new_page(color_scheme="dark")
    tab.goto(page.as_uri())
    ground, ink = tab.evaluate("""(style => [style.backgroundColor, style.color].map(
        colour => colour.match(/\\d+/g).slice(0, 3).reduce((sum, value) => sum + Number(value), 0) / 3))(
        getComputedStyle(document.body))""")
    assert ground < 60 and ink > 200
    tab.close()


def test_paper_shows_what_the_screen_folds_away(browser, page, tmp_path, missing):
    if shutil.which("pdftotext") is None:
        missing("no pdftotext; apt-get install poppler-utils")
    tab = browser.new_page()
    tab.goto(page.as_uri())
    folded = tab.evaluate("""[...document.querySelectorAll("details:not([open]) figcaption")].length""")
    assert folded  # labels that are not the competition's: their curves are folded away
    tab.pdf(path=tmp_path / "page.pdf", format="A4")
    words = subprocess.run(["pdftotext", "-layout", tmp_path / "page.pdf", "-"], capture_output=True, text=True).stdout
    everything = tab.evaluate("""[...document.querySelectorAll("figcaption")].filter(
        one => one.textContent === "ROC curve").length""")
    assert words.count("ROC curve") == everything
    tab.close()
