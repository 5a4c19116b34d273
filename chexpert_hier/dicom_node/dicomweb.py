"""Any archive with DICOMweb: series found by QIDO-RS, films fetched by WADO-RS, reports stored by STOW-RS.

DICOMweb has no log of changes, so the node asks for all series of film modalities again and again, and works on those
whose number of instances is new to it and did not change between two looks. Ask for a range of study dates where the
archive is large.

Source: DICOM PS3.18, sections 10.4 (retrieve), 10.5 (store), 10.6 (search); 8.6 (multipart).
"""

import email.message
import uuid
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

from ..films.dicom import MODALITIES
from .access import ArchiveError, GoneError, RefusedError, Web, said
from .ledger import Ledger
from .report import MAKER
from .series import Instance, Series

PAGE = 200  # rows of one search
STUDY, SERIES, INSTANCE = "0020000D", "0020000E", "00080018"
MANUFACTURER, FILMS = "00080070", "00201209"
FAILED, REASON = "00081198", "00081197"
DUPLICATE = 0x0111  # Failure Reason: the object is there already
JSON = {"Accept": "application/dicom+json"}
FILE = {"Accept": 'multipart/related; type="application/dicom"; transfer-syntax=*'}


class DicomWeb:
    """An archive with DICOMweb.

    Args:
        web: HTTP to the root of its services, e.g. http://127.0.0.1:8042/dicom-web.
        dates: a range of study dates as QIDO-RS takes it, e.g. 20261101-; "" for all.

    Raises:
        ArchiveError, InputError: it is not there, or does not know us.
    """

    def __init__(self, web: Web, dates: str = ""):
        self.web, self.dates = web, dates
        self._search("/studies", limit="1")

    @property
    def address(self) -> str:
        """Where it is."""
        return self.web.address

    def skip(self, ledger: Ledger) -> None:
        """Count what is there already as worked on."""
        self.look(ledger)
        for series, about in ledger.waiting().items():
            ledger.finish(series, about["films"])

    def look(self, ledger: Ledger) -> None:
        """Let the series wait that have more films, or fewer, than when they were worked on."""
        waiting = ledger.waiting()
        found = {name: {**about, "same": True} for name, about in waiting.items()}  # if it is not there any more
        for modality in MODALITIES:
            for row in self._pages("/series", Modality=modality, includefield=f"{MANUFACTURER},{FILMS}",
                                   **({"StudyDate": self.dates} if self.dates else {})):
                series, films = _value(row, SERIES), int(_value(row, FILMS) or 0)
                before = waiting.get(series, {}).get("films")
                if series and _value(row, MANUFACTURER) != MAKER and (before or films != ledger.taken(series)):
                    found[series] = {"study": _value(row, STUDY), "films": films, "same": before == films}
        ledger.advance(0, found)

    def series(self, name: str, about: Any, ledger: Ledger) -> Series | None:
        """A waiting series once two looks have found as many films in it; None before."""
        if not about["same"]:
            return None
        path = f"/studies/{quote(about['study'])}/series/{quote(name)}/instances"
        rows = list(self._pages(path))
        if not rows:
            raise GoneError("not in the archive any more")
        uids = sorted(filter(None, (_value(row, INSTANCE) for row in rows)))
        return Series(tuple(Instance(uid, (about["study"], name)) for uid in uids))

    def fetch(self, instance: Instance) -> bytes:
        """An instance's file."""
        study, series = map(quote, instance.address)
        path = f"/studies/{study}/series/{series}/instances/{quote(instance.uid)}"
        answer = self.web.ask("GET", path, headers=FILE)
        return _only_part(answer.headers.get("Content-Type", ""), answer.content)

    def has(self, beside: Instance, uid: str) -> bool:
        """Whether there is an object with this SOP Instance UID in the study of another."""
        return bool(self._search(f"/studies/{quote(beside.address[0])}/instances", SOPInstanceUID=uid))

    def store(self, data: bytes) -> None:
        """Put a file into the archive, where an equal one may be.

        Raises:
            RefusedError: it does not take the file.
        """
        mark = uuid.uuid4().hex
        body = b"".join([f"--{mark}\r\nContent-Type: application/dicom\r\n\r\n".encode(), data,
                         f"\r\n--{mark}--\r\n".encode()])
        kind = f'multipart/related; type="application/dicom"; boundary={mark}'
        try:
            found = said(self.web.ask("POST", "/studies", data=body, headers={**JSON, "Content-Type": kind}))
        except RefusedError as error:
            if not _duplicate(error.said):
                raise
            return
        if found.get(FAILED, {}).get("Value") and not _duplicate(found):
            raise RefusedError("the archive did not keep the report")

    def _search(self, path: str, **query: str) -> list[dict]:
        try:
            rows = self.web.json("GET", path, params=query, headers=JSON)
        except GoneError:  # some archives answer so for nothing found
            return []
        if not isinstance(rows, list):
            raise ArchiveError(f"{self.address} answered something other than a list; is the address right?")
        return rows

    def _pages(self, path: str, **query: str) -> Iterator[dict]:
        """All rows: until a page is empty, for archives give fewer than asked for; or the same, where offset is
        nothing to them."""
        offset, before = 0, None
        while rows := self._search(path, limit=str(PAGE), offset=str(offset), **query):
            if rows == before:
                return
            yield from rows
            offset, before = offset + len(rows), rows


def _value(row: dict, tag: str) -> str:
    values = row.get(tag, {}).get("Value") or [""]
    return str(values[0])


def _duplicate(found: dict) -> bool:
    """Whether all that STOW-RS failed to store was there already."""
    failed = found.get(FAILED, {}).get("Value") or []
    return bool(failed) and all(_value(one, REASON) == str(DUPLICATE) for one in failed)


def _only_part(kind: str, body: bytes) -> bytes:
    """The one file in a multipart answer, or the answer itself where it is none."""
    if not kind.lower().startswith("multipart/"):
        return body
    about = email.message.Message()
    about["Content-Type"] = kind
    mark = (about.get_boundary() or "").encode()
    parts = (b"\r\n" + body).split(b"\r\n--" + mark)  # before the first, the parts, what ends the last
    if not mark or len(parts) != 3 or b"\r\n\r\n" not in parts[1]:
        raise RefusedError("the archive gave something other than one file for a film")
    return parts[1].split(b"\r\n\r\n", 1)[1]
