"""The import rules of the rooms: who may know TensorFlow, Keras and OpenCV, and that importing does no work."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "chexpert_hier"
MODULES = sorted(".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")
                 for path in PACKAGE.rglob("*.py"))
# Neither TensorFlow nor Keras, not even inside a function.
SCIENCE = ("labels", "hierarchy", "bridge", "splits", "presence", "tables", "readers", "chestxray14", "mimic",
           "datasets", "data_checks", "evaluate", "recipes", "phantom")
# Keras' other backends run these, so that TensorFlow has no name here.
ANY_BACKEND = ("backbones", "model", "losses", "training")
# TensorFlow inside functions only.
INPUT_PATH = ("films", "template", "images", "export")
COMMANDS = ("run", "prepare", "predict", "evaluate", "heatmaps", "export", "phantom", "datasets", "report")


def path_of(module):
    path = PACKAGE.parent.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def room(module):
    """The file's name in the package; phantom_films is part of the room phantom."""
    name = [*module.split("."), ""][1]
    return next((known for known in ("phantom",) if name.startswith(known)), name)


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
    if room(module) in SCIENCE:
        assert not anywhere & {"tensorflow", "keras", "torch", "jax"}
    if room(module) in ANY_BACKEND:
        assert "tensorflow" not in anywhere
    if room(module) in INPUT_PATH:
        assert "tensorflow" not in at_import
    assert "matplotlib.pyplot" not in at_import and "pickle" not in anywhere


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
                              | ast.ClassDef | ast.Try), f"{module}: {ast.unparse(node)}"


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


def test_the_science_is_imported_without_tensorflow_and_keras():
    names = ", ".join(module for module in MODULES if room(module) in SCIENCE and not module.endswith("__main__"))
    result = python(f"{BLOCKED}\nimport {names}\nprint('fine')")
    assert result.stdout.strip() == "fine" and result.returncode == 0, result.stderr


@pytest.mark.parametrize("name", [name for name in COMMANDS if path_of(f"chexpert_hier.{name}").exists()])
def test_help_and_argument_errors_answer_without_tensorflow(name):
    run = BLOCKED + "import runpy; runpy.run_module(sys.argv.pop(1), run_name='__main__', alter_sys=True)"
    answer = python(run, f"chexpert_hier.{name}", "--help")
    assert answer.returncode == 0 and "usage" in answer.stdout, answer.stderr
    answer = python(run, f"chexpert_hier.{name}", "--no-such-flag")
    assert answer.returncode == 2 and "Traceback" not in answer.stderr, answer.stderr
