"""What training asks of the devices it runs on, and the answers of one process on one device.

Says neither Keras nor JAX; `group` answers for several devices.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    import keras

class Share(NamedTuple):
    """Which films of an epoch a process reads, batch by batch.

    Attributes:
        places: int (m,), in the epoch's order; this process's part of every batch, one batch after the other. A slice
            where it is everything, so that nothing is copied.
        padded: bool (m,), films that only make the devices' parts equal and must not count.
        size: of this process's part of a batch; the last one may be smaller.
        kept: where the epoch's films stand, in their order, among the outputs of all processes.
    """

    places: np.ndarray | slice
    padded: np.ndarray
    size: int
    kept: np.ndarray | slice


class Devices:
    """One process, and the device that Keras chooses.

    Attributes:
        count: devices of all processes that share every batch.
        first: whether this process writes files and lines.
        processes: how many take part.
    """

    count = 1
    first = True
    processes = 1

    def share(self, films: int, batch_size: int) -> Share:
        """This process's films.

        Args:
            films: in the epoch.
            batch_size: of the whole batch.
        """
        return Share(slice(None), np.zeros(films, bool), batch_size, slice(None))

    def adapt(self, network: "keras.Model") -> None:
        """Make a network's steps those of the whole batch; call it after every `compile`."""

    def read(self, path: Path) -> bytes | None:
        """The first process's file, None where it has none."""
        return path.read_bytes() if path.exists() else None

    def agreed(self, facts: Any) -> Any:
        """The first process's facts, which go through JSON: what decides must not differ in a last digit."""
        return facts

    def same(self, what: dict[str, Any]) -> None:
        """See to it that all processes do the same job."""

    def finish(self) -> None:
        """All have done their part of the work; the first one goes on alone."""


ALONE = Devices()


def shared(films: int, batch_size: int, devices: int, processes: int, process: int) -> Share:
    """Cut every batch of an epoch into equal parts.

    A batch that the devices do not divide gets some of its own films once more, at its end and marked.

    Args:
        films: in the epoch.
        batch_size: of the whole batch.
        devices: of all processes; a multiple of `processes`.
        processes: that take part.
        process: whose share it is, from 0.

    >>> share = shared(films=5, batch_size=3, devices=2, processes=2, process=1)
    >>> share.places.tolist(), share.padded.tolist(), share.size, share.kept.tolist()
    ([2, 0, 4], [False, True, False], 2, [0, 1, 2, 4, 5])
    """
    places, padded, kept, before = [], [], [], 0
    for start in range(0, films, batch_size):
        count = min(batch_size, films - start)
        full = -(-count // devices) * devices
        mine = slice(process * full // processes, (process + 1) * full // processes)
        places.append(start + np.resize(np.arange(count), full)[mine])
        padded.append(np.arange(full)[mine] >= count)
        kept.append(before + np.arange(count))
        before += full
    size = -(-batch_size // devices) * devices // processes
    if not places:
        return Share(np.zeros(0, int), np.zeros(0, bool), size, np.zeros(0, int))
    return Share(np.concatenate(places), np.concatenate(padded), size, np.concatenate(kept))
