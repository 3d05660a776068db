"""The report in a real browser: seeing everything, looking closely, finding. Skipped where there is no Chromium."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest
from PIL import Image

from flows.pipelines.labelling import label
from flows.viewing import report_server
from pnp_core.config import LabelConfig
from pnp_core.report.layers import error_layer
from tests.flows.test_browser import Watched, data_of, keys

AXE_IMPACTS = ("serious", "critical")


def served(run: Path) -> Iterator[str]:
    """Address of the report as `view` serves it."""
    server = report_server(str(run))
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def address(evaluated) -> Iterator[str]:
    yield from served(evaluated)


@pytest.fixture
def report(browser, address) -> Iterator[Watched]:
    """The report as it is served; nothing may have gone wrong when a test is over."""
    watched = Watched(browser, address)
    yield watched
    assert watched.quiet(), watched.said
    watched.page.close()


def chosen(page: Any) -> dict:
    """A picture with errors and several classes."""
    pictures = data_of(page)["pictures"]
    return next(p for p in pictures if p["confused"] and sum(c["share"] > 0 for c in p["classes"]) > 1)


def open_picture(page: Any, key: str) -> None:
    page.get_by_label("Search").fill(key)
    page.locator(".tile").first.click()
    page.locator(".pane").first.wait_for()


def box_of(page: Any, selector: str) -> dict[str, float]:
    return page.locator(selector).first.evaluate("e => e.getBoundingClientRect().toJSON()")


def test_photo_is_in_colour_and_every_region_is_outlined_light_on_dark(report):
    page = report.page
    page.locator(".outline").first.wait_for()
    photo = page.locator(".stack .photo").first
    assert photo.evaluate("e => getComputedStyle(e).filter") == "none"
    outline = page.locator(".outline").first
    colours = [outline.locator(c).evaluate("e => getComputedStyle(e).stroke") for c in (".dark", ".light")]
    assert colours == ["rgb(0, 0, 0)", "rgb(255, 255, 255)"]
    page.locator("#view-grey").check()
    assert photo.evaluate("e => getComputedStyle(e).filter") == "grayscale(1)"


def test_outline_is_exactly_the_edges_between_labels(report):
    labels = [[0, 0, 1], [0, 2, 1]]
    path = report.page.evaluate(
        "rows => outline({ labels: Uint8Array.from(rows.flat()), width: 3, height: 2 })", labels
    )
    # Between the rows above (1, 1); between columns 0 and 1 in the second row, 1 and 2 in both.
    assert path == "M1 1H2M1 1V2M2 0V2"


def test_labels_are_read_from_the_colours_of_a_layer(report):
    picture = chosen(report.page)
    found = report.page.evaluate(
        "async key => [...new Set((await readOf(data.pictures.find(p => p.key === key), 'prediction')).map.labels)]",
        picture["key"],
    )
    assert set(found) - {0} == {c["id"] for c in picture["classes"] if c["share"] > 0}


def test_regions_that_are_not_scored_have_outlines_too(report):
    truth = np.zeros((4, 4), np.uint8)
    truth[:2, :2], truth[2:] = 255, 1
    layer = error_layer(np.zeros((4, 4), np.uint8), truth, void_as_background=False)
    labels = report.page.evaluate("async uri => [...labelMap(await loaded(uri)).labels]", layer)
    not_scored, missed = labels[0], labels[-1]
    assert len({0, not_scored, missed}) == 3
    assert labels == [not_scored, not_scored, 0, 0] * 2 + [missed] * 8


def test_tile_with_many_long_names_shows_the_whole_picture_and_the_decision(report):
    page = report.page
    for size in (16, 24):
        page.evaluate(
            """size => {
              document.documentElement.style.fontSize = `${size}px`;
              for (const label of data.labels) label.name = "a long name of a class of things";
              const classes = [1, 2, 3, 4, 5].map((id) => ({ id, share: 0.1, itm: null }));
              for (const picture of data.pictures) picture.classes = classes;
              draw();
            }""",
            size,
        )
        page.locator(".tile").first.focus()
        page.keyboard.press("a")
        tile, frame, verdict, chips = (box_of(page, f".tile{part}") for part in ("", " .frame", " .verdict", " .chips"))
        assert frame["height"] == pytest.approx(frame["width"], abs=0.5)
        assert frame["width"] == pytest.approx(tile["width"] - 2, abs=0.5)
        assert chips["bottom"] <= verdict["top"] + 0.5
        assert verdict["bottom"] <= tile["bottom"]


def test_name_of_a_class_is_in_its_largest_region(report):
    labels = np.zeros((5, 9), int)
    labels[0, 0] = 1
    labels[2:5, 4:9] = 1
    labels[4, 0:2] = 2
    places = report.page.evaluate(
        "rows => namePlaces({ labels: Uint8Array.from(rows.flat()), width: 9, height: 5 })", labels.tolist()
    )
    assert {p["label"]: labels[int(p["y"] * 5), int(p["x"] * 9)] for p in places} == {1: 1, 2: 2}
    (one,) = (p for p in places if p["label"] == 1)
    assert (int(one["x"] * 9), int(one["y"] * 5)) == (6, 3)


def test_names_are_on_regions_on_hover_and_by_choice_always(report):
    page = report.page
    picture = chosen(page)
    names = [label["name"] for label in data_of(page)["labels"]]
    found = {names[c["id"]] for c in picture["classes"] if c["share"] > 0}
    page.get_by_label("Search").fill(picture["key"])
    assert page.locator(".region").count() == 0
    place = page.evaluate(
        "async key => namePlaces((await readOf(data.pictures.find(p => p.key === key), 'prediction')).map)[0]",
        picture["key"],
    )
    page.locator(".tile .stack").scroll_into_view_if_needed()
    box = box_of(page, ".tile .stack")
    page.mouse.move(box["x"] + place["x"] * box["width"], box["y"] + place["y"] * box["height"])
    page.locator("#tip:not([hidden])").wait_for()
    assert page.locator("#tip").inner_text() == names[place["label"]]
    page.locator("#view-names").check()
    page.locator(".region").first.wait_for()
    assert set(page.locator(".region").all_text_contents()) == found


@pytest.fixture(scope="module")
def large(tmp_path_factory) -> Path:
    """A labelled picture of 4000 x 3000 with a white square of four pixels near its corner."""
    folder = tmp_path_factory.mktemp("large")
    (folder / "in").mkdir()
    across, down = np.meshgrid(np.arange(4000), np.arange(3000))
    pixels = np.stack([across * 150 // 4000, down * 150 // 3000, (across + down) % 256 // 64 * 30], axis=-1)
    pixels[1000:2200, 1000:2600] = (220, 30, 30)
    pixels[2988:2992, 3988:3992] = 255
    Image.fromarray(pixels.astype(np.uint8)).save(folder / "in/large.png", compress_level=1)
    values = {"source": str(folder / "in"), "out": str(folder / "run"), "classes": ["heart", "car"]}
    salience = {"candidates": {"source": "vocabulary"}, "dropout": {"iterations": 1}}
    parts = {"preset": "tiny", "salience": salience, "masks": {"crf": {"name": "off"}}}
    label(LabelConfig.model_validate({**values, **parts}))
    return folder / "run"


def test_zoom_goes_down_to_the_pixels_of_a_picture_of_4000_by_3000(browser, large):
    for address in served(large):
        watched = Watched(browser, address)
        page = watched.page
        page.locator(".tile").click()
        page.wait_for_function("() => document.querySelector('.pane img.photo')?.naturalWidth === 4000")
        page.keyboard.press("1")
        assert page.locator("#zoom").inner_text() == "100 % of its pixels"
        assert box_of(page, ".pane .stack")["width"] == pytest.approx(4000, abs=1)
        page.keyboard.press("+")
        page.keyboard.press("+")
        for _ in range(60):
            page.keyboard.press("Shift+ArrowRight")
            page.keyboard.press("Shift+ArrowDown")
        pane, stack = box_of(page, ".pane"), box_of(page, ".pane .stack")
        assert (stack["right"], stack["bottom"]) == pytest.approx((pane["right"], pane["bottom"]), abs=1.5)
        page.locator("#detail-opacity").fill("0")
        page.locator("#detail-outlines").uncheck()
        shot = Image.open(io.BytesIO(page.locator(".pane").screenshot())).convert("RGB")
        # The square is 4 pixels wide, shown 2.25 times as large: only own pixels are that sharp.
        white = np.argwhere(np.asarray(shot)[:-3, :-3].min(axis=2) > 215)
        assert 50 <= len(white) <= 110
        assert (np.ptp(white, axis=0) <= 10).all()
        page.locator(".detail").focus()
        page.keyboard.press("0")
        assert box_of(page, ".pane .stack")["width"] == pytest.approx(pane["width"], abs=1)
        assert watched.quiet(), watched.said
        page.close()


def test_wheel_keeps_the_place_under_the_pointer_and_dragging_moves_it(report):
    page = report.page
    open_picture(page, chosen(page)["key"])
    page.wait_for_function("() => detail.close")  # its panes are made anew: a wheel would be turned on nothing
    box = box_of(page, ".pane")
    x, y = box["x"] + 0.25 * box["width"], box["y"] + 0.75 * box["height"]

    def under() -> tuple[float, float]:
        rect = box_of(page, ".pane .stack")
        return (x - rect["x"]) / rect["width"], (y - rect["y"]) / rect["height"]

    page.mouse.move(x, y)
    before = under()
    page.mouse.wheel(0, -500)
    page.wait_for_function("() => detail.zoom > 2")
    assert under() == pytest.approx(before, abs=0.01)
    page.mouse.down()
    page.mouse.move(x + 60, y - 40, steps=3)
    page.mouse.up()
    after = under()
    assert after[0] < before[0]
    assert after[1] > before[1]


def test_everything_of_a_picture_is_side_by_side(report):
    page = report.page
    picture = chosen(page)
    open_picture(page, picture["key"])
    page.keyboard.press("s")
    titles = page.locator("#panes figcaption").all_text_contents()
    assert titles[:5] == ["picture", "prediction", "ground truth", "errors", "confidence"]
    assert [title.rsplit(", ", 1)[1] for title in titles[5:]] == ["pass 1", "pass 2"]
    page.wait_for_timeout(200)
    heats = page.locator(".pane canvas.heat").evaluate_all("all => all.map(e => e.toDataURL())")
    assert len(set(heats)) == 3
    page.keyboard.press("+")
    widths = page.locator(".pane .stack").evaluate_all(
        "all => all.map(e => e.offsetWidth / e.parentElement.offsetWidth)"
    )
    assert widths == pytest.approx([1.5] * len(titles), abs=0.02)


def test_permalink_leads_to_the_same_picture_and_filter(browser, address, report):
    page = report.page
    picture = chosen(page)
    found = next(c["id"] for c in picture["classes"] if c["share"] > 0)
    page.locator("#class").select_option(str(found))
    page.locator("#layer").get_by_label("errors").check()
    page.get_by_label("Search").fill(picture["key"])
    page.locator(".tile").click()
    link = page.locator("#detail-links a").first.get_attribute("href")
    assert page.evaluate("location.hash") == link
    again = Watched(browser, address + link)
    assert again.page.locator("#detail-title").inner_text() == picture["key"]
    assert again.page.locator("#class").input_value() == str(found)
    again.page.keyboard.press("Escape")
    assert keys(again.page) == [picture["key"]]
    assert again.page.locator("#layer input:checked").get_attribute("value") == "errors"
    again.page.wait_for_function("() => !location.hash.includes('key=')")
    assert again.quiet(), again.said
    again.page.close()


@pytest.mark.parametrize(
    "hash_",
    [
        "#key=nothing&class=99&cell=x-y&iou=2-3&sort=none&show=none&confidence=0.9",
        "#class=<img src=x onerror=alert(1)>&search=<script>alert(1)</script>&cell=0-999",
        "#key=__proto__&show=salience&area=-1-2",
    ],
)
def test_addresses_that_say_nonsense_open_the_gallery(browser, address, hash_):
    watched = Watched(browser, address + hash_)
    assert not watched.page.locator("#detail").is_visible()
    assert watched.page.locator("#count").inner_text() in ("8 pictures", "No picture fits.")
    assert watched.quiet(), watched.said
    watched.page.close()


def test_address_of_an_unknown_picture_closes_the_open_one(report):
    page = report.page
    page.locator(".tile").nth(1).click()
    for hash_ in ("key=nobody", "search=nothing+like+it", "key=nobody&search=nothing+like+it"):
        page.evaluate("hash => { location.hash = hash; }", hash_)
        page.locator("#detail").wait_for(state="hidden")
        page.set_viewport_size({"width": 1000 + len(hash_), "height": 700})
        page.evaluate("location.hash = 'key=test_00001'")
        page.locator("#detail").wait_for()
        assert page.locator("#detail-title").inner_text() == "test_00001"
    page.keyboard.press("ArrowRight")
    assert page.locator("#detail-title").inner_text() != "test_00001"


def test_sliders_and_histograms_narrow_the_gallery(report):
    page = report.page
    pictures = data_of(page)["pictures"]
    page.locator(".finder summary").click()
    measures = page.locator(".histogram").evaluate_all("all => all.map(e => e.dataset.measure)")
    assert measures == ["confidence", "area", "iou", "itm"]
    middle = sorted(p["miou"] for p in pictures)[4]
    page.get_by_label("mIoU to").fill(f"{middle:.2f}")
    low, high = page.evaluate("filter.ranges.iou")
    assert set(keys(page)) == {p["key"] for p in pictures if low <= p["miou"] <= high}
    assert 0 < len(keys(page)) < 8
    assert "iou=" in page.evaluate("location.hash")
    page.locator("#clear").click()
    assert len(keys(page)) == 8
    box = box_of(page, "[data-measure=area] .bars")
    page.mouse.move(box["x"] + 2, box["y"] + 20)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 20, steps=4)
    page.mouse.up()
    low, high = page.evaluate("filter.ranges.area")
    assert set(keys(page)) == {p["key"] for p in pictures if low <= sum(c["share"] for c in p["classes"]) <= high}
    assert 0 < len(keys(page)) < 8


def test_cell_of_the_confusion_and_row_of_the_classes_list_their_pictures(report):
    page = report.page
    data = data_of(page)
    page.locator("#confusions button").first.click()
    truth, prediction = page.evaluate("filter.cell")
    expected = {p["key"] for p in data["pictures"] if any(c[:2] == [truth, prediction] for c in p["confused"])}
    assert expected
    assert set(keys(page)) == expected
    said = page.locator("#chosen-cell").inner_text()
    assert said.startswith(f"ground truth {data['labels'][truth]['name']}, predicted")
    page.locator("#chosen-cell").click()
    assert len(keys(page)) == 8
    page.locator("#matrix").focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    assert page.evaluate("filter.cell") is not None
    page.locator("#clear").click()
    button = page.locator("#classes tbody th button").first
    name = button.inner_text()
    button.click()
    assert page.locator("#class option:checked").inner_text() == name
    assert 0 < len(keys(page)) < 8


def test_question_mark_lists_every_key_and_they_do_what_it_says(report):
    page = report.page
    page.keyboard.press("?")
    text = page.locator("#help-keys").inner_text()
    assert all(what in text for what in page.evaluate("KEYS.map((k) => k.what)"))
    page.keyboard.press("Escape")
    page.keyboard.press("w")
    assert page.locator("#view-names").is_checked()
    page.keyboard.press("g")
    assert page.locator("#view-grey").is_checked()
    page.keyboard.press("l")
    assert page.locator("#layer input:checked").get_attribute("value") == "truth"
    page.keyboard.press("/")
    page.keyboard.type("n?g")
    assert page.locator("#search").input_value() == "n?g", "in a field keys are text"
    assert page.locator("#view-names").is_checked()
    page.locator("#search").evaluate("e => e.blur()")
    page.keyboard.press("x")
    assert len(keys(page)) == 8
    page.locator(".tile").first.focus()
    page.keyboard.press("Enter")
    assert page.locator("#detail").is_visible()
    page.keyboard.press("?")
    page.keyboard.press("Escape")
    assert page.locator("#detail").is_visible()


def test_arrows_go_from_tile_to_tile_and_only_one_of_them_is_in_the_order_of_tabs(report):
    page = report.page
    order = keys(page)
    page.locator(".tile").first.focus()
    for key in ("ArrowRight", "ArrowRight", "ArrowLeft"):
        page.keyboard.press(key)
    assert page.evaluate("document.activeElement.querySelector('.name').textContent") == order[1]
    page.keyboard.press("End")
    assert page.evaluate("document.activeElement.querySelector('.name').textContent") == order[-1]
    assert page.locator(".tile[tabindex='0']").count() == 1


def test_keys_of_the_gallery_leave_the_rest_of_the_page_alone(report):
    page = report.page
    page.locator("nav a", has_text="Timings").focus()
    page.keyboard.press("Enter")
    assert page.evaluate("location.hash") == "#timings"
    page.locator("#configuration summary").first.focus()
    page.keyboard.press("Enter")
    assert page.locator("#configuration details").first.get_attribute("open") is not None
    page.keyboard.press("Space")
    assert page.locator("#configuration details").first.get_attribute("open") is None
    heading = page.locator("#classes").get_by_role("button", name="IoU")
    heading.focus()
    page.keyboard.press("Enter")
    assert page.locator("#classes thead th").nth(1).get_attribute("aria-sort") == "descending"
    page.evaluate("scrollTo(0, 0)")
    page.keyboard.press("PageDown")
    page.wait_for_function("() => scrollY > 100")
    region = page.get_by_role("group", name="Timings")
    region.evaluate("e => { e.style.width = '120px'; e.focus(); }")
    page.keyboard.press("ArrowRight")
    page.wait_for_function("() => document.activeElement.scrollLeft > 0")
    assert not page.locator("#detail").is_visible()
    page.locator(".tile").first.focus()
    page.keyboard.press("Enter")
    assert page.locator("#detail").is_visible()


def many(page: Path, out: Path, number: int) -> Path:
    """The page of eight pictures with each under many names."""
    text = page.read_text("utf-8")
    start = text.index('id="data">') + len('id="data">')
    end = text.index("</script>", start)
    data = json.loads(text[start:end])
    data["pictures"] = [{**data["pictures"][i % 8], "key": f"copy_{i:05d}"} for i in range(number)]
    out.write_text(text[:start] + json.dumps(data) + text[end:], "utf-8")
    return out


def test_gallery_of_10000_pictures_stays_small_and_smooth(browser, evaluated, tmp_path):
    watched = Watched(browser, many(evaluated / "report/index.html", tmp_path / "index.html", 10_000))
    page = watched.page
    assert page.locator("#count").inner_text() == "10000 pictures"
    longest, most = page.evaluate("""async () => {
      const scroller = document.getElementById("scroller");
      let [longest, most, last] = [0, 0, performance.now()];
      for (let frame = 0; frame < 60; frame++) {
        scroller.scrollTop = (frame / 59) * scroller.scrollHeight;
        await new Promise(requestAnimationFrame);
        const now = performance.now();
        [longest, last] = [Math.max(longest, now - last), now];
        most = Math.max(most, document.querySelectorAll(".tile").length);
      }
      return [longest, most];
    }""")
    assert most <= 60, "only what is on the screen is in the document"
    assert longest < 1000, "milliseconds of a frame, on a busy machine too"
    page.locator("[aria-posinset='10000']").wait_for()
    page.evaluate("goTo(5000)")
    assert page.evaluate("document.activeElement.parentElement.getAttribute('aria-posinset')") == "5001"
    assert watched.quiet(), watched.said
    page.close()


def violations(page: Any) -> list[str]:
    from axe_playwright_python.sync_playwright import Axe

    return [
        f"{found['id']}: {found['nodes'][0]['html'][:200]} {found['nodes'][0].get('failureSummary', '')[:300]}"
        for found in Axe().run(page).response["violations"]
        if found["impact"] in AXE_IMPACTS
    ]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious_in_gallery_picture_or_help(browser, address, scheme):
    pytest.importorskip("axe_playwright_python")
    # axe is put into the page, which the page's own policy rightly forbids.
    watched = Watched(browser, address, color_scheme=scheme, bypass_csp=True)
    page = watched.page
    page.locator(".finder summary").click()
    page.locator("#view-names").check()
    page.locator(".region").first.wait_for()
    assert violations(page) == []
    page.locator(".tile").first.click()
    page.keyboard.press("s")
    page.wait_for_timeout(300)
    assert violations(page) == []
    page.keyboard.press("?")
    assert violations(page) == []
    page.close()


def test_page_without_its_folder_shows_thumbnails_and_says_so(browser, evaluated, tmp_path):
    alone = tmp_path / "alone.html"
    alone.write_bytes((evaluated / "report/index.html").read_bytes())
    watched = Watched(browser, alone)
    page = watched.page
    page.locator(".tile").first.click()
    page.wait_for_function("() => document.querySelector('#close-note').textContent.startsWith('thumbnail')")
    assert page.locator(".pane img.photo").get_attribute("src").startswith("data:")
    asked = [said for said in watched.said if said.startswith("file:")]
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowLeft")
    page.wait_for_timeout(200)
    later = [said for said in watched.said if said.startswith("file:")][len(asked) :]
    assert not set(later) & set(asked), "it asks for each picture once"
    page.close()


def test_picture_whose_files_are_gone_takes_no_others_with_it(browser, evaluated, tmp_path):
    shutil.copytree(evaluated / "report", tmp_path / "report")
    watched = Watched(browser, tmp_path / "report/index.html")
    page = watched.page
    gone = data_of(page)["pictures"][0]
    (tmp_path / "report" / gone["beside"]["photo"]).unlink()
    page.evaluate("key => { location.hash = `key=${key}`; }", gone["key"])
    page.wait_for_function("() => document.querySelector('#close-note').textContent.startsWith('thumbnail')")
    assert page.locator("#detail-links a").all_text_contents() == ["link to this view"]
    page.evaluate("key => { location.hash = `key=${key}`; }", data_of(page)["pictures"][1]["key"])
    page.wait_for_function("() => document.querySelector('.pane img.photo').src.endsWith('.jpg')")
    assert page.locator("#close-note").inner_text() == ""
    assert page.locator("#detail-links a").all_text_contents() == ["link to this view", "picture", "layers"]
    page.close()


def test_page_beside_its_folder_shows_own_pixels_from_a_file_too(browser, evaluated):
    watched = Watched(browser, evaluated / "report/index.html")
    watched.page.locator(".tile").first.click()
    watched.page.wait_for_function("() => document.querySelector('.pane img.photo').src.endsWith('.jpg')")
    assert watched.page.locator(".pane .clip img.layer").evaluate("e => e.naturalHeight") == 3 * 192
    assert watched.quiet(), watched.said
    watched.page.close()
