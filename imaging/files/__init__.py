"""Clips and layers on disk: videos, stills and OpenEXR files, their versions, rates and timecode."""
