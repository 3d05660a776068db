"""Flow `corpus`: label what is new or changed in a folder that grows, and publish a manifest."""

from prefect import flow

from flows.pipelines import corpus
from pnp_core.config import CorpusConfig
from pnp_core.corpus import CorpusSummary
from tasks.with_prefect import in_prefect


@flow(name="corpus", flow_run_name="corpus-{config.title}", persist_result=False)
def label_corpus(config: CorpusConfig) -> CorpusSummary:
    """Label what is new or changed since the last run, batch by batch, and publish each batch when it is done.

    Run again after it was killed it goes on with the batch it was at. A second run at the same time is refused,
    where both are on one machine.

    Raises:
        StageFailedError: there was something to label, and every shard failed; that is published.
    """
    with in_prefect():
        return corpus.label_corpus(config)
