"""Finished runs that others are made from: what their records say, and which shards are whole."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from pnp_core.errors import DamagedError, UsageError
from pnp_core.storage.completion import DONE, CompletionRecord, StageFolder
from pnp_core.storage.run_folder import RunFolder
from pnp_core.storage.seals import sha256
from pnp_core.storage.shards import read_refs

RECORD = "run.json"
OWN_IMAGES = "folder"
"""The card of runs whose record has none."""


class Part(BaseModel):
    """A part of a record of which only this is read."""

    model_config = ConfigDict(frozen=True, extra="ignore")


Record = TypeVar("Record", bound=Part)


def read_finished(run: RunFolder, kind: type[Record]) -> Record:
    """What the record of a finished run says.

    Raises:
        UsageError: there is no finished run, or it is of another version.
        CorruptRunError: its record is damaged.
    """
    if not run.exists(RECORD):
        why = "holds no finished run" if run.exists("") else "does not exist"
        raise UsageError(f"run '{run.url}' {why}: `pnp-ovss eval` or `label` with --out {run.url} makes one")
    try:
        return kind.model_validate_json(run.read(RECORD))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise UsageError(
            f"run '{run.url}' is of another version ({place}: {first['msg']}); run the command that made it again"
        ) from error


def finished_shards(run: RunFolder, folder: StageFolder, what: str) -> tuple[dict[str, str], list[str]]:
    """Digests of a stage's completion records by shard, and the shards that were given up.

    Args:
        what: the stage makes, for people.

    Raises:
        UsageError: a shard is not done.
        DamagedError: a record is damaged.
    """
    done, given_up = {}, []
    for shard in read_refs(run):
        file = folder.file(shard.name, DONE)
        if (data := run.find(file)) is not None:
            if CompletionRecord.of(data) is None:
                raise DamagedError.at(run.path(file))
            done[shard.name] = sha256(data)
        elif folder.find_failed(shard.name):
            given_up.append(shard.name)
        else:
            raise UsageError(
                f"run '{run.url}' is not finished: shard {shard.name} has no {what}; run its command again"
            )
    return done, given_up


def set_aside(folder: StageFolder, shards: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """Keys of the pictures of some shards that a stage has set aside, and why."""
    for shard in shards:
        for image in folder.quarantined(shard):
            yield image.key, image.reason


def read_masks(folder: StageFolder, shard: str) -> dict[str, bytes]:
    """The palette PNGs of one shard of the masks stage, by key, in the shard's order."""
    table = folder.read_table(shard, "parquet", ["key", "mask"])
    pngs = table["mask"].combine_chunks().field("bytes")
    return dict(zip(table["key"].to_pylist(), pngs.to_pylist(), strict=True))
