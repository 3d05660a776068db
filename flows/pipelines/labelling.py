"""`label`: masks for a user's own pictures."""

from flows.dispatch.stages import run_shard_stage, run_stages
from pnp_core.config import LabelConfig
from pnp_core.data import RunSummary
from pnp_core.runs.plan import plan_label
from pnp_core.runs.recording import write_run_record
from pnp_core.storage.ownership import writing
from pnp_core.tracking.facts import of_run
from tasks.report import task_report
from tasks.runtime import runtime
from tasks.sharding import task_shard_source
from tasks.tracking import tracked


@tracked(of_run)
def label(config: LabelConfig) -> RunSummary:
    """Shard the pictures, extract salience, make masks.

    Run again with the same configuration it resumes: finished shards are not computed again.
    """
    plan = plan_label(config)
    summary = RunSummary(config.out, masks=plan.masks.place)
    with writing(config.out, "run"):
        shards = run_shard_stage(lambda: task_shard_source(config), summary)
        with runtime().shown():
            masked = run_stages(plan, shards, summary, config.dispatch)
        task_report(config, plan, masked, summary)
        write_run_record(config, plan, summary)
        return summary
