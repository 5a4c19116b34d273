"""An Orthanc server: its log of changes, its series and films, by its own REST interface.

Source: Orthanc Book, "REST API of Orthanc" (changes, resources, lookup, storing, sending).
"""

from collections.abc import Sequence
from typing import Any

from ..errors import InputError
from .access import ArchiveError, GoneError, RefusedError, Web
from .ledger import Ledger
from .report import MAKER
from .series import Instance, Series, other_modality

PAGE = 500  # changes of one request


class Orthanc:
    """An Orthanc server.

    Args:
        web: HTTP to it.

    Raises:
        ArchiveError, InputError: it is not there, or something else is.
    """

    def __init__(self, web: Web):
        self.web = web
        system = web.json("GET", "/system")
        if not isinstance(system, dict) or "DatabaseVersion" not in system:
            raise InputError(f"{web.address}: is no Orthanc; for other archives use --dicomweb")

    @property
    def address(self) -> str:
        """Where it is."""
        return self.web.address

    def last(self) -> int:
        """The number of its latest change."""
        return int(self.web.json("GET", "/changes?last")["Last"])

    def skip(self, ledger: Ledger) -> None:
        """Begin behind what is there already."""
        ledger.advance(self.last(), {})

    def look(self, ledger: Ledger) -> None:
        """Read the changes since the ledger's place, and let their series wait.

        New instances count beside series that have become stable: Orthanc forgets which were still growing when it is
        restarted, and then never calls them stable.
        """
        seen = ledger.fact("seen") or 0
        if seen and self.last() < seen:  # another database at the same address, or a log that was cleared
            seen = 0
        done = False
        while not done:
            page = self.web.json("GET", f"/changes?since={seen}&limit={PAGE}")
            series = dict.fromkeys(filter(None, map(self._series_of, page["Changes"])), True)
            seen, done = max(seen, int(page["Last"])), bool(page["Done"]) or not page["Changes"]
            ledger.advance(seen, series)

    def _series_of(self, change: dict) -> str | None:
        if change["ChangeType"] in ("StableSeries", "NewSeries"):
            return change["ID"]
        if change["ChangeType"] != "NewInstance":
            return None
        try:
            return self.web.json("GET", f"/instances/{change['ID']}")["ParentSeries"]
        except GoneError:
            return None

    def series(self, name: str, about: Any, ledger: Ledger) -> Series | None:
        """A waiting series once it has stopped growing; None before.

        Raises:
            GoneError: it is not there any more.
        """
        found = self.web.json("GET", f"/series/{name}")
        tags = found["MainDicomTags"]
        if tags.get("Manufacturer") == MAKER:
            return Series()
        other = other_modality(tags.get("Modality", ""))
        if other:
            return Series(tuple(Instance("", one) for one in found["Instances"]), other)
        if not found["IsStable"]:
            return None
        rows = self.web.json("GET", f"/series/{name}/instances")
        return Series(tuple(Instance(row["MainDicomTags"].get("SOPInstanceUID", ""), row["ID"]) for row in rows))

    def fetch(self, instance: Instance) -> bytes:
        """An instance's file."""
        return self.web.ask("GET", f"/instances/{instance.address}/file").content

    def has(self, beside: Instance, uid: str) -> bool:
        """Whether there is an object with this SOP Instance UID in the study of another."""
        return self._find(uid) is not None

    def _find(self, uid: str) -> str | None:
        rows = self.web.json("POST", "/tools/lookup", data=uid.encode())
        return next((row["ID"] for row in rows if row["Type"] == "Instance"), None)

    def store(self, data: bytes) -> None:
        """Put a file into the archive; one that is there already stays as it is.

        Raises:
            RefusedError: it does not take the file.
        """
        status = self.web.json("POST", "/instances", data=data,
                               headers={"Content-Type": "application/dicom"}).get("Status")
        if status not in ("Success", "AlreadyStored"):
            raise RefusedError("the archive did not keep the report")

    def check_receiver(self, aet: str) -> str:
        """The name under which Orthanc knows an application entity.

        Raises:
            InputError: it does not.
        """
        known = self.web.json("GET", "/modalities?expand")
        for name, modality in known.items():
            if aet in (name, modality.get("AET")):
                return name
        raise InputError(f"--send-to {aet}: {self.address} does not know it; add it to its DicomModalities (known: "
                         f"{', '.join(sorted(known)) or 'none'})")

    def send(self, uids: Sequence[str], receiver: str) -> None:
        """Let the archive send objects on by C-STORE.

        Raises:
            ArchiveError: the receiver does not take them now.
        """
        found = [self._find(uid) for uid in uids]
        try:
            self.web.json("POST", f"/modalities/{receiver}/store",
                          json={"Resources": [one for one in found if one], "Synchronous": True})
        except (ArchiveError, RefusedError):
            raise ArchiveError(f"{receiver} does not take reports") from None
