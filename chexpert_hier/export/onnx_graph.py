"""An ONNX graph that is written node by node: names, constants and branches; no model knowledge.

Needs the package onnx: pip install "chexpert_hier[onnx]".
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET = 17  # ONNX Runtime 1.12 (2022) and later
IR_VERSION = 8

TYPES = {"float32": TensorProto.FLOAT, "float64": TensorProto.DOUBLE, "uint8": TensorProto.UINT8,
         "int32": TensorProto.INT32, "int64": TensorProto.INT64, "bool": TensorProto.BOOL}


class Graph:
    """A graph in the making.

    Values are names. Nodes stand in the order in which they are written, names are counted: the same calls give the
    same bytes.
    """

    def __init__(self, outer: "Graph | None" = None):
        self.outer = outer
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self.inputs: list[onnx.ValueInfoProto] = []
        self.outputs: list[onnx.ValueInfoProto] = []
        self.values: list[onnx.ValueInfoProto] = []
        self._constants: dict[tuple, str] = {}
        self._count = [0] if outer is None else outer._count

    def add(self, operation: str, *inputs: Any, **attributes: Any) -> str:
        """Write a node of one output and give its name; inputs are names or arrays."""
        return self.add_many(operation, 1, *inputs, **attributes)[0]

    def add_many(self, operation: str, outputs: int, *inputs: Any, **attributes: Any) -> list[str]:
        """Write a node of several outputs and give their names."""
        names = [one if isinstance(one, str) else self.constant(one) for one in inputs]
        made = [self._name(operation.lower()) for _ in range(outputs)]
        self.nodes.append(helper.make_node(operation, names, made, name=made[0], **attributes))
        return made

    def constant(self, value: Any) -> str:
        """The name of a constant array, stored once; Python's whole numbers become int64, others float32."""
        array = np.asarray(value)
        if not isinstance(value, np.ndarray | np.generic):
            array = array.astype(np.int64 if array.dtype.kind in "iu" else np.float32)
        if self.outer is not None:
            return self.outer.constant(array)
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._constants:
            self._constants[key] = self._name("constant")
            self.initializers.append(numpy_helper.from_array(np.ascontiguousarray(array).reshape(array.shape),
                                                             self._constants[key]))
        return self._constants[key]

    def cast(self, value: str, dtype: str) -> str:
        """The value as another type, a key of TYPES."""
        return self.add("Cast", value, to=TYPES[dtype])

    def input(self, name: str, dtype: str, shape: list) -> str:
        """Declare an input."""
        self.inputs.append(helper.make_tensor_value_info(name, TYPES[dtype], shape))
        return name

    def output(self, value: str, name: str, dtype: str, shape: list) -> None:
        """Declare an output."""
        self.nodes.append(helper.make_node("Identity", [value], [name], name=name))
        self.outputs.append(helper.make_tensor_value_info(name, TYPES[dtype], shape))

    def named(self, value: str, name: str, dtype: str, shape: list) -> str:
        """Give a value a name that stays, by which the graph can be cut there."""
        self.nodes.append(helper.make_node("Identity", [value], [name], name=name))
        self.values.append(helper.make_tensor_value_info(name, TYPES[dtype], shape))
        return name

    def branch(self, condition: str, yes: Callable[["Graph"], Sequence[str]], no: Callable[["Graph"], Sequence[str]],
               dtypes: Sequence[str]) -> list[str]:
        """Write either the one or the other: `yes` and `no` write into a graph and give the names of what comes out.

        Args:
            condition: name of a bool ().
            yes, no: each sees the names of this graph and may read them.
            dtypes: of what comes out.
        """
        parts = {}
        for which, write in (("then_branch", yes), ("else_branch", no)):
            inner = Graph(self)
            values = [inner.add("Identity", value) for value in write(inner)]  # a branch may not give outer values
            outputs = [helper.make_tensor_value_info(value, TYPES[dtype], None) for value, dtype in zip(values, dtypes)]
            parts[which] = helper.make_graph(inner.nodes, which, [], outputs)
        return self.add_many("If", len(dtypes), condition, **parts)

    def model(self, name: str, metadata: dict[str, str]) -> onnx.ModelProto:
        """The finished model."""
        graph = helper.make_graph(self.nodes, name, self.inputs, self.outputs, self.initializers,
                                  value_info=self.values)
        made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION,
                                 producer_name="chexpert_hier")
        helper.set_model_props(made, metadata)
        return made

    def _name(self, kind: str) -> str:
        self._count[0] += 1
        return f"{kind}_{self._count[0]}"
