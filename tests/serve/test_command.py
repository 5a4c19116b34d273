"""The command as a process: what it refuses at once, what it prints, and how it ends."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from served import Client

from chexpert_hier.errors import InputError
from chexpert_hier.serve.__main__ import main, parser

HOME = Path(__file__).parents[2]


@pytest.mark.parametrize("arguments, words", [
    (["--host", "0.0.0.0"], "give it a --token"), (["--host", "::"], "give it a --token"),
    (["--host", "example.org"], "give it a --token"), (["--port", "70000"], "port up to 65535"),
    (["--batch-size", "0"], "1 or more"), (["--most-megabytes", "0"], "1 or more"),
    (["--name", "a/b"], "letters, digits"), (["--token", "short"], "8 to 512"),
    (["--token", "with a space"], "8 to 512"), (["--token", "@/nowhere"], "cannot be read")])
def test_what_cannot_be_meant_is_refused_before_anything_is_loaded(arguments, words):
    with pytest.raises(InputError, match=words):
        main(["--model", "nowhere", *arguments])


def test_a_taken_port_is_told_at_once():
    with socket.create_server(("127.0.0.1", 0)) as ear, pytest.raises(InputError, match="cannot listen there"):
        main(["--model", "nowhere", "--port", str(ear.getsockname()[1])])


def test_by_default_only_this_machine_reaches_it():
    args = parser().parse_args(["--model", "x"])
    assert args.host == "127.0.0.1" and args.token == ""


@pytest.fixture
def process(runs, tmp_path):
    """The command in a process of its own, and a Client for it."""
    token = tmp_path / "token"
    token.write_text("secret-token\n")
    started = subprocess.Popen(
        [sys.executable, "-m", "chexpert_hier.serve", "--model", str(runs[0]), "--port", "0", "--token", f"@{token}"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=HOME,
        env={**os.environ, "TMPDIR": str(tmp_path)})
    try:
        line = started.stdout.readline()
        assert line.startswith("ready: http://127.0.0.1:"), started.stderr.read()
        yield started, Client(int(line.rstrip("/\n").rsplit(":", 1)[1]), token="secret-token")
    finally:
        started.kill()
        started.communicate()


@pytest.mark.processes
@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGINT])
def test_told_to_stop_it_answers_what_is_in_progress_and_leaves_nothing(process, frontal, tmp_path, sign):
    server, client = process
    body = b'{"instances": [{"b64": "' + b"A" * 400 + b'"}]}'
    with socket.create_connection(("127.0.0.1", client.port)) as half:
        half.sendall(b"POST /v1/models/chest:predict HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer secret-token\r\n"
                     b"Content-Length: %d\r\n\r\n" % len(body) + body[:100])
        time.sleep(0.3)
        server.send_signal(sign)
        time.sleep(0.5)
        assert server.poll() is None  # it waits for the rest
        with pytest.raises(OSError):
            socket.create_connection(("127.0.0.1", client.port), timeout=2).close()  # and takes nothing new
        half.sendall(body[100:])
        answer = half.makefile("rb").read()
    assert b" 422 " in answer.splitlines()[0] and b"not an image" in answer
    _, err = server.communicate(timeout=20)
    assert server.returncode == 0 and "Traceback" not in err and "stopped" in err
    assert [file.name for file in tmp_path.rglob("*")] == ["token"]  # TMPDIR: no film was laid there
