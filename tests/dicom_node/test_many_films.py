"""500 films in a row beside a real Orthanc, as experiments/dicom_node.py measures them."""

import sys
from pathlib import Path

import pytest
from orthanc_server import PROGRAM

pytestmark = pytest.mark.slow


def test_500_films_in_a_row(missing, monkeypatch, run, data, tmp_path):
    """Each has one report and one picture; memory stays where it was, and so does the rate."""
    if not PROGRAM:
        missing("apt-get install orthanc")
    monkeypatch.setattr(sys, "path", [str(Path(__file__).parents[2]), *sys.path])
    from experiments import dicom_node

    found = dicom_node.measure(run, data, 500, tmp_path)
    assert found["said"] == "answered: 500; left: 0"
    assert found["objects"] == {"DX": 500, "SR": 500, "OT": 500}
    assert found["late"] < 1.15 * found["early"]
