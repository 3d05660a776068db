"""`eval`: label a dataset that has ground truth, and score it."""

from flows.dispatch.stages import run_shard_stage, run_stages
from pnp_core.config import EvalConfig
from pnp_core.data import RunSummary, ShardRef
from pnp_core.runs.plan import Plan, plan_eval
from pnp_core.runs.recording import write_evaluation_record, write_run_record
from pnp_core.storage.ownership import writing
from pnp_core.tracking.facts import of_run
from tasks.report import task_report
from tasks.runtime import runtime
from tasks.sharding import task_shard_dataset
from tasks.tracking import tracked


@tracked(of_run)
def evaluate(config: EvalConfig) -> RunSummary:
    """Shard a dataset split, extract salience, make masks, score them.

    Run again with the same configuration it resumes: finished shards are not computed again.
    """
    with writing(config.out, "run"):
        plan, masked, summary = _evaluate(config)
        task_report(config, plan, masked, summary)
        write_run_record(config, plan, summary)
        return summary


def evaluate_setting(config: EvalConfig) -> RunSummary:
    """Score another setting on the pictures of a run; what is stored for both is computed once."""
    with writing(config.out, "run"):
        plan, _, summary = _evaluate(config)
        write_evaluation_record(config, plan, summary)
        return summary


def _evaluate(config: EvalConfig) -> tuple[Plan, list[ShardRef], RunSummary]:
    plan = plan_eval(config)
    whole = None if config.only_classes else plan.salience.card.images_of(config.split)
    summary = RunSummary(config.out, masks=plan.masks.place, split_images=whole)
    shards = run_shard_stage(lambda: task_shard_dataset(config), summary)
    with runtime().shown():
        return plan, run_stages(plan, shards, summary, config.dispatch), summary
