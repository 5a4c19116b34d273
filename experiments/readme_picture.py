"""The README's picture: a film, where the network looks, and the tree of findings with its probabilities.

    python experiments/readme_picture.py --run runs/mine --out docs/answer.png

Without --film a validation film with several findings that the run calls rightly is taken.
"""

import argparse
from pathlib import Path

import matplotlib
import pandas as pd
from matplotlib.figure import Figure

from chexpert_hier import finished, heatmaps, hierarchy, labels
from chexpert_hier.films import read_film
from chexpert_hier.heatmaps import maps as drawing
from chexpert_hier.run_folder import read_facts

BLUE, GREY = "#0072B2", "#8a8a8a"


def parser() -> argparse.ArgumentParser:
    answer = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    answer.add_argument("--run", type=Path, required=True)
    answer.add_argument("--film", type=Path)
    answer.add_argument("--out", type=Path, default=Path("docs/answer.png"))
    return answer


def main(argv: list[str] | None = None) -> int:
    args = parser().parse_args(argv)
    member = finished.open_run(args.run)
    film = finished.find_films([str(args.film or _telling_film(args.run, member))])[0]
    grey = read_film(film.file, film.name)
    found = drawing.film_maps(member, [film], [grey], member.labels)[0]
    probability = dict(zip(found.labels, found.probabilities))
    present = {label for label, least in _thresholds(member).items() if probability[label] >= least}
    shown = max(present & set(labels.COMPETITION_LABELS) or {"Pleural Effusion"}, key=lambda name: probability[name])
    with matplotlib.rc_context({"font.size": 9, "font.family": "sans-serif"}):
        figure = Figure(figsize=(10.4, 3.6), layout="constrained")
        axes = figure.subplots(1, 3, width_ratios=(1, 1, 1.35))
        overlay = heatmaps.overlay(grey, heatmaps.rectified(found.on_film(shown), 0.2))
        for place, (picture, title) in zip(axes, ((grey, "a synthetic film"),
                                                  (overlay[..., ::-1], f"where it looks for {shown}"))):
            place.imshow(picture, cmap="gray")
            place.set_title(title)
            place.axis("off")
        draw_tree(axes[2], member.tree, probability, present)
        axes[2].set_title("the findings, children under what they imply")
        args.out.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(args.out, dpi=110)
    print(args.out)
    return 0


def _thresholds(member) -> dict[str, float]:
    return drawing.thresholds(member.validation(), member.labels)


def _telling_film(run: Path, member) -> Path:
    """Of the judged films with all five of the competition's findings called as they are, the one with the most."""
    predicted, truth = (pd.read_csv(run / f"{name}.csv", index_col=0) for name in ("predictions", "truth"))
    least = pd.Series(_thresholds(member))
    right = (predicted[least.index] >= least) == (truth[least.index] == 1)
    five = list(labels.COMPETITION_LABELS)
    found = right[five].sum(axis=1) + 0.1 * (truth[five] == 1).sum(axis=1) + 0.04 * right.sum(axis=1)
    root = Path(read_facts(run)["data"]["root"])
    return root / found.idxmax().split("/", 1)[1]


def draw_tree(axes, tree: hierarchy.Tree, probability: dict[str, float], present: set[str]) -> None:
    """Indented lines, a bar for each probability; a label with two parents stands under the first."""
    parents = {name: tree.parents.get(name, ()) for name in tree.labels}
    lines: list[tuple[int, str]] = []

    def walk(name: str, depth: int) -> None:
        lines.append((depth, name))
        for child in (c for c in tree.labels if parents[c] and parents[c][0] == name):
            walk(child, depth + 1)

    for root in (name for name in tree.labels if not parents[name]):
        walk(root, 0)
    for row, (depth, name) in enumerate(lines):
        on = name in present
        axes.barh(row, probability[name], 0.62, left=1.4, color=BLUE if on else "#d5dae0")
        axes.text(0.02 + 0.1 * depth, row, name, va="center", weight="bold" if on else "normal",
                  color="black" if on else GREY)
        axes.text(1.42 + probability[name], row, f"{probability[name]:.2f}", va="center", fontsize=8, color=GREY)
    axes.set_xlim(0, 2.6)
    axes.set_ylim(len(lines) - 0.4, -0.6)
    axes.axis("off")


if __name__ == "__main__":
    raise SystemExit(main())
