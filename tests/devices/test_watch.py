"""Processes that watch each other, without training: who has died is named in every other one."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from chexpert_hier.devices import watch
from chexpert_hier.devices.launch import Place
from chexpert_hier.errors import InputError

pytestmark = pytest.mark.processes
PROCESS = """
import sys, time
from chexpert_hier.devices import watch
from chexpert_hier.devices.launch import Place
from chexpert_hier.errors import InputError
process, port, processes = map(int, sys.argv[1:4])
what, wait = sys.argv[4], float(sys.argv[5])
watch.BEAT = 0.2
try:
    here = watch.Watch.begin(Place(1, processes, process, ("127.0.0.1", port)), wait=wait, silence=2.0)
except InputError as error:
    print(f"refused: {error}", file=sys.stderr)
    sys.exit(2)
print("met", flush=True)
sys.stdin.readline()
if what == "error":
    here.ended(InputError("film 7 cannot be read"))
if what == "done":
    here.done()
if what == "sleep":
    time.sleep(60)
"""


def free_port() -> int:
    with socket.socket() as first:
        first.bind(("127.0.0.1", 0))
        return first.getsockname()[1]


def begin(process, port, processes=3, what="sleep", wait=20):
    return subprocess.Popen([sys.executable, "-c", PROCESS, *map(str, (process, port, processes, what, wait))],
                            text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                            cwd=Path(__file__).parents[2])


def met(whats):
    """Processes that have met."""
    port = free_port()
    processes = [begin(k, port, len(whats), what) for k, what in enumerate(whats)]
    assert [process.stdout.readline() for process in processes] == ["met\n"] * len(whats)
    return processes


def go(process):
    process.stdin.write("\n")
    process.stdin.flush()


@pytest.mark.parametrize("dead", [0, 2])
def test_a_killed_process_is_named_by_all_others(dead):
    processes = met(["sleep"] * 3)
    for process in processes:
        go(process)
    processes[dead].kill()
    for number, process in enumerate(processes):
        said = process.communicate(timeout=20)[1]
        if number != dead:
            line, = said.splitlines()
            assert process.returncode == 1
            assert line.startswith(f"error: process {dead} of 3 (") and f"pid {processes[dead].pid}) died" in line


def test_a_process_that_stands_still_counts_as_dead():
    processes = met(["sleep"] * 2)
    processes[1].send_signal(signal.SIGSTOP)
    try:
        go(processes[0])
        assert "process 1 of 2" in (said := processes[0].communicate(timeout=20)[1]) and "said nothing for 2 s" in said
    finally:
        processes[1].kill()
        processes[1].communicate()


def test_an_error_is_passed_on_and_an_end_is_no_death():
    processes = met(["sleep", "error", "sleep"])
    for process in processes:
        go(process)
    said = [process.communicate(timeout=20)[1] for process in processes]
    assert "process 1 of 3" in said[0] and "ended: film 7 cannot be read" in said[0] and said[0] == said[2]
    assert not said[1]
    processes = met(["done", "done"])
    for process in processes[::-1]:
        go(process)
        assert process.communicate(timeout=20)[1] == "" and process.returncode == 0


def test_processes_that_do_not_come_are_named():
    port = free_port()
    first, second = begin(0, port, 3, wait=3), begin(1, port, 3, wait=3)
    assert "1 of 3 processes have not come in 3 s: 2; is the same command" in first.communicate(timeout=30)[1]
    assert "process 0 at 127.0.0.1 ended before all processes had come" in second.communicate(timeout=30)[1]


def test_nobody_at_the_coordinators_address():
    with pytest.raises(InputError, match=r"process 0 is not reached at 127\.0\.0\.1"):
        watch.Watch.begin(Place(1, 2, 1, ("127.0.0.1", free_port())), wait=0.1)


def test_strangers_and_other_jobs_are_turned_away():
    port = free_port()
    first = begin(0, port, 2)
    deadline = time.monotonic() + 20
    while True:
        try:
            stranger = socket.create_connection(("127.0.0.1", port + 1))
            break
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.1)
    stranger.sendall(b"GET / HTTP/1.1\n")
    assert stranger.recv(100) == b""  # closed
    stranger.close()
    wrong = begin(1, port, 3)
    assert "process 0 was started with --processes 2, this one with 3" in wrong.communicate(timeout=20)[1]
    right = begin(1, port, 2, "done")
    assert right.stdout.readline() == "met\n" == first.stdout.readline()
    go(right)
    assert right.communicate(timeout=20)[1] == ""
    os.kill(first.pid, signal.SIGKILL)
    first.communicate()


def test_an_abort_leaves_the_last_word_to_the_watch():
    code = ("import os, threading, time\n"
            "from chexpert_hier.devices import watch\n"
            "def leave():\n    time.sleep(0.5)\n    print('named', flush=True)\n    os._exit(1)\n"
            "watch.hold_aborts()\nthreading.Thread(target=leave, daemon=True).start()\nos.abort()")
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert (ended.returncode, ended.stdout) == (1, "named\n"), ended.stderr
