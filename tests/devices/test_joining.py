"""Which backends may use several devices."""

import keras
import pytest

from chexpert_hier.devices.joining import joined
from chexpert_hier.devices.launch import Place
from chexpert_hier.errors import InputError


@pytest.mark.parametrize("place", [Place(2), Place(None, 2, 0, ("127.0.0.1", 5000)), Place(1, 2, 1, ("a", 5000))])
def test_tensorflow_is_refused_with_the_reason_and_the_command(place):
    assert keras.backend.backend() == "tensorflow"
    with pytest.raises(InputError, match=r"MirroredStrategy.* KERAS_BACKEND=jax python -m chexpert_hier.run"):
        with joined(place):
            pass


@pytest.mark.parametrize("place", [None, Place(1), Place()])
def test_one_device_is_what_it_was(place):
    with joined(place) as devices:
        assert devices.count == devices.processes == 1 and devices.first
    assert keras.distribution.distribution() is None
