"""The graphs of UnityVideo: a layer of a clip, and a clip from a layer."""

from __future__ import annotations

from functools import partial

from graph import Graph, Handle
from parts import (
    Models,
    decode,
    layers,
    model_file,
    prompt,
    read_clip,
    sample,
    save_pictures,
    write_clips,
    write_text,
)

DEPTH_ANYTHING = model_file("geometry_estimation", "depth_anything_3_mono_large.safetensors",
                            "https://huggingface.co/Comfy-Org/Depth-Anything-3/resolve/main")
RAFT = model_file("optical_flow", "raft_large_C_T_SKHT_V2-ff5fadd5.safetensors",
                  "https://huggingface.co/Comfy-Org/void-model/resolve/main")
SIZE = ("UnityVideo was trained on 33 frames of 256x256 and is run with 20 steps and cfg 1; other sizes and lengths "
        "are taken too, further from what it knows.")
STEPS = "A person in a dark red suit dances on wide stone steps between iron railings."
BAR = "A young woman with long brown hair and glasses in a white blouse in a bar with warm lamps and chandeliers."
NIGHT = "A woman in a yellow raincoat waves at the camera on a wet street at night, neon signs behind her."


def gray_depth(g: Graph, layer: tuple[int, int]) -> None:
    """Depth as ControlNets take it."""
    depth = g.add("StrataDecodeDepth", title="Decode Depth: white is near", wide=260, depth_layer=layer)
    g.column()
    save_pictures(g, "depth", "depth_gray", depth["depth"])


def motion(g: Graph, layer: tuple[int, int]) -> None:
    """Motion vectors as a picture."""
    vectors = g.add("StrataDecodeFlow", title="Decode Flow: x red, y green", wide=260, flow_layer=layer)
    g.column()
    save_pictures(g, "flow", "motion", vectors["flow"])


def pose(g: Graph, layer: tuple[int, int]) -> None:
    """Keypoints as pose nodes exchange them."""
    keypoints = g.add("StrataDecodeSkeleton", title="Decode Skeleton: keypoints", wide=260, skeleton_layer=layer)
    g.column()
    write_text(g, "skeleton", "pose", keypoints["keypoints"], "The pose, as JSON", "json")


def object_mask(g: Graph, layer: tuple[int, int]) -> None:
    """The mask of one object."""
    found = g.add("StrataDecodeSegmentation", title="Decode Segmentation", wide=260, room=90,
                  segmentation_layer=layer, id=1)
    _save_mask(g, "segmentation", "object_mask", found["mask"])


def body_part(g: Graph, layer: tuple[int, int]) -> None:
    """The mask of one part of the body."""
    found = g.add("StrataDecodeDensePose", title="Decode DensePose", wide=260, densepose_layer=layer,
                  part="head")
    _save_mask(g, "densepose", "part_mask", found["mask"])


def _save_mask(g: Graph, folder: str, name: str, mask: tuple[int, int]) -> None:
    picture = g.add("MaskToImage", title="The mask as a picture", wide=260, mask=mask)
    g.column()
    save_pictures(g, folder, name, picture["IMAGE"])


# By layer: the task's name, a clip, what it shows, what to know of the layer, and what to do with it.
LAYERS = {
    "depth": ("R2D", "room.mp4", STEPS, "Its colours run from red, near, to blue, far. **Decode Depth** makes the gray "
              "picture of them that depth ControlNets want. Metres would need a known distance: type near and far.",
              gray_depth),
    "flow": ("R2F", "room.mp4", STEPS, "Hue is the direction in which a pixel moves to the next frame, strength the "
             "speed. **Decode Flow** makes motion vectors, 0.5 + 0.5 flow / reach. How many pixels a frame full colour "
             "is, the **reach**, the picture does not say: where you know one speed, type it and choose pixels.",
             motion),
    "skeleton": ("R2K", "person.mp4", BAR, "The body's 18 joints, as OpenPose draws them. **Decode Skeleton** reads "
                 "the joints of one person as keypoints, for pose nodes and as a JSON file.", pose),
    "segmentation": ("R2S", "person.mp4", BAR, "A flat colour for every object. **Decode Segmentation** lists the "
                     "objects that it finds and gives the mask of the one you choose: type another id.", object_mask),
    "densepose": ("R2P", "person.mp4", BAR, "For every pixel of a person the part of the body, and the place on it. "
                  "**Decode DensePose** gives the mask of the part you choose, and both coordinates.", body_part),
}


def rgb_to_layer(g: Graph, layer: str) -> None:
    task, clip, words, about, read = LAYERS[layer]
    m = Models(g, "unity", f"## The {layer} of a shot ({task})\n\n{about}\n\nThe plate is given and comes out "
               f"untouched. The prompt helps, and may stay empty. {SIZE}")
    g.group("2. Your plate", "green")
    plate = read_clip(g, clip, "Your plate")
    g.group(f"3. Make the {layer}", "amber")
    asked = layers(g, m, "unity", rgb=plate["images"], generate=layer)
    g.column()
    text = prompt(g, m, words)
    made = sample(g, m, f"the {layer}", asked, seed=1, **text)
    g.group("4. Read it and save it", "violet")
    shown = decode(g, m, made["LATENT"])
    read(g, shown[layer])
    write_clips(g, layer, {layer: shown[layer]}, plate["fps"])


def from_layer(g: Graph, m: Models, layer: str, pictures: tuple[int, int], words: str, fps: tuple[int, int],
               square: bool = False) -> None:
    """The groups that make a video of a layer and a prompt."""
    g.group("3. Make the video", "amber")
    asked = layers(g, m, "unity", f"the {layer} is given", generate="rgb", **{layer: pictures})
    g.column()
    text = prompt(g, m, words)
    made = sample(g, m, "the video", asked, seed=1, **text)
    g.group("4. Look at it and save it", "violet")
    write_clips(g, f"from_{layer}", {"rgb": decode(g, m, made["LATENT"])["rgb"]}, fps, square)


def encode_depth(g: Graph, depth: tuple[int, int]) -> Handle:
    """The depth layer, and a look at it."""
    layer = g.add("StrataEncodeDepth", title="Strata Encode Depth", wide=340, room=70, depth=depth)
    g.add("PreviewImage", title="The layer: red is near", wide=340, room=240, images=layer["depth_layer"])
    return layer


def depth_to_video(g: Graph) -> None:
    m = Models(g, "unity", "## A video that follows a depth clip (D2R)\n\nGiven: a gray depth clip, white near, from a "
               "renderer or any depth node. **Encode Depth** gives it the layer's colours; for another kind of depth "
               f"choose its form there. The prompt says what is seen.\n\n{SIZE}")
    g.group("2. Your depth", "green")
    depth = read_clip(g, "wave_depth.mp4", "Your depth, white is near", square=True)
    g.column()
    layer = encode_depth(g, depth["images"])
    from_layer(g, m, "depth", layer["depth_layer"], NIGHT, depth["fps"], square=True)


def skeleton_to_video(g: Graph) -> None:
    m = Models(g, "unity", "## A video that follows a pose (K2R)\n\nGiven: a clip of a drawn OpenPose skeleton. "
               "**Decode Skeleton** reads the joints of one person, **Encode Skeleton** draws them in clean lines. "
               "Any node that gives keypoints may take the first one's place, such as *SDPose Keypoint Extractor*. "
               f"The prompt says who moves, and where.\n\n{SIZE}")
    g.group("2. Your pose", "green")
    drawn = read_clip(g, "wave_pose.mp4", "Your drawn pose", square=True)
    g.column()
    keypoints = g.add("StrataDecodeSkeleton", title="Decode Skeleton: read the joints", skeleton_layer=drawn["images"])
    layer = g.add("StrataEncodeSkeleton", title="Strata Encode Skeleton", keypoints=keypoints["keypoints"])
    g.add("PreviewImage", title="The layer", room=240, images=layer["skeleton_layer"])
    from_layer(g, m, "skeleton", layer["skeleton_layer"], NIGHT, drawn["fps"], square=True)


def depth_anything_to_video(g: Graph) -> None:
    m = Models(g, "unity", "## A new video in the depth of your shot (D2R)\n\nComfyUI's own **Depth Anything 3** finds "
               "the depth of your plate, **Encode Depth** makes the depth layer of it, with one range for the whole "
               "clip, and a new video is made in that depth. The prompt says what is seen.\n\n" + SIZE,
               more=(DEPTH_ANYTHING,))
    g.group("2. Your plate and its depth", "green")
    plate = read_clip(g, "room.mp4", "Your plate")
    g.column()
    model = g.add("LoadDA3Model", wide=340, models=[DEPTH_ANYTHING], model_name=DEPTH_ANYTHING["name"])
    found = g.add("DA3Inference", wide=340, da3_model=model["DA3_MODEL"], image=plate["images"])
    layer = encode_depth(g, found["da3_geometry"])
    from_layer(g, m, "depth", layer["depth_layer"], "An astronaut in a white suit climbs wide steps of ice under a "
               "green aurora.", plate["fps"])


def flow_to_video(g: Graph) -> None:
    m = Models(g, "unity", "## A new video that moves as your shot does (F2R)\n\nComfyUI's own **RAFT** finds the "
               "motion of your clip, **Encode Flow** draws it as the flow layer, hue for direction and strength for "
               "speed, and a new video is made that moves so. Motion vectors of a renderer do as well: choose their "
               f"form on Encode Flow. The prompt says what is seen.\n\n{SIZE}", more=(RAFT,))
    g.group("2. Your clip and its motion", "green")
    plate = read_clip(g, "room.mp4", "Your clip")
    square = g.add("ImageScale", title="The size the model knows", image=plate["images"], upscale_method="lanczos",
                   width=256, height=256, crop="center")
    g.column()
    model = g.add("OpticalFlowLoader", wide=340, models=[RAFT], model_name=RAFT["name"])
    layer = g.add("StrataEncodeFlow", title="Strata Encode Flow", wide=340, room=70, source="a clip",
                  source__images=square["IMAGE"], source__flow_model=model["OPTICAL_FLOW"])
    g.add("PreviewImage", title="The layer: the hue is the direction", wide=340, room=240, images=layer["flow_layer"])
    from_layer(g, m, "flow", layer["flow_layer"], "Paper boats drift on a stream between mossy stones.", plate["fps"],
               square=True)


def segmentation_to_video(g: Graph) -> None:
    m = Models(g, "unity", "## A new video with its objects where you want them (S2R)\n\nGiven: a mask for every "
               "object, here the matte of one person. **Encode Segmentation** gives each a colour of its own; a new "
               "slot comes with each mask, and a track of ComfyUI's *Run SAM3 Video Track* goes in as it is. The "
               f"prompt says what they are.\n\n{SIZE}")
    g.group("2. Your masks", "green")
    matte = read_clip(g, "person_alpha.mp4", "The matte of an object")
    g.column()
    mask = g.add("ImageToMask", title="As a mask", wide=340, image=matte["images"], channel="red")
    layer = g.add("StrataEncodeSegmentation", title="Strata Encode Segmentation", wide=340, room=70,
                  masks__mask0=mask["MASK"])
    g.add("PreviewImage", title="The layer: a colour for every object", wide=340, room=240,
          images=layer["segmentation_layer"])
    from_layer(g, m, "segmentation", layer["segmentation_layer"], "A knight in polished armour stands in a hall of "
               "candles.", matte["fps"])


def densepose_to_video(g: Graph) -> None:
    m = Models(g, "unity", "## A video that follows a body (P2R)\n\nGiven: a clip of body parts, as the DensePose "
               "preprocessor (comfyui_controlnet_aux) draws them, or DensePose's own picture. **Encode DensePose** "
               "makes the layer of it; say there which of them it is. The prompt says who moves, and where.\n\n" + SIZE)
    g.group("2. Your body parts", "green")
    drawn = read_clip(g, "wave_parts.mp4", "Your DensePose clip", square=True)
    g.column()
    layer = g.add("StrataEncodeDensePose", title="Strata Encode DensePose", wide=340, image=drawn["images"])
    g.add("PreviewImage", title="The layer", wide=340, room=240, images=layer["densepose_layer"])
    from_layer(g, m, "densepose", layer["densepose_layer"], NIGHT, drawn["fps"], square=True)


GRAPHS = {f"rgb_to_{layer}": partial(rgb_to_layer, layer=layer) for layer in LAYERS} | {
    describe.__name__: describe for describe in (
        depth_to_video, skeleton_to_video, depth_anything_to_video, flow_to_video, segmentation_to_video,
        densepose_to_video)}
