"""What is new or changed in a corpus, and reading it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

from pnp_core.corpus.manifest import FAILED, LABELLED, QUARANTINED, WAITING, Manifest, ManifestRow, rows_bytes
from pnp_core.data import Sample
from pnp_core.inputs.sources.base import NotReadError
from pnp_core.inputs.sources.folder import FileSeen, GrowingFolder
from pnp_core.inputs.sources.keys import printable, safe_ending, safe_key, split_ending
from pnp_core.storage.run_folder import RunFolder, sha256

COLLECTED = "collected.parquet"
PENDING = "in this batch"
"""Status of a picture that was read to be labelled."""


@dataclass
class FileChanges:
    """The files of a corpus beside what is known of them.

    Attributes:
        known: pictures that are as they were.
        changed: files that are new or may have changed, and what was known of them.
        waiting: files that may still be written to.
    """

    known: list[ManifestRow] = field(default_factory=list)
    changed: list[tuple[FileSeen, ManifestRow | None]] = field(default_factory=list)
    waiting: list[ManifestRow] = field(default_factory=list)


def classify_files(files: Iterable[FileSeen], before: Manifest, now: float, settle: float, retry: bool) -> FileChanges:
    """Tell new and changed files from those that are known.

    Args:
        now: seconds since the epoch, by the clock that stamps the files, after they were listed.
        settle: seconds a file must have been left alone; one from the future must be as far off.
        retry: try pictures again whose shard failed.
    """
    known = {image.source: image for image in before.images}
    finished = (LABELLED, QUARANTINED) if retry else (LABELLED, QUARANTINED, FAILED)
    changes = FileChanges()
    for file in files:
        image = known.get(printable(file.name))
        if image and image.stamp == file.stamp and image.status in finished:
            changes.known.append(image)
        elif file.changed is not None and abs(now - file.changed) < settle:
            changes.waiting.append(waiting(printable(file.name)))
        else:
            changes.changed.append((file, image))
    return changes


def waiting(name: str) -> ManifestRow:
    """The row of a file that is not to be read yet."""
    return ManifestRow(name, "", "", WAITING, reason="may still be written to")


class ChangeReader:
    """Reads changed files one by one: what has new content becomes a sample."""

    def __init__(self, folder: GrowingFolder, changes: FileChanges, contents: Iterable[ManifestRow], most: int) -> None:
        """Prepare to read.

        Args:
            contents: what is known already, whatever its name.
            most: pictures to label in one batch.
        """
        self._folder, self._changes, self._most = folder, changes, most
        self._rows: list[ManifestRow] = []
        self._contents = {image.sha256: image for image in contents}
        self.full = False

    def samples(self) -> Iterator[Sample]:
        """The pictures to label; at most as many as fit a batch."""
        taken = 0
        for changed, known in self._changes.changed:
            if taken == self._most:
                self.full = True
                # It keeps what is known of it until it is its turn.
                self._rows += [replace(known, stamp="")] if known else []
            elif sample := self._read(changed, known):
                taken += 1
                yield sample

    def _read(self, changed: FileSeen, known: ManifestRow | None) -> Sample | None:
        file, name, stamp = self._folder.file(changed.name), printable(changed.name), changed.stamp
        try:
            data, fault = file.read(), None
        except NotReadError as error:  # it may be of a moment, so the next run reads it again
            data, fault, stamp = b"", str(error), ""
        if fault and known and known.status == LABELLED:
            self._rows.append(replace(known, stamp=""))
            return None
        if not fault and not self._folder.stable(changed, len(data)):
            self._rows.append(waiting(name))
            return None
        content = sha256(f"{name}\0{fault}".encode() if fault else data)
        if same := self._contents.get(content):
            self._rows.append(replace(same, source=name, stamp=stamp))
            return None
        key = f"{safe_key(split_ending(changed.name)[0])[:100]}-{content[:16]}"
        image = ManifestRow(name, stamp, content, PENDING, key=key)
        self._contents[content] = image
        self._rows.append(image)
        return Sample(key, data, safe_ending(changed.name), name, fault=fault)

    def save(self, run: RunFolder) -> None:
        """Write the rows down."""
        run.write(COLLECTED, rows_bytes([*self._changes.known, *self._rows, *self._changes.waiting]))
