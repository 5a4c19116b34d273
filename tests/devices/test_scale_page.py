"""docs/scale.md: its Slurm script and its Kubernetes job are parsed, and run with a program that says how it is called.

What each process is told must make one training of all of them.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from chexpert_hier import run
from chexpert_hier.devices.launch import place_of

PAGE = (Path(__file__).parents[2] / "docs" / "scale.md").read_text(encoding="utf-8")
SAYS = """#!{python}
import json, os, sys
names = [name for name in os.environ if name.startswith(("SLURM_", "KERAS_"))]
with open(os.environ["SAID"], "a") as said:
    said.write(json.dumps([sys.argv[1:], {{name: os.environ[name] for name in names}}]) + "\\n")
"""
# What srun does for the two tasks of two machines.
SRUN = """#!/bin/bash
while [[ "$1" == --* ]]; do shift; done
for k in 0 1; do
    SLURM_JOB_ID=123456 SLURM_STEP_NUM_TASKS=2 SLURM_PROCID=$k SLURM_LOCALID=0 SLURM_NODEID=$k \\
        SLURM_STEP_NODELIST='gpu[01-02]' SLURM_STEP_TASKS_PER_NODE='1(x2)' "$@"
done
"""


def block(kind):
    return re.search(rf"```{kind}\n(.*?)```", PAGE, re.DOTALL)[1]


@pytest.fixture
def programs(tmp_path):
    """A folder for the path, whose python writes down how it is called."""
    for name, text in (("python", SAYS.format(python=sys.executable)), ("srun", SRUN)):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    return {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "SAID": str(tmp_path / "said")}


def places(environment):
    """The places of the processes that were started, which must be one training's."""
    found = []
    for line in Path(environment["SAID"]).read_text().splitlines():
        (module, name, *flags), variables = json.loads(line)
        assert (module, name) == ("-m", "chexpert_hier.run") and variables["KERAS_BACKEND"] == "jax"
        args = run.parser().parse_args(flags)
        assert args.resume and args.cache and args.data
        found.append(place_of(args, variables))
    assert [place.process for place in found] == list(range(found[0].processes))
    assert len({(place.processes, place.coordinator, place.devices, place.cards) for place in found}) == 1
    return found


def test_the_slurm_script(programs):
    script = block("bash")
    assert subprocess.run(["bash", "-n"], input=script, text=True).returncode == 0
    tasks = int(re.search("--nodes=(.*)", script)[1]) * int(re.search("--ntasks-per-node=(.*)", script)[1])
    done = subprocess.run(["bash"], input=script, text=True, env=programs, capture_output=True)
    assert done.returncode == 0, done.stderr
    found = places(programs)
    assert len(found) == tasks and found[0].coordinator == ("gpu01", 62712) and found[0].cards is None


def test_the_kubernetes_job(programs):
    service, job = yaml.safe_load_all(block("yaml"))
    spec, pod = job["spec"], job["spec"]["template"]["spec"]
    container, = pod["containers"]
    assert spec["completionMode"] == "Indexed" and spec["completions"] == spec["parallelism"]
    assert service["spec"]["selector"] == {"job-name": job["metadata"]["name"]}
    assert service["spec"]["clusterIP"] == "None"
    assert pod["subdomain"] == service["metadata"]["name"]
    assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}
    own = {each["name"]: each["value"] for each in container["env"]}
    for index in range(spec["completions"]):
        subprocess.run([*container["command"], *container["args"]], check=True,
                       env={**programs, **own, "JOB_COMPLETION_INDEX": str(index)})
    found = places(programs)
    assert len(found) == spec["completions"]
    # The name of the first pod of an Indexed Job below its service.
    assert found[0].coordinator == (f"{job['metadata']['name']}-0.{service['metadata']['name']}", 5000)
