"""The import rules: no circles, areas that know only those below them, who may know Keras and TensorFlow, no work."""

import ast
import graphlib
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from chexpert_hier.console import COMMANDS

PACKAGE = Path(__file__).parents[1] / "chexpert_hier"
MODULES = sorted(".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")
                 for path in PACKAGE.rglob("*.py"))
# From the bottom up: a module imports its own area and those above it in this list, never one below.
ORDER = ("errors", "faces", "schema", "files", "paths", "commands", "console", "labels", "hierarchy",
         "recipes", "run_folder", "films", "datasets", "phantom", "evaluate", "prepare", "network", "devices",
         "training", "finished", "heatmaps", "predict", "export", "archive", "serve", "dicom_node", "selftest",
         "report", "tracking", "settings", "run")
# Neither TensorFlow nor Keras, not even inside a function.
SCIENCE = ("schema", "labels", "hierarchy", "recipes", "datasets", "evaluate", "phantom")
# Keras' other backends run these, so that TensorFlow has no name here.
ANY_BACKEND = ("network", "training")
FASTER_ON_TENSORFLOW = ("chexpert_hier.network.kernels",)  # by measurement; other backends keep Keras' own
# TensorFlow inside functions only.
INPUT_PATH = ("films", "export")
FACES = [module for module in MODULES if (PACKAGE.parent.joinpath(*module.split(".")) / "__init__.py").exists()]


def path_of(module):
    path = PACKAGE.parent.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def area(module):
    """The folder, or the shared module, that a module belongs to."""
    return [*module.split("."), ""][1]


def own_imports(module):
    """(module, name) of everything imported from this package, the name None for a whole module."""
    home = module.split(".") if module in FACES else module.split(".")[:-1]
    for node in ast.walk(ast.parse(path_of(module).read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            start = ".".join([*home[:len(home) - node.level + 1], *([node.module] if node.module else [])])
            for alias in node.names:
                inner = f"{start}.{alias.name}"
                yield (inner, None) if inner in MODULES else (start, alias.name)


def imports(tree, inside_functions=True):
    """Top names of everything imported."""
    found, stack = set(), [tree]
    while stack:
        node = stack.pop()
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found.add(node.module.split(".")[0])
        if inside_functions or not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            stack.extend(ast.iter_child_nodes(node))
    return found


def test_the_walker_sees_what_it_should():
    tree = ast.parse("import a.b\nfrom c import d\nfrom . import e\ndef f():\n    import g\n")
    assert imports(tree) == {"a", "c", "g"} and imports(tree, inside_functions=False) == {"a", "c"}


@pytest.mark.parametrize("module", MODULES)
def test_who_may_import_what(module):
    tree = ast.parse(path_of(module).read_text(encoding="utf-8"))
    anywhere, at_import = imports(tree), imports(tree, inside_functions=False)
    if area(module) in SCIENCE:
        assert not anywhere & {"tensorflow", "keras", "torch", "jax"}
    if area(module) in ANY_BACKEND:
        assert "tensorflow" not in (at_import if module in FASTER_ON_TENSORFLOW else anywhere)
    if area(module) in INPUT_PATH:
        assert "tensorflow" not in at_import
    assert "matplotlib.pyplot" not in at_import and "pickle" not in anywhere


def test_no_circle():
    """Also none that is hidden in a function."""
    graph = {module: {other for other, _ in own_imports(module) if other != "chexpert_hier"} for module in MODULES}
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


@pytest.mark.parametrize("module", [module for module in MODULES if module != "chexpert_hier"])
def test_a_module_knows_its_own_area_and_those_below(module):
    assert area(module) in ORDER, "a new area needs its place in ORDER"
    below = ORDER[:ORDER.index(area(module)) + 1]
    assert {area(other) for other, _ in own_imports(module) if other != "chexpert_hier"} <= set(below)


def defined(module):
    """The names that a module itself defines."""
    found = set()
    for node in ast.parse(path_of(module).read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found |= {name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)}
    return found


@pytest.mark.parametrize("module", MODULES)
def test_a_name_is_imported_from_where_it_is_defined(module):
    """One address each; nothing private crosses from one module to another."""
    for other, name in own_imports(module):
        if name is not None and not (other in FACES and area(other)) and module not in FACES:
            assert name in defined(other), f"{name} is not defined in {other}"
            assert not name.startswith("_") or name == "__version__", f"{name} of {other} is private"


@pytest.mark.parametrize("face", [face for face in FACES if area(face) not in ("", "evaluate", "recipes")])
def test_a_face_names_what_its_modules_define(face):
    public = importlib.import_module(face).PUBLIC
    for inner, names in public.items():
        assert set(names) <= defined(f"{face}.{inner}") and list(names) == sorted(names)
    flat = [name for names in public.values() for name in names]
    assert len(flat) == len(set(flat))
    assert dir(importlib.import_module(face)) == sorted(flat)


def test_the_addresses_of_version_0_1_still_answer():
    from chexpert_hier import images, template
    from chexpert_hier.faces import MOVED
    from chexpert_hier.films.normalisation import normalise
    from chexpert_hier.films.template import Cropper

    assert template.Cropper is Cropper and images.normalise is normalise
    assert all(f"chexpert_hier.{new}" in MODULES for new in MOVED.values())
    with pytest.raises(ImportError, match="cannot import name 'nothing'"):
        from chexpert_hier import nothing  # noqa: F401


# The last is `python -m` on its way to a command, which then answers Ctrl-C; other importers never see it.
ONLY_IF = ("__name__ == '__main__'", "TYPE_CHECKING", "sys.argv[:1] == ['-m']")


@pytest.mark.parametrize("module", MODULES)
def test_nothing_happens_at_import(module):
    """No call stands at the top of a module but those that build constants."""
    tree = ast.parse(path_of(module).read_text(encoding="utf-8"))
    for node in tree.body:
        if isinstance(node, ast.If):
            assert ast.unparse(node.test) in ONLY_IF, ast.unparse(node)
        elif isinstance(node, ast.Expr):
            assert isinstance(node.value, ast.Constant), f"{module}: {ast.unparse(node)}"
        else:
            assert isinstance(node, ast.Import | ast.ImportFrom | ast.Assign | ast.AnnAssign | ast.FunctionDef
                              | ast.AsyncFunctionDef | ast.ClassDef | ast.Try), f"{module}: {ast.unparse(node)}"


def python(code, *arguments):
    return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=120,
                          cwd=PACKAGE.parent)


BLOCKED = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("tensorflow", "keras", "torch", "jax"):
            raise ImportError(f"{name} must not be imported here")
sys.meta_path.insert(0, Block())
"""


def test_the_science_and_every_face_are_imported_without_tensorflow_and_keras():
    names = ", ".join(module for module in MODULES
                      if module in FACES or (area(module) in SCIENCE and not module.endswith("__main__")))
    result = python(f"{BLOCKED}\nimport {names}\nprint('fine')")
    assert result.stdout.strip() == "fine" and result.returncode == 0, result.stderr


@pytest.mark.parametrize("name", COMMANDS)
def test_help_and_argument_errors_answer_without_tensorflow(name):
    run = BLOCKED + "import runpy; runpy.run_module(sys.argv.pop(1), run_name='__main__', alter_sys=True)"
    answer = python(run, f"chexpert_hier.{name}", "--help")
    assert answer.returncode == 0 and "usage" in answer.stdout, answer.stderr
    answer = python(run, f"chexpert_hier.{name}", "--no-such-flag")
    assert answer.returncode == 2 and "Traceback" not in answer.stderr, answer.stderr
