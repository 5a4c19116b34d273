"""Decode, rescale, match and crop every film once; later runs read the crops from a memory-mapped array.

    python -m chexpert_hier.prepare --data CheXpert-v1.0-small --out crops

A cache folder holds crops.npy, uint8 (films, c, c); index.csv, one row per film; the templates; meta.json, written
last. Work is recorded chunk by chunk, after its crops are on the disk, so that a killed process loses one chunk.
"""

import collections
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np

from .. import commands
from ..datasets import presence
from ..datasets.dataset import Dataset
from ..datasets.presence import BadFilm
from ..errors import InputError
from ..files import locked, not_there, raise_if_disk, remove_leftovers, unless_kept, write_text
from ..films import decode
from ..films.template import Cropper
from ..recipes import Recipe
from .cache import COLUMNS, GEOMETRY, Cache, read_meta, sha256
from .croppers import learn_croppers, row_names, views_of

log = logging.getLogger("chexpert_hier.prepare")
CHUNK = 256  # films recorded together; at most three chunks are in memory
PART = 16  # films that a thread takes at a time
# Types of a film's record: row, col, score, sha256, sum, sum of squares, reason.
RECORDS = [[int, int, score, str, int, int, str] for score in (float, type(None))]


def prepare(dataset: Dataset, recipe: Recipe, out: str | os.PathLike, *, resume: bool = False, skip_bad: bool = False,
            workers: int | None = None) -> Cache:
    """Make the cache, or what is missing of it.

    Args:
        dataset: all splits; templates are learned from its training films only.
        recipe: crop mode, sizes, views, seed and number of the template's films.
        out: the cache folder.
        resume: go on with what an earlier process left; a finished cache is opened.
        skip_bad: list unreadable films in skipped.csv (their crops stay black) instead of stopping.
        workers: threads; None for one per core.

    Returns:
        the cache; its bytes do not depend on interruptions or the number of threads.

    Raises:
        InputError: a film that cannot be used, too little room on the disk (before starting), a folder that holds
            something else, or another process at work in it.
    """
    out = Path(out)
    if out.exists() and not out.is_dir():
        raise InputError(f"{out}: is a file; --out takes a folder")
    if not resume and out.is_dir() and any(path.name != ".lock" for path in out.iterdir()):
        raise InputError(f"{out}: is not empty; add --resume to go on with a cache there, or choose another --out")
    made = not_there(out)
    with locked(out), unless_kept(out, made) if made else nullcontext(_nothing) as keep:
        remove_leftovers(out)
        meta = read_meta(out)
        plan = _plan(dataset, recipe)
        if meta is None and (strange := [path.name for path in sorted(out.iterdir()) if path.name[0] != "."]):
            raise InputError(f"{out}: --resume: holds {strange[0]} and no cache (no meta.json); choose another --out")
        if meta is not None:
            _same_plan(out, meta, plan)
        if meta is None or not meta["complete"]:
            _make(dataset, recipe, out, plan, skip_bad, workers or os.cpu_count() or 1, keep)
        keep()
        cache = Cache.open(out, recipe=recipe)
        cache.rows(dataset.select(cache.readable(dataset)) if skip_bad else dataset)
        return cache


def cache_name(dataset: Dataset, recipe: Recipe) -> str:
    """A folder name that differs wherever the crops would, e.g. "crops-224-1a2b3c4d"."""
    digest = sha256(json.dumps(_plan(dataset, recipe)).encode())
    return f"crops-{recipe.crop_size}-{digest[:8]}"


def _plan(dataset: Dataset, recipe: Recipe) -> dict:
    """What decides the bytes of a cache and is known before starting."""
    films = hashlib.sha256()
    for column in (dataset.keys, *(dataset.films[name] for name in ("patient", "split", "view"))):
        films.update("\n".join(column).encode("utf-8", "surrogatepass") + b"\0")
    geometry = {name: getattr(recipe, name) for name in GEOMETRY}
    if recipe.least_match == -1:  # as version 0.1 wrote it, so that its caches are found
        del geometry["least_match"]
    return {"format": 1, "films": len(dataset), "films_sha256": films.hexdigest(), "geometry": geometry,
            "seed": recipe.seed, "template_films": recipe.template_films, "views": list(views_of(recipe))}


def _same_plan(out: Path, meta: dict, plan: dict) -> None:
    for name, value in plan.items():
        if meta.get(name) != value:
            raise InputError(f"{out}: was made for another {'CSV or split' if name.startswith('films') else name} "
                             f"({name} {meta.get(name)}, now {value}); choose another --out")


def _nothing() -> None:
    """In place of `keep` where the folder was there before and stays in any case."""


def _make(dataset: Dataset, recipe: Recipe, out: Path, plan: dict, skip_bad: bool, workers: int,
          keep: Callable[[], None]) -> None:
    done = _read_done(out / "done.jsonl", plan, out / "crops.npy")
    _require_room(out, plan, bool(done))
    write_text(out / "meta.json", json.dumps({**plan, "complete": False}, indent=1))
    croppers = learn_croppers(dataset, recipe, out, skip_bad=skip_bad)
    offset = _allocate(out / "crops.npy", plan, keep=bool(done))
    job = _Job(dataset, croppers, dataset.files, row_names(dataset), skip_bad)
    bar = commands.Bar("crops", len(dataset), done=sum(len(records) for records in done.values()))
    try:
        with open(out / "crops.npy", "rb+") as crops, open(out / "done.jsonl", "a", encoding="utf-8") as record:
            for chunk, pixels, records in job.chunks(set(done), workers):
                crops.seek(offset + chunk * CHUNK * pixels[0].nbytes)
                crops.write(pixels.tobytes())
                _to_disk(crops)
                record.write(json.dumps({"chunk": chunk, "films": records}) + "\n")
                _to_disk(record)
                keep()  # a chunk is worth going on with
                done[chunk] = records
                bar.add(len(records))
    except OSError as error:
        raise_if_disk(error, out)
        raise
    finally:
        bar.close()
    _finish(dataset, out, plan, croppers, [film for chunk in sorted(done) for film in done[chunk]])


def _finish(dataset: Dataset, out: Path, plan: dict, croppers: dict[str, Cropper], films: list[list]) -> None:
    """Write index.csv, skipped.csv and, last, meta.json; the record of chunks has then done its work."""
    index = dataset.films[["path", "patient", "split", "view"]].copy()
    index[["row", "col"]] = np.array([film[:2] for film in films], np.int64).reshape(-1, 2)
    index["score"] = ["" if film[2] is None else f"{film[2]:.9g}" for film in films]
    index["sha256"] = [film[3] for film in films]
    write_text(out / "index.csv", index[list(COLUMNS)].to_csv(index=False, lineterminator="\n"))
    bad = [BadFilm(path, table, int(row), film[6]) for film, path, table, row in zip(
        films, *(dataset.films[name] for name in ("path", "table", "row"))) if film[6]]
    if bad:
        presence.write_bad(bad, out / "skipped.csv")
    counted = [film for film, split in zip(films, dataset.films["split"]) if split == "train" and not film[6]]
    mean, std = pixel_statistics([film[4] for film in counted], [film[5] for film in counted],
                                 plan["geometry"]["crop_size"] ** 2)
    templates = {view: cropper.identity for view, cropper in croppers.items()}
    write_text(out / "meta.json", json.dumps({**plan, "complete": True, "templates": templates, "pixel_mean": mean,
                                              "pixel_std": std, "skipped": len(bad)}, indent=1))
    (out / "done.jsonl").unlink()


def pixel_statistics(sums: list[int], squares: list[int], pixels: int) -> tuple[float, float]:
    """Mean and standard deviation of all pixels on 0 to 1, from each film's exact sums of values and of squares.

    The standard deviation is that of pixels, not of the films' means, and not the mean of the films' own ones, which
    leaves out how films differ.

    Args:
        sums, squares: per film, of its 8-bit values.
        pixels: of one film.

    Returns:
        (nan, nan) without films.
    """
    count = len(sums) * pixels
    if not count:
        return float("nan"), float("nan")
    total, total_squares = sum(sums), sum(squares)
    variance = (count * total_squares - total * total) / count ** 2  # integers up to the division
    return total / count / 255, variance ** 0.5 / 255


@dataclass(frozen=True, eq=False)
class _Job:
    """The films of a cache and how they become crops."""

    dataset: Dataset
    croppers: dict[str, Cropper]
    files: list[Path]
    names: list[str]
    skip_bad: bool

    def chunks(self, done: set[int], workers: int) -> Iterator["_Chunk"]:
        """The chunks not yet done, a few under way at a time."""
        waiting: collections.deque[tuple[int, list[Future]]] = collections.deque()
        pool = ThreadPoolExecutor(workers)
        try:
            for chunk in range(-(-len(self.files) // CHUNK)):
                if chunk in done:
                    continue
                stop = min((chunk + 1) * CHUNK, len(self.files))
                parts = [pool.submit(self.some, range(first, min(first + PART, stop)))
                         for first in range(chunk * CHUNK, stop, PART)]
                waiting.append((chunk, parts))
                if len(waiting) > 2:
                    yield _joined(*waiting.popleft())
            while waiting:
                yield _joined(*waiting.popleft())
        finally:
            pool.shutdown(cancel_futures=True)

    def some(self, places: range) -> tuple[np.ndarray, list[list]]:
        """Crops and records [row, col, score, sha256, sum, sum of squares, reason] of a few films."""
        side = next(iter(self.croppers.values())).size
        pixels, records = np.zeros((len(places), side, side), np.uint8), []
        for k, place in enumerate(places):
            try:
                pixels[k], record = self.one(place)
            except InputError as error:
                if not self.skip_bad:
                    raise
                record = [0, 0, None, "", 0, 0, str(error)]
            records.append(record)
        return pixels, records

    def one(self, place: int) -> tuple[np.ndarray, list]:
        """One film's crop, uint8 (c, c), and record."""
        cropper = self.croppers[self.dataset.films["view"].iat[place]]
        try:
            data = self.files[place].read_bytes()
        except OSError:
            data = self.files[place]  # read_film says what is wrong
        crops, places, scores = cropper.crop([decode.read_film(data, self.names[place])])
        score = None if np.isnan(scores[0]) else float(scores[0])
        counts, levels = np.bincount(crops[0].ravel(), minlength=256), np.arange(256)  # integers: exact
        sums = [int(counts @ levels), int(counts @ levels ** 2)]
        return crops[0], [*map(int, places[0]), score, sha256(data), *sums, ""]


class _Chunk(NamedTuple):
    """CHUNK films or fewer: their number in the cache, crops uint8 (k, c, c) and records."""

    number: int
    pixels: np.ndarray
    records: list[list]


def _joined(number: int, parts: list[Future]) -> _Chunk:
    results = [part.result() for part in parts]
    pixels = np.concatenate([crops for crops, _ in results])
    return _Chunk(number, pixels, [film for _, films in results for film in films])


def _to_disk(handle: IO) -> None:
    handle.flush()
    os.fsync(handle.fileno())


def _read_done(path: Path, plan: dict, crops: Path) -> dict[int, list[list]]:
    """Chunks that an earlier process finished; a line that it did not finish, or a damaged one, is cut off with all
    that follow."""
    side = plan["geometry"]["crop_size"]
    if not path.exists() or not crops.exists() or crops.stat().st_size < plan["films"] * side * side:
        path.unlink(missing_ok=True)
        return {}
    done, whole = {}, 0
    with open(path, "rb+") as handle:
        for line in handle:
            entry = _chunk(line, plan["films"])
            if entry is None:
                break
            done[entry["chunk"]] = entry["films"]
            whole += len(line)
        handle.truncate(whole)
    return done


def _chunk(line: bytes, films: int) -> dict | None:
    """A line of the record: {"chunk": its number, "films": its films' records}; None where it is not whole."""
    try:
        entry = json.loads(line)
        number, records = entry["chunk"], entry["films"]
        expected = min(CHUNK, films - number * CHUNK)
        whole = type(number) is int and number >= 0 and len(records) == expected and line.endswith(b"\n")
        return entry if whole and all([type(one) for one in record] in RECORDS for record in records) else None
    except (ValueError, TypeError, KeyError, RecursionError):
        return None


def _require_room(out: Path, plan: dict, started: bool) -> None:
    """Refuse before starting when crops and index do not fit on the disk."""
    side = plan["geometry"]["crop_size"]
    needed = plan["films"] * (500 + (0 if started else side * side)) + 2 ** 20  # 500 bytes: record and index
    if (free := shutil.disk_usage(out).free) < needed:
        raise InputError(f"{out}: {plan['films']:,} crops of {side}x{side} need {needed / 1e9:.2f} GB, the disk has "
                         f"{free / 1e9:.2f} GB free; free some space or choose another --out")


def _allocate(path: Path, plan: dict, keep: bool) -> int:
    """Make crops.npy at its full size, so that the disk cannot fill up half way; give where the pixels begin."""
    side = plan["geometry"]["crop_size"]
    header = {"descr": "|u1", "fortran_order": False, "shape": (plan["films"], side, side)}
    try:
        with open(path, "rb+" if keep else "wb+") as handle:
            np.lib.format.write_array_header_1_0(handle, header)
            offset, size = handle.tell(), handle.tell() + plan["films"] * side * side
            handle.flush()
            if not keep and hasattr(os, "posix_fallocate"):
                os.posix_fallocate(handle.fileno(), 0, size)
            handle.truncate(size)
            _to_disk(handle)
    except OSError as error:
        if not keep:
            path.unlink(missing_ok=True)
        raise_if_disk(error, path)
        raise
    return offset
