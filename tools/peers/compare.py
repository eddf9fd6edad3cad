"""Times the operations of a U-Net on this crate and on its peers, operation by operation, and keeps the table.

Called by `run`, which knows where the peers are. Every peer but ours speaks the protocol of `timing.py`.
"""

import argparse
import csv
import datetime
import io
import json
import math
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

ROUNDS = 2


@dataclass(frozen=True)
class Operation:
    """What the peers are asked for, how ours is called in `benches/support/shapes.rs`, and what it takes."""

    spec: str
    ours: str
    title: str
    macs: int
    # How large the numbers of the result are: its standard deviation.
    scale: float


def convolution(channels, side):
    terms = 9 * channels
    title = f"conv 3x3 {channels}->{channels} at {side}x{side}"
    spec = f"conv:{channels},{channels},{side},3"
    return Operation(spec, f"1 x {title}", title, channels * terms * side * side, math.sqrt(terms) / 12)


def product(rows, terms, columns):
    title = f"{rows}x{terms}x{columns}"
    scale = math.sqrt(terms) / 12
    spec = f"gemm:{rows},{terms},{columns}"
    return Operation(spec, f"matmul {title}", f"GEMM {title}", rows * terms * columns, scale)


def attention(heads, tokens, size):
    ours = f"attention 1x{heads} heads of {size}, {tokens} on {tokens}"
    title = f"self-attention {heads} heads of {size}, {tokens} tokens"
    scale = math.sqrt(1 / 12 / tokens)
    return Operation(f"attention:{heads},{tokens},{size}", ours, title, 2 * heads * tokens**2 * size, scale)


def group_norm(channels, side):
    ours = f"group_norm 1x{side}x{side}x{channels}"
    title = f"group norm 32 + SiLU {channels} at {side}x{side}"
    return Operation(f"group_norm:{channels},{side}", ours, title, 0, 0.3)


OPERATIONS = [
    convolution(320, 64),
    convolution(640, 32),
    convolution(1280, 16),
    product(4096, 320, 2560),
    product(1024, 640, 5120),
    product(256, 1280, 10240),
    attention(8, 4096, 40),
    attention(8, 1024, 80),
    group_norm(320, 64),
]

# How far a result may be from PyTorch's, in its standard deviations.
TOLERANCE = {"f32": 2e-3, "f16": 2e-2}


@dataclass
class Peer:
    name: str
    # `ours`, `gpu` for those that use a graphics API, `yardstick` for the others.
    kind: str
    version: str
    command: list


@dataclass
class Figures:
    """Of one operation on one peer: the smallest of all rounds, and the first call of the first and the last."""

    seconds: float = math.inf
    firsts: list = field(default_factory=list)
    value: float = math.nan
    error: str = ""


class Failed(Exception):
    pass


class Runner:
    """Starts the peers, each in a process of its own."""

    def __init__(self, options, caches):
        self.options, self.caches = options, caches
        self.calls, self.unit = 1, "cores"

    def start(self, command, caches):
        # Caches of drivers and tuners begin empty, so that the first call is one.
        environment = {
            **os.environ,
            "XDG_CACHE_HOME": str(caches),
            "__GL_SHADER_DISK_CACHE_PATH": str(caches),
            "CUDA_CACHE_PATH": str(caches / "cuda"),
        }
        limit = self.options.limit
        try:
            # Outside of every Cargo project, or burn would keep its tuning there.
            done = subprocess.run(command, env=environment, cwd=caches, timeout=limit, capture_output=True, text=True)
        except subprocess.TimeoutExpired:
            raise Failed(f"took more than {limit:.0f} s") from None
        except OSError as error:
            raise Failed(f"cannot be started: {error.strerror}") from None
        if done.returncode != 0:
            lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
            said = next((line for line in reversed(lines) if "rror" in line or "panicked" in line), (lines or [""])[-1])
            said = said.replace(str(Path.home()), "~")
            raise Failed(f"ended with {done.returncode}: {said[:160]}")
        return done

    def ours(self, peer, operation, element, caches, seconds):
        """What `benches/kernels.rs` says of one shape, and of the device."""
        numbers = ["--seconds", str(seconds), "--calls", str(self.calls)]
        done = self.start([*peer.command, operation.ours, "--csv", "--dtype", element, *numbers], caches)
        [row] = list(csv.DictReader(io.StringIO(done.stdout.strip())))
        found = {
            "first": float(row["first, s"]),
            "wall": 1e-3 * float(row["ms"]),
            "cores": float(row["core-seconds"] or "nan"),
        }
        # The driver may have said something before.
        return found, next((line for line in done.stderr.splitlines() if ", values in " in line), "")

    def figures(self, peer, operation, element, seconds):
        """Of one round."""
        if peer.kind == "ours":
            return self.ours(peer, operation, element, self.caches, seconds)[0]
        done = self.start([*peer.command, operation.spec, element, str(seconds), str(self.calls)], self.caches)
        found = json.loads(done.stdout.strip().splitlines()[-1])
        peer.version = found.get("version", peer.version)
        return found

    def device(self, peer):
        """Asks ours for the device, and knows from its name what counts: cores of a software adapter, or the clock."""
        with tempfile.TemporaryDirectory() as caches:
            line = self.ours(peer, OPERATIONS[-1], "f32", Path(caches), 0.0)[1]
        match = re.match(r"(.*) \((vulkan|metal|dx12|gl|webgpu), (.*)\), values in ", line, re.IGNORECASE)
        if match is None:
            raise Failed(f"no device in: {line}")
        if not re.search("llvmpipe|swiftshader", match[1], re.IGNORECASE):
            self.calls, self.unit = 20, "wall"
        return match[1], f"{match[2]}, {match[3]}"


def measure(runner, peers, operation, element):
    """Ours, then each peer, and all of that again."""
    found = {peer.name: Figures() for peer in peers}
    for _ in range(ROUNDS):
        for peer in peers:
            figures = found[peer.name]
            if figures.error:
                continue
            try:
                one = runner.figures(peer, operation, element, runner.options.seconds)
            except (Failed, ValueError, KeyError, IndexError) as error:
                figures.error = str(error)
                print(f"  {peer.name}: {error}", flush=True)
                continue
            figures.seconds = min(figures.seconds, one[runner.unit])
            figures.firsts.append(one["first"])
            figures.value = one.get("value", math.nan)
            print(f"  {peer.name}: {json.dumps(one)}", flush=True)
    return found


def reference(runner, peers, operation):
    """The first number of the result as the first yardstick computes it in f32; not a number if there is none."""
    for peer in peers:
        if peer.kind == "yardstick":
            try:
                return runner.figures(peer, operation, "f32", seconds=0.0)["value"]
            except (Failed, ValueError, KeyError, IndexError):
                break
    return math.nan


def deviation(found, operation, name, reference):
    """Of a result from the yardstick's, in standard deviations of the result."""
    return abs(found[name].value - reference) / operation.scale


def shown(value):
    """With three digits that count, for people."""
    return f"{value:.{max(0, 2 - math.floor(math.log10(value)))}f}" if 0 < value < math.inf else "-"


def markdown(columns, rows):
    widths = [max(len(row[index]) for row in [columns, *rows]) for index in range(len(columns))]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    lines = [columns, rule, *rows]
    padded = [[text.ljust(widths[0]), *map(str.rjust, texts, widths[1:])] for text, *texts in lines]
    return "\n".join("| " + " | ".join(line) + " |" for line in padded)


class Report:
    """The table for people and for spreadsheets."""

    def __init__(self, peers, unit):
        self.peers, self.unit = peers, unit
        self.rows, self.records, self.remarks = [], [], []

    def add(self, operation, element, found, reference):
        unit = 1e3 if self.unit == "wall" else 1.0
        cells, record = [], {"operation": operation.title, "values": element, "GMAC": 1e-9 * operation.macs}
        for peer in self.peers:
            figures = found[peer.name]
            if figures.error:
                cells.append("-")
                self.remarks.append(f"{peer.name}, {operation.title}, {element}: not run: {figures.error}")
                continue
            away = deviation(found, operation, peer.name, reference)
            wrong = away > TOLERANCE[element]
            cells.append(shown(unit * figures.seconds) + ("*" if wrong else ""))
            if wrong:
                remark = f"its result is {away:.3f} standard deviations away from {reference:.5g} ({figures.value:.5g})"
                self.remarks.append(f"* {peer.name}, {operation.title}, {element}: {remark}")
            record |= {
                f"{peer.name}": unit * figures.seconds,
                f"{peer.name} first call, s": figures.firsts[0],
                f"{peer.name} first call with warm caches, s": figures.firsts[-1],
                f"{peer.name} deviation": "" if math.isnan(away) else f"{away:.2g}",
            }
        ours = found[next(peer.name for peer in self.peers if peer.kind == "ours")].seconds
        best = min((found[peer.name].seconds for peer in self.peers if peer.kind == "gpu"), default=math.inf)
        ratio = best / ours if math.isfinite(best) and math.isfinite(ours) else math.nan
        record["best GPU peer / ours"] = "" if math.isnan(ratio) else ratio
        firsts = [f"{figures.firsts[0]:.2f}" if figures.firsts else "-" for figures in found.values()]
        name = f"{operation.title}, {element}"
        macs = f"{1e-9 * operation.macs:.2f}" if operation.macs else "-"
        self.rows.append([name, macs, *cells, "-" if math.isnan(ratio) else f"{ratio:.2f}", *firsts])
        self.records.append(record)

    def markdown(self):
        names = [peer.name for peer in self.peers]
        columns = ["operation", "GMAC", *names, "best GPU peer / ours", *(f"first call: {name}, s" for name in names)]
        return markdown(columns, self.rows)

    def csv(self, header):
        fields = ["operation", "values", "GMAC", *(peer.name for peer in self.peers), "best GPU peer / ours"]
        for what in ("first call, s", "first call with warm caches, s", "deviation"):
            fields += [f"{peer.name} {what}" for peer in self.peers]
        text = io.StringIO()
        writer = csv.DictWriter(text, fields, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.records)
        return "".join(f"# {line}\n" for line in header + self.remarks) + text.getvalue()


def load():
    path = Path("/proc/loadavg")
    return path.read_text().split()[0] if path.exists() else "unknown"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--directory", type=Path, required=True)
    parser.add_argument("--record", type=Path, required=True, help="benches/record of the repository")
    parser.add_argument("--peer", action="append", default=[], help="NAME|KIND|VERSION|COMMAND")
    parser.add_argument("--not-run", action="append", default=[], help="NAME: why")
    parser.add_argument("--elements", default="f32 f16")
    parser.add_argument("--only", default="", help="operations whose names hold this; nothing is kept")
    parser.add_argument("--seconds", type=float, default=2.0, help="for each operation, peer and round")
    parser.add_argument("--limit", type=float, default=900.0, help="seconds after which a peer is given up")
    options = parser.parse_args()
    peers = [Peer(*(parts := text.split("|", 3))[:3], shlex.split(parts[3])) for text in options.peer]
    # The running peer ends with this program, and its caches go.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    caches = Path(tempfile.mkdtemp(prefix="caches-", dir=options.directory))
    try:
        compare(options, peers, Runner(options, caches))
    finally:
        shutil.rmtree(caches, ignore_errors=True)


def compare(options, peers, runner):
    before, begun = load(), datetime.datetime.now(datetime.UTC)
    [ours] = [peer for peer in peers if peer.kind == "ours"]
    device, driver = runner.device(ours)
    report = Report(peers, runner.unit)
    for operation in OPERATIONS:
        for element in options.elements.split():
            if options.only in operation.title:
                print(f"{operation.title}, {element}", flush=True)
                found = measure(runner, peers, operation, element)
                report.add(operation, element, found, reference(runner, peers, operation))
    unit = "wall milliseconds" if runner.unit == "wall" else "core-seconds of all threads"
    minutes = (datetime.datetime.now(datetime.UTC) - begun).total_seconds() / 60
    header = [
        f"device: {device}; driver: {driver}",
        f"{unit} for a call, batch 1, the smallest of {ROUNDS} rounds; {begun:%Y-%m-%d}, {minutes:.0f} minutes",
        f"load of the machine when it began: {before}, of {os.cpu_count()} cores",
        "versions: " + ", ".join(f"{peer.name} {peer.version}" for peer in peers),
        *(f"not run: {text}" for text in options.not_run),
    ]
    print("\n" + "\n".join(header) + "\n\n" + report.markdown() + "\n")
    print("\n".join(report.remarks))
    if options.only:
        return
    folder = options.record / "-".join(re.findall("[a-z0-9]+", device.lower()))
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{begun:%Y-%m-%d}-peers-{options.elements.replace(' ', '-')}.csv"
    path.write_text(report.csv(header))
    print(f"wrote {path}")


main()
