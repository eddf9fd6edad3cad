"""What the peers in Python share: the numbers that they compute with, and how a call is timed.

A peer is a program `PEER OPERATION ELEMENT SECONDS CALLS` that prints one line of JSON:

    first   seconds of the first call: compiling and tuning, without opening the device and filling the inputs
    wall    seconds of a call: the median over rounds of CALLS calls and one wait for the device
    cores   seconds of computing of all threads of the process for a call: the mean over the same rounds
    value   the first number of the result, by which the peers are compared: a wrong result is no fast result

The first call is alone, one round after it does not count, then there are three rounds or SECONDS of them.
The operations are those of `compare.py`.
"""

import json
import resource
import time

import numpy


def parse(operation):
    """`conv:320,320,64,3` -> `conv`, `[320, 320, 64, 3]`."""
    name, extents = operation.split(":")
    return name, [int(extent) for extent in extents.split(",")]


def numbers(tensor, shape, element):
    """Of tensor number `tensor` of an operation, from -0.5 to 0.5, the same for every peer."""
    count = int(numpy.prod(shape))
    mixed = (numpy.arange(count, dtype=numpy.uint32) + numpy.uint32(tensor * 0x01000003)) * numpy.uint32(2654435761)
    values = (mixed >> numpy.uint32(8)).astype(numpy.float32) / numpy.float32(1 << 24) - numpy.float32(0.5)
    return values.reshape(shape).astype(numpy.float16 if element == "f16" else numpy.float32)


def core_seconds():
    """Of all threads of this process, those that have ended too."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def measure(play, seconds, **more):
    """`play(first)` makes one call, or as many as a round has, waits for the device and returns the result's first
    number and the number of calls."""
    begun = time.perf_counter()
    value, _ = play(True)
    first = time.perf_counter() - begun
    _, calls = play(False)
    times, cores, begun = [], core_seconds(), time.perf_counter()
    while len(times) < 3 or time.perf_counter() - begun < seconds:
        before = time.perf_counter()
        play(False)
        times.append(time.perf_counter() - before)
    cores = (core_seconds() - cores) / len(times) / calls
    wall = sorted(times)[len(times) // 2] / calls
    line = {"first": first, "wall": wall, "cores": cores, "value": float(value), "rounds": len(times)}
    print(json.dumps(line | more))
