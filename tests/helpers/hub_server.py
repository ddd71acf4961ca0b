"""A stand-in for the Hugging Face hub, with the endpoints that an upload of small files needs."""

import base64
import json
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

TOKEN = "hf_test"


class Hub(ThreadingHTTPServer):
    """Repositories by name, each with its visibility and its files."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.private = {}
        self.files = {}

    @property
    def endpoint(self):
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers["Authorization"] != f"Bearer {TOKEN}":
            self.answer(401, {"error": "Invalid username or password."})
        elif self.path == "/api/repos/create":
            self.create(json.loads(body))
        elif self.path == "/api/validate-yaml":
            self.answer(200, {"errors": [], "warnings": []})
        elif self.path.endswith("/preupload/main"):
            paths = [file["path"] for file in json.loads(body)["files"]]
            mode = {"uploadMode": "regular", "shouldIgnore": False}
            self.answer(200, {"files": [{"path": path, **mode} for path in paths]})
        elif self.path.endswith("/commit/main"):
            self.commit("/".join(self.path.split("/")[3:5]), map(json.loads, body.splitlines()))
        else:
            self.answer(404, {"error": self.path})

    def create(self, asked):
        repo = f"{asked['organization']}/{asked['name']}"
        there = repo in self.server.private
        self.server.private.setdefault(repo, asked["visibility"] == "private")
        url = {"url": f"{self.server.endpoint}/{repo}"}
        self.answer(409 if there else 200, {"error": "You already created it", **url})

    def commit(self, repo, lines):
        for line in lines:
            if line["key"] == "file":
                content = base64.b64decode(line["value"]["content"])
                self.server.files.setdefault(repo, {})[line["value"]["path"]] = content
        commit = {"commitUrl": f"{self.server.endpoint}/{repo}/commit/0", "commitOid": "0" * 40}
        self.answer(200, commit)

    def answer(self, status, content):
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@contextmanager
def running_hub():
    """A hub at work on a port of this machine."""
    with Hub() as hub:
        Thread(target=hub.serve_forever, daemon=True).start()
        yield hub
        hub.shutdown()
