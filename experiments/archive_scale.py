"""How long an archive takes on a cluster, with slow machines, dying workers and dying machines: a simulation.

    python -m experiments.archive_scale [--write]

Blocks of films go to the worker that is free next, as Ray Data hands them out; a worker that dies loses the block in
hand and needs its start again. All rates but those of failure are measured (docs/scale.md says where).
"""

import argparse
import heapq
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

RESULTS = Path(__file__).with_name("results") / "archive_scale.md"
REPEATS = 20


@dataclass(frozen=True)
class Cluster:
    """What is simulated.

    Attributes:
        films: in the archive.
        rows: films in a block.
        workers: processes that score.
        machine_of: workers on one machine, which live and die together.
        film: seconds of one worker for a film.
        jitter: sigma of a block's log-normal factor (films differ, disks are busy).
        slow_share, slow_factor: of the machines are slow by this factor, all the time.
        worker_hours, machine_hours: mean hours until a worker (out of memory, a decoder's crash) or a machine dies.
        restart, machine_restart: seconds until a worker scores again, and until a machine's workers are replaced.
        start: seconds until the first film is scored.
    """

    films: int
    rows: int
    workers: int
    machine_of: int = 16
    film: float = 0.06
    jitter: float = 0.1
    slow_share: float = 0.0
    slow_factor: float = 3.0
    worker_hours: float = np.inf
    machine_hours: float = np.inf
    restart: float = 20.0
    machine_restart: float = 600.0
    start: float = 30.0


def simulate(cluster: Cluster, random: np.random.Generator) -> tuple[float, float]:
    """Hours until all is written, and the share of films that were scored again.

    Args:
        cluster: what is simulated.
        random: where chance comes from.
    """
    blocks, lost = -(-cluster.films // cluster.rows), 0
    machines = -(-cluster.workers // cluster.machine_of)
    slow = np.where(random.random(machines) < cluster.slow_share, cluster.slow_factor, 1.0)
    dies = cluster.start + 3600 * random.exponential(cluster.machine_hours, machines)
    free = [(cluster.start, worker) for worker in range(cluster.workers)]
    heapq.heapify(free)
    end = 0.0
    while blocks:
        now, worker = heapq.heappop(free)
        machine = worker // cluster.machine_of
        seconds = cluster.rows * cluster.film * slow[machine] * random.lognormal(0, cluster.jitter)
        crash = now + 3600 * random.exponential(cluster.worker_hours)
        if now >= dies[machine]:  # it is gone; its successor begins later
            again = dies[machine] + cluster.machine_restart
            if now >= again:
                dies[machine] = again + 3600 * random.exponential(cluster.machine_hours)
                again = now
            heapq.heappush(free, (max(again, now), worker))
        elif min(crash, dies[machine]) < now + seconds:
            lost += cluster.rows
            gone = min(crash, dies[machine])
            heapq.heappush(free, (gone + (cluster.restart if gone == crash else 0.0), worker))
        else:
            blocks -= 1
            end = max(end, now + seconds)
            heapq.heappush(free, (now + seconds, worker))
    return end / 3600, lost / cluster.films


def ideal(cluster: Cluster) -> float:
    """Hours with equal workers that never die and never wait."""
    return cluster.films * cluster.film / cluster.workers / 3600


CASES = {
    "nothing goes wrong": {},
    "one machine in ten three times slower": {"slow_share": 0.1},
    "a worker dies every 24 hours of its life": {"worker_hours": 24.0},
    "a machine dies every 10 days of its life": {"machine_hours": 240.0},
    "all three": {"slow_share": 0.1, "worker_hours": 24.0, "machine_hours": 240.0},
    "preemptible machines: each dies every 2 hours": {"machine_hours": 2.0, "machine_restart": 180.0},
}


def table(base: Cluster, rows: tuple[int, ...]) -> list[str]:
    """Markdown lines: cases by block sizes, hours over the ideal and films scored again."""
    lines = ["| | " + " | ".join(f"{count:,} films a file" for count in rows) + " |", "|---|" + "---|" * len(rows)]
    for name, changes in CASES.items():
        cells = []
        for count in rows:
            cluster = replace(base, rows=count, **changes)
            hours, again = np.array([simulate(cluster, np.random.default_rng(seed)) for seed in range(REPEATS)]).T
            cells.append(f"{np.median(hours) / ideal(cluster):.3f} ({hours.max() / ideal(cluster):.3f}); "
                         f"{100 * np.mean(again):.2f} %")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return lines


def main(argv: list[str] | None = None) -> int:
    """Simulate, print, and write if asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--film", type=float, default=Cluster.film, help="seconds of one worker for a film")
    parser.add_argument("--write", action="store_true")
    args = parser.parse_args(argv)
    lines = ["# An archive on a cluster, with slow and dying machines", "",
             f"`python -m experiments.archive_scale --film {args.film:g}`: {REPEATS} simulations each; hours until all "
             "is written over the hours of equal workers that never wait (median, in brackets the worst), and films "
             "scored again.", ""]
    for films, workers in ((1_000_000, 64), (100_000_000, 1024)):
        base = Cluster(films, 1000, workers, film=args.film)
        machines = -(-workers // base.machine_of)
        lines += [f"## {films:,} films, {workers:,} workers on {machines} machines; ideal {ideal(base):.1f} h", "",
                  *table(base, (250, 1000, 4000) if films < 1e7 else (1000, 4000)), ""]
    print("\n".join(lines))
    if args.write:
        RESULTS.write_text("\n".join(lines).rstrip() + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
