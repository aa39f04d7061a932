"""The one place that touches ComfyUI's model internals: a stock Wan MODEL in, the same MODEL with joint layers out.

Written against ComfyUI 0.33. Imports ComfyUI, so nothing outside `nodes/` imports this package.
"""
