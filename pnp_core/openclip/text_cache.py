"""Features of many texts, kept on this machine: thousands take minutes to encode, and are the same tomorrow."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import torch
from jaxtyping import Float
from platformdirs import user_cache_path
from safetensors import SafetensorError
from safetensors.torch import load, save

KEPT = 32
"""Vocabularies that are kept; the ones not used for longest go."""
KEPT_BYTES = 512 * 2**20
"""Of their files at most, but for the newest."""
Encode = Callable[[list[str]], Float[torch.Tensor, "N D"]]


def cache_folder() -> Path:
    """Where they lie: the user's cache of this platform (on Linux XDG_CACHE_HOME)."""
    return user_cache_path("pnp-ovss") / "texts"


def cached_texts(encode: Encode, revision: str, texts: list[str]) -> Float[torch.Tensor, "N D"]:
    """Features of some texts, as they were encoded before, or encoded now and kept.

    A file that is damaged or of another form is made again. Where nothing can be written, nothing is kept.

    Args:
        revision: names the weights, as `clip_revision` does.
        texts: at least one.
    """
    name = hashlib.sha256(json.dumps([revision, texts]).encode()).hexdigest()
    file = cache_folder() / f"{name}.safetensors"
    if (known := _read(file, len(texts))) is not None:
        return known
    features = encode(texts).cpu().contiguous()
    with suppress(OSError):  # a read-only home costs time, no results
        _write(file, save({"texts": features}))
    return features


def _read(file: Path, number: int) -> torch.Tensor | None:
    try:
        features = load(file.read_bytes())["texts"]
        os.utime(file)
    except (OSError, SafetensorError, KeyError, ValueError):
        return None
    fits = features.ndim == 2 and len(features) == number and features.dtype == torch.float32
    return features if fits and bool(features.isfinite().all()) else None


def _write(file: Path, data: bytes) -> None:
    """In one step, so that two processes never see each other's halves; then the oldest go."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=file.parent, suffix=".part", delete=False) as part:
        try:
            part.write(data)
            part.close()
            Path(part.name).replace(file)
        except BaseException:  # also when it is interrupted: nobody else would take it away
            Path(part.name).unlink(missing_ok=True)
            raise
    _drop_oldest(file)


def _drop_oldest(newest: Path) -> None:
    found = [(one.stat(), one) for one in newest.parent.glob("*.safetensors") if one != newest]
    room = KEPT_BYTES - newest.stat().st_size
    for number, (stat, old) in enumerate(sorted(found, key=lambda one: one[0].st_mtime, reverse=True), start=2):
        room -= stat.st_size
        if number > KEPT or room < 0:
            old.unlink(missing_ok=True)
