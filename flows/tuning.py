"""Flow `tune`: choose threshold and blur, of PnP-OVSS layer and head too, from image-level labels alone."""

from prefect import flow

from flows.pipelines.tuning import tune
from pnp_core.runs.located import located
from pnp_core.tuning.config import TuneConfig
from pnp_core.tuning.result import TuneSummary
from tasks.with_prefect import in_prefect


@flow(name="tune", flow_run_name="{config.title}", persist_result=False)
def tune_dataset(config: TuneConfig) -> TuneSummary:
    """Keep the maps (of PnP-OVSS those of all (layer, head) pairs), search by the reward, write best.yaml.

    Run again with the same configuration it resumes, in the middle of a search too.
    """
    with in_prefect():
        return tune(located(config))
