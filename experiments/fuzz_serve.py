"""Thousands of damaged requests to a real server: none may end in a 500, none may make it grow, good ones go on.

    python -m experiments.fuzz_serve --model runs/mine [--requests 10000] [--seed 0] [--write]

Bodies, headers, paths and the films inside are damaged at random: bits turned, cut off, exchanged values, wrong
lengths, deep nesting, numbers without end. What came out: experiments/results/fuzz_serve.md.
"""

import argparse
import base64
import collections
import http.client
import json
import random
import re
import struct
import subprocess
import sys
import time
from datetime import date
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from chexpert_hier.files import write_text

RESULT = Path(__file__).parent / "results" / "fuzz_serve.md"
FEW = 50  # requests between two good ones
ODD = (None, True, -1, 0, 1e308, 2 ** 70, "", "x" * 5000, "\0", [], {}, [[]], {"b64": ""}, {"b64": 3}, float("nan"),
       "é")
PATHS = ("/v1/models/chest:predict", "/v2/models/chest/infer", "/page/film", "/page/study")


def films(size: int = 96) -> list[bytes]:
    """Small films to begin with: JPEG, PNG of 8 and 16 bits, DICOM."""
    noise = np.random.default_rng(0).integers(0, 256, (12, 12), dtype=np.uint8)
    grey = cv2.resize(noise, (size, size), interpolation=cv2.INTER_CUBIC)
    pictures = [(".jpg", grey), (".png", grey), (".png", grey.astype(np.uint16) * 257), (".jpg", cv2.merge([grey] * 3))]
    return [cv2.imencode(suffix, picture)[1].tobytes() for suffix, picture in pictures] + _dicom(grey)


def _dicom(grey: np.ndarray) -> list[bytes]:
    try:
        import io

        from pydicom.dataset import FileDataset, FileMetaDataset
        from pydicom.uid import ExplicitVRLittleEndian
    except ImportError:
        return []
    meta = FileMetaDataset()
    meta.TransferSyntaxUID, meta.MediaStorageSOPInstanceUID = ExplicitVRLittleEndian, "1.2.3"
    meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.1"
    film = FileDataset("film", {}, file_meta=meta, preamble=b"\0" * 128)
    film.Modality, film.PhotometricInterpretation, film.SamplesPerPixel = "DX", "MONOCHROME2", 1
    film.BitsAllocated, film.BitsStored, film.HighBit, film.PixelRepresentation = 16, 12, 11, 0
    film.Rows, film.Columns = grey.shape
    film.WindowCenter, film.WindowWidth, film.PatientName = 2048, 4096, "Doe^Jane"
    film.PixelData = (grey.astype(np.uint16) * 16).tobytes()
    out = io.BytesIO()
    film.save_as(out, enforce_file_format=True)
    return [out.getvalue()]


def damaged(data: bytes, chance: random.Random) -> bytes:
    """The same bytes with some turned, cut off, doubled or exchanged."""
    data = bytearray(data)
    for _ in range(chance.choice((0, 1, 1, 3, 30))):
        place = chance.randrange(max(len(data), 1))
        kind = chance.randrange(5)
        if kind == 0:
            data[place:place + 1] = bytes([chance.randrange(256)])
        elif kind == 1:
            del data[place:]
        elif kind == 2:
            data[place:place] = chance.randbytes(chance.choice((1, 4, 200)))
        elif kind == 3:
            del data[place:place + chance.choice((1, 4, 200))]
        else:
            data[place:place + 4] = struct.pack("<I", chance.choice((0, 0xFFFFFFFF, 0x7FFFFFFF, 65536)))
    return bytes(data)


def exchanged(value: object, chance: random.Random) -> object:
    """JSON values with one of them, anywhere, exchanged for something odd."""
    if isinstance(value, dict) and value and chance.random() < 0.8:
        name = chance.choice(list(value))
        if chance.random() < 0.2:
            return {other: inner for other, inner in value.items() if other != name}
        return {**value, name: exchanged(value[name], chance)}
    if isinstance(value, list) and value and chance.random() < 0.8:
        place = chance.randrange(len(value))
        return [*value[:place], exchanged(value[place], chance), *value[place + 1:]]
    return chance.choice(ODD)


class Request(NamedTuple):
    """What is sent."""

    method: str
    path: str
    body: bytes
    headers: dict[str, str]


def request(chance: random.Random, good: list[bytes]) -> Request:
    """A damaged request."""
    film = damaged(chance.choice(good), chance)
    path = chance.choice(PATHS)
    method = chance.choice(("POST",) * 12 + ("GET", "PUT", "DELETE", "OPTIONS"))
    headers = {}
    text = base64.b64encode(film).decode()
    if path == PATHS[0]:
        asked = {"signature_name": chance.choice(("serving_default", "calibrated", "reading", "films")),
                 "instances": [{"film": {"b64": text}}] * chance.choice((1, 1, 2)), "skip_bad": chance.random() < 0.3}
        body = json.dumps(exchanged(asked, chance) if chance.random() < 0.5 else asked).encode()
    elif path == PATHS[1]:
        body, headers = _v2(film, text, chance)
    elif path == PATHS[2]:
        body, path = film, path + chance.choice(("", "?view=frontal", "?view=lateral", "?view=%00", "?x=1&x=2"))
    else:
        rows = [[chance.random() for _ in range(14)] for _ in range(chance.choice((0, 1, 2, 200)))]
        body = json.dumps(exchanged({"probabilities": rows}, chance)).encode()
    if chance.random() < 0.15:
        body = damaged(body, chance)
    if chance.random() < 0.02:
        body = chance.choice((b"", b"[" * 200_000, b'{"instances":' * 5000, b"\xff" * 1000, b"9" * 100_000))
    if chance.random() < 0.05:
        headers[chance.choice(("Content-Type", "Content-Encoding", "Accept", "Authorization"))] = chance.choice(
            ("gzip", "text/html", "\xe9", "x" * 3000, "application/json"))
    if chance.random() < 0.02:
        path = "/" + chance.choice(("..%2f..%2fetc/passwd", "static/../../setup.cfg", "static/%2e%2e/app.py", "%00",
                                    "v2/models/" + "x" * 3000, "v1/models/chest", "openapi.json", "metrics"))
    return Request(method, path, body, headers)


def _v2(film: bytes, text: str, chance: random.Random) -> tuple[bytes, dict[str, str]]:
    tensor = {"name": "film", "shape": [1], "datatype": "BYTES"}
    asked = {"id": "1", "inputs": [tensor], "parameters": {"skip_bad": chance.random() < 0.3},
             "outputs": chance.choice(([], [{"name": "probabilities"}, {"name": "maps"}],
                                       [{"name": "flag", "parameters": {"binary_data": True}}]))}
    if chance.random() < 0.5:
        tensor["data"] = [text]
        return json.dumps(exchanged(asked, chance) if chance.random() < 0.6 else asked).encode(), {}
    behind = struct.pack("<I", chance.choice((len(film), len(film), 0xFFFFFFF0, 3))) + film
    tensor["parameters"] = {"binary_data_size": chance.choice((len(behind), len(behind), 0, -5, 2 ** 40))}
    head = json.dumps(exchanged(asked, chance) if chance.random() < 0.4 else asked).encode()
    length = chance.choice((str(len(head)),) * 3 + ("-1", "0", "99999999999", "x"))
    return head + behind, {"Inference-Header-Content-Length": length}


def ask(port: int, method: str, path: str, body: bytes, headers: dict[str, str]) -> int | str:
    """The status; or what happened to a request that Python's own client would not send."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        answer.read()
        return answer.status
    except (UnicodeEncodeError, ValueError):
        return "not sent"
    except (http.client.HTTPException, OSError) as error:
        return type(error).__name__
    finally:
        connection.close()


def memory(port: int) -> float:
    """The server's resident memory in MB, as it says itself."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("GET", "/metrics")
    found = re.search(r"^process_resident_memory_bytes (\S+)", connection.getresponse().read().decode(), re.M)
    connection.close()
    return float(found[1]) / 1e6 if found else float("nan")


class Found(NamedTuple):
    """What the server did.

    Attributes:
        counts: how often each status came.
        sizes: (requests sent, MB) ten times.
        bad: the requests that a 5xx or a lost connection answered.
    """

    counts: collections.Counter
    sizes: list[tuple[int, float]]
    bad: list


def fuzz(port: int, requests: int, seed: int) -> Found:
    """Send them one after the other."""
    chance, good = random.Random(seed), films()
    counts, sizes, bad = collections.Counter(), [], []
    fine = json.dumps({"instances": [{"b64": base64.b64encode(good[0]).decode()}]}).encode()
    for number in range(requests):
        asked = request(chance, good)
        status = ask(port, *asked)
        counts[status] += 1
        if (isinstance(status, int) and status >= 500) or status in ("ConnectionResetError", "RemoteDisconnected"):
            bad.append((number, status, asked[:2]))
        if number % FEW == 0 and ask(port, "POST", PATHS[0], fine, {}) != 200:
            bad.append((number, "a good request failed", asked[:2]))
        if number % max(1, requests // 10) == 0:
            sizes.append((number, memory(port)))
    sizes.append((requests, memory(port)))
    return Found(counts, sizes, bad)


def main() -> int:
    """Start a server, fuzz it, say what came."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True, metavar="RUN")
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--write", action="store_true", help=f"write {RESULT.name}")
    args = parser.parse_args()
    server = subprocess.Popen([sys.executable, "-m", "chexpert_hier.serve", "--model", args.model, "--port", "0"],
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        port = int(server.stdout.readline().rstrip("/\n").rsplit(":", 1)[1])
        start = time.monotonic()
        counts, sizes, bad = fuzz(port, args.requests, args.seed)
        seconds = time.monotonic() - start
        server.terminate()
        log = server.communicate(timeout=60)[1]
    finally:
        server.kill()
    named = sum(word in log for word in ("Doe", "Jane", "passwd", "models/chest", "film?"))
    lines = ["# Damaged requests to a server", "", f"`python -m experiments.fuzz_serve --model RUN --requests "
             f"{args.requests} --seed {args.seed}`, {date.today()}, 2 cores, no GPU, "
             f"the tiny network; {seconds:.0f} s.",
             "", "| answer | requests |", "|---|---|",
             *(f"| {status} | {count:,} |" for status, count in sorted(counts.items(), key=lambda one: str(one[0]))),
             "", f"Server errors, lost connections, good requests in between that failed: {len(bad)}.", "",
             "| requests sent | resident memory, MB |", "|---|---|",
             *(f"| {sent:,} | {size:.0f} |" for sent, size in sizes), "",
             f"Words of requests, paths and films' tags in the server's log: {named}."]
    print("\n".join(lines))
    for one in bad[:20]:
        print(one, file=sys.stderr)
    print(log[-2000:], file=sys.stderr)
    if args.write:
        write_text(RESULT, "\n".join(lines) + "\n")
    return bool(bad)


if __name__ == "__main__":
    sys.exit(main())
