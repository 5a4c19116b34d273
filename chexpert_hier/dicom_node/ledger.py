"""Where the node stopped: which changes it has seen, which series wait, and what became of every film.

An SQLite file, whose transactions are whole whatever kills the process. A film is in it under a hash of its UID, with
what became of it; no tag of a film is.
"""

import json
import os
import sqlite3
import time
from collections import Counter
from pathlib import Path
from typing import Any

from ..errors import InputError

FILE = "place.sqlite"
ANSWERED = "answered"
MOST_TRIES = 10  # a film in whose work the process ended so often is left
TABLES = """
create table if not exists facts (name text primary key, value text not null);
create table if not exists waiting (series text primary key, about text not null);
create table if not exists taken (series text primary key, films integer not null);
create table if not exists tries (film text primary key, times integer not null);
create table if not exists films (film text primary key, outcome text not null, count integer not null,
                                  at real not null);
"""


class Ledger:
    """The place of one node with one archive and one model.

    Args:
        folder: where the file lies; made if it is not there.
        asked: what makes this place this one: the archive, the model, where reports are sent.

    Raises:
        InputError: the folder holds another node's place, or a damaged one.
    """

    def __init__(self, folder: Path, asked: dict[str, str]):
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / FILE
        os.close(os.open(file, os.O_CREAT | os.O_RDWR, 0o600))
        self.store = sqlite3.connect(file, isolation_level=None, timeout=60)
        try:
            self.store.execute("pragma synchronous = full")
            self.store.executescript(TABLES)
            before = self.fact("asked")
        except sqlite3.DatabaseError:
            raise InputError(f"{file}: is damaged, or something else; choose another --place") from None
        if before is None:
            self._keep("asked", asked)
        elif before != asked:
            other = next(name for name in {**before, **asked} if before.get(name) != asked.get(name))
            raise InputError(f"{folder}: is the place of another node (another {other}); choose another --place")

    def fact(self, name: str) -> Any:
        """A fact kept before, None without it."""
        found = self.store.execute("select value from facts where name = ?", (name,)).fetchone()
        return None if found is None else json.loads(found[0])

    def _keep(self, name: str, value: Any) -> None:
        self.store.execute("insert or replace into facts values (?, ?)", (name, json.dumps(value)))

    def advance(self, seen: int, series: dict[str, Any]) -> None:
        """Keep how far the archive's changes were read, and the series in them, in one step."""
        self.store.execute("begin immediate")
        try:
            for name, about in series.items():
                self.store.execute("insert or replace into waiting values (?, ?)", (name, json.dumps(about)))
            self._keep("seen", seen)
            self.store.execute("commit")
        except BaseException:
            self.store.execute("rollback")
            raise

    def waiting(self) -> dict[str, Any]:
        """The series that are to be looked at, with what was kept about them, oldest first."""
        rows = self.store.execute("select series, about from waiting order by rowid").fetchall()
        return {series: json.loads(about) for series, about in rows}

    def finish(self, series: str, films: int) -> None:
        """A series has been worked on, when it had so many films."""
        self.store.execute("begin immediate")
        self.store.execute("delete from waiting where series = ?", (series,))
        self.store.execute("insert or replace into taken values (?, ?)", (series, films))
        self.store.execute("commit")

    def taken(self, series: str) -> int:
        """How many films a series had when it was worked on; -1 where it never was."""
        found = self.store.execute("select films from taken where series = ?", (series,)).fetchone()
        return -1 if found is None else found[0]

    def outcome(self, film: str) -> str | None:
        """What became of a film: "answered", or why it was left; None where it has not been worked on."""
        found = self.store.execute("select outcome from films where film = ?", (film,)).fetchone()
        return None if found is None else found[0]

    def settle(self, film: str, outcome: str, count: int = 1) -> None:
        """Keep what became of a film, or of a series of `count` things that are none."""
        self.store.execute("begin immediate")
        self.store.execute("insert or replace into films values (?, ?, ?, ?)", (film, outcome, count, time.time()))
        self.store.execute("delete from tries where film = ?", (film,))
        self.store.execute("commit")

    def try_(self, film: str) -> int:
        """Keep that work on a film begins; how often it has begun without an end."""
        self.store.execute("insert into tries values (?, 1) on conflict (film) do update set times = times + 1",
                           (film,))
        return self.store.execute("select times from tries where film = ?", (film,)).fetchone()[0]

    def untry(self, film: str) -> None:
        """The work on a film stopped for a reason outside it."""
        self.store.execute("delete from tries where film = ?", (film,))

    def counts(self) -> Counter[str]:
        """How many films were answered, and how many left for which reason."""
        return Counter(dict(self.store.execute("select outcome, sum(count) from films group by outcome").fetchall()))

    def close(self) -> None:
        """Let go of the file."""
        self.store.close()
