"""Parts of runs of diffusers' schedulers, for tests/schedulers/parts.rs: add_noise, then the steps from a later one on.

    pip install torch==2.15.0 diffusers==0.42.1 scipy safetensors
    python tools/goldens/scheduler_parts.py --out tests/goldens/schedulers

Writes parts.safetensors and parts.json, with the random numbers of steps.safetensors of the same folder (made by
schedulers.py): unit_noise is the clean sample here, noise[0] what is added to it, noise[1:] the later draws.

As StableDiffusionImg2ImgPipeline does it: set_timesteps, set_begin_index where the class has it, add_noise for the first
timestep of the part, steps.  Tensors, all f32 and flat, one per case: the sample with noise; the timestep and the scale
of the model's input of each call; what add_noise makes for each call after the first, when the run has come there (as
StableDiffusionInpaintPipeline asks for it); the sample after each call.

A case of parts.json has, beside what steps.json has, "begin", the first call, and "share", the strength that LCM's own
set_timesteps is given.
"""
import argparse
import importlib
import inspect
import json
import os
import warnings

import diffusers
import torch
from safetensors.torch import load_file, save_file

from schedulers import CLASSES, FILES, MOST_CALLS, PNDM_FILE, Doubled, build, double, own, patched, shortened

STEPS = 10


def cases():
    """(name, sampler, file, steps, strength, what the caller chooses); the begin follows from the strength."""
    for kind in CLASSES:
        for strength in [1.0, 0.9, 0.75, 0.3, 0.1]:
            yield f"{kind}/{strength}", kind, own(kind), STEPS, strength, {}
        yield f"{kind}/pndm_file", kind, PNDM_FILE, STEPS, 0.6, {}
        yield f"{kind}/v", kind, own(kind, prediction_type="v_prediction"), STEPS, 0.5, {}
        yield f"{kind}/many", kind, own(kind), 20, 0.35, {}
    for kind in ["euler", "heun", "dpmpp-2m", "dpmpp-2s", "unipc", "deis", "lms", "dpm2"]:
        yield f"{kind}/karras", kind, own(kind, use_karras_sigmas=True), STEPS, 0.5, {}
    for kind in ["dpmpp-3m", "unipc", "deis", "dpmpp-2s"]:
        third = own(kind, solver_order=3)
        for strength in [0.8, 0.7, 0.6, 0.2]:
            yield f"{kind}/third_{strength}", kind, third, STEPS, strength, {}
        if kind != "deis":
            yield f"{kind}/third_sigma_min", kind, own(kind, solver_order=3, final_sigmas_type="sigma_min"), STEPS, 0.7, {}
    yield "unipc/disable_corrector", "unipc", own("unipc", solver_order=2, disable_corrector=[4, 6]), STEPS, 0.6, {}
    for spacing in ["leading", "linspace", "trailing"]:
        for kind in ["ddim", "pndm", "euler", "dpmpp-2m", "ddpm"]:
            file = own(kind, timestep_spacing=spacing, steps_offset=1 if spacing == "leading" else 0)
            yield f"{kind}/{spacing}", kind, file, STEPS, 0.6, {}
    yield "ddim/eta", "ddim", own("ddim"), STEPS, 0.6, {"eta": 0.7}
    for strength in [1.0, 0.6, 0.2]:
        file = own("pndm", skip_prk_steps=False)
        yield f"pndm/runge_kutta_{strength}", "pndm", file, STEPS, strength, {}
    for steps, share in [(4, 0.5), (5, 0.3), (4, 0.99)]:
        yield f"lcm/share_{share}", "lcm", own("lcm"), steps, 1.0, {"share": share}


def play(scheduler, timesteps, data, eta, dtype):
    module = importlib.import_module(type(scheduler).__module__)
    draws = iter(range(1, MOST_CALLS))
    drawn = []

    def draw(*_, **__):
        drawn.append(next(draws))
        return data["noise"][drawn[-1]].to(dtype)

    arguments = {"eta": eta} if "eta" in inspect.signature(scheduler.step).parameters else {}
    clean, noise = data["unit_noise"].to(dtype), data["noise"][0].to(dtype)
    replaced = {"randn_tensor": draw}
    if dtype == torch.float64:
        replaced["torch"] = Doubled()
    samples, scales, later = [], [], []
    with patched(module, **replaced):
        sample = scheduler.add_noise(clean, noise, timesteps[:1].repeat(len(clean)))
        first = sample
        for call, timestep in enumerate(timesteps):
            scales.append(float(scheduler.scale_model_input(torch.ones(1, dtype=dtype), timestep)))
            output = data["output"][call].to(dtype)
            sample = scheduler.step(output, timestep, sample, **arguments).prev_sample
            samples.append(sample)
            if call + 1 < len(timesteps):
                later.append(scheduler.add_noise(clean, noise, timesteps[call + 1 : call + 2]))
    return first, scales, later, torch.stack(samples), len(drawn)


def run(kind, file, steps, strength, options, data):
    scheduler = build(kind, file, options)
    if "share" in options:
        scheduler.set_timesteps(steps, strength=options["share"])
    else:
        scheduler.set_timesteps(steps)
    begin = max(steps - min(int(steps * strength), steps), 0) * scheduler.order
    timesteps = scheduler.timesteps[begin:]
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(begin)
    doubled = double(scheduler)
    first, scales, later, samples, draws = play(scheduler, timesteps, data, options.get("eta", 0.0), torch.float32)
    if not torch.isfinite(samples).all():
        raise ValueError("not finite")
    _, _, _, exact, _ = play(doubled, timesteps, data, options.get("eta", 0.0), torch.float64)
    distance = max(float((one - other).norm() / other.norm()) for one, other in zip(samples, exact))
    numbers = torch.tensor([float(timestep) for timestep in timesteps] + scales, dtype=torch.float64).float()
    parts = [first.flatten(), numbers] + [sample.flatten() for sample in later] + [samples.flatten()]
    counts = {"begin": begin, "calls": len(timesteps), "draws": draws, "f64_rel_l2": float(f"{distance:.0e}")}
    return torch.cat([part.float() for part in parts]), counts


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True, help="the folder with steps.safetensors")
    out = parser.parse_args().out
    warnings.filterwarnings("ignore")
    diffusers.utils.logging.set_verbosity_error()
    data = load_file(os.path.join(out, "steps.safetensors"))
    tensors, listed = {}, []
    for name, kind, file, steps, strength, options in cases():
        assert name not in tensors, name
        tensors[name], counts = run(kind, file, steps, strength, options, data)
        entry = {"name": name, "kind": kind, "steps": steps, "strength": strength, **shortened(file)}
        if options:
            entry["options"] = options
        listed.append({**entry, **counts})
    path = os.path.join(out, "parts.safetensors")
    save_file(tensors, path)
    os.chmod(path, 0o644)
    with open(os.path.join(out, "parts.json"), "w") as file:
        file.write(f'{{"versions": {json.dumps({"torch": torch.__version__, "diffusers": diffusers.__version__})},\n')
        file.write(f'"files": {json.dumps(FILES)},\n"cases": [\n')
        file.write(",\n".join(json.dumps(entry) for entry in listed))
        file.write("\n]}\n")
    print(f"{len(listed)} cases")


if __name__ == "__main__":
    main()
