"""Localisation as CheXlocalize reports it: hit rate and mean IoU per finding, with intervals, from its released format.

    python -m chexpert_hier.heatmaps films --model runs/mine --out maps
    python -m chexpert_hier.heatmaps.chexlocalize --maps maps --masks gt_segmentations_test.json --out localisation

Anyone's segmentations in the same format, such as its Grad-CAM's or its radiologists', go in with --segments. Its maps
are pickles, which this package never opens; its own script turns them into segmentations.
"""

import argparse
import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import pandas as pd

from .. import commands
from ..datasets.chexlocalize import AIRSPACE, decoded
from ..datasets.tables import read_table, require_columns
from ..errors import InputError
from ..files import locked, write_text
from . import localise
from .overlays import read_maps

Threshold = float | str
# A film's map and what it marks there, both (h, w); None where the film or the finding was not mapped.
Answer = Callable[[str, str, tuple[int, int]], tuple[np.ndarray | None, np.ndarray] | None]


class Localisation(NamedTuple):
    """How well maps or segmentations find the findings.

    Attributes:
        films: one row per film and finding that is outlined there: film, finding, hit (NaN for segmentations), iou (NaN
            where nothing is marked: CheXlocalize's true positive slice), region (share of the film that is outlined).
        summary: one row per finding and one for their mean: films, hit, hit_low, hit_high, marked (films that have an
            IoU), iou, iou_low, iou_high.
    """

    films: pd.DataFrame
    summary: pd.DataFrame


def film_id(path: str) -> str:
    """A film's name in CheXlocalize's files.

    >>> film_id("CheXpert-v1.0/valid/patient64541/study1/view1_frontal.jpg")
    'patient64541_study1_view1_frontal'
    """
    found = re.search(r"(patient\d+)[/_](study\d+)[/_](view\d+_\w+?)(?:\.\w+)?$", path)
    return "_".join(found.groups()) if found else path


def localisation(masks: str | Path, answer: Answer, *, all_films: bool = False, draws: int = 1000,
                 seed: int = 0) -> Localisation:
    """Score what `answer` gives against radiologists' masks.

    Args:
        masks: gt_segmentations_val.json or _test.json.
        answer: (film, finding, shape) -> the map on the film's pixels (or None) and what it marks, or None.
        all_films: an outlined finding that nothing is marked for counts as IoU 0, instead of being left out.
        draws: bootstrap resamples of films.
        seed: of the draws.

    Raises:
        InputError: a file of another shape, or no film in common.

    Source: Saporta et al. 2022, Methods, and their eval.py: over films where the finding is outlined; films are drawn,
        the same ones for all findings.
    """
    rows = []
    for film, finding, region in outlined(masks):
        found = answer(film, finding, region.shape)
        if found is None:
            continue
        heat, marked = found
        rows.append({"film": film, "finding": finding,
                     "hit": np.nan if heat is None else float(localise.hit(heat, region)),
                     "iou": localise.iou(marked, region, true_positives_only=not all_films),
                     "region": float(region.mean())})
    if not rows:
        raise InputError(f"{masks}: no outlined film and finding is among the maps; are they of the same films?")
    table = pd.DataFrame(rows)
    return Localisation(table, _summary(table, draws, seed))


def outlined(path: str | Path) -> Iterator[tuple[str, str, np.ndarray]]:
    """(film, finding, bool (h, w)) of a file of masks, one at a time (all of them would not fit into memory).

    Raises:
        InputError: it cannot be read, or has another shape.
    """
    for film, found in _coded(path).items():
        for label, coded in found.items():
            try:
                mask = decoded(coded["counts"], *coded["size"])
            except (ValueError, TypeError, KeyError, AttributeError, IndexError, OverflowError) as error:
                raise InputError(f"{path}: {film}, {label}: expected {{size, counts}} ({error})") from None
            if mask.any():
                yield film, AIRSPACE.get(label, label), mask


def _coded(path: str | Path) -> Mapping[str, Mapping[str, dict]]:
    try:
        films = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); expected CheXlocalize's masks") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: no JSON ({error}); expected CheXlocalize's masks") from None
    if not isinstance(films, dict) or not all(isinstance(found, dict) for found in films.values()):
        raise InputError(f"{path}: expected CheXlocalize's masks, {{film: {{label: {{size, counts}}}}}}")
    return films


def from_maps(folder: str | Path, threshold: Threshold | Mapping[str, float] = "otsu") -> Answer:
    """Maps that `chexpert_hier.heatmaps` wrote, laid onto the masks' pixels.

    Args:
        folder: its --out.
        threshold: "otsu" (CheXlocalize's default), a share in [0, 1), or {finding: share} tuned on other films.

    Raises:
        InputError: no maps there.
    """
    files = {film_id(maps.path): path for path in sorted(Path(folder).glob("*.npz")) for maps in [read_maps(path)]}
    if not files:
        raise InputError(f"{folder}: no maps there; expected the --out folder of python -m chexpert_hier.heatmaps")

    def answer(film: str, finding: str, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray] | None:
        maps = read_maps(files[film]) if film in files else None
        if maps is None or finding not in maps.labels:
            return None
        heat = _resized(maps.on_film(finding), shape, film)
        cut = threshold.get(finding, "otsu") if isinstance(threshold, Mapping) else threshold
        return heat, localise.segment(heat, cut)

    return answer


def from_segments(path: str | Path) -> Answer:
    """Segmentations in CheXlocalize's format; films and findings that are not in the file count as nothing marked."""
    coded = {film: {AIRSPACE.get(label, label): mask for label, mask in found.items()}
             for film, found in _coded(path).items()}

    def answer(film: str, finding: str, shape: tuple[int, int]) -> tuple[None, np.ndarray]:
        found = coded.get(film, {}).get(finding)
        marked = np.zeros(shape, bool) if found is None else decoded(found["counts"], *found["size"])
        if marked.shape != shape:
            raise InputError(f"{path}: {film}, {finding} is {marked.shape[0]} x {marked.shape[1]} pixels, its mask "
                             f"{shape[0]} x {shape[1]}; expected the same film")
        return None, marked

    return answer


def _resized(heat: np.ndarray, shape: tuple[int, int], film: str) -> np.ndarray:
    """A map on the mask's pixels, bilinear; films of another size (-small) are stretched, of another form refused."""
    if heat.shape == shape:
        return heat
    ratio = heat.shape[0] * shape[1] / (heat.shape[1] * shape[0])
    if not 0.97 < ratio < 1.03:
        raise InputError(f"{film}: the map's film is {heat.shape[0]} x {heat.shape[1]} pixels, its mask {shape[0]} x "
                         f"{shape[1]}; expected the same film, whole")
    seen = ~np.isnan(heat)
    size = shape[1], shape[0]
    lowest = float(np.nanmin(heat)) if seen.any() else 0.0
    stretched = cv2.resize(np.where(seen, heat, lowest).astype("float32"), size, interpolation=cv2.INTER_LINEAR)
    inside = cv2.resize(seen.astype("float32"), size, interpolation=cv2.INTER_LINEAR) > 0.5
    return np.where(inside, stretched, np.nan)


def _summary(films: pd.DataFrame, draws: int, seed: int) -> pd.DataFrame:
    rows = pd.DataFrame({"finding": sorted(films["finding"].unique())})
    counts = films.groupby("finding")
    rows["films"] = rows["finding"].map(counts.size())
    wide = {what: films.pivot(index="film", columns="finding", values=what)[rows["finding"]] for what in ("hit", "iou")}
    mean: dict[str, object] = {"finding": f"mean of {len(rows)}", "films": wide["hit"].shape[0]}
    for what, table in wide.items():
        drawn = _drawn(table.to_numpy(float), draws, seed)           # (draws, findings + 1)
        point = [*table.mean(), table.mean().mean()]
        low, high = np.nanquantile(drawn, [0.025, 0.975], axis=0) if np.isfinite(point).any() and draws else (
            np.full((2, len(point)), np.nan))
        rows[what], rows[f"{what}_low"], rows[f"{what}_high"] = point[:-1], low[:-1], high[:-1]
        mean |= {what: point[-1], f"{what}_low": low[-1], f"{what}_high": high[-1]}
        if what == "hit":
            rows["marked"] = rows["finding"].map(counts["iou"].count())
            mean["marked"] = int(rows["marked"].sum())
    return pd.concat([rows, pd.DataFrame([mean])], ignore_index=True)


def _drawn(values: np.ndarray, draws: int, seed: int) -> np.ndarray:
    """Means per finding and their mean in resamples of films, (draws, findings + 1); NaN where none was drawn."""
    random, known = np.random.default_rng(seed), ~np.isnan(values)
    out = np.full((draws, values.shape[1] + 1), np.nan)
    for draw in range(draws):
        counts = np.bincount(random.integers(0, len(values), len(values)), minlength=len(values))
        with np.errstate(invalid="ignore"):
            out[draw, :-1] = (counts @ np.where(known, values, 0.0)) / (counts @ known)
        found = out[draw, :-1][~np.isnan(out[draw, :-1])]
        out[draw, -1] = found.mean() if len(found) else np.nan
    return out


def read_thresholds(text: str) -> Threshold | dict[str, float]:
    """"otsu", a share, or a table of tuned ones (CheXlocalize's tuning_results.csv: columns task and threshold).

    Raises:
        InputError: anything else.
    """
    if text == "otsu":
        return text
    if text.endswith(".csv"):
        table = read_table(text)
        require_columns(text, table, ("task", "threshold"), "Expected CheXlocalize's tuning_results.csv.")
        return {AIRSPACE.get(task, task): _share(value) for task, value in zip(table["task"], table["threshold"])}
    return _share(text)


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = np.nan
    if not 0 <= value < 1:
        raise InputError(f"--threshold: {text!r} is none; expected otsu, a share in [0, 1), or a CSV with columns task "
                         "and threshold")
    return value


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    answer = commands.Parser(prog="python -m chexpert_hier.heatmaps.chexlocalize",
                                     description=__doc__.splitlines()[0])
    add = answer.add_argument
    add("--masks", required=True, metavar="GT.json", help="CheXlocalize's gt_segmentations_val.json or _test.json")
    what = answer.add_mutually_exclusive_group(required=True)
    what.add_argument("--maps", metavar="DIR", help="the --out folder of python -m chexpert_hier.heatmaps")
    what.add_argument("--segments", metavar="PRED.json", help="anyone's segmentations in CheXlocalize's format")
    add("--threshold", default="otsu", help="of the maps: otsu, a share in [0, 1), or tuning_results.csv (otsu)")
    add("--all-films", action="store_true", help="an outlined finding for which nothing is marked counts as IoU 0")
    add("--draws", type=int, default=1000, help="bootstrap resamples of films (1000)")
    add("--seed", type=int, default=0)
    add("--out", type=Path, required=True, metavar="DIR", help="where localisation.csv and localisation_films.csv go")
    return answer


def main(argv: list[str] | None = None) -> int:
    """Run the command; 0 when done."""
    args = parser().parse_args(argv)
    commands.at_least(0, args, "draws")
    answer = from_segments(args.segments) if args.segments else from_maps(args.maps, read_thresholds(args.threshold))
    found = localisation(args.masks, answer, all_films=args.all_films, draws=args.draws, seed=args.seed)
    with locked(args.out):
        for name, table in (("localisation", found.summary), ("localisation_films", found.films)):
            write_text(args.out / f"{name}.csv", table.to_csv(index=False, lineterminator="\n"))
    for line in _lines(found.summary):
        print(line)
    print(f"written: {args.out / 'localisation.csv'}")
    return 0


def _lines(summary: pd.DataFrame) -> Iterator[str]:
    width = max(map(len, summary["finding"]))
    yield f"{'':<{width}}  films  hit rate               IoU"
    for row in summary.itertuples():
        cells = [f"{point:.3f} ({low:.3f} to {high:.3f})" if point == point else f"{'–':<22}" for point, low, high in (
            (row.hit, row.hit_low, row.hit_high), (row.iou, row.iou_low, row.iou_high))]
        yield commands.printable(f"{row.finding:<{width}}  {row.films:>5}  {'  '.join(cells)}")


if __name__ == "__main__":
    sys.exit(commands.answer(main))
