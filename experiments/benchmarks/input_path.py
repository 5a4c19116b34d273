"""The input path, films on disk to normalised batches, beside what one would otherwise write. All cores.

    python -m experiments.benchmarks.input_path [--data FOLDER] [--films 1200] [--repeats 5] [--write]

Theirs: tf.data with a NumPy function around cv2.matchTemplate for each film, and a PyTorch DataLoader with the same.
The same resize for all. Each system reads all films in each repeat, one system after the other.
"""

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from chexpert_hier import commands
from chexpert_hier.films import decode, normalisation
from chexpert_hier.films.batches import Batches, CropSource, FilmSource, stream
from chexpert_hier.films.decode import read_film
from chexpert_hier.films.rescaling import rescale
from chexpert_hier.films.template import Cropper, learn_template

from . import Measured, find_films, report, spread

BATCH = 32
MEAN, STD = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])


def usual_crop(file: str, template: np.ndarray) -> np.ndarray:
    """One film as one would write it with OpenCV: uint8 (224, 224)."""
    grey = cv2.imread(file, cv2.IMREAD_GRAYSCALE).astype(np.float32)
    film = np.rint(cv2.resize(grey, (256, 256))).astype(np.uint8)
    _, _, _, (column, row) = cv2.minMaxLoc(cv2.matchTemplate(film, template, cv2.TM_CCOEFF_NORMED))
    return film[row:row + 224, column:column + 224]


def usual_tf(files: list[str], template: np.ndarray):
    """tf.data, one NumPy function per film, normalised per film."""
    import tensorflow as tf

    def load(file):
        crop = tf.numpy_function(lambda name: usual_crop(name.decode(), template), [file], tf.uint8)
        crop = tf.ensure_shape(crop, (224, 224))
        image = tf.repeat(tf.cast(crop, tf.float32)[..., None] / 255, 3, axis=2)
        return (image - MEAN) / STD

    stream = tf.data.Dataset.from_tensor_slices(files).map(load, num_parallel_calls=tf.data.AUTOTUNE)
    return stream.batch(BATCH).prefetch(tf.data.AUTOTUNE)


class UsualDataset:
    """A PyTorch data set, as one would write it."""

    def __init__(self, files: list[str], template: np.ndarray):
        self.files, self.template = files, template

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, number: int):
        import torch

        crop = torch.from_numpy(np.ascontiguousarray(usual_crop(self.files[number], self.template)))
        image = crop[None].expand(3, -1, -1).float().div(255)
        return image.sub(torch.from_numpy(MEAN)[:, None, None]).div(torch.from_numpy(STD)[:, None, None])


def usual_torch(files: list[str], template: np.ndarray):
    """A DataLoader with a worker process per core, kept alive between passes; None without PyTorch."""
    try:
        from torch.utils.data import DataLoader
    except ImportError:
        return None
    import multiprocessing

    method = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
    return DataLoader(UsualDataset(files, template), BATCH, num_workers=os.cpu_count(), persistent_workers=True,
                      multiprocessing_context=method)


def batches(source, count: int, how) -> Batches:
    """Ours: all films in order."""
    return Batches(source, np.arange(count), BATCH, how)


def passes(stream: Iterable, count: int, least: float = 0.0) -> float:
    """Films per second of reading everything, again until `least` seconds are over."""
    began, films = time.perf_counter(), 0
    while not films or time.perf_counter() - began < least:
        for batch in stream:
            films += len(batch)
    assert films % count == 0, "a system left films out"
    return films / (time.perf_counter() - began)


def decoding(files: list[str]) -> float:
    """Films per second of reading and decoding alone, on all cores."""
    def some(part):
        for file in part:
            cv2.imdecode(np.fromfile(file, np.uint8), cv2.IMREAD_GRAYSCALE)

    workers = os.cpu_count()
    with ThreadPoolExecutor(workers) as pool:
        began = time.perf_counter()
        list(pool.map(some, np.array_split(np.array(files), workers)))
    return len(files) / (time.perf_counter() - began)


def careless(run: Callable[[], float]) -> float:
    """The same run with JPEGs decoded by OpenCV, which does not tell of damage."""
    def opencv(data: bytes, header: object, whole: bool = True) -> np.ndarray:
        return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE | cv2.IMREAD_IGNORE_ORIENTATION)

    kept, decode.decode_jpeg = decode.decode_jpeg, opencv
    try:
        return run()
    finally:
        decode.decode_jpeg = kept


def stages(files: list[str], cropper: Cropper) -> list[tuple[str, float]]:
    """Microseconds per film of each step in one thread, the median over films."""
    def clock(work: Callable, inputs: list) -> tuple[float, list]:
        seconds, out = [], []
        for item in inputs:
            began = time.perf_counter()
            out.append(work(item))
            seconds.append(time.perf_counter() - began)
        return 1e6 * float(np.median(seconds)), out

    files = files[:300]
    decode, _ = clock(lambda file: cv2.imdecode(np.fromfile(file, np.uint8), cv2.IMREAD_GRAYSCALE), files)
    read, greys = clock(read_film, files)
    shrink, rescaled = clock(rescale, greys)
    search, places = clock(cropper.find, rescaled)
    crops = [film[row:row + 224, column:column + 224] for film, (row, column, _) in zip(rescaled, places)]
    many = [np.stack(crops[k:k + BATCH]) for k in range(0, len(crops) - BATCH + 1, BATCH)]
    normal, _ = clock(lambda crops: normalisation.normalise(crops) is None, many)
    return [("read and decode", decode), ("checks of the file: whole, size, orientation, content", read - decode),
            ("rescale to 256", shrink), ("template search", search),
            ("normalise to three float channels", normal / BATCH)]


def main(argv: list[str] | None = None) -> int:
    """Measure, print, and write if asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path)
    parser.add_argument("--films", type=int, default=1200)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--write", action="store_true")
    args = parser.parse_args(argv)
    cv2.setNumThreads(1)  # for all: films are what is done in parallel
    found, what = find_films(args.data)
    files = [str(found[k % len(found)]) for k in range(args.films)]
    cropper = Cropper(template=learn_template(rescale(read_film(file)) for file in found[:500]))
    loader = usual_torch(files, cropper.template)
    films = FilmSource(files, cropper)
    cache = CropSource(films(np.arange(len(files))))
    systems: dict = {
        "tf.data + matchTemplate": (usual_tf(files, cropper.template), 0),
        "PyTorch DataLoader + matchTemplate": (loader, 0),
        "ours, films to float": (stream(batches(films, len(files), normalisation.IMAGENET)), 0),
        "ours, films to uint8": (stream(batches(films, len(files), None)), 0),
        "ours, cache to float": (stream(batches(cache, len(files), normalisation.IMAGENET)), 1),
        "ours, cache to uint8": (stream(batches(cache, len(files), None)), 1),
    }
    runs: dict[str, Callable[[], float]] = {name: partial(passes, stream, len(files), least)
                                            for name, (stream, least) in systems.items() if stream is not None}
    runs["ours, films to float, damage not looked for"] = partial(careless, runs["ours, films to float"])
    runs["decode only"] = partial(decoding, files)
    rates: dict[str, list[float]] = {name: [] for name in runs}
    for repeat in range(-1, args.repeats):  # the first one warms up
        for name, run in runs.items():
            rate = run()
            if repeat >= 0:
                rates[name].append(rate)
    lines, ratio = _table(rates)
    lines += ["", "Where the time goes, one thread:", "", "| step | µs per film |", "| --- | --- |"]
    lines += [f"| {name} | {value:.0f} |" for name, value in stages(files, cropper)]
    if loader is None:
        lines.append("\nPyTorch is not installed: compared with tf.data alone.")
    report(Measured("input_path", "python -m experiments.benchmarks.input_path",
                    f"{args.films} read from {what}", lines, ratio,
                    ("tensorflow", "torch", "opencv-python-headless", "numpy")), args.write)
    return 0


def _table(rates: dict[str, list[float]]) -> tuple[list[str], float]:
    """Films a second of every system against the better of the usual ones, and the ratio of ours, films to float."""
    usual = [name for name in list(rates)[:2] if "matchTemplate" in name]
    better = np.max([rates[name] for name in usual], axis=0)  # in each repeat
    ratios = {name: spread(np.array(values) / better) for name, values in rates.items()}
    lines = ["| system | films/s, median (quartiles) | times the better of the first two |", "| --- | --- | --- |"]
    for name, values in rates.items():
        middle, low, high = spread(values)
        ratio = "" if name in usual else f"{ratios[name][0]:.2f} ({ratios[name][1]:.2f} to {ratios[name][2]:.2f})"
        lines.append(f"| {name} | {middle:,.0f} ({low:,.0f} to {high:,.0f}) | {ratio} |")
    cost, low, high = spread(np.array(rates["ours, films to float"]) / rates[list(rates)[-2]])
    lines += ["", f"Looking for damage: {cost:.2f} ({low:.2f} to {high:.2f}) times the rate without."]
    return lines, ratios["ours, films to float"][0]


if __name__ == "__main__":
    sys.exit(commands.answer(main))
