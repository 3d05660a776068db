"""Class names to captions, and captions to the tokens that stand for each class.

Token bookkeeping goes by the tokenizer's offset mapping, so multi-word names, hyphens and word
pieces need no special case (the authors' word-piece bookkeeping breaks on multi-word names).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Int

from pnp_core.errors import CaptionTooLongError, ClassNameError
from pnp_core.methods.pnp.config import CaptionConfig


@dataclass(frozen=True)
class EncodedText:
    """One caption as the text encoder gets it.

    Attributes:
        ids: token ids, special tokens included.
        offsets: per token, the characters (start, end) it stands for; (0, 0) for special tokens.
        unknown: per token, whether the vocabulary has no piece for it.
    """

    ids: list[int]
    offsets: list[tuple[int, int]]
    unknown: list[bool]


@runtime_checkable
class TextEncoder(Protocol):
    """What `build_prompts` needs of a backbone."""

    max_tokens: int

    def tokenize(self, text: str) -> EncodedText:
        """Encode a caption, special tokens included, without truncation."""
        ...


@dataclass(frozen=True)
class Prompts:
    """The N captions that name C classes, padded to T tokens.

    Attributes:
        ids: token ids, 0 where padded.
        mask: True at real tokens.
        class_tokens: token t of caption n belongs to the name of class c.
        caption_of_class: index n of the caption that names class c.
        texts: the captions.
    """

    ids: Int[torch.Tensor, "N T"]
    mask: Bool[torch.Tensor, "N T"]
    class_tokens: Bool[torch.Tensor, "C N T"]
    caption_of_class: Int[torch.Tensor, " C"]
    texts: tuple[str, ...]


@dataclass(frozen=True)
class _Caption:
    text: str
    encoded: EncodedText
    tokens: list[list[int]]


def _encode(names: Sequence[str], template: str, encoder: TextEncoder) -> _Caption:
    """One caption that names some classes, and the token positions of each name."""
    prefix, suffix = template.split("{}")
    text = prefix + " ".join(names) + suffix
    encoded = encoder.tokenize(text)
    tokens, start = [], len(prefix)
    for name in names:
        end = start + len(name)
        own = [i for i, (a, b) in enumerate(encoded.offsets) if a < end and b > start and b > a]
        if not own:
            raise ClassNameError(f"class '{name}' has no token in the text encoder's vocabulary; rename it")
        if any(encoded.unknown[i] for i in own):
            raise ClassNameError(
                f"class '{name}' is unknown to the text encoder (its vocabulary has no piece for it); rename it"
            )
        tokens.append(own)
        start = end + 1
    return _Caption(text, encoded, tokens)


def _fits(caption: _Caption, encoder: TextEncoder) -> bool:
    return len(caption.encoded.ids) <= encoder.max_tokens


def _joint_captions(names: Sequence[str], config: CaptionConfig, encoder: TextEncoder) -> list[_Caption]:
    """As few captions as the text encoder's limit allows, names in order."""
    whole = _encode(names, config.template, encoder)
    if _fits(whole, encoder):
        return [whole]
    if config.overlong == "error":
        raise CaptionTooLongError(
            f"the caption of {len(names)} classes has {len(whole.encoded.ids)} tokens, the text encoder takes "
            f"{encoder.max_tokens}; use fewer classes, caption.overlong=chunk or caption.mode=per_class"
        )
    if len(names) == 1:
        raise CaptionTooLongError(
            f"class '{names[0][:40]}' alone makes a caption of {len(whole.encoded.ids)} tokens, the text "
            f"encoder takes {encoder.max_tokens}; shorten the name"
        )
    half = len(names) // 2
    return _joint_captions(names[:half], config, encoder) + _joint_captions(names[half:], config, encoder)


def _captions(names: Sequence[str], config: CaptionConfig, encoder: TextEncoder) -> list[_Caption]:
    if config.mode == "joint":
        return _joint_captions(names, config, encoder)
    return [c for name in names for c in _joint_captions([name], config, encoder)]


def check_captions(names: Sequence[str], config: CaptionConfig, encoder: TextEncoder) -> None:
    """Find out whether classes can be named in captions; thousands of prompts would fill memory, so none are built.

    Raises:
        ClassNameError, CaptionTooLongError: as `build_prompts`.
    """
    _captions(names, config, encoder)


def single_captions(
    names: Sequence[str], config: CaptionConfig, encoder: TextEncoder
) -> tuple[Int[torch.Tensor, "N T"], Bool[torch.Tensor, "N T"]]:
    """Tokens of a caption for each name, and which of them are real.

    Raises:
        ClassNameError, CaptionTooLongError: as `build_prompts`.
    """
    one_each = config.model_copy(update={"mode": "per_class"})
    return _padded(_captions(names, one_each, encoder))


def _padded(captions: Sequence[_Caption]) -> tuple[torch.Tensor, torch.Tensor]:
    longest = max(len(c.encoded.ids) for c in captions)
    ids = torch.zeros(len(captions), longest, dtype=torch.long)
    for n, caption in enumerate(captions):
        ids[n, : len(caption.encoded.ids)] = torch.tensor(caption.encoded.ids)
    lengths = torch.tensor([len(c.encoded.ids) for c in captions])
    return ids, torch.arange(longest) < lengths[:, None]


def build_prompts(names: Sequence[str], config: CaptionConfig, encoder: TextEncoder) -> Prompts:
    """Turn candidate class names into captions (paper section 3.1).

    A joint caption over the encoder's limit is halved, name list by name list, until every part
    fits; each part is matched on its own, so its classes compete only with each other.

    Args:
        names: C >= 1 non-empty names; one that stands there twice has its own tokens each time.

    Raises:
        ClassNameError: a name without tokens, or with one the vocabulary lacks.
        CaptionTooLongError: a caption over the limit that may or can not be split.
    """
    captions = _captions(names, config, encoder)
    ids, mask = _padded(captions)
    class_tokens = torch.zeros(len(names), *ids.shape, dtype=torch.bool)
    caption_of_class = torch.zeros(len(names), dtype=torch.long)
    number = 0
    for n, caption in enumerate(captions):
        for own in caption.tokens:
            class_tokens[number, n, own] = True
            caption_of_class[number] = n
            number += 1
    return Prompts(ids, mask, class_tokens, caption_of_class, tuple(c.text for c in captions))


@dataclass(frozen=True)
class PromptBatch:
    """Prompts of B pictures padded to common sizes; padded captions and classes are all False.

    Attributes:
        ids, mask: (B, N, T).
        class_tokens: (B, C, N, T).
        caption_of_class: (B, C), 0 for padded classes.
        captions: True at real captions; a padded one must not count in the match score.
        classes: number of real classes of each picture.
    """

    ids: Int[torch.Tensor, "B N T"]
    mask: Bool[torch.Tensor, "B N T"]
    class_tokens: Bool[torch.Tensor, "B C N T"]
    caption_of_class: Int[torch.Tensor, "B C"]
    captions: Bool[torch.Tensor, "B N"]
    classes: tuple[int, ...]

    def to(self, device: torch.device) -> PromptBatch:
        """The same on another device."""
        return PromptBatch(
            *(t.to(device) for t in (self.ids, self.mask, self.class_tokens, self.caption_of_class, self.captions)),
            classes=self.classes,
        )  # fmt: skip


def stack_prompts(prompts: Sequence[Prompts]) -> PromptBatch:
    """Pad the prompts of several pictures into one batch."""
    n = max(p.ids.shape[0] for p in prompts)
    t = max(p.ids.shape[1] for p in prompts)
    c = max(p.class_tokens.shape[0] for p in prompts)
    batch = PromptBatch(
        ids=torch.zeros(len(prompts), n, t, dtype=torch.long),
        mask=torch.zeros(len(prompts), n, t, dtype=torch.bool),
        class_tokens=torch.zeros(len(prompts), c, n, t, dtype=torch.bool),
        caption_of_class=torch.zeros(len(prompts), c, dtype=torch.long),
        captions=torch.zeros(len(prompts), n, dtype=torch.bool),
        classes=tuple(p.class_tokens.shape[0] for p in prompts),
    )
    # A padded caption keeps its first token visible: a softmax over nothing would be NaN.
    batch.mask[:, :, 0] = True
    for b, p in enumerate(prompts):
        captions, tokens = p.ids.shape
        batch.ids[b, :captions, :tokens] = p.ids
        batch.mask[b, :captions, :tokens] = p.mask
        batch.class_tokens[b, : p.class_tokens.shape[0], :captions, :tokens] = p.class_tokens
        batch.caption_of_class[b, : p.class_tokens.shape[0]] = p.caption_of_class
        batch.captions[b, :captions] = True
    return batch
