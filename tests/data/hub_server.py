"""A small server that answers `datasets` and `huggingface_hub` as the Hugging Face hub does, over folders of
files, and fails when told to.

The endpoints are those the two libraries call when a dataset is resolved and streamed (found by logging their
requests): `/api/datasets/ID[/revision/REV]`, `/api/datasets/ID/tree/REV[/PATH]` with pagination,
`/api/datasets/ID/paths-info/REV`, and HEAD and GET, with ranges, of `/datasets/ID/resolve/REV/PATH`.
Everything else is 404, as the dataset viewer's endpoints may be.
"""

import hashlib
import json
import re
import socket
import struct
import threading
from collections.abc import Callable
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

# entries of a listing on one page, so that every test follows links
PAGE = 3


class Hub:
    """Datasets below `root`, as ID/FILE.

    `fault(method, path, headers)` may name what goes wrong with a request.

    Faults: an HTTP status as text ("503"), "reset" (the connection breaks mid-body), "short" (the body ends
    early, cleanly), "hang" (no answer), "gated", "private". None is a whole answer. `requests` lists what was
    asked.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.requests: list[str] = []
        # every commit ever told; old ones go on being served
        self.commits: set[str] = set()
        self.closing = threading.Event()
        self.fault: Callable[[str, str, str | None], str | None] = lambda method, path, part: None
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()

    def commit(self, id: str) -> str:
        """A hash of the dataset's file names and sizes: what `main` and the conversion branch stand for."""
        names = [(path.name, path.stat().st_size) for path in self._files(id)]
        commit = hashlib.sha1(json.dumps([id, names]).encode()).hexdigest()
        self.commits.add(commit)
        return commit

    def _files(self, id: str) -> list[Path]:
        return sorted(path for path in (self.root / id).rglob("*") if path.is_file())

    def _handler(hub: "Hub") -> type[BaseHTTPRequestHandler]:
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None:
                pass

            def do_HEAD(self) -> None:
                self._answer()

            def do_GET(self) -> None:
                self._answer()

            def do_POST(self) -> None:
                self._answer()

            def _answer(self) -> None:
                url = urlsplit(self.path)
                path = unquote(url.path)
                size = int(self.headers.get("Content-Length") or 0)
                body = self.rfile.read(size).decode() if size else ""
                hub.requests.append(f"{self.command} {self.path} {self.headers.get('Range') or ''}".strip())
                self.wrong = hub.fault(self.command, path, self.headers.get("Range"))
                if self.wrong in ("gated", "private"):
                    code = "GatedRepo" if self.wrong == "gated" else "RepoNotFound"
                    return self._send(401, b"{}", {"X-Error-Code": code, "X-Error-Message": "restricted"})
                if self.wrong == "hang":
                    hub.closing.wait(1.0)
                    self.close_connection = True
                    return None
                if self.wrong and self.wrong.isdigit():
                    return self._send(int(self.wrong), b"{}")
                if found := re.fullmatch(r"/api/datasets/([^/]+/[^/]+)(?:/revision/(.+))?", path):
                    return self._info(*found.groups())
                if found := re.fullmatch(
                    r"/api/datasets/([^/]+/[^/]+)/tree/(refs/convert/parquet|[^/]+)(?:/(.*))?", path
                ):
                    return self._tree(*found.groups(), parse_qs(url.query))
                if found := re.fullmatch(
                    r"/api/datasets/([^/]+/[^/]+)/paths-info/(refs/convert/parquet|[^/]+)", path
                ):
                    return self._paths(*found.groups(), parse_qs(body))
                if found := re.fullmatch(
                    r"/datasets/([^/]+/[^/]+)/resolve/(refs/convert/parquet|[^/]+)/(.+)", path
                ):
                    return self._resolve(*found.groups())
                return self._send(404, b"{}")

            def _known(self, id: str, revision: str | None) -> bool:
                if not (hub.root / id).is_dir():
                    self._send(401 if revision is None else 404, b"{}", {"X-Error-Code": "RepoNotFound"})
                    return False
                if (
                    revision not in (None, "main", "refs/convert/parquet", hub.commit(id))
                    and revision not in hub.commits
                ):
                    self._send(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
                    return False
                return True

            def _info(self, id: str, revision: str | None) -> None:
                if self._known(id, revision):
                    names = [
                        {"rfilename": path.relative_to(hub.root / id).as_posix()} for path in hub._files(id)
                    ]
                    sha = revision if revision in hub.commits else hub.commit(id)
                    self._json(
                        {
                            "id": id,
                            "sha": sha,
                            "private": False,
                            "gated": False,
                            "tags": [],
                            "siblings": names,
                        }
                    )

            def _tree(self, id: str, revision: str, folder: str | None, query: dict[str, list[str]]) -> None:
                if not self._known(id, revision):
                    return
                base = hub.root / id / (folder or "")
                if not base.is_dir():
                    return self._send(404, b"{}", {"X-Error-Code": "EntryNotFound"})
                recursive = query.get("recursive", ["false"])[0].lower() == "true"
                paths = sorted(base.rglob("*") if recursive else base.iterdir())
                start = int(query.get("cursor", ["0"])[0])
                headers = {}
                if start + PAGE < len(paths):
                    rest = "&".join(f"{key}={values[0]}" for key, values in query.items() if key != "cursor")
                    headers["Link"] = (
                        f'<{hub.url}{urlsplit(self.path).path}?{rest}&cursor={start + PAGE}>; rel="next"'
                    )
                self._json([self._entry(id, path) for path in paths[start : start + PAGE]], headers)

            def _paths(self, id: str, revision: str, wanted: dict[str, list[str]]) -> None:
                if self._known(id, revision):
                    paths = [hub.root / id / name for name in wanted.get("paths", [])]
                    self._json([self._entry(id, path) for path in paths if path.exists()])

            def _entry(self, id: str, path: Path) -> dict[str, object]:
                name = path.relative_to(hub.root / id).as_posix()
                oid = hashlib.sha1(name.encode()).hexdigest()
                if path.is_dir():
                    return {"type": "directory", "path": name, "oid": oid, "size": 0}
                return {"type": "file", "path": name, "oid": oid, "size": path.stat().st_size}

            def _resolve(self, id: str, revision: str, name: str) -> None:
                if not self._known(id, revision):
                    return None
                path = hub.root / id / name
                if not path.is_file():
                    return self._send(
                        404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": hub.commit(id)}
                    )
                data = path.read_bytes()
                tag = f'"{hashlib.sha1(data).hexdigest()}"'
                headers = {
                    "ETag": tag,
                    "X-Repo-Commit": hub.commit(id),
                    "Accept-Ranges": "bytes",
                    "Last-Modified": formatdate(),
                }
                part = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
                if not part:
                    return self._send(200, data, headers)
                first, last = int(part[1]), min(int(part[2] or len(data)), len(data) - 1)
                if first >= len(data):
                    return self._send(416, b"", headers)
                headers["Content-Range"] = f"bytes {first}-{last}/{len(data)}"
                return self._send(206, data[first : last + 1], headers)

            def _json(self, answer: object, headers: dict[str, str] | None = None) -> None:
                self._send(
                    200, json.dumps(answer).encode(), {"Content-Type": "application/json", **(headers or {})}
                )

            def _send(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
                if self.wrong == "short":
                    body = body[: len(body) // 2]
                self.send_response(status)
                for key, value in {**(headers or {}), "Content-Length": str(len(body))}.items():
                    self.send_header(key, value)
                self.end_headers()
                if self.command == "HEAD":
                    return
                if self.wrong == "reset":
                    self.wfile.write(body[: len(body) // 2])
                    self.wfile.flush()
                    # RST, not FIN
                    self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    self.connection.close()
                    self.close_connection = True
                    return
                self.wfile.write(body)

        return Handler
