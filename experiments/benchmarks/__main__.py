"""All benchmarks one after the other, each in a process of its own, into results.md.

    python -m experiments.benchmarks --all [--only NAME [NAME ...]] [--skip NAME [NAME ...]] [--resume]

On a calm machine: this says so before it begins where others compute as well. A small run for the benchmarks that need
a finished one is made first. Each one's section is written when it is done; --resume leaves out those of today.
"""

import argparse
import itertools
import os
import subprocess
import sys
import tempfile
from datetime import date
from pathlib import Path

from chexpert_hier import commands
from chexpert_hier.errors import InputError, one_of

from . import RESULTS

# What is written into results.md, in its order; {run} and {films} are filled in.
COMMANDS = {
    "template": ("template",), "input_path": ("input_path",), "prepare": ("prepare",),
    "step": ("step",), "step mixed_bfloat16": ("step", "--precision", "mixed_bfloat16"),
    "kernels": ("kernels",), "kernels mixed_bfloat16": ("kernels", "--precision", "mixed_bfloat16"),
    "kernels 64": ("kernels", "--image-size", "64", "--batch-size", "16"),
    "stage2": ("stage2",), "tta": ("tta",), "deterministic": ("deterministic",),
    "onnx_latency": ("onnx_latency",), "answers": ("answers",), "cold_start": ("cold_start",),
    "auroc": ("auroc",), "serve": ("serve", "--onnx"), "archive": ("archive", "--model", "{run}", "--films", "{films}"),
}
UNWRITTEN = ("auroc",)  # has a page of its own and no --write
CALM = 0.5  # load of the last minute above which the machine is not calm


def main(argv: list[str] | None = None) -> int:
    """Run the command; 1 where a benchmark failed."""
    args = parser().parse_args(argv)
    if not args.all and not args.only:
        raise InputError("nothing to measure; expected --all, or --only NAME")
    for name in (*args.only, *args.skip):
        one_of("benchmark", name, COMMANDS)
    chosen = [name for name in COMMANDS if (args.all or name in args.only) and name not in args.skip
              and not (args.resume and measured_today(name))]
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    if load > CALM:
        print(f"the load of the last minute is {load:.1f}: times will be too long, ratios uncertain", file=sys.stderr)
    failed = []
    with tempfile.TemporaryDirectory() as folder:
        places = finished_run(Path(folder)) if any("{" in word for name in chosen for word in COMMANDS[name]) else {}
        for name in chosen:
            print(f"\n# {name}", flush=True)
            words = [word.format(**places) for word in COMMANDS[name]]
            command = [sys.executable, "-m", f"experiments.benchmarks.{words[0]}", *words[1:]]
            if subprocess.run([*command, *(() if name in UNWRITTEN else ("--write",))]).returncode:
                failed.append(name)
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def measured_today(name: str) -> bool:
    """Whether results.md holds this benchmark, run today as here; places of films and runs may differ."""
    words = list(itertools.takewhile(lambda word: "{" not in word, COMMANDS[name]))
    if len(words) < len(COMMANDS[name]):
        words.pop()  # the flag of a place
    command, more = f"`python -m experiments.benchmarks.{' '.join(words)}", len(COMMANDS[name]) > len(words)
    lines = RESULTS.read_text(encoding="utf-8").splitlines() if RESULTS.exists() else []
    return any(line.startswith(command + (" " if more else "`")) and date.today().isoformat() in line for line in lines)


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    answer = argparse.ArgumentParser(prog="python -m experiments.benchmarks", description=__doc__.splitlines()[0])
    answer.add_argument("--all", action="store_true")
    answer.add_argument("--only", nargs="+", default=[], metavar="NAME", help=", ".join(COMMANDS))
    answer.add_argument("--skip", nargs="+", default=[], metavar="NAME")
    answer.add_argument("--resume", action="store_true", help="leave out what results.md holds of today")
    return answer


def finished_run(folder: Path) -> dict[str, Path]:
    """A small finished run on synthetic films: its folder and its films' folder."""
    from chexpert_hier.phantom import making

    films = making.make(folder / "films", patients=40, valid_patients=20, seed=3)
    subprocess.run([sys.executable, "-m", "chexpert_hier.run", "--recipe", "phantom", "--arch", "tiny", "--epochs", "1",
                    "--data", str(films), "--out", str(folder / "run"), "--quiet"], check=True)
    return {"run": folder / "run", "films": films}


if __name__ == "__main__":
    sys.exit(commands.answer(main))
