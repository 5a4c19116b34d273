"""The graph from films to answers, in plain TensorFlow: decoding, crop, networks, chain rule, calibration."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..films import augment, normalisation, plausible
from ..films.template import Cropper
from ..finished import operating
from ..finished.members import Member
from .status import GOOD

EDGE = 1e-6  # as evaluate.calibration: probabilities are kept this far from 0 and 1 before the logit


def cropper_of(member: Member) -> tuple[str, Cropper]:
    """The view that is served and how its films are cropped: frontal, unless the run knows lateral films only."""
    view = "Frontal" if "Frontal" in member.croppers else next(iter(member.croppers))
    return view, member.croppers[view]


def croppers_of(members: Sequence[Member]) -> dict[str, Cropper]:
    """The different ways in which members crop, by their identity; the first member's first."""
    return {cropper.identity: cropper for cropper in (cropper_of(member)[1] for member in members)}


def answering(members: Sequence[Member], names: Sequence[str]) -> Callable[[Any, Callable], dict[str, Any]]:
    """The graph from films to named outputs.

    Returns:
        (films, decode) -> outputs; `decode` (of `decoding`) turns one element of the batch into
        pixels. What follows the crops is one traced function, which all callers share.
    """
    import tensorflow as tf

    croppers, frontal = croppers_of(members), cropper_of(members[0])[0] == "Frontal"
    sizes = [tf.TensorSpec((None, one.size, one.size), tf.uint8) for one in croppers.values()]

    @tf.function(input_signature=sizes, autograph=False)
    def of_all_crops(*crops):
        return of_crops(members, names, dict(zip(croppers, crops)))

    def look(film, decode):
        grey, status, flags = decode(film)
        found = [one.graph(grey) for one in croppers.values()]
        crops = [tf.ensure_shape(one.crops, spec.shape[1:]) for one, spec in zip(found, sizes)]
        flags |= plausible.graph_flag(grey) if frontal else 0
        return *crops, status, flags, found[0].places, found[0].scores

    kinds = (*(tf.TensorSpec(spec.shape[1:], tf.uint8) for spec in sizes), tf.TensorSpec((), tf.int32),
             tf.TensorSpec((), tf.int32), tf.TensorSpec((2,), tf.int32), tf.TensorSpec((), tf.float32))

    def answer(films, decode):
        found = tf.map_fn(lambda film: look(film, decode), films, fn_output_signature=kinds)
        *crops, status, flags, places, match = found
        good = status == GOOD
        result = blank(dict(of_all_crops(*crops)), good)
        result |= {"status": status, "flags": tf.where(good, flags, 0), "place": tf.where(good[:, None], places, -1)}
        return result | (blank({"match": match}, good) if cropper_of(members[0])[1].mode == "template" else {})

    return answer


def blank(result: Mapping[str, Any], good: Any) -> dict[str, Any]:
    """NaN in every number of a film that is not good, False in its calls; bool (n,)."""
    import tensorflow as tf

    def kept(value):
        nothing = tf.constant(np.nan if value.dtype == tf.float32 else False, value.dtype)
        return tf.where(tf.reshape(good, [-1] + [1] * (len(value.shape) - 1)), value, nothing)

    return {name: kept(value) for name, value in result.items()}


def of_crops(members: Sequence[Member], names: Sequence[str], crops: Mapping[str, Any]) -> dict[str, Any]:
    """The graph from crops to named outputs.

    Args:
        members: finished runs.
        names: order of the outputs.
        crops: a cropper's identity -> uint8 tensor (n, c, c) or (n, c, c, 1).
    """
    import tensorflow as tf

    pairs = [_network(member, names, crops[cropper_of(member)[1].identity]) for member in members]
    finals = tf.stack([final for final, _ in pairs])  # (members, n, labels)
    result = {"probabilities": tf.reduce_mean(finals, 0),
              "conditional": tf.reduce_mean(tf.stack([conditional for _, conditional in pairs]), 0)}
    if len(members) > 1:
        result["spread"] = tf.math.reduce_std(finals, 0)
    return result


def _network(member: Member, names: Sequence[str], crops: Any) -> tuple[Any, Any]:
    """One member's probabilities after and before the chain rule, each (n, labels)."""
    import tensorflow as tf

    from ..network.model import probability_model

    crops = augment.plain(crops, member.recipe.plain_view)
    inputs = normalisation.graph_normalise(crops, member.normalisation, member.recipe.image_size)
    conditional = tf.cast(probability_model(member.model)(inputs, training=False), tf.float32)
    final = chain_rule(conditional, member.tree.ancestors) if member.recipe.chain else conditional
    order = [member.labels.index(name) for name in names]
    return tf.gather(final, order, axis=1), tf.gather(conditional, order, axis=1)


def chain_rule(conditional: Any, ancestors: np.ndarray) -> Any:
    """hierarchy.chain_rule in graph operations: the product over a label and its ancestors, each once."""
    import tensorflow as tf

    return tf.reduce_prod(tf.where(ancestors[None], conditional[:, None, :], 1.0), axis=2)


@dataclass(frozen=True, eq=False)
class Calling:
    """The numbers behind `calibrated` and `present`, one per label: those of operating.calibrated and operating.calls.

    Attributes:
        slope, intercept: float32 (labels,) of Platt's scaling.
        fitted: bool (labels,), whether it is scaled at all.
        ancestors: bool (labels, labels); after the scaling no label is above an ancestor.
        limit: float32 (labels,), the operating point's threshold; infinite without one.
    """

    slope: np.ndarray
    intercept: np.ndarray
    fitted: np.ndarray
    ancestors: np.ndarray
    limit: np.ndarray


def calling(member: Member, names: Sequence[str], validation: dict | None) -> Calling | None:
    """The numbers of a run's calibration and operating points; None without a calibration."""
    if not validation or set(validation["calibration"]) != set(names):
        return None
    scalings = [validation["calibration"][name] for name in names]
    slope, intercept = (np.array([scaling[part] for scaling in scalings], np.float32)
                        for part in ("slope", "intercept"))
    order = [member.tree.labels.index(name) for name in names]
    limit = operating.thresholds(validation, names)
    limit = np.where(np.isnan(limit), np.inf, limit - operating.SLACK * np.abs(limit)).astype(np.float32)
    return Calling(slope, intercept, np.array([scaling["method"] == "platt" for scaling in scalings]),
                   member.tree.ancestors[np.ix_(order, order)], limit)


def called(probabilities: Any, how: Calling) -> dict[str, Any]:
    """`calibrated` and `present` of probabilities (n, labels)."""
    import tensorflow as tf

    inside = tf.clip_by_value(probabilities, EDGE, 1 - EDGE)
    logit = tf.math.log(inside) - tf.math.log1p(-inside)
    scaled = tf.where(how.fitted[None], tf.sigmoid(how.slope * logit + how.intercept), probabilities)
    under = tf.reduce_min(tf.where(how.ancestors[None], scaled[:, None, :], 1.0), axis=2)
    return {"calibrated": under, "present": probabilities >= how.limit}
