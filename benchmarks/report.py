"""What the report page costs: to make, beside reading and decoding what it shows, and to open in a browser.

    uv run python -m benchmarks.report --images 2000

evaluates so many scenes (one pass, no CRF) unless `--run` names a finished evaluation.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from pathlib import Path
from time import perf_counter

from pnp_core.config import EvalConfig
from pnp_core.data import RunSummary
from pnp_core.report.gallery import survey
from pnp_core.report.page import IMAGES, report_page
from pnp_core.report.rows import rows_of_shard
from pnp_core.runs.plan import plan_eval
from pnp_core.storage.run_folder import RunFolder
from pnp_core.storage.shards import read_refs


def evaluated(images: int, out: Path) -> Path:
    """A finished evaluation of so many scenes."""
    from flows.pipelines.evaluation import evaluate

    parts = {"salience": {"dropout": {"iterations": 1}}, "masks": {"crf": {"name": "off"}}}
    evaluate(EvalConfig.model_validate({"out": str(out), "limit": images, **parts}))
    return out


def opened(page: Path, times: int = 5) -> list[float]:
    """Seconds until the page has loaded and drawn its first pictures, in Chromium."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        found = []
        for _ in range(times):
            tab = browser.new_page(viewport={"width": 1280, "height": 900})
            start = perf_counter()
            tab.goto(page.as_uri())
            tab.locator(".tile").nth(23).wait_for()
            found.append(perf_counter() - start)
            tab.close()
        browser.close()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--run", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        run = given.run or evaluated(given.images, Path(folder) / "run")
        record = json.loads((run / "run.json").read_text())
        config = EvalConfig.model_validate(record["config"])
        plan = plan_eval(config)
        shards = read_refs(RunFolder(str(run)))
        found = survey(plan, shards, IMAGES)
        start = perf_counter()
        shown = sum(1 for shard in shards for _ in rows_of_shard(plan, shard, found.shown.get(shard.name, {}), 128))
        floor = perf_counter() - start
        start = perf_counter()
        page = report_page(config, plan, shards, RunSummary(str(run), images=found.images, labelled=found.images))
        made = perf_counter() - start
        place = Path(folder) / "index.html"
        place.write_bytes(page)
        loads = sorted(opened(place))
    print(f"{found.images} pictures, {shown} shown, page of {len(page) / 1e6:.1f} MB")
    print(f"made in {made:.1f} s, {made / floor:.1f} times reading and decoding what it shows ({floor:.1f} s)")
    print(f"opens in {loads[len(loads) // 2]:.2f} s (median of {len(loads)}; {loads[0]:.2f} to {loads[-1]:.2f})")


if __name__ == "__main__":
    main()
