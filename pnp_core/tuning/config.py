"""Configuration of the `tune` flow."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from pnp_core.bundled import PHOTO, TINY
from pnp_core.config import DatasetConfig, PipelineConfig, TrackedConfig
from pnp_core.errors import UsageError
from pnp_core.frozen import Config
from pnp_core.inputs.class_files import Classes
from pnp_core.methods.base import BLURS, THRESHOLDS, MethodConfig
from pnp_core.methods.pnp.config import PnpConfig
from pnp_core.methods.pnp.presets import PRESETS
from pnp_core.openclip.config import ClipConfig
from pnp_core.text.visible import visible

LISTS = {"masks.threshold": "thresholds", "masks.blur": "blurs"}
"""What every method may have searched, and where the space has its values."""


class RewardConfig(Config):
    """What a trial of the search is worth (ALGORITHM section 6)."""

    kind: str = "control"
    """What a trial is worth: `control`, `contrast` or `authors` (docs/tuning.md).

    `control`: how much more a region shows its class than regions of its shape elsewhere do. `contrast`: than an
    empty picture does, less the share it covers; one look per region in place of three. `authors`: how often it
    shows more than an empty picture."""
    judge: Literal["clip", "match"] = "clip"
    """Who judges regions: `clip`, or `match` (the backbone's own match score).

    `clip`: as the authors. `match` needs no other model; it judges what it has made itself."""
    clip: ClipConfig = ClipConfig(model="ViT-L-14-336")
    """The judge `clip`. The authors' own by default."""
    match_side: int | None = Field(default=None, ge=16)
    """Pixels that the judge `match` looks at, a side; the backbone's own when empty."""
    batch_size: int = Field(default=32, ge=1)
    """Regions per forward pass of the judge. Changes the last digits of rewards, since it rounds differently."""


class SpaceConfig(Config):
    """What the search chooses from: the product of all lists. Layers, heads and iterations are of `pnp-ovss` alone;
    threshold and blur of every method that decides by them, with values of its own where none are given.
    """

    layers: tuple[int, ...] | None = Field(default=None, min_length=1)
    """Cross-attention layers, counted from 0; all whose salience is not zero when empty."""
    heads: tuple[int, ...] | None = Field(default=None, min_length=1)
    """Heads, counted from 0; all when empty."""
    thresholds: tuple[Annotated[float, Field(ge=0, lt=1)], ...] = Field(default=THRESHOLDS, min_length=1)
    """Thresholds of the maps, as `masks.threshold`."""
    blurs: tuple[Annotated[float, Field(ge=0, le=1)], ...] = Field(default=BLURS, min_length=1)
    """Gaussian sigma as a share of max(H, W). Beyond the authors' 0.05 the reward's regions outgrow the masks: a
    region is cut again after the blur, a mask is not."""
    iterations: tuple[Annotated[int, Field(ge=1, le=32)], ...] = Field(default=(1,), min_length=1)
    """Drop iterations of the maps that the reward sees. 1 alone, as in the paper, leaves those of the method as
    configured. Others become part of the result, and are computed for each (layer, head) that the search asks for.
    """

    @model_validator(mode="after")
    def _each_value_once(self) -> SpaceConfig:
        named = {"thresholds": self.thresholds, "blurs": self.blurs, "iterations": self.iterations}
        named |= {"layers": self.layers or (), "heads": self.heads or ()}
        for name, values in named.items():
            if len(set(values)) < len(values):
                raise ValueError(f"{name} holds a value twice")
        return self


class SearchConfig(Config):
    """How the space is searched (Gradient-Free-Optimizers)."""

    optimizer: str = "random-search"
    """Any of Gradient-Free-Optimizers by name: random-search, grid-search, bayesian, particle-swarm, ..."""
    trials: int | None = Field(default=None, ge=1)
    """Trials of all layer groups together; when empty 34 for each of 3 as in the paper, for grid-search all."""
    groups: int = Field(default=3, ge=1)
    """The layers are cut into so many groups, each searched by itself; fewer where there are fewer layers."""
    seed: int = Field(default=0, ge=0)
    """Seed of the search and of the choice of pictures."""
    parallel: int | None = Field(default=None, ge=1)
    """Groups searched at the same time; one per GPU when empty. Changes nothing but the time."""


class CompareConfig(Config):
    """Where there are masks, every setting that was tried is scored with them afterwards, for people to see what
    the reward is worth. The choice is made before and never looks at it.
    """

    masks: Literal["off", "plain", "full"] = "plain"
    """Score what was tried with masks, where there are some, for people to see: `off`, `plain`, `full`.

    `plain`: threshold and blur of the maps that the search saw; `full`: the whole method, drop iterations and
    CRF included."""
    images: int = Field(default=40, ge=1)
    """The first so many of the tuning pictures."""


class TuneConfig(DatasetConfig, PipelineConfig, TrackedConfig):
    """The `tune` flow: choose threshold and blur, of PnP-OVSS layer and head too, from image-level labels."""

    classes: Classes = ()
    """Class names for pictures of your own (dataset `folder`), or a file of classes, each with one prompt at most;
    `data` is then any source that `label` takes."""
    image_column: str | None = None
    """Column of a Parquet source that holds the pictures; found by itself when only one fits."""
    follow_links: bool = False
    """Of a folder with pictures of your own: also take what links lead to outside of it."""
    fetch_seconds: float = Field(default=30, gt=0)
    """Limit in seconds for each picture on another machine.

    In a bucket for each MiB of it."""
    exclude: tuple[str, ...] = ()
    """Of pictures of your own: leave out what fits a path, or the name of a file or folder: 'thumbs', '*.gif',
    'raw/*'."""
    images: int = Field(default=100, ge=1)
    """Pictures to tune on, drawn at random by the search's seed."""
    images_per_shard: int = Field(default=32, ge=1)
    """Pictures in a shard, the unit that is stored and resumed."""
    reward: RewardConfig = RewardConfig()
    space: SpaceConfig = SpaceConfig()
    search: SearchConfig = SearchConfig()
    compare: CompareConfig = CompareConfig()

    @property
    def title(self) -> str:
        """Name of a run, for people."""
        parts = ("tune", self.dataset, self.split, self.images)
        return visible("-".join(str(part) for part in parts if part is not None))

    @classmethod
    def bundled_for(cls, values: dict[str, Any]) -> str:
        """Pictures of one's own are photographs."""
        return PHOTO if values.get("classes") else super().bundled_for(values)

    @classmethod
    def own_defaults(cls, values: dict[str, Any], method: type[MethodConfig]) -> dict[str, Any]:
        """Pictures of one's own have no image-level labels; a CLIP that is named is to judge, whatever the preset."""
        reward, defaults = values.get("reward"), _of_other(method, cls.bundled_for(values))
        if isinstance(reward, dict) and reward.get("clip"):
            defaults["reward"] = {**defaults.get("reward", {}), "judge": "clip"}
        if values.get("classes"):
            source = "itm" if method.matches else "vocabulary"
            defaults |= {"dataset": "folder", "salience": {"candidates": {"source": source}}}
        return defaults

    @classmethod
    def _refuse_others(cls, method: type[MethodConfig]) -> None:
        """A method of which there is nothing to choose says why."""
        if not method.space():
            raise UsageError(f"{method.own_name()} has no threshold, blur or other setting that tune could choose")

    @model_validator(mode="after")
    def _judge_there(self) -> TuneConfig:
        if self.reward.judge == "match" and not isinstance(self.method, PnpConfig):
            raise UsageError(f"{self.method.name} has no match score to judge by: leave out --judge match")
        return self

    @model_validator(mode="after")
    def _own_images_or_a_dataset(self) -> TuneConfig:
        if self.classes and self.dataset != "folder":
            raise ValueError(f"classes are for pictures of your own (dataset folder); {self.dataset} has its own")
        return self


def _of_other(method: type[MethodConfig], bundled: str) -> dict[str, Any]:
    """What other methods than PnP-OVSS, whose presets say it, start from: their own lists, and for the drawn scenes
    the bundled judge.
    """
    if method is PnpConfig:
        return {}
    space = method.space()
    lists = {name: space[path] for path, name in LISTS.items() if path in space}
    judge = {"reward": PRESETS[TINY]["reward"]} if bundled == TINY else {}
    return {"space": lists, **judge}
