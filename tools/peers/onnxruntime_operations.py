"""One operation on ONNX Runtime's WebGPU provider, timed: `onnxruntime_operations.py OPERATION ELEMENT SECONDS CALLS`.

The inputs are constants of the model, on the device before the first call, and of each result one number comes back:
what is timed is the operation, not the way of its tensors over the bus. Optimisation of the graph is off, since it
would compute a model of constants beforehand; single operations leave it nothing else to do, and the ones used here are
those that it would choose itself: MultiHeadAttention, which is flash attention, and QuickGelu for SiLU.
"""

import sys

import numpy
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from timing import measure, numbers, parse

MICROSOFT = "com.microsoft"


def nodes_of(name, extents):
    """The shapes of the inputs, fixed inputs more, and the nodes from `0`, `1`, `2` to `result`."""
    node = helper.make_node
    if name == "conv":
        inputs, outputs, side, window = extents
        shapes = [(1, inputs, side, side), (outputs, inputs, window, window), (outputs,)]
        return shapes, {}, 4, [node("Conv", ["0", "1", "2"], ["result"], pads=[window // 2] * 4)]
    if name == "gemm":
        rows, terms, columns = extents
        return [(rows, terms), (terms, columns), (columns,)], {}, 2, [node("Gemm", ["0", "1", "2"], ["result"])]
    if name == "attention":
        heads, tokens, head_size = extents
        attention = node("MultiHeadAttention", ["0", "1", "2"], ["result"], domain=MICROSOFT, num_heads=heads)
        return [(1, tokens, heads * head_size)] * 3, {}, 3, [attention]
    # Group norm as PyTorch exports it.
    channels, side = extents
    fixed = {
        "groups": numpy.array([1, 32, -1]),
        "image": numpy.array([1, channels, side, side]),
        "ones": numpy.ones(32),
        "zeros": numpy.zeros(32),
    }
    nodes = [
        node("Reshape", ["0", "groups"], ["grouped"]),
        node("InstanceNormalization", ["grouped", "ones", "zeros"], ["normal"], epsilon=1e-5),
        node("Reshape", ["normal", "image"], ["normal image"]),
        node("Mul", ["normal image", "1"], ["scaled"]),
        node("Add", ["scaled", "2"], ["shifted"]),
        node("QuickGelu", ["shifted"], ["result"], domain=MICROSOFT, alpha=1.0),
    ]
    return [(1, channels, side, side), (channels, 1, 1), (channels, 1, 1)], fixed, 4, nodes


def model_of(name, extents, element, calls):
    """A model without inputs that computes the operation `calls` times and gives one number of each."""
    kind, values = (TensorProto.FLOAT16, numpy.float16) if element == "f16" else (TensorProto.FLOAT, numpy.float32)
    shapes, fixed, rank, single = nodes_of(name, extents)
    constants = {str(number): numbers(number, shape, element) for number, shape in enumerate(shapes)}
    constants |= {key: value.astype(values) if value.dtype == float else value for key, value in fixed.items()}
    constants |= {"begin": numpy.zeros(rank, numpy.int64), "end": numpy.ones(rank, numpy.int64)}
    nodes, firsts = [], []
    for call in range(calls):
        own = {name for node in single for name in node.output}
        for node in single:
            copy = type(node)()
            copy.CopyFrom(node)
            copy.input[:] = [f"{name} of {call}" if name in own else name for name in node.input]
            copy.output[:] = [f"{name} of {call}" for name in node.output]
            nodes.append(copy)
        firsts.append(f"first of {call}")
        nodes.append(helper.make_node("Slice", [f"result of {call}", "begin", "end"], [firsts[-1]]))
    nodes.append(helper.make_node("Concat", firsts, ["values"], axis=0))
    output = helper.make_tensor_value_info("values", kind, [calls] + [1] * (rank - 1))
    tensors = [numpy_helper.from_array(value, key) for key, value in constants.items()]
    graph = helper.make_graph(nodes, "operation", [], [output], tensors)
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid(MICROSOFT, 1)]
    model = helper.make_model(graph, opset_imports=opsets)
    model.ir_version = 9
    return model.SerializeToString()


def session_of(model):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    # Without this an operation that the provider lacks would quietly run on the CPU.
    options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    return onnxruntime.InferenceSession(model, options, providers=["WebGpuExecutionProvider"])


def main():
    spec, element, seconds, calls = sys.argv[1:]
    name, extents = parse(spec)
    single = session_of(model_of(name, extents, element, 1))
    several = single if int(calls) == 1 else session_of(model_of(name, extents, element, int(calls)))

    def play(first):
        [values] = (single if first else several).run(None, {})
        return values.ravel()[0], len(values)

    measure(play, float(seconds), version=onnxruntime.__version__)


main()
