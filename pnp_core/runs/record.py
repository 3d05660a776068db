"""The record of a run, `run.json`, and its scores, `scores.json`: what they hold, and how they are read.

`recording` writes them. Whoever reads them gets attributes, or one line that says what is wrong with the file.
Keys that are not known here are of a newer version, or of no interest to readers: they are ignored, since a key that
is added changes the meaning of none that is there. Where an unknown setting could change what a score is of, its
reader checks `config` against the configuration itself (`pnp_core.tables`).
"""

from __future__ import annotations

from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from pnp_core.errors import CorruptRunError
from pnp_core.storage.run_folder import RunFolder

RUN, SCORES = "run.json", "scores.json"
EVALUATIONS = "evaluations"
"""Folder with record and scores of every setting that was scored on the pictures of a run folder."""


class _Part(BaseModel):
    """A part of a record."""

    model_config = ConfigDict(frozen=True, extra="ignore", use_attribute_docstrings=True)


class _OpenPart(_Part):
    """A part of which the record keeps more than readers look at."""

    model_config = ConfigDict(extra="allow")


class ModelShape(_Part):
    """Cross-attention layers and heads of the model."""

    layers: int
    heads: int


class CardFacts(_Part):
    """What tables need of the dataset card, so that they need no card."""

    name: str
    version: int
    split: str
    images: int | None
    """In the whole split, where the card says so."""
    listed: int | None = None
    """Of these the ones that were there, where a class subset left some out."""
    renamed: int = 0
    """Classes that the authors' code calls otherwise in captions."""
    default_split: str
    subsets: dict[str, tuple[str, ...]]


class MemberFacts(_Part):
    """A finished run that an ensemble puts together, or that proposals are from."""

    run: str
    """Its folder, as the ensemble was given it."""
    method: str
    salience: str
    """Fingerprint of its maps."""
    masks: str
    """Of the masks that it stands for."""
    revision: str
    """Names its maps as they were read, and all that scores are made by."""


class SettingFacts(_Part):
    """What a score depends on besides the configuration, and what the settings around it can be made from."""

    weights_revision: str
    model: ModelShape | None
    """Of a method that chooses among them."""
    card: CardFacts | None
    """Of an evaluation."""
    stages: dict[str, int]
    """Versions of the stages."""


class RecordedMasks(_OpenPart):
    """What readers need of the masks stage's configuration."""

    confidence: bool


class RecordedConfig(_OpenPart):
    """The configuration of whatever flow it was; each has more than is named here."""

    masks: RecordedMasks


class Fingerprints(_Part):
    """Names of the stages' folders."""

    salience: str
    masks: str
    scores: str | None


class RecordedSummary(_OpenPart):
    """What readers need of what the run said at its end."""

    images: int
    labelled: int
    quarantined: int
    failed: int
    masks: str
    miou: float | None = None
    """Share in [0, 1]; of an evaluation."""


class RunRecord(SettingFacts):
    """What a run was given, what made it, what came out."""

    config: RecordedConfig
    versions: dict[str, str]
    commit: str | None
    classes: tuple[str, ...]
    """Names of the labels 1, 2 ..."""
    ids: tuple[int, ...] | None = None
    """What these labels are in masks, 0 of queries for background; the labels themselves when None."""
    palette: tuple[Annotated[str, Field(pattern="^#[0-9a-f]{6}$")], ...]
    """Colours of the labels 0, 1 ..., whatever they are in masks."""
    fingerprints: Fingerprints
    evaluation: str | None
    """Name of its folder in `evaluations`, where it was scored."""
    device: str | None
    memory: dict[str, int] | None
    """Most bytes at a time: `host`, and `device` of a GPU; None where others did the work."""
    rates: dict[str, float | None]
    """Pictures per second by stage; None where nothing was measured."""
    summary: RecordedSummary
    runs: tuple[MemberFacts, ...] = ()
    """Of an ensemble the finished runs that it puts together, of `classify` the one that proposals are from; others
    have none in their records."""

    @model_validator(mode="after")
    def _a_colour_for_each_label(self) -> RunRecord:
        if len(self.palette) != len(self.classes) + 1:
            raise ValueError(f"{len(self.palette)} colours for background and {len(self.classes)} classes")
        if self.ids is not None and len(self.ids) != len(self.classes):
            raise ValueError(f"{len(self.ids)} ids of {len(self.classes)} classes")
        return self

    def as_json(self) -> dict[str, Any]:
        """As it is written."""
        return self.model_dump(mode="json", exclude_unset=True)


class EvaluationRecord(RunRecord):
    """The record of a run that was scored."""

    # Frozen, so that a narrower type is one; type checkers do not see that.
    card: CardFacts  # pyright: ignore[reportIncompatibleVariableOverride]
    evaluation: str  # pyright: ignore[reportIncompatibleVariableOverride]


class RecordedScores(_Part):
    """What readers need of an evaluation's scores."""

    miou: float | None
    """Share in [0, 1]."""
    images_scored: int


Record = TypeVar("Record", bound=BaseModel)


def read_record(run: RunFolder, file: str = RUN) -> RunRecord | None:
    """The record of a run, None where there is none.

    Raises:
        CorruptRunError: it is damaged, of another program or of a version that kept other things.
    """
    return _read(run, file, RunRecord)


def read_evaluation(run: RunFolder, folder: str) -> tuple[EvaluationRecord, RecordedScores | None]:
    """Record and scores of an evaluation; None where the scores are lost.

    Raises:
        CorruptRunError: they are damaged, of another program or of a version that kept other things.
    """
    record = _read(run, f"{folder}/{RUN}", EvaluationRecord)
    if record is None:
        raise CorruptRunError(f"'{run.path(f'{folder}/{RUN}')}' is missing")
    return record, _read(run, f"{folder}/{SCORES}", RecordedScores)


def _read(run: RunFolder, file: str, kind: type[Record]) -> Record | None:
    if not run.exists(file):
        return None
    try:
        return kind.model_validate_json(run.read(file))
    except ValidationError as error:
        raise unfit(run, file, error) from error


def unfit(run: RunFolder, file: str, error: ValidationError) -> CorruptRunError:
    """What is wrong with a file, in one line."""
    faults = error.errors(include_url=False, include_input=False)
    missing = [".".join(map(str, fault["loc"])) for fault in faults if fault["type"] == "missing"]
    first = faults[0]
    place = ".".join(map(str, first["loc"]))
    what = f"it lacks {', '.join(missing)}" if missing else f"{place}{': ' if place else ''}{first['msg']}"
    return CorruptRunError(
        f"'{run.path(file)}' is damaged or was made by another version ({' '.join(what.split())}); run the command "
        f"that made it again"
    )
