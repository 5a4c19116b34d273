"""Maps on the film's own pixels: crop and rescale undone, drawn in colour, stored.

So boxes and masks in film pixels can be compared with what a network looked at.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from ..errors import InputError, one_of
from ..files import written_whole

# One look for every map of the package: colour-blind readers can tell it, and the film stays visible. The papers
# print JET.
COLOURS = cv2.COLORMAP_INFERNO
STRENGTH = 0.6


def rectified(heat: np.ndarray, threshold: float = 0.0) -> np.ndarray:
    """ReLU, divided by the maximum, below `threshold` set to 0; in [0, 1], NaN (outside the crop) stays NaN.

    With 0.5 as Asadi et al. 2025 publish their maps (their code).
    """
    heat = np.maximum(heat, 0.0)
    top = np.nanmax(heat, initial=0.0)
    heat = heat / top if top > 0 else heat
    return np.where(heat < threshold, 0.0, heat).astype("float32")


def onto_film(heat: np.ndarray, film_shape: tuple[int, int], place: tuple[int, int] = (0, 0),
              crop: int | None = None, rescaled: int | None = None, outside: float = np.nan,
              cells: tuple[float, float] | None = None) -> np.ndarray:
    """Lay a map onto the original film: undo the network's resizing, the crop and the squeeze to a square.

    Args:
        heat: float (h, w), covering the crop.
        film_shape: (height, width) of the original film in pixels.
        place: (row, column) of the crop's first pixel in the rescaled film.
        crop: side of the crop in pixels of the rescaled film; None: not cropped.
        rescaled: side of the rescaled film in pixels; None: the crop is the whole film.
        outside: value where the crop does not reach, which the network has not seen.
        cells: where the map's cells are centred, (first, step) as shares of the crop's side (model.map_cells); None:
            they tile the crop, as when the map is stretched over it (cv2.resize).

    Returns:
        float32 (height, width), bilinear; beyond the outermost cells' centres their value.
    """
    rescaled = rescaled or crop or heat.shape[0]
    crop = crop or rescaled
    axes = []
    for length, size, start in zip(film_shape, heat.shape, place):
        at = (np.arange(length) + 0.5) * rescaled / length - start  # position in the crop, in its pixels
        first, step = cells or (0.5 / size, 1 / size)
        axes.append(((at / crop - first) / step, (at >= 0) & (at <= crop)))
    (rows, seen_rows), (columns, seen_columns) = axes
    grid = np.meshgrid(columns.astype("float32"), rows.astype("float32"))
    film = cv2.remap(np.ascontiguousarray(heat, "float32"), *grid, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.where(seen_rows[:, None] & seen_columns[None, :], film, np.float32(outside))


def overlay(film: np.ndarray, heat: np.ndarray, title: str = "", strength: float = STRENGTH,
            boxes: Sequence[Sequence[float]] = (), colours: int = COLOURS) -> np.ndarray:
    """Draw a map in colour over its film.

    Args:
        film: uint8 (h, w).
        heat: float (h, w), as from `onto_film`; negative evidence is not drawn, NaN leaves the film grey.
        title: written into the upper left corner.
        strength: opacity of the hottest place.
        boxes: (x, y, width, height) in film pixels, drawn in white.
        colours: one of OpenCV's colour maps.

    Returns:
        uint8 (h, w, 3) in OpenCV's order (blue, green, red).
    """
    if film.shape != heat.shape:
        raise ValueError(f"film {film.shape} and map {heat.shape} differ; lay the map onto the film first")
    level = np.nan_to_num(rectified(heat))
    colour = cv2.applyColorMap(np.round(255 * level).astype("uint8"), colours).astype("float32")
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
        heat: float32 (labels, h, w), on the grid of the layer's maps.
        film_shape: height and width of the film in pixels.
        place: row and column of the crop in the rescaled film.
        crop: side of the crop in pixels of the rescaled film.
        rescaled: side of the rescaled film in pixels.
        cells: where the map's cells are centred, see `onto_film`.
        layer: whose maps these are; "last": the last convolution's.
    """

    path: str
    labels: tuple[str, ...]
    probabilities: np.ndarray
    heat: np.ndarray
    film_shape: tuple[int, int]
    place: tuple[int, int]
    crop: int
    rescaled: int
    cells: tuple[float, float]
    layer: str = "last"

    @property
    def stretched(self) -> bool:
        """Whether the cells tile the crop."""
        return bool(np.allclose(self.cells, (0.5 / self.heat.shape[1], 1 / self.heat.shape[1])))

    def on_film(self, label: str) -> np.ndarray:
        """One finding's map on the film's own pixels: float32 (height, width), NaN outside the crop."""
        one_of("label", label, self.labels)
        heat = self.heat[self.labels.index(label)]
        return onto_film(heat, self.film_shape, self.place, self.crop, self.rescaled, cells=self.cells)


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
            found = {name: file[name] for name in FilmMaps.__dataclass_fields__ if name in file or name != "layer"}
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{path}: expected maps written by chexpert_hier.heatmaps ({error})") from error
    return FilmMaps(str(found["path"]), tuple(found["labels"].tolist()), found["probabilities"], found["heat"],
                    tuple(found["film_shape"].tolist()), tuple(found["place"].tolist()), int(found["crop"]),
                    int(found["rescaled"]), tuple(found["cells"].tolist()),
                    str(found.get("layer", "last")))
