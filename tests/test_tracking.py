"""A finished run in MLflow's store, read back."""

import json
import sys

import pandas as pd
import pytest

from chexpert_hier import tracking
from chexpert_hier.errors import InputError


@pytest.fixture
def run(tmp_path, monkeypatch):
    folder = tmp_path / "runs" / "mine"
    folder.mkdir(parents=True)
    facts = {
        "recipe": {"arch": "tiny", "lsr_ones": [0.55, 0.85], "stages": [{"name": "stage1", "epochs": 2}]},
        "data": {"root": "/secret/place", "name": "phantom", "fingerprint": "abc", "counts": {"train": {"films": 3}}},
        "versions": {"keras": "3.15"}}
    (folder / "recipe.json").write_text(json.dumps(facts))
    monkeypatch.setattr(tracking, "read_facts", lambda run: facts)  # less than a run writes, so that all can be checked
    pd.DataFrame({"stage": ["stage1", "stage1", "stage2"], "epoch": [1, 2, 1], "loss": [0.7, 0.5, 0.4],
                  "valid_auroc": [0.6, None, 0.8]}).to_csv(folder / "log.csv", index=False)
    pd.DataFrame({"label": ["Edema", "Pleural Other", "mean of five"], "auroc": [0.8, None, 0.75], "auroc_low":
                  [0.7, None, 0.7], "auroc_high": [0.9, None, 0.8]}).to_csv(folder / "evaluation.csv", index=False)
    (folder / "model.keras").write_bytes(b"weights")
    return folder


def test_a_run_is_read_back_from_the_local_store(run, monkeypatch):
    mlflow = pytest.importorskip("mlflow", reason="the extra mlflow is not installed")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    store = tracking.log_run(run)
    assert store == (run.parent / "mlruns").resolve().as_uri()
    client = mlflow.MlflowClient(tracking_uri=store)
    [found] = client.search_runs([client.get_experiment_by_name("chexpert_hier").experiment_id])
    assert found.info.run_name == "mine" and found.info.status == "FINISHED"
    params, metrics = found.data.params, found.data.metrics
    assert params["arch"] == "tiny" and params["stage1.epochs"] == "2" and params["data.name"] == "phantom"
    assert not any("secret" in value for value in params.values())
    assert [(point.step, point.value) for point in client.get_metric_history(found.info.run_id, "stage1/loss")] == [
        (1, 0.7), (2, 0.5)]
    assert metrics["stage2/valid_auroc"] == 0.8 and metrics["auroc/mean of five"] == 0.75
    assert "auroc/Pleural Other" not in metrics
    assert {file.path for file in client.list_artifacts(found.info.run_id)} == {
        "recipe.json", "log.csv", "evaluation.csv", "model.keras"}


def test_no_mlflow_and_no_store_are_one_line_each(run, monkeypatch):
    pytest.importorskip("mlflow", reason="the extra mlflow is not installed")
    with pytest.raises(InputError, match="--mlflow nowhere://x") as caught:
        tracking.log_run(run, "nowhere://x")
    assert "\n" not in str(caught.value)
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(InputError, match=r"MLflow is not installed; pip install"):
        tracking.require()
