"""The review of a run, `report/review.json`: what a person decided on its masks.

It is a person's work and no result: it is in no ledger, no command deletes it or makes it again. What lies there comes
from a browser or from anybody, so all of it is bounded and checked, and it is of one run: keys of another one mean
other masks.
"""

from __future__ import annotations

from collections.abc import Container, Iterator
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import Field, ValidationError, field_validator

from pnp_core.errors import CorruptRunError, ForeignFilesError, OutputError, UsageError
from pnp_core.frozen import Config
from pnp_core.runs.record import RunRecord, read_record
from pnp_core.stages.masks import STAGE as MASKS
from pnp_core.storage.completion import StageFolder
from pnp_core.storage.files import Files
from pnp_core.storage.run_folder import RunFolder, fingerprint
from pnp_core.storage.seals import json_bytes
from pnp_core.storage.shards import read_identity, read_refs

REVIEW = "report/review.json"
REVIEW_BYTES = 32_000_000
"""A larger file is not read."""
MOST_TAGS, TAG_LENGTH, NOTE_LENGTH = 20, 40, 2000
Decision = Literal["accepted", "rejected"]
State = Literal["accepted", "rejected", "open"]
"""What became of a mask; `open` without a decision."""
STATES: tuple[State, ...] = get_args(State)

Key = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,200}$")]
Tag = Annotated[str, Field(min_length=1, max_length=TAG_LENGTH)]


class Verdict(Config):
    """What was decided on one mask."""

    decision: Decision | None = None
    """None where it was taken back, or was never made."""
    tags: tuple[Tag, ...] = Field(default=(), max_length=MOST_TAGS)
    note: str = Field(default="", max_length=NOTE_LENGTH)
    time: str = Field(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{3}Z$")
    """When it was last changed (UTC): of two verdicts on a mask the later one holds."""

    @field_validator("time")
    @classmethod
    def _a_time(cls, value: str) -> str:
        datetime.fromisoformat(value)
        return value


class Review(Config):
    """The verdicts on the masks of one run."""

    format: Literal[1] = 1
    run: str = Field(pattern="^[0-9a-f]{16}$")
    """See `review_id`."""
    pictures: dict[Key, Verdict] = {}
    """By the key of the picture."""

    def keys(self, state: Decision) -> frozenset[str]:
        """Of the masks that were so decided on."""
        return frozenset(key for key, verdict in self.pictures.items() if verdict.decision == state)

    def state_of(self, key: str) -> State:
        """Of a mask, whether it is in the review or not."""
        verdict = self.pictures.get(key)
        return (verdict and verdict.decision) or "open"

    def of(self, keys: Container[str]) -> Review:
        """What it says of some masks alone."""
        return self.model_copy(update={"pictures": {key: self.pictures[key] for key in self.pictures if key in keys}})

    def updated(self, other: Review) -> Review:
        """With the verdicts of another review where those are later, or as late."""
        later = {
            key: verdict
            for key, verdict in other.pictures.items()
            if key not in self.pictures or verdict.time >= self.pictures[key].time
        }
        return self.model_copy(update={"pictures": {**self.pictures, **later}})

    def as_bytes(self) -> bytes:
        """As it is written."""
        return json_bytes(self.model_dump(mode="json"))


def review_id(run: RunFolder, masks: str) -> str:
    """Names the masks that a review is of: those of one setting, of one source.

    A picture that is added later changes it not, so that a review lives on when a folder is labelled again.

    Args:
        masks: fingerprint of the masks.
    """
    return fingerprint("review", masks, read_identity(run))


def finished_record(run: RunFolder) -> RunRecord:
    """The record of a run that can be reviewed.

    Raises:
        UsageError: there is none.
        CorruptRunError: it is damaged.
    """
    if (record := read_record(run)) is None:
        raise UsageError(f"'{run.url}' holds no finished run of eval or label, which a review is of")
    return record


def parse_review(data: bytes, place: str) -> Review:
    """A review of unknown origin.

    Args:
        place: where it is from, for an error.

    Raises:
        UsageError: it is none.
    """
    if len(data) > REVIEW_BYTES:
        raise UsageError(f"{place} has more than {REVIEW_BYTES:,} bytes, and a review never has")
    try:
        return Review.model_validate_json(data)
    except ValidationError as error:
        fault = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, fault["loc"]))[:200]
        what = " ".join(f"{where}{': ' if where else ''}{fault['msg']}".split())
        raise UsageError(f"{place} is no review that can be read ({what}): move it away, or save it anew") from error


def read_review(run: RunFolder, record: RunRecord, file: str | None = None) -> Review:
    """The review of a run; what it says of pictures without a mask, that may be gone since, is passed over.

    Args:
        record: of the run.
        file: another file than the run's own: a path or any fsspec URL.

    Raises:
        UsageError: it is missing, is no review, or is of another run.
    """
    place = run.path(REVIEW) if file is None else file
    data = _content(run, REVIEW) if file is None else _content(Files(file), "")
    if data is None:
        raise UsageError(
            f"'{place}' is missing: decide in the report (`pnp-ovss view {run.url}`), or name a saved file with "
            f"--review"
        )
    review = parse_review(data, f"'{place}'")
    require_of(review, review_id(run, record.fingerprints.masks), f"'{place}'", run)
    return review.of(masked_keys(run, record))


def require_of(review: Review, identifier: str, place: str, run: RunFolder) -> None:
    """Find out whether a review is of a run.

    Raises:
        UsageError: it is of another one.
    """
    if review.run != identifier:
        raise UsageError(
            f"{place} is the review of another run ({review.run}), not of '{run.url}' ({identifier}): other settings "
            f"or another source made its masks; name the right one, or move it away"
        )


def masked_keys(run: RunFolder, record: RunRecord) -> frozenset[str]:
    """Keys of the pictures that a run has masks of."""
    return frozenset(row["key"] for table in rows_of(run, record, ["key"]) for row in table)


def rows_of(run: RunFolder, record: RunRecord, columns: list[str]) -> Iterator[list[dict[str, Any]]]:
    """Columns of the masks' tables of a run, by the shard."""
    masks = StageFolder(run, MASKS, record.fingerprints.masks)
    for shard in read_refs(run):
        if masks.record(shard.name):
            yield masks.read_table(shard.name, "parquet", columns).to_pylist()


def count_states(run: RunFolder, record: RunRecord, review: Review) -> dict[str, dict[State, int]]:
    """Of each class in how many accepted, rejected and open masks it is; of all masks under the empty name."""
    names = dict(zip(record.ids or range(1, len(record.classes) + 1), record.classes, strict=True))
    counts: dict[str, dict[State, int]] = {name: dict.fromkeys(STATES, 0) for name in ("", *record.classes)}
    for table in rows_of(run, record, ["key", "classes"]):
        for row in table:
            state = review.state_of(row["key"])
            counts[""][state] += 1
            for entry in row["classes"]:
                counts[names[entry["id"]]][state] += entry["pixels"] > 0
    return counts


def saved_review(run: RunFolder, identifier: str) -> Review:
    """The review that lies in a run folder, an empty one where there is none.

    Raises:
        ForeignFilesError: what lies there is no review, or one of another run, or a link: it is left as it is.
    """
    try:
        if (data := _content(run, REVIEW)) is None:
            return Review(run=identifier)
        review = parse_review(data, f"'{run.path(REVIEW)}'")
        require_of(review, identifier, f"'{run.path(REVIEW)}'", run)
    except UsageError as error:
        raise ForeignFilesError(str(error)) from error
    return review


def save_review(run: RunFolder, review: Review) -> None:
    """Write the review of a run into its folder, in one step.

    Raises:
        ForeignFilesError: its place is a link.
        OutputError: it cannot be written.
    """
    _refuse_links(run, REVIEW)
    data = review.as_bytes()
    if len(data) > REVIEW_BYTES:
        raise OutputError(f"the review has more than {REVIEW_BYTES:,} bytes: shorten its notes")
    run.put(REVIEW, data)


def stays_in(files: Files, relative: str) -> bool:
    """Whether a file of a folder lies in it, after all links."""
    if not files.local:
        return True
    return Path(files.path(relative)).resolve().is_relative_to(Path(files.root).resolve())


def _refuse_links(files: Files, relative: str) -> None:
    if relative and (not stays_in(files, relative) or (files.local and Path(files.path(relative)).is_symlink())):
        raise ForeignFilesError(f"'{files.path(relative)}' is or leads through a link: move it away")


def _content(files: Files, relative: str) -> bytes | None:
    """Of a file that is small enough; None where there is none."""
    _refuse_links(files, relative)
    size = files.size(relative)
    if size is None:
        return None
    if size > REVIEW_BYTES:
        raise UsageError(f"'{files.path(relative)}' has more than {REVIEW_BYTES:,} bytes, and a review never has")
    try:
        return files.get(relative)
    except CorruptRunError as error:
        raise UsageError(str(error)) from error
