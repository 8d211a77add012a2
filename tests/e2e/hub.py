"""A hub on this machine: the few calls by which a repository is made, filled and read, over real HTTP."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import yaml

__all__ = ["Hub", "hub"]

_COMMIT = "1" * 40


@dataclass
class Hub:
    """What was put there."""

    address: str = ""
    token: str = "hf_of_the_tests"
    files: dict[str, dict[str, bytes]] = field(default_factory=dict)
    private: dict[str, bool] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    commits: dict[str, str] = field(default_factory=dict)
    """The current commit of a repository, where it is another one than the first."""

    def put(self, repo: str, folder: Path, commit: str = _COMMIT) -> None:
        """Make the files of a folder the contents of a repository, as one commit."""
        self.files[repo] = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
        self.commits[repo] = commit

    def clone(self, repo: str, folder: Path) -> Path:
        """Write a repository's files into a folder."""
        folder.mkdir()
        for name, content in self.files[repo].items():
            (folder / name).write_bytes(content)
        return folder


def _digest(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()


@contextmanager
def hub() -> Iterator[Hub]:
    """Serve a hub that knows one token."""
    state = Hub()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"] or 0))
            state.asked.append(self.path)
            if self.headers["Authorization"] != f"Bearer {state.token}":
                return self._say({"error": "Invalid credentials"}, 401)
            if self.path == "/api/repos/create":
                return self._create(json.loads(body))
            if self.path == "/api/validate-yaml":  # the head of a model card
                return self._say({"errors": [], "warnings": []})
            repo, verb = "/".join(self.path.split("/")[3:5]), self.path.split("/")[5]
            if verb == "preupload":
                modes = {"uploadMode": "regular", "shouldIgnore": False, "oid": None}
                return self._say({"files": [{"path": one["path"], **modes} for one in json.loads(body)["files"]]})
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "deletedFile":
                    del state.files[repo][line["value"]["path"]]
                if line["key"] == "file":
                    state.files[repo][line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            return self._say({"commitUrl": f"{state.address}/{repo}/commit/1", "commitOid": "1"})

        def do_GET(self) -> None:
            state.asked.append(self.path)
            path = self.path.split("?")[0]
            if "/resolve/" in path:
                return self._file(path)
            repo = "/".join(path.split("/")[3:5])
            if repo not in state.files:
                return self._say({"error": "Repository not found"}, 404, {"X-Error-Code": "RepoNotFound"})
            if "/tree/" in path:
                files = state.files[repo].items()
                return self._say(
                    [{"type": "file", "path": name, "size": len(x), "oid": _digest(x)} for name, x in files]
                )
            names = [{"rfilename": name} for name in state.files[repo]]
            return self._say(
                {"sha": state.commits.get(repo, _COMMIT), "id": repo, "siblings": names, "tags": self._tags(repo)}
            )

        def _tags(self, repo: str) -> list[str]:
            head = state.files[repo].get("README.md", b"").decode().split("---\n")
            return list((yaml.safe_load(head[1]) or {}).get("tags", [])) if len(head) > 2 and not head[0] else []

        def do_HEAD(self) -> None:
            self._file(self.path.split("?")[0], body=False)

        def _file(self, path: str, *, body: bool = True) -> None:
            repo, _, place = path.removeprefix("/datasets").strip("/").partition("/resolve/")
            revision, _, name = place.partition("/")
            commit = state.commits.get(repo, _COMMIT)
            content = state.files.get(repo, {}).get(name) if revision in ("main", commit) else None
            if content is None:
                return self._say({"error": "Entry not found"}, 404, {"X-Error-Code": "EntryNotFound"})
            self.send_response(200)
            self.send_header("ETag", f'"{_digest(content)}"')
            self.send_header("X-Repo-Commit", commit)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if body:
                self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            pass

        def _create(self, wanted: dict[str, Any]) -> None:
            owner = wanted.get("organization") or "me"
            repo = f"{owner}/{wanted['name']}"
            if repo in state.files:
                return self._say({"error": "You already created this", "url": f"{state.address}/{repo}"}, 409)
            state.files[repo] = {}
            state.private[repo] = wanted.get("visibility") == "private" or bool(wanted.get("private"))
            return self._say({"url": f"{state.address}/{repo}", "name": repo, "id": "1"})

        def _say(self, answer: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> None:
            body = json.dumps(answer).encode()
            self.send_response(status)
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
