"""Writes tests/goldens/single: a small Stable Diffusion 1 model in one file, whose shape follows from its tensors.

    python3 tools/goldens/single_file.py

The model has two levels of one residual block, 32 groups, 8 heads and a text encoder with one head of 64 channels, so
that nothing but the small vocabulary (that of the pack sd1) has to be told. Weights are random, of a fixed seed, in
float16. `model.safetensors` has the names of the original code; diffusers' own from_single_file reads the file back,
and the weights must be the same. Made with torch 2.15, diffusers 0.42.1, transformers 5.23.
"""

import json
import re
import shutil
import tempfile
from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDIMScheduler, PNDMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

GOLDENS = Path(__file__).resolve().parents[2] / "tests" / "goldens"
TARGET = GOLDENS / "single"
LAYERS = 1
LEVELS = 2
PROMPT = "a photo of a red fox in the snow"
NEGATIVE = "blurry, low quality"
# What a diffusers user passes for a model whose scheduler no file describes: the one of Stable Diffusion 1.
SCHEDULER = dict(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", num_train_timesteps=1000,
                 set_alpha_to_one=False, skip_prk_steps=True, steps_offset=1)


def build():
    torch.manual_seed(7)
    unet = UNet2DConditionModel(
        sample_size=64, block_out_channels=(32, 64), layers_per_block=LAYERS, attention_head_dim=8,
        cross_attention_dim=64, down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"))
    vae = AutoencoderKL(
        block_out_channels=(32, 32), layers_per_block=LAYERS, latent_channels=4,
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2)
    tokenizer = CLIPTokenizer.from_pretrained(GOLDENS / "sd1" / "model" / "tokenizer")
    text = CLIPTextModel(CLIPTextConfig(
        vocab_size=len(tokenizer), hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=1,
        hidden_act="quick_gelu", bos_token_id=0, eos_token_id=2))
    for module in (unet, vae, text):
        for name, value in module.named_parameters():
            with torch.no_grad():
                if value.ndim > 1:
                    value.mul_(1.5)
                else:
                    value.add_(0.2 * torch.randn_like(value))
                value.copy_(value.half().float())
        module.eval()
    return StableDiffusionPipeline(
        vae=vae, text_encoder=text, tokenizer=tokenizer, unet=unet, scheduler=PNDMScheduler(**SCHEDULER),
        safety_checker=None, feature_extractor=None, requires_safety_checker=False)


def resnet(leaf):
    parts = {"norm1": "in_layers.0", "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1", "norm2": "out_layers.0",
             "conv2": "out_layers.3", "conv_shortcut": "skip_connection"}
    part, rest = leaf.split(".", 1)
    return f"{parts[part]}.{rest}"


def unet_name(name):
    for today, original in [("conv_in.", "input_blocks.0.0."), ("conv_norm_out.", "out.0."), ("conv_out.", "out.2."),
                            ("time_embedding.linear_1.", "time_embed.0."), ("time_embedding.linear_2.", "time_embed.2.")]:
        if name.startswith(today):
            return original + name[len(today):]
    if match := re.match(r"mid_block\.(resnets|attentions)\.(\d)\.(.*)", name):
        kind, number, leaf = match.groups()
        return f"middle_block.1.{leaf}" if kind == "attentions" else f"middle_block.{2 * int(number)}.{resnet(leaf)}"
    side, level, kind, number, leaf = re.match(r"(down|up)_blocks\.(\d)\.(\w+)\.(\d)\.(.*)", name).groups()
    first = int(level) * (LAYERS + 1) + (1 if side == "down" else 0)
    block = "input_blocks" if side == "down" else "output_blocks"
    if kind == "resnets":
        return f"{block}.{first + int(number)}.0.{resnet(leaf)}"
    if kind == "attentions":
        return f"{block}.{first + int(number)}.1.{leaf}"
    if kind == "downsamplers":
        return f"{block}.{first + LAYERS}.0.op.{leaf.removeprefix('conv.')}"
    return f"{block}.{first + LAYERS}.1.{leaf}"  # no attention in the up block that is upsampled


def vae_name(name):
    attention = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}
    name = name.replace("conv_norm_out.", "norm_out.").replace("conv_shortcut.", "nin_shortcut.")
    if match := re.match(r"(\w+)\.mid_block\.attentions\.0\.(.*)\.(\w+)$", name):
        side, part, leaf = match.groups()
        return f"{side}.mid.attn_1.{attention[part]}.{leaf}"
    name = re.sub(r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}", name)
    name = re.sub(r"up_blocks\.(\d)", lambda m: f"up.{LEVELS - 1 - int(m[1])}", name)
    name = re.sub(r"down_blocks\.(\d)", r"down.\1", name)
    name = re.sub(r"resnets\.(\d)", r"block.\1", name)
    return name.replace("upsamplers.0.", "upsample.").replace("downsamplers.0.", "downsample.")


def single_file(pipeline):
    tensors = {}
    for name, value in pipeline.unet.state_dict().items():
        # The original code stores these projections as convolutions, as diffusers does for this kind.
        tensors["model.diffusion_model." + unet_name(name)] = value
    for name, value in pipeline.vae.state_dict().items():
        if ".attentions." in name and name.endswith(".weight") and value.ndim == 2:
            value = value[:, :, None, None]
        tensors["first_stage_model." + vae_name(name)] = value
    for name, value in pipeline.text_encoder.state_dict().items():
        if value.is_floating_point():
            name = name if name.startswith("text_model.") else f"text_model.{name}"
            tensors["cond_stage_model.transformer." + name] = value
    tensors = {name: value.half().contiguous() for name, value in tensors.items()}
    tensors["cond_stage_model.transformer.text_model.embeddings.position_ids"] = torch.arange(77)[None]
    tensors["betas"] = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    tensors["model_ema.decay"] = torch.tensor(0.9999)
    return tensors


def check(pipeline, file):
    with tempfile.TemporaryDirectory() as folder:
        pipeline.save_pretrained(folder)
        again = StableDiffusionPipeline.from_single_file(str(file), config=folder, local_files_only=True)
    for part in ("unet", "vae", "text_encoder"):
        left, right = getattr(pipeline, part).state_dict(), getattr(again, part).state_dict()
        assert left.keys() == right.keys(), part
        for name, value in left.items():
            assert torch.equal(value, right[name].to(value.dtype).reshape(value.shape)), name


def main():
    pipeline = build()
    pipeline.set_progress_bar_config(disable=True)
    (TARGET / "golden").mkdir(parents=True, exist_ok=True)
    file = TARGET / "model.safetensors"
    save_file(single_file(pipeline), file)
    check(pipeline, file)
    shutil.copytree(GOLDENS / "sd1" / "model" / "tokenizer", TARGET / "config" / "tokenizer", dirs_exist_ok=True)
    cases = []
    for name, scheduler, steps in [("ddim", DDIMScheduler.from_config(pipeline.scheduler.config, clip_sample=False), 6),
                                   ("pndm", pipeline.scheduler, 6)]:
        pipeline.scheduler = scheduler
        call = dict(prompt=PROMPT, negative_prompt=NEGATIVE, num_inference_steps=steps, guidance_scale=7.5, height=32,
                    width=32)
        latents = pipeline(**call, generator=torch.Generator().manual_seed(5), output_type="latent").images
        image = pipeline.vae.decode(latents / pipeline.vae.config.scaling_factor).sample.detach()
        save_file({"out.latents": latents, "out.image": image}, TARGET / "golden" / f"{name}.safetensors")
        cases.append(dict(file=f"golden/{name}.safetensors", scheduler=name, steps=steps, seed=5))
        print(name, "latents", latents.std().item(), "image", image.min().item(), image.max().item())
    (TARGET / "cases.json").write_text(json.dumps(
        dict(prompt=PROMPT, negative_prompt=NEGATIVE, guidance=7.5, size=32, cases=cases), indent=1) + "\n")


if __name__ == "__main__":
    with torch.no_grad():
        main()
