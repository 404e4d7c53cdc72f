"""A registry on the loopback address that answers as a test wants, for real pulls."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
CONFIG = "application/vnd.docker.container.image.v1+json"
LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"


@dataclass
class Registry:
    """`answer`: a status for every request, 200 for what is there. `blobs`: digest -> content."""

    port: int
    answer: int = 200
    manifest: bytes = b""
    blobs: dict[str, bytes] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    @property
    def image(self) -> str:
        return f"127.0.0.1:{self.port}/app:1"

    def offer(self, layer: bytes, *, served: bytes | None = None) -> None:
        """An image of one layer, a gzipped tar; `served`: what is sent in the place of it."""
        plain = gzip.decompress(layer)
        config = json.dumps(
            {
                "architecture": "amd64",
                "os": "linux",
                "config": {"Cmd": ["/nothing"]},
                "rootfs": {"type": "layers", "diff_ids": [digest(plain)]},
            }
        ).encode()
        self.blobs = {digest(config): config, digest(layer): layer if served is None else served}
        entry = {"mediaType": LAYER, "size": len(layer), "digest": digest(layer)}
        self.manifest = json.dumps(
            {
                "schemaVersion": 2,
                "mediaType": MANIFEST,
                "config": {"mediaType": CONFIG, "size": len(config), "digest": digest(config)},
                "layers": [entry],
            }
        ).encode()


def digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def layer(name: str, content: bytes) -> bytes:
    """A layer with one file; without a name, with none."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        if name:
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return gzip.compress(packed.getvalue(), mtime=0)


@contextmanager
def registry() -> Iterator[Registry]:
    """One that answers until the end of the context; afterwards nobody listens there."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found.asked.append(self.path)
            if found.answer != 200:
                text = {404: "MANIFEST_UNKNOWN", 429: "TOOMANYREQUESTS"}.get(found.answer, "DENIED")
                errors = [{"code": text, "message": f"the registry says {text}"}]
                self._send(
                    found.answer, "application/json", json.dumps({"errors": errors}).encode()
                )
            elif self.path.rstrip("/") == "/v2":
                self._send(200, "application/json", b"{}")
            elif "/manifests/" in self.path:
                self._send(200, MANIFEST, found.manifest)
            else:
                content = found.blobs.get(self.path.rpartition("/")[2])
                self._send(404 if content is None else 200, LAYER, content or b"")

        do_HEAD = do_GET  # noqa: N815

        def _send(self, status: int, kind: str, content: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            self.send_header("Docker-Distribution-Api-Version", "registry/2.0")
            if kind == MANIFEST:
                self.send_header("Docker-Content-Digest", digest(content))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    found = Registry(server.server_address[1])
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield found
    finally:
        server.shutdown()
        server.server_close()
