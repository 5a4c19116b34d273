"""Other people's clients: Triton's and KServe's, over HTTP, as their documentation uses them.

KServe's pins (pandas below 3, protobuf below 7) do not go with the package's own newest versions, so that its client is
looked for in the interpreter that CHEXPERT_HIER_CLIENTS names: python -m venv v && v/bin/pip install kserve
"""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

TRITON = """
import json, sys
import numpy as np
import tritonclient.http as triton
port, *films = sys.argv[1:]
client = triton.InferenceServerClient(f"127.0.0.1:{port}")
assert client.is_server_live() and client.is_server_ready() and client.is_model_ready("chest")
labels = client.get_model_metadata("chest")["parameters"]["labels"]
asked = triton.InferInput("film", [len(films)], "BYTES")
asked.set_data_from_numpy(np.array([open(film, "rb").read() for film in films], object))
answer = client.infer("chest", [asked], request_id="7")
assert answer.get_response()["id"] == "7" and answer.as_numpy("flag").shape == (len(films),)
named = client.infer("chest", [asked], outputs=[triton.InferRequestedOutput("maps", binary_data=True),
                                                 triton.InferRequestedOutput("present", binary_data=False)])
assert named.as_numpy("maps").shape[:2] == (len(films), len(labels)) and named.as_numpy("present").dtype == bool
bad = triton.InferInput("film", [1], "BYTES")
bad.set_data_from_numpy(np.array([b"no film"], object))
try:
    client.infer("chest", [bad])
except triton.InferenceServerException as error:
    print(json.dumps([labels, answer.as_numpy("probabilities").tolist(), error.status(), error.message()]))
"""

KSERVE = """
import asyncio, base64, json, sys
import numpy as np
from kserve import InferenceRESTClient, InferInput, InferRequest, RESTConfig
port, *files = sys.argv[1:]
films = [open(film, "rb").read() for film in files]
base = f"http://127.0.0.1:{port}"

async def main():
    client = InferenceRESTClient(RESTConfig(protocol="v2"))
    assert await client.is_server_live(base) and await client.is_server_ready(base)
    assert await client.is_model_ready(base, "chest")
    answers = []
    for binary, values in ((True, films), (False, [base64.b64encode(film) for film in films])):
        asked = InferInput("film", [len(films)], "BYTES")
        asked.set_data_from_numpy(np.array(values, object), binary_data=binary)
        answer = await client.infer(base, InferRequest("chest", [asked]), model_name="chest")
        answers.append(next(one for one in answer.outputs if one.name == "probabilities").as_numpy().tolist())
    first = InferenceRESTClient(RESTConfig(protocol="v1"))
    body = {"instances": [{"film": {"b64": base64.b64encode(film).decode()}} for film in films]}
    found = await first.infer(base, body, model_name="chest")
    answers.append([row["probabilities"] for row in found["predictions"]])
    print(json.dumps(answers))

asyncio.run(main())
"""


def interpreter(module):
    """This interpreter or the one that CHEXPERT_HIER_CLIENTS names, whichever has the client; None where none has."""
    for python in filter(None, (sys.executable, os.environ.get("CHEXPERT_HIER_CLIENTS"))):
        if subprocess.run([python, "-c", f"import {module}"], capture_output=True).returncode == 0:
            return python
    return None


def run(python, code, client, films):
    done = subprocess.run([python, "-c", code, str(client.port), *map(str, films)], capture_output=True, text=True,
                          timeout=120)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.processes
def test_tritons_client_gets_the_numbers_and_the_reason(client, model, frontal, missing):
    python = interpreter("tritonclient.http")
    if not python:
        missing('no Triton client; pip install "tritonclient[http]"')
    labels, got, status, message = run(python, TRITON, client, frontal[:2])
    expected = client.v1(*[film.read_bytes() for film in frontal[:2]])[1]["predictions"]
    assert labels == list(model.labels)
    np.testing.assert_allclose(got, [row["probabilities"] for row in expected], atol=1e-6)
    assert status == "422" and message == "film 0: not an image; expected JPEG, PNG, TIFF, WebP or DICOM"


@pytest.mark.processes
def test_kserves_client_gets_the_numbers_by_both_protocols(client, frontal):
    python = interpreter("kserve")
    if not python:
        pytest.skip("no KServe client in this interpreter, nor in that of CHEXPERT_HIER_CLIENTS")
    expected = client.v1(*[film.read_bytes() for film in frontal[:2]])[1]["predictions"]
    for got in run(python, KSERVE, client, frontal[:2]):
        np.testing.assert_allclose(got, [row["probabilities"] for row in expected], atol=1e-6)
