"""Train the bundled tiny BLIP from scratch on the synthetic scenes: class labels only, no masks.

    uv run python -m training.train_tiny --seed 0 --out /tmp/tiny-0

Two CPU cores are enough; docs/tiny-model.md says what was measured.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F
from transformers import BlipForImageTextRetrieval

from pnp_core.inputs.scenes.shapes import CLASS_NAMES, CLASSES
from training.common import parser, read_arguments, set_rate
from training.data import MODEL_SIZE, ImageBank, augment, scene_bank, window_bank
from training.tiny_blip import build_model, build_tokenizer, regauge

MEAN = torch.tensor([0.48145466, 0.4578275, 0.40821073]).view(3, 1, 1)
STD = torch.tensor([0.26862954, 0.26130258, 0.27577711]).view(3, 1, 1)
CAPTIONS_PER_IMAGE = 4
CROSS_ATTENTION_DROPOUT = 0.25


@dataclass(frozen=True)
class Phase:
    """One stretch of training with its own learning rate schedule (warm-up, cosine).

    Attributes:
        windows: share of steps on single-object windows, from the progress in [0, 1].
        kept: range of the share of patches that a scene is seen through, from the progress.
        kept_in_windows: the same for windows.
    """

    name: str
    steps: int
    rate: float
    windows: Callable[[float], float]
    kept: Callable[[float], tuple[float, float]]
    kept_in_windows: tuple[float, float]


PHASES = (
    # Shapes first, on windows; then whole scenes, seen through ever more of their patches.
    Phase(
        "learn", 4900, 5e-4, lambda p: max(0.1, 1 - p / 0.35), lambda p: (0.35 + 0.5 * p, 0.35 + 0.5 * p), (1.0, 1.0)
    ),
    # Few patches at a time, so that no single part of an object is enough: widens the salience.
    Phase("widen", 800, 4e-4, lambda _: 0.1, lambda _: (0.15, 0.5), (0.3, 1.0)),
)
SAME_GROUP = torch.tensor([[a.group == b.group for b in CLASSES] for a in CLASSES])


def encode(vision: nn.Module, pixels: torch.Tensor, keep: float, generator: torch.Generator) -> torch.Tensor:
    """Vision tokens (n, 1 + kept, width); a window takes the positions of a random place.

    Args:
        pixels: (n, 3, s, s) normalised, s a multiple of the patch size.
        keep: share of the patches that enter the encoder.
    """
    embeddings = vision.embeddings
    patches = embeddings.patch_embedding(pixels)
    grid, full = patches.shape[-1], int(embeddings.num_patches**0.5)
    top, left = (int(torch.randint(0, full - grid + 1, (1,), generator=generator)) for _ in "yx")
    positions = embeddings.position_embedding[0, 1:].view(full, full, -1)
    positions = positions[top : top + grid, left : left + grid].flatten(0, 1)
    tokens = patches.flatten(2).transpose(1, 2) + positions
    if keep < 1:
        n, length, width = tokens.shape
        chosen = torch.rand(n, length, generator=generator).argsort(1)[:, : int(length * keep)]
        tokens = tokens.gather(1, chosen[..., None].expand(-1, -1, width))
    cls = (embeddings.class_embedding + embeddings.position_embedding[:, :1]).expand(len(tokens), -1, -1)
    x = torch.cat([cls, tokens], dim=1)
    for layer in vision.encoder.layers:
        x = x + _attend(layer.self_attn, layer.layer_norm1(x))
        x = x + layer.mlp(layer.layer_norm2(x))
    return vision.post_layernorm(x)


def _attend(attention: nn.Module, x: torch.Tensor) -> torch.Tensor:
    n, length, width = x.shape
    q, k, v = attention.qkv(x).view(n, length, 3, attention.num_heads, -1).permute(2, 0, 3, 1, 4)
    # Plain matrix products: the backward of the fused CPU kernel is several times slower at this size.
    probabilities = (q @ k.transpose(-1, -2) * attention.scale).softmax(-1)
    return attention.projection((probabilities @ v).transpose(1, 2).reshape(n, length, width))


def match_logits(model, ids, mask, image_tokens, amplitude):
    """ITM logits (n, captions, 2); keys and values are computed once per image.

    Args:
        ids, mask: (n, captions, tokens).
        amplitude: (n, captions, tokens, 1) factor on what each token reads from the image.
    """
    n, captions, length = ids.shape
    text = model.text_encoder
    x = text.embeddings(ids.flatten(0, 1))
    bias = (1 - mask.flatten(0, 1)[:, None, None, :].float()) * -1e4
    for layer in text.encoder.layer:
        x = layer.attention(x, attention_mask=bias)[0]
        # All captions of an image are one long query: nothing but the image is attended to.
        queries = x.view(n, captions * length, -1)
        read = layer.crossattention.self(queries, encoder_hidden_states=image_tokens)[0]
        read = read * amplitude.view(n, captions * length, 1)
        x = layer.crossattention.output(read, queries).view(n * captions, length, -1)
        x = layer.feed_forward_chunk(x)
    return model.itm_head(x[:, 0]).view(n, captions, 2)


def choose_captions(labels: torch.Tensor, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Pick classes to ask about: half present, half absent, the absent ones often look-alikes in hue.

    Returns:
        Class indices (n, captions) and whether each is present.
    """
    present = labels.float()
    alike = (present @ SAME_GROUP.float() > 0) & ~labels
    half = CAPTIONS_PER_IMAGE // 2
    hard = torch.rand(len(labels), 1, generator=generator) < 0.5
    absent = torch.where(hard, alike.float() + 1e-4 * (~labels).float(), (~labels).float())
    classes = torch.cat(
        [
            torch.multinomial(present, half, replacement=True, generator=generator),
            torch.multinomial(absent, half, replacement=False, generator=generator),
        ],
        dim=1,
    )
    return classes, labels.gather(1, classes)


def sample_amplitude(class_tokens, present, generator):
    """Amplitude mix (half of the images) and blocking of the non-class tokens (most images).

    Returns:
        The factor (n, captions, tokens, 1) and the soft targets (n, captions) in [0, 1].
    """
    n, captions, _ = class_tokens.shape
    mixed = torch.rand(n, 1, generator=generator) < 0.5
    blocked = mixed | (torch.rand(n, 1, generator=generator) < 0.4)
    strength = torch.where(mixed, torch.rand(n, captions, generator=generator), 1.0)
    others = torch.where(blocked, 0.0, 1.0)[..., None].expand_as(class_tokens)
    factor = torch.where(class_tokens, strength[..., None], others)
    return factor[..., None], present.float() * strength


def multiple_instance_logits(head: nn.Linear, tokens: torch.Tensor) -> torch.Tensor:
    """Image-level class logits (n, classes): each class pools the patches that speak for it."""
    scores = head(tokens[:, 1:])
    return (scores.softmax(dim=1) * scores).sum(dim=1)


class Captions:
    """Tokenised "a picture of <class>" for every class: ids, mask and class-token mask."""

    def __init__(self, tokenizer) -> None:
        prefix = "a picture of "
        encoded = tokenizer(
            [prefix + name for name in CLASS_NAMES], padding=True, return_tensors="pt", return_offsets_mapping=True
        )
        self.ids = encoded["input_ids"]
        self.ids[:, 0] = tokenizer.convert_tokens_to_ids("[ENC]")
        self.mask = encoded["attention_mask"]
        self.class_tokens = (encoded["offset_mapping"][..., 0] >= len(prefix)) & (encoded["offset_mapping"][..., 1] > 0)


@dataclass
class Learner:
    """The model in training and the throw-away head that speaks for single patches."""

    model: BlipForImageTextRetrieval
    instance_head: nn.Linear
    captions: Captions
    generator: torch.Generator

    def losses(self, keep: float, images: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, float]:
        """Match loss plus multiple-instance loss of a batch, and the match accuracy.

        Args:
            keep: share of the patches that are seen.
            images: uint8 (n, 3, size, size).
            labels: classes in each picture (n, classes) bool.
        """
        pixels = (augment(images, self.generator) - MEAN) / STD
        classes, present = choose_captions(labels, self.generator)
        amplitude, target = sample_amplitude(self.captions.class_tokens[classes], present, self.generator)
        ids, mask = self.captions.ids[classes], self.captions.mask[classes]
        with torch.autocast("cpu", dtype=torch.bfloat16):
            tokens = encode(self.model.vision_model, pixels, keep, self.generator)
            instance = multiple_instance_logits(self.instance_head, tokens).float()
            itm = match_logits(self.model, ids, mask, tokens, amplitude).float()
        instance_loss = F.binary_cross_entropy_with_logits(instance, labels.float(), pos_weight=torch.tensor(4.0))
        itm_loss = -(torch.stack([1 - target, target], dim=-1) * itm.log_softmax(-1)).sum(-1).mean()
        right = (itm[..., 1] > itm[..., 0]) == present
        return itm_loss + 2 * instance_loss, right[target == present].float().mean().item()


def run_phase(learner: Learner, phase: Phase, banks: dict[str, ImageBank], batch: int) -> None:
    """Take all steps of a phase."""
    generator = learner.generator
    parameters = [*learner.model.parameters(), *learner.instance_head.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=phase.rate, weight_decay=0.03, betas=(0.9, 0.98))
    accuracy = {"windows": 0.5, "scenes": 0.5}
    start = time.monotonic()
    for step in range(phase.steps):
        progress = step / phase.steps
        set_rate(optimizer, phase.rate, step, phase.steps)
        kind = "windows" if torch.rand(1, generator=generator) < phase.windows(progress) else "scenes"
        low, high = phase.kept_in_windows if kind == "windows" else phase.kept(progress)
        keep = low + (high - low) * float(torch.rand(1, generator=generator))
        size = 2 * batch if kind == "windows" else batch
        chosen = torch.randint(0, len(banks[kind]), (size,), generator=generator)
        loss, right = learner.losses(keep, *banks[kind].batch(chosen))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        accuracy[kind] = 0.98 * accuracy[kind] + 0.02 * right
        if (step + 1) % 100 == 0:
            shown = "  ".join(f"{name} {value:.3f}" for name, value in accuracy.items())
            minutes = (time.monotonic() - start) / 60
            print(f"{phase.name}: {minutes:5.1f} min  step {step + 1}  match accuracy: {shown}", flush=True)


def train(seed: int, out: Path, scenes: int, windows: int, batch: int, stretch: float) -> None:
    """Train through all phases and save the model and its tokenizer.

    Args:
        scenes, windows: how many pictures of each kind are drawn beforehand.
        batch: scenes per step; of the smaller windows twice as many.
        stretch: factor on the number of steps of every phase.
    """
    tokenizer = build_tokenizer()
    model = build_model(tokenizer, MODEL_SIZE, seed)
    for layer in model.text_encoder.encoder.layer:
        layer.crossattention.self.dropout.p = CROSS_ATTENTION_DROPOUT
    head = nn.Linear(model.config.vision_config.hidden_size, len(CLASS_NAMES))
    learner = Learner(model, head, Captions(tokenizer), torch.Generator().manual_seed(seed))
    banks = {"windows": window_bank(windows), "scenes": scene_bank(scenes)}
    model.train()
    for phase in PHASES:
        run_phase(learner, replace(phase, steps=max(1, round(phase.steps * stretch))), banks, batch)
    model.eval()
    with torch.no_grad():
        pixels = (banks["scenes"].images[:256].float() / 255 - MEAN) / STD
        regauge(model, model.vision_model(pixel_values=pixels).last_hidden_state)
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    print(f"saved to {out}", flush=True)


def main() -> None:
    """Read the arguments and train."""
    made = parser(__doc__)
    made.add_argument("--stretch", type=float, default=1.0, help="factor on the number of steps")
    train(**read_arguments(made))


if __name__ == "__main__":
    main()
