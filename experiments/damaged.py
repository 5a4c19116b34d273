"""How many damaged JPEGs are answered without a word: 2,700 files, with OpenCV alone and with our look at them.

    python -m experiments.damaged --data .../nih_600 [--files 2700] [--seed 0]

Real films as they are, and coded again in colour, progressive, with restart marks and with tables of their own; bits
flipped, bytes overwritten, lost, repeated, exchanged, files cut short, in the picture data. Whole files are checked
too: none may be refused, and the pixels must be OpenCV's. Writes results/damaged.csv and .md.
"""

import argparse
import itertools
import random
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import pandas as pd

from chexpert_hier import commands, datasets
from chexpert_hier.errors import InputError
from chexpert_hier.files import write_text
from chexpert_hier.films.decode import read_film
from chexpert_hier.films.headers import read_header

RESULTS = Path(__file__).parent / "results"
CODINGS: dict[str, tuple[list[int], bool]] = {
    "as it is": ([], False), "colour, coarse": ([], True),
    "colour, full": ([cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444], True),
    "progressive": ([cv2.IMWRITE_JPEG_PROGRESSIVE, 1], False),
    "restart marks": ([cv2.IMWRITE_JPEG_RST_INTERVAL, 8], False),
    "own tables": ([cv2.IMWRITE_JPEG_OPTIMIZE, 1], False),
}
OUTCOMES = ("refused", "same pixels", "off by less than 1", "off by 1 to 10", "off by more than 10")
END = b"\xff\xd9"


def one_bit(data: bytes, start: int, draw: random.Random) -> bytes:
    """One bit flipped."""
    place = draw.randrange(start, len(data) - 2)
    return data[:place] + bytes([data[place] ^ 1 << draw.randrange(8)]) + data[place + 1:]


def eight_bits(data: bytes, start: int, draw: random.Random) -> bytes:
    """Eight bits flipped."""
    for _ in range(8):
        data = one_bit(data, start, draw)
    return data


def zeros(data: bytes, start: int, draw: random.Random) -> bytes:
    """Some bytes set to zero."""
    place, length = _stretch(data, start, draw)
    return data[:place] + bytes(length) + data[place + length:]


def noise(data: bytes, start: int, draw: random.Random) -> bytes:
    """Some bytes overwritten at random."""
    place, length = _stretch(data, start, draw)
    return data[:place] + draw.randbytes(length) + data[place + length:]


def cut(data: bytes, start: int, draw: random.Random) -> bytes:
    """The end lost."""
    return data[:draw.randrange(start, len(data) - 2)]


def cut_and_ended(data: bytes, start: int, draw: random.Random) -> bytes:
    """The end lost but for its mark."""
    return cut(data, start, draw) + END


def lost(data: bytes, start: int, draw: random.Random) -> bytes:
    """Some bytes lost."""
    place, length = _stretch(data, start, draw)
    return data[:place] + data[place + length:]


def repeated(data: bytes, start: int, draw: random.Random) -> bytes:
    """Some bytes there twice."""
    place, length = _stretch(data, start, draw)
    return data[:place + length] + data[place:]


def exchanged(data: bytes, start: int, draw: random.Random) -> bytes:
    """Two stretches of 64 bytes exchanged."""
    one, two = sorted(draw.sample(range(start, len(data) - 66), 2))
    two = max(two, one + 64)
    return data[:one] + data[two:two + 64] + data[one + 64:two] + data[one:one + 64] + data[two + 64:]


DAMAGES = (one_bit, eight_bits, zeros, noise, cut, cut_and_ended, lost, repeated, exchanged)


def _stretch(data: bytes, start: int, draw: random.Random) -> tuple[int, int]:
    place = draw.randrange(start, len(data) - 2)
    return place, min(draw.choice([1, 16, 512]), len(data) - 2 - place)


def opencv(data: bytes) -> np.ndarray:
    """The film as OpenCV gives it after a look at the header and the end mark, which was all there was before."""
    header = read_header(data)
    grey = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE | cv2.IMREAD_IGNORE_ORIENTATION)
    if grey is None or grey.shape != (header.height, header.width):
        raise InputError("damaged")
    return grey


READERS: dict[str, Callable[[bytes], np.ndarray]] = {"OpenCV": opencv, "ours": read_film}


def coded(file: Path, coding: str) -> bytes:
    """The film in this coding."""
    options, colour = CODINGS[coding]
    if not options and not colour:
        return file.read_bytes()
    grey = read_film(file)
    image = cv2.merge([grey // 2, grey, 255 - grey]) if colour else grey
    return cv2.imencode(".jpg", image, options)[1].tobytes()


class Damaged(NamedTuple):
    """A film's file before and after one damage."""

    coding: str
    damage: str
    whole: bytes
    broken: bytes


def corpus(files: list[Path], count: int, seed: int) -> Iterator[Damaged]:
    """Every coding and damage equally often."""
    draw = random.Random(seed)
    pairs = itertools.cycle(itertools.product(CODINGS, DAMAGES))
    for number, (coding, damage) in zip(range(count), pairs):
        whole = coded(files[number // len(DAMAGES) % len(files)], coding)
        place = whole.index(b"\xff\xda")
        start = place + 2 + int.from_bytes(whole[place + 2:place + 4], "big")
        yield Damaged(coding, damage.__doc__.rstrip("."), whole, damage(whole, start, draw))


def outcome(reader: Callable[[bytes], np.ndarray], data: bytes, good: np.ndarray) -> str:
    """One of OUTCOMES."""
    try:
        found = reader(data)
    except InputError:
        return OUTCOMES[0]
    off = np.abs(found.astype(int) - good).mean() if found.shape == good.shape else 255.0
    return OUTCOMES[1 + int(np.searchsorted([0, 1, 10], off))]


def main(argv: list[str] | None = None) -> int:
    """Damage, read, count, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--files", type=int, default=2700)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    files = list(datasets.read(args.data).split("valid").files)
    rows, whole_files = [], {}
    for coding, damage, whole, broken in commands.progress(list(corpus(files, args.files, args.seed)), "damaged"):
        good = opencv(whole)
        whole_files[whole] = whole_files.get(whole) or outcome(read_film, whole, good)
        rows += [{"reader": name, "coding": coding, "damage": damage, "outcome": outcome(reader, broken, good)}
                 for name, reader in READERS.items()]
    table = pd.DataFrame(rows)
    counts = table.groupby(["reader", "coding", "damage", "outcome"]).size().rename("files").reset_index()
    write_text(RESULTS / "damaged.csv", counts.to_csv(index=False))
    same = sum(what == OUTCOMES[1] for what in whole_files.values())
    text = page(table, args, f"{same} of {len(whole_files)}")
    write_text(RESULTS / "damaged.md", text)
    print(text)
    return 0


def page(table: pd.DataFrame, args: argparse.Namespace, whole: str) -> str:
    """The counts, by reader, by damage and by coding."""
    lines = ["# Damaged JPEGs: what is answered without a word", "",
             f"`python -m experiments.damaged --files {args.files} --seed {args.seed}`: {args.files:,} files damaged "
             "in the picture data, from real films; grey levels off on average over the film. Whole files with "
             f"OpenCV's pixels: {whole}.", "", f"| reader | of | {' | '.join(OUTCOMES)} |",
             "|---" * (2 + len(OUTCOMES)) + "|"]
    for column in (None, "damage", "coding"):
        for value in [None] if column is None else table[column].unique():
            for reader in READERS:
                chosen = table[(table["reader"] == reader) & (True if column is None else table[column] == value)]
                found = [int((chosen["outcome"] == what).sum()) for what in OUTCOMES]
                lines.append(f"| {reader} | {value or 'all'} | {' | '.join(map(str, found))} |")
    return "\n".join(lines) + "\n\nWritten by experiments/damaged.py.\n"


if __name__ == "__main__":
    sys.exit(commands.answer(main))
