"""A real headless ComfyUI for the tests, and a small client of its API."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import websocket

BOOT_SECONDS, SILENT_SECONDS = 180, 120
ENDINGS = ("execution_success", "execution_error", "execution_interrupted")


class ComfyError(Exception):
    """What the server said when it refused a prompt or failed in it."""


@dataclass
class Run:
    """One executed prompt. `outputs[node]` is what that node showed or saved, `cached` the nodes that had nothing to do,
    `executed` those that had, `previews` the JPEGs that came meanwhile, `messages` the number of each kind of event."""

    prompt_id: str
    ending: str = ""
    error: dict | None = None
    outputs: dict = field(default_factory=dict)
    cached: list[str] = field(default_factory=list)
    executed: list[str] = field(default_factory=list)
    previews: list[bytes] = field(default_factory=list)
    messages: Counter = field(default_factory=Counter)
    seconds: float = 0.0

    @property
    def said(self) -> str:
        """All text that nodes showed, joined."""
        return "\n".join(str(line) for shown in self.outputs.values() for line in shown.get("text", ()))

    def files(self, node: str) -> list[dict]:
        """What a node saved or previewed: dicts of filename, subfolder and type."""
        shown = self.outputs.get(node, {})
        return [file for kind in ("images", "video", "gifs") for file in shown.get(kind, ())]


class Comfy:
    """A ComfyUI process and its API. `base` holds its models, input, output and custom_nodes; `log` what it printed."""

    def __init__(self, comfyui: Path, python: Path, base: Path):
        self.base, self.log = base, base / "comfyui.log"
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        command = [python, comfyui / "main.py", "--cpu", "--port", self.port, "--base-directory", base,
                   "--preview-method", "latent2rgb", "--disable-api-nodes", "--disable-auto-launch",
                   "--database-url", "sqlite:///:memory:"]
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen([str(part) for part in command], cwd=comfyui, stdout=log,
                                            stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
                                            env={**os.environ, "PYTHONUNBUFFERED": "1"})

    def wait_until_ready(self) -> None:
        """Return once the API answers. Raises ComfyError with the log's end when the process dies or never answers."""
        deadline = time.monotonic() + BOOT_SECONDS
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                self.get("/system_stats")
                return
            except OSError:
                time.sleep(0.3)
        raise ComfyError(f"ComfyUI did not start ({self.process.poll()}); its log ends:\n{self.log_text()[-4000:]}")

    def stop(self) -> None:
        """End the process and what it started."""
        children = psutil.Process(self.process.pid).children(recursive=True) if self.process.poll() is None else []
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        for child in children:
            if child.is_running():
                child.kill()

    def log_text(self) -> str:
        """Everything the process printed so far."""
        return self.log.read_text("utf-8", errors="replace")

    def memory(self) -> int:
        """Resident bytes of the process."""
        return psutil.Process(self.process.pid).memory_info().rss

    def get(self, path: str):
        """The JSON that GET `path` answers."""
        with urllib.request.urlopen(self.url + path, timeout=30) as answer:
            return json.load(answer)

    def post(self, path: str, body: dict):
        """The JSON that POST `path` answers, None for an empty one. Raises ComfyError with the text of a refusal."""
        request = urllib.request.Request(self.url + path, json.dumps(body).encode(),
                                         {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                text = answer.read()
        except urllib.error.HTTPError as refusal:
            raise ComfyError(f"{path}: {refusal.code} {refusal.read().decode()}") from None
        return json.loads(text) if text else None

    def fetch(self, file: dict) -> Path:
        """The path on disk of a file that a node reported."""
        return self.base / file["type"] / file["subfolder"] / file["filename"]

    def run(self, prompt: dict, on_event=None) -> Run:
        """Execute a prompt to its end and report. `on_event(kind, data)` is called with every message about it.

        Raises ComfyError when the server refuses the prompt or any of its nodes; an error inside a node is `run.error`.
        """
        client = uuid.uuid4().hex
        events = websocket.create_connection(f"ws://127.0.0.1:{self.port}/ws?clientId={client}", timeout=SILENT_SECONDS)
        try:
            begun = time.monotonic()
            answer = self.post("/prompt", {"prompt": prompt, "client_id": client})
            if answer["node_errors"]:
                raise ComfyError(f"refused nodes: {json.dumps(answer['node_errors'], indent=1)}")
            run = Run(answer["prompt_id"])
            while not run.ending:
                self._take(run, events.recv(), on_event)
            run.seconds = time.monotonic() - begun
        finally:
            events.close()
        history = self._history(run.prompt_id)
        run.outputs = history["outputs"]
        return run

    def check(self, prompt: dict, on_event=None) -> Run:
        """`run`, with an error inside a node raised as ComfyError too."""
        run = self.run(prompt, on_event)
        if run.ending != "execution_success":
            raise ComfyError(f"{run.ending}: {describe(run.error)}")
        return run

    def _take(self, run: Run, message, on_event) -> None:
        if isinstance(message, bytes):
            if int.from_bytes(message[:4], "big") == 1:  # a preview: event, picture format, picture
                run.previews.append(message[8:])
                run.messages["preview"] += 1
            return
        event = json.loads(message)
        kind, data = event["type"], event["data"]
        if data.get("prompt_id") != run.prompt_id:
            return
        run.messages[kind] += 1
        if kind == "execution_cached":
            run.cached = list(data["nodes"])
        elif kind == "executing" and data["node"] is not None:
            run.executed.append(data["node"])
        elif kind in ENDINGS:
            run.ending, run.error = kind, data if kind != "execution_success" else None
        if on_event is not None:
            on_event(kind, data)

    def _history(self, prompt_id: str) -> dict:
        # The entry is written a moment after the last message.
        for _ in range(100):
            if entry := self.get(f"/history/{prompt_id}").get(prompt_id):
                return entry
            time.sleep(0.05)
        raise ComfyError(f"prompt {prompt_id} ended but has no history")


def describe(error: dict | None) -> str:
    """An execution error in one paragraph: the node, the message, where."""
    if not error:
        return ""
    trace = "".join(error.get("traceback", ())[-3:])
    return f"{error.get('node_type')}: {error.get('exception_type')}: {error.get('exception_message')}\n{trace}"
