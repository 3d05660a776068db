"""Flows `ablate` and `tables`: the evaluations that benchmark tables need, and the tables."""

from prefect import flow

from flows.evaluation import evaluate_dataset
from flows.pipelines import tables
from flows.pipelines.tables import AblationSummary
from pnp_core.config import AblateConfig, TablesConfig
from pnp_core.runs.located import located
from tasks.with_prefect import in_prefect


@flow(name="ablate", flow_run_name="ablate-{config.title}", persist_result=False)
def ablate(config: AblateConfig) -> AblationSummary:
    """Evaluate the settings that the wanted tables need and the run folder has no scores of.

    Salience that is stored is used again. Run again after it was killed it goes on where it was.
    """
    with in_prefect():
        return tables.ablate(located(config), evaluate_dataset)


@flow(name="tables", flow_run_name="tables-{config.title}", persist_result=False)
def make_tables(config: TablesConfig) -> list[str]:
    """Make all benchmark tables from finished runs; returns the files' names."""
    with in_prefect():
        return tables.make_tables(config)
