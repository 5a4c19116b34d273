"""Where a network looks: class activation maps and Grad-CAM on the film's own pixels, as pictures and numbers.

    python -m chexpert_hier.heatmaps film.jpg --model runs/mine --labels Edema "Pleural Effusion" --out maps

A map is float32 (h, w), on the last feature maps' grid; `overlays` lays it onto the film, `localise` scores it there.
Keras is imported inside functions, so that `--help` answers at once.
"""

import argparse
import csv
import io
import logging
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from . import commands
from .augment import plain_window
from .errors import InputError, one_of
from .files import locked, write_text
from .labels import COMPETITION_LABELS
from .overlays import FilmMaps, overlay, read_maps, rectified, write_maps, write_png

log = logging.getLogger("chexpert_hier.heatmaps")

METHODS = ("cam", "grad-cam")
PLACES = ("stretched", "centred")


def heatmaps(model, films: np.ndarray, labels: Sequence[str] | None = None,
             method: str | None = None) -> np.ndarray:
    """Map each finding on each film.

    Args:
        model: from model.build_model.
        films: float32 (n, size, size, 3), normalised.
        labels: which findings; None takes all.
        method: "cam", "grad-cam", or None for CAM where the head allows it and Grad-CAM elsewhere.

    Returns:
        float32 (n, h, w, labels), on the grid of the last maps; not rectified, not rescaled.

    Raises:
        InputError: the model has no such label, or CAM is asked of a head without plain pooling.
    """
    import keras

    from .model import labels_of, map_model, map_weights

    all_labels = labels_of(model)
    labels = all_labels if labels is None else tuple(labels)
    for label in labels:
        one_of("label (--labels)", label, all_labels)
    columns = [all_labels.index(label) for label in labels]
    to_maps, to_logits, plain = map_model(model)
    if method is None:
        method = "cam" if plain else "grad-cam"
    one_of("heatmap method", method, METHODS)
    if method == "cam" and not plain:
        raise InputError("class activation maps need a head of pooling and one Dense layer; this model takes grad-cam")
    maps = keras.ops.cast(to_maps(films, training=False), "float32")
    if method == "cam":
        return class_activation(keras.ops.convert_to_numpy(maps), map_weights(model)[:, columns])
    return grad_cam(to_logits, maps, columns)


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


def grad_cam(to_logits, maps, columns: Sequence[int]) -> np.ndarray:
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

    found = []
    for column in columns:
        slope = backend_gradient(lambda x, c=column: keras.ops.sum(to_logits(x, training=False)[:, c]), maps)
        strength = slope.mean(axis=(1, 2))  # (n, k)
        found.append(np.einsum("nhwk,nk->nhw", keras.ops.convert_to_numpy(maps), strength))
    return np.stack(found, axis=-1).astype("float32")


def backend_gradient(function, x) -> np.ndarray:
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


def film_maps(member, films: Sequence, greys: Sequence[np.ndarray], labels: Sequence[str],
              method: str | None = None, place: str = "stretched") -> list[FilmMaps]:
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

    Returns:
        one FilmMaps per film.
    """
    from .model import map_cells

    one_of("--place", place, PLACES)
    cropper = member.croppers["Lateral" if films[0].lateral and "Lateral" in member.croppers else
                              next(iter(member.croppers))]
    crops = cropper.crop(greys)
    inputs = np.asarray(member.inputs(crops.crops))
    heat = heatmaps(member.model, inputs, labels, method)  # (n, h, w, labels)
    outputs = np.asarray(member.model.predict_on_batch(inputs))
    if outputs.ndim == 3:  # negative, positive, uncertain: the last is masked (CheXpertNet)
        outputs = outputs[..., 1] / np.maximum(outputs[..., 0] + outputs[..., 1], 1e-37)
    offset, side = plain_window(member.recipe.plain_view, cropper.size)
    columns = [member.labels.index(label) for label in labels]
    probabilities = member.final(outputs)[:, columns]
    cells = map_cells(member.model) if place == "centred" else (0.5 / heat.shape[1], 1 / heat.shape[1])
    return [FilmMaps(film.name, tuple(labels), probabilities[k], heat[k].transpose(2, 0, 1), grey.shape,
                     tuple(int(at) + offset for at in crops.places[k]), side, cropper.rescaled, cells)
            for k, (film, grey) in enumerate(zip(films, greys))]


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    answer = argparse.ArgumentParser(prog="python -m chexpert_hier.heatmaps", description=__doc__.splitlines()[0])
    add = answer.add_argument
    add("films", nargs="+", metavar="FILM|FOLDER|CSV")
    add("--model", required=True, metavar="RUN", help="a finished run")
    add("--out", type=Path, required=True, help="folder for the overlays (.png), the maps (.npz) and maps.csv")
    add("--labels", nargs="+", metavar="LABEL", help="findings (default: the competition's five, or all others)")
    add("--method", choices=METHODS, help="default: cam where the head allows it, else grad-cam")
    add("--place", choices=PLACES, default="stretched", help="lay the map over the whole crop as the papers do, or "
        "(centred, ours) each cell where the centre of what it sees lies")
    add("--threshold", type=float, default=0.0, help="draw only what reaches this share of the largest value")
    add("--batch-size", type=int, default=16)
    add("--skip-bad", action="store_true", help="leave out films that cannot be read, and say so")
    add("--resume", action="store_true", help="keep the films that are finished in --out")
    add("--quiet", action="store_true")
    return answer


def main(argv: list[str] | None = None) -> int:
    """Run the command; 0 when done."""
    args = parser().parse_args(argv)
    if not 0 <= args.threshold < 1 or args.batch_size < 1:
        raise InputError(f"--threshold is {args.threshold} and --batch-size {args.batch_size}; expected a share in "
                         "[0, 1), and 1 or more")
    if args.quiet:
        logging.getLogger("chexpert_hier").setLevel(logging.WARNING)
    from . import predict

    films = predict.find_films(args.films)
    if not args.resume and args.out.exists() and any(args.out.iterdir()):
        raise InputError(f"{args.out}: is not empty; choose another --out, or --resume to go on with it")
    member = predict.open_run(args.model)
    labels = tuple(args.labels or [label for label in COMPETITION_LABELS if label in member.labels] or member.labels)
    for label in labels:
        one_of("label (--labels)", label, member.labels)
    with locked(args.out):
        rows = _draw_all(args, member, films, labels)
    print(f"{len(rows)} maps of {len({row[0] for row in rows})} films in {args.out}")
    return 0


def _draw_all(args, member, films, labels) -> list[tuple]:
    rows, bar = [], commands.Bar("heatmaps", len(films))
    waiting: dict[bool, list] = {False: [], True: []}  # per view, each of which has its own template

    def flush(lateral: bool) -> None:
        if waiting[lateral]:
            batch = film_maps(member, *zip(*waiting[lateral]), labels, args.method, args.place)
            for (_, grey), maps in zip(waiting[lateral], batch):
                draw(args.out, maps, grey, args.threshold)
                rows.extend(_summary(maps))
            waiting[lateral].clear()

    for film in films:
        done = _place(args.out, film.name, ".npz")
        kept = read_maps(done) if done.exists() else None
        if kept and kept.labels == labels and kept.stretched == (args.place == "stretched"):
            rows += _summary(kept)
        elif (grey := _read(film, member, args.skip_bad)) is not None:
            waiting[film.lateral].append((film, grey))
            if len(waiting[film.lateral]) == args.batch_size:
                flush(film.lateral)
        bar.add()
    for lateral in waiting:
        flush(lateral)
    bar.close()
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([("Path", "label", "probability", "row", "column", "value"), *rows])
    write_text(args.out / "maps.csv", text.getvalue())
    return rows


def _read(film, member, skip_bad: bool) -> np.ndarray | None:
    from .films import read_film

    try:
        if film.lateral and "Lateral" not in member.croppers:
            raise InputError(f"{film.name}: a lateral film; the model was trained on frontal films only. Leave it out, "
                             "or use --skip-bad")
        return read_film(film.file, film.name)
    except InputError as error:
        if not skip_bad:
            raise
        log.warning("left out: %s", error)
        return None


def _place(out: Path, name: str, ending: str) -> Path:
    plain = re.sub(r"[^\w.-]+", "_", name.strip("/").replace("/", "__"))
    return out / f"{plain[-150:]}{ending}"  # file systems take 255 bytes


def draw(out: Path, maps: FilmMaps, grey: np.ndarray, threshold: float = 0.0) -> None:
    """Write one film's overlays (one .png per finding) and its maps (.npz) into a folder, under the film's name.

    Args:
        out: the folder.
        maps: of `film_maps`.
        grey: the film, uint8 (h, w).
        threshold: draw only what reaches this share of the largest value.
    """
    for label, probability in zip(maps.labels, maps.probabilities):
        picture = overlay(grey, rectified(maps.on_film(label), threshold), f"{label} {probability:.2f}")
        write_png(_place(out, maps.path, f" {label}.png"), picture)
    write_maps(_place(out, maps.path, ".npz"), maps)  # last: its presence says that the film is finished


def _summary(maps: FilmMaps) -> list[tuple]:
    """Where each map is largest, in film pixels."""
    rows = []
    for label, probability in zip(maps.labels, maps.probabilities):
        heat = maps.on_film(label)
        row, column = np.unravel_index(np.nanargmax(heat), heat.shape)
        rows.append((maps.path, label, f"{probability:.6g}", int(row), int(column), f"{heat[row, column]:.6g}"))
    return rows


if __name__ == "__main__":
    sys.exit(commands.answer(main))
