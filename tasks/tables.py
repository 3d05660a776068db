"""Tasks of the tables flow."""

from prefect.artifacts import create_markdown_artifact

from pnp_core.config import TablesConfig
from pnp_core.tables.build import build_tables
from pnp_core.tables.evaluations import read_evaluations, without_scores
from pnp_core.tables.render import markdown, write_tables
from tasks.runtime import stage_task


@stage_task("tables")
def task_tables(config: TablesConfig) -> list[str]:
    """Read the runs' scores, write the tables, and leave them in Prefect."""
    passed_over = without_scores(config.runs)
    tables = build_tables(read_evaluations([run for run in config.runs if run not in passed_over]))
    create_markdown_artifact(markdown(tables), key="tables", description="Benchmark tables")
    return write_tables(tables, config.out)
