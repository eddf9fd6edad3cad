"""Trains the U-Net of the tiny model further, on the CPU.

    python tools/tiny/pool.py --out POOL
    python tools/tiny/train.py --pool POOL --from assets/tiny --out DIR --minutes 60

DIR receives log.csv, state.pt (everything; a second run with the same --out goes on from it) and
ema/unet and ema/text_encoder (what assemble.py makes a model of), every two minutes.
The learning rate is constant, then falls by a cosine to the end of the given minutes.
"""
import argparse
import glob
import math
import os
import signal
import sys
import time

import torch
import torch.distributed as distributed
import torch.multiprocessing as multiprocessing
from diffusers import DDPMScheduler, UNet2DConditionModel
from transformers import CLIPTextModel

from muon import Muon
from pool import MODEL

BINS = 20  # of 50 timesteps each


class Pool:
    """Scenes in random order; chunks that appear later are taken in after each pass."""

    def __init__(self, folder, generator):
        self.folder, self.generator, self.order = folder, generator, torch.empty(0, dtype=torch.long)

    def load(self):
        chunks = [torch.load(f) for f in sorted(glob.glob(os.path.join(self.folder, "chunk-*.pt")))]
        self.latents = torch.cat([c["latents"] for c in chunks])
        self.tokens = torch.cat([c["tokens"] for c in chunks])
        self.order = torch.randperm(len(self.latents), generator=self.generator)

    def batch(self, count):
        if len(self.order) < count:
            self.load()
        index, self.order = self.order[:count], self.order[count:]
        return self.latents[index].float(), self.tokens[index].long()


def timestep_weights(high):
    """Sampling density of the 1000 timesteps: most samples where the shape is decided, and an extra
    share `high` of them from timestep 800 on, where the position is."""
    t = torch.arange(1000.0)
    density = 0.35 + torch.exp(-0.5 * ((t - 640) / 190) ** 2)
    late = (t >= 800).float()
    return (1 - high) * density / density.sum() + high * late / late.sum()


def make_optimizers(unet, options):
    """Muon for the hidden matrices of the U-Net (or nothing), AdamW for the rest."""
    hidden = []
    if options.optimizer == "muon":
        hidden = [p for name, p in unet.named_parameters()
                  if p.ndim >= 2 and not name.startswith(("conv_in", "conv_out", "time_embedding"))]
    taken = {id(p) for p in hidden}
    rest = [p for p in unet.parameters() if id(p) not in taken]
    optimizers = [torch.optim.AdamW(rest, lr=options.lr, betas=(0.9, 0.99), weight_decay=0.01, fused=True)]
    if hidden:
        optimizers.append(Muon(hidden, lr=options.muon_lr))
    return optimizers


def rate(step, fraction, decay):
    """Factor on the learning rates."""
    factor = min(1.0, (step + 1) / 100)
    if fraction > 1 - decay:
        factor *= 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * (fraction - 1 + decay) / decay))
    return factor


def save(options, unet, text_encoder, optimizers, parameters, rest):
    """Writes state.pt and the averaged weights; each file appears whole."""
    state = dict(rest, unet=unet.state_dict(), optimizers=[o.state_dict() for o in optimizers])
    path = os.path.join(options.out, "state.pt")
    torch.save(state, path + ".part")
    os.rename(path + ".part", path)
    live = [p.detach().clone() for p in parameters]
    with torch.no_grad():
        torch._foreach_copy_(parameters, state["ema"])
        for model, name in ((unet, "unet"), (text_encoder, "text_encoder")):
            folder = os.path.join(options.out, "ema", name)
            model.save_pretrained(folder + ".part")
            os.makedirs(folder, exist_ok=True)
            for file in os.listdir(folder + ".part"):
                os.rename(os.path.join(folder + ".part", file), os.path.join(folder, file))
        torch._foreach_copy_(parameters, live)


def train(rank, options):
    torch.set_num_threads(1)
    if options.ranks > 1:
        os.environ.setdefault("MASTER_ADDR", "127.0.0.1")
        os.environ.setdefault("MASTER_PORT", str(options.port))
        distributed.init_process_group("gloo", rank=rank, world_size=options.ranks)
    unet = UNet2DConditionModel.from_pretrained(os.path.join(options.start, "unet")).float().train()
    unet = unet.to(memory_format=torch.channels_last)
    text_encoder = CLIPTextModel.from_pretrained(os.path.join(options.start, "text_encoder")).float()
    text_encoder.requires_grad_(False)  # fixed: see the text encoder in README.md
    parameters = list(unet.parameters())
    optimizers = make_optimizers(unet, options)
    ema = [p.detach().clone() for p in parameters]
    alpha = DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear").alphas_cumprod
    bin_loss = torch.full((BINS,), 0.02)  # running mean of the noise error per bin of timesteps
    step = seen = 0
    path = os.path.join(options.out, "state.pt")
    if os.path.exists(path):
        state = torch.load(path)
        unet.load_state_dict(state["unet"])
        for optimizer, saved in zip(optimizers, state["optimizers"]):
            optimizer.load_state_dict(saved)
        ema, bin_loss, step, seen = state["ema"], state["bin_loss"], state["step"], state["seen"]
    generator = torch.Generator().manual_seed(1000 * step + rank)
    pool = Pool(options.pool, generator)
    cumulative = timestep_weights(options.high).cumsum(0)
    empty = torch.load(os.path.join(options.pool, "empty.pt")).long()
    network = torch.compile(unet) if options.compile else unet

    start = last_save = time.time()
    log_start, log_seen = start, seen
    gradient_norm = 0.0
    while True:
        elapsed = torch.tensor([time.time() - start], dtype=torch.float64)
        if options.ranks > 1:
            distributed.broadcast(elapsed, 0)
        fraction = elapsed.item() / (options.minutes * 60)
        if fraction >= 1:
            break
        factor = rate(step, fraction, options.decay)
        for optimizer, lr in zip(optimizers, (options.lr, options.muon_lr)):
            optimizer.param_groups[0]["lr"] = lr * factor

        latents, tokens = pool.batch(options.batch)
        tokens[torch.rand(options.batch, generator=generator) < 0.1] = empty
        place = (torch.arange(options.batch) + torch.rand(options.batch, generator=generator)) / options.batch
        timesteps = torch.searchsorted(cumulative, place).clamp(max=999)
        noise = torch.randn(latents.shape, generator=generator)
        a = alpha[timesteps].view(-1, 1, 1, 1)
        noisy = a.sqrt() * latents + (1 - a).sqrt() * noise
        context = text_encoder(tokens)[0]
        predicted = network(noisy, timesteps, context, return_dict=False)[0]
        errors = (predicted - noise).square().mean((1, 2, 3))
        bins = timesteps // (1000 // BINS)
        loss = (errors / bin_loss[bins]).mean()
        for optimizer in optimizers:
            optimizer.zero_grad()
        loss.backward()

        sums = torch.zeros(2, BINS).index_add_(1, bins, torch.stack((errors.detach(), torch.ones(len(bins)))))
        if options.ranks > 1:
            flat = torch.cat([p.grad.flatten() for p in parameters] + [sums.flatten()])
            distributed.all_reduce(flat)
            sums = flat[-2 * BINS:].view(2, BINS)
            flat = flat[:-2 * BINS] / options.ranks
            for p, part in zip(parameters, flat.split([p.numel() for p in parameters])):
                p.grad.copy_(part.view(p.shape))
        gradient_norm += torch.nn.utils.clip_grad_norm_(parameters, options.clip).item()
        for optimizer in optimizers:
            optimizer.step()
        speed = (sums[1] / sums[1].mean()).clamp(max=1) * (0.1 if step < 200 else 0.02)
        bin_loss += speed * (sums[0] / sums[1].clamp(min=1) - bin_loss)
        step, seen = step + 1, seen + options.batch * options.ranks
        torch._foreach_lerp_(ema, [p.detach() for p in parameters], 1 - min(options.ema, (1 + step) / (10 + step)))

        if rank == 0 and step % 25 == 0:
            now = time.time()
            columns = [str(step), str(seen), f"{now - start:.0f}", f"{factor:.3f}", f"{gradient_norm / 25:.2f}",
                       f"{(seen - log_seen) / (now - log_start):.1f}"]
            columns += [f"{v * 1000:.2f}" for v in bin_loss[1::2].tolist()]
            log_start, log_seen, gradient_norm = now, seen, 0.0
            with open(os.path.join(options.out, "log.csv"), "a") as log:
                log.write(",".join(columns) + "\n")
        if rank == 0 and time.time() - last_save > 120:
            last_save = time.time()
            save(options, unet, text_encoder, optimizers, parameters,
                 {"ema": ema, "bin_loss": bin_loss, "step": step, "seen": seen})
    if rank == 0:
        save(options, unet, text_encoder, optimizers, parameters,
             {"ema": ema, "bin_loss": bin_loss, "step": step, "seen": seen})


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--from", dest="start", default=MODEL, help="diffusers directory to start from")
    parser.add_argument("--pool", required=True, help="what pool.py drew")
    parser.add_argument("--out", required=True)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--ranks", type=int, default=2, help="single-threaded processes")
    parser.add_argument("--batch", type=int, default=32, help="per process")
    parser.add_argument("--optimizer", choices=["muon", "adamw"], default="muon")
    parser.add_argument("--lr", type=float, default=1e-3, help="of AdamW")
    parser.add_argument("--muon-lr", type=float, default=2e-3)
    parser.add_argument("--decay", type=float, default=0.35, help="share of the time in which the rate falls")
    parser.add_argument("--high", type=float, default=0.2, help="extra share of samples at timesteps from 800 on")
    parser.add_argument("--ema", type=float, default=0.998)
    parser.add_argument("--clip", type=float, default=100.0, help="largest gradient norm")
    parser.add_argument("--compile", action="store_true", help="torch.compile: twice as fast after some minutes")
    parser.add_argument("--port", type=int, default=29517)
    options = parser.parse_args()
    os.makedirs(options.out, exist_ok=True)
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    if options.ranks > 1:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # ends the daemons too
        multiprocessing.spawn(train, args=(options,), nprocs=options.ranks, daemon=True)
    else:
        train(0, options)


if __name__ == "__main__":
    main()
