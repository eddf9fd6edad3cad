"""Writes tests/goldens/lora: small LoRA, LoHa and LoKr files under every naming, and runs of models changed by them.

    python3 tools/goldens/lora.py

LoRA: diffusers' load_lora_weights and fuse_lora, and PEFT's merge_and_unload, change the models of the packs sd1 and
sdxl; the formula of the papers, applied to the state dict here, gives the same weights. LoHa, LoKr, cores and whole
differences, which diffusers does not load for these models: the formulas (LyCORIS, Yeh et al. 2023), and diffusers runs
the changed model. Made with torch 2.15, diffusers 0.42.1, transformers 5.23, peft 0.21.
"""

import json
import shutil
import tempfile
from pathlib import Path

import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline, StableDiffusionXLPipeline
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file

import single_file
import single_file_2_xl

GOLDENS = Path(__file__).parent.parent.parent / "tests" / "goldens"
TARGET = GOLDENS / "lora"
PROMPT, NEGATIVE = "a photo of a red fox in the snow", "blurry, low quality"
STEPS, SEED, GUIDANCE = 4, 3, 5.0
ATTENTION = ["to_q", "to_k", "to_v", "to_out.0"]
TEXT = ["q_proj", "k_proj", "v_proj", "out_proj"]
generator = torch.Generator()


def open_pack(pack):
    folder = GOLDENS / pack / "model"
    if pack == "sd1":
        return StableDiffusionPipeline.from_pretrained(folder, safety_checker=None)
    if pack == "sdxl":
        return StableDiffusionXLPipeline.from_pretrained(folder, variant="fp16", torch_dtype=torch.float32,
                                                         add_watermarker=False)
    return single_file_2_xl.build_xl()


def draw(pipeline):
    pipeline.set_progress_bar_config(disable=True)
    pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config)
    return pipeline(PROMPT, negative_prompt=NEGATIVE, num_inference_steps=STEPS, guidance_scale=GUIDANCE, height=64,
                    width=64, generator=torch.Generator().manual_seed(SEED), output_type="latent").images


def random(*shape, size=1.0):
    return (torch.randn(*shape, generator=generator) * size).half().float()


def weights(network):
    return {name.removesuffix(".weight"): value for name, value in network.state_dict().items()
            if name.endswith(".weight")}


def chosen(network, ends, part=""):
    return [name for name in weights(network) if name.endswith(tuple(ends)) and part in name]


def factors(network, names, rank):
    """Down and up for each layer: a change about a third as large as the weight."""
    found = {}
    for name in names:
        weight = weights(network)[name]
        up_shape = (weight.shape[0], rank) + (1,) * (weight.ndim - 2)
        size = (weight.std().item() / 3 / rank**0.5) ** 0.5
        found[name] = (random(rank, *weight.shape[1:], size=size), random(*up_shape, size=size))
    return found


def delta(down, up):
    return torch.einsum("or,r...->o...", up.flatten(1), down)


def add(network, changes):
    """Adds differences to the weights; names are those of layers, or of parameters."""
    state = network.state_dict()
    for name, change in changes.items():
        full = name if name in state else f"{name}.weight"
        assert state[full].shape == change.shape, (full, change.shape)
        state[full].add_(change)


def save(name, tensors, metadata=None):
    tensors = {key: value.half().contiguous() if value.is_floating_point() else value
               for key, value in tensors.items()}
    TARGET.mkdir(parents=True, exist_ok=True)
    save_file(tensors, TARGET / name, metadata)


def kohya(prefix, layers, alpha, rename=lambda name: name):
    tensors = {}
    for name, (down, up) in layers.items():
        stem = prefix + rename(name).replace(".", "_")
        tensors |= {f"{stem}.lora_down.weight": down, f"{stem}.lora_up.weight": up, f"{stem}.alpha": torch.tensor(alpha)}
    return tensors


def check(network, before, layers, scale):
    """That a reference has added what the formula says."""
    after = weights(network)
    for name, (down, up) in layers.items():
        change = after[name] - before[name]
        assert torch.allclose(change, scale * delta(down, up), atol=1e-5), name
    changed = sum(not torch.equal(after[name], before[name]) for name in before)
    assert changed == len(layers), (changed, len(layers))


def copies(network):
    return {name: value.clone() for name, value in weights(network).items()}


def fuse(pipeline, files):
    """diffusers' own way, with the weight of every file."""
    names = []
    for number, (file, weight) in enumerate(files):
        pipeline.load_lora_weights(str(TARGET), weight_name=file, adapter_name=f"a{number}")
        names.append(f"a{number}")
    pipeline.set_adapters(names, [weight for _, weight in files])
    pipeline.fuse_lora(adapter_names=names)
    pipeline.unload_lora_weights()
    return pipeline


def text_parts(pipeline):
    parts = [("text_encoder", pipeline.text_encoder)]
    if hasattr(pipeline, "text_encoder_2"):
        parts.append(("text_encoder_2", pipeline.text_encoder_2))
    return parts


def of_kohya():
    pipeline = open_pack("sd1")
    unet = chosen(pipeline.unet, ATTENTION + ["ff.net.0.proj", "ff.net.2", "proj_in", "proj_out"], "down_blocks.1")
    unet += chosen(pipeline.unet, ["conv1", "conv_shortcut", "time_emb_proj"], "up_blocks.1.resnets.0")
    unet += ["down_blocks.0.downsamplers.0.conv", "up_blocks.2.upsamplers.0.conv"]
    text = chosen(pipeline.text_encoder, TEXT + ["fc1", "fc2"], "layers.1")
    unet, text = factors(pipeline.unet, unet, 4), factors(pipeline.text_encoder, text, 2)
    file = "sd1-kohya.safetensors"
    text_names = lambda name: name if name.startswith("text_model") else f"text_model.{name}"
    save(file, kohya("lora_unet_", unet, 3.0) | kohya("lora_te_", text, 1.0, text_names))
    before = copies(pipeline.unet), copies(pipeline.text_encoder)
    fuse(pipeline, [(file, 0.8)])
    check(pipeline.unet, before[0], unet, 0.8 * 3 / 4)
    check(pipeline.text_encoder, before[1], text, 0.8 * 1 / 2)
    return "sd1", [(file, 0.8)], pipeline


def of_diffusers():
    """Names of diffusers of today and of attention processors, without alpha, with two weights."""
    pipeline = open_pack("sd1")
    first = factors(pipeline.unet, chosen(pipeline.unet, ATTENTION, "up_blocks"), 2)
    second = factors(pipeline.unet, chosen(pipeline.unet, ATTENTION + ["conv2"], "mid_block"), 3)
    text = factors(pipeline.text_encoder, chosen(pipeline.text_encoder, TEXT), 2)
    files = ["sd1-processors.safetensors", "sd1-diffusers.safetensors"]
    tensors = {}
    for name, (down, up) in first.items():
        path, projection = name.removesuffix(".0").rsplit(".", 1)
        stem = f"unet.{path}.processor.{projection}_lora"
        tensors |= {f"{stem}.down.weight": down, f"{stem}.up.weight": up}
    save(files[0], tensors)
    tensors = {}
    for name, (down, up) in second.items():
        tensors |= {f"unet.{name}.lora_A.weight": down, f"unet.{name}.lora_B.weight": up}
    for name, (down, up) in text.items():
        tensors |= {f"text_encoder.{name}.lora_linear_layer.down.weight": down,
                    f"text_encoder.{name}.lora_linear_layer.up.weight": up}
    save(files[1], tensors)
    before = copies(pipeline.unet), copies(pipeline.text_encoder)
    files = list(zip(files, [1.0, -0.7]))
    fuse(pipeline, files)
    scaled = first | {name: (down, -0.7 * up) for name, (down, up) in second.items()}
    check(pipeline.unet, before[0], scaled, 1)
    check(pipeline.text_encoder, before[1], text, -0.7)
    return "sd1", files, pipeline


def of_peft():
    """A file of PEFT with its configuration beside it."""
    pipeline = open_pack("sd1")
    config = LoraConfig(r=3, lora_alpha=5, target_modules=["to_q", "to_v", "proj_in", "conv1"],
                        alpha_pattern={"to_v": 2}, init_lora_weights=False)
    model = get_peft_model(pipeline.unet, config)
    for name, value in model.named_parameters():
        if "lora_" in name:
            value.copy_(random(*value.shape, size=0.15))
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        (TARGET / "peft").mkdir(parents=True, exist_ok=True)
        for name in ("adapter_model.safetensors", "adapter_config.json"):
            shutil.copy(Path(folder) / name, TARGET / "peft" / name)
    file = TARGET / "peft" / "adapter_model.safetensors"
    save_file({name: value.half() for name, value in load_file(file).items()}, file)
    pipeline.unet = model.merge_and_unload()
    return "sd1", [("peft/adapter_model.safetensors", 1.0)], pipeline


def of_xl():
    """kohya's names for SDXL: those of the original code in the U-Net, two text encoders."""
    pipeline = open_pack("sdxl")
    unet = factors(pipeline.unet, chosen(pipeline.unet, ATTENTION + ["ff.net.0.proj", "proj_in"], ".attentions.1."), 2)
    texts = [(name, part, factors(part, chosen(part, TEXT + ["fc1"]), 2)) for name, part in text_parts(pipeline)]
    single_file.LAYERS = 2
    original = lambda name: single_file.unet_name(f"{name}.weight").removesuffix(".weight")
    tensors = kohya("lora_unet_", unet, 1.0, original)
    single_file.LAYERS = 1
    text_names = lambda name: name if name.startswith("text_model") else f"text_model.{name}"
    for number, (_, _, layers) in enumerate(texts):
        tensors |= kohya(f"lora_te{number + 1}_", layers, 4.0, text_names)
    file = "sdxl-kohya.safetensors"
    save(file, tensors)
    before = copies(pipeline.unet), [copies(part) for _, part, _ in texts]
    fuse(pipeline, [(file, 0.6)])
    check(pipeline.unet, before[0], unet, 0.6 / 2)
    for (_, part, layers), before in zip(texts, before[1]):
        check(part, before, layers, 0.6 * 4 / 2)
    return "sdxl", [(file, 0.6)], pipeline


def of_xl_metadata():
    """What diffusers writes, with the scale in the header."""
    pipeline = open_pack("sdxl")
    config = LoraConfig(r=2, lora_alpha=5, target_modules=ATTENTION, init_lora_weights=False)
    text = LoraConfig(r=2, lora_alpha=1, target_modules=TEXT, init_lora_weights=False)
    pipeline.unet.add_adapter(config)
    for _, part in text_parts(pipeline):
        part.add_adapter(text)
    from diffusers.utils import convert_state_dict_to_diffusers
    from peft.utils import get_peft_model_state_dict
    states = {}
    for name, part in [("unet", pipeline.unet)] + text_parts(pipeline):
        for key, value in part.named_parameters():
            if "lora_" in key:
                value.copy_(random(*value.shape, size=0.1))
        states[name] = convert_state_dict_to_diffusers(get_peft_model_state_dict(part))
    with tempfile.TemporaryDirectory() as folder:
        StableDiffusionXLPipeline.save_lora_weights(
            folder, unet_lora_layers=states["unet"], text_encoder_lora_layers=states["text_encoder"],
            text_encoder_2_lora_layers=states["text_encoder_2"],
            unet_lora_adapter_metadata=dict(config.to_dict(), target_modules=ATTENTION),
            text_encoder_lora_adapter_metadata=dict(text.to_dict(), target_modules=TEXT),
            text_encoder_2_lora_adapter_metadata=dict(text.to_dict(), target_modules=TEXT))
        written = Path(folder) / "pytorch_lora_weights.safetensors"
        from safetensors import safe_open
        with safe_open(written, "pt") as opened:
            metadata = opened.metadata()
        save("sdxl-diffusers.safetensors", load_file(written), metadata)
    pipeline = fuse(open_pack("sdxl"), [("sdxl-diffusers.safetensors", 0.5)])
    return "sdxl", [("sdxl-diffusers.safetensors", 0.5)], pipeline


def of_single():
    """One file with OpenCLIP's names: queries, keys and values in one tensor, the last projection the other way round."""
    pipeline = open_pack("single-sdxl")
    unet = factors(pipeline.unet, chosen(pipeline.unet, ATTENTION, "mid_block"), 2)
    text = factors(pipeline.text_encoder_2, chosen(pipeline.text_encoder_2, TEXT + ["text_projection"]), 2)
    tensors = {}
    for name, (down, up) in unet.items():
        tensors |= {f"unet.{name}.lora.down.weight": down, f"unet.{name}.lora.up.weight": up}
    for name, (down, up) in text.items():
        tensors |= {f"text_encoder_2.{name}.lora_A.weight": down, f"text_encoder_2.{name}.lora_B.weight": up}
    save("single-sdxl.safetensors", tensors)
    for network, layers in [(pipeline.unet, unet), (pipeline.text_encoder_2, text)]:
        add(network, {name: delta(*pair) for name, pair in layers.items()})
    return "single-sdxl", [("single-sdxl.safetensors", 1.0)], pipeline


def through_core(core, outer, inner):
    """`outer` [I, O] and `inner` [J, N] around a core [I, J, k, l]."""
    return torch.einsum("ijkl,ip,jr->prkl", core, outer, inner)


def of_hadamard():
    pipeline = open_pack("sd1")
    before, tensors, changes, rank = weights(pipeline.unet), {}, {}, 3
    for name in chosen(pipeline.unet, ATTENTION + ["proj_in", "conv1"], "down_blocks.2"):
        weight, stem = before[name], "lora_unet_" + name.replace(".", "_")
        size = weight.std().item() ** 0.25 / 2
        rows, columns = weight.shape[0], weight[0].numel()
        if weight.ndim == 4 and weight.shape[2] > 1 and "resnets.1" in name:
            w = [random(rank, rows, size=size), random(rank, weight.shape[1], size=size),
                 random(rank, rows, size=size), random(rank, weight.shape[1], size=size)]
            cores = [random(rank, rank, *weight.shape[2:], size=0.5) for _ in range(2)]
            tensors |= {f"{stem}.hada_t1": cores[0], f"{stem}.hada_t2": cores[1]}
            change = through_core(cores[0], w[0], w[1]) * through_core(cores[1], w[2], w[3])
        else:
            w = [random(rows, rank, size=size), random(rank, columns, size=size),
                 random(rows, rank, size=size), random(rank, columns, size=size)]
            change = ((w[0] @ w[1]) * (w[2] @ w[3])).reshape(weight.shape)
        tensors |= {f"{stem}.hada_{key}": value for key, value in zip(("w1_a", "w1_b", "w2_a", "w2_b"), w)}
        tensors[f"{stem}.alpha"] = torch.tensor(2.0)
        changes[name] = 0.9 * 2 / rank * change
    save("sd1-loha.safetensors", tensors)
    add(pipeline.unet, changes)
    return "sd1", [("sd1-loha.safetensors", 0.9)], pipeline


def kron(left, right):
    return torch.kron(left[:, :, None, None] if right.ndim == 4 else left, right.contiguous())


def of_kronecker():
    """All four ways to store a LoKr, linear and convolution."""
    pipeline = open_pack("sd1")
    before, tensors, changes, rank = weights(pipeline.unet), {}, {}, 2
    names = chosen(pipeline.unet, ATTENTION + ["ff.net.0.proj", "proj_out", "conv2"], "up_blocks.2.")
    for number, name in enumerate(names):
        weight, stem = before[name], "lora_unet_" + name.replace(".", "_")
        rows, inputs, kernel = weight.shape[0] // 4, weight.shape[1] // 2, weight.shape[2:]
        tensors[f"{stem}.alpha"] = torch.tensor(1.5)
        scale = 1.0
        if number % 2:
            a, b = random(4, rank, size=0.5), random(rank, 2, size=0.5)
            tensors |= {f"{stem}.lokr_w1_a": a, f"{stem}.lokr_w1_b": b}
            left, scale = a @ b, 1.5 / rank
        else:
            left = random(4, 2, size=0.5)
            tensors[f"{stem}.lokr_w1"] = left
        if number % 4 < 2:
            right = random(rows, inputs, *kernel, size=0.1)
            tensors[f"{stem}.lokr_w2"] = right
        elif kernel and kernel[0] > 1:
            core, a, b = random(rank, rank, *kernel, size=0.4), random(rank, rows, size=0.4), random(rank, inputs, size=0.4)
            tensors |= {f"{stem}.lokr_t2": core, f"{stem}.lokr_w2_a": a, f"{stem}.lokr_w2_b": b}
            right, scale = through_core(core, a, b), 1.5 / rank
        else:
            count = weight[0].numel() // 2
            a, b = random(rows, rank, size=0.3), random(rank, count, size=0.3)
            tensors |= {f"{stem}.lokr_w2_a": a, f"{stem}.lokr_w2_b": b}
            right, scale = (a @ b).reshape(rows, inputs, *kernel), 1.5 / rank
        changes[name] = 0.5 * scale * kron(left, right)
    save("sd1-lokr.safetensors", tensors)
    add(pipeline.unet, changes)
    return "sd1", [("sd1-lokr.safetensors", 0.5)], pipeline


def of_others():
    """A core between the factors of a convolution, and differences stored whole: of weights, biases and norms."""
    pipeline = open_pack("sd1")
    before, tensors, changes, rank = weights(pipeline.unet), {}, {}, 3
    for name in chosen(pipeline.unet, ["conv1"], "mid_block") + ["down_blocks.1.downsamplers.0.conv"]:
        weight, stem = before[name], "lora_unet_" + name.replace(".", "_")
        down, up = random(rank, weight.shape[1], 1, 1, size=0.3), random(weight.shape[0], rank, 1, 1, size=0.3)
        core = random(rank, rank, *weight.shape[2:], size=0.3)
        tensors |= {f"{stem}.lora_down.weight": down, f"{stem}.lora_up.weight": up, f"{stem}.lora_mid.weight": core,
                    f"{stem}.alpha": torch.tensor(2)}
        changes[name] = 2 / rank * through_core(core, up.flatten(1).T, down.flatten(1))
    state = pipeline.unet.state_dict()
    for name, leaf, key in [("conv_out", "weight", "diff"), ("conv_out", "bias", "diff_b"), ("conv_norm_out", "weight", "w_norm"),
                            ("conv_norm_out", "bias", "b_norm"), ("mid_block.resnets.0.conv2", "bias", "diff_b")]:
        change = random(*state[f"{name}.{leaf}"].shape, size=0.1)
        tensors[f"lora_unet_{name.replace('.', '_')}.{key}"] = change
        changes[f"{name}.{leaf}"] = change
    save("sd1-others.safetensors", tensors)
    add(pipeline.unet, changes)
    return "sd1", [("sd1-others.safetensors", 1.0)], pipeline


if __name__ == "__main__":
    shutil.rmtree(TARGET, ignore_errors=True)
    cases, latents, plain = [], {}, {}
    with torch.no_grad():
        for number, make in enumerate([of_kohya, of_diffusers, of_peft, of_xl, of_xl_metadata, of_single, of_hadamard,
                                       of_kronecker, of_others]):
            generator.manual_seed(100 + number)
            pack, files, pipeline = make()
            name = make.__name__.removeprefix("of_")
            if pack not in plain:
                plain[pack] = draw(open_pack(pack))
            latents[f"out.{name}"] = draw(pipeline)
            apart = (latents[f"out.{name}"] - plain[pack]).norm() / plain[pack].norm()
            print(f"{name}: {apart:.3f} from the plain model")
            assert 0.02 < apart < 3 and latents[f"out.{name}"].isfinite().all(), name
            cases.append(dict(name=name, model=pack, loras=[dict(file=file, weight=weight) for file, weight in files]))
    latents |= {f"out.plain.{pack}": value for pack, value in plain.items()}
    save_file(latents, TARGET / "golden.safetensors")
    (TARGET / "cases.json").write_text(json.dumps(dict(
        prompt=PROMPT, negative_prompt=NEGATIVE, steps=STEPS, seed=SEED, guidance=GUIDANCE, size=64,
        scheduler="ddim", cases=cases), indent=1) + "\n")
