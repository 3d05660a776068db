"""From what comes in to the shards of a run."""

from __future__ import annotations

from pnp_core.config import EvalConfig, LabelConfig
from pnp_core.data import ShardRef
from pnp_core.runs.plan import open_images, open_split
from pnp_core.storage.run_folder import RunFolder, fingerprint
from pnp_core.storage.shards import even_sizes, read_index, write_shards

PER_SHARD = 64
"""Pictures in a shard when nothing else is asked for."""
FEWEST_SHARDS = 8


def shard_dataset(config: EvalConfig) -> list[ShardRef]:
    """Write a dataset split as shards, or reuse the ones that are there.

    Raises:
        OutputError: the run folder belongs to another dataset or cannot be written.
    """
    dataset = open_split(config)
    run = RunFolder(config.out)
    # A drawn dataset has no end: a limit may go beyond what is usual.
    images = min(config.limit or len(dataset), len(dataset)) if config.data else config.limit or len(dataset)
    shards = config.shards or max(FEWEST_SHARDS, -(-images // PER_SHARD))
    digest = fingerprint(dataset.digest(config.limit), config.image_labels or "masks", shards)
    known = read_index(run, dataset.identity, digest)
    sizes = even_sizes(images, shards)
    return known or write_shards(run, dataset.samples(), sizes, dataset.identity, digest)


def shard_source(config: LabelConfig) -> list[ShardRef]:
    """Write a user's pictures as shards, or reuse the ones that are there.

    Raises:
        SourceError: no pictures there.
        OutputError: the run folder belongs to another source or cannot be written.
    """
    source = open_images(config)
    run = RunFolder(config.out)
    digest = fingerprint(source.digest(), config.images_per_shard)

    def sizes():
        while True:
            yield config.images_per_shard

    known = read_index(run, source.identity, digest)
    return known or write_shards(run, source.samples(), sizes(), source.identity, digest)
