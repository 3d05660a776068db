"""Configuration of the flows, composed of the rooms' own parts.

Each stage gets only its own part, so a changed CRF leaves stored salience valid. What changes
how fast (`RuntimeConfig`) is kept apart and enters no fingerprint.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import ConfigDict, Field, model_validator

from pnp_core.bundled import PHOTO, SCENES, TINY
from pnp_core.errors import UsageError
from pnp_core.frozen import NO_RESULT, NO_SCORE, Config, merge, value_at
from pnp_core.inputs.class_files import Classes
from pnp_core.masks.config import FORMER_OF_MASKS, MaskConfig
from pnp_core.methods import METHODS, AnyMethod, method_config
from pnp_core.methods.base import PNP, MethodConfig
from pnp_core.methods.pnp.config import PnpConfig
from pnp_core.stages.config import FORMER_OF_SALIENCE, DispatchConfig, RuntimeConfig, SalienceConfig, ScoreConfig
from pnp_core.storage.settings import read_settings
from pnp_core.text.visible import visible


def _with_old_name(schema: dict[str, Any]) -> None:
    """`config_file` as it was called before, for deployments that name it."""
    schema["properties"]["settings"] = {**schema["properties"]["config_file"], "deprecated": True}


FORMERLY = {"salience": FORMER_OF_SALIENCE, "masks": FORMER_OF_MASKS}
"""Settings of PnP-OVSS by the part that they stood in."""


class PipelineConfig(Config):
    """What every flow shares: the method, the stages' parts and the run folder."""

    model_config = ConfigDict(json_schema_extra=_with_old_name)

    for_pnp_alone: ClassVar[str] = ""
    """What of PnP-OVSS a flow needs that other methods do not have."""

    config_file: Annotated[str | None, NO_SCORE] = None
    """YAML with parts of the configuration, such as best.yaml, a path or any fsspec URL; laid over the preset.

    What is given besides is laid over it; then this is empty again."""
    preset: Annotated[str | None, NO_SCORE] = None
    """Where the parts start from: `authors`, `paper`, `tiny` or `photo`. When empty `photo` (`tiny` for `scenes`), or
    `authors` with other weights.

    What is given besides is laid over it."""
    out: Annotated[str, NO_SCORE]
    """Run folder: a path or any fsspec URL."""
    method: AnyMethod = PnpConfig()
    """How images become maps of classes, and these scores. Told apart by `name`; `pnp-ovss` where nothing is said.
    Settings of that one may also stand under `salience` and `masks`, where they were before there were others."""
    salience: SalienceConfig = SalienceConfig()
    masks: MaskConfig = MaskConfig()
    runtime: Annotated[RuntimeConfig, NO_SCORE] = RuntimeConfig()
    dispatch: Annotated[DispatchConfig, NO_SCORE] = DispatchConfig()

    @model_validator(mode="before")
    @classmethod
    def _lay_over_defaults(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        values = with_method(values)
        if isinstance(file := values.get("config_file"), str) and file:
            values = {**laid_over(read_settings(file), values), "config_file": None}
        method = method_named(values)
        cls._refuse_others(method)
        _refuse_foreign_settings(method, values.get("method"))
        base = method.defaults(values, cls.bundled_for(values))
        base = {part: parts for part, parts in base.items() if part in cls.model_fields}
        return {**merge(merge(base, cls.own_defaults(values, method)), values), "preset": base.get("preset")}

    @classmethod
    def _refuse_others(cls, method: type[MethodConfig]) -> None:
        """A flow that is for PnP-OVSS alone says why."""
        if cls.for_pnp_alone and method is not PnpConfig:
            raise UsageError(f"{cls.for_pnp_alone} only {PNP} has, not {method.own_name()}")

    @classmethod
    def bundled_for(cls, values: dict[str, Any]) -> str:
        """Name of the bundled models for the flow's images."""
        return PHOTO

    @classmethod
    def own_defaults(cls, values: dict[str, Any], method: type[MethodConfig]) -> dict[str, Any]:
        """What this flow lays over the method's defaults before what was given."""
        return {}


def method_named(values: dict[str, Any]) -> type[MethodConfig]:
    """The method that unchecked values, in the form of `with_method`, are of.

    Raises:
        UnknownNameError: there is no such method.
    """
    method = values.get("method", {})
    return method_config(str(method.get("name", PNP)) if isinstance(method, dict) else PNP)


def _refuse_foreign_settings(method: type[MethodConfig], values: Any) -> None:
    """A setting of another method is no slip of the pen."""
    foreign = [key for key in values if key not in method.model_fields] if isinstance(values, dict) else []
    for owner in METHODS if foreign else ():
        if key := next((key for key in foreign if key in method_config(owner).model_fields), None):
            raise UsageError(f"{method.own_name()} has no setting '{key}', which is one of {owner}")


def laid_over(*layers: dict[str, Any]) -> dict[str, Any]:
    """Unchecked values of which the later ones win, in the form of `with_method`.

    >>> laid_over({"salience": {"layer": 7}}, {"method": {"head": 1}}, {"salience": {"layer": 3}})["method"]
    {'layer': 3, 'head': 1}
    """
    values: dict[str, Any] = {}
    for layer in layers:
        values = merge(values, with_method(layer))
    return values


def with_method(values: dict[str, Any]) -> dict[str, Any]:
    """Unchecked values in one form: settings of PnP-OVSS under `method`, also where they stand where they were before.

    >>> with_method({"salience": {"layer": 7, "words": "natural"}, "masks": {"sum": "plain"}})["method"]
    {'layer': 7, 'sum': 'plain'}
    """
    values = dict(values)
    former = values.pop("settings", None)  # as the file was called before
    if former is not None and values.get("config_file") is None:
        values["config_file"] = former
    method = values.get("method", {})
    if isinstance(method, str):
        method = {"name": method}
    elif isinstance(method, MethodConfig):
        method = method.model_dump()
    elif not isinstance(method, dict):
        return values
    for part, names in FORMERLY.items():
        if isinstance(parts := values.get(part), dict):
            own = {key: value for key, value in parts.items() if key in names}
            _refuse_both(part, own, method)
            method = merge(method, own)
            values[part] = {key: value for key, value in parts.items() if key not in names}
    return {**values, "method": method} if method else values


def _refuse_both(part: str, own: dict[str, Any], method: dict[str, Any]) -> None:
    """A setting that stands in both of its places must be the same."""
    for key, value in own.items():
        other = method.get(key)
        if isinstance(value, dict) and isinstance(other, dict):
            _refuse_both(f"{part}.{key}", value, other)
        elif other is not None and other != value:
            name = f"{part}.{key}".partition(".")[2]
            raise UsageError(
                f"{part}.{key} is {value} and method.{name} is {other}, which are one setting: leave one out"
            )


def refuse_other_weights(file: str, kept: dict[str, Any], values: dict[str, Any], prefix: str = "--") -> None:
    """Layer, head and sizes of a file that names its checkpoint mean nothing for another one.

    Args:
        kept: unchecked values of the file, in the form of `with_method`.
        values: those laid over them, in that form too.
        prefix: of the setting's name where it was given.

    Raises:
        UsageError: the weights are others than the file's.
    """
    backbone = "method.backbone"
    made_for, other = value_at(kept, f"{backbone}.checkpoint"), value_at(values, f"{backbone}.checkpoint")
    if None not in (made_for, other) and made_for != other:
        raise UsageError(f"'{file}' was made for checkpoint {made_for}; leave out {prefix}checkpoint {other}")
    name, other = value_at(kept, f"{backbone}.name"), value_at(values, f"{backbone}.name")
    if other is not None and other != (name or ("blip" if made_for else other)):
        raise UsageError(f"'{file}' was made for {name or 'blip'}; leave out {prefix}backbone {other}")


class LabellingConfig(PipelineConfig):
    """What the flows that make masks share."""

    png: Annotated[bool, NO_SCORE] = False
    """Also write every mask as a PNG file."""


class TrackedConfig(Config):
    """What the flows share whose runs can be recorded in a store for experiments."""

    track: Annotated[str | None, NO_RESULT, NO_SCORE] = None
    """Also record the run in a store for experiments: `mlflow:FOLDER`, `mlflow:https://...`, or `mlflow` for the one of
    MLFLOW_TRACKING_URI.

    docs/tracking.md says what is recorded."""


class DatasetConfig(Config):
    """Which pictures of which dataset."""

    dataset: Annotated[str, NO_SCORE] = SCENES
    """Dataset card, such as `voc21` (see `pnp-ovss datasets`), or the path of a card of your own."""
    data: Annotated[str | None, NO_SCORE] = None
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
    def bundled_for(cls, values: dict[str, Any]) -> str:
        """The drawn scenes have models of their own."""
        return TINY if values.get("dataset", SCENES) == SCENES else PHOTO


class EvalConfig(DatasetConfig, LabellingConfig, TrackedConfig):
    """The `eval` flow: label a dataset that has ground truth, and score it."""

    limit: int | None = Field(default=None, ge=1)
    """Number of pictures, from the start of the split; all of it when empty."""
    shards: Annotated[int | None, NO_SCORE] = Field(default=None, ge=1)
    """Number of shards the pictures are spread over; one per 64 pictures, at least 8, when empty."""
    score: ScoreConfig = ScoreConfig()

    @classmethod
    def recorded(cls, values: dict[str, Any]) -> EvalConfig:
        """A configuration that was kept: what it lacks is newer, and was at its default whatever the preset says now.

        Raises:
            ValidationError: it is not one of `eval`.
        """
        values = with_method(values)
        before = {"salience": SalienceConfig(), "masks": MaskConfig(), "method": method_named(values).model_construct()}
        base: dict[str, Any] = {part: config.model_dump() for part, config in before.items()}
        base["salience"]["candidates"]["view"] = "centre"  # the one that there was
        return cls.model_validate(merge(base, values))

    @property
    def title(self) -> str:
        """Name of a run, for people."""
        return visible("-".join(str(part) for part in (self.dataset, self.split, self.limit) if part is not None))


TableName = Literal["ablation", "iterations", "strategies", "thresholds", "resolutions", "layers", "subsets"]


class AblateConfig(EvalConfig):
    """The `ablate` flow: evaluate a dataset with the settings that tables are made of."""

    for_pnp_alone: ClassVar[str] = "ablate varies parts that"

    method: PnpConfig = PnpConfig()  # pyright: ignore[reportIncompatibleVariableOverride]
    """Only `pnp-ovss` has the parts that the tables vary."""
    tables: tuple[TableName, ...] = ("ablation", "iterations", "thresholds")
    """Tables whose settings are evaluated: `ablation`, `iterations`, `strategies`, `thresholds`, `resolutions`,
    `layers`, `subsets`.

    The default ones need little new salience; docs/tables.md says how many settings each has."""

    @property
    def base(self) -> EvalConfig:
        """What the settings vary; recorded as one run together, not by itself."""
        return EvalConfig.model_validate(self.model_dump(exclude={"tables", "track"}))


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


class OwnImagesConfig(LabellingConfig):
    """What the flows share that label a user's own pictures."""

    source: str
    """Folder of pictures (recursive), a picture, a .txt list of paths or URLs, a .parquet with an image column, or
    tars ('x/*.tar'); local or any fsspec URL."""
    classes: Classes = Field(min_length=1)
    """Class names; mask value 0 is background, i the i-th name. Or a file of them (.txt, .csv, .yaml) with prompts, ids
    and colours; or `@voc21` for those of a dataset card (docs/classes.md)."""
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
    def own_defaults(cls, values: dict[str, Any], method: type[MethodConfig]) -> dict[str, Any]:
        """A corpus has no image-level labels, and a class that is absent would claim pixels all the same."""
        source = "itm" if method.matches else "vocabulary"
        return {"salience": {"candidates": {"source": source, "fallback": "background"}}}


class LabelConfig(OwnImagesConfig, TrackedConfig):
    """The `label` flow: masks for a user's own pictures."""

    image_column: str | None = None
    """Column of a Parquet source that holds the pictures; found by itself when only one fits."""
    redo: Literal["accepted", "rejected", "open"] | None = None
    """Label pictures of a finished run anew: the source is its run folder, of which those are taken that are
    `rejected`, `accepted` or `open` in its report.

    Its masks stay as they are; the new ones go to a run folder of their own."""
    review: str | None = None
    """Of `redo`: decisions of this file, and not of the run's report/review.json; a path or any fsspec URL."""


class CorpusConfig(OwnImagesConfig):
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
