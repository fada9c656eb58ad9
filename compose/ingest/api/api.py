"""An HTTP API to read from: GET /readings answers a page of rows, and where the next one is."""

import contextlib
import json
import os
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

ROWS = int(os.environ.get("ROWS", "10000"))
PAGE = int(os.environ.get("PAGE", "500"))
PAUSE_S = float(os.environ.get("PAUSE_S", "0"))  # before each page that nobody has had yet


def reading(number):
    """Row `number`, the same each time."""
    return {"id": number, "station": f"station-{number % 17}", "celsius": round(10 + (number * 7919 % 2500) / 100, 2)}


class Api(BaseHTTPRequestHandler):
    """Answers pages."""

    protocol_version = "HTTP/1.1"
    given = 0

    def do_GET(self):
        """One page."""
        asked = urlsplit(self.path)
        first = int(parse_qs(asked.query).get("from", ["1"])[0])
        last = min(ROWS, first + PAGE - 1)
        if last > Api.given:
            time.sleep(PAUSE_S)
            Api.given = last
        if first == 1:
            print("the first page is asked for", flush=True)
        more = f"/readings?from={last + 1}" if last < ROWS else None
        body = json.dumps({"rows": [reading(number) for number in range(first, last + 1)], "next": more}).encode()
        self.send_response(200 if asked.path == "/readings" else 404)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        with contextlib.suppress(ConnectionError):  # whoever asked has gone
            self.wfile.write(body)

    def log_message(self, *_):
        """Say nothing of each request."""


ThreadingHTTPServer(("", 8080), Api).serve_forever()
