"""What the findings and numbers of a report are called by code: RadLex, SNOMED CT and DICOM's own where they fit.

A finding without a code that says the same has a private one: a wrong standard code looks right to everything behind
it. The table is in docs/dicom_node.md too; a test compares the two.
"""

import hashlib
from typing import NamedTuple

PRIVATE = "99CHEXPERT_HIER"


class Coding(NamedTuple):
    """A coded concept: value, scheme designator, meaning, and where the code was read."""

    value: str
    scheme: str
    meaning: str
    source: str


RADLEX = "RadLex"  # in which copies of it: docs/dicom_node.md
OURS = "no standard code says the same"


def _radlex(value: str, meaning: str) -> Coding:
    return Coding(value, "RADLEX", meaning, RADLEX)


def _private(value: str, meaning: str) -> Coding:
    return Coding(value, PRIVATE, meaning, OURS)


EFFUSION = Coding("60046008", "SCT", "Pleural effusion", "DICOM PS3.16, CID 645")
FINDINGS: dict[str, Coding] = {
    # CheXpert (Irvin et al. 2019)
    "No Finding": _private("no-finding", "None of the labelled findings"),
    "Enlarged Cardiomediastinum": _private("enlarged-cm", "Enlarged cardiomediastinum"),
    # DICOM's CID 12248 gives 287272002 for it, which its other tables call an enlarged septal foramen.
    "Cardiomegaly": Coding("8186001", "SCT", "Cardiomegaly", "SNOMED CT, as public tables quote it"),
    "Lung Opacity": Coding("112033", "DCM", "Abnormal opacity", "DICOM PS3.16, CID 6101"),
    "Lung Lesion": _private("lung-lesion", "Lung nodule or mass"),
    "Edema": Coding("19242006", "SCT", "Pulmonary edema", "DICOM PS3.16, CID 3700"),
    "Consolidation": _radlex("RID43255", "consolidation"),
    "Pneumonia": _radlex("RID5350", "pneumonia"),
    "Atelectasis": _radlex("RID28493", "atelectasis"),
    "Pneumothorax": Coding("36118008", "SCT", "Pneumothorax", "DICOM PS3.16, CID 6105"),
    "Pleural Effusion": EFFUSION,
    "Pleural Other": _private("pleural-other", "Pleural abnormality other than effusion"),
    "Fracture": _radlex("RID4650", "fracture"),
    "Support Devices": _radlex("RID29033", "medical device"),
    # ChestX-ray14 (Wang et al. 2017)
    "Effusion": EFFUSION,
    "Infiltration": Coding("112121", "DCM", "Infiltrate", "DICOM PS3.16, CID 6104"),
    "Mass": _radlex("RID39056", "lung mass"),
    "Nodule": _radlex("RID50149", "pulmonary nodule"),
    "Emphysema": _radlex("RID4799", "emphysema"),
    "Fibrosis": _radlex("RID3820", "fibrosis"),
    "Pleural_Thickening": _private("pleural-thick", "Pleural thickening"),
    "Hernia": _radlex("RID4895", "hernia"),
}

PROBABILITY = Coding("122157", "DCM", "Probability", "DICOM PS3.16, annex D")
# DICOM's "Threshold Value" (122411) is about wall motion.
THRESHOLD = _private("operating-point", "Least probability that is called present")
CALL = _private("call", "Call at the operating point")
PRESENT = Coding("52101004", "SCT", "Present", "DICOM PS3.16, CID 240")
ABSENT = Coding("272519000", "SCT", "Absent", "DICOM PS3.16, CID 240")
NO_UNITS = Coding("1", "UCUM", "no units", "DICOM PS3.16, CID 7181")
REPORT = Coding("126000", "DCM", "Imaging Measurement Report", "DICOM PS3.16, CID 7021")
COMMENT = Coding("121106", "DCM", "Comment", "DICOM PS3.16, annex D")
PROCEDURE = Coding("RPID2502", "RADLEX", "XR Chest 1 View", "RadLex Playbook")


def of_finding(label: str) -> Coding:
    """A label's code; a private one, made of its name, where the table has none."""
    if label in FINDINGS:
        return FINDINGS[label]
    return _private(f"L{hashlib.sha256(label.encode()).hexdigest()[:12]}", label[:64])
