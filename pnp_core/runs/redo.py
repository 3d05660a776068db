"""The pictures of a finished run that were so decided on in its review, as the source of another run.

They come from the run's own shards, bytes and keys as they are: what they were labelled from may be gone. The run
itself is read only.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import islice

from pnp_core.data import Sample, ShardRef
from pnp_core.errors import UsageError
from pnp_core.inputs.sources import shuffle
from pnp_core.runs.review import State, finished_record, read_review, rows_of
from pnp_core.storage.run_folder import RunFolder, fingerprint
from pnp_core.storage.shards import read_refs, read_shard


@dataclass(frozen=True)
class DecidedImages:
    """A `Source` of the pictures of a run with one decision."""

    run: RunFolder
    state: State
    keys: frozenset[str]
    shards: tuple[ShardRef, ...]
    ignored: Counter[str] = field(default_factory=Counter)

    @property
    def identity(self) -> str:
        """Of which run, and which of its pictures."""
        return f"{self.state} pictures of {self.run.root}"

    @property
    def listed(self) -> int:
        """All of them."""
        return len(self.keys)

    def digest(self) -> str:
        """Changes with the decisions, and with the pictures."""
        return fingerprint([shard.sha256 for shard in self.shards], sorted(self.keys))

    def samples(self) -> Iterator[Sample]:
        """The pictures in the order of the run, without ground truth."""
        for shard in self.shards:
            for sample in read_shard(self.run, shard):
                if sample.key in self.keys:
                    yield replace(sample, label_map=None, classes=None)

    def subset(self, number: int, seed: int) -> Iterator[Sample]:
        """So many pictures drawn at random, in their order."""
        drawn = frozenset(islice(shuffle(sorted(self.keys), seed), number))
        return replace(self, keys=drawn).samples()


def open_decided(url: str, state: State, file: str | None = None) -> DecidedImages:
    """The pictures of a finished run that a review says this of.

    Args:
        url: run folder.
        state: what was decided; `open` without a decision.
        file: the review, where it is not the run's own.

    Raises:
        UsageError: the folder holds no finished run; there is no review of it; there are no such pictures.
    """
    run = RunFolder(url)
    record = finished_record(run)
    review = read_review(run, record, file)
    masked = (row["key"] for rows in rows_of(run, record, ["key"]) for row in rows)
    keys = frozenset(key for key in masked if review.state_of(key) == state)
    if not keys:
        raise UsageError(f"no picture of '{url}' is {state}: there is nothing to label anew")
    return DecidedImages(run, state, keys, tuple(read_refs(run)))
