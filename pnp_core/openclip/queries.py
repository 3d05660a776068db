"""Texts that a CLIP is asked about: queries in templates, one embedding of each query."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

import numpy as np
import open_clip
import torch
from jaxtyping import Float

from pnp_core.errors import ClassNameError
from pnp_core.openclip.config import Queries, Templates

IMAGENET_TEMPLATES: tuple[str, ...] = tuple(template("{}") for template in open_clip.OPENAI_IMAGENET_TEMPLATES)
"""OpenAI's 80 captions for ImageNet; `{}` stands for the query."""
Embed = Callable[[Sequence[str]], Float[torch.Tensor, "Q D"]]
"""Embeddings of length 1 of some queries."""
_MOST = 100_000
_known: dict[tuple[str, tuple[str, ...], str], torch.Tensor] = {}


@runtime_checkable
class TextEncoder(Protocol):
    """What turns texts into features of length 1, on a device."""

    device: torch.device

    def encode_texts(self, texts: list[str]) -> Float[torch.Tensor, "N D"]:
        """Text features."""
        ...


def names_asked(queries: Queries, captions: Sequence[str]) -> list[tuple[str, ...]]:
    """The queries of each class, from label 1.

    Raises:
        ClassNameError: there are queries for what is no class.
    """
    own = {name.lower(): names for name, names in queries}
    if strangers := sorted(set(own) - {caption.lower() for caption in captions}):
        raise ClassNameError(f"queries are given for '{strangers[0]}', which is no class; classes: {some(captions)}")
    return [own.get(caption.lower(), (caption,)) for caption in captions]


def some(names: Sequence[str]) -> str:
    """The first of some names, for people."""
    return ", ".join(names[:20]) + (" ..." if len(names) > 20 else "")


def templates_of(templates: Templates) -> tuple[str, ...]:
    """The captions that a configuration means."""
    return IMAGENET_TEMPLATES if templates == "imagenet" else templates


def embed_queries(
    clip: TextEncoder, revision: str, queries: Sequence[str], templates: Sequence[str]
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
    for query in new:
        # By itself: beside others its last bits depend on which these are, and they on what a process did before.
        texts = clip.encode_texts([template.replace("{}", query) for template in templates])
        _known[revision, templates, query] = torch.nn.functional.normalize(texts.mean(0), dim=-1).cpu()
    return torch.stack([_known[revision, templates, query] for query in queries]).to(clip.device)


class QueryTexts:
    """Texts that patches are held against: the queries of each class, and those of the background.

    Args:
        background: queries of label 0.
        asked: of each class its queries, from label 1.
        embed: their embeddings of length 1 (Q, D), see `embed_queries`.
    """

    def __init__(self, background: Sequence[str], asked: Sequence[Sequence[str]], embed: Embed) -> None:
        groups = [background, *asked]
        self._labels = np.repeat(np.arange(len(groups)), [len(names) for names in groups])
        self._texts = embed([name for names in groups for name in names])

    def cosines(
        self, patches: Float[torch.Tensor, "gh gw D"], classes: tuple[int, ...]
    ) -> tuple[Float[np.ndarray, "1 Q gh gw"], tuple[int, ...]]:
        """Cosines in [-1, 1] of patches of length 1 with the queries of some classes and of the background.

        Returns:
            the maps, and the label of each; none where no class is asked about.
        """
        if not classes:
            return np.zeros((1, 0, *patches.shape[:2]), dtype=np.float32), ()
        wanted = np.flatnonzero(np.isin(self._labels, (0, *classes)))
        cosines = (patches @ self._texts[wanted].T).permute(2, 0, 1)
        return cosines[None].cpu().numpy(), tuple(self._labels[wanted].tolist())
