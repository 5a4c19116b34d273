"""Do the tests bite? Change one thing in a module, run its tests, and list the changes that no test notices.

    python experiments/mutate.py chexpert_hier/labels.py tests/test_labels.py
    python experiments/mutate.py chexpert_hier/evaluate/ranking.py tests/evaluate --sample 120
    python experiments/mutate.py chexpert_hier/labels.py tests/test_labels.py --again      # the survivors once more
    python experiments/mutate.py --table                            # results/mutations.md from what has been tried

One change at a time, in a copy of the working tree: a comparison, an arithmetic or logical operator, a number,
True or False, a condition, a returned value, or a call whose value nobody uses. A first run of the tests notes which
test runs which line; a change is then tried by the tests that run its line, the fastest first, up to the first failure
or until BUDGET seconds of tests have passed without one (by all tests in that order where the line runs at import or
in a fixture; without that limit for `--again --budget inf`). So a change counts as noticed only where a fast test
notices it. The tests are collected once; each change of a function's body is tried in a fork, in which the function
gets the changed code. Other changes (constants, defaults, classes) go into the file and the tests are collected anew.

Results are kept as JSON lines, so that a stopped run goes on (`--seconds` stops by itself); a change is known by its
function, its text and its place among equal ones there, so that results outlive edits elsewhere.
"""

import argparse
import ast
import contextlib
import hashlib
import inspect
import json
import os
import random
import resource
import shutil
import signal
import site
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from itertools import accumulate
from pathlib import Path
from types import CodeType, FrameType, FunctionType, ModuleType
from typing import Any

ROOT = Path(__file__).parents[1]
COMPARE = {ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
           ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In}
ARITHMETIC = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Div,
              ast.Mod: ast.Mult, ast.Pow: ast.Mult, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd,
              ast.BitXor: ast.BitOr, ast.LShift: ast.RShift, ast.RShift: ast.LShift, ast.MatMult: ast.Add}
BUDGET = 5.0
LEAST_LIMIT = 20  # seconds of the processor that tests get at least: some load TensorFlow and trace a graph first
LOGIC = {ast.And: ast.Or, ast.Or: ast.And}


@dataclass(frozen=True)
class Mutation:
    """One change: bytes `start` to `end` of the source become `new`."""

    name: str  # function: old -> new #occurrence
    line: int
    last_line: int
    start: int
    end: int
    new: str
    function: str
    inside: bool  # in a function's body, so that only its code changes


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

    def add(function: str, inside: bool, node: ast.expr | ast.stmt, new: ast.AST) -> None:
        begin = starts[node.lineno - 1] + node.col_offset
        end = starts[node.end_lineno - 1] + node.end_col_offset
        text = ast.unparse(ast.fix_missing_locations(new))
        text = f"({text})" if isinstance(new, ast.expr) and not isinstance(new, ast.Constant) else text
        name = f"{function}: {' '.join(data[begin:end].decode().split())} -> {text}"
        counts[name] += 1
        found.append(Mutation(f"{name} #{counts[name]}", node.lineno, node.end_lineno, begin, end, text, function,
                              inside))

    def walk(node: ast.AST, function: str, inside: bool) -> None:
        if isinstance(node, ast.JoinedStr | ast.Raise | ast.Import | ast.ImportFrom):
            return
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            function = f"{function}.{node.name}".lstrip(".")
        for new in variants(node):
            add(function, inside, node, new)
        if isinstance(node, ast.If | ast.While):
            add(function, inside, node.test, ast.UnaryOp(ast.Not(), node.test))
        for name, value in ast.iter_fields(node):
            if name in ("annotation", "returns", "decorator_list", "type_comment"):
                continue
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST):
                    walk(child, function, inside or (isinstance(node, ast.FunctionDef) and name == "body"))

    walk(ast.parse(source), "", False)
    return found


class Recorder:
    """A plugin of pytest that notes how long each test takes and which lines of the package it runs."""

    def __init__(self, tree: Path, out: Path) -> None:
        self.start, self.out = f"{tree}/chexpert_hier/", out
        self.now, self.shared = "", True  # the test that runs; whether what runs may serve other tests too
        self.seconds: Counter[str] = Counter()
        self.lines: dict[str, set[str]] = defaultdict(set)  # "file:line" -> tests
        self.everyone: set[str] = set()

    def trace(self, frame: FrameType, event: str, _: object) -> Any:
        name = frame.f_code.co_filename
        if not name.startswith(self.start):
            return None
        place = f"{name[len(self.start):]}:{frame.f_lineno}"
        self.lines[place].add(self.now)
        if self.shared:
            self.everyone.add(place)
        return self.trace

    def pytest_runtest_setup(self, item: Any) -> None:
        self.now, self.shared = item.nodeid, True

    def pytest_runtest_call(self) -> None:
        self.shared = False
        sys.settrace(self.trace)  # anew: what ran before may have taken it away
        threading.settrace(self.trace)

    def pytest_runtest_teardown(self) -> None:
        self.shared = True

    def pytest_runtest_logreport(self, report: Any) -> None:
        self.seconds[report.nodeid] += report.duration

    def pytest_sessionfinish(self) -> None:
        sys.settrace(None)
        self.out.write_text(json.dumps({"seconds": self.seconds, "everyone": sorted(self.everyone),
                                        "lines": {line: sorted(ids - {""}) for line, ids in self.lines.items()},
                                        "packages": installed()}))


def installed() -> list[str]:
    """The modules of other packages that are imported by now."""
    homes = tuple(site.getsitepackages())
    return sorted(name for name, module in list(sys.modules.items())
                  if str(getattr(module, "__file__", None) or "").startswith(homes))


class Chosen:
    """A plugin of pytest that runs these tests only, in this order."""

    def __init__(self, tests: list[str]) -> None:
        self.place = {name: place for place, name in enumerate(tests)}

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        items[:] = sorted((item for item in items if item.nodeid in self.place), key=lambda i: self.place[i.nodeid])


@dataclass(frozen=True)
class Known:
    """What the run without any change told; reading it imports the packages of that run."""

    seconds: dict[str, float]
    lines: dict[int, set[str]]
    everyone: set[int]

    @classmethod
    def read(cls, file: Path, module: str) -> "Known":
        start = module.removeprefix("chexpert_hier/") + ":"
        told = json.loads(file.read_text())
        for name in told["packages"]:
            with contextlib.suppress(Exception):  # some parts are made, not imported
                import_module(name)
        lines = {int(place[len(start):]): set(ids) for place, ids in told["lines"].items() if place.startswith(start)}
        return cls(told["seconds"], lines, {int(p[len(start):]) for p in told["everyone"] if p.startswith(start)})

    def tests(self, found: Mutation, every: bool, budget: float) -> list[str]:
        """The tests that may notice the change, those that run its lines first, the fastest of them first.

        No more than take `budget` seconds together, but at least five.
        """
        lines = range(found.line, found.last_line + 1)
        near = set().union(*(self.lines.get(line, set()) for line in lines))
        if every or not near or self.everyone & set(lines):
            near = set(self.seconds)
        order = sorted(near, key=lambda name: (not self._runs(name, lines), self.seconds[name]))
        ends = list(accumulate(self.seconds[name] for name in order))
        return [name for place, (name, end) in enumerate(zip(order, ends)) if place < 5 or end <= budget]

    def tests_and_limit(self, found: Mutation, args: argparse.Namespace) -> tuple[list[str], int]:
        """As `tests`, and the seconds of the processor after which they are taken to run for ever."""
        names = self.tests(found, args.again, args.budget)
        return names, LEAST_LIMIT + round(3 * sum(self.seconds[name] for name in names))

    def _runs(self, test: str, lines: range) -> bool:
        return any(test in self.lines.get(line, ()) for line in lines)


def outcome(tree: Path, tests: list[str], plugin: object, limit: int) -> str:
    """What the tests say in the copied tree: "pass", "fail" or, of a run above the limit, "time".

    The limit is in seconds of the processor, which neither other work on the machine nor a pause uses up; one that
    waits for ever ends after ten times as long by a clock that counts only while this process itself runs.
    """
    child = os.fork()
    if child == 0:
        _run_tests(tree, tests, plugin, limit)
    return _ended(child, limit)


def _ended(child: int, limit: int) -> str:
    waited = 0.0
    while waited < 10 * limit:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            code = os.waitstatus_to_exitcode(status)
            return "time" if code == -signal.SIGXCPU else "fail" if code else "pass"
        time.sleep(0.01)
        waited += 0.01
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return "time"


def _run_tests(tree: Path, tests: list[str], plugin: object, limit: int) -> None:
    """In the child: never returns."""
    code = 3
    try:
        os.setsid()  # so that what the tests start ends with them
        resource.setrlimit(resource.RLIMIT_CPU, (limit, limit + 5))
        _be_silent()
        code = _pytest(tree, tests, plugin)
    finally:
        os._exit(code)


def _be_silent() -> None:
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nothing, stream)


def _pytest(tree: Path, tests: list[str], plugin: object) -> int:
    os.chdir(tree)
    sys.dont_write_bytecode = not isinstance(plugin, Recorder)
    sys.path[:] = [str(tree), *(part for part in sys.path if Path(part or ".").resolve() not in (ROOT, tree))]
    os.environ |= {"PYTHONPATH": str(tree), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    import cv2
    import pytest
    from hypothesis import Phase, settings

    cv2.setNumThreads(1)  # its threads do not live on in a fork, which would wait for them for ever
    settings.register_profile("one", database=None, deadline=None, phases=(Phase.explicit, Phase.generate))
    settings.load_profile("one")
    sys.settrace(getattr(plugin, "trace", None))
    return int(pytest.main(["-x", "-q", "--assert=plain", "-p", "no:cacheprovider", "-p",
                            "_hypothesis_pytestplugin", "--hypothesis-seed=0", *tests], plugins=[plugin]))


@dataclass
class Module:
    """A module under test: what is tried of it, and where the outcomes are kept."""

    name: str  # chexpert_hier/....py
    source: bytes
    changes: int
    chosen: list[Mutation]
    log: Path
    todo: list[tuple[Mutation, list[str], int]] = field(default_factory=list)  # a change, its tests, their limit

    def changed(self, found: Mutation) -> bytes:
        return self.source[:found.start] + found.new.encode() + self.source[found.end:]

    def keep(self, found: Mutation, result: str) -> None:
        with self.log.open("a", encoding="utf-8") as out:
            out.write(json.dumps({"name": found.name, "outcome": result}) + "\n")


class Patcher:
    """A plugin of pytest that collects the tests once and, instead of running them, tries changes of function bodies.

    Each is tried in a fork in which the function has the changed code, wherever it was imported to.
    """

    def __init__(self, tree: Path, modules: list[Module], end: float):
        self.end = end
        self.modules = {str(tree / module.name): module for module in modules}
        self.imported: set[tuple[str, int]] = set()  # lines that have run already: a change there comes too late

    def trace(self, frame: FrameType, event: str, _: object) -> Any:
        if frame.f_code.co_filename in self.modules:
            self.imported.add((frame.f_code.co_filename, frame.f_lineno))
            return self.trace
        return None

    def pytest_runtestloop(self, session: Any) -> bool:
        sys.settrace(None)
        items = {item.nodeid: item for item in session.items}
        for file, module in self.modules.items():
            for found, tests, limit in module.todo:
                if time.monotonic() < self.end and (patch := self.patch(file, module, found)) is not None:
                    some = [items[name] for name in tests]
                    module.keep(found, outcome_of(partial(self._try, session, *patch, some), limit))
        return True

    def patch(self, file: str, module: Module, found: Mutation) -> tuple[Any, CodeType] | None:
        """The function that the change is in, and its new code; None where replacing that is not enough."""
        held: Any = next((m for m in list(sys.modules.values()) if getattr(m, "__file__", None) == file), None)
        name = ""
        for part in found.function.split("."):
            name = f"{name}.{part}".lstrip(".")
            held = vars(held).get(part) if isinstance(held, type | ModuleType) else held
            held = getattr(held, "fget", None) or getattr(held, "func", None) or getattr(held, "__func__", held)
            held = inspect.unwrap(held) if callable(held) and not isinstance(held, type) else held
            if isinstance(held, FunctionType):
                break
        if not isinstance(held, FunctionType) or held.__code__.co_filename != file:
            return None
        code = next((c for c in _codes(compile(module.changed(found), file, "exec")) if c.co_qualname == name), None)
        late = self.imported & {(file, line) for line in range(found.line, found.last_line + 1)}
        fits = code is not None and code.co_freevars == held.__code__.co_freevars and not late
        return (held, code) if found.inside and fits else None

    def _try(self, session: Any, function: Any, code: CodeType, items: list[Any]) -> bool:
        function.__code__ = code
        for item, following in zip(items, [*items[1:], None]):
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
            if session.testsfailed:
                return False
        return True


def _codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for part in code.co_consts:
        if isinstance(part, CodeType):
            yield from _codes(part)


def outcome_of(passes: Callable[[], bool], limit: int) -> str:
    """As `outcome`, of a function that is called in a fork of its own."""
    child = os.fork()
    if child == 0:
        code = 3
        try:
            os.setsid()
            resource.setrlimit(resource.RLIMIT_CPU, (limit, limit + 5))
            _be_silent()
            code = 0 if passes() else 1
        finally:
            os._exit(code)
    return _ended(child, limit)


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
    answer.add_argument("module", nargs="?", help="file of the module, or folder of several, from the repository's "
                        "root; more with commas between")
    answer.add_argument("tests", nargs="*", help="its test files or folders")
    answer.add_argument("--sample", type=int, help="at most so many, drawn at random")
    answer.add_argument("--seed", type=int, default=0)
    answer.add_argument("--only", default="", help="only changes whose name contains this, e.g. a function")
    answer.add_argument("--budget", type=float, default=BUDGET, help="seconds of tests that a change must survive")
    answer.add_argument("--seconds", type=float, default=float("inf"), help="stop after so long; to be gone on with")
    answer.add_argument("--again", action="store_true", help="try the survivors once more, by all the tests")
    answer.add_argument("--bodies", action="store_true", help="only changes in the bodies of functions, the quick ones")
    answer.add_argument("--list", action="store_true", help="only print what would be tried")
    answer.add_argument("--table", action="store_true", help="only write results/mutations.md")
    answer.add_argument("--work", type=Path, default=Path(__file__).parent / "work" / "mutations")
    return answer


def main(argv: list[str] | None = None) -> int:
    args = parser().parse_args(argv)
    if args.table:
        return write_table(args.work)
    places = [ROOT / part for part in args.module.split(",")]
    files = [file for place in places for file in (sorted(place.rglob("*.py")) if place.is_dir() else [place])]
    modules = [_module(file, args) for file in files]
    if args.list:
        print("\n".join(f"{one.name}:{found.line}: {found.name}" for one in modules for found in one.chosen))
        return 0
    if not tried(args, modules):
        print(f"the tests fail without any change: {' '.join(args.tests)}", file=sys.stderr)
        return 1
    for module in modules:
        _sum_up(module, args)
    return 0


def _module(file: Path, args: argparse.Namespace) -> Module:
    source, name = file.read_bytes(), file.relative_to(ROOT).as_posix()
    every = [found for found in mutations(source.decode()) if args.only in found.name]
    chosen = [found for found in every if found.inside or not args.bodies]
    if args.sample and args.sample < len(chosen):
        chosen = sorted(random.Random(args.seed).sample(chosen, args.sample), key=lambda found: found.start)
    return Module(name, source, len(every), chosen, args.work / f"{name.replace('/', '.')}.jsonl")


def tried(args: argparse.Namespace, modules: list[Module]) -> bool:
    """Try what has not been tried; whether the tests pass without any change."""
    end = time.monotonic() + args.seconds
    args.work.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        tree = copied(Path(folder))
        lines = args.work / f"lines-{_digest(tree, args.tests)}.json"  # the same for all modules of these tests
        if not lines.exists() and outcome(tree, args.tests, Recorder(tree, lines), 3600) != "pass":
            lines.unlink(missing_ok=True)
            return False
        for module in modules:
            first, known = Known.read(lines, module.name), _read(module.log)
            module.todo = [(found, *first.tests_and_limit(found, args)) for found in module.chosen
                           if found.name not in known or (args.again and known[found.name] == "pass")]
        for module in modules:
            module.log.touch()
        started = {module.name: module.log.stat().st_size for module in modules}
        files = sorted({name.split("::")[0] for module in modules for _, names, _ in module.todo for name in names})
        if files:
            outcome(tree, files, Patcher(tree, modules, end), 10 ** 6)
        for module in modules:
            _try_whole_files(tree, module, started[module.name], end)
    return True


def _try_whole_files(tree: Path, module: Module, start: int, end: float) -> None:
    """Changes that are more than a function's code: in the file itself, the tests collected anew for each."""
    done = {json.loads(line)["name"] for line in module.log.read_bytes()[start:].splitlines()}
    for found, names, limit in module.todo:
        if found.name not in done and time.monotonic() < end:
            (tree / module.name).write_bytes(module.changed(found))
            files = sorted({name.split("::")[0] for name in names})
            module.keep(found, outcome(tree, files, Chosen(names), limit))
    (tree / module.name).write_bytes(module.source)


def _sum_up(module: Module, args: argparse.Namespace) -> None:
    """One module's result, printed and kept for the table."""
    told = _read(module.log)
    if left := sum(found.name not in told for found in module.chosen):
        print(f"{module.name}: {left} changes are still to be tried; give the same command again")
        return
    survivors = [found for found in module.chosen if told[found.name] == "pass"]
    count = len(module.chosen)
    if not args.only:
        content = {"module": module.name, "date": time.strftime("%Y-%m-%d"), "changes": module.changes, "tried": count,
                   "tests": args.tests, "time": sum(told[found.name] == "time" for found in module.chosen),
                   "survivors": [found.name for found in survivors]}
        module.log.with_suffix(".json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    print(f"\n{module.name}: {count - len(survivors)} of {count} changes noticed "
          f"({1 - len(survivors) / max(count, 1):.1%})")
    print("\n".join(f"  line {found.line}: {found.name}" for found in survivors), flush=True)


def _digest(tree: Path, tests: list[str]) -> str:
    """Of everything that the tests run."""
    found = hashlib.sha256("\n".join(tests).encode())
    for file in sorted([*(tree / "chexpert_hier").rglob("*.py"), *(tree / "tests").rglob("*.py")]):
        found.update(file.read_bytes())
    return found.hexdigest()[:16]


def write_table(work: Path) -> int:
    """results/mutations.md from the modules tried; reasons of survivors come from results/mutations.json."""
    results = Path(__file__).parent / "results"
    reasons = json.loads((results / "mutations.json").read_text(encoding="utf-8"))
    summaries = [json.loads(file.read_text(encoding="utf-8")) for file in sorted(work.glob("chexpert_hier.*.json"))]
    rows, lists, unexplained, areas = [], [], 0, defaultdict(list)
    for one in summaries:
        why = reasons.get(one["module"], {})
        left = len(one["survivors"])
        rows.append(f"| `{one['module'].removeprefix('chexpert_hier/')}` | {one['tried']} of {one['changes']} | "
                    f"{one['tried'] - left} | {1 - left / max(one['tried'], 1):.1%} | {one['date']} | "
                    f"`{' '.join(one['tests'])}` |")
        unexplained += sum(name not in why for name in one["survivors"])
        areas[one["module"].split("/")[1].removesuffix(".py")].append((one["tried"] - left, one["tried"]))
        if left:
            lists += ["", f"`{one['module']}`", ""]
            lists += [f"- `{name}`: {why.get(name, 'not yet explained')}" for name in one["survivors"]]
    total, left = (sum(one["tried"] for one in summaries), sum(len(one["survivors"]) for one in summaries))
    shares = [f"{area} {kept} of {tried} ({kept / max(tried, 1):.1%})" for area, found in areas.items()
              for kept, tried in [map(sum, zip(*found))]]
    text = ["# Do the tests bite? Changes of one thing at a time, and whether a test notices", "",
            "`python experiments/mutate.py MODULE TESTS --bodies --sample N` for each row, `--again` after tests were",
            "added, then `--table`; 2 cores, no GPU. Fewer tried than there are: a random sample (seed 0), of changes",
            "in functions' bodies but for labels, hierarchy, losses and comparison. A row may hold outcomes of several",
            "runs; the tests are those of the last one. Modules that are not listed have not been tried.", "",
            f"{'; '.join(shares)}.", "",
            f"**{total - left} of {total} changes noticed ({1 - left / max(total, 1):.1%})**; "
            f"{sum(one['time'] for one in summaries)} of them by the time limit (endless loops).", "",
            "| module | tried | noticed | share | date | tests |", "|---|---|---|---|---|---|", *rows, "",
            "## What no test notices, and why", *lists, ""]
    (results / "mutations.md").write_text("\n".join(text), encoding="utf-8")
    print("\n".join(text[6:8]), f"\n{unexplained} survivors without a reason")
    return 0


def _read(log: Path) -> dict[str, str]:
    if not log.exists():
        return {}
    return {entry["name"]: entry["outcome"] for entry in map(json.loads, log.read_text(encoding="utf-8").splitlines())}


if __name__ == "__main__":
    raise SystemExit(main())
