"""Steps of diffusers' schedulers, for tests/schedulers.rs: every class, with the keys that change its steps.

    pip install torch==2.15.0 diffusers==0.42.1 scipy safetensors
    python tools/goldens/schedulers.py --out tests/goldens/schedulers

Writes steps.safetensors and steps.json.  No model runs: the outputs are random numbers, the same for all cases.

steps.safetensors holds, all f32,
  unit_noise [N, C, H, W]       what a run starts from, times the scheduler's init_noise_sigma
  output     [calls, N, C, H, W]  what the network would return at each call
  noise      [draws, N, C, H, W]  what the random generator would return at each draw
  and one flat tensor per case: init_noise_sigma, then the timestep and the scale of the model's input of each call,
  then the sigmas (each once), then the sample after each call.

steps.json has one entry per case: the short name of the sampler, the keys of scheduler_config.json (those of "file"
and those of "config"), what the caller chooses, the numbers of calls, draws and sigmas, and how far the run in f32 is
from the same run in f64 (relative L2, of the samples after the worst call): most of what a tolerance has to allow for.
Cases that diffusers refuses, or where it returns something that is not a number, are listed as refused.

Where a run visits its first timestep twice, diffusers finds the second visit when it looks for the first one, and runs
out of sigmas; such runs are told where they begin, as the pipelines do that start from an image.
"""
import argparse
import copy
import importlib
import inspect
import json
import os
import warnings
from contextlib import contextmanager

import diffusers
import numpy
import scipy
import torch
from safetensors.torch import save_file

CLASSES = {
    "ddpm": "DDPMScheduler",
    "ddim": "DDIMScheduler",
    "pndm": "PNDMScheduler",
    "euler": "EulerDiscreteScheduler",
    "euler-ancestral": "EulerAncestralDiscreteScheduler",
    "heun": "HeunDiscreteScheduler",
    "dpm2": "KDPM2DiscreteScheduler",
    "lms": "LMSDiscreteScheduler",
    "dpmpp-2m": "DPMSolverMultistepScheduler",
    "dpmpp-2m-sde": "DPMSolverMultistepScheduler",
    "dpmpp-3m": "DPMSolverMultistepScheduler",
    "dpmpp-2s": "DPMSolverSinglestepScheduler",
    "unipc": "UniPCMultistepScheduler",
    "deis": "DEISMultistepScheduler",
    "lcm": "LCMScheduler",
}
# What a sampler's name stands for where the file was written for another class.
NAMED = {
    "dpmpp-2m": {"algorithm_type": "dpmsolver++", "solver_order": 2},
    "dpmpp-2m-sde": {"algorithm_type": "sde-dpmsolver++", "solver_order": 2},
    "dpmpp-3m": {"algorithm_type": "dpmsolver++", "solver_order": 3},
    "dpmpp-2s": {"algorithm_type": "dpmsolver++", "solver_order": 2},
}
SHAPE = (2, 1, 1, 3)
MOST_CALLS = 48
STABLE_DIFFUSION = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
PNDM_FILE = dict(STABLE_DIFFUSION, _class_name="PNDMScheduler", num_train_timesteps=1000, set_alpha_to_one=False,
                 skip_prk_steps=True, steps_offset=1, trained_betas=None, clip_sample=False)
FILES = {"pndm": PNDM_FILE, "stable-diffusion": STABLE_DIFFUSION}
PREDICTIONS = {
    kind: ["epsilon", "v_prediction"] + ([] if kind in ("pndm", "euler-ancestral", "dpm2") else ["sample"])
    for kind in CLASSES
}
WITH_SIGMA_SPACINGS = ["euler", "heun", "dpm2", "lms", "dpmpp-2m", "dpmpp-3m", "dpmpp-2s", "unipc", "deis"]
MULTI_STEP = ["pndm", "lms", "dpmpp-2m", "dpmpp-2m-sde", "dpmpp-3m", "dpmpp-2s", "unipc", "deis"]
FLAGS = {"karras": "use_karras_sigmas", "exponential": "use_exponential_sigmas", "beta": "use_beta_sigmas"}


def own(kind, **keys):
    """A file of the sampler's own class that names its algorithm where the class has several."""
    named = NAMED.get(kind, {})
    if kind == "pndm":
        named = {"skip_prk_steps": True}
    return {"_class_name": CLASSES[kind], **STABLE_DIFFUSION, **named, **keys}


def cases():
    """(name, sampler, file, steps, what the caller chooses)"""
    for kind in CLASSES:
        for steps in [1, 2, 3, 5] + ([15, 20] if kind in MULTI_STEP else []):
            yield f"{kind}/{steps}", kind, own(kind), steps, {}
        # the defaults of the class, and the file of Stable Diffusion v1, which is that of another class
        yield f"{kind}/defaults", kind, {"_class_name": CLASSES[kind]}, 4, {}
        yield f"{kind}/pndm_file", kind, PNDM_FILE, 6, {}
        for prediction in PREDICTIONS[kind]:
            yield f"{kind}/{prediction}", kind, own(kind, prediction_type=prediction), 6, {}
        if kind not in ("dpmpp-2s", "lcm"):
            for spacing in ["leading", "linspace", "trailing"]:
                for offset, steps in [(0, 7), (1, 4)]:
                    file = own(kind, timestep_spacing=spacing, steps_offset=offset)
                    yield f"{kind}/{spacing}_{offset}", kind, file, steps, {}
                chosen = {"timestep_spacing": spacing}
                yield f"{kind}/chosen_{spacing}", kind, PNDM_FILE, 5, chosen
    yield from sigma_cases()
    yield from limit_cases()
    yield from terminal_signal_cases()
    yield from solver_cases()
    yield from other_cases()


def sigma_cases():
    for kind in WITH_SIGMA_SPACINGS:
        for spacing, flag in FLAGS.items():
            for steps in [1, 2, 7, 17]:
                yield f"{kind}/{spacing}_{steps}", kind, own(kind, **{flag: True}), steps, {}
            yield f"{kind}/{spacing}_v", kind, own(kind, prediction_type="v_prediction", **{flag: True}), 5, {}
            yield f"{kind}/{spacing}_chosen", kind, PNDM_FILE, 6, {"sigmas": spacing}
            ends = {"sigma_min": 0.05, "sigma_max": 9.0}
            yield f"{kind}/{spacing}_ends", kind, own(kind, **ends, **{flag: True}), 5, {}
            if (kind, spacing) != ("heun", "beta"):  # where f32 keeps two digits
                cosine = {**own(kind), "beta_schedule": "squaredcos_cap_v2", flag: True}
                yield f"{kind}/{spacing}_cosine", kind, cosine, 5, {}
            if kind != "dpmpp-2s":
                yield f"{kind}/{spacing}_leading", kind, own(kind, timestep_spacing="leading", **{flag: True}), 5, {}
            if kind in ("euler", "dpmpp-2m", "dpmpp-2s", "unipc"):
                smallest = own(kind, final_sigmas_type="sigma_min", sigma_min=0.05, **{flag: True})
                yield f"{kind}/{spacing}_sigma_min", kind, smallest, 6, {}
    for kind in ["dpmpp-2m", "dpmpp-2m-sde", "dpmpp-3m"]:
        for steps in [4, 16]:
            yield f"{kind}/lu_{steps}", kind, own(kind, use_lu_lambdas=True), steps, {}
        yield f"{kind}/lu_cosine", kind, {**own(kind), "beta_schedule": "squaredcos_cap_v2", "use_lu_lambdas": True}, 5, {}
    yield "dpmpp-2m/lu_and_karras", "dpmpp-2m", own("dpmpp-2m", use_lu_lambdas=True, use_karras_sigmas=True), 5, {}
    yield "dpmpp-2m/lu_and_exponential", "dpmpp-2m", own("dpmpp-2m", use_lu_lambdas=True, use_exponential_sigmas=True), 5, {}
    for kind in ["euler", "dpmpp-2m", "dpmpp-3m", "dpmpp-2s", "unipc"]:
        for steps in [5, 16]:
            yield f"{kind}/sigma_min_{steps}", kind, own(kind, final_sigmas_type="sigma_min"), steps, {}
    for kind in ["dpmpp-2m", "dpmpp-2s", "dpmpp-2m-sde"]:
        for spacing in ["linspace", "leading", "trailing"][: 1 if kind == "dpmpp-2s" else 3]:
            clipped = own(kind, lambda_min_clipped=-2.1, timestep_spacing=spacing)
            if kind == "dpmpp-2s":
                clipped.pop("timestep_spacing")
            yield f"{kind}/lambda_clipped_{spacing}", kind, clipped, 6, {}
    velocity = {"prediction_type": "v_prediction"}
    for name, keys in {
        "continuous": dict(velocity, timestep_type="continuous"),
        "continuous_epsilon": {"timestep_type": "continuous"},
        "continuous_karras": dict(velocity, timestep_type="continuous", use_karras_sigmas=True, sigma_min=0.002,
                                  sigma_max=700.0, timestep_spacing="leading"),
        "log_linear": {"interpolation_type": "log_linear"},
        "log_linear_trailing": {"interpolation_type": "log_linear", "timestep_spacing": "trailing"},
        "log_linear_karras": {"interpolation_type": "log_linear", "use_karras_sigmas": True},
        "log_linear_continuous": dict(velocity, interpolation_type="log_linear", timestep_type="continuous"),
        "log_linear_sigma_min": {"interpolation_type": "log_linear", "final_sigmas_type": "sigma_min"},
    }.items():
        yield f"euler/{name}", "euler", own("euler", **keys), 6, {}


def limit_cases():
    threshold = {"thresholding": True, "dynamic_thresholding_ratio": 0.8, "sample_max_value": 1.7}
    for kind in ["ddpm", "ddim", "dpmpp-2m", "dpmpp-2m-sde", "dpmpp-3m", "dpmpp-2s", "unipc", "deis", "lcm"]:
        for prediction in PREDICTIONS[kind]:
            yield f"{kind}/threshold_{prediction}", kind, own(kind, prediction_type=prediction, **threshold), 6, {}
        yield f"{kind}/threshold_default", kind, own(kind, thresholding=True), 4, {}
        yield f"{kind}/threshold_small", kind, own(kind, thresholding=True, sample_max_value=0.6), 4, {}
    yield "dpmpp-2m/threshold_noise", "dpmpp-2m", own("dpmpp-2m", **{
        **threshold, "algorithm_type": "dpmsolver", "final_sigmas_type": "sigma_min"}), 6, {}
    noise = {"predict_x0": False, "final_sigmas_type": "sigma_min"}
    yield "unipc/threshold_noise", "unipc", own("unipc", **noise, **threshold), 6, {}
    yield "ddim/threshold_eta", "ddim", own("ddim", **threshold), 6, {"eta": 0.7}
    for kind in ["ddpm", "ddim", "heun", "lcm"]:
        for prediction in PREDICTIONS[kind]:
            keys = {"clip_sample": True, "clip_sample_range": 1.3, "prediction_type": prediction}
            yield f"{kind}/clip_{prediction}", kind, own(kind, **keys), 6, {}
        yield f"{kind}/no_clip", kind, own(kind, clip_sample=False), 6, {}


def terminal_signal_cases():
    for kind in ["ddpm", "ddim", "euler", "euler-ancestral", "dpmpp-2m", "dpmpp-2m-sde", "dpmpp-3m", "unipc", "lcm"]:
        for prediction in ["v_prediction", "epsilon"]:
            keys = {"rescale_betas_zero_snr": True, "prediction_type": prediction}
            if kind != "lcm":
                keys["timestep_spacing"] = "trailing"
            if kind in ("ddpm", "ddim"):
                keys["clip_sample"] = False
            yield f"{kind}/zero_signal_{prediction}", kind, own(kind, **keys), 6, {}
    for kind in ["euler", "dpmpp-2m", "unipc"]:
        keys = {"rescale_betas_zero_snr": True, "use_karras_sigmas": True}
        yield f"{kind}/zero_signal_karras", kind, own(kind, **keys), 6, {}
    for kind in ["pndm", "heun", "dpm2", "lms", "dpmpp-2s", "deis"]:
        yield f"{kind}/zero_signal_unknown", kind, own(kind, rescale_betas_zero_snr=True), 4, {}


def solver_cases():
    for algorithm in ["dpmsolver", "dpmsolver++", "sde-dpmsolver", "sde-dpmsolver++"]:
        for form in ["midpoint", "heun"]:
            for order in [1, 2, 3]:
                kind = "dpmpp-2m-sde" if "sde" in algorithm else "dpmpp-3m" if order == 3 else "dpmpp-2m"
                keys = {"algorithm_type": algorithm, "solver_type": form, "solver_order": order,
                        "final_sigmas_type": "zero" if "++" in algorithm else "sigma_min"}
                file = {"_class_name": CLASSES[kind], **STABLE_DIFFUSION, **keys}
                for steps in [6, 16]:
                    yield f"multi/{algorithm}_{form}_{order}_{steps}", kind, file, steps, {}
                file = {**file, "_class_name": CLASSES["dpmpp-2s"]}
                for steps in [5, 6, 7]:
                    yield f"single/{algorithm}_{form}_{order}_{steps}", "dpmpp-2s", file, steps, {}
                if algorithm == "dpmsolver++":
                    smallest = {**file, "final_sigmas_type": "sigma_min"}
                    for lower in [True, False]:
                        for steps in [5, 6, 7]:
                            name = f"single/{form}_{order}_{steps}_{'lower' if lower else 'full'}"
                            yield name, "dpmpp-2s", {**smallest, "lower_order_final": lower}, steps, {}
    for kind in ["dpmpp-2m", "dpmpp-3m", "unipc", "deis"]:
        for steps in [1, 2, 3, 6]:
            keys = {} if kind == "deis" else {"final_sigmas_type": "sigma_min"}
            yield f"{kind}/full_order_final_{steps}", kind, own(kind, lower_order_final=False, **keys), steps, {}
    for kind in ["dpmpp-2m", "dpmpp-3m"]:
        for steps in [6, 16]:
            keys = {"euler_at_final": True, "final_sigmas_type": "sigma_min"}
            yield f"{kind}/euler_at_final_{steps}", kind, own(kind, **keys), steps, {}
            yield f"{kind}/euler_at_final_zero_{steps}", kind, own(kind, euler_at_final=True), steps, {}
    for form in ["bh1", "bh2"]:
        for order in [1, 2, 3]:
            for clean in [True, False]:
                for prediction in PREDICTIONS["unipc"] if order == 2 else ["epsilon"]:
                    keys = {"solver_type": form, "solver_order": order, "predict_x0": clean,
                            "final_sigmas_type": "sigma_min", "prediction_type": prediction}
                    for steps in [6, 16]:
                        name = f"unipc/{form}_{order}_{'clean' if clean else 'noise'}_{prediction}_{steps}"
                        yield name, "unipc", own("unipc", **keys), steps, {}
    yield "unipc/disable_corrector", "unipc", own("unipc", solver_order=3, disable_corrector=[0, 1, 4]), 8, {}
    yield "unipc/order3_zero", "unipc", own("unipc", solver_order=3), 8, {}
    for order in [1, 2, 3]:
        for prediction in PREDICTIONS["deis"]:
            for steps in [4, 17]:
                keys = {"solver_order": order, "prediction_type": prediction}
                yield f"deis/{order}_{prediction}_{steps}", "deis", own("deis", **keys), steps, {}
    # forms and algorithms by the names of other classes
    deis = {"algorithm_type": "deis", "final_sigmas_type": "sigma_min"}
    yield "dpmpp-2m/foreign_zero", "dpmpp-2m", own("dpmpp-2m", algorithm_type="deis"), 5, {}
    for kind, keys in [("dpmpp-2m", {"solver_type": "bh2", **deis}),
                       ("dpmpp-2s", {"solver_type": "logrho", **deis}),
                       ("unipc", {"solver_type": "midpoint"}), ("deis", {"solver_type": "heun"}),
                       ("deis", {"algorithm_type": "dpmsolver++"})]:
        yield f"{kind}/foreign_{'_'.join(keys.values())}", kind, own(kind, **keys), 5, {}
    # a file of one solver's class for another sampler
    third = {"_class_name": CLASSES["dpmpp-3m"], **STABLE_DIFFUSION, "algorithm_type": "sde-dpmsolver++",
             "solver_order": 3, "solver_type": "heun", "use_karras_sigmas": True}
    for kind in ["dpmpp-2m", "dpmpp-3m", "dpmpp-2s", "unipc", "euler", "heun"]:
        yield f"{kind}/from_solver_file", kind, third, 6, {}


def other_cases():
    for variance in ["fixed_small", "fixed_small_log", "fixed_large", None]:
        for steps in [4, 40]:
            yield f"ddpm/variance_{variance}_{steps}", "ddpm", own("ddpm", variance_type=variance), steps, {}
    for schedule, kind in [("sigmoid", "ddpm"), ("laplace", "ddpm"), ("exp", "heun")]:
        yield f"{kind}/beta_{schedule}", kind, {"_class_name": CLASSES[kind], "beta_schedule": schedule}, 5, {}
    few = {"num_train_timesteps": 20, "trained_betas": [round(0.002 * step + 0.001, 6) for step in range(20)]}
    for kind in CLASSES:
        keys = {"original_inference_steps": 10} if kind == "lcm" else {}
        yield f"{kind}/trained_betas", kind, own(kind, **few, **keys), 4, {}
        yield f"{kind}/cosine", kind, {**own(kind), "beta_schedule": "squaredcos_cap_v2"}, 5, {}
    for eta in [0.4, 1.0]:
        for prediction in PREDICTIONS["ddim"]:
            yield f"ddim/eta_{eta}_{prediction}", "ddim", own("ddim", prediction_type=prediction), 5, {"eta": eta}
    for keys in [{"original_inference_steps": 30}, {"timestep_scaling": 3.0}, {"set_alpha_to_one": False}]:
        yield f"lcm/{'_'.join(keys)}", "lcm", own("lcm", **keys), 7, {}
    for one in [True, False]:
        for kind in ["ddim", "pndm"]:
            yield f"{kind}/alpha_to_one_{one}", kind, own(kind, set_alpha_to_one=one), 5, {}
    yield "pndm/runge_kutta", "pndm", own("pndm", skip_prk_steps=False, prediction_type="v_prediction"), 6, {}


def build(kind, file, options):
    """The scheduler that the file and the caller's choices make, by the ways of diffusers."""
    own_class = getattr(diffusers, CLASSES[kind])
    written_for = getattr(diffusers, file["_class_name"])
    known = inspect.signature(written_for.__init__).parameters
    keys = {key: value for key, value in file.items() if key in known}
    chosen = {}
    if "sigmas" in options:
        chosen[FLAGS[options["sigmas"]]] = True
        chosen.update({flag: False for flag in FLAGS.values() if flag != FLAGS[options["sigmas"]]})
    if "timestep_spacing" in options:
        chosen["timestep_spacing"] = options["timestep_spacing"]
    if kind != written_kind(file):
        chosen.update(NAMED.get(kind, {}))
    # Keys of other classes travel along as they do in a file.
    foreign = {key: value for key, value in file.items() if key not in known and not key.startswith("_")}
    config = dict(written_for(**keys).config, **foreign)
    return own_class.from_config(config, **chosen)


def written_kind(file):
    kind = next(kind for kind, name in CLASSES.items() if name == file["_class_name"])
    if kind == "dpmpp-2m":
        if file.get("algorithm_type", "").startswith("sde-"):
            return "dpmpp-2m-sde"
        if file.get("solver_order") == 3:
            return "dpmpp-3m"
    return kind


class Doubled:
    """torch, but for its name of f32, which stands for f64."""

    float32 = torch.float64

    def __getattr__(self, name):
        return getattr(torch, name)


@contextmanager
def patched(module, **names):
    before = {name: getattr(module, name) for name in names if hasattr(module, name)}
    for name in before:
        setattr(module, name, names[name])
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(module, name, value)


def double(scheduler):
    """The same scheduler with the numbers it holds, in f64."""
    scheduler = copy.deepcopy(scheduler)
    for name, value in vars(scheduler).items():
        if isinstance(value, torch.Tensor) and value.dtype == torch.float32 and name != "timesteps":
            setattr(scheduler, name, value.double())
    return scheduler


def play(scheduler, data, eta, dtype):
    module = importlib.import_module(type(scheduler).__module__)
    draws = iter(range(MOST_CALLS))
    drawn = []

    def draw(*_, **__):
        drawn.append(next(draws))
        return data["noise"][drawn[-1]].to(dtype)

    takes_eta = "eta" in inspect.signature(scheduler.step).parameters
    arguments = {"eta": eta} if takes_eta else {}
    sample = data["unit_noise"].to(dtype) * scheduler.init_noise_sigma
    samples, scales = [], []
    replaced = {"randn_tensor": draw}
    if dtype == torch.float64:
        replaced["torch"] = Doubled()
    with patched(module, **replaced):
        for call, timestep in enumerate(scheduler.timesteps):
            ones = torch.ones(1, dtype=dtype)
            scales.append(float(scheduler.scale_model_input(ones, timestep)))
            output = data["output"][call].to(dtype)
            sample = scheduler.step(output, timestep, sample, **arguments).prev_sample
            samples.append(sample)
    return torch.stack(samples), scales, len(drawn)


def once(values):
    kept = []
    for value in values:
        if not kept or kept[-1] != value:
            kept.append(value)
    return kept


def run(kind, file, steps, options, data):
    scheduler = build(kind, file, options)
    scheduler.set_timesteps(steps)
    if list(scheduler.timesteps).count(scheduler.timesteps[0]) > 1 and hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(0)
    doubled = double(scheduler)
    samples, scales, draws = play(scheduler, data, options.get("eta", 0.0), torch.float32)
    if not torch.isfinite(samples).all():
        raise ValueError("not finite")
    exact, _, _ = play(doubled, data, options.get("eta", 0.0), torch.float64)
    distance = max(float((one - other).norm() / other.norm()) for one, other in zip(samples, exact))
    timesteps = [float(timestep) for timestep in scheduler.timesteps]
    # Where samples are not scaled by a sigma, the class only uses its sigmas inside.
    sigmas = scheduler.sigmas.tolist() if hasattr(scheduler, "sigmas") else []
    if kind in ("heun", "dpm2"):
        sigmas = once(sigmas)
    elif sigmas:
        # Euler with a log-linear interpolation puts one more behind those that its steps reach.
        sigmas = sigmas[: len(timesteps) + 1]
    numbers = [float(scheduler.init_noise_sigma)] + timesteps + scales + sigmas
    tensor = torch.cat([torch.tensor(numbers, dtype=torch.float64).float(), samples.float().flatten()])
    return tensor, {"calls": len(timesteps), "draws": draws, "sigmas": len(sigmas), "f64_rel_l2": float(f"{distance:.0e}")}


def shortened(file):
    """The keys of a file without those of one of the files that most cases start from."""
    for name, base in FILES.items():
        if all(key in file for key in base):
            return {"file": name, "config": {key: value for key, value in file.items() if base.get(key, ...) != value}}
    return {"config": file}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True, help="the folder for steps.safetensors and steps.json")
    parser.add_argument("--only", default="", help="only cases whose name has this in it, printed and not written")
    out = parser.parse_args()
    warnings.filterwarnings("ignore")
    diffusers.utils.logging.set_verbosity_error()
    generator = torch.Generator().manual_seed(20)
    data = {
        "unit_noise": torch.randn(SHAPE, generator=generator),
        "output": torch.randn((MOST_CALLS, *SHAPE), generator=generator),
        "noise": torch.randn((MOST_CALLS, *SHAPE), generator=generator),
    }
    tensors, listed, refused = dict(data), [], []
    for name, kind, file, steps, options in cases():
        if out.only not in name:
            continue
        assert name not in tensors, name
        entry = {"name": name, "kind": kind, "steps": steps, **shortened(file)}
        if options:
            entry["options"] = options
        try:
            tensors[name], numbers = run(kind, file, steps, options, data)
        except Exception as error:  # whatever diffusers raises is its way of refusing
            refused.append({**entry, "error": f"{type(error).__name__}: {error}"[:120]})
            continue
        listed.append({**entry, **numbers})
    if out.only:
        for entry in listed + refused:
            print(json.dumps(entry))
        return
    path = os.path.join(out.out, "steps.safetensors")
    save_file(tensors, path)
    os.chmod(path, 0o644)
    versions = {module.__name__: module.__version__ for module in (torch, diffusers, numpy, scipy)}
    with open(os.path.join(out.out, "steps.json"), "w") as file:
        file.write(f'{{"versions": {json.dumps(versions)},\n"files": {json.dumps(FILES)},\n"cases": [\n')
        file.write(",\n".join(json.dumps(entry) for entry in listed))
        file.write('\n],\n"refused": [\n')
        file.write(",\n".join(json.dumps(entry) for entry in refused))
        file.write("\n]}\n")
    print(f"{len(listed)} cases, {len(refused)} refused")


if __name__ == "__main__":
    main()
