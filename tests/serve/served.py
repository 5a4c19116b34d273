"""A server on a free loopback port for the tests, in a thread, and HTTP requests to it byte by byte."""

import base64
import contextlib
import http.client
import json
import socket
import threading
import time
from pathlib import Path

from chexpert_hier.serve.batching import Limits
from chexpert_hier.serve.model import ServedModel
from chexpert_hier.serve.running import make_server, quiet
from chexpert_hier.serve.service import Service


@contextlib.contextmanager
def serving(model, limits=None, token=""):
    """Yields a Client; the server ends with the block."""
    quiet()
    service = Service(model, "chest", limits or Limits())
    server = make_server(service, token)
    ear = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=lambda: server.run(sockets=[ear]), daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield Client(ear.getsockname()[1], service, token)
    finally:
        server.should_exit = True
        thread.join(timeout=20)
        ear.close()


class Client:
    def __init__(self, port, service=None, token=""):
        self.port, self.service, self.token = port, service, token

    @property
    def address(self):
        return f"http://127.0.0.1:{self.port}"

    def call(self, path, body=None, method=None, **headers):
        """(status, answer): JSON decoded, else bytes; `last` keeps the headers."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        headers = {name.replace("_", "-"): str(value) for name, value in headers.items()}
        if self.token:
            headers.setdefault("Authorization", f"Bearer {self.token}")
        body = json.dumps(body) if isinstance(body, dict) else body
        connection.request(method or ("GET" if body is None else "POST"), path, body, headers)
        answer = connection.getresponse()
        data = answer.read()
        self.last = {name.lower(): value for name, value in answer.getheaders()}
        connection.close()
        return answer.status, json.loads(data) if self.last.get("content-type") == "application/json" else data

    def v1(self, *films, **more):
        rows = [{"film": b64(film)} for film in films]
        return self.call("/v1/models/chest:predict", {"instances": rows, **more})

    def v2(self, *films, outputs=(), **parameters):
        data = [b64(film)["b64"] for film in films]
        return self.call("/v2/models/chest/infer", {
            "inputs": [{"name": "film", "shape": [len(films)], "datatype": "BYTES", "data": data}],
            "outputs": [{"name": name} for name in outputs], "parameters": parameters})


def b64(data):
    return {"b64": base64.b64encode(data).decode()}


def open_model(*paths: Path) -> ServedModel:
    return ServedModel([str(path) for path in paths])
