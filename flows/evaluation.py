"""Flow `eval`: label a dataset that has ground truth, and score it."""

from prefect import flow

from flows.reporting import progress_artifacts
from flows.stages import run_shard_stage, run_stages
from pnp_core.config import EvalConfig
from pnp_core.plan import finish_run, plan_eval
from pnp_core.records import RunSummary
from tasks.report import task_report
from tasks.sharding import task_shard_dataset


@flow(name="eval", flow_run_name="{config.title}", persist_result=False)
def evaluate_dataset(config: EvalConfig) -> RunSummary:
    """Shard a dataset split, extract salience, make masks, score them.

    Run again with the same configuration it resumes: finished shards are not computed again.
    """
    plan = plan_eval(config)
    summary = RunSummary(config.out, masks=plan.masks.place)
    shards = run_shard_stage(lambda: task_shard_dataset(config), summary)
    with progress_artifacts():
        masked = run_stages(plan, shards, summary, config.dispatch)
    task_report(plan, masked, summary)
    finish_run(config, plan, summary)
    return summary
