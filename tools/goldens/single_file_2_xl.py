"""Writes tests/goldens/single-sd2 and single-sdxl: small models in one file whose shape follows from their tensors.

    python3 tools/goldens/single_file_2_xl.py

As single_file.py, with what Stable Diffusion 2 and XL have besides: linear projections, heads of 64 channels, OpenCLIP's
names with queries, keys and values in one tensor and the last projection the other way round, the last layer of the text
encoder of 2 that is never run; two text encoders, sizes, and two transformer blocks behind each other in XL. The model of
2 predicts the velocity, which the empty tensor `v_pred` says. diffusers' own from_single_file reads the U-Net, the VAE
and OpenCLIP's text encoders back. Made with torch 2.15, diffusers 0.42.1, transformers 5.23.
"""

import json
import shutil
import tempfile
from pathlib import Path

import torch
from diffusers import (AutoencoderKL, DDIMScheduler, EulerDiscreteScheduler, StableDiffusionPipeline,
                       StableDiffusionXLPipeline, UNet2DConditionModel)
from diffusers.loaders.single_file_utils import convert_open_clip_checkpoint
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

import single_file
from single_file import GOLDENS, LAYERS, NEGATIVE, PROMPT, unet_name, vae_name

BETAS = dict(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", num_train_timesteps=1000, steps_offset=1)


def tokenizer(pack, name):
    return CLIPTokenizer.from_pretrained(GOLDENS / pack / "model" / name)


def randomize(*modules):
    for module in modules:
        for value in module.parameters():
            with torch.no_grad():
                value.mul_(1.5) if value.ndim > 1 else value.add_(0.2 * torch.randn_like(value))
                value.copy_(value.half().float())
        module.eval()


def text_config(tokens, layers, act, projection=64):
    return CLIPTextConfig(vocab_size=tokens, hidden_size=64, intermediate_size=96, num_hidden_layers=layers,
                          num_attention_heads=1, hidden_act=act, bos_token_id=0, eos_token_id=2,
                          projection_dim=projection)


def vae(**options):
    return AutoencoderKL(
        block_out_channels=(32, 32), layers_per_block=LAYERS, latent_channels=4,
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2, **options)


def build_2():
    torch.manual_seed(11)
    words = tokenizer("sd2", "tokenizer")
    unet = UNet2DConditionModel(
        sample_size=64, block_out_channels=(32, 64), layers_per_block=LAYERS, attention_head_dim=[1, 1],
        cross_attention_dim=64, down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"), use_linear_projection=True)
    parts = dict(unet=unet, vae=vae(), text_encoder=CLIPTextModel(text_config(len(words), 2, "gelu")))
    randomize(*parts.values())
    scheduler = DDIMScheduler(**BETAS, set_alpha_to_one=False, clip_sample=False, prediction_type="v_prediction")
    return StableDiffusionPipeline(**parts, tokenizer=words, scheduler=scheduler, safety_checker=None,
                                   feature_extractor=None, requires_safety_checker=False)


def build_xl():
    torch.manual_seed(13)
    words, words_2 = tokenizer("sdxl", "tokenizer"), tokenizer("sdxl", "tokenizer_2")
    unet = UNet2DConditionModel(
        sample_size=128, block_out_channels=(32, 64), layers_per_block=LAYERS, attention_head_dim=[1, 1],
        cross_attention_dim=128, down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"), use_linear_projection=True,
        transformer_layers_per_block=[1, 2], addition_embed_type="text_time", addition_time_embed_dim=256,
        projection_class_embeddings_input_dim=80 + 6 * 256)
    parts = dict(unet=unet, vae=vae(scaling_factor=0.13025),
                 text_encoder=CLIPTextModel(text_config(len(words), 2, "quick_gelu")),
                 text_encoder_2=CLIPTextModelWithProjection(text_config(len(words_2), 2, "gelu", 80)))
    randomize(*parts.values())
    scheduler = EulerDiscreteScheduler(**BETAS, timestep_spacing="leading")
    return StableDiffusionXLPipeline(**parts, tokenizer=words, tokenizer_2=words_2, scheduler=scheduler,
                                     add_watermarker=False)


def open_clip(module, extra_layer):
    """The state dict of a text encoder under OpenCLIP's names, behind which a layer may stand that is never run."""
    state = {name.removeprefix("text_model."): value for name, value in module.state_dict().items()}
    tensors = {
        "token_embedding.weight": state["embeddings.token_embedding.weight"],
        "positional_embedding": state["embeddings.position_embedding.weight"],
        "ln_final.weight": state["final_layer_norm.weight"],
        "ln_final.bias": state["final_layer_norm.bias"],
        "logit_scale": torch.tensor(4.6),
    }
    if "text_projection.weight" in state:
        tensors["text_projection"] = state["text_projection.weight"].T
    else:
        tensors["text_projection"] = torch.randn(64, 64)
    layers = module.config.num_hidden_layers
    for layer in range(layers):
        old, new = f"encoder.layers.{layer}", f"transformer.resblocks.{layer}"
        for leaf in ("weight", "bias"):
            qkv = [state[f"{old}.self_attn.{part}_proj.{leaf}"] for part in "qkv"]
            tensors[f"{new}.attn.in_proj_{leaf}"] = torch.cat(qkv)
            for today, original in [("layer_norm1", "ln_1"), ("layer_norm2", "ln_2"), ("self_attn.out_proj", "attn.out_proj"),
                                    ("mlp.fc1", "mlp.c_fc"), ("mlp.fc2", "mlp.c_proj")]:
                tensors[f"{new}.{original}.{leaf}"] = state[f"{old}.{today}.{leaf}"]
    if extra_layer:
        last = {name: value for name, value in tensors.items() if f"resblocks.{layers - 1}." in name}
        for name, value in last.items():
            tensors[name.replace(f"resblocks.{layers - 1}.", f"resblocks.{layers}.")] = torch.randn_like(value)
    return tensors


def single(pipeline):
    is_xl = hasattr(pipeline, "text_encoder_2")
    tensors = {}
    for name, value in pipeline.unet.state_dict().items():
        if name.startswith("add_embedding.linear_"):
            number, leaf = name.removeprefix("add_embedding.linear_").split(".")
            original = f"label_emb.0.{0 if number == '1' else 2}.{leaf}"
        else:
            original = unet_name(name)
            if "upsamplers" in name:  # behind an attention
                original = original.replace(".1.conv.", ".2.conv.").replace(".1.weight", ".2.weight")
        tensors["model.diffusion_model." + original] = value
    for name, value in pipeline.vae.state_dict().items():
        if ".attentions." in name and name.endswith(".weight") and value.ndim == 2:
            value = value[:, :, None, None]
        tensors["first_stage_model." + vae_name(name)] = value
    if is_xl:
        for name, value in pipeline.text_encoder.state_dict().items():
            if value.is_floating_point():
                name = name if name.startswith("text_model.") else f"text_model.{name}"
                tensors["conditioner.embedders.0.transformer." + name] = value
        for name, value in open_clip(pipeline.text_encoder_2, False).items():
            tensors["conditioner.embedders.1.model." + name] = value
    else:
        for name, value in open_clip(pipeline.text_encoder, True).items():
            tensors["cond_stage_model.model." + name] = value
        tensors["v_pred"] = torch.zeros(0)
    return {name: value.half().contiguous() for name, value in tensors.items()}


def check(pipeline, file):
    """What diffusers makes of the file."""
    parts = [("unet", UNet2DConditionModel), ("vae", AutoencoderKL)]
    with tempfile.TemporaryDirectory() as folder:
        pipeline.save_pretrained(folder)
        for name, kind in parts:
            again = kind.from_single_file(str(file), config=folder, subfolder=name, local_files_only=True)
            left, right = getattr(pipeline, name).state_dict(), again.state_dict()
            assert left.keys() == right.keys(), name
            for key, value in left.items():
                assert torch.equal(value, right[key].to(value.dtype).reshape(value.shape)), key
    from safetensors.torch import load_file
    stored = load_file(file)
    is_xl = hasattr(pipeline, "text_encoder_2")
    prefix = "conditioner.embedders.1.model." if is_xl else "cond_stage_model.model."
    encoder = pipeline.text_encoder_2 if is_xl else pipeline.text_encoder
    converted = convert_open_clip_checkpoint(encoder, stored, prefix=prefix)
    for name, value in encoder.state_dict().items():
        if not value.is_floating_point():
            continue
        names = [name, f"text_model.{name}", name.removeprefix("text_model.")]
        found = next((converted[name] for name in names if name in converted), None)
        assert found is not None and torch.equal(value, found.float()), name


def write(pack, pipeline):
    pipeline.set_progress_bar_config(disable=True)
    target = GOLDENS / pack
    (target / "golden").mkdir(parents=True, exist_ok=True)
    file = target / "model.safetensors"
    save_file(single(pipeline), file)
    check(pipeline, file)
    source = "sdxl" if hasattr(pipeline, "text_encoder_2") else "sd2"
    for folder in (GOLDENS / source / "model").glob("tokenizer*"):
        shutil.copytree(folder, target / "config" / folder.name, dirs_exist_ok=True)
    call = dict(prompt=PROMPT, negative_prompt=NEGATIVE, num_inference_steps=6, guidance_scale=7.5, height=32, width=32)
    latents = pipeline(**call, generator=torch.Generator().manual_seed(5), output_type="latent").images
    image = pipeline.vae.decode(latents / pipeline.vae.config.scaling_factor).sample.detach()
    save_file({"out.latents": latents, "out.image": image}, target / "golden" / "run.safetensors")
    (target / "cases.json").write_text(json.dumps(
        dict(prompt=PROMPT, negative_prompt=NEGATIVE, guidance=7.5, size=32, steps=6, seed=5), indent=1) + "\n")
    print(pack, "latents", latents.std().item(), "image", image.min().item(), image.max().item(), file.stat().st_size)


if __name__ == "__main__":
    with torch.no_grad():
        write("single-sd2", build_2())
        write("single-sdxl", build_xl())
