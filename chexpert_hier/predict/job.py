"""Many films into one file: portion by portion, so that an interrupted job goes on, and only with the same films,
models and options."""

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from .. import commands
from ..errors import InputError
from ..files import remove_held, remove_leftovers, remove_leftovers_of, write_text
from ..finished import fingerprint
from ..finished.asked import Film
from . import answers
from .engine import Engine
from .predicting import CHUNK, LeftOut, Seen, answer_files

ASKED = "asked.json"  # in the work folder: what the finished portions answer


@dataclass(frozen=True, eq=False)
class Job:
    """What is answered, and where it goes.

    Attributes:
        engine: the models.
        films: which films.
        out: a file that ends in .csv or .json.
        resume: go on with an interrupted job.
        settings: further options that decide the result, as JSON values by name.
        seen: given the films of each portion, e.g. to draw heatmaps.
    """

    engine: Engine
    films: Sequence[Film]
    out: Path
    resume: bool = False
    settings: dict | None = None
    seen: Seen | None = None

    @property
    def work(self) -> Path:
        """The folder of the finished portions, which is locked while the job runs."""
        return self.out.parent / f".{self.out.name}.work"

    @property
    def skipped(self) -> Path:
        """The list of films left out."""
        return self.out.with_suffix(".skipped.csv")

    def asked(self) -> dict:
        """All that decides the result: models and films by their content or time, options."""
        engine = self.engine
        return {"models": [[member.engine, fingerprint.of_model(member.file)] for member in engine.members],
                "films": [[film.name, film.view, *_state(film.file)] for film in self.films],
                "options": {**vars(engine.views), **vars(engine.caution), "average": engine.average,
                            **(self.settings or {})}}


def _state(file: Path) -> tuple[int, int]:
    """A file's size and time, zeros where it is not there."""
    try:
        found = file.stat()
    except (OSError, ValueError):
        return 0, 0
    return found.st_size, found.st_mtime_ns


def run(job: Job) -> tuple[list[str], list[LeftOut]]:
    """Answer for all films of a job, whose work folder is locked; give the films' flags, and the films left out.

    Raises:
        InputError: `out` is there already, or an interrupted job there was another one.
    """
    if job.out.exists() and not job.resume:
        raise InputError(f"{job.out}: exists; choose another --out, or --resume to go on with an interrupted job")
    remove_leftovers(job.work)
    for path in (job.out, job.skipped):
        remove_leftovers_of(path)
    _begin(job)
    bar = commands.Bar("predict", len(job.films))
    for start in range(0, len(job.films), CHUNK):
        rows, skipped = job.work / f"{start:09d}.csv", job.work / f"{start:09d}.skipped"
        part = job.films[start:start + CHUNK]
        if not rows.exists() or not skipped.exists():
            table, bad = answer_files(job.engine, part, skip_bad=True, seen=job.seen)
            write_text(skipped, _csv(bad))
            write_text(rows, _text(table, header=False))
        bar.add(len(part))
    bar.close()
    return _finish(job)


def _begin(job: Job) -> None:
    """See that the finished portions are this very job's; without --resume there are none.

    Raises:
        InputError: they are another job's.
    """
    asked, file = job.asked(), job.work / ASKED
    try:
        before = json.loads(file.read_text(encoding="utf-8")) if job.resume else None
    except FileNotFoundError:
        before = None
    except (OSError, ValueError):
        raise InputError(f"{file}: is damaged, so that it cannot be told what the finished films answer; start anew "
                         "without --resume") from None
    if before is not None and before != json.loads(json.dumps(asked)):
        other = [name for name in asked if not isinstance(before, dict) or before.get(name) != asked[name]]
        raise InputError(f"{job.out}: --resume: the interrupted job had other {' and '.join(other)}, and its finished "
                         "films would not fit; start anew without --resume, or choose another --out")
    if before is None:
        for old in [*job.work.glob("*.csv"), *job.work.glob("*.skipped")]:
            old.unlink()
        write_text(file, json.dumps(asked))


def _finish(job: Job) -> tuple[list[str], list[LeftOut]]:
    """The finished portions as one file, and the films left out beside it; see `run`."""
    left_out = [LeftOut(*row) for file in sorted(job.work.glob("*.skipped"))
                for row in csv.reader(io.StringIO(file.read_text(encoding="utf-8")))]
    empty = job.engine.answer([]).table()
    text = _text(empty) + "".join(file.read_text(encoding="utf-8") for file in sorted(job.work.glob("*.csv")))
    if left_out:
        write_text(job.skipped, _csv([("Path", "reason"), *left_out]))
    else:
        job.skipped.unlink(missing_ok=True)  # of an earlier attempt
    flags = [row["[flag]"] for row in csv.DictReader(io.StringIO(text))]
    if job.out.suffix.lower() == ".json":
        words = [name for name in empty.columns if name in ("Path", "[flag]", "[model]")]
        table = pd.read_csv(io.StringIO(text), dtype=dict.fromkeys(words, str), keep_default_na=False,
                            na_values={name: [""] for name in empty.columns if name not in words})
        text = json.dumps(answers.as_json(table, job.engine, left_out), indent=1) + "\n"
    write_text(job.out, text)
    remove_held(job.work)
    return flags, left_out


def _text(table: pd.DataFrame, header: bool = True) -> str:
    return table.to_csv(index=False, header=header, float_format="%.7g", lineterminator="\n")


def _csv(rows: Sequence[tuple]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()
