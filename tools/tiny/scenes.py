"""Pictures of one coloured shape on a patterned background, and their captions.

A scene is a dictionary: background, pattern, shape, color, size, position (the words of the
caption) and x, y, radius, rotation (the drawing; lengths in units of the image side).

    python tools/tiny/scenes.py sheet.png       draws 32 random scenes
    python tools/tiny/scenes.py prompts.json    writes the 64 evaluation prompts with their seeds
"""
import argparse
import json
import math
import random

import torch
import torch.nn.functional as F

SIDE = 128
SHAPES = ["circle", "square", "triangle", "star", "ring", "cross", "diamond", "heart"]
COLORS = {  # sRGB
    "red": (222, 38, 44), "orange": (247, 134, 22), "yellow": (252, 212, 28),
    "green": (38, 158, 62), "cyan": (24, 190, 208), "blue": (40, 82, 214),
    "purple": (128, 50, 178), "pink": (244, 92, 168), "white": (250, 250, 250),
    "black": (34, 34, 38),
}
BACKGROUNDS = {  # pale, so that every object colour stands out
    "white": (244, 244, 242), "gray": (150, 152, 156), "black": (44, 46, 54),
    "yellow": (252, 238, 160), "green": (172, 222, 172), "blue": (166, 204, 246),
    "purple": (208, 186, 240), "pink": (250, 200, 214),
}
PATTERNS = ["plain", "gradient", "striped", "checkered"]
PATTERNED = ["gray", "yellow", "green", "blue", "purple", "pink"]  # colours that may carry a pattern
POSITIONS = {"center": "in the center", "left": "on the left", "right": "on the right",
             "top": "at the top", "bottom": "at the bottom"}
DIRECTION = {"center": (0, 0), "left": (-1, 0), "right": (1, 0), "top": (0, -1), "bottom": (0, 1)}
RADIUS = {"small": (0.135, 0.16), "large": (0.235, 0.27)}
OFFSET = {"small": 0.27, "large": 0.20}
CLASH = {("white", "white"), ("black", "black"), ("pink", "pink"), ("yellow", "yellow"), ("black", "gray")}

EVALUATION_SEED = 20261122
EVALUATION_COUNT = 64
EVALUATION_CENTER = 0.4  # share of centred objects in the evaluation list


def sample_scene(rng, center=0.2):
    """A random scene; `center` is the share of centred objects."""
    pattern = rng.choices(PATTERNS, [0.46, 0.18, 0.18, 0.18])[0]
    background = rng.choice(list(BACKGROUNDS) if pattern == "plain" else PATTERNED)
    colors = [c for c in COLORS if (c, background) not in CLASH
              and not (pattern in ("striped", "checkered") and c == "white")]
    rng.random()  # an unused draw: keeps the evaluation list equal to that of the first evaluations
    size = rng.choice(["small", "large"])
    rest = (1 - center) / 4
    position = rng.choices(list(POSITIONS), [center, rest, rest, rest, rest])[0]
    return {
        "pattern": pattern, "background": background, "size": size, "position": position,
        "shape": rng.choice(SHAPES), "color": rng.choice(colors),
        "radius": rng.uniform(*RADIUS[size]),
        "x": 0.5 + DIRECTION[position][0] * OFFSET[size] + rng.uniform(-0.025, 0.025),
        "y": 0.5 + DIRECTION[position][1] * OFFSET[size] + rng.uniform(-0.025, 0.025),
        "rotation": rng.uniform(-math.radians(6), math.radians(6)),
    }


def caption(scene, rng=None):
    """The caption; with a generator, a centred object sometimes goes without its position."""
    where = " " + POSITIONS[scene["position"]]
    if rng and scene["position"] == "center" and rng.random() < 0.3:
        where = ""
    pattern = "" if scene["pattern"] == "plain" else " " + scene["pattern"]
    return (f"a {scene['size']} {scene['color']} {scene['shape']}{where}"
            f" on a {scene['background']}{pattern} background")


def evaluation_scenes():
    """The fixed evaluation list; prompt number k is drawn with seed 1000 + k."""
    rng = random.Random(EVALUATION_SEED)
    return [sample_scene(rng, EVALUATION_CENTER) for _ in range(EVALUATION_COUNT)]


# ---------------------------------------------------------------- drawing
def shape_distances(x, y):
    """Signed distances (negative inside) of all shapes of radius one; x right, y down."""
    ax, ay = x.abs(), y.abs()
    round_ = torch.sqrt(x * x + y * y)

    def box(half_x, half_y, corner=0.06):
        qx, qy = ax - half_x + corner, ay - half_y + corner
        outside = torch.sqrt(qx.clamp(min=0) ** 2 + qy.clamp(min=0) ** 2)
        return outside + torch.maximum(qx, qy).clamp(max=0) - corner

    def triangle():  # equilateral, apex up
        k = math.sqrt(3.0)
        px, py = ax - 1.0, 0.22 - y + 1.0 / k
        fold = px + k * py > 0
        px, py = torch.where(fold, (px - k * py) / 2, px), torch.where(fold, (-k * px - py) / 2, py)
        px = px - px.clamp(-2.0, 0)
        return -torch.sqrt(px ** 2 + py ** 2) * torch.sign(py) - 0.03

    def star():  # five points, one up
        radius, inner = 1.06, 0.48
        kx, ky = 0.809016994375, -0.587785252292
        sx, sy = ax, 0.02 - y
        d = 2 * (kx * sx + ky * sy).clamp(min=0)
        sx, sy = sx - d * kx, sy - d * ky
        d = 2 * (-kx * sx + ky * sy).clamp(min=0)
        sx, sy = (sx + d * kx).abs(), sy - d * ky - radius
        bx, by = -inner * ky, inner * kx - 1.0
        h = ((sx * bx + sy * by) / (bx * bx + by * by)).clamp(0, radius)
        return torch.sqrt((sx - bx * h) ** 2 + (sy - by * h) ** 2) * torch.sign(sy * bx - sx * by) - 0.02

    def heart():
        scale = 1.0 / 1.72
        hx, hy = ax * scale, (0.86 - y) * scale
        lobe = torch.sqrt((hx - 0.25) ** 2 + (hy - 0.75) ** 2) - math.sqrt(2) / 4
        m = 0.5 * (hx + hy).clamp(min=0)
        tip = torch.sqrt(torch.minimum(hx ** 2 + (hy - 1.0) ** 2, (hx - m) ** 2 + (hy - m) ** 2))
        return torch.where(hx + hy > 1.0, lobe, tip * torch.sign(hx - hy)) / scale

    return [
        round_ - 0.96,
        box(0.84, 0.84),
        triangle(),
        star(),
        (round_ - 0.72).abs() - 0.24,
        torch.minimum(box(0.94, 0.31), box(0.31, 0.94)),
        (ax / 0.74 + ay - 1.0) * (0.74 / math.sqrt(1 + 0.74 ** 2)) - 0.03,
        heart(),
    ]


def coordinates(count, extent):
    """Pixel centres of a count x count grid over [-extent, extent]: x, y."""
    line = ((torch.arange(count, dtype=torch.float32) + 0.5) / count * 2 - 1) * extent
    y, x = torch.meshgrid(line, line, indexing="ij")
    return x, y


TEMPLATE_EXTENT = 2.0
_templates = []


def distance(scenes, x, y, shift_x=0.0, shift_y=0.0):
    """Signed distances [N,H,W] of the objects, looked up in a table of the shapes."""
    if not _templates:
        _templates.append(torch.stack(shape_distances(*coordinates(256, TEMPLATE_EXTENT)))[:, None])
    cx, cy, radius, rotation = [torch.tensor([s[k] for s in scenes]).view(-1, 1, 1)
                                for k in ("x", "y", "radius", "rotation")]
    u, v = (x - cx - shift_x) / radius, (y - cy - shift_y) / radius
    cosine, sine = rotation.cos(), rotation.sin()
    grid = torch.stack((u * cosine + v * sine, v * cosine - u * sine), -1) / TEMPLATE_EXTENT
    table = _templates[0][[SHAPES.index(s["shape"]) for s in scenes]]
    return F.grid_sample(table, grid, padding_mode="border", align_corners=False)[:, 0] * radius


def render_backgrounds(scenes):
    """Pictures [N,3,SIDE,SIDE] of the backgrounds alone."""
    x, y = [(v + 1) / 2 for v in coordinates(SIDE, 1.0)]
    base = torch.tensor([BACKGROUNDS[s["background"]] for s in scenes]).float().view(-1, 3, 1, 1) / 255
    light = base + (1 - base) * 0.62  # the second tone of a pattern

    def wave(c):  # square wave of period 1/4 with soft edges, -1..1
        return (((c * 4) % 1.0 - 0.5).abs() - 0.25).mul(SIDE / 4).clamp(-0.5, 0.5) * 2

    share = {"plain": torch.ones_like(x), "striped": wave(x) / 2 + 0.5, "checkered": wave(x) * wave(y) / 2 + 0.5}
    image = torch.empty(len(scenes), 3, SIDE, SIDE)
    for k, scene in enumerate(scenes):
        if scene["pattern"] == "gradient":
            image[k] = light[k] * (1 - y) + base[k] * 0.72 * y
        else:
            a = share[scene["pattern"]]
            image[k] = base[k] * a + light[k] * (1 - a)
    return image * (1.0 - 0.10 * ((x - 0.5) ** 2 + (y - 0.5) ** 2))  # faint vignette


@torch.no_grad()
def render(scenes):
    """Pictures [N,3,SIDE,SIDE] in 0..1: anti-aliased, a soft shadow, shaded from the upper left."""
    image = render_backgrounds(scenes)
    x, y = [((v + 1) / 2)[None] for v in coordinates(SIDE, 1.0)]
    shadow = torch.sigmoid(-distance(scenes, x, y, 0.022, 0.03) / 0.014)[:, None] * 0.30
    image = image * (1 - shadow)
    cover = (0.5 - distance(scenes, x, y) * SIDE).clamp(0, 1)[:, None]
    color = torch.tensor([COLORS[s["color"]] for s in scenes]).float().view(-1, 3, 1, 1) / 255
    cx, cy, radius = [torch.tensor([s[k] for s in scenes]).view(-1, 1, 1) for k in ("x", "y", "radius")]
    slope = (((x - cx) * 0.5 + (y - cy) * 0.85) / radius).clamp(-1, 1)[:, None]
    shade = torch.where(slope < 0, color - (1 - color) * slope * 0.22, color * (1 - 0.20 * slope))
    return (image * (1 - cover) + shade * cover).clamp(0, 1)


def contact_sheet(images, captions, path, wrong=(), columns=8):
    """Pictures (uint8 arrays) with their captions below; captions whose number is in `wrong` are red."""
    from PIL import Image, ImageDraw
    rows = (len(images) + columns - 1) // columns
    sheet = Image.new("RGB", (columns * 172, rows * 172), "white")
    draw = ImageDraw.Draw(sheet)
    for k, (image, text) in enumerate(zip(images, captions)):
        left, top = k % columns * 172 + 4, k // columns * 172 + 2
        sheet.paste(Image.fromarray(image), (left, top))
        lines = [""]
        for word in text.split():
            if len(lines[-1]) + len(word) > 26:
                lines.append("")
            lines[-1] += word + " "
        for n, line in enumerate(lines):
            draw.text((left, top + 129 + 12 * n), line, fill="red" if k in wrong else "black")
    sheet.save(path)


def to_bytes(images):
    """[N,3,H,W] in 0..1 -> list of uint8 arrays [H,W,3]."""
    return list((images.clamp(0, 1).permute(0, 2, 3, 1) * 255).round().byte().numpy())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", help="a .png or a .json file")
    parser.add_argument("--seed", type=int, default=0, help="of the sheet")
    options = parser.parse_args()
    if options.out.endswith(".json"):
        prompts = [{"prompt": caption(s), "seed": 1000 + k} for k, s in enumerate(evaluation_scenes())]
        with open(options.out, "w") as file:
            json.dump(prompts, file, indent=1)
            file.write("\n")
    else:
        rng = random.Random(options.seed)
        scenes = [sample_scene(rng) for _ in range(32)]
        contact_sheet(to_bytes(render(scenes)), [caption(s, rng) for s in scenes], options.out)


if __name__ == "__main__":
    main()
