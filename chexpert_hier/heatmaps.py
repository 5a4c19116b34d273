"""Where a network looks: class activation maps and Grad-CAM, laid onto the film's own pixels and drawn.

    python -m chexpert_hier.heatmaps film.jpg --model runs/mine --labels Edema "Pleural Effusion" --out maps

A map is float32 (h, w), on the last feature maps' grid; `onto_film` undoes crop and rescale, so that boxes and masks in
film pixels can be compared with it (`localise`). Keras is imported inside functions: the rest works without it.
"""

import argparse
import csv
import io
import logging
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from . import commands
from .errors import InputError, one_of
from .files import locked, write_text, written_whole
from .labels import COMPETITION_LABELS, key

log = logging.getLogger("chexpert_hier.heatmaps")

METHODS = ("cam", "grad-cam")


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
        slope = _gradient(lambda x, c=column: keras.ops.sum(to_logits(x, training=False)[:, c]), maps)
        strength = slope.mean(axis=(1, 2))  # (n, k)
        found.append(np.einsum("nhwk,nk->nhw", keras.ops.convert_to_numpy(maps), strength))
    return np.stack(found, axis=-1).astype("float32")


def _gradient(function, x) -> np.ndarray:
    """d function(x) / dx on whichever backend Keras runs."""
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


def rectified(heat: np.ndarray, threshold: float = 0.0) -> np.ndarray:
    """ReLU, divided by the maximum, below `threshold` set to 0; in [0, 1], NaN (outside the crop) stays NaN.

    With 0.5 as Asadi et al. 2025 publish their maps (their code).
    """
    heat = np.maximum(heat, 0.0)
    top = np.nanmax(heat, initial=0.0)
    heat = heat / top if top > 0 else heat
    return np.where(heat < threshold, 0.0, heat).astype("float32")


def onto_film(heat: np.ndarray, film_shape: tuple[int, int], place: tuple[int, int] = (0, 0),
              crop: int | None = None, rescaled: int | None = None, outside: float = np.nan) -> np.ndarray:
    """Lay a map onto the original film: undo the network's resizing, the crop and the squeeze to a square.

    Args:
        heat: float (h, w), covering the crop.
        film_shape: (height, width) of the original film in pixels.
        place: (row, column) of the crop's first pixel in the rescaled film.
        crop: side of the crop in pixels of the rescaled film; None: not cropped.
        rescaled: side of the rescaled film in pixels; None: the crop is the whole film.
        outside: value where the crop does not reach, which the network has not seen.

    Returns:
        float32 (height, width), bilinear; pixel centres correspond (as in cv2.resize).
    """
    rescaled = rescaled or crop or heat.shape[0]
    crop = crop or rescaled
    axes = []
    for length, size, start in zip(film_shape, heat.shape, place):
        at = (np.arange(length) + 0.5) * rescaled / length - start  # position in the crop, in its pixels
        axes.append((at * size / crop - 0.5, (at >= 0) & (at <= crop)))
    (rows, seen_rows), (columns, seen_columns) = axes
    grid = np.meshgrid(columns.astype("float32"), rows.astype("float32"))
    film = cv2.remap(np.ascontiguousarray(heat, "float32"), *grid, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.where(seen_rows[:, None] & seen_columns[None, :], film, np.float32(outside))


def overlay(film: np.ndarray, heat: np.ndarray, title: str = "", strength: float = 0.45,
            boxes: Sequence[Sequence[float]] = ()) -> np.ndarray:
    """Draw a map in colour over its film.

    Args:
        film: uint8 (h, w).
        heat: float (h, w), as from `onto_film`; negative evidence is not drawn, NaN leaves the film grey.
        title: written into the upper left corner.
        strength: opacity of the hottest place.
        boxes: (x, y, width, height) in film pixels, drawn in white.

    Returns:
        uint8 (h, w, 3) in OpenCV's order (blue, green, red).
    """
    if film.shape != heat.shape:
        raise ValueError(f"film {film.shape} and map {heat.shape} differ; lay the map onto the film first")
    level = np.nan_to_num(rectified(heat))
    colour = cv2.applyColorMap(np.round(255 * level).astype("uint8"), cv2.COLORMAP_JET).astype("float32")
    opacity = (strength * level)[..., None]
    drawn = np.round((1 - opacity) * film[..., None].astype("float32") + opacity * colour).astype("uint8")
    drawn = np.ascontiguousarray(drawn)
    thick = max(1, round(min(film.shape) / 300))
    for x, y, width, height in boxes:
        corners = (round(x), round(y)), (round(x + width), round(y + height))
        cv2.rectangle(drawn, *corners, (255, 255, 255), thick)
    if title:
        size = min(film.shape) / 500
        cv2.putText(drawn, title, (round(8 * size), round(26 * size)), cv2.FONT_HERSHEY_SIMPLEX, 0.8 * size,
                    (255, 255, 255), thick, cv2.LINE_AA)
    return drawn


def write_png(path: str | os.PathLike, picture: np.ndarray) -> None:
    """Write a picture (uint8, grey or blue-green-red) whole or not at all."""
    done, data = cv2.imencode(".png", picture)
    if not done:
        raise ValueError(f"{path}: a picture of shape {picture.shape}, {picture.dtype} cannot be written as PNG")
    with written_whole(Path(path)) as beside:
        beside.write_bytes(data.tobytes())


@dataclass(frozen=True)
class FilmMaps:
    """The maps of one film as `write_maps` stores them.

    Attributes:
        path: the film's name in its table.
        labels: the findings, in order.
        probabilities: float32 (labels,), as the model reports them.
        heat: float32 (labels, h, w), on the last maps' grid.
        film_shape: height and width of the film in pixels.
        place: row and column of the crop in the rescaled film.
        crop: side of the crop in pixels of the rescaled film.
        rescaled: side of the rescaled film in pixels.
    """

    path: str
    labels: tuple[str, ...]
    probabilities: np.ndarray
    heat: np.ndarray
    film_shape: tuple[int, int]
    place: tuple[int, int]
    crop: int
    rescaled: int

    def on_film(self, label: str) -> np.ndarray:
        """One finding's map on the film's own pixels: float32 (height, width), NaN outside the crop."""
        one_of("label", label, self.labels)
        heat = self.heat[self.labels.index(label)]
        return onto_film(heat, self.film_shape, self.place, self.crop, self.rescaled)


def write_maps(path: str | os.PathLike, maps: FilmMaps) -> None:
    """Write one film's maps as .npz, whole or not at all."""
    with written_whole(Path(path)) as beside:
        np.savez(beside, **vars(maps))


def read_maps(path: str | os.PathLike) -> FilmMaps:
    """Read what `write_maps` wrote; nothing in the file is run.

    Raises:
        InputError: it is missing or something else.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            found = {name: file[name] for name in FilmMaps.__dataclass_fields__}
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{path}: expected maps written by chexpert_hier.heatmaps ({error})") from error
    return FilmMaps(str(found["path"]), tuple(found["labels"].tolist()), found["probabilities"], found["heat"],
                    tuple(found["film_shape"].tolist()), tuple(found["place"].tolist()), int(found["crop"]),
                    int(found["rescaled"]))


def film_maps(member, films: Sequence, greys: Sequence[np.ndarray], labels: Sequence[str],
              method: str | None = None) -> list[FilmMaps]:
    """Map findings on films with a finished run.

    Args:
        member: the run, from predict.open_run.
        films: predict.Film, all of one view.
        greys: their pixels, uint8 (h, w) each.
        labels: which findings.
        method: see `heatmaps`.

    Returns:
        one FilmMaps per film.
    """
    cropper = member.croppers["Lateral" if films[0].lateral and "Lateral" in member.croppers else
                              next(iter(member.croppers))]
    crops = cropper.crop(greys)
    inputs = np.asarray(member.inputs(crops.crops))
    heat = heatmaps(member.model, inputs, labels, method)  # (n, h, w, labels)
    outputs = np.asarray(member.model.predict_on_batch(inputs))
    columns = [member.labels.index(label) for label in labels]
    probabilities = member.final(outputs)[:, columns]
    rescaled = cropper.size if cropper.mode == "none" else cropper.rescaled
    return [FilmMaps(film.name, tuple(labels), probabilities[k], heat[k].transpose(2, 0, 1), grey.shape,
                     tuple(int(at) for at in crops.places[k]), cropper.size, rescaled)
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
            batch = film_maps(member, *zip(*waiting[lateral]), labels, args.method)
            for (_, grey), maps in zip(waiting[lateral], batch):
                _draw(args, maps, grey)
                rows.extend(_summary(maps))
            waiting[lateral].clear()

    for film in films:
        done = _place(args.out, film.name).with_suffix(".npz")
        if done.exists() and read_maps(done).labels == labels:
            rows += _summary(read_maps(done))
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


def _place(out: Path, name: str) -> Path:
    return out / re.sub(r"[^\w.-]+", "_", key(name.lstrip("/")).rsplit(".", 1)[0])


def _draw(args, maps: FilmMaps, grey: np.ndarray) -> None:
    place = _place(args.out, maps.path)
    for label, probability in zip(maps.labels, maps.probabilities):
        picture = overlay(grey, rectified(maps.on_film(label), args.threshold), f"{label} {probability:.2f}")
        write_png(place.with_name(f"{place.name} {label}.png"), picture)
    write_maps(place.with_suffix(".npz"), maps)  # last: its presence says that the film is finished


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
