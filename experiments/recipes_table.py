"""Write docs/recipes.md: every field of the four papers' recipes side by side, from chexpert_hier/recipes/.

    python experiments/recipes_table.py            # writes the file
    python experiments/recipes_table.py --check    # exit code 1 when it is out of date
"""

import argparse
import dataclasses
import textwrap
from pathlib import Path

from chexpert_hier import recipes

PAGE = Path(__file__).parents[1] / "docs" / "recipes.md"
PAPERS = ("pham2019", "chexnet", "chexpertnet", "hbce")
STAGE_FIELDS = tuple(field.name for field in dataclasses.fields(recipes.Stage) if field.name != "name")
FIELDS = tuple(field.name for field in dataclasses.fields(recipes.Recipe) if field.name not in ("name", "stages"))


def shown(value: object) -> str:
    """A value as a cell of a Markdown table."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    text = ", ".join(map(str, value)) if isinstance(value, tuple) else f"{value:g}" if isinstance(value, float) else (
        str(value))
    return text.replace("|", "\\|") or "–"


def rows_of(chosen: list[recipes.Recipe]) -> list[tuple[str, list[str]]]:
    """(field, its value in every recipe), stage by stage at the end; a stage that a recipe lacks is empty."""
    rows = [(name, [shown(getattr(recipe, name)) for recipe in chosen]) for name in FIELDS]
    for number in range(max(len(recipe.stages) for recipe in chosen)):
        stages = [recipe.stages[number] if number < len(recipe.stages) else None for recipe in chosen]
        rows += [(f"stage {number + 1}: {name}", [shown(getattr(stage, name, None)) for stage in stages])
                 for name in ("name", *STAGE_FIELDS)]
    return rows


def table(chosen: list[recipes.Recipe], only_different: bool = False) -> str:
    """A Markdown table with one column per recipe; bold where the recipes are not all alike."""
    lines = [f"| field | {' | '.join(recipe.name for recipe in chosen)} |", "|---|" + "---|" * len(chosen)]
    for name, values in rows_of(chosen):
        different = len(set(values)) > 1
        if different or not only_different:
            lines.append(f"| {f'**{name}**' if different and not only_different else name} | {' | '.join(values)} |")
    return "\n".join(lines)


def page() -> str:
    """The whole of docs/recipes.md."""
    others = [recipe for name, recipe in recipes.RECIPES.items() if name not in PAPERS]
    written = ("Written by `python experiments/recipes_table.py` from `chexpert_hier/recipes/papers.py`, where every "
               "number has its source beside it; a test compares. Any field can be changed with `--set FIELD=VALUE`, "
               "a stage's with `--set STAGE.FIELD=VALUE`. Fields in which the four differ are bold.")
    parts = ["# The recipes side by side", _wrapped(written), table([recipes.RECIPES[name] for name in PAPERS])]
    for recipe in others:
        base = recipes.RECIPES[next((name for name in PAPERS if recipe.name.startswith(name)), "pham2019")]
        source = recipe.source[:1].upper() + recipe.source[1:]
        parts += [f"## {recipe.name}", _wrapped(f"{source}. Where it differs from {base.name}:"),
                  table([base, recipe], only_different=True)]
    return "\n\n".join(parts) + "\n"


def _wrapped(text: str) -> str:
    return textwrap.fill(text, 100, break_long_words=False, break_on_hyphens=False)


def main(argv: list[str] | None = None) -> int:
    """Write or check the page; 0 when it is as it should be."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 when the page is out of date")
    args = parser.parse_args(argv)
    if args.check:
        return int(not PAGE.exists() or PAGE.read_text(encoding="utf-8") != page())
    PAGE.write_text(page(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
