"""Has onnxruntime multiply matrices in 8 bits, where a model's graph would unpack its weights to floats first.

A short text is then not held up by reading 40 MB of unpacked weights. Weights are used exactly as stored; what they are
multiplied with is rounded to 8 bits token by token, so that a text's vectors never depend on its neighbours in a batch.
"""

import platform
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

_CONTRIB = "com.microsoft"
_ZERO = "integers.zero"
_STEP = "integers.step"
_TINY = "integers.tiny"


@dataclass(frozen=True, slots=True)
class _Weights:
    """Names of a matrix of int8 and of the scales of its rows or columns."""

    values: str
    scales: str


def signed_is_exact(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether signed weights, which are faster, give the very products that unsigned ones give on this processor.

    x86 without VNNI adds two products of a signed and an unsigned byte in 16 bits, which overflow.
    """
    if platform.machine() not in ("x86_64", "AMD64"):
        return True
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    flags = next((line.split() for line in lines if line.startswith("flags")), [])
    return not {"avx512_vnni", "avx_vnni"}.isdisjoint(flags)


def multiplying_integers(path: Path, *, signed: bool) -> bytes:
    """The model of the file, with each product of activations and int8 weights made in integers.

    The weights are used as `signed` or as unsigned bytes; the model's results are the same where both are exact.
    """
    model = onnx.load(path)
    graph = model.graph
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    stored = dict(_stored(graph.node, tensors))
    nodes: list[NodeProto] = []
    rounded: set[str] = set()
    for node in graph.node:
        if node.op_type == "MatMul" and (weights := stored.get(node.input[1])):
            if node.input[0] not in rounded:
                nodes += _rounding(node.input[0])
                rounded.add(node.input[0])
            nodes += _product(node, weights, tensors, signed=signed)
        elif node.op_type == "Gather" and (weights := stored.get(node.input[0])):
            nodes += _looked_up(node, weights)
        else:
            nodes.append(node)
    constants = {_STEP: np.float32(1 / 127), _ZERO: np.uint8(128), _TINY: np.float32(1e-30)}
    tensors |= {name: numpy_helper.from_array(np.array(value), name) for name, value in constants.items()}
    _replace(graph, _used(nodes, graph.output), tensors)
    model.opset_import.append(helper.make_opsetid(_CONTRIB, 1))
    return model.SerializeToString()


def _stored(nodes: Iterable[NodeProto], tensors: dict[str, TensorProto]) -> Iterator[tuple[str, _Weights]]:
    """Each weight that is unpacked as cast(values) * scales, by the name of what comes of it."""
    casts = {node.output[0]: node.input[0] for node in nodes if node.op_type == "Cast"}
    for node in nodes:
        if node.op_type != "Mul" or node.input[1] not in tensors:
            continue
        values = casts.get(node.input[0], "")
        if values in tensors and tensors[values].data_type == TensorProto.INT8:
            yield node.output[0], _Weights(values=values, scales=node.input[1])


def _rounding(activations: str) -> list[NodeProto]:
    """Each token's activations divided by the greatest of them, in steps of 1/127 around 128."""
    size, greatest, unit = f"{activations}.size", f"{activations}.greatest", f"{activations}.unit"
    return [
        helper.make_node("Abs", [activations], [size]),
        helper.make_node("ReduceMax", [size], [f"{greatest}.raw"], axes=[-1], keepdims=1),
        helper.make_node("Max", [f"{greatest}.raw", _TINY], [greatest]),
        helper.make_node("Div", [activations, greatest], [unit]),
        helper.make_node("QuantizeLinear", [unit, _STEP, _ZERO], [f"{activations}.rounded"]),
    ]


def _product(node: NodeProto, weights: _Weights, tensors: dict[str, TensorProto], *, signed: bool) -> list[NodeProto]:
    """The product in integers, times the columns' scales, times what each token was divided by."""
    activations, output = node.input[0], node.output[0]
    values, scales = weights.values, f"{weights.scales}.flat"
    tensors[scales] = numpy_helper.from_array(numpy_helper.to_array(tensors[weights.scales]).reshape(-1), scales)
    if not signed:
        values = f"{weights.values}.unsigned"
        shifted = numpy_helper.to_array(tensors[weights.values]).astype(np.int16) + 128
        tensors[values] = numpy_helper.from_array(shifted.astype(np.uint8), values)
    inputs = [f"{activations}.rounded", values, _STEP, scales, _ZERO, "" if signed else _ZERO]
    return [
        helper.make_node("MatMulIntegerToFloat", inputs, [f"{output}.unit"], domain=_CONTRIB),
        helper.make_node("Mul", [f"{output}.unit", f"{activations}.greatest"], [output]),
    ]


def _looked_up(node: NodeProto, weights: _Weights) -> list[NodeProto]:
    """The rows asked for, unpacked once they are found."""
    output, rows = node.output[0], node.input[1]
    return [
        helper.make_node("Gather", [weights.values, rows], [f"{output}.values"], axis=0),
        helper.make_node("Gather", [weights.scales, rows], [f"{output}.scales"], axis=0),
        helper.make_node("Cast", [f"{output}.values"], [f"{output}.floats"], to=TensorProto.FLOAT),
        helper.make_node("Mul", [f"{output}.floats", f"{output}.scales"], [output]),
    ]


def _used(nodes: list[NodeProto], outputs: Iterable[onnx.ValueInfoProto]) -> list[NodeProto]:
    """The nodes, in order, from which the outputs come."""
    needed, used = {output.name for output in outputs}, list[NodeProto]()
    for node in reversed(nodes):
        if needed.intersection(node.output):
            needed.update(node.input)
            used.append(node)
    return used[::-1]


def _replace(graph: onnx.GraphProto, nodes: list[NodeProto], tensors: dict[str, TensorProto]) -> None:
    needed = {name for node in nodes for name in node.input}
    del graph.node[:], graph.initializer[:]
    graph.node.extend(nodes)
    graph.initializer.extend(tensor for name, tensor in tensors.items() if name in needed)
