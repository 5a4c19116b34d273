"""The command as a user runs it, with kill -9 at random moments, on two machines, and with films in an object store."""

import collections
import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from finished import make_films, make_run

REPOSITORY = Path(__file__).parents[2]
REQUIRED = bool(os.environ.get("CHEXPERT_HIER_REQUIRE"))
FILMS, ROWS = 300, 10
BAD = ("empty.png", "text.png", "cut.jpg")

pytestmark = pytest.mark.processes


def needed(*names):
    for name in names:
        if REQUIRED:
            __import__(name)
        else:
            pytest.importorskip(name, reason=f"{name} is not installed")


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A tiny finished run, and a manifest of 300 films (12 pictures again and again, three that cannot be read)."""
    needed("ray", "pyarrow", "fsspec")
    folder = tmp_path_factory.mktemp("archive")
    data = make_films(folder)
    make_run(folder / "run", data)
    make_run(folder / "other", data, seed=1)
    films = folder / "films"
    films.mkdir()
    pictures = sorted((data / "valid").rglob("*frontal.jpg"))[:12]
    for k, file in enumerate(pictures):
        shutil.copy(file, films / f"film{k:02d}.jpg")
    (films / "empty.png").write_bytes(b"")
    (films / "text.png").write_bytes(b"no picture")
    (films / "cut.jpg").write_bytes(pictures[0].read_bytes()[:900])
    names = [f"film{k % 12:02d}.jpg" for k in range(FILMS)]
    names[7], names[123], names[299] = BAD
    pd.DataFrame({"Path": names, "id": 1000 + np.arange(FILMS)}).to_parquet(films / "manifest.parquet")
    return folder


@pytest.fixture(scope="module")
def expected(work):
    """`predict`'s own rows of the 12 pictures, by name."""
    command("predict", work / "films", "--model", work / "run", "--out", work / "predict.csv", "--skip-bad")
    table = pd.read_csv(work / "predict.csv", dtype={"[flag]": str}, keep_default_na=False, na_values=[])
    table["Path"] = [Path(path).name for path in table["Path"]]
    return table.set_index("Path")


def environment(**more):
    short = {"RAY_TMPDIR": "/tmp/ray_archive"} if Path("/tmp").is_dir() else {}  # socket names may not be long
    return {**os.environ, "PYTHONPATH": str(REPOSITORY), **short, **more}


def begin(*arguments, **more):
    line = [sys.executable, "-m", *(f"chexpert_hier.{a}" if k == 0 else str(a) for k, a in enumerate(arguments))]
    return subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=REPOSITORY,
                            env=environment(**more))


def command(*arguments, code=0, **more):
    process = begin(*arguments, **more)
    said = process.communicate(timeout=500)[0]
    assert process.returncode == code, said[-3000:]
    return said


def committed(out):
    return [file for file in (out / "checkpoint").glob("*.parquet") if "pending" not in file.name]


def wait_for(what, process, seconds=300):
    until = time.monotonic() + seconds
    while not what():
        assert process.poll() is None and time.monotonic() < until, process.communicate()[0][-3000:]
        time.sleep(0.02)


def result(out):
    return pd.concat([pd.read_parquet(file) for file in sorted((out / "results").glob("*.parquet"))])


def check(out, expected):
    """Every id exactly once, and every row as `predict` has it."""
    rows = result(out)
    assert sorted(rows["id"]) == list(range(1000, 1000 + FILMS))
    assert set(rows[rows["error"].notna()]["Path"]) == set(BAD) and rows["error"].notna().sum() == 3
    good = rows[rows["error"].isna()]
    wanted = expected.loc[good["Path"]]
    assert list(good.columns) == ["id", "Path", *expected.columns, "error", "model_fingerprint", "seconds"]
    for name in expected.columns:
        if name in ("[flag]", "[model]"):
            assert good[name].tolist() == wanted[name].tolist()
            continue
        numbers = pd.to_numeric(wanted[name], errors="coerce").to_numpy(float)
        if "calibrated" not in name:  # whose slope, of a network that learned nothing, is up to a hundred
            np.testing.assert_allclose(good[name].to_numpy(float), numbers, atol=1e-6, err_msg=name)


def workers():
    """The processes of this test's Ray that score."""
    found = []
    for line in subprocess.run(["ps", "-eo", "pid,args"], capture_output=True, text=True).stdout.splitlines():
        if "ray::MapWorker(Read_Films->Write)" in line:
            found.append(int(line.split()[0]))
    return found


def test_a_killed_command_goes_on(work, expected, tmp_path):
    """kill -9 of the command twice, of a worker once; at most a block for each worker is scored again."""
    moments = random.Random(4)
    out = tmp_path / "out"
    ask = ["archive", work / "films" / "manifest.parquet", "--model", work / "run", "--out", out,
           "--rows-per-file", ROWS,
           "--workers", 2, "--resume"]
    for kills in range(2):
        process = begin(*ask)
        goal = len(committed(out)) + moments.randint(2, 7)
        wait_for(lambda goal=goal: len(committed(out)) >= goal, process)
        if not kills:
            os.kill(workers()[0], signal.SIGKILL)
            wait_for(lambda goal=goal: len(committed(out)) >= goal + 3, process)
        process.kill()
        process.communicate()
    kept = {file.name: file.stat().st_mtime_ns for file in committed(out)}
    assert 5 <= len(kept) < FILMS / ROWS
    said = command(*ask)
    assert f"{FILMS} films: {FILMS - 3} answered, 3 with an error" in said
    assert {file.name: file.stat().st_mtime_ns for file in committed(out)}.items() >= kept.items()
    check(out, expected)
    refused(ask, work, out)
    retried(ask, work, out)


def refused(ask, work, out):
    """Another model into the same folder, and the same job without --resume."""
    other = [work / "other" if argument == work / "run" else argument for argument in ask]
    assert "the model is another" in command(*other, code=2)
    assert "go on with it: --resume" in command(*ask[:-1], code=2)


def retried(ask, work, out):
    """Of three failed films one is mended: only the three are scored again, in a second the rest is untouched."""
    before = result(out).set_index("id")
    shutil.copy(work / "films" / "film00.jpg", work / "films" / "empty.png")
    try:
        said = command(*ask, "--retry-failed")
    finally:
        (work / "films" / "empty.png").write_bytes(b"")
    assert "3 films with an error are scored again" in said and "2 with an error" in said
    after = result(out).set_index("id")
    assert sorted(after.index) == sorted(before.index) and pd.isna(after.loc[1007, "error"])
    assert after.loc[1007, "Edema"] == pytest.approx(after.loc[1000, "Edema"], abs=1e-6)
    untouched = before[before["error"].isna()].index
    same = [table.loc[untouched].drop(columns="error") for table in (before, after)]
    pd.testing.assert_frame_equal(*same)


def test_a_machine_dies(work, expected, tmp_path):
    """Two nodes; the second one's raylet is killed with its workers."""
    os.environ.update(environment(RAY_USAGE_STATS_ENABLED="0"))
    from ray.cluster_utils import Cluster

    node = {"num_cpus": 4, "object_store_memory": 100 << 20, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=node)
    try:
        second = cluster.add_node(num_cpus=4, object_store_memory=100 << 20)
        out = tmp_path / "out"
        process = begin("archive", work / "films" / "manifest.parquet", "--model", work / "run", "--out", out,
                        "--rows-per-file", ROWS, "--workers", 4, "--address", cluster.address)
        wait_for(lambda: len(committed(out)) >= 3, process)
        cluster.remove_node(second, allow_graceful=False)
        said = process.communicate(timeout=500)[0]
        assert process.returncode == 0, said[-3000:]
        check(out, expected)
    finally:
        cluster.shutdown()


def test_films_and_results_in_an_object_store(work, expected):
    needed("moto", "s3fs", "flask")
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        keys = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}
        store = boto3.client("s3", endpoint_url=f"http://{host}:{port}", region_name="us-east-1",
                             aws_access_key_id="test", aws_secret_access_key="test")
        store.create_bucket(Bucket="films")
        for file in sorted((work / "films").iterdir()):
            if file.suffix in (".jpg", ".png"):
                store.upload_file(str(file), "films", f"2026/{file.name}")
        ask = ["archive", "s3://films/2026", "--model", work / "run", "--out", "s3://films/results",
               "--rows-per-file", 4, "--workers", 1]
        address = {"AWS_ENDPOINT_URL": f"http://{host}:{port}", **keys}
        with renewed_lease(store, "films", "results/.lease-000001"):
            assert "another command is working" in command(*ask, code=2, **address)
        said = command(*ask, **address)
        assert "15 films: 12 answered, 3 with an error" in said
        objects = [entry["Key"] for entry in store.list_objects_v2(Bucket="films")["Contents"]]
        parts = [key for key in objects if key.startswith("results/results/")]
        assert not any("lease" in key for key in objects)
        assert collections.Counter(key.split("/")[1] for key in objects if "checkpoint" in key) == {"checkpoint": 4}
        rows = pd.concat([pd.read_parquet(_download(store, key)) for key in parts])
        assert sorted(rows["id"]) == list(range(15))
        good = rows[rows["error"].isna()]
        wanted = expected.loc[[Path(path).name for path in good["Path"]]]
        assert good["Path"].str.startswith("s3://films/2026/film").all()
        np.testing.assert_allclose(good["Edema"], pd.to_numeric(wanted["Edema"]), atol=1e-6)
        assert "holds this job already" in command(*ask, code=2, **address)
    finally:
        server.stop()


@contextlib.contextmanager
def renewed_lease(store, bucket, key):
    """Another command's lease in the store, rewritten like a living one's for as long as the block lasts."""
    over = threading.Event()

    def renew():
        count = 0
        while not over.wait(0.2):
            count += 1
            store.put_object(Bucket=bucket, Key=key, Body=str(count).encode())

    store.put_object(Bucket=bucket, Key=key, Body=b"0")
    renewing = threading.Thread(target=renew)
    renewing.start()
    try:
        yield
    finally:
        over.set()
        renewing.join()
        store.delete_object(Bucket=bucket, Key=key)


def _download(store, key):
    import io

    return io.BytesIO(store.get_object(Bucket="films", Key=key)["Body"].read())


def test_a_dry_run_leaves_the_job_to_be_begun(work, tmp_path):
    ask = ["archive", work / "films" / "manifest.parquet", "--model", work / "run", "--out", tmp_path / "out",
           "--dry-run"]
    said = command(*ask)
    assert "films: 300, of them 0 done" in said and "0 missing" in said and "free:" in said
    assert command(*ask) == said
