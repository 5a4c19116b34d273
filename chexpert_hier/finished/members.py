"""Finished models, ready to answer: run folders, `.keras` files inside them, SavedModels of `export`."""

import json
import os
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from .. import commands, hierarchy, recipes
from ..errors import InputError
from ..films import augment
from ..films.normalisation import Normalisation, normalise
from ..films.template import Cropper
from ..labels import positive_of_three
from ..prepare.croppers import croppers_in
from . import operating

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
    """

    folder: Path
    recipe: recipes.Recipe
    labels: tuple[str, ...]
    tree: hierarchy.Tree
    croppers: dict[str, Cropper]
    normalisation: Normalisation
    model: object

    def inputs(self, crops: np.ndarray) -> np.ndarray:
        """uint8 (n, c, c) crops -> float32 (n, s, s, 3) network inputs."""
        return normalise(augment.plain(crops, self.recipe.plain_view), self.normalisation,
                                self.recipe.image_size)

    def final(self, conditional: np.ndarray) -> np.ndarray:
        """What the run reports: the chain rule over the outputs where its recipe says so; (n, labels)."""
        return hierarchy.chain_rule(conditional, self.tree) if self.recipe.chain else conditional

    def conditional(self, crops: np.ndarray, keys: np.ndarray, views: Views) -> np.ndarray:
        """The network's outputs, averaged over test-time views, before the chain rule: float32 (n, labels).

        Source: Pham et al. 2019, section 4.4; mean of a model's views, then the product (deviations E7).
        """
        if not views.draws:
            return self._outputs(crops, views.batch_size)
        total = np.zeros((len(crops), len(self.labels)), np.float64)
        drawn = 0
        for batch in augment.tta_views(crops, keys, views.draws, views.seed, composed=views.composed,
                                      include_original=views.include_original):
            total += self._outputs(batch, views.batch_size)
            drawn += 1
        return (total / drawn).astype(np.float32)

    def samples(self, crops: np.ndarray, views: Views) -> np.ndarray:
        """The outputs of `views.passes` networks drawn by dropout: float32 (passes, n, labels).

        Raises:
            InputError: the network has no dropout.
        """
        from ..network.model import feature_model, mc_dropout

        features = feature_model(self.model).predict(self.inputs(crops), batch_size=views.batch_size, verbose=0)
        return mc_dropout(self.model, features.astype(np.float32), views.passes, views.seed)

    def _outputs(self, crops: np.ndarray, batch_size: int) -> np.ndarray:
        inputs = self.inputs(crops)
        if len(inputs) > FEW:
            outputs = self.model.predict(inputs, batch_size=batch_size, verbose=0)
        else:
            import keras

            outputs = keras.ops.convert_to_numpy(self.model(inputs, training=False))
        return positive_of_three(outputs) if outputs.ndim == 3 else outputs

    def validation(self) -> dict | None:
        """What its validation films say of it; see operating.validation."""
        return operating.validation([self.folder], self.labels)


@dataclass
class Saved:
    """A SavedModel of `export`: plain TensorFlow signatures, and metadata.json for what they mean.

    Attributes:
        folder: of the SavedModel.
        labels, tree, recipe: as in `Member`; the first member's where it is an ensemble.
        croppers: of the first member, for the plausibility of films only.
        metadata: the contents of metadata.json.
        signature: the signature `films`.
    """

    folder: Path
    recipe: recipes.Recipe
    labels: tuple[str, ...]
    tree: hierarchy.Tree
    croppers: dict[str, Cropper]
    metadata: dict
    signature: object

    def answer(self, films: list[np.ndarray]) -> dict[str, np.ndarray]:
        """The outputs by name, each (n, ...), of at least one film, uint8 (h, w) and of any sizes."""
        import tensorflow as tf

        answers = [self.signature(film=tf.constant(film[None, ..., None])) for film in films]
        return {name: np.concatenate([answer[name].numpy() for answer in answers]) for name in answers[0]}

    def validation(self) -> dict | None:
        """What the validation films said when it was exported."""
        return self.metadata.get("validation")


def open_run(folder: str | os.PathLike) -> Member:
    """Load a finished run.

    Args:
        folder: a run folder (with recipe.json, model.keras and template.png), or a `.keras` file inside one.

    Raises:
        InputError: it is no finished run, or its network does not fit its recipe.
    """
    from ..run_folder import read_facts

    path = Path(folder)
    file = path if path.suffix == ".keras" else path / "model.keras"
    home = file.parent
    facts = read_facts(home)
    if not file.exists():
        raise InputError(f"{file}: is missing; the run is not finished. Go on with it: "
                         f"python -m chexpert_hier.run --out {home} --resume")
    recipe = recipes.from_json(facts["recipe"])
    names = tuple(facts["outputs"])
    commands.import_keras()
    from ..network.model import load_model

    model = load_model(file)
    if model.output_shape[1] != len(names):
        raise InputError(f"{file}: has {model.output_shape[1]} outputs, expected {len(names)} as in recipe.json")
    return Member(home, recipe, names, hierarchy.named(facts["tree"], names), croppers_in(home, recipe),
                  Normalisation(*map(tuple, facts["normalisation"])), model)


def open_saved(folder: str | os.PathLike) -> Saved:
    """Load a SavedModel that `export` wrote.

    Raises:
        InputError: it is another program's, or damaged.
    """
    folder = Path(folder)
    try:
        metadata = json.loads((folder / "metadata.json").read_text(encoding="utf-8"))
        labels, first = tuple(metadata["labels"]), metadata["members"][0]
        recipe = recipes.from_json(first["recipe"])
        recipe = replace(recipe, views=metadata["view"].lower())
        tree = hierarchy.named(first["tree"], labels)
    except (OSError, ValueError, KeyError, IndexError) as error:
        raise InputError(f"{folder}: expected a SavedModel with the metadata.json of chexpert_hier.export "
                         f"({error})") from error
    commands.import_keras()  # for its quiet start; the SavedModel itself needs TensorFlow only
    import tensorflow as tf

    try:
        signature = tf.saved_model.load(str(folder)).signatures["films"]
    except Exception as error:  # TensorFlow has no common kind for what can be wrong inside
        raise InputError(f"{folder}: TensorFlow cannot load this SavedModel ({' '.join(str(error).split())[:200]})") \
            from error
    return Saved(folder, recipe, labels, tree, croppers_in(folder, recipe), metadata, signature)


def open_model(path: str | os.PathLike) -> Member | Saved:
    """A run folder, a `.keras` file inside one, or a SavedModel folder.

    Raises:
        InputError: it is none of these.
    """
    return open_saved(path) if (Path(path) / "saved_model.pb").is_file() else open_run(path)


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
