"""Find a checkpoint and refuse what is none, before anything heavy is imported or loaded."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pnp_core.bundled import BUNDLED, PACKAGE
from pnp_core.errors import CheckpointError, UnknownNameError, first_line
from pnp_core.methods.base import Pinned
from pnp_core.methods.pnp.backbones.cards import BackboneCard, backbone_card
from pnp_core.methods.pnp.config import BackboneConfig
from pnp_core.storage.weights import digest_of, read_pickled, refuse_pointer

SAFETENSORS, PICKLED = "model.safetensors", "pytorch_model.bin"
_INDEX = ".index.json"
"""Behind the name of a weights file: which part of a model that is split into several holds which tensor."""
TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
    "vocab.txt", "vocab.json", "merges.txt", "vocabulary.json",
)  # fmt: skip
# Without any of them transformers makes an empty tokenizer, and says nothing.
_VOCABULARIES = ("tokenizer.json", "vocab.txt", "vocab.json", "vocabulary.json")
_OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
_FILES = ("config.json", *TOKENIZER_FILES)


@dataclass(frozen=True, kw_only=True)
class Checkpoint(Pinned):
    """Weights on disk: the folder, and the model's shape."""

    folder: Path
    layers: int
    heads: int
    from_hub: bool = False

    @property
    def shape(self) -> dict[str, int]:
        """Cross-attention layers and heads."""
        return {"layers": self.layers, "heads": self.heads}


def locate_checkpoint(config: BackboneConfig) -> Checkpoint:
    """Find the weights (download them if they are on the hub) without loading them.

    Raises:
        UnknownNameError: no such backbone.
        CheckpointError: not found, or not what the backbone needs.
    """
    card = backbone_card(config.name)
    local = _local_folder(config, card)
    folder = local or _from_hub(config.checkpoint, config.revision)
    _refuse_pointers(folder)
    raw = _read_config(folder, card)
    weights = weights_files(folder)
    _require_tensors(folder, weights, card)
    if not any((folder / name).is_file() for name in _VOCABULARIES):
        raise CheckpointError(f"checkpoint '{folder}' has no tokenizer: it needs one of {', '.join(_VOCABULARIES)}")
    heads, layers = _number(raw, card.heads_at, folder), _number(raw, card.layers_at, folder, card.layers)
    if config.heads is not None and heads != config.heads:
        raise CheckpointError(
            f"checkpoint '{folder}' has {heads} cross-attention heads, the configuration expects {config.heads}"
        )
    # A hub snapshot's folder is named by its commit; any other folder by what is in it.
    revision = _digest(folder, weights) if local else folder.name
    return Checkpoint(
        revision=revision,
        version=card.version,
        contrastive=card.contrastive and config.checkpoint not in BUNDLED,  # nobody trained that of the bundled one
        match_all=card.match_all,
        folder=folder,
        layers=layers,
        heads=heads,
        from_hub=not local,
    )


def _local_folder(config: BackboneConfig, card: BackboneCard) -> Path | None:
    if (made_for := BUNDLED.get(config.checkpoint)) is not None:
        if card.name != made_for:
            raise CheckpointError(
                f"the bundled {config.checkpoint} model is of backbone {made_for}; give --checkpoint for {card.name}"
            )
        return PACKAGE / f"_{config.checkpoint}"
    path = Path(config.checkpoint).expanduser()
    convert = f"`pnp-ovss convert-weights {path} --backbone {card.name} --out FOLDER`"
    if path.is_file():
        raise CheckpointError(f"checkpoint '{path}' is a file; make a folder of it with {convert}")
    if path.suffix == ".pth":
        raise CheckpointError(
            f"weights '{path}' are not here: their authors publish them as a file; get it, make a folder of it with "
            f"{convert}, and give that as --checkpoint"
        )
    return path if path.is_dir() else None


def _from_hub(repository: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    def fetch(*files: str) -> Path:
        return Path(snapshot_download(repository, revision=revision, allow_patterns=list(files)))

    try:
        for name in (SAFETENSORS, PICKLED):
            folder = fetch(*_FILES, name, f"{name}{_INDEX}")
            if not (folder / name).exists() and (folder / f"{name}{_INDEX}").exists():
                fetch(*_part_names(folder / f"{name}{_INDEX}"))
            if (folder / name).exists() or (folder / f"{name}{_INDEX}").exists():
                break
        return folder
    except CheckpointError:
        raise
    except HFValidationError as error:
        raise CheckpointError(f"checkpoint '{repository}' is neither a folder nor a hub id like owner/name") from error
    except Exception as error:  # the hub client raises many types: offline, gated, missing, DNS ...
        reason = first_line(error).rstrip(".")
        offline = "; HF_HUB_OFFLINE is set, so nothing is downloaded" if is_offline() else ""
        raise CheckpointError(
            f"weights '{repository}' are no local folder, and not to be had from the hub ({reason}){offline}; "
            f"get them where there is a network and give their folder as --checkpoint, or leave that out for the "
            f"bundled model"
        ) from error


def is_offline() -> bool:
    """Whether the environment forbids downloads."""
    return any(os.environ.get(name, "").upper() in ("1", "TRUE", "YES", "ON") for name in _OFFLINE)


def _read_config(folder: Path, card: BackboneCard) -> dict[str, Any]:
    try:
        raw = json.loads((folder / "config.json").read_text())
    except (OSError, ValueError) as error:
        raise CheckpointError(f"checkpoint '{folder}' has no readable config.json") from error
    if not isinstance(raw, dict):
        raise CheckpointError(f"checkpoint '{folder}': config.json is not a mapping")
    if raw.get("model_type") != card.model_type:
        found = raw.get("model_type")
        try:
            hint = f"; give --backbone {backbone_card(str(found)).name}"
        except UnknownNameError:
            hint = ""
        raise CheckpointError(f"checkpoint '{folder}' is a '{found}' model, not {card.model_type}{hint}")
    return raw


def _number(raw: dict[str, Any], path: str, folder: Path, default: int | None = None) -> int:
    """A number of config.json.

    The head count leaves no trace in the weights, and transformers' default for BLIP (8) is wrong for every
    published one (12): a config that leaves it out would give silently wrong maps.
    """
    value: Any = raw
    for part in path.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    value = default if value is None else value
    if not isinstance(value, int):
        raise CheckpointError(f"checkpoint '{folder}': config.json does not state {path}")
    return value


def _refuse_pointers(folder: Path) -> None:
    """Refuse a clone of which git-lfs has not fetched the large files."""
    names = ("config.json", SAFETENSORS, PICKLED, f"{SAFETENSORS}{_INDEX}", f"{PICKLED}{_INDEX}", *TOKENIZER_FILES)
    for name in names:
        refuse_pointer(folder / name)


def weights_files(folder: Path) -> tuple[Path, ...]:
    """The file of the weights, or its parts where it is split; safetensors where there are some.

    Raises:
        CheckpointError: there is none, or a part is missing.
    """
    for name in (SAFETENSORS, PICKLED):
        if (folder / name).is_file():
            return (folder / name,)
        if (index := folder / f"{name}{_INDEX}").is_file():
            parts = tuple(folder / part for part in _part_names(index))
            for part in parts:
                if not part.is_file():
                    raise CheckpointError(f"checkpoint '{folder}' lacks {part.name}, which {index.name} names")
                refuse_pointer(part)
            return parts
    raise CheckpointError(
        f"checkpoint '{folder}' has neither {SAFETENSORS} nor {PICKLED}, nor the {_INDEX} of one that is split"
    )


def _part_names(index: Path) -> list[str]:
    """Names of the files that an index says the tensors are in."""
    try:
        names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"'{index}' is no index of weights: it has no readable weight_map") from error
    endings = (".safetensors", ".bin")
    wrong = [n for n in names if not isinstance(n, str) or Path(n).name != n or not n.endswith(endings)]
    if wrong or not names:
        raise CheckpointError(f"'{index}' names no part of the weights: '{min(map(str, wrong), default='')}'")
    return sorted(names)


def _require_tensors(folder: Path, weights: tuple[Path, ...], card: BackboneCard) -> None:
    """Refuse weights without the tensors that are needed."""
    names = set().union(*(tensor_names(file) for file in weights))
    missing = [name for name in card.needed if name not in names]
    if missing:
        kind = card.title.split(",")[0]
        raise CheckpointError(
            f"checkpoint '{folder}' is not an image-text-matching {kind}: it lacks {', '.join(missing)}"
        )


def tensor_names(file: Path) -> set[str]:
    """Names of the tensors in a file, without reading them.

    Raises:
        CheckpointError: it cannot be read, or holds anything but tensors.
    """
    if file.suffix == ".safetensors":
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(file, framework="np") as weights:
                return set(weights.keys())
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"checkpoint '{file}' is no readable safetensors file: {error}") from error
    content = read_pickled(file)
    if not isinstance(content, dict):
        raise CheckpointError(f"checkpoint '{file}' holds no tensors by name")
    return set(content)


def _digest(folder: Path, weights: tuple[Path, ...]) -> str:
    """Digest of the files that matter."""
    digest = hashlib.sha256()
    for name in ("config.json", *(file.name for file in weights), *TOKENIZER_FILES):
        if (file := folder / name).is_file():
            digest.update(name.encode() + digest_of(file))
    return digest.hexdigest()[:16]
