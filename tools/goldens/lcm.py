"""Writes tests/goldens/lcm: a small latent consistency model, whose U-Net reads the guidance scale, and runs of it.

    python3 tools/goldens/lcm.py

The networks are those of the shape of single_file.py with `time_cond_proj_dim`, with random weights of a fixed seed in
float16; the pipeline is diffusers' LatentConsistencyModelPipeline with its scheduler. Made with torch 2.15,
diffusers 0.42.1, transformers 5.23.
"""

import json
import shutil

import torch
from diffusers import LatentConsistencyModelPipeline, LCMScheduler, UNet2DConditionModel
from safetensors.torch import save_file
from transformers import CLIPTokenizer

from single_file import GOLDENS, LAYERS, PROMPT, build

TARGET = GOLDENS / "lcm"


def model():
    base = build()
    torch.manual_seed(17)
    unet = UNet2DConditionModel(
        sample_size=64, block_out_channels=(32, 64), layers_per_block=LAYERS, attention_head_dim=8,
        cross_attention_dim=64, down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"), time_cond_proj_dim=48)
    for value in unet.parameters():
        with torch.no_grad():
            value.mul_(1.5) if value.ndim > 1 else value.add_(0.2 * torch.randn_like(value))
            value.copy_(value.half().float())
    with torch.no_grad():
        unet.time_embedding.cond_proj.weight.mul_(4)
    scheduler = LCMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", set_alpha_to_one=True)
    return LatentConsistencyModelPipeline(
        vae=base.vae, text_encoder=base.text_encoder, tokenizer=base.tokenizer, unet=unet.eval(), scheduler=scheduler,
        safety_checker=None, feature_extractor=None, requires_safety_checker=False)


def main():
    pipeline = model()
    pipeline.set_progress_bar_config(disable=True)
    shutil.rmtree(TARGET, ignore_errors=True)
    pipeline.to(torch.float16).save_pretrained(TARGET / "model", variant="fp16")
    pipeline.to(torch.float32)
    for folder in ["tokenizer"]:
        shutil.rmtree(TARGET / "model" / folder)
        shutil.copytree(GOLDENS / "sd1" / "model" / folder, TARGET / "model" / folder)
    (TARGET / "golden").mkdir()
    cases = []
    for name, steps, guidance in [("usual", 4, 8.5), ("weak", 4, 1.0), ("two", 2, 3.0)]:
        call = dict(prompt=PROMPT, num_inference_steps=steps, guidance_scale=guidance, height=32, width=32)
        latents = pipeline(**call, generator=torch.Generator().manual_seed(5), output_type="latent").images
        save_file({"out.latents": latents}, TARGET / "golden" / f"{name}.safetensors")
        cases.append(dict(name=name, steps=steps, guidance=guidance, seed=5))
        print(name, latents.std().item(), latents.flatten()[:4].tolist())
    (TARGET / "cases.json").write_text(json.dumps(dict(prompt=PROMPT, size=32, cases=cases), indent=1) + "\n")


if __name__ == "__main__":
    with torch.no_grad():
        main()
