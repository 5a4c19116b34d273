"""One site of everything there is to read: the pages, the API from the docstrings, and a gallery of all figures.

    pip install ".[docs]"
    python docs/site.py --out site          # then open site/index.html
"""

import argparse
import html
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import markdown2

HOME = Path(__file__).resolve().parents[1]
EXTRAS = ["tables", "fenced-code-blocks", "header-ids", "cuddled-lists"]
STYLE = """:root{color-scheme:light dark}body{max-width:60rem;margin:0 auto;padding:1rem 1.25rem 4rem;
font:16px/1.55 system-ui,sans-serif}pre{overflow-x:auto;padding:.8rem;border:1px solid #8885;border-radius:.4rem}
table{border-collapse:collapse;display:block;overflow-x:auto}
th,td{border:1px solid #8885;padding:.25rem .6rem;text-align:left}
nav a{margin-right:1rem}img{max-width:100%;background:#fff}.gallery{display:grid;gap:1.5rem;
grid-template-columns:repeat(auto-fill,minmax(18rem,1fr))}figure{margin:0}
figcaption{font-size:.85rem;overflow-wrap:anywhere}nav a{display:inline-block}"""
NAVIGATION = (("README.html", "Start"), ("docs/tutorials/reproduce.html", "Reproduce"),
              ("docs/tutorials/own_data.html", "Own data"), ("docs/tutorials/serve.html", "Serve"),
              ("docs/tutorials/compare.html", "Compare"), ("docs/results.html", "Results"), ("gallery.html", "Gallery"),
              ("api/chexpert_hier.html", "API"))


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    answer = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    answer.add_argument("--out", type=Path, default=Path("site"))
    answer.add_argument("--no-api", action="store_true", help="leave the API reference out")
    return answer


def pages() -> list[Path]:
    """Every page, relative to the project's folder."""
    found = [HOME / "README.md", HOME / "CONTRIBUTING.md", HOME / "CHANGELOG.md", *(HOME / "docs").rglob("*.md"),
             *(HOME / "experiments" / "results").rglob("*.md"), *(HOME / "experiments" / "benchmarks").glob("*.md")]
    # A text that a script puts into its page is no page of its own.
    return sorted(path.relative_to(HOME) for path in found if not path.stem.endswith("_reading"))


def figures() -> list[Path]:
    """Every figure that the scripts make."""
    found = [path for kind in ("png", "svg") for path in (HOME / "experiments" / "results").rglob(f"*.{kind}")]
    return sorted(path.relative_to(HOME) for path in [*found, *(HOME / "docs").glob("*.png")])


def framed(title: str, body: str, page: Path) -> str:
    """A whole HTML page; `page` says from where its links lead."""
    up = "../" * (len(page.parts) - 1)
    links = "".join(f'<a href="{up}{place}">{name}</a>' for place, name in NAVIGATION)
    return (f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><meta name="viewport" '
            f'content="width=device-width,initial-scale=1"><title>{html.escape(title)}</title><style>{STYLE}</style>'
            f"</head><body><nav>{links}</nav>{body}</body></html>\n")


def build(out: Path, api: bool = True) -> None:
    """Write the site into `out`, which is emptied first if it is an earlier site."""
    if out.exists() and any(out.iterdir()) and not (out / "gallery.html").exists():
        raise SystemExit(f"error: {out}: is not empty and no earlier site; choose another --out")
    shutil.rmtree(out, ignore_errors=True)
    for page in pages():
        text = (HOME / page).read_text(encoding="utf-8")
        body = markdown2.markdown(text, extras=EXTRAS)
        body = re.sub(r'href="(?!https?:)([^"#]+)\.md(#[^"]*)?"', r'href="\1.html\2"', body)
        for link in re.findall(r'href="(?!https?:)([^"#]+)', body):  # the notebook and the like
            file = (HOME / page).parent / link
            if file.is_file() and HOME in file.resolve().parents:
                place = out / file.resolve().relative_to(HOME)
                place.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(file, place)
        write(out / page.with_suffix(".html"), framed(text.split("\n")[0].lstrip("# "), body, page))
    for figure in figures():
        (out / figure).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(HOME / figure, out / figure)
    shown = "".join(f'<figure><a href="{figure}"><img loading="lazy" alt="{figure.stem}" src="{figure}"></a>'
                    f"<figcaption>{figure.parent}/<b>{figure.name}</b></figcaption></figure>" for figure in figures())
    write(out / "gallery.html", framed("Gallery", f'<h1>Gallery</h1><div class="gallery">{shown}</div>', Path("x")))
    write(out / "index.html", '<!DOCTYPE html><meta http-equiv="refresh" content="0;url=README.html">'
          '<title>chexpert_hier</title><a href="README.html">chexpert_hier</a>\n')
    if api:
        # One of TensorFlow's own imports asks the system for the processor's name.
        subprocess.run([sys.executable, "-m", "pdoc", "chexpert_hier", "--docformat", "google", "-o", str(out / "api")],
                       check=True, cwd=HOME, env={**os.environ, "PDOC_ALLOW_EXEC": "1", "TF_CPP_MIN_LOG_LEVEL": "3"})


def write(path: Path, text: str) -> None:
    """Write a page."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    asked = parser().parse_args()
    build(asked.out.resolve(), api=not asked.no_api)
    print(asked.out / "index.html")
