"""Comparison, tuning page and tables in a real browser. Skipped where there is no Chromium."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from flows.cli import app
from flows.viewing import report_server
from pnp_core.errors import CorruptRunError
from pnp_core.report.compare_page import compare_runs
from pnp_core.report.opening import page_of, policy_of, takes_review
from pnp_core.storage.run_folder import RunFolder
from tests.flows.test_browser import EVIL_CLASS, Watched
from tests.flows.test_looking import violations
from tests.runs import made_run

EVIL_KEY = "x<img src=x onerror=alert(1)>"
runner = CliRunner()


@pytest.fixture(scope="module")
def compared(tmp_path_factory) -> Path:
    """Two runs of three pictures, one of them with markup for a name, and ground truth."""
    folder = tmp_path_factory.mktemp("compared")
    classes = (EVIL_CLASS, "heart")
    truths = {"a": [[1, 1, 0, 0]], EVIL_KEY: [[2, 2, 2, 2]], "c": [[0, 0]]}
    one = made_run(folder / "one", {"a": [[1, 1, 0, 0]], EVIL_KEY: [[1, 1, 1, 2]], "c": [[0, 0]]}, classes, truths)
    two = made_run(folder / "two", {"a": [[1, 0, 0, 0]], EVIL_KEY: [[2, 2, 2, 2]], "c": [[0, 0]]}, classes, truths)
    compare_runs([str(one), str(two)], str(folder / "out"))
    return folder / "out"


@pytest.fixture
def page(browser, compared):
    watched = Watched(browser, compared / "index.html")
    yield watched.page
    assert watched.quiet(), watched.said
    watched.page.close()


def keys(page) -> list[str]:
    return page.locator(".tile h3 > span:nth-child(2)").all_text_contents()


def test_pictures_that_differ_most_come_first_and_sort_otherwise(page):
    assert keys(page) == [EVIL_KEY, "a", "c"]
    assert page.locator(".tile .value").all_text_contents() == ["75.0 % differ", "25.0 % differ", "0.0 % differ"]
    page.get_by_label("Sort").select_option("same")
    assert keys(page) == ["c", "a", EVIL_KEY]
    page.get_by_label("Sort").select_option("best0")
    assert keys(page)[0] == "a", "there the first run is ahead"
    page.get_by_label("Sort").select_option("key")
    assert keys(page) == ["a", "c", EVIL_KEY]


def test_search_and_class_and_who_found_it_narrow_the_pictures(page):
    page.get_by_label("Search").fill("HEART")
    assert keys(page) == [EVIL_KEY]
    page.get_by_label("Search").fill("")
    page.locator("#class").select_option(label=EVIL_CLASS)
    assert keys(page) == [EVIL_KEY, "a"]
    page.locator("#by").select_option("all")
    assert keys(page) == ["a"]
    page.locator("#by").select_option("only0")
    assert keys(page) == [EVIL_KEY]
    page.locator("#by").select_option("only1")
    assert keys(page) == []
    assert page.locator("#count").inner_text() == "No picture fits."


def test_a_picture_opens_and_keys_lead_through_runs_and_pictures(page):
    page.locator(".cell").nth(1).focus()
    page.keyboard.press("Enter")
    photo = page.locator("#detail-photo")
    assert photo.get_attribute("alt") == f"{EVIL_KEY}, one: {EVIL_CLASS}, heart"
    page.keyboard.press("3")
    assert photo.get_attribute("alt") == f"{EVIL_KEY}, two: heart"
    page.keyboard.press("4")
    assert photo.get_attribute("alt") == f"{EVIL_KEY}, what differs: 75.0 % of the pixels"
    assert "only B is right" in page.locator("#detail-legend").inner_text()
    page.keyboard.press("1")
    assert page.locator("#detail-layer").is_hidden()
    page.locator("#detail-next").click()
    assert page.locator("#detail-title").inner_text() == "a"
    page.keyboard.press("Escape")
    assert not page.locator("#detail").is_visible()
    assert page.title() == "one / two · PnP-OVSS"


def test_regions_are_outlined_over_the_picture_in_colour(page):
    page.get_by_label("Sort").select_option("key")
    cells = page.locator(".tile").first.locator(".cell")
    cells.nth(1).locator(".outline").wait_for()
    paths = [cells.nth(at).locator(".outline .light").get_attribute("d") for at in (1, 2)]
    # The first run has the class in two of four pixels, the second in one.
    width = int(cells.nth(1).locator("img.photo").get_attribute("width"))
    assert [re.sub(r"V\d+", "", path) for path in paths] == [f"M{width // 2} 0", f"M{width // 4} 0"]
    assert cells.nth(0).locator(".outline").count() == 0
    assert cells.nth(1).locator("img.photo").evaluate("e => getComputedStyle(e).filter") == "none"
    cells.nth(1).click()
    assert page.locator("#stage .outline .light").get_attribute("d") == paths[0]
    page.keyboard.press("3")
    page.wait_for_function(
        "path => document.querySelector('#stage .outline .light')?.getAttribute('d') === path", arg=paths[1]
    )
    page.keyboard.press("1")
    assert page.locator("#stage .outline").count() == 0


def test_keys_with_others_and_in_the_table_are_not_the_pages(page):
    page.locator(".cell").nth(1).click()
    title = page.locator("#detail-title").inner_text()
    for key in ("Control+3", "Alt+3", "Meta+3"):
        page.locator("#detail").dispatch_event("keydown", keydown(key))
    assert page.locator("#detail-layers input:checked").get_attribute("value") == "run0"
    page.get_by_role("region", name="Classes of the picture").focus()
    page.keyboard.press("ArrowRight")
    assert page.locator("#detail-title").inner_text() == title


def keydown(keys: str) -> dict[str, object]:
    held, key = keys.split("+")
    return {"key": key, "bubbles": True, {"Control": "ctrlKey", "Alt": "altKey", "Meta": "metaKey"}[held]: True}


def test_table_of_classes_sorts_and_has_a_bar_for_each_run(page):
    names = page.locator("#classes tbody th")
    page.get_by_role("button", name="B IoU").click()
    assert names.all_text_contents() == ["heart", "background", EVIL_CLASS]
    assert page.locator("#classes tbody tr").first.locator("svg.bar").count() == 2
    assert page.locator("#classes thead th").nth(2).get_attribute("aria-sort") == "descending"


CONTRAST = """selector => {
  const part = (x) => (x <= 0.03928 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4);
  const light = ([r, g, b]) => 0.2126 * part(r / 255) + 0.7152 * part(g / 255) + 0.0722 * part(b / 255);
  const numbers = (text) => text.match(/[0-9.]+/g).map(Number);
  const behind = (node) => {
    for (; node; node = node.parentElement) {
      const colour = numbers(getComputedStyle(node).backgroundColor);
      if (colour.length < 4 || colour[3] > 0) return colour;
    }
    return [255, 255, 255];
  };
  const nodes = [...document.querySelectorAll(selector)].filter((node) => node.textContent.trim());
  return Math.min(...nodes.map((node) => {
    const [a, b] = [light(numbers(getComputedStyle(node).color)), light(behind(node))];
    return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  }));
}"""
"""Least contrast of texts with what lies behind them."""


def well_made(browser, file: Path) -> None:
    """Nothing beside the screen of a phone, texts that can be read in light and dark, a name for every control."""
    for how in ({"viewport": {"width": 360, "height": 740}}, {"color_scheme": "dark"}, {}):
        watched = Watched(browser, file, **how)
        page = watched.page
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert (
            page.evaluate(CONTRAST, "p, td, th, dt, dd, small, h1, h2, h3, .letter, .under, a, label, button:enabled")
            >= 4.5
        )
        nameless = page.locator("input, select, button, img.photo, svg[role=img], .scroll").evaluate_all(
            "all => all.filter(e => !(e.labels?.length || e.textContent.trim() || e.ariaLabel || e.alt)).length"
        )
        assert nameless == 0
        assert watched.quiet(), watched.said
        page.close()
    pytest.importorskip("axe_playwright_python")
    # axe is put into the page, which the page's own policy rightly forbids.
    with Watched(browser, file, bypass_csp=True).page as page:
        assert violations(page) == []


def test_comparison_is_for_everybody(browser, compared):
    well_made(browser, compared / "index.html")


@pytest.fixture(scope="module")
def tuned(tmp_path_factory) -> Path:
    """A finished search over eight settings, compared with masks."""
    out = tmp_path_factory.mktemp("tuned")
    space = {"thresholds": [0.06, 0.2], "blurs": [0.02, 0.05], "heads": [0, 1]}
    (out / "space.yaml").write_text(json.dumps({"space": space, "compare": {"images": 4}}))
    given = ["tune", "scenes", "--images", "6", "--optimizer", "grid", "--config", str(out / "space.yaml")]
    result = runner.invoke(app, [*given, "--out", str(out / "run"), "--json"])
    assert result.exit_code == 0, result.output
    return out / "run"


def test_tuning_page_says_what_was_chosen_and_where_the_reward_is_high(browser, tuned):
    summary = json.loads((tuned / "tune.json").read_text())["summary"]
    watched = Watched(browser, tuned / "report/index.html")
    page = watched.page
    numbers = page.locator(".numbers").inner_text()
    assert f"{summary['best']['reward']:.4f}" in numbers
    assert f"{summary['comparison']['rank_correlation']:+.2f}" in numbers
    cells = page.locator(".heat td").all_text_contents()
    assert len(cells) == 2 + 4, "two heads of one layer, two thresholds by two blurs"
    chosen = f"{summary['best']['reward']:.3f} chosen"
    assert cells.count(chosen) == 2
    assert page.locator("#trials circle.point").count() == 8
    assert page.locator("#masks circle.point").count() == 8
    page.locator("#tried summary").click()
    assert page.locator(".tried tbody tr").count() == 8
    assert page.locator(".tried tbody tr").first.inner_text().split()[-2] == f"{summary['best']['reward']:.4f}"
    assert page.locator("#pictures article").count() == 6
    words = page.locator("#pictures article").first.locator(".under").all_text_contents()
    named = [re.sub(r" ·.*", "", text) for text in words]
    assert (named[0], named[-2], named[-1]) == ("picture", "chosen", "ground truth")
    assert watched.quiet(), watched.said
    page.close()


def test_tuning_page_is_for_everybody(browser, tuned):
    well_made(browser, tuned / "report/index.html")


def test_masks_of_the_choice_are_made_once(tuned):
    (looks,) = tuned.glob("tuning/*/*/looks-*.parquet")
    before = looks.stat().st_mtime_ns
    page = (tuned / "report/index.html").read_bytes()
    (tuned / "report/index.html").unlink()
    given = ["tune", "scenes", "--images", "6", "--optimizer", "grid", "--config", str(tuned.parent / "space.yaml")]
    assert runner.invoke(app, [*given, "--out", str(tuned)]).exit_code == 0
    assert looks.stat().st_mtime_ns == before
    assert (tuned / "report/index.html").read_bytes() == page


def test_view_opens_tuning_and_tables_and_says_what_has_no_page(tuned, evaluated, tmp_path):
    assert page_of(RunFolder(str(tuned))) == "report/index.html"
    result = runner.invoke(app, ["tables", str(evaluated), "--out", str(tmp_path / "tables")])
    assert result.exit_code == 0, result.output
    assert page_of(RunFolder(str(tmp_path / "tables"))) == "index.html"
    (tmp_path / "other").mkdir()
    (tmp_path / "other/index.html").write_text("somebody's")
    with pytest.raises(CorruptRunError, match="has no report"):
        page_of(RunFolder(str(tmp_path / "other")))


def test_pages_without_a_review_are_known_as_ours_and_take_no_token(compared):
    assert "sandbox" not in policy_of((compared / "index.html").read_bytes())
    assert not takes_review(RunFolder(str(compared)), "index.html")
    server = report_server(str(compared))
    assert "token" not in server.address
    server.server_close()


def test_compare_command_says_in_one_line_what_is_wrong(tmp_path):
    made_run(tmp_path / "one", {"x": [[1]]}, ("cat",))
    for runs, message in (
        (["one"], "nothing to compare with"),
        (["one", "one"], "is named twice"),
        (["one", "nowhere"], "holds no finished run"),
    ):
        places = [str(tmp_path / name) for name in runs]
        result = runner.invoke(app, ["compare", *places, "--out", str(tmp_path / "out")])
        assert result.exit_code in (1, 2)
        lines = result.stderr.strip().splitlines()
        assert len(lines) == 1
        assert message in lines[0]


def test_compare_imports_neither_torch_nor_prefect(compared):
    places = [str(compared.parent / name) for name in ("one", "two", "again")]
    code = (
        "import sys; from typer.testing import CliRunner; from flows.cli import app\n"
        f"done = CliRunner().invoke(app, ['compare', {places[0]!r}, {places[1]!r}, '--out', {places[2]!r}])\n"
        "assert done.exit_code == 0, done.output\n"
        "print([name for name in ('torch', 'prefect', 'transformers') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.strip() == "[]"
