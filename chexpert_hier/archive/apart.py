"""Films decoded in a process of their own, so that one that kills whatever decodes it is known by name.

A block with which a worker died is read again in this way: slower, and a film that makes a decoder crash or takes all
memory is a row with an error instead of an archive that never ends.
"""

import multiprocessing
import threading
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

from ..errors import InputError
from ..finished.asked import Film
from ..predict.reading import Read, read_data

DIED = "the process that decoded it died: a decoder crashed, or memory ran out"


class Apart:
    """Decodes one film after the other in a process of its own.

    Attributes:
        takes_lateral: whether lateral films are answered at all.
    """

    def __init__(self, takes_lateral: bool):
        self.takes_lateral = takes_lateral
        self._one = threading.Lock()  # a death must have one film's name
        self._pool: ProcessPoolExecutor | None = None

    def read(self, data: bytes, film: Film) -> Read:
        """As predict.reading.read_data.

        Raises:
            InputError: the film cannot be used, or killed the process.
        """
        with self._one:
            if self._pool is None:
                self._pool = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"))
            try:
                return self._pool.submit(read_data, data, film, self.takes_lateral).result()
            except BrokenProcessPool:
                self._pool = None
                raise InputError(DIED) from None

    def close(self) -> None:
        """End the process."""
        if self._pool is not None:
            self._pool.shutdown()
            self._pool = None
