"""Whether a model that somebody else made may be opened: it must be able to compute, and to do nothing else.

TensorFlow runs what a SavedModel says, operations on files among it. Opened is only what is made of OPERATIONS, which
compute on tensors; variables are read and written by TensorFlow's own loader alone. ONNX knows computation only, but
its weights may lie in other files, by any path: such a file is refused too.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import InputError

# What `export` writes, in this version and in 0.1, for all networks and recipes. None reaches files, networks, Python.
OPERATIONS = frozenset("""
    AddV2 Any ArgMax Assert AssignVariableOp AvgPool BatchMatMulV2 BiasAdd BitwiseAnd BitwiseOr
    BroadcastTo Cast ConcatV2 ConcatenateDataset Conj Const Conv2D Cumsum DatasetToSingleElement
    DecodeJpeg DecodePng DecodeRaw DenseBincount DepthwiseConv2dNative DisableCopyOnRead Einsum
    EnsureShape Equal ExpandDims ExtractJpegShape Fill Floor FloorDiv FloorMod FusedBatchNorm
    FusedBatchNormV2 FusedBatchNormV3 GatherV2 Greater GreaterEqual IRFFT2D Identity IdentityN If
    IgnoreErrorsDataset Less LessEqual Log Log1p LogicalAnd LogicalNot LogicalOr MapDataset MatMul
    Max MaxPool Maximum Mean Min Minimum Mul Neg NoOp NotEqual OnesLike OptionsDataset Pack Pad
    PadV2 PartitionedCall Placeholder Prod RFFT2D Range Rank ReadVariableOp RealDiv Relu Reshape
    RightShift Round Rsqrt Select SelectV2 Shape Sigmoid Size Slice Softmax Sqrt Square
    SquaredDifference Squeeze StatefulPartitionedCall StatelessIf StatelessWhile
    StaticRegexFullMatch StridedSlice StringJoin StringLength StringSplitV2 Sub Substr Sum
    TakeDataset TensorDataset TensorListFromTensor TensorListGetItem TensorListReserve
    TensorListSetItem TensorListStack Tile TopKV2 Transpose VarHandleOp VarIsInitializedOp While
    ZerosLike
""".split())
# These read and write the variables' files; allowed in the two functions that the loader calls with its own path.
SAVING = frozenset(("MergeV2Checkpoints", "RestoreV2", "SaveV2", "ShardedFilename"))
# Other forms of a SavedModel, which TensorFlow would read first or instead.
OTHER_FORMS = ("saved_model.cpb", "saved_model.pbtxt")


def check_saved_model(folder: Path) -> None:
    """Refuse a SavedModel that could do more than compute.

    Raises:
        InputError: it is damaged, or holds operations on files, networks or Python, or any that is unknown here.
    """
    from google.protobuf.message import DecodeError
    from tensorflow.core.protobuf import saved_model_pb2

    for name in OTHER_FORMS:
        if (folder / name).exists():
            raise InputError(f"{folder}: {name} is no form that chexpert_hier.export writes; the model is not opened")
    model = saved_model_pb2.SavedModel()
    try:
        model.ParseFromString((folder / "saved_model.pb").read_bytes())
    except (OSError, DecodeError) as error:
        raise InputError(f"{folder}: saved_model.pb is damaged or cannot be read ({error}); export it again") from None
    _check_fingerprint(folder / "fingerprint.pb")
    for graph in model.meta_graphs:
        if problem := _problem(graph):
            raise InputError(f"{folder}: {problem}; a model of chexpert_hier.export only computes, so this one is not "
                             "opened")


def _check_fingerprint(file: Path) -> None:
    """Refuse one that is damaged, which TensorFlow would answer with a traceback, and go on."""
    from google.protobuf.message import DecodeError
    from tensorflow.core.protobuf import fingerprint_pb2

    try:
        if file.exists():
            fingerprint_pb2.FingerprintDef().ParseFromString(file.read_bytes())
    except (OSError, DecodeError) as error:
        raise InputError(f"{file}: is damaged ({error}); export the model again") from None


def _problem(graph: Any) -> str:
    """What a graph could do beside computing, "" for nothing."""
    functions = {function.signature.name: function.node_def for function in graph.graph_def.library.function}
    saving = {name for name, nodes in functions.items() if any(node.op in SAVING for node in nodes)}
    entries = {_node(graph.saver_def.save_tensor_name), _node(graph.saver_def.restore_op_name)}
    for where, nodes in (("", graph.graph_def.node), *functions.items()):
        for node in nodes:
            if node.op not in OPERATIONS and node.op not in functions and not (node.op in SAVING and where in saving):
                return f"it holds the operation {node.op}"
            if saving & set(_called(node)) and (where or node.name not in entries):
                return f"its node {node.name} reads or writes files"
            if not where and entries & {_node(name) for name in node.input}:
                return f"its node {node.name} comes after one that reads or writes files"
    outputs = {_node(output.name) for one in graph.signature_def.values() for output in one.outputs.values()}
    if entries & outputs or saving & set(graph.object_graph_def.concrete_functions):
        return "an output of it reads or writes files"
    return ""


def _node(tensor: str) -> str:
    """The node that a tensor or a control input comes from."""
    return tensor.lstrip("^").split(":")[0]


def _called(node: Any) -> Iterator[str]:
    """Names of the functions that a node may call."""
    yield node.op
    for attribute in node.attr.values():
        yield attribute.func.name
        yield from (function.name for function in attribute.list.func)


def check_onnx(model: Any, where: str) -> None:
    """Refuse an ONNX model (onnx.ModelProto) with weights in other files, or with operations outside of the standard.

    Raises:
        InputError: it has such.
    """
    for graph in _graphs(model.graph):
        if graph.sparse_initializer or any(tensor.external_data or tensor.data_location == tensor.EXTERNAL
                                           for tensor in _tensors(graph)):
            raise InputError(f"{where}: its weights lie in other files; a model of chexpert_hier.export holds its own, "
                             "so this one is not opened")
        foreign = sorted({node.domain for node in graph.node} - {"", "ai.onnx"})
        if foreign:
            raise InputError(f"{where}: it holds operations of {foreign[0]!r}; a model of chexpert_hier.export has "
                             "standard ones only, so this one is not opened")
    if model.functions:
        raise InputError(f"{where}: it holds functions of its own; a model of chexpert_hier.export has none, so this "
                         "one is not opened")


def _graphs(graph: Any) -> Iterator[Any]:
    """A graph and those inside its nodes."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                yield from _graphs(inner)


def _tensors(graph: Any) -> Iterator[Any]:
    """The tensors that a graph holds, those in its nodes' attributes too."""
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            sparse = (*([attribute.sparse_tensor] if attribute.HasField("sparse_tensor") else []),
                      *attribute.sparse_tensors)
            yield from (*([attribute.t] if attribute.HasField("t") else []), *attribute.tensors,
                        *(part for one in sparse for part in (one.values, one.indices)))
