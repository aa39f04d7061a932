"""Layers over one another, and what is done to foregrounds and mattes before: scene-linear light."""
