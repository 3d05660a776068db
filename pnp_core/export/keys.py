"""Which pictures are exported: those of a file of keys, or those that were so decided on in the run's review."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pnp_core.corpus.manifest import LATEST
from pnp_core.errors import UsageError
from pnp_core.export.labelled import Finished, require_keys
from pnp_core.runs.review import STATES, Review, count_states, finished_record, read_review
from pnp_core.storage.run_folder import RunFolder


@dataclass(frozen=True)
class Picked:
    """What `--only` and `--except` say.

    Attributes:
        keys: no other pictures; None for all.
        without: but not these.
        review: of the run, how many pictures of each class were accepted, rejected, and are open; None where nothing
            was said by decisions.
    """

    keys: frozenset[str] | None = None
    without: frozenset[str] = frozenset()
    review: dict[str, Any] | None = None


def picked(finished: Finished, only: str | None, leave_out: str | None, review: str | None) -> Picked:
    """Find out which pictures are meant.

    Args:
        only: `accepted`, `rejected` or `open`, or a file of keys; a file of such a name is given with its folder,
            as `./accepted`.
        leave_out: the same.
        review: a file to read decisions from in place of the run's own.

    Raises:
        UsageError: a file cannot be read, is of another run, or names pictures without a mask; nothing was so decided
            on; a review is named that no decision is asked of; a corpus has none.
    """
    by_decision = not {only, leave_out}.isdisjoint(STATES)
    if review is not None and not by_decision:
        raise UsageError("--review is of use with --only or --except accepted, rejected or open: name one of them")
    decisions = _Decisions(finished, review) if by_decision else None
    keys: frozenset[str] | None = None
    without: frozenset[str] = frozenset()
    for name, excluded in ((only, False), (leave_out, True)):
        if name is None:
            continue
        those, all_but = decisions.of(name) if decisions and name in STATES else (_keys_in(finished, name), False)
        if all_but != excluded:
            without |= those
        else:
            keys = those if keys is None else keys & those
    if keys is not None and not keys - without:
        raise UsageError(f"no picture of '{finished.url}' is {only or f'not {leave_out}'}: there is nothing to export")
    return Picked(keys, without, decisions and decisions.counts())


class _Decisions:
    """The review of a finished run, read."""

    def __init__(self, finished: Finished, file: str | None) -> None:
        self._run = RunFolder(finished.url)
        if self._run.exists(LATEST):
            raise UsageError(
                f"'{finished.url}' is a corpus, whose batches have a report and a review each: export a folder of "
                f"'{finished.url.rstrip('/')}/batches'"
            )
        self._record = finished_record(self._run)
        self._review: Review = read_review(self._run, self._record, file)

    def of(self, state: str) -> tuple[frozenset[str], bool]:
        """Keys, and whether all but those are meant: what is open need not be in the review."""
        accepted, rejected = self._review.keys("accepted"), self._review.keys("rejected")
        if state == "open":
            return accepted | rejected, True
        return (accepted if state == "accepted" else rejected), False

    def counts(self) -> dict[str, Any]:
        """Accepted, rejected and open pictures of the run, of all and by class."""
        counts = count_states(self._run, self._record, self._review)
        return {"pictures": counts.pop(""), "classes": counts}


def _keys_in(finished: Finished, file: str) -> frozenset[str]:
    keys = read_keys(file)
    require_keys(finished, keys, file)
    return keys


def read_keys(file: str) -> frozenset[str]:
    """Keys of pictures, one per line; empty lines do not count.

    Raises:
        UsageError: the file is missing, no text, or empty.
    """
    try:
        text = Path(file).expanduser().read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UsageError(f"cannot read '{file}': {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"'{file}' is no text in UTF-8: one key per line is wanted") from error
    keys = frozenset(filter(None, map(str.strip, text.splitlines())))
    if not keys:
        raise UsageError(f"'{file}' names no picture: one key per line is wanted")
    return keys
