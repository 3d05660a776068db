"""Reasons for quarantine, put together where they say the same of different files, annotations or sizes."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from itertools import islice, product

from pnp_core.data import ShardRef
from pnp_core.storage.completion import StageFolder

REASONS = 20
"""Reasons for quarantine in a run's summary; the tables have all."""

# A name in quotes, a size, a number that is no part of a word; or the dots that stand for one.
_DETAIL = re.compile(r"(?<!\w)'[^']*'(?!\w)|(?<![\w.])\d+(?:\.\d+)?(?:x\d+)?(?!\w)|(?<![\w.])\.\.\.(?![\w.])")


def grouped(reasons: Mapping[str, int]) -> dict[str, int]:
    """Reasons with how often they occur, most frequent first; those that differ in names or numbers only are one.

    >>> grouped({"annotation 7 of 'a.json' has no mask": 1, "annotation 9 of 'a.json' has no mask": 2, "empty": 4})
    {'empty': 4, "annotation ... of 'a.json' has no mask": 3}
    """
    alike: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for reason in reasons:
        alike[tuple(_DETAIL.split(reason))].append(reason)
    counts = Counter({_shared(group): sum(reasons[reason] for reason in group) for group in alike.values()})
    return dict(counts.most_common())


def _shared(reasons: list[str]) -> str:
    """Reasons that are alike as one: dots stand for what differs."""
    details = zip(*(_DETAIL.findall(reason) for reason in reasons), strict=True)
    common = iter([same[0] if len(set(same)) == 1 else "..." for same in details])
    return _DETAIL.sub(lambda _: next(common), reasons[0])


def quarantine_reasons(folders: Iterable[StageFolder], shards: list[ShardRef]) -> dict[str, int]:
    """The most frequent reasons of some stages' shards, see `grouped`."""
    reasons: Counter[str] = Counter()
    for folder, shard in product(folders, shards):
        reasons.update(image.reason for image in folder.quarantined(shard.name))
    return dict(islice(grouped(reasons).items(), REASONS))
