"""Configuration: frozen models, one per flow and one part per stage.

Each stage gets only its own part, so a changed CRF leaves stored salience valid. What changes
how fast (`RuntimeConfig`) is kept apart and enters no fingerprint.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from pnp_core.presets import BUNDLED, PHOTO, TINY, for_backbone, merge, preset, read_settings
from pnp_core.text.visible import visible


class Config(BaseModel):
    """Base of all configuration: immutable, unknown keys refused."""

    # Defaults are validated too: a default 3 of a float is 3.0 as in a file, and both have one fingerprint.
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, validate_default=True)


Words = Literal["natural", "authors"]
SCENES = "scenes"
"""Dataset of drawn scenes."""
LEAST_SIDE, MOST_SIDE = 16, 2048
"""Of what a picture is squashed to, in model pixels."""
Side = Annotated[int, Field(ge=LEAST_SIDE, le=MOST_SIDE)]


class BackboneConfig(Config):
    """Which vision-language model, which weights."""

    name: str = "blip"
    """Kind of model: `albef`, `blip`, `bridgetower`, `mplug`, `photo`."""
    checkpoint: str = TINY
    """`photo` or `tiny` (bundled: for photographs, for drawn scenes), a local folder, or a hub id such as
    `Salesforce/blip-itm-large-flickr`."""
    revision: str | None = None
    """Commit of a hub checkpoint; the newest when empty. The resolved one is in the fingerprint."""
    image_size: Side | tuple[Side, Side] = 96
    """What a picture is squashed to, in model pixels: side, or height and width; multiples of the patch size."""
    heads: int | None = Field(default=None, ge=1)
    """Cross-attention heads the checkpoint must have; a check against wrongly exported configs."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Precision of the image encoder. The text encoder and its gradient always run in float32."""

    @property
    def sides(self) -> tuple[int, int]:
        """Height and width in model pixels.

        >>> BackboneConfig(image_size=96).sides, BackboneConfig(image_size=(64, 96)).sides
        ((96, 96), (64, 96))
        """
        return self.image_size if isinstance(self.image_size, tuple) else (self.image_size, self.image_size)


class CaptionConfig(Config):
    """How class names become captions (paper section 3.1)."""

    template: str = "A picture of {}"
    """The caption; `{}` stands for the class name, or for all names separated by spaces."""
    mode: Literal["joint", "per_class"] = "joint"
    """`joint`: one caption with all candidate classes, as in the paper; `per_class`: one each."""
    overlong: Literal["chunk", "error"] = "chunk"
    """A joint caption over the text encoder's limit is split into several, or refused."""

    @model_validator(mode="after")
    def _one_slot(self) -> CaptionConfig:
        if self.template.count("{}") != 1:
            raise ValueError(f"caption template needs exactly one {{}}: {self.template!r}")
        return self


class DropoutConfig(Config):
    """Salience DropOut (paper section 3.3)."""

    iterations: int = Field(default=4, ge=1, le=32)
    """Forward passes K; 1 means no DropOut."""
    strategy: Literal["count", "fraction", "mass"] = "count"
    """What `amount` means: patches, share of the patches left, share of the salience left."""
    amount: float = Field(default=10, gt=0)
    """Patches (count) or share in (0, 1) (fraction, mass) dropped after each pass but the last."""

    @model_validator(mode="after")
    def _amount_fits_strategy(self) -> DropoutConfig:
        if self.strategy == "count" and self.amount != int(self.amount):
            raise ValueError(f"dropout amount {self.amount} must be a whole number of patches")
        if self.strategy != "count" and self.amount >= 1:
            raise ValueError(f"dropout amount {self.amount} must be a share below 1 for {self.strategy}")
        return self


class ClipConfig(Config):
    """A CLIP model of open_clip."""

    model: str = "ViT-B-16"
    """Model name, `tiny` (bundled), or `local-dir:PATH` of a folder with open_clip_config.json and weights."""
    pretrained: str | None = "openai"
    """Pretrained tag or weights file; ignored for `local-dir:`."""
    template: str = "a photo of a {}"
    """The caption; `{}` stands for the class name."""


class CandidatesConfig(Config):
    """Which classes go into a picture's caption (ALGORITHM section 5)."""

    source: str = "labels"
    """`labels` (image-level labels of the dataset), `vocabulary` (every class), `file` (a table or answers
    per picture), `itm` (the backbone's own match score), `clip` (zero-shot CLIP)."""
    file: str | None = None
    """For `file`: JSON, JSON Lines, CSV or Parquet, a path or any fsspec URL."""
    min_score: float | None = Field(default=None, ge=0, lt=1)
    """Classes must score above this; each source has a default of its own."""
    top_k: int | None = Field(default=None, ge=1)
    """At most this many classes, the best ones."""
    fallback: Literal["best", "first", "background", "none"] = "best"
    """When no class scores enough: the best one, the first class of the vocabulary (authors), a mask of
    background alone, or quarantine the picture."""
    clip: ClipConfig = ClipConfig()

    @model_validator(mode="after")
    def _file_fits_source(self) -> CandidatesConfig:
        if (self.source == "file") != (self.file is not None):
            raise ValueError("candidates from a file need both source 'file' and the file (--candidates-file FILE)")
        return self


class SalienceConfig(Config):
    """The salience stage: picture and class names to one map per class and drop iteration."""

    backbone: BackboneConfig = BackboneConfig()
    max_pixels: int = Field(default=100_000_000, ge=1, le=178_956_970)
    """Pictures with more pixels are quarantined."""
    candidates: CandidatesConfig = CandidatesConfig()
    caption: CaptionConfig = CaptionConfig()
    words: Words = "natural"
    """How captions call the classes of a dataset card: in natural words ("potted plant"), or in those of the authors'
    code where the card has them ("pottedplant")."""
    dropout: DropoutConfig = DropoutConfig()
    layer: int = Field(default=0, ge=0)
    """Cross-attention layer, counted from 0."""
    head: int = Field(default=0, ge=0)
    """Head of that layer, counted from 0."""
    kind: Literal["gradcam", "attention"] = "gradcam"
    """Attention x ReLU of the gradient of the match logit, or the attention alone (ablation)."""


class CrfConfig(Config):
    """Dense CRF (Kraehenbuehl and Koltun 2011), parameters as in the authors' code."""

    name: str = "dense"
    """`dense` (pydensecrf), `torch` (the same as tensors, on a GPU where there is one) or `off` (softmax only)."""
    iterations: int = Field(default=10, ge=1)
    gaussian_sxy: float = Field(default=3, gt=0)
    """Position bandwidth of the smoothness term, image pixels."""
    gaussian_compat: float = Field(default=7, ge=0)
    bilateral_sxy: float = Field(default=50, gt=0)
    """Position bandwidth of the appearance term, image pixels."""
    bilateral_srgb: float = Field(default=5, gt=0)
    """Colour bandwidth of the appearance term, 0..255 units."""
    bilateral_compat: float = Field(default=10, ge=0)


class MaskConfig(Config):
    """The masks stage: salience to label map (ALGORITHM section 4)."""

    passes: int | None = Field(default=None, ge=1)
    """Use only the first so many drop iterations of the stored salience; all of them when empty. They are the same
    however many follow, so fewer need no new salience."""
    sum: Literal["plain", "first_twice"] = "plain"
    """How the drop iterations' maps add up; the authors' code counts the first twice."""
    threshold: float = Field(default=0.15, ge=0, lt=1)
    """On the min-max of each class map; salience below it is cut to 0."""
    ties: Literal["cut", "keep"] = "cut"
    """Salience exactly at the threshold: cut to 0 too, or kept as in the authors' code."""
    blur: float = Field(default=0.05, ge=0, le=1)
    """Gaussian sigma as a share of max(H, W); 0 is off."""
    background: Literal["auto", "always", "few", "never"] = "auto"
    """Background channel: always (object data), when fewer than 3 candidates (scene data), never.
    `auto` follows the dataset card."""
    crf: CrfConfig = CrfConfig()
    max_side: int = Field(default=2048, ge=64)
    """Longer pictures are refined at this size (blur and CRF take memory by pixels and classes); their
    masks are brought to the picture's own size by nearest neighbour."""
    confidence: bool = False
    """Also store the per-pixel probability of the winning class as a PNG, 0..255."""

    def facts(self) -> dict[str, Any]:
        """What masks depend on; `ties`, newer than the first masks, only where it is not what those were made with."""
        return self.model_dump(exclude={"ties"} if self.ties == "cut" else None)


class ScoreConfig(Config):
    """The score stage (ALGORITHM section 7)."""

    void_as_background: bool = False
    """Count pixels labelled 255 as background instead of leaving them out (authors' VOC script)."""
    mean: Literal["present", "union"] = "present"
    """mIoU over the classes in the ground truth, or over all with a union (mmseg convention)."""


class RuntimeConfig(Config):
    """Where and how fast. Changes nothing but the rounding of sums, enters no fingerprint."""

    device: str = "auto"
    """`auto` (the first GPU, else the CPU), `cpu`, `cuda`, `cuda:1`, `mps` ..."""
    batch_size: int = Field(default=16, ge=1)
    """Pictures per forward pass."""
    threads: int | None = Field(default=None, ge=1)
    """Threads of torch on the CPU, in every process that works for the run. When empty as many as torch takes by
    itself where the run is started: another number would change last bits."""


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


class PipelineConfig(Config):
    """What every flow shares: the stages' parts and the run folder."""

    settings: str | None = None
    """YAML file with parts of the configuration, such as a tuning run's best.yaml: a path or any fsspec URL.
    It is laid over the preset, and what is given besides over it; then this is empty again."""
    preset: Literal["authors", "paper", "tiny", "photo"] | None = None
    """Where the parts start from; what is given besides is laid over it. When empty that of the bundled model (`tiny`
    for the dataset `scenes`, `photo` for anything else), or `authors` where other weights are given."""
    out: str
    """Run folder: a local path or any fsspec URL."""
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
    """Dataset card, see `datasets/`; or the path of a card of your own."""
    data: str | None = None
    """Folder of the dataset as distributed: an absolute path or any fsspec URL."""
    split: str | None = None
    """The card's own choice when empty: its first split, for tuning its `tuning_split`."""
    ground_truth: str | None = None
    """Which of the card's forms of ground truth; the first on disk when empty."""
    image_labels: Literal["masks", "boxes"] | None = None
    """Where `candidates: labels` takes the classes of a picture from. When empty `eval` takes masks, `tune` boxes
    where there are some; of masks it uses the set of classes alone."""
    only_classes: tuple[str, ...] = ()
    """These classes only, on the pictures that have one of them. Pixels of other classes count as
    background, or are not scored where the card has no background."""

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
    """Which tables' settings are evaluated; see docs/tables.md for how many each has."""

    @property
    def base(self) -> EvalConfig:
        """What the settings vary."""
        return EvalConfig.model_validate(self.model_dump(exclude={"tables"}))


class TablesConfig(Config):
    """The `tables` flow: benchmark tables from finished runs."""

    runs: tuple[str, ...] = Field(min_length=1)
    """Run folders of `eval` and `ablate`: paths or any fsspec URLs."""
    out: str
    """Folder for the tables: a local path or any fsspec URL."""

    @property
    def title(self) -> str:
        """Name of a run, for people."""
        return visible(self.out)


class OwnPicturesConfig(LabellingConfig):
    """What the flows share that label a user's own pictures."""

    source: str
    """A folder of pictures (recursive), one picture, a text file of paths or URLs, a Parquet file with an
    image column, or webdataset tars; local or any fsspec URL."""
    classes: tuple[str, ...] = Field(min_length=1)
    """Class names. Mask value 0 is background, i the i-th name."""
    follow_links: bool = False
    """Of a folder: also take what links lead to outside of it. Otherwise such links are passed over and counted."""
    exclude: tuple[str, ...] = ()
    """Of a folder, a list or tars: patterns of paths, or of names of files and folders, to leave out. `*` stands for
    anything."""
    fetch_seconds: float = Field(default=30, gt=0)
    """Limit for each picture on another machine. Those that did not come in time are asked for once more at the end,
    and then quarantined; of a corpus they are asked for again in the next run."""
    images_per_shard: int = Field(default=64, ge=1)

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
    """Column of a Parquet source; found by itself when there is only one that fits."""


class CorpusConfig(OwnPicturesConfig):
    """The `corpus` flow: masks for what is new or changed in a folder that grows; `source` is one, or a bucket."""

    settle: float = Field(default=60, ge=0)
    """Seconds a file must have been left alone before it is read: one still being written waits for the next run."""
    images_per_batch: int = Field(default=10_000, ge=1)
    """Pictures that are labelled and published together; a run goes on with the next batch until none is left."""
    check: Literal["digests", "sizes"] = "digests"
    """What is looked at of the masks published before, of which the damaged ones are made again: all of them is read,
    or of each file the size alone, for buckets where reading is dear."""
    allow_empty: bool = False
    """Publish that no picture is left of a corpus that held some; else an error, as of a disk that is not mounted."""
