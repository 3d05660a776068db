"""Typed errors. Each message is one line: what is wrong, where, and what to do about it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class PnpError(Exception):
    """A run cannot go on; the command line ends with `exit_code` and this one line."""

    exit_code = 1


class UsageError(PnpError):
    """What was asked for does not exist or does not fit together."""

    exit_code = 2


class UnknownNameError(UsageError):
    """A name that is looked up (dataset, preset, backbone, CRF, split) does not exist."""

    def __init__(self, kind: str, name: str, available: Iterable[str]) -> None:
        names = sorted(available)
        close = difflib.get_close_matches(name, names, n=1)
        hint = f"; did you mean '{close[0]}'?" if close else ";"
        super().__init__(f"unknown {kind} '{name}'{hint} available: {', '.join(names)}")
        self._made_of = (kind, name, names)

    def __reduce__(self) -> tuple[type[UnknownNameError], tuple[str, str, list[str]]]:
        """As it was made: it may come from another process."""
        return type(self), self._made_of


class ClassNameError(UsageError):
    """A class name is duplicated, empty, or has no piece in the text encoder's vocabulary."""


class CaptionTooLongError(UsageError):
    """A caption does not fit the text encoder."""


class CheckpointError(UsageError):
    """A checkpoint is missing, or is not an image-text-matching model of the expected make."""


class LayerRangeError(UsageError):
    """A cross-attention layer or head does not exist in the model."""


class SourceError(UsageError):
    """The pictures to label are missing, empty, or no pictures."""


class DatasetError(UsageError):
    """A dataset on disk is missing files, or they are not what its card says."""


class CandidatesFileError(UsageError):
    """A file of candidate classes is missing, or not of a form that is read."""


class OutputError(PnpError):
    """The run folder cannot be written, or belongs to another source."""


class CorruptRunError(PnpError):
    """A file of the run folder is not what its record says."""


class ShardError(PnpError):
    """A shard cannot be done, and another attempt would end the same; it is set aside with this as the reason."""


class StageFailedError(PnpError):
    """A stage failed with every shard it was tried on."""


class UnreadableImage(PnpError):
    """One picture cannot be decoded; the pipeline quarantines it and goes on."""
