"""What the README's first command gives on this machine: AUROCs, and where the time goes.

    python -m experiments.first_command [--keep FOLDER]

Runs `python -m chexpert_hier.run --arch densenet121` in an empty folder with an empty home for the synthetic films, and
writes experiments/results/first_command.md.
"""

import argparse
import os
import platform
import shutil
import tempfile
import time
from pathlib import Path

import pandas as pd

from chexpert_hier import commands
from chexpert_hier.files import write_text
from experiments.phases import phases, timed

COMMAND = ["-m", "chexpert_hier.run", "--arch", "densenet121"]
OUT = Path(__file__).parent / "results" / "first_command.md"


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="copy the run folder there")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "CHEXPERT_HIER_HOME": f"{folder}/home",
                       "PYTHONPATH": os.pathsep.join([str(Path(__file__).resolve().parents[1]),
                                                      os.environ.get("PYTHONPATH", "")])}
        found = timed(COMMAND, Path(folder), environment)
        run = next(Path(folder, "runs").glob("*/evaluation.csv")).parent
        table, log = pd.read_csv(run / "evaluation.csv"), pd.read_csv(run / "log.csv")
        films = pd.read_csv(run / "split.csv")["split"].value_counts()
        if args.keep:
            shutil.copytree(run, args.keep)
    lines = ["# The README's first command", "",
             f"`python {' '.join(COMMAND)}`, {time.strftime('%Y-%m-%d')}, {os.cpu_count()} cores {platform.machine()}, "
             f"no GPU: {found.seconds:.0f} seconds from start to end ({found.processor:.0f} of processor time), "
             f"drawing the films included, installation not; at most {found.peak() / 2**30:.1f} GiB of memory, load "
             f"{os.getloadavg()[0]:.1f} when it ended. Longest time without a line: {found.silence:.1f} seconds.",
             f"{films['train']:,} training and {films['valid']:,} validation films, all synthetic; "
             f"{', '.join(f'{stage} {len(part)} epochs' for stage, part in log.groupby('stage'))}. These numbers say "
             "that the method works end to end, and nothing about real films.", "",
             "| label | AUROC | 95 % interval | positives | negatives |", "|---|---|---|---|---|"]
    lines += [f"| {row.label} | {row.auroc:.3f} | {row.auroc_low:.3f} to {row.auroc_high:.3f} | {row.positives:.0f} | "
              f"{row.negatives:.0f} |" for row in table.itertuples()]
    lines += ["", "Where the time goes:", "", "| phase | seconds |", "|---|---|"]
    lines += [f"| {name} | {end - start:.1f} |" for name, start, end in phases(found)]
    write_text(OUT, "\n".join([*lines, ""]))
    print("\n".join(lines))
    return 0


if __name__ == "__main__":
    raise SystemExit(commands.answer(main))
