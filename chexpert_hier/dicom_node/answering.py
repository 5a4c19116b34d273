"""From a film's file to the two files that are written about it; films that get none, and why."""

import io
from collections.abc import Sequence
from typing import Any

from ..archive.job import fingerprint
from ..films import dicom
from ..films.grey import FilmError
from ..films.quiet import quiet
from ..serve.model import Reading, ServedModel
from . import source
from .findings import About
from .source import Source, Uids


class LeftError(Exception):
    """A film that gets no report; the text says why, and nothing of the patient."""


class Answerer:
    """A finished model that reports on films.

    Args:
        models: run folders, `.keras` files in them, SavedModels or ONNX files; several are an ensemble.
        engine: what computes run folders; see finished.members.open_run.
        odd_too: report on films that look odd as well, with a word about it.

    Attributes:
        fingerprint: of the models.

    Raises:
        InputError: it is no model, or the models do not fit together.
    """

    def __init__(self, models: Sequence[str], engine: str = "auto", odd_too: bool = False):
        import pydicom

        quiet()
        # A film's own odd values are repeated as they are; what is added is checked by highdicom.
        pydicom.config.settings.writing_validation_mode = pydicom.config.IGNORE
        self.fingerprint, self.odd_too = fingerprint(models), odd_too
        self.about = About(ServedModel(models, engine), self.fingerprint)

    def uids(self, film: str) -> Uids:
        """UIDs of what this model writes about the film with this SOP Instance UID."""
        return Uids(film, self.fingerprint)

    def answer(self, data: bytes) -> dict[str, bytes]:
        """The files to write about a film, by their SOP Instance UIDs: the picture, then the report.

        Raises:
            LeftError: it is no frontal chest film, or cannot be used.
        """
        try:
            if not dicom.is_dicom(data):
                raise FilmError("not a DICOM file")
            read = self.about.model.read(data)
            if read.film.lateral:
                raise FilmError("a lateral film")
            if read.code and not self.odd_too:
                raise FilmError(f"odd: {read.flag}")
            film = source.read(data)
        except FilmError as error:
            raise LeftError(" ".join(str(error).split())) from None
        except MemoryError:
            raise LeftError("too large for this machine's memory") from None
        reading = self.about.model.answer([(read, self.about.model.has_maps)])[0]
        try:
            return self._files(film, read.grey, reading)
        except Exception as error:  # its tags can be odd in more ways than one can name; the text could quote one
            raise LeftError(f"its report cannot be written ({type(error).__name__})") from None

    def _files(self, film: Source, grey: Any, reading: Reading) -> dict[str, bytes]:
        from .capture import secondary_capture
        from .picture import draw
        from .report import structured_report

        uids, findings = self.uids(film.uid), self.about.findings(reading)
        picture = draw(grey, findings, reading.maps, self.about, reading.flag)
        return {uids.picture: _bytes(secondary_capture(picture, film, uids, self.about)),
                uids.report: _bytes(structured_report(film, uids, self.about, findings, reading.flag))}


def _bytes(written: Any) -> bytes:
    import pydicom

    out = io.BytesIO()
    pydicom.dcmwrite(out, written, enforce_file_format=True)
    return out.getvalue()
