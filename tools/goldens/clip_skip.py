"""Prompts with a CLIP skip, longer than one chunk, and with weights, for tests/prompts.rs.

    pip install torch==2.15.0 diffusers==0.42.1 transformers==5.23.0 safetensors
    python tools/goldens/clip_skip.py

A CLIP skip alone is diffusers' own: its pipelines make those runs from the prompts. Chunks and weights are made here, from
what transformers' text encoders say of each chunk, by the rule that `parse_weighted` and `Request` document; diffusers'
pipelines get them as embeddings. Where the parts of a prompt lie, and what each weighs, is written out by hand below, so
that this file and the parser know nothing of each other.
"""

import json
from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline
from safetensors.torch import save_file
from transformers import CLIPTextModel

# What diffusers 0.42 looks for under this name, transformers 5 has in the model itself.
CLIPTextModel.text_model = property(lambda model: model)

FOLDER = Path(__file__).resolve().parents[2] / "tests/goldens"
SEED = 43
LONG = " ".join(f"a {color} {thing}" for color in ("red", "green", "blue", "white") for thing in
                ("castle on a hill", "boat on the sea", "house by a lake", "bird in a tree", "cat on a mat"))
BREAK = None

# What is asked, and what it comes to: parts of text with weights, BREAK between chunks.
PROMPTS = {
    "plain": ("a castle on a hill under a blue sky", [("a castle on a hill under a blue sky", 1.0)]),
    "long": (LONG, [(LONG, 1.0)]),
    "weighted": (
        "a (red:1.5) castle on a [[green]] hill, ((very (tall:0.5)) tower) \\(old\\)",
        [("a ", 1.0), ("red", 1.5), (" castle on a ", 1.0), ("green", 1 / 1.1 / 1.1), (" hill, ", 1.0),
         ("very ", 1.1 * 1.1), ("tall", 1.1 * 1.1 * 0.5), (" tower", 1.1), (" (old)", 1.0)],
    ),
    "broken": (
        "a castle BREAK a (boat:1.3 on the sea) BREAK (blue:-0.5) sky",
        [("a castle ", 1.0), BREAK, (" a ", 1.0), ("boat:1.3 on the sea", 1.1), (" ", 1.0), BREAK, ("blue", -0.5),
         (" sky", 1.0)],
    ),
    "negative": ("(blurred:1.2), dark", [("blurred", 1.2), (", dark", 1.0)]),
    "empty": ("", []),
}

# model, syntax, prompt, negative prompt, clip skip, options
RUNS = {
    "sd1_skip1": ("sd1", "plain", "plain", "empty", 1, {}),
    "sd1_skip2_negative": ("sd1", "plain", "plain", "negative", 2, {}),
    "sd1_skip1_unguided": ("sd1", "plain", "plain", "empty", 1, {"guidance_scale": 1.0}),
    "sd1_long": ("sd1", "weighted", "long", "negative", 0, {}),
    "sd1_weighted": ("sd1", "weighted", "weighted", "negative", 0, {}),
    "sd1_broken_skip1": ("sd1", "weighted", "broken", "negative", 1, {}),
    "sd1_broken_unguided": ("sd1", "weighted", "broken", "empty", 0, {"guidance_scale": 1.0}),
    "sdxl_skip1": ("sdxl", "plain", "plain", "empty", 1, {}),
    "sdxl_skip2_negative": ("sdxl", "plain", "plain", "negative", 2, {}),
    "sdxl_long": ("sdxl", "weighted", "long", "negative", 0, {}),
    "sdxl_weighted_zeros": ("sdxl", "weighted", "weighted", "empty", 0, {}),
    "sdxl_broken_skip1": ("sdxl", "weighted", "broken", "negative", 1, {}),
}


def chunks_of(tokenizer, parts, fill_to=1):
    """Ids and weights by chunk."""
    room = tokenizer.model_max_length - 2
    chunks, breaks = [[]], False
    for part in parts:
        if part is BREAK:
            breaks = True
            continue
        text, weight = part
        for token in tokenizer(text, add_special_tokens=False).input_ids:
            if len(chunks[-1]) == room or (breaks and chunks[-1]):
                chunks.append([])
            breaks = False
            chunks[-1].append((token, weight))
    while len(chunks) < fill_to:
        chunks.append([])
    ids, weights = [], []
    for chunk in chunks:
        padding = tokenizer.model_max_length - 2 - len(chunk)
        ids.append([tokenizer.bos_token_id, *(token for token, _ in chunk), tokenizer.eos_token_id]
                   + [tokenizer.pad_token_id] * padding)
        weights.append([1.0, *(weight for _, weight in chunk), 1.0] + [1.0] * padding)
    return ids, weights


def states_of(encoder, ids, skip, is_xl):
    """What the U-Net reads of each row, and the rows' vectors."""
    output = encoder(torch.tensor(ids), output_hidden_states=True)
    if is_xl:
        return output.hidden_states[-(skip + 2)], output[0]
    if skip == 0:
        return output.last_hidden_state, None
    return encoder.text_model.final_layer_norm(output.hidden_states[-(skip + 1)]), None


def encode(pipeline, parts, chunks, skip, is_xl):
    """The embedding of a prompt by the documented rule, and its vector."""
    pairs = [(pipeline.tokenizer, pipeline.text_encoder)]
    if is_xl:
        pairs.append((pipeline.tokenizer_2, pipeline.text_encoder_2))
    embeddings, pooled = [], None
    for tokenizer, encoder in pairs:
        ids, weights = chunks_of(tokenizer, parts, chunks)
        states, vectors = states_of(encoder, ids, skip, is_xl)  # [K, T, C]
        empty, _ = states_of(encoder, chunks_of(tokenizer, [])[0], skip, is_xl)  # [1, T, C]
        states = empty + torch.tensor(weights).unsqueeze(-1) * (states - empty)
        embeddings.append(states.reshape(1, -1, states.shape[-1]))
        pooled = vectors[:1] if is_xl else None
    return torch.cat(embeddings, dim=-1), pooled


def as_embeddings(pipeline, prompt, negative, skip, is_xl):
    parts = [PROMPTS[name][1] for name in (prompt, negative)]
    tokenizers = [pipeline.tokenizer] + ([pipeline.tokenizer_2] if is_xl else [])
    chunks = max(len(chunks_of(tokenizer, part)[0]) for part in parts for tokenizer in tokenizers)
    embedding, pooled = encode(pipeline, parts[0], chunks, skip, is_xl)
    other, other_pooled = encode(pipeline, parts[1], chunks, 0, is_xl)
    if is_xl and negative == "empty":
        other, other_pooled = torch.zeros_like(other), torch.zeros_like(other_pooled)
    arguments = {"prompt_embeds": embedding, "negative_prompt_embeds": other}
    if is_xl:
        arguments |= {"pooled_prompt_embeds": pooled, "negative_pooled_prompt_embeds": other_pooled}
    return arguments


@torch.no_grad()
def main() -> None:
    runs = []
    for name, (model, syntax, prompt, negative, skip, options) in RUNS.items():
        is_xl = model == "sdxl"
        kind = StableDiffusionXLPipeline if is_xl else StableDiffusionPipeline
        more = {"variant": "fp16", "add_watermarker": False} if is_xl else {"safety_checker": None}
        pipeline = kind.from_pretrained(FOLDER / model / "model", torch_dtype=torch.float32, **more)
        pipeline.set_progress_bar_config(disable=True)
        run = {"height": 64, "width": 64, "num_inference_steps": 4, "guidance_scale": 5.0, **options}
        if syntax == "plain":
            words = {"prompt": PROMPTS[prompt][0], "negative_prompt": PROMPTS[negative][0] or None, "clip_skip": skip}
        else:
            words = as_embeddings(pipeline, prompt, negative, skip, is_xl)
        generator = torch.Generator().manual_seed(SEED)
        latents = pipeline(**words, **run, generator=generator, output_type="latent").images
        file = f"{name}.safetensors"
        save_file({"out.latents": latents.contiguous()}, FOLDER / "prompts" / file)
        runs.append({"file": file, "model": model, "syntax": syntax, "prompt": PROMPTS[prompt][0],
                     "negative_prompt": PROMPTS[negative][0], "clip_skip": skip, "seed": SEED, **run})
    (FOLDER / "prompts/runs.json").write_text(json.dumps({"runs": runs}, indent=1) + "\n")


if __name__ == "__main__":
    main()
