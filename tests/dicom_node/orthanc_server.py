"""An Orthanc server on free loopback ports for the tests, and DCMTK's programs beside it."""

import contextlib
import json
import shutil
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

PROGRAM = shutil.which("Orthanc") or next(filter(Path("/usr/sbin/Orthanc").exists, ["/usr/sbin/Orthanc"]), None)
PLUGIN = next((str(file) for file in map(Path, ("/usr/share/orthanc/plugins/libOrthancDicomWeb.so",
                                                "/usr/lib/orthanc/libOrthancDicomWeb.so")) if file.exists()), None)


def free_port():
    with socket.socket() as ear:
        ear.bind(("127.0.0.1", 0))
        return ear.getsockname()[1]


class Server:
    """Orthanc with its storage in `folder`; `changes` to its configuration."""

    def __init__(self, folder, **changes):
        self.folder, self.http, self.dicom, self.process = Path(folder), free_port(), free_port(), None
        self.opener = urllib.request.build_opener()
        self.config = {
            "Name": "test", "StorageDirectory": str(self.folder / "db"), "IndexDirectory": str(self.folder / "db"),
            "HttpPort": self.http, "DicomPort": self.dicom, "DicomAet": "ORTHANC", "RemoteAccessAllowed": False,
            "AuthenticationEnabled": False, "StableAge": 1, "Plugins": [PLUGIN] if PLUGIN else [],
            "DicomAlwaysAllowStore": True, "OverwriteInstances": False,
            "DicomWeb": {"Enable": True, "Root": "/dicom-web/"}, **changes}

    @property
    def address(self):
        return f"http://127.0.0.1:{self.http}"

    @property
    def dicomweb(self):
        return f"{self.address}/dicom-web"

    def start(self):
        self.folder.mkdir(parents=True, exist_ok=True)
        file = self.folder / "orthanc.json"
        file.write_text(json.dumps(self.config))
        with open(self.folder / "orthanc.log", "a") as log:
            self.process = subprocess.Popen([PROGRAM, str(file)], stdout=log, stderr=subprocess.STDOUT)
        for _ in range(300):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.dicom), 1), \
                    socket.create_connection(("127.0.0.1", self.http), 1):
                return self
            assert self.process.poll() is None, (self.folder / "orthanc.log").read_text()[-2000:]
            time.sleep(0.1)
        raise AssertionError("Orthanc did not start")

    def stop(self, kill=False):
        if self.process:
            (self.process.kill if kill else self.process.terminate)()
            self.process.wait(60)
        self.process = None

    def ask(self, path, data=None, method=None):
        request = urllib.request.Request(f"{self.address}{path}", data, method=method or ("POST" if data else "GET"))
        with self.opener.open(request, timeout=60) as answer:
            body = answer.read()
        with contextlib.suppress(ValueError):
            return json.loads(body)
        return body

    def post(self, data):
        return self.ask("/instances", data)["ID"]

    def storescu(self, *files, options=()):
        done = subprocess.run(["storescu", *options, "127.0.0.1", str(self.dicom), *map(str, files)],
                              capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr

    def series(self, modality):
        return [one for one in self.ask("/series?expand") if one["MainDicomTags"].get("Modality") == modality]

    def files(self, modality):
        """The files of all instances of a modality."""
        return [self.ask(f"/instances/{one}/file") for series in self.series(modality) for one in series["Instances"]]


@contextlib.contextmanager
def running(folder, **changes):
    server = Server(folder, **changes).start()
    try:
        yield server
    finally:
        server.stop()


@contextlib.contextmanager
def behind_tls(server, context):
    """An address at which the server is reached by TLS; `context` says with which certificates."""
    ear = socket.create_server(("127.0.0.1", 0))

    def relay(one, other):
        with contextlib.suppress(OSError):
            while data := one.recv(1 << 16):
                other.sendall(data)
        for end in (one, other):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def accept():
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=serve, args=(ear.accept()[0],), daemon=True).start()

    def serve(caller):
        with contextlib.suppress(OSError), context.wrap_socket(caller, server_side=True) as plain, \
                socket.create_connection(("127.0.0.1", server.http)) as behind:
            back = threading.Thread(target=relay, args=(behind, plain), daemon=True)
            back.start()
            relay(plain, behind)
            back.join()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield f"https://127.0.0.1:{ear.getsockname()[1]}"
    finally:
        ear.close()
