"""Serves three rows, one a line."""

from http.server import BaseHTTPRequestHandler, HTTPServer


class Rows(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"one\ntwo\nthree\n")


HTTPServer(("", 8000), Rows).serve_forever()
