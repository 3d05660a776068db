"""Command tune."""

from __future__ import annotations

from typing import Any

from flows.cli.costing import say_cost, tune_cost
from flows.cli.fields import argument, option
from flows.cli.options import (
    OWN_IMAGES,
    PIPELINE,
    TRACK,
    DebugOption,
    DryRunOption,
    Given,
    JsonOption,
    ParamOption,
    options_of,
)
from flows.cli.run_folders import tune_out
from flows.cli.running import Prepared, execute, runs, warn
from pnp_core.tuning.config import TuneConfig


def _prepare_tune(config: TuneConfig) -> Prepared:
    from pnp_core.tuning.plan import check_tune

    warn(check_tune(config))
    return runs("tune", config)


@options_of(
    TuneConfig,
    argument("dataset"),
    option("out", shown="runs/tune-CARD"),
    option("data"),
    option("split"),
    option("images"),
    option("classes"),
    option("image_column"),
    *OWN_IMAGES,
    option("only_classes"),
    option("image_labels"),
    option("reward.kind", "--reward"),
    option("reward.judge"),
    option("reward.clip.model", "--clip"),
    option("reward.clip.pretrained", "--clip-weights"),
    option("search.optimizer"),
    option("search.trials"),
    option("search.seed"),
    option("compare.masks", "--compare"),
    TRACK,
    *PIPELINE,
)
def tune(
    given: Given[TuneConfig],
    param: ParamOption = None,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Choose threshold and blur (pnp-ovss: layer and head too) without masks; best.yaml is for --config of eval, label.

    Needs image-level labels at most. Run it again and it resumes, in the middle of a search too.
    """

    def config() -> TuneConfig:
        return given.config(param, out=tune_out(given.values["dataset"]))

    if dry_run:
        say_cost(lambda: tune_cost(config()), as_json, debug)
        return

    def prepare() -> Prepared:
        return _prepare_tune(config())

    def show(summary: Any, console: Any) -> None:
        from flows.cli.console import show_tuning

        show_tuning(summary, console)

    execute(prepare, show, as_json, debug)
