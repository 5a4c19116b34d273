"""What an archive costs: cores, hours and gigabytes for 1e6 and 1e8 films, from processor times measured here.

    python -m experiments.archive_cost --model RUN [--write]

Films are one phantom film enlarged to what archives hold, as JPEG, PNG and 12-bit DICOM; reading and
answering go through the worker's own code. Processor time, not the clock's: what a busy machine delays
is not counted.
"""

import argparse
import io
import sys
import time
from datetime import date
from pathlib import Path

import cv2
import numpy as np

RESULTS = Path(__file__).with_name("results") / "archive_cost.md"
ROW_BYTES = 300  # of results in Parquet; 168 in files of 700 real rows with calls and calibration
ID_BYTES = 8
SIZES = ((1_000_000, 64), (100_000_000, 1024))


def films(side: int) -> dict[str, bytes]:
    """One synthetic film in the kinds that archives hold, by what it is."""
    from chexpert_hier.films.decode import read_film
    from chexpert_hier.phantom import making

    small = read_film(next(iter(sorted(making.ensure(patients=4, valid_patients=4, seed=0).rglob("*frontal.jpg")))))
    large = cv2.resize(small, (side, side), interpolation=cv2.INTER_CUBIC).astype(np.float32)
    large += np.random.default_rng(0).normal(0, 4, large.shape)  # a real film's noise, which decides its size
    eight = np.clip(large, 0, 255).astype(np.uint8)
    thousand = cv2.resize(eight, (1024, 1024), interpolation=cv2.INTER_AREA)
    encoded = {f"JPEG, {small.shape[1]} x {small.shape[0]}": cv2.imencode(".jpg", small)[1],
               "PNG, 1024 x 1024": cv2.imencode(".png", thousand)[1],
               f"JPEG, {side} x {side}": cv2.imencode(".jpg", eight)[1]}
    return {what: data.tobytes() for what, data in encoded.items()} | {
        f"DICOM, 12 bits, {side} x {side}": _dicom(np.clip(large * 16, 0, 4095).astype(np.uint16))}


def _dicom(pixels: np.ndarray) -> bytes:
    import pydicom

    data = pydicom.Dataset()
    data.file_meta = pydicom.dataset.FileMetaDataset()
    data.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID = "1.2.840.10008.5.1.4.1.1.1.1"
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID = "1.2.3"
    data.Modality, data.BodyPartExamined, data.ViewPosition = "DX", "CHEST", "PA"
    data.Rows, data.Columns = pixels.shape
    data.SamplesPerPixel, data.PhotometricInterpretation, data.PixelRepresentation = 1, "MONOCHROME2", 0
    data.BitsAllocated, data.BitsStored, data.HighBit = 16, 12, 11
    data.PixelData = pixels.tobytes()
    text = io.BytesIO()
    data.save_as(text, enforce_file_format=True)
    return text.getvalue()


def measure(engine, data: bytes, count: int) -> tuple[float, float]:
    """Processor seconds a film: reading, and answering in portions of 32."""
    began = time.process_time()
    read = [engine.read(data, f"{k}_frontal") for k in range(count)]
    reading = (time.process_time() - began) / count
    engine.answer(read)  # traced before the clock starts
    began = time.process_time()
    engine.answer(read)
    return reading, (time.process_time() - began) / count


def main(argv: list[str] | None = None) -> int:
    """Measure, print, and write if asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--side", type=int, default=2500)
    parser.add_argument("--count", type=int, default=32)
    parser.add_argument("--write", action="store_true")
    args = parser.parse_args(argv)
    from chexpert_hier.predict.engine import Engine

    engine = Engine.open([args.model])
    arch = engine.recipe.arch
    lines = ["# What an archive costs", "", f"`python -m experiments.archive_cost --model RUN` · {arch} at "
             f"{engine.recipe.image_size} pixels, Keras, float32 · 2 cores, no GPU · {date.today().isoformat()}", "",
             "Processor seconds of one core a film; core hours and input follow from them, results at "
             f"{ROW_BYTES} bytes a row, ids held in memory at {ID_BYTES} bytes.", "",
             "| films | MB a film | reading, s | answering, s | core hours: 1e6, 1e8 | hours on 64, 1,024 cores | "
             "input: 1e6, 1e8 |", "|---" * 7 + "|"]
    for what, data in films(args.side).items():
        reading, answering = measure(engine, data, args.count)
        cores = [count * (reading + answering) / 3600 for count, _ in SIZES]
        hours = [one / number for one, (_, number) in zip(cores, SIZES)]
        lines.append(f"| {what} | {len(data) / 1e6:.2f} | {reading:.4f} | {answering:.4f} | "
                     f"{cores[0]:,.0f}, {cores[1]:,.0f} | {hours[0]:.1f}, {hours[1]:.1f} | "
                     f"{len(data) / 1e3:,.0f} GB, {len(data) / 1e4:,.0f} TB |")
        print(lines[-1], flush=True)
    lines += ["", f"Results: {SIZES[0][0] * ROW_BYTES / 1e9:.1f} GB and {SIZES[1][0] * ROW_BYTES / 1e9:.0f} GB; ids: "
              f"{SIZES[0][0] * ID_BYTES / 1e6:.0f} MB and {SIZES[1][0] * ID_BYTES / 1e9:.1f} GB."]
    print("\n".join(lines))
    if args.write:
        RESULTS.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
