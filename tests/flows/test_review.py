"""The review: decided in a real browser, saved by `view`, used by `export` and `label --redo`."""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest
from PIL import Image

from flows.viewing import HEADER, PORTS, PORTS_TRIED, Reports, ReportServer, port_of, report_server
from pnp_core.runs.review import REVIEW, REVIEW_BYTES, finished_record, parse_review, review_id, rows_of
from pnp_core.storage.ledger import LEDGER
from pnp_core.storage.ownership import claim
from pnp_core.storage.run_folder import RunFolder
from tests.flows.commands import call, summary_of

EVIL = "<img src=x onerror=document.title='note'>"
TIME = "2026-01-02T03:04:05.678Z"


@pytest.fixture
def run(evaluated: Path, tmp_path: Path) -> Path:
    """A finished run of eight scenes that may be written to."""
    shutil.copytree(evaluated, tmp_path / "runs/first")
    return tmp_path / "runs/first"


def identifier(run: Path) -> str:
    folder = RunFolder(str(run))
    return review_id(folder, finished_record(folder).fingerprints.masks)


def review_of(run: Path, **decisions: str | None) -> dict[str, Any]:
    pictures = {key: {"decision": decision, "time": TIME} for key, decision in decisions.items()}
    return {"format": 1, "run": identifier(run), "pictures": pictures}


def put_review(run: Path, value: Any) -> Path:
    (run / REVIEW).write_text(json.dumps(value), "utf-8")
    return run / REVIEW


@pytest.fixture
def served(run: Path) -> Iterator[ReportServer]:
    yield from serving(run)


def serving(folder: Path) -> Iterator[ReportServer]:
    server = report_server(str(folder))
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def asked(
    server: ReportServer, path: str, method: str = "GET", body: bytes | None = None, **headers: str
) -> tuple[int, bytes, Any]:
    url = f"http://127.0.0.1:{server.server_port}{path}"
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    try:
        request = urllib.request.Request(url, body, given, method=method)
        with urllib.request.urlopen(request, timeout=30) as response:
            return response.status, response.read(), response.headers
    except urllib.error.HTTPError as error:
        return error.code, error.read(), error.headers


def put(server: ReportServer, value: Any, path: str = "/review.json", **headers: str) -> tuple[int, str]:
    body = value if isinstance(value, bytes) else json.dumps(value).encode()
    given = {HEADER.replace("-", "_"): server.reports.token, "Content_Type": "application/json"} | headers
    status, said, _ = asked(server, path, "PUT", body, **given)
    return status, said.decode()


# ---- the page


class Opened:
    """A page, and what it said."""

    def __init__(self, browser: Any, url: str) -> None:
        self.context = browser.new_context(viewport={"width": 1280, "height": 900}, accept_downloads=True)
        self.page = self.context.new_page()
        self.said: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.goto(url)

    def state(self, text: str) -> None:
        self.page.wait_for_function(
            "text => document.getElementById('review-state').textContent.includes(text)", arg=text, timeout=10_000
        )


@pytest.fixture
def opened(browser: Any, served: ReportServer) -> Iterator[Opened]:
    """The page as `view` opens it; it says nothing, and asks for nothing but itself."""
    page = Opened(browser, served.address)
    yield page
    assert page.said == []
    own = f"http://127.0.0.1:{served.server_port}/"
    assert [url for url in page.asked if not url.startswith((own, "data:", "blob:"))] == []
    assert not any("token" in url.split("#")[0] for url in page.asked)
    page.context.close()


def names(page: Any) -> list[str]:
    return page.locator(".tile .name").all_text_contents()


def test_decisions_by_keys_are_saved_by_view_and_survive_a_reload(opened: Opened, run: Path):
    page = opened.page
    assert "token" not in page.url
    first, second, third = names(page)[:3]
    page.locator(".tile").first.focus()
    page.keyboard.press("a")
    page.keyboard.press("Enter")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("r")
    page.keyboard.press("t")
    page.keyboard.type("blurred")
    page.keyboard.press("Enter")
    page.keyboard.press("n")
    page.keyboard.type("a car and u")  # letters are no keys there
    assert page.locator("#detail-title").inner_text() == second
    page.keyboard.press("Escape")  # leaves the note, not the picture
    page.keyboard.press("ArrowRight")
    page.keyboard.press("a")
    page.keyboard.press("u")
    page.keyboard.press("Escape")
    opened.state("Saved in the run folder")
    saved = json.loads((run / REVIEW).read_text("utf-8"))
    assert saved["run"] == identifier(run)
    pictures = saved["pictures"]
    assert {key: verdict["decision"] for key, verdict in pictures.items()} == {
        first: "accepted",
        second: "rejected",
        third: None,
    }
    assert (pictures[second]["tags"], pictures[second]["note"]) == (["blurred"], "a car and u")
    assert page.locator("#review-counts").inner_text() == "1 accepted, 1 rejected, 6 open"
    page.reload()
    page.wait_for_function("document.querySelectorAll('.tile[data-decision]').length === 2")
    assert page.locator('.tile[data-decision="rejected"] .verdict').inner_text() == "✗ rejected · blurred · note"
    page.locator("#review-decision").select_option("rejected")
    assert names(page) == [second]
    page.locator("#review-decision").select_option("")
    page.locator("#review-tag").select_option("blurred")
    assert names(page) == [second]


def test_counts_by_class_are_those_of_the_masks(opened: Opened, run: Path):
    page = opened.page
    chosen = names(page)[0]
    page.locator(".tile").first.focus()
    page.keyboard.press("a")
    folder = RunFolder(str(run))
    record = finished_record(folder)
    rows = [row for table in rows_of(folder, record, ["key", "classes"]) for row in table]
    expected = {
        name: [str(sum((row["key"] == chosen) == accepted for row in rows if has(row, i + 1))) for accepted in (1, 0)]
        for i, name in enumerate(record.classes)
        if any(has(row, i + 1) for row in rows)
    }
    page.locator("details", has_text="Decisions by class").locator("summary").click()
    shown = page.locator("#review-classes tbody tr").evaluate_all(
        "rows => rows.map(row => [...row.cells].map(cell => cell.textContent))"
    )
    assert {name: [accepted, still_open] for name, accepted, _, still_open in shown} == expected


def has(row: dict[str, Any], label: int) -> bool:
    return any(entry["id"] == label and entry["pixels"] for entry in row["classes"])


def test_page_alone_keeps_decisions_in_the_browser_and_hands_them_on_as_a_file(browser, run, tmp_path):
    first = Opened(browser, (run / "report/index.html").as_uri())
    page = first.page
    key = names(page)[0]
    page.locator(".tile").first.click()
    page.keyboard.press("r")
    page.locator("#review-note").fill(EVIL)
    page.keyboard.press("Escape")
    first.state("Kept in this browser")
    page.reload()
    page.keyboard.press("Escape")  # the address has the picture open
    assert page.locator('.tile[data-decision="rejected"]').count() == 1
    with page.expect_download() as download:
        page.locator("#review-download").click()
    file = tmp_path / "review.json"
    download.value.save_as(file)
    assert json.loads(file.read_text())["pictures"][key]["note"] == EVIL
    first.context.close()
    second = Opened(browser, (run / "report/index.html").as_uri())  # another browser profile
    assert second.page.locator(".tile[data-decision]").count() == 0
    second.page.locator("#review-file").set_input_files(file)
    second.state("1 verdicts loaded.")
    assert second.page.locator('.tile[data-decision="rejected"]').count() == 1
    assert second.page.title() == "scenes · PnP-OVSS"
    assert first.said == second.said == []
    assert all(url.startswith(("file:", "data:", "blob:")) for url in first.asked + second.asked)
    assert not (run / REVIEW).exists()
    second.context.close()


def test_notes_and_tags_that_are_markup_stay_text(opened: Opened, run: Path):
    page = opened.page
    page.locator(".tile").first.click()
    page.locator("#review-add").fill(EVIL)
    page.locator("#review-add").press("Enter")
    page.locator("#review-note").fill(EVIL)
    page.locator("#review-note").blur()
    page.keyboard.press("Escape")
    opened.state("Saved in the run folder")
    page.reload()
    page.wait_for_function("document.querySelectorAll('.tile .verdict').length === 1")
    assert EVIL[:40].strip() in page.locator(".tile .verdict").inner_text()
    page.locator("#review-tag").select_option(EVIL[:40])
    page.locator(".tile").click()
    assert page.locator("#review-tags button").inner_text().startswith(EVIL[:40])
    assert page.locator("#review-note").input_value() == EVIL
    assert page.locator("main img[src=x], dialog img[src=x]").count() == 0
    assert page.title() == "scenes · PnP-OVSS"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"run": "0" * 16}, "it is the review of another run"),
        ({"format": 2}, "it is no review"),
        ({"pictures": {"<script>": {"time": TIME}}}, "what it says of '<script>' cannot be read"),
        ({"pictures": {"test_00001": {"time": TIME, "decision": "<b>"}}}, "what it says of 'test_00001'"),
        ({"pictures": {"test_00001": {"time": TIME, "__proto__x": 1}}}, "what it says of 'test_00001'"),
        ({"pictures": {"test_00001": {"time": TIME, "tags": [["x"]]}}}, "what it says of 'test_00001'"),
        ({"pictures": {"test_00001": {"time": TIME, "note": "x" * 2001}}}, "what it says of 'test_00001'"),
        ({"pictures": {"test_00001": {"time": TIME, "note": None}}}, "what it says of 'test_00001'"),
        ({"pictures": {"test_00001": {"time": TIME, "tags": None}}}, "what it says of 'test_00001'"),
        ({"pictures": {"test_00001": {"time": TIME, "note": "a\ud800"}}}, "what it says of 'test_00001'"),
        ({"pictures": {"test_00001": {"time": TIME, "tags": ["\udc00"]}}}, "what it says of 'test_00001'"),
        ({"pictures": {"test_00001": {"time": "2026-02-30T03:04:05.678Z"}}}, "what it says of 'test_00001'"),
        ({"pictures": {"test_00001": {"time": "2026-01-02T24:00:00.000Z"}}}, "what it says of 'test_00001'"),
        ({"pictures": {"test_00001": {"time": "0000-01-02T00:00:00.000Z"}}}, "what it says of 'test_00001'"),
        ({"pictures": []}, "it is no review"),
        ({"more": 1}, "it is no review"),
    ],
)
def test_page_loads_no_review_that_was_tampered_with(opened: Opened, run: Path, tmp_path: Path, change, says):
    file = tmp_path / "<b>review.json"
    file.write_text(json.dumps(review_of(run) | change))
    opened.page.locator("#review-file").set_input_files(file)
    opened.state(f"<b>review.json is not loaded: {says}")
    assert opened.page.locator("#review-state *").count() == 0
    assert opened.page.locator(".tile[data-decision]").count() == 0
    assert not (run / REVIEW).exists()


@pytest.mark.parametrize("verdict", [{"tags": None}, {"note": None}, {"time": "2026-02-30T03:04:05.678Z"}])
def test_what_the_browser_kept_and_cannot_be_read_is_dropped_once(browser, run: Path, verdict):
    page = Opened(browser, (run / "report/index.html").as_uri())
    kept = json.dumps(review_of(run) | {"pictures": {"test_00001": {"time": TIME, "decision": "accepted"} | verdict}})
    page.page.evaluate("kept => localStorage.setItem(`pnp-ovss review ${data.run}`, kept)", kept)
    page.page.reload()
    page.state("What this browser kept is left out: what it says of 'test_00001' cannot be read")
    assert len(names(page.page)) == 8
    page.page.reload()
    assert page.page.locator("#review-state").inner_text() == ""
    assert len(names(page.page)) == 8
    assert page.said == []
    page.context.close()


def test_page_and_server_take_the_same_reviews(opened: Opened, run: Path):
    """Forty characters outside the basic plane are forty; what is missing has a value."""
    verdicts = [{"tags": ["\U0001f600" * 40]}, {"note": "\u200d" * 2000}, {"decision": None}, {}]
    for verdict in verdicts:
        review = {"run": identifier(run), "pictures": {"test_00001": {"time": TIME} | verdict}}
        parse_review(json.dumps(review).encode(), "'it'")
        file = run / "loaded.json"
        file.write_text(json.dumps(review))
        opened.page.locator("#review-file").set_input_files(file)
        opened.state("1 verdicts loaded.")
        opened.page.evaluate("document.getElementById('review-state').textContent = ''")


def test_what_was_said_of_a_loaded_file_stays_when_it_is_saved(opened: Opened, run: Path):
    file = run / "loaded.json"
    file.write_text(json.dumps(review_of(run, test_00001="rejected")))
    opened.page.locator("#review-file").set_input_files(file)
    opened.state("1 verdicts loaded. Saved in the run folder: report/review.json.")


def test_page_without_the_token_says_so_at_once_and_takes_it_in_the_same_tab(browser, served, run: Path):
    put_review(run, review_of(run, test_00001="accepted"))
    address, token = served.address.split("#")
    opened = Opened(browser, address)
    page = opened.page
    opened.state("neither read nor written here: open the address that `pnp-ovss view` printed")
    page.get_by_label("Search").fill("test_0000")
    page.locator("#sort").select_option("best")
    assert page.locator(".tile[data-decision]").count() == 0
    page.goto(f"{address}#{token}")
    page.locator('.tile[data-decision="accepted"]').wait_for()
    assert "neither" not in page.locator("#review-state").inner_text()
    assert page.evaluate("location.hash") == "#search=test_0000&sort=best"
    page.locator(".tile").first.focus()
    page.keyboard.press("r")
    opened.state("Saved in the run folder")
    assert opened.said == []
    opened.context.close()


def test_known_tags_are_offered_as_they_can_be_seen(opened: Opened, run: Path):
    page = opened.page
    tag = "\u202e" * 10 + "gnp"
    review = review_of(run, test_00001="accepted")
    review["pictures"]["test_00001"]["tags"] = [tag]
    (run / "loaded.json").write_text(json.dumps(review))
    page.locator("#review-file").set_input_files(run / "loaded.json")
    opened.state("1 verdicts loaded.")
    offered = page.locator("#review-known option").get_attribute("value")
    assert offered == r"\u202e" * 10 + "gnp"
    assert page.locator("#review-tag option").all_text_contents() == ["any", offered]
    page.evaluate("location.hash = 'key=test_00002'")
    page.locator("#review-add").fill(offered)
    page.locator("#review-add").press("Enter")
    opened.state("Saved in the run folder")
    saved = json.loads((run / REVIEW).read_text("utf-8"))["pictures"]
    assert saved["test_00002"]["tags"] == [tag]
    page.locator("#review-add").fill("x" * 50)
    page.locator("#review-add").press("Enter")
    assert page.locator("#review-tags button").nth(1).inner_text().split()[0] == "x" * 40


def test_list_of_runs_takes_the_token_in_the_same_tab(browser, run: Path):
    for server in serving(run.parent):
        address, token = server.address.split("#")
        opened = Opened(browser, address)
        opened.page.goto(f"{address}#{token}")
        opened.page.wait_for_function("() => document.querySelector('a.run').hash")
        with opened.context.expect_page() as tab:  # each run has a tab of its own
            opened.page.locator("a.run").first.click()
        page = tab.value
        page.locator(".tile").first.focus()
        page.keyboard.press("a")
        page.locator("#review-state", has_text="Saved in the run folder").wait_for()
        assert opened.said == []
        opened.context.close()


def test_addresses_have_the_filters_of_decision_and_tag(browser, run: Path):
    opened = Opened(browser, (run / "report/index.html").as_uri())
    page = opened.page
    first, second = names(page)[:2]
    page.locator(".tile").first.click()
    page.keyboard.press("a")
    page.keyboard.press("t")
    page.keyboard.type("a & b")
    page.keyboard.press("Enter")
    page.keyboard.press("Escape")
    page.locator("#review-decision").select_option("accepted")
    page.locator("#review-tag").select_option("a & b")
    page.wait_for_function("() => !location.hash.includes('key=')")
    assert page.evaluate("location.hash") == "#decision=accepted&tag=a+%26+b"
    page.reload()
    assert names(page) == [first]
    page.evaluate("key => { location.hash = `key=${key}`; }", second)
    page.wait_for_function("key => document.getElementById('detail-title').textContent === key", arg=second)
    assert page.locator("#review-decision").input_value() == page.locator("#review-tag").input_value() == ""
    page.evaluate("key => { location.hash = `decision=accepted&key=${key}`; }", second)
    page.wait_for_function("() => !location.hash.includes('decision')")
    assert page.locator("#detail-title").inner_text() == second
    page.keyboard.press("Escape")
    page.evaluate("location.hash = 'tag=nobody&decision=wrong&show=errors&sort=best'")
    page.get_by_text("No picture fits.").wait_for()
    assert page.locator("#review-tag").input_value() == "nobody"
    page.evaluate("location.hash = 'search=test'")
    page.get_by_text("8 pictures", exact=True).wait_for()
    assert page.locator("#layer input:checked").get_attribute("value") == "prediction"
    assert page.locator("#sort").input_value() == "worst"
    assert opened.said == []
    opened.context.close()


def test_file_that_is_no_utf8_is_not_loaded(opened: Opened, run: Path):
    file = run / "loaded.json"
    file.write_bytes(json.dumps(review_of(run)).encode()[:-1] + b"\xff}")
    opened.page.locator("#review-file").set_input_files(file)
    opened.state("loaded.json is not loaded: it cannot be read")


def test_review_of_another_run_in_the_folder_is_told_of_and_left(browser, run):
    other = put_review(run, review_of(run) | {"run": "0" * 16})
    before = other.read_bytes()
    for server in serving(run):
        page = Opened(browser, server.address)
        page.state("The saved review is not read")
        page.page.locator(".tile").first.focus()
        page.page.keyboard.press("a")
        page.state("Not saved, but kept in this browser: ")
        assert "is the review of another run" in page.page.locator("#review-state").inner_text()
        page.context.close()
    assert other.read_bytes() == before


# ---- the server


def test_head_answers_as_get_without_the_content(served: ReportServer):
    for path in ("/", "/index.html", "/nothing"):
        status, _, headers = asked(served, path)
        code, body, head = asked(served, path, "HEAD")
        assert (code, body, head["Content-Length"]) == (status, b"", headers["Content-Length"])


def test_review_needs_token_name_and_origin(served: ReportServer, run: Path):
    review = review_of(run, test_00001="accepted")
    token = {HEADER.replace("-", "_"): served.reports.token}
    port = served.server_port
    assert asked(served, "/review.json")[0] == 403
    assert asked(served, f"/review.json?token={served.reports.token}")[0] == 403
    assert asked(served, "/review.json", **{HEADER.replace("-", "_"): "x" * 43})[0] == 403
    assert put(served, review, **{HEADER.replace("-", "_"): "x" * 43})[0] == 403
    for origin in ("http://evil.example", "null", f"https://127.0.0.1:{port}", "http://127.0.0.1:1"):
        assert put(served, review, Origin=origin)[0] == 403
    assert put(served, review, Sec_Fetch_Site="cross-site")[0] == 403
    for host in ("evil.example", f"evil.example:{port}", "127.0.0.1", "127.0.0.1:1"):
        assert put(served, review, Host=host)[0] == 404
        assert asked(served, "/", Host=host)[0] == 404
    assert asked(served, "/review.json", "OPTIONS")[0] == 501  # no site is ever allowed to send one
    assert put(served, review, path="/index.html")[0] == 404
    assert put(served, review, path="/../run.json")[0] == 404
    assert not (run / REVIEW).exists()
    assert put(served, review, Origin=f"http://localhost:{port}", Host=f"localhost:{port}")[0] == 200
    status, body, headers = asked(served, "/review.json", **token)
    assert (status, headers["Content-Type"]) == (200, "application/json")
    assert body == (run / REVIEW).read_bytes()


def test_body_of_a_review_is_bounded_and_json(served: ReportServer, run: Path):
    assert put(served, review_of(run), Content_Type="text/plain")[0] == 415
    for length, code in (("", 411), ("-1", 411), ("1e3", 411), (str(REVIEW_BYTES + 1), 413)):
        connection = http.client.HTTPConnection("127.0.0.1", served.server_port, timeout=30)
        connection.putrequest("PUT", "/review.json")
        connection.putheader(HEADER, served.reports.token)
        connection.putheader("Content-Type", "application/json")
        if length:
            connection.putheader("Content-Length", length)
        connection.endheaders()
        assert connection.getresponse().status == code
        connection.close()


@pytest.mark.parametrize(
    ("change", "code", "says"),
    [
        (b"{", 422, "what was sent is no review that can be read"),
        ({"run": "0" * 16}, 422, "what was sent is the review of another run (0000000000000000)"),
        ({"run": "../../x"}, 422, "what was sent is no review that can be read (run: "),
        ({"more": 1}, 422, "more: Extra inputs are not permitted"),
        ({"pictures": {"../x": {"time": TIME}}}, 422, "what was sent is no review"),
        ({"pictures": {"test_00001": {"time": "2026-02-31T00:00:00.000Z"}}}, 422, "pictures.test_00001.time"),
        ({"pictures": {"test_00001": {"time": TIME, "tags": ["x"] * 21}}}, 422, "pictures.test_00001.tags"),
    ],
)
def test_what_is_no_review_of_the_run_is_not_saved(served: ReportServer, run: Path, change, code, says):
    status, said = put(served, change if isinstance(change, bytes) else review_of(run) | change)
    assert (status, len(said.splitlines())) == (code, 1)
    assert says in said
    assert not (run / REVIEW).exists()


@pytest.mark.parametrize("content", [b"", b"{}", b"my own notes", b"\xff\xfe"])
def test_file_that_is_no_review_is_never_written_over(served: ReportServer, run: Path, content: bytes):
    (run / REVIEW).write_bytes(content)
    status, said = put(served, review_of(run, test_00001="accepted"))
    assert status == 409
    assert "move it away" in said
    assert (run / REVIEW).read_bytes() == content


def test_later_verdict_holds_whichever_page_sends_it(served: ReportServer, run: Path):
    earlier = review_of(run, test_00001="accepted", test_00002="accepted")
    later = review_of(run, test_00001="rejected", test_00003="accepted")
    later["pictures"]["test_00001"]["time"] = "2026-01-02T03:04:06.000Z"
    assert put(served, later)[0] == 200
    status, said = put(served, earlier)
    assert status == 200
    pictures = json.loads(said)["pictures"]
    assert {key: pictures[key]["decision"] for key in pictures} == {
        "test_00001": "rejected",
        "test_00002": "accepted",
        "test_00003": "accepted",
    }
    assert json.loads((run / REVIEW).read_text()) == json.loads(said)


def test_links_that_lead_out_of_the_folder_are_refused(served: ReportServer, run: Path, tmp_path: Path):
    Image.new("RGB", (4, 4)).save(tmp_path / "secret.png")
    (run / "report/out.png").symlink_to(tmp_path / "secret.png")
    (run / "report/tiles").symlink_to(tmp_path)
    Image.new("RGB", (4, 4)).save(run / "report/own.png")
    (run / "report/notes.txt").write_text("mine")
    assert asked(served, "/own.png")[0] == 200
    for path in ("/out.png", "/tiles/secret.png", "/notes.txt", "/.hidden.png", "/%2e%2e/contact_sheet.png"):
        assert asked(served, path)[0] == 404
    secret = tmp_path / "secret.json"
    secret.write_text(json.dumps(review_of(run, test_00001="rejected")))
    (run / REVIEW).symlink_to(secret)
    before = secret.read_bytes()
    status, said = put(served, review_of(run, test_00001="accepted"))
    assert (status, "link" in said) == (409, True)
    assert asked(served, "/review.json", **{HEADER.replace("-", "_"): served.reports.token})[0] == 409
    assert (secret.read_bytes(), (run / REVIEW).is_symlink()) == (before, True)


def test_folder_of_runs_is_a_list_and_each_has_its_own_review(browser, run: Path, tmp_path: Path):
    name = "a <b>&'\" %2e#?"
    second = run.parent / "more" / name
    shutil.copytree(run, second)
    (run.parent / "away").symlink_to(tmp_path.parent, target_is_directory=True)
    for server in serving(run.parent):
        opened = Opened(browser, server.address)
        page = opened.page
        assert page.locator("a.run").all_text_contents() == ["first", f"more/{name}"]
        assert page.locator("tbody tr").first.inner_text().split("\t")[1:3] == ["8", "8"]
        page.wait_for_function("[...document.querySelectorAll('a.run')].every(link => link.hash)", timeout=10_000)
        with opened.context.expect_page() as tab:
            page.locator("a.run").nth(1).click()
        opened.page = tab.value
        opened.page.locator(".tile").first.focus()
        opened.page.keyboard.press("a")
        opened.state("Saved in the run folder")
        assert "token" not in opened.page.url + page.url
        assert (second / REVIEW).exists()
        assert not (run / REVIEW).exists()
        assert asked(server, "/", "HEAD")[:2] == (200, b"")
        for path in ("/first", "/away/", "/first/../more/", "/more/", "/first/run.json"):
            assert asked(server, path)[0] == 404
        assert asked(server, "/first/")[0] == 200
        assert opened.said == []
        opened.context.close()


def token_of(server: ReportServer, path: str) -> dict[str, str]:
    place = server.reports.at(path)
    assert place
    return {HEADER.replace("-", "_"): place[0].token}


def test_token_of_one_run_reads_and_writes_no_review_of_another(run: Path):
    shutil.copytree(run, run.parent / "second")
    review = review_of(run, test_00001="accepted")
    for server in serving(run.parent):
        own, other = token_of(server, "first/"), token_of(server, "second/")
        assert put(server, review, "/second/review.json", **own)[0] == 403
        assert put(server, review, "/second/review.json")[0] == 403  # that of the list
        assert asked(server, "/second/review.json", **own)[0] == 403
        assert put(server, review, "/second/review.json", **other)[0] == 200
        assert not (run / REVIEW).exists()
        assert asked(server, "/tokens.json")[0] == 403
        assert asked(server, "/tokens.json", **own)[0] == 403
        of_list = {HEADER.replace("-", "_"): server.reports.token}
        assert asked(server, "/tokens.json", **of_list, Origin="http://evil.example")[0] == 403
        status, body, headers = asked(server, "/tokens.json", **of_list)
        assert (status, headers["Content-Type"]) == (200, "application/json")
        assert set(json.loads(body)) == {"first/", "second/"}
        assert asked(server, "/", **of_list)[1].find(server.reports.token.encode()) == -1


STEALS = """<!doctype html><title>mine</title><script>
(async () => {
  const told = [];
  try { localStorage.setItem("x", "1"); told.push("stored"); } catch { told.push("no store"); }
  try { await fetch("review.json"); told.push("asked"); } catch { told.push("not asked"); }
  document.title = told.join(", ");
})();
</script>"""


def test_page_that_is_not_ours_runs_as_from_elsewhere(browser, run: Path, tmp_path: Path):
    """Neither beside a mark of ours nor alone may it have what our pages have."""
    (run / "report/index.html").write_text(STEALS)
    for server in serving(run):
        assert asked(server, "/")[0] == 404, "it is not what the list of our files has"
    (run / LEDGER).unlink()
    (tmp_path / "alone/report").mkdir(parents=True)
    (tmp_path / "alone/report/index.html").write_text(STEALS)
    for folder in (run, tmp_path / "alone"):
        for server in serving(folder):
            assert server.address == f"http://127.0.0.1:{server.server_port}/", "no token for it"
            page = Opened(browser, server.address)
            page.page.wait_for_function("document.title !== 'mine'", timeout=10_000)
            assert page.page.evaluate("document.title") == "no store, not asked"
            page.context.close()


def test_script_that_is_put_into_our_page_does_not_run(browser, run: Path):
    page = (run / "report/index.html").read_text("utf-8")
    start, end = page.index("<meta http-equiv"), page.index(">", page.index("<meta http-equiv")) + 1
    digests = f"<!-- {page[start + 1 : end - 1]} -->"
    spoiled = page[:start] + digests + page[end:].replace("<body>", "<body><script>document.title = 'evil'</script>")
    (run / "report/index.html").write_text(spoiled, "utf-8")
    (run / LEDGER).unlink()
    for server in serving(run):
        opened = Opened(browser, server.address)
        opened.page.locator(".tile").first.wait_for(timeout=5_000)
        assert opened.page.title() == "scenes · PnP-OVSS"
        assert any("Content Security Policy" in said for said in opened.said)
        opened.context.close()


def test_everything_that_is_served_has_a_policy(served: ReportServer):
    policy = asked(served, "/")[2]["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "sandbox" not in policy
    assert "'unsafe-inline'" not in policy.split("script-src")[1]
    assert asked(served, "/nothing")[2]["Content-Security-Policy"].startswith("default-src 'none'; sandbox")


def test_list_says_what_each_folder_is_and_only_reviews_get_a_token(run: Path):
    runs = run.parent
    for name, kind in (("compared", "comparison"), ("tabled", "tables"), ("tuned", "run")):
        claim(str(runs / name), kind)
        (runs / name / "report").mkdir()
        (runs / name / "report/index.html").write_text("a page")
        (runs / name / "index.html").write_text("a page")
    (runs / "tuned/tune.json").write_text("{}")
    shutil.copytree(run, runs / "damaged")
    (runs / "damaged/run.json").write_text("{")
    shutil.copytree(run / "report", runs / "alone/report")
    for server in serving(runs):
        page = asked(server, "/")[1].decode()
        rows = re.findall(r'<tr><th scope="row"><a[^>]*>([^<]*)</a></th>\s*<td[^>]*>([^<]*)</td>', page)
        assert dict(rows) == {
            "alone": "a report without its run",
            "compared": "comparison",
            "damaged": "its record cannot be read",
            "first": "8",
            "tabled": "tables",
            "tuned": "tuning",
        }
        tokens = json.loads(asked(server, "/tokens.json", **{HEADER.replace("-", "_"): server.reports.token})[1])
        assert set(tokens) == {"alone/", "damaged/", "first/"}
    for name in ("compared", "tabled", "tuned"):
        for server in serving(runs / name):
            assert server.address == f"http://127.0.0.1:{server.server_port}/"


def test_name_that_is_no_utf8_is_listed_and_opened(run: Path):
    shutil.copytree(run, run.parent / "caf\udce9")  # the byte E9
    for server in serving(run.parent):
        status, body, _ = asked(server, "/")
        assert status == 200
        assert 'href="caf%E9/">caf\\udce9</a>' in body.decode()
        assert asked(server, "/caf%E9/")[:2] == asked(server, "/first/")[:2]
        assert put(server, review_of(run), "/caf%E9/review.json", **token_of(server, "caf\udce9/"))[0] == 200


def test_request_that_goes_wrong_in_a_new_way_is_answered_in_one_line(served: ReportServer, run: Path):
    (run / REVIEW).symlink_to("review.json")  # round in a circle, of which nobody has thought
    status, body, _ = asked(served, "/review.json", **token_of(served, ""))
    assert (status, len(body.decode().splitlines())) == (500, 1)
    assert body.startswith(b"this cannot be shown (")
    assert asked(served, "/")[0] == 200


def test_folder_with_many_files_is_listed_soon_and_ours_are_not_searched(run: Path, monkeypatch):
    (run.parent / "data/pictures").mkdir(parents=True)
    for number in range(20_000):
        (run.parent / f"data/pictures/{number}.jpg").touch()
    for inside in (run / "masks/x", run.parent / ".hidden"):
        shutil.copytree(run / "report", inside / "report")
    seen: list[str] = []
    real = os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: seen.append(str(path)) or real(path))
    start = time.perf_counter()
    reports = Reports(str(run.parent))
    assert [page.name for page in reports.found()] == ["first"]
    assert time.perf_counter() - start < 2
    top = str(run.parent)
    assert sorted(seen) == [top, f"{top}/data", f"{top}/data/pictures", f"{top}/first"], "once each, nothing in ours"
    shutil.copytree(run, run.parent / "later")
    monkeypatch.setattr("flows.viewing.REMEMBERED", 0.0)
    assert [page.name for page in reports.found()] == ["first", "later"]


def test_batches_of_a_corpus_and_runs_behind_links_that_stay_are_listed(run: Path):
    claim(str(run.parent / "corpus"), "corpus")
    shutil.copytree(run, run.parent / "corpus/batches/000001")
    (run.parent / "latest").symlink_to("first", target_is_directory=True)
    names = [page.name for page in Reports(str(run.parent)).found()]
    assert names == ["corpus/batches/000001", "first", "latest"]


def test_folder_has_the_same_port_each_time_or_the_next(run: Path):
    assert port_of(str(run)) == port_of(f"{run}/") == port_of(f"file://{run}")
    assert port_of(str(run)) in PORTS
    first = report_server(str(run), None)
    second = report_server(str(run), None)
    try:
        assert port_of(str(run)) <= first.server_port < second.server_port < port_of(str(run)) + PORTS_TRIED
    finally:
        first.server_close()
        second.server_close()


def test_review_is_saved_in_a_bucket(run: Path):
    import fsspec

    memory = fsspec.filesystem("memory")
    memory.put(str(run), "/bucket-of-reviews/run", recursive=True)
    try:
        server = report_server("memory://bucket-of-reviews/run")
        Thread(target=server.serve_forever, daemon=True).start()
        assert put(server, review_of(run, test_00001="accepted"))[0] == 200
        assert b"accepted" in memory.cat_file(f"/bucket-of-reviews/run/{REVIEW}")
        server.shutdown()
        server.server_close()
    finally:
        memory.rm("/bucket-of-reviews", recursive=True)


# ---- export


def exported(run: Path, out: Path, *how: str) -> set[str]:
    summary_of(call("export", run, "--to", "png", "--out", out, "--json", *how))
    return {file.stem for file in (out / "masks").glob("*.png")}


def test_export_takes_what_was_accepted_and_leaves_out_what_was_rejected(run: Path, tmp_path: Path):
    put_review(
        run, review_of(run, test_00001="accepted", test_00002="rejected", test_00003="accepted", test_00004=None)
    )
    every = {f"test_{i:05d}" for i in range(8)}
    accepted = {"test_00001", "test_00003"}
    assert exported(run, tmp_path / "a", "--only", "accepted") == accepted
    assert exported(run, tmp_path / "b", "--except", "rejected") == every - {"test_00002"}
    assert exported(run, tmp_path / "c", "--only", "open") == every - accepted - {"test_00002"}
    assert exported(run, tmp_path / "d", "--except", "open") == accepted | {"test_00002"}
    keys = tmp_path / "keys.txt"
    keys.write_text("test_00003\ntest_00005\n")
    assert exported(run, tmp_path / "e", "--only", str(keys), "--except", "accepted") == {"test_00005"}
    assert exported(run, tmp_path / "f", "--only", "accepted", "--except", str(keys)) == {"test_00001"}
    record = json.loads((tmp_path / "a/export.json").read_text())
    assert record["review"]["pictures"] == {"accepted": 2, "rejected": 1, "open": 5}
    assert "review" not in json.loads(call("export", run, "--to", "png", "--json").stdout)


@pytest.mark.parametrize("to", ["labelstudio", "cvat"])
def test_rejected_pictures_go_to_a_tool_for_mending(run: Path, tmp_path: Path, to: str):
    put_review(run, review_of(run, test_00002="rejected", test_00003="accepted"))
    done = call("export", run, "--to", to, "--out", tmp_path / to, "--only", "rejected")
    assert done.exit_code == 0, done.stderr
    assert [file.stem for file in (tmp_path / to / "images").iterdir()] == ["test_00002"]
    assert "1 pictures with masks" in done.stdout
    lines = [line.split() for line in done.stdout.replace("│", " ").splitlines()]
    assert ["all", "1", "1", "6"] in lines


def test_file_of_keys_called_accepted_is_named_with_its_folder(run: Path, tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    put_review(run, review_of(run, test_00001="accepted"))
    Path("accepted").write_text("test_00007\n")
    assert exported(run, tmp_path / "a", "--only", "accepted") == {"test_00001"}
    assert exported(run, tmp_path / "b", "--only", "./accepted") == {"test_00007"}


def test_another_review_is_named_by_its_file(run: Path, tmp_path: Path):
    put_review(run, review_of(run, test_00001="accepted"))
    other = tmp_path / "other.json"
    other.write_text(json.dumps(review_of(run, test_00005="accepted")))
    assert exported(run, tmp_path / "a", "--only", "accepted", "--review", str(other)) == {"test_00005"}


@pytest.mark.parametrize(
    ("review", "how", "says"),
    [
        (None, ["--only", "accepted"], "review.json' is missing: decide in the report"),
        ({"run": "0" * 16}, ["--only", "accepted"], "is the review of another run (0000000000000000)"),
        ({}, ["--only", "accepted"], "is accepted: there is nothing to export"),
        ({"pictures": []}, ["--only", "accepted"], "is no review that can be read (pictures: "),
        ({}, ["--review", "x.json"], "--review is of use with --only or --except"),
        ({}, ["--only", "accepted", "--review", "x.json"], "'x.json' is missing"),
    ],
)
def test_review_that_cannot_be_used_is_one_clear_line(run: Path, tmp_path: Path, monkeypatch, review, how, says):
    monkeypatch.chdir(tmp_path)
    if review is not None:
        put_review(run, review_of(run) | review)
    done = call("export", run, "--to", "png", "--out", "out", *how)
    assert (done.exit_code, len(done.stderr.strip().splitlines())) == (2, 1)
    assert says in done.stderr
    assert not Path("out").exists()


def test_corpus_is_exported_by_the_reviews_of_its_batches(labelled: Path, tmp_path: Path):
    out = tmp_path / "out"
    how = ("--preset", "tiny", "--candidates", "vocabulary", "-p", "salience.dropout.iterations=1", "-p", "settle=0")
    summary_of(call("label-corpus", labelled.parent / "in", "--classes", "star", "--out", out, *how, "--json"))
    refused = call("export", out, "--to", "png", "--out", tmp_path / "png", "--only", "accepted")
    assert (refused.exit_code, len(refused.stderr.strip().splitlines())) == (2, 1)
    assert f"export a folder of '{out}/batches'" in refused.stderr
    batch = out / "batches/000001"
    key = next(iter(exported(batch, tmp_path / "all")))
    put_review(batch, review_of(batch, **{key: "accepted"}))
    assert exported(batch, tmp_path / "one", "--only", "accepted") == {key}


# ---- label --redo


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run over four pictures of a user."""
    folder = tmp_path_factory.mktemp("labelled")
    (folder / "in").mkdir()
    random = np.random.default_rng(0)
    for name in "abcd":
        Image.fromarray(random.integers(0, 255, (48, 64, 3), dtype=np.uint8)).save(folder / f"in/{name}.png")
    how = ("--preset", "tiny", "--candidates", "vocabulary", "-p", "salience.dropout.iterations=1")
    summary_of(call("label", folder / "in", "--classes", "star,heart", "--out", folder / "run", *how, "--json"))
    return folder / "run"


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_rejected_pictures_are_labelled_anew_in_a_run_of_their_own(labelled: Path, tmp_path: Path):
    run = tmp_path / "run"
    shutil.copytree(labelled, run)
    put_review(run, review_of(run, b="rejected", c="accepted", d="rejected"))
    before = contents(run)
    how = ("--preset", "tiny", "--candidates", "vocabulary", "-p", "salience.dropout.iterations=2")
    done = summary_of(call("label", run, "--redo", "rejected", *how, "--json"))
    redo = tmp_path / "run-redo"
    assert (done["images"], done["labelled"], Path(done["out"])) == (2, 2, redo)
    assert exported(redo, tmp_path / "x") == {"b", "d"}
    assert finished_record(RunFolder(str(redo))).classes == ("star", "heart")
    kept = {name: data for name, data in contents(run).items() if name in before}
    assert kept == before, "the run itself is only read"
    again = call("label", run, "--redo", "rejected", *how)
    assert again.exit_code == 0, again.stderr


def test_new_run_has_the_masks_that_its_settings_give(labelled: Path, tmp_path: Path):
    run = tmp_path / "run"
    shutil.copytree(labelled, run)
    put_review(run, review_of(run, b="rejected"))
    how = ("--preset", "tiny", "--candidates", "vocabulary", "-p", "salience.dropout.iterations=1")
    summary_of(call("label", run, "--redo", "rejected", *how, "--json"))
    exported(run, tmp_path / "before")
    exported(tmp_path / "run-redo", tmp_path / "after")
    same = [(tmp_path / place / "masks/b.png").read_bytes() for place in ("before", "after")]
    assert same[0] == same[1], "with the settings of the first run they are its masks"


@pytest.mark.parametrize(
    ("decisions", "how", "says"),
    [
        ({"b": "accepted"}, ["--redo", "rejected"], "is rejected: there is nothing to label anew"),
        (None, ["--redo", "rejected"], "review.json' is missing"),
        ({"b": "rejected"}, ["--redo", "rejected", "--out", "RUN"], "holds a run of"),
        ({"b": "rejected"}, ["--redo", "wrong"], "redo"),
        ({"b": "rejected"}, ["--classes", "star", "--review", "x"], "`review` names the decisions for `redo`"),
        ({"b": "rejected"}, [], "classes"),
    ],
)
def test_redo_that_cannot_be_is_one_clear_line(labelled: Path, tmp_path: Path, monkeypatch, decisions, how, says):
    monkeypatch.chdir(tmp_path)
    run = tmp_path / "run"
    shutil.copytree(labelled, run)
    if decisions is not None:
        put_review(run, review_of(run, **decisions))
    before = contents(run)
    done = call("label", run, "--preset", "tiny", *(str(run) if part == "RUN" else part for part in how))
    assert done.exit_code == 2, done.output
    assert says in done.stderr
    assert len([line for line in done.stderr.splitlines() if "error" in line.lower()]) == 1
    kept = {name: data for name, data in contents(run).items() if name in before and not name.startswith(".pnp-ovss")}
    assert kept == {name: data for name, data in before.items() if not name.startswith(".pnp-ovss")}


def test_verdicts_on_pictures_that_are_gone_are_passed_over(served: ReportServer, run: Path, tmp_path):
    review = review_of(run, test_00001="accepted", gone="accepted")
    status, said = put(served, review)
    assert (status, list(json.loads(said)["pictures"])) == (200, ["test_00001"])
    (tmp_path / "saved.json").write_text(json.dumps(review))
    assert exported(run, tmp_path / "out", "--only", "accepted", "--review", tmp_path / "saved.json") == {"test_00001"}
