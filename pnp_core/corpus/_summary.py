"""What a run over a corpus has to say at its end."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from pnp_core.corpus.manifest import WAITING, Manifest
from pnp_core.data import RunSummary, Summary
from pnp_core.runs.reasons import grouped
from pnp_core.text.markdown import markdown_code


@dataclass
class CorpusSummary(Summary):
    """What a run over a corpus has to say at its end; `images` are those that were labelled or tried in it."""

    labelled: int = 0
    failed: int = 0
    waiting: int = 0
    deleted: int = 0
    ignored: int = 0
    """Files passed over because they are no pictures."""
    links: int = 0
    """Links that leave the folder, passed over."""
    left_out: tuple[str, ...] = ()
    """What else was left out: by a pattern, or in folders that file servers make."""
    in_corpus: int = 0
    """Images in the corpus now."""
    manifest: str = ""
    damaged: list[str] = field(default_factory=list)
    """Of what was published before: what is damaged and cannot be made again."""

    def count(self, batch: RunSummary) -> None:
        """Count a batch in."""
        for name in ("images", "labelled", "failed", "quarantined"):
            setattr(self, name, getattr(self, name) + getattr(batch, name))
        self.mended += batch.mended
        self.reasons = grouped(Counter(self.reasons) + Counter(batch.reasons))
        for name, stage in batch.stages.items():
            self.stages[name] = self.stages[name] + stage if name in self.stages else stage

    @property
    def all_failed(self) -> bool:
        """Whether there were shards, and every one was given up."""
        failed = sum(stage.shards_failed for stage in self.stages.values())
        return 0 < failed == self.stages["salience"].shards

    def compare(self, before: Manifest, now: Manifest) -> None:
        """Count what changed between the manifest the run found and the one it leaves."""
        gone = before.images.keys() - now.images.keys()
        self.deleted, self.in_corpus, self.manifest = len(gone), len(now.images), now.file if now.number else ""
        self.waiting = now.counts()[WAITING]

    def as_json(self) -> dict[str, Any]:
        """The object that `--json` prints."""
        counts = ("images", "labelled", "quarantined", "failed", "waiting", "deleted", "ignored", "links")
        own = {
            name: getattr(self, name)
            for name in (*counts, "out", "manifest", "left_out", "reasons", "mended", "damaged")
        }
        return {**own, "pictures": self.in_corpus, **self.stages_json()}

    def markdown(self) -> str:
        """The counts as a table."""
        counts = {
            "labelled now": self.labelled,
            "quarantined now": self.quarantined,
            "failed, to be tried again": self.failed,
            "still being written, waiting": self.waiting,
            "deleted since the last run": self.deleted,
            "in the corpus": self.in_corpus,
            "files passed over, no pictures": self.ignored,
            "links that leave the folder, passed over": self.links,
        }
        rows = "\n".join(f"| {name} | {number} |" for name, number in counts.items())
        return f"## Corpus\n\n| pictures | |\n|---|---|\n{rows}\n\nManifest: {markdown_code(self.manifest)}\n"
