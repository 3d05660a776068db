"""Texts that a CLIP is asked about: queries in templates, one embedding of each query."""

from __future__ import annotations

from collections.abc import Sequence

import open_clip
import torch
from jaxtyping import Float

from pnp_core.openclip.config import Templates
from pnp_core.openclip.model import ClipModel

IMAGENET_TEMPLATES: tuple[str, ...] = tuple(template("{}") for template in open_clip.OPENAI_IMAGENET_TEMPLATES)
"""OpenAI's 80 captions for ImageNet; `{}` stands for the query."""
_MOST = 100_000
_known: dict[tuple[str, tuple[str, ...], str], torch.Tensor] = {}


def templates_of(templates: Templates) -> tuple[str, ...]:
    """The captions that a configuration means."""
    return IMAGENET_TEMPLATES if templates == "imagenet" else templates


def embed_queries(
    clip: ClipModel, revision: str, queries: Sequence[str], templates: Sequence[str]
) -> Float[torch.Tensor, "Q D"]:
    """One embedding of length 1 of each query: the normalised mean over templates of normalised embeddings.

    What was embedded before in this process is not embedded again.

    Args:
        revision: names the weights, as `clip_revision` does.
        queries: at least one.
        templates: captions with `{}`, at least one.
    """
    templates = tuple(templates)
    new = [query for query in dict.fromkeys(queries) if (revision, templates, query) not in _known]
    if len(_known) + len(new) > _MOST:
        _known.clear()
        new = list(dict.fromkeys(queries))
    for at in range(0, len(new), 16):
        some = new[at : at + 16]
        texts = clip.encode_texts([template.replace("{}", query) for query in some for template in templates])
        means = torch.nn.functional.normalize(texts.unflatten(0, (len(some), len(templates))).mean(1), dim=-1)
        _known.update({(revision, templates, q): one for q, one in zip(some, means.cpu(), strict=True)})
    return torch.stack([_known[revision, templates, query] for query in queries]).to(clip.device)
