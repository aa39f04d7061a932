"""What the Condition Mask in the browser asks while wires are connected: which task is that?"""

from __future__ import annotations

import torch
from aiohttp import web
from server import PromptServer

from ..comfy_host.choices import chosen_task
from ..joint.families import get_family

ROUTE = "/strata/task"
_SOME = torch.ones(1)  # a mask of which nothing is known yet: taken for one that has something white


def live_task(family: str, given: list[str], masked: list[str], generate: str | None) -> dict:
    """The task that Strata Condition Mask would find: its name, which layers are "given", which "made", which of these
    only in the white "parts" of a mask, and whether it "reads" a prompt; or, under "problem", the sentence with which
    the node would refuse."""
    try:
        chosen = get_family(family)
        task = chosen_task(chosen, generate, dict.fromkeys(given), dict.fromkeys(masked, _SOME))
    except ValueError as error:
        return {"problem": str(error)}
    return {"task": str(task), "given": list(task.conditions), "made": list(task.targets),
            "parts": [layer for layer in task.targets if layer in masked], "reads": task.uses_text}


def add_route() -> None:
    """Let the server answer at `ROUTE`; called once, before it starts."""

    @PromptServer.instance.routes.get(ROUTE)
    async def answer(request: web.Request) -> web.Response:
        query = request.rel_url.query
        return web.json_response(live_task(query.get("family", ""), query.getall("given", []),
                                           query.getall("mask", []), query.get("generate")))
