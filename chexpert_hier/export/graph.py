"""The graph from films to answers, in plain TensorFlow: decoding, crop, networks, chain rule, calibration."""

import numpy as np

from ..films import augment, normalisation
from ..films.template import Cropper
from ..finished import operating
from ..finished.members import Member
from ..labels import positive_of_three

EDGE = 1e-6  # as evaluate.calibration: probabilities are kept this far from 0 and 1 before the logit


def cropper_of(member: Member) -> tuple[str, Cropper]:
    """The view that is served and how its films are cropped: frontal, unless the run knows lateral films only."""
    view = "Frontal" if "Frontal" in member.croppers else next(iter(member.croppers))
    return view, member.croppers[view]


def answering(members: list[Member], names: tuple[str, ...]):
    """The graph from films to named outputs; `decode` turns one element of the batch into uint8 (h, w) or (h, w, 1)."""
    import tensorflow as tf

    croppers = {cropper.identity: cropper for cropper in (cropper_of(member)[1] for member in members)}
    first = cropper_of(members[0])[1]

    def answer(films, decode):
        kinds = list(croppers.values())
        specs = tuple((tf.TensorSpec((k.size, k.size), tf.uint8), tf.TensorSpec((), tf.float32)) for k in kinds)

        def crop_all(element):
            grey = decode(element)
            found = [k.graph(grey) for k in kinds]
            return tuple((tf.ensure_shape(crop.crops, (k.size, k.size)), crop.scores) for k, crop in zip(kinds, found))

        found = dict(zip(croppers, tf.map_fn(crop_all, films, fn_output_signature=specs)))
        crops = {identity: pair[0] for identity, pair in found.items()}
        result = of_crops(members, names, crops)
        if first.mode == "template":
            result["match"] = found[first.identity][1]
        return result

    return answer


def of_crops(members: list[Member], names: tuple[str, ...], crops: dict) -> dict:
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


def _network(member: Member, names: tuple[str, ...], crops):
    """One member's probabilities after and before the chain rule, each (n, labels)."""
    import tensorflow as tf

    crops = augment.plain(crops, member.recipe.plain_view)
    conditional = member.model(normalisation.graph_normalise(crops, member.normalisation, member.recipe.image_size),
                               training=False)
    conditional = tf.cast(conditional, tf.float32)
    if len(conditional.shape) == 3:
        conditional = positive_of_three(conditional)
    final = chain_rule(conditional, member.tree.ancestors) if member.recipe.chain else conditional
    order = [member.labels.index(name) for name in names]
    return tf.gather(final, order, axis=1), tf.gather(conditional, order, axis=1)


def chain_rule(conditional, ancestors: np.ndarray):
    """hierarchy.chain_rule in graph operations: the product over a label and its ancestors, each once."""
    import tensorflow as tf

    return tf.reduce_prod(tf.where(ancestors[None], conditional[:, None, :], 1.0), axis=2)


def calibrating(member: Member, names: tuple[str, ...], validation: dict | None):
    """The graph from probabilities (n, labels) to `calibrated` and `present`; None without a calibration.

    The same as operating.calibrated and operating.calls: Platt scaling per label, then no label above an ancestor.
    """
    import tensorflow as tf

    if not validation or set(validation["calibration"]) != set(names):
        return None
    scalings = [validation["calibration"][name] for name in names]
    slope, intercept = (np.array([scaling[part] for scaling in scalings], np.float32)
                        for part in ("slope", "intercept"))
    fitted = np.array([scaling["method"] == "platt" for scaling in scalings])
    order = [member.tree.labels.index(name) for name in names]
    ancestors = member.tree.ancestors[np.ix_(order, order)]
    limit = operating.thresholds(validation, names)
    limit = np.where(np.isnan(limit), np.inf, limit - operating.SLACK * np.abs(limit)).astype(np.float32)

    def scale(probabilities):
        inside = tf.clip_by_value(probabilities, EDGE, 1 - EDGE)
        logit = tf.math.log(inside) - tf.math.log1p(-inside)
        scaled = tf.where(fitted[None], tf.sigmoid(slope * logit + intercept), probabilities)
        under = tf.reduce_min(tf.where(ancestors[None], scaled[:, None, :], 1.0), axis=2)
        return {"calibrated": under, "present": probabilities >= limit}

    return scale
