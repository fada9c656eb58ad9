"""Images for tests, made here: of programs of this machine, or of the shim alone. No registry is asked for any."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import json
import os
import platform
import re
import shutil
import subprocess
import tarfile
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from runner.launch.shim.locate import shim_path
from runner.plan.images import architecture
from tests.engine import docker

LIMIT_S = 120
PROGRAMS = ("sh", "cat", "sleep", "tail", "head", "id", "env", "ls", "touch", "mkdir", "setsid", "dd", "wc")
ARCH = architecture(platform.machine())


def own_tag(name: str) -> str:
    """A tag that no other process of tests takes away."""
    return f"connector-test/{name}:{os.getpid()}"


@dataclass
class Layers:
    """An image: its files (their paths without the first slash), folders, config, architecture."""

    files: dict[str, bytes] = field(default_factory=dict)
    folders: tuple[str, ...] = ()
    config: dict[str, Any] = field(default_factory=dict)
    arch: str = ARCH

    def tar(self) -> bytes:
        """Its one layer."""
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as archive:
            for folder in self.folders:
                entry = tarfile.TarInfo(folder)
                entry.type, entry.mode = tarfile.DIRTYPE, 0o755
                archive.addfile(entry)
            for name, content in self.files.items():
                entry = tarfile.TarInfo(name)
                entry.size, entry.mode = len(content), 0o644 if name.endswith(".txt") else 0o755
                archive.addfile(entry, io.BytesIO(content))
        return buffer.getvalue()

    def config_json(self, layer: bytes) -> bytes:
        """Its configuration, as the image specification has it."""
        digest = hashlib.sha256(layer).hexdigest()
        return json.dumps(
            {
                "architecture": self.arch,
                "os": "linux",
                "config": self.config,
                "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
                "history": [{"created_by": "a test"}],
            }
        ).encode()

    def load(self, tag: str, host: str | None = None) -> str:
        """Give it to the engine (that of `host`) under `tag`; returns `tag`."""
        layer = self.tar()
        config = self.config_json(layer)
        name = f"{hashlib.sha256(config).hexdigest()}.json"
        manifest = json.dumps([{"Config": name, "RepoTags": [tag], "Layers": ["layer.tar"]}]).encode()
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as archive:
            for path, content in ((name, config), ("layer.tar", layer), ("manifest.json", manifest)):
                entry = tarfile.TarInfo(path)
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content))
        docker("load", host=host, stdin=buffer.getvalue())
        return tag


def small(**config: Any) -> Layers:
    """A few programs of this machine with their libraries: a shell, cat, sleep and the like."""
    files: dict[str, bytes] = {}
    for program in PROGRAMS:
        path = shutil.which(program)
        if path is None:
            pytest.skip(f"there is no {program} to make an image of")
        files[f"bin/{program}"] = Path(path).resolve().read_bytes()
        said = subprocess.run(["ldd", path], capture_output=True, text=True, check=False, timeout=LIMIT_S).stdout
        for library in re.findall(r"(/\S+) \(0x", said):
            files[library.lstrip("/")] = Path(library).resolve().read_bytes()
    files["etc/passwd"] = b"root:x:0:0::/root:/bin/sh\nguest:x:1234:1234::/home/guest:/bin/sh\n"
    return Layers(files, ("tmp", "root", "home", "home/guest", "work"), {"Env": ["PATH=/bin"], **config})


def scratch(**config: Any) -> Layers:
    """A static program and nothing else: the shim, which says how it is to be called when it is called wrongly."""
    return Layers({"program": shim_path().read_bytes()}, (), {"Entrypoint": ["/program"], "Cmd": ["wrong"], **config})


@contextlib.contextmanager
def registry(images: Mapping[str, Layers], gate: threading.Event | None = None) -> Iterator[str]:
    """A registry on loopback that has these, by REPOSITORY:TAG; yields its HOST:PORT. (Engines trust loopback.)

    With `gate`, layers are not given out before it is set.
    """
    blobs: dict[str, bytes] = {}
    manifests: dict[str, bytes] = {}
    for name, layers in images.items():
        repository, _, tag = name.rpartition(":")
        layer = layers.tar()
        parts = {"config": layers.config_json(layer), "layer": gzip.compress(layer, 1)}
        digests = {kind: f"sha256:{hashlib.sha256(part).hexdigest()}" for kind, part in parts.items()}
        blobs.update({digests[kind]: part for kind, part in parts.items()})
        kinds = {"config": "container.image.v1+json", "layer": "image.rootfs.diff.tar.gzip"}
        described = {
            kind: {
                "mediaType": f"application/vnd.docker.{kinds[kind]}",
                "size": len(part),
                "digest": digests[kind],
            }
            for kind, part in parts.items()
        }
        manifest = {
            "schemaVersion": 2,
            "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
            "config": described["config"],
            "layers": [described["layer"]],
        }
        encoded = json.dumps(manifest).encode()
        manifests[f"/v2/{repository}/manifests/{tag}"] = encoded
        manifests[f"/v2/{repository}/manifests/sha256:{hashlib.sha256(encoded).hexdigest()}"] = encoded

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            body, kind = b"{}", "application/json"
            found = True
            if self.path in manifests:
                body, kind = manifests[self.path], "application/vnd.docker.distribution.manifest.v2+json"
            elif self.path.rpartition("/")[2] in blobs:
                if gate is not None:
                    gate.wait(LIMIT_S)
                body, kind = blobs[self.path.rpartition("/")[2]], "application/octet-stream"
            elif self.path != "/v2/":
                found = False
                body = json.dumps({"errors": [{"code": "MANIFEST_UNKNOWN", "message": "manifest unknown"}]}).encode()
            self.send_response(200 if found else 404)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Docker-Distribution-Api-Version", "registry/2.0")
            self.send_header("Docker-Content-Digest", f"sha256:{hashlib.sha256(body).hexdigest()}")
            self.end_headers()
            if self.command == "GET":
                with contextlib.suppress(OSError):  # nobody wants it any more
                    self.wfile.write(body)

        do_HEAD = do_GET  # noqa: N815 - the library's name

        def log_message(self, *arguments: object) -> None:
            del arguments

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
