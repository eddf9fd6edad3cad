"""Runs of the small models with weights rounded to 8 bits, for tests/int8.rs: tests/goldens/int8.

    pip install torch==2.15.0 diffusers==0.42.1 transformers==5.23.0 safetensors
    python tools/goldens/int8.py

The rounding is that of `weights::WeightStorage::Int8`, written down a second time: every linear layer and convolution of
U-Net and text encoders with at least 16 inputs and outputs, but for the embeddings of timesteps and the projection of a
text encoder; for every output a scale, its largest weight divided by 127, and the nearest multiples of it. diffusers then
computes with the multiples, in float32.
"""

import json
from pathlib import Path

import torch
from diffusers import DDIMScheduler, DiffusionPipeline, StableDiffusionPipeline, StableDiffusionXLPipeline
from safetensors.torch import save_file

GOLDENS = Path(__file__).resolve().parents[2] / "tests/goldens"
TARGET = GOLDENS / "int8"
LEAST_CHANNELS = 16
KEPT = ("time_embedding", "add_embedding", "text_projection")
REQUEST = dict(prompt="a photo of a red fox in the snow", negative_prompt="blurry", num_inference_steps=6,
               guidance_scale=5.0)
SEED = 29


def rounded(weight: torch.Tensor) -> torch.Tensor:
    rows = weight.flatten(1)
    scale = rows.abs().amax(1, keepdim=True) / 127
    multiples = (rows / scale).nan_to_num().round().clamp(-127, 127)
    return (multiples * scale).reshape(weight.shape)


def round_weights(network: torch.nn.Module) -> int:
    """The number of matrices that were rounded."""
    count = 0
    for name, module in network.named_modules():
        if not isinstance(module, (torch.nn.Linear, torch.nn.Conv2d)) or name.startswith(KEPT):
            continue
        if min(module.weight.shape[:2]) >= LEAST_CHANNELS:
            module.weight.copy_(rounded(module.weight))
            count += 1
    return count


def open_pipeline(pack: str) -> DiffusionPipeline:
    kind = StableDiffusionXLPipeline if pack == "sdxl" else StableDiffusionPipeline
    folder = GOLDENS / pack / "model"
    variant = "fp16" if list(folder.glob("unet/*.fp16.safetensors")) else None
    options = dict(add_watermarker=False) if pack == "sdxl" else dict(safety_checker=None)
    pipeline = kind.from_pretrained(folder, variant=variant, torch_dtype=torch.float32, **options)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config)
    return pipeline


def main() -> None:
    TARGET.mkdir(exist_ok=True)
    tensors = {}
    for pack in ["sd1", "sd2", "sdxl"]:
        pipeline = open_pipeline(pack)
        networks = [getattr(pipeline, name, None) for name in ("unet", "text_encoder", "text_encoder_2")]
        for state in ["exact", "rounded"]:
            if state == "rounded":
                print(pack, [round_weights(network) for network in networks if network is not None], "matrices")
            generator = torch.Generator().manual_seed(SEED)
            latents = pipeline(**REQUEST, height=128, width=128, generator=generator, output_type="latent").images
            tensors[f"out.{pack}.{state}"] = latents.contiguous()
        exact = tensors[f"out.{pack}.exact"]
        print(pack, "relative L2", ((latents - exact).norm() / exact.norm()).item())
    save_file(tensors, TARGET / "golden.safetensors")
    (TARGET / "cases.json").write_text(json.dumps(dict(request=REQUEST, seed=SEED, size=128), indent=1) + "\n")


if __name__ == "__main__":
    with torch.no_grad():
        main()
