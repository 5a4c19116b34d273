"""Names of films: how they are written, and which of them a data folder may lead to. One rule for all commands.

A file system allows names that a table, a page or a terminal cannot hold as they are: bytes that are no UTF-8, line
breaks, control characters. In every table, in memory, in messages and in JSON a film's path is therefore its `escaped`
form, which is the name itself for all but such names; only what opens a file or reads a folder turns one into the
other.

    a backslash                             \\\\
    a control character, U+2028, U+2029     \\xHH for each byte of its UTF-8 form (HH: two hexadecimal digits)
    a byte that is no UTF-8                 \\xHH
    =, +, - or @ as the first character     \\xHH, so that no spreadsheet takes a cell for a formula
"""

import os
import re
from collections.abc import Iterable, Sequence

# Control characters (C0, DEL, C1), the two Unicode line ends, bytes that are no UTF-8 (as `os.fsdecode` gives them).
_WRITTEN = re.compile("[\0-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]|^[=+@-]")
_ODD = re.compile(rf"\\|{_WRITTEN.pattern}")
_READ = re.compile(r"\\(?:\\|((?:x[0-9a-fA-F]{2})(?:\\x[0-9a-fA-F]{2})*))")
# Absolute, on another host or drive, or upwards, whichever way the slashes lean.
_LEAVES = re.compile(r"^/|^\\\\|^[A-Za-z]:|(?:^|[/\\])\.\.(?:[/\\]|$)")


def escaped(name: str) -> str:
    """A file's name, as `os.fsdecode` gives it, in its written form.

    >>> print(escaped("film\\n1.png"), escaped("=A1.png"), escaped(r"a\\b.png"))
    film\\x0a1.png \\x3dA1.png a\\\\b.png
    """
    if "\\" in name:
        name = name.replace("\\", "\\\\")
    return _WRITTEN.sub(_as_bytes, name)


def _as_bytes(found: re.Match[str]) -> str:
    return "".join(f"\\x{byte:02x}" for byte in found[0].encode("utf-8", "surrogateescape"))


def cell(text: str) -> str:
    """Words of somebody else's table (a label, a group) as a cell of ours: no control character, and no formula.

    >>> print(cell("=1+1"), cell("No Finding"))
    \\x3d1+1 No Finding
    """
    return _WRITTEN.sub(_as_bytes, text)


def unescaped(path: str) -> str:
    """The name that a written path stands for; the inverse of `escaped`. Other backslashes stand for themselves.

    >>> unescaped(escaped("film\\n1.png")) == "film\\n1.png"
    True
    """
    return _READ.sub(_from_bytes, path) if "\\" in path else path


def _from_bytes(found: re.Match[str]) -> str:
    if found[1] is None:
        return "\\"
    return bytes.fromhex(found[1].replace("\\", "").replace("x", "")).decode("utf-8", "surrogateescape")


def canonical(cell: str) -> str:
    """A cell of a table that somebody else wrote, as this package writes it: `escaped`, but never twice."""
    return escaped(unescaped(cell)) if _ODD.search(cell) else cell


def leaves(path: str) -> bool:
    """Whether a path leaves the folder that it is relative to, by its text alone."""
    return _LEAVES.search(path) is not None


def outside(root: str | os.PathLike[str], files: Sequence[str]) -> list[str]:
    """Why each file is not inside a data folder, "" where it is; a file that is missing is not looked for.

    Args:
        root: the data folder, which may be a link itself.
        files: relative to it, with "/", as written.

    Returns:
        e.g. "is outside: its path leaves the data folder", "is a link that leaves the data folder" or "lies behind a
        link that leaves the data folder", to be put after the film's name.
    """
    top, files = os.path.realpath(root), [unescaped(file) for file in files]
    behind = _links_outside(top, {os.path.dirname(file) for file in files if not leaves(file)})
    return [_outside(top, file, behind) for file in files]


def _outside(top: str, file: str, behind: frozenset[str]) -> str:
    if leaves(file):
        return "is outside: its path leaves the data folder"
    if os.path.dirname(file) in behind:
        return "lies behind a link that leaves the data folder"
    path = os.path.join(top, file)
    try:
        return "is a link that leaves the data folder" if os.path.islink(path) and not _inside(top, path) else ""
    except (OSError, ValueError):
        return ""  # no file name at all: whoever opens it says so


def _links_outside(top: str, folders: Iterable[str]) -> frozenset[str]:
    """Which of the folders below `top` lie behind a symbolic link that leaves it."""
    verdict: dict[str, bool] = {}

    def leads_out(folder: str) -> bool:
        path, beyond = "", False
        for part in folder.split("/"):
            path, above = f"{path}/{part}", beyond
            if path not in verdict:
                verdict[path] = above or (os.path.islink(top + path) and not _inside(top, top + path))
            beyond = verdict[path]
        return beyond

    return frozenset(folder for folder in folders if leads_out(folder))


def _inside(top: str, path: str) -> bool:
    real = os.path.realpath(path)
    return real == top or real.startswith(top.rstrip("/") + "/")
