"""Who may use a server that this project starts: whoever has its secret. Prefect's own settings, set in one place.

A page that a user opens can send requests to 127.0.0.1, and run a command by starting a flow run with job variables
of its own. What keeps it out is the secret in each request's `Authorization` header: browsers add none by themselves,
so neither another origin nor a name that resolves to 127.0.0.1 (DNS rebinding, any `Host`) has one. Allowed origins
and CSRF tokens are a second fence.
"""

from __future__ import annotations

import os
import secrets
import tempfile
from pathlib import Path

from pnp_core.errors import PnpError

USER = "pnp-ovss"
_HERE = ("127.0.0.1", "localhost", "::1")


def new_secret() -> str:
    """A secret nobody has seen, of the form `user:password` that Prefect asks for."""
    return f"{USER}:{secrets.token_urlsafe(32)}"


def read_secret(file: Path) -> str | None:
    """The secret in a file, None when there is none.

    Raises:
        PnpError: the file cannot be read, or holds no secret.
    """
    try:
        secret = file.read_text().strip()
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise PnpError(f"'{file}' cannot be read: {error}") from error
    if ":" not in secret:
        raise PnpError(f"'{file}' holds no secret: `pnp-ovss down`, delete the file, `pnp-ovss up` makes another")
    return secret


def make_secret(file: Path) -> None:
    """Write a new secret where none is, for the user's eyes only: made with mode 0600, whole or not at all."""
    if read_secret(file) is None:
        handle, temporary = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.", suffix=".tmp")
        with os.fdopen(handle, "w") as opened:
            opened.write(f"{new_secret()}\n")
        Path(temporary).replace(file)
    file.chmod(0o600)  # of one that was copied or restored


def server_settings(secret: str, origins: tuple[str, ...] = ()) -> dict[str, str]:
    """Variables of the environment that close a server.

    Args:
        origins: of the pages that may call it; none by default.
    """
    return {
        "PREFECT_SERVER_API_AUTH_STRING": secret,
        "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": ",".join(origins),
        "PREFECT_SERVER_CSRF_PROTECTION_ENABLED": "true",
    }


def client_settings(api: str, secret: str) -> dict[str, str]:
    """Variables of the environment with which Prefect's clients use a closed server on this machine."""
    return {
        "PREFECT_API_URL": api,
        "PREFECT_API_AUTH_STRING": secret,
        "PREFECT_CLIENT_CSRF_SUPPORT_ENABLED": "true",
        **without_proxy(),
    }


def without_proxy() -> dict[str, str]:
    """The variable that keeps requests to this machine from a proxy, which would be told the secret."""
    others = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""  # the one in small letters wins
    kept = [name.strip() for name in others.split(",") if name.strip()]
    if "*" in kept:
        return {"no_proxy": "*"}
    return {"no_proxy": ",".join(dict.fromkeys([*kept, *_HERE]))}
