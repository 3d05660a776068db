"""Flow `eval`: label a dataset that has ground truth, and score it."""

from prefect import flow

from flows.pipelines.evaluation import evaluate
from pnp_core.config import EvalConfig
from pnp_core.data import RunSummary
from pnp_core.runs.located import located
from tasks.with_prefect import in_prefect


@flow(name="eval", flow_run_name="{config.title}", persist_result=False)
def evaluate_dataset(config: EvalConfig) -> RunSummary:
    """Shard a dataset split, extract salience, make masks, score them.

    Run again with the same configuration it resumes: finished shards are not computed again.
    """
    with in_prefect():
        return evaluate(located(config))
