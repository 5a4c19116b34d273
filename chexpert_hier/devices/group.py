"""Several devices as one, on JAX: `keras.distribution.DataParallel`, within a process and over processes.

Every variable is on every device, every batch is spread over them, and a step sees the whole batch: its loss, its
BatchNormalization, one update. The only module, beside `step`, that imports JAX.
"""

import functools
import json
from pathlib import Path
from typing import Any

import jax
import keras
import numpy as np
from jax._src import distributed
from jax.experimental import multihost_utils

from ..errors import InputError
from .alone import Devices, Share, shared
from .launch import Place
from .step import adapt
from .watch import COMING, Watch, hold_aborts


class Group(Devices):
    """The devices of all processes.

    Args:
        place: this process's.
        watch: over the other processes; None for one process.
        devices: of all processes, those of process 0 first.
    """

    def __init__(self, place: Place, watch: Watch | None, devices: list[jax.Device]):
        self.place, self.watch, self.processes = place, watch, place.processes
        self.count, self.first = len(devices), place.process == 0
        self.names = sorted({device.device_kind for device in devices})
        # Each process cuts its own part out of every batch: nothing is left for Keras to share out.
        names = [f"{device.platform}:{device.id}" for device in devices]
        self.distribution = keras.distribution.DataParallel(devices=names, auto_shard_dataset=False)
        keras.distribution.set_distribution(self.distribution)
        everywhere = keras.distribution.TensorLayout([], self.distribution.device_mesh)
        self.everywhere = everywhere.backend_layout

    def share(self, films: int, batch_size: int) -> Share:
        return shared(films, batch_size, self.count, self.processes, self.place.process)

    def adapt(self, network: keras.Model) -> None:
        adapt(network, self.everywhere)

    def read(self, path: Path) -> bytes | None:
        """The first process's file: on several machines, the others need not see its folder."""
        if self.processes == 1:
            return super().read(path)
        found = super().read(path) if self.first else None
        return self._sent(found)

    def agreed(self, facts: Any) -> Any:
        if self.processes == 1:
            return facts
        return json.loads(self._sent(json.dumps(facts).encode() if self.first else None))

    def same(self, what: dict[str, Any]) -> None:
        """See to it that all processes do the same job.

        Args:
            what: that must be the same in all; goes through JSON.

        Raises:
            InputError: this process was started with something else than process 0.
        """
        mine = json.loads(json.dumps(what, default=str))
        for name, value in self.agreed(mine).items():
            if mine[name] != value:
                raise InputError(f"process {self.place.process}: {name} is {mine[name]!r}, in process 0 it is "
                                 f"{value!r}; start all with the same command, films and versions")

    def finish(self) -> None:
        if self.watch is not None and not self.watch.over.is_set():
            multihost_utils.sync_global_devices("finish")
            if self.first:  # JAX's service is in this process: whoever comes to it too late is aborted
                self.watch.await_done()
                self.watch.done()
            jax.distributed.shutdown()
            self.watch.done()
        self.leave()

    def leave(self) -> None:
        """Let Keras use one device again."""
        if keras.distribution.distribution() is self.distribution:
            keras.distribution.set_distribution(None)

    def _sent(self, content: bytes | None) -> bytes | None:
        """The first process's bytes, in all; None where it has none."""
        send = multihost_utils.broadcast_one_to_all
        length = int(send(np.int32(-1 if content is None else len(content))))
        if length < 0:
            return None
        array = np.frombuffer(content, np.uint8) if self.first else np.zeros(length, np.uint8)
        return np.asarray(send(array)).astype(np.uint8).tobytes()


def chosen(place: Place) -> list[jax.Device]:
    """The devices of all processes, which are joined first; those of process 0 first.

    Raises:
        InputError: a process sees fewer devices than it shall use, or the processes use different numbers.
    """
    if place.processes > 1:
        _initialize(place)
    own = jax.local_device_count()
    if place.devices is not None and place.devices > own:
        raise InputError(f"--devices is {place.devices}; process {place.process} sees {own} "
                         f"({', '.join(map(str, jax.local_devices()))})")
    each = place.devices or own
    found = [[device for device in jax.devices() if device.process_index == process][:each]
             for process in range(place.processes)]
    counts = list(map(len, found))
    if set(counts) != {each}:
        raise InputError(f"the processes have {', '.join(map(str, counts))} devices; expected as many in each: give "
                         "--devices N")
    return [device for devices in found for device in devices]


def _initialize(place: Place) -> None:
    host, port = place.coordinator
    jax.config.update("jax_cpu_collectives_implementation", "gloo")  # what lets processes without cards work together
    # Its own way to end processes is an abort with a page of C++: the watch says whose fault it was. Neither JAX nor
    # Keras passes the callback on that replaces the abort.
    jax.config.update("jax_enable_recoverability", True)
    library, make = distributed._jax, distributed._jax.get_distributed_runtime_client
    library.get_distributed_runtime_client = functools.partial(make, missed_heartbeat_callback=_left_to_the_watch)
    hold_aborts()  # handing that callback its argument may itself abort (std::bad_cast)
    own = host in ("127.0.0.1", "localhost")
    try:
        jax.distributed.initialize(
            f"{host}:{port}", place.processes, place.process, cluster_detection_method="deactivate",
            local_device_ids=place.cards, coordinator_bind_address=f"{host}:{port}" if own else None,
            initialization_timeout=int(COMING), heartbeat_timeout_seconds=60)
    finally:
        library.get_distributed_runtime_client = make


def _left_to_the_watch(*error: Any) -> None:
    """What JAX's client does when its service is gone: nothing."""
