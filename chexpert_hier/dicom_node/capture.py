"""The secondary capture: the picture of an answer as a DICOM image in the film's own study.

Source: DICOM PS3.3 A.8.1 (Secondary Capture Image), C.7.6.1 (General Image). highdicom writes it.
"""

from typing import Any

import numpy as np

from .findings import About
from .report import equipment
from .source import Source, Uids

SERIES = 9002
DESCRIPTION = "RESEARCH USE ONLY: AI maps"


def secondary_capture(picture: np.ndarray, source: Source, uids: Uids, about: About) -> Any:
    """Write a picture as a DICOM image.

    Args:
        picture: uint8 (h, w, 3), red, green, blue.
        source: the film that it shows.
        uids: of what is written about the film.
        about: the model.

    Returns:
        a pydicom data set with its file meta information.
    """
    import highdicom as hd

    capture = hd.sc.SCImage(
        pixel_array=picture, photometric_interpretation="RGB", bits_allocated=8, coordinate_system="PATIENT",
        patient_orientation=_orientation(source), study_instance_uid=str(source.tags.StudyInstanceUID),
        series_instance_uid=uids.of("picture series"), series_number=SERIES, sop_instance_uid=uids.picture,
        instance_number=1, **equipment(about, DESCRIPTION))
    capture.BodyPartExamined = "CHEST"
    capture.ConversionType = "WSD"  # made at a workstation
    capture.SourceImageSequence = [_pointer(source)]
    capture.DerivationDescription = f"film with class activation maps and findings by {about.name}, research use only"
    if "BurnedInAnnotation" in source.tags:  # the words that we burn in name nobody; the film's may
        capture["BurnedInAnnotation"] = source.tags["BurnedInAnnotation"]
    source.identify(capture)
    return capture


def _orientation(source: Source) -> tuple[str, str]:
    """Where the film's rows and columns lead; as a frontal film is hung where it does not say."""
    said = source.tags.get("PatientOrientation") or ()
    known = len(said) == 2 and all(end and set(end) <= set("ALPRFH") for end in said)
    return (str(said[0]), str(said[1])) if known else ("L", "F")


def _pointer(source: Source) -> Any:
    import pydicom

    item = pydicom.Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = source.tags.SOPClassUID, source.tags.SOPInstanceUID
    return item
