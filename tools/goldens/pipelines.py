"""Small unconditional pipelines with seeded random weights, for tests/pipelines_unconditional.rs.

    pip install torch==2.15.0 diffusers==0.42.1 safetensors pyyaml
    python tools/goldens/pipelines.py --out tests/goldens/unconditional

Writes three models and what they make on the CPU:
  ldm/         LDMPipeline with a VQModel, in diffusers' layout
  pixels/      DDPMPipeline with a UNet2DModel that has several heads, and dynamic thresholding in its scheduler
  original/    a UNet2DModel under the names of https://github.com/ermongroup/ddim, with its YAML file; the loop is
               that paper's equation 12 (Song, Meng & Ermon 2020), in f32 as its code computes it
and loops.json with one entry per loop: model, keys that replace those of scheduler_config.json, steps, seed, and the
file, which holds `latents` [1, C, h, w] at the end of the denoising and `image` [1, 3, H, W] in -1 to 1.
"""
import argparse
import glob
import json
import os

import numpy
import torch
import yaml
from diffusers import (
    DDIMScheduler,
    DDPMPipeline,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    LDMPipeline,
    UNet2DModel,
    VQModel,
)
from safetensors.torch import load_file, save_file

SCHEDULERS = {"DDIMScheduler": DDIMScheduler, "DDPMScheduler": DDPMScheduler,
              "DPMSolverMultistepScheduler": DPMSolverMultistepScheduler}


# Less noise than such models are trained with: an untrained network removes none, and what is left of the start
# grows by one over the last signal, beyond all pictures.
BETA_END = 0.004


def randomize(model, seed):
    """Weights that keep activations near one, so that a wrong layer shows."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in model.named_parameters():
        noise = torch.randn(tensor.shape, generator=generator)
        if tensor.dim() == 1:
            scale = 0.1
            offset = 1.0 if "norm" in name and name.endswith("weight") else 0.0
        else:
            scale, offset = 1.0 / tensor[0].numel() ** 0.5, 0.0
        tensor.data = (offset + scale * noise).half().float()
    return model.eval()


def halve(folder):
    """Stores weights in 16 bits, which they fill exactly."""
    for path in glob.glob(os.path.join(folder, "**", "*.safetensors"), recursive=True):
        save_file({name: tensor.half() for name, tensor in load_file(path).items()}, path, {"format": "pt"})


def unet(channels, sample_size, heads, seed, **more):
    levels = len(channels)
    return randomize(UNet2DModel(
        sample_size=sample_size, in_channels=3, out_channels=3, layers_per_block=1,
        block_out_channels=channels, attention_head_dim=heads,
        down_block_types=["DownBlock2D"] * (levels - 1) + ["AttnDownBlock2D"],
        up_block_types=["AttnUpBlock2D"] + ["UpBlock2D"] * (levels - 1), **more), seed)


def write(out, name, tensors):
    file = f"{name}.safetensors"
    save_file({key: value.contiguous().float() for key, value in tensors.items()}, os.path.join(out, file))
    return file


class Recorder:
    """Keeps the last sample that a scheduler returned."""

    def __init__(self, scheduler):
        self.inner, self.last, step = scheduler, None, scheduler.step

        def recorded(*arguments, **options):
            result = step(*arguments, **options)
            self.last = (result.prev_sample if hasattr(result, "prev_sample") else result[0]).clone()
            return result

        scheduler.step = recorded


def run_ldm(out):
    # LDMPipeline hands `eta` to schedulers that know it and nothing else, so it is always 0 here.
    vq = randomize(VQModel(
        in_channels=3, out_channels=3, latent_channels=3, num_vq_embeddings=48, norm_num_groups=16,
        block_out_channels=[16, 32, 32], layers_per_block=1, sample_size=64, act_fn="silu",
        down_block_types=["DownEncoderBlock2D"] * 3, up_block_types=["UpDecoderBlock2D"] * 3), 11)
    # A codebook whose entries lie as far apart as the latents do.
    vq.quantize.embedding.weight.data *= 2.0
    scheduler = DDIMScheduler(beta_start=0.0015, beta_end=BETA_END, beta_schedule="scaled_linear",
                              clip_sample=False, set_alpha_to_one=False, steps_offset=1)
    pipeline = LDMPipeline(vqvae=vq, unet=unet([16, 32], 16, 16, 12, norm_num_groups=8), scheduler=scheduler)
    pipeline.save_pretrained(os.path.join(out, "ldm"))
    halve(os.path.join(out, "ldm"))
    recorder = Recorder(pipeline.scheduler)
    images = {}
    decode = vq.decode

    def recorded(latents, *arguments, **options):
        result = decode(latents, *arguments, **options)
        images["image"] = (result.sample if hasattr(result, "sample") else result[0]).clone()
        return result

    vq.decode = recorded
    pipeline(generator=torch.Generator().manual_seed(5), num_inference_steps=8, output_type="np")
    file = write(out, "ldm_ddim8", {"latents": recorder.last, "image": images["image"].clamp(-1, 1)})
    return [{"name": "ldm_ddim8", "model": "ldm", "steps": 8, "seed": 5, "file": file}]


def run_pixels(out):
    network = unet([16, 32], 16, 8, 21, norm_num_groups=8)
    thresholding = dict(thresholding=True, dynamic_thresholding_ratio=0.9, sample_max_value=1.5)
    pipeline = DDPMPipeline(unet=network, scheduler=DDPMScheduler(clip_sample=False, **thresholding))
    pipeline.save_pretrained(os.path.join(out, "pixels"))
    halve(os.path.join(out, "pixels"))
    cases = []
    for name, scheduler, steps in [
        ("pixels_ddpm12_threshold", DDPMScheduler(clip_sample=False, **thresholding), 12),
        ("pixels_ddpm10_clip", DDPMScheduler(clip_sample=True, variance_type="fixed_large"), 10),
        ("pixels_dpmpp10_threshold",
         DPMSolverMultistepScheduler(algorithm_type="dpmsolver++", **thresholding), 10),
    ]:
        generator = torch.Generator().manual_seed(6)
        sample = torch.randn(1, 3, 16, 16, generator=generator)
        scheduler.set_timesteps(steps)
        sample = sample * scheduler.init_noise_sigma
        for timestep in scheduler.timesteps:
            prediction = network(scheduler.scale_model_input(sample, timestep), timestep).sample
            sample = scheduler.step(prediction, timestep, sample, generator=generator).prev_sample
        config = {key: value for key, value in scheduler.config.items() if not key.startswith("_")}
        config["_class_name"] = type(scheduler).__name__
        if config.get("lambda_min_clipped") == float("-inf"):
            config["lambda_min_clipped"] = "-Infinity"
        file = write(out, name, {"latents": sample, "image": sample.clamp(-1, 1)})
        cases.append({"name": name, "model": "pixels", "scheduler_config": config, "steps": steps, "seed": 6,
                      "file": file})
    return cases


def original_name(name, levels):
    """The name that the original DDIM code has for a parameter of diffusers' UNet2DModel."""
    leaves = {"to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out", "group_norm": "norm",
              "time_emb_proj": "temb_proj", "conv_shortcut": "nin_shortcut"}
    for new, old in leaves.items():
        name = name.replace(new, old)
    name = name.replace("time_embedding.linear_1", "temb.dense.0").replace("time_embedding.linear_2", "temb.dense.1")
    name = name.replace("conv_norm_out", "norm_out")
    name = name.replace("mid_block.resnets.0", "mid.block_1").replace("mid_block.resnets.1", "mid.block_2")
    name = name.replace("mid_block.attentions.0", "mid.attn_1")
    name = name.replace("resnets", "block").replace("attentions", "attn")
    name = name.replace("downsamplers.0", "downsample").replace("upsamplers.0", "upsample")
    for level in range(levels):
        name = name.replace(f"down_blocks.{level}.", f"down.{level}.")
        name = name.replace(f"up_blocks.{level}.", f"UP.{levels - 1 - level}.")
    return name.replace("UP.", "up.")


def run_original(out):
    channels, size = [32, 64], 16
    network = unet(channels, size, None, 31, norm_num_groups=32, norm_eps=1e-6, freq_shift=1,
                   flip_sin_to_cos=False, downsample_padding=0)
    folder = os.path.join(out, "original")
    os.makedirs(folder, exist_ok=True)
    tensors = {}
    for name, tensor in network.state_dict().items():
        renamed = original_name(name, len(channels))
        projection = any(part in renamed for part in (".q.", ".k.", ".v.", ".proj_out."))
        if projection and renamed.endswith("weight"):
            tensor = tensor[:, :, None, None]  # the original has 1x1 convolutions here
        tensors[f"module.{renamed}"] = tensor.contiguous().half()
    save_file(tensors, os.path.join(folder, "ema_small.safetensors"))
    config = {
        "data": {"dataset": "CIFAR10", "image_size": size, "channels": 3, "logit_transform": False,
                 "uniform_dequantization": False, "gaussian_dequantization": False, "random_flip": True,
                 "rescaled": True, "num_workers": 4},
        "model": {"type": "simple", "in_channels": 3, "out_ch": 3, "ch": 32, "ch_mult": [1, 2], "num_res_blocks": 1,
                  "attn_resolutions": [8], "dropout": 0.1, "var_type": "fixedlarge", "ema_rate": 0.9999,
                  "ema": True, "resamp_with_conv": True},
        "diffusion": {"beta_schedule": "linear", "beta_start": 0.0001, "beta_end": BETA_END,
                      "num_diffusion_timesteps": 1000},
        "training": {"batch_size": 128}, "sampling": {"batch_size": 64}, "optim": {"lr": 0.0002},
    }
    with open(os.path.join(folder, "small.yml"), "w") as file:
        yaml.safe_dump(config, file, sort_keys=False)

    betas = torch.linspace(0.0001, BETA_END, 1000, dtype=torch.float64).float()
    alphas = torch.cat([torch.ones(1), (1 - betas).cumprod(0)])  # of the timestep before, one more
    cases = []
    for name, steps, eta, spacing in [("original_ddim10", 10, 0.0, "uniform"), ("original_quad8", 8, 0.0, "quadratic"),
                                      ("original_ddim10_eta", 10, 0.6, "uniform")]:
        if spacing == "uniform":
            timesteps = list(range(0, 1000, 1000 // steps))
        else:
            timesteps = [int(value) for value in numpy.linspace(0, (1000 * 0.8) ** 0.5, steps) ** 2]
        generator = torch.Generator().manual_seed(7)
        sample = torch.randn(1, 3, size, size, generator=generator)
        for now, before in reversed(list(zip(timesteps, [-1] + timesteps[:-1]))):
            noise = network(sample, torch.tensor([float(now)])).sample
            at, at_next = alphas[now + 1], alphas[before + 1]
            predicted = (sample - noise * (1 - at).sqrt()) / at.sqrt()
            spread = eta * ((1 - at / at_next) * (1 - at_next) / (1 - at)).sqrt()
            sample = at_next.sqrt() * predicted + (1 - at_next - spread**2).sqrt() * noise
            if eta > 0:
                sample = sample + spread * torch.randn(sample.shape, generator=generator)
        file = write(out, name, {"latents": sample, "image": sample.clamp(-1, 1)})
        cases.append({"name": name, "model": "original/ema_small.safetensors", "steps": len(timesteps), "seed": 7,
                      "eta": eta, "timestep_spacing": spacing, "file": file})
    return cases


@torch.no_grad()
def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True)
    out = parser.parse_args().out
    os.makedirs(out, exist_ok=True)
    cases = run_ldm(out) + run_pixels(out) + run_original(out)
    with open(os.path.join(out, "loops.json"), "w") as file:
        json.dump(cases, file, indent=1)
        file.write("\n")


if __name__ == "__main__":
    main()
