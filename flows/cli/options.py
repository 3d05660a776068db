"""Options that several commands share, and what a command line makes of a configuration."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Annotated, Any, TypeVar

import typer
from pydantic import ValidationError

from pnp_core.errors import UsageError
from pnp_core.frozen import Config, merge
from pnp_core.methods.pnp.presets import PRESETS
from pnp_core.storage.settings import read_settings

SomeConfig = TypeVar("SomeConfig", bound=Config)

MinScoreOption = Annotated[float | None, typer.Option(help="Candidates must score above this, 0..1.")]
TopKOption = Annotated[int | None, typer.Option(help="At most so many candidates per picture, the best ones.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line of stdout.")]
DebugOption = Annotated[bool, typer.Option("--debug", help="Show tracebacks and Prefect's log.")]
PngOption = Annotated[bool | None, typer.Option("--png/--no-png", help="Also write every mask as a PNG file.")]
ConfidenceOption = Annotated[
    bool | None,
    typer.Option("--confidence/--no-confidence", help="Keep each pixel's confidence, which `export` can cut by."),
]
FollowLinksOption = Annotated[
    bool | None,
    typer.Option(
        "--follow-links/--no-follow-links",
        help="Of a folder: also take what links lead to outside of it. Otherwise they are passed over.",
    ),
]
FetchSecondsOption = Annotated[
    float | None,
    typer.Option(help="Limit in seconds for each picture on another machine; 30."),
]
ExcludeOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="PATTERN",
        help="Leave out what fits a path, or the name of a file or folder: 'thumbs', '*.gif', 'raw/*'. Of a folder, a "
        "list or tars; can be given several times.",
    ),
]
StrictOption = Annotated[bool, typer.Option("--strict", help="End with exit code 1 when a picture was quarantined.")]


@dataclass(frozen=True)
class PipelineOptions:
    """Options of every command that runs the model; None where not given."""

    candidates: Annotated[
        str | None,
        typer.Option(
            "--candidates",
            help="Which classes go into a picture's caption: labels, vocabulary, file, itm, clip (docs/candidates.md).",
        ),
    ] = None
    candidates_file: Annotated[
        str | None,
        typer.Option(help="JSON, JSON Lines, CSV or Parquet with classes per picture; implies --candidates file."),
    ] = None
    min_score: MinScoreOption = None
    top_k: TopKOption = None
    preset: Annotated[
        str | None,
        typer.Option(
            help=f"Start from: {', '.join(PRESETS)}. Default: photo (tiny for scenes), or authors with other weights."
        ),
    ] = None
    config: Annotated[
        str | None,
        typer.Option(help="YAML with parts of the configuration, such as best.yaml; laid over the preset."),
    ] = None
    backbone: Annotated[str | None, typer.Option(help="Vision-language model, one of `pnp-ovss backbones`.")] = None
    checkpoint: Annotated[
        str | None, typer.Option(help="Weights: photo or tiny (bundled), a local folder, or a hub id.")
    ] = None
    image_size: Annotated[
        int | None, typer.Option(help="Side of the square a picture is squashed to, a multiple of the patch size.")
    ] = None
    layer: Annotated[int | None, typer.Option(help="Cross-attention layer, from 0.")] = None
    head: Annotated[int | None, typer.Option(help="Head of that layer, from 0.")] = None
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda, cuda:1, mps ...")] = None
    batch_size: Annotated[int | None, typer.Option(help="Pictures per forward pass.")] = None

    def values(self, own: dict[str, Any]) -> dict[str, Any]:
        """The YAML file, these options over it, and a command's own over them; the configuration lays all of it
        over the preset.

        Raises:
            UsageError: the file cannot be read, or was made for other weights.
        """
        values = read_settings(self.config) if self.config else {}
        self._refuse_other_checkpoint(values)
        values |= given(preset=self.preset)
        source = self.candidates or ("file" if self.candidates_file else None)
        parts = {
            "salience": {
                "backbone": given(name=self.backbone, checkpoint=self.checkpoint, image_size=self.image_size),
                **given(layer=self.layer, head=self.head),
                "candidates": given(
                    source=source, file=self.candidates_file, min_score=self.min_score, top_k=self.top_k
                ),
            },
            "runtime": given(device=self.device, batch_size=self.batch_size),
        }
        return merge(merge(values, parts), given(**own))

    def _refuse_other_checkpoint(self, values: dict[str, Any]) -> None:
        """Layer, head and sizes of a file that names its checkpoint mean nothing for another one."""
        salience = values.get("salience")
        backbone = salience.get("backbone") if isinstance(salience, dict) else None
        chosen = backbone.get("checkpoint") if isinstance(backbone, dict) else None
        if None not in (chosen, self.checkpoint) and chosen != self.checkpoint:
            raise UsageError(
                f"'{self.config}' was made for checkpoint {chosen}; leave out --checkpoint {self.checkpoint}"
            )
        name = backbone.get("name") if isinstance(backbone, dict) else None
        if self.backbone is not None and self.backbone != (name or ("blip" if chosen else self.backbone)):
            raise UsageError(f"'{self.config}' was made for {name or 'blip'}; leave out --backbone {self.backbone}")


def with_pipeline_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of `PipelineOptions`; its first parameter, `options`, receives them."""
    own = dict(inspect.signature(command, eval_str=True).parameters)
    del own["options"]
    shared = inspect.signature(PipelineOptions, eval_str=True).parameters

    @wraps(command)
    def wrapper(**values: Any) -> None:
        command(PipelineOptions(**{name: values.pop(name) for name in shared}), **values)

    # Typer reads signature and annotations. The shared options come before those on printing: all are keywords.
    parameters = sorted(
        (p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in (*own.values(), *shared.values())),
        key=lambda p: p.name in _LAST,
    )
    wrapper.__dict__["__signature__"] = inspect.Signature(parameters)
    wrapper.__annotations__ = {p.name: p.annotation for p in parameters}
    del wrapper.__dict__["__wrapped__"]
    return wrapper


_LAST = ("strict", "as_json", "debug")


def given(**values: Any) -> dict[str, Any]:
    """The values that are there."""
    return {key: value for key, value in values.items() if value is not None}


def names(text: str | None) -> list[str] | None:
    """Names separated by commas; None stays None."""
    return None if text is None else [name.strip() for name in text.split(",")]


def build(model: type[SomeConfig], values: dict[str, Any]) -> SomeConfig:
    """A configuration from what a user gave.

    Raises:
        UsageError: it is not valid; says where, in one line.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        # Of a value that may be of several types, pydantic names the type too.
        place = ".".join(str(part) for part in first["loc"] if not str(part).startswith(("constrained-", "tuple[")))
        message = first["msg"].removeprefix("Value error, ")
        raise UsageError(f"configuration: {place + ': ' if place else ''}{message}") from error
