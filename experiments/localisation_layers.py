"""Which layer's maps find the findings? Pointing game and overlap for each block of a finished run, on phantom masks.

    python -m chexpert_hier.run --arch densenet121 --out RUN
    python experiments/localisation_layers.py --run RUN

The run's own choice (`heatmaps --layer auto`) is marked. The best constant point, learned on training masks, is what
any map has to beat. Writes results/localisation/layers.csv and layers.md.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import pandas as pd

from chexpert_hier import commands, finished
from chexpert_hier.datasets import reading
from chexpert_hier.files import write_text
from chexpert_hier.films import read_film
from chexpert_hier.heatmaps import localise, maps
from chexpert_hier.heatmaps.overlays import onto_film
from chexpert_hier.phantom import making, reports
from chexpert_hier.run_folder import read_facts

OUT = Path(__file__).parent / "results" / "localisation"
POINT = "constant point"
LEAST = 10  # films with a finding, below which it has no row of its own


def parser() -> argparse.ArgumentParser:
    answer = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    answer.add_argument("--run", type=Path, required=True, help="a finished run on the phantom")
    answer.add_argument("--films", type=int, default=200, help="validation films that are mapped")
    answer.add_argument("--batch", type=int, default=20, help="films at once")
    return answer


def main(argv: list[str] | None = None) -> int:
    args = parser().parse_args(argv)
    member = finished.open_run(args.run)
    data = Path(read_facts(args.run)["data"]["root"])
    truth = reading.read(data, train_file="train_truth.csv")
    valid, train = truth.split("valid"), truth.split("train")
    layers = usable_layers(member)
    values = pd.concat([_points(train, valid, args.films),
                        *(_of_layer(member, valid, layer, args) for layer in layers)], ignore_index=True)
    write(values, layers, member, f"python experiments/localisation_layers.py --films {args.films}",
          making.read_marker(data)["version"])
    return 0


def usable_layers(member: finished.Member) -> dict[str, int]:
    """Layer -> rows of its maps: the last one of each size, the last maps as "last"."""
    from chexpert_hier.network.maps import map_layers, map_model

    by_size = {size: name for name, size in map_layers(member.model).items() if size < member.recipe.image_size / 2}
    last = map_model(member.model)[0].output_shape[1]
    return {name: size for size, name in sorted(by_size.items(), reverse=True) if size > last} | {"last": last}


def _of_layer(member: finished.Member, valid, layer: str, args: argparse.Namespace) -> pd.DataFrame:
    rows, patients = [], valid.films["patient"].tolist()
    began = time.monotonic()
    for start in range(0, min(args.films, len(valid)), args.batch):
        places = range(start, min(start + args.batch, args.films, len(valid)))
        films = [finished.Film(valid.files[k], valid.films["path"].iloc[k]) for k in places]
        greys = [read_film(film.file, film.name) for film in films]
        for k, found in zip(places, maps.film_maps(member, films, greys, reports.FINDINGS, layer=layer)):
            rows += _film(layer, patients[k], valid.files[k], found)
    print(f"{layer}: {len(rows)} findings, {time.monotonic() - began:.0f} s", flush=True)
    return pd.DataFrame(rows, columns=["layer", "patient", "finding", "hit", "iou"])


def _film(layer: str, patient: str, file: Path, found: maps.FilmMaps) -> list[tuple]:
    """One row per finding that is drawn on the film."""
    rows = []
    for mask, heat, finding in zip(making.read_masks(file), found.heat, found.labels):
        if mask.any():
            laid = onto_film(heat, mask.shape, found.place, found.crop, found.rescaled)
            rows.append((layer, patient, finding, int(localise.hit(laid, mask)),
                         localise.iou(localise.segment(laid), mask, true_positives_only=False)))
    return rows


def _points(train, valid, count: int) -> pd.DataFrame:
    """The hits of the one place that lies in most of the training films' masks, finding by finding."""
    rows = []
    for k, finding in enumerate(reports.FINDINGS):
        has = np.flatnonzero(train.films[finding].to_numpy() == 1)[:400]
        regions = [masks[k] for place in has if (masks := making.read_masks(train.files[place]))[k].any()]
        point = localise.best_constant_point(regions)
        for place in range(min(count, len(valid))):
            mask = making.read_masks(valid.files[place])[k]
            if mask.any():
                rows.append((POINT, valid.films["patient"].iloc[place], finding, int(localise.hit_at(point, mask)),
                             np.nan))
    return pd.DataFrame(rows, columns=["layer", "patient", "finding", "hit", "iou"])


def write(values: pd.DataFrame, layers: dict[str, int], member: finished.Member, command: str, version: int) -> None:
    """layers.csv with every mean and interval, and layers.md with the hits and overlaps side by side."""
    chosen = maps.layer_of(member.model) or "last"
    rows = []
    for finding in ("all findings", *reports.FINDINGS):
        part = values if finding == "all findings" else values[values["finding"] == finding]
        for layer, own in part.groupby("layer", sort=False):
            for measure in ("hit", "iou"):
                mean = localise.bootstrap_mean(own[measure].to_numpy(float), own["patient"].to_numpy())
                rows.append({"finding": finding, "layer": layer, "measure": measure, **mean._asdict()})
    table = pd.DataFrame(rows).dropna(subset="mean")
    write_text(OUT / "layers.csv", table.to_csv(index=False, float_format="%.4f", lineterminator="\n"))
    names = [*layers, POINT]
    words = [f"{name} ({layers[name]} x {layers[name]}){' *' if name == chosen else ''}" for name in layers]
    lines = ["# Localisation layer by layer", "",
             f"`{command}`, {time.strftime('%Y-%m-%d')}, on the run of the README's first command "
             f"({member.recipe.arch}, {member.recipe.image_size} pixels), phantom version {version}. Means with 95 % "
             "bootstrap intervals over patients, over films that have the finding. The last maps are CAM, earlier "
             f"layers LayerCAM; * is what `--layer auto` takes. Findings on fewer than {LEAST} films are in the first "
             "row only.", ""]
    for measure, title in (("hit", "Pointing game: the largest pixel lies in the mask"),
                           ("iou", "Overlap: intersection over union, map above Otsu's threshold")):
        part = table[(table["measure"] == measure) & (table["films"] >= LEAST)]
        shown = names if measure == "hit" else list(layers)
        heads = ["finding", "films", *words, *[POINT] * (measure == "hit")]
        lines += [f"## {title}", "", "| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
        for finding, own in part.groupby("finding", sort=False):
            cells = {row.layer: f"{row.mean:.3f} ({row.low:.3f} to {row.high:.3f})" for row in own.itertuples()}
            lines.append("| " + " | ".join([str(finding), str(own["films"].max()),
                                            *(cells.get(name, "") for name in shown)]) + " |")
        lines.append("")
    write_text(OUT / "layers.md", "\n".join(lines))
    print("\n".join(lines))


if __name__ == "__main__":
    raise SystemExit(commands.answer(main))
