"""The server under load: films/s and latency for 1, 8 and 32 clients, against the bare engine and torchxrayvision.

    python -m experiments.benchmarks.serve [--arch densenet121] [--requests 160] [--repeats 3] [--xrv FOLDER] [--write]

`ab` (Debian's apache2-utils) asks over loopback, a bounded number of times, one film a request, by the Open Inference
Protocol. The bare engine reads and answers the same film in this process, 32 at a time. torchxrayvision's DenseNet-121
stands behind a FastAPI of a dozen lines, as one would write it first: one film, one pass. Weights are random
everywhere, for time does not depend on them. Rounds alternate; the ratio is of medians.
"""

import argparse
import contextlib
import json
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from chexpert_hier import commands, recipes
from chexpert_hier.datasets import reading
from chexpert_hier.errors import InputError
from chexpert_hier.films.normalisation import IMAGENET
from chexpert_hier.phantom import making
from chexpert_hier.prepare import croppers

from . import Measured, find_films, report, typed

CLIENTS = (1, 8, 32)
BATCH = 32
XRV = '''
import sys
import cv2, numpy as np, torch, uvicorn
torch.set_num_threads(2)
library = torch.library.Library("torchvision", "DEF")  # its compiled operators are not needed here
for name in ("nms", "qnms"):
    library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
import torchvision
import torchxrayvision as xrv
from fastapi import FastAPI, Request

model = xrv.models.DenseNet(weights=None, num_classes=18).eval()
prepare = torchvision.transforms.Compose([xrv.datasets.XRayCenterCrop(), xrv.datasets.XRayResizer(224, engine="cv2")])
app = FastAPI()

@app.get("/ready")
def ready():
    return {}

@app.post("/predict")
async def predict(request: Request):
    grey = cv2.imdecode(np.frombuffer(await request.body(), np.uint8), cv2.IMREAD_GRAYSCALE)
    film = prepare(xrv.datasets.normalize(grey, 255)[None])
    with torch.inference_mode():
        return model(torch.from_numpy(film)[None])[0].tolist()

uvicorn.run(app, port=int(sys.argv[1]), log_level="error")
'''


def untrained(folder: Path, arch: str) -> Path:
    """A finished run with random weights, at the paper's 224 pixels."""
    commands.import_keras()
    from chexpert_hier.network.model import build_model

    data = making.make(folder / "phantom", patients=14, valid_patients=14, seed=3, processes=1)
    recipe = recipes.change(recipes.named("pham2019"), arch=arch, template_films=10)
    dataset, run = reading.read(data, views=recipe.views), folder / "run"
    run.mkdir()
    croppers.learn_croppers(dataset, recipe, run)
    build_model(arch, dataset.labels, seed=0).save(run / "model.keras")
    facts = {"recipe": recipe.to_json(), "outputs": list(dataset.labels), "labels": None, "tree": "chexpert",
             "normalisation": [list(IMAGENET.mean), list(IMAGENET.std)], "versions": {}, "data": {
                 "root": str(data), "name": dataset.name, "fingerprint": dataset.fingerprint, "counts": {}}}
    (run / "recipe.json").write_text(json.dumps(facts))
    return run


def bare(model: Path, film: bytes, films: int) -> float:
    """Films/s of the engine alone, reading included."""
    from chexpert_hier.predict.engine import Engine

    def answer(engine: Engine) -> None:
        engine.answer(list(pool.map(lambda k: engine.read(film, str(k)), range(BATCH))))

    with ThreadPoolExecutor() as pool:
        if model not in ENGINES:
            ENGINES[model] = Engine.open([model])
            answer(ENGINES[model])
        start = time.perf_counter()
        for _ in range(max(1, films // BATCH)):
            answer(ENGINES[model])
        return max(1, films // BATCH) * BATCH / (time.perf_counter() - start)


ENGINES: dict = {}  # open and warm


@contextlib.contextmanager
def process(*command: str, ready: str, **settings: object) -> Iterator[int]:
    """A server on a free port, ended with the block; yields the port."""
    import socket
    import urllib.request

    with socket.create_server(("127.0.0.1", 0)) as ear:
        port = ear.getsockname()[1]
    words = [word.replace("PORT", str(port)) for word in command]
    server = subprocess.Popen(words, stdout=subprocess.DEVNULL, **settings)
    try:
        for _ in range(600):
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"http://127.0.0.1:{port}{ready}", timeout=5)
                break
            time.sleep(0.2)
            if server.poll() is not None:
                raise InputError(f"{command[1]} did not start")
        yield port
    finally:
        server.terminate()
        server.wait(timeout=60)


def load(address: str, body: bytes, clients: int, requests: int, *headers: str) -> tuple[float, list[float]]:
    """Films/s, and the 50th, 95th and 99th percentile of seconds a request, as `ab` counts them."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(body)
        file.flush()
        command = ["ab", "-k", "-q", "-n", str(requests), "-c", str(clients), "-p", file.name, "-T",
                   "application/octet-stream", *[word for header in headers for word in ("-H", header)], address]
        text = subprocess.run(command, capture_output=True, text=True, check=True, timeout=550).stdout
    failed = re.search(r"Non-2xx responses: +(\d+)", text) or re.search(r"Failed requests: +([1-9]\d*)", text)
    if failed and "Length" not in text.split("Failed requests")[1][:200]:
        raise InputError(f"{address}: {failed[0]}")
    seconds = [float(re.search(rf"^ +{percent}% +(\d+)", text, re.M)[1]) / 1000 for percent in (50, 95, 99)]
    return float(re.search(r"Requests per second: +([\d.]+)", text)[1]), seconds


def infer_body(film: bytes) -> tuple[bytes, str]:
    """A request of the Open Inference Protocol with the film in binary, and its header."""
    head = json.dumps({"inputs": [{"name": "film", "shape": [1], "datatype": "BYTES", "parameters": {
        "binary_data_size": len(film) + 4}}], "outputs": [{"name": "probabilities"}]}).encode()
    return head + struct.pack("<I", len(film)) + film, f"Inference-Header-Content-Length: {len(head)}"


def measure(models: dict[str, Path], film: bytes, args: argparse.Namespace) -> dict[tuple[str, str], list]:
    """(engine, what) -> one entry per repeat: films/s for "bare", (films/s, percentiles) for a number of clients."""
    found: dict[tuple[str, str], list] = {}
    body, header = infer_body(film)
    with contextlib.ExitStack() as stack:
        servers = {}
        for name, model in models.items():
            port = stack.enter_context(process(sys.executable, "-m", "chexpert_hier.serve", "--model", str(model),
                                               "--port", "PORT", ready="/v2/health/ready"))
            servers[name] = (f"http://127.0.0.1:{port}/v2/models/chest/infer", body, header)
        if args.xrv:
            port = stack.enter_context(process(sys.executable, "-c", XRV, "PORT", ready="/ready",
                                               env={"PYTHONPATH": str(args.xrv), "PATH": "/usr/bin:/bin"}))
            servers["torchxrayvision"] = (f"http://127.0.0.1:{port}/predict", film)
        for address, data, *headers in servers.values():
            load(address, data, 8, 16, *headers)
        for _ in range(args.repeats):
            for name, model in models.items():
                found.setdefault((name, "bare"), []).append(bare(model, film, args.requests))
            for clients in CLIENTS:
                for name, (address, data, *headers) in servers.items():
                    found.setdefault((name, str(clients)), []).append(
                        load(address, data, clients, args.requests if clients > 1 else args.requests // 4, *headers))
    return found


def main(argv: list[str] | None = None) -> int:
    """Measure, print, and with --write keep the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--arch", default="densenet121")
    parser.add_argument("--requests", type=int, default=160, help="of one load (a quarter for one client)")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--xrv", type=Path, metavar="FOLDER", help="where torchxrayvision and what it needs beside "
                        "PyTorch are installed (pip install --target)")
    parser.add_argument("--onnx", action="store_true", help="also the ONNX engine")
    parser.add_argument("--write", action="store_true")
    args = parser.parse_args(argv)
    if not shutil.which("ab"):
        raise InputError("ab is missing; apt-get install apache2-utils")
    files, what = find_films(None)
    film = Path(files[0]).read_bytes()
    with tempfile.TemporaryDirectory() as folder:
        models = {"Keras": untrained(Path(folder), args.arch)}
        if args.onnx:
            models["ONNX"] = onnx_of(models["Keras"], Path(folder) / "model.onnx")
        found = measure(models, film, args)
    lines, ratio = _table(found, "ONNX" if args.onnx else "Keras")
    words = ["FOLDER" if word == str(args.xrv) else word for word in (sys.argv[1:] if argv is None else argv)]
    report(Measured("serve", typed("serve", words),
                    f"one JPEG of {len(film):,} bytes ({what}), {args.arch} at 224 pixels, {args.repeats} rounds of "
                    f"{args.requests} requests", lines, ratio, ("tensorflow", "keras", "onnxruntime", "fastapi",
                                                                "uvicorn", "torch", "torchxrayvision")), args.write)
    return 0


def onnx_of(run: Path, out: Path, *more: str) -> Path:
    """The run as an ONNX file, which takes films unless `more` says --crops."""
    from chexpert_hier.export.__main__ import main as export

    export(["--model", str(run), "--onnx", str(out), *more])
    return out


def _table(found: dict, ours: str) -> tuple[list[str], float]:
    """Rates and waiting times of every engine, and the server's rate with 8 clients to the bare engine's."""
    lines = ["| engine | clients | films/s | 50 % | 95 % | 99 % | of the bare engine |",
             "|---|---|---|---|---|---|---|"]
    for (name, clients), values in found.items():
        if clients == "bare":
            lines.append(f"| {name} | none: the bare engine | {np.median(values):.1f} | | | | |")
            continue
        rate, seconds = np.median([rate for rate, _ in values]), np.median([one for _, one in values], axis=0)
        base = found.get((name, "bare"))
        share = f"{rate / np.median(base):.2f}" if base else ""
        lines.append(f"| {name} | {clients} | {rate:.1f} | " + " | ".join(f"{1000 * one:.0f} ms" for one in seconds)
                     + f" | {share} |")
    ratio = np.median([rate for rate, _ in found[ours, "8"]]) / np.median(found[ours, "bare"])
    lines += ["", f"The ratio: the server's films/s with 8 clients ({ours}) to the bare engine's."]
    if ("torchxrayvision", "8") in found:
        theirs = np.median([rate for rate, _ in found["torchxrayvision", "8"]])
        lines[-1] += (f" To torchxrayvision's behind a minimal FastAPI, 8 clients: "
                      f"{np.median([rate for rate, _ in found[ours, '8']]) / theirs:.2f}.")
    return lines, float(ratio)


if __name__ == "__main__":
    sys.exit(commands.answer(main))
