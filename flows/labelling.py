"""Flow `label`: masks for a user's own pictures."""

from prefect import flow

from flows.pipelines.labelling import label
from pnp_core.config import LabelConfig
from pnp_core.data import RunSummary
from tasks.with_prefect import in_prefect


@flow(name="label", flow_run_name="label-{config.title}", persist_result=False)
def label_pictures(config: LabelConfig) -> RunSummary:
    """Shard the pictures, extract salience, make masks.

    Run again with the same configuration it resumes: finished shards are not computed again.
    """
    with in_prefect():
        return label(config)
