"""Configuration of the flows, composed of the rooms' own parts.

Each stage gets only its own part, so a changed CRF leaves stored salience valid. What changes
how fast (`RuntimeConfig`) is kept apart and enters no fingerprint.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from pnp_core.bundled import BUNDLED, PHOTO, SCENES, TINY
from pnp_core.frozen import Config, merge
from pnp_core.masks.config import MaskConfig
from pnp_core.presets import for_backbone, preset, read_settings
from pnp_core.stages.config import DispatchConfig, RuntimeConfig, SalienceConfig, ScoreConfig
from pnp_core.text.visible import visible


class PipelineConfig(Config):
    """What every flow shares: the stages' parts and the run folder."""

    settings: str | None = None
    """YAML with parts of the configuration, such as best.yaml, a path or any fsspec URL; laid over the preset.

    What is given besides is laid over it; then this is empty again."""
    preset: Literal["authors", "paper", "tiny", "photo"] | None = None
    """Where the parts start from: `authors`, `paper`, `tiny` or `photo`. When empty `photo` (`tiny` for `scenes`), or
    `authors` with other weights.

    What is given besides is laid over it."""
    out: str
    """Run folder: a path or any fsspec URL."""
    salience: SalienceConfig = SalienceConfig()
    masks: MaskConfig = MaskConfig()
    runtime: RuntimeConfig = RuntimeConfig()
    dispatch: DispatchConfig = DispatchConfig()

    @model_validator(mode="before")
    @classmethod
    def _lay_over_preset(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        if values.get("settings"):
            values = {**merge(read_settings(values["settings"]), values), "settings": None}
        chosen = values.get("preset") or _preset_of_weights(values) or cls.usual_preset(values)
        base = {part: parts for part, parts in preset(chosen).items() if part in cls.model_fields}
        if isinstance(name := _backbone_of(values), str):
            base = for_backbone(base, name)
        return {**merge(merge(base, cls.own_defaults(values)), values), "preset": chosen}

    @classmethod
    def usual_preset(cls, values: dict[str, Any]) -> str:
        """That of the bundled model for the flow's pictures."""
        return PHOTO

    @classmethod
    def own_defaults(cls, values: dict[str, Any]) -> dict[str, Any]:
        """What this flow lays over the preset before what was given."""
        return {}


def _backbone_values(values: dict[str, Any]) -> dict[str, Any]:
    """What unchecked values say of the backbone."""
    found: Any = values
    for part in ("salience", "backbone"):
        found = found.get(part) if isinstance(found, dict) else None
    return found if isinstance(found, dict) else {}


def _backbone_of(values: dict[str, Any]) -> Any:
    """The backbone that unchecked values name, themselves or by a checkpoint that comes with the package."""
    given = _backbone_values(values)
    checkpoint = given.get("checkpoint")
    return given.get("name", BUNDLED.get(checkpoint) if isinstance(checkpoint, str) else None)


def _preset_of_weights(values: dict[str, Any]) -> str | None:
    """The preset that unchecked values' weights are for, None where they name none."""
    given = _backbone_values(values)
    checkpoint = given.get("checkpoint")
    if isinstance(checkpoint, str) and checkpoint in BUNDLED:
        return checkpoint
    named = given.get("name")
    return "authors" if checkpoint is not None or named is not None else None


class LabellingConfig(PipelineConfig):
    """What the flows that make masks share."""

    png: bool = False
    """Also write every mask as a PNG file."""


class DatasetConfig(Config):
    """Which pictures of which dataset."""

    dataset: str = SCENES
    """Dataset card, such as `voc21` (see `pnp-ovss datasets`), or the path of a card of your own."""
    data: str | None = None
    """Folder of the dataset as distributed, such as VOCdevkit: a path or any fsspec URL."""
    split: str | None = None
    """Split of the dataset; the card's first when empty, for tuning its `tuning_split`."""
    ground_truth: str | None = None
    """Which of the card's forms of ground truth; the first on disk when empty."""
    image_labels: Literal["masks", "boxes"] | None = None
    """Image-level labels from `masks` or `boxes`; when empty `eval` takes masks, `tune` boxes where there are some.

    `candidates: labels` takes the classes of a picture from them; of masks it uses the set of classes alone."""
    only_classes: tuple[str, ...] = ()
    """These classes only, on the pictures that have one of them.

    Pixels of other classes count as background, or are not scored where the card has no background."""

    @classmethod
    def usual_preset(cls, values: dict[str, Any]) -> str:
        """The drawn scenes have a model of their own."""
        return TINY if values.get("dataset", SCENES) == SCENES else PHOTO


class EvalConfig(DatasetConfig, LabellingConfig):
    """The `eval` flow: label a dataset that has ground truth, and score it."""

    limit: int | None = Field(default=None, ge=1)
    """Number of pictures, from the start of the split; all of it when empty."""
    shards: int | None = Field(default=None, ge=1)
    """Number of shards the pictures are spread over; one per 64 pictures, at least 8, when empty."""
    score: ScoreConfig = ScoreConfig()

    @classmethod
    def recorded(cls, values: dict[str, Any]) -> EvalConfig:
        """A configuration that was kept: what it lacks is newer, and was at its default whatever the preset says now.

        Raises:
            ValidationError: it is not one of `eval`.
        """
        before = {"salience": SalienceConfig().model_dump(), "masks": MaskConfig().model_dump()}
        return cls.model_validate(merge(before, values))

    @property
    def title(self) -> str:
        """Name of a run, for people."""
        return visible("-".join(str(part) for part in (self.dataset, self.split, self.limit) if part is not None))


TableName = Literal["ablation", "iterations", "strategies", "thresholds", "resolutions", "layers", "subsets"]


class AblateConfig(EvalConfig):
    """The `ablate` flow: evaluate a dataset with the settings that tables are made of."""

    tables: tuple[TableName, ...] = ("ablation", "iterations", "thresholds")
    """Tables whose settings are evaluated: `ablation`, `iterations`, `strategies`, `thresholds`, `resolutions`,
    `layers`, `subsets`.

    The default ones need little new salience; docs/tables.md says how many settings each has."""

    @property
    def base(self) -> EvalConfig:
        """What the settings vary."""
        return EvalConfig.model_validate(self.model_dump(exclude={"tables"}))


class TablesConfig(Config):
    """The `tables` flow: benchmark tables from finished runs."""

    runs: tuple[str, ...] = Field(min_length=1)
    """Run folders of `eval` and `ablate`: paths or any fsspec URLs."""
    out: str
    """Folder for the tables: a path or any fsspec URL."""

    @property
    def title(self) -> str:
        """Name of a run, for people."""
        return visible(self.out)


class OwnPicturesConfig(LabellingConfig):
    """What the flows share that label a user's own pictures."""

    source: str
    """Folder of pictures (recursive), a picture, a .txt list of paths or URLs, a .parquet with an image column, or
    tars ('x/*.tar'); local or any fsspec URL."""
    classes: tuple[str, ...] = Field(min_length=1)
    """Class names; mask value 0 is background, i the i-th name."""
    follow_links: bool = False
    """Of a folder: also take what links lead to outside of it. Otherwise they are passed over and counted."""
    exclude: tuple[str, ...] = ()
    """Leave out what fits a path, or the name of a file or folder: 'thumbs', '*.gif', 'raw/*'. Of a folder, a list or
    tars.

    `*` stands for anything."""
    fetch_seconds: float = Field(default=30, gt=0)
    """Limit in seconds for each picture on another machine.

    In a bucket for each MiB of it. Those that did not come in time are asked for again, and then quarantined; of a
    corpus they are asked for again in the next run."""
    images_per_shard: int = Field(default=64, ge=1)
    """Pictures in a shard, the unit that is stored, resumed and given to workers."""

    @property
    def title(self) -> str:
        """Name of a run, for people."""
        return visible(self.source)

    @classmethod
    def own_defaults(cls, values: dict[str, Any]) -> dict[str, Any]:
        """A corpus has no image-level labels, and a class that is absent would claim pixels all the same."""
        return {"salience": {"candidates": {"source": "itm", "fallback": "background"}}}


class LabelConfig(OwnPicturesConfig):
    """The `label` flow: masks for a user's own pictures."""

    image_column: str | None = None
    """Column of a Parquet source that holds the pictures; found by itself when only one fits."""


class CorpusConfig(OwnPicturesConfig):
    """The `corpus` flow: masks for what is new or changed in a folder that grows; `source` is one, or a bucket."""

    source: str
    """Folder that grows (recursive), or a bucket: a path or any fsspec URL."""
    settle: float = Field(default=60, ge=0)
    """Seconds a file must have been left alone before it is read; younger ones wait for the next run."""
    images_per_batch: int = Field(default=10_000, ge=1)
    """Pictures that are labelled and published together; a run goes on with the next batch until none is left."""
    check: Literal["digests", "sizes"] = "digests"
    """What is looked at of the masks published before, of which the damaged ones are made again: all of them is read,
    or of each file the size alone, for buckets where reading is dear."""
    allow_empty: bool = False
    """Publish that no picture is left of a corpus that held some; else an error, as of a disk that is not mounted."""
