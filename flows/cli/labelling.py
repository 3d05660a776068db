"""Commands that make masks: demo, eval, label."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import typer

from flows.cli.costing import say_cost
from flows.cli.fields import argument, option
from flows.cli.options import (
    ENSEMBLE,
    MASKS,
    OWN_IMAGES,
    PIPELINE,
    TRACK,
    DebugOption,
    DryRunOption,
    Given,
    JsonOption,
    ParamOption,
    StrictOption,
    options_of,
)
from flows.cli.run_folders import eval_out, label_out, redo_out
from flows.cli.running import Prepared, Run, execute, fail, runs, warn
from pnp_core.config import EvalConfig, LabelConfig
from pnp_core.configuring import build
from pnp_core.data import RunSummary
from pnp_core.errors import PnpError

if TYPE_CHECKING:
    from rich.console import Console

    from pnp_core.checks.run_cost import RunCost


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


def _say_model(config: LabelConfig) -> None:
    from flows.cli.console import errors, shown
    from pnp_core.bundled import PHOTO

    described = config.method.describe()
    small = ", which is bundled and small: for good masks give real weights with --checkpoint"
    errors.print(f"[dim]{shown(described.row)}{small if described.weights == PHOTO else ''}[/]", soft_wrap=True)


def _prepare_label(config: LabelConfig) -> Prepared:
    from pnp_core.runs.preflight import check_label

    warn(check_label(config))
    return runs("label", config)


def _eval_cost(config: EvalConfig) -> RunCost:
    from pnp_core.checks.run_cost import eval_cost

    return eval_cost(config)


def _label_cost(config: LabelConfig) -> RunCost:
    from pnp_core.checks.run_cost import label_cost

    return label_cost(config)


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
    dry_run: DryRunOption = False,
    strict: StrictOption = False,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Label a dataset that has ground truth, and score it (mIoU, per-class IoU)."""

    def config() -> EvalConfig:
        return given.config(param, out=eval_out(given.values["dataset"]))

    if dry_run:
        say_cost(lambda: _eval_cost(config()), as_json, debug)
        return
    _run(lambda: _prepare_eval(config()), as_json, debug, strict)


@options_of(
    LabelConfig,
    argument("source"),
    option("classes", shown="with --redo those of the run"),
    option("out", shown="runs/label-NAME, with --redo SOURCE-redo"),
    option("image_column"),
    option("redo"),
    option("review", metavar="FILE"),
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
    dry_run: DryRunOption = False,
    strict: StrictOption = False,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Make masks for your own pictures. Mask value 0 is background, i the i-th class.

    Without --out the run folder is runs/label-NAME, by the name of the source; that of another source is not touched.
    With --redo rejected, SOURCE is a run folder: its rejected pictures get new masks in a run folder of their own.
    """

    def config() -> LabelConfig:
        usual = _of_run(given.values) if given.values.get("redo") else {"out": label_out(given.values["source"])}
        return given.config(param, **usual)

    if dry_run:
        say_cost(lambda: _label_cost(config()), as_json, debug)
        return

    def prepare() -> Prepared:
        prepared = _prepare_label(own := config())
        _say_model(own)
        return prepared

    _run(prepare, as_json, debug, strict)


def _of_run(values: dict[str, Any]) -> dict[str, Any]:
    """What holds for `--redo` where nothing else is said."""
    from pnp_core.runs.review import finished_record
    from pnp_core.storage.run_folder import RunFolder

    source = values["source"]
    record = finished_record(RunFolder(source))
    # With their prompts, ids and colours, where the run had some; of a dataset the names.
    classes = (record.config.model_extra or {}).get("classes") or record.classes
    return {"out": redo_out(source), "classes": classes}
