"""Pictures of a folder on another machine, in the order of its listing whatever the network does.

A picture that does not come is asked for again in its place. It is given up only while another one does come: without
that it is the machine that is silent, and the run ends. So what a run makes of a bucket depends on the bucket alone.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, replace
from threading import Thread
from time import monotonic, sleep
from typing import Any, NamedTuple

from pnp_core.data import Sample
from pnp_core.errors import NoAnswerError, SourceError
from pnp_core.inputs.sources._fetching import AT_ONCE, FETCH_SECONDS
from pnp_core.inputs.sources.base import FileRef, NotReadError

_TRIES = 6
"""How often a picture, and one that did come, are asked for in turn before the machine counts as silent."""
_PAUSE = 1.0
"""Seconds before the second try; twice as long before each further one."""
_MOST_HANGING = 16
"""Threads that may wait for ever, on file systems without limits of their own, before the machine counts as silent."""
_MIB = 2**20


@dataclass(frozen=True)
class Listed:
    """A picture as the folder's listing has it.

    Attributes:
        sample: all of it but its bytes.
        size: bytes; 0 when the file system does not say.
    """

    file: FileRef
    sample: Sample
    size: int = 0

    @property
    def seconds(self) -> float:
        """Limit for it: a large one on a slow line, which it shares with others, takes its time."""
        return (self.file.seconds or FETCH_SECONDS) * max(1, -(-self.size // _MIB))


class _Answer(NamedTuple):
    """What became of a question.

    Attributes:
        given: the machine has answered, were it that there is no such file.
        fs: by what it was asked, and may be asked on; None when that is not to be used again.
    """

    sample: Sample
    given: bool
    fs: Any = None


class _Asked(NamedTuple):
    item: Listed
    answer: Future[_Answer]
    deadline: float


def _answer(item: Listed, fs: Any) -> _Answer:
    try:
        file = replace(item.file, seconds=item.seconds)
        file = replace(file, fs=fs) if fs else file.reopened(skip_instance_cache=True)
        return _Answer(replace(item.sample, image=file.read()), True, file.fs)
    except SourceError as error:
        return _Answer(replace(item.sample, fault=str(error)), False)
    except NotReadError as error:
        if isinstance(error.__cause__, TimeoutError):
            return _no_answer(item)
        return _Answer(replace(item.sample, fault=str(error)), not error.may_pass, fs)


def _no_answer(item: Listed) -> _Answer:
    return _Answer(replace(item.sample, fault=f"cannot be read: no answer within {item.seconds:g} seconds"), False)


class RemoteImages:
    """Asks for a folder's pictures: for several at a time where the file system can, else by one connection in turn.

    Args:
        name: of the folder, for people.
        proof: one of the pictures; while none of them did come it has to show that the machine answers.
    """

    def __init__(self, name: str, proof: Listed) -> None:
        self._name, self._proof, self._fs = name, proof, proof.file.fs
        self._shared = proof.file.concurrent
        self._most = AT_ONCE if self._shared else 1
        self._at_once = float(self._most)
        self._hanging: set[Future[_Answer]] = set()

    def samples(self, items: Iterable[Listed]) -> Iterator[Sample]:
        """Each picture with its bytes or its fault.

        Raises:
            NoAnswerError: the machine has stopped to answer.
        """
        ahead: deque[_Asked] = deque()
        for item in items:
            while len(ahead) >= int(self._at_once):
                yield self._next(ahead)
            ahead.append(self._ask(item))
        while ahead:
            yield self._next(ahead)

    def _next(self, ahead: deque[_Asked]) -> Sample:
        asked = ahead.popleft()
        answer = self._wait(asked)
        if answer.given:
            self._at_once = min(self._at_once + 1 / AT_ONCE, self._most)
        else:  # the line may be too slow for several, or the machine have too much to do
            self._at_once = 1
            for other in ahead:
                self._wait(other)
            answer = self._again(asked.item)
        if answer.given:
            self._proof = asked.item
        return answer.sample

    def _again(self, item: Listed) -> _Answer:
        """Ask for a picture alone, until it comes or another one does.

        Raises:
            NoAnswerError: neither does.
        """
        answer = _no_answer(item)
        for number in range(_TRIES):
            sleep(_PAUSE * 2 ** (number - 1) if number else 0)
            answer = self._wait(self._ask(item))
            if answer.given:
                return answer
            if self._wait(self._ask(self._proof)).given:
                return self._wait(self._ask(item))
        raise self._silence(answer)

    def _ask(self, item: Listed) -> _Asked:
        self._hanging = {question for question in self._hanging if not question.done()}
        if len(self._hanging) >= _MOST_HANGING:
            raise self._silence(_no_answer(item))
        future: Future[_Answer] = Future()
        fs = self._fs

        def work() -> None:
            try:
                future.set_result(_answer(item, fs))
            except BaseException as error:
                future.set_exception(error)

        # Of a pool's threads the last ones would be waited for when the command ends.
        Thread(target=work, name="fetch", daemon=True).start()
        return _Asked(item, future, monotonic() + item.seconds)

    def _wait(self, asked: _Asked) -> _Answer:
        try:
            answer = asked.answer.result(max(0.0, asked.deadline - monotonic()))
        except TimeoutError:
            self._hanging.add(asked.answer)
            answer = _no_answer(asked.item)
        if not self._shared:  # whoever still hangs there may be in the middle of an answer
            self._fs = answer.fs if answer.given else None
        return answer

    def _silence(self, answer: _Answer) -> NoAnswerError:
        why = (answer.sample.fault or "").removeprefix("cannot be read: ")
        return NoAnswerError(f"'{self._name}' has stopped to answer ({why}); run the command again when it does")
