"""A real headless ComfyUI for the tests, and a small client of its API."""

from __future__ import annotations

import json
import os
import socket
import struct
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

BOOT_SECONDS, SILENT_SECONDS = 180, 120
ENDINGS = ("execution_success", "execution_error", "execution_interrupted")


class ComfyError(Exception):
    """What the server said when it refused a prompt or failed in it."""


@dataclass
class Run:
    """One executed prompt. `outputs[node]` is what a node showed or saved, `cached` the nodes that had nothing to do,
    `executed` those that had, `previews` the pictures that came meanwhile, `texts` what nodes showed as (node, text),
    `messages` the number of each kind of event."""

    prompt_id: str
    ending: str = ""
    error: dict | None = None
    outputs: dict = field(default_factory=dict)
    cached: list[str] = field(default_factory=list)
    executed: list[str] = field(default_factory=list)
    previews: list[bytes] = field(default_factory=list)
    texts: list[tuple[str, str]] = field(default_factory=list)
    messages: Counter = field(default_factory=Counter)
    seconds: float = 0.0

    def files(self, node: str) -> list[dict]:
        """What a node saved or previewed: dicts of filename, subfolder and type."""
        return [file for kind in self.outputs.get(node, {}).values() for file in kind if isinstance(file, dict)]


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
        # One thread: tiny tensors gain nothing from more, and threads that wait for each other crawl on a busy machine.
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen([str(part) for part in command], cwd=comfyui, stdout=log,
                                            stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
                                            env={**os.environ, "PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1"})

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
        import psutil

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
        import psutil

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

    @cached_property
    def object_info(self) -> dict:
        """Inputs and outputs of every node class."""
        return self.get("/object_info")

    def fetch(self, file: dict) -> Path:
        """The path on disk of a file that a node reported."""
        return self.base / file["type"] / file["subfolder"] / file["filename"]

    def run(self, prompt: dict, on_event=None) -> Run:
        """Execute a prompt to its end and report. `on_event(kind, data)` is called with every message about it.

        Raises ComfyError when the server refuses the prompt or any of its nodes; an error inside a node is `run.error`.
        """
        import websocket

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
        run.outputs = self.outputs(run.prompt_id)
        return run

    def queue(self, prompt: dict) -> str:
        """Put a prompt in the queue and return its id at once."""
        return self.post("/prompt", {"prompt": prompt})["prompt_id"]

    def check(self, prompt: dict, on_event=None) -> Run:
        """`run`, with an error inside a node raised as ComfyError too."""
        run = self.run(prompt, on_event)
        if run.ending != "execution_success":
            raise ComfyError(f"{run.ending}: {describe(run.error)}")
        return run

    def outputs(self, prompt_id: str) -> dict:
        """What every node of a prompt showed or saved, once it has ended."""
        deadline = time.monotonic() + SILENT_SECONDS
        while time.monotonic() < deadline:
            if entry := self.get(f"/history/{prompt_id}").get(prompt_id):
                return entry["outputs"]
            time.sleep(0.05)
        raise ComfyError(f"prompt {prompt_id} did not end in {SILENT_SECONDS} seconds")

    def _take(self, run: Run, message, on_event) -> None:
        if isinstance(message, bytes):
            event, length = struct.unpack(">II", message[:8])
            if event == 1:  # a preview: event, picture format, picture
                run.previews.append(message[8:])
            elif event == 3:  # a text: event, length of the node's id, id, text
                run.texts.append((message[8:8 + length].decode(), message[8 + length:].decode()))
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



def describe(error: dict | None) -> str:
    """An execution error in one paragraph: the node, the message, where."""
    if not error:
        return ""
    trace = "".join(error.get("traceback", ())[-3:])
    return f"{error.get('node_type')}: {error.get('exception_type')}: {error.get('exception_message')}\n{trace}"
