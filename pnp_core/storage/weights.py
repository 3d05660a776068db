"""Files of weights that somebody else made: read without running code in them, named by their content, compared."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pnp_core.errors import CheckpointError, UsageError
from pnp_core.storage.first_bytes import pointer

if TYPE_CHECKING:
    import torch

_POINTER = 200


@dataclass(frozen=True)
class Conversion:
    """What became of a file.

    Attributes:
        kept: number of tensors in the checkpoint folder.
        dropped: number of tensors left out, by reason.
        use: what an option names the folder with, for people.
    """

    folder: Path
    kept: int
    dropped: dict[str, int]
    use: str = "--checkpoint "


def require_new(out: Path) -> None:
    """Make the folder that a new one shall appear in.

    Raises:
        UsageError: the new one is there already, or its place cannot be made.
    """
    if out.exists():
        raise UsageError(f"'{out}' is there already; name a new folder")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"cannot make '{out}': {error.strerror}") from error


def refuse_pointer(file: Path) -> None:
    """Refuse what git-lfs or git-annex have put in the place of a large file.

    Raises:
        CheckpointError: it is such a one.
    """
    if file.is_file():
        with file.open("rb") as opened:
            what = pointer(opened.read(_POINTER))
        if what:
            raise CheckpointError(f"'{file}' is a {what}")


def read_pickled(file: Path) -> Any:
    """A `.pth` or `.bin` file by torch's restricted reader: tensors and plain containers, no code.

    Raises:
        CheckpointError: it cannot be read, or holds anything else.
    """
    import torch

    refuse_pointer(file)
    with suppress(Exception):  # files written by torch before 1.6 cannot be mapped into memory
        return torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    try:
        return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many types
        raise CheckpointError(
            f"'{file}' is no file of weights alone: incomplete, damaged, or with more in it than tensors "
            f"(code in pickled files is never run)"
        ) from error


def read_state(file: Path) -> dict[str, torch.Tensor]:
    """The tensors of a pickled file by name, whatever is wrapped around them.

    Raises:
        CheckpointError: it cannot be read, or holds no tensors.
    """
    import torch

    if file.is_dir():
        raise CheckpointError(f"'{file}' is a folder; a checkpoint folder needs no conversion")
    if not file.is_file():
        raise CheckpointError(f"there is no file '{file}'")
    loaded: Any = read_pickled(file)
    for key in ("model", "module", "state_dict"):
        if isinstance(loaded, dict) and isinstance(loaded.get(key), dict):
            loaded = loaded[key]
    state = {k: v for k, v in loaded.items() if isinstance(v, torch.Tensor)} if isinstance(loaded, dict) else {}
    if not state:
        raise CheckpointError(f"'{file}' holds no tensors by name")
    if all(name.startswith("module.") for name in state):
        state = {name.removeprefix("module."): tensor for name, tensor in state.items()}
    return state


def require_same(expected: Mapping[str, tuple[int, ...]], found: Mapping[str, tuple[int, ...]]) -> None:
    """Every tensor of a model has to be there, in its shape, and no other.

    Args:
        expected, found: shapes by name.

    Raises:
        CheckpointError: names some of those that are not.
    """
    faults = {
        "missing": [name for name in expected if name not in found],
        "not known": [name for name in found if name not in expected],
        "of another shape": [n for n, shape in found.items() if n in expected and tuple(shape) != tuple(expected[n])],
    }
    wrong = [f"{len(names)} {what} ({', '.join(sorted(names)[:3])} ...)" for what, names in faults.items() if names]
    if wrong:
        raise CheckpointError(f"tensors {'; '.join(wrong)}")


def save_tensors(state: Mapping[str, torch.Tensor], file: Path, like: Path) -> None:
    """Write a safetensors file that whoever may read another file, `like`, may read."""
    from safetensors.torch import save_file

    save_file({k: v.contiguous().clone() for k, v in state.items()}, file, metadata={"format": "pt"})
    file.chmod(like.stat().st_mode)  # it was made for its owner alone


def digest_of(file: Path) -> bytes:
    """SHA-256 of a file's content; weights of gigabytes are read once, though a command and its flow pin them."""
    stat = file.stat()
    return file_digest(file.resolve(), (stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino))


@lru_cache(maxsize=64)
def file_digest(file: Path, stamp: tuple[int, ...]) -> bytes:
    """Of a file as it is by its stamp."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").digest()
