"""Draws the evaluation prompts with diffusers (DDIM, eta 0) and scores the pictures.

    python tools/tiny/sample.py --out DIR [--model assets/tiny] [--weights TRAINING/ema] [--count 64]
"""
import argparse
import json
import os

import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from PIL import Image
from transformers import CLIPTextModel

from checker import ATTRIBUTES, PROMPTS, score, table
from pool import MODEL
from scenes import contact_sheet, to_bytes


def load_pipeline(model, weights=None):
    """The model in float32; `weights` may name a folder with another unet and text_encoder."""
    parts = {}
    if weights:
        parts["unet"] = UNet2DConditionModel.from_pretrained(os.path.join(weights, "unet")).float()
        parts["text_encoder"] = CLIPTextModel.from_pretrained(os.path.join(weights, "text_encoder")).float()
    pipeline = StableDiffusionPipeline.from_pretrained(model, torch_dtype=torch.float32, safety_checker=None, **parts)
    pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def initial_latents(seed):
    return torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(seed))


@torch.inference_mode()
def decode(pipeline, latents):
    """Latents as the scheduler leaves them -> uint8 pictures."""
    pictures = [pipeline.vae.decode(z[None] / pipeline.vae.config.scaling_factor).sample for z in latents]
    return to_bytes(torch.cat(pictures) / 2 + 0.5)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=MODEL)
    parser.add_argument("--weights", help="folder with other unet and text_encoder weights")
    parser.add_argument("--prompts", default=PROMPTS)
    parser.add_argument("--out", required=True)
    parser.add_argument("--count", type=int, default=64)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--guidance", type=float, default=7.5)
    parser.add_argument("--batch", type=int, default=16)
    options = parser.parse_args()
    torch.set_num_threads(1)
    os.makedirs(options.out, exist_ok=True)
    pipeline = load_pipeline(options.model, options.weights)
    with open(options.prompts) as file:
        entries = json.load(file)[:options.count]
    prompts, pictures = [e["prompt"] for e in entries], []
    for k in range(0, len(entries), options.batch):
        part = entries[k:k + options.batch]
        latents = pipeline(prompt=[e["prompt"] for e in part],
                           latents=torch.cat([initial_latents(e["seed"]) for e in part]),
                           num_inference_steps=options.steps, guidance_scale=options.guidance,
                           output_type="latent").images
        pictures += decode(pipeline, latents)
    for k, picture in enumerate(pictures):
        Image.fromarray(picture).save(os.path.join(options.out, f"{k:03d}.png"))
    shares, details = score(pictures, prompts)
    print(table(shares, len(details)))
    wrong = {k for k, d in enumerate(details) if not d["all"]}
    for k in sorted(wrong):
        print(f"{k:03d} {prompts[k]}: wrong {', '.join(a for a in ATTRIBUTES if not details[k][a])}")
    contact_sheet(pictures, prompts, os.path.join(options.out, "sheet.png"), wrong)
    with open(os.path.join(options.out, "scores.json"), "w") as file:
        json.dump({"prompts": len(details), "steps": options.steps, "guidance": options.guidance,
                   "share": shares}, file, indent=1)


if __name__ == "__main__":
    main()
