"""Makes the diffusers directory (f16) from a model and the weights of a training run.

    python tools/tiny/assemble.py --weights TRAINING/ema --out DIR [--model assets/tiny]

VAE, tokenizer, scheduler and model_index.json are taken from the model.
"""
import argparse
import json
import os
import shutil
import tempfile

from diffusers import UNet2DConditionModel
from transformers import CLIPTextModel

from pool import MODEL


def strip_paths(path):
    """Removes from a config where the weights were read from."""
    with open(path) as file:
        config = json.load(file)
    config.pop("_name_or_path", None)
    with open(path, "w") as file:
        json.dump(config, file, indent=2)
        file.write("\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=MODEL)
    parser.add_argument("--weights", required=True)
    parser.add_argument("--out", required=True)
    options = parser.parse_args()
    os.makedirs(options.out, exist_ok=True)
    if not os.path.exists(os.path.join(options.out, "vae")):
        for name in ("vae", "tokenizer", "scheduler"):
            shutil.copytree(os.path.join(options.model, name), os.path.join(options.out, name))
        shutil.copy(os.path.join(options.model, "model_index.json"), options.out)
    for kind, name in ((UNet2DConditionModel, "unet"), (CLIPTextModel, "text_encoder")):
        model = kind.from_pretrained(os.path.join(options.weights, name)).half()
        folder = os.path.join(options.out, name)
        os.makedirs(folder, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=options.out) as fresh:
            model.save_pretrained(fresh)
            strip_paths(os.path.join(fresh, "config.json"))
            for file in os.listdir(fresh):
                os.replace(os.path.join(fresh, file), os.path.join(folder, file))


if __name__ == "__main__":
    main()
