"""What is new or changed in a corpus, and reading it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice

from pnp_core.corpus.manifest import FAILED, GONE, LABELLED, QUARANTINED, WAITING, Manifest, ManifestRow
from pnp_core.data import Sample
from pnp_core.inputs.sources.base import NotReadError
from pnp_core.inputs.sources.folder import FileSeen, GrowingFolder
from pnp_core.inputs.sources.keys import printable, safe_ending, safe_key, split_ending
from pnp_core.storage.run_folder import sha256

PENDING = "in this batch"
"""Status of a picture that was read to be labelled."""


@dataclass
class FileChanges:
    """The files of a corpus beside what is known of them.

    Attributes:
        changed: files that are new or may have changed, and what was known of them.
        rows: of files that may still be written to, or are gone, where that is news.
    """

    changed: list[tuple[FileSeen, ManifestRow | None]] = field(default_factory=list)
    rows: list[ManifestRow] = field(default_factory=list)


def classify_files(files: Iterable[FileSeen], before: Manifest, now: float, settle: float, retry: bool) -> FileChanges:
    """Tell new and changed files from those that are known.

    Args:
        now: seconds since the epoch, by the clock that stamps the files, after they were listed.
        settle: seconds a file must have been left alone; one from the future must be as far off.
        retry: try pictures again whose shard failed.
    """
    finished = (LABELLED, QUARANTINED) if retry else (LABELLED, QUARANTINED, FAILED)
    changes, gone = FileChanges(), dict(before.images)
    for file in files:
        name = printable(file.name)
        known = before.images.get(name)
        gone.pop(name, None)
        if known and known.stamp == file.stamp and known.status in finished:
            continue
        if file.changed is not None and abs(now - file.changed) < settle:
            changes.rows += [] if known == waiting(name) else [waiting(name)]
        else:
            changes.changed.append((file, known))
    changes.rows += [ManifestRow(name, "", "", GONE) for name in gone]
    return changes


def waiting(name: str) -> ManifestRow:
    """The row of a file that is not to be read yet."""
    return ManifestRow(name, "", "", WAITING, reason="may still be written to")


class ChangeReader:
    """Reads changed files one by one, batch by batch: what has new content becomes a sample."""

    def __init__(self, folder: GrowingFolder, changes: FileChanges) -> None:
        """Prepare to read."""
        self._folder, self._changed = folder, changes.changed
        self._next = self.batches = 0
        self._contents: dict[str, ManifestRow] = {}
        self._rows = changes.rows

    @property
    def names(self) -> list[str]:
        """Files that are new or may have changed."""
        return [file.name for file, _ in self._changed]

    @property
    def more(self) -> bool:
        """Whether there is something left to read."""
        return self._next < len(self._changed)

    def batch(self, contents: Mapping[str, ManifestRow], most: int) -> Iterator[Sample]:
        """The next pictures to label.

        Args:
            contents: what is known already, by digest, whatever its name.
            most: pictures in a batch.
        """
        self.batches += 1
        self._contents = dict(contents)
        yield from islice(self._samples(), most)

    def taken(self) -> list[ManifestRow]:
        """What has become known since this was asked last; what is to be labelled is `PENDING`."""
        rows, self._rows = self._rows, []
        return rows

    def _samples(self) -> Iterator[Sample]:
        while self.more:
            changed, known = self._changed[self._next]
            self._next += 1
            if sample := self._read(changed, known):
                yield sample

    def _read(self, changed: FileSeen, known: ManifestRow | None) -> Sample | None:
        file, name, stamp = self._folder.file(changed.name), printable(changed.name), changed.stamp
        try:
            data, fault = file.read(), None
        except NotReadError as error:  # it may be of a moment, so the next run reads it again
            if self._folder.is_gone(changed, error):
                self._rows += [ManifestRow(name, "", "", GONE)] if known else []
                return None
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
