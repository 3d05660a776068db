"""Whether everything that a command has left is still as it was written."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any, Literal

from pnp_core.corpus.manifest import LABELLED, LATEST
from pnp_core.data import Progress, ShardRef, silent
from pnp_core.errors import CorruptRunError
from pnp_core.export.folder import BULK
from pnp_core.runs.record import EVALUATIONS, RUN
from pnp_core.storage.completion import DONE, FAILED, OUTPUTS, CompletionRecord, StageFolder
from pnp_core.storage.files import MARK
from pnp_core.storage.ledger import LEDGER, Ledger
from pnp_core.storage.ownership import FOLDER, WHAT, Kind, kind_of, ledger_of
from pnp_core.storage.run_folder import RunFolder
from pnp_core.storage.seals import parsed, sha256, unsealed
from pnp_core.storage.shards import index_states, read_refs, shard_file

State = Literal["whole", "damaged", "missing", "unfinished", "unchecked", "not ours"]
STATES: tuple[State, ...] = ("whole", "damaged", "missing", "unfinished", "unchecked", "not ours")


@dataclass(frozen=True)
class Finding:
    """A file, and what became of it.

    Attributes:
        part: what it belongs to: `shards`, a stage, `results` ...
        path: relative to the folder that was verified.
        state: `unfinished` is of a shard that is not done, `unchecked` of a version that kept no digest.
    """

    part: str
    path: str
    state: State


@dataclass
class Verification:
    """What was found in a folder.

    Attributes:
        counts: part -> state -> files.
        problems: files that are damaged or missing.
        strangers: files that are not ours.
    """

    url: str
    kind: Kind
    counts: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    problems: list[Finding] = field(default_factory=list)
    strangers: list[str] = field(default_factory=list)

    @property
    def what(self) -> str:
        """What the folder is, for people."""
        return WHAT[self.kind]

    def number(self, state: State) -> int:
        """Files in a state."""
        return sum(counts[state] for counts in self.counts.values())

    @property
    def whole(self) -> bool:
        """Whether nothing of ours is damaged or missing."""
        return not self.problems

    def add(self, finding: Finding) -> None:
        """Count a file in."""
        self.counts[finding.part][finding.state] += 1
        if finding.state in ("damaged", "missing"):
            self.problems.append(finding)
        if finding.state == "not ours":
            self.strangers.append(finding.path)

    def as_json(self) -> dict[str, Any]:
        """For `--json`."""
        counts = {part: {state: found[state] for state in STATES} for part, found in self.counts.items()}
        return {"folder": self.url, "kind": self.kind, "whole": self.whole, "files": counts} | {
            "problems": [vars(problem) for problem in self.problems],
            "not_ours": self.strangers,
        }


def verify(url: str, progress: Progress = silent) -> Verification:
    """Read every file of a run, a corpus, an export or tables, and compare it with what was written.

    Nothing is changed: the command that made a file makes it again when it is damaged.

    Raises:
        CorruptRunError: the folder holds nothing of ours.
    """
    place = RunFolder(url)
    kind = kind_of(place)
    if kind is None:
        why = "holds nothing that pnp-ovss has written" if place.exists("") else "does not exist"
        raise CorruptRunError(f"'{url}' {why}: nothing to verify")
    found = Verification(url, kind)
    for finding in _findings(place, ""):
        found.add(finding)
        progress(1)
    return found


def _findings(place: RunFolder, prefix: str) -> Iterator[Finding]:
    """Every file of a folder; those of folders of ours in it too, such as the batches of a corpus."""
    names = place.names()
    inner = _inner_folders(place, names)
    seen: set[str] = set()
    for part, path, state in _ours(place):
        seen.add(path)
        yield Finding(part, prefix + path, state)
    for folder in inner:
        yield from _findings(RunFolder(place.below(folder)), f"{prefix}{folder}/")
    passed_over = (f"{MARK}/", *(f"{folder}/" for folder in inner))
    for name in names:
        if name not in seen and not name.startswith(passed_over):
            yield Finding("others", prefix + name, "not ours")


def _inner_folders(place: RunFolder, names: list[str]) -> list[str]:
    """Folders in a folder that are ours by themselves, outermost only."""
    marked = {name.removesuffix(f"/{FOLDER}") for name in names if name.endswith(f"/{FOLDER}")}
    # Of a version that did not mark them.
    parts = [PurePosixPath(name).parts for name in names]
    usual = {"/".join(part[:2]) for part in parts if part[0] in ("batches", "export", "subsets") and len(part) > 2}
    marked |= {folder for folder in usual if kind_of(RunFolder(place.below(folder)))}
    return sorted(folder for folder in marked if not any(folder.startswith(f"{other}/") for other in marked))


Found = tuple[str, str, State]
"""Part, path, state of a file."""


def _ours(place: RunFolder) -> Iterator[Found]:
    """The files of one folder, without those of folders in it."""
    mark = place.find(FOLDER)
    if mark is not None or place.exists(LEDGER):
        yield "results", FOLDER, "missing" if mark is None else "whole" if unsealed(mark) else "damaged"
    for name in (*place.glob(BULK), LEDGER):
        ledger = Ledger.known(place, name)
        if mark is not None or place.exists(name):
            yield "results", name, "whole" if ledger else "damaged" if place.exists(name) else "missing"
        ledger = ledger or (ledger_of(place) if name == LEDGER else Ledger(place, name))
        for path, digests in ledger.files.items():
            yield "results", path, _state(place, path, digests)
        yield from _shards_and_stages(place, ledger)
    yield from _masks_of_manifest(place)


def _state(place: RunFolder, path: str, digests: tuple[str, ...]) -> State:
    data = place.find(path)
    if data is None:
        return "missing"
    if not digests:
        return "unchecked"
    return "whole" if sha256(data) in digests else "damaged"


def _shards_and_stages(place: RunFolder, ledger: Ledger) -> Iterator[Found]:
    shards: list[ShardRef] = []
    if "shards" in ledger.folders:
        with suppress(CorruptRunError):
            shards = read_refs(place)
        yield from index_states(place)
    for shard in shards:
        yield "shards", shard_file(shard.name), _state(place, shard_file(shard.name), (shard.sha256,))
    finished = _finished_stages(place)
    for name in sorted(ledger.folders):
        if name.count("/") == 1:
            folder = StageFolder(place, *name.split("/"))
            needed = {shard.name for shard in shards} if name in finished else set()
            gone = {shard for shard in needed for before in finished.get(name, ()) if before.find_failed(shard)}
            yield from _stage(folder, {shard.name for shard in shards}, needed - gone)


def _finished_stages(place: RunFolder) -> dict[str, list[StageFolder]]:
    """Folders of stages that finished runs have gone through: path -> folders of itself and the stages before."""
    found: dict[str, list[StageFolder]] = {}
    for file in (RUN, *place.glob(f"{EVALUATIONS}/*/{RUN}")):
        record = parsed(place.find_whole(file) or b"") or {}
        fingerprints, config = record.get("fingerprints"), record.get("config")
        if not isinstance(fingerprints, dict) or not isinstance(config, dict):
            continue
        stages = {stage: str(fingerprints.get(stage) or "") for stage in ("salience", "masks", "scores")}
        chain: list[StageFolder] = []
        for stage, fingerprint in (*stages.items(), ("png", stages["masks"] if config.get("png") else "")):
            if fingerprint:
                chain.append(StageFolder(place, stage, fingerprint))
                found[chain[-1].place] = list(chain)
    return found


def _stage(folder: StageFolder, shards: set[str], needed: set[str]) -> Iterator[Found]:
    """What a stage has made.

    Args:
        shards: names of all.
        needed: of those that a finished run has made.
    """
    place = folder.run
    recorded = {PurePosixPath(name).name.split(".")[0] for name in place.glob(folder.file("*", DONE))}
    for shard in sorted(recorded | shards):
        name, record = folder.file(shard, DONE), folder.record(shard)
        if record:
            yield folder.stage, name, "whole"
            for path in record.outputs:
                yield folder.stage, path, _output_state(place, record, path)
            continue
        if shard in recorded or shard in needed:
            yield folder.stage, name, "damaged" if shard in recorded else "missing"
        begun = (*(folder.file(shard, end) for end in (*OUTPUTS, FAILED)), folder.quarantine_file(shard))
        for path in begun:
            if place.exists(path):
                yield folder.stage, path, "unfinished"


def _output_state(place: RunFolder, record: CompletionRecord, path: str) -> State:
    if record.digests:
        return _state(place, path, (record.digests[path],))
    if (size := place.size(path)) is None:
        return "missing"
    return "damaged" if size != record.outputs[path] or record.damaged(place) else "whole"


def _masks_of_manifest(place: RunFolder) -> Iterator[Found]:
    """Masks that the newest manifest of a corpus names and that are not there, batch and all."""
    pointer = parsed(place.find_whole(LATEST) or b"") or {}
    table = place.find_table(pointer["manifest"], ["status", "masks"]) if "manifest" in pointer else None
    for row in {(row["status"], row["masks"]) for row in table.to_pylist()} if table else ():
        if row[0] == LABELLED and not place.exists(row[1]):
            yield "masks", row[1], "missing"
