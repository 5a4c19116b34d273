"""What a recipe is: its fields, which values fit, and how they are changed and kept.

A `Recipe` says what is read, how labels become targets, how films become crops, which network learns in which stages.
The differences between the papers are differences between these fields. Imports neither TensorFlow nor Keras.
"""

import dataclasses
import json
import typing
from dataclasses import dataclass, replace
from typing import Any

from .. import hierarchy, labels, schema
from ..errors import InputError, one_of

STAGE_ROWS = ("all", "conditional", "random")
STAGE_LAYERS = ("all", "head", "behind-backbone")
STAGE_CELLS = ("all", "conditional")
STAGE_LABELS = ("all", "parents")
SCHEDULES = ("divide", "plateau", "constant")
KEEPS = ("last", "lowest validation loss")
HEADS = ("dense", "three-class", "hbce")
SPLITS = ("auto", "official", "seeded", "paper")
STUDY_SCORES = ("max", "mean", "confident")


@dataclass(frozen=True)
class Stage:
    """One pass of training: which rows, which layers, which loss, at which rate."""

    name: str
    rows: str = "all"  # "conditional": those that hierarchy.stage_one opens; "random": as many, drawn at random
    # "head": the final Dense layer alone; "behind-backbone": all that is not the backbone. What is frozen has its
    # BatchNorm in inference mode.
    layers: str = "all"
    # "conditional": a child's cell counts only where all its parents are present, whatever the rows
    cells: str = "all"
    # "parents": only the columns that stage 1 has not learned (under `ct_rows`) are fitted; the others stay as they are
    labels: str = "all"
    loss: str = "bce"  # a row of losses.LOSSES
    epochs: int = 5
    batch_size: int = 32
    learning_rate: float = 1e-4  # of the first epoch
    schedule: str = "divide"  # "divide": by learning_rate_drop after every drop_every epochs
    learning_rate_drop: float = 10.0
    drop_every: int = 1  # epochs
    patience: int = 0  # epochs without a lower validation loss before "plateau" divides the rate
    stop_after: int = 0  # epochs without a lower validation loss before training stops; 0 = never
    keep: str = "last"  # which epoch's weights go on
    fresh_head: bool = False  # start the final Dense layer anew
    min_learning_rate: float = 0.0
    epsilon: float = 1e-7  # of Adam


@dataclass(frozen=True)
class Recipe:
    """All that defines a run, but for the place of the data."""

    name: str
    source: str
    stages: tuple[Stage, ...]
    # what is read
    reader: str = "chexpert"
    train_file: str = "train.csv"  # the table of the training films
    views: str = "frontal"
    # with views "frontal": every lateral film replaced by a frontal one of the same patients, so that as many films are
    # seen as with both views
    fair_frontal: bool = False
    split: str = "auto"
    judged: str = "valid"  # the films that the run is judged on; "test" falls back to "valid" where there is none
    # the labels
    outputs: tuple[str, ...] = ()  # of the network, in order; empty: the reader's own labels
    tree: str = "chexpert"
    policy: str = "u-ones+ct+lsr"
    blank: str = "negative"
    drop_uncertain_rows: bool = False
    closure: bool = False
    ct_rows: str = "leaves"
    lsr_ones: tuple[float, float] = (0.55, 0.85)
    lsr_zeros: tuple[float, float] = (0.0, 0.3)
    lsr_draw: str = "fixed"
    product: str = "auto"
    # from film to network
    crop: str = "template"
    rescaled_size: int = 256
    crop_size: int = 224
    least_match: float = -1.0  # ours: where the template matches less, the centre is cropped; -1: never
    resize: str = "auto"
    template_films: int = 2000
    image_size: int = 224
    normalise: str = "imagenet"
    augment: tuple[str, ...] = ()
    plain_view: tuple[str, ...] = ()  # what stands for `augment` where nothing is drawn, e.g. centre_crop:320
    cache: bool = False
    # the network
    arch: str = "densenet121"
    weights: str = "imagenet"
    head: str = "dense"
    batchnorm_momentum: float = 0.99  # Keras' own; a training of few steps needs less to move the statistics
    precision: str = "float32"
    micro_batch: int = 0  # films that go through the network at once; 0: the whole batch
    # answers
    unit: str = "study"  # what one case of the run's own evaluation is
    study_score: str = "max"
    seed: int = 0
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _check(self)

    def plan(self) -> tuple[Stage, ...]:
        """The stages that this policy trains.

        Without conditional training a recipe that begins with a conditional stage trains this stage only, on every row
        and at the same hyper-parameters (Pham et al. 2019, section 4.3: they stay fixed). Chen's reading fine-tunes
        the whole network on the products instead of refitting the frozen network's last layer. Where the labels have
        three classes, a stage whose loss takes two trains on the plain cross-entropy of the three (Irvin et al. 2019,
        U-MultiClass).
        """
        if not self.three_class:
            return self._stages()
        return tuple(stage if stage.loss.startswith("three_class") else replace(stage, loss="three_class+unweighted")
                     for stage in self._stages())

    def _stages(self) -> tuple[Stage, ...]:
        if not self.conditional:
            flat = self.stages[0].rows == "conditional"
            return (replace(self.stages[0], rows="all"),) if flat else self.stages
        if self.ct_rows == "chen":
            first, *rest = self.stages
            return (first, *(replace(stage, layers="all", loss="product_bce") for stage in rest))
        return self.stages

    @property
    def conditional(self) -> bool:
        """Whether stage 1 learns p(label | parents present)."""
        return labels.Policy.parse(self.policy).ct

    @property
    def chain(self) -> bool:
        """Whether the chain rule turns the network's outputs into the reported probabilities."""
        return self.conditional if self.product == "auto" else self.product == "on"

    @property
    def three_class(self) -> bool:
        """Whether a label is negative, positive or uncertain, three numbers instead of one."""
        return labels.Policy.parse(self.policy).rule.three_class

    @property
    def labelling(self) -> labels.Labelling:
        """How raw codes become training targets."""
        return labels.Labelling(self.policy, self.seed, self.blank, self.lsr_draw, self.lsr_ones, self.lsr_zeros)

    @property
    def built_head(self) -> str:
        """The head that is built (see model.build_model): three classes need their own."""
        return "three-class" if self.three_class else self.head

    def to_json(self) -> dict[str, Any]:
        """Every field as plain JSON values; `from_json` is its inverse."""
        fields: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self)))
        return fields


def from_json(fields: object, where: str = "recipe") -> Recipe:
    """Rebuild a recipe from `Recipe.to_json`.

    Args:
        fields: the JSON values.
        where: what errors begin with, e.g. "run/recipe.json: recipe".

    Raises:
        InputError: a field is missing, unknown, not of its type, or does not fit the others.
    """
    try:
        return schema.read(Recipe, fields, where)
    except InputError as error:  # the recipe's own checks do not know where it stands
        text = str(error)
        raise InputError(text if text.startswith(where) else f"{where}: {text}") from None


def change(recipe: Recipe, *settings: str, **flags: object) -> Recipe:
    """Set fields, all at once: only the recipe that comes out must be sound, not what lies on the way to it.

    Args:
        recipe: where to change.
        settings: "FIELD=VALUE" as typed after `--set`: a field of the recipe ("image_size=320"), or of a stage
            ("stage2.learning_rate=1e-3"; "stages.epochs=2" sets all); tuples are separated by commas.
        flags: fields of the recipe by name, set before; None leaves a field as it is.

    Raises:
        InputError: no such field, a text that is not of its type, or a recipe that is not sound.
    """
    fields: dict[str, Any] = {}
    stages: list[dict[str, Any]] = [{} for _ in recipe.stages]
    texts = [f"{name}={value}" for name, value in flags.items() if value is not None]
    for text in (*texts, *settings):
        name, equals, value = text.partition("=")
        if not equals:
            raise InputError(f"--set {text}: expected FIELD=VALUE")
        place, dot, field = name.partition(".")
        if not dot:
            fields[name] = _typed(Recipe, name, value)
            continue
        one_of("--set: the stage", place, ("stages", *(stage.name for stage in recipe.stages)))
        for stage, own in zip(recipe.stages, stages):
            if place in ("stages", stage.name):
                own[field] = _typed(Stage, field, value)
    return replace(recipe, **fields, stages=tuple(replace(stage, **own) for stage, own in zip(recipe.stages, stages)))


def _typed(owner: type, name: str, text: str) -> Any:
    hints = typing.get_type_hints(owner)
    changeable = sorted(set(hints) - {"name", "source", "stages", "notes"})
    one_of("--set: the field", name, changeable)
    hint = hints[name]
    try:
        if hint is bool:
            one_of(f"--set {name}", text.lower(), ("true", "false"))
            return text.lower() == "true"
        if typing.get_origin(hint) is tuple:
            inner = typing.get_args(hint)[0]
            return tuple(inner(part) for part in text.split(",") if part)
        return hint(text)
    except ValueError as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"--set {name}: {text!r} is no {getattr(hint, '__name__', hint)}") from error


def _check(recipe: Recipe) -> None:
    for what, value, valid in (
        ("--ct-rows", recipe.ct_rows, hierarchy.READINGS),
        ("views", recipe.views, ("frontal", "lateral", "both")), ("product", recipe.product, ("auto", "on", "off")),
        ("crop", recipe.crop, ("template", "centre", "none")),
        ("--precision", recipe.precision, ("float32", "mixed_float16", "mixed_bfloat16")),
        ("--normalise", recipe.normalise, ("imagenet", "native", "dataset", "none")),
        ("study_score", recipe.study_score, STUDY_SCORES), ("unit", recipe.unit, ("film", "study", "patient")),
        ("--split", recipe.split, SPLITS), ("judged", recipe.judged, ("valid", "test")), ("head", recipe.head, HEADS),
    ):
        one_of(what, value, valid)
    one_of("--policy", recipe.labelling.parsed.name, labels.policy_names())  # checks blanks and smoothing as well
    _check_three_class(recipe)
    for stage in recipe.stages:
        _check_stage(stage, recipe)
    if recipe.micro_batch < 0:
        raise InputError(f"--micro-batch is {recipe.micro_batch}; expected 1 or more, or 0 for the whole batch")
    if not -1 <= recipe.least_match <= 1:
        raise InputError(f"least_match is {recipe.least_match}; expected a correlation from -1 (never) to 1")
    if not 16 <= recipe.crop_size <= recipe.rescaled_size:
        raise InputError(f"crop_size is {recipe.crop_size}; expected 16 to rescaled_size ({recipe.rescaled_size})")
    if not 16 <= recipe.image_size <= 1024:
        raise InputError(f"--image-size is {recipe.image_size}; expected 16 to 1024 pixels")


def _check_stage(stage: Stage, recipe: Recipe) -> None:
    for what, value, valid in (("rows", stage.rows, STAGE_ROWS), ("layers", stage.layers, STAGE_LAYERS),
                               ("cells", stage.cells, STAGE_CELLS), ("labels", stage.labels, STAGE_LABELS),
                               ("schedule", stage.schedule, SCHEDULES), ("keep", stage.keep, KEEPS)):
        one_of(f"{stage.name}.{what}", value, valid)
    for what in ("epochs", "batch_size", "drop_every"):
        if getattr(stage, what) < 1:
            raise InputError(f"{stage.name}.{what} is {getattr(stage, what)}; expected 1 or more")
    if stage.labels == "parents" and (stage.fresh_head or stage.layers != "head"
                                      or recipe.ct_rows in ("any-parent", "chen")):
        raise InputError(f"{stage.name}.labels=parents: fits only what stage 1 has not learned; it needs layers="
                         "head, fresh_head=false, and --ct-rows leaves, union or all-parents")
    if not stage.learning_rate > 0 or not stage.learning_rate_drop > 0:
        raise InputError(f"{stage.name}.learning_rate and its drop must be above 0")


def _check_three_class(recipe: Recipe) -> None:
    if recipe.head == "three-class" and not recipe.three_class:
        raise InputError(f"head three-class: needs --policy u-multiclass, not {recipe.policy}")
    if recipe.three_class and recipe.head == "hbce":
        raise InputError("--policy u-multiclass: needs a head of plain pooling (head=dense), not hbce")
    if recipe.three_class and recipe.conditional and recipe.ct_rows == "chen":
        raise InputError("--ct-rows chen: trains on products of two-class outputs; u-multiclass has three")
    if recipe.fair_frontal and recipe.views != "frontal":
        raise InputError(f"fair_frontal: is about --views frontal, not {recipe.views}")
