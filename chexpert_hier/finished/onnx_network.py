"""A network of `export` in ONNX Runtime: no TensorFlow, no Keras, one film per core.

Needs onnx and onnxruntime: pip install "chexpert_hier[onnx]".
"""

import importlib.util
import json
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError, install
from .trusted import check_onnx

# Values inside the graph: what the crop search gives, and what the network says of it.
CROPS, CONDITIONAL, MAPS = "crops", "network_conditional", "network_maps"


def installed() -> bool:
    """Whether ONNX Runtime is there; nothing is imported."""
    return all(importlib.util.find_spec(name) is not None for name in ("onnx", "onnxruntime"))


class OnnxFile:
    """A file that `export` wrote, and what it says of itself.

    Attributes:
        path: the file.
        metadata: of contract.metadata.
    """

    def __init__(self, path: Path):
        """Read it.

        Raises:
            InputError: packages are missing, the file is damaged, another program's, or does more than compute.
        """
        self.path = Path(path)
        try:
            import onnx
            import onnxruntime  # noqa: F401
        except ImportError as error:
            raise InputError(f"{path}: needs {error.name}; {install('onnx')}") from None
        try:
            self._model = onnx.load(str(path), load_external_data=False)
        except Exception as error:  # protobuf's own kinds, which the package onnx does not name
            raise InputError(f"{path}: is damaged or cannot be read ({_line(error)}); export it again") from None
        check_onnx(self._model, str(path))
        about = {one.key: one.value for one in self._model.metadata_props}
        try:
            self.metadata = json.loads(about["metadata"])
        except (KeyError, ValueError, RecursionError):
            raise InputError(f"{path}: expected an ONNX file of chexpert_hier.export, with its metadata") from None

    def films(self) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
        """The whole graph: uint8 (n, h, w), films of one size -> outputs by name."""
        if [one.name for one in self._model.graph.input] != ["film"]:
            raise InputError(f"{self.path}: takes crops, not films; export it again without --crops")
        return self._runner(self._model.SerializeToString(), "film")

    def crops(self) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
        """The whole graph of a file without crop search: uint8 (n, c, c) -> outputs by name."""
        return self._runner(self._model.SerializeToString(), CROPS)

    def network(self) -> "OnnxNetwork":
        """What comes after the crop search, of a file with one network.

        Raises:
            InputError: the file does not hold exactly one network.
        """
        model = type(self._model)()
        model.CopyFrom(self._model)
        graph = model.graph
        made = {name: node for node in graph.node for name in node.output}
        given = [value for value in graph.value_info if value.name == CROPS]
        if not given or CONDITIONAL not in made or MAPS not in made:
            raise InputError(f"{self.path}: holds several networks, which need films; give it by itself")
        needed, waiting = set(), [CONDITIONAL, MAPS]
        while waiting:
            name = waiting.pop()
            if name != CROPS and name in made and made[name].name not in needed:
                needed.add(made[name].name)
                waiting += made[name].input
        nodes = [node for node in graph.node if node.name in needed]
        read = {name for node in nodes for name in node.input}
        weights = [tensor for tensor in graph.initializer if tensor.name in read]
        outputs = [value for value in graph.value_info if value.name in (CONDITIONAL, MAPS)]
        grid = [tuple(side.dim_value for side in value.type.tensor_type.shape.dim)[2:] for value in outputs
                if value.name == MAPS]
        for part, kept in ((graph.node, nodes), (graph.initializer, weights), (graph.input, given),
                           (graph.output, outputs)):
            kept = list(kept)
            del part[:]
            part.extend(kept)
        del graph.value_info[:]
        return OnnxNetwork(self._runner(model.SerializeToString(), CROPS), grid[0])

    def _runner(self, model: bytes, name: str) -> Callable[..., dict[str, np.ndarray]]:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1  # several films at once on one core each are faster than one film on several
        options.log_severity_level = 3
        try:
            session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime has no common kind for what can be wrong inside
            raise InputError(f"{self.path}: ONNX Runtime cannot load it ({_line(error)}); export it again") from None
        names = [output.name for output in session.get_outputs()]
        if not names:
            raise InputError(f"{self.path}: gives no outputs; export it again")

        def run(values: np.ndarray, wanted: Sequence[str] = names) -> dict[str, np.ndarray]:
            return dict(zip(wanted, session.run(list(wanted), {name: values})))

        return run


class OnnxNetwork:
    """A network from crops to its outputs; `grid` is the number of rows and columns of its maps."""

    def __init__(self, run: Callable[..., dict[str, np.ndarray]], grid: tuple[int, ...]):
        self._run, self.grid = run, grid

    def outputs(self, crops: np.ndarray) -> np.ndarray:
        """uint8 (n, c, c) -> float32 (n, labels), before the chain rule."""
        return self._each(crops, CONDITIONAL)

    def maps(self, crops: np.ndarray) -> np.ndarray:
        """uint8 (n, c, c) -> float32 (n, labels, h, w): class activation maps (Grad-CAM behind the head of HBCE)."""
        return self._each(crops, MAPS)

    def _each(self, crops: np.ndarray, what: str) -> np.ndarray:
        def one(crop: np.ndarray) -> Any:
            return self._run(crop[None], [what])[what]

        return np.concatenate(list(map(one, crops) if len(crops) == 1 else self._pool.map(one, crops)))

    @cached_property
    def _pool(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(cores())


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
