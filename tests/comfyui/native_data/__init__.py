"""A test-only node pack: what ComfyUI's detectors would find in a known scene, without their weights.

Models are modules that answer with the scene, in the patchers that ComfyUI's own nodes run; where a model is more than
one call, its answer goes through the native code that packs it.
"""


async def comfy_entrypoint():
    """Imported here, so that the tests can import the scene where there is no ComfyUI."""
    from .nodes import NativeData

    return NativeData()
