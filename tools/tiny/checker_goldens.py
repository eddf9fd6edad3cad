"""Pictures with what checker.py reads in them, for the port of the checker that the study's programs use.

    python tools/tiny/checker_goldens.py --out tests/goldens/checker

Draws pictures of known scenes, disturbed and empty ones among them, and lists for each of them, and for the pictures in
tests/goldens/tiny, the scene that checker.py reads and the attributes that are wrong of several prompts: the right one,
one with each attribute changed, and one without a place.
"""
import argparse
import json
import os
import random

import numpy as np
import torch
from PIL import Image
from scipy import ndimage

from checker import ATTRIBUTES, compare, parse, wanted
from scenes import (BACKGROUNDS, CLASH, COLORS, PATTERNED, PATTERNS, POSITIONS, SHAPES, caption, render,
                    render_backgrounds, sample_scene, to_bytes)

SEED = 20262
PLAIN_DRAWINGS = 20
TINY = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "tests", "goldens", "tiny")


def drawn(scene):
    return to_bytes(render([scene]))[0]


def pasted(scene, other):
    """A scene with the object of another one on top."""
    picture, alone = drawn(scene), drawn({**other, "background": scene["background"], "pattern": scene["pattern"]})
    empty = to_bytes(render_backgrounds([scene]))[0]
    changed = np.abs(alone.astype(int) - empty).max(-1, keepdims=True) > 0
    return np.where(changed, alone, picture)


def noise(rng, amplitude, block):
    """Noise in square blocks, which a PNG stores in few bytes."""
    side = -(-128 // block)
    values = rng.integers(-amplitude, amplitude + 1, (side, side, 3))
    return values.repeat(block, 0).repeat(block, 1)[:128, :128]


def disturbed(kind, scene, other, rng):
    picture = drawn(scene)
    if kind == "empty":
        return to_bytes(render_backgrounds([scene]))[0]
    if kind == "two objects":
        return pasted(scene, other)
    if kind == "noisy":
        return (picture + noise(rng, 24, 2)).clip(0, 255).astype(np.uint8)
    if kind == "only noise":
        return (128 + noise(rng, 127, 8)).astype(np.uint8)
    if kind == "blurred":
        return ndimage.uniform_filter(picture, (9, 9, 1))
    if kind == "pale":
        return (picture * 0.55 + 90).astype(np.uint8)
    if kind == "shifted":
        return np.roll(picture, (25, -35), (0, 1))
    if kind == "stretched":
        return np.asarray(Image.fromarray(picture).resize((128, 230), Image.NEAREST))[50:178]
    if kind == "coarse":
        return np.asarray(Image.fromarray(picture).resize((21, 21), Image.BOX).resize((128, 128), Image.NEAREST))
    if kind == "rimmed":  # most of the object has another colour than its middle
        ring, dark = {**scene, "shape": "ring"}, {**scene, "shape": "ring", "color": "black"}
        picture, empty = drawn(ring), to_bytes(render_backgrounds([scene]))[0]
        alone = np.abs(drawn(dark).astype(int) - empty).sum(-1) > 350  # no shadow is as dark
        rim = alone & ~ndimage.binary_erosion(alone, iterations=3)
        return np.where(rim[..., None], COLORS[other["color"]], picture).astype(np.uint8)
    if kind == "thin":  # nothing is left of the object when its rim is taken away
        picture = to_bytes(render_backgrounds([scene]))[0].copy()
        picture[30:100, 62:66] = COLORS[scene["color"]]
        return picture
    if kind.startswith("radius"):  # on both sides of where small ends
        return drawn({**scene, "x": 0.5, "y": 0.5, "radius": float(kind.split()[1]) / 1000})
    if kind.startswith("offset"):  # on both sides of where the center ends
        return drawn({**scene, "x": 0.5 + float(kind.split()[1]) / 1000, "y": 0.5})
    if kind == "specks":
        picture = to_bytes(render_backgrounds([scene]))[0].copy()
        for number, side in enumerate((9, 10, 11, 12)):  # areas on both sides of the least area of an object
            picture[20 + 24 * number:20 + 24 * number + side, 30:30 + side] = COLORS["red"]
        return picture
    raise ValueError(kind)


KINDS = ["empty", "two objects", "noisy", "only noise", "blurred", "pale", "shifted", "stretched", "coarse", "specks",
         "rimmed", "thin", "radius 190", "radius 195", "radius 200", "radius 205", "offset 105", "offset 115",
         "offset -105", "offset -115", "offset 130"]


def changed_captions(scene):
    """Captions of a scene with one attribute wrong, and one without a place."""
    def after(names, name):
        names = list(names)
        return names[(names.index(name) + 1) % len(names)]
    changes = [{"shape": after(SHAPES, scene["shape"])}, {"color": after(COLORS, scene["color"])},
               {"size": after(["small", "large"], scene["size"])},
               {"position": after(POSITIONS, scene["position"])},
               {"background": after(PATTERNED, scene["background"]) if scene["background"] in PATTERNED else "gray"}]
    if scene["background"] in PATTERNED:
        changes.append({"pattern": after(PATTERNS, scene["pattern"])})
    return [caption({**scene, **change}) for change in changes] + \
        [caption(scene).replace(" " + POSITIONS[scene["position"]], "")]


def scene_of(prompt):
    return {"radius": 0.0, **wanted(prompt)}


def entry(name, picture, prompts):
    scene = parse(np.float32(picture) / 255)
    verdicts = [compare(wanted(prompt), scene) for prompt in prompts]
    return {"file": name, "scene": scene, "prompts": [
        {"prompt": prompt, "wrong": [a for a in ATTRIBUTES if not verdict[a]], "all": verdict["all"]}
        for prompt, verdict in zip(prompts, verdicts)]}


def plain(value):
    """numpy's numbers as JSON's."""
    return value.item()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True)
    options = parser.parse_args()
    os.makedirs(options.out, exist_ok=True)
    scenes, values = random.Random(SEED), np.random.default_rng(SEED)

    pictures = []
    for number in range(PLAIN_DRAWINGS):  # every shape, colour, background and place at least once
        scene = sample_scene(scenes)
        while scene["shape"] != SHAPES[number % 8] or scene["color"] != list(COLORS)[number % 10] \
                or scene["position"] != list(POSITIONS)[number % 5]:
            scene = sample_scene(scenes)
        pictures.append((f"{number:02d}.png", drawn(scene), scene))
    for number, kind in enumerate(KINDS, PLAIN_DRAWINGS):
        scene, other = sample_scene(scenes), sample_scene(scenes)
        name = f"{number:02d}_{kind.replace(' ', '_')}.png"
        pictures.append((name, disturbed(kind, scene, other, values), scene))

    entries = []
    for name, picture, scene in pictures:
        Image.fromarray(np.ascontiguousarray(picture)).save(os.path.join(options.out, name), optimize=True)
        entries.append(entry(name, picture, [caption(scene)] + changed_captions(scene)))
    with open(os.path.join(TINY, "golden.json")) as file:
        for item in json.load(file)["prompts"]:
            for run in item["runs"]:
                if "png" in run:
                    picture = np.asarray(Image.open(os.path.join(TINY, run["png"])).convert("RGB"))
                    prompts = [item["prompt"]] + changed_captions(scene_of(item["prompt"]))
                    entries.append(entry("../tiny/" + run["png"], picture, prompts))
    with open(os.path.join(options.out, "checker.json"), "w") as file:
        file.write("[\n" + ",\n".join(json.dumps(e, default=plain) for e in entries) + "\n]\n")
    seen = {b: sum(e["scene"]["background"] == b for e in entries) for b in BACKGROUNDS}
    right = sum(e["prompts"][0]["all"] for e in entries)
    print(f"{len(entries)} pictures, {right} wholly right; backgrounds: {seen}; clashes left out: {len(CLASH)}")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
