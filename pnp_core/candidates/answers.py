"""Class predictions as chat models write them: ``[2: 'building', 3: 'sky'], [100%, 90%]``.

The authors' files hold one such line per picture. Quotes, brackets, percent signs and separators
vary from line to line; what had to be guessed is reported.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_GROUP = re.compile(r"\[([^\[\]]*)\]")
# "12: traffic light" up to the next "13:"; names may hold anything, commas included.
_ITEM = re.compile(r"(\d+)\s*:\s*(.*?)\s*(?=,\s*\d+\s*:|$)", re.DOTALL)
# A number of its own: not the 1 of "class1".
_NUMBER = re.compile(r"(?<![\w.])(\d+(?:\.\d+)?)(?![\w.])")
_QUOTES = "'\"` "


@dataclass(frozen=True)
class Answer:
    """The classes named for one picture.

    Attributes:
        classes: (number or None, name or None) of each.
        scores: one per class in [0, 1]; None where the line gives no score at all.
        repairs: what was irregular and how it was read, for people; empty for a regular line.
    """

    classes: tuple[tuple[int | None, str | None], ...]
    scores: tuple[float | None, ...]
    repairs: tuple[str, ...] = ()


def parse_answer(text: str) -> Answer:
    """Read one line of the authors' format.

    Probabilities are percent. Missing ones count as 100 (authors' rule), surplus ones are left out.

    >>> parse_answer("[2: 'bicycle', 15: person], [100%, 70]").scores
    (1.0, 0.7)
    """
    groups = _GROUP.findall(text)
    repairs = []
    if re.search(r"\[\s*\[", text):
        repairs.append("brackets around both lists")
    if len(groups) > 2:
        repairs.append(f"{len(groups)} lists: the first two are read")
    items = [(int(number), name.strip(_QUOTES)) for number, name in _ITEM.findall(groups[0].strip())] if groups else []
    if not items:
        return Answer((), (), (*repairs, "no classes"))
    between = text[text.index("]") + 1 : text.rindex("[")] if len(groups) > 1 else ","
    if "," not in between:
        repairs.append("no comma between the lists")
    scores, found = _scores(groups[1] if len(groups) > 1 else "", len(items))
    return Answer(tuple(items), scores, (*repairs, *found))


def _scores(text: str, classes: int) -> tuple[tuple[float, ...], list[str]]:
    """Probabilities in [0, 1] of so many classes, and what was irregular."""
    numbers = [float(number) for number in _NUMBER.findall(text)]
    repairs = []
    if re.search(r"[A-Za-z]", text):
        repairs.append("words among the probabilities")
    if re.search(r"\d\s*%?\s*:", text):
        repairs.append("':' between probabilities")
    if not numbers:
        repairs.append("no probabilities: 100 each")
    elif len(numbers) > classes:
        repairs.append(f"{len(numbers)} probabilities for {classes} classes: the last are left out")
    elif len(numbers) < classes:
        repairs.append(f"{len(numbers)} probabilities for {classes} classes: the missing ones count as 100")
    if any(number > 100 for number in numbers):
        repairs.append("probabilities over 100 count as 100")
    padded = numbers[:classes] + [100.0] * (classes - len(numbers))
    return tuple(min(number, 100.0) / 100 for number in padded), repairs
