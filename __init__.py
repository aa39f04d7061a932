"""Strata: split a shot into its layers and join them again, inside ComfyUI and from the command line.

ComfyUI imports this file as a custom node pack and asks it for `comfy_entrypoint`; everywhere else it is the package
`comfyui_strata`, importable with no ComfyUI about. Nothing heavy is imported until it is needed.
"""

WEB_DIRECTORY = "./web"


async def comfy_entrypoint():
    """Return the V3 extension that lists Strata's nodes (ComfyUI >= 0.33 calls this once, at start)."""
    from .nodes import StrataExtension

    return StrataExtension()
