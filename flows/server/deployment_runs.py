"""Starting runs of deployments, with parameters as people type them."""

from __future__ import annotations

import difflib
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import DeploymentFilter
from prefect.client.schemas.responses import DeploymentResponse
from prefect.exceptions import PrefectHTTPStatusError
from prefect.settings import PREFECT_API_URL

from flows.parameters import parse_parameters
from pnp_core.config import laid_over, with_method
from pnp_core.configuring import first_unknown, keys_of, unknown_key
from pnp_core.errors import PnpError, UsageError, in_words
from pnp_core.frozen import merge, value_at
from pnp_core.inputs.class_files import classes_of
from pnp_core.inputs.roots import data_of
from pnp_core.methods.base import PNP
from pnp_core.openclip.config import LOCAL_DIR

NAMES = ("checkpoint", "dataset", "pretrained")
"""Keys that may name something else; a path only when it is there."""
CLIPS = ("method.clip", "method.proposer", "method.classifier", "salience.candidates.clip", "reward.clip")
"""Keys of a configuration that a CLIP stands at."""
PLACES = (
    "out",
    "runs",
    "data",
    "source",
    "config_file",
    "settings",
    "dataset",
    "method.backbone.checkpoint",
    "method.checkpoint",
    "method.proposals",
    "method.runs",
    "salience.backbone.checkpoint",
    "salience.candidates.file",
    *(f"{clip}.{key}" for clip in CLIPS for key in ("model", "pretrained", "prompts")),
)
"""Keys of a configuration that name a file or folder, or several."""
_LOCAL = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True)
class StartedRun:
    """A flow run that was asked for.

    Attributes:
        deployment: flow name / deployment name.
        queue: whose workers take it.
    """

    id: UUID
    name: str
    deployment: str
    queue: str | None
    url: str
    out: str | None

    def as_json(self) -> dict[str, Any]:
        """For `--json`."""
        return asdict(self) | {"id": str(self.id)}


def require_server() -> str:
    """The address of the Prefect server.

    Raises:
        UsageError: there is none: a temporary one would have no deployments and no workers.
    """
    url = PREFECT_API_URL.value()
    if not url:
        raise UsageError("no Prefect server: `pnp-ovss up` starts one on this machine, or set PREFECT_API_URL")
    return url


def require_access() -> str:
    """The address of the Prefect server, which answers us.

    Raises:
        UsageError: there is none, or it asks for another secret.
        PnpError: it does not answer.
    """
    url = require_server()
    try:
        with get_client(sync_client=True) as client:
            client.api_version()
    except PrefectHTTPStatusError as error:
        if error.response.status_code in (401, 403):
            raise UsageError(f"{url} refuses: PREFECT_API_AUTH_STRING must be its user:password") from error
    except httpx.TransportError as error:
        raise PnpError(f"{url} does not answer: {in_words(error)}") from error
    return url


def start_run(name: str, parameters: list[str], here: str) -> StartedRun:
    """Start a run of a deployment.

    Args:
        name: of the deployment, or flow name / deployment name.
        parameters: `key=value`, laid over the deployment's configuration.
        here: folder that relative paths are meant from.

    Raises:
        UsageError: no or several such deployments, or the parameters do not fit.
    """
    given = with_classes(parse_parameters(parameters))
    local = urlsplit(require_server()).hostname in _LOCAL
    with get_client(sync_client=True) as client:
        flow, deployment = _find(client, name)
        values = dict(deployment.parameters or {})
        schema = deployment.parameter_openapi_schema or {}
        of_config = "config" in schema.get("properties", {})
        if of_config:
            if "config.method" in keys_of(schema):  # else of a version that had no other methods
                given = with_method(given)
                config = laid_over(_for_method(values.get("config", {}), given), given)
            else:
                config = merge(values.get("config", {}), given)
            if "out" not in given and config.get("out") == usual_out(deployment.name):
                del config["out"]  # of runs that others start than `pnp-ovss run`
            if local and (data := _told_data(config)):
                config = {**config, "data": data}
            values["config"] = place(config, deployment.name, here if local else None)
        else:
            values = merge(values, given)
        try:
            run = client.create_flow_run_from_deployment(deployment.id, parameters=values)
        except PrefectHTTPStatusError as error:
            _refuse_unknown_key(given, schema, "config." if of_config else "")
            raise UsageError(f"{deployment.name}: {_detail(error)}") from error
        url = f"{require_server().removesuffix('/api')}/runs/flow-run/{run.id}"
        out = values.get("config", {}).get("out")
        return StartedRun(run.id, run.name, f"{flow}/{deployment.name}", deployment.work_queue_name, url, out)


def with_classes(given: dict[str, Any]) -> dict[str, Any]:
    """Parameters with the classes that stand in a file here, which a worker elsewhere need not have.

    Raises:
        ClassNameError: the file is missing, or something in it cannot be.
    """
    classes = classes_of(given.get("classes"))
    if not isinstance(classes, tuple):
        return given
    plain = [one if isinstance(one, str) else one.model_dump(mode="json", exclude_defaults=True) for one in classes]
    return {**given, "classes": plain}


def usual_out(name: str) -> str:
    """The run folder that a deployment names, in the home of whoever's worker works on it."""
    return f"~/pnp-ovss/{name}"


def _told_data(config: dict[str, Any]) -> str | None:
    """Where this machine has the dataset, where the configuration does not say it; a worker elsewhere looks itself."""
    dataset, own_images = config.get("dataset"), config.get("classes")
    if not isinstance(dataset, str) or own_images or config.get("data") is not None:
        return None
    return data_of(dataset, None)


def _for_method(config: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """A deployment's configuration, less what it presets for its own method where another one is asked for."""
    config = with_method(config)
    name, other = ((value_at(values, "method.name") or PNP) for values in (config, given))
    kept = {key: value for key, value in config.items() if key not in ("preset", "method")}
    return config if name == other or value_at(given, "method.name") is None else kept


def place(config: dict[str, Any], name: str, here: str | None) -> dict[str, Any]:
    """A configuration whose paths a worker can find, since it works in a folder of its own.

    Args:
        here: folder relative paths are meant from; None when the worker is on another machine.

    Raises:
        UsageError: a path is relative, or there is no run folder, and the worker is elsewhere.
    """
    if "out" in config and not config["out"]:
        raise UsageError("out= is empty: give the run folder, or leave it out")
    if "out" not in config:
        if here is None:
            raise UsageError(f"give the run folder: -p out=URL or an absolute path (the server of {name} is elsewhere)")
        config = {**config, "out": f"runs/{name}"}
    for key in PLACES:
        config = _placed(config, key.split("."), here)
    return config


def _placed(values: dict[str, Any], path: list[str], here: str | None) -> dict[str, Any]:
    """Values with the relative path at some key made absolute."""
    key, *rest = path
    text = values.get(key)
    if rest:
        return {**values, key: _placed(text, rest, here)} if isinstance(text, dict) else values
    if isinstance(text, list):
        return {**values, key: [_placed_text(key, part, here) for part in text]}
    return {**values, key: _placed_text(key, text, here)} if key in values else values


def _placed_text(key: str, text: Any, here: str | None) -> Any:
    """A path that was relative, absolute; whatever else as it is."""
    if isinstance(text, dict) and "run" in text:  # one of `method.runs` with its weight
        return {**text, "run": _placed_text(key, text["run"], here)}
    if isinstance(text, str) and text.startswith(LOCAL_DIR):
        return LOCAL_DIR + _placed_text(LOCAL_DIR, text.removeprefix(LOCAL_DIR), here)
    if not isinstance(text, str) or key == "model" or "://" in text or Path(text).expanduser().is_absolute():
        return text
    if here is None:
        if key in NAMES:
            return text
        raise UsageError(f"{key}={text} is relative: the server is elsewhere, give an absolute path or a URL")
    found = Path(here) / text
    return text if key in NAMES and not found.exists() else os.path.normpath(found)


def _find(client: SyncPrefectClient, name: str) -> tuple[str, DeploymentResponse]:
    flow_name, _, bare = name.rpartition("/")
    wanted: Any = {"name": {"any_": [bare]}}
    found = client.read_deployments(deployment_filter=DeploymentFilter.model_validate(wanted))
    flows = {deployment.id: client.read_flow(deployment.flow_id).name for deployment in found}
    fitting = [deployment for deployment in found if flow_name in ("", flows[deployment.id])]
    if len(fitting) > 1:
        names = ", ".join(sorted(f"{flows[deployment.id]}/{bare}" for deployment in fitting))
        raise UsageError(f"several deployments are named '{bare}': {names}; give the one you mean")
    if not fitting:
        raise UsageError(f"no deployment '{name}' on {require_server()}{_known(client, bare)}")
    return flows[fitting[0].id], fitting[0]


def _known(client: SyncPrefectClient, name: str) -> str:
    """What there is instead."""
    names = sorted({deployment.name for deployment in client.read_deployments()})
    if not names:
        return ": it has none, `pnp-ovss deploy` makes them"
    close = difflib.get_close_matches(name, names, n=1)
    return f"{f'; did you mean {close[0]!r}?' if close else ';'} available: {', '.join(names)}"


def _refuse_unknown_key(given: dict[str, Any], schema: dict[str, Any], below: str) -> None:
    """Say which of the values a deployment has no key for.

    Raises:
        UsageError: there is such a value.
    """
    keys = [key.removeprefix(below) for key in keys_of(schema) if key.startswith(below)]
    if place := first_unknown(given, keys):
        raise unknown_key(place, keys)


def _detail(error: PrefectHTTPStatusError) -> str:
    """What the server says of parameters that do not fit, in one line."""
    try:
        detail = error.response.json().get("detail", error.response.text)
    except ValueError:
        detail = error.response.text
    return " ".join(str(detail).split())[:500]
