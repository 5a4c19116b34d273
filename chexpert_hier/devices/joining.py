"""Join the devices of this process, or of many, into one: `with joined(place) as devices`."""

import contextlib
import importlib.util
import logging
import time
from collections.abc import Iterator

from ..commands import end_at_once, import_keras
from ..errors import InputError
from .alone import Devices
from .launch import Place
from .watch import SILENCE, Watch

# What other backends of Keras do with several devices (measured: docs/scale.md).
WHY = {"tensorflow": "with a loss that leaves cells out, TensorFlow's MirroredStrategy gives other weights than one "
                     "device",
       "torch": "Keras has no data parallelism for PyTorch"}


@contextlib.contextmanager
def joined(place: Place | None) -> Iterator[Devices]:
    """The devices to train on; Keras puts every variable made within on all of them.

    Args:
        place: this process's; None for one process on the device that Keras chooses.

    Raises:
        InputError: this backend cannot, there are not so many devices, or other processes do not come.
    """
    if place is None:
        yield Devices()
        return
    _require_jax(place)
    watch = None
    try:
        if place.processes > 1:
            watch = Watch.begin(place)
        with _several(place, watch) as devices:
            yield devices
    except BaseException as error:
        if watch is not None and not watch.over.is_set():
            if _of_jax(error):  # a collective that broke because another process died: the watch names it
                time.sleep(SILENCE + 10.0)
            watch.ended(error)
        if watch is not None:
            end_at_once()  # the others end too, and JAX's client aborts where it finds that its service has gone
        raise


def _require_jax(place: Place) -> None:
    """Refuse several devices on another backend."""
    backend = import_keras(find_devices=False).backend.backend()
    if backend == "jax":
        return
    several = place.processes > 1 or (place.devices or 1) > 1
    if not several and place.devices is None:
        several = backend == "tensorflow" and len(import_keras().distribution.list_devices("gpu")) > 1
    if several:
        need = "" if importlib.util.find_spec("jax") else ' (pip install "chexpert_hier[jax]")'
        raise InputError(f"several devices need Keras on JAX, this is {backend}: {WHY.get(backend, 'not supported')}. "
                         f"Run KERAS_BACKEND=jax python -m chexpert_hier.run ...{need}; export it under TensorFlow "
                         "afterwards")


@contextlib.contextmanager
def _several(place: Place, watch: Watch | None) -> Iterator[Devices]:
    import keras

    if keras.backend.backend() != "jax":  # one device, as ever
        yield Devices()
        return
    logging.getLogger("jax").setLevel(logging.WARNING)
    logging.getLogger("absl").setLevel(logging.WARNING)
    from .group import Group, chosen

    found = chosen(place)
    if len(found) == 1:
        yield Devices()
        return
    devices = Group(place, watch, found)
    try:
        yield devices
    finally:
        devices.leave()


def _of_jax(error: BaseException) -> bool:
    import jax

    return isinstance(error, jax.errors.JaxRuntimeError) or "Gloo" in str(error)
