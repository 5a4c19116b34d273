"""One small finished run and the server with it, for all tests of this folder."""

import cv2
import numpy as np
import pytest
from finished import make_films, make_run
from served import open_model, serving


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    return make_films(tmp_path_factory.mktemp("serve"))


@pytest.fixture(scope="session")
def runs(data):
    return [make_run(data.parent / f"run{seed}", data, seed=seed) for seed in (0, 1)]


@pytest.fixture(scope="session")
def frontal(data):
    return sorted((data / "valid").rglob("*frontal.jpg"))


@pytest.fixture(scope="session")
def model(runs):
    return open_model(runs[0])


@pytest.fixture(scope="session")
def client(model):
    with serving(model) as running:
        yield running


@pytest.fixture(scope="session")
def dicom(frontal):
    """A function: DICOM bytes of a real-looking film, 12 bits, with the tags given."""
    import io

    pydicom = pytest.importorskip("pydicom")

    def write(**tags):
        meta = pydicom.dataset.FileMetaDataset()
        meta.TransferSyntaxUID, meta.MediaStorageSOPInstanceUID = pydicom.uid.ExplicitVRLittleEndian, "1.2.3"
        meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.1"
        grey = cv2.imread(str(frontal[0]), cv2.IMREAD_GRAYSCALE)
        film = pydicom.dataset.FileDataset("film", {}, file_meta=meta, preamble=b"\0" * 128)
        film.Modality, film.PhotometricInterpretation, film.SamplesPerPixel = "DX", "MONOCHROME2", 1
        film.BitsAllocated, film.BitsStored, film.HighBit, film.PixelRepresentation = 16, 12, 11, 0
        film.Rows, film.Columns = grey.shape
        film.WindowCenter, film.WindowWidth = 2048, 4096
        film.PatientName, film.PatientID = "Doe^Jane", "4711-0815"
        film.PixelData = (grey.astype(np.uint16) * 16).tobytes()
        for name, value in tags.items():
            setattr(film, name, value)
        out = io.BytesIO()
        film.save_as(out, enforce_file_format=True)
        return out.getvalue()

    return write
