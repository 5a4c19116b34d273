"""Files on disk and in object storage under one roof: what fsspec reads, in the few ways the archive needs.

Knows no films and no Ray.
"""

import os
import posixpath
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import files
from ..errors import InputError, install


@dataclass(frozen=True)
class Place:
    """A file or folder on a file system.

    Attributes:
        system: an fsspec file system.
        path: on it, without the protocol, "/" between its parts.
    """

    system: Any
    path: str

    def __truediv__(self, name: str) -> "Place":
        return Place(self.system, posixpath.join(self.path, name))

    def __str__(self) -> str:
        return self.path if self.local else self.system.unstrip_protocol(self.path)

    @property
    def local(self) -> bool:
        """Whether it lies on a disk of this machine."""
        protocol = self.system.protocol
        return "file" in (protocol if isinstance(protocol, tuple | list) else (protocol,))

    @property
    def name(self) -> str:
        """The last part of the path."""
        return posixpath.basename(self.path)

    def arrow(self) -> Any:
        """The file system as pyarrow and Ray take it."""
        from pyarrow import fs

        return fs.LocalFileSystem() if self.local else fs.PyFileSystem(fs.FSSpecHandler(self.system))

    def exists(self) -> bool:
        """Whether there is a file or folder."""
        return self.system.exists(self.path)

    def files(self, ending: str = "") -> list["Place"]:
        """The files directly in this folder, by name; none where there is no folder."""
        self.system.invalidate_cache(self.path)
        try:
            found = self.system.ls(self.path, detail=True)
        except FileNotFoundError:
            return []
        return [Place(self.system, entry["name"]) for entry in sorted(found, key=lambda entry: entry["name"])
                if entry["type"] == "file" and entry["name"].endswith(ending)]

    def read(self) -> bytes:
        """The file's bytes."""
        return self.system.cat_file(self.path)

    def write(self, data: bytes) -> None:
        """Write a file whole or not at all: by a rename on disk; object stores keep no half upload."""
        if self.local:
            with files.written_whole(self.path) as beside:
                beside.write_bytes(data)
        else:
            self.system.pipe_file(self.path, data)

    def create(self, data: bytes) -> None:
        """Write a small file that must not be there yet; of several that try at once one succeeds.

        Raises:
            FileExistsError: it is there.
        """
        if self.local:
            with open(self.path, "xb") as file:
                file.write(data)
            return
        try:
            self.system.pipe_file(self.path, data, mode="create")
        except OSError as error:  # s3fs passes the store's own words on
            if "PreconditionFailed" in str(error) or "pre-conditions" in str(error) or "412" in str(error):
                raise FileExistsError(str(self)) from None
            raise

    def remove(self) -> None:
        """Remove the file if it is there."""
        try:
            self.system.rm_file(self.path)
        except FileNotFoundError:
            pass

    def free(self) -> int | None:
        """Free bytes on the disk; None in an object store."""
        if not self.local:
            return None
        place = Path(self.path)
        while not place.exists():
            place = place.parent
        stats = os.statvfs(place)
        return stats.f_bavail * stats.f_frsize


def at(address: str | os.PathLike) -> Place:
    """The place of a path or of an address such as s3://bucket/films.

    Raises:
        InputError: fsspec or the package for this kind of storage is missing.
    """
    try:
        import fsspec
    except ImportError:
        raise InputError(f"archive needs fsspec; {install('archive')}") from None
    text = os.fspath(address)
    try:
        system, path = fsspec.core.url_to_fs(text)
    except (ImportError, ValueError) as error:
        raise InputError(f"{text}: {error}; expected a path, or an address that fsspec reads") from None
    return Place(system, path.rstrip("/") or "/")
