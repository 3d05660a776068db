"""Who works on the shards of a stage: one shape for this process, a deployment and a cluster."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal, Protocol, Self

from pnp_core.data import ShardRef, StageResult
from pnp_core.stages.config import DispatchConfig
from pnp_core.stages.maps import SalienceJob
from pnp_core.storage.completion import StageFolder
from tasks.runtime import StageTask

Work = tuple[ShardRef, StageResult | None]
"""A shard, and what the stage before made of it."""
Results = Generator[tuple[ShardRef, StageResult | Exception]]
"""Shards in the order in which they were done, with their result or the error of the last attempt."""


@dataclass(frozen=True)
class Stage:
    """What is done to every shard.

    Attributes:
        task: takes the job, a shard, and the result of the stage before.
        folder: where results lie. Shards that fail are set aside there; without it they stop the run.
        before: folder of the stage before.
        needs: workers with a GPU, any workers, or no workers: too little work to be carried away.
    """

    name: str
    task: StageTask[..., StageResult]
    job: Any
    folder: StageFolder | None = None
    before: StageFolder | None = None
    needs: Literal["gpu", "cpu", "none"] = "none"


class Dispatch(Protocol):
    """A way to have shards worked on; open between `with` and its end."""

    config: DispatchConfig

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def overlaps(self, job: SalienceJob) -> bool:
        """Whether the masks of a shard are to be made beside the salience of the next."""
        ...

    def run(self, stage: Stage, work: Iterable[Work]) -> Results:
        """All shards; to be closed when the stage stops, for then the workers must stop too.

        Args:
            work: where stages overlap it waits for the stage before.
        """
        ...
