"""Train the bundled tiny CLIP from scratch on the synthetic scenes: class labels only, no masks.

    uv run python -m training.train_clip --seed 0 --out /tmp/clip-0

Two CPU cores are enough; docs/tiny-clip.md says what was measured.
"""

from __future__ import annotations

import math
import time
from pathlib import Path

import torch
from open_clip.model import CLIP
from torch.nn import functional as F

from pnp_core.inputs.scenes.shapes import CLASS_NAMES
from training.common import parser, read_arguments, set_rate
from training.data import ImageBank, augment, scene_bank, window_bank
from training.tiny_blip import build_tokenizer
from training.tiny_clip import CONTEXT, IMAGE_SIZE, MEAN, STD, build_clip, save_clip

TEMPLATES = ("a picture of {}", "a photo of a {}", "a {}", "{}")
MAX_SCALE = math.log(100)


def blobs(number: int, generator: torch.Generator) -> torch.Tensor:
    """Random smooth regions (number, 1, size, size) bool, 10 to 90% of the picture each.

    They are what a picture cut by a salience mask looks like, and know nothing of the objects.
    """
    cells = int(torch.randint(3, 9, (1,), generator=generator))
    noise = torch.rand(number, 1, cells, cells, generator=generator)
    smooth = F.interpolate(noise, size=(IMAGE_SIZE, IMAGE_SIZE), mode="bicubic")
    level = 0.1 + 0.8 * torch.rand(number, 1, generator=generator)
    cut = smooth.flatten(1).sort(1).values.gather(1, (level * IMAGE_SIZE**2).long())
    return smooth > cut[:, :, None, None]


def scene_pixels(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Normalised scenes, half of them seen through a random region; zero elsewhere."""
    pixels = normalised(augment(images, generator))
    whole = torch.rand(len(pixels), 1, 1, 1, generator=generator) < 0.5
    return pixels * (whole | blobs(len(pixels), generator))


def window_pixels(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Normalised single-object windows of a random size somewhere on an empty picture."""
    side = int(torch.randint(40, IMAGE_SIZE + 1, (1,), generator=generator))
    top, left = (int(torch.randint(0, IMAGE_SIZE - side + 1, (1,), generator=generator)) for _ in "yx")
    small = F.interpolate(augment(images, generator), size=(side, side), mode="bilinear", antialias=True)
    pixels = torch.zeros(len(images), 3, IMAGE_SIZE, IMAGE_SIZE)
    pixels[:, :, top : top + side, left : left + side] = normalised(small)
    return pixels


def normalised(images: torch.Tensor) -> torch.Tensor:
    return (images - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)


def contrastive_loss(images: torch.Tensor, texts: torch.Tensor, labels: torch.Tensor, scale: torch.Tensor):
    """CLIP's symmetric loss where a picture has several right texts and a text several right pictures.

    Args:
        images: (n, d) and texts: (classes, d), both of length 1.
        labels: (n, classes) bool; every class text of a picture is equally right.
    """
    logits = scale * images @ texts.T
    wanted = labels.float()
    to_text = -(wanted * logits.log_softmax(1)).sum(1) / wanted.sum(1)
    shown = labels.any(0)
    to_image = -(wanted * logits.log_softmax(0)).sum(0)[shown] / wanted.sum(0)[shown]
    return (to_text.mean() + to_image.mean()) / 2


class Texts:
    """Every class in every template, tokenised: ids (templates, classes, context)."""

    def __init__(self) -> None:
        tokenizer = build_tokenizer()
        self.ids = torch.stack(
            [
                tokenizer(
                    [template.format(name) for name in CLASS_NAMES],
                    padding="max_length", max_length=CONTEXT, return_tensors="pt",
                )["input_ids"]
                for template in TEMPLATES
            ]
        )  # fmt: skip


def _batch(banks: dict[str, ImageBank], size: int, generator: torch.Generator):
    """`size` scenes and half as many windows: pixels and labels."""
    pixels, labels = [], []
    for kind, number, prepare in (("scenes", size, scene_pixels), ("windows", size // 2, window_pixels)):
        chosen = torch.randint(0, len(banks[kind]), (number,), generator=generator)
        images, truth = banks[kind].batch(chosen)
        pixels.append(prepare(images, generator))
        labels.append(truth)
    return torch.cat(pixels), torch.cat(labels)


def _right(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return labels.gather(1, logits.argmax(1, keepdim=True))[:, 0].float()


def train(seed: int, out: Path, steps: int, rate: float, scenes: int, windows: int, batch: int) -> None:
    """Train with warm-up and a cosine schedule, then save.

    Args:
        scenes, windows: how many pictures of each kind are drawn beforehand.
        batch: scenes per step; windows half as many.
    """
    generator = torch.Generator().manual_seed(seed)
    model: CLIP = build_clip(seed).train().to(memory_format=torch.channels_last)
    texts = Texts()
    banks = {"scenes": scene_bank(scenes), "windows": window_bank(windows)}
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.05, betas=(0.9, 0.98))
    start, shown = time.monotonic(), {"scenes": 0.0, "windows": 0.0}
    for step in range(steps):
        set_rate(optimizer, rate, step, steps)
        pixels, labels = _batch(banks, batch, generator)
        template = int(torch.randint(0, len(TEMPLATES), (1,), generator=generator))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            images = model.encode_image(pixels.contiguous(memory_format=torch.channels_last), normalize=True).float()
            words = model.encode_text(texts.ids[template], normalize=True).float()
        scale = model.logit_scale.exp()
        loss = contrastive_loss(images, words, labels, scale)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        with torch.no_grad():
            model.logit_scale.clamp_(0, MAX_SCALE)
            right = _right(images @ words.T, labels)
        for kind, part in (("scenes", right[:batch]), ("windows", right[batch:])):
            shown[kind] = 0.98 * shown[kind] + 0.02 * float(part.mean())
        if (step + 1) % 100 == 0:
            minutes = (time.monotonic() - start) / 60
            print(
                f"{minutes:5.1f} min  step {step + 1}  loss {loss.item():.3f}  scale {scale.item():.1f}  "
                f"best text right: scenes {shown['scenes']:.3f}  windows {shown['windows']:.3f}",
                flush=True,
            )
        if (step + 1) % 1000 == 0:
            save_clip(model.eval(), out)
            model.train()
    save_clip(model.eval(), out)
    print(f"saved to {out}", flush=True)


def main() -> None:
    """Read the arguments and train."""
    made = parser(__doc__)
    made.add_argument("--steps", type=int, default=8000)
    made.add_argument("--rate", type=float, default=1e-3)
    train(**read_arguments(made))


if __name__ == "__main__":
    main()
