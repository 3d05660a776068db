"""A campaign of faults: commands killed at random moments, artifacts damaged at random.

    uv run python -m benchmarks.faults                                     # 20 + 10 kills, 40 damages
    uv run python -m benchmarks.faults --kills 2 --others 2 --damages 4

Every fault has to end well. After a kill the same command leaves what an undisturbed one leaves. After a damage it
does too (healed), or it ends with a line that names the file (named), and then `verify` names it as well. Exit code 1
when one ends otherwise.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep

import numpy as np
from PIL import Image
from typer.testing import CliRunner

from pnp_core.checks.output import verify
from pnp_core.inputs.scenes.drawing import make_scene, render
from pnp_core.storage.files import MARK
from pnp_core.storage.ownership import WRITER

TIMINGS = ("run.json", "tune.json", "index.html", "export.json")
"""Files with times, sizes or places in them: two undisturbed runs differ in them too."""
SCRATCH = "collected.parquet"
"""What a run over a corpus in which nothing is new leaves at the top of its folder."""


@dataclass(frozen=True)
class Subject:
    """A command and its output folder."""

    name: str
    out: Path
    arguments: tuple[str, ...]

    def left(self) -> dict[str, str]:
        """Digests of what it has left."""
        files = (file for file in self.out.rglob("*") if file.is_file() and MARK not in file.parts)
        kept = (file for file in files if file.name not in TIMINGS and file != self.out / SCRATCH)
        return {str(f.relative_to(self.out)): hashlib.sha256(f.read_bytes()).hexdigest() for f in kept}


def subjects(place: Path) -> dict[str, Subject]:
    """What is disturbed: small, and with every kind of artifact."""
    commands: dict[str, Sequence[object]] = {
        "eval": ("eval", "scenes", "--limit", 16, "--shards", 4, "--png", "--confidence"),
        "label": ("label", place / "in", "--classes", "heart,star", "--candidates", "vocabulary", "--preset", "tiny"),
        "label-corpus": ("label-corpus", place / "in", "--classes", "heart,star", "--config", place / "corpus.yaml"),
        "tune": ("tune", "scenes", "--images", 6, "--trials", 6, "--compare", "off"),
        "export": ("export", place / "eval", "--to", "png"),
        "tables": ("tables", place / "eval"),
    }
    return {
        name: Subject(name, place / name, (*map(str, arguments), "--out", str(place / name)))
        for name, arguments in commands.items()
    }


def prepare(place: Path) -> None:
    """Pictures to label: scenes, one that is cut short and one that is text."""
    (place / "in").mkdir(parents=True)
    for number in range(5):
        Image.fromarray(np.asarray(render(make_scene("test", number))[0])).save(place / f"in/{number}.png")
    (place / "in/cut.png").write_bytes((place / "in/0.png").read_bytes()[:900])
    (place / "in/text.png").write_text("no picture")
    (place / "corpus.yaml").write_text("{preset: tiny, settle: 0, images_per_batch: 3, images_per_shard: 2}")


def run_apart(subject: Subject, kill_after: float | None = None) -> float:
    """A command as a process of its own, killed after some seconds; gives the seconds it ran."""
    start = monotonic()
    command = [sys.executable, "-m", "flows.cli", *subject.arguments]
    process = subprocess.Popen(  # noqa: S603
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    if kill_after is None:
        if process.wait():
            raise RuntimeError(f"{subject.name} failed with {process.returncode}: {' '.join(command)}")
        return monotonic() - start
    deadline = start + kill_after
    while process.poll() is None and monotonic() < deadline:
        sleep(0.01)
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return monotonic() - start


def run_here(subject: Subject) -> tuple[int, str]:
    """A command in this process, which has imported everything; gives its exit code and what it said."""
    from flows.cli import app

    result = CliRunner().invoke(app, list(subject.arguments))
    return result.exit_code, " ".join(result.output.split())


def kill_campaign(subject: Subject, kills: int, expected: dict[str, str], draw: random.Random) -> Counter[str]:
    """Kill a command again and again; a run that came to its end begins anew."""
    seconds = run_apart(subject)
    outcomes: Counter[str] = Counter()
    shutil.rmtree(subject.out)
    while outcomes.total() < kills:
        for _ in range(min(draw.randint(1, 4), kills - outcomes.total())):
            run_apart(subject, kill_after=draw.uniform(0.2, 1.0) * seconds)
            outcomes["killed"] += 1
        run_apart(subject)
        found = verify(str(subject.out))
        left = subject.left()
        if left != expected or not found.whole or found.strangers:
            different = sorted(n for n in left.keys() | expected.keys() if left.get(n) != expected.get(n))
            outcomes["NOT AS UNDISTURBED"] += 1
            print(f"{subject.name}: {different[:5]} {found.problems[:3]} {found.strangers[:3]}", file=sys.stderr)
        shutil.rmtree(subject.out)
    run_apart(subject)
    return outcomes


def flip(data: bytes, draw: random.Random) -> bytes:
    """One bit is another."""
    changed = bytearray(data)
    changed[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
    return bytes(changed)


DAMAGES: dict[str, Callable[[bytes, random.Random], bytes | None]] = {
    "bit flipped": flip,
    "cut short": lambda data, draw: data[: draw.randrange(len(data))],
    "zeroed": lambda data, draw: bytes(len(data)),
    "deleted": lambda data, draw: None,
}


def kind_of_artifact(subject: Subject, file: Path) -> str:
    """Files of one kind: by folder and ending."""
    parts = file.relative_to(subject.out).parts
    folder = "/".join(part for part in parts[:-1] if not part.isdigit() and len(part) != 16)
    return f"{subject.name} {folder}/*.{file.name.split('.', 1)[-1]}"


def artifacts(every: dict[str, Subject]) -> dict[str, list[tuple[Subject, Path]]]:
    """All files that can be damaged, by kind."""
    found: dict[str, list[tuple[Subject, Path]]] = {}
    for subject in every.values():
        for file in sorted(subject.out.rglob("*")):
            passed_over = (f"{MARK}/lock", WRITER)
            if file.is_file() and file.stat().st_size and not str(file).endswith(passed_over):
                found.setdefault(kind_of_artifact(subject, file), []).append((subject, file))
    return found


def damage_campaign(every: dict[str, Subject], damages: int, draw: random.Random) -> Counter[str]:
    """Damage a file, run its command again, and compare."""
    outcomes: Counter[str] = Counter()
    kept = {name: subject.out.with_name(f"{name}-kept") for name, subject in every.items()}
    for name, subject in every.items():
        shutil.copytree(subject.out, kept[name])
    found = artifacts(every)
    kinds = draw.sample(sorted(found), len(found))
    for number in range(damages):
        subject, file = draw.choice(found[kinds[number % len(kinds)]])
        how = sorted(DAMAGES)[number % len(DAMAGES)]
        data = DAMAGES[how](file.read_bytes(), draw)
        if data is None:
            file.unlink()
        else:
            file.write_bytes(data)
        outcome = outcome_of(subject, file)
        outcomes[outcome] += 1
        print(f"  {file.relative_to(subject.out.parent)} {how}: {outcome}", flush=True)
        shutil.rmtree(subject.out)
        shutil.copytree(kept[subject.name], subject.out)
    return outcomes


def outcome_of(subject: Subject, file: Path) -> str:
    """What became of a damage."""
    kept = Subject(subject.name, subject.out.with_name(f"{subject.name}-kept"), ())
    seen = not verify(str(subject.out)).whole
    for attempt in ("healed", "named, then healed"):
        code, said = run_here(subject)
        whole = verify(str(subject.out)).whole
        if code == 0 and whole and subject.left() == kept.left():
            return attempt if seen else "NOT NOTICED by verify"
        if code == 0:
            return _left_as_it_is(subject, kept, file)
        if file.name not in said and file.stem.split(".")[0] not in said:
            return f"NOT NAMED: {said[:300]}"
    return "named"


def _left_as_it_is(subject: Subject, kept: Subject, file: Path) -> str:
    """Files that a command has no use for any more, such as the contact sheet of a published batch, stay damaged."""
    name = str(file.relative_to(subject.out))
    left, expected = subject.left(), kept.left()
    others = [n for n in left.keys() | expected.keys() if left.get(n) != expected.get(n) and n != name]
    named = [problem.path for problem in verify(str(subject.out)).problems] == [name]
    return "not read again, verify names it" if named and not others else f"NOT NOTICED: {others[:5]}"


def main() -> int:
    """Run the campaign and print what became of every fault."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20, help="of eval")
    parser.add_argument("--others", type=int, default=10, help="kills over export, tables, tune and label-corpus")
    parser.add_argument("--damages", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    draw = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        prepare(place)
        every = subjects(place)
        for subject in every.values():
            run_apart(subject)
        expected = {name: subject.left() for name, subject in every.items()}
        outcomes: dict[str, Counter[str]] = {}
        names = ("tables", "export", "tune", "label-corpus")
        kills = {name: len(range(number, options.others, len(names))) for number, name in enumerate(names)}
        for name, number in {**kills, "eval": options.kills}.items():
            if number:
                outcomes[f"kills of {name}"] = kill_campaign(every[name], number, expected[name], draw)
        if options.damages:
            run_apart(every["tables"])  # of the evaluation as it is now
            outcomes["damages"] = damage_campaign(every, options.damages, draw)
    for what, counts in outcomes.items():
        print(f"{what}: " + ", ".join(f"{number} {outcome}" for outcome, number in sorted(counts.items())))
    return int(any(outcome.startswith("NOT") for counts in outcomes.values() for outcome in counts))


if __name__ == "__main__":
    sys.exit(main())
