"""A stand-in for the hub on loopback: enough of its HTTP API to pull and push models, and ways to misbehave."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

LARGE = 10_000
"""Files from here on are kept as the hub keeps large ones: under their SHA-256."""

TOKEN = "hf_" + "s" * 34


@cache
def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@cache
def git_sha1(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


@dataclass
class Repository:
    """A model on the hub. `commit` follows from its files."""

    files: dict[str, bytes] = field(default_factory=dict)
    licence: str | None = None
    gated: bool = False
    private: bool = False

    @property
    def commit(self) -> str:
        return hashlib.sha1(repr([(name, hash(self.files[name])) for name in sorted(self.files)]).encode()).hexdigest()


@dataclass
class Hub:
    """What is on it, what was asked of it, and how it misbehaves.

    `breaks` are how many bytes each of the next downloads sends before the line breaks; `corrupt` names a file that is
    sent with one byte changed; `ranges` False ignores Range; `cdn` sends large files through a redirect elsewhere.
    """

    repositories: dict[str, Repository] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)
    requests: list[tuple[str, str, str | None, str | None]] = field(default_factory=list)
    breaks: list[int] = field(default_factory=list)
    corrupt: str | None = None
    ranges: bool = True
    cdn: str | None = None
    url: str = ""

    def downloads(self) -> list[tuple[str, str | None]]:
        """Path and Range of each file that was asked for."""
        return [(path, asked) for method, path, asked, _ in self.requests if method == "GET" and "/resolve/" in path]


class _Handler(BaseHTTPRequestHandler):
    hub: Hub

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing on standard error."""

    def do_GET(self) -> None:
        self._noted()
        path = unquote(urlsplit(self.path).path)
        if path.startswith("/api/models/"):
            self._model(*path.removeprefix("/api/models/").partition("/revision/")[::2])
        elif path.startswith("/api/whoami"):
            self._json({"name": "me", "type": "user"} if self._known else None, 200 if self._known else 401)
        else:
            self._file(path.removeprefix("/cdn"))

    def do_PUT(self) -> None:
        self._noted()
        content = self._body()
        self.hub.objects[sha256(content)] = content
        self._answer(b"")

    def do_POST(self) -> None:
        self._noted()
        path, body = unquote(urlsplit(self.path).path), self._body()
        if not self._known:
            return self._refused(401, "")
        if path == "/api/validate-yaml":
            return self._json({"errors": [], "warnings": []})
        if path == "/api/repos/create":
            return self._created(json.loads(body))
        repository = path.removeprefix("/api/models/").split("/preupload/")[0].split("/commit/")[0]
        if "/preupload/" in path:
            asked = json.loads(body)["files"]
            modes = [{"path": each["path"], "shouldIgnore": False, "uploadMode": _mode(each["size"])} for each in asked]
            return self._json({"files": modes})
        if "/commit/" in path:
            return self._commit(repository, body)
        return self._batch(json.loads(body)["objects"])

    @property
    def _known(self) -> bool:
        return self.headers.get("authorization") == f"Bearer {TOKEN}"

    def _noted(self) -> None:
        asked, given = self.headers.get("Range"), self.headers.get("authorization")
        self.hub.requests.append((self.command, self.path, asked, given))

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        content = b""
        while size := int(self.rfile.readline(), 16):
            content += self.rfile.read(size)
            self.rfile.readline()
        return content

    def _answer(self, content: bytes, status: int = 200, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(content)

    def _json(self, value: Any, status: int = 200) -> None:
        self._answer(json.dumps(value).encode(), status, Content_Type="application/json")

    def _refused(self, status: int, code: str) -> None:
        self._answer(b"", status, X_Error_Code=code, X_Error_Message="no")

    def _model(self, name: str, revision: str) -> None:
        held = self.hub.repositories.get(name)
        if held is None or (held.private and not self._known):
            return self._refused(404, "RepoNotFound")
        if revision not in ("main", held.commit, ""):
            return self._refused(404, "RevisionNotFound")
        siblings = [_sibling(path, content) for path, content in held.files.items()]
        stated = re.search(rb"^license: (.+)$", held.files.get("README.md", b""), re.MULTILINE)
        licence = held.licence or (stated and stated[1].decode())
        card = {"license": licence} if licence else {}
        told = {"id": name, "sha": held.commit, "siblings": siblings, "cardData": card, "private": held.private}
        return self._json(told)

    def _file(self, path: str) -> None:
        name, _, rest = path.lstrip("/").partition("/resolve/")
        commit, _, file = rest.partition("/")
        held = self.hub.repositories.get(name)
        if held is None:
            return self._refused(404, "RepoNotFound")
        if held.gated and not self.path.startswith("/cdn"):
            return self._refused(403, "GatedRepo")
        content = held.files[file]
        if self.hub.cdn and len(content) >= LARGE and not self.path.startswith("/cdn"):
            return self._answer(b"", 302, Location=f"{self.hub.cdn}/cdn{self.path}")
        if file == self.hub.corrupt:
            content = content[:-1] + bytes([content[-1] ^ 1])
        return self._send(content, {"ETag": f'"{git_sha1(content)}"', "X-Repo-Commit": commit})

    def _send(self, content: bytes, headers: dict[str, str]) -> None:
        """The bytes asked for, or as many as come before the line breaks."""
        asked = self.headers.get("Range") if self.hub.ranges else None
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0
        if asked:
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        self.send_response(206 if asked else 200)
        for name, value in {**headers, "Content-Length": str(len(content) - start)}.items():
            self.send_header(name, value)
        self.end_headers()
        large = len(content) >= LARGE
        self.wfile.write(content[start:][: self.hub.breaks.pop(0) if self.hub.breaks and large else None])
        self.close_connection = True

    def _created(self, asked: dict[str, Any]) -> None:
        name = f"{asked.get('organization', 'me')}/{asked['name']}"
        status = 409 if name in self.hub.repositories else 200
        self.hub.repositories.setdefault(name, Repository(private=asked.get("visibility") == "private"))
        self._json({"url": f"{self.hub.url}/{name}"}, status)

    def _batch(self, objects: list[dict[str, Any]]) -> None:
        """Where to put each object; nothing to do for one that is there."""

        def told(each: dict[str, Any]) -> dict[str, Any]:
            if each["oid"] in self.hub.objects:
                return each
            return {**each, "actions": {"upload": {"href": f"{self.hub.url}/objects/{each['oid']}"}}}

        self._json({"transfer": "basic", "objects": [told(each) for each in objects]})

    def _commit(self, name: str, body: bytes) -> None:
        held = self.hub.repositories[name]
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                held.files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                held.files[value["path"]] = self.hub.objects[value["oid"]]
        self._json({"commitUrl": f"{self.hub.url}/{name}/commit/{held.commit}", "commitOid": held.commit})


def _mode(size: int) -> str:
    return "lfs" if size >= LARGE else "regular"


def _sibling(path: str, content: bytes) -> dict[str, Any]:
    known = {"rfilename": path, "size": len(content), "blobId": git_sha1(content)}
    if len(content) < LARGE:
        return known
    return {**known, "lfs": {"size": len(content), "sha256": sha256(content), "pointerSize": 130}}


@contextmanager
def serving(hub: Hub) -> Iterator[str]:
    """The address that the hub answers at while this lasts."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
