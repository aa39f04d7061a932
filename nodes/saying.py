"""What a node says about its work, where an artist sees it."""

from __future__ import annotations

from collections.abc import Callable

from comfy.model_management import throw_exception_if_processing_interrupted
from comfy.utils import ProgressBar
from comfy_api.latest import io, ui
from server import PromptServer
from torch import Tensor


def say(node: type[io.ComfyNode], text: str) -> ui.PreviewText:
    """Show `text` on the node while it runs, and return it for the history and users of the API.

    The frontend shows a node's "ui" text only for its own Preview as Text; on all others it shows progress texts. The
    node must list `io.Hidden.unique_id`; called outside a graph, nothing is shown."""
    if node.hidden is not None and node.hidden.unique_id is not None:
        PromptServer.instance.send_progress_text(text, node.hidden.unique_id)
    return ui.PreviewText(text)


def steps(total: int) -> Callable[[], None]:
    """What to call after each of `total` steps: it moves the node's progress bar, and raises when the artist
    cancels."""
    bar = ProgressBar(total)

    def after_step() -> None:
        throw_exception_if_processing_interrupted()
        bar.update(1)

    return after_step


def steps_through(*clips: Tensor | None) -> Callable[[], None]:
    """`steps` of work on clips together, frame by frame: as many as the longest that is given has frames."""
    return steps(max((len(clip) for clip in clips if clip is not None), default=0))
