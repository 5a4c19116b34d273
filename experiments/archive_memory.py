"""Memory of an archive job of 1,000,000 films beside one of 20,000: what grows with films, what does not.

    python -m experiments.archive_memory --model RUN --films FOLDER --film SECONDS [--write]

The manifest names the same films again and again. The first films are really scored; for the others a
stub worker sleeps for the time that a film was measured to take (experiments/benchmarks/archive.py),
and writes rows of the same columns. Memory is sampled while the job runs.
"""

import argparse
import dataclasses
import os
import shutil
import statistics
import sys
import tempfile
import threading
import time
from datetime import date
from pathlib import Path

import numpy as np

from chexpert_hier.archive import places
from chexpert_hier.archive.commits import ResultStore
from chexpert_hier.archive.manifest import Source, make
from chexpert_hier.archive.worker import Opening, Worker

RESULTS = Path(__file__).with_name("results") / "archive_memory.md"
MARK = "CHEXPERT_HIER_BENCHMARK"
PAGE = os.sysconf("SC_PAGE_SIZE")


class Sleeping(Worker):
    """Scores blocks that begin below `real`; for others it sleeps as long as films take, and repeats rows."""

    def score(self, block):
        import pyarrow

        if block["id"][0].as_py() < self.opening.real:
            return super().score(block)
        if not hasattr(self, "last"):
            self.last = super().score(block.slice(0, 64))
        time.sleep(self.opening.film * len(block))
        rows = self.last.take(pyarrow.array(np.arange(len(block)) % len(self.last)))
        return rows.set_column(0, "id", block["id"]).set_column(1, "Path", block["name"])


@dataclasses.dataclass(frozen=True)
class Stub(Opening):
    """Opens the models, and a worker that scores the first `real` films only; `film` seconds for another one."""

    real: int = 0
    film: float = 0.0

    def worker(self) -> Worker:
        from chexpert_hier.finished.members import Views
        from chexpert_hier.predict.engine import Engine

        return Sleeping(Engine.open(self.models, Views(batch_size=self.portion)), self)


def run(args: argparse.Namespace, rows: int, home: Path) -> dict:
    """One job; memory in MB of the command, of one worker and of everything, and what it took."""
    import pyarrow
    from pyarrow import parquet

    from chexpert_hier.archive import cluster

    films = sorted(str(file.resolve()) for file in args.films.rglob("*") if file.suffix in (".jpg", ".png"))
    names = pyarrow.array(films).take(pyarrow.array(np.arange(rows) % len(films)))
    parquet.write_table(pyarrow.table({"id": np.arange(rows), "Path": names}), home / "films.parquet")
    out = places.at(home / "out")
    began = time.monotonic()
    manifest = make(Source(str(home / "films.parquet")), out / "manifest", args.rows_per_file)
    listed, store = time.monotonic() - began, ResultStore(out)
    opening = Stub((str(args.model.resolve()),), "stub", real=args.real, film=args.film)
    watch = Watch()
    began = time.monotonic()
    with cluster.connected(None, args.workers) as means, watch:
        done = sum(block.rows for block in cluster.score(manifest, store, opening, means))
    took = time.monotonic() - began
    began = time.monotonic()
    store.repair()
    same = np.array_equal(store.ids(), np.arange(rows))
    size = sum(file.stat().st_size for file in Path(store.results.path).iterdir())
    return {"films": rows, "blocks": manifest.blocks, "listed": listed, "took": took, "done": done, "once": same,
            "checked": time.monotonic() - began, "bytes": size / rows, **watch.found()}


class Watch:
    """Samples memory twice a second, from half a minute on, when all workers are there."""

    def __init__(self):
        self.command, self.worker, self.all, self.stop = [], [], [], threading.Event()

    def __enter__(self):
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.stop.set()
        self.thread.join()

    def _run(self) -> None:
        mine = f"{MARK}={os.environ[MARK]}".encode()  # other jobs of Ray on this machine are not this one's
        while not self.stop.wait(0.5):
            own, workers, rest = _resident(os.getpid()), [], 0
            for path in Path("/proc").glob("[0-9]*"):
                try:
                    line = (path / "cmdline").read_bytes()
                    if mine not in (path / "environ").read_bytes():
                        continue
                    if line.startswith(b"ray::MapWorker"):
                        workers.append(_resident(path.name))
                    elif line.startswith(b"ray::") or b"/ray/core/src/" in line:
                        rest += _resident(path.name)
                except OSError:
                    continue
            if workers:
                self.command.append(own)
                self.worker.append(max(workers))
                self.all.append(own + sum(workers) + rest)

    def found(self) -> dict:
        """Largest, in MB; of the command also the median of the job's first and last quarter."""
        quarter = max(len(self.command) // 4, 1)
        return {"command": max(self.command), "worker": max(self.worker), "all": max(self.all),
                "early": statistics.median(self.all[:quarter]), "late": statistics.median(self.all[-quarter:])}


def _resident(process: int | str) -> float:
    """MB that belong to a process alone; what Ray's processes share in /dev/shm is bounded by its object store."""
    resident, shared = map(int, Path(f"/proc/{process}/statm").read_text().split()[1:3])
    return (resident - shared) * PAGE / 1e6


def main(argv: list[str] | None = None) -> int:
    """Run both, print, and write if asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--films", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rows-per-file", type=int, default=1000)
    parser.add_argument("--real", type=int, default=4000, help="films that are really scored")
    parser.add_argument("--film", type=float, required=True, help="seconds that the stub sleeps for a film")
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--write", action="store_true")
    args = parser.parse_args(argv)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ[MARK] = str(os.getpid())
    command = f"python -m experiments.archive_memory --model RUN --films FOLDER --film {args.film:g} " \
              f"--workers {args.workers} --rows {args.rows} --real {args.real}"
    lines = ["# Memory of an archive job", "", f"`{command}` · 2 cores, no GPU · {date.today().isoformat()}", "",
             f"{args.workers} workers, {args.rows_per_file:,} films a file; private memory in MB, the largest of all "
             "samples. The last but one pair: median of the job's first and of its last quarter.", "",
             "| films | files | command | one worker | command, workers and Ray | first, last quarter | list, s | "
             "job, s | check of ids, s | bytes a row | every id once |", "|---" * 11 + "|"]
    for rows in (20_000, args.rows):
        home = Path(tempfile.mkdtemp(prefix="archive_memory"))
        try:
            one = run(args, rows, home)
        finally:
            shutil.rmtree(home)
        lines.append(f"| {rows:,} | {one['blocks']:,} | {one['command']:.0f} | {one['worker']:.0f} | "
                     f"{one['all']:.0f} | {one['early']:.0f}, {one['late']:.0f} | {one['listed']:.0f} | "
                     f"{one['took']:.0f} | {one['checked']:.0f} | {one['bytes']:.0f} | "
                     f"{'yes' if one['once'] else 'NO'} |")
        print(lines[-1], flush=True)
    print("\n".join(lines))
    if args.write:
        RESULTS.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
