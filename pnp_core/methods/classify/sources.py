"""Where proposals are from: another run's masks, or a folder of them."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from threading import Lock
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool
from PIL import Image

from pnp_core.errors import MissingProposals, UnusableImage, UsageError, in_words
from pnp_core.inputs.images import decode_label_map
from pnp_core.masks.components import components
from pnp_core.methods.base import Pinned
from pnp_core.methods.classify.pieces import Pieces, apart, overlapping
from pnp_core.storage.completion import StageFolder
from pnp_core.storage.files import Files
from pnp_core.storage.finished import (
    OWN_IMAGES,
    RECORD,
    Part,
    finished_shards,
    read_finished,
    read_masks,
    set_aside,
)
from pnp_core.storage.run_folder import RunFolder, fingerprint
from pnp_core.storage.seals import sha256

STAGE = "masks"
KEPT_SHARDS = 2
"""Shards whose masks are in memory: one is being read to its end while the next is begun."""


class _Method(Part):
    name: str


class _Configuration(Part):
    method: _Method


class _Fingerprints(Part):
    salience: str
    masks: str


class _Card(Part):
    name: str


class _Record(Part):
    config: _Configuration
    fingerprints: _Fingerprints
    card: _Card | None


@runtime_checkable
class Proposals(Protocol):
    """Proposals by key; asked on several threads at a time."""

    def of(self, key: str, size: tuple[int, int], least: float) -> Pieces:
        """Those of a picture.

        Args:
            size: (H, W) in pixels.
            least: share of the picture that one must cover.

        Raises:
            MissingProposals: there are none, or they are of a picture of another size.
            UnusableImage: a mask cannot be read.
            CorruptRunError: a file of a run is missing or damaged.
        """
        ...


@dataclass(frozen=True)
class RunSource:
    """The masks of a finished run.

    Attributes:
        card: name of its dataset card.
        shards: those that have masks; the others were given up.
        revision: names the masks as they are.
    """

    run: str
    method: str
    card: str
    salience: str
    masks: str
    shards: tuple[str, ...]
    revision: str

    @property
    def folder(self) -> StageFolder:
        """Where they lie."""
        return StageFolder(RunFolder(self.run), STAGE, self.masks)

    def facts(self) -> dict[str, str]:
        """For the record of the run that is made of it."""
        names = ("run", "method", "salience", "masks", "revision")
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True)
class FolderSource:
    """A folder with a folder for each picture, named by its key, and in it a PNG for each proposal."""

    folder: str
    revision: str


@dataclass(frozen=True, kw_only=True)
class PinnedProposals(Pinned):
    """A CLIP's weights, and proposals as they are.

    Attributes:
        clip: revision of the weights alone.
    """

    clip: str
    source: RunSource | FolderSource

    @property
    def runs(self) -> tuple[dict[str, str], ...]:
        """The run that proposals are from."""
        return (self.source.facts(),) if isinstance(self.source, RunSource) else ()


def find_source(url: str) -> RunSource | FolderSource:
    """Name the proposals at a place as they are now.

    Raises:
        UsageError: there is neither a finished run nor a folder of masks.
        CorruptRunError: a record of the run is damaged.
    """
    run = RunFolder(url)
    if run.exists(RECORD):
        return _run_source(run)
    if not run.exists(""):
        raise UsageError(f"proposals '{url}' do not exist: name a finished run, or a folder with KEY/*.png")
    files = run.glob("*/*.png")
    if not files or run.exists("shards"):
        raise UsageError(f"proposals '{url}' hold no finished run ({RECORD}) and no masks (KEY/*.png)")
    return FolderSource(url, fingerprint([[file, sha256(run.get(file))] for file in files]))


def _run_source(run: RunFolder) -> RunSource:
    record = read_finished(run, _Record)
    shards, _ = finished_shards(run, StageFolder(run, STAGE, record.fingerprints.masks), "masks")
    return RunSource(
        run=run.url,
        method=record.config.method.name,
        card=record.card.name if record.card else OWN_IMAGES,
        salience=record.fingerprints.salience,
        masks=record.fingerprints.masks,
        shards=tuple(shards),
        revision=fingerprint(record.fingerprints.masks, shards),
    )


@lru_cache(maxsize=2)
def open_source(source: RunSource | FolderSource) -> Proposals:
    """Proposals by key; a process keeps what it knows of the last ones for the next shard.

    Raises:
        CorruptRunError: a table of a run is missing or damaged.
    """
    return RunProposals(source) if isinstance(source, RunSource) else FolderProposals(source)


class RunProposals:
    """Connected pieces of each class of a run's masks; which class it was plays no part."""

    def __init__(self, source: RunSource) -> None:
        self._run, folder = source.run, source.folder
        self._shards = {key: shard for shard in source.shards for key in _keys(folder, shard)}
        salience = StageFolder(folder.run, "salience", source.salience)
        self._set_aside = dict(set_aside(salience, source.shards))
        self._of_shard = lru_cache(maxsize=KEPT_SHARDS)(lambda shard: read_masks(folder, shard))
        self._reading = Lock()

    def of(self, key: str, size: tuple[int, int], least: float) -> Pieces:
        """See `Proposals`."""
        if key not in self._shards:
            reason = self._set_aside.get(key)
            why = f"has set it aside: {reason}" if reason else "does not know it"
            raise MissingProposals(f"no proposals: run '{self._run}' {why}")
        with self._reading:  # so that two threads do not read one file
            png = self._of_shard(self._shards[key])[key]
        labels = decode_label_map(png)
        _require_size(labels, size, f"run '{self._run}'")
        return apart(components(labels), least)


def _keys(folder: StageFolder, shard: str) -> list[str]:
    return folder.read_table(shard, "parquet", ["key"])["key"].to_pylist()


class FolderProposals:
    """Each PNG in the folder of a picture's key is a proposal, where it is not 0; they may overlap."""

    def __init__(self, source: FolderSource) -> None:
        self._files = Files(source.folder)

    def of(self, key: str, size: tuple[int, int], least: float) -> Pieces:
        """See `Proposals`."""
        names = self._files.glob(f"{key}/*.png")
        if not names:
            raise MissingProposals(f"no proposals: '{self._files.path(key)}' holds no PNG")
        return overlapping(self._masks(names, size), size, least)

    def _masks(self, names: list[str], size: tuple[int, int]) -> Iterator[Bool[np.ndarray, "H W"]]:
        for name in names:
            path = self._files.path(name)
            try:
                with Image.open(io.BytesIO(self._files.get(name)), formats=["PNG"]) as image:
                    mask = np.array(image) != 0
            except Exception as error:  # Pillow raises nearly anything of damaged pictures
                raise UnusableImage(f"proposal '{path}' is no mask: {in_words(error)}") from error
            if mask.ndim != 2:
                raise UnusableImage(f"proposal '{path}' is no mask: it has colours")
            _require_size(mask, size, f"'{path}'")
            yield mask


def _require_size(mask: np.ndarray, size: tuple[int, int], whose: str) -> None:
    if mask.shape != size:
        was, here = (f"{width}x{height}" for height, width in (mask.shape, size))
        raise MissingProposals(f"no proposals: {whose} is of another picture of that key, {was} pixels, not {here}")
