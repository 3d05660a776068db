"""Configuration of the stages, and of where and how fast they run."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, field_validator

from pnp_core.candidates.config import CandidatesConfig
from pnp_core.frozen import NO_RESULT, Config, formerly
from pnp_core.inputs.cards import Words

FORMER_OF_SALIENCE = ("backbone", "caption", "dropout", "layer", "head", "kind")
"""Settings that stood in the part of the salience stage when there was one method."""


class SalienceConfig(Config):
    """The salience stage: what it needs whatever the method."""

    model_config = ConfigDict(json_schema_extra=formerly(FORMER_OF_SALIENCE))

    max_pixels: int = Field(default=100_000_000, ge=1, le=178_956_970)
    """Pictures with more pixels are quarantined."""
    candidates: CandidatesConfig = CandidatesConfig()
    words: Annotated[Words, NO_RESULT] = "natural"
    """How captions call the classes of a dataset card: in natural words ("potted plant"), or in those of the authors'
    code where the card has them ("pottedplant")."""


class ScoreConfig(Config):
    """The score stage (ALGORITHM section 7)."""

    void_as_background: bool = False
    """Score void pixels (255) as background instead of leaving them out (authors' VOC script)."""
    mean: Literal["present", "union"] = "present"
    """mIoU over the classes `present` in the ground truth, or over all with a `union` (mmseg convention)."""


class RuntimeConfig(Config):
    """Where and how fast. Changes nothing but the rounding of sums, enters no fingerprint."""

    device: str = "auto"
    """`auto` (the first GPU, of Apple too, else the CPU), `cpu`, `cuda`, `cuda:1`, `mps` ..."""
    batch_size: Literal["auto"] | Annotated[int, Field(ge=1)] = 16
    """Pictures per forward pass; one that does not fit into memory is halved. `auto`: on a GPU as many as it has room
    for, 128 at most."""
    threads: int | None = Field(default=None, ge=1)
    """Threads of torch on the CPU, in every process that works for the run. When empty as many as torch takes by
    itself where the run is started: another number would change last bits."""
    overlap: bool | None = None
    """Make the masks of a shard beside the salience of the next. When empty where the model leaves the CPU to them: it
    is on a GPU, or with the workers of a deployment."""

    @field_validator("batch_size", mode="before")
    @classmethod
    def _a_number_or_auto(cls, value: Any) -> Any:
        number = int(value) if isinstance(value, str) and value.isdecimal() else value
        if number == "auto" or (type(number) is int and number > 0):
            return number
        raise ValueError(f"must be a number of pictures, 1 or more, or auto, not {value!r}")


class DispatchConfig(Config):
    """Who works on the shards, and how often it is tried. Enters no fingerprint."""

    mode: Literal["inline", "deployment", "dask"] = "inline"
    """`inline`: this process, one shard after the other. `deployment`: salience in batches of shards by the workers
    of a Prefect deployment. `dask`: salience and masks by the workers of a Dask cluster (extra `dask`)."""
    deployment: str = "salience/gpu"
    """For `deployment`: the Prefect deployment of the salience flow."""
    scheduler: str | None = None
    """For `dask`: address of its scheduler, such as tcp://host:8786; a cluster on this machine when empty."""
    workers: int = Field(default=1, ge=1)
    """Batches at the same time, or processes of a Dask cluster on this machine: the number of GPUs, usually."""
    most_shards: int = Field(default=256, ge=1)
    """Shards in a batch at most; otherwise there is one batch per worker."""
    attempts: int = Field(default=3, ge=1, le=20)
    """A shard that failed so many times is set aside, and the rest goes on."""
    backoff: float = Field(default=5, ge=0)
    """Seconds before the second attempt; twice as many before each further one."""
    shard_seconds: float | None = Field(default=None, gt=0)
    """Time limit for one shard in one stage: one that takes longer has failed."""
    lost_after: float = Field(default=1800, gt=0)
    """A worker of a deployment that finishes no shard for so many seconds, its start included, is taken for lost;
    never before all attempts at one shard can have taken their time. The automation that `pnp-ovss deploy` sets up
    finds most lost ones within minutes. A Dask cluster without any worker (for salience: with a GPU) for so long ends
    the run."""

    @property
    def silence(self) -> float:
        """Seconds without a finished shard after which a worker is taken for lost.

        >>> DispatchConfig(lost_after=100, shard_seconds=60, backoff=5).silence
        255.0
        """
        if self.shard_seconds is None:
            return self.lost_after
        waits = sum(self.delay(n + 1) for n in range(self.attempts - 1))
        return max(self.lost_after, self.attempts * self.shard_seconds + waits + 60)

    def delay(self, attempt: int) -> float:
        """Seconds to wait after so many failed attempts.

        >>> [DispatchConfig(backoff=5).delay(n) for n in (1, 2, 3)]
        [5.0, 10.0, 20.0]
        """
        return float(self.backoff * 2 ** (attempt - 1))
