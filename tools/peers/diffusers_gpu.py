"""Whole steps of Stable Diffusion v1.5 on diffusers: eager, with DeepCache, as CUDA graphs and compiled.

    python tools/peers/diffusers_gpu.py [--record benches/record] [--steps 50] [--budget 900]

The networks have random weights: times do not depend on them. Every part is guarded: one that fails says so, and the
rest goes on. `--device cpu --tiny` tries the program itself where there is no CUDA. Needs torch, diffusers,
transformers and DeepCache.
"""

import argparse
import csv
import datetime
import os
import re
import sys
import time
import traceback
from pathlib import Path

os.environ |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}

import diffusers
import torch
import transformers
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

GUIDANCE = 7.5


def networks(tiny):
    """U-Net, VAE and text encoder of v1.5, or the same with few channels."""
    width = 32 if tiny else 320
    unet = UNet2DConditionModel(
        sample_size=64,
        block_out_channels=(width, 2 * width, 4 * width, 4 * width),
        layers_per_block=2,
        attention_head_dim=8,
        cross_attention_dim=64 if tiny else 768,
    )
    width = 32 if tiny else 128
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(width, 2 * width, 4 * width, 4 * width),
        layers_per_block=2,
        latent_channels=4,
        sample_size=512,
    )
    text = CLIPTextConfig(
        hidden_size=64 if tiny else 768,
        intermediate_size=256 if tiny else 3072,
        projection_dim=64 if tiny else 768,
        num_hidden_layers=2 if tiny else 12,
        num_attention_heads=4 if tiny else 12,
        max_position_embeddings=77,
        vocab_size=49408,
    )
    return unet, vae, CLIPTextModel(text)


class Bench:
    """The pipeline, its inputs, and what was measured."""

    def __init__(self, options):
        self.options, self.begun, self.rows, self.eager = options, time.time(), [], None
        self.cuda = options.device == "cuda"
        self.wait = torch.cuda.synchronize if self.cuda else lambda: None
        self.device = torch.device(options.device)
        kind = torch.float16 if self.cuda else torch.float32
        self.kind = "f16" if self.cuda else "f32"
        torch.manual_seed(0)
        self.unet, self.vae, self.text = (
            network.to(self.device, kind).eval() for network in networks(options.tiny)
        )
        self.scheduler = DDIMScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            clip_sample=False,
            set_alpha_to_one=False,
            steps_offset=1,
        )
        self.pipeline = StableDiffusionPipeline(
            vae=self.vae,
            text_encoder=self.text,
            tokenizer=None,
            unet=self.unet,
            scheduler=self.scheduler,
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
        self.pipeline.set_progress_bar_config(disable=True)
        side = options.side

        def random(*shape):
            return torch.randn(*shape).to(self.device, kind)

        self.pair, self.latents = random(2, 4, side, side), random(1, 4, side, side)
        self.prompts = random(2, 77, self.unet.config.cross_attention_dim)
        self.tokens = torch.randint(0, 49407, (1, 77)).to(self.device)
        self.timestep = torch.tensor(500, device=self.device)

    def left(self):
        return self.options.budget - (time.time() - self.begun)

    def best(self, call, warm=2, calls=1):
        """The smallest of three rounds of so many calls, in seconds of one."""
        for _ in range(warm):
            call()
        times = []
        for _ in range(3):
            self.wait()
            before = time.perf_counter()
            for _ in range(calls):
                call()
            self.wait()
            times.append((time.perf_counter() - before) / calls)
        return min(times)

    def keep(self, variant, what, seconds, remark=""):
        self.rows.append([variant, what, 1e3 * seconds, remark])
        print(f"{variant}, {what}: {1e3 * seconds:.2f} ms {remark}", flush=True)

    def loop(self, output="latent"):
        """All steps with guidance, from latents to latents or pixels."""
        return self.pipeline(
            prompt_embeds=self.prompts[:1],
            negative_prompt_embeds=self.prompts[1:],
            latents=self.latents.clone(),
            num_inference_steps=self.options.steps,
            guidance_scale=GUIDANCE,
            output_type=output,
        ).images

    def call(self, unet):
        return unet(self.pair, self.timestep, encoder_hidden_states=self.prompts, return_dict=False)[0]


def parts(bench):
    calls = 10 if bench.cuda else 1
    bench.keep("eager", "U-Net, batch 2", bench.best(lambda: bench.call(bench.unet), calls=calls))
    bench.keep("eager", "VAE decoder", bench.best(lambda: bench.vae.decode(bench.latents).sample))
    bench.keep("eager", "text encoder", bench.best(lambda: bench.text(bench.tokens)[0], calls=calls))


def eager(bench):
    steps = bench.options.steps
    bench.eager = bench.best(bench.loop, warm=1)
    bench.keep("eager", f"{steps} steps", bench.eager, f"{1e3 * bench.eager / steps:.2f} ms a step")
    bench.keep("eager", f"{steps} steps and VAE", bench.best(lambda: bench.loop("pt"), warm=1))


def deepcache(bench):
    """The helper of DeepCache's authors."""
    from DeepCache import DeepCacheSDHelper

    whole = bench.loop().float()
    for branch, interval in [(0, 2), (0, 3), (0, 5), (0, 10), (0, 20), (2, 5)]:
        if bench.left() < 60:
            print("DeepCache: no time is left for more", flush=True)
            return
        helper = DeepCacheSDHelper(pipe=bench.pipeline)
        helper.set_params(cache_interval=interval, cache_branch_id=branch)
        helper.enable()
        try:
            seconds = bench.best(bench.loop, warm=1)
            off = ((bench.loop().float() - whole).norm() / whole.norm()).item()
        finally:
            helper.disable()
        remark = f"latents off by {off:.4f}"
        if bench.eager is not None:
            remark = f"{bench.eager / seconds:.2f} times faster, {remark}"
        bench.keep(f"DeepCache, interval {interval}, branch {branch}", f"{bench.options.steps} steps", seconds, remark)


def graphs(bench):
    """Full and shallow call as CUDA graphs: the strongest simple form of PyTorch, without its cost of launching."""
    from DeepCache import DeepCacheSDHelper

    if not bench.cuda:
        return
    helper = DeepCacheSDHelper(pipe=bench.pipeline)
    helper.set_params(cache_interval=10**6, cache_branch_id=0)
    helper.enable()
    try:
        forward = helper.function_dict["unet_forward"]
        helper.start_timestep = 0
        pair, timestep, prompts = bench.pair.clone(), bench.timestep.clone(), bench.prompts.clone()

        def call(step):
            helper.cur_timestep = step
            return forward(pair, timestep, encoder_hidden_states=prompts, return_dict=False)[0]

        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for step in [0, 1] * 3:
                call(step)
        torch.cuda.current_stream().wait_stream(stream)
        bench.wait()
        full, shallow = torch.cuda.CUDAGraph(), torch.cuda.CUDAGraph()
        with torch.cuda.graph(full):
            full_output = call(0)
        with torch.cuda.graph(shallow, pool=full.pool()):
            shallow_output = call(1)
        bench.keep("CUDA graph", "U-Net, batch 2", bench.best(full.replay, calls=10))
        bench.keep("CUDA graph", "shallow call, branch 0", bench.best(shallow.replay, calls=10))
        bench.scheduler.set_timesteps(bench.options.steps, device=bench.device)
        timesteps = bench.scheduler.timesteps.tolist()

        def loop(interval):
            latents = bench.latents.clone()
            for index, now in enumerate(timesteps):
                pair.copy_(latents.expand(2, -1, -1, -1))
                timestep.fill_(now)
                graph, output = (full, full_output) if index % interval == 0 else (shallow, shallow_output)
                graph.replay()
                without, with_prompt = output.chunk(2)
                guided = without + GUIDANCE * (with_prompt - without)
                latents = bench.scheduler.step(guided, int(now), latents, return_dict=False)[0]
            return latents

        for interval in (1, 2, 3, 5, 10, 20):
            seconds = bench.best(lambda: loop(interval), warm=1)
            bench.keep(f"CUDA graph, interval {interval}, branch 0", f"{bench.options.steps} steps", seconds)
    finally:
        helper.disable()


def compiled(bench):
    if not bench.cuda or bench.left() < 150:
        print("torch.compile: not run: no CUDA, or no time is left", flush=True)
        return
    mode = "max-autotune-no-cudagraphs" if bench.left() > 400 else "default"
    unet = torch.compile(bench.unet, mode=mode, fullgraph=True)
    before = time.perf_counter()
    bench.call(unet)
    bench.wait()
    bench.keep("compiled", "first call", time.perf_counter() - before, mode)
    bench.keep("compiled", "U-Net, batch 2", bench.best(lambda: bench.call(unet), warm=3, calls=10))
    bench.pipeline.unet = unet
    try:
        seconds = bench.best(bench.loop, warm=1)
    finally:
        bench.pipeline.unet = bench.unet
    remark = f"{1e3 * seconds / bench.options.steps:.2f} ms a step"
    bench.keep("compiled", f"{bench.options.steps} steps", seconds, remark)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--record", type=Path, help="benches/record of the repository")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--side", type=int, default=64, help="of the latents")
    parser.add_argument("--budget", type=float, default=900.0, help="seconds")
    parser.add_argument("--tiny", action="store_true", help="networks of few channels")
    options = parser.parse_args()
    torch.set_grad_enabled(False)
    bench = Bench(options)
    name = torch.cuda.get_device_name() if bench.cuda else "CPU"
    versions = [f"{module.__name__} {module.__version__}" for module in (torch, diffusers, transformers)]
    size = 8 * options.side
    header = f"device: {name}; {', '.join(versions)}; {bench.kind}, {size}x{size}, guidance, DDIM, random weights"
    print(header, flush=True)
    failed = 0
    for part in (parts, eager, deepcache, graphs, compiled):
        try:
            part(bench)
        except Exception as error:  # noqa: BLE001 (a part that fails is no reason to lose the rest)
            failed += 1
            print(f"{part.__name__}: not run: {type(error).__name__}: {str(error)[:300]}", flush=True)
            traceback.print_exc(limit=3)
    if bench.cuda:
        print(f"at most {torch.cuda.max_memory_allocated() / 2**20:.0f} MiB of the GPU's memory", flush=True)
    if options.record and bench.rows:
        folder = options.record / "-".join(re.findall("[a-z0-9]+", name.lower()))
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d}-diffusers.csv"
        with path.open("w") as file:
            file.write(f"# {header}\n")
            csv.writer(file, lineterminator="\n").writerows([["variant", "what", "ms", "remark"], *bench.rows])
        print(f"wrote {path}", flush=True)
    sys.exit(failed > 0)


main()
