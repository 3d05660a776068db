"""How far a run is: bars with the time left, and lines where there is no terminal."""

import io
import re
import time

from rich.console import Console

from flows.cli.progress import ProgressBars


def shown(terminal: bool, **options: float) -> str:
    text = io.StringIO()
    console = Console(file=text, force_terminal=terminal, width=120)
    with ProgressBars(console, **options) as bars:
        bars.begin("salience", 10)
        for _ in range(4):
            time.sleep(0.1)
            bars.advance("salience", 2)
        time.sleep(0.15)
    return text.getvalue()


def test_without_a_terminal_a_line_says_now_and_then_how_far_it_is_how_fast_and_how_long_it_will_take():
    lines = [line for line in shown(terminal=False, every=0.1).splitlines() if line.startswith("Salience: ")]
    assert 2 <= len(lines) <= 6
    pattern = r"Salience: 8 of 10 pictures, \d+ pictures/s, about \d+ s left"
    assert re.fullmatch(pattern, lines[-1]), lines[-1]


def test_a_short_run_without_a_terminal_says_nothing_on_the_way():
    assert "Salience: " not in shown(terminal=False)


def test_in_a_terminal_bars_have_the_time_left():
    assert re.search(r"left.*0:00:0\d", shown(terminal=True))
    assert "Salience: " not in shown(terminal=True, every=0.05)
