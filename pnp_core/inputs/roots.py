"""Where the datasets lie on this machine, told once: in the user's configuration file, or by PNP_OVSS_DATA.

The file is `config.yaml` in the platform's configuration folder, or what PNP_OVSS_CONFIG names::

    data:
      voc21: /data/VOCdevkit

A root enters a run as `--data` does, and nothing else of a run depends on where it was told.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any
from uuid import uuid4

from platformdirs import user_config_path
from pydantic import ValidationError

from pnp_core.errors import DatasetError, OutputError, UnknownNameError, UsageError, first_line
from pnp_core.frozen import Config
from pnp_core.inputs.cards import available_cards, first_fault, lineage, load_card
from pnp_core.storage.settings import read_settings
from pnp_core.text.files import text_of

ROOTS = "PNP_OVSS_DATA"
"""Variable with roots: a folder that holds datasets under the names of their cards, or `name=path,name=path`."""
FILE = "PNP_OVSS_CONFIG"
"""Variable with the path of the configuration file."""
KEY = "data."
"""What keys of roots begin with."""


EXAMPLE = "data: {voc21: /data/VOCdevkit}"


class UserConfig(Config):
    """What a user's configuration file may hold."""

    data: dict[str, str] = {}
    """Folder of each dataset by the name of its card: absolute paths or any fsspec URLs."""


@dataclass(frozen=True)
class Root:
    """The folder of a dataset.

    Attributes:
        name: of the card that it was told for.
        path: absolute, or a URL.
        origin: who says so, for people.
        remedy: what to do when it is wrong, for people.
    """

    name: str
    path: str
    origin: str
    remedy: str


def settings_file() -> Path:
    """The user's configuration file, whether or not it is there."""
    given = os.environ.get(FILE)
    return Path(given).expanduser().absolute() if given else user_config_path("pnp-ovss") / "config.yaml"


def known_roots() -> dict[str, Root]:
    """Card -> root of all that were told; the environment counts more than the file.

    Raises:
        UsageError: the file or the variable cannot be read, or names no dataset.
    """
    return {**_of_file(), **_of_environment()}


def root_of(dataset: str) -> Root | None:
    """The root of a dataset, or of the one that its card extends: VOC without background lies where VOC does.

    Args:
        dataset: name of a card, or the path of one.

    Raises:
        UsageError: as `known_roots`, or there is no such card.
    """
    roots = known_roots()
    return next((roots[name] for name in lineage(dataset) if name in roots), None)


def data_of(dataset: str, data: str | None) -> str | None:
    """The folder of a dataset: what is given, else its root; None where it is drawn or nothing is told.

    Raises:
        UsageError: as `root_of`.
        DatasetError: the root is gone; says who names it.
    """
    if data is not None or load_card(dataset).drawn:
        return data
    root = root_of(dataset)
    if root:
        _check_there(root)
    return root and root.path


def _check_there(root: Root) -> None:
    from pnp_core.inputs.readers._folder import DataFolder

    try:
        DataFolder(root.path, load_card(root.name))
    except DatasetError as error:
        raise DatasetError(f"{error}; {root.origin} names this folder for {root.name}: {root.remedy}") from error


def set_root(name: str, folder: str) -> Root:
    """Write down where a dataset lies; whatever else the file holds stays, comments too.

    Args:
        name: of a card.
        folder: a path, which may be relative, or any fsspec URL.

    Raises:
        UnknownNameError: no such card.
        UsageError: the dataset is drawn, or the file cannot be read.
        DatasetError: there is no such folder.
        OutputError: the file cannot be written.
    """
    card = _card_named(name, "dataset")
    if load_card(card).drawn:
        raise UsageError(f"dataset {name} is drawn, not read: it needs no folder")
    from pnp_core.inputs.readers._folder import DataFolder

    path = _absolute(folder)
    DataFolder(path, load_card(card))

    def change(values: Any) -> None:
        if not isinstance(roots := values.get("data") or {}, dict):
            raise UsageError(f"configuration '{settings_file()}': 'data' must be a mapping like '{EXAMPLE}'")
        roots[card] = path
        values["data"] = roots

    _rewrite(change)
    return _filed(card, path)


def unset_root(name: str) -> None:
    """Forget where a dataset lies.

    Raises:
        UsageError: the file does not say it, or cannot be read.
        OutputError: the file cannot be written.
    """

    def change(values: Any) -> None:
        roots = values.get("data")
        if not isinstance(roots, dict) or name not in roots:
            raise UsageError(f"{KEY}{name} is not set in '{settings_file()}'; `pnp-ovss config list` shows what is")
        del roots[name]

    _rewrite(change)


def _absolute(folder: str) -> str:
    """A path from where the command is typed, or a URL as it is."""
    return folder if "://" in folder else os.path.abspath(Path(folder).expanduser())  # noqa: PTH100 - links stay


def _card_named(name: str, kind: str) -> str:
    if name not in available_cards():
        raise UnknownNameError(kind, name, available_cards())
    return name


def _filed(name: str, path: str) -> Root:
    file = settings_file()
    return Root(name, path, f"the configuration file '{file}'", f"`pnp-ovss config set {KEY}{name} FOLDER`")


def _of_file() -> dict[str, Root]:
    file = settings_file()
    if not os.path.lexists(file):
        return {}
    values = read_settings(str(file), EXAMPLE)
    try:
        told = UserConfig.model_validate(values).data
    except ValidationError as error:
        raise UsageError(f"configuration '{file}': {first_fault(error)}") from error
    roots = {}
    for name, path in told.items():
        _card_named(name, f"dataset in '{file}':")
        root = _filed(name, path if "://" in path else str(Path(path).expanduser()))
        if "://" not in path and not Path(root.path).is_absolute():
            raise UsageError(f"configuration '{file}': {KEY}{name} is '{path}', which is relative: {root.remedy}")
        roots[name] = root
    return roots


def _of_environment() -> dict[str, Root]:
    given = os.environ.get(ROOTS, "").strip()
    if not given:
        return {}
    first, equals, _ = given.partition("=")
    paths = _listed(given) if equals and "/" not in first else _folders_of(given)
    remedy = f"set {ROOTS} anew, or give --data"
    return {name: Root(name, path, f"the variable {ROOTS}", remedy) for name, path in paths.items()}


def _listed(given: str) -> dict[str, str]:
    """Roots of `name=path,name=path`."""
    paths = {}
    for part in filter(None, (part.strip() for part in given.split(","))):
        name, _, path = (text.strip() for text in part.partition("="))
        if not path:
            raise UsageError(f"{ROOTS}: '{part}' is not of the form name=path, such as voc21=/data/VOCdevkit")
        paths[_card_named(name, f"dataset in {ROOTS}:")] = _absolute(path)
    return paths


def _folders_of(given: str) -> dict[str, str]:
    """Roots that lie in one folder under the names of their cards."""
    from pnp_core.inputs.sources.base import FileRef

    folder = _absolute(given)
    opened = FileRef.of(folder)
    if not opened.fs.isdir(opened.path):
        raise UsageError(
            f"{ROOTS} names the folder '{given}', which does not exist: it must hold datasets under the names of "
            f"their cards, or be a list such as voc21=/data/VOCdevkit"
        )
    inside = {name: f"{opened.path.rstrip('/')}/{name}" for name in available_cards()}
    return {name: f"{folder.rstrip('/')}/{name}" for name, path in inside.items() if opened.fs.isdir(path)}


def _rewrite(change: Callable[[Any], None]) -> None:
    """Change the file in one step; one that is a link stays one."""
    from ruamel.yaml import YAML, YAMLError

    file, yaml = settings_file(), YAML()
    yaml.width, yaml.preserve_quotes = 2**16, True  # lines stay as they are
    if os.path.lexists(file):
        read_settings(str(file), EXAMPLE)  # says what is wrong with it
    target = file.resolve()
    try:
        values = (yaml.load(text_of(target.read_bytes())) if target.exists() else None) or yaml.map()
    except (OSError, ValueError, YAMLError) as error:
        raise UsageError(f"cannot read configuration '{file}': {first_line(error)}") from error
    change(values)
    text = StringIO()
    yaml.dump(values, text)
    try:
        _write(target, text.getvalue())
    except OSError as error:
        raise OutputError(f"cannot write '{file}': {error.strerror or error}") from error


def _write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    half_written = file.with_name(f".{file.name}.{uuid4().hex[:8]}.tmp")
    try:
        with half_written.open("w", encoding="utf-8") as opened:
            opened.write(text)
            opened.flush()
            os.fsync(opened.fileno())
        half_written.replace(file)
    finally:
        half_written.unlink(missing_ok=True)
