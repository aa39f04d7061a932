"""Writes the example graphs: NAME.json for the browser and api/NAME.api.json for the queue, from one description each.

    python workflows/build.py http://127.0.0.1:8188

A running ComfyUI with Strata in it tells the inputs and outputs of every node.
"""

from __future__ import annotations

import json
import sys
import urllib.request

import bundled
import desk
import unityvideo
import unividx
import univigu
from graph import Graph

GRAPHS = bundled.GRAPHS | desk.GRAPHS | unividx.GRAPHS | unityvideo.GRAPHS | univigu.GRAPHS


def build(object_info: dict) -> list[Graph]:
    """Every graph, from what a server says at /object_info."""
    graphs = []
    for name, describe in GRAPHS.items():
        graphs.append(Graph(name, object_info))
        describe(graphs[-1])
    return graphs


if __name__ == "__main__":
    with urllib.request.urlopen(f"{sys.argv[1].rstrip('/')}/object_info") as answer:
        for graph in build(json.load(answer)):
            graph.save()
