"""Configuration of the flows, composed of the rooms' own parts.

Each stage gets only its own part, so a changed CRF leaves stored salience valid. What changes
how fast (`RuntimeConfig`) is kept apart and enters no fingerprint.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import ConfigDict, Field, model_validator

from pnp_core.bundled import PHOTO, SCENES, TINY
from pnp_core.errors import UsageError
from pnp_core.frozen import NO_SCORE, Config, merge
from pnp_core.masks.config import MaskConfig
from pnp_core.methods import METHODS, AnyMethod
from pnp_core.methods.base import PNP, MethodConfig
from pnp_core.methods.pnp.config import PnpConfig
from pnp_core.stages.config import DispatchConfig, RuntimeConfig, SalienceConfig, ScoreConfig
from pnp_core.storage.settings import read_settings
from pnp_core.text.visible import visible


def _with_old_name(schema: dict[str, Any]) -> None:
    """`config_file` as it was called before, for deployments that name it."""
    schema["properties"]["settings"] = {**schema["properties"]["config_file"], "deprecated": True}


class PipelineConfig(Config):
    """What every flow shares: the method, the stages' parts and the run folder."""

    model_config = ConfigDict(json_schema_extra=_with_old_name)

    for_pnp_alone: ClassVar[str] = ""
    """What of PnP-OVSS a flow needs that other methods do not have."""

    config_file: Annotated[str | None, NO_SCORE] = None
    """YAML with parts of the configuration, such as best.yaml, a path or any fsspec URL; laid over the preset.

    What is given besides is laid over it; then this is empty again."""
    preset: Annotated[Literal["authors", "paper", "tiny", "photo"] | None, NO_SCORE] = None
    """Where the parts start from: `authors`, `paper`, `tiny` or `photo`. When empty `photo` (`tiny` for `scenes`), or
    `authors` with other weights.

    What is given besides is laid over it."""
    out: Annotated[str, NO_SCORE]
    """Run folder: a path or any fsspec URL."""
    method: AnyMethod = PnpConfig()
    """How images become maps of classes, and these scores. Told apart by `name`; `pnp-ovss` where nothing is said.
    Its settings may also stand under `salience` and `masks`, where they were before there was more than one."""
    salience: SalienceConfig = SalienceConfig()
    masks: MaskConfig = MaskConfig()
    runtime: Annotated[RuntimeConfig, NO_SCORE] = RuntimeConfig()
    dispatch: Annotated[DispatchConfig, NO_SCORE] = DispatchConfig()

    @model_validator(mode="before")
    @classmethod
    def _lay_over_defaults(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        if file := with_method(values).get("config_file"):
            values = {**laid_over(read_settings(file), values), "config_file": None}
        values = laid_over(values)
        method = method_named(values)
        cls._refuse_others(method)
        _refuse_foreign_settings(method, values.get("method"))
        base = method.defaults(values, cls.bundled_for(values))
        base = {part: parts for part, parts in base.items() if part in cls.model_fields}
        return {**merge(merge(base, cls.own_defaults(values, method)), values), "preset": base.get("preset")}

    @classmethod
    def _refuse_others(cls, method: type[MethodConfig]) -> None:
        """A flow that is for PnP-OVSS alone says why."""
        name = method.model_fields["name"].default
        if cls.for_pnp_alone and name != PNP:
            raise UsageError(f"{cls.for_pnp_alone} only {PNP} has, not {name}")

    @classmethod
    def bundled_for(cls, values: dict[str, Any]) -> str:
        """Name of the bundled models for the flow's images."""
        return PHOTO

    @classmethod
    def own_defaults(cls, values: dict[str, Any], method: type[MethodConfig]) -> dict[str, Any]:
        """What this flow lays over the method's defaults before what was given."""
        return {}


def method_named(values: dict[str, Any]) -> type[MethodConfig]:
    """The method that unchecked values are of.

    Raises:
        UnknownNameError: there is no such method.
    """
    method = values.get("method")
    return METHODS.get(str(method.get("name", PNP)) if isinstance(method, dict) else getattr(method, "name", PNP))


def _refuse_foreign_settings(method: type[MethodConfig], values: Any) -> None:
    """A setting of another method is no slip of the pen."""
    for key in values if isinstance(values, dict) else ():
        owner = next((name for name in METHODS if key in METHODS.get(name).model_fields), None)
        if key not in method.model_fields and owner:
            raise UsageError(f"{method.model_fields['name'].default} has no setting '{key}', which is one of {owner}")


def laid_over(*layers: dict[str, Any]) -> dict[str, Any]:
    """Unchecked values of which the later ones win, in the form of `with_method`; a later method drops what was said
    of another before.

    >>> laid_over({"salience": {"layer": 7}}, {"method": {"head": 1}}, {"salience": {"layer": 3}})["method"]
    {'name': 'pnp-ovss', 'layer': 3, 'head': 1}
    """
    named = [name for layer in layers if (name := _method_said(layer))]
    values: dict[str, Any] = {}
    for layer in layers:
        own = with_method(layer, named[-1] if named else PNP)
        if _method_said(layer) not in (None, *named[-1:]):
            own.pop("method")
        values = merge(values, own)
    return values


def _method_said(values: dict[str, Any]) -> str | None:
    """The method that unchecked values name."""
    method = values.get("method")
    said = method if isinstance(method, str) else method.get("name") if isinstance(method, dict) else None
    return said if isinstance(said, str) else None


def with_method(values: dict[str, Any], usual: str = PNP) -> dict[str, Any]:
    """Unchecked values in one form: the method's settings under `method`, wherever they stand, with its name.

    Args:
        usual: the method where they name none.

    >>> with_method({"salience": {"layer": 7, "words": "natural"}, "masks": {"sum": "plain"}})["method"]
    {'name': 'pnp-ovss', 'layer': 7, 'sum': 'plain'}
    """
    values = dict(values)
    if "settings" in values:  # as the file was called before
        values.setdefault("config_file", values.pop("settings"))
    if isinstance(given := values.get("method"), str):
        values["method"] = {"name": given}
    if not isinstance(values.get("method", {}), dict):
        return values
    name = _method_said(values) or usual
    fields, moved = METHODS.get(name).model_fields, {}
    for part, kind in (("salience", SalienceConfig), ("masks", MaskConfig)):
        if isinstance(parts := values.get(part), dict):
            own = {key for key in parts if key in fields and key not in kind.model_fields}
            moved |= {key: parts[key] for key in parts if key in own}
            values[part] = {key: value for key, value in parts.items() if key not in own}
    if moved or values.get("method"):
        values["method"] = {"name": name, **merge(values.get("method") or {}, moved)}
    return values


class LabellingConfig(PipelineConfig):
    """What the flows that make masks share."""

    png: Annotated[bool, NO_SCORE] = False
    """Also write every mask as a PNG file."""


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


class EvalConfig(DatasetConfig, LabellingConfig):
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
        return cls.model_validate(merge({part: config.model_dump() for part, config in before.items()}, values))

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


class OwnImagesConfig(LabellingConfig):
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
    def own_defaults(cls, values: dict[str, Any], method: type[MethodConfig]) -> dict[str, Any]:
        """A corpus has no image-level labels, and a class that is absent would claim pixels all the same."""
        source = "itm" if method.matches else "vocabulary"
        return {"salience": {"candidates": {"source": source, "fallback": "background"}}}


class LabelConfig(OwnImagesConfig):
    """The `label` flow: masks for a user's own pictures."""

    image_column: str | None = None
    """Column of a Parquet source that holds the pictures; found by itself when only one fits."""


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
