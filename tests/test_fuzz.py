"""Damaged files and hostile input: a film is read or refused with one line that names it, in bounded time and memory.

The fast setting takes seconds; `pytest -m slow` goes through thousands of damages. FUZZ=100 multiplies the slow one.
"""

import ast
import io
import os
import resource
import struct
import subprocess
import sys
import time
import warnings
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chexpert_hier import evaluate
from chexpert_hier.errors import InputError
from chexpert_hier.films import decode
from chexpert_hier.films.grey import MIN_SIDE
from chexpert_hier.finished import asked
from chexpert_hier.predict import reading
from experiments.fuzzing.damages import PNG_SIGNATURE, bytes_damaged, png_mended

PACKAGE = Path(__file__).parents[1] / "chexpert_hier"
SECONDS = 30  # more than any of these small files may take, on a busy machine
MEGABYTES = 1024  # the stated bound for one film, whatever its header claims


def picture(side=96):
    random = np.random.default_rng(0)
    smooth = cv2.resize(random.integers(0, 256, (8, 8), dtype=np.uint8), (side, side), interpolation=cv2.INTER_CUBIC)
    return cv2.add(smooth, random.integers(0, 8, (side, side), dtype=np.uint8))


def encoded(suffix, image, *flags):
    return cv2.imencode(suffix, image, list(flags))[1].tobytes()


def dicom_bytes(**tags):
    pydicom = pytest.importorskip("pydicom")
    from pydicom.dataset import FileDataset, FileMetaDataset

    meta = FileMetaDataset()
    meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.1"
    meta.MediaStorageSOPInstanceUID = "1.2.3"
    film = FileDataset("film", {}, file_meta=meta, preamble=b"\0" * 128)
    film.Modality, film.PhotometricInterpretation, film.SamplesPerPixel = "DX", "MONOCHROME2", 1
    film.BitsAllocated, film.BitsStored, film.HighBit, film.PixelRepresentation = 16, 12, 11, 0
    film.Rows, film.Columns = 96, 96
    film.WindowCenter, film.WindowWidth = 2048, 4096
    film.PixelData = (picture().astype(np.uint16) * 16).tobytes()
    for name, value in tags.items():
        setattr(film, name, value)
    out = io.BytesIO()
    film.save_as(out, enforce_file_format=True)
    return out.getvalue()


@pytest.fixture(scope="module")
def corpus():
    """name -> whole films of every kind."""
    grey = picture()
    colour = cv2.applyColorMap(grey, cv2.COLORMAP_BONE)
    files = {
        "grey.jpg": encoded(".jpg", grey), "colour.jpg": encoded(".jpg", colour),
        "progressive.jpg": encoded(".jpg", colour, cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
        "restart.jpg": encoded(".jpg", grey, cv2.IMWRITE_JPEG_RST_INTERVAL, 4),
        "grey.png": encoded(".png", grey), "grey16.png": encoded(".png", grey.astype(np.uint16) * 257),
        "colour.png": encoded(".png", colour), "alpha.png": encoded(".png", np.dstack([colour, grey])),
    }
    try:
        files["film.dcm"] = dicom_bytes()
    except pytest.skip.Exception:  # pydicom is an extra
        pass
    return files


def damaged(data: bytes, random: np.random.Generator) -> bytes:
    """One of many damages, with right checksums in a PNG now and then, so that it reaches the decoder."""
    data = bytes_damaged(data, random)
    return png_mended(data) if random.random() < 0.5 else data


def answer(data: bytes, folder: Path, name: str):
    """What `predict` makes of a file's bytes: pixels, or its line; anything else is an error of ours."""
    file = folder / name
    file.write_bytes(data)
    began = time.monotonic()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a decoder may complain of what it reads
        try:
            read = reading.open_film(asked.Film(file, name), takes_lateral=True)
        except InputError as error:
            assert name in str(error) and len(str(error).splitlines()) == 1 and len(str(error)) < 400
            read = None
    assert time.monotonic() - began < SECONDS
    if read is not None:
        assert read.grey.dtype == np.uint8 and read.grey.ndim == 2 and min(read.grey.shape) >= MIN_SIDE
    return read


def through_all(corpus, folder, count, seed):
    random, answers = np.random.default_rng(seed), []
    for name, data in corpus.items():
        assert answer(data, folder, name) is not None, f"{name} is whole"
        answers += [answer(damaged(data, random), folder, name) is not None for _ in range(count)]
    return answers


def test_every_damaged_film_is_read_or_refused_with_its_name(corpus, tmp_path):
    answers = through_all(corpus, tmp_path, 40, seed=0)
    assert any(answers) and not all(answers)  # the damages do something, and not always all


@pytest.mark.slow
def test_thousands_of_damaged_films(corpus, tmp_path):
    through_all(corpus, tmp_path, 500 * int(os.environ.get("FUZZ", "1")), seed=int(os.environ.get("FUZZ_SEED", "1")))


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=300), st.sampled_from([b"", b"\xff\xd8\xff\xe0", PNG_SIGNATURE, b"\0" * 128 + b"DICM",
                                                 b"\x08\0\x05\0" + b"\0" * 130]))
def test_any_bytes_at_all(data, start):
    with pytest.raises(InputError, match=r"^some film: "):
        decode.read_film(start + data, "some film")


# ---------------------------------------------------------------------------------------------------- bombs

def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_bomb(width, height, bits, colour, rows=None):
    """A PNG of one bright row and black ones; `rows` fewer than its header says cut the picture short."""
    row = 1 + width * {0: 1, 2: 3, 6: 4}[colour] * bits // 8
    packer = zlib.compressobj(9)
    packed = packer.compress(b"\0" + b"\xff" * (row - 1))
    for _ in range(0, (height if rows is None else rows) - 1):
        packed += packer.compress(bytes(row))
    head = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    return PNG_SIGNATURE + chunk(b"IHDR", head) + chunk(b"IDAT", packed + packer.flush()) + chunk(b"IEND", b"")


def jpeg_of_size(data, width, height):
    """The same JPEG with another size in its header."""
    place = next(k for k in range(2, len(data)) if data[k] == 0xFF and data[k + 1] in (0xC0, 0xC2))
    return data[:place + 5] + struct.pack(">HH", height, width) + data[place + 9:]


@pytest.mark.parametrize("make", [
    lambda corpus: png_bomb(60000, 60000, 16, 6, rows=4), lambda corpus: png_bomb(2 ** 25, 2 ** 31 - 1, 8, 0, rows=1),
    lambda corpus: png_bomb(1, 10 ** 6, 8, 0, rows=9), lambda corpus: jpeg_of_size(corpus["grey.jpg"], 65500, 65500),
    lambda corpus: jpeg_of_size(corpus["progressive.jpg"], 12000, 12000),
    lambda corpus: jpeg_of_size(corpus["grey.jpg"], 0, 0), lambda corpus: dicom_bytes(Rows=65535, Columns=65535),
    lambda corpus: dicom_bytes(Rows=0), lambda corpus: dicom_bytes(NumberOfFrames=10 ** 9)])
def test_absurd_sizes_are_refused_before_anything_is_decoded(make, corpus, tmp_path):
    data = make(corpus)
    began = time.process_time()  # of the processor: a busy machine may take longer
    assert answer(data, tmp_path, "bomb") is None
    assert time.process_time() - began < 5


def peak_megabytes(file: Path) -> tuple[int, str]:
    """Peak memory that reading a film adds to a process of its own, and what came of it."""
    code = ("import resource, sys\nfrom chexpert_hier.films import read_film\nimport chexpert_hier.dicom\n"
            "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
            "try:\n    said = read_film(sys.argv[1]).shape\nexcept ValueError as error:\n    said = error\n"
            "print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024, said)")
    limit = 8 * 2 ** 30
    result = subprocess.run([sys.executable, "-c", code, str(file)], capture_output=True, text=True, timeout=300,
                            cwd=PACKAGE.parent, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit,) * 2))
    assert result.returncode == 0, result.stderr[-1000:]
    number, said = result.stdout.split(" ", 1)
    return int(number), said.strip()


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="ru_maxrss is counted in kilobytes on Linux only")
def test_a_bomb_within_the_limits_stays_within_the_stated_memory(tmp_path):
    (tmp_path / "bomb.png").write_bytes(png_bomb(5700, 5700, 16, 6))  # 260 MB out of 250 kB
    used, said = peak_megabytes(tmp_path / "bomb.png")
    assert said == "(5700, 5700)" and used < MEGABYTES


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="ru_maxrss is counted in kilobytes on Linux only")
@pytest.mark.parametrize("make", [
    lambda: png_bomb(14000, 14000, 8, 0), lambda: png_bomb(11500, 11500, 16, 0), lambda: png_bomb(14000, 14000, 16, 6),
    lambda: encoded(".jpg", cv2.resize(picture(), (11500, 11500))),
    lambda: encoded(".jpg", cv2.resize(cv2.applyColorMap(picture(), cv2.COLORMAP_BONE), (6600, 6600)),
                    cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
    lambda: dicom_bytes(Rows=5700, Columns=5700,
                        PixelData=(cv2.resize(picture(), (5700, 5700)).astype(np.uint16) * 16).tobytes())])
def test_the_largest_films_of_every_kind_stay_within_the_stated_memory(make, tmp_path):
    (tmp_path / "bomb").write_bytes(make())
    used, said = peak_megabytes(tmp_path / "bomb")
    assert used < MEGABYTES, said


# ---------------------------------------------------------------------------------------------------- tables

ODD = ("", "1.0", "0.0", "-1.0", "nan", "inf", "-0", "1e400", "\x00", "=1+1", "é", chr(34), ",")
CELLS = st.one_of(st.sampled_from(ODD), st.text(max_size=12))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(st.lists(CELLS, min_size=1, max_size=4), max_size=6), head=st.sampled_from(
    ["Path,Edema", "Path,Edema,Edema", "Edema", "", "Path", "Study,Edema", "Path;Edema"]), mark=st.booleans())
def test_any_table_is_evaluated_or_refused_in_one_line(rows, head, mark, tmp_path):
    path = tmp_path / "table.csv"
    text = "\n".join([head, *(",".join(row) for row in rows)])
    path.write_bytes((b"\xef\xbb\xbf" if mark else b"") + text.encode("utf-8", "surrogatepass"))
    for read in (evaluate.read_predictions, evaluate.read_truth, lambda file: asked.find_films([str(file)])):
        try:
            read(path)
        except InputError as error:
            assert len(str(error).splitlines()) == 1


# ---------------------------------------------------------------------------------------------------- security

def calls(tree):
    return [node for node in ast.walk(tree) if isinstance(node, ast.Call)]


@pytest.mark.parametrize("file", sorted(PACKAGE.rglob("*.py")), ids=lambda file: file.stem)
def test_nothing_is_unpickled_or_evaluated(file):
    """np.load without pickles, Keras' safe mode, torch.load of weights only; no eval, no shell."""
    for call in calls(ast.parse(file.read_text(encoding="utf-8"))):
        name, given_ = ast.unparse(call.func), {word.arg: ast.unparse(word.value) for word in call.keywords}
        if name == "np.load":
            assert given_.get("allow_pickle") == "False", f"{file.name}:{call.lineno}"
        if name.endswith("load_model") and "keras" in name:
            assert given_.get("safe_mode") == "True", f"{file.name}:{call.lineno}"
        if name == "torch.load":
            assert given_.get("weights_only") == "True", f"{file.name}:{call.lineno}"
        assert name not in ("eval", "exec", "os.system", "pickle.load", "pd.read_pickle"), f"{file.name}:{call.lineno}"
        assert given_.get("shell") != "True" and given_.get("allow_pickle") != "True"


def test_a_model_file_that_brings_code_is_refused(tmp_path):
    import keras

    from chexpert_hier.network import model

    film = keras.Input((4,))
    network = keras.Model(film, keras.layers.Lambda(lambda x: x * 2)(film))
    network.save(tmp_path / "evil.keras")
    with pytest.raises(InputError, match="cannot be loaded"):
        model.load_model(tmp_path / "evil.keras")
