"""The command: ``python -m chexpert_hier.evaluate --predictions P.csv --truth T.csv --out DIR``."""

import argparse
import json
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import commands
from ..errors import InputError, one_of
from ..files import locked, remove_leftovers

if TYPE_CHECKING:
    from ..hierarchy import Tree
    from .findings import Findings
    from .joining import Joining
    from .result import Judging
    from .runs import Run

log = logging.getLogger("chexpert_hier.evaluate")

# What says how files are joined and what stands beside them; a run's own recipe says that of the run.
OF_FILES = ("unit", "rule", "patients", "truth_blank", "intersect", "ensemble", "conditional", "pairs", "fit",
            "radiologists", "meta")


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    args = commands.Parser(prog="python -m chexpert_hier.evaluate", description="Judge predictions against the "
                                   "truth: AUROC with intervals, thresholds, calibration, radiologists, comparisons.")
    _what(args.add_argument)
    _how(args.add_argument)
    _written(args.add_argument)
    return args


def _what(add: Any) -> None:
    add("--predictions", nargs="+", metavar="P.csv", help="key column Path or Study, one column of scores per label "
        "(or of decisions, 0 and 1); several files are compared")
    add("--truth", metavar="T.csv", help="same keys; 1, 0, -1 (left out), blank")
    add("--run", metavar="RUN", help="a finished run, judged on its own films as it judges itself, in place of "
        "--predictions and --truth")
    add("--data", metavar="DIR", help="with --run: the films of another data set, which the run's model answers for "
        "and is judged on beside its own (external validation)")
    add("--reader", metavar="NAME", help="layout of --data (default: the run's)")
    add("--radiologists", nargs="+", default=[], metavar="R.csv", help="one file of 1 and 0 per reader")
    add("--meta", metavar="M.csv", help="further columns for --by (Sex, Age, site, ...), by Path, Study or Patient")
    add("--fit", nargs=2, metavar=("P.csv", "T.csv"), help="other films' predictions and truth to choose thresholds "
        "and fit the calibration on (cross-fitted by patient)")
    add("--conditional", metavar="C.csv", help="the scores before the chain rule, to show beside the others")
    add("--ensemble", action="store_true", help="also judge the mean of all prediction files")


def _how(add: Any) -> None:
    add("--labels", nargs="+", metavar="NAME", help="which labels (default: all that both files have)")
    add("--by", nargs="+", default=[], metavar="COLUMN", help="subgroups by columns of the truth or meta file: Sex Age "
        "AP/PA, or Sex,Age,AP/PA")
    add("--unit", choices=("film", "study", "patient"), help="what one case is (default: a study where all paths "
        "name theirs, as CheXpert's do, else a film)")
    add("--rule", help="how films become studies and patients: max, mean, confident, or a JSON file {label: rule} "
        "(default: max)")
    add("--views", default="both", choices=("both", "frontal", "lateral"), help="which films count")
    add("--patients", metavar="COLUMN", help="the truth file's column of patients (default: read from the paths)")
    add("--threshold", default="youden", metavar="RULE", help="youden, f1, sensitivity=0.9, specificity=0.9, a number, "
        "or a JSON file {label: number} or evaluation.json (default: youden)")
    add("--calibrate", default="platt", choices=("platt", "isotonic", "none"), help="how scores are calibrated "
        "(default: platt)")
    add("--mean", default="plain", choices=("plain", "weighted"), help="weighted: also the mean AUROC over all labels, "
        "plain and weighted by positives (default: plain)")
    add("--tree", metavar="NAME", help="chexpert, hbce, chestxray14, flat or a JSON file (default: the one of the "
        "labels)")
    add("--truth-blank", choices=("negative", "ignore"), help="what a blank cell of the truth counts as (default: "
        "negative)")
    add("--intersect", action="store_true", help="judge the cases that both files have, and say how many are left out")
    add("--pairs", metavar="PAIRS", help="compare with the first, all with each other, or with the one that is named "
        "(default: first; all with --table)")
    add("--replicates", type=int, default=1000, help="bootstrap resamples of patients (default: 1000)")
    add("--stratified", action="store_true", help="resample patients within groups of the same findings")
    add("--seed", type=int, default=0, help="random seed of resamples and folds (default: 0)")


def _written(add: Any) -> None:
    add("--out", required=True, metavar="DIR", help="where evaluation.csv, .json, .html and figures/ go; a folder with "
        "another evaluation is refused, the same one is made anew")
    add("--table", nargs="+", default=[], choices=("latex", "markdown", "csv"), help="also a table for a paper: "
        "table.tex (booktabs), table.md, table.csv; the best is bold where the difference is certain")
    add("--no-page", action="store_true", help="no pictures and no evaluation.html")
    add("--quiet", action="store_true", help="print nothing but errors")


def main(argv: list[str] | None = None) -> int:
    """Run the command."""
    args = parser().parse_args(argv)
    if args.quiet:
        logging.getLogger("chexpert_hier").setLevel(logging.ERROR)
    _check(args)
    from .output import refuse_another, write
    asked = _asked(args)
    refuse_another(args.out, asked)
    findings = _judge(args)  # before the folder is made: what cannot be judged leaves nothing behind
    findings.asked = asked
    out = Path(args.out)
    with locked(out):
        remove_leftovers(out)
        write(findings, out, page=not args.no_page, tables=args.table)
    if not args.quiet:
        from .terminal import report
        print("\n".join(report(findings)))
        print(f"written: {out / ('evaluation.csv' if args.no_page else 'evaluation.html')}")
    return 0


def _check(args: argparse.Namespace) -> None:
    """Refuse arguments that do not go together."""
    if Path(args.out).exists() and not Path(args.out).is_dir():
        raise InputError(f"--out {args.out}: is a file; give a folder")
    if args.run and (args.predictions or args.truth):
        raise InputError("--run takes the run's own predictions and truth; leave --predictions and --truth out")
    if args.run and (given := [f"--{name.replace('_', '-')}" for name in OF_FILES if getattr(args, name)]):
        raise InputError(f"--run judges as the run judges itself; leave {', '.join(given)} out, or give its files with "
                         "--predictions and --truth")
    if (args.data or args.reader) and not args.run:
        raise InputError("--data and --reader belong to --run: the model that answers for these films")
    if not args.run and not (args.predictions and args.truth):
        raise InputError("give --predictions and --truth, or --run")


def _asked(args: argparse.Namespace) -> dict[str, object]:
    from .output import asked
    own = [Path(args.run) / name for name in ("predictions.csv", "truth.csv")] if args.run else []
    named = {"predictions": args.predictions or [], "truth": [args.truth] if args.truth else [], "run": own,
             "radiologists": args.radiologists, "meta": [args.meta] if args.meta else [], "fit": args.fit or [],
             "conditional": [args.conditional] if args.conditional else []}
    left_out = {"out", "table", "no_page", "quiet", "run", *named}
    return asked(named, {name: value for name, value in vars(args).items() if name not in left_out})


def _judge(args: argparse.Namespace) -> "Findings":
    from .result import Judging
    judging = Judging(args.replicates, args.seed, args.stratified, args.threshold, args.calibrate,
                      [c.strip() for c in ",".join(args.by).split(",") if c.strip()], _tree(args.tree), mean=args.mean)
    if args.run:
        return _outside(args, judging) if args.data else _own(args, judging)
    return _files(args, judging)


def _files(args: argparse.Namespace, judging: "Judging") -> "Findings":
    from .comparison import compare_systems
    from .evaluation import judge
    from .findings import Findings
    from .joining import Joining, join
    from .radiologists import beside
    from .reading import ensemble, read_meta, read_predictions, read_truth
    truth = read_truth(args.truth)
    joining = Joining(args.labels, args.patients, args.unit, _rule(args.rule or "max"), args.truth_blank or "negative",
                      args.intersect, args.views)
    systems = dict(zip(_names(args.predictions), map(read_predictions, args.predictions)))
    if args.ensemble:
        systems[f"ensemble of {len(systems)}"] = ensemble(list(systems.values()))
    if args.pairs is not None:
        one_of("--pairs", args.pairs, ("first", "all", *systems))
    meta = read_meta(args.meta) if args.meta else None
    readers = dict(zip(_names(args.radiologists), map(read_predictions, args.radiologists)))
    fit = (read_predictions(args.fit[0]), read_truth(args.fit[1])) if args.fit else None
    findings = Findings([])
    for name, table in systems.items():
        cases = join(table, truth, joining, meta)
        fitting = join(*fit, joining.elsewhere(cases.labels)) if fit else None
        before = _before(args, truth, replace(joining, labels=cases.labels)) if not findings.results else None
        findings.results.append(judge(cases, replace(judging, name=name), fitting, before))
        if readers:
            findings.readers[name] = beside(findings.results[-1], readers, truth, joining, seed=args.seed)
    findings.comparisons = compare_systems(findings.results, args.pairs or ("all" if args.table else "first"),
                                           replicates=args.replicates, seed=args.seed)
    return findings


def _before(args: argparse.Namespace, truth: Any, joining: "Joining") -> Any:
    """The first file's scores before the chain rule, joined with the truth; None where none are given."""
    from .joining import join
    from .reading import read_predictions
    return join(read_predictions(args.conditional), truth, joining) if args.conditional else None


def _own(args: argparse.Namespace, judging: "Judging") -> "Findings":
    """A run on its own films, as it judges itself."""
    from .evaluation import evaluate
    from .findings import Findings
    from .runs import read_run
    run = read_run(args.run)
    joining = replace(run.joining, views=args.views, labels=args.labels or run.joining.labels)
    return Findings([evaluate(run.predictions, run.truth, joining, _as_the_run(run, judging),
                              conditional=run.conditional)])


def _as_the_run(run: "Run", judging: "Judging") -> "Judging":
    return replace(judging, name=run.name, tree=judging.tree or run.tree, seed=judging.seed or run.recipe.seed)


def _outside(args: argparse.Namespace, judging: "Judging") -> "Findings":
    """A run on its own films beside those of another data set."""
    from .external import compare_outside
    from .findings import Findings
    from .joining import join
    from .runs import answer_outside, read_run
    run = read_run(args.run)
    with locked(args.out):
        other = answer_outside(run, args.data, args.out, args.reader, judging.by)
    inside = join(run.predictions, run.truth, replace(run.joining, views=args.views,
                                                      labels=args.labels or run.joining.labels))
    outside = join(other.predictions, other.truth, replace(other.joining, views=args.views, labels=args.labels))
    found = compare_outside(inside, outside, _as_the_run(run, judging), other.name)
    found.notes.extend(other.notes)
    return Findings([replace(found.inside, name=f"{run.name}, inside"),
                     replace(found.outside, name=f"{run.name}, {other.name}")], external=found)


def _names(paths: Sequence[str]) -> list[str]:
    """Short names that tell the files apart: the stem without what all have, with its folder where stems repeat."""
    stems = [Path(path).name.removesuffix(".gz").removesuffix(".csv") for path in paths]
    short = [stem.removesuffix("_predictions") for stem in stems]
    stems = short if len(paths) > 1 and all(short) and len(set(short)) == len(set(stems)) else stems
    names = [stem if stems.count(stem) == 1 else f"{Path(path).parent.name}/{stem}" for path, stem in zip(paths, stems)]
    return [name if names.count(name) == 1 else f"{place + 1}: {name}" for place, name in enumerate(names)]


def _rule(text: str) -> str | dict[str, str]:
    from .aggregate import RULES, check_rule
    if not text.endswith(".json"):
        one_of("--rule", text, RULES)
        return text
    try:
        rules = {str(label): rule for label, rule in json.loads(Path(text).read_text(encoding="utf-8")).items()}
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        raise InputError(f"{text}: cannot be read as JSON {{label: rule}}") from error
    check_rule(rules)
    return rules


def _tree(name: str | None) -> "Tree | None":
    if name is None:
        return None
    from ..hierarchy import TREES, read_tree
    if name.endswith(".json"):
        return read_tree(name)
    one_of("--tree", name, TREES)
    return TREES[name]


if __name__ == "__main__":
    raise SystemExit(commands.answer(main))
