"""Make what `chexpert_hier.selftest` asks: a tiny model trained on a phantom, three of its films, and their answers.

    python -m chexpert_hier.phantom --out phantom --patients 120 --valid-patients 60 --seed 5
    python -m chexpert_hier.run --data phantom --recipe phantom --arch tiny --image-size 32 --out run --no-export \
        --set template_films=60
    python -m experiments.selftest_data --run run --phantom phantom
"""

import argparse
import json
import shutil
import sys
from pathlib import Path

from chexpert_hier import commands
from chexpert_hier.export import onnx
from chexpert_hier.finished.members import ONNX, open_run
from chexpert_hier.run_folder import Facts, read_facts
from chexpert_hier.selftest.checking import ANSWERS, FOLDER, answer

FILMS = 3


def main(argv: list[str] | None = None) -> int:
    """Fill the package's folder of data."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--phantom", type=Path, required=True)
    args = parser.parse_args(argv)
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir()
    for name in ("model.keras", "template.png"):
        shutil.copy(args.run / name, FOLDER / name)
    facts = read_facts(args.run)
    kept = {name: facts[name] for name in Facts.__dataclass_fields__ if name != "options"}
    kept["data"] = {name: facts["data"][name] for name in ("name", "fingerprint", "counts")} | {"synthetic": True}
    (FOLDER / "recipe.json").write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    for number, film in enumerate(sorted((args.phantom / "valid").rglob("*frontal.jpg"))[:FILMS], start=1):
        shutil.copy(film, FOLDER / f"film{number}.jpg")
    member = open_run(FOLDER)
    onnx.export([member], FOLDER / ONNX)
    found = answer(member)
    films = {name: {"probabilities": [round(float(p), 7) for p in found.probabilities[k]],
                    "match": round(float(found.match[k]), 7), "flags": int(found.codes[k])}
             for k, name in enumerate(found.films)}
    ANSWERS.write_text(json.dumps({"labels": list(found.labels), "films": films}, indent=1) + "\n", encoding="utf-8")
    size = sum(file.stat().st_size for file in FOLDER.iterdir())
    print(f"{FOLDER}: {len(films)} films, {size / 1e6:.2f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(commands.answer(main))
