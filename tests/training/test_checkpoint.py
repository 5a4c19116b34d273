"""Damaged checkpoints: the one before is gone on from, or one line says what is wrong; the network is never half
another's."""

import io
import json
import logging
import pickle
import zipfile

import numpy as np
import pytest

from chexpert_hier.errors import InputError
from chexpert_hier.labels import CHEXPERT_LABELS
from chexpert_hier.network import model
from chexpert_hier.training import checkpoint
from chexpert_hier.training.checkpoint import BEFORE, CHECKPOINT, State


@pytest.fixture(scope="module")
def network():
    return model.build_model("tiny", CHEXPERT_LABELS, "none", 32, seed=0)


@pytest.fixture(scope="module")
def whole(network, tmp_path_factory):
    """The bytes of two checkpoints, after the first and the second epoch; their weights differ by 1."""
    folder = tmp_path_factory.mktemp("whole")
    start = network.get_weights()
    for epoch in (1, 2):
        network.set_weights([value + epoch for value in start])
        rows = [{"stage": "stage1", "epoch": k + 1, "valid_loss": 0.5} for k in range(epoch)]
        checkpoint.save_checkpoint(folder / CHECKPOINT, network, None, State(epoch=epoch, log=rows))
    assert sorted(path.name for path in folder.iterdir()) == [BEFORE, CHECKPOINT]
    return (folder / BEFORE).read_bytes(), (folder / CHECKPOINT).read_bytes()


def parts(data: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def zipped(contents: dict[str, bytes], how: int = zipfile.ZIP_STORED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", how) as archive:
        for name, content in contents.items():
            archive.writestr(name, content)
    return out.getvalue()


def array(value) -> bytes:
    out = io.BytesIO()
    np.save(out, value, allow_pickle=True)
    return out.getvalue()


class Runs:
    """What a pickle could do."""

    def __reduce__(self):
        return pytest.fail, ("code of the file ran",)


def damages(data: bytes):
    """(what, bytes) of about 200 damaged checkpoints; all but a flipped bit that means nothing are refused."""
    names = parts(data)
    first, last = "model/0.npy", f"model/{len(names) - 2}.npy"
    yield from ((f"cut to {place}", data[:place]) for place in np.linspace(0, len(data) - 1, 60).astype(int))
    for place in np.linspace(40, len(data) * 0.9, 100).astype(int):
        yield f"bit at {place}", data[:place] + bytes([data[place] ^ 4]) + data[place + 1:]
    for odd in ([Runs()], Runs(), {"a": 1}):
        yield "pickled objects", zipped(names | {first: array(np.array(odd, object))})
        yield "a pickled state", zipped(names | {"state.npy": array(np.array(odd, object))})
    yield "a pickle", pickle.dumps(Runs())
    for shape in ((), (1,), (3, 3, 3, 1), (10 ** 6,)):
        yield f"of shape {shape}", zipped(names | {first: array(np.zeros(shape, np.float32))})
    for kind in ("float16", "float64", "int8", "complex64", "U4", "bool", "V4"):
        yield f"of type {kind}", zipped(names | {first: array(np.zeros((3, 3, 3, 8)).astype(kind))})
    for missing in (first, last, "state.npy"):
        yield f"without {missing}", zipped({name: part for name, part in names.items() if name != missing})
    yield "with more", zipped(names | {f"model/{len(names) - 1}.npy": names[first]})
    yield "packed", zipped(names, zipfile.ZIP_DEFLATED)
    yield "huge", zipped(names | {first: names[first].replace(b"'shape': (", b"'shape': (99999999, ", 1)})
    for state in ({}, [], None, 1, {"stage": -1}, {"epoch": "2"}, {"epoch": 1.5}, {"batch": None}, {"log": [1]},
                  {"log": [{}]}, {"seconds": "x"}, {"later": 1}, "text"):
        if state != {}:
            yield f"state {state}", zipped(names | {"state.npy": array(np.array(json.dumps(state)))})
    yield "a deep state", zipped(names | {"state.npy": array(np.array("[" * 5000))})


def test_every_damaged_checkpoint_gives_way_to_the_one_before(network, whole, tmp_path, caplog):
    before, last = whole
    cases = list(damages(last))
    assert len(cases) >= 190
    refused = 0
    for what, data in cases:
        caplog.clear()
        (tmp_path / CHECKPOINT).write_bytes(data)
        (tmp_path / BEFORE).write_bytes(before)
        with caplog.at_level(logging.WARNING, "chexpert_hier"):
            state = checkpoint.resume(tmp_path, network)
        lines = [record.getMessage() for record in caplog.records]
        if state.epoch == 2:  # the damage met nothing, e.g. a date in the archive's list
            assert what.startswith("bit") and not lines, what
            continue
        refused += 1
        assert state.epoch == 1 and len(lines) == 1 and "going on from the checkpoint before" in lines[0], what
        assert (tmp_path / CHECKPOINT).read_bytes() == before and not (tmp_path / BEFORE).exists()
    assert refused >= 0.9 * len(cases)


def test_a_damaged_checkpoint_alone_is_one_line_and_leaves_the_network_alone(network, whole, tmp_path):
    start = network.get_weights()
    for what, data in damages(whole[1]):
        (tmp_path / CHECKPOINT).write_bytes(data)
        if what.startswith("bit"):
            continue
        with pytest.raises(InputError) as caught:
            checkpoint.resume(tmp_path, network)
        assert str(tmp_path / CHECKPOINT) in str(caught.value) and "\n" not in str(caught.value), what
    for ours, theirs in zip(network.get_weights(), start):
        np.testing.assert_array_equal(ours, theirs)


def test_a_process_that_dies_between_two_checkpoints_goes_on_from_the_first(network, whole, tmp_path, caplog):
    (tmp_path / BEFORE).write_bytes(whole[0])
    assert checkpoint.resume(tmp_path, network).epoch == 1
    assert [path.name for path in tmp_path.iterdir()] == [CHECKPOINT] and not caplog.records
    assert checkpoint.resume(tmp_path / "empty", network) == State()
