"""What tests read of finished runs."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq

from pnp_core.records import ShardRef
from pnp_core.shards import INDEX


def shards_of(run: Path) -> list[ShardRef]:
    """The shards of a run folder."""
    rows = pq.read_table(run / INDEX).to_pylist()
    return [ShardRef(row["shard"], row["samples"], row["bytes"], row["sha256"]) for row in rows]
