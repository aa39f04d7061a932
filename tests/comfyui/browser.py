"""ComfyUI's page in a headless Chromium, and what the tests ask of it."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
# No sandbox: it needs rights that a container's root has not. The others keep it off a network that may not be there.
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync"]
SECONDS = 60_000  # milliseconds until a page has given up; a busy machine takes its time
APP = "window.comfyAPI.app.app"


def find_chromium() -> str | None:
    """The path of an installed Chromium, None where there is none."""
    return next(filter(None, map(shutil.which, CHROMIUM)), None)


class Page:
    """One page of a running ComfyUI. `errors` are what its console called an error, and what no one caught."""

    def __init__(self, page):
        self.page, self.errors = page, []
        page.set_default_timeout(SECONDS)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("console", self._heard)

    def _heard(self, line) -> None:
        # The page asks the net about nodes and models, which a server with --disable-api-nodes forbids it.
        if line.type == "error" and "Content Security Policy" not in line.text:
            self.errors.append(line.text)

    def open(self, url: str) -> None:
        """Load the page and wait until graphs can be loaded into it; it does not greet a new user with templates."""
        settings = {"Comfy.TutorialCompleted": True, "Comfy.Workflow.ShowMissingModelsWarning": False}
        self.page.request.post(f"{url}/settings", data=settings)
        self.page.goto(url)
        # Nodes of the server and nodes of the page alone, which come later.
        self.page.wait_for_function("() => window.comfyAPI?.app?.app?.graph && ['StrataLoadLayers', 'MarkdownNote']"
                                    ".every(name => window.LiteGraph?.registered_node_types[name])")

    def load(self, graph: dict) -> None:
        """Show a graph in the browser's form. Raises TimeoutError where the page does not take it."""
        nodes = [node["id"] for node in graph["nodes"]]
        deadline = time.monotonic() + SECONDS / 1000
        self.evaluate("() => app.graph.clear()")
        # The page loads a graph of its own when it starts, and nothing says when it has: that one may come later.
        while not self.evaluate("ids => app.graph._nodes.map(node => node.id).sort().join() === ids.sort().join()",
                                nodes):
            if time.monotonic() > deadline:
                raise TimeoutError("The page does not show the graph.")
            self.page.evaluate(f"graph => {APP}.loadGraphData(graph, true, true, null)", graph)
            self.page.wait_for_timeout(200)

    def evaluate(self, script: str, argument=None):
        """The value of a function in the page; `app` is ComfyUI's."""
        return self.page.evaluate(f"argument => {{ const app = {APP}; return ({script})(argument); }}", argument)

    def wait(self, script: str, argument=None) -> None:
        """Until a function in the page is true; `app` is ComfyUI's."""
        self.page.wait_for_function(f"argument => {{ const app = {APP}; return ({script})(argument); }}", arg=argument)

    def screenshot(self, path: Path) -> Path:
        """A PNG of what is seen."""
        self.page.screenshot(path=path)
        return path


@contextmanager
def chromium(path: str) -> Iterator:
    """A running browser."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        try:
            yield browser
        finally:
            browser.close()
