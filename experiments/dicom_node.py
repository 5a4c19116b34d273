"""Films in a row through the node beside a real Orthanc: rate, memory, and that each has one report and one picture.

    python -m experiments.dicom_node --model RUN --films FOLDER [--count 500] [--write]

Starts Debian's Orthanc on free loopback ports, puts the folder's JPEGs into it as DICOM films with UIDs of their own
(the same pictures again and again), and runs the command once. Half of the films come while it works.
"""

import argparse
import collections
import itertools
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from datetime import date
from pathlib import Path

import cv2

HOME = Path(__file__).parents[1]
RESULTS = Path(__file__).with_name("results") / "dicom_node.md"


def measure(model: Path, films: Path, count: int, folder: Path) -> dict:
    """Run it: films answered a second, processor seconds a film, memory in MB, and what is in the archive then."""
    sys.path[:0] = [str(HOME / "tests"), str(HOME / "tests" / "dicom_node")]
    import made_films
    import orthanc_server

    pictures = [cv2.imread(str(file), cv2.IMREAD_GRAYSCALE) for file in sorted(films.rglob("*frontal*.jpg"))[:50]]
    made = (made_films.dicom(grey, number) for number, grey in zip(range(1, count + 1), itertools.cycle(pictures)))
    with orthanc_server.running(folder / "orthanc") as server:
        for data in itertools.islice(made, count // 2):
            server.post(data)
        rest = threading.Thread(target=lambda: [server.post(data) for data in made])
        process = subprocess.Popen(
            [sys.executable, "-m", "chexpert_hier.dicom_node", "--orthanc", server.address, "--model", str(model),
             "--place", str(folder / "place"), "--once", "--every", "1"], cwd=HOME, stdout=subprocess.PIPE, text=True,
            stderr=subprocess.STDOUT)
        done, memory, worked, said = [], [], [], []
        for line in process.stdout:
            said.append(line)
            if line.rstrip().endswith(": answered"):
                done.append(time.monotonic())
                memory.append(_resident(process.pid))
                worked.append(_worked(process.pid))
            if len(done) == 1 and not rest.ident:
                rest.start()
        assert process.wait() == 0, "".join(said[-20:])
        rest.join()
        objects = collections.Counter(one["MainDicomTags"]["Modality"] for one in server.ask("/series?expand"))
    return {"films": count, "said": said[-1].strip(), "objects": dict(objects), "rate": _rate(done),
            "first": 1 / _rate(worked[:count // 4]), "last": 1 / _rate(worked[-count // 4:]),
            "early": memory[count // 10], "late": statistics.median(memory[-count // 10:]), "most": max(memory)}


def _rate(times: list[float]) -> float:
    return (len(times) - 1) / (times[-1] - times[0])


def _worked(process: int) -> float:
    """Seconds of the processor."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _resident(process: int) -> float:
    """MB."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS")).split()[1]) / 1000


def text(found: dict, command: str) -> str:
    """The page."""
    objects = ", ".join(f"{name} {number}" for name, number in sorted(found["objects"].items()))
    memory = f"{found['early']:.0f}; {found['late']:.0f}; {found['most']:.0f}"
    return f"""# {found['films']} films in a row through the node

`{command}` · 2 cores, no GPU · {date.today().isoformat()}

Beside Debian's Orthanc 1.10 on the same machine, which other jobs used too. Half of the films came while the node
worked.

| what | found |
|---|---|
| the command's last line | {found['said']} |
| series in the archive by modality | {objects} |
| films a second, with all that else went on | {found['rate']:.2f} |
| the node's processor seconds a film: first quarter; last quarter | {found['first']:.2f}; {found['last']:.2f} |
| memory in MB: after a tenth; median of the last tenth; most | {memory} |
"""


def main(argv: list[str] | None = None) -> int:
    """Run, print, and write if asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--films", type=Path, required=True)
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--write", action="store_true")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="dicom_node") as folder:
        found = measure(args.model.resolve(), args.films, args.count, Path(folder))
    page = text(found, f"python -m experiments.dicom_node --model RUN --films FOLDER --count {args.count}")
    print(page)
    if args.write:
        RESULTS.write_text(page, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
