"""The node: what is new in an archive is fetched, answered and written back, one film after another.

What makes it safe to kill: all that it writes about a film has UIDs that follow from the film and the model, and is
looked for before it is written; what it has seen and done is kept in a ledger after it was done, never before.
"""

import logging
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from ..errors import InputError
from .access import ArchiveError, GoneError, RefusedError
from .answering import Answerer, LeftError
from .ledger import ANSWERED, MOST_TRIES, Ledger
from .series import Archive, Instance, Series
from .source import key

log = logging.getLogger("chexpert_hier.dicom_node")
LONGEST = 60.0  # seconds between two attempts at an archive that is away or full
ATTEMPTS = 4  # with --once
DEADLY = f"ended the process {MOST_TRIES} times"


@dataclass(frozen=True)
class Ways:
    """How the node works.

    Attributes:
        every: seconds between two looks at the archive.
        send: sends objects, by their UIDs, on to where they shall go; None for nowhere.
        sleep: waits for so many seconds.
    """

    every: float = 5.0
    send: Callable[[list[str]], None] | None = None
    sleep: Callable[[float], None] = time.sleep


class Node:
    """One model beside one archive.

    Args:
        archive: where films come from and reports go.
        answerer: the model.
        ledger: the place.
        ways: how it works.
    """

    def __init__(self, archive: Archive, answerer: Answerer, ledger: Ledger, ways: Ways):
        self.archive, self.answerer, self.ledger, self.ways = archive, answerer, ledger, ways

    def follow(self) -> None:
        """Work until the process is told to stop; an archive that is away or full is waited for.

        Raises:
            InputError: the archive does not know us any more.
        """
        wait = self.ways.every
        while True:
            try:
                self.round()
                wait = self.ways.every
            except ArchiveError as error:
                log.warning("%s; again in %.0f s", error, wait)
                self.ways.sleep(wait)
                wait = min(2 * wait, LONGEST)
                continue
            self.ways.sleep(wait)

    def once(self) -> None:
        """Work until a look brings nothing new and nothing waits, then end.

        Raises:
            InputError: the archive stays away or full; what was done is kept.
        """
        failed, told = 0, False
        while True:
            try:
                done, failed = self.round(), 0
            except ArchiveError as error:
                failed += 1
                if failed == ATTEMPTS:
                    raise InputError(f"{error}; what was done is kept, run the command again") from None
                self.ways.sleep(self.ways.every)
                continue
            waiting = len(self.ledger.waiting())
            if not waiting and not done:
                return
            if waiting and not told:
                log.info("waiting for %d series that may still grow", waiting)
                told = True
            if not done:
                self.ways.sleep(self.ways.every)

    def round(self) -> int:
        """Look once at what is new, and work on all series that have stopped growing.

        Returns:
            how many series that were; while they are worked on, more may have come.

        Raises:
            ArchiveError: the archive is away, busy or full; the place stays before what is not done.
        """
        try:
            return self._round()
        except RefusedError as error:  # of a question that is no film's own, as while an archive starts
            raise ArchiveError(f"{self.archive.address}: {error}") from None

    def _round(self) -> int:
        self.archive.look(self.ledger)
        done = 0
        for name, about in self.ledger.waiting().items():
            try:
                series = self.archive.series(name, about, self.ledger)
            except (GoneError, RefusedError):
                series = Series()
            if series is None:
                continue
            if series.other:
                self._left(key(name), series.other, len(series.instances))
            else:
                for instance in series.instances:
                    self._film(instance)
            self.ledger.finish(name, len(series.instances))
            done += 1
        return done

    def _film(self, instance: Instance) -> None:
        film = key(instance.uid)
        before = self.ledger.outcome(film)
        if before == DEADLY:  # others that were left are looked at again with their series: a whole copy may have come
            return
        uids = self.answerer.uids(instance.uid)
        missing = [uid for uid in (uids.picture, uids.report) if not self.archive.has(instance, uid)]
        if before == ANSWERED and not missing:
            return
        if missing and not self._write(film, instance, missing):
            return
        if self.ways.send:
            self.ways.send([uids.picture, uids.report])
        self.ledger.settle(film, ANSWERED)
        log.info("film %s: %s", film[:8], "answered" if missing else "was answered already")

    def _write(self, film: str, instance: Instance, missing: list[str]) -> bool:
        """Answer a film and store what is missing of it; whether it was answered."""
        if self.ledger.try_(film) > MOST_TRIES:
            self._left(film, DEADLY)
            return False
        try:
            files = self.answerer.answer(self.archive.fetch(instance))
            if not files.keys() >= set(missing):
                raise LeftError("its UID in the file is another than in the archive")
            for uid in missing:
                self.archive.store(files[uid])
                if not self.archive.has(instance, uid):  # a full Orthanc says of DICOMweb's reports that all is well
                    raise ArchiveError(f"{self.archive.address} did not keep a report; is it full?")
        except GoneError:  # between the look and now; should it come again, it is new
            self.ledger.untry(film)
            return False
        except (LeftError, RefusedError) as error:
            self._left(film, str(error))
            return False
        except (ArchiveError, InputError):
            self.ledger.untry(film)
            raise
        return True

    def _left(self, film: str, reason: str, count: int = 1) -> None:
        self.ledger.settle(film, reason, count)
        log.info("film %s: left: %s", film[:8], reason)


def summary(counts: Counter[str]) -> str:
    """How many films were answered, and how many left for which reason, in lines."""
    left = [(reason, count) for reason, count in counts.most_common() if reason != ANSWERED]
    lines = [f"answered: {counts[ANSWERED]:,}; left: {sum(count for _, count in left):,}"]
    return "\n".join([*lines, *(f"  {count:,} {reason}" for reason, count in left)])
