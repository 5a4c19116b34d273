"""Beside a picture archive: chest films in by DICOM, structured reports out.

    python -m chexpert_hier.dicom_node --orthanc http://127.0.0.1:8042 --model runs/mine

Follows an archive, answers every new frontal chest film, and writes back one report and one picture of each
(docs/dicom_node.md). Research use only. Needs highdicom and pydicom: pip install "chexpert_hier[dicom-node]".
"""

from ..faces import lazily

PUBLIC = {
    "answering": ("Answerer",),
    "dicomweb": ("DicomWeb",),
    "ledger": ("Ledger",),
    "node": ("Node",),
    "orthanc": ("Orthanc",),
}
__getattr__, __dir__ = lazily(__name__, PUBLIC)
