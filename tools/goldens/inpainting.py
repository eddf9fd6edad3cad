"""Inpainting runs, for tests/pipelines_inpainting.rs, with the small models of the packs sd1, sdxl and single.

    pip install torch==2.15.0 diffusers==0.42.1 transformers==5.23.0 safetensors pillow
    python tools/goldens/image_to_image.py
    python tools/goldens/inpainting.py

Writes tests/goldens/inpainting:
  conv_in.safetensors     `sd1`, `sdxl` and `single`: the first convolution [C, 9, 3, 3] that makes a U-Net of such a
                          pack one for inpainting; all its other weights stay
  unet.safetensors        `sample` [2, 9, h, w] and what the U-Net of sd1 makes of it at timestep 371: `prediction`
  NAME.safetensors, NAME.png   `latents` [N, 4, h, w] at the end of a run, and the first picture where it is compared
  cases.json              the runs; pictures and masks are those of tests/goldens/image-to-image

The pipelines are diffusers' own; where a run has a cache, a hook keeps what enters an up layer, as in caching.py.
"""
import json

import diffusers
import torch
from diffusers import StableDiffusionInpaintPipeline, StableDiffusionXLInpaintPipeline
from safetensors.torch import save_file

from image_to_image import GOLDENS, NEGATIVE, PROMPT, arguments, choose, load, picture, run

TARGET = GOLDENS / "inpainting"

# name, model, inputs of the U-Net, picture, sampler (None: the model's own), steps, strength, and what else differs
CASES = [
    ("ddim", "sd1", 9, "picture", "ddim", 10, None, {"png": True}),
    ("ddim_part", "sd1", 9, "picture", "ddim", 10, 0.7, {}),
    ("ddim_odd", "sd1", 9, "odd", "ddim", 8, 0.6, {}),
    ("ddim_two", "sd1", 9, "picture", "ddim", 8, 0.75, {"count": 2, "eta": 0.5}),
    ("ddim_unguided", "sd1", 9, "picture", "ddim", 8, 1.0, {"guidance": 1.0}),
    ("pndm", "sd1", 9, "picture", "pndm", 10, 1.0, {}),
    ("pndm_part", "sd1", 9, "picture", "pndm", 10, 0.6, {}),
    ("euler", "sd1", 9, "picture", "euler", 10, 1.0, {}),
    ("euler_ancestral", "sd1", 9, "picture", "euler-ancestral", 10, 0.6, {}),
    ("dpmpp_2m", "sd1", 9, "picture", "dpmpp-2m", 10, 0.5, {}),
    ("heun", "sd1", 9, "picture", "heun", 6, 0.7, {}),
    ("ddim_cached", "sd1", 9, "picture", "ddim", 14, 1.0, {"cache": [3, 0]}),
    ("euler_cached", "sd1", 9, "picture", "euler", 14, 0.8, {"cache": [3, 2]}),
    ("sdxl", "sdxl", 9, "picture", None, 8, 0.8, {"png": True}),
    ("sdxl_usual", "sdxl", 9, "picture", "ddim", 8, None, {}),
    ("single", "single", 9, "odd", "ddim", 6, 0.7, {}),
    ("blend_ddim", "sd1", 4, "picture", "ddim", 10, None, {"png": True}),
    ("blend_ddim_part", "sd1", 4, "picture", "ddim", 10, 0.6, {}),
    ("blend_ddim_eta", "sd1", 4, "picture", "ddim", 10, 0.6, {"eta": 1.0, "count": 2}),
    ("blend_pndm", "sd1", 4, "picture", "pndm", 10, 0.6, {}),
    ("blend_euler_ancestral", "sd1", 4, "picture", "euler-ancestral", 10, 1.0, {}),
    ("blend_heun", "sd1", 4, "picture", "heun", 6, 0.7, {}),
    ("blend_dpm2", "sd1", 4, "picture", "dpm2", 6, 0.7, {}),
    ("blend_dpmpp_2m", "sd1", 4, "picture", "dpmpp-2m", 10, 0.5, {}),
    ("blend_unipc", "sd1", 4, "picture", "unipc", 10, 0.7, {}),
    ("blend_lcm", "sd1", 4, "picture", "lcm", 6, 1.0, {}),
    ("blend_cached", "sd1", 4, "picture", "ddim", 14, 0.8, {"cache": [3, 1]}),
    ("blend_sdxl", "sdxl", 4, "picture", None, 8, 0.7, {}),
]


def convolutions():
    """First convolutions of 9 inputs, of fixed seeds, about as strong as those of the packs."""
    tensors = {}
    for number, (model, channels) in enumerate([("sd1", 16), ("sdxl", 24), ("single", 32)]):
        generator = torch.Generator().manual_seed(70 + number)
        weight = torch.randn(channels, 9, 3, 3, generator=generator) / 9
        tensors[model] = weight.half().float()
    return tensors


def with_nine_inputs(pipeline, weight):
    old = pipeline.unet.conv_in
    new = torch.nn.Conv2d(9, old.out_channels, 3, padding=1)
    new.weight.data.copy_(weight)
    new.bias.data.copy_(old.bias)
    pipeline.unet.conv_in = new
    pipeline.unet.register_to_config(in_channels=9)


def call_of_unet(pipeline):
    generator = torch.Generator().manual_seed(9)
    sample = torch.randn(2, 9, 10, 14, generator=generator)
    states = torch.randn(1, 77, pipeline.unet.config.cross_attention_dim, generator=generator)
    prediction = pipeline.unet(sample, 371, encoder_hidden_states=states.repeat(2, 1, 1)).sample
    tensors = {"sample": sample, "states": states, "prediction": prediction.contiguous()}
    save_file(tensors, TARGET / "unet.safetensors")


@torch.no_grad()
def main():
    TARGET.mkdir(exist_ok=True)
    weights = convolutions()
    save_file(weights, TARGET / "conv_in.safetensors")
    listed, pipelines = [], {}
    for number, (name, model, inputs, source, sampler, steps, strength, more) in enumerate(CASES):
        if (model, inputs) not in pipelines:
            kind = StableDiffusionXLInpaintPipeline if model == "sdxl" else StableDiffusionInpaintPipeline
            pipeline = load(model, kind)
            if inputs == 9:
                with_nine_inputs(pipeline, weights[model])
            pipelines = {(model, inputs): pipeline}
            own = pipeline.scheduler
            if (model, inputs) == ("sd1", 9):
                call_of_unet(pipeline)
        pipeline = pipelines[model, inputs]
        pipeline.scheduler = own
        choose(pipeline, sampler)
        call = arguments(name, model, steps, strength, more, 300 + number)
        image = picture(source)
        mask = picture("mask" if source == "picture" else "odd-mask")
        step = pipeline.vae_scale_factor
        size = {"height": image.height - image.height % step, "width": image.width - image.width % step}
        run(pipeline, {**call, **size, "image": image, "mask_image": mask}, more, TARGET, name)
        entry = {"name": name, "model": model, "inputs": inputs, "image": source, "steps": steps, "seed": 300 + number,
                 "guidance": more.get("guidance", 5.0), **more}
        if sampler is not None:
            entry["scheduler"] = sampler
        if strength is not None:
            entry["strength"] = strength
        listed.append(entry)
    versions = {module.__name__: module.__version__ for module in (torch, diffusers)}
    text = ",\n".join(json.dumps(entry) for entry in listed)
    (TARGET / "cases.json").write_text(
        f'{{"versions": {json.dumps(versions)},\n"prompt": "{PROMPT}", "negative_prompt": "{NEGATIVE}",\n'
        f'"cases": [\n{text}\n]}}\n')


if __name__ == "__main__":
    main()
