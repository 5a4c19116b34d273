"""What `python -m chexpert_hier.datasets` finds out: tables, films, duplicates, and the targets of each policy."""

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from .. import commands, labels
from ..errors import InputError
from ..files import write_text
from ..films.decode import read_film
from ..films.grey import FilmError
from ..films.headers import read_header
from ..hierarchy import READINGS, TREES, Tree, close_upward, flat, named, positives_seen, read_tree, stage_one
from . import reading
from .dataset import Dataset
from .options import Options
from .presence import film_faults
from .reading import read, with_fields
from .tables import EXAMPLES, Problems

OLDEST = 120  # years; ChestX-ray14's first edition has ages up to 414
SKIPPED = "refused; --skip-bad leaves the film out"
# What a reason says -> the kind it is reported as.
REASONS = {"empty": "empty file", "missing": "missing film", "cut off": "film cut off", "damaged": "damaged film",
           "too small": "film too small", "too large": "film too large", "no picture": "film without content",
           "not an image": "not an image", "not supported": "not an image", "DICOM": "DICOM film",
           "leaves": "film outside the data folder"}
# What a readable film may be that a plain 8-bit grey one is not -> what is done.
ODDITIES = {"colour film": "read as grey (luminance)", "CMYK film": "read as grey (luminance)",
            "16-bit film": "scaled to 8 bits by the values present", "rotated film (EXIF)": "turned upright",
            "palette film": "palette applied, then grey", "transparent film": "laid on black"}
COUNTED_POLICIES = ("u-ignore", "u-zeros", "u-zeros+lsr", "u-ones", "u-ones+lsr", "u-mean")


def check(data: str | os.PathLike[str], options: Options | None = None, *, open_films: bool = True,
          workers: int | None = None, **fields: Any) -> dict[str, Any]:
    """Look at everything that can go wrong in a data set, without ending at the first fault.

    Args:
        data: its folder.
        options: how it is read; both views always are.
        open_films: decode every film; else only look whether it is there.
        workers: threads that open films.
        fields: of Options, written out.

    Returns:
        what `print_report` prints, ready for JSON: "problems" (kind, level, count, examples, action), "splits",
        "labels", "films", "published" (what the data set's description counts).

    Raises:
        InputError: the tables cannot be read at all.
    """
    options = with_fields(options, {**fields, "views": "both"})
    problems = Problems(stop=False)
    dataset = read(data, options, problems=problems)
    _check_rows(dataset, problems)
    faults = film_faults(dataset, options.allow_outside)
    _report_faults(dataset, faults, problems)
    if open_films:
        places = [place for place, fault in enumerate(faults) if not fault]
        _check_films(dataset, places, problems, workers)
    order = sorted(problems.found.values(), key=lambda entry: (entry["level"], entry["kind"]))
    published = reading.READERS[options.reader]
    return {"data": str(data), "films": len(dataset), "patients": int(dataset.films["patient"].nunique()),
            "published": {"films": published.films, "patients": published.patients, "source": published.source},
            "fingerprint": dataset.fingerprint, "opened": open_films, "problems": order, "splits": _splits(dataset),
            "labels": _label_counts(dataset)}


def _check_rows(dataset: Dataset, problems: Problems) -> None:
    films = dataset.films
    blank = np.isnan(dataset.raw).all(axis=1)
    ages = films["age"].to_numpy()
    frontal = films["study"].isin(films.loc[films["view"] == "Frontal", "study"])
    alone = (~frontal & ~films["study"].duplicated()).to_numpy()
    for kind, where, action in (
            ("all labels blank", blank, "kept; all negative, or nothing counts under --blank ignore"),
            ("age 0", ages == 0, "kept; age is only reported on"),
            (f"age above {OLDEST}", ages > OLDEST, "kept; age is only reported on"),
            ("age not known", np.isnan(ages), "kept; age is only reported on"),
            ("sex not known", (films["sex"] == "Unknown").to_numpy(), "kept; sex is only reported on"),
            ("study without a frontal film", alone, "left out by --views frontal"),
            ("frontal film that is neither AP nor PA", ((films["view"] == "Frontal") & ~films["projection"].isin(
                ["AP", "PA"])).to_numpy(), "kept")):
        places = np.flatnonzero(where)
        if len(places):
            problems.add(kind, len(places), [_named(dataset, place) for place in places[:EXAMPLES]], action, "note")


def _named(dataset: Dataset, place: int, reason: str = "") -> str:
    film = dataset.films.iloc[place]
    return f"{film['table']}, row {film['row']}: {film['path']}{' ' if reason else ''}{reason}"


def _report_faults(dataset: Dataset, faults: Sequence[str], problems: Problems) -> None:
    for place, fault in enumerate(faults):
        if fault:
            kind = next((kind for word, kind in REASONS.items() if word in fault), "film that cannot be read")
            # No text is made for what is not shown: all of CheXpert may be missing.
            shown = len(problems.found[kind]["examples"]) if kind in problems.found else 0
            problems.add(kind, 1, [_named(dataset, place, fault)] if shown < EXAMPLES else [], SKIPPED)


def _check_films(dataset: Dataset, places: Sequence[int], problems: Problems, workers: int | None) -> None:
    """Decode the films and find those with the same bytes."""
    files, splits = dataset.files, dataset.films["split"].tolist()
    first: dict[bytes, int] = {}
    with ThreadPoolExecutor(max(workers or 1, 1)) as pool:
        results = pool.map(lambda place: _look(files[place]), places)
        for place, (digest, fault, oddities) in zip(places, commands.progress(results, "films", len(places))):
            if fault:
                kind = next((kind for word, kind in REASONS.items() if word in fault), "film that cannot be read")
                problems.add(kind, 1, [_named(dataset, place, f"({fault})")], SKIPPED)
            for oddity in oddities:
                problems.add(oddity, 1, [_named(dataset, place)], ODDITIES[oddity], "note")
            other = first.setdefault(digest, place)
            if other != place and digest:
                apart = splits[other] != splits[place]
                problems.add("same film in two splits" if apart else "same film twice", 1,
                             [_named(dataset, place, f"has the same bytes as {_named(dataset, other)}")],
                             "kept; take one of the two out of the CSV", "error" if apart else "note")


class _Seen(NamedTuple):
    """Digest of a film's bytes, why it cannot be used ("" if it can), and what is odd about it."""

    digest: bytes
    fault: str
    oddities: list[str]


def _look(path: Path) -> _Seen:
    try:
        data = path.read_bytes()
    except OSError as error:
        return _Seen(b"", f"cannot be read: {error.strerror}", [])
    digest = hashlib.blake2b(data, digest_size=16).digest()
    try:
        read_film(data, name="film")
    except FilmError as error:
        return _Seen(digest, str(error).removeprefix("film: "), [])
    header = read_header(data)
    jpeg, png, webp = (header.kind == kind for kind in ("JPEG", "PNG", "WebP"))
    colour_type = data[25] if png else None  # 3: palette; 4 and 6: with alpha
    oddities = {"colour film": (header.channels == 3 and not webp) or colour_type == 6,  # a WebP always has colours
                "CMYK film": jpeg and header.channels == 4,
                "16-bit film": header.bits == 16, "rotated film (EXIF)": header.orientation != 1,
                "palette film": colour_type == 3,
                "transparent film": colour_type in (4, 6) or (webp and header.channels == 4)
                                    or (png and b"tRNS" in data[:data.find(b"IDAT")])}
    return _Seen(digest, "", [name for name, found in oddities.items() if found])


def _splits(dataset: Dataset) -> dict[str, dict[str, int]]:
    films = dataset.films
    return {split: {"films": len(part), "frontal": int((part["view"] == "Frontal").sum()),
                    "lateral": int((part["view"] == "Lateral").sum()), "studies": part["study"].nunique(),
                    "patients": part["patient"].nunique()}
            for split in ("train", "valid", "test") if len(part := films[films["split"] == split])}


def _label_counts(dataset: Dataset) -> dict[str, dict[str, dict[str, int]]]:
    """split -> label -> positive, uncertain, negative, blank (not mentioned), unknown (the data set cannot say)."""
    result: dict[str, dict[str, dict[str, int]]] = {}
    for split in _splits(dataset):
        codes = dataset.split(split).codes
        result[split] = {label: {"positive": int((column == 1).sum()), "uncertain": int((column == -1).sum()),
                                 "negative": int((column == 0).sum()), "blank": int(np.isnan(column).sum())}
                         for label, column in zip(dataset.labels, codes.T)}
        for label, column in zip(dataset.labels, codes.T):
            if (unknown := int((column == labels.UNKNOWN).sum())):
                result[split][label]["unknown"] = unknown
    return result


def print_report(report: dict[str, Any]) -> None:
    """Print what `check` found."""
    published = report["published"]
    if published["films"]:
        patients = f" of {published['patients']:,} patients" if published["patients"] else ""
        print(f"here {report['films']:,} films of {report['patients']:,} patients; published "
              f"{published['films']:,} films{patients} ({published['source']})")
    for split, numbers in report["splits"].items():
        print(f"{split}: " + ", ".join(f"{number:,} {name}" for name, number in numbers.items()))
    for split, counts in report["labels"].items():
        print(f"\n{split} labels\n{pd.DataFrame(counts).T.fillna(0).astype(int).to_string()}")
    if "valid" not in report["splits"]:
        print("\nno validation films: a run draws validation patients from the training ones")
    if not report["opened"]:
        print("\nfilms were not opened (--tables-only)")
    for level in ("error", "note"):
        for entry in report["problems"]:
            if entry["level"] == level:
                print(f"\n{level}: {entry['kind']}: {entry['count']:,}; {entry['action']}")
                print("".join(f"  {example}\n" for example in entry["examples"]), end="")
    errors = sum(entry["level"] == "error" for entry in report["problems"])
    print(f"\n{errors} kinds of errors, {len(report['problems']) - errors} kinds of notes")


def counts(dataset: Dataset, tree: Tree, *, blank: str = "negative", closure: bool = False,
           seed: int = 0) -> pd.DataFrame:
    """What each policy makes of the training films, and what stage 1 learns from in each of its readings.

    Args:
        dataset: with both views, where it has both.
        tree: over its labels.
        blank: see `labels.hard_targets`.
        closure: close the labels upward first.
        seed: of smoothed cells.

    Returns:
        one row per views ("frontal", "all"), policy, reading ("flat": every row and cell) and label: rows, cells (of
        the mask), counted (those whose target is not NaN), mean (of the targets that count), positives (under the
        policy, in all rows), seen (the share of these whose cell is in the mask).
    """
    train = dataset.split("train")
    frontal = (train.films["view"] == "Frontal").to_numpy()
    result = []
    for views, part in (("frontal", train.select(frontal)), ("all", train)):
        if views == "all" and frontal.all():
            continue
        raw = close_upward(part.codes, tree) if closure else part.codes
        for policy in COUNTED_POLICIES:
            target = labels.targets(raw, part.keys.tolist(), part.labels, labels.Labelling(policy, seed, blank))
            hard = labels.hard_targets(raw, policy, blank=blank)
            for rule in ("flat", *READINGS):
                rows, cells = stage_one(hard, tree, rule) if rule != "flat" else (
                    np.ones(len(raw), bool), np.ones(raw.shape, bool))
                result.append(_counted(target, rows, cells).assign(
                    positives=(hard == 1).sum(axis=0), seen=positives_seen(hard, cells), views=views, policy=policy,
                    reading=rule, label=part.labels))
    return pd.concat(result, ignore_index=True)[
        ["views", "policy", "reading", "label", "rows", "cells", "counted", "mean", "positives", "seen"]]


def _counted(target: np.ndarray, rows: np.ndarray, cells: np.ndarray) -> pd.DataFrame:
    used = cells & ~np.isnan(target)
    counted = used.sum(axis=0)
    total = np.where(used, target, 0).sum(axis=0, dtype=np.float64)
    return pd.DataFrame({"rows": int(rows.sum()), "cells": cells.sum(axis=0), "counted": counted,
                         "mean": np.where(counted > 0, total / np.maximum(counted, 1), np.nan)})


def print_counts(dataset: Dataset, tree: str | None, blank: str, closure: bool, seed: int, out: str | None) -> None:
    """Print `counts`, one block per views and policy; `out` gets the table as .csv or .json."""
    table = counts(dataset, _tree(dataset, tree), blank=blank, closure=closure, seed=seed)
    print(f"{dataset.describe()}\ntraining films; blank cells: {blank}{'; labels closed upward' if closure else ''}. "
          "Per label: cells of the mask (those that count, where fewer), mean target, share of the label's positives "
          "that stage 1 sees.")
    for (views, policy), block in table.groupby(["views", "policy"], sort=False):
        shown = pd.DataFrame({"rows": block.groupby("reading", sort=False)["rows"].first().map("{:,}".format)}).T
        shown = pd.concat([shown, block.assign(text=[
            f"{cells:,}" + f" ({counted:,})" * (counted < cells) + f" {mean:.4f}" * bool(counted)
            + f" {seen:.1%}" * bool(positives)
            for cells, counted, mean, positives, seen in block[
                ["cells", "counted", "mean", "positives", "seen"]].itertuples(index=False)
        ]).pivot(index="label", columns="reading", values="text").loc[list(dataset.labels), shown.columns]])
        print(f"\n{views} views, {policy}\n{shown.to_string()}")
    raw = dataset.split("train").codes
    weights = pd.DataFrame(labels.class_weights(labels.class_counts(raw, blank=blank)), list(dataset.labels),
                           [f"w {name}" for name in labels.CLASSES])
    weights["u-mean"] = labels.uncertain_mean(raw)
    print("\nall films: weights of the three classes (films / films of the class); what u-mean gives uncertain cells\n"
          + weights.to_string(float_format="{:.4f}".format))
    if out:
        write_text(out, table.to_json(orient="records", indent=1) if str(out).endswith(".json")
                   else table.to_csv(index=False))


def _tree(dataset: Dataset, tree: str | None) -> Tree:
    if tree is None:
        known = [found for found in TREES.values() if set(dataset.labels) <= set(found.labels)]
        return named(known[0], dataset.labels) if known else flat(dataset.labels)
    if tree in TREES:
        return named(tree, dataset.labels)
    if not Path(tree).is_file():
        raise InputError(f"--tree {tree}: no such file; expected a JSON file or one of: {', '.join(TREES)}")
    return read_tree(tree, dataset.labels)
