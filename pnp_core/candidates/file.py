"""Candidate classes from a file: a table, or the authors' files of chat answers."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pnp_core.candidates.answers import Answer, parse_answer
from pnp_core.candidates.base import Images, Proposal, SourceContext
from pnp_core.candidates.config import CandidatesConfig
from pnp_core.data import Sample
from pnp_core.errors import CandidatesFileError
from pnp_core.inputs.cards import DatasetCard
from pnp_core.inputs.sources.base import reason
from pnp_core.text.files import text_of

_KEYS = ("key", "id", "image_id", "file_name", "filename", "image", "path")
_CLASSES = ("classes", "labels", "class", "label")
_NAMES = ("name", "class", "label", "id")
_SCORES = ("scores", "probabilities", "score", "probability")
_ENDINGS = (".json", ".jsonl", ".csv", ".tsv", ".parquet")


def _read(path: str) -> bytes:
    try:
        fs, inner = fsspec.core.url_to_fs(path)
        return fs.cat_file(inner)
    except (OSError, ValueError, ImportError) as error:
        raise CandidatesFileError(f"cannot read candidates file '{path}': {reason(error)}") from error


def _answer(classes: Sequence[Any], scores: Sequence[Any] | None) -> Answer:
    """A table row; scores are in [0, 1]. A null among the classes costs itself only."""
    if scores is not None and len(scores) != len(classes):
        raise ValueError(f"{len(classes)} classes but {len(scores)} scores")
    named = [i for i, name in enumerate(classes) if name is not None]
    graded = tuple(_score(scores[i]) if scores else None for i in named)
    items = tuple((int(c), None) if _is_number(c) else (None, str(c).strip()) for c in (classes[i] for i in named))
    repairs = ("null among the classes left out",) if len(named) < len(classes) else ()
    if None in graded and any(score is not None for score in graded):
        repairs += ("classes without a score count as 1",)
    return Answer(items, graded, repairs)


def _score(value: Any) -> float | None:
    if value is None or value != value:  # NaN is how pandas writes null
        return None
    try:
        score = float(value)
    except (TypeError, ValueError) as error:
        raise ValueError(f"score '{value}' is no number") from error
    if not 0 <= score <= 1:
        raise ValueError(f"score {score:g} does not lie in 0..1")
    return score


def _is_number(value: Any) -> bool:
    return isinstance(value, int | np.integer) or (isinstance(value, str) and value.strip().isdecimal())


def _from_value(value: Any) -> Answer:
    """What a JSON file has for one key: an answer as text, names, or names with scores."""
    if isinstance(value, str):
        return parse_answer(value)
    if isinstance(value, list) and all(isinstance(v, dict) for v in value) and value:
        names = [_first(v, _NAMES) for v in value]
        return _answer(names, [v.get("score", v.get("probability")) for v in value])
    if isinstance(value, list):
        return _answer(value, None)
    if isinstance(value, dict) and (classes := _first(value, _CLASSES)) is not None:
        return _answer(classes, _first(value, _SCORES))
    if isinstance(value, dict):
        empty = bool(value) and all(name in _CLASSES for name in value)  # which are null, as was seen above
        return _from_value(None) if empty else _answer(list(value), list(value.values()))
    if value is None:
        return Answer((), (), ("no answer (null)",))
    raise ValueError(f"'{value}' is neither text, a list nor a mapping")


def _first(row: dict[str, Any], names: Iterable[str]) -> Any:
    return next((row[name] for name in names if row.get(name) is not None), None)


def _split(value: Any) -> list[Any]:
    """A table cell: a list, or values separated by ; or |."""
    if value is None or value == "":
        return []
    if isinstance(value, str):
        return [part.strip() for part in value.replace("|", ";").split(";") if part.strip()]
    return list(value) if isinstance(value, list | tuple) else [value]


def _from_rows(rows: Iterable[Any], path: str) -> Iterator[tuple[str, Answer]]:
    """Rows with a key, classes and perhaps scores; several rows of a key next to each other add up."""
    key, classes, scores = None, [], []
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict):
            raise CandidatesFileError(f"'{path}' row {number} is not a mapping of columns to values")
        found = _first(row, _KEYS)
        if found is None:
            raise CandidatesFileError(f"'{path}' row {number} has no key; columns: one of {', '.join(_KEYS)}")
        if not any(name in row for name in _CLASSES):
            raise CandidatesFileError(f"'{path}' row {number} has no classes; columns: one of {', '.join(_CLASSES)}")
        if found != key and key is not None:
            yield str(key), _checked(classes, scores, path, key)
            classes, scores = [], []
        key = found
        cell = _first(row, _CLASSES)
        named = [None] if cell is None else _split(cell)  # a null is left out, and told
        graded = [] if cell is None else _split(_first(row, _SCORES))
        classes += named
        scores += graded or [None] * len(named)
    if key is not None:
        yield str(key), _checked(classes, scores, path, key)


def _checked(classes: list[Any], scores: list[Any], path: str, key: Any) -> Answer:
    try:
        return _answer(classes, scores)
    except (TypeError, ValueError) as error:
        raise CandidatesFileError(f"'{path}', {key}: {error}") from error


def _from_json(value: Any, path: str) -> Iterator[tuple[str, Answer]]:
    if isinstance(value, list) and all(isinstance(v, str) for v in value):
        # A list of keys: pictures for which there is no answer.
        yield from ((key, Answer((), (), ("a key without an answer",))) for key in value)
    elif isinstance(value, list):
        yield from _from_rows(value, path)
    elif isinstance(value, dict):
        for key, entry in value.items():
            try:
                yield str(key), _from_value(entry)
            except (TypeError, ValueError) as error:
                raise CandidatesFileError(f"'{path}', {key}: {error}") from error
    else:
        raise CandidatesFileError(f"'{path}' must hold a mapping from keys to classes, or a list of rows")


def read_answers(path: str) -> Iterator[tuple[str, Answer]]:
    """The entries of a candidates file, in its order: key and answer.

    JSON: ``{key: "[2: 'bicycle'], [90%]"}`` (authors), ``{key: [names]}``, ``{key: {name: score}}``, or a
    list of rows. JSON Lines, CSV, TSV, Parquet: rows with a key, classes and perhaps scores; in CSV several
    values in a cell are separated by ``;``. Scores lie in 0..1, but for the authors' percent.

    Raises:
        CandidatesFileError: missing, or not of this form.
    """
    data = _read(path)
    ending = PurePosixPath(path.lower()).suffix
    try:
        if ending == ".json":
            yield from _from_json(json.loads(text_of(data), object_pairs_hook=_no_repeats), path)
        elif ending == ".jsonl":
            yield from _from_rows(_json_lines(text_of(data)), path)
        elif ending in (".csv", ".tsv"):
            text = io.StringIO(text_of(data), newline="")
            yield from _from_rows(csv.DictReader(text, delimiter="\t" if ending == ".tsv" else ","), path)
        elif ending == ".parquet":
            batches = pq.ParquetFile(pa.BufferReader(data)).iter_batches(batch_size=1024, use_threads=False)
            yield from _from_rows((row for batch in batches for row in batch.to_pylist()), path)
        else:
            raise CandidatesFileError(f"candidates file '{path}' must end in one of {', '.join(_ENDINGS)}")
    except (ValueError, AttributeError, pa.ArrowException, csv.Error) as error:
        raise CandidatesFileError(f"candidates file '{path}' cannot be read: {' '.join(str(error).split())}") from error


def _json_lines(text: str) -> Iterator[Any]:
    for number, line in enumerate(text.split("\n"), start=1):
        try:
            if line.strip():
                yield json.loads(line)
        except json.JSONDecodeError as error:  # each line would be the first to it
            raise ValueError(f"line {number} is no JSON: {error.msg} at column {error.colno}") from error


@dataclass(frozen=True)
class Resolved:
    """An answer in the labels of a card."""

    proposal: Proposal
    repairs: tuple[str, ...]


def _names_class(name: str, label: int, card: DatasetCard) -> bool:
    """Whether a file's name means a class: equal, or begins with it as in 'building;edifice'."""
    words = name.lower().replace(";", " ").split()
    entry = card.classes[label - 1]
    known = (entry.name, entry.caption or entry.name, *entry.synonyms)
    return any(words[: len(k.split())] == k.lower().split() for k in known)


def _label(number: int | None, name: str | None, card: DatasetCard) -> tuple[int | None, str | None]:
    """Label of a named class, and what had to be decided.

    The name decides where number and name disagree: people and models get numbers wrong more often.
    """
    by_number = card.label_of.get(number) if number is not None else None
    by_name = card.label_of_name.get(name.lower()) if name else None
    if by_number is not None and (not name or _names_class(name, by_number, card)):
        return by_number, None
    if by_name is not None:
        odd = f"number {number} is not {name}: read by name" if number is not None else None
        return by_name, odd
    shown = f"{number}: {name}" if number is not None and name else str(name or number)
    return None, f"unknown class '{shown}' left out"


def resolve(answer: Answer, card: DatasetCard) -> Resolved:
    """Look up an answer's classes on a card; one named twice keeps its best score."""
    found: dict[int, float] = {}
    repairs = list(answer.repairs)
    for (number, name), score in zip(answer.classes, answer.scores, strict=True):
        label, odd = _label(number, name, card)
        repairs += [odd] if odd else []
        if label is not None:
            found[label] = max(found.get(label, 0.0), 1.0 if score is None else score)
    ungraded = all(score is None for score in answer.scores)
    why = "the candidates file lists no class for it"
    return Resolved(Proposal(tuple(found), None if ungraded else tuple(found.values()), why), tuple(repairs))


def _joined(first: Proposal | None, second: Proposal) -> Proposal:
    """The classes of two entries with the same key, each with its best score."""
    if first is None:
        return second
    scores: dict[int, float] = {}
    for proposal in (first, second):
        graded = proposal.scores or (1.0,) * len(proposal.classes)
        for label, score in zip(proposal.classes, graded, strict=True):
            scores[label] = max(scores.get(label, 0.0), score)
    ungraded = first.scores is None and second.scores is None
    return Proposal(tuple(scores), None if ungraded else tuple(scores.values()), second.why_empty)


def _no_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON mapping; json itself would keep the last of repeated keys without a word."""
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(key for i, (key, _) in enumerate(pairs) if key in dict(pairs[:i]))
        raise ValueError(f"the key '{twice}' is there twice")
    return found


class FileCandidates:
    """Classes by picture from a file; see `CandidateSource`.

    A picture is found by its key, its own name (in the folder, list, table or tar), that without folders, and
    both without ending; numbers are equal whatever zeros stand in front.
    """

    default_min_score = 0.7

    def __init__(self, context: SourceContext) -> None:
        card, path = context.card, context.config.file or ""
        self._path = path
        self._proposals: dict[str, Proposal] = {}
        for key, answer in read_answers(path):
            proposal = resolve(answer, card).proposal  # without the repairs, to be small
            self._proposals[key] = _joined(self._proposals.get(key), proposal)
        # COCO's files count pictures, their names carry zeros in front.
        self._by_number = {int(key): p for key, p in self._proposals.items() if key.isdecimal()}

    @staticmethod
    def revision(config: CandidatesConfig) -> str:
        """Digest of the file, which names it in fingerprints.

        Raises:
            CandidatesFileError: missing, or of a kind that is not read.
        """
        path = config.file or ""
        if not path.lower().endswith(_ENDINGS):
            raise CandidatesFileError(f"candidates file '{path}' must end in one of {', '.join(_ENDINGS)}")
        return hashlib.sha256(_read(path)).hexdigest()[:16]

    def preprocess(self, image: np.ndarray) -> None:
        """Nothing is needed."""

    def propose(self, images: Images, prepared: Sequence[Any]) -> list[Proposal]:
        """The file's entries."""
        return [self._find(sample) for sample in images.samples]

    def _find(self, sample: Sample) -> Proposal:
        own = sample.name or sample.source
        base = own.rsplit("/", 1)[-1]
        stems = (name.rsplit(".", 1)[0] if "." in name else name for name in (own, base))
        for key in (sample.key, own, base, *stems):
            if key in self._proposals:
                return self._proposals[key]
            if key.isdecimal() and int(key) in self._by_number:
                return self._by_number[int(key)]
        why = f"no entry in candidates file '{self._path}' for key '{sample.key}'"
        return Proposal((), why_empty=why, unknown=True)
