"""Commands that make masks: demo, eval, label."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import typer

from flows.cli.fields import argument, option
from flows.cli.options import (
    ENSEMBLE,
    MASKS,
    OWN_IMAGES,
    PIPELINE,
    TRACK,
    DebugOption,
    Given,
    JsonOption,
    ParamOption,
    StrictOption,
    options_of,
)
from flows.cli.run_folders import eval_out, label_out
from flows.cli.running import Prepared, Run, execute, fail, runs, warn
from pnp_core.config import EvalConfig, LabelConfig
from pnp_core.configuring import build
from pnp_core.data import RunSummary
from pnp_core.errors import PnpError

if TYPE_CHECKING:
    from rich.console import Console


def _run(prepare: Callable[[], Prepared], as_json: bool, debug: bool, strict: bool = False) -> None:
    """Run a pipeline that makes masks."""

    def show(summary: Any, console: Any) -> None:
        from flows.cli.console import show_summary

        show_summary(summary, console)

    summary = execute(prepare, show, as_json, debug)
    _checked(summary)
    if strict and summary.quarantined:
        raise typer.Exit(1)


def _checked(done: RunSummary | Demo) -> None:
    if not done.labelled:
        fail(PnpError("nothing was labelled: every picture was quarantined, see the reasons above"), False)


def _prepare_eval(config: EvalConfig) -> Prepared:
    from pnp_core.runs.preflight import check_eval

    warn(check_eval(config))
    return runs("eval", config)


def _prepare_label(config: LabelConfig) -> Prepared:
    from pnp_core.runs.preflight import check_label

    warn(check_label(config))
    return runs("label", config)


@dataclass(frozen=True)
class Demo:
    """What both runs of the demo came to."""

    scenes: RunSummary
    photographs: RunSummary

    @property
    def labelled(self) -> int:
        """Nothing, when one of the runs labelled nothing."""
        return min(self.scenes.labelled, self.photographs.labelled)

    @property
    def untracked(self) -> str:
        """The demo is recorded nowhere else."""
        return ""

    def as_json(self) -> dict[str, Any]:
        """The scenes' object, with the photographs' in it."""
        return {**self.scenes.as_json(), "photographs": self.photographs.as_json()}


PHOTOGRAPHS = files("pnp_core") / "_photographs"
"""Of CC0 or in the public domain, see NOTICE."""
ON_PHOTOGRAPHS = ("cat", "person", "cup", "rocket", "camera", "dog", "car", "train", "bottle")
DEMO_OUT = "runs/demo"


@options_of(EvalConfig, option("out", shown=DEMO_OUT))
def demo(given: Given[EvalConfig], as_json: JsonOption = False, debug: DebugOption = False) -> None:
    """Label six photographs, and label and score 200 synthetic test scenes: the whole method, offline.

    The photographs go to a run folder of their own, OUT-photographs. Both get masks, a contact sheet and a report. Run
    it again and it resumes.
    """

    def prepare() -> Prepared:
        config = given.config(out=DEMO_OUT)
        own = {"source": str(PHOTOGRAPHS), "classes": ON_PHOTOGRAPHS, "out": f"{config.out.rstrip('/')}-photographs"}
        label_photographs, _ = _prepare_label(build(LabelConfig, own))
        label_scenes, scenes = _prepare_eval(config)

        def work(run: Run) -> Demo:
            return Demo(scenes=label_scenes(run), photographs=label_photographs(run))

        return work, scenes

    def show(done: Demo, console: Console) -> None:
        from flows.cli.console import show_summary

        show_summary(done.photographs, console)
        show_summary(done.scenes, console)

    _checked(execute(prepare, show, as_json, debug))


@options_of(
    EvalConfig,
    argument("dataset"),
    option("out", shown="runs/eval-CARD"),
    option("data"),
    option("split"),
    option("limit"),
    option("shards"),
    option("only_classes"),
    option("ground_truth"),
    option("image_labels"),
    option("score.mean"),
    option("score.void_as_background", "--void-as-background"),
    TRACK,
    *MASKS,
    *PIPELINE,
    *ENSEMBLE,
)
def evaluate(
    given: Given[EvalConfig],
    param: ParamOption = None,
    strict: StrictOption = False,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Label a dataset that has ground truth, and score it (mIoU, per-class IoU)."""
    _run(lambda: _prepare_eval(given.config(param, out=eval_out(given.values["dataset"]))), as_json, debug, strict)


@options_of(
    LabelConfig,
    argument("source"),
    option("classes"),
    option("out", shown="runs/label-NAME"),
    option("image_column"),
    option("salience.max_pixels"),
    TRACK,
    *OWN_IMAGES,
    *MASKS,
    *PIPELINE,
    *ENSEMBLE,
)
def label(
    given: Given[LabelConfig],
    param: ParamOption = None,
    strict: StrictOption = False,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Make masks for your own pictures. Mask value 0 is background, i the i-th class.

    Without --out the run folder is runs/label-NAME, by the name of the source; that of another source is not touched.
    """
    _run(lambda: _prepare_label(given.config(param, out=label_out(given.values["source"]))), as_json, debug, strict)
