"""Writes tests/goldens/textual-inversion: words for the models of the packs sd1 and sdxl, and runs with them.

    python3 tools/goldens/textual_inversion.py

The files are those of diffusers (one tensor, named as the word), AUTOMATIC1111 (emb_params) and SDXL (clip_l, clip_g);
diffusers' load_textual_inversion reads them. Made with torch 2.15, diffusers 0.42.1, transformers 5.23.
"""

import json
import shutil

import torch
from safetensors.torch import load_file, save_file

from lora import GOLDENS, GUIDANCE, NEGATIVE, SEED, STEPS, open_pack
from diffusers import DDIMScheduler

TARGET = GOLDENS / "textual-inversion"


def words(pipeline, count, seed, encoder="text_encoder"):
    table = getattr(pipeline, encoder).get_input_embeddings().weight
    values = torch.randn(count, table.shape[1], generator=torch.Generator().manual_seed(seed))
    return (values * table.std() * 2).half().float().contiguous()


def draw(pipeline, prompt):
    pipeline.set_progress_bar_config(disable=True)
    pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config)
    latents = pipeline(prompt, negative_prompt=NEGATIVE, num_inference_steps=STEPS, guidance_scale=GUIDANCE, height=64,
                       width=64, generator=torch.Generator().manual_seed(SEED), output_type="latent").images
    converted = pipeline.maybe_convert_prompt(prompt, pipeline.tokenizer)
    ids = pipeline.tokenizer(converted, padding="max_length", max_length=77, truncation=True).input_ids
    return latents, ids


if __name__ == "__main__":
    shutil.rmtree(TARGET, ignore_errors=True)
    TARGET.mkdir(parents=True)
    cases, latents = [], {}

    def record(pack, pipeline, files, prompts):
        for prompt in prompts:
            name = f"out.{len(cases)}"
            latents[name], ids = draw(pipeline, prompt)
            cases.append(dict(model=pack, embeddings=files, prompt=prompt, ids=ids, out=name))
            print(pack, prompt, ids[:14])

    with torch.no_grad():
        pipeline = open_pack("sd1")
        save_file({"<fox-toy>": words(pipeline, 3, 1)}, TARGET / "learned.safetensors")
        save_file({"emb_params": words(pipeline, 1, 2).half()}, TARGET / "style.safetensors")
        save_file({"*": words(pipeline, 1, 3)[0].contiguous()}, TARGET / "one.safetensors")
        files = [dict(file="learned.safetensors"), dict(file="style.safetensors", token="style"),
                 dict(file="one.safetensors", token="sks")]
        for entry in files:
            tensor = next(iter(load_file(TARGET / entry["file"]).values())).float()
            pipeline.load_textual_inversion(tensor, token=entry.get("token", "<fox-toy>"))
        record("sd1", pipeline, files, ["a photo of <fox-toy> in the snow", "<fox-toy>, style, and a red fox",
                                        "a photo of sks,<fox-toy><fox-toy>", "a photo of a red fox in the snow",
                                        "a " * 73 + "<fox-toy> end"])
        pipeline = open_pack("sdxl")
        vectors = {"clip_l": words(pipeline, 2, 4), "clip_g": words(pipeline, 2, 5, "text_encoder_2")}
        save_file(vectors, TARGET / "toy.safetensors")
        pipeline.load_textual_inversion(vectors["clip_l"], token="toy", text_encoder=pipeline.text_encoder,
                                        tokenizer=pipeline.tokenizer)
        pipeline.load_textual_inversion(vectors["clip_g"], token="toy", text_encoder=pipeline.text_encoder_2,
                                        tokenizer=pipeline.tokenizer_2)
        record("sdxl", pipeline, [dict(file="toy.safetensors")], ["a photo of a toy in the snow"])
    save_file(latents, TARGET / "golden.safetensors")
    (TARGET / "cases.json").write_text(json.dumps(dict(
        negative_prompt=NEGATIVE, steps=STEPS, seed=SEED, guidance=GUIDANCE, size=64, scheduler="ddim", cases=cases)) + "\n")
