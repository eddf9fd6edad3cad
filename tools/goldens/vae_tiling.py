"""Tiled decodes of the small Stable Diffusion 1 model of tests/goldens/sd1, for tests/vae_tiling.rs.

    pip install torch==2.15.0 diffusers==0.42.1 transformers safetensors
    python tools/goldens/vae_tiling.py --model tests/goldens/sd1/model --out tests/goldens/vae_tiling

Writes
  decode.safetensors   for some shapes of latents and tiles `N.latents` [1, C, h, w] and `N.image` [1, 3, H, W], what
                       AutoencoderKL makes of them with enable_tiling(); cases.json has the tile's side in latents
  loop.safetensors     a whole run with enable_tiling(): `latents` [1, C, h, w] at the end of the denoising, and
                       `image` [1, 3, H, W] in -1 to 1; cases.json has the request
"""
import argparse
import json
import os

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline
from safetensors.torch import save_file

# Latents and tile: edges of one latent, edges narrower than the overlap, a picture of one row of tiles.
CASES = [((13, 19), 8), ((8, 20), 8), ((12, 14), 12)]
REQUEST = {"prompt": "a small boat", "height": 128, "width": 200, "steps": 4, "guidance_scale": 4.0, "seed": 11}


def decodes(folder):
    tensors, cases = {}, []
    generator = torch.Generator().manual_seed(3)
    for number, (shape, side) in enumerate(CASES):
        # The side of a tile follows from `sample_size`.
        vae = AutoencoderKL.from_pretrained(folder, subfolder="vae", sample_size=8 * side).eval()
        assert vae.tile_latent_min_size == side
        vae.enable_tiling()
        latents = torch.randn(1, 4, *shape, generator=generator)
        tensors[f"{number}.latents"] = latents
        tensors[f"{number}.image"] = vae.decode(latents).sample.contiguous()
        cases.append({"side": side})
    return tensors, cases


def loop(folder):
    pipeline = StableDiffusionPipeline.from_pretrained(folder, safety_checker=None, requires_safety_checker=False)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config)
    pipeline.vae.enable_tiling()
    latents = pipeline(
        REQUEST["prompt"], height=REQUEST["height"], width=REQUEST["width"], num_inference_steps=REQUEST["steps"],
        guidance_scale=REQUEST["guidance_scale"], generator=torch.Generator().manual_seed(REQUEST["seed"]),
        output_type="latent").images
    image = pipeline.vae.decode(latents / pipeline.vae.config.scaling_factor).sample
    whole = pipeline.vae
    whole.disable_tiling()
    apart = (whole.decode(latents / whole.config.scaling_factor).sample - image).abs().max().item()
    print(f"tiled and whole decode differ by up to {apart:.3f}")
    return {"latents": latents.contiguous(), "image": image.clamp(-1, 1).contiguous()}


@torch.no_grad()
def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--out", required=True)
    arguments = parser.parse_args()
    os.makedirs(arguments.out, exist_ok=True)
    tensors, cases = decodes(arguments.model)
    save_file(tensors, os.path.join(arguments.out, "decode.safetensors"))
    save_file(loop(arguments.model), os.path.join(arguments.out, "loop.safetensors"))
    with open(os.path.join(arguments.out, "cases.json"), "w") as file:
        json.dump({"decodes": cases, "loop": REQUEST}, file, indent=1)
        file.write("\n")


if __name__ == "__main__":
    main()
