"""The classes of cases. Each gives, for one draw, a line to show and a call that gives the exit code.

Commands run in the process that goes through the cases, by `commands.answer`, as their console scripts do. Whole models
that are only there to answer are opened once; a damaged one is opened anew each time.
"""

import functools
import gzip
import io
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import numpy as np

from chexpert_hier import commands
from chexpert_hier.finished import members

from .damages import (
    array_damaged,
    bytes_damaged,
    json_damaged,
    message_damaged,
    network_grown,
    png_mended,
    table_damaged,
    weights_grown,
    zip_damaged,
)
from .place import Place, linked
from .pool import warm

Answer = tuple[str, Callable[[], int]]
Draw = np.random.Generator
HOSTILE_NAMES = ("film", "a b", "é", "=1+1", "@x", "-rf", "x\x1b[31m", "a\nerror: b", "\udcff", "..%2f", "x" * 200)


def command(name: str, *arguments: object, models: bool = False) -> Answer:
    """A command and its arguments; with `models` those that are named are opened once in the process's life."""
    words = [os.fspath(word) if isinstance(word, Path) else str(word) for word in arguments]

    def answer() -> int:
        if not models:
            return commands.answer(warm(name), words)
        from chexpert_hier.predict import engine

        with mock.patch.object(engine, "open_model", _opened):
            return commands.answer(warm(name), words)

    return f"python -m chexpert_hier.{name} {' '.join(map(repr, words))}", answer


@functools.cache
def _opened(path: str, engine: str = "keras") -> object:
    return members.open_model(path, engine)


def pick(draw: Draw, *choices: object) -> object:
    """One of several."""
    return choices[int(draw.integers(len(choices)))]


# ---------------------------------------------------------------------------------------------------- films

def films(place: Place, folder: Path, draw: Draw) -> Answer:
    """A damaged film of any format, now and then with a hostile name or another format's ending."""
    files = sorted(place.formats.iterdir())
    whole = files[int(draw.integers(len(files)))]
    data = bytes_damaged(whole.read_bytes(), draw)
    if draw.random() < 0.3:
        data = bytes_damaged(data, draw)
    data = png_mended(data) if draw.random() < 0.7 else data
    stem = str(pick(draw, *HOSTILE_NAMES)) if draw.random() < 0.1 else "film"
    film = folder / (stem + (whole.suffix if draw.random() < 0.9 else str(pick(draw, ".png", ".jpg", ".dcm", ".tif"))))
    film.write_bytes(data)
    more = [flag for flag in ("--accept-damaged", "--refuse-odd", "--skip-bad") if draw.random() < 0.2]
    if draw.random() < 0.1:
        more += ["--out", folder / str(pick(draw, "out.csv", "out.json"))]
    return command("predict", film if draw.random() < 0.8 else folder, "--model", place.run, *more, "--quiet",
                   models=True)


# ---------------------------------------------------------------------------------------------------- tables

def tables(place: Place, folder: Path, draw: Draw) -> Answer:
    """A damaged table of a data set, in the layout of any reader, or of films to predict."""
    if draw.random() < 0.15:
        films_table = linked(place.films, folder / "films", "valid.csv") / "valid.csv"
        films_table.write_bytes(table_damaged((place.films / "valid.csv").read_bytes(), draw))
        return command("predict", films_table, "--model", place.run, "--quiet", *pick(draw, [], ["--skip-bad"]),
                       models=True)
    reader = str(pick(draw, *sorted(one.name for one in place.sets.iterdir())))
    whole = place.sets / reader
    names = sorted(file.relative_to(whole).as_posix() for file in whole.rglob("*")
                   if file.suffix in (".csv", ".gz", ".json", ".xml"))
    name = str(pick(draw, *names))
    linked(whole, folder / "set", name)
    damaged = folder / "set" / name
    damaged.parent.mkdir(parents=True, exist_ok=True)
    damaged.write_bytes(_table(damaged.suffix, (whole / name).read_bytes(), draw))
    more = pick(draw, ["--tables-only"], ["--tables-only"], ["--counts"], ["--counts", "--closure"], [])
    labels = ["--labels", "Cat,Dog"] if reader == "csv" else []
    return command("datasets", folder / "set", "--reader", reader, *labels, *more)


def _table(suffix: str, data: bytes, draw: Draw) -> bytes:
    if suffix == ".gz":
        return bytes_damaged(data, draw) if draw.random() < 0.2 else gzip.compress(
            table_damaged(gzip.decompress(data), draw), 1)
    if suffix == ".json" and b"\n{" not in data:
        return json_damaged(data, draw)
    if suffix == ".json":  # one object a line
        lines = data.splitlines()
        place = int(draw.integers(len(lines)))
        return b"\n".join([*lines[:place], json_damaged(lines[place], draw), *lines[place + 1:]])
    return bytes_damaged(data, draw) if suffix == ".xml" else table_damaged(data, draw)


# ---------------------------------------------------------------------------------------------------- run folders

KERAS_PARTS = {"config.json": json_damaged, "metadata.json": json_damaged}
GROWN_PARTS = {"config.json": network_grown, "metadata.json": network_grown, "model.weights.h5": weights_grown}
RUN_FILES = {"recipe.json": 8, "template.png": 2, "predictions.csv": 2, "truth.csv": 2, "conditional.csv": 1,
             "split.csv": 2, "evaluation.json": 3, "log.csv": 1}
CACHE_FILES = ("meta.json", "index.csv", "crops.npy", "template.png")


def runs(place: Place, folder: Path, draw: Draw) -> Answer:
    """A run folder or a cache of crops with one damaged file, for a command that reads it."""
    if draw.random() < 0.2:
        return _cache(place, folder, draw)
    names = [name for name, weight in RUN_FILES.items() for _ in range(weight)]
    name = str(pick(draw, *names))
    run = linked(place.run, folder / "run", name)
    data = damaged_file(name, (place.run / name).read_bytes(), draw)
    if data is not None:
        (run / name).write_bytes(data)
    asked = [("predict", place.film, "--model", run, "--engine", "onnx", "--quiet")] * 3
    asked += [("evaluate", "--run", run, "--out", folder / "out", "--replicates", 5, "--no-page", "--quiet")] * 3
    if draw.random() < 0.05:  # seconds each
        asked = [("report", run, "--no-films", "--replicates", 5, "--quiet"), ("predict", place.film, "--model", run,
                 "--engine", "keras", "--quiet"), ("export", "--model", run, "--onnx", folder / "model.onnx")]
    return command(*asked[int(draw.integers(len(asked)))])


def damaged_file(name: str, data: bytes, draw: Draw) -> bytes | None:
    """A file of ours, damaged according to its kind; None: it is missing."""
    if draw.random() < 0.02:
        return None
    if name.endswith(".json"):
        return json_damaged(data, draw)
    if name.endswith(".csv"):
        return table_damaged(data, draw)
    if name.endswith(".npy"):
        return array_damaged(data, draw)
    if name.endswith(".npz"):
        return zip_damaged(data, {".npy": array_damaged}, draw)
    if name.endswith(".keras"):
        return zip_damaged(data, GROWN_PARTS if draw.random() < 0.4 else KERAS_PARTS, draw)
    data = bytes_damaged(data, draw)
    return png_mended(data) if name.endswith(".png") and draw.random() < 0.7 else data


def _cache(place: Place, folder: Path, draw: Draw) -> Answer:
    """A cache with one damaged file, opened as `run --cache` does."""
    from chexpert_hier.datasets import reading
    from chexpert_hier.prepare.cache import Cache
    from chexpert_hier.run_folder import read_facts

    name = str(pick(draw, *CACHE_FILES))
    cache = linked(place.crops, folder / "crops", name)
    data = damaged_file(name, (place.crops / name).read_bytes(), draw)
    if data is not None:
        (cache / name).write_bytes(data)

    def opened(argv: object) -> int:
        from chexpert_hier import recipes

        recipe = recipes.from_json(read_facts(place.run)["recipe"])
        found = Cache.open(cache, reading.read(place.films, views=recipe.views), recipe)
        found.search(), found.pixel_statistics
        return 0

    return f"Cache.open({str(cache)!r})", lambda: commands.answer(opened)


# ---------------------------------------------------------------------------------------------------- model files

def models(place: Place, folder: Path, draw: Draw) -> Answer:
    """A damaged Keras file, SavedModel, ONNX file or checkpoint."""
    return pick(draw, _keras, _saved_model, _onnx, _checkpoint, _checkpoint)(place, folder, draw)  # type: ignore


def _keras(place: Place, folder: Path, draw: Draw) -> Answer:
    run = linked(place.run, folder / "run", "model.keras")
    data = (place.run / "model.keras").read_bytes()
    (run / "model.keras").write_bytes(damaged_file("model.keras", data, draw) or b"")
    return command("predict", place.film, "--model", run, "--engine", str(pick(draw, "keras", "keras", "auto")),
                   "--quiet")


def _saved_model(place: Place, folder: Path, draw: Draw) -> Answer:
    from tensorflow.core.protobuf import saved_model_pb2

    whole = place.run / "saved_model"
    name = str(pick(draw, *["saved_model.pb"] * 4, "metadata.json", "variables/variables.index", "fingerprint.pb",
                    "variables/variables.data-00000-of-00001"))
    model, data = linked(whole, folder / "model", name), (whole / name).read_bytes()
    if name == "saved_model.pb" and draw.random() < 0.7:
        message = saved_model_pb2.SavedModel.FromString(data)
        for _ in range(int(draw.integers(1, 4))):
            message_damaged(message, draw)
        data = message.SerializeToString()
    else:
        data = json_damaged(data, draw) if name.endswith(".json") else bytes_damaged(data, draw)
    (model / name).write_bytes(data)
    return command("predict", place.film, "--model", model, "--quiet")


def _onnx(place: Place, folder: Path, draw: Draw) -> Answer:
    import onnx

    data, kind = (place.run / "model.onnx").read_bytes(), draw.random()
    if kind < 0.3:
        data = bytes_damaged(data, draw)
    else:
        message = onnx.ModelProto.FromString(data)
        for _ in range(int(draw.integers(1, 4))):
            message_damaged(message, draw)
        if kind < 0.4 and message.graph.initializer:
            _elsewhere(message, draw)
        if kind > 0.85:
            about = next(one for one in onnx.ModelProto.FromString(data).metadata_props if one.key == "metadata")
            del message.metadata_props[:]
            message.metadata_props.add(key=about.key, value=json_damaged(about.value.encode(), draw).decode(
                "utf-8", "replace"))
        data = message.SerializeToString()
    (folder / "model.onnx").write_bytes(data)
    return command("predict", place.film, "--model", folder / "model.onnx", "--quiet")


def _elsewhere(message: object, draw: Draw) -> None:
    """Weights in another file."""
    from onnx import TensorProto

    weights = message.graph.initializer  # type: ignore[attr-defined]
    tensor = weights[int(draw.integers(len(weights)))]
    tensor.ClearField("raw_data")
    if draw.random() < 0.8:
        tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", pick(draw, "/etc/passwd", "../../x", "/dev/zero", "weights")), ("offset", "0"),
                       ("length", pick(draw, "4", "-1", str(2 ** 62)))):
        tensor.external_data.add(key=key, value=str(value))


@functools.cache
def _network(run: str) -> object:
    from chexpert_hier.network.model import load_model

    return load_model(Path(run) / "model.keras")


def _checkpoint(place: Place, folder: Path, draw: Draw) -> Answer:
    """A damaged checkpoint, read as `run --resume` does."""
    from chexpert_hier.training import checkpoint

    data = (place.run / "checkpoint.npz").read_bytes()
    damaged = damaged_file("checkpoint.npz", data, draw) if draw.random() < 0.95 else pickle.dumps({"a": os.system})
    (folder / "checkpoint.npz").write_bytes(damaged or b"")
    if draw.random() < 0.5:
        shutil.copy(place.run / "checkpoint.before.npz", folder)

    def resumed(argv: object) -> int:
        checkpoint.resume(folder, _network(os.fspath(place.run)))
        return 0

    return f"checkpoint.resume({os.fspath(folder)!r})", lambda: commands.answer(resumed)


# ---------------------------------------------------------------------------------------------------- predictions

LABELS = ("Edema", "Cardiomegaly", "Lung Opacity", "Pleural Effusion")


@functools.cache
def _judged_films(seed: int = 0) -> tuple[bytes, bytes]:
    """Predictions and truth of 40 films of 25 patients."""
    draw, predictions, truth = np.random.default_rng(seed), io.StringIO(), io.StringIO()
    predictions.write(f"Path,{','.join(LABELS)}\n")
    truth.write(f"Path,Sex,Age,{','.join(LABELS)}\n")
    for number in range(40):
        name = f"set/valid/patient{number % 25:05d}/study{1 + number // 25}/view1_frontal.jpg"
        present = draw.integers(0, 2, len(LABELS))
        scores = np.clip(0.5 * draw.random(len(LABELS)) + 0.3 * present, 0, 1)
        predictions.write(f"{name},{','.join(f'{score:.4f}' for score in scores)}\n")
        truth.write(f"{name},{pick(draw, 'Male', 'Female')},{draw.integers(18, 90)},"
                    f"{','.join(f'{one:.1f}' for one in present)}\n")
    return predictions.getvalue().encode(), truth.getvalue().encode()


def predictions(place: Place, folder: Path, draw: Draw) -> Answer:
    """Damaged tables of predictions, truth, readers or settings for `evaluate`, with any options."""
    answers, truth = _judged_films()
    files = {"predictions": answers, "truth": truth, "reader": truth.replace(b"Sex,Age,", b"Sex,Age,"), "meta": truth,
             "fit": answers, "rule": b'{"Edema": "mean"}', "tree": b'{"Edema": ["Lung Opacity"]}',
             "threshold": b'{"Edema": 0.5, "Cardiomegaly": 0.25}'}
    odd = str(pick(draw, "predictions", "predictions", "predictions", "truth", "truth", *files))
    asked: list[object] = ["--predictions", folder / "predictions.csv", "--truth", folder / "truth.csv", "--out",
                           folder / "out", "--replicates", 5, "--quiet"]
    asked += [] if draw.random() < 0.004 else ["--no-page"]
    optional = [("--radiologists", ["reader"]), ("--meta", ["meta"]), ("--fit", ["fit", "truth"]), ("--rule", ["rule"]),
                ("--tree", ["tree"]), ("--threshold", ["threshold"])]
    for flag, needs in optional:
        if odd in needs[:1] or draw.random() < 0.08:
            asked += [flag, *(folder / f"{name}{'.json' if name in ('rule', 'tree', 'threshold') else '.csv'}"
                              for name in needs)]
    for flag, choices in (("--unit", ["film", "study", "patient"]), ("--calibrate", ["isotonic", "none"]),
                          ("--by", ["Sex", "Age,Sex"]), ("--mean", ["weighted"]), ("--truth-blank", ["ignore"])):
        if draw.random() < 0.15:
            asked += [flag, pick(draw, *choices)]
    asked += [flag for flag in ("--intersect", "--stratified") if draw.random() < 0.15]
    for name, data in files.items():
        is_json = name in ("rule", "tree", "threshold")
        if name == odd:
            data = json_damaged(data, draw) if is_json else table_damaged(data, draw)
        (folder / f"{name}{'.json' if is_json else '.csv'}").write_bytes(data)
    return command("evaluate", *asked)


CLASSES: dict[str, Callable[[Place, Path, Draw], Answer]] = {
    "films": films, "tables": tables, "runs": runs, "models": models, "predictions": predictions}
