"""A finished run handed to MLflow: parameters, values per epoch, final tables, model. Needs the extra `mlflow`."""

import logging
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from .errors import InputError, install
from .run_folder import read_facts, read_part

log = logging.getLogger("chexpert_hier.run")
EXPERIMENT = "chexpert_hier"
FOLDER = "mlruns"  # of the local store, beside the run folder
FILES = ("recipe.json", "split.csv", "log.csv", "evaluation.csv", "evaluation.json", "comparisons.csv", "subgroups.csv",
         "predictions.csv", "truth.csv", "report.html", "template.png", "model.keras")
NO_VALUES = ("stage", "epoch")  # columns of log.csv that say which epoch it is


def require() -> None:
    """Refuse before anything slow where MLflow is not installed.

    Raises:
        InputError: it is not.
    """
    try:
        import mlflow  # noqa: F401
    except ImportError as error:
        raise InputError(f"--mlflow: MLflow is not installed; {install('mlflow')}") from error


def log_run(folder: Path, store: str | None = None) -> str:
    """Write a finished run into MLflow's store, as one MLflow run with the run folder's name.

    Nothing leaves this machine but to the store that is named: MLflow's own usage statistics are switched off.

    Args:
        folder: the run folder, with log.csv and evaluation.csv.
        store: MLflow's tracking URI; None: MLFLOW_TRACKING_URI, else the folder mlruns beside the run folder.

    Returns:
        the store.

    Raises:
        InputError: no finished run, or a store that does not answer.
    """
    require()
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    # A folder is the one store that needs no database; MLflow 3.17 asks to be told so.
    os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    folder = Path(folder).resolve()
    store = store or os.environ.get("MLFLOW_TRACKING_URI") or (folder.parent / FOLDER).as_uri()
    facts, history = read_facts(folder), read_part(folder, "log.csv", ("stage",), ("epoch",))
    table = read_part(folder, "evaluation.csv", ("label",), ("auroc", "auroc_low", "auroc_high"))
    try:
        client = MlflowClient(tracking_uri=store)
        found = client.get_experiment_by_name(EXPERIMENT)
        experiment = found.experiment_id if found else client.create_experiment(EXPERIMENT)
        run = client.create_run(experiment, run_name=folder.name).info.run_id
        _write(client, run, facts, history, table)
        for name in FILES:
            if (folder / name).exists():
                client.log_artifact(run, str(folder / name))
        client.set_terminated(run)
    except (MlflowException, OSError) as error:
        raise InputError(f"--mlflow {store}: {' '.join(str(error).split())[:300]}") from error
    log.info("MLflow: %s, experiment %s, run %s", store, EXPERIMENT, folder.name)
    return store


def _write(client: Any, run: str, facts: Mapping[str, Any], history: pd.DataFrame, table: pd.DataFrame) -> None:
    for name, value in parameters(facts):
        client.log_param(run, name, value)
    for step, row in enumerate(history.to_dict("records"), 1):
        for column, number in row.items():
            if column not in NO_VALUES and number == number:
                client.log_metric(run, f"{row['stage']}/{column}", float(number), step=step)
    for row in table.to_dict("records"):
        for name in ("auroc", "auroc_low", "auroc_high"):
            if row[name] == row[name]:
                client.log_metric(run, f"{name}/{row['label']}", float(row[name]))


def parameters(facts: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Name and value of every field of the recipe and of what is known of the data, but no path of this machine."""
    for name, value in facts["recipe"].items():
        if name == "stages":
            for stage in value:
                yield from ((f"{stage['name']}.{field}", str(cell)) for field, cell in stage.items() if field != "name")
        else:
            yield name, str(value)
    yield from ((f"data.{name}", str(facts["data"][name])) for name in ("name", "fingerprint", "counts"))
    yield from ((f"versions.{name}", str(value)) for name, value in facts["versions"].items())
