"""What is known of a corpus: one row per picture, and the pointers that name the newest rows."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from typing import Any

import pyarrow as pa

from pnp_core.errors import CorruptRunError
from pnp_core.store import RunFolder, table_bytes

LATEST, PROGRESS = "latest.json", "progress.json"
LABELLED, QUARANTINED, FAILED, WAITING = "labelled", "quarantined", "failed", "waiting"


@dataclass(frozen=True)
class Picture:
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


SCHEMA = pa.schema([(f.name, pa.string()) for f in fields(Picture)])


@dataclass(frozen=True)
class Manifest:
    """What is known of a corpus after a run.

    Attributes:
        number: of the batch, from 1; 0 before the first.
        settings: fingerprint of the masks.
        contents: of all pictures ever labelled or quarantined with these settings.
    """

    number: int
    corpus: str
    settings: str
    pictures: tuple[Picture, ...] = ()
    contents: tuple[Picture, ...] = ()

    @property
    def file(self) -> str:
        """Its place below the output folder."""
        return f"manifests/{self.number:06d}.parquet"

    def counts(self) -> dict[str, int]:
        """Pictures by status."""
        counts = Counter(picture.status for picture in self.pictures)
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
        raise CorruptRunError(f"'{out.path(file)}' is damaged ({error}); restore it or choose another --out") from error


def read_progress(out: RunFolder) -> Manifest | None:
    """The newest manifest, None before the first.

    Raises:
        CorruptRunError: it is named but not there, or damaged.
    """
    pointer = read_pointer(out, PROGRESS)
    if pointer is None:
        # A first run that was killed leaves its manifest at most.
        if out.exists(LATEST) or len(out.glob("manifests/*.parquet")) > 1:
            raise CorruptRunError(f"'{out.path(PROGRESS)}' is missing; restore it or choose another --out")
        return None
    tables = (f"{folder}/{pointer['run']:06d}.parquet" for folder in ("manifests", "contents"))
    pictures, contents = (tuple(Picture(**row) for row in out.read_table(file).to_pylist()) for file in tables)
    return Manifest(pointer["run"], pointer["source"], pointer["settings"], pictures, contents)


def rows_bytes(pictures: Iterable[Picture]) -> bytes:
    """Rows as Parquet."""
    return table_bytes(pa.Table.from_pylist([asdict(picture) for picture in pictures], schema=SCHEMA))
