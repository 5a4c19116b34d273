"""What the damages are done to: synthetic films, a small run trained on them and exported, films in every format."""

import importlib.util
import io
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

REPOSITORY = Path(__file__).parents[2]
QUICK = ("--recipe", "phantom", "--arch", "tiny", "--image-size", "32", "--epochs", "1", "--batch-size", "8",
         "--set", "template_films=10",
         "--set", "rescaled_size=72", "--set", "crop_size=64", "--checkpoint-every", "2", "--quiet")
LOSSLESS = {"JPEGLSLossless": "1.2.840.10008.1.2.4.80", "JPEG2000Lossless": "1.2.840.10008.1.2.4.90",
            "RLELossless": "1.2.840.10008.1.2.5"}


@dataclass(frozen=True)
class Place:
    """A folder with all that is damaged.

    Attributes:
        films: a phantom.
        run: a small run on it, finished and exported.
        crops: a cache of its crops.
        formats: one film in every format.
        sets: small data sets in the layouts of the public ones, by reader.
    """

    films: Path
    run: Path
    crops: Path
    formats: Path
    sets: Path

    @property
    def film(self) -> Path:
        """A film that is whole."""
        return next((self.films / "valid").rglob("*.jpg"))


def make(home: Path) -> Place:
    """Fill a folder with what is damaged, unless it is there already."""
    place = Place(*(home / name for name in ("films", "run", "crops", "formats", "sets")))
    if (home / "done").exists():
        return place
    home.mkdir(parents=True, exist_ok=True)
    _ask("phantom", "--out", place.films, "--patients", 16, "--valid-patients", 10, "--no-laterals")
    _ask("run", *QUICK, "--data", place.films, "--out", place.run)
    _ask("prepare", "--data", place.films, "--out", place.crops, "--recipe", "phantom", "--set", "template_films=10",
         "--set", "rescaled_size=72", "--set", "crop_size=64", "--quiet")
    place.formats.mkdir()
    for name, data in formats(cv2.imread(str(place.film), cv2.IMREAD_GRAYSCALE)):
        (place.formats / name).write_bytes(data)
    for name, write in _layouts().items():
        (place.sets / name).mkdir(parents=True)
        write(place.sets / name)
    (home / "done").touch()
    return place


def _ask(name: str, *arguments: object) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(REPOSITORY), os.environ.get("PYTHONPATH", "")))}
    subprocess.run([sys.executable, "-m", f"chexpert_hier.{name}", *map(str, arguments)], check=True, env=environment,
                   stdout=subprocess.DEVNULL)


def _layouts() -> dict:
    """The tests' small data sets, by reader."""
    spec = importlib.util.spec_from_file_location("layouts", REPOSITORY / "tests" / "datasets" / "layouts.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.LAYOUTS


def formats(grey: np.ndarray) -> Iterator[tuple[str, bytes]]:
    """A film in every format that is read: (file name, bytes).

    Args:
        grey: uint8 (h, w); is made smaller, so that damages often meet what matters.
    """
    grey = cv2.resize(grey, (96, 112), interpolation=cv2.INTER_AREA)
    colour = cv2.applyColorMap(grey, cv2.COLORMAP_BONE)
    codings: list[tuple[str, np.ndarray, list[int]]] = [
        ("grey.jpg", grey, []), ("colour.jpg", colour, []), ("grey.png", grey, []), ("colour.png", colour, []),
        ("progressive.jpg", colour, [cv2.IMWRITE_JPEG_PROGRESSIVE, 1]),
        ("restart.jpg", grey, [cv2.IMWRITE_JPEG_RST_INTERVAL, 4]), ("grey16.png", grey.astype(np.uint16) * 257, []),
        ("alpha.png", np.dstack([colour, grey]), []), ("bits.png", grey // 128 * 255, [cv2.IMWRITE_PNG_BILEVEL, 1]),
        ("grey.webp", grey, []), ("lossy.webp", colour, [cv2.IMWRITE_WEBP_QUALITY, 80]),
        ("alpha.webp", np.dstack([colour, grey]), []), ("grey.tif", grey, []), ("colour.tif", colour, []),
        ("grey16.tif", grey.astype(np.uint16) * 257, []),
        ("plain.tif", grey, [cv2.IMWRITE_TIFF_COMPRESSION, cv2.IMWRITE_TIFF_COMPRESSION_NONE]),
        ("deflate16.tif", grey.astype(np.uint16) * 257, [cv2.IMWRITE_TIFF_COMPRESSION,
                                                         cv2.IMWRITE_TIFF_COMPRESSION_ADOBE_DEFLATE])]
    for name, image, how in codings:
        yield name, cv2.imencode(Path(name).suffix, image, how)[1].tobytes()
    if importlib.util.find_spec("pydicom"):
        yield from _dicom(grey)


def _dicom(grey: np.ndarray) -> Iterator[tuple[str, bytes]]:
    import pydicom
    from pydicom.dataset import FileDataset, FileMetaDataset

    jpeg = cv2.imencode(".jpg", grey)[1].tobytes()
    for name, uid in {"plain": "1.2.840.10008.1.2.1", "implicit": "1.2.840.10008.1.2", "baseline":
                      "1.2.840.10008.1.2.4.50", **LOSSLESS}.items():
        meta = FileMetaDataset()
        meta.TransferSyntaxUID = pydicom.uid.UID("1.2.840.10008.1.2.1" if name in LOSSLESS else uid)
        meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = "1.2.840.10008.5.1.4.1.1.1", "1.2.3"
        film = FileDataset("film", {}, file_meta=meta, preamble=b"\0" * 128)
        film.SOPClassUID, film.SOPInstanceUID = meta.MediaStorageSOPClassUID, "1.2.3"
        film.Modality, film.PhotometricInterpretation, film.SamplesPerPixel = "DX", "MONOCHROME2", 1
        film.PixelRepresentation, (film.Rows, film.Columns) = 0, grey.shape
        if name == "baseline":
            film.BitsAllocated, film.BitsStored, film.HighBit = 8, 8, 7
            film.PixelData = pydicom.encaps.encapsulate([jpeg])
            film["PixelData"].is_undefined_length = True
        else:
            film.BitsAllocated, film.BitsStored, film.HighBit = 16, 12, 11
            film.WindowCenter, film.WindowWidth = 2048, 4096
            film.PixelData = (grey.astype(np.uint16) * 16).tobytes()
        if name in LOSSLESS:
            try:
                film.compress(pydicom.uid.UID(uid), generate_instance_uid=False)
            except (RuntimeError, ValueError, NotImplementedError):  # its encoder is an extra
                continue
        out = io.BytesIO()
        film.save_as(out, enforce_file_format=True)
        yield f"{name}.dcm", out.getvalue()


def linked(source: Path, target: Path, without: str = "") -> Path:
    """A copy of a folder but for one file, which is left out."""
    for file in source.rglob("*"):
        name = file.relative_to(source)
        if file.is_file() and name.as_posix() != without and name.name != ".lock":
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, target / name)
    return target


def emptied(folder: Path) -> Path:
    """An empty folder of that name."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def scratch() -> Path:
    """A folder in memory where there is one, for files are written by the ten thousand."""
    memory = Path("/dev/shm")
    return Path(tempfile.mkdtemp(prefix="fuzz_", dir=memory if os.access(memory, os.W_OK) else None))
