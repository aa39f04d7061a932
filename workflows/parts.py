"""What the example graphs share: model files, their first group, and the parts that every one is made of."""

from __future__ import annotations

from dataclasses import dataclass, field

from graph import Graph, Handle

WAN_21, WAN_22 = (f"https://huggingface.co/Comfy-Org/Wan_{repackaged}/resolve/main/split_files"
                  for repackaged in ("2.1_ComfyUI_repackaged", "2.2_ComfyUI_Repackaged"))


def model_file(folder: str, name: str, repository: str = "") -> dict:
    """A file in models/`folder`, as a node names it for ComfyUI's list of missing models; without an address where
    there is none to download it from as it is."""
    return {"name": name} | ({"url": f"{repository}/{folder}/{name}"} if repository else {}) | {"directory": folder}


TEXT = model_file("text_encoders", "umt5_xxl_fp8_e4m3fn_scaled.safetensors", WAN_21)
VAE_21, VAE_22 = (model_file("vae", "wan_2.1_vae.safetensors", WAN_21),
                  model_file("vae", "wan2.2_vae.safetensors", WAN_22))
WORDS = model_file("text_encoders", "strata_tiny_words.safetensors")
WAN_14B = model_file("diffusion_models", "wan2.1_t2v_14B_fp8_scaled.safetensors", WAN_21)


@dataclass(frozen=True)
class Files:
    """A family's files, where those come from that are not Wan's own, and the titles of the nodes that load them.
    `sentences`: its layers read sentences of their own, for which Load Layers needs the text encoder. `bundled`: they
    lie in this pack, where ComfyUI's loaders find them."""

    backbone: dict
    vae: dict
    layers: dict
    origin: str
    wan: str
    taught: str = "teach it the layers"
    sentences: bool = False
    text: dict = field(default_factory=lambda: TEXT)
    bundled: bool = False


def _adapters(family: str) -> Files:
    return Files(WAN_14B, VAE_21, model_file("loras", f"univid_{family}.safetensors"),
                 "univid_*: the layer adapters of UniVidX.", "Wan 2.1 text-to-video")


def _converted(family: str, checkpoint: str, vae: dict, wan: str, **titles) -> Files:
    origin = (f"{family}.*: both made by `strata convert` from {checkpoint} (docs/models.md in this pack). Its Wan was "
              "trained with the layers: the stock one does not serve.")
    return Files(model_file("diffusion_models", f"{family}.wan.safetensors"), vae,
                 model_file("loras", f"{family}.layers.safetensors"), origin, wan, **titles)


FILES = {
    "intrinsic": _adapters("intrinsic"),
    "alpha": _adapters("alpha"),
    "unity": _converted("unity", "[UnityVideo's checkpoint](https://huggingface.co/KlingTeam/UnityVideo)", VAE_22,
                        "Wan 2.2 5B, as UnityVideo trained it", sentences=True),
    "vigu": _converted("vigu", "[Uni-ViGU's checkpoint](https://huggingface.co/Fr0zencr4nE/Uni-ViGU)", VAE_21,
                       "Wan 2.1 1.3B, as Uni-ViGU trained it", taught="teach it words"),
    "tiny": Files(model_file("diffusion_models", "strata_tiny.wan.safetensors"),
                  model_file("vae", "strata_tiny_vae.safetensors"),
                  model_file("loras", "strata_tiny_intrinsic.safetensors"),
                  "All of them come with Strata, and the loaders list them.", "A Wan of toy size", text=WORDS,
                  bundled=True),
    "tiny_vigu": Files(model_file("diffusion_models", "strata_tiny_vigu.wan.safetensors"),
                       model_file("vae", "strata_tiny_vae.safetensors"),
                       model_file("loras", "strata_tiny_vigu.layers.safetensors"), "",
                       "The Wan that learned with words", taught="teach it words", text=WORDS, bundled=True),
}
SIZES = ("The published models were trained on 21 frames, and their authors run them at {size} with 50 steps; other "
         "sizes, lengths and fewer steps are taken too, further from what they know.")
INTRINSIC_SIZE, ALPHA_SIZE = SIZES.format(size="640x480"), SIZES.format(size="768x432")
NEGATIVE = (
    "色调艳丽，过曝，静态，细节模糊不清，字幕，风格，作品，画作，画面，静止，整体发灰，最差质量，低质量，JPEG压缩残留，丑陋的，残缺的，多余的手指，"
    "画得不好的手部，画得不好的脸部，畸形的，毁容的，形态畸形的肢体，手指融合，静止不动的画面，杂乱的背景，三条腿，背景人很多，倒着走")
PROMPT_COLOUR, NEGATIVE_COLOUR = "#232", "#322"


class Models:
    """The first group of every graph: what it is about, and the files.

    `families` have one VAE in common; those that ride on the same Wan file share one loaded model. `of` holds a MODEL
    by family, `model` the first. `more`: files that the graph loads elsewhere."""

    def __init__(self, g: Graph, families: str | tuple[str, ...], about: str, text: bool = True,
                 more: tuple[dict, ...] = (), height: int = 490):
        families = (families,) if isinstance(families, str) else families
        parts = {family: FILES[family] for family in families}
        first = parts[families[0]]
        files = [*(part.backbone for part in parts.values()), *([first.text] if text else []), first.vae,
                 *(part.layers for part in parts.values()), *more]
        names = dict.fromkeys(f"- models/{file['directory']}/ {file['name']}" for file in files)
        origins = dict.fromkeys(part.origin for part in parts.values() if part.origin)
        g.group("1. Read me, and the models")
        where = "and where they lie (Strata's README says where to get each)"
        if first.bundled:
            where, names = "bundled: nothing to download", [f"- {file['name']}" for file in files]
        clips = "**Clips**: copy workflows/assets of this pack into ComfyUI's input folder, or choose your own."
        g.note("\n\n".join([about, "\n".join([f"**Models**, {where}", *names]), *origins,
                            *([] if first.bundled else [clips])]), wide=380, height=height)
        g.column()
        wans: dict[str, tuple[int, int]] = {}
        for part in parts.values():
            name = part.backbone["name"]
            if name not in wans:
                wans[name] = g.add("UNETLoader", title=part.wan, wide=380, models=_listed(part.backbone),
                                   unet_name=name, weight_dtype="default")["MODEL"]
        if text and first.sentences:
            self._load_text_encoder(g, first)
        self.of = {family: self._load_layers(g, part, wans[part.backbone["name"]]) for family, part in parts.items()}
        self.model = self.of[families[0]]
        if text and not first.sentences:
            self._load_text_encoder(g, first)
        vae = "A VAE of toy size" if first.bundled else "Wan 2.2 VAE" if first.vae is VAE_22 else "Wan 2.1 VAE"
        self.vae = g.add("VAELoader", title=vae, wide=380,
                         models=_listed(first.vae), vae_name=first.vae["name"])["VAE"]

    def _load_text_encoder(self, g: Graph, part: Files) -> None:
        if part.text is WORDS:
            self.clip = g.add("StrataLoadWords", title="Strata Load Words: its text encoder", wide=380,
                              encoder=WORDS["name"])["CLIP"]
            return
        self.clip = g.add("CLIPLoader", title="Text encoder", wide=380, models=_listed(TEXT), clip_name=TEXT["name"],
                          type="wan", device="default")["CLIP"]

    def _load_layers(self, g: Graph, part: Files, wan: tuple[int, int]) -> tuple[int, int]:
        return g.add("StrataLoadLayers", title=f"Strata Load Layers: {part.taught}", wide=380, room=70, model=wan,
                     adapters=part.layers["name"], **({"clip": self.clip} if part.sentences else {}))["MODEL"]


def _listed(file: dict) -> list[dict]:
    """The file for ComfyUI's list of missing models, which wants an address."""
    return [file] if "url" in file else []


def read_clip(g: Graph, file: str, title: str, square: bool = False) -> Handle:
    """A clip's frames and rate: outputs "images" and "fps". A square picture needs a higher node."""
    video = g.add("LoadVideo", title=title, room=300 if square else 220, file=file)
    return g.add("GetVideoComponents", title="Its frames", video=video["VIDEO"])


def prompt(g: Graph, m: Models, text: str, title: str = "What the shot shows", negative: str | None = None) -> dict:
    """Text conditioning by the name of a sampler's input; with `negative`, what to steer away from too."""
    made = {"positive": g.add("CLIPTextEncode", title=title, wide=380, room=90, tint=PROMPT_COLOUR, clip=m.clip,
                              text=text)["CONDITIONING"]}
    if negative is not None:
        made["negative"] = g.add("CLIPTextEncode", title="What it must not look like", wide=380, room=110,
                                 tint=NEGATIVE_COLOUR, clip=m.clip, text=negative)["CONDITIONING"]
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


def sample(g: Graph, m: Models, title: str, asked: Handle, model: tuple[int, int] | None = None, **settings) -> Handle:
    """The sampler that makes what a Condition Mask asks for; `settings` are further inputs, such as the prompt's."""
    return g.add("StrataJointSampler", title=f"Strata Joint Sampler: {title}", wide=380, room=300,
                 model=model or m.model, latent=asked["LATENT"], **settings)


def decode(g: Graph, m: Models, latent: tuple[int, int]) -> Handle:
    """The layers as pictures; only the outputs that are wired cost time."""
    return g.add("StrataDecodeLayers", title="Strata Decode Layers", wide=260, latent=latent, vae=m.vae)


def view(g: Graph, fps, **shown) -> None:
    """A player of layers, by the names of its inputs."""
    g.add("StrataLayerViewer", title="Strata Layer Viewer: click on it; ? lists its keys", wide=520, room=460,
          frame_rate=fps, **shown)


def write_clips(g: Graph, folder: str, images: dict[str, tuple[int, int]], fps, square: bool = False) -> None:
    """One video file per layer, with a player on its node, in columns right of what stands there."""
    g.column()
    videos = {name: g.add("CreateVideo", title=f"{name} as a clip", wide=240, images=frames, fps=fps, bit_depth=8)
              for name, frames in images.items()}
    for index, (name, video) in enumerate(videos.items()):
        if index % 2 == 0:
            g.column()
        g.add("SaveVideo", title=f"Save {name}", wide=340, room=350 if square else 230, video=video["VIDEO"],
              filename_prefix=f"strata/{folder}/{name}")


def save_pictures(g: Graph, folder: str, name: str, images: tuple[int, int]) -> None:
    """Pictures without loss, one a frame, shown on the node."""
    g.add("SaveImage", title=f"Save {name}", wide=340, room=260, images=images,
          filename_prefix=f"strata/{folder}/{name}")


def write_text(g: Graph, folder: str, name: str, source: tuple[int, int], title: str, form: str = "txt") -> None:
    """Anything that can be written as text, shown on a node and as a file."""
    shown = g.add("PreviewAny", title=title, wide=400, room=190, source=source)
    g.add("SaveText", title=f"Save {name}", wide=400, room=90, text=shown["STRING"],
          filename_prefix=f"strata/{folder}/{name}", format=form)
