"""Writes models of the full shape of Stable Diffusion 1.5, 2.1 or XL with random weights in float16: a diffusers directory,
and the same in one file with the names of the original code.

    python3 tools/random_models.py sd15|sd21|sdxl DIRECTORY

DIRECTORY/diffusers and DIRECTORY/single.safetensors, 2.1 GB each for sd15, 2.6 GB for sd21 and 7 GB for sdxl. Weights are small, norms
are ones, so that nothing overflows; what they draw is noise. The tokenizers are CLIP's own, from assets/clip-tokenizer.
Made for torch 2.15, diffusers 0.42.1, transformers 5.23.
"""

import json
import shutil
import sys
from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDIMScheduler, EulerDiscreteScheduler, PNDMScheduler, UNet2DConditionModel
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tools" / "goldens"))
import single_file  # noqa: E402
from single_file_2_xl import open_clip  # noqa: E402

single_file.LAYERS, single_file.LEVELS = 2, 4
BETAS = dict(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", num_train_timesteps=1000, steps_offset=1)
CROSS, CROSS_UP = "CrossAttnDownBlock2D", "CrossAttnUpBlock2D"


def vae():
    return AutoencoderKL(block_out_channels=(128, 256, 512, 512), layers_per_block=2, latent_channels=4, sample_size=512,
                         down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4)


def clip(width, layers, heads, act, inner, projection=None):
    kind = CLIPTextModel if projection is None else CLIPTextModelWithProjection
    return kind(CLIPTextConfig(
        vocab_size=49408, hidden_size=width, intermediate_size=inner, num_hidden_layers=layers, num_attention_heads=heads,
        hidden_act=act, bos_token_id=0, eos_token_id=2, projection_dim=projection or width))


def parts(kind):
    """The networks on no device, what makes the scheduler, and the pipeline's class."""
    with torch.device("meta"):
        if kind == "sd15":
            unet = UNet2DConditionModel(
                sample_size=64, block_out_channels=(320, 640, 1280, 1280), attention_head_dim=8, cross_attention_dim=768)
            networks = dict(unet=unet, vae=vae(), text_encoder=clip(768, 12, 12, "quick_gelu", 3072))
            return networks, lambda: PNDMScheduler(**BETAS, set_alpha_to_one=False, skip_prk_steps=True), "StableDiffusionPipeline"
        if kind == "sd21":
            unet = UNet2DConditionModel(
                sample_size=96, block_out_channels=(320, 640, 1280, 1280), attention_head_dim=[5, 10, 20, 20],
                cross_attention_dim=1024, use_linear_projection=True)
            networks = dict(unet=unet, vae=vae(), text_encoder=clip(1024, 23, 16, "gelu", 4096))
            return networks, lambda: DDIMScheduler(
                **BETAS, set_alpha_to_one=False, clip_sample=False, prediction_type="v_prediction"), "StableDiffusionPipeline"
        unet = UNet2DConditionModel(
            sample_size=128, block_out_channels=(320, 640, 1280), attention_head_dim=[5, 10, 20],
            cross_attention_dim=2048, use_linear_projection=True, down_block_types=("DownBlock2D", CROSS, CROSS),
            up_block_types=(CROSS_UP, CROSS_UP, "UpBlock2D"), transformer_layers_per_block=[1, 2, 10],
            addition_embed_type="text_time", addition_time_embed_dim=256, projection_class_embeddings_input_dim=2816)
        networks = dict(unet=unet, vae=vae(), text_encoder=clip(768, 12, 12, "quick_gelu", 3072),
                        text_encoder_2=clip(1280, 32, 20, "gelu", 5120, 1280))
        networks["vae"].register_to_config(scaling_factor=0.13025)
        return networks, lambda: EulerDiscreteScheduler(**BETAS, timestep_spacing="leading"), "StableDiffusionXLPipeline"


def random(module):
    state = {}
    for name, value in module.state_dict().items():
        if not value.is_floating_point():
            continue
        if "norm" in name and value.ndim == 1:
            state[name] = torch.full(value.shape, float(name.endswith("weight")), dtype=torch.float16)
        else:
            state[name] = torch.randn(value.shape).mul_(0.02).half()
    return state


class WithState:
    """What open_clip reads of a module."""

    def __init__(self, module, state):
        self.config, self.state = module.config, state

    def state_dict(self):
        return self.state


def single(networks, states):
    tensors = {}
    up = networks["unet"].config.up_block_types
    for name, value in states["unet"].items():
        if name.startswith("add_embedding.linear_"):
            number, leaf = name.removeprefix("add_embedding.linear_").split(".")
            original = f"label_emb.0.{0 if number == '1' else 2}.{leaf}"
        else:
            original = single_file.unet_name(name)
            if "upsamplers" in name and up[int(name.split(".")[1])] == CROSS_UP:  # behind an attention
                block, _, *rest = original.removeprefix("output_blocks.").split(".")
                original = ".".join(["output_blocks", block, "2", *rest])
        tensors["model.diffusion_model." + original] = value
    for name, value in states["vae"].items():
        if ".attentions." in name and name.endswith(".weight") and value.ndim == 2:
            value = value[:, :, None, None]
        tensors["first_stage_model." + single_file.vae_name(name)] = value
    is_xl = "text_encoder_2" in networks
    first = WithState(networks["text_encoder"], states["text_encoder"])
    if first.config.hidden_act == "quick_gelu" and not is_xl:
        for name, value in first.state_dict().items():
            name = name if name.startswith("text_model.") else f"text_model.{name}"
            tensors["cond_stage_model.transformer." + name] = value
        return {name: value.half().contiguous() for name, value in tensors.items()}
    if is_xl:
        for name, value in first.state_dict().items():
            name = name if name.startswith("text_model.") else f"text_model.{name}"
            tensors["conditioner.embedders.0.transformer." + name] = value
        second = WithState(networks["text_encoder_2"], states["text_encoder_2"])
        found, prefix = open_clip(second, False), "conditioner.embedders.1.model."
    else:
        found, prefix = open_clip(first, True), "cond_stage_model.model."
        tensors["v_pred"] = torch.zeros(0)
    if not is_xl:
        found["text_projection"] = torch.zeros(1024, 1024)
    tensors.update({prefix + name: value for name, value in found.items()})
    return {name: value.half().contiguous() for name, value in tensors.items()}


def main():
    kind, target = sys.argv[1], Path(sys.argv[2])
    torch.manual_seed(0)
    networks, scheduler, pipeline = parts(kind)
    scheduler = scheduler()
    index = {"_class_name": pipeline, "_diffusers_version": "0.42.1", "scheduler": ["diffusers", type(scheduler).__name__]}
    states = {}
    for name, module in networks.items():
        states[name] = random(module)
        folder = target / "diffusers" / name
        folder.mkdir(parents=True, exist_ok=True)
        library = "transformers" if name.startswith("text") else "diffusers"
        index[name] = [library, type(module).__name__]
        stem = "model" if library == "transformers" else "diffusion_pytorch_model"
        save_file(states[name], folder / f"{stem}.fp16.safetensors")
        if library == "transformers":
            (folder / "config.json").write_text(module.config.to_json_string())
            words = target / "diffusers" / name.replace("text_encoder", "tokenizer")
            shutil.copytree(ROOT / "assets" / "clip-tokenizer", words, dirs_exist_ok=True)
            if module.config.hidden_act == "gelu":  # OpenCLIP fills prompts up with the id 0
                for file in ("tokenizer_config.json", "special_tokens_map.json"):
                    settings = json.loads((words / file).read_text())
                    (words / file).write_text(json.dumps(settings | {"pad_token": "!"}, indent=1))
            index[words.name] = ["transformers", "CLIPTokenizer"]
        else:
            module.save_config(folder)
    scheduler.save_pretrained(target / "diffusers" / "scheduler")
    (target / "diffusers" / "model_index.json").write_text(json.dumps(index, indent=1))
    save_file(single(networks, states), target / "single.safetensors")


if __name__ == "__main__":
    main()
