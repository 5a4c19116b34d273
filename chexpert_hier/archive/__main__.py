"""Score a whole archive: millions of films from disk or object storage on one machine or a Ray cluster, to Parquet.

    python -m chexpert_hier.archive FOLDER|MANIFEST.parquet|MANIFEST.csv --model RUN [RUN ...] --out DIR

Every film becomes exactly one row, whatever is killed in between; go on with --resume. docs/scale.md has the rates.
"""

import argparse
import contextlib
import importlib.util
import json
import logging
import os
import sys
import time
from pathlib import Path

from .. import commands
from ..errors import InputError, install
from ..files import locked, remove_leftovers
from ..finished.arguments import add_models
from ..finished.onnx_network import OnnxFile
from ..run_folder import read_facts
from . import job, lease, places, summary
from .commits import Counted, ResultStore
from .manifest import Manifest, Source
from .progress import Progress, duration
from .worker import Opening

log = logging.getLogger("chexpert_hier.archive")

ROUNDS = 3  # a worker that outlived a killed driver may undo a block in the moment of resuming: look again
BYTES_A_ROW = 600  # of results, measured (docs/scale.md); --dry-run asks for this much free space
SAMPLE = 200  # films that --dry-run looks for


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    answer = commands.Parser(prog="python -m chexpert_hier.archive", description=__doc__.splitlines()[0])
    add = answer.add_argument
    add("films", metavar="FOLDER|MANIFEST", help="a folder of films, or a .parquet or .csv file with "
        "a column Path (and, if you like, id, unique integers, and Frontal/Lateral); a path, or an "
        "address such as s3://bucket/films")
    add_models(answer, ", where every machine finds them")
    add("--out", required=True, metavar="DIR", help="folder for the results, on a disk that every machine sees or in "
        "object storage")
    add("--address", help="address of a running Ray cluster, or auto; without it Ray is started on this machine alone")
    add("--resume", action="store_true", help=commands.RESUME)
    add("--retry-failed", action="store_true", help="also score again the films that ended with an error")
    add("--rows-per-file", type=int, default=1000, metavar="N", help="films in an output file, which "
        "is also the unit of work: what a killed worker had in hand is scored again")
    add("--batch-size", type=int, default=32, help="films through the network at once (default: %(default)s)")
    add("--workers", type=int, metavar="N", help="worker processes, each with its own copy of the models "
        "(default: one for every two processors, or one for each graphics card)")
    add("--by-study", action="store_true", help="read the folder as a DICOM archive: look at every file, "
        "skip series that are no chest films, and write a row for each study as well")
    add("--dry-run", action="store_true", help="check models, films and space, and say what would be "
        "done")
    answer.add_quiet()
    return answer


def main(argv: list[str] | None = None) -> int:
    """Run the command; 0 when done."""
    args = parser().parse_args(argv)
    _check(args)
    commands.hush(args)
    out = places.at(args.out)
    with contextlib.ExitStack() as stack:
        if out.local:
            stack.enter_context(locked(out.path))
            remove_leftovers(out.path)
        elif not args.dry_run:
            stack.enter_context(lease.held(out))
        model = job.fingerprint(args.model)
        source = Source(args.films, every_file=args.by_study)
        asked = job.Asked(source.fingerprint(), model, args.engine, args.rows_per_file, args.by_study)
        store = ResultStore(out)
        goes_on = args.resume or args.retry_failed or args.dry_run or not store.committed()
        manifest = job.begin(out, source, asked, goes_on)
        opening = Opening(tuple(args.model), model, args.batch_size, args.engine, args.by_study)
        if args.dry_run:
            return _dry_run(manifest, store, opening)
        _work(args, manifest, store, opening)
    return 0


def _check(args: argparse.Namespace) -> None:
    commands.at_least(1, args, "rows_per_file", "batch_size", "workers")
    missing = [name for name in ("fsspec", "pyarrow", "ray") if importlib.util.find_spec(name) is None]
    if missing:
        raise InputError(f"archive needs {', '.join(missing)}; {install('archive')}")


def _work(args: argparse.Namespace, manifest: Manifest, store: ResultStore, opening: Opening) -> None:
    store.repair()
    if args.retry_failed:
        log.info("%d films with an error are scored again", store.forget_failed())
    start, before = time.monotonic(), store.done()
    for _ in range(ROUNDS):
        done = store.done()
        if done.rows == manifest.rows:
            break
        _score(args, manifest, store, opening, done)
        store.repair()
    _verify(manifest, store)
    _report(args, manifest, store, opening, store.done().rows - before.rows, time.monotonic() - start)


def _score(args: argparse.Namespace, manifest: Manifest, store: ResultStore, opening: Opening, done: Counted) -> None:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # Ray would report its use to its makers
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # its notes; files below its temporary folder have them all
    from . import cluster

    with cluster.connected(args.address, args.workers) as means:
        card = f" and {means.gpu_share:g} of a graphics card" if means.gpu_share else ""
        log.info("archive: %s films to score in blocks of %s; workers: %d, each with threads: %d%s",
                 f"{manifest.rows - done.rows:,}", f"{manifest.rows_per_block:,}", means.workers, means.threads, card)
        progress = Progress(manifest.rows, done.rows, done.errors)
        for counted in cluster.score(manifest, store, opening, means):
            progress.add(counted.rows, counted.errors)
        progress.close()


def _verify(manifest: Manifest, store: ResultStore) -> None:
    """Every id exactly once, by the ids themselves.

    Raises:
        InputError: some are missing or there twice.
    """
    import numpy as np

    found, expected = store.ids(), np.sort(manifest.ids())
    if not np.array_equal(found, expected):
        missing, twice = len(np.setdiff1d(expected, found)), len(found) - len(np.unique(found))
        raise InputError(f"{store.out}: {missing} films are missing and {twice} are there twice; go on with --resume")


def _report(args: argparse.Namespace, manifest: Manifest, store: ResultStore, opening: Opening, films: int,
            seconds: float) -> None:
    tables = store.tables()
    first = next(tables)
    labels = labels_of(first.column_names)
    tally = summary.Tally(labels, summary.reference(args.model, labels))
    tally.add(first)
    for table in tables:
        tally.add(table)
    rate = {"films": films, "seconds": round(seconds, 1), "films_per_second": round(films / max(seconds, 1e-9), 2)}
    found = tally.as_json() | {"this_session": rate, "models": list(args.model), "source": args.films,
                               "model_fingerprint": opening.fingerprint, "engine": args.engine}
    if args.by_study:
        found["studies"] = _studies(manifest, store, args.model[0], labels)
    (store.out / "summary.json").write((json.dumps(found, indent=1) + "\n").encode())
    print(summary.text(found))
    print(f"{films:,} films in {duration(seconds)}; rows: {store.results}, summary: {store.out / 'summary.json'}")


def labels_of(columns: list[str]) -> list[str]:
    """The findings among the columns of the results."""
    other = {"id", "Path", "study", "view", "skipped", "error", "model_fingerprint", "seconds"}
    return [name for name in columns if name not in other and not name.endswith("]")]


def _studies(manifest: Manifest, store: ResultStore, model: str, labels: list[str]) -> dict[str, object]:
    from . import studies

    rule = study_rule(Path(model))
    count = studies.write(store, labels, rule, manifest.rows)
    print(f"{count:,} studies by the rule {rule}: {store.out / studies.FOLDER}")
    return {"studies": count, "rule": rule}


def study_rule(model: Path) -> str:
    """How the (first) model's recipe makes a study's score from its films."""
    if (model / "metadata.json").is_file():
        metadata = json.loads((model / "metadata.json").read_text(encoding="utf-8"))
    elif model.suffix == ".onnx":
        metadata = OnnxFile(model).metadata
    else:
        return read_facts(model.parent if model.suffix == ".keras" else model)["recipe"]["study_score"]
    return metadata["members"][0]["recipe"]["study_score"]


def _dry_run(manifest: Manifest, store: ResultStore, opening: Opening) -> int:
    """Open the models, look for a sample of films, and compare what the results need with the free space."""
    from ..paths import unescaped

    opening.worker()
    step = max(manifest.blocks // SAMPLE, 1)
    rows = [manifest.block(number).slice(0, 1).to_pylist()[0] for number in range(0, manifest.blocks, step)]
    rows += manifest.block(0).slice(1, max(SAMPLE - len(rows), 0)).to_pylist()
    missing = [row["name"] for row in rows if not places.at(unescaped(row["path"])).exists()]
    done, free = store.done(), store.out.free()
    need = (manifest.rows - done.rows) * BYTES_A_ROW
    print(f"films: {manifest.rows:,}, of them {done.rows:,} done; {manifest.blocks:,} files of "
          f"{manifest.rows_per_block:,} rows")
    print(f"models: {', '.join(opening.models)} (fingerprint {opening.fingerprint}): open")
    print(f"looked for {len(rows):,} films: {len(missing):,} missing" + (f", e.g. {missing[0]}" if missing else ""))
    print(f"results: about {need / 1e9:.2f} GB" + ("" if free is None else f"; free: {free / 1e9:.2f} GB"))
    if free is not None and need > free:
        raise InputError(f"{store.out}: the results need about {need / 1e9:.2f} GB, "
                         f"{free / 1e9:.2f} GB are free; free some space, or choose another --out")
    if len(missing) == len(rows):
        raise InputError(f"{missing[0]}: no such file, nor any other of {len(rows)} looked for; are "
                         "the paths of the manifest relative to its folder?")
    return 0


if __name__ == "__main__":
    sys.exit(commands.answer(main))
