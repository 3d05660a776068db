"""Pictures and masks beside the report page, with their own pixels, for a browser to look at closely."""

from __future__ import annotations

import io
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
from pnp_core.storage.seals import sealed, unsealed

FOLDER = "report/pictures"
FILE = r"pictures/[0-9a-f]{16}/[0-9]{6,}-[0-9a-f]{16}\.(?:jpg|png)"
"""Names of the files, relative to the page: of a mask's fingerprint, a shard and a key."""
BESIDE_BYTES = 320_000_000
"""All of them together are never larger."""
PICTURE_BYTES = 12_000_000
"""Nor are the two files of one picture."""
QUALITY = 88
VERSION = 1
"""Of what is in the files: another one makes all anew."""
_BYTES_PER_PIXEL = 0.5
"""Of both files, roughly: it says how many pixels are kept, the limits hold whatever it is."""
_NOTE = f"{MARK}/report_pictures.json"


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
        note = unsealed(self.run.find(_NOTE) or b"") or {}
        self._before = {"of": note.get("of", {}), "files": note.get("files", {})}

    def begin(self, plan: Plan, shard: ShardRef) -> bool:
        """Take up a shard; returns whether its files have to be written."""
        claim_folders(self.run, [f"{FOLDER}/{plan.masks.fingerprint}"])
        what = [plan.masks.fingerprint, shard.sha256, plan.masks.folder.record_sha256(shard.name)]
        self._of[shard.name] = fingerprint(VERSION, *what, self._room, void_as_background(plan))
        return not self._same(shard)

    @property
    def _room(self) -> int:
        return min(PICTURE_BYTES, BESIDE_BYTES // max(1, self.number))

    def _same(self, shard: ShardRef) -> bool:
        return self._before["of"].get(shard.name) == self._of[shard.name]

    def leave(self, plan: Plan, shard: ShardRef, row: Row) -> dict[str, Any] | None:
        """Leave the files of a picture; returns their names and size for the page, None where there is no room."""
        stem = f"pictures/{plan.masks.fingerprint}/{shard.name}-{fingerprint(row.sample.key)}"
        kept = self._before["files"].get(stem) if self._same(shard) else None
        if kept and all(self.run.exists(f"report/{kept[name]}") for name in ("photo", "layers")):
            self.left -= kept["bytes"]
            self._files[stem] = kept
            return _shown(kept)
        size = self._size(row)
        photo, layers = _photo(row, size), _layers(plan, row, size)
        if len(photo) + len(layers) > min(self.left, PICTURE_BYTES):
            return None
        self.left -= len(photo) + len(layers)
        made = {"photo": f"{stem}.jpg", "layers": f"{stem}.png", "size": list(size)}
        self._files[stem] = {**made, "bytes": len(photo) + len(layers)}
        self.run.put(f"report/{made['photo']}", photo)
        self.run.put(f"report/{made['layers']}", layers)
        return made

    def _size(self, row: Row) -> tuple[int, int]:
        height, width = row.labels.shape
        share = min(1.0, (self._room / _BYTES_PER_PIXEL / (height * width)) ** 0.5)
        return fitted(width, height, max(1, int(max(width, height) * share)))

    def settle(self) -> None:
        """Note what is there now, and delete what earlier pages had and this one has not."""
        for stem, file in self._before["files"].items():
            if stem not in self._files:
                self.run.delete(f"report/{file['photo']}")
                self.run.delete(f"report/{file['layers']}")
        self.run.write(_NOTE, sealed({"of": self._of, "files": self._files}))


def _shown(file: dict[str, Any]) -> dict[str, Any]:
    return {name: file[name] for name in ("photo", "layers", "size")}


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
