"""One picture through the published sizes, with random weights: time and peak memory of a pass.

    uv run python -m benchmarks.backbones

A pass is the image encoder, the text side with one caption of three classes, and the gradient: what DropOut does
K times. Each model has a process of its own, so that the peak is its own. Beside it stands what `pnp-ovss doctor`
expects before it has seen the weights.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter

import torch
from transformers import BridgeTowerConfig, BridgeTowerForImageAndTextRetrieval

from pnp_core.checks.backbone import expect, matrix_rate
from pnp_core.checks.cost import peak_memory
from pnp_core.devices import resolve_device
from pnp_core.methods.pnp.backbones import Backbone, backbone_card
from pnp_core.methods.pnp.backbones.blip import BlipVision, FusionModel
from pnp_core.methods.pnp.backbones.bridgetower import BridgeTower
from pnp_core.methods.pnp.config import BackboneConfig, CaptionConfig
from pnp_core.methods.pnp.prompts import build_prompts, stack_prompts
from pnp_core.methods.pnp.salience import salience
from tests.models import LARGE, build_tokenizer, random_blip
from tests.pnp_core.methods.pnp.backbones.small import roberta_tokenizer

CASES = {"blip-336": ("blip", 336), "blip-768": ("blip", 768), "bridgetower-770": ("bridgetower", 770)}
NAMES = ["car", "hot-air balloon", "ice cream"]


def large_bridgetower(config: BackboneConfig, device: torch.device) -> Backbone:
    """The proportions of BridgeTower/bridgetower-large-itm-mlm-itc."""
    text = {
        "hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096,
        "vocab_size": 50265, "max_position_embeddings": 514, "type_vocab_size": 1, "pad_token_id": 1,
    }  # fmt: skip
    vision = {"hidden_size": 1024, "num_hidden_layers": 24, "patch_size": 14, "image_size": 294}
    own = {"hidden_size": 1024, "num_hidden_layers": 6, "num_attention_heads": 16, "share_link_tower_layers": False}
    model = BridgeTowerForImageAndTextRetrieval(BridgeTowerConfig(**own, text_config=text, vision_config=vision))
    with tempfile.TemporaryDirectory() as folder:
        tokenizer = roberta_tokenizer(Path(folder))
    return BridgeTower(model.requires_grad_(False).eval(), tokenizer, config, device)


def large_blip(config: BackboneConfig, device: torch.device) -> Backbone:
    """The proportions of Salesforce/blip-itm-large-flickr."""
    model, tokenizer = random_blip(LARGE).requires_grad_(False), build_tokenizer()
    first = tokenizer.convert_tokens_to_ids("[ENC]")
    return FusionModel(BlipVision(model.vision_model), model, tokenizer, config, device, first)


def measure(case: str, device: str, dtype: str) -> dict[str, float]:
    """Run a case in this process."""
    name, side = CASES[case]
    config = BackboneConfig.model_validate({"name": name, "image_size": side, "dtype": dtype})
    place = resolve_device(device)
    card = backbone_card(name)
    expected = expect(card, config.sides, matrix_rate(place))
    backbone = (large_bridgetower if name == "bridgetower" else large_blip)(config, place)
    prompts = stack_prompts([build_prompts(NAMES, CaptionConfig(), backbone)]).to(place)
    image = torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(0)).to(place)
    seconds = []
    for _ in range(2):
        start = perf_counter()
        found = salience(backbone, backbone.encode_image(image), prompts, card.layer, card.head)
        assert bool(torch.isfinite(found.maps).all()), "salience must be finite"
        seconds.append(perf_counter() - start)
    return {
        "patches": found.maps.shape[-1], "seconds": min(seconds), "memory_gb": peak_memory(place),
        "expected_seconds": expected.seconds, "expected_memory_gb": expected.memory_gb,
    }  # fmt: skip


def measure_apart(case: str, device: str = "cpu", dtype: str = "float32", threads: int = 0) -> dict[str, float]:
    """Run a case in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.backbones", "--case", case, "--device", device, "--dtype", dtype]
    done = subprocess.run(  # noqa: S603
        [*command, "--threads", str(threads)], capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Print a table, or the numbers of one case."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", choices=CASES)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--threads", type=int, default=0, help="0: as many as torch takes")
    arguments = parser.parse_args()
    if arguments.case:
        if arguments.threads:
            torch.set_num_threads(arguments.threads)
        print(json.dumps(measure(arguments.case, arguments.device, arguments.dtype)))
        return
    print("| model and side | patches | seconds | expected | peak GB | expected |\n|---|--:|--:|--:|--:|--:|")
    for case in CASES:
        found = measure_apart(case, arguments.device, arguments.dtype, arguments.threads)
        numbers = (found["seconds"], found["expected_seconds"], found["memory_gb"], found["expected_memory_gb"])
        print(f"| {case} | {found['patches']:.0f} | " + " | ".join(f"{n:.2f}" for n in numbers) + " |")


if __name__ == "__main__":
    main()
