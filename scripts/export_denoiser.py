"""Turn a training checkpoint into a denoiser file with its model card.

    python scripts/export_denoiser.py RUN_FOLDER/checkpoints/last.ckpt denoiser.safetensors

The checkpoint holds the averaged weights (EMA). The card says what the training saw and how well
the result denoises the held-out images; both are read from the run folder, nothing is typed in.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.nn.modules.utils import consume_prefix_in_state_dict_if_present

from lit_purify.checkpoints import save_denoiser
from lit_purify.diffusion import small_unet


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--note", help="what the run folder does not know, for the card")
    parser.add_argument("--name", default="Small", help="of the denoiser, for the card")
    parser.add_argument("--options", default="", help="of the training's command, for the card")
    args = parser.parse_args()

    run = args.checkpoint.parent.parent
    config = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
    # A Lightning checkpoint of one's own run; only tensors and plain values are needed from it.
    checkpoint = torch.load(args.checkpoint, map_location="cpu", weights_only=True)
    architecture = config["model"]["init_args"]["denoiser"].get("init_args", {})
    denoiser = small_unet(**architecture)
    state = checkpoint["state_dict"]
    consume_prefix_in_state_dict_if_present(state, "denoiser.network.")
    denoiser.network.load_state_dict(state)
    card = model_card(run, config, checkpoint, denoiser, args)
    save_denoiser(args.target, denoiser, architecture, model_card=card)
    print(card)
    print(f"{args.target}: {args.target.stat().st_size / 1e6:.1f} MB")


def model_card(
    run: Path,
    config: dict,
    checkpoint: dict,
    denoiser: torch.nn.Module,
    args: argparse.Namespace,
) -> str:
    model, data = config["model"]["init_args"], config["data"]["init_args"]
    # A network that collapsed was begun anew there, each time at half the rate.
    begun = checkpoint["collapse"]
    steps = checkpoint["global_step"] - begun["first_step"]
    rate = model["learning_rate"] / 2 ** begun["restarts"]
    images = steps * data["batch_size"]
    size = sum(weight.numel() for weight in denoiser.parameters())
    lines = [
        f"# {args.name} CIFAR-10 denoiser",
        "",
        f"A U-Net without attention on 2x2 pixel blocks (diffusers UNet2DModel, {size / 1e6:.1f} M",
        "parameters) that predicts the noise in a diffused CIFAR-10 image. Made for purification;",
        "it is no image generator.",
        "",
        f"- Data: CIFAR-10 training images but the last {data['num_holdout']}, horizontal flips.",
        f"- Training: {steps:,} steps of batch {data['batch_size']} ({images:,} images), AdamW",
        f"  {rate:g} ({model['warmup_steps']} warm-up steps, cosine to zero over the last",
        f"  {model['decay_share']:.0%}), {config['trainer']['precision']}, averaged weights (EMA).",
        f"- Steps t drawn uniformly up to (limit, share): {model['focus']}; the rest up to 1000;",
        "  stratified within each batch.",
        f"- Seed: {model['seed']} (draws), {config['seed_everything']} (initial weights).",
        f"- Command: python -m lit_purify fit --config train_cifar_small {args.options}".rstrip(),
        *([f"- Note: {args.note}"] if args.note else []),
        "- Licence: MIT. CIFAR-10 itself has no stated licence (Krizhevsky, 2009).",
        "",
        "Held-out squared error of the predicted noise (1 is no prediction):",
        "",
        "| t | error |",
        "|---|---|",
    ]
    events = EventAccumulator(str(run))
    events.Reload()
    for tag in events.Tags()["scalars"]:
        if tag.startswith("val/loss_t"):
            value = [s.value for s in events.Scalars(tag) if s.step <= checkpoint["global_step"]][
                -1
            ]
            lines.append(f"| {tag.removeprefix('val/loss_t')} | {value:.4f} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
