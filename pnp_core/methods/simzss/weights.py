"""SimZSS's released checkpoint: made into a folder without unpickling, found, and loaded strictly."""

from __future__ import annotations

import hashlib
import re
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from math import isqrt
from pathlib import Path

import torch
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file

from pnp_core.errors import CheckpointError
from pnp_core.finite import check_weights
from pnp_core.methods.base import Pinned
from pnp_core.methods.simzss.tower import HEAD, LAYERS, Sizes, Towers
from pnp_core.storage.weights import (
    Conversion,
    digest_of,
    read_state,
    refuse_pointer,
    require_new,
    require_same,
    save_tensors,
)

Shapes = dict[str, tuple[int, ...]]
CONFIG, WEIGHTS = "config.json", "model.safetensors"
_TRAINING = ("logit_scale", "logit_scale_local", "beta_ema", "classification_weights_ema")
"""Tensors of the authors' file that only training reads."""
_THEIRS = {"vit.": "visual.vit.model.", "denoiser.": "visual.denoiser.", "pos_embed": "visual.pos_embed"}
"""How the authors' names of tensors begin, by how ours do; `text.` is the same."""
HOW = "`pnp-ovss convert-weights FILE --method simzss --out FOLDER`"


def convert(file: Path, out: Path) -> Conversion:
    """Make a checkpoint folder of the file that the authors published. Nothing in it is run.

    Args:
        out: a folder that is not there yet; it appears when it is whole.

    Raises:
        UsageError: `out` is there.
        CheckpointError: the file cannot be read, or is of another model.
    """
    require_new(out)
    state = read_state(file)
    kept = {name: tensor for name, tensor in state.items() if name not in _TRAINING}
    shapes = {name: tuple(tensor.shape) for name, tensor in kept.items()}
    try:
        sizes = sizes_of(shapes)
        require_same(expected(sizes), shapes)
    except CheckpointError as error:
        raise CheckpointError(f"'{file}' is no SimZSS model as released: {error}") from error
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as place:
        folder = Path(place) / "checkpoint"
        folder.mkdir()
        (folder / CONFIG).write_text(sizes.model_dump_json(indent=2) + "\n", encoding="utf-8")
        save_tensors(kept, folder / WEIGHTS, like=folder / CONFIG)
        shutil.move(folder, out)
    dropped = {"of training alone": len(state) - len(kept)} if len(state) > len(kept) else {}
    return Conversion(out, len(kept), dropped, use="-p method.checkpoint=")


def sizes_of(shapes: Mapping[str, tuple[int, ...]]) -> Sizes:
    """What a model has to be for tensors of these names and shapes.

    Raises:
        CheckpointError: a tensor that says so is missing, or says what no release has.
    """
    for what, prefix in (("DINOv2", "visual.vit.model.blocks."), ("text", "text.transformer.resblocks.")):
        found = {m[1] for name in shapes if (m := re.match(re.escape(prefix) + r"(\d+)\.", name))}
        if len(found) != LAYERS:
            raise CheckpointError(f"it has {len(found)} {what} layers ({prefix}*), not {LAYERS}")
    patches = _shape(shapes, "visual.vit.model.pos_embed", 3)
    text = _shape(shapes, "text.positional_embedding", 2)
    for name, width in (("visual.vit.model.pos_embed", patches[-1]), ("text.positional_embedding", text[-1])):
        if width < HEAD or width % HEAD:
            raise CheckpointError(f"{name} has {width} channels, which are no heads of {HEAD}")
    if not patches[1] or isqrt(patches[1]) ** 2 != patches[1]:
        raise CheckpointError(f"visual.vit.model.pos_embed is of {patches[1]} patches, which are no square")
    denoiser = any(name.startswith((_THEIRS["denoiser."], _THEIRS["pos_embed"])) for name in shapes)
    return Sizes(width=patches[-1], grid=isqrt(patches[1]), text_width=text[-1], denoiser=denoiser)


def _shape(shapes: Mapping[str, tuple[int, ...]], name: str, dimensions: int) -> tuple[int, ...]:
    if name not in shapes:
        raise CheckpointError(f"it has no tensor {name}")
    if len(shapes[name]) != dimensions:
        raise CheckpointError(f"tensors 1 of another shape ({name}: {shapes[name]})")
    return shapes[name]


def expected(sizes: Sizes) -> Shapes:
    """The tensors of a model of some sizes, by the authors' names."""
    with torch.device("meta"):
        return {_theirs(name): tuple(tensor.shape) for name, tensor in Towers(sizes).state_dict().items()}


def _theirs(name: str) -> str:
    ours = next((start for start in _THEIRS if name.startswith(start)), None)
    return name if ours is None else _THEIRS[ours] + name.removeprefix(ours)


@dataclass(frozen=True, kw_only=True)
class SimzssWeights(Pinned):
    """A checkpoint folder that was found."""

    folder: Path
    sizes: Sizes


def locate(checkpoint: str | None) -> SimzssWeights:
    """Find a checkpoint folder and name it by its content, without loading it.

    Raises:
        CheckpointError: there is none, or it is not one that `convert` makes.
    """
    if checkpoint is None:
        raise CheckpointError(
            f"simzss has no bundled weights: get its authors' checkpoint, make a folder of it with {HOW}, and give "
            f"-p method.checkpoint=FOLDER"
        )
    folder = Path(checkpoint).expanduser()
    if folder.is_file():
        raise CheckpointError(f"'{folder}' is a file; make a folder of it with {HOW}")
    for file in (folder / CONFIG, folder / WEIGHTS):
        if not file.is_file():
            raise CheckpointError(f"no SimZSS model in '{folder}': {file.name} is missing; {HOW} makes such a folder")
        refuse_pointer(file)
    sizes = _read_sizes(folder)
    try:
        with safe_open(folder / WEIGHTS, framework="pt") as weights:
            found = {name: tuple(weights.get_slice(name).get_shape()) for name in weights.keys()}  # noqa: SIM118
        require_same(expected(sizes), found)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"'{folder / WEIGHTS}' is no readable safetensors file: {error}") from error
    except CheckpointError as error:
        raise CheckpointError(f"'{folder}' holds other weights than its {CONFIG} says: {error}") from error
    digest = hashlib.sha256(digest_of(folder / CONFIG) + digest_of(folder / WEIGHTS))
    return SimzssWeights(revision=digest.hexdigest()[:16], folder=folder, sizes=sizes)


def _read_sizes(folder: Path) -> Sizes:
    try:
        return Sizes.model_validate_json((folder / CONFIG).read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        said = f"{where}: {first['msg']}" if where else first["msg"]
        raise CheckpointError(f"'{folder / CONFIG}' is not one of a SimZSS model: {said}") from error
    except OSError as error:
        raise CheckpointError(f"'{folder / CONFIG}' cannot be read: {error.strerror}") from error


def load_towers(weights: SimzssWeights) -> Towers:
    """The towers with their weights, in float32.

    Raises:
        CheckpointError: a tensor is not finite.
    """
    towers = Towers(weights.sizes)
    found = load_file(weights.folder / WEIGHTS)
    towers.load_state_dict({name: found[_theirs(name)] for name in towers.state_dict()}, strict=True)
    check_weights(towers, f"SimZSS '{weights.folder}'")
    return towers
