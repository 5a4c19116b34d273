"""Do the tests bite? Change one thing in a module, run its tests, and list the changes that no test notices.

    python experiments/mutate.py chexpert_hier/labels.py tests/test_labels.py
    python experiments/mutate.py chexpert_hier/hierarchy.py tests/test_hierarchy.py --sample 60
    python experiments/mutate.py chexpert_hier/network/losses.py tests/network/test_losses.py --preload keras
    python experiments/mutate.py chexpert_hier/labels.py tests/test_labels.py --again      # the survivors once more

One change at a time, in a copy of the working tree: a comparison, an arithmetic or logical operator, a number,
True or False, a condition, a returned value, or a call whose value nobody uses. The tests run in a fork of this
process, so that what `--preload` names is imported once. Results are kept as JSON lines, so that a stopped run goes on;
a change is known by its function, its text and its place among equal ones there, so that results outlive edits
elsewhere.
"""

import argparse
import ast
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

ROOT = Path(__file__).parents[1]
COMPARE = {ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
           ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In}
ARITHMETIC = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Div,
              ast.Mod: ast.Mult, ast.Pow: ast.Mult, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd,
              ast.BitXor: ast.BitOr, ast.LShift: ast.RShift, ast.RShift: ast.LShift, ast.MatMult: ast.Add}
LOGIC = {ast.And: ast.Or, ast.Or: ast.And}


@dataclass(frozen=True)
class Mutation:
    """One change: bytes `start` to `end` of the source become `new`."""

    name: str  # function: old -> new #occurrence
    line: int
    start: int
    end: int
    new: str


def variants(node: ast.AST) -> Iterator[ast.AST]:
    """The changed forms of one node of the syntax tree."""
    if isinstance(node, ast.Compare) and type(node.ops[0]) in COMPARE:
        yield ast.Compare(node.left, [COMPARE[type(node.ops[0])](), *node.ops[1:]], node.comparators)
    elif isinstance(node, ast.BinOp) and type(node.op) in ARITHMETIC:
        yield ast.BinOp(node.left, ARITHMETIC[type(node.op)](), node.right)
    elif isinstance(node, ast.BoolOp):
        yield ast.BoolOp(LOGIC[type(node.op)](), node.values)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not | ast.USub | ast.Invert):
        yield node.operand
    elif isinstance(node, ast.Constant) and isinstance(node.value, bool):
        yield ast.Constant(not node.value)
    elif isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        yield ast.Constant(node.value + 1)
    elif isinstance(node, ast.IfExp):
        yield ast.IfExp(ast.UnaryOp(ast.Not(), node.test), node.body, node.orelse)
    elif isinstance(node, ast.Return) and not (isinstance(node.value, ast.Constant | None) and (
            node.value is None or node.value.value is None)):
        yield ast.Return(ast.Constant(None))
    elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        yield ast.Pass()


def mutations(source: str) -> list[Mutation]:
    """All changes of a module, in the order of the source; annotations, decorators and messages are left alone."""
    data = source.encode()
    starts = [0]
    for row in data.splitlines(keepends=True):
        starts.append(starts[-1] + len(row))
    found, counts = [], Counter()

    def add(function: str, node: ast.expr | ast.stmt, new: ast.AST) -> None:
        begin = starts[node.lineno - 1] + node.col_offset
        end = starts[node.end_lineno - 1] + node.end_col_offset
        text = ast.unparse(ast.fix_missing_locations(new))
        text = f"({text})" if isinstance(new, ast.expr) and not isinstance(new, ast.Constant) else text
        name = f"{function}: {' '.join(data[begin:end].decode().split())} -> {text}"
        counts[name] += 1
        found.append(Mutation(f"{name} #{counts[name]}", node.lineno, begin, end, text))

    def walk(node: ast.AST, function: str) -> None:
        if isinstance(node, ast.JoinedStr | ast.Raise | ast.Import | ast.ImportFrom):
            return
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            function = f"{function}.{node.name}".lstrip(".")
        for new in variants(node):
            add(function, node, new)
        if isinstance(node, ast.If | ast.While):
            add(function, node.test, ast.UnaryOp(ast.Not(), node.test))
        for name, value in ast.iter_fields(node):
            if name in ("annotation", "returns", "decorator_list", "type_comment"):
                continue
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST):
                    walk(child, function)

    walk(ast.parse(source), "")
    return found


def passes(tree: Path, tests: list[str], timeout: float) -> bool:
    """Whether the tests pass in the copied tree; a run that takes too long does not."""
    child = os.fork()
    if child == 0:
        _run_tests(tree, tests)
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status) == 0
        time.sleep(0.02)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return False


def _run_tests(tree: Path, tests: list[str]) -> None:
    """In the child: never returns."""
    code = 3
    try:
        nothing = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(nothing, stream)
        os.chdir(tree)
        sys.dont_write_bytecode = True
        sys.path[:] = [str(tree), *(part for part in sys.path if Path(part or ".").resolve() not in (ROOT, tree))]
        import pytest

        code = int(pytest.main(["-x", "-q", "-p", "no:cacheprovider", "--hypothesis-seed=0", *tests]))
    finally:
        os._exit(code)


def copied(folder: Path) -> Path:
    """A copy of the working tree, without what git ignores or large results."""
    tree = folder / ROOT.name
    skip = shutil.ignore_patterns(".git", "__pycache__", ".*_cache", "work", "results", "runs")
    shutil.copytree(ROOT, tree, ignore=skip)
    for beside in ("shared",):  # real films, where the tests find them
        if (ROOT.parent / beside).exists():
            (folder / beside).symlink_to((ROOT.parent / beside).resolve())
    return tree


def parser() -> argparse.ArgumentParser:
    answer = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    answer.add_argument("module", help="file of the module, from the repository's root")
    answer.add_argument("tests", nargs="+", help="its test files; options of pytest after --")
    answer.add_argument("--sample", type=int, help="only so many, drawn at random")
    answer.add_argument("--seed", type=int, default=0)
    answer.add_argument("--only", default="", help="only changes whose name contains this, e.g. a function")
    answer.add_argument("--preload", nargs="*", default=["numpy", "pandas"])
    answer.add_argument("--timeout", type=float, default=300.0, help="seconds for one run of the tests")
    answer.add_argument("--again", action="store_true", help="try the survivors once more (the tests have changed)")
    answer.add_argument("--list", action="store_true", help="only print what would be tried")
    answer.add_argument("--work", type=Path, default=Path(__file__).parent / "work" / "mutations")
    return answer


def main(argv: list[str] | None = None) -> int:
    args = parser().parse_args(argv)
    source = (ROOT / args.module).read_text(encoding="utf-8")
    chosen = [found for found in mutations(source) if args.only in found.name]
    if args.sample:
        chosen = sorted(random.Random(args.seed).sample(chosen, min(args.sample, len(chosen))), key=lambda m: m.start)
    if args.list:
        print("\n".join(f"{args.module}:{found.line}: {found.name}" for found in chosen))
        return 0
    log = args.work / f"{args.module.replace('/', '.')}.jsonl"
    known = _read(log)
    for name in args.preload:
        import_module(name)
    with tempfile.TemporaryDirectory() as folder:
        tree = copied(Path(folder))
        if not passes(tree, args.tests, args.timeout):
            print(f"the tests fail without any change: {' '.join(args.tests)}", file=sys.stderr)
            return 1
        for count, found in enumerate(chosen, 1):
            if found.name in known and not (args.again and not known[found.name]):
                continue
            data = source.encode()
            (tree / args.module).write_bytes(data[:found.start] + found.new.encode() + data[found.end:])
            known[found.name] = not passes(tree, args.tests, args.timeout)
            log.parent.mkdir(parents=True, exist_ok=True)
            with log.open("a", encoding="utf-8") as lines:
                lines.write(json.dumps({"name": found.name, "killed": known[found.name]}) + "\n")
            if not known[found.name]:
                print(f"[{count}/{len(chosen)}] survives: {args.module}:{found.line}: {found.name}", flush=True)
    survivors = [found for found in chosen if not known[found.name]]
    print(f"\n{args.module}: {len(chosen) - len(survivors)} of {len(chosen)} changes noticed "
          f"({1 - len(survivors) / max(len(chosen), 1):.1%})")
    print("\n".join(f"  line {found.line}: {found.name}" for found in survivors))
    return 0


def _read(log: Path) -> dict[str, bool]:
    if not log.exists():
        return {}
    return {entry["name"]: entry["killed"] for entry in map(json.loads, log.read_text(encoding="utf-8").splitlines())}


if __name__ == "__main__":
    raise SystemExit(main())
