"""Runs of the small SDXL model with sizes of its own, for tests/pipelines_sdxl.rs.

    pip install torch==2.15.0 diffusers==0.42.1 transformers==5.23.0 safetensors
    python tools/goldens/sdxl_sizes.py
"""

import json
from pathlib import Path

import torch
from diffusers import StableDiffusionXLPipeline
from safetensors.torch import save_file

FOLDER = Path(__file__).resolve().parents[2] / "tests/goldens/sdxl"

SEED = 41
RUNS = {
    "sizes": {
        "original_size": [64, 200],
        "crops_coords_top_left": [8, 16],
        "target_size": [128, 160],
    },
    "empty_prompt_encoded": {"force_zeros_for_empty_prompt": False},
    "unguided": {"guidance_scale": 1.0, "target_size": [96, 96]},
}


def main() -> None:
    runs = []
    for name, options in RUNS.items():
        pipeline = StableDiffusionXLPipeline.from_pretrained(
            FOLDER / "model", variant="fp16", torch_dtype=torch.float32, add_watermarker=False
        )
        pipeline.set_progress_bar_config(disable=True)
        options = dict(options)
        force_zeros = options.pop("force_zeros_for_empty_prompt", True)
        pipeline.register_to_config(force_zeros_for_empty_prompt=force_zeros)
        run = {
            "prompt": "a castle on a hill under a blue sky",
            "height": 128,
            "width": 96,
            "num_inference_steps": 4,
            "guidance_scale": 5.0,
            **options,
        }
        arguments = {key: tuple(value) if isinstance(value, list) else value for key, value in run.items()}
        latents = pipeline(**arguments, generator=torch.Generator().manual_seed(SEED), output_type="latent").images
        file = f"golden/{name}.safetensors"
        save_file({"out.latents": latents.contiguous()}, FOLDER / file)
        runs.append({"file": file, "seed": SEED, "force_zeros_for_empty_prompt": force_zeros, **run})
    (FOLDER / "sizes.json").write_text(json.dumps({"runs": runs}, indent=1) + "\n")


if __name__ == "__main__":
    main()
