"""One operation on PyTorch, timed: `torch_operations.py cpu|cuda OPERATION ELEMENT SECONDS CALLS` (see timing.py)."""

import sys

import torch
import torch.nn.functional as functional

from timing import measure, numbers, parse


def operation_of(name, extents, tensor):
    """The operation as a function without arguments; `tensor(number, shape)` makes its inputs."""
    if name == "conv":
        inputs, outputs, side, window = extents
        image, weight = tensor(0, (1, inputs, side, side)), tensor(1, (outputs, inputs, window, window))
        bias = tensor(2, (outputs,))
        return lambda: functional.conv2d(image, weight, bias, padding=window // 2)
    if name == "gemm":
        rows, terms, columns = extents
        image, weight, bias = tensor(0, (rows, terms)), tensor(1, (terms, columns)), tensor(2, (columns,))
        return lambda: torch.addmm(bias, image, weight)
    if name == "attention":
        heads, tokens, head_size = extents
        parts = [tensor(number, (1, tokens, heads, head_size)).transpose(1, 2).contiguous() for number in range(3)]
        return lambda: functional.scaled_dot_product_attention(*parts)
    channels, side = extents
    image, scale, shift = tensor(0, (1, channels, side, side)), tensor(1, (channels,)), tensor(2, (channels,))
    return lambda: functional.silu(functional.group_norm(image, 32, scale, shift, 1e-5))


def main():
    device, spec, element, seconds, calls = sys.argv[1:]
    if device == "cpu" and element == "f16" and spec.startswith("conv"):
        sys.exit("error: PyTorch's convolutions in f16 take minutes on a CPU")
    run = operation_of(*parse(spec), lambda *what: torch.from_numpy(numbers(*what, element)).to(device))
    wait = torch.cuda.synchronize if device == "cuda" else lambda: None
    wait()

    def play(first):
        count = 1 if first else int(calls)
        outputs = [run() for _ in range(count)]
        wait()
        return outputs[0].flatten()[0], count

    name = torch.cuda.get_device_name() if device == "cuda" else "CPU"
    with torch.inference_mode():
        measure(play, float(seconds), version=torch.__version__, device=name)


main()
