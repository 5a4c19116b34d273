"""Kill, interrupt and starve every command at random moments, go on with --resume, compare with what was left alone.

    python -m experiments.kill_test [--kills 20] [--seed 0] [--write]

A moment is a share of the processor time that the command needs when nobody disturbs it. After the fault the same
command runs again with --resume, and its files are compared with those of an undisturbed one: names of files (no
orphans), CSV, JSON, HTML, PNG and crops byte by byte, networks and checkpoints array by array, bit for bit. Left out
are what tells the time: the log's column of seconds, date and command line in recipe.json, all three in report.html.
`--write` puts the table into docs/faults.md.
"""

import argparse
import collections
import io
import json
import os
import platform
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from datetime import date
from functools import partial
from pathlib import Path

import numpy as np

from chexpert_hier import commands
from chexpert_hier.files import write_text
from experiments.benchmarks import machine, versions
from experiments.pages import wrapped

PAGE, TITLE = Path(__file__).parents[1] / "docs" / "faults.md", "Killed, interrupted, starved"
# How many of every 20 faults a command gets; what runs longest has the most moments.
# What asks for the same again: to go on, to replace what is there, or (evaluate) nothing.
AGAIN = {"run": ["--resume"], "prepare": ["--resume"], "predict": ["--resume"], "evaluate": [], "export": ["--replace"]}
SHARES = {"run": 8, "prepare": 4, "predict": 3, "evaluate": 2, "export": 3}
QUICK = ("--recipe", "phantom", "--arch", "tiny", "--image-size", "32", "--epochs", "2", "--batch-size", "8", "--set",
         "template_films=20", "--deterministic", "--checkpoint-every", "2", "--no-export", "--quiet")
LIMIT = 1500  # seconds after which a command counts as hanging
TIMES = re.compile(r"<dt>(Command|Started)</dt><dd>[^<]*</dd>|\b(\d+ h \d+ min|\d+ min \d+ s|\d+ s)\b")


class Place:
    """A folder with films, an undisturbed result of each command, and how much processor time each took."""

    def __init__(self, home: Path):
        self.home, self.cpu = home, {}
        self.env = {**os.environ, "CHEXPERT_HIER_HOME": str(home), "KERAS_HOME": str(home / "keras"),
                    "PYTHONPATH": str(Path(__file__).parents[1])}
        self.ask("phantom", "--out", home / "films", "--patients", 24, "--valid-patients", 12, "--no-laterals")
        for name in SHARES:
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            answer = self.ask(name, *self.arguments(name, home / f"{name}-alone"))
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            self.cpu[name] = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
            print(f"{name}: {self.cpu[name]:.1f} s of processor time{answer and ''}", flush=True)

    def arguments(self, name: str, out: Path) -> list:
        """The command line, but for the module's name; the results lie in the folder `out`."""
        films, run = self.home / "films", self.home / "run-alone" / "out"
        out = out / "out"
        return {
            "run": [*QUICK, "--data", films, "--out", out],  # prepares its own crops, beside `out`
            "prepare": ["--data", films, "--out", out, "--recipe", "phantom", "--set", "template_films=20", "--quiet"],
            "predict": [films / "valid.csv", "--model", run, "--tta", 3, "--out", out / "predictions.csv", "--quiet"],
            "evaluate": ["--predictions", run / "predictions.csv", "--truth", run / "truth.csv", "--out", out,
                         "--replicates", 200, "--quiet"],
            "export": ["--model", run, "--out", out / "saved_model"],
        }[name]

    def start(self, name: str, arguments: list, **options) -> subprocess.Popen:
        """The command as a process of its own."""
        return subprocess.Popen([sys.executable, "-m", f"chexpert_hier.{name}", *map(str, arguments)], env=self.env,
                                cwd=self.home, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, **options)

    def ask(self, name: str, *arguments, **options) -> tuple[int, str]:
        """Exit code and stderr of a command that is let run to its end; anything but 0 and 2 is an error here."""
        process = self.start(name, list(arguments), **options)
        _, error = process.communicate(timeout=LIMIT)
        if process.returncode not in (0, 2):
            raise RuntimeError(f"{name}: exit code {process.returncode}: {error[-3000:]}")
        return process.returncode, error


def disturb(place: Place, name: str, number: int, share: float, how: signal.Signals) -> dict:
    """Start a command, send signal `how` at `share` of its processor time, resume, compare."""
    out = place.home / f"{name}-{how.name}-{number}"
    arguments = place.arguments(name, out)
    process = place.start(name, arguments)
    while process.poll() is None and cpu_seconds(process.pid) < share * place.cpu[name]:
        time.sleep(0.02)
    process.send_signal(how)
    _, error = process.communicate(timeout=LIMIT)
    code = process.returncode
    hit = code == (-signal.SIGKILL if how == signal.SIGKILL else 130)
    lost = unsaved(out / "out") if name == "run" and hit else ""
    again, second = place.ask(name, *arguments, *AGAIN[name])
    wrong = differences(place.home / f"{name}-alone" / "out", out / "out") if again == 0 else [second.strip()]
    if how == signal.SIGINT and (code not in (0, 130) or (code == 130 and "Traceback" in error)):
        wrong.append(f"exit code {code}: {error.strip()[-300:]}")
    print(f"{how.name} {name} at {share:.0%}: {'hit' if hit else 'had finished'}, {lost or '-'}; "
          f"{wrong or 'the same'}", flush=True)
    if not wrong:
        shutil.rmtree(out, ignore_errors=True)
    return {"fault": "kill -9" if how == signal.SIGKILL else "Ctrl-C", "command": name, "hit": hit, "wrong": wrong}


def cpu_seconds(pid: int) -> float:
    """Processor time that a living process has used."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return float("inf")
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def unsaved(run: Path) -> str:
    """Where the killed run's last checkpoint stands, in words."""
    if not (run / "checkpoint.npz").exists():
        return "no checkpoint yet"
    with np.load(run / "checkpoint.npz", allow_pickle=False) as arrays:
        state = json.loads(str(arrays["state"]))
    return f"checkpoint at stage {state['stage'] + 1}, epoch {state['epoch'] + 1}, batch {state['batch']}"


# ---------------------------------------------------------------------------------------------------- comparing

def differences(one: Path, other: Path) -> list[str]:
    """What differs between two folders of results, in words."""
    names = [{path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()} - {".lock"}
             for folder in (one, other)]
    found = [f"{name}: in one of them only" for name in sorted(names[0] ^ names[1])]
    return found + [f"{name}: differs" for name in sorted(names[0] & names[1])
                    if content(one / name) != content(other / name)]


def content(path: Path):
    """What of a file must be the same: its bytes, without what tells the time or depends on the place."""
    if path.suffix == ".keras":
        with zipfile.ZipFile(path) as archive:
            config = json.loads(archive.read("config.json"))
            return without_addresses(config), arrays_of_h5(archive.read("model.weights.h5"))
    if path.name in ("checkpoint.npz", "checkpoint.before.npz"):
        with np.load(path, allow_pickle=False) as arrays:
            state = json.loads(str(arrays["state"]))
            for row in state["log"]:
                del row["seconds"]
            return state, {name: arrays[name].tobytes() for name in arrays.files if name != "state"}
    if path.name == "log.csv":
        return [line.rsplit(",", 1)[0] for line in path.read_text().splitlines()]
    if path.name == "recipe.json":
        facts = json.loads(path.read_text())
        return {name: value for name, value in facts.items() if name not in ("started", "command")}
    if path.name == "report.html":
        return TIMES.sub("", path.read_text(encoding="utf-8"))
    if "saved_model" in path.parts and path.suffix != ".json":
        # TensorFlow writes the graph's entries in any order; the variables are compared array by array.
        return saved_variables(path.parent) if path.name == "variables.index" else path.stat().st_size > 0
    return path.read_bytes()


def without_addresses(value):
    """A network's description without the numbers by which Keras knows shared objects, which are addresses."""
    if isinstance(value, dict):
        return {name: without_addresses(item) for name, item in value.items() if name != "shared_object_id"}
    return [without_addresses(item) for item in value] if isinstance(value, list) else value


def saved_variables(folder: Path) -> list[bytes]:
    """The arrays of a SavedModel, in an order of their own."""
    import tensorflow as tf

    reader = tf.train.load_checkpoint(str(folder / "variables"))
    return sorted(np.asarray(reader.get_tensor(name)).tobytes() for name, dtype in
                  reader.get_variable_to_dtype_map().items() if dtype != tf.string)


def arrays_of_h5(data: bytes) -> dict[str, bytes]:
    """Name -> bytes of all arrays."""
    import h5py

    arrays = {}
    with h5py.File(io.BytesIO(data)) as file:
        file.visititems(lambda name, item: arrays.__setitem__(name, item[()].tobytes()) if hasattr(item, "shape")
                        else None)
    return arrays


# ---------------------------------------------------------------------------------------------------- other faults

def full_disk(place: Place, kilobytes: int, prepared: bool) -> dict:
    """A run that may write files of at most so many kilobytes, then one that may write all.

    With `prepared` crops it comes as far as its first checkpoint, else it stops at the crops.
    """
    out = place.home / f"run-full-{prepared}"
    arguments = place.arguments("run", out)
    for cache in (place.home / "run-alone").glob("crops-*") if prepared else ():
        shutil.copytree(cache, out / cache.name)
    limit = (kilobytes * 1024,) * 2
    code, error = place.ask("run", *arguments, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limit))
    said = error.strip().splitlines()[-1:]  # what stands above is TensorFlow's
    wrong = [] if code == 2 and said[0].startswith("error: ") else [f"exit code {code}: {error.strip()[-300:]}"]
    if "Traceback" in error or list(out.rglob("*.part*")):
        wrong.append("a traceback or half a file")
    place.ask("run", *arguments, "--resume")
    wrong += differences(place.home / "run-alone" / "out", out / "out")
    print(f"files of {kilobytes} kB at most: {wrong or 'the same'}: {error.strip()[-200:]}", flush=True)
    return {"fault": "no room to write", "command": "run", "hit": code == 2, "wrong": wrong}  # "hit": it said so


def second_run(place: Place) -> dict:
    """A second run into the folder of a living one."""
    out = place.home / "run-twice"
    first = place.start("run", place.arguments("run", out))
    while first.poll() is None and not (out / "out" / ".lock").exists():
        time.sleep(0.02)
    code, error = place.ask("run", *place.arguments("run", out), "--resume")
    first.communicate(timeout=LIMIT)
    wrong = differences(place.home / "run-alone" / "out", out / "out")
    if code != 2 or "another process" not in error:
        wrong.append(f"exit code {code}: {error.strip()[-300:]}")
    print(f"a second run: {wrong or 'refused'}", flush=True)
    return {"fault": "second run into the same folder", "command": "run", "hit": code == 2, "wrong": wrong}


def page(results: list[dict], planned: int, command: str, seconds: float) -> str:
    """What docs/faults.md says of them; says so where not all planned faults have been tried yet."""
    lines = ["\"Hit\" are those that had not finished before the fault. What is compared, and how, stands at the top "
             "of `experiments/kill_test.py`.", "",
             f"`{command}` · {machine()} · {platform.system()} · "
             f"{versions('tensorflow', 'keras', 'numpy')} · {date.today().isoformat()} · "
             f"{seconds / 60:.0f} minutes", "",
             "| fault | command | tried | hit | result as if undisturbed | lost |", "|---|---|---|---|---|---|"]
    groups = collections.defaultdict(list)
    for result in results:
        groups[result["fault"], result["command"]].append(result)
    for (fault, name), group in groups.items():
        good = sum(not result["wrong"] for result in group)
        lost = {"run": "at most the batches since the last checkpoint", "prepare": "at most the chunks under way",
                "predict": "at most the portion under way"}.get(name, "what this call had done")
        lines.append(f"| {fault} | {name} | {len(group)} | {sum(r['hit'] for r in group)} | {good} of {len(group)} | "
                     f"{'nothing' if fault.startswith('second') else lost} |")
    wrong = [f"* {r['fault']}, {r['command']}: {text}" for r in results for text in r["wrong"]]
    if len(results) < planned:
        lines += ["", f"Not finished: {len(results)} of {planned} planned faults."]
    return "\n".join([*lines, *(["", "What differed:", "", *wrong] if wrong else [])])


def put(title: str, text: str) -> None:
    """Replace a section of docs/faults.md, or add it at the end; the others belong to other scripts and to people."""
    head, *sections = PAGE.read_text(encoding="utf-8").rstrip("\n").split("\n## ")
    own = f"{title}\n\n{wrapped(text)}\n"
    places = [place for place, section in enumerate(sections) if section.partition("\n")[0] == title]
    if places:
        sections[places[0]] = own
    else:
        sections.append(own)
    write_text(PAGE, "\n## ".join(one.rstrip("\n") + "\n" for one in [head, *sections]))


def main(argv: list[str] | None = None) -> int:
    """Try the faults; 0 when nothing was lost that should not have been."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20, help="kill -9 at so many random moments")
    parser.add_argument("--interrupts", type=int, default=6, help="Ctrl-C at so many")
    parser.add_argument("--only", nargs="+", choices=SHARES, default=list(SHARES), help="these commands")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--write", action="store_true")
    args = parser.parse_args(argv)
    began, random, results = time.monotonic(), np.random.default_rng(args.seed), []
    names = [name for name, share in SHARES.items() for _ in range(share) if name in args.only]
    random.shuffle(names)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored under nohup, and then in its children too
    command = "python -m experiments.kill_test " + " ".join(sys.argv[1:] if argv is None else argv)
    with tempfile.TemporaryDirectory(prefix="kill_test_") as home:
        place = Place(Path(home))
        faults = [partial(disturb, place, names[number % len(names)], number, random.uniform(0, 1), signal.SIGKILL)
                  for number in range(args.kills)]
        # From where the package is found: before, it is Python itself that starts.
        faults += [partial(disturb, place, args.only[number % len(args.only)], number, random.uniform(0.05, 0.95),
                           signal.SIGINT) for number in range(args.interrupts)]
        if "run" in args.only:
            faults += [partial(full_disk, place, 64, False), partial(full_disk, place, 64, True),
                       partial(second_run, place)]
        for fault in faults:
            results.append(fault())
            if args.write:  # after each, so that a table is there when this script is stopped itself
                put(TITLE, page(results, len(faults), command.strip(), time.monotonic() - began))
    print(page(results, len(faults), command.strip(), time.monotonic() - began))
    return int(any(result["wrong"] for result in results))


if __name__ == "__main__":
    sys.exit(commands.answer(main))
