"""Where a network looks: class activation maps and Grad-CAM on the film's own pixels, as pictures and numbers.

    python -m chexpert_hier.heatmaps film.jpg --model runs/mine --labels Edema "Pleural Effusion" --out maps

A map is float32 (h, w), on the grid of the last feature maps or of an earlier layer's; `overlays` lays it onto the
film, `localise` scores it there.
Keras is imported inside functions, so that `--help` answers at once.
"""

import logging
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError, one_of
from ..films.augment import plain_window
from ..finished import operating
from .overlays import FilmMaps, overlay, rectified, write_maps, write_png

log = logging.getLogger("chexpert_hier.heatmaps")
METHODS = ("cam", "grad-cam", "layer-cam")
FEW_CELLS = 7  # 224 pixels give 7 x 7 behind DenseNet-121; fewer are stripes on a film
PLACES = ("stretched", "centred")
AT_ONCE = 64  # films times labels whose gradients are held at once


def heatmaps(model: Any, films: np.ndarray, labels: Sequence[str] | None = None,
             method: str | None = None, layer: str | None = None) -> np.ndarray:
    """Map each finding on each film.

    Args:
        model: from model.build_model.
        films: float32 (n, size, size, 3), normalised.
        labels: which findings; None takes all.
        method: one of METHODS; None: CAM at the last maps where the head allows it, Grad-CAM where it does not, and
            LayerCAM at an earlier layer.
        layer: one of network.maps.map_layers; None: the last maps.

    Returns:
        float32 (n, h, w, labels), on the grid of the layer's maps; not rectified, not rescaled.

    Raises:
        InputError: the model has no such label, or CAM is asked of a head without plain pooling.
    """
    import keras

    from ..network.maps import map_model, map_weights
    from ..network.model import labels_of

    all_labels = labels_of(model)
    labels = all_labels if labels is None else tuple(labels)
    for label in labels:
        one_of("label (--labels)", label, all_labels)
    columns = [all_labels.index(label) for label in labels]
    to_maps, to_logits, plain = map_model(model, layer)
    if method is None:
        method = "cam" if plain else "layer-cam" if layer else "grad-cam"
    one_of("heatmap method", method, METHODS)
    if method == "cam" and not plain:
        raise InputError("class activation maps need the last maps of a head of pooling and one Dense layer; here use "
                         "grad-cam or layer-cam")
    maps = keras.ops.cast(to_maps(films, training=False), "float32")
    if method == "cam":
        return class_activation(keras.ops.convert_to_numpy(maps), map_weights(model)[:, columns])
    return grad_cam(to_logits, maps, columns) if method == "grad-cam" else layer_cam(to_logits, maps, columns)


def layer_of(model: Any, asked: str = "auto") -> str | None:
    """The layer whose maps are drawn.

    Args:
        model: from model.build_model.
        asked: "last", a layer's name, or "auto": the last maps where they have at least FEW_CELLS rows, else the last
            layer before them that has, if the network can be cut there.

    Returns:
        a name for `heatmaps`, or None for the last maps.

    Raises:
        InputError: the network cannot be cut at that layer.
    """
    from ..network.maps import map_layers, map_model

    if asked == "last":
        return None
    layers, side = map_layers(model), map_model(model)[0].output_shape[1]
    if asked != "auto":
        one_of("layer (--layer)", asked, ("auto", "last", *layers))
        return asked
    if side >= FEW_CELLS:
        return None
    most = model.input_shape[1] // 8  # before that a network has seen edges, not findings
    fine = [name for name, size in layers.items() if FEW_CELLS <= size <= most]
    return fine[-1] if fine else None


def resolution(member: Any, layer: str = "auto") -> str:
    """The layer whose maps are drawn for a run (see `layer_of`), and how many cells they have, in words."""
    if member.engine == "onnx":
        name, (rows, columns) = "last", member.model.grid
    else:
        from ..network.maps import map_model

        cut = layer_of(member.model, layer)
        name, (rows, columns) = cut or "last", map_model(member.model, cut)[0].output_shape[1:3]
    return f"{name}: {rows} x {columns} cells"


def class_activation(maps: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """M_c = Σ_k w_kc f_k.

    Args:
        maps: float (n, h, w, k), the last convolution's output.
        weights: float (k, labels), columns of the last Dense layer's kernel. The row of a kernel belongs to a map, the
            column to a label; taking a row is a known mistake of other implementations.

    Returns:
        (n, h, w, labels); its mean over h and w plus the bias is the label's logit.

    Source: Zhou et al. 2016; Rajpurkar et al. 2017 (CheXNet), section 4.
    """
    return maps @ weights


def grad_cam(to_logits: Any, maps: Any, columns: Sequence[int]) -> np.ndarray:
    """Σ_k α_kc f_k, where α_kc is the mean over places of the logit's gradient by map k; before the ReLU.

    Behind plain average pooling α_kc = w_kc / (h w), so that this is CAM divided by h w.

    Args:
        to_logits: maps -> logits (n, labels), as from model.map_model.
        maps: tensor (n, h, w, k).
        columns: places of the labels.

    Returns:
        float32 (n, h, w, len(columns)).

    Source: Selvaraju et al. 2017.
    """
    import keras

    strengths = _slopes(to_logits, maps, columns).mean(axis=(2, 3))  # (labels, n, k)
    return np.einsum("nhwk,lnk->nhwl", keras.ops.convert_to_numpy(maps), strengths).astype("float32")


def layer_cam(to_logits: Any, maps: Any, columns: Sequence[int]) -> np.ndarray:
    """Σ_k max(∂logit_c/∂f_k, 0) f_k, place by place; for layers before the last, where one weight per map says little.

    Args and Returns: as `grad_cam`.

    Source: Jiang et al. 2021 (LayerCAM), eq. 6, before the ReLU.
    """
    import keras

    values = keras.ops.convert_to_numpy(maps)
    found = [(np.maximum(slope, 0) * values).sum(axis=-1) for slope in _slopes(to_logits, maps, columns)]
    return np.stack(found, axis=-1).astype("float32")


def _slopes(to_logits: Any, maps: Any, columns: Sequence[int]) -> np.ndarray:
    """∂logit_c/∂maps of every film and label, float32 (labels, n, h, w, k).

    Several labels go through the network as one batch, film by film and label by label: a network is far quicker
    there than label after label.
    """
    import keras

    count, found = len(maps), []
    together = max(1, AT_ONCE // max(count, 1))
    for start in range(0, len(columns), together):
        some = list(columns[start:start + together])
        which = np.zeros((len(some), count, to_logits.output_shape[-1]), np.float32)
        which[np.arange(len(some)), :, some] = 1
        chosen = keras.ops.convert_to_tensor(which.reshape(-1, which.shape[-1]))
        copies = keras.ops.tile(maps, (len(some), 1, 1, 1))
        slope = backend_gradient(lambda x, of=chosen: keras.ops.sum(to_logits(x, training=False) * of), copies)
        found.append(slope.reshape(len(some), *maps.shape))
    return np.concatenate(found)


def backend_gradient(function: Callable[[Any], Any], x: Any) -> np.ndarray:
    """d function(x) / dx, function(x) a scalar, on whichever backend Keras runs; x is a tensor."""
    import keras

    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape() as tape:
            tape.watch(x)
            value = function(x)
        return tape.gradient(value, x).numpy()
    if backend == "jax":
        import jax

        return np.asarray(jax.grad(function)(x))
    x = x.detach().clone().requires_grad_(True)  # torch
    function(x).backward()
    return x.grad.cpu().numpy()


def film_maps(member: Any, films: Sequence, greys: Sequence[np.ndarray], labels: Sequence[str],
              method: str | None = None, place: str = "stretched", layer: str = "auto") -> list[FilmMaps]:
    """Map findings on films with a finished run.

    Args:
        member: the run, from predict.open_run.
        films: predict.Film, all of one view.
        greys: their pixels, uint8 (h, w) each.
        labels: which findings.
        method: see `heatmaps`.
        place: "stretched" lays the map over the whole crop, as the papers do (Zhou et al. 2016; Rajpurkar et al. 2017);
            "centred" (ours) puts each cell where the centre of what it sees lies (model.map_cells), which is up to half
            a cell away.
        layer: see `layer_of`.

    Returns:
        one FilmMaps per film.
    """
    one_of("--place", place, PLACES)
    cropper = member.croppers["Lateral" if films[0].lateral and "Lateral" in member.croppers else
                              next(iter(member.croppers))]
    crops = cropper.crop(greys)
    columns, cut = [member.labels.index(label) for label in labels], None
    if member.engine == "onnx":
        if method is not None or place != "stretched" or layer not in ("auto", "last"):
            raise InputError(f"{member.folder}: --method, --place and --layer need --engine keras; model.onnx holds "
                             "the last maps only")
        heat = member.model.maps(crops.crops).transpose(0, 2, 3, 1)[..., columns]
    else:
        cut = None if method == "cam" else layer_of(member.model, layer)
        heat = heatmaps(member.model, np.asarray(member.inputs(crops.crops)), labels, method, cut)  # (n, h, w, labels)
    offset, side = plain_window(member.recipe.plain_view, cropper.size)
    probabilities = member.final(member.outputs(crops.crops))[:, columns]
    cells = _centred(member.model, cut) if place == "centred" else (0.5 / heat.shape[1], 1 / heat.shape[1])
    return [FilmMaps(film.name, tuple(labels), probabilities[k], heat[k].transpose(2, 0, 1), grey.shape,
                     tuple(int(at) + offset for at in crops.places[k]), side, cropper.rescaled, cells, cut or "last")
            for k, (film, grey) in enumerate(zip(films, greys))]


def _centred(model, layer: str | None) -> tuple[float, float]:
    from ..network.maps import map_cells

    return map_cells(model, layer)


def map_file(out: Path, name: str, ending: str) -> Path:
    """Where a film's map lies: its name with the slashes gone."""
    plain = re.sub(r"[^\w.-]+", "_", name.strip("/").replace("/", "__"))
    return out / f"{plain[-150:]}{ending}"  # file systems take 255 bytes


def thresholds(validation: dict | None, labels: Sequence[str]) -> dict[str, float]:
    """From which probability on a finding is called present, as predict calls it; 0.5 where the run has no point."""
    points = operating.thresholds(validation, labels)
    points = np.where(np.isnan(points), 0.5, points - operating.SLACK * np.abs(points))
    return dict(zip(labels, points.tolist()))


def draw(out: Path, maps: FilmMaps, grey: np.ndarray, threshold: float = 0.0,
         present: dict[str, float] | None = None) -> None:
    """Write one film's overlays (one .png per finding) and its maps (.npz) into a folder, under the film's name.

    Args:
        out: the folder.
        maps: of `film_maps`.
        grey: the film, uint8 (h, w).
        threshold: draw only what reaches this share of the largest value.
        present: see `thresholds`; a finding below its threshold gets no picture, for there is nothing to show. None
            draws all.
    """
    for label, probability in zip(maps.labels, maps.probabilities):
        if present is not None and probability < present[label]:
            continue
        picture = overlay(grey, rectified(maps.on_film(label), threshold), f"{label} {probability:.2f}")
        write_png(map_file(out, maps.path, f" {label}.png"), picture)
    write_maps(map_file(out, maps.path, ".npz"), maps)  # last: its presence says that the film is finished


def summary_rows(maps: FilmMaps) -> list[tuple]:
    """Where each map is largest, in film pixels."""
    rows = []
    for label, probability in zip(maps.labels, maps.probabilities):
        heat = maps.on_film(label)
        row, column = np.unravel_index(np.nanargmax(heat), heat.shape)
        rows.append((maps.path, label, f"{probability:.6g}", int(row), int(column), f"{heat[row, column]:.6g}"))
    return rows
