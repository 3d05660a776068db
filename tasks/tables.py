"""Tasks of the tables flow."""

from pnp_core.config import TablesConfig
from pnp_core.tables.build import build_tables
from pnp_core.tables.evaluations import usable_evaluations
from pnp_core.tables.render import markdown, write_tables
from pnp_core.text.visible import visible
from tasks.runtime import runtime, stage_task


@stage_task("tables")
def task_tables(config: TablesConfig) -> list[str]:
    """Read the runs' scores, write the tables, and leave a page."""
    evaluations, warnings = usable_evaluations(config.runs)
    for warning in warnings:
        runtime().log.warning(visible(warning))
    tables = build_tables(evaluations)
    runtime().leave_page(lambda: markdown(tables), key="tables", description="Benchmark tables")
    return write_tables(tables, config.out)
