"""What is written about the code: examples in docstrings run, generated pages are current, the reference builds."""

import configparser
import doctest
import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from chexpert_hier import console, hierarchy, phantom

REPOSITORY = Path(__file__).parents[1]
SHOWN = ("labels", "hierarchy", "predict.uncertainty", "evaluate.ranking")  # modules that people import, with examples


def modules():
    for path in sorted((REPOSITORY / "chexpert_hier").rglob("*.py")):
        if ">>> " in path.read_text(encoding="utf-8"):
            yield ".".join(path.relative_to(REPOSITORY).with_suffix("").parts).removesuffix(".__init__")


@pytest.mark.parametrize("module", list(modules()))
def test_the_examples_in_docstrings_are_true(module):
    found = doctest.testmod(importlib.import_module(module))
    assert found.attempted > 0 and found.failed == 0


def test_what_people_import_has_examples():
    assert {f"chexpert_hier.{name}" for name in SHOWN} <= set(modules())


def test_the_table_of_recipes_is_current():
    script = [sys.executable, str(REPOSITORY / "experiments" / "recipes_table.py"), "--check"]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    assert subprocess.run(script, env=environment).returncode == 0, "run: python experiments/recipes_table.py"


def test_the_readme_s_library_snippet_runs_as_it_stands(tmp_path, monkeypatch):
    text = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    snippet = next(block for block in re.findall("```python\n(.*?)```", text, re.DOTALL) if "chexpert_hier" in block)
    phantom.make(tmp_path / "CheXpert-v1.0-small", patients=12, valid_patients=3, seed=1, processes=1, laterals=False)
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(snippet, names)
    assert names["rows"].any() and names["targets"].shape == names["hard"].shape
    tree = hierarchy.CHEXPERT_TREE
    for child, parents in tree.parents.items():
        above = names["probabilities"][:, [tree.labels.index(name) for name in parents]].min(axis=1)
        below = names["probabilities"][:, tree.labels.index(child)]
        assert np.all((below <= above) | np.isnan(below) | np.isnan(above))


def test_the_readme_names_every_command_and_says_how_to_start_in_two_lines():
    text = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    named = re.findall(r"^\| `python -m chexpert_hier\.(\w+)", text, re.MULTILINE)
    assert sorted(named) == sorted(console.COMMANDS)
    lines = [block.strip() for block in re.findall("```bash\n(.*?)```", text, re.DOTALL)]
    assert len(lines) == 2 and all("\n" not in line and line.startswith("python3 -m venv .venv && ") for line in lines)
    results = text.split("## Results")[1].split("## Layout")[0]
    rows = [line for line in results.splitlines() if line.startswith("| [")]
    assert 0 < len(rows) <= 8 and "Nobody has run this package on CheXpert yet" in results


def test_the_site_of_all_pages_has_no_dead_link(tmp_path):
    pytest.importorskip("markdown2")
    subprocess.run([sys.executable, str(REPOSITORY / "docs" / "site.py"), "--out", str(tmp_path / "site"), "--no-api"],
                   check=True, capture_output=True)
    pages = sorted((tmp_path / "site").rglob("*.html"))
    dead = [(page.name, link) for page in pages
            for link in re.findall(r'(?:href|src)="([^"#]+)', page.read_text(encoding="utf-8"))
            if not link.startswith(("http", "data:")) and "api/" not in link and not (page.parent / link).exists()]
    assert len(pages) > 20 and not dead
    gallery = (tmp_path / "site" / "gallery.html").read_text(encoding="utf-8")
    assert gallery.count("<figure>") == len(list((REPOSITORY / "experiments" / "results").rglob("*.png"))) + len(
        list((REPOSITORY / "experiments" / "results").rglob("*.svg"))) + len(list((REPOSITORY / "docs").glob("*.png")))


def test_every_command_is_a_console_command_too():
    settings = configparser.ConfigParser()
    settings.read(REPOSITORY / "setup.cfg", encoding="utf-8")
    lines = settings["options.entry_points"]["console_scripts"].strip().splitlines()
    named = dict(re.fullmatch(r"chexpert-hier-(\w+) = chexpert_hier\.console:(\w+)", line).groups() for line in lines)
    files = [path for path in (REPOSITORY / "chexpert_hier").rglob("*.py")
             if re.search(r"commands\.answer\(main\)\)\s*$", path.read_text(encoding="utf-8"))]
    # A module inside an area that can be run by itself (heatmaps.chexlocalize) is no command of its own.
    commands = {path.parent.name if path.stem == "__main__" else path.stem for path in files
                if path.stem == "__main__" or path.parent.name == "chexpert_hier"}
    assert named == {name: name for name in commands} and commands == set(console.COMMANDS)
    for name in commands:
        assert getattr(console, name).args == (name,)
        assert callable(importlib.import_module(console.module_of(name)).main)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        console.nothing  # noqa: B018


@pytest.mark.slow
def test_the_reference_builds_without_warnings(tmp_path):
    pytest.importorskip("pdoc")
    answer = subprocess.run([sys.executable, "-m", "pdoc", "chexpert_hier", "--docformat", "google", "-o",
                             str(tmp_path / "site")], capture_output=True, text=True, cwd=REPOSITORY, timeout=600,
                            env={**os.environ, "PDOC_ALLOW_EXEC": "1", "TF_CPP_MIN_LOG_LEVEL": "2"})
    assert answer.returncode == 0, answer.stderr[-2000:]
    assert not re.search(r"Warn:|UserWarning|Traceback", answer.stderr), answer.stderr[-2000:]
    page = (tmp_path / "site" / "chexpert_hier" / "hierarchy.html").read_text(encoding="utf-8")
    assert "chain_rule" in page and "never above any ancestor" in page
