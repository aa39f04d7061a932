"""Writes the example graphs: NAME.json for the browser and api/NAME.api.json for the queue, from one description each.

    python workflows/build.py http://127.0.0.1:8188

A running ComfyUI with Strata in it tells the inputs and outputs of every node. `Graph` knows the frontend's file format
(1.49); what stands below it is the graphs themselves.
"""

from __future__ import annotations

import json
import sys
import urllib.request
from pathlib import Path

HERE = Path(__file__).parent
WIDGETS = ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO", "COMFY_DYNAMICCOMBO_V3")
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

    def add(self, kind: str, *, title: str = "", wide: int = 300, room: int = 0, colour: str = "", models=(), **values):
        """A node of class `kind`, `wide` pixels, with `room` pixels below its widgets for a picture or text.

        `values` are its inputs by name (a dot written as two underscores): links or constants. Returns its handle."""
        values = {name.replace("__", "."): value for name, value in values.items()}
        info = self.info[kind]
        slots, shown = self._inputs(info, values)
        sockets = sum("widget" not in slot for slot in slots)
        height = 20 * max(sockets, len(info["output"])) + 24 * len(shown) + (14 if shown else 6)
        node = self._place(kind, wide, height + room)
        if colour:
            node["color"], node["bgcolor"] = colour, colour
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
                for name, (of, *rest) in inputs.get("optional" if optional else "required", {}).items():
                    options = rest[0] if rest else {}
                    slot = {"name": prefix + name, "type": "COMBO" if isinstance(of, list) else of, "link": None}
                    if prefix:
                        slot["label"] = name
                    if optional:
                        slot["shape"] = 7
                    if slot["type"] not in WIDGETS:
                        into.append(slot)
                        continue
                    slot["widget"] = {"name": prefix + name}
                    widgets.append(slot)
                    value = values.get(prefix + name, _default(of, options))
                    shown.append((prefix + name, _default(of, options) if isinstance(value, tuple) else value))
                    if options.get("control_after_generate"):
                        shown.append(("control_after_generate", "fixed"))
                    if options.get("video_upload"):
                        widgets.append({"name": "upload", "type": "IMAGEUPLOAD", "widget": {"name": "upload"},
                                        "link": None})
                        shown.append(("upload", "image"))
                    if of == "COMFY_DYNAMICCOMBO_V3":
                        chosen = next(option for option in options["options"] if option["key"] == value)
                        walk(chosen["inputs"], f"{prefix}{name}.", inner)

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


# What the graphs share -----------------------------------------------------------------------------------------------

REPOSITORY = "https://huggingface.co/Comfy-Org/Wan_2.1_ComfyUI_repackaged/resolve/main/split_files"
BACKBONE, TEXT, VAE = (
    {"name": name, "url": f"{REPOSITORY}/{folder}/{name}", "directory": folder} for folder, name in (
        ("diffusion_models", "wan2.1_t2v_14B_fp8_scaled.safetensors"),
        ("text_encoders", "umt5_xxl_fp8_e4m3fn_scaled.safetensors"),
        ("vae", "wan_2.1_vae.safetensors")))
NEGATIVE = (
    "色调艳丽，过曝，静态，细节模糊不清，字幕，风格，作品，画作，画面，静止，整体发灰，最差质量，低质量，JPEG压缩残留，丑陋的，残缺的，多余的手指，"
    "画得不好的手部，画得不好的脸部，畸形的，毁容的，形态畸形的肢体，手指融合，静止不动的画面，杂乱的背景，三条腿，背景人很多，倒着走")
SIZES = ("The published models were trained on 21 frames, and their authors run them at {size} with 50 steps; other "
         "sizes, lengths and fewer steps are taken too, further from what they know.")
INTRINSIC_SIZE, ALPHA_SIZE = SIZES.format(size="640x480"), SIZES.format(size="768x432")
PROMPT_COLOUR, NEGATIVE_COLOUR = "#232", "#322"


class Models:
    """The first group of every graph: what it is about, and the files."""

    def __init__(self, g: Graph, family: str, about: str):
        g.group("1. Read me, and the models")
        g.note(f"{about}\n\n**Models**, and where they lie (Strata's README says where to get each)\n"
               f"- models/diffusion_models/ {BACKBONE['name']}\n- models/text_encoders/ {TEXT['name']}\n"
               f"- models/vae/ {VAE['name']}\n- models/loras/ univid_{family}.safetensors, the layer adapters\n\n"
               "**Clips**: copy workflows/assets of this pack into ComfyUI's input folder, or choose your own.",
               wide=380, height=490)
        g.column()
        backbone = g.add("UNETLoader", title="Wan 2.1 text-to-video", wide=380, models=[BACKBONE],
                         unet_name=BACKBONE["name"], weight_dtype="default")
        self.model = g.add("StrataLoadLayers", title="Strata Load Layers: teach it the layers", wide=380, room=70,
                           model=backbone["MODEL"], adapters=f"univid_{family}.safetensors")["MODEL"]
        self.clip = g.add("CLIPLoader", title="Text encoder", wide=380, models=[TEXT], clip_name=TEXT["name"],
                          type="wan", device="default")["CLIP"]
        self.vae = g.add("VAELoader", title="Wan 2.1 VAE", wide=380, models=[VAE], vae_name=VAE["name"])["VAE"]


def read_clip(g: Graph, file: str, title: str) -> Handle:
    """A clip's frames and rate: outputs "images" and "fps"."""
    video = g.add("LoadVideo", title=title, room=220, file=file)
    return g.add("GetVideoComponents", title="Its frames", video=video["VIDEO"])


def prompt(g: Graph, m: Models, text: str, title: str = "What the shot shows", negative: str | None = None) -> dict:
    """Text conditioning by the name of a sampler's input; with `negative`, what to steer away from too."""
    made = {"positive": g.add("CLIPTextEncode", title=title, wide=380, room=90, colour=PROMPT_COLOUR, clip=m.clip,
                              text=text)["CONDITIONING"]}
    if negative is not None:
        made["negative"] = g.add("CLIPTextEncode", title="What it must not look like", wide=380, room=110,
                                 colour=NEGATIVE_COLOUR, clip=m.clip, text=negative)["CONDITIONING"]
    return made


def no_prompt(g: Graph, m: Models) -> dict:
    """The empty prompt that most tasks were trained with."""
    return prompt(g, m, "", "Leave this empty")


def layers(g: Graph, m: Models, family: str, title: str = "what is given", **given) -> Handle:
    """A Condition Mask and, beside it, the name of the task it found."""
    made = g.add("StrataConditionMask", title=f"Strata Condition Mask: {title}", wide=400, room=90, vae=m.vae,
                 family=family, **{f"family__{name}": source for name, source in given.items()})
    g.add("PreviewAny", title="The task", wide=400, room=110, source=made["task"])
    return made


def decode(g: Graph, m: Models, latent: tuple[int, int]) -> Handle:
    """The layers as pictures; only the outputs that are wired cost time."""
    return g.add("StrataDecodeLayers", title="Strata Decode Layers", wide=260, latent=latent, vae=m.vae)


def write_clips(g: Graph, folder: str, images: dict[str, tuple[int, int]], fps) -> None:
    """One video file per layer, with a player on its node, in columns right of what stands there."""
    g.column()
    videos = {name: g.add("CreateVideo", title=f"{name} as a clip", wide=240, images=frames, fps=fps, bit_depth=8)
              for name, frames in images.items()}
    for index, (name, video) in enumerate(videos.items()):
        if index % 2 == 0:
            g.column()
        g.add("SaveVideo", title=f"Save {name}", wide=340, room=230, video=video["VIDEO"],
              filename_prefix=f"strata/{folder}/{name}")


# The graphs ----------------------------------------------------------------------------------------------------------


def inverse_rendering(g: Graph) -> None:
    m = Models(g, "intrinsic", "## A shot into its layers (R2AIN)\n\nFrom your plate: **albedo**, the colour of things "
               "without light; **irradiance**, the light without colour; **normal**, the way every surface faces.\n\n"
               f"The plate itself is given, so it comes out untouched. No prompt is needed. {INTRINSIC_SIZE}")
    g.group("2. Your plate", "green")
    plate = read_clip(g, "room.mp4", "Your plate")
    g.group("3. Make the layers", "amber")
    asked = layers(g, m, "intrinsic", rgb=plate["images"])
    g.column()
    text = no_prompt(g, m)
    made = g.add("StrataJointSampler", title="Strata Joint Sampler: all layers together", wide=380, room=300,
                 model=m.model, latent=asked["LATENT"], seed=1, **text)
    g.group("4. Look at them and save them", "violet")
    shown = decode(g, m, made["LATENT"])
    write_clips(g, "inverse_rendering", {name: shown[name] for name in ("albedo", "irradiance", "normal")},
                plate["fps"])


def text_to_intrinsic(g: Graph) -> None:
    m = Models(g, "intrinsic", "## A prompt into a shot with all its layers (t2RAIN)\n\nNothing is connected, so the "
               "picture, its albedo, its irradiance and its normals are all made, and they belong together.\n\nSize "
               f"and length stand on **Strata Condition Mask**. {INTRINSIC_SIZE}")
    g.group("2. What you want to see", "green")
    text = prompt(g, m, "A slow camera move through a sunlit room with a wooden table, a green chair and a red vase of "
                  "flowers by the window, soft shadows on the wall.", negative=NEGATIVE)
    g.group("3. Make the layers", "amber")
    asked = layers(g, m, "intrinsic", "nothing is given")
    g.column()
    made = g.add("StrataJointSampler", title="Strata Joint Sampler: all layers together", wide=380, room=300,
                 model=m.model, latent=asked["LATENT"], seed=7, **text)
    g.group("4. Look at them and save them", "violet")
    shown = decode(g, m, made["LATENT"])
    write_clips(g, "text_to_intrinsic", {name: shown[name] for name in ("rgb", "albedo", "irradiance", "normal")}, 15)


def relight_edited_irradiance_ain2r(g: Graph) -> None:
    m = Models(g, "intrinsic", "## Relight a shot by editing its light (R2AIN, then AIN2R)\n\n**First pass**: your "
               "plate into albedo, irradiance and normal.\n\n**Edit**: the irradiance is the light alone. Darken it, "
               "tint it, paint on it, with any image nodes; here it is dimmed and hardened.\n\n**Second pass**: "
               "albedo and normal as they were and the new light are given, and the picture is made anew. "
               f"{INTRINSIC_SIZE}")
    plate, text, first = first_pass(g, m)
    g.group("4. Edit the light", "green")
    shown = decode(g, m, first["LATENT"])
    dimmed = g.add("AdjustBrightness", title="Dim the light", images=shown["irradiance"], factor=0.7)
    edited = g.add("AdjustContrast", title="Harden it", images=dimmed["images"], factor=1.3)
    g.add("PreviewImage", title="The new light", room=240, images=edited["images"])
    g.group("5. Second pass: the picture", "amber")
    again = layers(g, m, "intrinsic", "the same shot in the new light", albedo=shown["albedo"],
                   irradiance=edited["images"], normal=shown["normal"])
    g.column()
    second = g.add("StrataJointSampler", title="Strata Joint Sampler: second pass", wide=380, room=300, model=m.model,
                   latent=again["LATENT"], seed=2, **text)
    g.group("6. Look at it and save it", "violet")
    relit = decode(g, m, second["LATENT"])
    write_clips(g, "relight_ain2r", {"light": edited["images"], "relit": relit["rgb"]}, plate["fps"])


def relight_edited_irradiance_in2ra(g: Graph) -> None:
    m = Models(g, "intrinsic", "## New light and new materials (R2AIN, then IN2RA)\n\nAs the other relighting graph, "
               "but the second pass is given the new light and the normals only: the prompt says what things are made "
               "of, and picture **and** albedo are made anew in the shape of your shot.\n\nThe normals go over as a "
               "latent, straight from the first pass: a layer may be connected as pictures or as a latent. "
               f"{INTRINSIC_SIZE}")
    plate, _, first = first_pass(g, m)
    g.group("4. Edit the light", "green")
    shown = decode(g, m, first["LATENT"])
    warm = g.add("EmptyImage", title="A warm colour", width=64, height=64, batch_size=1, color=0xFFC890)
    edited = g.add("ImageBlend", title="Tint the light", image1=shown["irradiance"], image2=warm["IMAGE"],
                   blend_factor=0.8, blend_mode="multiply")
    g.add("PreviewImage", title="The new light", room=240, images=edited["IMAGE"])
    g.group("5. Second pass: picture and albedo", "amber")
    again = layers(g, m, "intrinsic", "the same shapes in the new light", irradiance=edited["IMAGE"],
                   normal=first["LATENT"])
    g.column()
    text = prompt(g, m, "A person in a dark blue coat on wet marble steps at dusk, in the warm light of street lamps.",
                  negative=NEGATIVE)
    second = g.add("StrataJointSampler", title="Strata Joint Sampler: second pass", wide=380, room=300, model=m.model,
                   latent=again["LATENT"], seed=2, **text)
    g.group("6. Look at them and save them", "violet")
    relit = decode(g, m, second["LATENT"])
    write_clips(g, "relight_in2ra", {"relit": relit["rgb"], "albedo": relit["albedo"]}, plate["fps"])


def first_pass(g: Graph, m: Models) -> tuple[Handle, dict, Handle]:
    """The plate's frames, the empty prompt, and the sampler that makes the plate's layers."""
    g.group("2. Your plate", "green")
    plate = read_clip(g, "room.mp4", "Your plate")
    g.group("3. First pass: the layers", "amber")
    asked = layers(g, m, "intrinsic", rgb=plate["images"])
    g.column()
    text = no_prompt(g, m)
    first = g.add("StrataJointSampler", title="Strata Joint Sampler: first pass", wide=380, room=300, model=m.model,
                  latent=asked["LATENT"], seed=1, **text)
    return plate, text, first


def matting(g: Graph) -> None:
    m = Models(g, "alpha", "## Cut the foreground out (R2PFB)\n\nFrom your plate: **alpha**, what is foreground and "
               "how much; **fg**, the foreground with nothing behind it; **bg**, the scene as if it were not there.\n\n"
               "This graph uses ComfyUI's own **KSampler**; every sampler and scheduler works. With the empty prompt "
               f"leave its cfg at 1. {ALPHA_SIZE}")
    g.group("2. Your plate", "green")
    plate = read_clip(g, "person.mp4", "Your plate")
    g.group("3. Make the layers", "amber")
    asked = layers(g, m, "alpha", rgb=plate["images"])
    g.column()
    text = no_prompt(g, m)["positive"]
    made = g.add("KSampler", title="KSampler: all layers together", wide=380, room=260, model=m.model, positive=text,
                 negative=text, latent_image=asked["LATENT"], seed=1, steps=50, cfg=1.0, sampler_name="euler",
                 scheduler="simple", denoise=1.0)
    g.group("4. Look at them and save them", "violet")
    shown = decode(g, m, made["LATENT"])
    write_clips(g, "matting", {name: shown[name] for name in ("alpha", "fg", "bg")}, plate["fps"])


def replace_background_pb2rf(g: Graph) -> None:
    m = Models(g, "alpha", "## A new background, and a foreground that fits it (PB2RF)\n\nGiven: the **alpha** of your "
               "plate (the matting graph makes one) and a new background. The foreground is made anew in that shape, "
               "together with the finished composite. The prompt says who or what "
               f"it is.\n\nBoth clips need one size and one length. {ALPHA_SIZE}")
    g.group("2. Your clips", "green")
    alpha = read_clip(g, "person_alpha.mp4", "The alpha of your plate")
    background = read_clip(g, "new_background.mp4", "The new background")
    g.group("3. Make composite and foreground", "amber")
    asked = layers(g, m, "alpha", alpha=alpha["images"], bg=background["images"])
    g.column()
    text = prompt(g, m, "A young woman with long brown hair and glasses in a white blouse on a wide stone staircase.")
    made = g.add("StrataJointSampler", title="Strata Joint Sampler: both together", wide=380, room=300, model=m.model,
                 latent=asked["LATENT"], seed=3, **text)
    g.group("4. Look at them and save them", "violet")
    shown = decode(g, m, made["LATENT"])
    write_clips(g, "replace_background", {"composite": shown["rgb"], "fg": shown["fg"]}, alpha["fps"])


def replace_background_rpf2b(g: Graph) -> None:
    m = Models(g, "alpha", "## The clean background behind a foreground (RPF2B)\n\nGiven: your plate, its **alpha** "
               "and its **foreground** (the matting graph makes both, a keyer may do better). What the foreground "
               "hides is made up: a clean plate to put something else in front of.\n\nAll clips need one size and one "
               f"length. {ALPHA_SIZE}")
    g.group("2. Your clips", "green")
    plate = read_clip(g, "person.mp4", "Your plate")
    alpha = read_clip(g, "person_alpha.mp4", "Its alpha")
    g.column()
    foreground = read_clip(g, "person_fg.mp4", "Its foreground")
    g.group("3. Make the background", "amber")
    asked = layers(g, m, "alpha", rgb=plate["images"], alpha=alpha["images"], fg=foreground["images"])
    g.column()
    text = no_prompt(g, m)
    made = g.add("StrataJointSampler", title="Strata Joint Sampler: what was hidden", wide=380, room=300, model=m.model,
                 latent=asked["LATENT"], seed=4, **text)
    g.group("4. Look at it and save it", "violet")
    shown = decode(g, m, made["LATENT"])
    write_clips(g, "clean_plate", {"bg": shown["bg"]}, plate["fps"])


def text_to_rgba(g: Graph) -> None:
    m = Models(g, "alpha", "## A prompt into a foreground with alpha (t2RPFB)\n\nNothing is connected: the picture, "
               "its alpha, its foreground and its background are all made. The foreground is saved as pictures with "
               "transparency (PNG, straight alpha), one per frame.\n\nThis graph uses ComfyUI's "
               f"**SamplerCustomAdvanced** and its small helpers, for those who like to see every step. {ALPHA_SIZE}")
    g.group("2. What you want to see", "green")
    text = prompt(g, m, "A woman with a red umbrella walks along a rainy street at night, neon signs behind her.")
    g.group("3. Make the layers", "amber")
    asked = layers(g, m, "alpha", "nothing is given")
    g.column()
    noise = g.add("RandomNoise", title="Seed", noise_seed=5)
    guider = g.add("BasicGuider", title="Follow the prompt", model=m.model, conditioning=text["positive"])
    stepper = g.add("KSamplerSelect", title="How to step", sampler_name="euler")
    sigmas = g.add("BasicScheduler", title="How many steps", model=m.model, scheduler="simple", steps=50, denoise=1.0)
    g.column()
    made = g.add("SamplerCustomAdvanced", title="SamplerCustomAdvanced: all layers together", wide=360, room=300,
                 noise=noise["NOISE"], guider=guider["GUIDER"], sampler=stepper["SAMPLER"], sigmas=sigmas["SIGMAS"],
                 latent_image=asked["LATENT"])
    g.group("4. Look at them and save them", "violet")
    shown = decode(g, m, made["output"])
    # Join Image with Alpha takes a mask of what is transparent, the other way round than an alpha.
    clear = g.add("InvertMask", title="What is transparent", wide=240, mask=shown["alpha_mask"])
    cut = g.add("JoinImageWithAlpha", title="Foreground with alpha", wide=240, image=shown["fg"], alpha=clear["MASK"])
    g.column()
    g.add("SaveImage", title="Save RGBA pictures", wide=340, room=260, images=cut["IMAGE"],
          filename_prefix="strata/text_to_rgba/fg_rgba")
    composite = g.add("CreateVideo", title="rgb as a clip", wide=340, images=shown["rgb"], fps=15, bit_depth=8)
    g.add("SaveVideo", title="Save rgb", wide=340, room=230, video=composite["VIDEO"],
          filename_prefix="strata/text_to_rgba/rgb")


GRAPHS = (inverse_rendering, text_to_intrinsic, relight_edited_irradiance_ain2r, relight_edited_irradiance_in2ra,
          matting, replace_background_pb2rf, replace_background_rpf2b, text_to_rgba)


def build(object_info: dict) -> list[Graph]:
    """Every graph, from what a server says at /object_info."""
    graphs = []
    for describe in GRAPHS:
        graphs.append(Graph(describe.__name__, object_info))
        describe(graphs[-1])
    return graphs


if __name__ == "__main__":
    with urllib.request.urlopen(f"{sys.argv[1].rstrip('/')}/object_info") as answer:
        for graph in build(json.load(answer)):
            graph.save()
