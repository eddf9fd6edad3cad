"""Reads pictures back into scenes and compares them with their prompts; nothing in it is learned.

    python tools/tiny/checker.py DIR [--prompts assets/tiny/prompts.json] [--json FILE] [--sheet FILE.png]
        DIR holds 000.png, 001.png, ... for the prompts of the list, in its order (a prefix will do)
    python tools/tiny/checker.py --self-test
        scores 400 freshly drawn pictures
"""
import argparse
import json
import math
import os
import random

import numpy as np
import torch
from PIL import Image
from scipy import ndimage

from scenes import (BACKGROUNDS, COLORS, PATTERNED, PATTERNS, POSITIONS, SHAPES, SIDE, caption, contact_sheet,
                    coordinates, render, render_backgrounds, sample_scene, shape_distances, to_bytes)

ATTRIBUTES = ["background", "pattern", "count", "shape", "color", "size", "position"]
PROMPTS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "assets", "tiny", "prompts.json")
GRID = 48
_cache = {}


def backgrounds():
    """All backgrounds: their names and pictures [N,SIDE,SIDE,3]."""
    if "backgrounds" not in _cache:
        names = [(b, "plain") for b in BACKGROUNDS] + [(b, p) for b in PATTERNED for p in PATTERNS[1:]]
        pictures = render_backgrounds([{"background": b, "pattern": p} for b, p in names])
        _cache["backgrounds"] = names, pictures.permute(0, 2, 3, 1).numpy()
    return _cache["backgrounds"]


def sample_box(mask, box):
    """The mask within a square box around (y0, y1, x0, x1), sampled at GRID x GRID points."""
    y0, y1, x0, x1 = box
    steps = ((np.arange(GRID) + 0.5) / GRID - 0.5) * max(y1 - y0, x1 - x0) * 1.04
    rows = np.floor((y0 + y1) / 2 + steps).astype(int)
    columns = np.floor((x0 + x1) / 2 + steps).astype(int)
    limit = len(mask) - 1
    inside = ((rows >= 0) & (rows <= limit))[:, None] & ((columns >= 0) & (columns <= limit))[None]
    return mask[np.ix_(rows.clip(0, limit), columns.clip(0, limit))] & inside


def bounds(mask):
    rows, columns = np.where(mask)
    return rows.min(), rows.max() + 1, columns.min(), columns.max() + 1


def outlines():
    """Filled shapes at five rotations: (name, grid, width, x and y of the box centre), radius one."""
    if "outlines" not in _cache:
        result, count, extent = [], 257, 1.4
        x, y = coordinates(count, extent)
        for degrees in (-6, -3, 0, 3, 6):
            c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
            for name, distances in zip(SHAPES, shape_distances(x * c + y * s, y * c - x * s)):
                mask = (distances < 0).numpy()
                box = bounds(mask)
                unit = 2 * extent / count
                result.append((name, sample_box(mask, box), max(box[1] - box[0], box[3] - box[2]) * unit,
                               ((box[2] + box[3]) / 2 - count / 2) * unit, ((box[0] + box[1]) / 2 - count / 2) * unit))
        _cache["outlines"] = result
    return _cache["outlines"]


def perceptual(color):
    """Luma and two colour differences, weighted."""
    red, green, blue = color[..., 0], color[..., 1], color[..., 2]
    luma = 0.3 * red + 0.59 * green + 0.11 * blue
    return np.stack((0.7 * luma, 1.2 * (red - luma), blue - luma), -1)


def read_object(picture, mask):
    """Shape, colour, place and radius of the object that a mask covers."""
    box = bounds(mask)
    grid = sample_box(mask, box)
    overlap, outline = max(((grid & o[1]).sum() / (grid | o[1]).sum(), k) for k, o in enumerate(outlines()))
    name, _, width, shift_x, shift_y = outlines()[outline]
    radius = max(box[1] - box[0], box[3] - box[2]) / SIDE / width
    core = ndimage.binary_erosion(mask, iterations=2)
    color = np.median(picture[core if core.sum() >= 12 else mask], 0)
    palette = np.array(list(COLORS.values()), np.float32) / 255
    nearest = np.abs(perceptual(palette) - perceptual(color)).sum(-1).argmin()
    return {"shape": name, "color": list(COLORS)[nearest], "radius": radius, "overlap": float(overlap),
            "x": (box[2] + box[3]) / 2 / SIDE - shift_x * radius, "y": (box[0] + box[1]) / 2 / SIDE - shift_y * radius}


def parse(picture):
    """A picture [SIDE,SIDE,3] in 0..1 -> background, pattern and the objects, largest first."""
    rows, columns = np.mgrid[0:SIDE, 0:SIDE]
    border = np.minimum(np.minimum(rows, columns), np.minimum(SIDE - 1 - rows, SIDE - 1 - columns)) < 12
    names, pictures = backgrounds()
    differences = np.abs(pictures[:, border] - picture[border]).mean(-1)
    best = np.minimum(differences, 0.25).mean(-1).argmin()
    (background, pattern), expected = names[best], pictures[best]
    candidates = [expected]
    if pattern in ("striped", "checkered"):  # near an edge either tone will do
        candidates += [f(expected, (5, 5, 1)) for f in (ndimage.minimum_filter, ndimage.maximum_filter)]
    rest = np.full((SIDE, SIDE), 9.0)  # distance from the background, in shadow or not
    for candidate in candidates:
        for light in np.linspace(0.66, 1.03, 10):
            rest = np.minimum(rest, np.abs(perceptual(picture) - perceptual(candidate * light)).sum(-1))
    labels, count = ndimage.label(ndimage.binary_opening(rest > 0.115))
    areas = ndimage.sum_labels(np.ones_like(labels), labels, np.arange(1, count + 1))
    objects = [read_object(picture, labels == k + 1) for k in np.argsort(-areas) if areas[k] >= 110]
    return {"background": background, "pattern": pattern, "objects": objects}


def wanted(prompt):
    """The words of a prompt as a scene."""
    words = prompt.split()
    tail = words[words.index("background") - 2:-1]
    pattern = tail[1] if tail[1] in PATTERNS else "plain"
    position = next((p for p, phrase in POSITIONS.items() if f" {phrase} " in prompt), "center")
    return {"size": words[1], "color": words[2], "shape": words[3], "position": position,
            "pattern": pattern, "background": tail[1] if pattern == "plain" else tail[0]}


def compare(want, got):
    """Which attributes are right."""
    result = dict.fromkeys(ATTRIBUTES, False)
    result.update(background=want["background"] == got["background"], pattern=want["pattern"] == got["pattern"],
                  count=len(got["objects"]) == 1)
    if got["objects"]:
        found = got["objects"][0]
        x, y = found["x"] - 0.5, found["y"] - 0.5
        position = ("left" if x < 0 else "right") if abs(x) > abs(y) else ("top" if y < 0 else "bottom")
        if max(abs(x), abs(y)) < 0.11:
            position = "center"
        result.update(shape=found["shape"] == want["shape"], color=found["color"] == want["color"],
                      size=("small" if found["radius"] < 0.197 else "large") == want["size"],
                      position=position == want["position"])
    result["all"] = all(result.values())
    return result


def score(pictures, prompts):
    """uint8 pictures and their prompts -> share of right attributes, and the details per picture."""
    details = [compare(wanted(text), parse(np.float32(p) / 255)) for p, text in zip(pictures, prompts)]
    return {k: round(float(np.mean([d[k] for d in details])), 4) for k in ATTRIBUTES + ["all"]}, details


def table(shares, count):
    return "\n".join([f"{'prompts':<12}{count:>6}"] + [f"{k:<12}{v * 100:6.1f} %" for k, v in shares.items()])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?")
    parser.add_argument("--prompts", default=PROMPTS)
    parser.add_argument("--json")
    parser.add_argument("--sheet")
    parser.add_argument("--self-test", action="store_true")
    options = parser.parse_args()
    if options.self_test:
        rng = random.Random(4242)
        scenes = [sample_scene(rng) for _ in range(400)]
        prompts = [caption(s) for s in scenes]
        pictures = [p for k in range(0, 400, 20) for p in to_bytes(render(scenes[k:k + 20]))]
    else:
        with open(options.prompts) as file:
            prompts = [entry["prompt"] for entry in json.load(file)]
        paths = [os.path.join(options.folder, f"{k:03d}.png") for k in range(len(prompts))]
        paths = paths[:sum(map(os.path.exists, paths))]
        pictures = [np.asarray(Image.open(p).convert("RGB")) for p in paths]
    shares, details = score(pictures, prompts)
    print(table(shares, len(details)))
    if options.json:
        with open(options.json, "w") as file:
            json.dump({"prompts": len(details), "share": shares,
                       "wrong": {f"{k:03d}": [a for a in ATTRIBUTES if not d[a]]
                                 for k, d in enumerate(details) if not d["all"]}}, file, indent=1)
    if options.sheet:
        contact_sheet(pictures, prompts, options.sheet, {k for k, d in enumerate(details) if not d["all"]})


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
