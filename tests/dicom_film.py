"""A DICOM film made by hand, with a patient whose name must not get out; for the tests of what reads DICOM."""

import io

import numpy as np
import pytest

pydicom = pytest.importorskip("pydicom")

SECRETS = {"PatientName": "Quillfeather^Ottoline", "PatientID": "MRN-4711", "PatientBirthDate": "19330214",
           "AccessionNumber": "ACC99182", "InstitutionName": "St Mungo", "ReferringPhysicianName": "Strange^Stephen",
           "StudyDescription": "cousin of Ottoline", "PatientComments": "neighbour of Bilbo"}


def film(values: np.ndarray, bits=12, photometric="MONOCHROME2", signed=False, syntax=None, **tags):
    """A DICOM file's bytes; `values` int (h, w)."""
    data = pydicom.Dataset()
    data.file_meta = pydicom.dataset.FileMetaDataset()
    data.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    data.SOPClassUID = "1.2.840.10008.5.1.4.1.1.1.1"
    data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID
    for name, value in {"Modality": "DX", "BodyPartExamined": "CHEST", "ViewPosition": "PA", **SECRETS, **tags}.items():
        if value is not None:
            setattr(data, name, value)
    data.Rows, data.Columns = values.shape[:2]
    data.SamplesPerPixel, data.PhotometricInterpretation = values.ndim * 2 - 3, photometric
    data.BitsAllocated = 8 if bits <= 8 else 16
    data.BitsStored, data.HighBit, data.PixelRepresentation = bits, bits - 1, int(signed)
    if values.ndim == 3:
        data.PlanarConfiguration = 0
    data.PixelData = values.astype(("<i" if signed else "<u") + str(data.BitsAllocated // 8)).tobytes()
    if syntax:
        data.compress(syntax)
    out = io.BytesIO()
    pydicom.dcmwrite(out, data, enforce_file_format=True)
    return out.getvalue()
