"""Requests that come at the same time go through the network together, and one that fails harms no other."""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any


class BusyError(Exception):
    """More is waiting than the server promises to answer; the client may try again."""


@dataclass(frozen=True)
class Limits:
    """What one server takes on.

    Attributes:
        batch: films that go through the network at once.
        wait: seconds that a film waits for others to join it, when the network is idle.
        waiting: films that may wait; more are refused.
        body: bytes of one request.
        bodies: bytes of all requests that are being read or answered.
        films: films in one request.
        pixels: pixels of decoded films that are held at once; a film is not decoded before there is room.
        read: seconds in which a request's body must have arrived.
    """

    batch: int = 32
    wait: float = 0.002
    waiting: int = 256
    body: int = 128 * 2 ** 20
    bodies: int = 512 * 2 ** 20
    films: int = 64
    pixels: int = 400_000_000
    read: float = 60.0


class Batcher:
    """Collects what is asked one by one and has it answered in batches, in one thread, first come first served.

    While a batch is answered the next one gathers: batches grow with the load, and a single request hardly waits.

    Args:
        work: a batch's items -> their answers, in order; called in a thread of its own.
        limits: `batch`, `wait` and `waiting` count here.
        measured: told the size of every batch.
    """

    def __init__(self, work: Callable[[list], Sequence], limits: Limits,
                 measured: Callable[[int], None] = lambda size: None):
        self._work, self._limits, self._measured = work, limits, measured
        self._queue: asyncio.Queue = asyncio.Queue()
        self._thread = ThreadPoolExecutor(1, "network")
        self._running: asyncio.Task | None = None

    @property
    def waiting(self) -> int:
        """Items that no batch has taken yet."""
        return self._queue.qsize()

    async def answer(self, item: Any) -> Any:
        """The item's answer.

        Raises:
            BusyError: too many are waiting.
            Exception: what `work` raises for this item alone.
        """
        if self._queue.qsize() >= self._limits.waiting:
            raise BusyError(f"{self._limits.waiting} films are waiting already; try again in a few seconds")
        if self._running is None or self._running.done():
            self._running = asyncio.create_task(self._run())
        future = asyncio.get_running_loop().create_future()
        self._queue.put_nowait((item, future))
        return await future

    async def close(self) -> None:
        """Stop; what is still waiting is cancelled."""
        if self._running is not None:
            self._running.cancel()
        while not self._queue.empty():
            self._queue.get_nowait()[1].cancel()
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _run(self) -> None:
        while True:
            batch = await self._gather()
            batch = [(item, future) for item, future in batch if not future.done()]  # clients that went away
            if batch:
                self._measured(len(batch))
                await self._answer(batch)

    async def _gather(self) -> list[tuple[Any, asyncio.Future]]:
        """The next batch: what is waiting, and what joins it within `wait`."""
        batch = [await self._queue.get()]
        if self._queue.empty() and self._limits.wait > 0:
            await asyncio.sleep(self._limits.wait)
        while len(batch) < self._limits.batch and not self._queue.empty():
            batch.append(self._queue.get_nowait())
        return batch

    async def _answer(self, batch: list[tuple[Any, asyncio.Future]]) -> None:
        """Answer a batch; if it fails, its items one by one, so that only those fail that must."""
        loop = asyncio.get_running_loop()
        try:
            answers = await loop.run_in_executor(self._thread, self._work, [item for item, _ in batch])
        except Exception as error:
            if len(batch) > 1:
                for one in batch:
                    await self._answer([one])
            elif not batch[0][1].done():
                batch[0][1].set_exception(error)
            return
        for (_, future), answer in zip(batch, answers, strict=True):
            if not future.done():
                future.set_result(answer)


class Room:
    """Lets work in while what it holds stays under a limit; the first one always, however large."""

    def __init__(self, limit: int):
        self._limit, self._held = limit, 0
        self._freed = asyncio.Condition()

    async def enter(self) -> None:
        """Wait until what is held is under the limit."""
        async with self._freed:
            await self._freed.wait_for(lambda: self._held < self._limit)

    def take(self, amount: int) -> None:
        """Hold `amount` more."""
        self._held += amount

    async def give_back(self, amount: int) -> None:
        """Hold `amount` less."""
        async with self._freed:
            self._held -= amount
            self._freed.notify_all()
