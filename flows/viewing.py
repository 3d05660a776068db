"""A server of reports, for the browser on this machine: the pages, the pictures beside them, and their reviews.

It listens on loopback only. Any program of this machine can reach that, and any site in the browser can send requests
there. So the name in the address must be this machine's own (DNS rebinding), and reading or writing a review takes a
token of that run, which is handed to the browser in the fragment of the address: that is sent nowhere, and kept in no
log. What lies in a folder may be anybody's page: see `policy_of` for what it may do.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
import sys
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import islice
from pathlib import PurePosixPath
from threading import Lock
from time import monotonic
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from pnp_core.errors import CorruptRunError, ForeignFilesError, OutputError, PnpError, UsageError
from pnp_core.report.opening import FoundPage, page_of, pages_below, policy_of, takes_review
from pnp_core.report.runs_page import RunRow, runs_page
from pnp_core.runs.record import read_record
from pnp_core.runs.review import (
    REVIEW_BYTES,
    Review,
    finished_record,
    masked_keys,
    parse_review,
    require_of,
    review_id,
    save_review,
    saved_review,
    stays_in,
)
from pnp_core.storage.run_folder import TUNING, RunFolder
from pnp_core.text.visible import visible

HEADER = "X-PnP-OVSS-Token"
KINDS = {
    ".html": "text/html; charset=utf-8",
    ".webp": "image/webp",
    ".png": "image/png",
    ".jpg": "image/jpeg",
}
"""What is served of a run's `report` folder, by ending."""
MOST_RUNS, DEEPEST = 500, 3
"""Of a folder of runs: how many are listed, and how many folders down they are looked for."""
REMEMBERED = 2.0
"""Seconds for which it is remembered what lies below a folder of runs."""
PORTS = range(61_000, 65_000)
"""Ports for folders, each always the same: above those that Linux hands out by itself."""
PORTS_TRIED = 20
"""A folder's port and the ones after it, where others are taken."""
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_PLAIN = "text/plain; charset=utf-8"


@dataclass(frozen=True)
class _Answer:
    """What a request gets."""

    status: int
    kind: str = _PLAIN
    body: bytes = b""

    @classmethod
    def refusal(cls, status: int, why: str) -> _Answer:
        return cls(status, body=f"{visible(why)}\n".encode())

    @property
    def policy(self) -> str:
        """Its content security policy."""
        return policy_of(self.body) if self.kind == KINDS[".html"] else "default-src 'none'; sandbox"


_NOT_FOUND = _Answer.refusal(404, "there is nothing here")


class Reviewed:
    """A run whose report is served, and its review, kept in its folder."""

    def __init__(self, url: str, reviewed: bool) -> None:
        self.run, self.reviewed = RunFolder(url), reviewed
        self.token = secrets.token_urlsafe(32)
        self._writing = Lock()
        self._known: frozenset[str] = frozenset()

    def read(self) -> Review:
        """The review as it lies there, an empty one where there is none.

        Raises:
            PnpError: the run is not finished, or what lies there is no review of it.
        """
        return saved_review(self.run, review_id(self.run, finished_record(self.run).fingerprints.masks))

    def update(self, data: bytes) -> Review:
        """Take over the verdicts that are later than those that lie there.

        Raises:
            PnpError: it is no review of this run, or what lies there is none and stays.
        """
        record = finished_record(self.run)
        identifier = review_id(self.run, record.fingerprints.masks)
        with self._writing:
            there = saved_review(self.run, identifier)
            sent = parse_review(data, "what was sent")
            require_of(sent, identifier, "what was sent", self.run)
            if not sent.pictures.keys() <= self._known:
                self._known = masked_keys(self.run, record)
            review = there.updated(sent.of(self._known))
            if review != there:
                save_review(self.run, review)
        return review


class Reports:
    """The reports of a run folder, or of all runs below a folder, by the paths that they are served at.

    Raises:
        CorruptRunError: there is none.
    """

    def __init__(self, url: str) -> None:
        self.folder = RunFolder(url)
        self._runs: dict[str, Reviewed] = {}
        self._token = secrets.token_urlsafe(32)
        self._looking = Lock()
        self._found: tuple[float, list[FoundPage]] = (-REMEMBERED, [])
        try:
            self._runs[""] = Reviewed(url, takes_review(self.folder, page_of(self.folder)))
        except CorruptRunError:
            if not self.found():
                raise

    @property
    def single(self) -> bool:
        """Whether the folder has a page itself."""
        return "" in self._runs

    @property
    def token(self) -> str:
        """For the review of the run, or for the tokens of all of them."""
        return self._runs[""].token if self.single else self._token

    @property
    def fragment(self) -> str:
        """What the page needs in its address: the token, where it has a use for it."""
        return f"#token={self.token}" if not self.single or self._runs[""].reviewed else ""

    def found(self) -> list[FoundPage]:
        """The folders below that have a page, as they are now or were a moment ago."""
        with self._looking:
            when, pages = self._found
            if monotonic() - when >= REMEMBERED:
                pages = sorted(islice(pages_below(self.folder, DEEPEST), MOST_RUNS), key=lambda page: page.name)
                self._found = (monotonic(), pages)
            for page in pages:
                there = self._runs.get(page.name)
                if there is None:
                    self._runs[page.name] = Reviewed(self.folder.below(page.name), page.reviewed)
                else:
                    there.reviewed = page.reviewed
        return pages

    def tokens(self) -> dict[str, str]:
        """Of the runs that were found and have a review, by their links in the list."""
        with self._looking:
            return {_link(name): run.token for name, run in self._runs.items() if run.reviewed}

    def at(self, path: str) -> tuple[Reviewed, str] | None:
        """The run that a path is of, and the rest of the path; None where there is no such run."""
        if self.single:
            return self._runs[""], path
        # By name alone: no path that was sent is ever looked up on the disk.
        name = max((n for n in tuple(self._runs) if path.startswith(f"{n}/")), key=len, default=None)
        return None if name is None else (self._runs[name], path[len(name) + 1 :])


class ReportServer(ThreadingHTTPServer):
    """A server of reports on 127.0.0.1; see `report_server`."""

    daemon_threads = True

    def __init__(self, reports: Reports, port: int) -> None:
        self.reports = reports
        super().__init__(("127.0.0.1", port), _Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of a browser that went on to something else."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)

    @property
    def address(self) -> str:
        """For the browser, with the token where the page takes one."""
        return f"http://127.0.0.1:{self.server_port}/{self.reports.fragment}"

    @cached_property
    def hosts(self) -> frozenset[str]:
        """Names that the server is called by."""
        return frozenset(f"{name}:{self.server_port}" for name in ("127.0.0.1", "localhost"))


class _Handler(BaseHTTPRequestHandler):
    server: ReportServer  # pyright: ignore[reportIncompatibleVariableOverride]
    timeout = 60
    server_version, sys_version = "pnp-ovss", ""

    def do_GET(self) -> None:
        """A page, a picture beside it, or the review; read anew, so that reloading shows a run that went on."""
        self._answer(self._get)

    def do_HEAD(self) -> None:
        """As GET, without the content."""
        self._answer(self._get)

    def do_PUT(self) -> None:
        """The review: later verdicts are taken over, and all that hold are given back."""
        self._answer(self._put)

    def _answer(self, how: Any) -> None:
        try:
            # Another name would be some site's that leads here: it is not to read the page.
            answer = how() if self.headers.get("Host") in self.server.hosts else _NOT_FOUND
        except UsageError as error:
            answer = _Answer.refusal(422, str(error))
        except ForeignFilesError as error:
            answer = _Answer.refusal(409, str(error))
        except PnpError as error:
            answer = _Answer.refusal(500, str(error))
        except (ConnectionError, TimeoutError):  # nobody is there to be answered
            raise
        except Exception as error:  # one file that is unlike all others must not leave a page without an answer
            answer = _Answer.refusal(500, f"this cannot be shown ({type(error).__name__}: {error})")
        self._send(answer)

    def _send(self, answer: _Answer) -> None:
        self.send_response(answer.status)
        headers = {"Content-Type": answer.kind, "Content-Length": str(len(answer.body))}
        headers |= {"X-Content-Type-Options": "nosniff", "Cache-Control": "no-store"}
        headers |= {"Content-Security-Policy": f"{answer.policy}; frame-ancestors 'none'"}
        headers |= {"Cross-Origin-Resource-Policy": "same-origin", "X-Frame-Options": "DENY"}
        if answer.status >= 400:
            headers["Connection"] = "close"  # whatever was not read of the request
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            with suppress(ConnectionError):  # the browser went on to something else
                self.wfile.write(answer.body)

    def _place(self) -> tuple[Reviewed, str] | None:
        # Names of folders are bytes: the ones that are no UTF-8 come back as Python has them.
        path = unquote(urlsplit(self.path).path, errors="surrogateescape").removeprefix("/")
        return self.server.reports.at(path)

    def _get(self) -> _Answer:
        reports, path = self.server.reports, urlsplit(self.path).path
        if not reports.single and path in ("/", "/index.html"):
            return _Answer(200, KINDS[".html"], _index(reports))
        if not reports.single and path == "/tokens.json":
            return self._refusal(reports.token) or _json(json.dumps(reports.tokens()).encode())
        if (place := self._place()) is None:
            return _NOT_FOUND
        reviewed, file = place
        if file == "review.json":
            return self._refusal(reviewed.token) or _json(reviewed.read().as_bytes())
        return _file_of(reviewed.run, file or "index.html")

    def _put(self) -> _Answer:
        place = self._place()
        if place is None or place[1] != "review.json":
            return _NOT_FOUND
        if refusal := self._refusal(place[0].token) or self._refused_body():
            return refusal
        body = self.rfile.read(int(self.headers["Content-Length"]))
        return _json(place[0].update(body).as_bytes())

    def _refusal(self, token: str) -> _Answer | None:
        """Of a request that does not come from the page as it was opened."""
        origin, site = self.headers.get("Origin"), self.headers.get("Sec-Fetch-Site", "same-origin")
        own = origin is None or origin.removeprefix("http://") in self.server.hosts
        if not own or site not in ("same-origin", "none"):
            return _Answer.refusal(403, "a review is read and written by its own page only")
        if not secrets.compare_digest(self.headers.get(HEADER, "").encode(), token.encode()):
            return _Answer.refusal(403, "the token is missing or old: open the address that pnp-ovss view has printed")
        return None

    def _refused_body(self) -> _Answer | None:
        length = self.headers.get("Content-Length", "")
        if not re.fullmatch("[0-9]{1,12}", length):
            return _Answer.refusal(411, "the length of the review is not said")
        if int(length) > REVIEW_BYTES:
            return _Answer.refusal(413, f"a review has {REVIEW_BYTES:,} bytes at most")
        if self.headers.get("Content-Type", "").split(";")[0].strip() != "application/json":
            return _Answer.refusal(415, "a review is application/json")
        return None

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


def _json(data: bytes) -> _Answer:
    return _Answer(200, "application/json", data)


def _file_of(run: RunFolder, file: str) -> _Answer:
    """The page, or a page or picture of a run's `report` folder; of nothing else, and no link that leads out of it."""
    kind = KINDS.get(PurePosixPath(file).suffix.lower())
    if kind is None or not all(map(_NAME.fullmatch, file.split("/"))):
        return _NOT_FOUND
    try:
        path = page_of(run) if file == "index.html" else f"report/{file}"
        return _Answer(200, kind, run.read(path)) if stays_in(run, path) else _NOT_FOUND
    except CorruptRunError:
        return _NOT_FOUND


def _link(name: str) -> str:
    return f"{quote(name, errors='surrogateescape')}/"


def _index(reports: Reports) -> bytes:
    rows = [_row(RunFolder(reports.folder.below(page.name)), page) for page in reports.found()]
    return runs_page(visible(reports.folder.url), rows, more=len(rows) == MOST_RUNS)


def _row(run: RunFolder, page: FoundPage) -> RunRow:
    summary, what = None, page.kind or "a report without its run"
    if page.kind == "run":
        try:
            record = read_record(run)
            summary = record and record.summary
            what = "tuning" if run.exists(TUNING) else "not finished"
        except CorruptRunError:  # its page may be whole
            what = "its record cannot be read"
    return RunRow(visible(page.name), _link(page.name), summary, what)


def port_of(url: str) -> int:
    """The port that a folder has where it is free.

    A browser keeps what a page stores by the address, with the port: decisions on a run whose folder cannot be
    written to are there again when the folder is opened again.
    """
    folder = RunFolder(url)
    place = folder.fs.unstrip_protocol(folder.root)
    number = int.from_bytes(hashlib.sha256(place.encode(errors="surrogateescape")).digest()[:4], "big")
    return PORTS[number % len(PORTS)]


def report_server(url: str, port: int | None = 0) -> ReportServer:
    """A server of a run's report, or of those of all runs below a folder, on 127.0.0.1, bound but not yet serving.

    Args:
        port: a free one when 0; the folder's own, or one of the next, when None.

    Raises:
        CorruptRunError: the folder has no report, and none below it has.
        OutputError: the port is taken.
    """
    reports = Reports(url)
    if port is None:
        for near in range(port_of(url), port_of(url) + PORTS_TRIED):
            with suppress(OSError):
                return ReportServer(reports, near)
        port = 0
    try:
        return ReportServer(reports, port)
    except OSError as error:
        raise OutputError(f"cannot serve on port {port}: {error.strerror}; leave --port out for a free one") from error
