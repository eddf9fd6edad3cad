"""Draws the evaluation prompts with deepcache itself, for checker.py to score.

    cargo build --release --example generate
    python tools/tiny/draw_with_engine.py PICTURES [--generate target/release/examples/generate] [-- OPTIONS...]
    python tools/tiny/checker.py PICTURES

Writes PICTURES/000.png, 001.png, ... and their times. Needs nothing but the standard library.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--generate", type=Path, default=ROOT / "target/release/examples/generate")
    parser.add_argument("--count", type=int, default=64)
    # argparse takes no list of options behind other ones.
    end = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    arguments = parser.parse_args(sys.argv[1:end])
    arguments.folder.mkdir(parents=True, exist_ok=True)
    entries = json.loads((ROOT / "assets/tiny/prompts.json").read_text())[: arguments.count]
    for number, entry in enumerate(entries):
        picture = arguments.folder / f"{number:03d}.png"
        statistics = picture.with_suffix(".json")
        command = [arguments.generate, entry["prompt"], "--seed", str(entry["seed"]), "--scheduler", "ddim",
                   "--steps", "50", "--quiet", "--output", picture, "--stats", statistics, *sys.argv[end + 1:]]
        subprocess.run(command, check=True)
        seconds = json.loads(statistics.read_text())["denoise_s"]
        print(f"{picture.name} {seconds:6.2f} s  {entry['prompt']}", file=sys.stderr)


if __name__ == "__main__":
    main()
