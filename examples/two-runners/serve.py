"""A small HTTP API: made-up flights, page by page, the same ones each time.

    GET /flights?offset=0    {"rows": [{…}, …], "next": "/flights?offset=1000" or null}

`python serve.py [--rows N] [--port N]`; what it prints first is the URL to start from.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

PAGE_ROWS = 1000
FIRST_HOUR = dt.datetime(2013, 1, 1, tzinfo=dt.UTC)
AIRPORTS = ("EWR", "JFK", "LGA")


def flight(number: int) -> dict[str, Any]:
    """The flight with this number, with the columns that the sink stores."""
    hour, late = FIRST_HOUR + dt.timedelta(hours=number // 40), number * 7 % 90 - 10
    return {
        "time_hour": hour.isoformat(),
        "carrier": f"C{number % 16:X}",
        "flight": number,
        "tailnum": f"N{number % 4000:05}" if number % 50 else None,
        "origin": AIRPORTS[number % 3],
        "dest": AIRPORTS[(number + 1) % 3],
        "scheduled_departure": hour.isoformat(),
        "departed_at": (hour + dt.timedelta(minutes=late)).isoformat(),
        "dep_delay": late,
        "arr_delay": late - 3,
        "delay_class": "late" if late > 15 else "on time",
        "air_time": 30 + number % 400,
        "distance_km": 100.5 + number % 4000,
        "speed_mph": None,
    }


class Api(ThreadingHTTPServer):
    """The server; it has so many rows."""

    daemon_threads = True

    def __init__(self, port: int, rows: int) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.rows = rows


class Handler(BaseHTTPRequestHandler):
    """Answers one connection's requests."""

    server: Api
    protocol_version = "HTTP/1.1"  # keeps the connection from page to page

    def do_GET(self) -> None:  # the name that http.server calls
        url = urlsplit(self.path)
        offset = parse_qs(url.query).get("offset", ["0"])[0]
        if url.path != "/flights" or not (offset.isascii() and offset.isdigit() and len(offset) < 10):
            self._answer(404, {"error": "GET /flights?offset=N is what there is"})
            return
        first, last = int(offset), min(int(offset) + PAGE_ROWS, self.server.rows)
        following = f"/flights?offset={last}" if last < self.server.rows else None
        self._answer(200, {"rows": [flight(number) for number in range(first, last)], "next": following})

    def _answer(self, status: int, content: dict[str, Any]) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  (its name in http.server)
        """Say nothing of each request."""


def main() -> None:
    parser = argparse.ArgumentParser(description="Serves made-up flights.")
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--port", type=int, default=8081, help="0: any that is free")
    options = parser.parse_args()
    with Api(options.port, options.rows) as api:
        print(f"http://127.0.0.1:{api.server_port}/flights", flush=True)
        api.serve_forever()


if __name__ == "__main__":
    main()
