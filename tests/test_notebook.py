"""The walk-through: stored with outputs and of modest size; executed from its first cell to its last."""

import json
import os
from pathlib import Path

import pytest

NOTEBOOK = Path(__file__).parents[1] / "experiments" / "walkthrough.ipynb"


def cells(kind):
    return [cell for cell in json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == kind]


def test_it_is_stored_with_outputs_in_order_and_of_modest_size():
    code = cells("code")
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    pictures = [output for cell in code for output in cell["outputs"] if "image/png" in output.get("data", {})]
    assert len(pictures) >= 10 and NOTEBOOK.stat().st_size < 3_000_000
    assert not [output for cell in code for output in cell["outputs"] if output["output_type"] == "error"]


def test_one_line_leads_from_the_phantom_to_chexpert():
    source = "".join(cells("code")[0]["source"])
    assert source.startswith("DATA = None") and "CheXpert-v1.0-small" in source and "\n" not in source.strip()


@pytest.mark.notebook
def test_it_runs(tmp_path, monkeypatch):
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    monkeypatch.setenv("CHEXPERT_HIER_NOTEBOOK", os.environ.get("CHEXPERT_HIER_NOTEBOOK", "small"))
    repository = str(NOTEBOOK.parents[1])
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [repository, os.environ.get("PYTHONPATH")])))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    client = nbclient.NotebookClient(notebook, timeout=900, kernel_name="python3",
                                     resources={"metadata": {"path": str(tmp_path)}})
    client.execute()
    text = "".join(output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", []))
    assert "the reloaded model differs by at most" in text and "mean of five" in text
