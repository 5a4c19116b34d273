"""The film a phantom is drawn on: coordinates, strokes, fields, exposure, burned-in marks, JPEG bytes.

A film is composed as radiographic density (0 air, about 1 soft tissue, more for bone) in patient coordinates: x from
the patient's midline to the right of the film, y downwards, both in units of half the short side of an unshifted
film. Soft shapes are drawn at half resolution and enlarged, sharp ones at full resolution. Knows no anatomy.
"""

import cv2
import numpy as np

from .reports import FINDINGS

SHORT_SIDE = 320  # px, as in CheXpert-v1.0-small
UNIT = SHORT_SIDE / 2  # px per patient unit on a film of scale 1


def draw_size(rng: np.random.Generator, lateral: bool) -> tuple[int, int]:
    """Height and width in px: shorter side 320, most frontal films 320 × 390 (as in CheXpert-v1.0-small)."""
    longer = 390 if rng.random() < (0.3 if lateral else 0.6) else int(rng.integers(SHORT_SIDE, 421))
    portrait = rng.random() < (0.85 if lateral else 0.12)
    return (longer, SHORT_SIDE) if portrait else (SHORT_SIDE, longer)


class Film:
    """One film in the making.

    Attributes:
        height, width: px.
        rng: the film's own generator, for pose, anatomy and exposure.
        noise: another one for the textures of findings, so that the same film can be drawn with and without them.
        x, y: float32 (height/2, width/2), patient coordinates of the half-resolution pixels.
        soft: float32 (height/2, width/2), density so far of soft shapes.
        sharp: float32 (height, width), density so far of fine structures.
        marks: uint16 (height/2, width/2), bit k set where finding k of FINDINGS is drawn.
    """

    def __init__(self, rng: np.random.Generator, size: tuple[int, int], scale: float, degrees: float,
                 shift: tuple[float, float], mirrored: bool = False):
        self.rng = rng
        self.noise = np.random.default_rng(rng.integers(2**63))
        self.height, self.width = size
        self.scale = UNIT * scale
        turn = np.deg2rad(degrees)
        self.matrix = self.scale * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
        if mirrored:
            self.matrix[:, 0] *= -1
        self.centre = np.array([self.width / 2, self.height / 2]) + UNIT * np.array(shift)
        self.half = ((self.height + 1) // 2, (self.width + 1) // 2)
        rows = np.arange(self.half[0], dtype=np.float32)[:, None] * 2 + 0.5 - np.float32(self.centre[1])
        columns = np.arange(self.half[1], dtype=np.float32)[None] * 2 + 0.5 - np.float32(self.centre[0])
        back = np.linalg.inv(self.matrix).astype(np.float32)
        self.x = back[0, 0] * columns + back[0, 1] * rows
        self.y = back[1, 0] * columns + back[1, 1] * rows
        self.soft = np.zeros(self.half, np.float32)
        self.sharp = np.zeros(size, np.float32)
        self.marks = np.zeros(self.half, np.uint16)

    def pixels(self, points: np.ndarray, half: bool = False) -> np.ndarray:
        """Patient coordinates (n, 2) to OpenCV's fixed-point pixels (n, 1, 2) int32 with 4 fractional bits."""
        place = points @ self.matrix.T + self.centre
        if half:
            place = (place + 0.5) / 2 - 0.5
        return np.rint(np.clip(place, -2000, 2000) * 16).astype(np.int32)[:, None]

    def canvas(self, half: bool = False) -> np.ndarray:
        """An empty uint8 canvas to draw on."""
        return np.zeros(self.half if half else (self.height, self.width), np.uint8)

    def stroke(self, canvas: np.ndarray, points: np.ndarray, width: float, value: float = 255) -> None:
        """Draw polylines, `width` in patient units, on a canvas of either resolution.

        Args:
            canvas: uint8, changed in place.
            points: patient coordinates, (n, 2) for one line or (lines, n, 2) for many at once.
            width: patient units; never under one pixel.
            value: grey level 0-255.
        """
        half = canvas.shape[0] != self.height
        thickness = max(1, round(width * self.scale * (0.5 if half else 1)))
        points = points[None] if points.ndim == 2 else points
        places = self.pixels(points.reshape(-1, 2), half).reshape(*points.shape[:2], 1, 2)
        cv2.polylines(canvas, list(places), False, float(value), thickness, cv2.LINE_AA, 4)

    def area(self, points: np.ndarray, blur: float = 0.0) -> np.ndarray:
        """The inside of a closed outline (n, 2) as float32 (half resolution) in 0-1, blurred by `blur` units."""
        canvas = self.canvas(half=True)
        cv2.fillPoly(canvas, [self.pixels(points, half=True)], 255, cv2.LINE_AA, 4)
        inside = canvas.astype(np.float32) * np.float32(1 / 255)
        return self.blurred(inside, blur) if blur else inside

    def blurred(self, field: np.ndarray, width: float) -> np.ndarray:
        """Gaussian blur of a half-resolution field, sigma in patient units; wide blurs are done on a small copy."""
        sigma = width * self.scale / 2
        if sigma < 3:
            return cv2.GaussianBlur(field, (0, 0), sigma)
        step = int(max(2, sigma // 2))
        small = cv2.resize(field, (max(4, self.half[1] // step), max(4, self.half[0] // step)),
                           interpolation=cv2.INTER_AREA)
        return cv2.resize(cv2.GaussianBlur(small, (0, 0), sigma / step), self.half[::-1])

    def texture(self, grain: float, rng: np.random.Generator | None = None) -> np.ndarray:
        """Smooth random field, float32 (half resolution), mean 0, sd about 1, features of about `grain` units.

        Drawn from `rng`, or from `noise` when None.
        """
        step = max(grain * self.scale / 2, 1.5)
        cells = (max(3, round(self.half[0] / step)), max(3, round(self.half[1] / step)))
        noise = (rng or self.noise).standard_normal(cells, dtype=np.float32)
        return cv2.resize(noise, self.half[::-1], interpolation=cv2.INTER_CUBIC)

    def cloud(self, grain: float) -> np.ndarray:
        """Random field as `texture` from `noise`, but of three sizes of feature at once, as tissue has them."""
        return 0.75 * self.texture(2 * grain) + 0.55 * self.texture(grain) + 0.3 * self.texture(grain / 2)

    def blob(self, centre: tuple[float, float], radius: float, aspect: float = 1.0, degrees: float = 0.0) -> np.ndarray:
        """Elliptic distance from `centre`, float32 (half resolution): 0 in the middle, 1 on the ellipse."""
        turn = np.deg2rad(degrees)
        axes = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]]) / radius
        axes[1] /= aspect
        along, across = (cv2.addWeighted(self.x, a, self.y, b, -c) for (a, b), c in zip(axes, axes @ centre))
        return cv2.magnitude(along, across)

    def mark(self, name: str, where: np.ndarray) -> None:
        """Note that a finding lies at `where` (bool, half resolution)."""
        self.marks |= where.astype(np.uint16) << FINDINGS.index(name)

    def mark_opacity(self) -> None:
        """Lung Opacity also lies where any finding below it in the tree does."""
        for name in ("Lung Lesion", "Edema", "Consolidation", "Pneumonia", "Atelectasis"):
            self.mark("Lung Opacity", self.marks >> FINDINGS.index(name) & 1)

    def full(self, field: np.ndarray) -> np.ndarray:
        """A half-resolution field enlarged to the film's size."""
        return cv2.resize(field, (self.width, self.height), interpolation=cv2.INTER_LINEAR)

    def exposed(self, body: np.ndarray) -> np.ndarray:
        """The developed film, uint8 (height, width).

        CheXpert's films were histogram-equalised (mean .50, sd .29, measured); here each is equalised to its own
        random degree and tone, so that grey values alone tell nothing about findings.

        Args:
            body: bool (half resolution), where the patient is; only there the histogram is taken.
        """
        rng = self.rng
        density = cv2.add(self.full(self.soft), self.sharp)
        grain = rng.integers(0, 256, density.shape, np.uint8)  # uniform; the blur makes it bell-shaped
        density = cv2.scaleAdd(grain.astype(np.float32), rng.uniform(0.02, 0.10) / 255, density)
        density = cv2.GaussianBlur(density, (5, 5), rng.uniform(0.5, 0.9))
        levels = cv2.min(cv2.max(cv2.multiply(density, 512), 0), 1023).astype(np.int64)  # what `take` wants
        table = self._tone(np.bincount(levels[::2, ::2][body[: (self.height + 1) // 2]], minlength=1024))
        return table.take(levels)

    def _tone(self, counts: np.ndarray) -> np.ndarray:
        """Lookup table uint8 (1024,) from density level to grey value."""
        rng = self.rng
        share = np.cumsum(counts) / max(counts.sum(), 1)
        bell = 0.5 - np.sin(np.arcsin(np.clip(1 - 2 * share, -1, 1)) / 3)  # the inverse of smoothstep
        equalised = share + rng.uniform(0.0, 0.7) * (bell - share)
        low, high = np.searchsorted(share, [0.002, 0.998])
        linear = np.clip((np.arange(1024) - low) / max(high - low, 1), 0, 1)
        degree = rng.uniform(0.6, 1.0)
        tone = (degree * equalised + (1 - degree) * linear) ** np.exp(rng.normal(0, 0.22))
        black, white = rng.uniform(0, 20), rng.uniform(225, 255)
        return np.clip(black + (white - black) * tone, 0, 255).astype(np.uint8)


def finish(grey: np.ndarray, rng: np.random.Generator, projection: str) -> np.ndarray:
    """Collimation borders, side letter and projection text, drawn into the uint8 film."""
    height, width = grey.shape
    if rng.random() < 0.3:
        _collimate(grey, rng)
    if rng.random() < 0.85:
        left = rng.random() < 0.5
        text = ("R" if left else "L") if projection else "L"
        place = (int(width * (rng.uniform(0.03, 0.10) if left else rng.uniform(0.85, 0.92))),
                 int(height * rng.uniform(0.06, 0.2)))
        size = rng.uniform(0.35, 0.8)
        cv2.putText(grey, text, place, cv2.FONT_HERSHEY_SIMPLEX, size, int(rng.integers(190, 256)),
                    int(rng.integers(1, 3)), cv2.LINE_AA)
    if projection and rng.random() < 0.35:
        words = ("AP", "PORTABLE", "SUPINE", "AP ERECT") if projection == "AP" else ("PA", "ERECT", "PA")
        place = (int(width * rng.uniform(0.03, 0.75)), int(height * (0.05 if rng.random() < 0.5 else 0.97)))
        cv2.putText(grey, words[rng.integers(len(words))], place, cv2.FONT_HERSHEY_SIMPLEX, rng.uniform(0.3, 0.5),
                    int(rng.integers(180, 256)), 1, cv2.LINE_AA)
    return grey


def _collimate(grey: np.ndarray, rng: np.random.Generator) -> None:
    """Cover the margins outside a slightly turned rectangle, black or nearly white."""
    height, width = grey.shape
    margins = rng.uniform(0, 0.06, 4) * (rng.random(4) < 0.6)
    corners = np.array([[margins[0], margins[1]], [1 - margins[2], margins[1]], [1 - margins[2], 1 - margins[3]],
                        [margins[0], 1 - margins[3]]]) * (width, height)
    turn = np.deg2rad(rng.normal(0, 1.0))
    middle = np.array([width, height]) / 2
    corners = (corners - middle) @ np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]]) + middle
    field = np.zeros_like(grey)
    cv2.fillPoly(field, [np.rint(corners).astype(np.int32)], 255)
    grey[field == 0] = int(rng.integers(0, 14)) if rng.random() < 0.85 else int(rng.integers(235, 256))


def jpeg(grey: np.ndarray, rng: np.random.Generator) -> bytes:
    """JPEG bytes at a random quality, so that the file's size tells nothing; a comment says that it is drawn."""
    data = cv2.imencode(".jpg", grey, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(68, 96))])[1].tobytes()
    return data[:2] + _COMMENT + data[2:]


def is_drawn(data: bytes) -> bool:
    """Whether a film's file says that this program drew it."""
    return data[2:2 + len(_COMMENT)] == _COMMENT


_TEXT = b"drawn by chexpert_hier.phantom; no real patient"
_COMMENT = b"\xff\xfe" + (len(_TEXT) + 2).to_bytes(2, "big") + _TEXT  # a JPEG comment, first of all segments


def curve(points: np.ndarray, closed: bool = False, per_point: int = 6) -> np.ndarray:
    """A smooth (Catmull-Rom) curve through points (n, 2), `per_point` places for each."""
    points = np.asarray(points, dtype=float)
    if closed:
        points, last = np.vstack([points[-1:], points, points[:2]]), points[:0]
    else:
        points, last = np.vstack([2 * points[0] - points[1], points, 2 * points[-1] - points[-2]]), points[-1:]
    t = np.arange(per_point) / per_point
    weights = 0.5 * np.stack([2 * t**2 - t - t**3, 2 - 5 * t**2 + 3 * t**3, t + 4 * t**2 - 3 * t**3, t**3 - t**2], 1)
    around = np.stack([points[:-3], points[1:-2], points[2:-1], points[3:]], axis=1)  # two on either side
    return np.vstack([(weights @ around).reshape(-1, 2), last])
