"""Which film a report is about: the tags that a report must repeat, and the UIDs that follow from them.

The one place of the package where tags about a patient are read (`films.dicom` takes none). They are what the Patient
and General Study modules of a report need to be filed with its film, and go nowhere else: into no log, no place file
and no picture.
"""

import hashlib
import io
import re
import uuid
from dataclasses import dataclass
from typing import Any

from ..films.grey import FilmError

# PS3.3 C.7.1.1 (Patient) and C.7.2.1 (General Study): what is required there, and what says whose number it is.
IDENTITY = ("PatientName", "PatientID", "IssuerOfPatientID", "PatientBirthDate", "PatientSex", "StudyInstanceUID",
            "StudyDate", "StudyTime", "StudyID", "AccessionNumber", "ReferringPhysicianName")
OPTIONAL = ("IssuerOfPatientID",)  # copied where the film has it; the others are there, empty where it has not
# PS3.3 C.17.2 and C.7.6.1: which film it is, and how it lies.
FILM = ("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "Modality", "PatientOrientation", "BurnedInAnnotation",
        "TimezoneOffsetFromUTC")
UIDS = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID")
LATIN, UTF8 = "ISO_IR 100", "ISO_IR 192"
_UID = re.compile(r"[0-9.]{1,64}")  # also those that break the standard's further rules


@dataclass(frozen=True, eq=False)
class Source:
    """A film as its report refers to it.

    Attributes:
        tags: a pydicom data set of IDENTITY and FILM, as far as the film has them, in Unicode.
    """

    tags: Any

    @property
    def uid(self) -> str:
        """Its SOP Instance UID."""
        return str(self.tags.SOPInstanceUID)

    def identify(self, written: Any) -> None:
        """Give an object about this film the film's patient and study, and nothing else of either."""
        for name in IDENTITY:
            if name in self.tags:
                written[name] = self.tags[name]
            elif name not in OPTIONAL:
                setattr(written, name, None)
        if "TimezoneOffsetFromUTC" in self.tags:
            written["TimezoneOffsetFromUTC"] = self.tags["TimezoneOffsetFromUTC"]
        # The plainest character set that holds these tags, for not all readers know the others.
        text = "".join(str(self.tags[name].value) for name in IDENTITY if name in self.tags)
        if not text.isascii():
            written.SpecificCharacterSet = LATIN if _is_latin(text) else UTF8


def read(data: bytes) -> Source:
    """The tags of a film's file.

    Raises:
        FilmError: they cannot be read, or a UID is missing without which no report can refer to it.
    """
    import pydicom

    try:
        head = pydicom.dcmread(io.BytesIO(data), force=True, stop_before_pixels=True,
                               specific_tags=[*IDENTITY, *FILM, "SpecificCharacterSet"])
        head.decode()
        tags = pydicom.Dataset()
        for name in (*IDENTITY, *FILM):
            if name in head:
                setattr(tags, name, _unicode(head[name].value))
    except Exception:  # whatever a damaged file brings about; the library's text could quote a tag
        raise FilmError("damaged: its patient and study cannot be read; copy the file again") from None
    for name in UIDS:
        if not _UID.fullmatch(str(tags.get(name) or "")):
            raise FilmError(f"has no {name}, so that no report can refer to it")
    return Source(tags)


def _is_latin(text: str) -> bool:
    try:
        return bool(text.encode("iso8859-1"))
    except UnicodeEncodeError:
        return False


def _unicode(value: Any) -> Any:
    """A person's name as text, so that it is written anew and not in the film's own characters."""
    from pydicom.valuerep import PersonName

    return str(value) if isinstance(value, PersonName) else value


def derived_uid(*parts: str) -> str:
    """A UID that follows from what it is about: the same parts give the same one, everywhere and always.

    Source: DICOM PS3.5 B.2 (a UUID below 2.25), RFC 9562 (a UUID of version 5, made from a name).
    """
    return f"2.25.{uuid.uuid5(uuid.NAMESPACE_OID, ' '.join(('chexpert_hier', *parts))).int}"


@dataclass(frozen=True)
class Uids:
    """UIDs of what one model writes about one film, each a function of the film's UID and the model's fingerprint."""

    film: str
    fingerprint: str

    @property
    def report(self) -> str:
        """Of the structured report."""
        return self.of("report")

    @property
    def picture(self) -> str:
        """Of the secondary capture."""
        return self.of("picture")

    def of(self, what: str) -> str:
        """Of anything else about the film."""
        return derived_uid(self.fingerprint, self.film, what)


def key(uid: str) -> str:
    """What the place file and the log call a film: a hash of its UID."""
    return hashlib.sha256(uid.encode()).hexdigest()[:24]
