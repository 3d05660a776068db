"""Completion records: what a stage has made of a shard, and whether it is whole.

A stage is complete for a shard when its ``.done.json`` exists, names the input it was made from, and every output has
the digest that stands in it; it is written last. That alone decides what a repeated command does again.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import permutations
from time import monotonic
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image
from pydantic import BaseModel, ConfigDict, NonNegativeInt, ValidationError

from pnp_core.data import Quarantined, StageResult
from pnp_core.errors import DamagedError, ForeignFilesError
from pnp_core.storage.files import Files
from pnp_core.storage.first_bytes import FORMATS
from pnp_core.storage.ledger import claim_folders, stays_inside
from pnp_core.storage.run_folder import RunFolder, table_bytes, table_of
from pnp_core.storage.seals import SEAL, parsed, sealed, sha256, unsealed

_MAX_TENSOR_HEADER = 100_000_000  # bytes, as the format allows
_TENSOR_TYPES = {"F16": np.float16, "F32": np.float32, "U8": np.uint8}
QUARANTINE_SCHEMA = pa.schema([(name, pa.string()) for name in ("key", "source", "stage", "reason")])
QUARANTINE = "quarantine"
DONE, FAILED = "done.json", "failed.json"
OUTPUTS = ("safetensors", "parquet", "pictures.parquet")
"""Endings of what a stage writes of a shard under the shard's name."""


@dataclass(frozen=True)
class StageOutput:
    """What a stage made of one shard: files by extension, pictures done, pictures set aside.

    Attributes:
        files: extension -> content of ``<stage>/<fingerprint>/<shard>.<extension>``.
        extra: run-folder path -> content, for files in the stage's folder that carry another name.
    """

    files: dict[str, bytes]
    done: int
    quarantined: list[Quarantined] = field(default_factory=list)
    extra: dict[str, bytes] = field(default_factory=dict)


class CompletionRecord(BaseModel):
    """What a stage has made of a shard, and of what.

    Attributes:
        input: identity of what was read.
        outputs: relative path -> bytes.
        digests: relative path -> sha256; empty in records of a version that kept one digest of them all.
        sha256: that one digest.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    stage: str
    fingerprint: str
    input: str
    outputs: dict[str, NonNegativeInt]
    digests: dict[str, str] = {}
    sha256: str = ""
    done: NonNegativeInt
    quarantined: NonNegativeInt

    @classmethod
    def of(cls, data: bytes) -> CompletionRecord | None:
        """The record in some bytes; None when it is damaged."""
        value = parsed(data)
        if value is not None and SEAL in value:
            value = unsealed(data)
        try:
            record = None if value is None else cls.model_validate(value)
        except ValidationError:
            return None
        if record is None or not all(map(stays_inside, record.outputs)):
            return None
        known = record.digests.keys() == record.outputs.keys() if record.digests else record.sha256
        return record if known or not record.outputs else None

    def as_bytes(self) -> bytes:
        """The record as it is stored."""
        return sealed(self.model_dump(exclude_defaults=True))

    def damaged(self, run: Files, content: bool = True) -> str | None:
        """An output that is missing or has other content than was written; None when all are whole.

        Args:
            content: read them; otherwise their sizes must do.
        """
        if not content:
            return next((path for path, size in self.outputs.items() if run.size(path) != size), None)
        actual: dict[str, str] = {}
        for path, size in self.outputs.items():
            data = run.find(path)
            if data is None or len(data) != size:
                return path
            actual[path] = sha256(data)
            if self.digests and self.digests[path] != actual[path]:
                return path
        # A version before kept one digest over those of all files, in the order in which they were made.
        if not self.digests and self.sha256 and len(actual) <= _FEW:
            orders = permutations(actual.values())
            if not any(sha256("".join(order).encode()) == self.sha256 for order in orders):
                return next(iter(actual), None)
        return None


_FEW = 5
_VERIFIED: dict[str, str] = {}
"""Of large files that are read in parts: path -> digest that was checked in this process."""


@dataclass(frozen=True)
class StageFolder:
    """One stage under one fingerprint in a run folder."""

    run: RunFolder
    stage: str
    fingerprint: str

    @property
    def place(self) -> str:
        """Its folder, relative to the run folder."""
        return f"{self.stage}/{self.fingerprint}"

    @property
    def has_results(self) -> bool:
        """Whether a shard has ever been through."""
        return bool(self.run.glob(self.file("*", "done.json")))

    def recorded(self) -> set[str]:
        """Shards that have been through, by one look at the folder; whether they are whole is not looked at."""
        paths = self.run.glob(self.file("*", DONE))
        return {path.rpartition("/")[2].removesuffix(f".{DONE}") for path in paths}

    def file(self, shard: str, extension: str) -> str:
        """Path of a shard's artifact, relative to the run folder."""
        return f"{self.place}/{shard}.{extension}"

    def quarantine_file(self, shard: str) -> str:
        """Path of a shard's quarantine table, relative to the run folder."""
        return f"{QUARANTINE}/{self.place}/{shard}.parquet"

    def claim(self) -> None:
        """Make the folder ours.

        Raises:
            ForeignFilesError: somebody else has put files into it.
        """
        claim_folders(self.run, [self.place, f"{QUARANTINE}/{self.place}"])

    def complete(self, shard: str, input_sha256: str, work: Callable[[], StageOutput]) -> StageResult:
        """Do the work for one shard unless its completion record says it is done.

        Args:
            input_sha256: identity of what the work reads; another value makes it run again.
            work: computes the outputs; called at most once, and never when the shard is complete.
        """
        start = monotonic()
        damage = self.damage(shard, input_sha256)
        if not damage and (finished := self._found(shard, input_sha256, start)):
            return finished
        self.claim()
        self.try_again(shard)
        output = work()
        files = {self.file(shard, extension): data for extension, data in output.files.items()}
        files |= output.extra
        if output.quarantined:
            files[self.quarantine_file(shard)] = _quarantine_bytes(output.quarantined)
        self._check_extra(shard, output.extra)
        self._remove_other_outputs(shard, files.keys())
        for relative, data in files.items():
            self.run.put(relative, data)
        record = CompletionRecord(
            stage=self.stage,
            fingerprint=self.fingerprint,
            input=input_sha256,
            outputs={relative: len(data) for relative, data in files.items()},
            digests={relative: sha256(data) for relative, data in files.items()},
            done=output.done,
            quarantined=len(output.quarantined),
        )
        data = record.as_bytes()
        self.run.put(self.file(shard, DONE), data)
        # Another process may have given the shard up meanwhile.
        self.run.delete(self.file(shard, FAILED))
        return self._result(shard, record, data, start, mended=damage)

    def _check_extra(self, shard: str, extra: dict[str, bytes]) -> None:
        """Files whose names come from data may be in the way of somebody's, or have been mended by hand.

        Raises:
            ForeignFilesError: one is there that is neither what is to be written, nor what was, nor a damaged picture.
        """
        record = self.record(shard)
        digests = record.digests if record else {}
        for path, data in extra.items():
            present = self.run.find(path)
            if present in (None, data) or sha256(present) == digests.get(path):
                continue
            if path not in digests or _is_whole_image(present):
                raise ForeignFilesError.at(self.run.path(path))

    def _remove_other_outputs(self, shard: str, files: Any) -> None:
        """Delete what was made of this shard before and is not made now."""
        for path in {*self._outputs(shard), self.quarantine_file(shard)} - set(files):
            self.run.delete(path)

    def _outputs(self, shard: str) -> set[str]:
        """Names of what was made of a shard, or was begun."""
        record = self.record(shard)
        known = set(record.outputs) if record else set()
        return known | {self.file(shard, extension) for extension in OUTPUTS}

    def discard(self, shard: str) -> None:
        """Delete all that was made of a shard, or was begun."""
        for path in (*self._outputs(shard), self.quarantine_file(shard), self.file(shard, FAILED)):
            self.run.delete(path)
        self.run.delete(self.file(shard, DONE))

    def record(self, shard: str) -> CompletionRecord | None:
        """The completion record of a shard; None when there is none, or it is damaged."""
        record = CompletionRecord.of(self.run.find(self.file(shard, DONE)) or b"")
        return record if record and (record.stage, record.fingerprint) == (self.stage, self.fingerprint) else None

    def record_sha256(self, shard: str) -> str:
        """Digest of a shard's completion record as it is stored, of nothing where there is none."""
        return sha256(self.run.find(self.file(shard, DONE)) or b"")

    def damage(self, shard: str, input_sha256: str | None = None) -> str:
        """A file of a complete shard that is no longer whole, and has to be made again; empty when there is none.

        Args:
            input_sha256: what the work reads now; a shard that was made of something else is not complete.
        """
        name = self.file(shard, DONE)
        data = self.run.find(name)
        if data is None:
            return ""
        record = self.record(shard)
        if record is None:
            return name
        if input_sha256 is not None and record.input != input_sha256:
            return ""
        return record.damaged(self.run) or ""

    def find(self, shard: str, input_sha256: str) -> StageResult | None:
        """What the completion record of a shard says; None when the work is still to be done, or to be done again."""
        start = monotonic()
        return None if self.damage(shard, input_sha256) else self._found(shard, input_sha256, start)

    def _found(self, shard: str, input_sha256: str, start: float) -> StageResult | None:
        data = self.run.find(self.file(shard, DONE))
        record = CompletionRecord.of(data or b"")
        if data is None or record is None or record.input != input_sha256:
            return None
        return self._result(shard, record, data, start, resumed=True)

    def read(self, shard: str, extension: str) -> bytes:
        """Content of a shard's artifact.

        Raises:
            CorruptRunError: it is missing, or there is no completion record.
            DamagedError: it has other content than was written.
        """
        return self._whole(self.file(shard, extension), shard)

    def _whole(self, path: str, shard: str) -> bytes:
        data, record = self.run.get(path), self.record(shard)
        if record is None or path not in record.outputs:
            raise DamagedError.at(self.run.path(path), f"shard {shard} has no completion record that lists it")
        digest = record.digests.get(path)
        damaged = sha256(data) != digest if digest else bool(record.damaged(self.run))
        if len(data) != record.outputs[path] or damaged:
            raise DamagedError.at(self.run.path(path), f"shard {shard} was written with other content")
        return data

    def read_table(self, shard: str, extension: str, columns: list[str] | None = None) -> pa.Table:
        """A shard's table; all its columns unless some are named.

        Raises:
            CorruptRunError: it is missing or damaged.
        """
        return table_of(self.read(shard, extension), columns)

    def read_tensor(self, shard: str, name: str) -> np.ndarray:
        """One tensor of a shard's safetensors file, of which the rest is read once in a process, to check it.

        Raises:
            CorruptRunError: the file or the tensor is missing or damaged.
        """
        path = self.file(shard, "safetensors")
        record = self.record(shard)
        digest = "" if record is None else record.digests.get(path, "")
        if _VERIFIED.get(self.run.path(path)) != digest or not digest:
            self.read(shard, "safetensors")
            _VERIFIED[self.run.path(path)] = digest
        return tensor_of(self.run, path, name)

    def quarantined(self, shard: str) -> list[Quarantined]:
        """The pictures of a shard that were set aside, by the stage or with the shard.

        Raises:
            CorruptRunError: their table is damaged.
        """
        path = self.quarantine_file(shard)
        if not self.run.exists(path):
            return []
        given_up = self.run.find(self.file(shard, FAILED))
        if given_up is None:
            record = self.record(shard)
            # What was begun and has no record yet counts for nothing.
            data = self._whole(path, shard) if record and path in record.outputs else None
        else:
            data = self._given_up(shard, given_up)
        return [] if data is None else [Quarantined(**row) for row in table_of(data).to_pylist()]

    def _given_up(self, shard: str, record: bytes) -> bytes:
        data = self.run.get(self.quarantine_file(shard))
        value = unsealed(record) or {}
        if "sha256" in value and value["sha256"] != sha256(data):
            raise DamagedError.at(self.run.path(self.quarantine_file(shard)))
        return data

    def mark_failed(self, shard: str, images: list[Quarantined]) -> StageResult:
        """Set all pictures of a shard aside. There is no completion record: the next run tries it again."""
        self.claim()
        data = _quarantine_bytes(images)
        self.run.put(self.quarantine_file(shard), data)
        self.run.put(self.file(shard, FAILED), sealed({"quarantined": len(images), "sha256": sha256(data)}))
        return self._failed(shard, len(images))

    def find_failed(self, shard: str) -> StageResult | None:
        """What is known of a shard that was given up; None when it was not."""
        data = self.run.find(self.file(shard, FAILED))
        if data is None:
            return None
        number = (parsed(data) or {}).get("quarantined")
        return self._failed(shard, number if isinstance(number, int) else 0)

    def try_again(self, shard: str) -> None:
        """Forget that a shard was given up."""
        if self.run.exists(self.file(shard, FAILED)):
            self.run.delete(self.quarantine_file(shard))
            self.run.delete(self.file(shard, FAILED))

    def _failed(self, shard: str, images: int) -> StageResult:
        return StageResult(self.stage, shard, 0, images, "", resumed=False, failed=True)

    def _result(
        self, shard: str, record: CompletionRecord, data: bytes, start: float, resumed: bool = False, mended: str = ""
    ) -> StageResult:
        return StageResult(
            stage=self.stage,
            shard=shard,
            done=record.done,
            quarantined=record.quarantined,
            record_sha256=sha256(data),
            resumed=resumed,
            seconds=monotonic() - start,
            mended=mended,
        )


def tensor_of(run: Files, path: str, name: str) -> np.ndarray:
    """A tensor of a safetensors file; of the rest only the header is read."""
    length = int.from_bytes(run.get_part(path, 0, 8), "little")
    header = parsed(run.get_part(path, 8, 8 + length)) if length <= _MAX_TENSOR_HEADER else None
    if header is None or name not in header:
        raise DamagedError.at(run.path(path), f"it is no safetensors file with a tensor '{name}'")
    first, last = (8 + length + offset for offset in header[name]["data_offsets"])
    part = run.get_part(path, first, last)
    if len(part) != last - first:
        raise DamagedError.at(run.path(path), "it is cut short")
    return np.frombuffer(part, _TENSOR_TYPES[header[name]["dtype"]]).reshape(header[name]["shape"])


def _quarantine_bytes(images: list[Quarantined]) -> bytes:
    return table_bytes(pa.Table.from_pylist([vars(image) for image in images], schema=QUARANTINE_SCHEMA))


def _is_whole_image(data: bytes) -> bool:
    """Whether bytes are a picture none of whose parts is damaged, as far as its format tells (PNG does)."""
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            image.verify()
    except Exception:  # Pillow's plugins raise nearly anything
        return False
    return True
