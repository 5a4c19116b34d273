"""Commands at once, readers beside writers, SIGTERM, odd surroundings, other threads, many films: tried, and counted.

    python -m experiments.conditions [--only pairs terminated ...] [--films 20000] [--write]

Everything runs on a tiny network and a few drawn films; results are compared with those of a command that was left
alone, as experiments/kill_test.py does. `--write` puts the table into docs/faults.md.
"""

import argparse
import collections
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd

from chexpert_hier import commands
from experiments import kill_test
from experiments.benchmarks import machine, versions
from experiments.fuzzing import place

LIMIT = 1800  # seconds after which a command counts as hanging
SHIFTED = "import time\n_now = time.time\ntime.time = lambda: _now() - 366 * 86400\n"  # a year back, for sitecustomize
HEAD = "| what | command | tried | as it should be | what should be |\n|---|---|---|---|---|"


@dataclass(frozen=True)
class Trial:
    """One attempt: what was tried with which command, what was expected, "" or what came instead."""

    what: str
    command: str
    expected: str
    wrong: str = ""


@dataclass
class Ground:
    """The films and the run that are worked on, and what each command gives when left alone."""

    home: Path
    found: place.Place
    env: dict[str, str] = field(default_factory=lambda: {**os.environ, "PYTHONPATH": os.pathsep.join(
        (str(place.REPOSITORY), os.environ.get("PYTHONPATH", "")))})

    def arguments(self, name: str, out: Path) -> list[object]:
        """A command's arguments with its results in the folder `out`."""
        films, run = self.found.films, self.found.run
        return {
            "prepare": ["--data", films, "--out", out, "--recipe", "phantom", "--set", "template_films=10", "--quiet"],
            "predict": [films / "valid.csv", "--model", run, "--engine", "onnx", "--out", out / "p.csv", "--quiet"],
            "evaluate": ["--predictions", run / "predictions.csv", "--truth", run / "truth.csv", "--out", out,
                         "--replicates", 50, "--no-page", "--quiet"],
            "export": ["--model", run, "--out", out / "saved"],
            "phantom": ["--out", out, "--patients", 60, "--valid-patients", 0, "--processes", 2],
            "run": [*place.QUICK, "--data", films, "--out", out, "--deterministic", "--no-export"],
        }[name]

    def start(self, name: str, out: Path, *more: object, through: Sequence[str] = (), **options: object
              ) -> subprocess.Popen:
        """A command in a process of its own, begun by the program `through` where one is given."""
        words = [*through, sys.executable, "-m", f"chexpert_hier.{name}",
                 *map(str, (*self.arguments(name, out), *more))]
        return subprocess.Popen(words, text=True, cwd=self.home, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                                **{"env": self.env, **options})  # type: ignore[call-overload]

    def alone(self, name: str) -> Path:
        """What a command gives when nobody disturbs it; made once."""
        out = self.home / "alone" / name
        if not out.exists():
            code, error = ended(self.start(name, out))
            assert code == 0, error
        return out


def ended(process: subprocess.Popen) -> tuple[int, str]:
    """Exit code, and what it said of errors."""
    _, error = process.communicate(timeout=LIMIT)
    lines = [line for line in error.splitlines() if line.startswith(("error:", "stopped", "Traceback"))]
    return process.returncode, "\n".join(lines)


def different(ground: Ground, name: str, out: Path) -> str:
    """What differs from the command left alone, "" for nothing."""
    found = kill_test.differences(ground.alone(name), out)
    return "; ".join(one for one in found if "report.html" not in one)


# ---------------------------------------------------------------------------------------------------- at once

def pairs(ground: Ground) -> Iterator[Trial]:
    """Two at once into one place: one does it and the other is refused, or both give the same whole files."""
    for name in ("prepare", "predict", "evaluate", "export", "phantom"):
        ground.alone(name)
        out = ground.home / "pair" / name  # a phantom's paths begin with its folder's name
        both = [ground.start(name, out, *(["--resume"] if name == "prepare" else [])) for _ in range(2)]
        ends = [ended(process) for process in both]
        wrong = different(ground, name, out)
        for code, said in ends:
            refused = code == 2 and said.count("\n") == 0 and any(
                words in said for words in ("another process", "exists", "is there already", "holds"))
            wrong += "" if code == 0 or refused else f"; exit code {code}: {said}"
        yield Trial("two at once into one place", name, "one is refused in one line, or both end with the same files",
                    wrong if any(code == 0 for code, _ in ends) else f"none was done: {ends}")


def readers(ground: Ground) -> Iterator[Trial]:
    """Files are read again and again while a command replaces them: every read is a whole file of before or after."""
    for name, file in (("export", "saved/saved_model.pb"), ("evaluate", "evaluation.json")):
        out = ground.home / f"read-{name}"
        shutil.copytree(ground.alone(name), out)
        whole, wrong, reads = (out / file).read_bytes(), "", 0
        process = ground.start(name, out, *kill_test.AGAIN[name])
        while process.poll() is None:
            try:
                wrong = wrong if (out / file).read_bytes() == whole else f"read {reads} found another file"
            except OSError as error:
                wrong = f"read {reads}: {error}"
            reads += 1
            time.sleep(0.001)
        code, said = ended(process)
        yield Trial(f"a reader beside a writer, {file}", name, "every read is a whole file",
                    wrong or ("" if code == 0 else said))


# ---------------------------------------------------------------------------------------------------- signals

def terminated(ground: Ground) -> Iterator[Trial]:
    """SIGTERM: exit code 143, one line, no process left; the same command with --resume ends as if undisturbed."""
    for name, share in (("run", 0.5), ("run", 0.9), ("prepare", 0.7), ("predict", 0.8), ("phantom", 0.6)):
        ground.alone(name)
        again = ground.home / f"measured-{name}"
        if not (again / "seconds").exists():  # what it takes in processor time
            before = children_seconds()
            ended(ground.start(name, again / "out"))
            (again / "seconds").write_text(str(children_seconds() - before))
        out = ground.home / f"terminated-{share}" / name
        process = ground.start(name, out, start_new_session=True)
        while process.poll() is None and family_seconds(process.pid) < share * float((again / "seconds").read_text()):
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        code, said = ended(process)
        time.sleep(1.0)
        left = group_of(process.pid)
        clean = code in (0, 143) and "Traceback" not in said and not left
        wrong = "" if clean else f"exit code {code}, left {left}: {said}"
        code, said = ended(ground.start(name, out, *kill_test.AGAIN.get(name, [])))
        if not (name == "phantom" and code == 2):  # it was whole already
            wrong += said if code else different(ground, name, out)
        yield Trial("SIGTERM", name, "143, one line, no process left; then as if undisturbed", wrong)


def children_killed(ground: Ground) -> Iterator[Trial]:
    """kill -9 of one of the phantom's drawing processes: one line, and nothing is left."""
    out = ground.home / "child-killed"
    process = ground.start("phantom", out)
    while process.poll() is None and not list(ground.home.glob(".child-killed.part/*/train/*")):
        time.sleep(0.02)
    for pid in workers_of(process.pid)[:1]:
        os.kill(pid, signal.SIGKILL)
    code, said = ended(process)
    left = [path.name for path in ground.home.glob("*child-killed*")]
    wrong = "" if code == 2 and "Traceback" not in said and not left else f"exit code {code}: {said}; left: {left}"
    yield Trial("kill -9 of a drawing process", "phantom", "one line, exit code 2, nothing left", wrong)


def children_seconds() -> float:
    """Processor time of all processes that have ended."""
    times = os.times()
    return times.children_user + times.children_system


def family_seconds(pid: int) -> float:
    """Processor time of a living process and its children."""
    return sum(map(kill_test.cpu_seconds, [pid, *workers_of(pid)]))


def workers_of(pid: int) -> list[int]:
    """Python processes that a process has started, without multiprocessing's own helper."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(path.read_text().rsplit(")", 1)[1].split()[1])
            if parent == pid and b"resource_tracker" not in path.with_name("cmdline").read_bytes():
                found.append(int(path.parent.name))
        except (OSError, IndexError, ValueError):
            continue
    return found


def group_of(pid: int) -> list[str]:
    """Processes of a process' group that are still alive."""
    lines = subprocess.run(["ps", "-e", "-o", "pgid=,stat=,args="], capture_output=True, text=True).stdout.splitlines()
    return [line for line in lines if line.split()[0] == str(pid) and not line.split()[1].startswith("Z")]


# ---------------------------------------------------------------------------------------------------- surroundings

def surroundings(ground: Ground) -> Iterator[Trial]:
    """No HOME, no temporary folder, no shared memory, LANG=C, no rights of root, the clock set back: the same files."""
    plain = {name: value for name, value in ground.env.items() if not name.startswith(("LANG", "LC_", "PYTHONUTF8"))}
    shifted = ground.home / "shifted"
    shifted.mkdir()
    (shifted / "sitecustomize.py").write_text(SHIFTED)
    options: dict[str, dict] = {
        "no HOME": {"env": {name: value for name, value in ground.env.items() if name != "HOME"}},
        "TMPDIR that is not there": {"env": {**ground.env, "TMPDIR": "/nowhere"}},
        "LANG=C": {"env": {**plain, "LANG": "C", "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}},
        "the clock set back by a year": {"env": {**ground.env, "PYTHONPATH": os.pathsep.join(
            (str(shifted), ground.env["PYTHONPATH"]))}},
    }
    if os.geteuid() == 0:
        options["root's rights given up (setpriv)"] = {"through": [
            "setpriv", "--bounding-set=-all", "--inh-caps=-all", "--no-new-privs"]}
        options["no /dev/shm"] = {"through": ["unshare", "-m", "sh", "-c",
                                              'mount -t tmpfs -o size=4k,ro none /dev/shm && exec "$@"', "sh"]}
    for what, how in options.items():
        for name in ("prepare", "predict", "evaluate", "phantom"):
            ground.alone(name)
            yield Trial(what, name, "the same files", _elsewhere(ground, name, what, dict(how)))


def _elsewhere(ground: Ground, name: str, what: str, how: dict) -> str:
    folder = ground.home / f"{what.replace('/', '')}-{name}"
    folder.mkdir()
    folder.chmod(0o777)
    out = folder / name
    code, said = ended(ground.start(name, out, **how))
    return said or f"exit code {code}" if code else different(ground, name, out)


def threads(ground: Ground) -> Iterator[Trial]:
    """--deterministic with other numbers of threads: sums in another order, so the same but for rounding; with rows in
    another order: the same films in the same split, seen in another order."""
    first = ground.alone("run")
    for count in (1, 2, 4):
        out = ground.home / f"threads-{count}"
        env = {**ground.env, "TF_NUM_INTRAOP_THREADS": str(count), "TF_NUM_INTEROP_THREADS": str(count),
               "OMP_NUM_THREADS": str(count)}
        code, said = ended(ground.start("run", out, env=env))
        tables = [pd.read_csv(folder / "predictions.csv", index_col="Path") for folder in (first, out) if not code]
        off = float(np.abs(tables[0] - tables[1]).to_numpy().max()) if tables else float("nan")
        yield Trial(f"--deterministic, {count} threads: {off:.1g} off", "run", "the same probabilities to 1e-5",
                    "" if off < 1e-5 else said or "they differ")
    films = ground.home / "shuffled"
    shutil.copytree(ground.found.films, films / ground.found.films.name)
    table = pd.read_csv(films / ground.found.films.name / "train.csv", dtype=str, keep_default_na=False)
    table.sample(frac=1, random_state=0).to_csv(films / ground.found.films.name / "train.csv", index=False)
    out = ground.home / "shuffled-run"
    code, said = ended(ground.start("run", out, "--data", films / ground.found.films.name))
    yield Trial("--deterministic, rows of train.csv in another order", "run", "ends well, with the same films",
                said or ("" if _films_of(out) == _films_of(first) else "other films"))


def _films_of(run: Path) -> list[str]:
    """Lines of split.csv after the data set's name, in an order of their own."""
    return sorted(line.partition("/")[2] for line in (run / "split.csv").read_text(encoding="utf-8").splitlines())


# ---------------------------------------------------------------------------------------------------- many films

def many(ground: Ground, count: int) -> Iterator[Trial]:
    """Many films predicted, and ten epochs trained: memory and open files stay as they are after the beginning."""
    folder = ground.home / "many"
    folder.mkdir()
    films = sorted((ground.found.films / "valid").rglob("*.jpg"))
    for number in range(count):
        os.link(films[number % len(films)], folder / f"{number:06d}.jpg")
    for name, words in (("predict", [folder, "--model", ground.found.run, "--engine", "keras", "--out",
                                     ground.home / "many.csv", "--quiet"]),
                        ("run", [*place.QUICK, "--epochs", 10, "--data", ground.found.films, "--out",
                                 ground.home / "ten-epochs", "--no-export"])):
        process = subprocess.Popen([sys.executable, "-m", f"chexpert_hier.{name}", *map(str, words)], env=ground.env,
                                   cwd=ground.home, text=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        seen = list(watched(process))
        code, said = ended(process)
        tail = np.array(seen[len(seen) // 3:])  # by then everything is loaded
        early, late = (np.median(part, axis=0) for part in np.array_split(tail, 2))
        grown = f"memory {early[0]:.0f} to {late[0]:.0f} MB, open files {early[1]:.0f} to {late[1]:.0f}"
        bounded = late[0] < 1.15 * early[0] + 30 and late[1] <= early[1] + 3
        what = f"{count:,} films" if name == "predict" else "10 epochs"
        yield Trial(f"{what}: {grown}", name, "memory and open files do not grow", said if code else
                    "" if bounded else "they grow")


def watched(process: subprocess.Popen) -> Iterator[tuple[float, int]]:
    """Resident megabytes and open files of a process, four times a second."""
    while process.poll() is None:
        try:
            lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
            held = next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS"))
            yield held, len(os.listdir(f"/proc/{process.pid}/fd"))
        except (OSError, StopIteration):
            return
        time.sleep(0.25)


TRIALS: dict[str, Callable] = {"pairs": pairs, "readers": readers, "terminated": terminated,
                               "children": children_killed, "surroundings": surroundings, "threads": threads,
                               "many": many}


def section(trials: list[Trial], command: str, seconds: float) -> str:
    """What docs/faults.md says of them."""
    groups = collections.defaultdict(list)
    for trial in trials:
        groups[trial.what, trial.command, trial.expected].append(trial)
    lines = [f"`{command}` · {machine()} · {versions('tensorflow', 'keras', 'numpy')} · {date.today().isoformat()} · "
             f"{seconds / 60:.0f} minutes", "", HEAD]
    for (what, name, expected), group in groups.items():
        good = sum(not trial.wrong for trial in group)
        lines.append(f"| {what} | {name} | {len(group)} | {good} | {expected} |")
    wrong = [f"* {one.what}, {one.command}: {' '.join(one.wrong.split())[:400]}" for one in trials if one.wrong]
    return "\n".join([*lines, *(["", "Otherwise:", "", *wrong] if wrong else [])])


def main(argv: list[str] | None = None) -> int:
    """Try them; 0 when all was as it should be."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=TRIALS, default=list(TRIALS))
    parser.add_argument("--films", type=int, default=20000, help="that are predicted by `many`")
    parser.add_argument("--place", type=Path, help="keep the films and the run there, and use them again")
    parser.add_argument("--write", action="store_true")
    args = parser.parse_args(argv)
    began, trials = time.monotonic(), []
    command = f"python -m experiments.conditions --only {' '.join(args.only)} --films {args.films}"
    with tempfile.TemporaryDirectory(prefix="conditions_") as home:
        os.chmod(home, 0o755)
        if args.place:
            shutil.copytree(place.make(args.place).films.parent, Path(home) / "place")
        ground = Ground(Path(home), place.make(Path(home) / "place"))
        for name in args.only:
            for trial in TRIALS[name](ground, args.films) if name == "many" else TRIALS[name](ground):
                trials.append(trial)
                print(json.dumps(trial.__dict__), flush=True)
                if args.write:
                    kill_test.put("At once, and in odd surroundings", section(trials, command,
                                                                              time.monotonic() - began))
    print(section(trials, command, time.monotonic() - began))
    return int(any(trial.wrong for trial in trials))


if __name__ == "__main__":
    sys.exit(commands.answer(main))
