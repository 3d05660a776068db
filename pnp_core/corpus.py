"""Labelling a corpus that grows: only what is new or changed, published as one manifest.

Layout of the output folder::

    latest.json                   names the manifest; replaced in one step, last of all
    collected.parquet             of a run that is at work
    manifests/000003.parquet      one row per picture of the corpus; never changed
    batches/000003/               what that run labelled: a run folder; never changed once published

A picture is told from others by its content. A file that was touched, moved or copied is not labelled again; one
that was written to since its stamp (size and time of change) was taken is looked at again. So a reader of
`latest.json` always sees a whole generation, whatever the next run is doing.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field, fields, replace
from itertools import chain, repeat
from typing import Any

import pyarrow as pa

from pnp_core.config import CorpusConfig
from pnp_core.errors import CorruptRunError, OutputError
from pnp_core.plan import Plan, check_own_pictures, plan_label
from pnp_core.records import Sample, ShardRef, Summary
from pnp_core.shards import read_index, write_shards
from pnp_core.sources.base import NotReadError
from pnp_core.sources.folder import FileSeen, GrowingFolder
from pnp_core.sources.keys import printable, safe_ending, safe_key, split_ending
from pnp_core.store import RunFolder, sha256, table_bytes

LATEST = "latest.json"
LABELLED, QUARANTINED, FAILED, WAITING = "labelled", "quarantined", "failed", "waiting"


@dataclass(frozen=True)
class Picture:
    """A picture of the corpus, a row of the manifest.

    Attributes:
        source: its path below the corpus.
        stamp: size and time of change when it was read; empty when it must be looked at again.
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
        number: of the run, from 1; 0 before the first.
        settings: fingerprint of the masks.
    """

    number: int
    corpus: str
    settings: str
    pictures: tuple[Picture, ...] = ()

    @property
    def file(self) -> str:
        """Its place below the output folder."""
        return f"manifests/{self.number:06d}.parquet"

    def counts(self) -> dict[str, int]:
        """Pictures by status."""
        return {
            status: sum(p.status == status for p in self.pictures)
            for status in (LABELLED, QUARANTINED, FAILED, WAITING)
        }


def read_latest(out: RunFolder) -> Manifest | None:
    """The manifest published last, None before the first.

    Raises:
        CorruptRunError: it is named but not there.
    """
    if not out.exists(LATEST):
        return None
    try:
        latest = json.loads(out.read(LATEST))
        rows = out.read_table(latest["manifest"]).to_pylist()
        return Manifest(latest["run"], latest["source"], latest["settings"], tuple(Picture(**row) for row in rows))
    except (ValueError, KeyError, TypeError) as error:
        raise CorruptRunError(
            f"'{out.path(LATEST)}' is damaged ({error}); restore it or choose another --out"
        ) from error


@dataclass
class Sorting:
    """The files of a corpus beside what is known of them.

    Attributes:
        known: pictures that are as they were.
        suspects: files that are new, or may have changed.
        waiting: files that may still be written to.
    """

    known: list[Picture] = field(default_factory=list)
    suspects: list[FileSeen] = field(default_factory=list)
    waiting: list[Picture] = field(default_factory=list)


def sort_out(files: Iterable[FileSeen], before: Manifest, now: float, settle: float, retry: bool) -> Sorting:
    """Tell new and changed files from those that are known.

    Args:
        retry: try pictures again whose shard failed.
        now: seconds since the epoch, by the clock that stamps the files.
        settle: seconds a file must have been left alone; one from the future must be as far off.
    """
    known = {picture.source: picture for picture in before.pictures}
    finished = (LABELLED, QUARANTINED) if retry else (LABELLED, QUARANTINED, FAILED)
    sorting = Sorting()
    for file in files:
        picture = known.pop(printable(file.name), None)
        if picture and picture.stamp == file.stamp and picture.status in finished:
            sorting.known.append(picture)
        elif file.changed is not None and abs(now - file.changed) < settle:
            sorting.waiting.append(_waiting(printable(file.name)))
        else:
            sorting.suspects.append(file)
    return sorting


def _waiting(name: str) -> Picture:
    return Picture(name, "", "", WAITING, reason="may still be written to")


class Corpus:
    """A corpus, its output folder, and what the last run has left."""

    def __init__(self, config: CorpusConfig, plan: Plan) -> None:
        """Read the last manifest.

        Args:
            plan: of any output folder; its fingerprints name the settings.

        Raises:
            OutputError: the folder holds the labels of another corpus.
        """
        self.config, self.out = config, RunFolder(config.out)
        self.settings = plan.masks.fingerprint
        self.folder = GrowingFolder.of(config.source)
        latest = read_latest(self.out)
        if latest and latest.corpus != self.folder.identity:
            raise OutputError(
                f"'{self.out.url}' holds labels of {latest.corpus}, not of {self.folder.identity}; choose another --out"
            )
        self.latest = latest or Manifest(0, self.folder.identity, self.settings)
        # Masks of other settings do not go together: with new settings all is labelled again.
        same = self.latest.settings == self.settings
        self.before = self.latest if same else replace(self.latest, settings=self.settings, pictures=())

    @property
    def number(self) -> int:
        """Of this run."""
        return self.latest.number + 1

    @property
    def batch(self) -> RunFolder:
        """Where this run labels."""
        return RunFolder(f"{self.config.out.rstrip('/')}/batches/{self.number:06d}")

    def plan(self) -> Plan:
        """The jobs for this run's batch."""
        return plan_label(self.config.model_copy(update={"out": self.batch.url}))

    def collect(self, now: float, retry: bool) -> tuple[list[ShardRef], bool]:
        """Read what is new or changed, and shard it; or take up what a run that was killed has sharded.

        The rows of the next manifest are kept aside, still without results for what is in the shards.

        Args:
            now, retry: as for `sort_out`.

        Returns:
            The shards, none when nothing is to be labelled; and whether there may be more for another batch.
        """
        digest = f"{self.settings}/{self.config.images_per_shard}"
        identity = f"batch {self.number} of {self.folder.identity}"
        if (shards := read_index(self.batch, identity, digest)) is not None:
            return shards, True
        files = self.folder.files(self.config.out)
        reading = _Reading(self, sort_out(files, self.before, now, self.config.settle, retry))
        samples = reading.samples()
        first = next(samples, None)
        if first is None:
            reading.save()
            return [], False
        sizes = repeat(self.config.images_per_shard)
        # The rows are saved when the last sample is read, which is before the shards count.
        return write_shards(self.batch, _saved(chain([first], samples), reading), sizes, identity, digest), reading.full

    def publish(self, shards: list[ShardRef], plan: Plan) -> str:
        """Make what became of the collected pictures the latest, unless it is what the last manifest says.

        Returns:
            The manifest's place below the output folder.
        """
        results: dict[str, Picture] = {}
        for shard in shards:
            results |= self._results(shard, plan)
        collected = [Picture(**row) for row in self.out.read_table(_COLLECTED).to_pylist()]
        pictures = tuple(sorted((_filled(p, results) for p in collected), key=lambda picture: picture.source))
        if self.latest.number and (self.latest.settings, self.latest.pictures) == (self.settings, pictures):
            return self.latest.file
        manifest = Manifest(self.number, self.folder.identity, self.settings, pictures)
        self.out.write(manifest.file, _rows(pictures))
        latest = {
            "run": manifest.number,
            "source": manifest.corpus,
            "settings": manifest.settings,
            "manifest": manifest.file,
            "classes": ["background", *plan.masks.class_names],
            "pictures": len(pictures),
            **manifest.counts(),
        }
        self.out.write_json(LATEST, latest)
        return manifest.file

    def _results(self, shard: ShardRef, plan: Plan) -> dict[str, Picture]:
        """By key: what became of a shard's pictures."""
        found: dict[str, Picture] = {}
        masks = plan.masks.folder
        file = masks.file(shard.name, "parquet")
        if self.batch.exists(file):
            for key in self.batch.read_table(file)["key"].to_pylist():
                found[key] = Picture("", "", "", LABELLED, f"batches/{self.number:06d}/{file}")
        for folder in (plan.salience.folder, masks):
            status = FAILED if folder.find_failed(shard.name) else QUARANTINED
            if self.batch.exists(folder.quarantine_file(shard.name)):
                for row in self.batch.read_table(folder.quarantine_file(shard.name)).to_pylist():
                    found[row["key"]] = Picture("", "", "", status, reason=row["reason"])
        return found


@dataclass
class CorpusSummary(Summary):
    """What a run over a corpus has to say at its end; `images` are those that were labelled or tried in it."""

    labelled: int = 0
    failed: int = 0
    waiting: int = 0
    deleted: int = 0
    pictures: int = 0
    """In the corpus now."""
    manifest: str = ""

    def add(self, before: Manifest, now: Manifest) -> None:
        """Count what changed between the manifest the run found and the one it leaves."""
        gone = {picture.source for picture in before.pictures} - {picture.source for picture in now.pictures}
        self.deleted, self.pictures, self.manifest = len(gone), len(now.pictures), now.file if now.number else ""
        self.waiting = now.counts()[WAITING]

    def as_json(self) -> dict[str, Any]:
        """The object that `--json` prints."""
        names = ("images", "labelled", "quarantined", "failed", "waiting", "deleted", "pictures", "out", "manifest")
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


_COLLECTED = "collected.parquet"
_PENDING = "in this batch"


class _Reading:
    """Reads suspects one by one: what has new content becomes a sample."""

    def __init__(self, corpus: Corpus, sorting: Sorting) -> None:
        self._corpus, self._sorting = corpus, sorting
        self._rows: list[Picture] = []
        self.full = False
        labelled = (p for p in corpus.before.pictures if p.status in (LABELLED, QUARANTINED) and p.sha256)
        self._contents = {picture.sha256: picture for picture in labelled}

    def samples(self) -> Iterator[Sample]:
        """The pictures to label; at most as many as fit a batch."""
        taken = 0
        for suspect in self._sorting.suspects:
            if taken == self._corpus.config.images_per_batch:
                self.full = True
                return
            if sample := self._read(suspect):
                taken += 1
                yield sample

    def _read(self, suspect: FileSeen) -> Sample | None:
        file = self._corpus.folder.file(suspect.name)
        name = printable(suspect.name)
        try:
            data, fault = file.read(), None
        except NotReadError as error:
            data, fault = b"", str(error)
        if not (fault or self._corpus.folder.stable(suspect, len(data))):
            self._rows.append(_waiting(name))
            return None
        content = sha256(data) if fault is None else sha256(f"{name}\0{fault}".encode())
        if same := self._contents.get(content):
            self._rows.append(replace(same, source=name, stamp=suspect.stamp))
            return None
        key = f"{safe_key(split_ending(suspect.name)[0])[:100]}-{content[:16]}"
        picture = Picture(name, suspect.stamp, content, _PENDING, key=key)
        self._contents[content] = picture
        self._rows.append(picture)
        return Sample(key, data, safe_ending(suspect.name), name, fault=fault)

    def save(self) -> None:
        """Write the rows down."""
        self._corpus.out.write(_COLLECTED, _rows([*self._sorting.known, *self._rows, *self._sorting.waiting]))


def _rows(pictures: Iterable[Picture]) -> bytes:
    return table_bytes(pa.Table.from_pylist([asdict(picture) for picture in pictures], schema=SCHEMA))


def _filled(picture: Picture, results: dict[str, Picture]) -> Picture:
    """A picture with what became of it, where it was in this batch."""
    if picture.status != _PENDING:
        return picture
    result = results[picture.key or ""]
    return replace(picture, status=result.status, masks=result.masks, reason=result.reason)


def _saved(samples: Iterable[Sample], reading: _Reading) -> Iterator[Sample]:
    yield from samples
    reading.save()
