"""Typed errors. Each message is one line: what is wrong, where, and what to do about it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from pnp_core.text.visible import visible


def in_words(error: BaseException) -> str:
    r"""What another package's exception says, in one line and without the names of Python's types.

    >>> in_words(KeyError("width")), in_words(OSError("broken\n data stream")), in_words(TimeoutError())
    ("it has no 'width'", 'broken data stream', 'it took too long')
    """
    said = " ".join(str(error).split())
    if isinstance(error, KeyError):
        return f"it has no {said}"
    if isinstance(error, TimeoutError):
        return f"it took too long ({said[:300]})" if said else "it took too long"
    if not said:
        return "for no reason that it says"
    return said[:300]


def first_line(error: BaseException) -> str:
    """What another package's exception says first: some go on for a page."""
    return str(error).strip().split("\n")[0].strip() or in_words(error)


class PnpError(Exception):
    """A run cannot go on; the command line ends with `exit_code` and this one line.

    What it says of names and paths cannot act on the terminal or log that it is shown in.
    """

    exit_code = 1

    def __str__(self) -> str:
        return visible(super().__str__())


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


class PluginError(PnpError):
    """What another package adds cannot be used."""


class MethodError(PnpError):
    """A method gives what does not fit what it was asked."""


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


class NoAnswerError(PnpError):
    """The machine that the pictures are on has stopped to answer."""


class DatasetError(UsageError):
    """A dataset on disk is missing files, or they are not what its card says."""


class CrfInputError(UsageError):
    """Scores and picture of a CRF do not fit together, or hold no number."""


class CompiledPartError(UsageError):
    """A compiled part of the package is missing or cannot be loaded."""


class CandidatesFileError(UsageError):
    """A file of candidate classes is missing, or not of a form that is read."""


class OutputError(PnpError):
    """The run folder cannot be written, or belongs to another source."""


class ForeignFilesError(OutputError):
    """There is something in the output folder that this project did not write, or wrote for something else."""

    exit_code = 2

    @classmethod
    def at(cls, path: str) -> ForeignFilesError:
        """A name that is needed is taken."""
        return cls(f"'{path}' is there and was not written by this run: move it away, or choose another --out")


class TrackingError(PnpError):
    """The store that a run is to be recorded in cannot be reached or written."""


class FolderInUseError(OutputError):
    """Another command is writing to the output folder."""

    exit_code = 2


class CorruptRunError(PnpError):
    """A file of the run folder is not what its record says."""


class DamagedError(CorruptRunError):
    """A file of ours has other content than was written to it."""

    @classmethod
    def at(cls, path: str, what: str = "its content is not what was written") -> DamagedError:
        """A file that is no longer whole."""
        return cls(f"'{path}' is damaged: {what}; the command that made it makes it again")


class ShardError(PnpError):
    """A shard cannot be done, and another attempt would end the same; it is set aside with this as the reason."""


class StageFailedError(PnpError):
    """A stage failed with every shard it was tried on."""


class UnusableImage(PnpError):
    """One picture cannot be worked on; the pipeline quarantines it and goes on."""


class UnreadableImage(UnusableImage):
    """One picture cannot be decoded."""


class MissingProposals(UnusableImage):
    """There are no proposals for one picture, or they are of another one."""


class MissingMaps(UnusableImage):
    """A finished run that others are put together with has no maps of one picture."""
