"""Every command answers --help and mistakes without TensorFlow or Keras, in one line, with its exit code."""

import importlib
import logging
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from chexpert_hier import commands, console, errors, run
from chexpert_hier.errors import InputError

BLOCK = ("import sys, runpy\n"
         "class Block:\n"
         "    def find_spec(self, name, path=None, target=None):\n"
         "        if name.split('.')[0] in ('tensorflow', 'keras'): raise ImportError(name + ' is blocked')\n"
         "sys.meta_path.insert(0, Block())\n"
         "name, *sys.argv[1:] = sys.argv[1:]\n"
         "runpy.run_module('chexpert_hier.' + name, run_name='__main__')\n")


def without_keras(command: str, *arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-c", BLOCK, command, *arguments], capture_output=True, text=True,
                          timeout=120)



@pytest.mark.parametrize("name", console.COMMANDS)
def test_every_argument_says_what_it_is(name):
    arguments = importlib.import_module(console.module_of(name)).parser()._actions
    assert arguments and not [argument.dest for argument in arguments if not argument.help]


@pytest.mark.parametrize(("arguments", "hint"), [
    (("--arch", "resnet50"), "densenet121"), (("--policy", "u-maybe"), "u-ones"), (("--recipe", "none"), "pham2019"),
    (("--ct-rows", "some"), "leaves"), (("--data", "no/such/folder"), "no such folder"),
    (("--set", "epochs=3"), "image_size"),
    (("--resume",), "--out"), (("--limit", "0"), "1 or more"), (("--seed", "x"), "invalid int")])
def test_a_mistake_in_run_is_one_line_and_exit_code_2(arguments, hint, tmp_path):
    answer = without_keras("run", *arguments, *(() if "--resume" in arguments else ("--out", str(tmp_path / "out"))))
    assert answer.returncode == 2
    assert hint in answer.stderr and "Traceback" not in answer.stderr
    assert not (tmp_path / "out" / "recipe.json").exists()


def test_a_folder_that_is_no_run_is_not_written_into(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    for flags, words in (((), "not empty"), (("--resume",), "--resume: holds thesis.tex and no run")):
        answer = without_keras("run", "--out", str(tmp_path), *flags)
        assert answer.returncode == 2 and words in answer.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_resume_means_one_thing(capsys):
    having = set()
    for name in console.COMMANDS:
        if not hasattr(module := importlib.import_module(console.module_of(name)), "parser"):
            continue
        for action in module.parser()._actions:
            if "--resume" in action.option_strings:
                assert action.help == commands.RESUME
                having.add(name)
    assert having == {"run", "predict", "heatmaps", "prepare", "archive"}


@pytest.mark.parametrize(("error", "code"), [(InputError("row 3"), 2), (KeyboardInterrupt(), 130),
                                             (OSError(28, "No space left on device"), 2)])
def test_what_a_user_can_mend_is_one_line(error, code, capsys):
    def main(argv):
        raise error

    assert commands.answer(main) == code
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


def test_a_bug_keeps_its_traceback():
    def main(argv):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        commands.answer(main)


def test_progress_passes_everything_on_and_says_rate_and_unit(capsys):
    logging.getLogger("chexpert_hier").setLevel(logging.INFO)
    assert list(commands.progress([1, 2, 3], "decode")) == [1, 2, 3]
    assert "decode: 3/3 films" in capsys.readouterr().err


@pytest.fixture
def interruptible():
    """Ctrl-C reaches the processes that a test starts, also where the tests run in the background and ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize("start", [
    ("-m", "chexpert_hier.run"), ("-c", "from chexpert_hier import console; raise SystemExit(console.run())")])
@pytest.mark.parametrize(("number", "line"), [(signal.SIGINT, commands.INTERRUPTED),
                                              (signal.SIGTERM, commands.TERMINATED)])
def test_a_signal_while_modules_are_imported_is_one_line(start, number, line, tmp_path):
    # A package that is found first and never finishes importing stands for a slow disk.
    (tmp_path / "pandas.py").write_text("import sys, time\nsys.stdout.write('importing\\n')\nsys.stdout.flush()\n"
                                        "time.sleep(60)\n")
    paths = [str(tmp_path), str(Path(commands.__file__).parents[1])]
    with subprocess.Popen([sys.executable, *start], env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "importing\n"
        process.send_signal(number)
        try:
            _, error = process.communicate(timeout=30)
        finally:
            process.kill()
    assert process.returncode == 128 + number and error.splitlines() == [line]


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
@pytest.mark.usefixtures("interruptible")
def test_sigterm_is_one_line_and_what_cleans_up_runs():
    code = ("import os, signal\nfrom chexpert_hier import commands\ncommands.answer_early_interrupts()\n"
            "def main(argv):\n"
            "    try:\n"
            "        os.kill(os.getpid(), signal.SIGTERM)\n"
            "        signal.pause()\n"
            "    finally:\n"
            "        print('cleaned up')\n"
            "raise SystemExit(commands.answer(main))")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stdout, done.stderr) == (143, "cleaned up\n", f"{commands.TERMINATED}\n")


def test_what_names_hold_neither_clears_the_screen_nor_forges_a_line(capsys):
    def main(argv):
        logging.getLogger("chexpert_hier.test").warning("film \x1b[2J\r\x85one\ud800")
        raise InputError("film\x1b[31m\nerror: all is well\u2028x")

    root = logging.getLogger()
    before, root.handlers = root.handlers, []
    try:
        assert commands.answer(main) == 2
    finally:
        root.handlers = before
    assert capsys.readouterr().err.splitlines() == [
        "film \\x1b[2J\\x0d\\x85one\\xd800", "error: film\\x1b[31m error: all is well\\x2028x"]


def test_progress_on_a_terminal_is_one_line_that_goes_away(monkeypatch):
    import io

    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    logging.getLogger("chexpert_hier").setLevel(logging.INFO)
    bar = commands.Bar("crops", 1200, done=200)
    assert bar._rate() == ""  # the first item may have waited for other things
    bar.add(100)
    assert bar._rate() == ""
    bar.begun -= 10
    bar.add(100)
    assert bar._rate() == "10/s, 80 s left"
    bar.close()
    assert "crops" in terminal.getvalue() and re.search(r"crops: 400/1,200 films, \d+ s\n$", terminal.getvalue())
    before = terminal.getvalue()
    bar.close()
    assert terminal.getvalue() == before


def test_steps_are_counted_and_none_is_silent_for_long(monkeypatch, capsys, caplog):
    monkeypatch.setattr(commands, "QUIET_FOR", 0.3)
    monkeypatch.setattr(commands._SCREEN, "bars", [])  # other tests' bars are not this one's
    logging.getLogger("chexpert_hier").setLevel(logging.INFO)
    steps = commands.Steps(["films", "training"])
    with caplog.at_level(logging.INFO, logger="chexpert_hier"), steps("training"):
        time.sleep(1.2)
        with closing(commands.Bar("epoch 1/4", 7)):
            time.sleep(1.2)
    said = capsys.readouterr().err
    assert "step 2 of 2: training" in caplog.text
    assert re.search(r"^training: \d+ s$", said, re.M) and said.count("epoch 1/4: 0/7 films\n") >= 1
    time.sleep(1.2)
    assert capsys.readouterr().err == ""  # over is over


@pytest.mark.parametrize(("seconds", "text"), [(0, "0 s"), (89, "89 s"), (91, "2 min"), (3600, "60 min"),
                                               (5400, "1 h 30 min"), (7260, "2 h 01 min")])
def test_durations_are_read_at_a_glance(seconds, text):
    assert commands._duration(seconds) == text


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
@pytest.mark.usefixtures("interruptible")
def test_ctrl_c_after_the_answer_does_not_change_the_exit_code():
    code = ("import atexit, os, signal\nfrom chexpert_hier import commands\ncommands.answer_early_interrupts()\n"
            "atexit.register(lambda: os.kill(os.getpid(), signal.SIGINT))\n"
            "raise SystemExit(commands.answer(lambda argv: 0))")
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30)
    assert (process.returncode, process.stderr) == (0, "")


@pytest.mark.parametrize(("given", "first"), [
    (["--epochz", "3"], "error: unrecognized arguments: --epochz 3. Did you mean --epochs?"),
    (["--epochs"], "error: argument --epochs: expected one argument")])
def test_a_wrong_flag_gets_two_lines(given, first, capsys):
    with pytest.raises(SystemExit) as ended:
        run.main(given)
    assert ended.value.code == 2
    assert capsys.readouterr().err.splitlines() == [first, "python -m chexpert_hier.run --help lists what there is"]


def test_hints_say_how_an_extra_is_installed_from_here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert errors.install("onnx") == 'pip install "chexpert_hier[onnx]"'
    (tmp_path / "setup.cfg").write_text("[metadata]\nname = chexpert_hier\n")
    assert errors.install("onnx") == 'pip install ".[onnx]"'


@pytest.mark.parametrize(("number", "kind"), [
    (signal.SIGTERM, commands.Terminated), (signal.SIGINT, KeyboardInterrupt)])
def test_a_signal_within_a_finalizer_is_not_lost(number, kind):
    """Python reports an exception raised there and goes on; the command must still end."""
    class Going:
        def __del__(self):
            os.kill(os.getpid(), number)
            time.sleep(0.01)  # where the handler runs

    before = signal.signal(number, commands._interrupt)
    try:
        with pytest.raises(KeyboardInterrupt) as ended:
            Going()
            time.sleep(5)
        assert ended.type is kind
    finally:
        signal.signal(number, before)


def test_ctrl_c_within_a_finalizer_ends_a_command_with_one_line():
    code = ("import os, signal, time; from chexpert_hier import commands; commands.answer_early_interrupts()\n"
            "class Going:\n"
            "    def __del__(self):\n"
            "        os.kill(os.getpid(), signal.SIGINT); time.sleep(0.01)\n"
            "def main(argv):\n"
            "    Going(); time.sleep(20)\n"
            "raise SystemExit(commands.answer(main, []))")
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=15)
    assert (process.returncode, process.stderr) == (130, commands.INTERRUPTED + "\n")
