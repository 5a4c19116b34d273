"""The networks as one ONNX file: uint8 crops in, probabilities out; checked in ONNX Runtime before it is kept.

Films become crops outside of it (`template.Cropper`, or the template that is stored with a run).
Needs tf2onnx, onnx and onnxruntime: pip install "chexpert_hier[onnx]".
"""

import json
from pathlib import Path

import numpy as np

from ..errors import InputError
from ..files import written_whole
from ..finished.members import Member, same_labels
from ..predict.answers import NOT_A_DEVICE

OPSET = 17  # ONNX Runtime 1.12 (2022) and later
TOLERANCE = 1e-4
CHECKED = 8  # crops


def export(members: list[Member], out: Path) -> float:
    """Write the ONNX file of one run, or of an ensemble whose members crop alike.

    Input `crops`, uint8 (n, c, c, 1), of any n; outputs `probabilities` and `conditional`, float32 (n, labels), and for
    an ensemble `spread`. The labels, in JSON, are the file's metadata `labels`.

    Args:
        members: finished runs with the same labels.
        out: the file; appears whole or not at all.

    Returns:
        the largest difference between ONNX Runtime and the network on made-up crops.

    Raises:
        InputError: packages are missing, members crop differently, or the outputs differ by more than TOLERANCE.
    """
    try:
        import onnx
        import tf2onnx
    except ImportError as error:
        raise InputError(f'--onnx needs {error.name}; pip install "chexpert_hier[onnx]"') from None
    import tensorflow as tf

    from .graph import cropper_of, of_crops

    names, cropper = same_labels(members), cropper_of(members[0])[1]
    if len({cropper_of(member)[1].identity for member in members}) > 1:
        raise InputError("--onnx: the members crop films differently, so that no crop serves all; export them one by "
                         "one")
    side = cropper.size

    def network(crops):
        return of_crops(members, names, {cropper.identity: crops})

    traced = tf.function(network, input_signature=[tf.TensorSpec((None, side, side, 1), tf.uint8, name="crops")])
    proto, _ = tf2onnx.convert.from_function(traced, input_signature=traced.input_signature, opset=OPSET)
    about = {"labels": json.dumps(list(names)), "intended_use": NOT_A_DEVICE, "input": "uint8 template crops, "
             f"(n, {side}, {side}, 1), bone bright", "normalisation": "inside"}
    onnx.helper.set_model_props(proto, about)
    crops = _made_up(side)
    with written_whole(out) as beside:
        onnx.save(proto, str(beside))
        got, expected = run(beside, crops), {name: value.numpy() for name, value in traced(crops).items()}
        worst = max(float(np.abs(got[name] - expected[name]).max()) for name in expected)
        if not worst <= TOLERANCE:
            raise InputError(f"{out}: ONNX Runtime differs from the network by {worst:.2g}, expected at most "
                             f"{TOLERANCE:g}; nothing is kept")
    return worst


def run(file: Path, crops: np.ndarray) -> dict[str, np.ndarray]:
    """Answers of an ONNX file in ONNX Runtime: output name -> float32 (n, labels).

    Args:
        file: of `export`.
        crops: uint8 (n, c, c, 1).
    """
    import onnxruntime

    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    outputs = [output.name for output in session.get_outputs()]
    return dict(zip(outputs, session.run(outputs, {session.get_inputs()[0].name: crops})))


def _made_up(side: int) -> np.ndarray:
    """Crops of all levels, smooth and rough: uint8 (CHECKED, side, side, 1)."""
    random = np.random.default_rng(0)
    rough = random.integers(0, 256, (CHECKED, side, side, 1))
    slope = np.linspace(0, 255, side)[None, :, None, None] * np.ones((1, 1, side, 1))
    share = np.linspace(0, 1, CHECKED)[:, None, None, None]
    return np.round(share * rough + (1 - share) * slope).astype(np.uint8)
