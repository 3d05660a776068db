"""Tasks of the tables flow."""

from prefect.artifacts import create_markdown_artifact
from prefect.logging import get_run_logger

from pnp_core.config import TablesConfig
from pnp_core.tables.build import build_tables
from pnp_core.tables.evaluations import usable_evaluations
from pnp_core.tables.render import markdown, write_tables
from pnp_core.text.visible import visible
from tasks.runtime import stage_task


@stage_task("tables")
def task_tables(config: TablesConfig) -> list[str]:
    """Read the runs' scores, write the tables, and leave them in Prefect."""
    evaluations, warnings = usable_evaluations(config.runs)
    for warning in warnings:
        get_run_logger().warning(visible(warning))
    tables = build_tables(evaluations)
    create_markdown_artifact(markdown(tables), key="tables", description="Benchmark tables")
    return write_tables(tables, config.out)
