"""Runs from a picture, for tests/pipelines_image.rs, with the small models of the packs sd1, sd2, sdxl, lcm and single.

    pip install torch==2.15.0 diffusers==0.42.1 transformers==5.23.0 safetensors pillow
    python tools/goldens/image_to_image.py

Writes tests/goldens/image-to-image:
  picture.png, odd.png, mask.png, odd-mask.png   what runs start from; odd.png has sides that are no multiple of 8
  resized.safetensors     odd.png and others in other sizes by PIL's Lanczos filter, as VaeImageProcessor resizes: u8
  tiles.safetensors       `N.moments` [1, 8, h, w] of the VAE of sd1 with enable_tiling(), for crops of picture.png
  NAME.safetensors, NAME.png   `latents` [N, 4, h, w] at the end of a run, and the first picture where it is compared
  cases.json              the runs

The pipelines are diffusers' own; where a run has a cache, a hook keeps what enters an up layer, as in caching.py.
"""
import json
from pathlib import Path

import diffusers
import numpy
import torch
from diffusers import (
    AutoencoderKL, LatentConsistencyModelImg2ImgPipeline, StableDiffusionImg2ImgPipeline,
    StableDiffusionXLImg2ImgPipeline)
from PIL import Image
from safetensors.torch import save_file
from torch.nn import functional

from caching import Cut
from schedulers import CLASSES, NAMED


GOLDENS = Path(__file__).resolve().parents[2] / "tests" / "goldens"
TARGET = GOLDENS / "image-to-image"
PROMPT, NEGATIVE = "a photo of a red fox in the snow", "blurry, low quality"

# name, model, picture, sampler (None: the model's own), steps, strength, and what else differs
CASES = [
    ("ddim", "sd1", "picture", "ddim", 10, 0.8, {"png": True}),
    ("ddim_usual", "sd1", "picture", "ddim", 5, None, {}),
    ("ddim_eta", "sd1", "picture", "ddim", 10, 0.5, {"eta": 0.6}),
    ("ddim_all", "sd1", "picture", "ddim", 6, 1.0, {}),
    ("ddim_odd", "sd1", "odd", "ddim", 10, 0.35, {"png": True}),
    ("ddim_two", "sd1", "picture", "ddim", 10, 0.5, {"count": 2, "eta": 1.0}),
    ("ddim_unguided", "sd1", "picture", "ddim", 10, 0.5, {"guidance": 1.0}),
    ("pndm", "sd1", "picture", "pndm", 10, 0.6, {}),
    ("pndm_most", "sd1", "picture", "pndm", 10, 0.95, {}),
    ("euler", "sd1", "picture", "euler", 10, 0.75, {}),
    ("euler_ancestral", "sd1", "picture", "euler-ancestral", 10, 0.6, {}),
    ("heun", "sd1", "picture", "heun", 8, 0.6, {}),
    ("dpm2", "sd1", "picture", "dpm2", 8, 0.5, {}),
    ("lms", "sd1", "picture", "lms", 10, 0.6, {}),
    ("dpmpp_2m", "sd1", "picture", "dpmpp-2m", 10, 0.5, {}),
    ("dpmpp_2m_sde", "sd1", "picture", "dpmpp-2m-sde", 10, 0.5, {}),
    ("dpmpp_2s", "sd1", "picture", "dpmpp-2s", 10, 0.7, {}),
    ("unipc", "sd1", "picture", "unipc", 10, 0.7, {}),
    ("deis", "sd1", "picture", "deis", 10, 0.4, {}),
    ("ddpm", "sd1", "picture", "ddpm", 10, 0.5, {}),
    ("lcm_sampler", "sd1", "picture", "lcm", 8, 0.5, {}),
    ("ddim_cached", "sd1", "picture", "ddim", 14, 0.8, {"cache": [3, 0]}),
    ("euler_cached", "sd1", "picture", "euler", 14, 0.5, {"cache": [3, 2]}),
    ("sd2", "sd2", "picture", None, 8, 0.6, {}),
    ("sdxl", "sdxl", "picture", None, 10, 0.6, {"png": True}),
    ("sdxl_usual", "sdxl", "picture", "ddim", 10, None, {}),
    ("sdxl_cached", "sdxl", "picture", "ddim", 12, 0.75, {"cache": [3, 1]}),
    ("lcm", "lcm", "odd", None, 4, 0.5, {"guidance": 8.5}),
    ("lcm_much", "lcm", "odd", None, 3, 0.9, {"guidance": 3.0}),
    ("single", "single", "odd", "ddim", 6, 0.7, {}),
]


def pictures():
    """Smooth shapes with a little noise, of a fixed seed."""
    generator = torch.Generator().manual_seed(41)
    for name, (height, width) in [("picture", (128, 128)), ("odd", (101, 150))]:
        coarse = torch.rand(1, 3, 5, 6, generator=generator)
        smooth = functional.interpolate(coarse, size=(height, width), mode="bicubic")[0].permute(1, 2, 0)
        noise = 0.03 * torch.randn(height, width, 3, generator=generator)
        values = (255 * (smooth + noise).clamp(0, 1)).round().to(torch.uint8).numpy()
        Image.fromarray(values).save(TARGET / f"{name}.png", optimize=True)
    mask = numpy.zeros((128, 128, 3), dtype=numpy.uint8)
    mask[20:90, 50:120] = [255, 255, 255]
    mask[90:100, 50:120] = [200, 120, 30]  # brightness 133: inside
    mask[10:20, 50:120] = [127, 127, 127]  # outside
    mask[20:52, 20:50] = [255, 60, 255]  # brightness 140
    Image.fromarray(mask).save(TARGET / "mask.png", optimize=True)
    Image.fromarray(mask).resize((150, 101)).save(TARGET / "odd-mask.png", optimize=True)


def picture(name):
    return Image.open(TARGET / f"{name}.png").convert("RGB")


def resized():
    tensors = {}
    for name, sizes in [("odd", [(96, 144), (40, 152), (101, 60), (200, 150)]), ("picture", [(16, 300), (64, 64)])]:
        for height, width in sizes:
            found = picture(name).resize((width, height), resample=Image.Resampling.LANCZOS)
            tensors[f"{name}.{height}.{width}"] = torch.from_numpy(numpy.array(found))
    tensors["brightness"] = torch.from_numpy(numpy.array(picture("odd").convert("L")))
    save_file(tensors, TARGET / "resized.safetensors")


def tiles():
    tensors, cases = {}, []
    for number, ((height, width), side) in enumerate([((104, 120), 8), ((64, 128), 12), ((96, 40), 4)]):
        vae = AutoencoderKL.from_pretrained(GOLDENS / "sd1" / "model", subfolder="vae", sample_size=8 * side).eval()
        vae.enable_tiling()
        assert vae.tile_latent_min_size == side
        values = torch.from_numpy(numpy.array(picture("picture")))[:height, :width].permute(2, 0, 1)[None].float()
        moments = vae.encode(values / 255 * 2 - 1).latent_dist.parameters
        tensors[f"{number}.moments"] = moments.contiguous()
        cases.append({"height": height, "width": width, "side": side})
    save_file(tensors, TARGET / "tiles.safetensors")
    return cases


def load(model, kind):
    quiet = {"safety_checker": None, "requires_safety_checker": False}
    if model == "single":
        from single_file import build
        parts = build()
        return kind(vae=parts.vae, text_encoder=parts.text_encoder, tokenizer=parts.tokenizer, unet=parts.unet,
                    scheduler=parts.scheduler, feature_extractor=None, **quiet)
    folder = GOLDENS / model / "model"
    variant = {"variant": "fp16"} if list((folder / "unet").glob("*.fp16.*")) else {}
    if "XL" not in kind.__name__:
        variant.update(quiet)
    return kind.from_pretrained(folder, torch_dtype=torch.float32, **variant)


def kind_of(model):
    if model == "sdxl":
        return StableDiffusionXLImg2ImgPipeline
    return LatentConsistencyModelImg2ImgPipeline if model == "lcm" else StableDiffusionImg2ImgPipeline


def choose(pipeline, sampler):
    if sampler is not None:
        known = getattr(diffusers, CLASSES[sampler])
        # What a model in one file leaves out, the released ones have.
        clips = {} if "clip_sample" in pipeline.scheduler.config else {"clip_sample": False}
        pipeline.scheduler = known.from_config(pipeline.scheduler.config, **NAMED.get(sampler, {}), **clips)
    pipeline.set_progress_bar_config(disable=True)


class Cached:
    """Every `interval`-th call of a U-Net is full; the others get the feature of the last full one."""

    def __init__(self, unet, interval, branch):
        self.cut, self.interval, self.call, self.kept = Cut(unet, branch), interval, 0, None
        self.handles = [unet.register_forward_pre_hook(self.before), unet.register_forward_hook(self.after)]

    def before(self, *_):
        self.cut.put = None if self.call % self.interval == 0 else self.kept

    def after(self, *_):
        if self.call % self.interval == 0:
            self.kept = self.cut.feature
        self.call += 1

    def remove(self):
        self.cut.layer._forward_pre_hooks.clear()
        for handle in self.handles:
            handle.remove()


def arguments(name, model, steps, strength, more, seed):
    call = {"prompt": PROMPT, "num_inference_steps": steps, "guidance_scale": more.get("guidance", 5.0),
            "num_images_per_prompt": more.get("count", 1), "generator": torch.Generator().manual_seed(seed),
            "output_type": "latent"}
    if model != "lcm":
        call["negative_prompt"] = NEGATIVE
        call["eta"] = more.get("eta", 0.0)
    if strength is not None:
        call["strength"] = strength
    return call


def run(pipeline, call, more, folder, name):
    cached = Cached(pipeline.unet, *more["cache"]) if "cache" in more else None
    latents = pipeline(**call).images
    if cached:
        cached.remove()
    save_file({"latents": latents.contiguous()}, folder / f"{name}.safetensors")
    if more.get("png"):
        decoded = pipeline.vae.decode(latents[:1] / pipeline.vae.config.scaling_factor).sample
        pipeline.image_processor.postprocess(decoded, output_type="pil")[0].save(folder / f"{name}.png", optimize=True)
    print(f"{name:20} {latents.std().item():.4f} {latents.flatten()[:3].tolist()}")


@torch.no_grad()
def main():
    TARGET.mkdir(exist_ok=True)
    pictures()
    resized()
    tiled = tiles()
    listed, pipelines = [], {}
    for number, (name, model, source, sampler, steps, strength, more) in enumerate(CASES):
        if model not in pipelines:
            pipelines = {model: load(model, kind_of(model))}
            own = pipelines[model].scheduler
        pipeline = pipelines[model]
        pipeline.scheduler = own
        choose(pipeline, sampler)
        call = arguments(name, model, steps, strength, more, 100 + number)
        run(pipeline, {**call, "image": picture(source)}, more, TARGET, name)
        entry = {"name": name, "model": model, "image": source, "steps": steps, "seed": 100 + number,
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
        f'"tiles": {json.dumps(tiled)},\n"cases": [\n{text}\n]}}\n')


if __name__ == "__main__":
    main()
