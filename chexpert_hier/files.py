"""Files that appear whole or not at all, and a lock on a folder that a dead process does not hold."""

import contextlib
import errno
import glob
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

from .errors import InputError

try:
    import fcntl
except ImportError:  # Windows without WSL2: runs work, only the lock is not held
    fcntl = None


@contextlib.contextmanager
def written_whole(path: str | os.PathLike) -> Iterator[Path]:
    """Give a path beside `path` to write to (a file or a folder); on success it takes the name `path` at once.

    The data are forced to the disk before the rename, so that a crash leaves the old file or the new one.

    Args:
        path: where the file or folder shall appear; its parent is made if needed. A folder already there is replaced.

    Yields:
        a path with the same suffix in the same folder.

    Raises:
        InputError: the disk is full or the place cannot be written; nothing is left behind.
    """
    path = Path(path)
    beside = path.with_name(f".{path.stem}.{uuid.uuid4().hex[:8]}.part{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield beside
        for file in [beside, *(sorted(beside.rglob("*")) if beside.is_dir() else [])]:
            if file.is_file():
                with open(file, "rb+") as handle:
                    os.fsync(handle.fileno())
        if path.is_dir() and beside.is_dir():
            old = beside.with_name(beside.name + ".old")
            os.replace(path, old)
            os.replace(beside, path)
            shutil.rmtree(old)
        else:
            os.replace(beside, path)
        _sync_folder(path.parent)
    except Exception as error:  # TensorFlow has errors of its own for a full disk
        raise_if_disk(error, path)
        raise
    finally:
        if beside.is_dir():
            shutil.rmtree(beside, ignore_errors=True)
        else:
            beside.unlink(missing_ok=True)


def raise_if_disk(error: Exception, path: str | os.PathLike) -> None:
    """Turn a full or write-protected disk, or a quota of the process, into one line; others are left to the caller.

    Raises:
        InputError: `error` says that the disk is full, over quota or may not be written.
    """
    # HDF5 and TensorFlow wrap the system's error and keep only its text.
    number, text = getattr(error, "errno", None), str(error)
    if number in (errno.ENOSPC, errno.EDQUOT) or "No space left" in text or "errno = 28," in text:
        raise InputError(f"{path}: the disk is full; nothing half-written is left. Free some space, then go on "
                         f"with --resume") from error
    if number == errno.EFBIG or "File too large" in text or "errno = 27," in text:
        raise InputError(f"{path}: larger than this process may write (ulimit -f, or the file system); nothing "
                         "half-written is left. Raise the limit, then go on with --resume") from error
    if number in (errno.EACCES, errno.EROFS, errno.EPERM):
        raise InputError(f"{path}: cannot be written ({error.strerror}); choose another --out") from error


def write_text(path: str | os.PathLike, text: str) -> None:
    """Write a text file whole or not at all (UTF-8)."""
    with written_whole(path) as beside:
        beside.write_text(text, encoding="utf-8")


def remove_leftovers(folder: str | os.PathLike) -> None:
    """Remove what a killed process left half-written in `folder` (call it only while holding the folder's lock)."""
    for leftover in Path(folder).rglob(".*.part*"):
        if leftover.is_dir():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            leftover.unlink(missing_ok=True)


def remove_leftovers_of(path: str | os.PathLike) -> None:
    """Remove what a killed process left of writing the one file or folder `path`."""
    path = Path(path)
    for leftover in path.parent.glob(f".{glob.escape(path.stem)}.????????.part{glob.escape(path.suffix)}*"):
        if leftover.is_dir():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            leftover.unlink(missing_ok=True)


@contextlib.contextmanager
def locked(folder: str | os.PathLike) -> Iterator[None]:
    """Hold `folder` for this process; the system lets go of it when the process dies, however it dies.

    Raises:
        InputError: another living process holds it.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "a") as handle:
        if fcntl is not None:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise InputError(f"{folder}: another process is working in this folder; "
                                 "wait for it or choose another --out") from None
        yield


def _sync_folder(folder: Path) -> None:
    if hasattr(os, "O_DIRECTORY"):
        handle = os.open(folder, os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
