"""What is known of a corpus: one row per picture, and the pointers that name the newest rows."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from typing import Any

import pyarrow as pa

from pnp_core.errors import CorruptRunError, DamagedError
from pnp_core.storage.run_folder import RunFolder, table_bytes

LATEST, PROGRESS = "latest.json", "progress.json"
LABELLED, QUARANTINED, FAILED, WAITING = "labelled", "quarantined", "failed", "waiting"


@dataclass(frozen=True)
class ManifestRow:
    """A picture of the corpus, a row of the manifest.

    Attributes:
        source: its path below the corpus; empty in a table of contents.
        stamp: size and times when it was read; empty when it must be read again.
        sha256: of its bytes.
        status: `labelled`; `quarantined`: cannot be labelled; `failed`: its shard failed, it is tried again;
            `waiting`: it may still be written to.
        masks: file with its mask, relative to the output folder; the row with `key`.
        key: of its mask.
        reason: why it has no mask.
    """

    source: str
    stamp: str
    sha256: str
    status: str
    masks: str | None = None
    key: str | None = None
    reason: str | None = None


SCHEMA = pa.schema([(f.name, pa.string()) for f in fields(ManifestRow)])


@dataclass(frozen=True)
class Manifest:
    """What is known of a corpus after a run.

    Attributes:
        number: of the batch, from 1; 0 before the first.
        masks_fingerprint: of the settings that the masks are made with; `settings` in files.
        contents: of all pictures ever labelled or quarantined with these settings.
    """

    number: int
    corpus: str
    masks_fingerprint: str
    images: tuple[ManifestRow, ...] = ()
    contents: tuple[ManifestRow, ...] = ()

    @property
    def file(self) -> str:
        """Its place below the output folder."""
        return f"manifests/{self.number:06d}.parquet"

    def counts(self) -> dict[str, int]:
        """Pictures by status."""
        counts = Counter(image.status for image in self.images)
        return {status: counts[status] for status in (LABELLED, QUARANTINED, FAILED, WAITING)}


def read_pointer(out: RunFolder, file: str) -> dict[str, Any] | None:
    """What `latest.json` or `progress.json` says; None when it is not there.

    Raises:
        CorruptRunError: it is damaged.
    """
    if not out.exists(file):
        return None
    try:
        pointer = json.loads(out.read(file))
        return {name: pointer[name] for name in ("run", "source", "settings", "manifest")} | pointer
    except (ValueError, KeyError, TypeError) as error:
        raise DamagedError.at(out.path(file), f"it names no manifest ({error})") from error


def read_progress(out: RunFolder) -> Manifest | None:
    """The newest manifest, None before the first.

    Of damaged ones the one before is taken: what came after it is found again in its batches.

    Raises:
        CorruptRunError: nothing is left that names a manifest.
    """
    pointer = _whole_pointer(out)
    if pointer is None:
        # A first run that was killed leaves its manifest at most.
        if any(map(out.exists, (PROGRESS, LATEST))) or len(out.glob("manifests/*.parquet")) > 1:
            raise CorruptRunError(
                f"'{out.path(PROGRESS)}' is missing or damaged, and so is {LATEST}; restore one of them, or choose "
                f"another --out"
            )
        return None
    for number in range(pointer["run"], 0, -1):
        files = [f"{folder}/{number:06d}.parquet" for folder in ("manifests", "contents")]
        tables = [table for table in map(out.find_table, files) if table is not None]
        if len(tables) == len(files):
            images, contents = (tuple(ManifestRow(**row) for row in table.to_pylist()) for table in tables)
            masks_fingerprint = _masks_fingerprint_of(images, pointer["settings"])
            return Manifest(number, pointer["source"], masks_fingerprint, images, contents)
    return Manifest(0, pointer["source"], pointer["settings"])


def _masks_fingerprint_of(images: Iterable[ManifestRow], otherwise: str) -> str:
    """Fingerprint of the masks, which their folder is named by: a manifest before may be of other settings."""
    return next((image.masks.split("/")[3] for image in images if image.masks), otherwise)


def _whole_pointer(out: RunFolder) -> dict[str, Any] | None:
    """What names the newest manifest that can still be known."""
    for file in (PROGRESS, LATEST):
        with suppress(DamagedError):
            if pointer := read_pointer(out, file):
                return pointer
    return None


def rows_bytes(images: Iterable[ManifestRow]) -> bytes:
    """Rows as Parquet."""
    return table_bytes(pa.Table.from_pylist([asdict(image) for image in images], schema=SCHEMA))
