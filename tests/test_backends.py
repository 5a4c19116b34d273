"""The whole way on JAX and PyTorch without TensorFlow: phantom, prepare, run from the cache, predict, evaluate."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

# Runs one command of the package in a process to which TensorFlow does not exist.
WITHOUT_TENSORFLOW = """
import runpy, sys
sys.modules["tensorflow"] = None  # to import it fails, to look for it finds nothing, as where it is not installed
name, *sys.argv[1:] = sys.argv[1:]
runpy.run_module("chexpert_hier." + name, run_name="__main__", alter_sys=True)
"""
QUICK = ("--recipe", "phantom", "--arch", "tiny", "--image-size", "32", "--epochs", "1", "--set", "template_films=20",
         "--batch-size", "16", "--quiet")


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_from_phantom_to_evaluation_without_tensorflow(backend, tmp_path):
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")

    def command(name, *arguments, code=0):
        answer = subprocess.run([sys.executable, "-c", WITHOUT_TENSORFLOW, name, *map(str, arguments)], text=True,
                                capture_output=True, timeout=900, cwd=tmp_path, env={
                                    **os.environ, "KERAS_BACKEND": backend, "CHEXPERT_HIER_HOME": str(tmp_path),
                                    "KERAS_HOME": str(tmp_path / "keras"),
                                    "PYTHONPATH": str(Path(__file__).parents[1])})
        assert answer.returncode == code, answer.stderr[-3000:]
        return answer

    command("phantom", "--out", "films", "--patients", 16, "--valid-patients", 8, "--no-laterals", "--processes", 1)
    command("prepare", "--data", "films", "--out", "crops", "--recipe", "phantom", "--set", "template_films=20",
            "--quiet")
    said = command("run", *QUICK[:-1], "--data", "films", "--cache", "crops", "--out", "run", "--micro-batch", "8",
                   "--checkpoint-every", "1").stderr
    assert "SavedModel is left out" in said and not (tmp_path / "run" / "saved_model").exists()
    assert pd.read_csv(tmp_path / "run" / "log.csv")["stage"].tolist() == ["stage1", "stage2"]
    command("predict", "films/valid.csv", "--model", "run", "--out", "again.csv", "--quiet")
    command("evaluate", "--predictions", "again.csv", "--truth", "run/truth.csv", "--out", "judged", "--no-page",
            "--replicates", 10)
    own, again = (pd.read_csv(tmp_path / name).set_index("Path") for name in ("run/predictions.csv", "again.csv"))
    np.testing.assert_allclose(again.loc[own.index, own.columns], own, atol=1e-5)
    refused = command("export", "--model", "run", "--out", "saved_model", code=2).stderr
    assert "TensorFlow backend" in refused and "Traceback" not in refused
