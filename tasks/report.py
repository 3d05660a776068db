"""Task that draws what people look at."""

from pnp_core.plan import Plan
from pnp_core.records import ShardRef
from pnp_core.report.contact_sheet import contact_sheet
from pnp_core.store import RunFolder
from tasks.runtime import stage_task

CONTACT_SHEET = "contact_sheet.png"


@stage_task("contact-sheet")
def task_contact_sheet(plan: Plan, shards: list[ShardRef]) -> str:
    """Write the contact sheet and return where it lies."""
    run = RunFolder(plan.masks.out)
    run.write(CONTACT_SHEET, contact_sheet(plan, shards))
    return run.path(CONTACT_SHEET)
