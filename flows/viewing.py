"""A server of one page, for the browser on this machine."""

from __future__ import annotations

from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from pnp_core.errors import CorruptRunError, OutputError
from pnp_core.report.opening import page_of
from pnp_core.storage.run_folder import RunFolder


def report_server(url: str, port: int = 0) -> ThreadingHTTPServer:
    """A server of a folder's page (`page_of`) on 127.0.0.1, bound but not yet serving; of nothing else in the folder.

    Args:
        port: a free one when 0.

    Raises:
        CorruptRunError: the folder has no page.
        OutputError: the port is taken.
    """
    run = RunFolder(url)
    file = page_of(run)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            """The page, read anew, so that reloading shows a run that went on."""
            # Another name would be some site's that leads here: it is not to read the page.
            host = self.headers.get("Host", "").rsplit(":", 1)[0]
            if host not in ("127.0.0.1", "localhost") or self.path.split("?")[0] not in ("/", "/index.html"):
                self.send_error(404)
                return
            try:
                page = run.read(file)
            except CorruptRunError:
                self.send_error(404)
                return
            self.send_response(200)
            headers = {"Content-Type": "text/html; charset=utf-8", "Content-Length": str(len(page))}
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
