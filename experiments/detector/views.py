"""What the detector of odd films learns from: changed chest films, and everything that is no upright frontal one.

A view is drawn from a source, float32 (SOURCE, SOURCE) on 0 to 1, and a random generator; same generator, same view.
Frontal films come in many tones, framings and states of disease, so that a low contrast, a wide field, a white lung or
a tube is nothing odd. The odd ones are films turned and inverted, laterals, films whose parts are out of place (half a
chest has much of a lateral), drawings of other body parts, patterns, text and photographs.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import cv2
import numpy as np

from chexpert_hier.films.detector import CLASSES, SIDE

SOURCE = 96
Draw = np.random.Generator


class Sources(NamedTuple):
    """Grey pictures to draw from, uint8 each: films (SOURCE, SOURCE), photographs of any size."""

    frontals: Sequence[np.ndarray]
    laterals: Sequence[np.ndarray]
    photographs: Sequence[np.ndarray]


def view(draw: Draw, sources: Sources) -> tuple[np.ndarray, int]:
    """One training view: uint8 (SIDE, SIDE), and the place of its class in CLASSES."""
    makers, shares = zip(*MAKERS)
    image, name = makers[draw.choice(len(makers), p=shares)](draw, sources)
    return _finished(draw, np.ascontiguousarray(image, np.float32)), CLASSES.index(name)


# ---------------------------------------------------------------------------------------------------- frontal films

def frontal(draw: Draw, sources: Sources) -> tuple[np.ndarray, str]:
    """A frontal film, upright."""
    film = tone(draw, _one(draw, sources.frontals))
    if draw.random() < 0.5:
        film = film[:, ::-1].copy()
    if draw.random() < 0.3:
        film = disease(draw, film)
    return marks(draw, framed(draw, film)), "frontal"


def changed(draw: Draw, sources: Sources) -> tuple[np.ndarray, str]:
    """A frontal film inverted, turned, or both."""
    film, _ = frontal(draw, sources)
    kind = draw.choice(["inverted", "turn 90", "turn 180", "turn 270", "other"], p=[0.25, 0.125, 0.25, 0.125, 0.25])
    if kind == "inverted":
        return 1 - film, kind
    if kind == "other":
        return np.rot90(1 - film, draw.integers(1, 4)), kind
    return np.rot90(film, int(kind.split()[1]) // 90), kind  # counter-clockwise: the class says what sets it upright


def tone(draw: Draw, grey: np.ndarray) -> np.ndarray:
    """Another exposure, window and uneven background: float32 on about 0 to 1."""
    low, high = np.percentile(grey[::2, ::2], (1, 99))
    image = np.clip((grey.astype(np.float32) - low) / max(high - low, 1), 0, 1)
    image **= np.float32(np.exp(draw.uniform(-0.8, 0.8)))
    if draw.random() < 0.3:
        image = np.clip((image - draw.uniform(0.3, 0.7)) / draw.uniform(0.6, 1.2) + 0.5, 0, 1)
    if draw.random() < 0.3:
        slope = draw.uniform(-0.35, 0.35, 2)
        ramp = np.linspace(-0.5, 0.5, len(image), dtype=np.float32)
        image = image + slope[0] * ramp[:, None] + slope[1] * ramp
    return image.astype(np.float32)


def disease(draw: Draw, film: np.ndarray) -> np.ndarray:
    """White or, more rarely, black clouds over parts of the film: consolidation, effusion, pneumothorax."""
    side = len(film)
    for _ in range(draw.integers(1, 3)):
        cloud = np.zeros_like(film)
        centre = draw.uniform((0.15, 0.25), (0.85, 0.9)) * side
        axes = draw.uniform((0.05, 0.05), (0.22, 0.3)) * side
        cv2.ellipse(cloud, _pixel(centre), _pixel(axes), draw.uniform(0, 180), 0, 360, 1.0, -1)
        cloud = cv2.GaussianBlur(cloud, (0, 0), draw.uniform(1.5, 6))
        film = film + cloud * (draw.uniform(0.3, 0.95) * (1 - film) if draw.random() < 0.8 else -0.5 * film)
    return film.astype(np.float32)


def framed(draw: Draw, image: np.ndarray, turn: float = 6.0, zoom: tuple[float, float] = (0.72, 1.4),
           shift: float = 0.08, aspect: float = 0.3) -> np.ndarray:
    """Another framing: turned by about `turn` degrees, nearer or farther, off centre, with other proportions."""
    side = len(image)
    angle = np.deg2rad(np.clip(draw.normal(0, turn), -3 * turn, 3 * turn))
    scale, ratio = np.exp(draw.uniform(*np.log(zoom))), np.exp(draw.uniform(-aspect, aspect) / 2)
    linear = scale * np.array([[np.cos(angle) * ratio, -np.sin(angle)], [np.sin(angle), np.cos(angle) / ratio]])
    centre = np.full(2, (side - 1) / 2)
    offset = centre - linear @ centre + draw.uniform(-shift, shift, 2) * side
    border = cv2.BORDER_CONSTANT if draw.random() < 0.5 else cv2.BORDER_REPLICATE
    return cv2.warpAffine(image, np.c_[linear, offset], (side, side), flags=cv2.INTER_LINEAR, borderMode=border,
                          borderValue=float(draw.choice([0, 0, 0.08, 0.5, 1])))


def marks(draw: Draw, image: np.ndarray) -> np.ndarray:
    """Letters, tubes and the black or white edges of a collimator."""
    side = len(image)
    for _ in range(draw.integers(0, 4)):
        _write(image, str(draw.choice(list("LRAPXZ4#"))), draw.uniform(0, side, 2), draw.uniform(0.2, 0.6),
               draw.uniform(0.7, 1.1))
    for _ in range(draw.integers(0, 3) if draw.random() < 0.5 else 0):
        cv2.polylines(image, [draw.integers(0, side, (4, 2)).astype(np.int32)], False, draw.uniform(0.6, 1),
                      int(draw.integers(1, 3)))
    if draw.random() < 0.25:
        level = draw.choice([0, 0, 0, 0.1, 1])
        for edge in draw.integers(0, 4, draw.integers(1, 4)):
            width = max(1, int(draw.uniform(0.02, 0.14) * side))
            np.rot90(image, edge)[:width] = level
    return image


# ---------------------------------------------------------------------------------------------------- odd pictures

def lateral(draw: Draw, sources: Sources) -> tuple[np.ndarray, str]:
    """A lateral film, either way round, now and then inverted or turned."""
    image = marks(draw, framed(draw, tone(draw, _one(draw, sources.laterals)), 8, (0.7, 1.5), 0.12, 0.5))
    return _any_way(draw, image), "other"


def out_of_place(draw: Draw, sources: Sources) -> tuple[np.ndarray, str]:
    """The parts of a frontal film without their plan: one half of the chest, tiles shuffled, a detail, askew."""
    image = tone(draw, _one(draw, sources.frontals))
    change = draw.choice([_half, _half, _half, _shuffled, _detail, _askew, _strip])
    return _any_way(draw, cv2.resize(np.ascontiguousarray(change(draw, image)), (SOURCE, SOURCE))), "other"


def _half(draw: Draw, image: np.ndarray) -> np.ndarray:
    width = int(draw.uniform(0.3, 0.52) * SOURCE)
    half = image[:, :width] if draw.random() < 0.5 else image[:, -width:]
    return np.pad(half, [(0, 0), (10, 10)]) if draw.random() < 0.3 else half


def _strip(draw: Draw, image: np.ndarray) -> np.ndarray:
    height = int(draw.uniform(0.25, 0.4) * SOURCE)
    return image[:height] if draw.random() < 0.5 else image[-height:]


def _detail(draw: Draw, image: np.ndarray) -> np.ndarray:
    side = int(draw.uniform(0.15, 0.38) * SOURCE)
    row, column = draw.integers(0, SOURCE - side, 2)
    return image[row:row + side, column:column + side]


def _askew(draw: Draw, image: np.ndarray) -> np.ndarray:
    angle = draw.uniform(35, 55) + 90 * draw.integers(0, 4)
    matrix = cv2.getRotationMatrix2D((SOURCE / 2, SOURCE / 2), angle, draw.uniform(0.8, 1.2))
    return cv2.warpAffine(image, matrix, (SOURCE, SOURCE))


def _shuffled(draw: Draw, image: np.ndarray) -> np.ndarray:
    count = int(draw.integers(2, 5))
    side = SOURCE // count
    tiles = image[:count * side, :count * side].reshape(count, side, count, side).swapaxes(1, 2).reshape(-1, side, side)
    order = np.roll(draw.permutation(len(tiles)), 1) if count > 2 else np.array([1, 0, 3, 2])
    return tiles[order].reshape(count, count, side, side).swapaxes(1, 2).reshape(count * side, -1)


def drawn(draw: Draw, sources: Sources) -> tuple[np.ndarray, str]:
    """A rough drawing of what else is X-rayed: slices, limbs, skulls, abdomens, laterals, any heap of shapes."""
    image = np.full((SOURCE, SOURCE), draw.uniform(0, 0.2), np.float32)
    SHAPES[draw.integers(len(SHAPES))](draw, image)
    image = cv2.GaussianBlur(image, (0, 0), draw.uniform(0.4, 4))
    if draw.random() < 0.6:
        rough = draw.normal(0, draw.uniform(0.02, 0.15), (16, 16)).astype(np.float32)
        image += cv2.resize(rough, image.shape, interpolation=cv2.INTER_CUBIC)
    return framed(draw, _any_way(draw, image).copy()), "other"


def _slice(draw: Draw, image: np.ndarray) -> None:
    _ellipse(image, (0.5, 0.5), draw.uniform((0.35, 0.25), (0.48, 0.38)), draw.uniform(0.5, 0.8))
    size = draw.uniform((0.1, 0.14), (0.16, 0.24))
    for column in (0.3, 0.7):
        _ellipse(image, (column, 0.48), size, draw.uniform(0, 0.2))
    _ellipse(image, (0.5, 0.72), (0.05, 0.06), 1)


def _limbs(draw: Draw, image: np.ndarray) -> None:
    for _ in range(draw.integers(1, 6)):
        ends, width = draw.uniform(0, SOURCE, (2, 2)), draw.uniform(0.03, 0.2) * SOURCE
        for share, level in ((2.2, draw.uniform(0.2, 0.5)), (1, draw.uniform(0.6, 1))):  # soft tissue, then bone
            cv2.line(image, _pixel(ends[0]), _pixel(ends[1]), level, max(1, int(share * width)))


def _skull(draw: Draw, image: np.ndarray) -> None:
    _ellipse(image, (0.5, 0.45), draw.uniform((0.25, 0.3), 0.45), 1)
    _ellipse(image, (0.5, 0.45), draw.uniform(0.2, (0.3, 0.35)), draw.uniform(0.4, 0.7))
    _ellipse(image, draw.uniform((0.3, 0.5), (0.7, 0.8)), (0.1, 0.06), draw.uniform(0.1, 0.9))


def _abdomen(draw: Draw, image: np.ndarray) -> None:
    image[:] = draw.uniform(0.4, 0.7)
    cv2.line(image, (SOURCE // 2, 0), (SOURCE // 2, SOURCE), 1.0, SOURCE // 10)
    for _ in range(draw.integers(3, 15)):  # gas
        _ellipse(image, draw.uniform(0.1, 0.9, 2), draw.uniform(0.02, 0.12, 2), draw.uniform(0, 0.4),
                 draw.uniform(0, 180))
    for column in (0.25, 0.75) if draw.random() < 0.5 else ():  # pelvis
        _ellipse(image, (column, 0.8), (0.2, 0.15), 1)


def _side_view(draw: Draw, image: np.ndarray) -> None:
    """A lateral chest: one dark field, the spine on one side, heart, diaphragm, shoulders."""
    side = draw.choice([-1, 1])
    _ellipse(image, (0.5, 0.55), draw.uniform((0.3, 0.45), (0.5, 0.65)), draw.uniform(0.55, 0.85))
    _ellipse(image, (0.5 + side * draw.uniform(-0.05, 0.08), draw.uniform(0.4, 0.5)),
             draw.uniform((0.17, 0.3), (0.3, 0.42)), draw.uniform(0.15, 0.5), side * draw.uniform(-25, 25))
    if draw.random() < 0.8:
        ends = (0.5 + side * draw.uniform(0.2, (0.3, 0.35))) * SOURCE
        cv2.line(image, (int(ends[0]), 0), (int(ends[1]), SOURCE), draw.uniform(0.5, 0.9), int(draw.uniform(6, 15)))
    if draw.random() < 0.8:
        _ellipse(image, (0.5 - side * draw.uniform(0.05, 0.2), draw.uniform(0.55, 0.75)), draw.uniform(0.1, 0.2, 2),
                 draw.uniform(0.5, 0.8), draw.uniform(-30, 30))
    if draw.random() < 0.9:
        _ellipse(image, (0.5, draw.uniform(0.85, 1)), (0.5, draw.uniform(0.12, 0.25)), draw.uniform(0.6, 0.95),
                 draw.uniform(-15, 15))
    if draw.random() < 0.6:
        _ellipse(image, (0.5, 0), (0.5, draw.uniform(0.05, 0.25)), draw.uniform(0.6, 0.9), side * draw.uniform(-30, 30))


def _heap(draw: Draw, image: np.ndarray) -> None:
    image[:] = draw.random()
    for _ in range(draw.integers(2, 12)):
        if draw.random() < 0.5:
            _ellipse(image, draw.random(2), draw.uniform(0.03, 0.4, 2), draw.random(), draw.uniform(0, 180))
        else:
            corners = draw.uniform(0, SOURCE, (2, 2))
            cv2.rectangle(image, _pixel(corners[0]), _pixel(corners[1]), draw.random(), -1)


SHAPES = (_slice, _limbs, _skull, _abdomen, _side_view, _side_view, _heap)


def pattern(draw: Draw, sources: Sources | None = None) -> tuple[np.ndarray, str]:
    """Noise, waves, boards, text, rings and ramps, alone or one upon another."""
    image = PATTERNS[draw.integers(len(PATTERNS))](draw).astype(np.float32)
    if draw.random() < 0.3:
        image = image + np.float32(draw.random()) * pattern(draw)[0]
    return image, "other"


def _noise(draw: Draw) -> np.ndarray:
    soft = cv2.GaussianBlur(draw.normal(0, 1, (SOURCE, SOURCE)), (0, 0), np.exp(draw.uniform(-1, 3.5)))
    return _stretched(soft)


def _waves(draw: Draw) -> np.ndarray:
    rows, columns = np.mgrid[0:1:SOURCE * 1j, 0:1:SOURCE * 1j]
    angle = draw.uniform(0, 2 * np.pi)
    along = np.cos(angle) * columns + np.sin(angle) * rows
    return 0.5 + 0.5 * np.sin(2 * np.pi * np.exp(draw.uniform(-1.5, 3)) * along + draw.uniform(0, 6))


def _board(draw: Draw) -> np.ndarray:
    count = draw.integers(2, 17)
    cells = draw.random((count, count)) if draw.random() < 0.5 else np.indices((count, count)).sum(0) % 2
    how = cv2.INTER_NEAREST if draw.random() < 0.7 else cv2.INTER_CUBIC
    return cv2.resize(cells.astype(np.float32), (SOURCE, SOURCE), interpolation=how)


def _text(draw: Draw) -> np.ndarray:
    paper = float(draw.choice([0, 1, draw.random()]))
    image = np.full((SOURCE, SOURCE), paper, np.float32)
    letters = list("abcdefgh iklmnoprstu ABC 0123")
    for _ in range(draw.integers(1, 20)):
        words = "".join(draw.choice(letters, draw.integers(3, 25)))
        _write(image, words, draw.uniform(0, (0.3, 1)) * SOURCE, draw.uniform(0.2, 1.6), 1 - paper)
    return image


def _rings(draw: Draw) -> np.ndarray:
    rows, columns = np.mgrid[0:1:SOURCE * 1j, 0:1:SOURCE * 1j]
    distance = np.hypot(columns - draw.random(), rows - draw.random())
    return _stretched(distance) if draw.random() < 0.5 else 0.5 + 0.5 * np.cos(distance * draw.uniform(3, 60))


def _ramp(draw: Draw) -> np.ndarray:
    rows, columns = np.mgrid[0:1:SOURCE * 1j, 0:1:SOURCE * 1j]
    slope = draw.uniform(-1, 1, 2)
    return _stretched(slope[0] * rows + slope[1] * columns)


PATTERNS: tuple[Callable[[Draw], np.ndarray], ...] = (_noise, _waves, _board, _text, _rings, _ramp)


def photograph(draw: Draw, sources: Sources) -> tuple[np.ndarray, str]:
    """A part of a photograph, any way up."""
    picture = _one(draw, sources.photographs)
    side = int(draw.uniform(0.3, 1) * min(picture.shape))
    row, column = (draw.integers(0, length - side + 1) for length in picture.shape)
    part = cv2.resize(picture[row:row + side, column:column + side], (SOURCE, SOURCE), interpolation=cv2.INTER_AREA)
    return tone(draw, np.rot90(part, draw.integers(0, 4))), "other"


# What is drawn, and how often.
MAKERS = ((frontal, 0.38), (changed, 0.24), (lateral, 0.12), (out_of_place, 0.11), (drawn, 0.06), (pattern, 0.04),
          (photograph, 0.05))


# ---------------------------------------------------------------------------------------------------- parts

def _finished(draw: Draw, image: np.ndarray) -> np.ndarray:
    """Blur, noise and a lower contrast, as bytes."""
    if draw.random() < 0.5:
        image = cv2.GaussianBlur(image, (0, 0), draw.uniform(0.3, 1.2))
    image = cv2.resize(image, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    if draw.random() < 0.5:
        image = image + draw.normal(0, draw.uniform(0.005, 0.05), image.shape)
    contrast = draw.uniform(0.25, 1)
    grey = 255 * (np.clip(image, -0.05, 1.05) * contrast + draw.uniform(0, 1 - contrast))
    return np.clip(grey, 0, 255).astype(np.uint8)


def _any_way(draw: Draw, image: np.ndarray) -> np.ndarray:
    image = image[:, ::-1] if draw.random() < 0.5 else image
    image = 1 - image if draw.random() < 0.15 else image
    return np.rot90(image, draw.integers(1, 4)) if draw.random() < 0.15 else image


def _one(draw: Draw, pictures: Sequence[np.ndarray]) -> np.ndarray:
    return pictures[draw.integers(len(pictures))]


def _stretched(image: np.ndarray) -> np.ndarray:
    return (image - image.min()) / max(float(np.ptp(image)), 1e-6)


def _pixel(point) -> tuple[int, int]:
    return int(point[0]), int(point[1])


def _ellipse(image: np.ndarray, centre, axes, level: float, angle: float = 0.0) -> None:
    """An ellipse in parts of the side."""
    axes = np.maximum(np.asarray(axes) * SOURCE, 1)
    cv2.ellipse(image, _pixel(np.asarray(centre) * SOURCE), _pixel(axes), angle, 0, 360, float(level), -1)


def _write(image: np.ndarray, words: str, at, size: float, level: float) -> None:
    letters = np.zeros(image.shape, np.uint8)
    cv2.putText(letters, words, _pixel(at), cv2.FONT_HERSHEY_SIMPLEX, size, 255, 1)
    image += letters / np.float32(255) * (np.float32(level) - image)
