"""What is known of a corpus: one row per picture, and the pointers that name the newest rows."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, fields, replace
from typing import Any

import pyarrow as pa

from pnp_core.errors import CorruptRunError, DamagedError
from pnp_core.storage.run_folder import RunFolder, table_bytes

LATEST, PROGRESS = "latest.json", "progress.json"
LABELLED, QUARANTINED, FAILED, WAITING = "labelled", "quarantined", "failed", "waiting"
GONE = "gone"
"""In changes alone: the picture is in the corpus no more."""


@dataclass(frozen=True, slots=True)
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


def rows_bytes(rows: Iterable[ManifestRow]) -> bytes:
    """Rows as Parquet."""
    rows = list(rows)
    columns = {name: [getattr(row, name) for row in rows] for name in SCHEMA.names}
    return table_bytes(pa.table(columns, schema=SCHEMA))


def rows_of(table: pa.Table) -> list[ManifestRow]:
    """Rows of Parquet."""
    return [ManifestRow(*row) for row in zip(*(table[name].to_pylist() for name in SCHEMA.names), strict=True)]


@dataclass(frozen=True)
class Manifest:
    """What is known of a corpus after a batch.

    It is written whole now and then; between, what a batch has changed is written, so that all batches of a run
    together write little more than twice the last manifest.

    Attributes:
        number: of the batch, from 1; 0 before the first.
        masks_fingerprint: of the settings that the masks are made with; `settings` in files.
        images: by source.
        contents: all images ever labelled or quarantined with these settings, by digest.
        whole: number of the manifest that was written whole; what came after it lies in `changes`.
        changed: rows of those changes.
    """

    number: int
    corpus: str
    masks_fingerprint: str
    images: Mapping[str, ManifestRow] = field(default_factory=dict)
    contents: Mapping[str, ManifestRow] = field(default_factory=dict)
    whole: int = 0
    changed: int = 0

    @property
    def file(self) -> str:
        """Place of the whole one below the output folder."""
        return whole_files(self.whole)[0]

    @property
    def is_whole(self) -> bool:
        """Whether it is written whole."""
        return 0 < self.number == self.whole

    def counts(self) -> dict[str, int]:
        """Pictures by status."""
        counts = Counter(image.status for image in self.images.values())
        return {status: counts[status] for status in (LABELLED, QUARANTINED, FAILED, WAITING)}

    def after(self, number: int, changes: Iterable[ManifestRow]) -> Manifest:
        """The manifest after a batch that changed some rows."""
        images, contents, changed = dict(self.images), dict(self.contents), self.changed
        for row in changes:
            changed += 1
            if row.status == GONE:
                images.pop(row.source, None)
                continue
            images[row.source] = row
            if row.status in (LABELLED, QUARANTINED) and row.sha256 not in contents:
                contents[row.sha256] = replace(row, source="", stamp="")
        return replace(self, number=number, images=images, contents=contents, changed=changed)

    def due(self) -> bool:
        """Whether there are as many changes as rows that they change, so that it is time to write it whole."""
        return 2 * self.changed >= len(self.images)

    def write(self, out: RunFolder) -> Manifest:
        """Write it whole; returns it as it is then."""
        rows = sorted(self.images.values(), key=lambda row: row.source), self.contents.values()
        for file, of_file in zip(whole_files(self.number), rows, strict=True):
            out.write(file, rows_bytes(of_file))
        return replace(self, whole=self.number, changed=0)


def whole_files(number: int) -> tuple[str, str]:
    """Places of a whole manifest: of its images, and of its contents."""
    return f"manifests/{number:06d}.parquet", f"contents/{number:06d}.parquet"


def changes_file(number: int) -> str:
    """Place of what a batch has changed, where the manifest after it is not written whole."""
    return f"changes/{number:06d}.parquet"


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
    pointer = whole_pointer(out)
    if pointer is None:
        # A first run that was killed leaves its manifest at most.
        if any(map(out.exists, (PROGRESS, LATEST))) or len(out.glob("manifests/*.parquet")) > 1:
            raise CorruptRunError(
                f"'{out.path(PROGRESS)}' is missing or damaged, and so is {LATEST}; restore one of them, or choose "
                f"another --out"
            )
        return None
    manifest = _newest_whole(out, pointer)
    for number in range(manifest.number + 1, pointer["run"] + 1):
        table = out.find_table(changes_file(number))
        if table is None:
            break
        manifest = manifest.after(number, rows_of(table))
    return manifest


def _newest_whole(out: RunFolder, pointer: dict[str, Any]) -> Manifest:
    for number in range(pointer["run"], 0, -1):
        tables = [table for table in map(out.find_table, whole_files(number)) if table is not None]
        if len(tables) == 2:
            images, contents = map(rows_of, tables)
            fingerprint = _masks_fingerprint_of(images, pointer["settings"])
            by_source, by_digest = {row.source: row for row in images}, {row.sha256: row for row in contents}
            return Manifest(number, pointer["source"], fingerprint, by_source, by_digest, number)
    return Manifest(0, pointer["source"], pointer["settings"])


def _masks_fingerprint_of(images: Iterable[ManifestRow], otherwise: str) -> str:
    """Fingerprint of the masks, which their folder is named by: a manifest before may be of other settings."""
    return next((image.masks.split("/")[3] for image in images if image.masks), otherwise)


def whole_pointer(out: RunFolder) -> dict[str, Any] | None:
    """What names the newest manifest that can still be known; None where there is none."""
    for file in (PROGRESS, LATEST):
        with suppress(DamagedError):
            if pointer := read_pointer(out, file):
                return pointer
    return None
