"""The command beside a real Orthanc: eight kinds of film by C-STORE, kills, restarts, a full archive, DICOMweb, TLS."""

import json
import os
import re
import signal
import ssl
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from made_films import NAMES, UMLAUT, dicom, eight_kinds, pydicom, uid
from orthanc_server import PLUGIN, PROGRAM, behind_tls, running

REPOSITORY = Path(__file__).parents[2]
NEEDED = {"orthanc": PROGRAM, "orthanc-dicomweb": PLUGIN}

pytestmark = pytest.mark.orthanc


@pytest.fixture(scope="module", autouse=True)
def programs(missing):
    import shutil

    absent = [name for name, path in NEEDED.items() if not path]
    absent += [] if shutil.which("storescu") and shutil.which("dsrdump") else ["dcmtk"]
    if absent:
        missing(f"apt-get install {' '.join(absent)}")
    try:
        import highdicom  # noqa: F401
        import requests  # noqa: F401
    except ImportError as error:
        missing(f"pip install {error.name}")


@pytest.fixture(scope="module")
def run(run):
    """With its model.onnx beside it, so that the command is there in a second."""
    return with_onnx(run)


@pytest.fixture(scope="module")
def other_run(other_run):
    return with_onnx(other_run)


def with_onnx(run):
    from chexpert_hier.export.__main__ import main

    assert main(["--model", str(run), "--onnx", str(run / "model.onnx")]) == 0
    return run


@pytest.fixture
def server(tmp_path):
    with running(tmp_path / "orthanc") as found:
        yield found


def words(where, run, place, *more):
    return [sys.executable, "-m", "chexpert_hier.dicom_node", *where, "--model", str(run), "--place", str(place),
            "--every", "0.3", *map(str, more)]


def environment():
    return {**os.environ, "PYTHONPATH": f"{REPOSITORY}{os.pathsep}{Path(__file__).parent}"}


def once(server, run, place, *more, where=None, code=0):
    """Run the command until nothing is new: (what it printed, its log); nothing that it says names a patient."""
    done = subprocess.run(words(where or ["--orthanc", server.address], run, place, "--once", *more),
                          capture_output=True, text=True, timeout=400, env=environment())
    assert done.returncode == code, (done.returncode, done.stdout, done.stderr[-3000:])
    assert not [name for name in NAMES if name in done.stdout + done.stderr] and "secret" not in done.stderr
    assert uid() not in done.stderr and "Traceback" not in done.stderr
    return done.stdout, done.stderr


def reports(server):
    """(SOP Instance UID of the film, the report) of all reports, checked to be one of each."""
    import io

    found = [pydicom.dcmread(io.BytesIO(data)) for data in server.files("SR")]
    films = [one.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence[0].ReferencedSOPSequence[0]
             .ReferencedSOPInstanceUID for one in found]
    return dict(zip(films, found)), len(found)


def send(server, folder, kinds):
    for name, (data, options, _) in kinds.items():
        file = folder / f"{name.replace(',', '').replace(' ', '_')}.dcm"
        file.write_bytes(data)
        server.storescu(file, options=options)


def test_eight_kinds_of_film(server, run, other_run, tmp_path, frontal, lateral, missing):
    kinds = eight_kinds(frontal[0], lateral)
    send(server, tmp_path, kinds)
    said, _ = once(server, run, tmp_path / "place")
    good = [uid(k, 1, 1) for k, (_, _, expected) in enumerate(kinds.values(), 1) if expected is True]
    found, count = reports(server)
    assert sorted(found) == sorted(good) and count == len(good) == len(server.series("OT"))
    assert said.startswith("answered: 4; left: 4")
    for _, _, expected in kinds.values():
        assert expected is True or re.search(f"1 .*{expected}", said)
    assert str(found[uid(4, 1, 1)].PatientName) == UMLAUT
    check_with_other_tools(server, tmp_path, missing)
    # The same films again, the same model with a new place, and another model.
    send(server, tmp_path, kinds)
    once(server, run, tmp_path / "place")
    assert "was answered already" in once(server, run, tmp_path / "second")[1] and reports(server)[1] == 4
    once(server, other_run, tmp_path / "place3")
    assert reports(server)[1] == 8 == len(server.series("OT"))
    assert_no_names(tmp_path, "place", "second", "place3")


def assert_no_names(folder, *places):
    for place in places:
        for file in (folder / place).rglob("*"):
            text = file.read_bytes()
            assert not [name for name in NAMES if name.encode() in text or name.encode("latin-1") in text], file


def check_with_other_tools(server, tmp_path, missing):
    """DCMTK reads all that was written without a warning; dicom3tools finds no error in it."""
    import shutil

    if not shutil.which("dciodvfy"):
        missing("apt-get install dicom3tools")
    for modality in ("SR", "OT"):
        for k, data in enumerate(server.files(modality)):
            file = tmp_path / f"{modality}{k}.dcm"
            file.write_bytes(data)
            for program in ("dcmdump", *(["dsrdump"] if modality == "SR" else [])):
                done = subprocess.run([program, str(file)], capture_output=True, text=True, timeout=60,
                                      errors="replace")
                assert done.returncode == 0 and not done.stderr, done.stderr
            if modality == "SR":
                assert "(122157,DCM" in subprocess.run(["dsrdump", "+Pc", str(file)], capture_output=True, text=True,
                                                       timeout=60, errors="replace").stdout
            done = subprocess.run(["dciodvfy", str(file)], capture_output=True, text=True, timeout=60,
                                  errors="replace")
            odd = [line for line in done.stderr.splitlines() if line.startswith(("Error", "Warning"))
                   and "99CHEXPERT_HIER" not in line]  # a private scheme is not among its terms, and need not be
            assert not odd, odd


MOMENTS = ("place", "fetched", "picture", "report", "settled")


def test_killed_at_five_moments(server, run, tmp_path, frontal):
    """kill -9 after the changes were kept, a film came, its picture was stored, its report, and its row written."""
    for number in (1, 2):
        server.post(dicom(frontal[number], number))
    for moment in MOMENTS:
        code = f"import killing; killing.begin({moment!r})"
        arguments = words(["--orthanc", server.address], run, tmp_path / "place", "--once")[3:]
        done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=400,
                              env=environment())
        assert done.returncode == -signal.SIGKILL, (moment, done.returncode, done.stdout, done.stderr[-3000:])
    said, _ = once(server, run, tmp_path / "place")
    assert said == "answered: 2; left: 0\n"
    found, count = reports(server)
    assert sorted(found) == [uid(1, 1, 1), uid(2, 1, 1)] and count == 2 == len(server.series("OT"))
    assert all(len(one["Instances"]) == 1 for one in server.series("SR") + server.series("OT"))


def begin(server, run, place, log):
    """The command, following; ready when this returns."""
    with open(log, "w") as out:
        process = subprocess.Popen(words(["--orthanc", server.address], run, place), stdout=out, stderr=out,
                                   env=environment())
    wait_for(lambda: "ready: following" in log.read_text(), process, log)
    return process


def wait_for(what, process, log, seconds=120):
    end = time.monotonic() + seconds
    while not what():
        assert process.poll() is None and time.monotonic() < end, log.read_text()[-3000:]
        time.sleep(0.2)


def test_the_archive_is_restarted_and_two_workers_follow_it(server, run, tmp_path, frontal):
    """Also films that Orthanc had not yet called stable when it went: it never will."""
    logs = [tmp_path / f"log{k}" for k in (1, 2)]
    workers = [begin(server, run, tmp_path / f"follow{k}", log) for k, log in enumerate(logs)]
    try:
        assert "choose another --place" in once(server, run, tmp_path / "follow1", code=2)[1]
        server.post(dicom(frontal[1], 1))
        wait_for(lambda: len(server.series("SR")) == 1, workers[0], logs[0])
        server.post(dicom(frontal[2], 2))  # and down before the second in which it becomes stable is over
        server.stop(kill=True)
        for worker, log in zip(workers, logs):
            wait_for(lambda log=log: "does not answer; again in" in log.read_text(), worker, log)
        server.start()
        server.post(dicom(frontal[3], 3))
        wait_for(lambda: len(server.series("SR")) == 3 == len(server.series("OT")), workers[0], logs[0])
        time.sleep(3)
        workers[0].send_signal(signal.SIGTERM)
        workers[1].send_signal(signal.SIGINT)
        assert [worker.wait(60) for worker in workers] == [143, 130], [log.read_text()[-2000:] for log in logs]
    finally:
        for worker in workers:
            worker.kill()
    found, count = reports(server)
    assert len(found) == count == 3 == len(server.series("OT"))
    for log in logs:
        text = log.read_text()
        assert "does not answer; again in" in text and "answered: 3; left: 0" in text and "Traceback" not in text
        assert not [name for name in NAMES if name in text]


def test_a_full_archive_is_waited_for(tmp_path, run, frontal):
    with running(tmp_path / "orthanc", MaximumStorageSize=3) as server:
        server.post(dicom(frontal[1], 1))
        patient = server.ask("/patients")[0]
        server.ask(f"/patients/{patient}/protected", b"1", "PUT")
        said, log = once(server, run, tmp_path / "place", code=2)
        assert "is full; what was done is kept" in log and said == "answered: 0; left: 0\n"
        said, log = once(server, run, tmp_path / "web", where=["--dicomweb", server.dicomweb], code=2)
        assert "did not keep a report; is it full" in log and said == "answered: 0; left: 0\n"
        server.stop()
        server.config["MaximumStorageSize"] = 0
        (server.folder / "orthanc.json").write_text(json.dumps(server.config))
        server.start()
        assert once(server, run, tmp_path / "place")[0] == "answered: 1; left: 0\n"
        assert reports(server)[1] == 1 == len(server.series("OT"))


def test_dicomweb_in_and_out_and_nothing_from_before(server, run, tmp_path, frontal, lateral):
    kinds = eight_kinds(frontal[0], lateral)
    send(server, tmp_path, kinds)
    where = ["--dicomweb", server.dicomweb]
    assert once(server, run, tmp_path / "new", "--from-now", where=where)[0] == "answered: 0; left: 0\n"
    assert once(server, run, tmp_path / "none", "--study-dates", "20300101-", where=where)[0].startswith("answered: 0")
    said, _ = once(server, run, tmp_path / "place", where=where)
    assert said.startswith("answered: 4; left: 3")  # a search for films does not find the CT
    found, count = reports(server)
    assert count == 4 == len(found) == len(server.series("OT"))
    assert "was answered already" in once(server, run, tmp_path / "orthanc_too")[1] and reports(server)[1] == 4
    assert_no_names(tmp_path, "new", "place")


def test_reports_are_sent_on(tmp_path, run, frontal):
    with running(tmp_path / "second") as second:
        other = {"DicomModalities": {"reading": ["READING", "127.0.0.1", second.dicom]}}
        with running(tmp_path / "orthanc", **other) as server:
            server.post(dicom(frontal[1], 1))
            assert "does not know it" in once(server, run, tmp_path / "a", "--send-to", "NOBODY", code=2)[1]
            second.stop()
            log = once(server, run, tmp_path / "place", "--send-to", "READING", code=2)[1]
            assert "reading does not take reports; what was done is kept" in log and reports(server)[1] == 1
            second.start()
            once(server, run, tmp_path / "place", "--send-to", "READING")
            assert reports(second)[1] == 1 == len(second.series("OT")) and not second.series("DX")
            assert reports(server)[1] == 1


def certificate(folder, name):
    """A self-signed certificate for this machine, and its key."""
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={name}",
                    "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", folder / f"{name}.key", "-out",
                    folder / f"{name}.pem"], check=True, capture_output=True, timeout=60)
    return str(folder / f"{name}.pem"), str(folder / f"{name}.key")


def test_tls_certificates_and_credentials(tmp_path, run, frontal):
    """Orthanc behind TLS that asks for our certificate too, and behind a password of its own."""
    theirs, ours = certificate(tmp_path, "archive"), certificate(tmp_path, "node")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*theirs)
    context.load_verify_locations(ours[0])
    context.verify_mode = ssl.CERT_REQUIRED
    context.maximum_version = ssl.TLSVersion.TLSv1_2  # in 1.3 a refusal reaches the caller later, as a closed line
    file = tmp_path / "access.json"
    file.touch(0o600)

    def told(**access):
        file.write_text(json.dumps(access))
        return once(server, run, tmp_path / "a", "--access", file, where=["--orthanc", address], code=2)[1]

    with running(tmp_path / "orthanc", AuthenticationEnabled=True, RegisteredUsers={"node": "secret-7"}) as server, \
            behind_tls(server, context) as address:
        password = urllib.request.HTTPPasswordMgrWithDefaultRealm()
        password.add_password(None, server.address, "node", "secret-7")
        server.opener = urllib.request.build_opener(urllib.request.HTTPBasicAuthHandler(password))
        server.post(dicom(frontal[1], 1))
        mine = {"ca": theirs[0], "certificate": ours[0], "key": ours[1], "user": "node", "password": "secret-7"}
        assert "not trusted" in told() and "not trusted" in told(user="node", password="secret-7", ca=theirs[0])
        assert "HTTP 401" in told(**{**mine, "password": "secret-8"})
        file.write_text(json.dumps(mine))
        once(server, run, tmp_path / "a", "--access", file, where=["--orthanc", address])
        once(server, run, tmp_path / "b", "--access", file, where=["--dicomweb", f"{address}/dicom-web"])
        assert reports(server)[1] == 1 == len(server.series("OT"))
