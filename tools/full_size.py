"""Makes a Stable Diffusion v1.5-shaped U-Net with random weights, and what diffusers computes with it.

    python tools/full_size.py DIRECTORY [--size 64]

writes, in the diffusers layout, DIRECTORY/unet (860 M parameters, f16 storage) and DIRECTORY/reference.safetensors:
one full call, and one shallow call of DeepCache (skip index 1) at the next timestep around the feature that the full
call left. The reference computes in float32 with the f16 weights. Needs torch, diffusers and safetensors; 8 GiB.
"""

import argparse
import json
from pathlib import Path

import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import save_file


def scaled_down(network):
    """Random weights of the default initialisation, with norms and biases that are not trivial."""
    generator = torch.Generator().manual_seed(15)
    with torch.no_grad():
        for name, tensor in network.named_parameters():
            if tensor.dim() == 1 and name.endswith("weight"):
                tensor.add_(0.2 * torch.randn(tensor.shape, generator=generator))
            elif name.endswith("bias"):
                tensor.add_(0.1 * torch.randn(tensor.shape, generator=generator))
    return network


@torch.inference_mode()
def full_call(network, sample, timestep, prompt):
    """The output of the whole network, and what enters the up layer that reads skip tensor 1."""
    kept = {}
    layer = network.up_blocks[-1].resnets[1]
    channels = network.config.block_out_channels[0]
    hook = layer.register_forward_pre_hook(lambda _, inputs: kept.update(feature=inputs[0][:, :channels].clone()))
    output = network(sample, timestep, prompt, return_dict=False)[0]
    hook.remove()
    return output, kept["feature"]


@torch.inference_mode()
def shallow_call(network, sample, timestep, prompt, feature):
    """Only what lies outside the cut of skip index 1, around the kept feature."""
    time = network.time_embedding(network.time_proj(torch.tensor([timestep])))
    hidden = network.conv_in(sample)
    skips = [hidden]
    block = network.down_blocks[0]
    hidden = block.attentions[0](block.resnets[0](hidden, time), prompt, return_dict=False)[0]
    skips.append(hidden)
    hidden, block = feature, network.up_blocks[-1]
    for layer in (1, 2):
        hidden = block.resnets[layer](torch.cat((hidden, skips.pop()), 1), time)
        hidden = block.attentions[layer](hidden, prompt, return_dict=False)[0]
    return network.conv_out(torch.nn.functional.silu(network.conv_norm_out(hidden)))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--size", type=int, default=64, help="height and width of the latents")
    arguments = parser.parse_args()
    folder = arguments.directory / "unet"
    folder.mkdir(parents=True, exist_ok=True)

    torch.manual_seed(15)
    network = UNet2DConditionModel(sample_size=64, cross_attention_dim=768, attention_head_dim=8)
    network = scaled_down(network).half()
    count = sum(tensor.numel() for tensor in network.parameters())
    print(f"{count / 1e6:.1f} M parameters", flush=True)
    save_file(network.state_dict(), folder / "diffusion_pytorch_model.safetensors")
    config = {key: value for key, value in network.config.items() if not key.startswith("_use_default")}
    (folder / "config.json").write_text(json.dumps(config, indent=1, default=list))

    network = network.float().eval()
    first = torch.randn(1, 4, arguments.size, arguments.size)
    second = first + 0.1 * torch.randn(first.shape)
    prompt = torch.randn(1, 77, 768)
    output, feature = full_call(network, first, 501, prompt)
    shallow = shallow_call(network, second, 481, prompt, feature)
    exact = network(second, 481, prompt, return_dict=False)[0]
    print("shallow against full at the second timestep:", float((shallow - exact).norm() / exact.norm()))
    tensors = {
        "in.sample": first, "in.second_sample": second, "in.timesteps": torch.tensor([501.0, 481.0]),
        "in.encoder_hidden_states": prompt, "out.full": output, "out.kept_feature": feature, "out.shallow": shallow,
    }
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, arguments.directory / "reference.safetensors")


if __name__ == "__main__":
    with torch.inference_mode():
        main()
