"""Settings that lie in a YAML file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pnp_core.errors import UsageError
from pnp_core.text.files import text_of


def read_settings(url: str, example: str = "masks: {threshold: 0.2}") -> dict[str, Any]:
    """Parts of a configuration from a YAML file, a path or any fsspec URL.

    Args:
        example: what such a file may hold, for people.

    Raises:
        UsageError: missing, unreadable, or no mapping.
    """
    import fsspec
    import yaml

    try:
        fs, path = fsspec.core.url_to_fs(url if "://" in url else str(Path(url).expanduser()))
        values = yaml.safe_load(text_of(fs.cat_file(path)))
    except (OSError, ValueError, ImportError) as error:
        raise UsageError(f"cannot read configuration '{url}': {getattr(error, 'strerror', None) or error}") from error
    except yaml.YAMLError as error:
        raise UsageError(f"configuration '{url}' is not valid YAML: {' '.join(str(error).split())}") from error
    if values is not None and not isinstance(values, dict):
        raise UsageError(f"configuration '{url}' must be a mapping like '{example}'")
    return values or {}
