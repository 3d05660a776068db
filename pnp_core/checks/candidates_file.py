"""What a candidates file holds, before a run relies on it."""

from __future__ import annotations

from dataclasses import dataclass

from pnp_core.candidates.base import choose
from pnp_core.candidates.config import CandidatesConfig
from pnp_core.candidates.file import FileCandidates, read_answers, resolve
from pnp_core.errors import UsageError
from pnp_core.inputs.cards import DatasetCard


@dataclass(frozen=True)
class FileReport:
    """A candidates file measured against a card.

    Attributes:
        entries: number of keys, repeated ones counted again.
        kept: mean number of classes per entry after threshold and fallback; None without entries.
        fallbacks: entries for which no class scored enough.
        repairs: (key, what was irregular) of each entry that is not regular.
    """

    entries: int
    kept: float | None
    fallbacks: int
    repairs: tuple[tuple[str, tuple[str, ...]], ...]


def report_file(path: str, card: DatasetCard, config: CandidatesConfig) -> FileReport:
    """Read a candidates file as a run would, and count.

    Raises:
        CandidatesFileError: it cannot be read.
        UsageError: the card has no classes.
    """
    if not card.classes:
        raise UsageError(f"card {card.name} has no classes of its own; name the dataset whose classes the file names")
    allowed = tuple(range(1, len(card.classes) + 1))
    entries = classes = fallbacks = 0
    repairs = []
    for key, answer in read_answers(path):
        resolved = resolve(answer, card)
        choice = choose(resolved.proposal, config, FileCandidates.default_min_score, allowed)
        entries += 1
        classes += len(choice.classes)
        fallbacks += bool(choice.classes) and choice.how != config.source
        if resolved.repairs:
            repairs.append((key, resolved.repairs))
    return FileReport(entries, classes / entries if entries else None, fallbacks, tuple(repairs))
