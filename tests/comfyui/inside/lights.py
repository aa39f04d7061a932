"""Lights, relighting, rebuilding, guided upsampling and normal maps as nodes: what an artist's graph gets."""

from __future__ import annotations

import torch
from comfy_execution.graph_utils import ExecutionBlocker

from ....imaging.colour import linear_to_srgb, srgb_to_linear
from ....nodes.colours import LINEAR, SRGB
from ....nodes.guided_upsample import GuidedUpsample
from ....nodes.lights import AddEnvironmentLight, AddLight
from ....nodes.normal_map import NormalMap
from ....nodes.rebuild import Rebuild
from ....nodes.relight import ALBEDO, RATIO, RelightShot
from . import tiny

SUN = {"kind": "directional", "azimuth": 0.0, "elevation": 0.0}
LAMP = {"kind": "point", "x": 0.0, "y": 0.0, "z": 0.0, "radius": 0.0, "falloff": "inverse square"}
SPOT = {**LAMP, "kind": "spot", "target_x": 0.0, "target_y": 0.0, "target_z": -2.0, "cone": 90.0, "penumbra": 0.2}
PLAIN = {"colour": "#ffffff", "temperature": 0.0, "strength": 1.0, "exposure": 0.0}
SURFACE = {"keep_light": 0.0, "field_of_view": 40.0, "specular": 0.0, "roughness": 0.4}


def wall(frames: int = 2) -> dict:
    """Normals that face the camera, a gray albedo (linear 0.5) and its plate in light 0.8, all sRGB."""
    shape = (frames, 6, 8, 3)
    gray, plate = linear_to_srgb(torch.full(shape, 0.5)), linear_to_srgb(torch.full(shape, 0.4))
    return {"normal": torch.tensor([0.5, 0.5, 1.0]).expand(shape), "albedo": gray, "plate": plate,
            "irradiance": linear_to_srgb(torch.full(shape, 0.8))}


def relit(lights, mode: dict, **inputs) -> torch.Tensor:
    """The relit picture in linear light."""
    layers = wall()
    out = RelightShot.execute(layers["normal"], lights, mode, **{**SURFACE, "colours": SRGB, **inputs})
    return srgb_to_linear(out[0])


def check_lights_chain():
    """Lights join those before them, and each shines with its own strength."""
    (one,) = AddLight.execute(SUN, **PLAIN)
    (two,) = AddLight.execute(SUN, **{**PLAIN, "strength": 0.5, "exposure": 1.0, "colour": "#ff0000"}, lights=one)
    (three,) = AddEnvironmentLight.execute(torch.ones(1, 64, 128, 3), LINEAR, 30.0, 0.0, 0.25, 0.0, lights=two)
    assert [len(lights) for lights in (one, two, three)] == [1, 2, 3], "the chain is broken"
    expected = 0.5 * torch.tensor([2.25, 1.25, 1.25]).expand(2, 6, 8, 3)
    return tiny.within("three lights", relit(three, {"mode": ALBEDO, "albedo": wall()["albedo"]}), expected, 1e-3)


def check_panoramas_turn_and_tilt():
    """A light in the middle of a panorama shines from ahead; turned from the left; turned and tilted still so, since
    the turn comes first; tilted from above."""
    panorama = torch.zeros(1, 64, 128, 3)
    panorama[:, 31:33, 63:65] = 100.0
    axes = torch.tensor([[0.5, 0.5, 0.0], [0.0, 0.5, 0.5], [0.5, 1.0, 0.5]])  # away from us, to the left, up
    said = []
    for turn, tilt, brightest in ((0.0, 0.0, 0), (90.0, 0.0, 1), (90.0, 90.0, 1), (0.0, 90.0, 2)):
        (lights,) = AddEnvironmentLight.execute(panorama, LINEAR, turn, tilt, 1.0, 0.0)
        lit = RelightShot.execute(axes.view(1, 1, 3, 3), lights, {"mode": ALBEDO, "albedo": torch.ones(1, 1, 3, 3)},
                                  **SURFACE, colours=LINEAR)[0][0, 0, :, 0]
        assert int(lit.argmax()) == brightest, f"turn {turn}, tilt {tilt}: {lit.tolist()}"
        said.append(f"{turn:g} {tilt:g}: {[round(value, 2) for value in lit.tolist()]}")
    return "; ".join(said)


def check_ratio_keeps_the_plate():
    """The light that is there, as a ratio, leaves the plate as it is; twice that light doubles it."""
    layers = wall()
    given = {"plate": layers["plate"], "irradiance": layers["irradiance"]}
    said = []
    for stops in (0.0, 1.0):
        (lights,) = AddLight.execute(SUN, **{**PLAIN, "strength": 0.8, "exposure": stops})
        out = relit(lights, {"mode": RATIO, "limit": 3.0}, **given)
        said.append(tiny.within(f"{stops} stops", out, torch.full_like(out, 0.4 * 2**stops), 1e-5))
    return "; ".join(said)


def check_lamps_need_depth_and_take_any():
    """A lamp falls off with true depth, as IMAGE, MASK or geometry, and is refused without one."""
    metres = torch.full((2, 6, 8), 2.0)
    forms = {"mask": metres, "picture": metres[..., None].expand(2, 6, 8, 3),
             "geometry": {"depth": metres, "sky": torch.zeros_like(metres)}}
    mode = {"mode": ALBEDO, "albedo": wall()["albedo"]}
    said = []
    for kind in (LAMP, SPOT):
        (lights,) = AddLight.execute(kind, **{**PLAIN, "strength": 4.0})
        results = {name: relit(lights, mode, depth=depth) for name, depth in forms.items()}
        for name, result in results.items():
            said.append(tiny.within(f"{kind['kind']} {name}", result, results["mask"], 1e-5))
        middle = results["mask"][:, 2:4, 3:5]
        said.append(tiny.within("at 2 m", middle, torch.full_like(middle, 0.5), 0.02))
        said.append(tiny.raises(ValueError, "depth", "has a place", call=lambda lights=lights: relit(lights, mode)))
    return "; ".join(said)


def check_masks_and_highlights():
    """Outside the mask the plate stays; a light's own mask paints its shadow; highlights are light on top."""
    layers, mask = wall(), torch.zeros(1, 6, 8)
    mask[:, :3] = 1
    mode = {"mode": ALBEDO, "albedo": layers["albedo"]}
    (lights,) = AddLight.execute(SUN, **PLAIN)
    (shaded,) = AddLight.execute(SUN, **PLAIN, mask=mask)
    kept = relit(lights, mode, plate=layers["plate"], mask=mask)
    expected = torch.cat([torch.full((2, 3, 8, 3), 0.5), torch.full((2, 3, 8, 3), 0.4)], 1)
    painted = relit(shaded, mode)
    shiny = RelightShot.execute(layers["normal"], lights, mode, **{**SURFACE, "specular": 0.5, "colours": LINEAR})
    assert shiny[2].min() > 0, "no highlights"
    return "; ".join([tiny.within("mask", kept, expected, 1e-5),
                      tiny.within("light's mask", painted, 0.5 * mask[..., None].expand(2, 6, 8, 3), 1e-5)])


def check_rebuild_is_the_plate():
    """albedo x irradiance + residual is the plate, in both codings, and the report says how it went."""
    generator = torch.Generator().manual_seed(0)
    plate, albedo, irradiance = (torch.rand(2, 6, 8, 3, generator=generator) for _ in range(3))
    said = []
    for colour, linear in ((SRGB, srgb_to_linear), (LINEAR, lambda x: x)):
        *layers, report = Rebuild.execute(plate, albedo, irradiance, True, False, colour, SRGB).result
        a, light, residual = map(linear, layers)
        said.append(tiny.within(colour, a * light + residual, linear(plate), 1e-5))
        assert "gamma" in report and "rms" in report, report
    return "; ".join(said)


def check_guided_upsample_sizes():
    """Layers come out at the plate's size; what was not connected stops its users with a sentence."""
    plate = torch.rand(2, 32, 48, 3, generator=torch.Generator().manual_seed(0))
    how = {"radius": 1, "grain": 0.01, "colours": SRGB}
    small = wall()
    out = GuidedUpsample.execute(plate, "plate / irradiance", **how, alpha=torch.ones(2, 6, 8),
                                 normal=small["normal"], irradiance=small["irradiance"]).result
    assert [tuple(x.shape) for x in out[:4]] == [(2, 32, 48), *[(2, 32, 48, 3)] * 3], "wrong sizes"
    product = srgb_to_linear(out[2]) * srgb_to_linear(out[3])
    bright = out[3] < 0.999
    said = tiny.within("product", product[bright], srgb_to_linear(plate)[bright], 1e-4)
    absent = GuidedUpsample.execute(plate, "its own layer", **how, alpha=plate[:, ::4, ::4]).result
    assert all(isinstance(x, ExecutionBlocker) for x in absent[1:4]), "an absent layer was made"
    return f"{said}; {out[4]!r}"


def check_normal_maps():
    """Green turns over between conventions, a camera that looks down sees a floor, a new size is unit length."""
    up = torch.tensor([0.5, 1.0, 0.5]).expand(1, 6, 8, 3)
    still = {"pan": 0.0, "tilt": 0.0, "roll": 0.0, "width": 0, "height": 0}
    (turned,) = NormalMap.execute(up, "OpenGL", "DirectX", "as it is", **still)
    (floor,) = NormalMap.execute(wall()["normal"], "OpenGL", "OpenGL", "camera to world", **{**still, "tilt": -90.0})
    (back,) = NormalMap.execute(floor, "OpenGL", "OpenGL", "world to camera", **{**still, "tilt": -90.0})
    (sized,) = NormalMap.execute(floor, "OpenGL", "OpenGL", "as it is", **{**still, "width": 5, "height": 3})
    assert sized.shape == (2, 3, 5, 3), sized.shape
    return "; ".join([
        tiny.within("DirectX", turned, up * torch.tensor([1.0, 0.0, 1.0]), 1e-6),
        tiny.within("floor", floor[:1], up, 1e-6), tiny.within("back", back, wall()["normal"], 1e-6),
        tiny.within("sized", sized[:1], up[:, :3, :5], 1e-6)])


def check_wrong_settings_are_refused():
    """One sentence for a colour that is none, a temperature without a colour and a spot that points at itself."""
    nowhere = {**SPOT, "target_z": 0.0}
    wrong = {
        "#rrggbb": lambda: AddLight.execute(SUN, **{**PLAIN, "colour": "red"}),
        "900 K": lambda: AddLight.execute(SUN, **{**PLAIN, "temperature": 900.0}),
        "points there too": lambda: AddLight.execute(nowhere, **PLAIN),
        "panorama has NaN": lambda: AddEnvironmentLight.execute(torch.full((1, 4, 8, 3), torch.inf), SRGB, 0, 0, 1, 0),
        "no lights": lambda: relit((), {"mode": ALBEDO, "albedo": wall()["albedo"]}),
    }
    return " | ".join(tiny.raises(ValueError, words, call=call) for words, call in wrong.items())
