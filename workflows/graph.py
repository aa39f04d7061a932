"""Graphs in ComfyUI's two file formats, from one description: the browser's (frontend 1.49) and the queue's."""

from __future__ import annotations

import json
from pathlib import Path

HERE = Path(__file__).parent
WIDGETS = ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO", "COLOR", "COMFY_DYNAMICCOMBO_V3")
GROWING = "COMFY_AUTOGROW_V3"
GAP, TITLE, MARGIN, TOP = 40, 30, 20, 90  # pixels between columns, a node's title bar, a group's border and heading
COLOURS = {"blue": "#3f789e", "green": "#2f7d4f", "amber": "#8a6d2f", "violet": "#6a4f8f"}


class Graph:
    """A graph laid out as groups from left to right, in columns of nodes from top to bottom.

    `add` returns a handle; `handle["output name"]` is what another node's input takes."""

    def __init__(self, name: str, object_info: dict):
        self.name, self.info = name, object_info
        self.nodes, self.links, self.groups, self.api = [], [], [], {}
        self.x = self.y = self.left = self.bottom = self.width = 0

    def group(self, title: str, colour: str = "blue") -> None:
        """Begin a titled group right of the last one."""
        self._close_group()
        if self.groups:
            self.x += 2 * MARGIN + GAP
        self.left, self.bottom, self.y, self.width = self.x, 0, TOP, 0
        self.groups.append({"id": len(self.groups) + 1, "title": title, "color": COLOURS[colour], "font_size": 24,
                            "flags": {}})

    def column(self) -> None:
        """Begin a column right of the last one in the same group."""
        self.x, self.y, self.width = self.x + self.width + GAP, TOP, 0

    def note(self, text: str, wide: int, height: int) -> None:
        """A note to read; it computes nothing."""
        node = self._place("MarkdownNote", wide, height)
        node.update(inputs=[], outputs=[], title="Read me", properties={}, widgets_values=[text], color="#432",
                    bgcolor="#653")

    def add(self, kind: str, /, *, title: str = "", wide: int = 300, room: int = 0, tint: str = "", models=(),
            **values):
        """A node of class `kind`, `wide` pixels, with `room` pixels below its widgets for a picture or text, coloured
        `tint`.

        `values` are its inputs by name (a dot written as two underscores): links or constants. Returns its handle."""
        values = {name.replace("__", "."): value for name, value in values.items()}
        info = self.info[kind]
        slots, shown = self._inputs(info, values)
        sockets = sum("widget" not in slot for slot in slots)
        height = 20 * max(sockets, len(info["output"])) + 24 * len(shown) + (14 if shown else 6)
        node = self._place(kind, wide, height + room)
        if tint:
            node["color"], node["bgcolor"] = tint, tint
        node["inputs"] = [self._slot(node["id"], slot, index, values) for index, slot in enumerate(slots)]
        node["outputs"] = [{"name": name, "type": of, "links": []}
                           for name, of in zip(info["output_name"], info["output"])]
        node["properties"] = {"Node name for S&R": kind, **({"models": list(models)} if models else {})}
        if title:
            node["title"] = title
        node["widgets_values"] = [value for _, value in shown]
        inputs = {name: value for name, value in shown if name in {slot["name"] for slot in slots} - {"upload"}}
        inputs |= {name: [str(value[0]), value[1]] for name, value in values.items() if isinstance(value, tuple)}
        self.api[str(node["id"])] = {"inputs": inputs, "class_type": kind,
                                     "_meta": {"title": title or info["display_name"]}}
        return Handle(node["id"], info)

    def save(self) -> None:
        """Write both files beside this script."""
        for path, content in zip(paths(self.name), (self.ui(), self.api)):
            path.parent.mkdir(exist_ok=True)
            path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", "utf-8")

    def ui(self) -> dict:
        """The browser's form."""
        self._close_group()
        return {"id": self.name, "revision": 0, "last_node_id": len(self.nodes), "last_link_id": len(self.links),
                "nodes": self.nodes, "links": self.links, "groups": self.groups, "config": {},
                "extra": {"ds": {"scale": 0.6, "offset": [60, 60]}, "frontendVersion": "1.49.6"}, "version": 0.4}

    def _place(self, kind: str, width: int, height: int) -> dict:
        node = {"id": len(self.nodes) + 1, "type": kind, "pos": [self.x, self.y], "size": [width, height], "flags": {},
                "order": len(self.nodes), "mode": 0}
        self.nodes.append(node)
        self.y += height + TITLE + 20
        self.bottom, self.width = max(self.bottom, self.y - TITLE - 20), max(self.width, width)
        return node

    def _close_group(self) -> None:
        if self.groups and "bounding" not in self.groups[-1]:
            self.x += self.width
            self.groups[-1]["bounding"] = [self.left - MARGIN, 0, self.x - self.left + 2 * MARGIN, self.bottom + MARGIN]

    def _inputs(self, info: dict, values: dict) -> tuple[list[dict], list[tuple]]:
        """The inputs, and (name, value) of every widget, both in the frontend's order."""
        sockets, inner, widgets, shown = [], [], [], []

        def walk(inputs: dict, prefix: str, into: list) -> None:
            for optional in (False, True):
                uploads = False
                for name, (of, *rest) in inputs.get("optional" if optional else "required", {}).items():
                    options = rest[0] if rest else {}
                    if of == GROWING:
                        into += _slots(f"{prefix}{name}", options["template"], values)
                        continue
                    slot = {"name": prefix + name, "type": "COMBO" if isinstance(of, list) else of, "link": None}
                    if prefix:
                        slot["label"] = name
                    if optional:
                        slot["shape"] = 7
                    if slot["type"] not in WIDGETS or options.get("forceInput"):
                        into.append(slot)
                        continue
                    slot["widget"] = {"name": prefix + name}
                    widgets.append(slot)
                    value = values.get(prefix + name, _default(of, options))
                    shown.append((prefix + name, _default(of, options) if isinstance(value, tuple) else value))
                    if options.get("control_after_generate"):
                        shown.append(("control_after_generate", "fixed"))
                    uploads |= options.get("video_upload", False)
                    if of == "COMFY_DYNAMICCOMBO_V3":
                        chosen = next(option for option in options["options"] if option["key"] == value)
                        walk(chosen["inputs"], f"{prefix}{name}.", inner)
                if uploads:  # the frontend's own, behind all the others
                    widgets.append({"name": "upload", "type": "IMAGEUPLOAD", "widget": {"name": "upload"},
                                    "link": None})
                    shown.append(("upload", "image"))

        walk(info["input"], "", sockets)
        if unknown := set(values) - {slot["name"] for slot in sockets + widgets + inner}:
            raise ValueError(f"{self.name}: {info['name']} has no input {', '.join(sorted(unknown))}")
        # The frontend puts the sockets of a chosen option behind the widgets.
        return sockets + widgets + inner, shown

    def _slot(self, node: int, slot: dict, index: int, values: dict) -> dict:
        source = values.get(slot["name"])
        if isinstance(source, tuple):
            slot["link"] = len(self.links) + 1
            output = self.nodes[source[0] - 1]["outputs"][source[1]]
            output["links"].append(slot["link"])
            self.links.append([slot["link"], source[0], source[1], node, index, output["type"]])
        return slot


class Handle:
    """A node that was added; indexing it by the name of an output gives the link to it."""

    def __init__(self, node: int, info: dict):
        self.node, self.names = node, info["output_name"]

    def __getitem__(self, output: str) -> tuple[int, int]:
        return self.node, self.names.index(output)


def _slots(name: str, template: dict, values: dict) -> list[dict]:
    """The sockets of an input that grows: those in use, and the next one, as the frontend shows them."""
    (of, *_), = [about for kind in template["input"].values() for about in kind.values()]
    count = sum(key.startswith(f"{name}.{template['prefix']}") for key in values)
    return [{"name": f"{name}.{template['prefix']}{i}", "label": f"{template['prefix']}{i}", "type": of, "link": None,
             "shape": 7} for i in range(count + 1)]


def _default(of, options: dict):
    if isinstance(of, list):
        return of[0]
    if of in ("COMBO", "COMFY_DYNAMICCOMBO_V3"):
        first = options["options"][0] if options.get("options") else ""
        return options.get("default", first["key"] if isinstance(first, dict) else first)
    return options.get("default", "" if of == "STRING" else 0)


def paths(name: str) -> tuple[Path, Path]:
    """Where a graph's two forms lie. The queue's form has a folder of its own, since ComfyUI's template browser would
    list every JSON file beside the browser's."""
    return HERE / f"{name}.json", HERE / "api" / f"{name}.api.json"
