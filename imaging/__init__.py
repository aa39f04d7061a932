"""Pixels: what all share here, the rest in packages of one idea each. Knows nothing of ComfyUI or the network."""
