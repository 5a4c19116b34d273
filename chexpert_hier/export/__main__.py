"""The SavedModel: film bytes in, probabilities out, in plain TensorFlow without this package.

    python -m chexpert_hier.export --model RUN [RUN ...] --out saved_model
    python -m chexpert_hier.export --model RUN --onnx model.onnx

Decoding, rescaling, template matching, normalisation, networks, chain rule and calibration are one graph; several runs
become one ensemble that shares the decoding and the crop. `metadata.json` and `MODEL_CARD.md` beside it say what goes
in, what comes out, and how good it was on the validation films.
"""

import argparse
import sys
from pathlib import Path

from .. import commands
from ..errors import InputError
from ..finished.members import open_run
from .saved_model import export


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    answer = commands.Parser(prog="python -m chexpert_hier.export", description=__doc__.splitlines()[0])
    answer.add_argument("--model", nargs="+", required=True, metavar="RUN",
                        help="finished runs; several are an ensemble")
    answer.add_argument("--out", type=Path, help="folder of the SavedModel")
    answer.add_argument("--onnx", type=Path, metavar="FILE", help="also (or, without --out, only) write an ONNX "
                        "file: grey films of any size in, answers out")
    answer.add_argument("--crops", action="store_true", help="write the ONNX file without the crop search: it then "
                        "takes template crops")
    answer.add_argument("--replace", action="store_true", help="replace what exists in --out and --onnx")
    return answer


def main(argv: list[str] | None = None) -> int:
    """Run the command; 0 when done."""
    args = parser().parse_args(argv)
    if not args.out and not args.onnx:
        raise InputError("export: nothing to write; expected --out FOLDER (SavedModel), --onnx FILE, or both")
    if args.crops and not args.onnx:
        raise InputError("--crops: says what the ONNX file takes; add --onnx FILE")
    for name, path in (("--out", args.out), ("--onnx", args.onnx)):
        if path and path.exists() and not args.replace:
            raise InputError(f"{path}: exists; choose another {name}, or --replace to write it anew")
    members = [open_run(run) for run in args.model]
    if args.out:
        export(members, args.out)
        print(f"SavedModel: {args.out}")
    if args.onnx:
        from . import onnx

        worst = onnx.export(members, args.onnx, crops_only=args.crops)
        print(f"ONNX: {args.onnx} (in ONNX Runtime at most {worst:.1g} from the network)")
    return 0


if __name__ == "__main__":
    sys.exit(commands.answer(main))
