"""Layers to look at: sheets, wipes, and what the viewer on a node reads."""
