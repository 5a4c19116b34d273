"""What an archive holds, as the node goes through it: series, and the instances in them."""

from dataclasses import dataclass
from typing import Any, Protocol

from ..films.dicom import MODALITIES
from .ledger import Ledger


@dataclass(frozen=True)
class Instance:
    """One film or other object of an archive.

    Attributes:
        uid: its SOP Instance UID; "" where it does not matter.
        address: how the archive finds it.
    """

    uid: str
    address: Any


@dataclass(frozen=True)
class Series:
    """A series that can be worked on; empty where this package wrote it.

    Attributes:
        instances: what is in it.
        other: why none of them is a chest film, "" where they may be.
    """

    instances: tuple[Instance, ...] = ()
    other: str = ""


class Archive(Protocol):
    """What the node asks of an archive. Everything may raise access.ArchiveError and errors.InputError."""

    @property
    def address(self) -> str:
        """Where it is."""

    def look(self, ledger: Ledger) -> None:
        """Let the series wait that are new or have grown since the ledger's place."""

    def skip(self, ledger: Ledger) -> None:
        """Leave alone what is there already."""

    def series(self, name: str, about: Any, ledger: Ledger) -> Series | None:
        """A waiting series once it has stopped growing, None before; GoneError where it is not there any more."""

    def fetch(self, instance: Instance) -> bytes:
        """An instance's file; GoneError where it is not there any more."""

    def has(self, beside: Instance, uid: str) -> bool:
        """Whether there is an object with this SOP Instance UID in the study of another."""

    def store(self, data: bytes) -> None:
        """Put a file into the archive, where an equal one may be; RefusedError where it does not take it."""


def other_modality(modality: str) -> str:
    """Why a series of this modality is no film, "" where it may be one; quotes nothing but short codes."""
    modality = modality.strip().upper()
    if not modality or modality in MODALITIES:
        return ""
    shown = modality if modality.isalpha() and len(modality) <= 4 else "something else"
    return f"modality is {shown}, not CR or DX"
