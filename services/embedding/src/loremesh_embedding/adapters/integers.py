"""Has onnxruntime multiply matrices in 8 bits, where a model's graph would unpack its weights to floats first.

A short text is then not held up by reading 40 MB of unpacked weights. Weights are used exactly as stored; what they are
multiplied with is rounded token by token, so that a text's vectors never depend on its neighbours in a batch: to a
byte, or to two where it comes from a layer's normalisation, since a few features there are far greater than all others.
"""

import platform
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

_CONTRIB = "com.microsoft"
_ZERO = "integers.zero"
_COARSE = "integers.coarse"
_FINE = "integers.fine"
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
    normalised = {node.output[0] for node in graph.node if node.op_type == "LayerNormalization"}
    nodes: list[NodeProto] = []
    rounded: set[str] = set()
    for node in graph.node:
        if node.op_type == "MatMul" and (weights := stored.get(node.input[1])):
            steps = (_COARSE, _FINE) if node.input[0] in normalised else (_COARSE,)
            if node.input[0] not in rounded:
                nodes += _rounding(node.input[0], steps)
                rounded.add(node.input[0])
            nodes += _product(node, steps, _bytes(weights, tensors, signed=signed))
        elif node.op_type == "Gather" and (weights := stored.get(node.input[0])):
            nodes += _looked_up(node, weights)
        else:
            nodes.append(node)
    constants = {_COARSE: np.float32(1 / 127), _FINE: np.float32(1 / 127 / 254), _ZERO: np.uint8(128)}
    constants |= {_TINY: np.float32(1e-30)}
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


def _bytes(weights: _Weights, tensors: dict[str, TensorProto], *, signed: bool) -> tuple[str, str, str]:
    """Names of the matrix as a product takes it, of its columns' scales, and of its zero, empty for none."""
    scales = f"{weights.scales}.flat"
    tensors[scales] = numpy_helper.from_array(numpy_helper.to_array(tensors[weights.scales]).reshape(-1), scales)
    if signed:
        return weights.values, scales, ""
    values = f"{weights.values}.unsigned"
    shifted = numpy_helper.to_array(tensors[weights.values]).astype(np.int16) + 128
    tensors[values] = numpy_helper.from_array(shifted.astype(np.uint8), values)
    return values, scales, _ZERO


def _rounding(activations: str, steps: Sequence[str]) -> Iterator[NodeProto]:
    """Each token's activations divided by the greatest of them, then in bytes of these steps around 128.

    A further byte holds what the one before it left.
    """
    size, greatest, left = f"{activations}.size", f"{activations}.greatest", f"{activations}.unit"
    yield helper.make_node("Abs", [activations], [size])
    yield helper.make_node("ReduceMax", [size], [f"{greatest}.raw"], axes=[-1], keepdims=1)
    yield helper.make_node("Max", [f"{greatest}.raw", _TINY], [greatest])
    yield helper.make_node("Div", [activations, greatest], [left])
    for number, step in enumerate(steps):
        digit, value, rest = (f"{activations}.{name}.{number}" for name in ("digit", "value", "rest"))
        yield helper.make_node("QuantizeLinear", [left, step, _ZERO], [digit])
        yield helper.make_node("DequantizeLinear", [digit, step, _ZERO], [value])
        yield helper.make_node("Sub", [left, value], [rest])
        left = rest


def _product(node: NodeProto, steps: Sequence[str], weights: tuple[str, str, str]) -> Iterator[NodeProto]:
    """The products of each byte in integers, times the columns' scales, together times what a token was divided by."""
    activations, output = node.input[0], node.output[0]
    values, scales, zero = weights
    parts = [f"{output}.part.{number}" for number, _ in enumerate(steps)]
    for number, (step, part) in enumerate(zip(steps, parts, strict=True)):
        inputs = [f"{activations}.digit.{number}", values, step, scales, _ZERO, zero]
        yield helper.make_node("MatMulIntegerToFloat", inputs, [part], domain=_CONTRIB)
    unit = parts[0]
    if len(parts) > 1:
        unit = f"{output}.unit"
        yield helper.make_node("Sum", parts, [unit])
    yield helper.make_node("Mul", [unit, f"{activations}.greatest"], [output])


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
