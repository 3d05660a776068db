"""Tasks that make what people look at."""

from pnp_core.config import LabellingConfig
from pnp_core.data import RunSummary, ShardRef
from pnp_core.report.contact_sheet import write_contact_sheet
from pnp_core.report.page import PAGE, report_page
from pnp_core.report.run_text import run_markdown
from pnp_core.runs.plan import Plan
from pnp_core.storage.run_folder import RunFolder
from pnp_core.text.visible import visible
from tasks.runtime import runtime, stage_task


@stage_task("report")
def task_report(config: LabellingConfig, plan: Plan, shards: list[ShardRef], summary: RunSummary) -> None:
    """Write the report page and the contact sheet, and leave a page and a table of scores."""
    run = RunFolder(plan.masks.out)
    run.write(PAGE, report_page(config, plan, shards, summary, beside=True))
    if shards:
        write_contact_sheet(plan, shards)
    runtime().leave_page(lambda: run_markdown(plan, shards, summary), key="run", description="What the run made")
    if summary.scores:
        table = [{"class": visible(name), "IoU": iou} for name, iou in summary.scores["per_class_iou"].items()]
        runtime().leave_table(table, key="per-class-iou", description="IoU of every scored class")
