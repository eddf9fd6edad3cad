"""Writes tests/goldens/refiner and single-refiner: small refiners of SDXL, and runs that share the noise schedule.

    python3 tools/goldens/refiner.py

`refiner/model` has the shape of SDXL's refiner (one text encoder with a projection, four levels, four transformer blocks
in each attention, five numbers with an aesthetic score) with random weights of a fixed seed. `golden/unet.safetensors` is
one call of its U-Net. `runs.json` lists runs: the base of tests/goldens/sdxl until a share of the schedule
(`denoising_end`), the refiner from there on (`denoising_start`) with those latents, with aesthetic scores of its own, and
cached by DeepCache's helper at several branches. `single-refiner/model.safetensors` is a refiner of two levels under the
names of the original code, whose shape follows from its tensors; diffusers' own functions read its networks back.
Made with torch 2.15, diffusers 0.42.1, transformers 5.23, DeepCache 0.1.1.
"""

import json
import shutil

import torch
from DeepCache import DeepCacheSDHelper
from diffusers import (AutoencoderKL, EulerDiscreteScheduler, HeunDiscreteScheduler, StableDiffusionXLImg2ImgPipeline,
                       StableDiffusionXLPipeline, UNet2DConditionModel)
from diffusers.loaders.single_file_utils import convert_open_clip_checkpoint
from safetensors.torch import save_file
from transformers import CLIPTextModelWithProjection

from single_file import GOLDENS, unet_name, vae_name
from single_file_2_xl import BETAS, open_clip, randomize, text_config, tokenizer

TARGET, SINGLE = GOLDENS / "refiner", GOLDENS / "single-refiner"
PROMPT, NEGATIVE, SIDE, SEED = "a castle on a hill under a blue sky", "blurry", 64, 7


def text_encoder(words):
    config = text_config(len(words), 3, "gelu", 40)
    config.hidden_size, config.intermediate_size, config.num_attention_heads = 32, 64, 4
    return CLIPTextModelWithProjection(config)


def build():
    torch.manual_seed(31)
    words = tokenizer("sdxl", "tokenizer_2")
    unet = UNet2DConditionModel(
        sample_size=16, block_out_channels=(16, 24, 24, 24), layers_per_block=2, norm_num_groups=4,
        attention_head_dim=[2, 3, 3, 3], cross_attention_dim=32, transformer_layers_per_block=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        use_linear_projection=True, addition_embed_type="text_time", addition_time_embed_dim=16,
        projection_class_embeddings_input_dim=40 + 5 * 16)
    parts = dict(unet=unet, text_encoder_2=text_encoder(words))
    parts["vae"] = AutoencoderKL(
        block_out_channels=(8,) * 4, norm_num_groups=4, layers_per_block=1, latent_channels=4, scaling_factor=0.13025,
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4)
    randomize(*parts.values())
    scheduler = EulerDiscreteScheduler(**BETAS, timestep_spacing="leading")
    return StableDiffusionXLImg2ImgPipeline(
        **parts, text_encoder=None, tokenizer=None, tokenizer_2=words, scheduler=scheduler, add_watermarker=False,
        requires_aesthetics_score=True, force_zeros_for_empty_prompt=False)


def unet_call(unet):
    generator = torch.Generator().manual_seed(2)
    draw = lambda *shape: torch.randn(*shape, generator=generator)
    tensors = {"in.sample": draw(2, 4, 8, 16), "in.encoder_hidden_states": draw(2, 77, 32),
               "in.added_text_embeds": draw(2, 40), "in.timestep": torch.tensor([181.0]),
               "in.added_time_ids": torch.tensor([[64.0, 128, 0, 8, 2.5], [64.0, 128, 0, 8, 6]])}
    added = dict(text_embeds=tensors["in.added_text_embeds"], time_ids=tensors["in.added_time_ids"])
    found = unet(tensors["in.sample"], tensors["in.timestep"], tensors["in.encoder_hidden_states"],
                 added_cond_kwargs=added)
    save_file(tensors | {"out.sample": found.sample.contiguous()}, TARGET / "golden" / "unet.safetensors")
    print("unet", found.sample.std().item())


def call(steps, guidance):
    return dict(prompt=PROMPT, negative_prompt=NEGATIVE, num_inference_steps=steps, guidance_scale=guidance,
                generator=torch.Generator().manual_seed(SEED))


def runs(refiner):
    base = StableDiffusionXLPipeline.from_pretrained(
        GOLDENS / "sdxl" / "model", variant="fp16", torch_dtype=torch.float32, add_watermarker=False)
    cases = []
    # name, steps, share, guidance, options of the refiner, interval and branches of the cache
    schedules = {"euler": EulerDiscreteScheduler, "heun": HeunDiscreteScheduler}
    for name, scheduler, steps, share, guidance, options, branches in [
        ("chain", "euler", 10, 0.6, 5.0, {}, [0, 3, 7]),
        ("scores", "euler", 8, 0.7, 4.0, {"aesthetic_score": 9.0, "negative_aesthetic_score": 1.5}, []),
        ("sizes", "euler", 6, 0.5, 1.0, {"original_size": (48, 40), "crops_coords_top_left": (3, 5)}, []),
        ("heun", "heun", 6, 0.65, 5.0, {}, []),
    ]:
        for pipeline in (base, refiner):
            pipeline.set_progress_bar_config(disable=True)
            pipeline.scheduler = schedules[scheduler].from_config(pipeline.scheduler.config)
        latents = base(**call(steps, guidance), height=SIDE, width=2 * SIDE, denoising_end=share,
                       output_type="latent").images
        refine = lambda: refiner(**call(steps, guidance), image=latents, denoising_start=share, output_type="latent",
                                 **options).images
        tensors = {"base": latents.contiguous(), "refined": refine().contiguous()}
        for branch in branches:
            helper = DeepCacheSDHelper(pipe=refiner)
            helper.set_params(cache_interval=3, cache_branch_id=branch)
            helper.enable()
            tensors[f"cached.{branch}"] = refine().contiguous()
            helper.disable()
            apart = (tensors[f"cached.{branch}"] - tensors["refined"]).abs().max().item()
            print(f"{name}, branch {branch}: the cache changes up to {apart:.3f}")
            assert apart > 1e-3
        if name == "chain":
            image = refiner(**call(steps, guidance), image=latents, denoising_start=share, output_type="pt").images
            tensors["image"] = image.mul(2).sub(1).contiguous()
        save_file(tensors, TARGET / "golden" / f"{name}.safetensors")
        print(name, {key: round(value.std().item(), 3) for key, value in tensors.items()})
        cases.append(dict(name=name, scheduler=scheduler, steps=steps, share=share, guidance=guidance,
                          branches=branches, **options))
    (TARGET / "runs.json").write_text(json.dumps(
        dict(prompt=PROMPT, negative_prompt=NEGATIVE, height=SIDE, width=2 * SIDE, seed=SEED, runs=cases), indent=1) + "\n")


def build_single():
    torch.manual_seed(37)
    words = tokenizer("sdxl", "tokenizer_2")
    unet = UNet2DConditionModel(
        sample_size=128, block_out_channels=(32, 64), layers_per_block=1, attention_head_dim=[1, 1],
        cross_attention_dim=64, down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"), use_linear_projection=True,
        transformer_layers_per_block=[1, 2], addition_embed_type="text_time", addition_time_embed_dim=256,
        projection_class_embeddings_input_dim=16 + 5 * 256)
    vae = AutoencoderKL(
        block_out_channels=(32, 32), layers_per_block=1, latent_channels=4, scaling_factor=0.13025,
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2)
    parts = dict(unet=unet, vae=vae, text_encoder_2=CLIPTextModelWithProjection(text_config(len(words), 2, "gelu", 16)))
    randomize(*parts.values())
    scheduler = EulerDiscreteScheduler(**BETAS, timestep_spacing="leading")
    return StableDiffusionXLImg2ImgPipeline(
        **parts, text_encoder=None, tokenizer=None, tokenizer_2=words, scheduler=scheduler, add_watermarker=False,
        requires_aesthetics_score=True, force_zeros_for_empty_prompt=False)


def single(pipeline):
    import single_file
    single_file.LAYERS, layers = 1, single_file.LAYERS
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
        if name.startswith(("encoder.", "quant_conv.")):  # only latents are decoded
            continue
        if ".attentions." in name and name.endswith(".weight") and value.ndim == 2:
            value = value[:, :, None, None]
        tensors["first_stage_model." + vae_name(name)] = value
    for name, value in open_clip(pipeline.text_encoder_2, False).items():
        tensors["conditioner.embedders.0.model." + name] = value
    single_file.LAYERS = layers
    return {name: value.half().contiguous() for name, value in tensors.items()}


def write_single():
    pipeline = build_single()
    pipeline.set_progress_bar_config(disable=True)
    tensors = single(pipeline)
    shutil.rmtree(SINGLE, ignore_errors=True)
    (SINGLE / "config").mkdir(parents=True)
    save_file(tensors, SINGLE / "model.safetensors")
    shutil.copytree(GOLDENS / "sdxl" / "model" / "tokenizer_2", SINGLE / "config" / "tokenizer_2")
    prefix = "conditioner.embedders.0.model."
    back = {name: value.float() for name, value in tensors.items() if name.startswith(prefix)}
    text = convert_open_clip_checkpoint(pipeline.text_encoder_2, back, prefix=prefix)
    for name, value in pipeline.text_encoder_2.state_dict().items():
        other = text.get(name, text.get(name.removeprefix("text_model."), text.get(f"text_model.{name}")))
        assert other is not None and torch.equal(other.float(), value), name
    generator = torch.Generator().manual_seed(5)
    latents = 2 * torch.randn(1, 4, 16, 16, generator=generator)
    refined = pipeline(**call(6, 4.0), image=latents, denoising_start=0.6, output_type="latent").images
    save_file({"base": latents, "refined": refined.contiguous()}, SINGLE / "run.safetensors")
    print("single", refined.std().item())


def main():
    refiner = build()
    shutil.rmtree(TARGET, ignore_errors=True)
    (TARGET / "golden").mkdir(parents=True)
    refiner.to(torch.float16).save_pretrained(TARGET / "model", variant="fp16")
    refiner.to(torch.float32)
    shutil.rmtree(TARGET / "model" / "tokenizer_2")
    shutil.copytree(GOLDENS / "sdxl" / "model" / "tokenizer_2", TARGET / "model" / "tokenizer_2")
    unet_call(refiner.unet)
    runs(refiner)
    write_single()


if __name__ == "__main__":
    with torch.no_grad():
        main()
