"""The report in a real browser: what a person sees and does. Skipped where there is no Chromium."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from flows.pipelines.labelling import label
from pnp_core.config import LabelConfig

EVIL_CLASS = "<script>document.title='class'</script>"
EVIL_NAME = "<img src=x onerror=document.title='file'>.jpg"
EVIL_COMMENT = "</script><script>document.title='comment'</script>"


class Watched:
    """A page, and everything it said or asked for."""

    def __init__(self, browser: Any, file: Path | str, **how: Any) -> None:
        """Open a file or an address."""
        url = file if isinstance(file, str) else file.as_uri()
        self.pictures = f"{url.split('#')[0].rsplit('/', 1)[0]}/pictures/"
        self.page = browser.new_page(**{"viewport": {"width": 1280, "height": 900}, **how})
        self.said: list[str] = []
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("request", lambda request: self.said.append(request.url))
        self.page.goto(url)
        assert self.said.pop(0).split("#")[0] == url.split("#")[0]

    def quiet(self) -> bool:
        """No console message, no error, no request but for data URIs and the pictures beside the page."""
        return [text for text in self.said if not text.startswith(("data:", self.pictures))] == []


@pytest.fixture
def report(browser, evaluated) -> Iterator[Watched]:
    """The report of the finished evaluation; nothing may have gone wrong when a test is over."""
    watched = Watched(browser, evaluated / "report/index.html")
    yield watched
    assert watched.quiet(), watched.said
    watched.page.close()


def keys(page: Any) -> list[str]:
    return page.locator(".tile .name").all_text_contents()


def data_of(page: Any) -> dict[str, Any]:
    return json.loads(page.locator("#data").text_content())


def test_headline_numbers_are_the_runs(report, evaluated):
    scores = json.loads((evaluated / "scores.json").read_text())
    shown = report.page.locator(".numbers").inner_text()
    assert f"{scores['miou']:.3f}" in shown
    assert f"{scores['pixel_accuracy']:.3f}" in shown
    assert report.page.title() == "scenes · PnP-OVSS"


def test_gallery_begins_with_the_worst_and_sorts_otherwise(report):
    page = report.page
    images = data_of(page)["pictures"]
    assert keys(page) == [p["key"] for p in sorted(images, key=lambda p: (p["miou"], p["key"]))]
    page.get_by_label("Sort").select_option("best")
    assert keys(page) == [p["key"] for p in sorted(images, key=lambda p: (-p["miou"], p["key"]))]
    page.get_by_label("Sort").select_option("unsure")
    assert keys(page) == [p["key"] for p in sorted(images, key=lambda p: (p["confidence"], p["key"]))]


def test_search_by_name_and_by_class_narrows_the_gallery(report):
    page = report.page
    page.get_by_label("Search").fill("TEST_00003")
    assert keys(page) == ["test_00003"]
    assert page.locator("#count").inner_text() == "1 of 8 pictures"
    page.get_by_label("Search").fill("nothing like it")
    assert keys(page) == []
    page.get_by_label("Search").fill("")
    data = data_of(page)
    label = data["pictures"][0]["truth_labels"][0]
    page.locator("#class").select_option(str(label))
    expected = {
        p["key"]
        for p in data["pictures"]
        if label in p["truth_labels"] or any(c["id"] == label and c["share"] for c in p["classes"])
    }
    assert 0 < len(expected) < 8
    assert set(keys(page)) == expected


def test_layer_and_opacity_change_what_lies_over_the_pictures(report):
    page = report.page
    first = page.locator(".tile").first
    by_key = {p["key"]: p for p in data_of(page)["pictures"]}
    image = by_key[keys(page)[0]]
    layer = first.locator("img.layer")
    assert layer.get_attribute("src") == image["prediction"]
    assert float(layer.evaluate("e => getComputedStyle(e).opacity")) == pytest.approx(0.45)
    page.locator("#layer").get_by_label("errors").check()
    assert layer.get_attribute("src") == image["errors"]
    assert page.locator("#legend").inner_text().split("\n")[0] == "wrong class"
    page.locator("#opacity").fill("100")
    assert float(layer.evaluate("e => getComputedStyle(e).opacity")) == 1
    page.locator("#layer").get_by_label("picture alone").check()
    assert first.locator("img").count() == 1


def test_drop_stepping_and_class_change_the_salience(report):
    page = report.page
    chosen = next(p for p in data_of(page)["pictures"] if len(p["salience_classes"]) > 1)
    page.get_by_label("Search").fill(chosen["key"])
    page.locator(".tile").click()
    page.locator("#detail-layers").get_by_label("salience").check()
    canvas = page.locator(".pane canvas.heat")

    def seen() -> str:
        page.wait_for_timeout(100)
        return canvas.evaluate("e => e.toDataURL()")

    first = seen()
    assert re.fullmatch("Salience of .*, pass 1 of 2", canvas.get_attribute("aria-label"))
    page.locator("#pass").fill("2")
    second = seen()
    page.locator("#salience-classes input").nth(1).check()
    other = seen()
    assert len({first, second, other}) == 3
    assert canvas.get_attribute("aria-label").endswith("pass 2 of 2")


def test_everything_can_be_done_with_the_keyboard(report):
    page = report.page
    order = keys(page)
    page.locator(".tile").first.focus()
    page.keyboard.press("Enter")
    title = page.locator("#detail-title")
    assert title.inner_text() == order[0]
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowLeft")
    assert title.inner_text() == order[1]
    page.locator("#detail-opacity").focus()
    page.keyboard.press("End")
    assert float(page.locator(".pane img.layer").evaluate("e => e.style.opacity")) == 1
    assert title.inner_text() == order[1], "arrows and End belong to the slider there"
    page.keyboard.press("Escape")
    assert not page.locator("#detail").is_visible()
    # The browser closes first, and says so a moment later.
    page.wait_for_function("name => document.activeElement.querySelector('.name')?.textContent === name", arg=order[1])
    page.locator("#matrix").focus()
    page.keyboard.press("ArrowDown")
    assert "of background is right" in page.locator("#cell").inner_text()


def test_table_of_classes_sorts_by_any_column(report, evaluated):
    page = report.page
    iou = json.loads((evaluated / "scores.json").read_text())["per_class_iou"]

    def names() -> list[str]:
        return page.locator("#classes tbody th").all_text_contents()

    page.locator("#classes").get_by_role("button", name="IoU").click()
    known = sorted((name for name in iou if iou[name] is not None), key=lambda name: -iou[name])
    assert names()[: len(known)] == known
    page.locator("#classes").get_by_role("button", name="IoU").click()
    assert names()[: len(known)] == known[::-1]
    heading = page.locator("#classes thead th").nth(1)
    assert heading.get_attribute("aria-sort") == "ascending"
    page.locator("#classes").get_by_role("button", name="class").click()
    assert names() == sorted(names(), key=str.lower)


def test_phone_and_dark_page_have_nothing_beside_the_screen(browser, evaluated):
    for how in ({"viewport": {"width": 360, "height": 740}}, {"color_scheme": "dark"}):
        watched = Watched(browser, evaluated / "report/index.html", **how)
        page = watched.page
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        page.locator(".tile").first.click()
        assert page.evaluate("document.querySelector('dialog').scrollWidth <= innerWidth")
        ink, paper = (page.evaluate(f"getComputedStyle(document.body).{p}") for p in ("color", "backgroundColor"))
        dark = "color_scheme" in how
        assert (sum(map(int, re.findall(r"\d+", ink))) > sum(map(int, re.findall(r"\d+", paper)))) == dark
        assert watched.quiet(), watched.said
        page.close()


def test_every_picture_has_a_text_and_every_control_a_name(report):
    page = report.page
    page.locator(".tile").first.click()
    alts = page.locator("img.photo").evaluate_all("all => all.map(e => e.alt)")
    assert all(re.match(r"test_\d+; \w+", alt) for alt in alts)
    nameless = page.locator("input, select, button").evaluate_all(
        "all => all.filter(e => !(e.labels?.length || e.textContent.trim() || e.ariaLabel)).length"
    )
    assert nameless == 0


@pytest.fixture(scope="module")
def evil(tmp_path_factory) -> Path:
    """A labelling run without ground truth whose names and comments are markup; one picture is quarantined."""
    folder = tmp_path_factory.mktemp("evil")
    (folder / "in").mkdir()
    exif = Image.Exif()
    exif[0x010E] = EVIL_COMMENT
    pixels = np.random.default_rng(0).integers(0, 255, (48, 64, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "in" / EVIL_NAME, exif=exif)
    (folder / "in" / f"empty{EVIL_NAME}").write_bytes(b"")
    values = {"source": str(folder / "in"), "out": str(folder / "run"), "classes": [EVIL_CLASS, "heart"]}
    salience = {"candidates": {"source": "vocabulary"}, "dropout": {"iterations": 1}}
    label(LabelConfig.model_validate({**values, "preset": "tiny", "salience": salience}))
    return folder / "run"


def test_names_classes_and_comments_that_are_markup_are_shown_as_text(browser, evil):
    watched = Watched(browser, evil / "report/index.html")
    page = watched.page
    assert EVIL_CLASS in page.locator("#classes").inner_text()
    assert EVIL_CLASS in page.locator("#class").text_content()
    page.locator(".tile").click()
    assert EVIL_NAME in page.locator("#detail-source").inner_text()
    assert EVIL_COMMENT in page.locator("#detail-notes").inner_text()
    assert EVIL_CLASS in page.locator("#detail-classes").inner_text()
    page.keyboard.press("Escape")
    assert f"empty{EVIL_NAME}" in page.locator("#quarantine").inner_text()
    assert "empty file (0 bytes)" in page.locator("#quarantine").inner_text()
    assert page.title() == f"{evil.parent / 'in'} · PnP-OVSS"
    assert watched.quiet(), watched.said
    page.close()


def test_report_without_ground_truth_has_confidence_in_place_of_scores(browser, evil):
    watched = Watched(browser, evil / "report/index.html")
    page = watched.page
    assert "MEAN CONFIDENCE" in page.locator(".numbers").inner_text().upper()
    assert "mIoU" not in page.locator("main").inner_text()
    assert page.locator("#layer label").all_text_contents() == ["prediction", "picture alone"]
    assert re.search(r"[01]\.\d{3} conf\.", page.locator(".tile").inner_text())
    assert page.locator("#matrix").count() == 0
    assert watched.quiet(), watched.said
    page.close()


def test_report_of_2000_pictures_opens_and_scrolls(browser, evaluated, tmp_path):
    """The same eight pictures under 2,000 names, as large as the page may be."""
    from pnp_core.report.page import PAGE_BYTES

    text = (evaluated / "report/index.html").read_text("utf-8")
    start = text.index('id="data">') + len('id="data">')
    end = text.index("</script>", start)
    data = json.loads(text[start:end])
    data["pictures"] = [{**data["pictures"][i % 8], "key": f"copy_{i:05d}"} for i in range(2000)]
    room = PAGE_BYTES - len(json.dumps(data)) - len(text)
    data["padding"] = "x" * max(0, room)
    (tmp_path / "index.html").write_text(text[:start] + json.dumps(data) + text[end:], "utf-8")
    watched = Watched(browser, tmp_path / "index.html")
    page = watched.page
    assert page.locator("#count").inner_text() == "2000 pictures"
    assert 12 <= page.locator(".tile").count() <= 60
    page.locator("#scroller").evaluate("e => { e.scrollTop = e.scrollHeight; }")
    page.locator("[aria-posinset='2000']").wait_for()
    assert page.locator(".tile").count() <= 60
    page.get_by_label("Search").fill("copy_01999")
    assert keys(page) == ["copy_01999"]
    assert watched.quiet(), watched.said
    page.close()
