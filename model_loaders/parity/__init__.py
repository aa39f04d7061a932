"""Fixtures that the authors' code computed, replayed: a module for each published system."""
