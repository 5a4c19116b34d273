"""What a job is: its films, its models and how they are asked; kept in job.json, so that no other is mixed into it."""

import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from .. import __version__
from ..errors import InputError
from ..finished.fingerprint import of_model
from .manifest import Manifest, Source, make
from .places import Place

FILE, MANIFEST = "job.json", "manifest"


@dataclass(frozen=True)
class Asked:
    """What makes a job this one and no other.

    Attributes:
        films: fingerprint of the source.
        model: fingerprint of the models.
        engine: what the networks run on.
        rows_per_file: films in a unit of work and in an output file.
        by_study: whether films are put together to studies.
    """

    films: str
    model: str
    engine: str
    rows_per_file: int
    by_study: bool


WORDS = {"films": "the list of films is another", "model": "the model is another", "engine": "--engine is another",
         "rows_per_file": "--rows-per-file is another", "by_study": "--by-study is another"}


def fingerprint(models: Sequence[str]) -> str:
    """A hash over all that decides what the models answer, in the models' order.

    Raises:
        InputError: a model is no finished run, .keras file, SavedModel or ONNX file.
    """
    digest = hashlib.sha256()
    for model in models:
        files = of_model(Path(model)) if Path(model).exists() else {}
        if not any(name.endswith((".keras", ".onnx")) or name == "saved_model.pb" for name in files):
            raise InputError(f"{model}: expected a finished run, a .keras file inside one, a SavedModel or an ONNX "
                             "file; it has no model.keras and no saved_model.pb")
        digest.update(json.dumps(files, sort_keys=True).encode())
    return digest.hexdigest()[:16]


def begin(out: Place, source: Source, asked: Asked, resume: bool) -> Manifest:
    """The job in the folder `out`: the one that is there, where it is this very one, or a new one.

    Raises:
        InputError: another job is there; this one is and `resume` is not asked for; or the folder holds other things.
    """
    if (out / FILE).exists():
        return _there(out, asked, resume)
    strange = [file.name for file in out.files() if not file.name.startswith(".")]
    if strange:
        raise InputError(f"{out}: holds {strange[0]} and no job of this command; choose another --out")
    manifest = make(source, out / MANIFEST, asked.rows_per_file)
    facts = {"package": f"chexpert_hier {__version__}", "begun": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
             "source": source.address, "rows": manifest.rows, "asked": asdict(asked)}
    (out / FILE).write((json.dumps(facts, indent=1) + "\n").encode())
    return manifest


def _there(out: Place, asked: Asked, resume: bool) -> Manifest:
    try:
        facts = json.loads((out / FILE).read())
        before = Asked(**facts["asked"])
    except (ValueError, KeyError, TypeError, RecursionError):
        raise InputError(f"{out / FILE}: is damaged, or of another version; choose another --out") from None
    other = [WORDS[name] for name, value in asdict(before).items() if value != asdict(asked)[name]]
    if other:
        raise InputError(f"{out}: holds another job ({'; '.join(other)}); choose another --out, or ask as it was asked")
    if not resume:
        raise InputError(f"{out}: holds this job already; go on with it: --resume, or choose another --out")
    return Manifest(out / MANIFEST, facts["rows"], before.rows_per_file)
