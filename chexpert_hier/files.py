"""Files that appear whole or not at all, and a lock on a folder that a dead process does not hold."""

import contextlib
import ctypes
import errno
import functools
import glob
import logging
import os
import re
import shutil
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from .errors import InputError

log = logging.getLogger("chexpert_hier.files")

AGAIN = "then run the command again (with --resume where it has one)"
# .<stem>.<8 digits>.part<suffix>, and with .old behind it the folder that gave way to it.
_PART = re.compile(r"\.(?P<stem>.*)\.[0-9a-f]{8}\.part(?P<suffix>.*?)(?P<old>\.old)?", re.DOTALL)
_EXCHANGE, _HERE = 2, -100  # Linux: RENAME_EXCHANGE and AT_FDCWD of renameat2


@contextlib.contextmanager
def written_whole(path: str | os.PathLike[str]) -> Iterator[Path]:
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
            replace_folder(path, beside)
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


def replace_folder(path: Path, beside: Path) -> None:
    """Put the folder `beside` in the place of the folder `path`: in one step where the system has one.

    Elsewhere there is a moment without `path`; a process that dies in it leaves the old folder under a name from which
    `remove_leftovers` puts it back.
    """
    if _exchanged(path, beside):
        shutil.rmtree(beside)
        return
    old = beside.with_name(beside.name + ".old")
    os.replace(path, old)
    os.replace(beside, path)
    shutil.rmtree(old)


def _exchanged(one: Path, other: Path) -> bool:
    """Exchange two names at once; False where the system or file system cannot. Python has no call for it."""
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError, TypeError):
        return False
    return bool(rename(_HERE, os.fsencode(one), _HERE, os.fsencode(other), _EXCHANGE) == 0)


def raise_if_disk(error: Exception, path: str | os.PathLike[str]) -> None:
    """Turn a full or write-protected disk, or a quota of the process, into one line; others are left to the caller.

    Raises:
        InputError: `error` says that the disk is full, over quota or may not be written.
    """
    # HDF5 and TensorFlow wrap the system's error and keep only its text.
    number, text = getattr(error, "errno", None), str(error)
    if number in (errno.ENOSPC, errno.EDQUOT) or "No space left" in text or "errno = 28," in text:
        raise InputError(f"{path}: the disk is full; nothing half-written is left. Free some space, {AGAIN}") from error
    if number == errno.EFBIG or "File too large" in text or "errno = 27," in text:
        raise InputError(f"{path}: larger than this process may write (ulimit -f, or the file system); nothing "
                         f"half-written is left. Raise the limit, {AGAIN}") from error
    if number in (errno.EACCES, errno.EROFS, errno.EPERM):
        raise InputError(f"{path}: cannot be written ({getattr(error, 'strerror', error)}); choose another "
                         "--out") from error


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a text file whole or not at all (UTF-8)."""
    with written_whole(path) as beside:
        beside.write_text(text, encoding="utf-8")


def remove_leftovers(folder: str | os.PathLike[str]) -> None:
    """Remove what a killed process left half-written in `folder` (call it only while holding the folder's lock)."""
    for leftover in sorted(Path(folder).rglob(".*.part*"), reverse=True):
        _remove_leftover(leftover)


def remove_leftovers_of(path: str | os.PathLike[str]) -> None:
    """Remove what a killed process left of writing the one file or folder `path`."""
    path = Path(path)
    pattern = f".{glob.escape(path.stem)}.????????.part{glob.escape(path.suffix)}*"
    for leftover in sorted(path.parent.glob(pattern), reverse=True):
        _remove_leftover(leftover)


def _remove_leftover(leftover: Path) -> None:
    """Remove it, unless it is the only copy of a folder that was being replaced: that is put back."""
    found = _PART.fullmatch(leftover.name)
    if found is None:
        return
    place = leftover.with_name(found["stem"] + found["suffix"])
    if found["old"] and not place.exists():
        os.replace(leftover, place)
    elif leftover.is_dir():
        shutil.rmtree(leftover, ignore_errors=True)
    else:
        leftover.unlink(missing_ok=True)


@contextlib.contextmanager
def locked(folder: str | os.PathLike[str], wait: bool = False) -> Iterator[bool]:
    """Hold `folder` for this process; the system lets go of it when the process dies, however it dies.

    Args:
        folder: is made if needed.
        wait: for another process to let go of it.

    Yields:
        whether it is held.

    On a file system without locks nothing is held, and the log says so once. The lock's file stays: another process
    may wait on it, and would hold another file of the same name.

    Raises:
        InputError: another living process holds it.
    """
    import filelock

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    # Not "soft": a file whose being there is the lock would outlive its process.
    lock = filelock.FileLock(folder / ".lock", timeout=-1 if wait else 0, thread_local=False, fallback_to_soft=False,
                             preserve_lock_file=True)
    try:
        lock.acquire()
    except filelock.Timeout:
        raise InputError(f"{folder}: another process is working in this folder; wait for it or choose another "
                         "--out") from None
    except OSError as error:
        _require_writable(folder / ".lock")  # else it is the lock alone that failed
        _say_once(error.strerror or str(error), folder)
    try:
        yield lock.is_locked
    finally:
        lock.release()


def remove_held(folder: str | os.PathLike[str]) -> None:
    """Remove a folder that this process holds: its lock last, so that nobody else can begin in what is going."""
    folder = Path(folder)
    remove_all_but(folder, ".lock")
    (folder / ".lock").unlink(missing_ok=True)  # who waits on it looks whether it is still there
    with contextlib.suppress(OSError):
        folder.rmdir()  # unless somebody has begun by now


def remove_all_but(folder: Path, *names: str) -> None:
    """Empty a folder but for these names."""
    for path in folder.iterdir():
        if path.name not in names and path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        elif path.name not in names:
            path.unlink(missing_ok=True)


def _require_writable(file: Path) -> None:
    try:
        with open(file, "ab"):
            pass
    except OSError as error:
        raise_if_disk(error, file.parent)
        raise


@functools.cache
def _say_once(why: str, folder: Path) -> None:
    log.warning("%s: this file system has no locks (%s); see to it that no other process works in this folder", folder,
                why)


def not_there(folder: Path) -> list[Path]:
    """The folder and its parents, as far as they are not there; the innermost first."""
    return [each for each in (folder, *folder.parents) if not each.exists()]


@contextlib.contextmanager
def unless_kept(folder: Path, made: Sequence[Path]) -> Iterator[Callable[[], None]]:
    """Empty `folder` again, and remove the folders `made` for it, unless `keep()` is called in between.

    A job that fails before there is anything to keep leaves nothing behind. Call it while holding the folder's lock.

    Args:
        folder: was empty before, or not there.
        made: of `not_there`, before it was made.
    """
    kept = False

    def keep() -> None:
        nonlocal kept
        kept = True

    try:
        yield keep
    finally:
        if not kept:
            remove_held(folder)
            if not made:
                folder.mkdir(exist_ok=True)
            for parent in made[1:]:
                with contextlib.suppress(OSError):  # another job's folder lies there by now
                    parent.rmdir()


def _sync_folder(folder: Path) -> None:
    if hasattr(os, "O_DIRECTORY"):
        handle = os.open(folder, os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
