"""Reference generations with diffusers and DeepCacheSDHelper: float32 arithmetic, f16 weights, CPU.

    pip install --no-deps DeepCache==0.1.1
    python tools/tiny/goldens.py --model assets/tiny --out tests/goldens/tiny

golden.json lists what was made.  Every latents file holds the final latents before they are divided
by scaling_factor.  DDIM (eta 0) and PNDM take their settings from scheduler_config.json.

One thing differs from the helper: it finds the step by looking the timestep up in the schedule,
which counts the second and third call of PNDM (the same timestep) as one step.  Here the
calls of the U-Net are counted: call k is a full one when k % interval == 0.  For DDIM the two agree.
"""
import argparse
import importlib.util
import json
import os
import site

import torch
from diffusers import DDIMScheduler, PNDMScheduler
from PIL import Image
from safetensors.torch import save_file

from checker import PROMPTS
from pool import MODEL
from sample import decode, initial_latents, load_pipeline


def load_helper():
    """The extension file alone: the package itself wants an old diffusers."""
    for folder in site.getsitepackages():
        path = os.path.join(folder, "DeepCache", "extension", "deepcache.py")
        if os.path.exists(path):
            spec = importlib.util.spec_from_file_location("deepcache_extension", path)
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
            return module.DeepCacheSDHelper
    raise SystemExit("DeepCache is not installed")


class CallCountingHelper(load_helper()):
    """Takes the number of the U-Net call for the number of the step."""

    def wrap_unet_forward(self):
        forward = self.function_dict["unet_forward"] = self.pipe.unet.forward
        calls = iter(range(10_000))

        def counted(*args, **kwargs):
            self.cur_timestep = next(calls)
            return forward(*args, **kwargs)
        self.pipe.unet.forward = counted


def generate(pipeline, prompt, latents, scheduler, steps, interval, branch):
    kind = {"ddim": DDIMScheduler, "pndm": PNDMScheduler}[scheduler]
    pipeline.scheduler = kind.from_config(pipeline.scheduler.config)
    helper = CallCountingHelper(pipe=pipeline)
    if interval > 1:
        helper.set_params(cache_interval=interval, cache_branch_id=branch)
        helper.enable()
    result = pipeline(prompt=prompt, negative_prompt="", latents=latents.clone(), num_inference_steps=steps,
                      guidance_scale=7.5, output_type="latent").images
    if interval > 1:
        helper.disable()
    return result


def runs_of(index):
    """(scheduler, steps, interval, branch, with picture) of one prompt."""
    runs = [("ddim", 50, 1, 0, True), ("ddim", 50, 3, 0, True), ("ddim", 50, 5, 0, True), ("ddim", 50, 10, 0, False)]
    if index < 2:
        runs += [("ddim", 50, 3, branch, False) for branch in (1, 2, 6)]
        runs += [("pndm", 20, 1, 0, False), ("pndm", 20, 3, 0, False)]
    return runs


def encode(pipeline, text):
    ids = pipeline.tokenizer(text, padding="max_length", return_tensors="pt",
                             max_length=pipeline.tokenizer.model_max_length)["input_ids"]
    with torch.inference_mode():
        return ids[0].tolist(), pipeline.text_encoder(ids)[0]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=MODEL)
    parser.add_argument("--prompts", default=PROMPTS)
    parser.add_argument("--out", required=True)
    options = parser.parse_args()
    torch.set_num_threads(1)
    os.makedirs(options.out, exist_ok=True)
    pipeline = load_pipeline(options.model)

    def store(name, key, tensor):
        save_file({key: tensor.contiguous()}, os.path.join(options.out, name))
        return name

    negative_ids, negative = encode(pipeline, "")
    manifest = {"guidance": 7.5, "negative_prompt": "", "negative_ids": negative_ids,
                "negative_text": store("negative_text.safetensors", "context", negative), "prompts": []}
    with open(options.prompts) as file:
        entries = json.load(file)[:8]
    for index, entry in enumerate(entries):
        ids, context = encode(pipeline, entry["prompt"])
        latents = initial_latents(entry["seed"])
        item = {"prompt": entry["prompt"], "seed": entry["seed"], "input_ids": ids,
                "initial": store(f"{index:02d}_initial.safetensors", "latents", latents),
                "text": store(f"{index:02d}_text.safetensors", "context", context), "runs": []}
        for scheduler, steps, interval, branch, with_picture in runs_of(index):
            result = generate(pipeline, entry["prompt"], latents, scheduler, steps, interval, branch)
            name = f"{index:02d}_{scheduler}{steps}_n{interval}_b{branch}"
            run = {"scheduler": scheduler, "steps": steps, "interval": interval, "branch": branch,
                   "latents": store(name + ".safetensors", "latents", result)}
            if with_picture:
                run["png"] = name + ".png"
                Image.fromarray(decode(pipeline, result)[0]).save(os.path.join(options.out, run["png"]))
            item["runs"].append(run)
        manifest["prompts"].append(item)
        print(index, entry["prompt"], flush=True)
    with open(os.path.join(options.out, "golden.json"), "w") as file:
        json.dump(manifest, file, indent=1)


if __name__ == "__main__":
    main()
