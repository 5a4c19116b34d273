"""The command: ``python -m chexpert_hier.dicom_node --orthanc URL --model RUN [...]``."""

import argparse
import contextlib
import hashlib
import importlib.util
import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from .. import commands
from ..errors import InputError, install
from ..files import locked
from ..finished.arguments import add_models
from . import access

if TYPE_CHECKING:
    from .dicomweb import DicomWeb
    from .ledger import Ledger
    from .node import Node
    from .orthanc import Orthanc

log = logging.getLogger("chexpert_hier.dicom_node")
NEEDED = ("highdicom", "pydicom", "requests")


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    args = commands.Parser(
        prog="python -m chexpert_hier.dicom_node", description="Beside a picture archive: answers every new frontal "
        "chest film, and writes a structured report and a picture back. Research use only; read docs/dicom_node.md "
        "before it meets patients' films.")
    add = args.add_argument
    archive = args.add_mutually_exclusive_group(required=True)
    archive.add_argument("--orthanc", metavar="URL", help="an Orthanc server, e.g. http://127.0.0.1:8042")
    archive.add_argument("--dicomweb", metavar="URL", help="the root of any archive's DICOMweb services, e.g. "
                         "https://archive/dicom-web")
    add_models(args)
    add("--once", action="store_true", help="end when nothing new is left; without it, follow the archive")
    add("--send-to", metavar="AET", help="let Orthanc send what is written on to this application entity of its "
        "DicomModalities")
    add("--access", metavar="FILE", help="JSON with user and password or token, ca, certificate, key; nobody "
        "but you may be able to read it")
    add("--place", metavar="DIR", help="where the node remembers what it has done (default: a folder in "
        "CHEXPERT_HIER_HOME or ~/.cache/chexpert_hier, one for each archive, model and receiver)")
    add("--from-now", action="store_true", help="skip what is in the archive already; has an effect only when --place "
        "is new")
    add("--study-dates", default="", metavar="RANGE", help="with --dicomweb: only studies of these dates, e.g. "
        "20261101- (default: all)")
    add("--odd-too", action="store_true", help="report on films that look odd (inverted, turned, not frontal) as "
        "well, and say so; by default they are left alone")
    add("--every", type=float, default=5.0, metavar="SECONDS", help="seconds between two looks at the "
        "archive (default: 5)")
    args.add_quiet("only warnings and the last count")
    return args


def main(argv: list[str] | None = None) -> int:
    """Run the command; 0 when done."""
    args = parser().parse_args(argv)
    _check(args)
    commands.hush(args)
    try:
        _beside(_archive(args), args)
    except (access.ArchiveError, access.RefusedError) as error:  # before the work, in which the node deals with them
        raise InputError(f"{error}; is it running, and is the address right?") from None
    return 0


def _beside(archive: "Orthanc | DicomWeb", args: argparse.Namespace) -> None:
    from .answering import Answerer
    from .node import Node, Ways, summary

    receiver = archive.check_receiver(args.send_to) if args.send_to else ""
    log.info("loading %d model%s", len(args.model), "s" * (len(args.model) > 1))
    answerer = Answerer(args.model, args.engine, args.odd_too)
    log.info("%s", "; ".join(answerer.about.words))
    asked = {"archive": archive.address, "model": answerer.fingerprint, "receiver": receiver}
    place = Path(args.place) if args.place else _place(asked)
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(locked(place))
        except InputError as error:
            raise InputError(str(error).replace("--out", "--place")) from None
        ledger = stack.enter_context(contextlib.closing(_ledger(args, place, asked, archive)))
        send = (lambda uids: archive.send(uids, receiver)) if receiver else None
        try:
            _work(Node(archive, answerer, ledger, Ways(args.every, send)), args.once)
        finally:
            print(summary(ledger.counts()), flush=True)


def _work(node: "Node", once: bool) -> None:
    if once:
        node.once()
    else:
        print(f"ready: following {node.archive.address}", flush=True)
        node.follow()


def _check(args: argparse.Namespace) -> None:
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise InputError(f"dicom_node needs {', '.join(missing)}; {install('dicom-node')}")
    if not 0 < args.every < 86400:
        raise InputError(f"--every is {args.every:g}; expected seconds, more than 0")
    if args.dicomweb and args.send_to:
        raise InputError("--send-to: an archive with DICOMweb sends nothing on; use --orthanc, or the archive's rules")
    if args.orthanc and args.study_dates:
        raise InputError("--study-dates is for --dicomweb; Orthanc says itself what is new (--from-now)")


def _archive(args: argparse.Namespace) -> "Orthanc | DicomWeb":
    from .dicomweb import DicomWeb
    from .orthanc import Orthanc

    web = access.Web(args.orthanc or args.dicomweb, access.read(args.access) if args.access else access.Access())
    return Orthanc(web) if args.orthanc else DicomWeb(web, args.study_dates)


def _place(asked: dict[str, str]) -> Path:
    home = Path(os.environ.get("CHEXPERT_HIER_HOME") or Path.home() / ".cache" / "chexpert_hier")
    return home / "dicom_node" / hashlib.sha256(" ".join(asked.values()).encode()).hexdigest()[:16]


def _ledger(args: argparse.Namespace, place: Path, asked: dict[str, str], archive: "Orthanc | DicomWeb") -> "Ledger":
    from .ledger import Ledger

    ledger = Ledger(place, asked)
    log.info("the place of this node: %s", place)
    if args.from_now and ledger.fact("seen") is None:
        archive.skip(ledger)
    return ledger


if __name__ == "__main__":
    sys.exit(commands.answer(main))
