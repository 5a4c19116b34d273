"""A run on a table of CheXpert's size, from reading to report: where the time goes, how much memory it holds.

    python -m experiments.full_size [--rows 27927 223414] [--side 320] [--crop 224] [--write]

A small synthetic data set is repeated, its films by hard links, until its table has so many rows; each repetition is
other patients. A tiny network learns one epoch a stage. The smaller table shows what grows: nothing may grow faster
than the rows. `--crop 64 --side 96` keeps films and crops small: reading them takes less time and disk, the tables are
the same. Writes experiments/results/full_size.md and .json.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path

import cv2
import pandas as pd

from chexpert_hier import commands
from chexpert_hier.files import write_text
from chexpert_hier.phantom import making
from experiments.benchmarks import machine
from experiments.phases import phases, timed

RESULTS = Path(__file__).with_name("results")
NAME = "CheXpert-v1.0-small"
PATIENTS, VALID = 250, 200


def repeated(base: Path, folder: Path, rows: int) -> Path:
    """A data set of so many training films: the base's patients again and again, under new numbers.

    Args:
        base: a synthetic data set with PATIENTS patients.
        folder: where it is made; on the same file system, for its films are hard links.
        rows: of train.csv.
    """
    root, train = folder / NAME, pd.read_csv(base / "train.csv")
    copies = -(-rows // len(train))
    number = train["Path"].str.extract(r"patient(\d+)")[0].astype(int)
    parts = []
    for copy in range(copies):
        part = train.copy()
        names = [f"patient{old + copy * PATIENTS:05d}" for old in number]
        part["Path"] = [path.replace(f"patient{old:05d}", name) for path, old, name in
                        zip(train["Path"], number, names)]
        parts.append(part)
    table = pd.concat(parts, ignore_index=True)[:rows]
    valid = pd.read_csv(base / "valid.csv")
    valid["Path"] = valid["Path"].str.replace(r"patient(\d+)", r"patient9\1", regex=True)  # numbers of their own
    sources = [*(list(train["Path"]) * copies)[:rows], *pd.read_csv(base / "valid.csv")["Path"]]
    for path, source in zip([*table["Path"], *valid["Path"]], sources):
        file = root / path.split("/", 1)[1]
        file.parent.mkdir(parents=True, exist_ok=True)
        os.link(base / source.split("/", 1)[1], file)
    for name, part in (("train", table), ("valid", valid)):
        part["Path"] = part["Path"].str.replace(r"^[^/]+", NAME, regex=True)
        part.to_csv(root / f"{name}.csv", index=False)
    return root


def small_films(base: Path, side: int) -> None:
    """Make the films' shorter side so many pixels."""
    for file in base.glob("*/patient*/study*/*.jpg"):
        film = cv2.imread(str(file), cv2.IMREAD_GRAYSCALE)
        scale = side / min(film.shape)
        small = cv2.resize(film, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        file.write_bytes(cv2.imencode(".jpg", small)[1].tobytes())


def rehearse(base: Path, rows: int, args: argparse.Namespace) -> dict:
    """One run; seconds and the most memory of each phase."""
    with tempfile.TemporaryDirectory(dir=base.parent) as folder:
        began = time.monotonic()
        root = repeated(base, Path(folder), rows)
        print(f"{rows:,} rows, linked in {time.monotonic() - began:.0f} s", flush=True)
        command = ["-m", "chexpert_hier.run", "--data", str(root), "--recipe", "pham2019", "--arch", "tiny",
                   "--weights", "none", "--image-size", str(args.image_size), "--epochs", "1", "--cache", "--out",
                   f"{folder}/run", "--set", f"rescaled_size={args.crop * 8 // 7}", "--set", f"crop_size={args.crop}"]
        found = timed(command, Path(folder), {**os.environ, "PYTHONPATH": os.pathsep.join(
            [str(Path(__file__).resolve().parents[1]), os.environ.get("PYTHONPATH", "")])})
        films = pd.read_csv(Path(folder) / "run" / "split.csv")["split"].value_counts()
        return {"rows": rows, "films": int(films.sum()), "seconds": found.seconds, "processor": found.processor,
                "bytes": found.peak(), "phases": {name: {"seconds": end - start, "bytes": found.peak(start, end)}
                                                  for name, start, end in phases(found)}}


def page(runs: list[dict], args: argparse.Namespace) -> str:
    """The results as text."""
    small, large = runs[0], runs[-1]
    times = large["rows"] / small["rows"]
    lines = ["# A run on a table of CheXpert's size", "",
             f"`python -m experiments.full_size {' '.join(args.given)}`, {time.strftime('%Y-%m-%d')}, "
             f"{machine()}: the tiny network at {args.image_size} pixels, one epoch a stage, through to the report; "
             f"synthetic films of {args.side} pixels, repeated; crops of {args.crop} pixels. Memory is what all "
             "processes of the run hold at once, without the pages of files.", "",
             "| phase | " + " | ".join(f"{run['rows']:,} rows, s" for run in runs) + " | times | most memory, GiB |",
             "|---|" + "---|" * (len(runs) + 2)]
    for name, last in large["phases"].items():
        cells = [run["phases"].get(name, {}).get("seconds", float("nan")) for run in runs]
        lines.append(f"| {name} | " + " | ".join(f"{cell:.1f}" for cell in cells)
                     + f" | {cells[-1] / max(cells[0], 0.1):.1f} | {last['bytes'] / 2**30:.2f} |")
    lines.append("| all | " + " | ".join(f"{run['seconds']:.0f}" for run in runs)
                 + f" | {large['seconds'] / small['seconds']:.1f} | {large['bytes'] / 2**30:.2f} |")
    each = (large["bytes"] - small["bytes"]) / max(large["rows"] - small["rows"], 1)
    lines += ["", f"The table grew {times:.1f} times, the most memory from {small['bytes'] / 2**30:.2f} to "
              f"{large['bytes'] / 2**30:.2f} GiB ({each / 1024:.1f} KiB a row).", ""]
    return "\n".join(lines)


def _kept(args: argparse.Namespace) -> dict:
    """What full_size.json holds of runs with these settings, which are not run again; --again forgets them."""
    settings = {"side": args.side, "crop": args.crop, "image_size": args.image_size}
    file = RESULTS / "full_size.json"
    found = json.loads(file.read_text()) if file.is_file() and args.write and not args.again else {}
    runs = found.get("runs", []) if all(found.get(name) == value for name, value in settings.items()) else []
    return {**settings, "date": time.strftime("%Y-%m-%d"), "machine": machine(),
            "runs": [run for run in runs if run["rows"] in args.rows]}


def main(argv: list[str] | None = None) -> int:
    """Rehearse, print, and with --write keep the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[27_927, 223_414], help="of train.csv, one run each")
    parser.add_argument("--side", type=int, default=320, help="pixels of the films' shorter side")
    parser.add_argument("--crop", type=int, default=224, help="pixels of the crops; 224 take 9.6 GB of disk")
    parser.add_argument("--image-size", type=int, default=32, help="pixels of the network's input")
    parser.add_argument("--work", type=Path, help="where to work (default: the system's temporary folder)")
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--again", action="store_true", help="also what full_size.json holds already")
    args = parser.parse_args(argv)
    args.given = [str(word) for word in (sys.argv[1:] if argv is None else argv) if word != "--write"]
    if args.work is not None:
        args.given = args.given[:(at := args.given.index("--work"))] + args.given[at + 2:]
    with tempfile.TemporaryDirectory(dir=args.work) as folder:
        base = making.make(Path(folder) / "base", patients=PATIENTS, valid_patients=VALID)
        if args.side != 320:
            small_films(base, args.side)
        kept = _kept(args)
        for rows in args.rows:
            if rows not in [run["rows"] for run in kept["runs"]]:
                kept["runs"] = sorted([*kept["runs"], rehearse(base, rows, args)], key=lambda run: run["rows"])
            if args.write:
                write_text(RESULTS / "full_size.json", json.dumps(kept, indent=1) + "\n")
    runs = kept["runs"]
    print(page(runs, args))
    if args.write:
        write_text(RESULTS / "full_size.md", page(runs, args))
    return 0


if __name__ == "__main__":
    sys.exit(commands.answer(main))
