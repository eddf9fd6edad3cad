"""Teaches the text encoder to carry the position of the object, leaving its other outputs as they are.

    python tools/tiny/teach_text.py --from DIR --out DIR

A text encoder that was trained with a U-Net which did not use the position has forgotten it: captions that
differ only in `left` and `right` come out alike.  Here its outputs, from the position words on, are
regressed onto the old outputs plus one of five fixed directions.
"""
import argparse
import copy
import math
import os
import random

import torch
from transformers import CLIPTextModel, CLIPTokenizer

from pool import MODEL, tokens
from scenes import POSITIONS, caption, sample_scene


def directions(width, length):
    """Five vectors of the given length with sum zero."""
    basis = torch.linalg.qr(torch.randn(width, 5, generator=torch.Generator().manual_seed(5)))[0].T
    basis = basis - basis.mean(0)
    return basis / basis.norm(dim=1, keepdim=True) * length


def teach(text_encoder, tokenizer, steps=500, batch=64, rate=7e-4, length=6.0, report=print):
    """Trains the encoder in place."""
    old = copy.deepcopy(text_encoder).eval()
    shift = directions(text_encoder.config.hidden_size, length)
    optimizer = torch.optim.AdamW(text_encoder.parameters(), lr=rate, betas=(0.9, 0.99), weight_decay=0.0, fused=True)
    rng = random.Random(9)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = rate * min(1, (step + 1) / 30) * 0.5 * (1 + math.cos(math.pi * step / steps))
        scenes = [sample_scene(rng) for _ in range(batch)]
        captions = [caption(s, rng) for s in scenes]
        ids = tokens(tokenizer, captions)
        with torch.no_grad():
            target = old(ids)[0]
        for k, (scene, text) in enumerate(zip(scenes, captions)):
            # token 0 is the start of text; "a large red circle on the right": the position is known at token 7
            known = 7 if POSITIONS[scene["position"]] in text else 6
            target[k, known:] += shift[list(POSITIONS).index(scene["position"])]
        loss = (text_encoder(ids)[0] - target).square().sum(-1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 50 == 49:
            report(f"step {step + 1}: squared distance {loss.item():.2f} (of {length ** 2:.0f})", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--from", dest="start", default=MODEL)
    parser.add_argument("--out", required=True, help="receives the text_encoder")
    options = parser.parse_args()
    tokenizer = CLIPTokenizer.from_pretrained(os.path.join(options.start, "tokenizer"))
    text_encoder = CLIPTextModel.from_pretrained(os.path.join(options.start, "text_encoder")).float()
    teach(text_encoder, tokenizer)
    text_encoder.save_pretrained(os.path.join(options.out, "text_encoder"))


if __name__ == "__main__":
    main()
