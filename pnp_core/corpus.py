"""Labelling a corpus that grows: only what is new or changed, published as one manifest.

Layout of the output folder::

    latest.json                   names the manifest for readers; replaced in one step, last of all
    progress.json                 names the newest manifest; another one while new settings are being worked through
    manifests/000003.parquet      one row per picture of the corpus; never changed
    contents/000003.parquet       one row per content ever labelled with these settings
    batches/000003/               what that run labelled: a run folder; never changed once published

A picture is told from others by its content. A file that was touched, moved, copied or was away for a while is not
labelled again; one whose stamp (size and times) changed is read again. So a reader of `latest.json` always sees a
whole generation, whatever the next run is doing.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields, replace
from itertools import chain, repeat
from time import time
from typing import Any

import pyarrow as pa
from filelock import FileLock, Timeout
from fsspec.implementations.local import LocalFileSystem

from pnp_core.config import CorpusConfig
from pnp_core.errors import CorruptRunError, OutputError, SourceError
from pnp_core.plan import Plan, check_own_pictures, plan_label
from pnp_core.records import RunSummary, Sample, ShardRef, Summary
from pnp_core.shards import read_index, write_shards
from pnp_core.sources.base import NotReadError
from pnp_core.sources.folder import FileSeen, GrowingFolder
from pnp_core.sources.keys import printable, safe_ending, safe_key, split_ending
from pnp_core.store import RunFolder, sha256, table_bytes

LATEST, PROGRESS = "latest.json", "progress.json"
LABELLED, QUARANTINED, FAILED, WAITING = "labelled", "quarantined", "failed", "waiting"
_PENDING = "in this batch"
_COLLECTED = "collected.parquet"


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


def _read_pointer(out: RunFolder, file: str) -> dict[str, Any] | None:
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
    pointer = _read_pointer(out, PROGRESS)
    if pointer is None:
        # A first run that was killed leaves its manifest at most.
        if out.exists(LATEST) or len(out.glob("manifests/*.parquet")) > 1:
            raise CorruptRunError(f"'{out.path(PROGRESS)}' is missing; restore it or choose another --out")
        return None
    tables = (f"{folder}/{pointer['run']:06d}.parquet" for folder in ("manifests", "contents"))
    pictures, contents = (tuple(Picture(**row) for row in out.read_table(file).to_pylist()) for file in tables)
    return Manifest(pointer["run"], pointer["source"], pointer["settings"], pictures, contents)


@contextmanager
def only_writer(out: RunFolder) -> Iterator[None]:
    """Keep a second run of this machine out of a folder; on other file systems there is no such lock.

    Raises:
        OutputError: one is at work.
    """
    if not isinstance(out.fs, LocalFileSystem):
        yield
        return
    out.check_writable()
    try:
        with FileLock(out.path(".lock"), timeout=0):
            yield
    except Timeout as error:
        raise OutputError(
            f"another run is at work in '{out.url}'; the same command continues when it has ended"
        ) from error


@dataclass
class Sorting:
    """The files of a corpus beside what is known of them.

    Attributes:
        known: pictures that are as they were.
        suspects: files that are new or may have changed, and what was known of them.
        waiting: files that may still be written to.
    """

    known: list[Picture] = field(default_factory=list)
    suspects: list[tuple[FileSeen, Picture | None]] = field(default_factory=list)
    waiting: list[Picture] = field(default_factory=list)


def sort_out(files: Iterable[FileSeen], before: Manifest, now: float, settle: float, retry: bool) -> Sorting:
    """Tell new and changed files from those that are known.

    Args:
        now: seconds since the epoch, by the clock that stamps the files, after they were listed.
        settle: seconds a file must have been left alone; one from the future must be as far off.
        retry: try pictures again whose shard failed.
    """
    known = {picture.source: picture for picture in before.pictures}
    finished = (LABELLED, QUARANTINED) if retry else (LABELLED, QUARANTINED, FAILED)
    sorting = Sorting()
    for file in files:
        picture = known.get(printable(file.name))
        if picture and picture.stamp == file.stamp and picture.status in finished:
            sorting.known.append(picture)
        elif file.changed is not None and abs(now - file.changed) < settle:
            sorting.waiting.append(_waiting(printable(file.name)))
        else:
            sorting.suspects.append((file, picture))
    return sorting


def _waiting(name: str) -> Picture:
    return Picture(name, "", "", WAITING, reason="may still be written to")


class Corpus:
    """A corpus, its output folder, and what the last run has left."""

    def __init__(self, config: CorpusConfig, plan: Plan) -> None:
        """Read the newest manifest.

        Args:
            plan: of any output folder; its fingerprints name the settings.

        Raises:
            OutputError: the folder holds the labels of another corpus.
        """
        self.config, self.out = config, RunFolder(config.out)
        self.settings = plan.masks.fingerprint
        self.folder = GrowingFolder.of(config.source)
        self.ignored: Counter[str] = Counter()
        newest = read_progress(self.out)
        if newest and newest.corpus != self.folder.identity:
            raise OutputError(
                f"'{self.out.url}' holds labels of {newest.corpus}, not of {self.folder.identity}; choose another --out"
            )
        self.newest = newest or Manifest(0, self.folder.identity, self.settings)
        # Masks of other settings do not go together: with new settings all is labelled again.
        same = self.newest.settings == self.settings
        self.before = self.newest if same else replace(self.newest, settings=self.settings, pictures=(), contents=())

    @property
    def number(self) -> int:
        """Of the next batch."""
        return self.newest.number + 1

    def batch(self, number: int) -> RunFolder:
        """Where a batch is labelled."""
        return RunFolder(f"{self.config.out.rstrip('/')}/batches/{number:06d}")

    def plan(self) -> Plan:
        """The jobs for the next batch."""
        return plan_label(self.config.model_copy(update={"out": self.batch(self.number).url}))

    def collect(self, retry: bool) -> tuple[list[ShardRef], bool]:
        """Read what is new or changed, and shard it; or take up what a run that was killed has sharded.

        The rows of the next manifest are kept aside, still without results for what is in the shards.

        Args:
            retry: as for `sort_out`.

        Returns:
            The shards, none when nothing is to be labelled; and whether there may be more for another batch.

        Raises:
            SourceError: nothing is left of a corpus that held pictures.
        """
        digest = f"{self.settings}/{self.config.images_per_shard}"
        identity = f"batch {self.number} of {self.folder.identity}"
        batch = self.batch(self.number)
        if (shards := read_index(batch, identity, digest)) is not None:
            return shards, True
        files = self.folder.files(self.config.out, self.ignored)
        if not files and self.newest.pictures and not self.config.allow_empty:
            raise SourceError(
                f"no pictures in '{self.folder.identity}', where there were {len(self.newest.pictures)}: is it "
                f"mounted? When they are gone for good: allow_empty: true in --config"
            )
        reading = _Reading(self, sort_out(files, self.before, time(), self.config.settle, retry))
        samples = reading.samples()
        first = next(samples, None)
        if first is None:
            reading.save(self.out)
            return [], False
        sizes = repeat(self.config.images_per_shard)
        # The rows are saved when the last sample is read, which is before the shards count.
        return write_shards(
            batch, _saved(chain([first], samples), reading, batch), sizes, identity, digest
        ), reading.full

    def publish(self, number: int, shards: list[ShardRef], plan: Plan, more: bool) -> str:
        """Make what became of the collected pictures the newest manifest, and that the latest for readers.

        With new settings readers are given nothing before all pictures were worked through.

        Args:
            number: of the batch. Publishing it again changes nothing.
            more: there may be another batch.

        Returns:
            The manifest's place below the output folder.
        """
        manifest = self.newest
        if manifest.number < number:
            manifest = self._next_manifest(number, shards, plan)
        pointer = {
            "run": manifest.number,
            "source": manifest.corpus,
            "settings": manifest.settings,
            "manifest": manifest.file,
            "classes": ["background", *plan.masks.class_names],
            "pictures": len(manifest.pictures),
            **manifest.counts(),
        }
        if manifest is not self.newest:
            self.out.write(manifest.file, _rows(manifest.pictures))
            self.out.write(f"contents/{manifest.number:06d}.parquet", _rows(manifest.contents))
            self.out.write_json(PROGRESS, pointer)
        latest = _read_pointer(self.out, LATEST)
        if not more or latest is None or latest["settings"] == self.settings:
            self.out.write_json(LATEST, pointer)
        return manifest.file

    def _next_manifest(self, number: int, shards: list[ShardRef], plan: Plan) -> Manifest:
        """The newest one, when nothing was labelled and nothing has changed."""
        results: dict[str, Picture] = {}
        for shard in shards:
            results |= self._results(number, shard, plan)
        place = self.batch(number) if shards else self.out
        collected = [Picture(**row) for row in place.read_table(_COLLECTED).to_pylist()]
        pictures = tuple(sorted((_filled(p, results) for p in collected), key=lambda picture: picture.source))
        same = (self.newest.settings, self.newest.pictures) == (self.settings, pictures)
        if self.newest.number and same and not shards:
            return self.newest
        contents = {picture.sha256: picture for picture in self.before.contents}
        for picture in pictures:
            if picture.status in (LABELLED, QUARANTINED):
                contents.setdefault(picture.sha256, replace(picture, source="", stamp=""))
        return Manifest(number, self.folder.identity, self.settings, pictures, tuple(contents.values()))

    def _results(self, number: int, shard: ShardRef, plan: Plan) -> dict[str, Picture]:
        """By key: what became of a shard's pictures."""
        found: dict[str, Picture] = {}
        batch = self.batch(number)
        for folder in (plan.salience.folder, plan.masks.folder):
            status = FAILED if folder.find_failed(shard.name) else QUARANTINED
            if batch.exists(folder.quarantine_file(shard.name)):
                for row in batch.read_table(folder.quarantine_file(shard.name)).to_pylist():
                    found[row["key"]] = Picture("", "", "", status, reason=row["reason"])
        file = plan.masks.folder.file(shard.name, "parquet")
        if batch.exists(file) and not plan.masks.folder.find_failed(shard.name):
            for key in batch.read_table(file)["key"].to_pylist():
                found[key] = Picture("", "", "", LABELLED, f"batches/{number:06d}/{file}")
        return found


@dataclass
class CorpusSummary(Summary):
    """What a run over a corpus has to say at its end; `images` are those that were labelled or tried in it."""

    labelled: int = 0
    failed: int = 0
    waiting: int = 0
    deleted: int = 0
    ignored: int = 0
    """Files passed over because they are no pictures."""
    pictures: int = 0
    """In the corpus now."""
    manifest: str = ""

    def count(self, batch: RunSummary) -> None:
        """Count a batch in."""
        for name in ("images", "labelled", "failed", "quarantined"):
            setattr(self, name, getattr(self, name) + getattr(batch, name))
        self.reasons = dict((Counter(self.reasons) + Counter(batch.reasons)).most_common())
        for name, stage in batch.stages.items():
            self.stages[name] = self.stages[name] + stage if name in self.stages else stage

    def compare(self, before: Manifest, now: Manifest) -> None:
        """Count what changed between the manifest the run found and the one it leaves."""
        gone = {picture.source for picture in before.pictures} - {picture.source for picture in now.pictures}
        self.deleted, self.pictures, self.manifest = len(gone), len(now.pictures), now.file if now.number else ""
        self.waiting = now.counts()[WAITING]

    def as_json(self) -> dict[str, Any]:
        """The object that `--json` prints."""
        names = (
            "images",
            "labelled",
            "quarantined",
            "failed",
            "waiting",
            "deleted",
            "ignored",
            "pictures",
            "out",
            "manifest",
        )
        return {**{name: getattr(self, name) for name in names}, **self.stages_json(), "reasons": self.reasons}

    def markdown(self) -> str:
        """The counts as a table."""
        counts = {
            "labelled now": self.labelled,
            "quarantined now": self.quarantined,
            "failed, to be tried again": self.failed,
            "still being written, waiting": self.waiting,
            "deleted since the last run": self.deleted,
            "in the corpus": self.pictures,
            "files passed over, no pictures": self.ignored,
        }
        rows = "\n".join(f"| {name} | {number} |" for name, number in counts.items())
        return f"## Corpus\n\n| pictures | |\n|---|---|\n{rows}\n\nManifest: `{self.manifest}`\n"


def check_corpus(config: CorpusConfig) -> list[str]:
    """Find what is wrong with a run before anything is started.

    Returns:
        Warnings for the user.

    Raises:
        PnpError: as `plan_label`; or no such folder, or the output folder is of another corpus or cannot be written.
    """
    plan = plan_label(config)
    Corpus(config, plan)
    return check_own_pictures(config, plan)


class _Reading:
    """Reads suspects one by one: what has new content becomes a sample."""

    def __init__(self, corpus: Corpus, sorting: Sorting) -> None:
        self._corpus, self._sorting = corpus, sorting
        self._rows: list[Picture] = []
        self._contents = {picture.sha256: picture for picture in corpus.before.contents}
        self.full = False

    def samples(self) -> Iterator[Sample]:
        """The pictures to label; at most as many as fit a batch."""
        taken = 0
        for suspect, known in self._sorting.suspects:
            if taken == self._corpus.config.images_per_batch:
                self.full = True
                # It keeps what is known of it until it is its turn.
                self._rows += [replace(known, stamp="")] if known else []
            elif sample := self._read(suspect, known):
                taken += 1
                yield sample

    def _read(self, suspect: FileSeen, known: Picture | None) -> Sample | None:
        file, name, stamp = self._corpus.folder.file(suspect.name), printable(suspect.name), suspect.stamp
        try:
            data, fault = file.read(), None
        except NotReadError as error:  # it may be of a moment, so the next run reads it again
            data, fault, stamp = b"", str(error), ""
        if fault and known and known.status == LABELLED:
            self._rows.append(replace(known, stamp=""))
            return None
        if not fault and not self._corpus.folder.stable(suspect, len(data)):
            self._rows.append(_waiting(name))
            return None
        content = sha256(f"{name}\0{fault}".encode() if fault else data)
        if same := self._contents.get(content):
            self._rows.append(replace(same, source=name, stamp=stamp))
            return None
        key = f"{safe_key(split_ending(suspect.name)[0])[:100]}-{content[:16]}"
        picture = Picture(name, stamp, content, _PENDING, key=key)
        self._contents[content] = picture
        self._rows.append(picture)
        return Sample(key, data, safe_ending(suspect.name), name, fault=fault)

    def save(self, place: RunFolder) -> None:
        """Write the rows down."""
        place.write(_COLLECTED, _rows([*self._sorting.known, *self._rows, *self._sorting.waiting]))


def _rows(pictures: Iterable[Picture]) -> bytes:
    return table_bytes(pa.Table.from_pylist([asdict(picture) for picture in pictures], schema=SCHEMA))


def _filled(picture: Picture, results: dict[str, Picture]) -> Picture:
    """A picture with what became of it, where it was in this batch."""
    if picture.status != _PENDING:
        return picture
    result = results[picture.key or ""]
    return replace(picture, status=result.status, masks=result.masks, reason=result.reason)


def _saved(samples: Iterable[Sample], reading: _Reading, place: RunFolder) -> Iterator[Sample]:
    yield from samples
    reading.save(place)
