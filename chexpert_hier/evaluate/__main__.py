"""The command: ``python -m chexpert_hier.evaluate --predictions P.csv --truth T.csv --out DIR``."""

import argparse
import json
import logging
from pathlib import Path

from .. import commands
from ..errors import InputError, one_of
from ..files import locked, remove_leftovers

log = logging.getLogger("chexpert_hier.evaluate")


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    args = argparse.ArgumentParser(prog="python -m chexpert_hier.evaluate", description="Judge predictions against the "
                                   "truth: AUROC with intervals, thresholds, calibration, radiologists, comparisons.")
    args.add_argument("--predictions", nargs="+", required=True, metavar="P.csv", help="key column Path or Study, one "
                      "column of scores per label; the second and later files are compared with the first")
    args.add_argument("--truth", required=True, metavar="T.csv", help="same keys; 1, 0, -1 (left out), blank")
    args.add_argument("--out", required=True, metavar="DIR", help="where evaluation.csv, .json, .html and figures/ go")
    args.add_argument("--radiologists", nargs="+", default=[], metavar="R.csv", help="one file of 1 and 0 per reader")
    args.add_argument("--labels", nargs="+", metavar="NAME", help="which labels (all that both files have)")
    args.add_argument("--by", default="", metavar="COLUMNS", help="subgroups by columns of the truth file: "
                      "Sex,Age,AP/PA")
    args.add_argument("--unit", choices=("film", "study", "patient"), help="what one case is (what both files allow)")
    args.add_argument("--rule", default="max", help="films to studies and patients: max, mean, confident, or a JSON "
                      "file {label: rule} (max)")
    args.add_argument("--views", default="both", choices=("both", "frontal", "lateral"), help="which films count")
    args.add_argument("--patients", metavar="COLUMN", help="the truth file's column of patients (read from the paths)")
    args.add_argument("--threshold", default="youden", metavar="RULE", help="youden, f1, sensitivity=0.9, "
                      "specificity=0.9, a number, or a JSON file {label: number} or evaluation.json (youden)")
    args.add_argument("--calibrate", default="platt", choices=("platt", "isotonic", "none"), help="(platt)")
    args.add_argument("--fit", nargs=2, metavar=("P.csv", "T.csv"), help="other films' predictions and truth to choose "
                      "thresholds and fit the calibration on (cross-fitted by patient)")
    args.add_argument("--conditional", metavar="C.csv", help="the scores before the chain rule, to set beside")
    args.add_argument("--tree", default=None, metavar="NAME", help="chexpert, hbce, chestxray14, flat or a JSON file "
                      "(that of the labels)")
    args.add_argument("--truth-blank", default="negative", choices=("negative", "ignore"), help="(negative)")
    args.add_argument("--ensemble", action="store_true", help="also judge the mean of all files of predictions")
    args.add_argument("--intersect", action="store_true", help="judge the keys that both have, and say how many not")
    args.add_argument("--replicates", type=int, default=1000, help="bootstrap resamples of patients (1000)")
    args.add_argument("--stratified", action="store_true", help="resample within patterns of truth")
    args.add_argument("--seed", type=int, default=0, help="of resamples and folds (0)")
    args.add_argument("--no-page", action="store_true", help="only evaluation.csv and .json")
    args.add_argument("--resume", action="store_true", help="accepted like everywhere: an evaluation takes seconds and "
                      "is made anew")
    args.add_argument("--quiet", action="store_true", help="print nothing but errors")
    return args


def main(argv: list[str] | None = None) -> int:
    """Run the command."""
    args = parser().parse_args(argv)
    if args.quiet:
        logging.getLogger("chexpert_hier").setLevel(logging.ERROR)
    if Path(args.out).exists() and not Path(args.out).is_dir():
        raise InputError(f"--out {args.out}: is a file; give a folder")
    from .output import write
    findings = _judge(args)  # before the folder is made: what cannot be judged leaves nothing behind
    with locked(args.out):
        remove_leftovers(args.out)
        write(findings, args.out, page=not args.no_page)
    if not args.quiet:
        _show(findings, Path(args.out), page=not args.no_page)
    return 0


def _judge(args: argparse.Namespace):
    from .comparison import compare
    from .evaluation import judge
    from .findings import Findings
    from .joining import join
    from .radiologists import beside
    from .reading import ensemble, read_predictions, read_truth
    from .thresholds import parse_rule
    truth = read_truth(args.truth)
    joining = {"patients": args.patients, "unit": args.unit, "rule": _rule(args.rule), "truth_blank": args.truth_blank,
               "intersect": args.intersect, "views": args.views}
    settings = {"replicates": _count(args.replicates), "seed": args.seed, "stratified": args.stratified,
                "threshold": parse_rule(args.threshold), "calibrate": args.calibrate, "tree": _tree(args.tree),
                "by": [c.strip() for c in args.by.split(",") if c.strip()]}
    findings = Findings([])
    systems = dict(zip(_names(args.predictions), map(read_predictions, args.predictions)))
    if args.ensemble:
        systems[f"ensemble of {len(systems)}"] = ensemble(list(systems.values()))
    for name, table in systems.items():
        cases = join(table, truth, args.labels, **joining)
        fitting = None
        if args.fit:
            fitting = join(read_predictions(args.fit[0]), read_truth(args.fit[1]), cases.labels, **joining)
        before = None
        if args.conditional and not findings.results:                # belongs to the first file
            before = join(read_predictions(args.conditional), truth, cases.labels, **joining)
        result = judge(cases, fitting, before, name=name, **settings)
        findings.results.append(result)
        if args.radiologists:
            readers = dict(zip(_names(args.radiologists), map(read_predictions, args.radiologists)))
            findings.readers[name] = beside(result, readers, truth, seed=args.seed, **joining)
    first = findings.results[0]
    for other in findings.results[1:]:
        findings.comparisons[f"{other.name} against {first.name}"] = compare(
            first.cases, other.cases, (first.name, other.name), replicates=args.replicates, seed=args.seed)
    return findings


def _count(replicates: int) -> int:
    if replicates < 0:
        raise InputError(f"--replicates is {replicates}; expected 0 or more")
    return replicates


def _names(paths: list[str]) -> list[str]:
    """Short names that tell the files apart: the stem, with its folder where stems repeat."""
    stems = [Path(path).name.removesuffix(".gz").removesuffix(".csv") for path in paths]
    names = [stem if stems.count(stem) == 1 else f"{Path(path).parent.name}/{stem}" for path, stem in zip(paths, stems)]
    return [name if names.count(name) == 1 else f"{place + 1}: {name}" for place, name in enumerate(names)]


def _rule(text: str) -> str | dict[str, str]:
    from .aggregate import RULES
    if not text.endswith(".json"):
        one_of("--rule", text, RULES)
        return text
    try:
        rules = json.loads(Path(text).read_text(encoding="utf-8"))
        for rule in rules.values():
            one_of(f"{text}: rule", rule, RULES)
        return rules
    except (OSError, ValueError, AttributeError, TypeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{text}: cannot be read as JSON {{label: rule}}") from error


def _tree(name: str | None):
    if name is None:
        return None
    from ..hierarchy import TREES, read_tree
    if name.endswith(".json"):
        return read_tree(name)
    one_of("--tree", name, TREES)
    return TREES[name]


def _show(findings, out: Path, page: bool) -> None:
    for result in findings.results:
        width = max(map(len, result.table["label"]))
        unit = {"study": "studies"}.get(result.cases.unit, f"{result.cases.unit}s")
        print(f"{result.name}: {len(result.cases.keys):,} {unit} of {result.cases.total_patients:,} patients")
        for row in result.table.itertuples():
            interval = f"({row.auroc_low:.3f} to {row.auroc_high:.3f})"
            print(f"  {row.label:<{width}}  AUROC {row.auroc:.4f} {interval}  {row.positives:,} positives, "
                  f"{row.negatives:,} negatives{'  FEW POSITIVES' if row.few_positives else ''}")
        for note in result.notes:
            print(f"  - {note}")
        if result.name in findings.readers:
            below = findings.readers[result.name].below.iloc[-1]
            print(f"  - Radiologists below the ROC curve: {below.below_roc:.1f} on average "
                  f"(strictly: {below.strictly_below_roc:.1f}).")
    for name, table in {**findings.results[0].comparisons, **findings.comparisons}.items():
        row = table.iloc[-1]
        print(f"{name}: {row.label} {row.difference:+.4f} ({row.difference_low:+.4f} to {row.difference_high:+.4f}): "
              f"{row.verdict}")
    print(f"written: {out / ('evaluation.html' if page else 'evaluation.csv')}")


if __name__ == "__main__":
    raise SystemExit(commands.answer(main))
