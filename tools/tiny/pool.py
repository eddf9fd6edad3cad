"""Draws the training pool once: latents and token numbers of many scenes, in chunk files.

    python tools/tiny/pool.py --out DIR --scenes 100000

The training program reads whatever chunks are there and looks for new ones now and then.
Scenes whose caption is one of the evaluation prompts are left out.
"""
import argparse
import os
import random

import torch
from transformers import CLIPTokenizer

from latents import latents
from scenes import caption, evaluation_scenes, render, sample_scene

CHUNK = 5000
HERE = os.path.dirname(os.path.abspath(__file__))
MODEL = os.path.join(HERE, "..", "..", "assets", "tiny")


def tokens(tokenizer, texts):
    return tokenizer(texts, padding="max_length", max_length=tokenizer.model_max_length,
                     return_tensors="pt")["input_ids"]


def draw(rng, tokenizer, count, held_out):
    """`count` scenes: latents [N,4,16,16] f16 and token numbers [N,24] i16."""
    parts, texts = [], []
    while len(texts) < count:
        scenes = [sample_scene(rng) for _ in range(50)]
        scenes = [s for s in scenes if caption(s) not in held_out]
        parts.append(latents(render(scenes)).half())
        texts += [caption(s, rng) for s in scenes]
    return {"latents": torch.cat(parts), "tokens": tokens(tokenizer, texts).short()}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=MODEL, help="diffusers directory (for its tokenizer)")
    parser.add_argument("--out", required=True)
    parser.add_argument("--scenes", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(1)
    os.makedirs(options.out, exist_ok=True)
    tokenizer = CLIPTokenizer.from_pretrained(os.path.join(options.model, "tokenizer"))
    torch.save(tokens(tokenizer, [""])[0].short(), os.path.join(options.out, "empty.pt"))
    held_out = {caption(s) for s in evaluation_scenes()}
    for k in range(options.scenes // CHUNK):
        path = os.path.join(options.out, f"chunk-{options.seed}-{k:03d}.pt")
        if os.path.exists(path):
            continue
        chunk = draw(random.Random(options.seed * 1000 + k), tokenizer, CHUNK, held_out)
        torch.save(chunk, path + ".part")
        os.rename(path + ".part", path)


if __name__ == "__main__":
    main()
