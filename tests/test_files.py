"""Files appear whole or not at all; a lock goes with its process."""

import errno
import os
import subprocess
import sys
import threading

import pytest

from chexpert_hier import files
from chexpert_hier.errors import InputError


def test_a_file_appears_only_when_it_is_whole(tmp_path):
    with files.written_whole(tmp_path / "a.csv") as beside:
        beside.write_text("half")
        assert not (tmp_path / "a.csv").exists()
    assert (tmp_path / "a.csv").read_text() == "half"
    assert [path.name for path in tmp_path.iterdir()] == ["a.csv"]


def test_a_failure_leaves_the_old_file_and_no_other(tmp_path):
    files.write_text(tmp_path / "a.csv", "old")
    with pytest.raises(RuntimeError), files.written_whole(tmp_path / "a.csv") as beside:
        beside.write_text("new")
        raise RuntimeError
    assert (tmp_path / "a.csv").read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 1


def test_a_folder_is_replaced_as_a_whole(tmp_path):
    for text in ("old", "new"):
        with files.written_whole(tmp_path / "model") as beside:
            (beside / "inner").mkdir(parents=True)
            (beside / "inner" / text).write_text(text)
    assert [path.name for path in (tmp_path / "model" / "inner").iterdir()] == ["new"]
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_full_disk_is_one_line(tmp_path):
    with pytest.raises(InputError, match="disk is full"), files.written_whole(tmp_path / "a") as beside:
        beside.write_text("half")
        raise OSError(28, "No space left on device")
    assert not list(tmp_path.iterdir())


def test_leftovers_of_a_killed_process_are_removed(tmp_path):
    (tmp_path / ".model.1234abcd.part.keras").write_text("half")
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / ".x.1234abcd.part").mkdir()
    (tmp_path / "model.keras").write_text("whole")
    files.remove_leftovers(tmp_path)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["deep", "model.keras"]


def test_a_living_process_holds_its_folder_and_a_dead_one_does_not(tmp_path):
    code = (f"from chexpert_hier import files\nimport time\nwith files.locked({str(tmp_path)!r}):\n"
            "    print('held', flush=True)\n    time.sleep(60)")
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    timer = threading.Timer(30, process.kill)
    timer.start()
    try:
        assert process.stdout.readline() == "held\n"
        with pytest.raises(InputError, match="another process"), files.locked(tmp_path):
            pass
    finally:
        timer.cancel()
        process.kill()
        process.wait()
        process.stdout.close()
    with files.locked(tmp_path):
        pass


def test_a_folder_is_never_gone_while_it_is_replaced(tmp_path, monkeypatch):
    """In one step where the system can exchange two names, else with the old one put back after a kill."""
    def write(text):
        with files.written_whole(tmp_path / "model.d") as beside:
            beside.mkdir()
            (beside / "inner").write_text(text)

    def dies(*_):
        raise KeyboardInterrupt  # nothing that runs after a kill may be what saves the folder

    write("old")
    replace, calls = os.replace, []
    monkeypatch.setattr(files, "_exchanged", lambda *_: False)
    monkeypatch.setattr(files.shutil, "rmtree", lambda *_, **__: None)
    monkeypatch.setattr(files.os, "replace", lambda a, b: dies() if calls else (calls.append(a), replace(a, b)))
    with pytest.raises(KeyboardInterrupt):
        write("new")
    monkeypatch.undo()
    assert not (tmp_path / "model.d").exists()
    files.remove_leftovers_of(tmp_path / "model.d")
    assert (tmp_path / "model.d" / "inner").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["model.d"]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="renameat2 is Linux's")
def test_names_are_exchanged_at_once(tmp_path, monkeypatch):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).touch()
    if not files._exchanged(tmp_path / "a", tmp_path / "b"):
        pytest.skip("this file system cannot exchange two names")
    assert (tmp_path / "a" / "b").exists() and (tmp_path / "b" / "a").exists()
    assert not files._exchanged(tmp_path / "a", tmp_path / "missing")
    monkeypatch.setattr(files.os, "replace", lambda *_: pytest.fail("two steps where one would do"))
    with files.written_whole(tmp_path / "a") as beside:
        beside.mkdir()
        (beside / "c").touch()
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["c"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EPERM, errno.EOPNOTSUPP, errno.EIO])
def test_a_file_system_without_locks_is_said_once_and_no_hindrance(tmp_path, monkeypatch, caplog, number):
    fcntl = pytest.importorskip("fcntl")

    def no_locks(descriptor, operation):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", no_locks)
    for _ in range(2):
        with files.locked(tmp_path):
            (tmp_path / "done").touch()
    assert [record.getMessage() for record in caplog.records] == [
        f"{tmp_path}: this file system has no locks ({os.strerror(number)}); see to it that no other process works in "
        "this folder"]
    monkeypatch.undo()
    with files.locked(tmp_path):  # nothing is left that would hold it
        pass


def test_only_a_held_lock_is_called_another_process(tmp_path, monkeypatch):
    fcntl = pytest.importorskip("fcntl")

    def held(descriptor, operation):
        raise BlockingIOError(errno.EWOULDBLOCK, os.strerror(errno.EWOULDBLOCK))

    monkeypatch.setattr(fcntl, "flock", held)
    with pytest.raises(InputError, match="another process"), files.locked(tmp_path):
        pass


def test_a_locks_file_is_never_removed_or_exchanged(tmp_path):
    """Who waits on a file that is gone would hold one that nobody else looks at."""
    with files.locked(tmp_path):
        number = (tmp_path / ".lock").stat().st_ino
        with pytest.raises(InputError, match="another process"), files.locked(tmp_path):
            pass
        files.remove_leftovers(tmp_path)
    with files.locked(tmp_path):
        pass
    assert (tmp_path / ".lock").stat().st_ino == number
