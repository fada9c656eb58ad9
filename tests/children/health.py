"""Programs that are ready late, or fall ill. usage: health.py WHAT ARGUMENT…; each function below is one WHAT."""

import os
import select
from pathlib import Path

from misbehave import called, echo, write_all


def becomes_ready(how: str, target: str, delay: str) -> None:
    """Ready after DELAY seconds: says "now ready" (line), makes file TARGET, or listens at port TARGET (tcp, http).

    Exits 9 when input comes before that.
    """
    if select.select([0], [], [], float(delay))[0]:
        os._exit(9)
    if how == "line":
        write_all(2, b"now ready\n")
    elif how == "file":
        Path(target).touch()
    elif how == "tcp":
        import socket

        listening = socket.create_server(("127.0.0.1", int(target)))
        listening.set_inheritable(False)
    elif how == "http":
        import threading
        from http.server import BaseHTTPRequestHandler, HTTPServer

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        server = HTTPServer(("127.0.0.1", int(target)), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
    echo()
    os._exit(0)


def sick(port: str, healthy_checks: str) -> None:
    """Serves HTTP: its first run answers 200 so many times, then 500 for ever; later runs are healthy. Echoes."""
    import threading
    from http.server import BaseHTTPRequestHandler, HTTPServer

    asked = 0

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            nonlocal asked
            asked += 1
            ill = os.environ["CONNECTOR_ATTEMPT"] == "1" and asked > int(healthy_checks)
            self.send_response(500 if ill else 200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = HTTPServer(("127.0.0.1", int(port)), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    echo()
    os._exit(0)


if __name__ == "__main__":
    called(globals())
