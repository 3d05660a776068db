"""Train a tiny CLIP with a vision transformer whose patches say what they show: class labels only, no masks.

    uv run python -m training.train_vit_clip --seed 0 --out /tmp/vit-clip-0

Its vision tower starts as the bundled tiny BLIP's, which has seen the same scenes; docs/tiny-clip.md says what was
measured. Patches are aligned with texts on the path that NACLIP takes: each may be one of the classes that its picture
shows, or ground; each such class must be somewhere; empty scenes are ground alone.
"""

from __future__ import annotations

import time
from pathlib import Path

import torch
from open_clip.model import CLIP
from torch.nn import functional as F
from transformers import BlipForImageTextRetrieval

from pnp_core.bundled import PACKAGE
from pnp_core.inputs.scenes.shapes import CLASS_NAMES
from pnp_core.openclip.last_block import run_last_block
from pnp_core.openclip.vit import Trunk
from training.common import parser, read_arguments, set_rate
from training.data import ImageBank, augment, empty_bank, scene_bank, window_bank
from training.tiny_blip import build_tokenizer
from training.tiny_clip import CONTEXT, IMAGE_SIZE, build_clip, save_clip
from training.train_clip import TEMPLATES, contrastive_loss, normalised, window_pixels

GROUND = "ground"
VISION = {"image_size": IMAGE_SIZE, "patch_size": 8, "width": 128, "layers": 4, "head_width": 32, "no_ln_pre": True}
SCALE = 40.0
"""Of cosines of patches, as NACLIP has it."""
LEAST_OF_CLASS, LEAST_OF_GROUND = 5, 30
"""Patches of 144 that each class of a picture, and its ground, cover."""


def start_as_blip(model: CLIP) -> None:
    """Take over the vision tower of the bundled tiny BLIP: the same layers under other names."""
    blip = BlipForImageTextRetrieval.from_pretrained(PACKAGE / "_tiny").vision_model
    weights = blip.state_dict()
    visual, own = model.visual, {}
    positions = weights["embeddings.position_embedding"][0].clone()
    positions[1:] += weights["embeddings.patch_embedding.bias"]  # CLIP's patches have no bias
    own["positional_embedding"] = positions
    own["class_embedding"] = weights["embeddings.class_embedding"].flatten()
    own["conv1.weight"] = weights["embeddings.patch_embedding.weight"]
    names = {"layer_norm1": "ln_1", "layer_norm2": "ln_2", "self_attn.projection": "attn.out_proj"}
    names |= {"mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj"}
    for kind in ("weight", "bias"):
        own[f"ln_post.{kind}"] = weights[f"post_layernorm.{kind}"]
        for layer in range(len(visual.transformer.resblocks)):
            there, here = f"encoder.layers.{layer}", f"transformer.resblocks.{layer}"
            own[f"{here}.attn.in_proj_{kind}"] = weights[f"{there}.self_attn.qkv.{kind}"]
            own |= {f"{here}.{mine}.{kind}": weights[f"{there}.{its}.{kind}"] for its, mine in names.items()}
    missing, unexpected = visual.load_state_dict(own, strict=False)
    assert (missing, unexpected) == (["proj"], []), (missing, unexpected)


def features(model: CLIP, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Of each picture CLS (n, d), the mean of its patches (n, d), and its patches as NACLIP has them (n, 144, d)."""
    visual = model.visual
    tokens = visual._embeds(pixels)
    for block in visual.transformer.resblocks[:-1]:
        tokens = block(tokens)
    trunk = Trunk(tokens, visual.grid_size)
    last = visual.transformer.resblocks[-1]
    trained = visual.ln_post(last(tokens)) @ visual.proj
    dense = visual.ln_post(trunk.patches(run_last_block(last, trunk, "naclip", False))) @ visual.proj
    return tuple(F.normalize(x, dim=-1) for x in (trained[:, 0], trunk.patches(trained).mean(1), dense))


def patch_loss(patches: torch.Tensor, texts: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """How far patches are from what the labels of their pictures allow and demand.

    Args:
        patches: (n, p, d) and texts: (classes + 1, d), ground last, of length 1.
        labels: (n, classes) bool.
    """
    logp = (SCALE * patches @ texts.T).log_softmax(-1)
    allowed = F.pad(labels, (0, 1), value=True)[:, None]
    strays = -logp.masked_fill(~allowed, -torch.inf).logsumexp(-1).mean()
    peak = logp[..., :-1].exp().topk(LEAST_OF_CLASS, dim=1).values.mean(1).clamp_min(1e-6)
    ground = logp[..., -1].exp().topk(LEAST_OF_GROUND, dim=1).values.mean(1).clamp_min(1e-6)
    return strays - peak.log()[labels].mean() - ground.log().mean()


class Texts:
    """Every class and the ground in every template, tokenised: ids (templates, classes + 1, context)."""

    def __init__(self) -> None:
        tokenizer = build_tokenizer()
        form = {"padding": "max_length", "max_length": CONTEXT, "return_tensors": "pt"}
        names = (*CLASS_NAMES, GROUND)
        self.ids = torch.stack([tokenizer([t.format(n) for n in names], **form)["input_ids"] for t in TEMPLATES])


def _scenes(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    return normalised(augment(images, generator))


def _batch(banks: dict[str, ImageBank], size: int, generator: torch.Generator):
    """`size` scenes, a quarter as many windows and an eighth as many empty scenes: pixels and labels."""
    pixels, labels = [], []
    parts = (("scenes", size, _scenes), ("windows", size // 4, window_pixels), ("empty", size // 8, _scenes))
    for kind, number, prepare in parts:
        chosen = torch.randint(0, len(banks[kind]), (number,), generator=generator)
        images, truth = banks[kind].batch(chosen)
        pixels.append(prepare(images, generator))
        labels.append(truth)
    return torch.cat(pixels), torch.cat(labels)


def train(seed: int, out: Path, steps: int, rate: float, scenes: int, windows: int, batch: int) -> None:
    """Train with warm-up and a cosine schedule, then save."""
    generator = torch.Generator().manual_seed(seed)
    model = build_clip(seed, VISION).train()
    start_as_blip(model)
    texts = Texts()
    banks = {"scenes": scene_bank(scenes), "windows": window_bank(windows), "empty": empty_bank(scenes // 4)}
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.05, betas=(0.9, 0.98))
    start, shown = time.monotonic(), [0.0, 0.0]
    for step in range(steps):
        set_rate(optimizer, rate, step, steps)
        pixels, labels = _batch(banks, batch, generator)
        template = int(torch.randint(0, len(TEMPLATES), (1,), generator=generator))
        cls, mean, patches = features(model, pixels)
        words = model.encode_text(texts.ids[template], normalize=True)
        some, scale = labels.any(1), model.logit_scale.exp()
        whole = sum(contrastive_loss(one[some], words[:-1], labels[some], scale) for one in (cls, mean)) / 2
        dense = patch_loss(patches, words, labels)
        optimizer.zero_grad(set_to_none=True)
        (whole + dense).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        with torch.no_grad():
            model.logit_scale.clamp_(0, 4.6)
        shown = [0.95 * old + 0.05 * float(new.detach()) for old, new in zip(shown, (whole, dense), strict=True)]
        if (step + 1) % 50 == 0:
            minutes = (time.monotonic() - start) / 60
            print(f"{minutes:5.1f} min  step {step + 1}  whole {shown[0]:.3f}  patches {shown[1]:.3f}", flush=True)
        if (step + 1) % 100 == 0:
            save_clip(model.eval(), out, VISION)
            model.train()
    save_clip(model.eval(), out, VISION)
    print(f"saved to {out}", flush=True)


def main() -> None:
    """Read the arguments and train."""
    made = parser(__doc__)
    made.add_argument("--steps", type=int, default=6000)
    made.add_argument("--rate", type=float, default=5e-4)
    train(**read_arguments(made))


if __name__ == "__main__":
    main()
