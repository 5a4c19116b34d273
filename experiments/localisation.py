"""Do the maps find the findings? Pointing game and overlap on phantom masks and NIH boxes, against baselines.

    python experiments/localisation.py --nih DIR

A trained network's class activation maps against two that cannot know the film's finding: the best constant point
learned on training masks, and the maps of the network before training. The heart and effusions are always in the same
place, so chance by area proves nothing. The raw values per film are kept; `--tables-only` computes the tables.
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from companions import HERE, NIH, Bench, heading, read, table, write_facts

from chexpert_hier import commands, recipes
from chexpert_hier.datasets.chestxray14 import read_boxes
from chexpert_hier.files import write_text
from chexpert_hier.heatmaps import localise
from chexpert_hier.heatmaps.overlays import onto_film
from chexpert_hier.phantom import making, reports

TRAINING_MASKS = 400  # films whose masks the constant point is learned on, per finding


def parser() -> argparse.ArgumentParser:
    answer = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    answer.add_argument("--nih", type=Path, help="a ChestX-ray14 folder with boxes in bbox.csv or BBox_List_2017.csv")
    answer.add_argument("--arch", default="tiny")
    answer.add_argument("--size", type=int, default=160, help="pixels; tiny's maps have a 16th of it")
    answer.add_argument("--epochs", type=int, default=10)
    answer.add_argument("--patients", type=int, default=900, help="training patients of the phantom")
    answer.add_argument("--valid-patients", type=int, default=1600)
    answer.add_argument("--phantom-seed", type=int, default=21)
    answer.add_argument("--films", type=int, default=600, help="validation films that are mapped")
    answer.add_argument("--work", type=Path, default=HERE / "work" / "companions")
    answer.add_argument("--out", type=Path, default=HERE / "results" / "localisation")
    answer.add_argument("--tables-only", action="store_true")
    return answer


def main(argv: list[str] | None = None) -> int:
    args = parser().parse_args(argv)
    if not args.tables_only:
        _train_all(args)
    tables(args.out)
    return 0


def base_recipe(args: argparse.Namespace) -> recipes.Recipe:
    """CheXNet's recipe on frontal films in CheXpert's layout, the phantom's clean truth as labels."""
    # A rate that falls after one bad epoch ends so short a training from random weights before it has begun.
    stage = replace(recipes.CHEXNET.stages[0], epochs=args.epochs, schedule="constant", stop_after=0)
    return replace(recipes.CHEXNET, reader="chexpert", split="auto", judged="valid", train_file="train_truth.csv",
                   arch=args.arch, weights="none", rescaled_size=args.size, crop_size=args.size, image_size=args.size,
                   cache=True, batchnorm_momentum=0.9, stages=(stage,))


def _train_all(args: argparse.Namespace) -> None:
    bench, base = Bench(args.work), base_recipe(args)
    settings = {"patients": args.patients, "valid_patients": args.valid_patients, "seed": args.phantom_seed,
                "laterals": True, "most_studies": 3, "report_noise": 1.0}
    dataset = read(base, bench.phantom(**settings))

    def measured(network, source):
        return _on_phantom(network, source, args.films)

    tag = f"localisation phantom {args.arch} {args.size} {args.epochs} {args.films}"
    found = bench.run(tag, base, lambda: bench.source(dataset, base), after=measured)
    write_text(args.out / "phantom.csv", str(found["rows"]))
    if args.nih:
        real = replace(base, reader="chestxray14", train_file="train.csv")
        boxes = next(path for name in ("bbox.csv", "BBox_List_2017.csv") if (path := args.nih / name).is_file())
        films = read(real, args.nih)
        found = bench.run(f"localisation nih {args.arch} {args.size} {args.epochs}", real,
                          lambda: bench.source(films, real), after=lambda n, s: _on_boxes(n, s, boxes))
        write_text(args.out / "nih.csv", str(found["rows"]))
    write_facts(args.out, bench, base, dataset, phantom=settings, mapped=args.films)


def _maps(network, films, places: np.ndarray) -> np.ndarray:
    """Class activation maps float32 (n, h, w, labels)."""
    from chexpert_hier.heatmaps.maps import heatmaps

    batches = films.batches(places, batch_size=32)
    return np.concatenate([np.asarray(heatmaps(network, np.asarray(batch))) for batch in batches])


def _untrained(network, source):
    """The same network before training."""
    from chexpert_hier.network import model

    return model.build_model(network.name, source.dataset.labels, "none", source.image_size, seed=1000,
                             batchnorm_momentum=0.9)


def _on_phantom(network, source, count: int) -> dict[str, np.ndarray]:
    """One row per validation film and finding that is drawn on it: hits and overlaps of the three."""
    train, valid = source.films("train").dataset, source.films("valid")
    points = {finding: _constant_point(train, finding, k) for k, finding in enumerate(reports.FINDINGS)}
    patients = valid.dataset.films["patient"].tolist()
    places = np.arange(min(count, len(valid)))
    ours, before = _maps(network, valid, places), _maps(_untrained(network, source), valid, places)
    rows = []
    for film in places:
        masks = making.read_masks(valid.dataset.files[film])
        for k, finding in enumerate(reports.FINDINGS):
            if not masks[k].any() or points[finding] is None:
                continue
            column = valid.labels.index(finding)
            heats = _laid(network, [maps[film, :, :, column] for maps in (ours, before)], masks[k].shape)
            rows.append((patients[film], finding, *_values(heats, points[finding], masks[k])))
    return {"rows": np.array(_csv(rows))}


def _laid(network, maps: list[np.ndarray], shape: tuple[int, int]) -> list[np.ndarray]:
    """The trained and the untrained map stretched over the film, and both with their cells centred on what they see."""
    from chexpert_hier.network.maps import map_cells

    return [onto_film(heat, shape, cells=cells) for cells in (None, map_cells(network)) for heat in maps]


def _constant_point(train, finding: str, k: int) -> tuple[float, float] | None:
    """The one place that lies in most of the training films' masks of the finding; None without any."""
    has = np.flatnonzero(train.films[finding].to_numpy() == 1)[:TRAINING_MASKS]
    regions = [masks[k] for place in has if (masks := making.read_masks(train.files[place]))[k].any()]
    return localise.best_constant_point(regions) if regions else None


def _on_boxes(network, source, boxes: Path) -> dict[str, np.ndarray]:
    """The same for the boxes of validation films; the constant point is learned on those of training films."""
    found = read_boxes(boxes)
    rows, splits = [], {split: source.films(split) for split in ("train", "valid")}
    before = _untrained(network, source)
    for finding, part in found.groupby("label"):
        regions = {split: _regions(films.dataset, part) for split, films in splits.items()}
        if not regions["valid"]:
            continue
        learned = [region for _, region in regions["train"]]
        point = localise.best_constant_point(learned) if learned else (0.5, 0.5)
        column = splits["valid"].labels.index(finding)
        for place, region in regions["valid"]:
            maps = [_maps(net, splits["valid"], np.array([place]))[0, :, :, column] for net in (network, before)]
            heats = _laid(network, maps, region.shape)
            rows.append((splits["valid"].dataset.films["patient"].iloc[place], finding, *_values(heats, point, region)))
    return {"rows": np.array(_csv(rows))}


def _regions(dataset, boxes: pd.DataFrame) -> list[tuple[int, np.ndarray]]:
    """(place, bool (h, w)) of the films that have boxes."""
    from chexpert_hier.films.decode import read_film

    answer = []
    for place, path in enumerate(dataset.films["path"]):
        own = boxes[boxes["path"] == path]
        if len(own):
            shape = read_film(dataset.files[place]).shape
            answer.append((place, localise.box_mask(own[["x", "y", "w", "h"]].to_numpy(), shape)))
    return answer


def _values(heats: list[np.ndarray], point: tuple[float, float], region: np.ndarray) -> tuple:
    """Hits of the maps and the point, overlaps of the maps, the region's share; see COLUMNS."""
    return (*(int(localise.hit(heat, region)) for heat in heats), int(localise.hit_at(point, region)),
            *(localise.iou(localise.segment(heat), region, true_positives_only=False) for heat in heats),
            float(region.mean()))


COLUMNS = ("patient", "finding", "hit", "untrained hit", "centred hit", "centred untrained hit", "point hit", "iou",
           "untrained iou", "centred iou", "centred untrained iou", "area")
# What is set against what, paired within films.
AGAINST = (("hit", "point hit"), ("hit", "untrained hit"), ("centred hit", "point hit"), ("centred hit", "hit"),
           ("centred hit", "centred untrained hit"), ("iou", "untrained iou"), ("centred iou", "iou"))


def _csv(rows: list[tuple]) -> str:
    return pd.DataFrame(rows, columns=COLUMNS).to_csv(index=False, float_format="%.5f")


# ---------------------------------------------------------------------------------------------------- the tables

def tables(out: Path) -> None:
    """Write table.csv and README.md from the values per film."""
    facts = json.loads((out / "facts.json").read_text())
    lines = heading(facts, "Localisation: pointing game and overlap")
    lines += ["hit: the map's largest pixel lies in the mask; iou: intersection over union with the map above Otsu's "
              "threshold (definitions of CheXlocalize), over films that have the finding. Maps are stretched over the "
              "film, as the papers do, or *centred*: each cell where the centre of what it sees lies (ours, `--place "
              "centred`). point: the one place that lies in most training masks. untrained: the same network's maps "
              "before training. Differences are paired within films, 95 % bootstrap intervals over patients. The heart "
              "is always in the same place: one point lies in nearly every enlarged one, and no map points better.", ""]
    rows = _summary(pd.read_csv(out / "phantom.csv", dtype={"patient": str}))
    write_text(out / "table.csv", rows.to_csv(index=False, float_format="%.4f"))
    differences = [f"{name} - {against}" for name, against in AGAINST]
    lines += ["## Phantom masks", "", *table(rows[["finding", "films", "mask's share", *COLUMNS[2:-1]]]),
              *table(rows[["finding", *differences]]), *_statements(rows), ""]
    if (out / "nih.csv").exists():
        boxes = pd.read_csv(out / "nih.csv", dtype={"patient": str})
        lines += ["## NIH boxes", "", f"{len(boxes)} boxed finding(s) on validation films: far too few to say "
                  "anything; shown because the path from film to box is the same.", "",
                  *table(boxes.drop(columns="patient")), NIH, ""]
    write_text(out / "README.md", "\n".join(lines))
    print("\n".join(lines))


def _summary(values: pd.DataFrame) -> pd.DataFrame:
    rows = []
    for finding, part in [*values.groupby("finding"), ("all findings", values)]:
        row = {"finding": finding, "films": len(part), "mask's share": part["area"].mean()}
        row |= {name: part[name].mean() for name in COLUMNS[2:-1]}
        for name, against in AGAINST:
            mean = localise.bootstrap_mean((part[name] - part[against]).to_numpy(), part["patient"].to_numpy())
            row[f"{name} - {against}"] = f"{mean.mean:+.3f} ({mean.low:+.3f} to {mean.high:+.3f})"
            row[f"{name} beats {against}"] = "yes" if mean.low > 0 else "worse" if mean.high < 0 else "no"
        rows.append(row)
    return pd.DataFrame(rows)


def _statements(rows: pd.DataFrame) -> list[str]:
    each, told = rows[rows["finding"] != "all findings"].set_index("finding"), []
    for name, against in AGAINST:
        outcome = each[f"{name} beats {against}"]
        named = {word: ", ".join(each.index[outcome == word]) or "none" for word in ("yes", "worse")}
        told.append(f"- {name} against {against}: better (interval above 0): {named['yes']}; worse: {named['worse']}.")
    return told


if __name__ == "__main__":
    raise SystemExit(commands.answer(main))
