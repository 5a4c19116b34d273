"""The job on Ray Data: blocks of the list of films go to workers that score and write one at a time.

The only module that imports Ray. Scheduling, restarts, retries, checkpoints and the two-phase commit
of files are Ray's. Scoring is part of the write, so that between a block's begin and its commit
nothing waits: what is killed is scored again block by block, at most one for each worker. `Write` on
a pool of actors has no public name in Ray 2.60, hence the internal imports, and with
`CheckpointConfig` (beta) the narrow pin in setup.cfg.
"""

import contextlib
import functools
import logging
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.data._internal.datasource.parquet_datasink import ParquetDatasink
from ray.data._internal.logical.interfaces import LogicalPlan
from ray.data._internal.logical.operators import Write
from ray.data.block import BlockMetadata
from ray.data.checkpoint.interfaces import CheckpointConfig
from ray.data.datasource import Datasource, ReadTask

from ..errors import InputError
from ..files import raise_if_disk
from .commits import Counted, ResultStore
from .manifest import Manifest
from .worker import Opening, Worker

# A resumed job needs a place each for reading the list, the filter of what is done and one worker;
# with two places it waits for ever (measured with ray 2.60.0).
PACKAGE = Path(__file__).parents[1]
LEAST_CPUS, BESIDE_WORKERS = 4, 3
LOCAL_CPUS = 8
STORE_BYTES = 256 << 20  # of one machine's own Ray: lists of films and ids pass through it, no films
FILTER_BYTES = 256 << 20
BYTES_A_ROW = 200


@dataclass(frozen=True)
class Means:
    """What the cluster gives to the job.

    Attributes:
        workers: actors, each with the models.
        gpu_share: of a card, for each worker; 0 without cards.
        threads: of the processor, for each worker's network.
    """

    workers: int
    gpu_share: float
    threads: int


@contextlib.contextmanager
def connected(address: str | None, workers: int | None) -> Iterator[Means]:
    """A running Ray: the cluster at `address`, or one of this machine's own that ends with the job, however that ends.

    Args:
        address: of a cluster, or "auto" for the one that runs here; None starts one.
        workers: how many; None chooses by the processors and cards.

    Raises:
        InputError: no cluster there, or one that is too small.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    logging.getLogger("ray").setLevel(logging.ERROR)
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # what it logs as errors, with their traces, it raises too
    try:
        with _without_notes():
            _init(address, workers)
    except (ConnectionError, ValueError, RuntimeError) as error:
        where = f"--address {address}: no Ray cluster can be reached there" if address else "Ray does not start here"
        raise InputError(f"{where} ({' '.join(str(error).split())[:200]}); `ray start --head` starts "
                         "a cluster") from None
    try:
        yield _means(address, workers, cores)
    finally:
        ray.shutdown()


def _init(address: str | None, workers: int | None) -> None:
    quiet = {"logging_level": logging.ERROR, "log_to_driver": False}
    if address:  # every machine gets this very code
        ray.init(address=address, runtime_env={"py_modules": [str(PACKAGE)]}, **quiet)
        return
    _own_code_first()
    ray.init("local", num_cpus=max(LOCAL_CPUS, (workers or 0) + BESIDE_WORKERS), include_dashboard=False,
             object_store_memory=STORE_BYTES, **quiet)


@contextlib.contextmanager
def _without_notes() -> Iterator[None]:
    """Keep back what Ray's C++ code writes straight to file descriptor 2; what goes wrong still raises."""
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _own_code_first() -> None:
    """Let workers of this machine find this package, installed or not."""
    known = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    if str(PACKAGE.parent) not in known:
        os.environ["PYTHONPATH"] = os.pathsep.join([str(PACKAGE.parent), *filter(None, known)])


def _means(address: str | None, workers: int | None, cores: int) -> Means:
    there = ray.cluster_resources()
    cpus, cards = int(there.get("CPU", 0)), there.get("GPU", 0)
    least = max(LEAST_CPUS, (workers or 1) + BESIDE_WORKERS)
    if cpus < least:
        raise InputError(f"--address {address}: the cluster has {cpus} logical CPUs; expected at least "
                         f"{least} for {workers or 1} workers and what feeds them (a smaller one would "
                         "wait for ever on resuming); `ray start --num-cpus` sets them")
    real = cpus if address else cores
    chosen = workers or int(cards) or max(1, min(real // 2, cpus - BESIDE_WORKERS))
    share = min(1.0, int(1000 * cards / chosen) / 1000)
    return Means(chosen, share, max(1, real // chosen))


def score(manifest: Manifest, store: ResultStore, opening: Opening, means: Means) -> Iterator[Counted]:
    """Score what is not committed yet; gives after each block what it held.

    Args:
        manifest: the films.
        store: what is done, and where results go; repaired before.
        opening: how a worker opens the models.
        means: of `connected`.

    Raises:
        InputError: a worker cannot open the models, or the disk is full; what is committed is kept.
    """
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = context.print_on_execution_start = False
    config = CheckpointConfig("id", store.checkpoint.path, delete_checkpoint_on_success=False,
                              override_filesystem=store.out.arrow())
    config.checkpoint_actor_memory_bytes = FILTER_BYTES
    context.checkpoint_config = config
    films = ray.data.read_datasource(_Films(manifest), override_num_blocks=manifest.blocks)
    sink = _Scoring(ResultStore(store.out), opening, means.threads)
    sink.on_write_start()
    pool = ray.data.ActorPoolStrategy(size=means.workers, max_tasks_in_flight_per_actor=2)
    write = Write(sink, input_dependencies=[films._logical_plan.dag], compute=pool,
                  ray_remote_args={"num_cpus": 1, "num_gpus": means.gpu_share})
    written = ray.data.Dataset._from_parent(films, LogicalPlan(write, films.context))
    try:
        for bundle in written.iter_internal_ref_bundles():
            for done in ray.get(list(bundle.block_refs)):
                yield from done["write_return"].dropna()
    except ray.exceptions.RayTaskError as error:
        cause = error.cause if isinstance(error.cause, Exception) else error
        raise_if_disk(cause, str(store.out))
        if isinstance(cause, InputError):
            raise InputError(str(cause).split("\nFailed to apply")[0]) from None
        raise


class _Films(Datasource):
    """The list of films, one read task a block: Ray would merge the rows of a small file into one."""

    def __init__(self, manifest: Manifest):
        super().__init__()
        self.manifest = manifest

    def estimate_inmemory_data_size(self) -> int:
        return BYTES_A_ROW * self.manifest.rows

    def get_read_tasks(self, parallelism: int, per_task_row_limit: int | None = None, data_context: Any = None) \
            -> list[ReadTask]:
        return [ReadTask(functools.partial(_block, self.manifest, number), self._about(number))
                for number in range(self.manifest.blocks)]

    def _about(self, number: int) -> BlockMetadata:
        rows = self.manifest.rows_in(number)
        return BlockMetadata(num_rows=rows, size_bytes=BYTES_A_ROW * rows, input_files=None, exec_stats=None)


def _block(manifest: Manifest, number: int) -> list:
    return [manifest.block(number)]


class _Scoring(ParquetDatasink):
    """A sink that scores what it is given to write; in each actor it opens the models once."""

    def __init__(self, store: ResultStore, opening: Opening, threads: int):
        super().__init__(store.results.path, filesystem=store.out.arrow(), arrow_parquet_args={"compression": "zstd"})
        self.store, self.opening, self.threads = store, opening, threads
        self.worker: Worker | None = None

    def write(self, blocks: Any, ctx: Any) -> Counted:
        tables = [table for table in blocks if len(table)]
        if not tables:  # of a block that is done already the filter leaves nothing, not even columns
            return Counted(0, 0)
        if self.worker is None:
            _prepare_process(self.threads)
            self.worker = self.opening.worker()
        with self.store.in_hand(tables[0]["id"][0].as_py()) as deaths:
            scored = [self.worker.score_after(deaths, table) for table in tables]
            super().write(scored, ctx)
        rows = sum(len(table) for table in scored)
        return Counted(rows, rows - sum(table["error"].null_count for table in scored))


def _prepare_process(threads: int) -> None:
    """What an actor must know before it imports TensorFlow: its share of the processor, and not to take whole cards."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ["TF_NUM_INTRAOP_THREADS"] = str(threads)
    os.environ["TF_FORCE_GPU_ALLOW_GROWTH"] = "true"
    assert "tensorflow" not in sys.modules, "TensorFlow was imported before the worker's share was known"
