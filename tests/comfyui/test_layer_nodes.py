"""The nodes into and out of the world layers, in graphs with ComfyUI's own depth, flow, mask and pose nodes.

What those would find without weights comes from the pack native_data, which knows the scene.
"""

from __future__ import annotations

import json
from urllib.parse import quote
from urllib.request import urlopen

import numpy as np
import pytest
import torch
from PIL import Image

from comfyui_strata.imaging.encodings.densepose import BODY
from comfyui_strata.imaging.encodings.densepose_forms import part_colours
from comfyui_strata.imaging.encodings.flow import colours_to_flow
from comfyui_strata.imaging.encodings.segmentation import palette
from comfyui_strata.tests.comfyui.conftest import ODD_NAME
from comfyui_strata.tests.comfyui.graphs import read_pictures
from comfyui_strata.tests.comfyui.live import ComfyError
from comfyui_strata.tests.comfyui.native_data.scene import (
    FAR,
    FRAMES,
    JOINTS,
    MOTION,
    NEAR,
    SIZE,
    box_masks,
    depth_ramp,
)

ROUNDING = 1.01 / 255  # of an 8-bit picture: SaveImage cuts
LAYERS = ("Depth", "Flow", "Segmentation", "Skeleton", "DensePose")
CLIP = {"class_type": "EmptyImage", "inputs": {"width": SIZE[1], "height": SIZE[0], "batch_size": FRAMES,
                                               "color": 0x808080}}


def node(kind: str, **inputs) -> dict:
    """A node of a prompt; a dot in an input's name is written as two underscores."""
    return {"class_type": kind, "inputs": {name.replace("__", "."): value for name, value in inputs.items()}}


class Graph:
    """A prompt that is run once: what it saved or showed, by node."""

    def __init__(self, comfy, **nodes):
        self.comfy, self.run = comfy, None
        self.prompt = nodes

    def saved(self, *links) -> list[torch.Tensor]:
        """The pictures of IMAGE outputs "node" or "node:1", [F, H, W, 3] in 0..1, as 8-bit files."""
        savers = {f"{link} saved": node("SaveImage", images=_link(link), filename_prefix="layer_nodes/picture")
                  for link in links}
        run = self.comfy.check(self.prompt | savers)
        files = [[self.comfy.fetch(file) for file in run.files(saver)] for saver in savers]
        return [torch.from_numpy(read_pictures(paths)[..., :3].astype(np.float32) / 255) for paths in files]

    def told(self, *links) -> list[str]:
        """The texts of outputs of any kind."""
        tellers = {f"{link} told": node("PreviewAny", source=_link(link)) for link in links}
        run = self.comfy.check(self.prompt | tellers)
        return [run.outputs[teller]["text"][0] for teller in tellers]

    def refusal(self, link: str) -> str:
        """The one sentence that running a node ends with."""
        with pytest.raises(ComfyError) as caught:
            self.comfy.check(self.prompt | {"end": node("PreviewAny", source=_link(link))})
        return str(caught.value)


def _link(name: str) -> list:
    key, _, number = name.partition(":")
    return [key, int(number or 0)]


def geometry() -> dict:
    """Nodes from the depth model to a DA3_GEOMETRY, by ComfyUI's own inference node."""
    return {
        "clip": CLIP,
        "model": node("TestDepthModel"),
        "geometry": node("DA3Inference", da3_model=["model", 0], image=["clip", 0], resolution=504,
                         resize_method="upper_bound_resize", mode="mono"),
    }


# help and sockets


def test_every_node_has_a_help_page_that_is_served(comfy):
    names = [name for name in comfy.object_info if name.startswith("Strata")]
    assert {f"Strata{way}{layer}" for way in ("Encode", "Decode") for layer in LAYERS} <= set(names)
    for name in names:
        with urlopen(f"{comfy.url}/extensions/{quote(ODD_NAME)}/docs/{name}.md", timeout=30) as answer:
            page = answer.read().decode()
        assert page.startswith(f"# {comfy.object_info[name]['display_name']}\n"), name
        # Every input and output that has a name of its own is spoken of, or the page is not about this node.
        if name.removeprefix("Strata").startswith(("Encode", "Decode")) and name != "StrataDecodeLayers":
            for output in comfy.object_info[name]["output_name"]:
                assert f"**{output}**" in page, f"{name}: {output}"


# depth


def test_depth_anything_goes_in_and_comes_back_in_metres(comfy):
    graph = Graph(
        comfy, **geometry(),
        encode=node("StrataEncodeDepth", depth=["geometry", 0], form="gray, inverse depth", near=0.0, far=0.0),
        decode=node("StrataDecodeDepth", depth_layer=["encode", 0], form="gray, linear depth", near=["encode", 1],
                    far=["encode", 2]),
    )
    near, far = map(float, graph.told("encode:1", "encode:2"))
    # The sky does not count: 2 % of the ramp lies beyond either end.
    assert abs(near - (NEAR + 0.02 * (FAR - NEAR))) < 0.1 and abs(far - (FAR - 0.02 * (FAR - NEAR))) < 0.1
    layer, gray = graph.saved("encode", "decode")
    depth = depth_ramp().clamp(near, far).unsqueeze(-1)
    expected = ((far - depth) / (far - near)).expand(FRAMES, -1, -1, 3).clone()
    expected[:, : SIZE[0] // 4] = 0  # sky is far
    assert gray.shape == expected.shape
    # The model's grid is scaled to the clip's, so the ramp moves by a pixel at most; edges of the sky are mixtures.
    rows = torch.ones(SIZE[0], dtype=torch.bool)
    rows[SIZE[0] // 4 - 2 : SIZE[0] // 4 + 2] = False
    assert (gray - expected)[:, rows].abs().max() < 2 * ROUNDING
    assert layer[0, 64, 0, 0] > 0.6 > layer[0, 64, 0, 2] and layer[0, 64, -1, 2] > 0.6 > layer[0, 64, -1, 0]


@pytest.mark.parametrize("normalization", ["min_max", "raw"])
def test_depth_anything_renders_are_read_in_their_form(comfy, normalization):
    """Gray in and gray out again; raw metres in, and the same gray out."""
    graph = Graph(
        comfy, **geometry(),
        render=node("DA3Render", da3_geometry=["geometry", 0], output="depth", output__normalization=normalization,
                    output__apply_sky_clip=False),
        gray=node("DA3Render", da3_geometry=["geometry", 0], output="depth", output__normalization="min_max",
                  output__apply_sky_clip=False),
        encode=node("StrataEncodeDepth", depth=["render", 0], near=NEAR, far=FAR,
                    form="metres" if normalization == "raw" else "gray, linear depth"),
        decode=node("StrataDecodeDepth", depth_layer=["encode", 0], form="gray, linear depth", near=NEAR, far=FAR),
    )
    gray, back = graph.saved("gray", "decode")
    assert gray.max() - gray.min() > 0.9
    assert (gray - back).abs().max() < 2 * ROUNDING


def test_moge_geometry_and_its_render(comfy):
    graph = Graph(
        comfy, geometry=node("TestMoGeGeometry"),
        render=node("MoGeRender", moge_geometry=["geometry", 0], output="depth"),
        encode=node("StrataEncodeDepth", depth=["render", 0], form="gray, inverse depth", near=0.0, far=0.0),
        decode=node("StrataDecodeDepth", depth_layer=["encode", 0], form="gray, inverse depth", near=0.0, far=0.0),
        own=node("StrataEncodeDepth", depth=["geometry", 0], form="metres", near=NEAR, far=FAR),
    )
    render, back, own = graph.saved("render", "decode", "own")
    assert render.max() - render.min() > 0.9
    assert (render - back).abs().max() < 2 * ROUNDING
    assert (own[:, : SIZE[0] // 4] - torch.tensor([94, 79, 162]) / 255).abs().max() < ROUNDING  # masked out is far


# flow


def test_flow_of_a_clip_by_a_flow_model(comfy):
    """The clip's size is no multiple of 8, which ComfyUI's wrapper of RAFT scales away and back."""
    clip = node("EmptyImage", width=SIZE[1] + 2, height=SIZE[0] + 2, batch_size=FRAMES, color=0x808080)
    graph = Graph(
        comfy, clip=clip, model=node("TestFlowModel"),
        encode=node("StrataEncodeFlow", source="a clip", source__images=["clip", 0], source__flow_model=["model", 0],
                    source__reach=0.0),
        decode=node("StrataDecodeFlow", flow_layer=["encode", 0], form="0.5 + 0.5 flow / reach", reach=["encode", 1]),
    )
    reach = torch.tensor(MOTION).norm().item()
    assert abs(float(graph.told("encode:1")[0]) - reach) < 1e-4
    layer, vectors = graph.saved("encode", "decode")
    assert layer.shape == (FRAMES, SIZE[0] + 2, SIZE[1] + 2, 3)  # a flow for the last frame too
    assert (colours_to_flow(layer, reach) - torch.tensor(MOTION)).abs().max() < 0.03 * reach
    assert (vectors - torch.tensor([0.5 + 0.5 * MOTION[0] / reach, 0.5 + 0.5 * MOTION[1] / reach, 0.5])).abs().max() < (
        2 * ROUNDING)


def test_flow_by_raft_itself(comfy):
    """Untrained, so its flow says nothing, but it is a flow of every frame."""
    graph = Graph(
        comfy, clip=CLIP, model=node("TestRaft"),
        encode=node("StrataEncodeFlow", source="a clip", source__images=["clip", 0], source__flow_model=["model", 0],
                    source__reach=0.0),
    )
    (layer,) = graph.saved("encode")
    assert layer.shape == (FRAMES, *SIZE, 3) and torch.equal(layer[-1], layer[-2])


def test_motion_vectors_go_in_and_come_back(comfy):
    reach = 8.0
    graph = Graph(
        comfy, vectors=node("TestMotionPixels"),
        encode=node("StrataEncodeFlow", source="pixels", source__flow=["vectors", 0], source__reach=reach),
        centred=node("StrataDecodeFlow", flow_layer=["encode", 0], form="0.5 + 0.5 flow / reach", reach=0.0),
        again=node("StrataEncodeFlow", source="0.5 + 0.5 flow / reach", source__flow=["centred", 0],
                   source__reach=reach),
        pixels=node("StrataDecodeFlow", flow_layer=["again", 0], form="pixels", reach=reach),
        last=node("StrataEncodeFlow", source="pixels", source__flow=["pixels", 0], source__reach=reach),
    )
    first, again, last = graph.saved("encode", "again", "last")
    assert (colours_to_flow(first, reach) - torch.tensor(MOTION)).abs().max() < 0.01 * reach
    assert (first - again).abs().max() < ROUNDING and (first - last).abs().max() < ROUNDING


# segmentation


def test_a_track_and_a_mask_become_colours_and_masks_again(comfy):
    graph = Graph(
        comfy, track=node("TestTrack"), still=node("SolidMask", value=1.0, width=SIZE[1], height=SIZE[0]),
        native=node("SAM3_TrackToMask", track_data=["track", 0], object_indices="0"),
        encode=node("StrataEncodeSegmentation", track=["track", 0], batches="frames of one object",
                    masks__mask0=["still", 0]),
        decode=node("StrataDecodeSegmentation", segmentation_layer=["encode", 0], id=1, objects=["encode", 1],
                    smallest=0.1),
        native_picture=node("MaskToImage", mask=["native", 0]), one=node("MaskToImage", mask=["decode", 0]),
        every=node("MaskToImage", mask=["decode", 1]),
    )
    layer, native, one, every = graph.saved("encode", "native_picture", "one", "every")
    boxes = box_masks()
    ids = torch.where(boxes[:, 0] > 0, 1, torch.where(boxes[:, 1] > 0, 2, 3))
    assert (layer - palette(4)[ids]).abs().max() < ROUNDING
    assert torch.equal(one, native)
    assert torch.equal(every[..., 0], torch.cat([(ids == number).float() for number in (1, 2, 3)]))
    told, count = graph.told("decode:2", "encode:1")
    assert count == "3"
    assert told.splitlines() == [f"{number}: {(ids == number).float().mean():.1%}" for number in (1, 2, 3)]


def test_masks_of_one_still_are_objects(comfy):
    """As SAM3 Detect gives individual masks; more masks come after them, by their number, however a prompt lists
    them."""
    every, half = (node("SolidMask", value=1.0, width=wide, height=SIZE[0]) for wide in (SIZE[1], SIZE[1] // 2))
    graph = Graph(
        comfy, masks=node("TestObjects"), all=every, half=half, none=node("SolidMask", value=0.0, width=SIZE[1],
                                                                         height=SIZE[0]),
        left=node("MaskComposite", destination=["none", 0], source=["half", 0], x=0, y=0, operation="add"),
        encode=node("StrataEncodeSegmentation", batches="objects of one frame", masks__mask2=["all", 0],
                    masks__mask1=["left", 0], masks__mask0=["masks", 0]),
    )
    (layer,) = graph.saved("encode")
    boxes = box_masks()[:1]
    rest = torch.where(torch.arange(SIZE[1]) < SIZE[1] // 2, 3, 4)
    ids = torch.where(boxes[:, 0] > 0, 1, torch.where(boxes[:, 1] > 0, 2, rest))
    assert (layer - palette(5)[ids]).abs().max() < ROUNDING


# skeleton


def test_keypoints_are_drawn_and_read_again_for_pose_nodes(comfy):
    graph = Graph(
        comfy, keypoints=node("TestKeypoints"), encode=node("StrataEncodeSkeleton", keypoints=["keypoints", 0],
                                                            confidence=0.3),
        decode=node("StrataDecodeSkeleton", skeleton_layer=["encode", 0]),
        drawn=node("SDPoseDrawKeypoints", keypoints=["decode", 0], draw_body=True, draw_hands=True, draw_face=True,
                   draw_feet=True, stick_width=4, face_point_size=3, score_threshold=0.3, draw_head=True),
    )
    before, after = (json.loads(text) for text in graph.told("keypoints", "decode"))
    for old, new in zip(before, after, strict=True):
        old, new = (torch.tensor(f["people"][0]["pose_keypoints_2d"]).view(18, 3) for f in (old, new))
        seen = old[:, 2] >= 0.3
        assert seen.sum() == 17 and torch.equal(new[:, 2] > 0, seen)  # the left wrist was not found
        # Dots of 1.5 pixels; eyes and nose overlap a little.
        assert (new - old)[seen, :2].norm(dim=-1).max() < 1.5
    assert (torch.tensor(before[0]["people"][0]["pose_keypoints_2d"][:2]) == JOINTS[0]).all()
    (drawing,) = graph.saved("drawn")
    assert drawing.shape == (FRAMES, *SIZE, 3) and drawing[0, 40, 96].max() > 0.5


# densepose


@pytest.mark.parametrize("name", ["viridis", "parula"])
def test_a_part_map_becomes_masks(comfy, name):
    parts = torch.arange(25).repeat_interleave(4).expand(20, -1)
    picture = (part_colours(name)[parts] * 255).round().byte().numpy()
    Image.fromarray(picture).save(comfy.base / "input" / f"{name}.png")
    graph = Graph(
        comfy, image=node("LoadImage", image=f"{name}.png"),
        encode=node("StrataEncodeDensePose", image=["image", 0], form=f"{name} part map"),
        decode=node("StrataDecodeDensePose", densepose_layer=["encode", 0], part="left hand"),
        mask=node("MaskToImage", mask=["decode", 0]), u=node("MaskToImage", mask=["decode", 1]),
    )
    mask, u = graph.saved("mask", "u")
    assert torch.equal(mask[0, ..., 0], (parts == BODY["left hand"][0]).float())
    assert (u[0, ..., 0] - 0.5 * (parts > 0)).abs().max() < ROUNDING


# what is refused


SMALL = node("SolidMask", value=1.0, width=16, height=16)
REFUSED = {
    "a constant depth": (
        {"clip": CLIP, "end_": node("StrataEncodeDepth", depth=["clip", 0], form="gray, inverse depth", near=0.0,
                                    far=0.0)}, "all over"),
    "a depth in colours": (
        geometry() | {
            "render": node("DA3Render", da3_geometry=["geometry", 0], output="depth_colored",
                           output__normalization="min_max", output__apply_sky_clip=False),
            "end_": node("StrataEncodeDepth", depth=["render", 0], form="gray, linear depth", near=0.0, far=0.0)},
        "picture in colours"),
    "raw metres called gray": (
        geometry() | {
            "render": node("DA3Render", da3_geometry=["geometry", 0], output="depth", output__normalization="raw",
                           output__apply_sky_clip=False),
            "end_": node("StrataEncodeDepth", depth=["render", 0], form="gray, inverse depth", near=0.0, far=0.0)},
        "if they are metres, say so"),
    "metres without a range": (
        {"clip": CLIP, "end_": node("StrataDecodeDepth", depth_layer=["clip", 0], form="metres", near=0.0, far=9.0)},
        "needs the range"),
    "one frame without motion": (
        {"clip": node("EmptyImage", width=160, height=128, batch_size=1, color=0), "model": node("TestFlowModel"),
         "end_": node("StrataEncodeFlow", source="a clip", source__images=["clip", 0],
                      source__flow_model=["model", 0], source__reach=0.0)}, "two or more"),
    "flow in units of no reach": (
        {"clip": CLIP, "end_": node("StrataEncodeFlow", source="0.5 + 0.5 flow / reach", source__flow=["clip", 0],
                                    source__reach=0.0)}, "needs its reach"),
    "no object": ({"end_": node("StrataEncodeSegmentation", batches="frames of one object")}, "no object to draw"),
    "masks of two sizes": (
        {"track": node("TestTrack"), "still": SMALL,
         "end_": node("StrataEncodeSegmentation", track=["track", 0], batches="frames of one object",
                      masks__mask0=["still", 0])}, "object 3 has 1 frames of 16x16"),
    "nobody": ({"poses": node("TestNobody"), "end_": node("StrataEncodeSkeleton", keypoints=["poses", 0],
                                                          confidence=0.3)}, "no joint with a confidence of 0.3"),
    "no part map": ({"clip": node("EmptyImage", width=16, height=16, batch_size=1, color=0xFF0000),
                     "end_": node("StrataEncodeDensePose", image=["clip", 0], form="viridis part map")},
                    "none of viridis's"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_used_is_refused_in_one_sentence(comfy, name):
    nodes, sentence = REFUSED[name]
    assert sentence in Graph(comfy, **nodes).refusal("end_")


def test_a_socket_takes_only_its_own_kind(comfy):
    graph = Graph(comfy, clip=CLIP, bad=node("StrataEncodeSkeleton", keypoints=["clip", 0], confidence=0.3))
    assert "return_type_mismatch" in graph.refusal("bad")
