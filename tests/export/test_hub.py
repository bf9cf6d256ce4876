"""Uploading, against a hub on loopback that keeps what it is sent."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

TOKEN = "hf_" + "x" * 34


class Hub(BaseHTTPRequestHandler):
    """As much of the hub as a commit of small files needs."""

    def do_GET(self):
        self._say({"sha": "0" * 40, "siblings": [], "id": "me/model"})

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        seen = self.server.seen
        seen.append((self.path, self.headers.get("Authorization"), body))
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self._say({"error": "Invalid user token."}, 401)
        elif self.path.endswith("/create"):
            self._say({"url": f"{self.server.address}/me/model", "name": "me/model"})
        elif "/preupload/" in self.path:
            files = [
                {"path": f["path"], "uploadMode": "regular", "shouldIgnore": False}
                for f in json.loads(body)["files"]
            ]
            self._say({"files": files})
        elif "/commit/" in self.path:
            for line in body.decode().splitlines():
                row = json.loads(line)
                if row["key"] == "file":
                    content = base64.b64decode(row["value"]["content"])
                    self.server.files[row["value"]["path"]] = content
            url = f"{self.server.address}/me/model/commit/{'1' * 40}"
            self._say({"commitUrl": url, "commitOid": "1" * 40, "success": True})
        else:
            self._say({})

    def _say(self, what, status=200):
        data = json.dumps(what).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


@pytest.fixture
def hub():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.seen, server.files = [], {}
    server.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    thread.join()


def push(hub, gptj, out, token, tmp_path, *more):
    environment = {
        **os.environ,
        "HF_ENDPOINT": hub.address,
        "HF_TOKEN": token,
        "HF_HOME": str(tmp_path / "hf"),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_OFFLINE": "0",
    }
    words = ["export", str(gptj.folder), "--out", str(out), "--trial", "0", "--format", "recipe"]
    return subprocess.run(
        [sys.executable, "-m", "cluster.cli", *words, *more, "--push", "me/model"],
        capture_output=True, text=True, env=environment, timeout=200,
    )  # fmt: skip


def test_push_sends_every_file_once_verified_and_names_no_token(hub, gptj, tmp_path):
    out = tmp_path / "recipe"
    done = push(hub, gptj, out, TOKEN, tmp_path)
    assert done.returncode == 0, done.stderr
    assert "uploaded: " in done.stdout and "me/model" in done.stdout
    assert hub.files == {p.name: p.read_bytes() for p in out.iterdir()}
    assert {"README.md", "recipe.json", "verification.json", "interventions.json"} == set(hub.files)
    created = next(json.loads(body) for path, _, body in hub.seen if path.endswith("/create"))
    assert created["name"] == "model" and created.get("private", created.get("visibility"))
    assert TOKEN not in done.stdout + done.stderr
    assert not any(TOKEN.encode() in data for data in hub.files.values())


def test_a_refusal_is_one_sentence(hub, gptj, tmp_path):
    done = push(hub, gptj, tmp_path / "recipe", "hf_wrong", tmp_path, "--no-verify")
    assert done.returncode == 2 and "the hub refused me/model (401)" in done.stderr
    assert "Traceback" not in done.stderr and "hf_wrong" not in done.stdout + done.stderr
    assert (tmp_path / "recipe" / "recipe.json").exists()
