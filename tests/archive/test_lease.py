"""One command at a time in an object store: who lives keeps its lease, who is dead loses it, of two one wins."""

import threading
import time

import pytest

from chexpert_hier.errors import InputError

fsspec = pytest.importorskip("fsspec")

from chexpert_hier.archive import lease, places  # noqa: E402

FAST = {"every": 0.05, "patience": 1.0}


@pytest.fixture
def out(request):
    """A folder in fsspec's memory, which writes conditionally as S3 does."""
    return places.at(f"memory://lease/{request.node.name}")


def names(out):
    return [file.name for file in out.files()]


def test_a_living_command_keeps_the_folder_and_leaves_nothing(out):
    with lease.held(out, **FAST):
        assert names(out) == [".lease-000001"]
        with pytest.raises(InputError, match="another command is working"), lease.held(out, **FAST):
            pass
        assert names(out) == [".lease-000001"]
    assert names(out) == []
    with lease.held(out, **FAST):
        pass


def test_a_dead_commands_lease_is_passed_over_after_a_while(out):
    (out / ".lease-000004").create(b"of a command that was killed")
    began = time.monotonic()
    with lease.held(out, every=0.05, patience=0.4):
        assert time.monotonic() - began >= 0.4 and names(out) == [".lease-000005"]
    assert names(out) == []


def test_a_lease_that_is_given_back_meanwhile_is_not_waited_for(out):
    (out / ".lease-000001").create(b"x")
    threading.Timer(0.2, (out / ".lease-000001").remove).start()
    began = time.monotonic()
    with lease.held(out, every=0.05, patience=30):
        assert time.monotonic() - began < 15


def test_of_many_that_begin_at_once_one_wins(out):
    held, refused, go = [], [], threading.Barrier(8)

    def one():
        go.wait()
        try:
            with lease.held(out, **FAST):
                held.append(1)
                time.sleep(0.5)
                held.remove(1)
        except InputError:
            refused.append(1)
        assert len(held) <= 1

    threads = [threading.Thread(target=one) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(refused) == 7 and names(out) == []


def test_who_is_passed_over_ends(out, monkeypatch):
    ended = threading.Event()
    monkeypatch.setattr(lease._thread, "interrupt_main", ended.set)
    with lease.held(out, **FAST):
        (out / ".lease-000002").create(b"of the command that took over")
        assert ended.wait(10)
    assert names(out) == [".lease-000002"]


def test_what_is_there_is_not_created_again(tmp_path, out):
    for place in (places.at(tmp_path / "file"), out / "file"):
        place.create(b"first")
        with pytest.raises(FileExistsError):
            place.create(b"second")
        assert place.read() == b"first"
