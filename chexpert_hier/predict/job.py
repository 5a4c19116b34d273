"""Many films into one file: portion by portion, so that an interrupted job goes on, and only with the same films,
models and options."""

import csv
import hashlib
import io
import json
import logging
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

log = logging.getLogger("chexpert_hier.predict")
ASKED = "asked.json"  # in the work folder: what the finished portions answer


@dataclass(frozen=True, eq=False)
class Job:
    """What is answered, and where it goes.

    Attributes:
        engine: the models.
        films: which films.
        out: a file that ends in .csv or .json.
        resume: go on with an interrupted job; keep a finished one.
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

    @property
    def record(self) -> Path:
        """Beside a finished file: whose answers it holds."""
        return self.out.parent / f".{self.out.name}.job"

    def asked(self) -> dict:
        """All that decides the result: models and films by their content or time, options."""
        engine = self.engine
        return {"models": [[member.engine, fingerprint.of_model(member.file)] for member in engine.members],
                "films": fingerprint.of_films(self.films),
                "options": {**vars(engine.views), **vars(engine.caution), "average": engine.average,
                            **(self.settings or {})}}


def run(job: Job) -> tuple[list[str], list[LeftOut]]:
    """Answer for all films of a job, whose work folder is locked; give the films' flags, and the films left out.

    A finished job that is resumed is kept as it is; no flags are given for it.

    Raises:
        InputError: `out` is there already, or the job there was another one.
    """
    if job.out.exists() and not job.resume:
        raise InputError(f"{job.out}: exists; choose another --out, or --resume to go on with an interrupted job")
    remove_leftovers(job.work)
    for path in (job.out, job.skipped):
        remove_leftovers_of(path)
    if job.out.exists() and not (job.work / ASKED).exists():
        return [], _finished(job)
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
    if not job.resume or not fingerprint.goes_on(file, asked, job.out):
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
    write_text(job.record, json.dumps(_record(job)) + "\n")
    remove_held(job.work)
    return flags, left_out


def _record(job: Job) -> dict[str, str]:
    """What the finished file answers, and which file that is, as hashes."""
    asked = json.dumps(job.asked(), sort_keys=True).encode()
    return {"asked": hashlib.sha256(asked).hexdigest(), "answers": fingerprint.of_file(job.out)}


def _finished(job: Job) -> list[LeftOut]:
    """The films that a finished job left out.

    Raises:
        InputError: its answers are not this very job's.
    """
    try:
        same = json.loads(job.record.read_text(encoding="utf-8")) == _record(job)
    except (OSError, ValueError, RecursionError):
        same = False
    remove_held(job.work)
    if not same:
        raise InputError(f"{job.out}: --resume: holds finished answers, and not of this very job (models, films and "
                         "options; or it was changed since); choose another --out, or remove it to answer anew")
    log.info("%s: was finished before, and is kept", job.out)
    if not job.skipped.exists():
        return []
    return [LeftOut(*row) for row in csv.reader(io.StringIO(job.skipped.read_text(encoding="utf-8")))][1:]


def _text(table: pd.DataFrame, header: bool = True) -> str:
    return table.to_csv(index=False, header=header, float_format="%.7g", lineterminator="\n")


def _csv(rows: Sequence[tuple]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()
