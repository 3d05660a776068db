"""A time limit for work in this thread, with and without Prefect.

What takes too long is interrupted where Python next looks: between two of its own instructions, and in the main thread
in system calls that wait too. Inside one call of a library, such as a forward pass, nothing can be stopped: there the
work fails when the call returns.
"""

from __future__ import annotations

import ctypes
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Lock, Thread, current_thread, get_ident, main_thread

AGAIN = 5.0
"""Seconds after which who is still at work is told again: libraries may catch everything."""


class _OutOfTime(BaseException):
    """Passes through what catches errors of pictures: it is none of theirs."""


@contextmanager
def time_limit(seconds: float | None) -> Iterator[None]:
    """Leave the block when it takes longer; never when None. Not for one limit inside another.

    Raises:
        TimeoutError: it took longer.
    """
    if seconds is None:
        yield
        return
    in_main = current_thread() is main_thread() and hasattr(signal, "setitimer")  # which Windows lacks
    try:
        with _by_alarm(seconds) if in_main else _by_watcher(seconds):
            yield
    except _OutOfTime:
        raise TimeoutError(f"more than {seconds:g} s") from None


@contextmanager
def _by_alarm(seconds: float) -> Iterator[None]:
    """Only the main thread gets signals; they end a wait for a disk or a network too."""

    def ring(*_: object) -> None:
        raise _OutOfTime

    before = signal.signal(signal.SIGALRM, ring)
    try:
        signal.setitimer(signal.ITIMER_REAL, seconds, AGAIN)
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextmanager
def _by_watcher(seconds: float) -> Iterator[None]:
    """A thread that raises in this one."""
    over, lock, thread = Event(), Lock(), get_ident()

    def watch() -> None:
        wait = seconds
        while not over.wait(wait):
            with lock:
                if not over.is_set():
                    _raise_in(thread, _OutOfTime)
            wait = AGAIN

    Thread(target=watch, name="time-limit", daemon=True).start()
    try:
        yield
    finally:
        with lock:
            over.set()
        _raise_in(thread, None)  # what was raised and has not arrived


def _raise_in(thread: int, error: type[BaseException] | None) -> None:
    """Have an exception raised in a thread at its next instruction; None takes one back."""
    raised = None if error is None else ctypes.py_object(error)
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), raised)
