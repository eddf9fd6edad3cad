"""Writes tests/goldens/tiny_autoencoder: tiny autoencoders with random weights, decodes, and a run that ends with one.

    python3 tools/goldens/tiny_autoencoder.py

`model/` is diffusers' AutoencoderTiny with float16 weights of a fixed seed; `taesd_decoder.safetensors` has the same
decoder under the names of the original code, checked here by running such a network. `decode.safetensors` has latents
`N.latents` [1, 4, h, w] and pictures `N.image` [1, 3, H, W] in -1 to 1, with the stages of the first, and
`loop.safetensors` a whole run of the model of tests/goldens/sd1 with it in the place of its VAE.
Made with torch 2.15, diffusers 0.42.1.
"""

import json
import shutil

import torch
from diffusers import AutoencoderTiny, StableDiffusionPipeline
from safetensors.torch import save_file
from torch import nn

from single_file import GOLDENS

TARGET = GOLDENS / "tiny_autoencoder"
WIDTH = 16
REQUEST = {"prompt": "a small boat", "height": 64, "width": 96, "steps": 4, "guidance_scale": 4.0, "seed": 11}


def model(levels):
    torch.manual_seed(23)
    vae = AutoencoderTiny(
        encoder_block_out_channels=(WIDTH,) * levels, decoder_block_out_channels=(WIDTH,) * levels,
        num_encoder_blocks=(1,) * levels, num_decoder_blocks=(3, 3, 3, 1)[-levels:])
    for value in vae.parameters():
        with torch.no_grad():
            value.mul_(1.7) if value.ndim > 1 else value.add_(0.1 * torch.randn_like(value))
            value.copy_(value.half().float())
    return vae.eval()


class Clamp(nn.Module):
    def forward(self, latents):
        return torch.tanh(latents / 3) * 3


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        convolution = lambda: nn.Conv2d(WIDTH, WIDTH, 3, padding=1)
        self.conv = nn.Sequential(convolution(), nn.ReLU(), convolution(), nn.ReLU(), convolution())

    def forward(self, hidden):
        return torch.relu(self.conv(hidden) + hidden)


def original(vae):
    """The decoder as the original code has it: the clamp is a layer, so that numbers are one higher."""
    layers = [Clamp()]
    for layer in vae.decoder.layers:
        layers.append(Block() if hasattr(layer, "conv") else layer)
    network = nn.Sequential(*layers)
    tensors = {}
    for name, value in vae.decoder.layers.state_dict().items():
        number, leaf = name.split(".", 1)
        tensors[f"{int(number) + 1}.{leaf}"] = value
    network.load_state_dict(tensors, strict=True)
    return network.eval(), tensors


def decodes(vae):
    network, tensors = original(vae)
    save_file({name: value.half().contiguous() for name, value in tensors.items()},
              TARGET / "taesd_decoder.safetensors")
    found = {}
    generator = torch.Generator().manual_seed(3)
    for number, shape in enumerate([(4, 4), (5, 7)]):
        latents = 2 * torch.randn(1, 4, *shape, generator=generator)
        image = vae.decode(latents).sample
        assert torch.allclose(network(latents) * 2 - 1, image, atol=1e-6)
        found |= {f"{number}.latents": latents, f"{number}.image": image.contiguous()}
    stages = {}
    hooks = [
        layer.register_forward_hook(lambda _, __, output, name=name: stages.__setitem__(name, output))
        for name, layer in vae.decoder.layers.named_children() if hasattr(layer, "conv")]
    vae.decode(found["0.latents"])
    for hook in hooks:
        hook.remove()
    print({name: round(value.std().item(), 3) for name, value in stages.items()}, "image", image.std().item())
    return found | {f"0.stage.{name}": value.contiguous() for name, value in stages.items()}


def loop(vae):
    pipeline = StableDiffusionPipeline.from_pretrained(
        GOLDENS / "sd1" / "model", safety_checker=None, requires_safety_checker=False, vae=vae)
    pipeline.set_progress_bar_config(disable=True)
    call = dict(prompt=REQUEST["prompt"], height=REQUEST["height"], width=REQUEST["width"],
                num_inference_steps=REQUEST["steps"], guidance_scale=REQUEST["guidance_scale"])
    generator = lambda: torch.Generator().manual_seed(REQUEST["seed"])
    latents = pipeline(**call, generator=generator(), output_type="latent").images
    image = pipeline(**call, generator=generator(), output_type="pt").images
    return {"latents": latents.contiguous(), "image": image.mul(2).sub(1).contiguous()}


def main():
    levels = len(json.loads((GOLDENS / "sd1" / "model" / "vae" / "config.json").read_text())["block_out_channels"])
    shutil.rmtree(TARGET, ignore_errors=True)
    vae = model(levels)
    vae.half().save_pretrained(TARGET / "model")
    vae.float()
    save_file(decodes(vae), TARGET / "decode.safetensors")
    save_file(loop(vae), TARGET / "loop.safetensors")
    (TARGET / "cases.json").write_text(json.dumps(REQUEST, indent=1) + "\n")


if __name__ == "__main__":
    with torch.no_grad():
        main()
