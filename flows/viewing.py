"""A server of one page and the pictures beside it, for the browser on this machine."""

from __future__ import annotations

import re
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from pnp_core.errors import CorruptRunError, OutputError
from pnp_core.report.page import PAGE
from pnp_core.report.pictures import FILE
from pnp_core.storage.run_folder import RunFolder

_KINDS = {"jpg": "image/jpeg", "png": "image/png"}


def report_server(url: str, port: int = 0) -> ThreadingHTTPServer:
    """A server of a run's report on 127.0.0.1, bound but not yet serving; of nothing else in the run folder but the
    pictures beside it.

    Args:
        port: a free one when 0.

    Raises:
        CorruptRunError: the folder has no report.
        OutputError: the port is taken.
    """
    run = RunFolder(url)
    if not run.exists(PAGE):
        raise CorruptRunError(f"'{url}' has no report ({PAGE}): run its eval or label command again, it leaves one")

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            """The page, read anew, so that reloading shows a run that went on."""
            # Another name would be some site's that leads here: it is not to read the page.
            host = self.headers.get("Host", "").rsplit(":", 1)[0]
            asked = self.path.split("?")[0].removeprefix("/")
            picture = re.fullmatch(FILE, asked)
            if host not in ("127.0.0.1", "localhost") or not (picture or asked in ("", "index.html")):
                self.send_error(404)
                return
            try:
                page = run.get(f"report/{asked}") if picture else run.read(PAGE)
            except CorruptRunError:
                self.send_error(404)
                return
            self.send_response(200)
            kind = _KINDS[asked[-3:]] if picture else "text/html; charset=utf-8"
            headers = {"Content-Type": kind, "Content-Length": str(len(page))}
            headers |= {"X-Content-Type-Options": "nosniff", "Cache-Control": "no-store"}
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            with suppress(ConnectionError):  # the browser went on to something else
                self.wfile.write(page)

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    try:
        return ThreadingHTTPServer(("127.0.0.1", port), Handler)
    except OSError as error:
        raise OutputError(f"cannot serve on port {port}: {error.strerror}; leave --port out for a free one") from error
