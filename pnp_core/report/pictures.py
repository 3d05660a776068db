"""Pictures and masks beside the report page, with their own pixels, for a browser to look at closely."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from PIL import Image
from PIL.Image import Resampling

from pnp_core.data import ShardRef
from pnp_core.report.embedding import fitted, nearest
from pnp_core.report.layers import label_sheet
from pnp_core.report.rows import Row
from pnp_core.runs.plan import Plan
from pnp_core.storage.files import MARK
from pnp_core.storage.ledger import claim_folders
from pnp_core.storage.run_folder import RunFolder, fingerprint
from pnp_core.storage.seals import sealed, sha256, unsealed

FOLDER = "report/pictures"
FILE = r"pictures/[0-9a-f]{16}/[0-9]{6,}-[0-9a-f]{16}\.(?:jpg|png)"
"""Names of the files, relative to the page: of a mask's fingerprint, a shard and a key."""
BESIDE_BYTES = 320_000_000
"""All of them together are never larger."""
PICTURE_BYTES = 12_000_000
"""Nor are the two files of one picture."""
QUALITY = 88
JPEG_SIDE = 65_500
"""JPEG has no longer ones."""
VERSION = 2
"""Of what is in the files: another one makes all anew."""
_BYTES_PER_PIXEL = 0.5
"""Of both files, roughly: it says how many pixels are kept, the limits hold whatever it is."""
_LEDGER = f"{MARK}/files-report.json"
"""A `Ledger` for `verify`, and what the pictures were made from."""
_ENDINGS = _PHOTO, _LAYERS = (".jpg", ".png")


def void_as_background(plan: Plan) -> bool:
    """Whether void pixels are scored as background."""
    return plan.score is not None and plan.score.config.void_as_background


@dataclass
class Pictures:
    """The files beside a page, written while it is made; those that are there and show the same stay.

    Args:
        run: the run's folder.
        number: pictures in the page; the more, the fewer pixels each may have.
    """

    run: RunFolder
    number: int
    left: int = BESIDE_BYTES
    """Bytes that there is room for."""
    _before: dict[str, Any] = field(init=False)
    _files: dict[str, dict[str, Any]] = field(default_factory=dict)
    _of: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        note = unsealed(self.run.find(_LEDGER) or b"") or {}
        shown = {stem: file for stem, file in note.get("shown", {}).items() if re.fullmatch(FILE, f"{stem}{_PHOTO}")}
        self._before = {"of": note.get("of", {}), "files": shown}

    def begin(self, plan: Plan, shard: ShardRef, keys: Iterable[str]) -> bool:
        """Take up a shard; returns whether files of some of these pictures have to be written."""
        claim_folders(self.run, [f"{FOLDER}/{plan.masks.fingerprint}"])
        what = [plan.masks.fingerprint, shard.sha256, plan.masks.folder.record_sha256(shard.name)]
        self._of[shard.name] = fingerprint(VERSION, *what, self._room, void_as_background(plan))
        return any(self._kept(plan, shard, key) is None for key in keys)

    @property
    def _room(self) -> int:
        return min(PICTURE_BYTES, BESIDE_BYTES // max(1, self.number))

    def _same(self, shard: ShardRef) -> bool:
        return self._before["of"].get(shard.name) == self._of[shard.name]

    def leave(self, plan: Plan, shard: ShardRef, row: Row) -> dict[str, Any] | None:
        """Leave the files of a picture; returns their names and size for the page, None where there is no room."""
        stem, kept = _stem(plan, shard, row.sample.key), self._kept(plan, shard, row.sample.key)
        if kept:
            self.left -= kept["bytes"]
            self._files[stem] = kept
            return _shown(stem, kept)
        size = self._size(row)
        contents = {_PHOTO: _photo(row, size), _LAYERS: _layers(plan, row, size)}
        taken = sum(map(len, contents.values()))
        if taken > min(self.left, PICTURE_BYTES) or not all(self._ours(stem, ending) for ending in contents):
            return None
        self.left -= taken
        digests = {ending: sha256(data) for ending, data in contents.items()}
        self._files[stem] = {"size": list(size), "bytes": taken, "sha256": digests}
        for ending, data in contents.items():
            self.run.put(f"report/{stem}{ending}", data)
        return _shown(stem, self._files[stem])

    def _kept(self, plan: Plan, shard: ShardRef, key: str) -> dict[str, Any] | None:
        """What is noted of a picture whose files are there and show the same."""
        stem = _stem(plan, shard, key)
        kept = self._before["files"].get(stem) if self._same(shard) else None
        return kept if kept and all(self._ours(stem, ending, there=True) for ending in _ENDINGS) else None

    def _ours(self, stem: str, ending: str, there: bool = False) -> bool:
        """Whether nobody has changed a file, so that it may be written over or deleted.

        Args:
            there: it must be there; else one that is not, or that a killed run left unnoted, is ours too.
        """
        noted = self._before["files"].get(stem, {}).get("sha256", {}).get(ending)
        data = self.run.find(f"report/{stem}{ending}") if noted else None
        return not there if data is None else sha256(data) == noted

    def _size(self, row: Row) -> tuple[int, int]:
        height, width = row.labels.shape
        share = min(1.0, (self._room / _BYTES_PER_PIXEL / (height * width)) ** 0.5)
        return fitted(width, height, min(JPEG_SIDE, max(1, int(max(width, height) * share))))

    def settle(self) -> None:
        """Note what is there now, and delete what earlier pages had and this one has not; what was changed stays."""
        for stem in self._before["files"].keys() - self._files.keys():
            for ending in _ENDINGS:
                if self._ours(stem, ending):
                    self.run.delete(f"report/{stem}{ending}")
        digests = {
            f"report/{stem}{ending}": [file["sha256"][ending]]
            for stem, file in self._files.items()
            for ending in _ENDINGS
        }
        self.run.put(_LEDGER, sealed({"files": digests, "folders": [], "of": self._of, "shown": self._files}))


def _stem(plan: Plan, shard: ShardRef, key: str) -> str:
    return f"pictures/{plan.masks.fingerprint}/{shard.name}-{fingerprint(key)}"


def _shown(stem: str, file: dict[str, Any]) -> dict[str, Any]:
    return {"photo": f"{stem}{_PHOTO}", "layers": f"{stem}{_LAYERS}", "size": file["size"]}


def _photo(row: Row, size: tuple[int, int]) -> bytes:
    image = Image.fromarray(row.image)
    smaller = image if image.size == size else image.resize(size, Resampling.BOX)
    return _bytes(smaller, format="JPEG", quality=QUALITY)


def _layers(plan: Plan, row: Row, size: tuple[int, int]) -> bytes:
    truth = None if row.truth is None else nearest(row.truth, size)
    return _bytes(label_sheet(nearest(row.labels, size), truth, void_as_background(plan)), format="PNG")


def _bytes(image: Image.Image, **how: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, **how)
    return buffer.getvalue()
