"""The output folder of a corpus: collecting a batch, publishing what became of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import cached_property
from itertools import chain, repeat
from pathlib import PurePosixPath
from time import time

from pnp_core.config import CorpusConfig
from pnp_core.corpus._changes import PENDING, ChangeReader, classify_files
from pnp_core.corpus.manifest import (
    FAILED,
    LABELLED,
    LATEST,
    PROGRESS,
    QUARANTINED,
    Manifest,
    ManifestRow,
    changes_file,
    read_progress,
    rows_bytes,
    rows_of,
    whole_pointer,
)
from pnp_core.data import Sample, ShardRef
from pnp_core.errors import ForeignFilesError, SourceError
from pnp_core.inputs.sources import shuffle
from pnp_core.inputs.sources.base import file_sample
from pnp_core.inputs.sources.folder import GrowingFolder
from pnp_core.inputs.sources.links import LINKS, left_out, links_passed_over
from pnp_core.runs.plan import Plan, plan_label
from pnp_core.runs.preflight import check_own_images, own_remarks
from pnp_core.stages.masks import STAGE as MASKS
from pnp_core.storage.completion import StageFolder
from pnp_core.storage.ownership import check_ours, check_writable, claim
from pnp_core.storage.run_folder import RunFolder
from pnp_core.storage.shards import read_index, write_shards

COLLECTED = "collected.parquet"
"""What has become known in a batch, still without results for what is in its shards."""


class Corpus:
    """A corpus, its output folder, and what the last run has left; for all batches of a run."""

    def __init__(self, config: CorpusConfig, plan: Plan) -> None:
        """Find out whose the output folder is.

        Args:
            plan: of any output folder; its fingerprints name the settings.

        Raises:
            OutputError: the folder holds the labels of another corpus.
        """
        self.config, self.out, self._plan = config, RunFolder(config.out), plan
        self.masks_fingerprint = plan.masks.fingerprint
        self.folder = GrowingFolder.of(config.source, config.follow_links, config.exclude, config.fetch_seconds)
        self.ignored: Counter[str] = Counter()
        self._reader: ChangeReader | None = None
        pointer = whole_pointer(self.out)
        if pointer and pointer["source"] != self.folder.identity:
            raise ForeignFilesError(
                f"'{self.out.url}' holds labels of {pointer['source']}, not of "
                f"{self.folder.identity}; choose another --out"
            )
        self.settings_are_known = pointer is not None and pointer["settings"] == self.masks_fingerprint
        """Whether something was labelled with the same settings."""

    @cached_property
    def newest(self) -> Manifest:
        """What is known after the last batch.

        Raises:
            CorruptRunError: that is lost.
        """
        return read_progress(self.out) or Manifest(0, self.folder.identity, self.masks_fingerprint)

    @property
    def before(self) -> Manifest:
        """What the next batch adds to: nothing where settings are new, for masks of several do not go together."""
        newest, mine = self.newest, self.masks_fingerprint
        return newest if newest.masks_fingerprint == mine else Manifest(newest.number, newest.corpus, mine)

    @property
    def number(self) -> int:
        """Of the next batch."""
        return self.newest.number + 1

    def batch(self, number: int) -> RunFolder:
        """Where a batch is labelled."""
        return RunFolder(f"{self.config.out.rstrip('/')}/batches/{number:06d}")

    def plan(self, number: int | None = None) -> Plan:
        """The jobs for a batch; the next one when none is named."""
        return self._plan.at(self.batch(number or self.number).url)

    def collect(self, retry: bool) -> tuple[list[ShardRef], bool]:
        """Read what is new or changed, and shard it; or take up what a run that was killed has sharded.

        The files are listed when a run begins, and once more when one of several batches has read them all. What
        becomes known is kept aside, still without results for what is in the shards.

        Args:
            retry: as for `classify_files`.

        Returns:
            The shards, none when nothing is to be labelled; and whether there may be more for another batch.

        Raises:
            SourceError: nothing is left of a corpus that held pictures.
        """
        digest = f"{self.masks_fingerprint}/{self.config.images_per_shard}" + "/links" * self.config.follow_links
        digest += "".join(f"/without {pattern}" for pattern in self.config.exclude)
        identity = f"batch {self.number} of {self.folder.identity}"
        batch = self.batch(self.number)
        if (shards := read_index(batch, identity, digest)) is not None:
            claim(batch.url, "run")
            return shards, True
        reader, self._reader = self._reader or self._list(retry), None  # after an error all is listed again
        samples = reader.batch(self.before.contents, self.config.images_per_batch)
        first = next(samples, None)
        if first is None:
            self.out.write(COLLECTED, rows_bytes(reader.taken()))
            return [], reader.batches > 1
        claim(batch.url, "run")
        sizes = repeat(self.config.images_per_shard)
        # The rows are saved when the last sample is read, which is before the shards count.
        shards = write_shards(batch, _saved(chain([first], samples), reader, batch), sizes, identity, digest)
        if reader.more:
            self._reader = reader
        return shards, reader.more or reader.batches > 1

    def draw(self, number: int, seed: int = 0) -> tuple[int, list[Sample]]:
        """How many files are new or changed, and so many of them drawn at random; nothing is written.

        Raises:
            SourceError: nothing is left of a corpus that held pictures.
        """
        names = self._list(retry=True).names
        drawn = [(self.folder.file(name), name) for name in shuffle(names, seed)[:number]]
        return len(names), [file_sample(file, name, f"{i:06d}") for i, (file, name) in enumerate(drawn)]

    def _list(self, retry: bool) -> ChangeReader:
        """List the files, and see what is new."""
        known = {source: image.stamp for source, image in self.newest.images.items()}
        self.ignored.clear()
        files = self.folder.files(self.config.out, self.ignored, known)
        if not files and self.newest.images and not self.config.allow_empty:
            raise SourceError(
                f"no pictures in '{self.folder.identity}', where there were {len(self.newest.images)}: is it "
                f"mounted? When they are gone for good: allow_empty: true in --config"
                + "".join(f"; {warning}" for warning in left_out(self.ignored) + links_passed_over(self.ignored[LINKS]))
            )
        return ChangeReader(self.folder, classify_files(files, self.before, time(), self.config.settle, retry))

    def damaged(self) -> dict[int, str]:
        """Batches of the newest manifest some of whose masks are missing or damaged, each with one of those files.

        With `check: sizes` other content of the same size is not seen.
        """
        damaged: dict[int, str] = {}
        for file in sorted({image.masks for image in self.before.images.values() if image.masks}):
            number, shard = int(PurePosixPath(file).parts[1]), PurePosixPath(file).stem
            masks = StageFolder(self.batch(number), MASKS, self.masks_fingerprint)
            record = masks.record(shard)
            if record is None or record.damaged(masks.run, content=self.config.check == "digests"):
                damaged.setdefault(number, file)
        return damaged

    def publish(self, number: int, shards: list[ShardRef], plan: Plan, more: bool) -> str:
        """Make what became of the collected pictures known to the next run, and now and then to readers.

        Readers are given whole manifests: at the end of a run, and in a long one whenever it has grown to twice as
        much. With new settings they are given nothing before all pictures were worked through.

        Args:
            number: of the batch. Publishing it again changes nothing.
            more: there may be another batch.

        Returns:
            The place of the newest whole manifest below the output folder.
        """
        manifest = self.newest
        if manifest.number < number:
            manifest = self._add(number, shards, plan)
        if manifest.number and not manifest.is_whole and (not more or manifest.due()):
            manifest = manifest.write(self.out)
        pointer = {
            "run": manifest.number,
            "source": manifest.corpus,
            "settings": manifest.masks_fingerprint,
            "manifest": manifest.file,
            "classes": list(plan.masks.named.values()),
            **({"ids": list(plan.masks.named)} if plan.masks.ids else {}),
            "pictures": len(manifest.images),
            **manifest.counts(),
        }
        if manifest is not self.newest:
            self.out.write_json(PROGRESS, pointer)
            self.newest = manifest
        latest = self.out.read_json(LATEST) or {}
        same = latest.get("settings", self.masks_fingerprint) == self.masks_fingerprint
        if manifest.is_whole and (not more or same):
            self.out.write_json(LATEST, pointer)
        return manifest.file

    def _add(self, number: int, shards: list[ShardRef], plan: Plan) -> Manifest:
        """The manifest after a batch; the newest one where nothing was labelled and nothing has changed."""
        results: dict[str, ManifestRow] = {}
        for shard in shards:
            results |= self._results(number, shard, plan)
        run = self.batch(number) if shards else self.out
        collected = [_filled(row, results) for row in rows_of(run.read_table(COLLECTED))]
        before = self.before
        changes = [row for row in collected if before.images.get(row.source) != row]
        if self.newest.number and before is self.newest and not changes and not shards:
            return self.newest
        manifest = before.after(number, changes)
        if not manifest.due():  # else it is written whole
            self.out.write(changes_file(number), rows_bytes(changes))
        return manifest

    def _results(self, number: int, shard: ShardRef, plan: Plan) -> dict[str, ManifestRow]:
        """By key: what became of a shard's pictures."""
        results: dict[str, ManifestRow] = {}
        for folder in (plan.salience.folder, plan.masks.folder):
            status = FAILED if folder.find_failed(shard.name) else QUARANTINED
            for image in folder.quarantined(shard.name):
                results[image.key] = ManifestRow("", "", "", status, reason=image.reason)
        masks = plan.masks.folder
        file = masks.file(shard.name, "parquet")
        if masks.record(shard.name) and not masks.find_failed(shard.name):
            for key in masks.read_table(shard.name, "parquet", ["key"])["key"].to_pylist():
                results[key] = ManifestRow("", "", "", LABELLED, f"batches/{number:06d}/{file}")
        return results


def check_corpus(config: CorpusConfig) -> list[str]:
    """Find what is wrong with a run before anything is started.

    Returns:
        Warnings for the user.

    Raises:
        PnpError: as `plan_label`; or no such folder, or the output folder is of another corpus or cannot be written.
    """
    plan = plan_label(config)
    check_ours(RunFolder(config.out), "corpus")
    known = Corpus(config, plan).settings_are_known
    warnings = own_remarks(plan) if known else check_own_images(plan)
    check_writable(config.out, "corpus")
    return warnings


def _filled(image: ManifestRow, results: dict[str, ManifestRow]) -> ManifestRow:
    """A picture with what became of it, where it was in this batch."""
    if image.status != PENDING:
        return image
    result = results[image.key or ""]
    return replace(image, status=result.status, masks=result.masks, reason=result.reason)


def _saved(samples: Iterable[Sample], reader: ChangeReader, run: RunFolder) -> Iterator[Sample]:
    yield from samples
    run.write(COLLECTED, rows_bytes(reader.taken()))
