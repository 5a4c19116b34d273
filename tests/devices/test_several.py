"""One training on one device, on several, and in several processes, of which some are killed: the same weights.

As a user starts them. Labels are left out very unevenly (u-ignore, conditional rows), the network has
BatchNormalization, and batches do not divide by the devices.
"""

import importlib.util
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from chexpert_hier import recipes
from chexpert_hier.datasets import reading
from chexpert_hier.phantom import making as phantom
from chexpert_hier.prepare import making

pytestmark = pytest.mark.processes
REPOSITORY = Path(__file__).parents[2]
RECIPE = ("template_films=20", "arch=tiny", "image_size=32", "policy=u-ignore+ct", "stage1.epochs=4",
          "stage2.epochs=40", "stages.batch_size=9", "stages.epsilon=1e-3")
# What another order of sums may leave after some 250 steps; weights are of the order of 0.1 to 1. Adam's usual epsilon
# would make a step of the rounding itself, where a feature hardly has a gradient.
SPARE = 5e-6


@pytest.fixture(scope="module")
def work(tmp_path_factory, missing):
    """Films and their crops."""
    if importlib.util.find_spec("jax") is None:
        missing("JAX is not installed")
    folder = tmp_path_factory.mktemp("several")
    films = phantom.make(folder / "films", patients=24, valid_patients=7, seed=1, processes=1, laterals=False)
    recipe = recipes.change(recipes.named("phantom"), *RECIPE)
    making.prepare(reading.read(films, views="frontal"), recipe, folder / "crops")
    return folder


def free_port() -> int:
    with socket.socket() as first:
        first.bind(("127.0.0.1", 0))
        return first.getsockname()[1]


def begin(work, module, *arguments, **environment):
    """A command of the package on JAX, with one thread for the network."""
    more = {"KERAS_BACKEND": "jax", "PYTHONPATH": str(REPOSITORY), "CHEXPERT_HIER_HOME": str(work),
            "JAX_COMPILATION_CACHE_DIR": str(work / "xla"), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "0", "JAX_PLATFORMS": "cpu", **environment}
    return subprocess.Popen([sys.executable, "-m", f"chexpert_hier.{module}", *map(str, arguments)], text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=work, env={**os.environ, **more})


def start(work, name, processes=1, *flags, last=(), **environment):
    """One run in so many processes; `last` are flags of the last one alone."""
    port = free_port()
    settings = [part for text in RECIPE for part in ("--set", text)]
    together = [] if processes == 1 else ["--processes", processes, "--coordinator", f"127.0.0.1:{port}"]
    return [begin(work, "run", "--recipe", "phantom", *settings, "--data", "films", "--cache", "crops", "--out", name,
                  "--no-export", *together, *(["--process", k] if processes > 1 else []), *flags,
                  *(last if k == processes - 1 else ()), **environment) for k in range(processes)]


def finished(processes, code=0):
    """What they said, after all have ended as expected."""
    said = [process.communicate(timeout=900)[0] for process in processes]
    if code is not None:
        assert [process.returncode for process in processes] == [code] * len(said), "\n".join(said)[-6000:]
    return said


def killed(work, name, row, who, processes=2):
    """Begin a run, kill one process when log.csv has a row, and give what the others say."""
    running = start(work, name, processes)
    log = work / name / "log.csv"
    while not (log.exists() and row in log.read_text()):
        assert all(process.poll() is None for process in running), running[0].communicate()[0][-3000:]
        time.sleep(0.02)
    running[who].kill()
    began = time.monotonic()
    said = finished([process for k, process in enumerate(running) if k != who], code=1)
    running[who].communicate()
    assert time.monotonic() - began < 60
    for text in said:
        named = [line for line in text.splitlines() if "died" in line]
        assert len(named) == 1 and named[0].startswith(f"error: process {who} of {processes} (")
        assert "--resume" in named[0] and "Traceback" not in text
    return said


def result(work, name):
    """Weights and statistics; the epochs' losses; predictions."""
    with np.load(work / name / "checkpoint.npz") as arrays:
        weights = [arrays[f"model/{k}"] for k in range(sum(key.startswith("model/") for key in arrays.files))]
    log = pd.read_csv(work / name / "log.csv").drop(columns="seconds")
    return weights, log, pd.read_csv(work / name / "predictions.csv").drop(columns="Path")


def assert_same(work, one, other, spare=SPARE):
    for ours, theirs in zip(result(work, one)[0], result(work, other)[0], strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=spare)
    for ours, theirs in zip(result(work, one)[1:], result(work, other)[1:]):
        pd.testing.assert_frame_equal(ours, theirs, rtol=0, atol=1e-4)


@pytest.fixture(scope="module")
def one(work):
    """One process, one device."""
    finished(start(work, "one"))
    rows = pd.read_csv(work / "one" / "log.csv").groupby("stage")["films"].max() % 9
    assert rows["stage1"] and rows["stage2"], "the last batches shall be short"
    return "one"


@pytest.fixture(scope="module")
def two(work):
    """Two processes."""
    said = finished(start(work, "two", 2))
    assert "over 2 devices of 2 processes, 4.5 each" in said[0] and "over" not in said[1]
    return "two"


def test_two_devices_of_one_process(work, one):
    said, = finished(start(work, "devices", 1, "--devices", "all",
                           XLA_FLAGS="--xla_force_host_platform_device_count=2"))
    assert "over 2 devices of 1 processes" in said
    assert_same(work, one, "devices")


def test_two_processes(work, one, two):
    assert_same(work, one, two)


@pytest.mark.parametrize("devices", [4])
def test_every_loss(devices):
    run = subprocess.run([sys.executable, Path(__file__).parent / "every_loss.py"], text=True, capture_output=True,
                         timeout=900, env={**os.environ, "KERAS_BACKEND": "jax", "PYTHONPATH": str(REPOSITORY),
                                           "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}"})
    assert run.returncode == 0, run.stderr[-3000:]
    found = json.loads(run.stdout.splitlines()[-1])
    assert found.pop("devices") == devices and len(found) == 8
    for case, far in found.items():
        assert far["weights"] < 2e-6 and far["outputs"] < 2e-6 and far["log"] < 2e-5, case
        assert far["moved"] > 1e-4, case  # every weight and statistic has learned


def test_killed_in_stage_1_and_gone_on_with_in_one_process(work, one):
    killed(work, "killed1", "stage1,1,", who=1)
    finished(start(work, "killed1", 1, "--resume"))
    assert_same(work, one, "killed1")


def test_process_0_killed_in_stage_2_and_gone_on_with_bit_for_bit(work, two):
    killed(work, "killed2", "stage2,1,", who=0)
    finished(start(work, "killed2", 2, "--resume"))
    assert_same(work, two, "killed2", spare=0)


def test_processes_that_do_not_run_the_same(work):
    running = start(work, "other", 2, last=("--seed", "9"))
    said = finished(running, code=None)
    assert all(process.returncode in (1, 2) for process in running), ([p.returncode for p in running], said)
    assert "process 1" in said[0] and "recipe" in said[1] and "start all with the same command" in said[1]


def test_afterwards_tensorflow_exports(work, two):
    finished([begin(work, "export", "--model", two, "--out", "saved", KERAS_BACKEND="tensorflow")])
    finished([begin(work, "predict", "films/valid.csv", "--model", "saved", "--out", "served.csv",
                    KERAS_BACKEND="tensorflow")])
    served, own = (pd.read_csv(work / path).set_index("Path") for path in ("served.csv", "two/predictions.csv"))
    np.testing.assert_allclose(served.loc[own.index, own.columns], own, atol=1e-4)
