"""Print the tables of docs/tiny-model.md from the reports of `training.evaluate_tiny`.

uv run python -m training.report_tables RUN_A/report.json RUN_B/report.json
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any


def table(title: str, rows: dict[str, list[float]], columns: list[str]) -> str:
    """A Markdown table, three decimals."""
    lines = [f"| {title} | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    lines += [f"| {name} | " + " | ".join(f"{v:.3f}" for v in values) + " |" for name, values in rows.items()]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Read the reports named on the command line."""
    reports: list[dict[str, Any]] = [json.loads(Path(name).read_text()) for name in sys.argv[1:]]
    columns = [chr(ord("A") + i) for i in range(len(reports))]
    print(table("ITM accuracy, test", {"balanced": [r["test itm accuracy"] for r in reports]}, columns))
    for key in ("test miou per head", "test ablation"):
        print(table(key, {name: [r[key][name] for r in reports] for name in reports[0][key]}, columns))
    rows = {
        f"{hues}: {name}": [r["colour control"][hues][name] for r in reports]
        for hues, values in reports[0]["colour control"].items()
        for name in values
    }
    print(table("colour control", rows, columns))
    for column, report in zip(columns, reports, strict=True):
        print(column, json.dumps(report["chosen"]))


if __name__ == "__main__":
    main()
