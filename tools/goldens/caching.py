"""Cached loops that DeepCache's own code does not have, for tests/pipelines_cache.rs.

    pip install torch==2.15.0 diffusers==0.42.1 transformers==5.23.0 safetensors
    python tools/goldens/caching.py --model tests/goldens/sd1/model --out tests/goldens/caching

Extrapolated features, full calls at the start whatever the schedule says, and full calls that are decided by a
threshold while the run goes on. The whole U-Net of diffusers runs in every call; where a call is shallow, a hook
replaces what enters the up layer that reads skip tensor `branch` by what was kept. So nothing of the cut itself is
shared with what is tested.

Writes loops.json with one entry per loop and one safetensors file each: `latents` [1, 4, h, w] at the end, and
`drift` [calls] where there is a threshold (0 for the first call).
"""
import argparse
import json
import os

import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline
from safetensors.torch import save_file

PROMPT, NEGATIVE, GUIDANCE, SEED, SIDE = "a photo of a red fox in the snow", "blurry, low quality", 7.5, 1234, 16

LOOPS = [
    {"name": "linear_b0", "steps": 14, "branch": 0, "reuse": "linear", "full": [0, 1, 4, 8, 11]},
    {"name": "linear_b3", "steps": 12, "branch": 3, "reuse": "linear", "full": [0, 3, 6, 9]},
    {"name": "quadratic_b2", "steps": 14, "branch": 2, "reuse": "quadratic", "full": [0, 2, 3, 7, 11]},
    {"name": "quadratic_b0_few", "steps": 8, "branch": 0, "reuse": "quadratic", "full": [0, 5]},
    {"name": "warm_up_eta_b1", "steps": 12, "branch": 1, "reuse": "hold", "interval": 4, "warm_up": 3, "eta": 0.5},
    {"name": "warm_up_linear_b1", "steps": 12, "branch": 1, "reuse": "linear", "interval": 5, "warm_up": 2},
    {"name": "threshold_b0", "steps": 20, "branch": 0, "reuse": "hold", "threshold": 0.3},
    {"name": "threshold_b2", "steps": 20, "branch": 2, "reuse": "hold", "threshold": 0.6, "warm_up": 2},
    {"name": "threshold_linear_b1", "steps": 20, "branch": 1, "reuse": "linear", "threshold": 0.5},
]
FEATURES = {"hold": 1, "linear": 2, "quadratic": 3}


def extrapolation(full, call):
    """Coefficients of the polynomial through the kept features, the newest first (Lagrange)."""
    coefficients = []
    for own in full:
        product = 1.0
        for other in full:
            if other != own:
                product *= (call - other) / (own - other)
        coefficients.append(product)
    return coefficients


class Threshold:
    """Full calls by the drift of the call before the last, continued at the pace of the last known one."""

    def __init__(self, threshold):
        self.threshold, self.last, self.pace, self.known = threshold, 0, None, None
        self.since, self.drift, self.margin = [], [], float("inf")

    def decide(self, call):
        look = {0: None, 1: None, 2: 1}.get(call, call - 2)
        if look is not None:
            distance = look - self.since[look]
            if distance > 0:
                self.pace = self.drift[look] / distance
                if self.since[look] == self.last:
                    self.known = (distance, self.drift[look])
        self.since.append(self.last)
        full = call == 0
        if not full and self.pace is not None:
            distance, drift = self.known or (0, 0.0)
            expected = drift + self.pace * max(call - self.last - distance, 0)
            self.margin = min(self.margin, abs(expected / self.threshold - 1.0))
            full = expected > self.threshold
        return full

    def mark(self, call):
        self.last, self.known = call, None


class Cut:
    """Replaces what enters an up layer, and measures the skip tensor that it reads."""

    def __init__(self, unet, branch):
        resnets = [resnet for block in unet.up_blocks for resnet in block.resnets]
        self.layer = resnets[-1 - branch]
        skips = [unet.config.block_out_channels[0]]
        for level, block in enumerate(unet.down_blocks):
            skips += [unet.config.block_out_channels[level]] * (len(block.resnets) + bool(block.downsamplers))
        self.channels, self.put, self.feature, self.skip = skips[branch], None, None, None
        self.layer.register_forward_pre_hook(self.enter)

    def enter(self, _, arguments):
        joined = arguments[0]
        deep = joined.shape[1] - self.channels
        self.feature, self.skip = joined[:, :deep].clone(), joined[:, deep:].clone()
        if self.put is not None:
            return (torch.cat([self.put, self.skip], dim=1), *arguments[1:])
        return None


@torch.no_grad()
def run(pipeline, loop):
    scheduler = DDIMScheduler.from_config(pipeline.scheduler.config)
    scheduler.set_timesteps(loop["steps"])
    prompt, negative = pipeline.encode_prompt(PROMPT, "cpu", 1, True, NEGATIVE)
    embeddings = torch.cat([negative, prompt])
    cut = Cut(pipeline.unet, loop["branch"])
    generator = torch.Generator().manual_seed(SEED)
    latents = torch.randn(1, 4, SIDE, SIDE, generator=generator) * scheduler.init_noise_sigma
    threshold = Threshold(loop["threshold"]) if "threshold" in loop else None
    kept, full_calls, reference, last_reference = [], [], None, 0
    for call, timestep in enumerate(scheduler.timesteps):
        if threshold:
            full = threshold.decide(call)
        else:
            full = call in loop["full"] if "full" in loop else call % loop["interval"] == 0
        full = full or call < loop.get("warm_up", 0)
        if full and threshold:
            threshold.mark(call)
        places = [place for place, _ in kept]
        cut.put = None
        if not full:
            cut.put = sum(weight * feature for weight, (_, feature) in zip(extrapolation(places, call), kept))
        sample = torch.cat([latents] * 2)
        prediction = pipeline.unet(scheduler.scale_model_input(sample, timestep), timestep,
                                   encoder_hidden_states=embeddings).sample
        if threshold:
            drift = 0.0 if call == 0 else ((cut.skip - reference).norm() / reference.norm()).item()
            threshold.drift.append(drift)
        if full:
            full_calls.append(call)
            kept = [(call, cut.feature)] + kept[:FEATURES[loop["reuse"]] - 1]
            reference = cut.skip
        without, with_prompt = prediction.chunk(2)
        prediction = without + GUIDANCE * (with_prompt - without)
        latents = scheduler.step(prediction, timestep, latents, eta=loop.get("eta", 0.0),
                                 generator=generator).prev_sample
    cut.layer._forward_pre_hooks.clear()
    tensors = {"latents": latents.contiguous()}
    if threshold:
        assert threshold.margin > 0.005, f"{loop['name']}: a decision hangs on {threshold.margin:.1e}"
        tensors["drift"] = torch.tensor(threshold.drift)
    return tensors, full_calls


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--out", required=True)
    options = parser.parse_args()
    os.makedirs(options.out, exist_ok=True)
    pipeline = StableDiffusionPipeline.from_pretrained(options.model, safety_checker=None)
    cases = []
    for loop in LOOPS:
        tensors, full_calls = run(pipeline, loop)
        file = f"{loop['name']}.safetensors"
        save_file(tensors, os.path.join(options.out, file))
        cases.append({**loop, "full_calls": full_calls, "file": file})
        print(loop["name"], full_calls, [round(value, 3) for value in tensors.get("drift", torch.zeros(0)).tolist()])
    with open(os.path.join(options.out, "loops.json"), "w") as file:
        json.dump({"prompt": PROMPT, "negative_prompt": NEGATIVE, "guidance_scale": GUIDANCE, "seed": SEED,
                   "side": SIDE, "loops": cases}, file, indent=1)
        file.write("\n")


if __name__ == "__main__":
    main()
