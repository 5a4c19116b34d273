"""Finished models, ready to answer: run folders, `.keras` files inside them, SavedModels of `export`."""

import json
import logging
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .. import commands, hierarchy, recipes, schema
from ..errors import InputError, one_of
from ..films import augment
from ..films.normalisation import Normalisation, normalise
from ..films.template import Cropper
from ..prepare.croppers import croppers_in
from ..run_folder import read_facts
from . import fingerprint, operating
from .onnx_network import OnnxFile, OnnxNetwork, cores, installed
from .trusted import check_saved_model

log = logging.getLogger("chexpert_hier.finished")
ENGINES = ("auto", "keras", "onnx")
ONNX = "model.onnx"  # in a run folder
FEW = 8  # so many films are answered faster than Keras sets up its prediction loop


@dataclass(frozen=True)
class Views:
    """Test-time augmentation, `draws` random views per film (0: the crop itself), and samples for the uncertainty."""

    draws: int = 0
    seed: int = 0
    composed: bool = False
    include_original: bool = False
    batch_size: int = 32
    uncertainty: str = ""  # "ensemble", or "mc:T" for T passes with dropout

    @property
    def passes(self) -> int:
        """Networks drawn by dropout for each film; 0: none."""
        return int(self.uncertainty[3:]) if self.uncertainty.startswith("mc:") else 0


@dataclass
class Member:
    """A finished run, ready to answer.

    Attributes:
        folder: the run folder, or the place of a `.keras` file.
        recipe: how it was trained.
        labels: names of its outputs, in order.
        tree: the hierarchy of the labels.
        croppers: view ("Frontal", "Lateral") -> how its films become crops.
        normalisation: how crops become the network's inputs.
        model: the network.
        file: where it lies.
        traced: whether few films go through its graph too; see `trace`.
    """

    folder: Path
    recipe: recipes.Recipe
    labels: tuple[str, ...]
    tree: hierarchy.Tree
    croppers: dict[str, Cropper]
    normalisation: Normalisation
    model: Any
    file: Path
    traced: bool = False

    def trace(self) -> None:
        """Make the network's graph now: for a process that answers again and again, a few films at a time.

        Takes some seconds for a large network. A film by itself is answered without, to the last digit as `predict`
        answers it. Nothing happens where there is no graph (ONNX Runtime, PyTorch) or one for every number of films
        (JAX).
        """
        if self.engine == "onnx" or commands.import_keras().backend.backend() != "tensorflow":
            return
        self.traced = True
        crop = next(iter(self.croppers.values())).size
        for films in (2, 3):  # after a second number TensorFlow makes a graph for any
            self.outputs(np.zeros((films, crop, crop), np.uint8))

    def inputs(self, crops: np.ndarray) -> np.ndarray:
        """uint8 (n, c, c) crops -> float32 (n, s, s, 3) network inputs."""
        return normalise(augment.plain(crops, self.recipe.plain_view), self.normalisation, self.recipe.image_size)

    @property
    def views(self) -> tuple[str, ...]:
        """The views that it answers for, "Frontal" and "Lateral"."""
        return tuple(self.croppers)

    def final(self, conditional: np.ndarray) -> np.ndarray:
        """What the run reports: the chain rule over the outputs where its recipe says so; (n, labels)."""
        return hierarchy.chain_rule(conditional, self.tree) if self.recipe.chain else conditional

    def conditional(self, crops: np.ndarray, keys: np.ndarray, views: Views) -> np.ndarray:
        """The network's outputs, averaged over test-time views, before the chain rule: float32 (n, labels).

        Source: Pham et al. 2019, section 4.4; mean of a model's views, then the product (deviations E7).
        """
        if not views.draws:
            return self.outputs(crops, views.batch_size)
        total = np.zeros((len(crops), len(self.labels)), np.float64)
        drawn = 0
        for batch in augment.tta_views(crops, keys, views.draws, views.seed, composed=views.composed,
                                      include_original=views.include_original):
            total += self.outputs(batch, views.batch_size)
            drawn += 1
        return (total / drawn).astype(np.float32)

    def samples(self, crops: np.ndarray, views: Views) -> np.ndarray:
        """The outputs of `views.passes` networks drawn by dropout: float32 (passes, n, labels).

        Raises:
            InputError: the network has no dropout.
        """
        if isinstance(self.model, OnnxNetwork):
            raise InputError(f"{self.folder}: passes with dropout need --engine keras")
        from ..network.model import feature_model, mc_dropout

        features = feature_model(self.model).predict(self.inputs(crops), batch_size=views.batch_size, verbose=0)
        return mc_dropout(self.model, features.astype(np.float32), views.passes, views.seed)

    def outputs(self, crops: np.ndarray, batch_size: int = 32) -> np.ndarray:
        """The network's outputs for crops, uint8 (n, c, c), before the chain rule: float32 (n, labels)."""
        if isinstance(self.model, OnnxNetwork):
            return self.model.outputs(crops)
        from ..network.model import present

        inputs = self.inputs(crops)
        if self.traced and 1 < len(inputs) <= batch_size:
            return present(self.model.predict_on_batch(inputs))
        if len(inputs) > FEW:
            return present(self.model.predict(inputs, batch_size=batch_size, verbose=0))
        import keras

        return present(keras.ops.convert_to_numpy(self.model(inputs, training=False)))

    @property
    def engine(self) -> str:
        """What computes it: "keras" or "onnx"."""
        return "onnx" if isinstance(self.model, OnnxNetwork) else "keras"

    def validation(self) -> dict | None:
        """What its validation films say of it; see operating.validation."""
        return operating.validation([self.folder], self.labels)


@dataclass
class Saved:
    """A model of `export`, a SavedModel or an ONNX file, and its metadata for what it means.

    Attributes:
        folder: the SavedModel's folder, or the ONNX file.
        labels, tree, recipe: as in `Member`; the first member's where it is an ensemble.
        metadata: of export.contract.metadata.
        answer_one: uint8 (h, w) -> the outputs by name, each (1, ...).
        parallel: films that are answered at once.
    """

    folder: Path
    recipe: recipes.Recipe
    labels: tuple[str, ...]
    tree: hierarchy.Tree
    metadata: dict
    answer_one: Callable[[np.ndarray], dict[str, np.ndarray]]
    parallel: int = 1

    engine = "export"

    @property
    def file(self) -> Path:
        """Where it lies."""
        return self.folder

    @property
    def views(self) -> tuple[str, ...]:
        """The views that it answers for, "Frontal" or "Lateral"."""
        return (self.metadata["view"],)

    def answer(self, films: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
        """The outputs by name, each (n, ...), of at least one film, uint8 (h, w) and of any sizes."""
        with ThreadPoolExecutor(self.parallel) as pool:
            answers = list(pool.map(self.answer_one, films))
        return {name: np.concatenate([answer[name] for answer in answers]) for name in answers[0]}

    def validation(self) -> dict | None:
        """What the validation films said when it was exported."""
        return self.metadata.get("validation")


# ---------------------------------------------------------------------------------------------------- opening

def open_model(path: str | os.PathLike[str], engine: str = "keras") -> Member | Saved:
    """A run folder, a `.keras` file inside one, a SavedModel folder, or an `.onnx` file.

    Args:
        path: where it is.
        engine: see `open_run`; exported models have their own.

    Raises:
        InputError: it is none of these.
    """
    if Path(path).suffix == ".onnx":
        return open_onnx(path)
    return open_saved(path) if (Path(path) / "saved_model.pb").is_file() else open_run(path, engine)


def open_run(folder: str | os.PathLike[str], engine: str = "keras") -> Member:
    """Load a finished run.

    Args:
        folder: a run folder (with recipe.json, model.keras and template.png), or a `.keras` file inside one.
        engine: "keras"; "onnx" for ONNX Runtime and the run's model.onnx, without TensorFlow and Keras; "auto" for the
            latter where it is installed and the run holds a model.onnx of this very network.

    Raises:
        InputError: it is no finished run, its network does not fit its recipe, or there is no such engine for it.
    """
    one_of("--engine", engine, ENGINES)
    path = Path(folder)
    file = path if path.suffix == ".keras" else path / "model.keras"
    home = file.parent
    facts = read_facts(home)
    if not file.exists():
        raise InputError(f"{file}: is missing; the run is not finished. Go on with it: "
                         f"python -m chexpert_hier.run --out {home} --resume")
    where = f"{home / 'recipe.json'}"
    recipe = recipes.from_json(facts["recipe"], where)
    names = tuple(facts["outputs"])
    try:
        tree, how = hierarchy.named(facts["tree"], names), Normalisation(*map(tuple, facts["normalisation"]))
    except InputError as error:
        raise InputError(f"{where}: {error}") from None
    model = None if engine == "keras" else _onnx_network(file, names, recipe, engine)
    model = model or _keras_network(file, names, recipe.image_size)
    return Member(home, recipe, names, tree, croppers_in(home, recipe), how, model, file)


def _keras_network(file: Path, names: tuple[str, ...], side: int) -> Any:
    commands.import_keras()
    from ..network.model import load_model

    model = load_model(file)
    if model.input_shape[1:] != (side, side, 3):
        raise InputError(f"{file}: takes {model.input_shape[1:]}, expected {(side, side, 3)} as in recipe.json")
    if model.output_shape[1] != len(names):
        raise InputError(f"{file}: has {model.output_shape[1]} outputs, expected {len(names)} as in recipe.json")
    return model


def _onnx_network(file: Path, names: tuple[str, ...], recipe: recipes.Recipe, engine: str) -> OnnxNetwork | None:
    """The network of the run's model.onnx; None where "auto" had better take Keras."""
    path = file.parent / ONNX
    again = f"python -m chexpert_hier.export --model {file.parent} --onnx {path} --replace"
    if not path.is_file():
        if engine == "auto":
            return None
        raise InputError(f"{path}: is missing; write it ({again}), or use --engine keras")
    if engine == "auto" and (not installed() or recipe.precision != "float32"):  # its numbers are float32's
        return None
    try:
        found = OnnxFile(path)
        if found.metadata["labels"] != list(names) or \
                [one.get("model") for one in found.metadata["members"]] != [fingerprint.of_file(file)]:
            raise InputError(f"{path}: is of another network than {file.name}; write it again ({again}), or use "
                             "--engine keras")
        return found.network()
    except InputError as error:
        if engine != "auto":
            raise
        log.warning("%s; --engine keras is used", error)
        return None


def open_saved(folder: str | os.PathLike[str]) -> Saved:
    """Load a SavedModel that `export` wrote.

    Raises:
        InputError: it is another program's, could do more than compute, or is damaged.
    """
    folder = Path(folder)
    try:
        metadata = json.loads((folder / "metadata.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{folder}: expected a SavedModel with the metadata.json of chexpert_hier.export "
                         f"({error})") from error
    about = _described(metadata, f"{folder / 'metadata.json'}")
    commands.import_keras()  # for its quiet start; the SavedModel itself needs TensorFlow only
    check_saved_model(folder)
    import tensorflow as tf

    try:
        signature = tf.saved_model.load(str(folder)).signatures["films"]
    except Exception as error:  # TensorFlow has no common kind for what can be wrong inside
        raise InputError(f"{folder}: TensorFlow cannot load this SavedModel ({' '.join(str(error).split())[:200]})") \
            from error

    def one(film: np.ndarray) -> dict[str, np.ndarray]:
        try:
            answer = signature(film=tf.constant(film[None, ..., None]))
        except (ValueError, TypeError, tf.errors.OpError) as error:
            why = " ".join(str(error).split())[:200]
            raise InputError(f"{folder}: TensorFlow cannot run this SavedModel ({why})") from error
        return {name: value.numpy() for name, value in answer.items()}

    return Saved(folder, *about, metadata, one)


def open_onnx(file: str | os.PathLike[str]) -> Saved:
    """Load an ONNX file that `export` wrote, without TensorFlow and Keras.

    Raises:
        InputError: packages are missing, or it is another program's or damaged.
    """
    file = Path(file)
    if not file.is_file():
        raise InputError(f"{file}: no such file; expected an ONNX file of chexpert_hier.export")
    found = OnnxFile(file)
    run = found.films()
    return Saved(file, *_described(found.metadata, str(file)), found.metadata, lambda film: run(film[None]), cores())


class _Described(NamedTuple):
    """What an exported model's metadata tells of its answers."""

    recipe: recipes.Recipe
    labels: tuple[str, ...]
    tree: hierarchy.Tree


def _described(metadata: object, where: str) -> _Described:
    """Recipe, labels and tree of an exported model's metadata."""
    about = schema.read(About, metadata, where, extras=True)
    if not about.members:
        raise InputError(f"{where}: members: expected at least one")
    first = schema.read(Origin, about.members[0], f"{where}: members[0]", extras=True)
    operating.check(about.validation, about.labels, f"{where}: validation")
    try:
        tree = hierarchy.named(first.tree, about.labels)
        return _Described(replace(first.recipe, views=about.view.lower()), about.labels, tree)
    except InputError as error:
        raise InputError(f"{where}: {error}") from None


@dataclass(frozen=True)
class About:
    """The fields of an exported model's metadata that answering relies on."""

    labels: tuple[str, ...]
    view: str
    outputs: dict[str, Any]
    members: tuple[Any, ...]
    validation: dict[str, Any] | None = None


@dataclass(frozen=True)
class Origin:
    """The same of each of its networks."""

    recipe: recipes.Recipe
    tree: str | dict[str, tuple[str, ...]]
    data: dict[str, Any]


def same_labels(members: list[Member | Saved]) -> tuple[str, ...]:
    """The first member's labels, which the others must have too, in any order.

    Raises:
        InputError: a member has others.
    """
    first = members[0]
    for other in members[1:]:
        if set(other.labels) != set(first.labels):
            odd = sorted(set(other.labels) ^ set(first.labels))
            raise InputError(f"{other.folder}: its labels differ from {first.folder}'s ({', '.join(odd[:3])}); an "
                             "ensemble needs members of the same labels")
    return first.labels
