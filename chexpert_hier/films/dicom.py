"""Read a DICOM radiograph as 8-bit grey: pixels and the few technical tags that say what they mean, nothing else.

De-identified by construction: only the tags of `TAGS` are taken from a file, none of which names or describes a
patient; no other tag reaches an output, a log or an error line. (Text burned into the picture is pixels and stays. The
one command that must know whose film it is, dicom_node, reads that by itself: dicom_node/source.py.)
Needs pydicom: pip install "chexpert_hier[dicom]".
"""

import io
import logging
import zlib
from typing import Any, NamedTuple

import numpy as np

from ..errors import install
from .grey import MIN_SIDE, MOST_BYTES, DamagedError, FilmError, check_size, luminance
from .headers import read_header
from .jpeg import decode_jpeg

log = logging.getLogger("chexpert_hier.films")

TAGS = ("Modality", "BodyPartExamined", "ViewPosition", "ViewCodeSequence", "PhotometricInterpretation",
        "SamplesPerPixel", "PlanarConfiguration", "NumberOfFrames", "Rows", "Columns", "BitsAllocated", "BitsStored",
        "HighBit", "PixelRepresentation", "PixelPaddingValue", "PixelPaddingRangeLimit", "ModalityLUTSequence",
        "RescaleSlope", "RescaleIntercept", "VOILUTSequence", "WindowCenter", "WindowWidth", "VOILUTFunction",
        "PresentationLUTShape",
        "RedPaletteColorLookupTableDescriptor", "GreenPaletteColorLookupTableDescriptor",
        "BluePaletteColorLookupTableDescriptor", "RedPaletteColorLookupTableData",
        "GreenPaletteColorLookupTableData", "BluePaletteColorLookupTableData", "PixelData")
MODALITIES = ("CR", "DX", "DR", "RG")  # DR is no defined term, but common; RG is any radiographic imaging
CHESTS = ("CHEST", "THORAX", "TORAX", "LUNG")
# Codes of a part of the chest, or of more than it: answered, with a word about it.
REGIONS = ("RIB", "STERNUM", "CLAVICLE", "THORACIC", "TSPINE", "T SPINE", "HEART", "MEDIASTINUM", "TRUNK", "WHOLEBODY",
           "WHOLE BODY", "BABYGRAM")
BEYOND = ("ABD", "PELV", "SPINE", "NECK")  # with the chest in one code, e.g. CHESTABDPELVIS
LATERALS = ("LL", "RL", "LATERAL", "LAT", "XTL")
# Of pixels whose values nothing explains (more than 8 bits, no window), this share at both ends is cut off.
UNEXPLAINED_TAIL = 0.001
# What a data set may grow to when it is unpacked: the largest film's pixels and as much beside them.
MOST_INFLATED = 2 * MOST_BYTES
# 8-bit JPEG with a lossy code: Baseline and Extended.
JPEGS = ("1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51")
DEFLATED = "1.2.840.10008.1.2.1.99"  # the transfer syntax Deflated Explicit VR Little Endian


def is_dicom(data: bytes) -> bool:
    """Whether these are a DICOM file's bytes; files without the 128 bytes of preamble are known by their first tag."""
    return data[128:132] == b"DICM" or (data[:2] in (b"\x02\0", b"\x08\0") and data[3:4] == b"\0" and len(data) > 132)


def read(data: bytes, min_side: int = MIN_SIDE, whole: bool = True) -> np.ndarray:
    """Read a chest radiograph as it is meant to be looked at, bone bright.

    Stored bits, modality LUT or rescale slope, VOI LUT or window (LINEAR, LINEAR_EXACT, SIGMOID), inversion, in this
    order. PresentationLUTShape says whether to invert; without it MONOCHROME1 does. Without a window 8-bit films stay
    as they are, others are scaled by the values present without padding. Of several windows the first one counts.
    Colour becomes Rec. 601 luminance.

    Args:
        data: the file's bytes.
        min_side: the least height and width in pixels.
        whole: whether its compressed pixels have to be.

    Returns:
        uint8 (h, w).

    Raises:
        FilmError: pydicom or a decoder is missing, it is no CR or DX of a chest, has no pixels or several frames, or
            its tags are damaged (the reason without the file's name).
        DamagedError: its pixels are damaged.

    Source: DICOM PS3.3 C.7.6.3, C.8.11.3, C.11.1, C.11.2; PS3.4 N.2 (order of the transformations).
    """
    try:
        return _read(data, min_side, whole)
    except FilmError:
        raise
    except Exception:  # as many kinds as there are ways to damage a tag; the library's text could quote one
        raise FilmError("damaged: one of its tags or its pixels cannot be read; copy the file again") from None


def _read(data: bytes, min_side: int, whole: bool) -> np.ndarray:
    head = _open(data)
    _check_kind(head)
    _check_pixels(head, min_side)
    stored = _stored(head, whole)
    if head.get("SamplesPerPixel", 1) == 3 or head.get("PhotometricInterpretation") == "PALETTE COLOR":
        return _colour(stored, head)
    low, high = int(stored.min()), int(stored.max())
    if low == high:
        raise FilmError("no picture content: every pixel has the same value")
    if high - low >= 1 << 17:
        return _displayed(stored, stored, head)
    levels = np.arange(low, high + 1)  # what happens to a pixel depends on its value only: look it up
    return _displayed(levels, stored, head)[stored - low]


class Said(NamedTuple):
    """What a header says of the film: view "Lateral", "Frontal" or "" (not said); region, a code such as RIBCAGE where
    it is not simply the chest, else ""."""

    view: str
    region: str


def said(data: bytes) -> Said:
    """What the header says of the film's view and region.

    Raises:
        FilmError: pydicom is missing, or the file is damaged.
    """
    try:
        head = _open(data, pixels=False)
        return Said(_view(head), _region(head))
    except FilmError:
        raise
    except Exception:
        raise FilmError("damaged: its view cannot be read; copy the file again") from None


def view(data: bytes) -> str:
    """"Lateral", "Frontal", or "" where the file does not say; errors as `said`."""
    return said(data).view


def _view(head: Any) -> str:
    position = str(head.get("ViewPosition") or "").strip().upper()
    codes = head.get("ViewCodeSequence") or []
    meaning = str(codes[0].get("CodeMeaning") or "").lower() if len(codes) else ""
    if position in LATERALS or ("lateral" in meaning and "decubitus" not in meaning):
        return "Lateral"
    return "Frontal" if position in ("PA", "AP") or "anterior" in meaning else ""


def _open(data: bytes, pixels: bool = True) -> Any:
    """The data set with the tags of `TAGS` and no others."""
    try:
        import pydicom
    except ImportError:
        raise FilmError(f"a DICOM file, which needs pydicom; {install('dicom')}") from None
    pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE  # else its warnings quote the values
    logging.getLogger("pydicom").setLevel(logging.CRITICAL)  # it logs tracebacks of what we say in one line
    tags = TAGS if pixels else TAGS[:4]
    try:
        _check_deflated(data)
        return pydicom.dcmread(io.BytesIO(data), force=True, specific_tags=list(tags), stop_before_pixels=not pixels)
    except FilmError:
        raise
    except Exception:  # whatever a damaged file brings about; the library's text could quote a tag
        raise FilmError("damaged: it cannot be read as DICOM; copy the file again") from None


def _check_deflated(data: bytes) -> None:
    """Refuse a compressed data set that would take up far more memory than any film: pydicom inflates all of it."""
    from pydicom.filereader import read_dataset, read_preamble

    file = io.BytesIO(data)
    read_preamble(file, force=True)
    meta = read_dataset(file, False, True, stop_when=lambda tag, *_: tag.group != 2)
    if meta.get("TransferSyntaxUID") != DEFLATED:
        return
    inflate, size, rest = zlib.decompressobj(-zlib.MAX_WBITS), 0, data[file.tell():]
    while rest and not inflate.eof and size <= MOST_INFLATED:
        size += len(inflate.decompress(rest, 2 ** 20))
        rest = inflate.unconsumed_tail
    if size > MOST_INFLATED:
        raise FilmError(f"too large: its data set takes more than {MOST_INFLATED >> 20} MiB when unpacked")


def _check_kind(head: Any) -> None:
    modality = str(head.get("Modality") or "").strip().upper()
    if modality and modality not in MODALITIES:
        raise FilmError(f"modality is {_shown(modality)}, not CR or DX")
    part = _part(head)
    if part and not any(name in part for name in (*CHESTS, *REGIONS)):
        raise FilmError(f"body part is {_shown(part)}, not CHEST")


def _part(head: Any) -> str:
    return str(head.get("BodyPartExamined") or "").strip().upper()


def _region(head: Any) -> str:
    """The body part where it is more, less or other than the chest; "" where it is the chest or nothing is said."""
    part = _part(head)
    chest = any(name in part for name in CHESTS)
    other = any(name in part for name in (REGIONS if not chest else BEYOND))
    return _shown(part) if other else ""


def _shown(code: str) -> str:
    """A code as an error line may quote it: defined terms are short and in capitals, anything else is kept out."""
    return code if len(code) <= 16 and code.replace(" ", "").replace("_", "").isalpha() else "something else"


def _check_pixels(head: Any, min_side: int) -> None:
    if "PixelData" not in head or not head.get("Rows") or not head.get("Columns"):
        raise FilmError("no pixel data in this DICOM file")
    frames = int(head.get("NumberOfFrames") or 1)
    if frames != 1:
        raise FilmError(f"has {frames} frames; expected one film")
    # Its values are worked on as 64-bit integers.
    check_size(int(head.Rows), int(head.Columns), min_side, 8 * int(head.get("SamplesPerPixel") or 1))


def _stored(head: Any, whole: bool = True) -> np.ndarray:
    """The stored values, int32 (h, w) or uint8/uint16 (h, w, 3); bits above BitsStored (overlays) are dropped."""
    from pydicom.pixels import get_decoder, pixel_array

    syntax = getattr(head.file_meta, "TransferSyntaxUID", None)
    if syntax is None:
        from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

        syntax = ImplicitVRLittleEndian if head.original_encoding[0] else ExplicitVRLittleEndian
        head.file_meta.TransferSyntaxUID = syntax
    try:
        available = not syntax.is_encapsulated or get_decoder(syntax).is_available
    except (NotImplementedError, ValueError):
        raise FilmError(f"transfer syntax {syntax.name} is not supported; save the film uncompressed") from None
    if not available:
        raise FilmError(f"no decoder for the transfer syntax {syntax.name} is installed; {install('dicom')}")
    if whole and syntax in JPEGS:
        _check_jpeg(head)
    try:
        # One decoder only: where the first refuses, pydicom would ask the next, which may be less strict.
        first = get_decoder(syntax).available_plugins[0] if whole and syntax.is_encapsulated else ""
        pixels = pixel_array(head, decoding_plugin=first)
    except Exception:  # as many kinds as there are decoders
        found = None if whole or syntax not in JPEGS else _broken_jpeg(head)
        if found is None:
            raise DamagedError(f"damaged or cut off: its pixels ({syntax.name}) cannot be decoded; copy the file "
                               "again") from None
        pixels = found
    if pixels.shape[:2] != (head.Rows, head.Columns):
        raise FilmError(f"damaged: has {pixels.shape[1]}x{pixels.shape[0]} pixels, its header says "
                        f"{head.Columns}x{head.Rows}")
    return pixels if pixels.ndim == 3 else _unpacked(pixels, head)


def _check_jpeg(head: Any) -> None:
    """Refuse a JPEG whose data is broken: the decoders behind pydicom do not say so."""
    from pydicom.encaps import get_frame

    data = get_frame(head.PixelData, 0, number_of_frames=1)
    header = read_header(data.rstrip(b"\0"))
    if header.bits == 8:  # 12 bits need another decoder
        decode_jpeg(data, header, whole=True)


def _broken_jpeg(head: Any) -> np.ndarray | None:
    """What can be had of a grey 8-bit JPEG that pydicom's decoder refuses, uint8 (h, w); None of another kind."""
    from pydicom.encaps import get_frame

    data = get_frame(head.PixelData, 0, number_of_frames=1).rstrip(b"\0")
    try:
        header = read_header(data)
        return decode_jpeg(data, header, whole=False) if (header.bits, header.channels) == (8, 1) else None
    except FilmError:
        return None


def _unpacked(pixels: np.ndarray, head: Any) -> np.ndarray:
    allocated = int(head.get("BitsAllocated") or 16)
    bits = min(int(head.get("BitsStored") or allocated), allocated)
    if pixels.dtype.kind == "f" or bits >= 32:
        return pixels.astype(np.float64) if pixels.dtype.kind == "f" else pixels.astype(np.int64)
    high = int(head.get("HighBit") or bits - 1)
    values = pixels.astype(np.int64) >> max(high - bits + 1, 0)
    values &= (1 << bits) - 1
    if head.get("PixelRepresentation") == 1:
        values -= (values >> (bits - 1)) << bits  # the sign bit
    return values.astype(np.int32)


def _displayed(values: np.ndarray, stored: np.ndarray, head: Any) -> np.ndarray:
    """Stored values -> uint8 grey of the same shape, as a viewer shows them; `stored` are all the film's values."""
    from pydicom.pixels import apply_modality_lut

    meant = np.asarray(apply_modality_lut(values, head), np.float64)
    shown = _looked_up(meant, head)
    if shown is None:
        shown = _windowed(meant, head)
    if shown is None or shown.min() == shown.max():  # no window, or one that misses the picture
        shown = _by_values(values, meant, stored, head)
    if _inverted(head):
        shown = 1 - shown
    return np.floor(255 * np.clip(shown, 0, 1) + 0.5).astype(np.uint8)


def _inverted(head: Any) -> bool:
    """Whether the smallest value is white. The shape, which is meant for what has been windowed, goes before the
    photometric interpretation where both are there and differ (PS3.3 C.8.11.3.1.2: they should not)."""
    shape = str(head.get("PresentationLUTShape") or "").strip().upper()
    return shape == "INVERSE" if shape in ("INVERSE", "IDENTITY") else \
        head.get("PhotometricInterpretation") == "MONOCHROME1"


def _looked_up(meant: np.ndarray, head: Any) -> np.ndarray | None:
    """The VOI LUT on [0, 1], None without one."""
    from pydicom.pixels import apply_voi

    tables = head.get("VOILUTSequence") or []
    if not len(tables):
        return None
    try:
        bits = int(tables[0].LUTDescriptor[2])
        return np.asarray(apply_voi(np.rint(meant).astype(np.int64), head), np.float64) / ((1 << bits) - 1)
    except Exception:
        log.warning("a DICOM's VOI LUT cannot be used; its window or its values are taken instead")
        return None


def _windowed(meant: np.ndarray, head: Any) -> np.ndarray | None:
    """The first window on [0, 1] (PS3.3 C.11.2.1.2 and C.11.2.1.3), None without one that makes sense."""
    centre, width = _first(head.get("WindowCenter")), _first(head.get("WindowWidth"))
    function = str(head.get("VOILUTFunction") or "LINEAR").upper()
    if centre is None or width is None or width <= (1 if function == "LINEAR" else 0):
        return None
    if function == "SIGMOID":
        return 1 / (1 + np.exp(np.clip(-4 * (meant - centre) / width, -700, 700)))
    if function == "LINEAR_EXACT":
        return np.clip((meant - centre) / width + 0.5, 0, 1)
    return np.clip((meant - (centre - 0.5)) / (width - 1) + 0.5, 0, 1)


def _first(value: Any) -> float | None:
    """The first of one or several numbers; None where there is none."""
    try:
        number = float(value if isinstance(value, str | int | float) else value[0])
    except TypeError:
        try:
            number = float(value)
        except (TypeError, ValueError):
            return None
    except (ValueError, IndexError):
        return None
    return number if np.isfinite(number) else None


def _by_values(values: np.ndarray, meant: np.ndarray, stored: np.ndarray, head: Any) -> np.ndarray:
    """Without a window: 8-bit values as they are, others between the ends of the values present without padding."""
    identity = np.array_equal(meant, values)
    if identity and int(head.get("BitsStored") or 16) <= 8 and stored.min() >= 0:
        return meant / ((1 << int(head.BitsStored)) - 1)
    padding = head.get("PixelPaddingValue")
    real = stored
    if padding is not None:
        limits = sorted([int(padding), int(head.get("PixelPaddingRangeLimit", padding))])
        inside = stored[(stored < limits[0]) | (stored > limits[1])]
        real = inside if inside.size and inside.min() < inside.max() else stored
    ends = np.quantile(real, [UNEXPLAINED_TAIL, 1 - UNEXPLAINED_TAIL], method="nearest")
    ends = ends if ends[0] < ends[1] else (real.min(), real.max())
    low, high = sorted(np.interp(ends, values.ravel(), meant.ravel()) if values.ndim == 1 else
                       (meant[stored == ends[0]][0], meant[stored == ends[1]][0]))
    return np.clip((meant - low) / max(high - low, 1e-12), 0, 1)


def _colour(pixels: np.ndarray, head: Any) -> np.ndarray:
    """RGB (pydicom has turned YBR into it) or palette -> uint8 (h, w) luminance."""
    if head.get("PhotometricInterpretation") == "PALETTE COLOR":
        from pydicom.pixels import apply_color_lut

        pixels = apply_color_lut(pixels, head)
    deepest = (1 << max(8, int(pixels.max()).bit_length())) - 1
    grey = luminance(*np.moveaxis(pixels.astype(np.uint16), -1, 0)).astype(np.float64)
    return np.floor(grey * 255 / deepest + 0.5).astype(np.uint8)

