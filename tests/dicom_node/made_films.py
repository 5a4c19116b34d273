"""Films of the phantom as DICOM files of eight kinds, each with a patient whose name must not get out."""

import io

import cv2
import numpy as np
from dicom_film import film, pydicom

DX, CT, CR = "1.2.840.10008.5.1.4.1.1.1.1", "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.1"
UMLAUT = "Ährenfeld^Jürgen"
NAMES = ("Quillfeather", "Ottoline", "MRN-4711", "19330214", "ACC99182", "Mungo", "Strange", "Ährenfeld", "hrenfeld")


def uid(*parts):
    """A UID of a number or more."""
    return ".".join(["1.2.826.0.1.3680043.8.498", *map(str, parts)])


def dicom(grey, number=1, bits=12, kind=DX, **tags):
    """A DICOM file's bytes: `grey` uint8 (h, w) as a film of its own study, `number`; tags of None are left out."""
    values = grey.astype(np.int64) << (bits - 8)
    tags = {"StudyDate": "20261103", "StudyTime": "101500", "StudyID": f"S{number}", "PatientSex": "F",
            "StudyInstanceUID": uid(number), "SeriesInstanceUID": uid(number, 1), "SOPInstanceUID": uid(number, 1, 1),
            "SOPClassUID": kind, "WindowCenter": 2 ** (bits - 1), "WindowWidth": 2 ** bits,
            "PatientOrientation": ["L", "F"], **tags}
    return rewritten(film(values, bits=bits, **{name: value for name, value in tags.items()}),
                     *(name for name, value in tags.items() if value is None),
                     SOPInstanceUID=tags["SOPInstanceUID"])  # which compressing has changed


def rewritten(data, *without, **tags):
    """A file's bytes with its file meta information made to fit, without some tags and with others changed."""
    found = pydicom.dcmread(io.BytesIO(data))
    for name in without:
        if name in found:
            del found[name]
    for name, value in tags.items():
        setattr(found, name, value)
    found.file_meta.MediaStorageSOPClassUID = found.SOPClassUID
    found.file_meta.MediaStorageSOPInstanceUID = found.SOPInstanceUID or uid(0)
    out = io.BytesIO()
    pydicom.dcmwrite(out, found, enforce_file_format=True)
    return out.getvalue()


def jpeg(grey, number, damaged=False):
    """A film in JPEG Baseline; damaged: half of its picture's data is missing."""
    found = pydicom.dcmread(io.BytesIO(dicom(grey, number, bits=8)))
    data = cv2.imencode(".jpg", grey)[1].tobytes()
    data = data[:len(data) // 2] if damaged else data
    found.PixelData = pydicom.encaps.encapsulate([data])
    found["PixelData"].is_undefined_length = True
    found.file_meta.TransferSyntaxUID = pydicom.uid.JPEGBaseline8Bit
    found.LossyImageCompression = "01"
    out = io.BytesIO()
    pydicom.dcmwrite(out, found, enforce_file_format=True)
    return out.getvalue()


def eight_kinds(grey, lateral):
    """name -> (a DICOM file's bytes, storescu's options, whether there is a report, else a part of the reason)."""
    return {
        "plain": (dicom(grey, 1), (), True),
        "jpeg": (jpeg(grey, 2), ("-xy",), True),
        "monochrome1": (dicom(255 - grey, 3, photometric="MONOCHROME1", kind=CR, Modality="CR"), (), True),
        "jpeg2000, umlaut, no view": (dicom(grey, 4, syntax=pydicom.uid.JPEG2000Lossless, PatientName=UMLAUT,
                                            SpecificCharacterSet="ISO_IR 100", ViewPosition=None), ("-xv",), True),
        "ct": (dicom(grey, 5, kind=CT, Modality="CT", ViewPosition=None), (), "modality is CT"),
        "lateral": (dicom(lateral, 6, ViewPosition="LL"), (), "lateral"),
        "damaged": (jpeg(grey, 7, damaged=True), ("-xy",), "cut off"),
        "without pixels": (rewritten(dicom(grey, 8), "PixelData"), (), "no pixel data"),
    }


__all__ = ["CR", "CT", "DX", "NAMES", "UMLAUT", "dicom", "eight_kinds", "jpeg", "pydicom", "rewritten", "uid"]
