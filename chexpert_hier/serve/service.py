"""From what a request asks to the answers: films read in threads, answered in batches, counted for Prometheus."""

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

from ..errors import InputError
from ..films.grey import FilmError
from .asked import Asked, BadFilm, Film
from .batching import Batcher, Limits, Room
from .model import Reading, ServedModel

SECONDS = (0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)
Result = TypeVar("Result")


class BadFilmsError(Exception):
    """Films of a request that cannot be used; (place in the request, reason) each."""

    def __init__(self, films: list[tuple[int, str]]):
        self.films = films
        super().__init__("; ".join(f"film {place}: {reason}" for place, reason in films))


class Service:
    """One model, its queue and its counters; the same for every protocol.

    Args:
        model: what answers.
        name: under which it is served.
        limits: what is taken on.
    """

    def __init__(self, model: ServedModel, name: str, limits: Limits):
        self.model, self.name, self.limits = model, name, limits
        self.draining = False
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        count = {"registry": self.registry, "namespace": "chexpert_hier"}
        self.requests = Counter("requests", "HTTP requests answered", ["route", "code"], **count)
        self.seconds = Histogram("request_seconds", "from a request's first byte to its answer", ["route"],
                                 buckets=SECONDS, **count)
        self.films = Counter("films", "films of requests", ["outcome"], **count)
        sizes = Histogram("batch_films", "films that went through the network at once",
                          buckets=[1, 2, 4, 8, 16, 32, 64], **count)
        self.batcher = Batcher(model.answer, replace(limits, batch=min(limits.batch, model.together)), sizes.observe)
        Gauge("films_waiting", "films that no batch has taken yet", **count).set_function(lambda: self.batcher.waiting)
        self.bodies = Gauge("body_bytes", "bytes of requests that are being read or answered", **count)
        self.body_bytes = 0
        self._pixels = Room(limits.pixels)
        self._readers = ThreadPoolExecutor(os.cpu_count() or 1, "films")

    async def apart(self, function: Callable[..., Result], *arguments: Any) -> Result:
        """Run what takes time in a thread, so that other requests go on."""
        return await asyncio.get_running_loop().run_in_executor(self._readers, function, *arguments)

    async def answer(self, asked: Asked) -> list[Reading | BadFilm]:
        """Answer a request's films, in order.

        Raises:
            BadFilmsError: some cannot be used, and the request does not say `skip_bad`.
            BusyError: too many are waiting.
            InputError: the request wants what the model has not.
        """
        if asked.maps and not self.model.has_maps:
            raise InputError("this model holds no maps; start the server with the run folder")
        answers = await asyncio.gather(*(self._one(film, asked) for film in asked.films), return_exceptions=True)
        for one in answers:
            if isinstance(one, BaseException):
                raise one
        bad = [(place, one.reason) for place, one in enumerate(answers) if isinstance(one, BadFilm)]
        if bad and not asked.skip_bad:
            raise BadFilmsError(bad)
        return answers

    async def _one(self, film: Film, asked: Asked) -> Reading | BadFilm:
        reading, _ = await self.read_one(film, asked.view, asked.maps)
        return reading

    async def read_one(self, film: Film, view: str, maps: bool,
                       look: Callable[[np.ndarray], Any] = lambda grey: None) -> tuple[Reading | BadFilm, Any]:
        """Answer for one film; `look` is given its pixels, uint8 (h, w), and its result comes back beside."""
        await self._pixels.enter()
        held = 0
        try:
            opened = await self.apart(self._open, film, view)
            held = opened.grey.size
            self._pixels.take(held)
            looking = asyncio.ensure_future(self.apart(look, opened.grey))
            reading = await self.batcher.answer((opened, maps))
            self.films.labels("answered").inc()
            return reading, await looking
        except FilmError as error:
            self.films.labels("refused").inc()
            return BadFilm(str(error)), None
        finally:
            await self._pixels.give_back(held)

    def _open(self, film: Film, view: str):
        return self.model.read(film.data, view) if film.pixels is None else self.model.take(film.pixels, view)

    async def close(self) -> None:
        """Let go of the threads."""
        await self.batcher.close()
        self._readers.shutdown(wait=False, cancel_futures=True)
