"""docs/serving.md's container file, step by step, and its calls, as far as a machine without a container engine can."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest
from served import Client

REPOSITORY = Path(__file__).parents[2]
TEXT = (REPOSITORY / "docs" / "serving.md").read_text(encoding="utf-8")


def steps():
    """(instruction, rest) of each line of the container file."""
    block = re.search(r"```dockerfile\n(.*?)```", TEXT, re.S)[1]
    return [tuple(line.split(" ", 1)) for line in block.splitlines()]


def test_the_container_file_says_what_the_server_needs():
    found = dict(steps())
    assert tuple(map(int, re.fullmatch(r"python:(\d+)\.(\d+)-slim", found["FROM"]).groups())) >= (3, 11)
    assert found["USER"] != "root" and found["EXPOSE"] in json.loads(found["ENTRYPOINT"])
    assert [step for step, _ in steps()].index("USER") > [step for step, _ in steps()].index("COPY")


def test_the_calls_of_the_docs_are_answered(client, frontal, tmp_path):
    """The very curl lines of the section on TensorFlow Serving, at this server's address."""
    section = TEXT.split("## TensorFlow Serving")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("curl ")]
    if not shutil.which("curl") or not shutil.which("base64"):
        pytest.skip("no curl, or no base64")
    shutil.copy(frontal[0], tmp_path / "film.jpg")
    assert lines
    for line in lines:
        line = line.replace("localhost:8501", f"127.0.0.1:{client.port}")
        done = subprocess.run(["bash", "-c", line], cwd=tmp_path, capture_output=True, text=True, timeout=60)
        answer = json.loads(done.stdout)["predictions"][0]
        shown = json.loads(re.search(r"```json\n(.*?)```", section, re.S)[1])["predictions"][0]
        assert set(answer) == set(shown) - {"status", "flags", "place"}  # the graph's own, in place of 422 and `flag`


@pytest.mark.processes
def test_the_steps_of_the_container_file(runs, tmp_path):
    """pip install as written, into an environment that borrows this one's requirements; entry point; health check."""
    environment = tmp_path / "environment"
    venv.create(environment, with_pip=False, symlinks=True)
    python = environment / "bin" / "python"
    own = Path(subprocess.check_output([python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
                                       text=True).strip())
    installing = next(rest for step, rest in steps() if step == "RUN" and rest.startswith("pip"))
    words = [word.replace("/app", str(REPOSITORY)) for word in shlex.split(installing)[1:]]
    subprocess.run([sys.executable, "-m", "pip", f"--python={python}", *words, "--no-deps", "-q"], check=True)
    (own / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    token = tmp_path / "token"
    token.write_text("secret-token")
    found = dict(steps())
    places = {"/model": str(runs[0]), "8080": "0", "@/run/secrets/token": f"@{token}"}
    entry = [places.get(word, word) for word in json.loads(found["ENTRYPOINT"])]
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    server = subprocess.Popen([environment / "bin" / entry[0], *entry[1:]], cwd=tmp_path, env=clean, text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        line = server.stdout.readline()
        assert line.startswith("ready: http://0.0.0.0:"), server.stderr.read()
        port = int(line.rstrip("/\n").rsplit(":", 1)[1])
        check = json.loads(found["HEALTHCHECK"].removeprefix("CMD "))
        subprocess.run([python, *[word.replace("8080", str(port)) for word in check[1:]]], check=True)
        assert Client(port).call("/v2/models/chest")[0] == 401
        status, about = Client(port, token="secret-token").call("/v2/models/chest")
        assert status == 200 and about["name"] == "chest"
        assert (own / "chexpert_hier" / "serve" / "static" / "index.html").exists()
        assert Client(port).call("/static/main.js")[0] == 200
    finally:
        server.terminate()
        server.communicate(timeout=30)
    assert server.returncode == 0
