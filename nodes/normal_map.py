"""Strata Normal Map: normals from one tool's convention to another's."""

from __future__ import annotations

import torch
from comfy_api.latest import io

from ..imaging.checks import check_pixels
from ..imaging.encodings.normal_maps import decode_normals, encode_normals, resize_normals, rotate_normals, turn_green
from ..imaging.frames import in_bands
from ..imaging.light.camera import rotation
from .saying import steps

OPENGL, DIRECTX = "OpenGL", "DirectX"
STAY, TO_WORLD, TO_CAMERA = "as it is", "camera to world", "world to camera"


class NormalMap(io.ComfyNode):
    """Convention, space and size of normals."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        conventions = "'OpenGL' has green up (Strata, Blender, Nuke, Unity), 'DirectX' green down (Unreal, 3ds Max)."
        return io.Schema(
            node_id="StrataNormalMap",
            display_name="Strata Normal Map",
            category="Strata/light",
            description="Turns normals between OpenGL and DirectX and between camera and world, and resizes them; they "
                        "come out at unit length.",
            search_aliases=["opengl", "directx", "flip green", "world normals", "renormalise"],
            inputs=[
                io.Image.Input("normal", tooltip="Normals as colours. Data: no colour transform."),
                io.Combo.Input("given", options=[OPENGL, DIRECTX], default=OPENGL,
                               tooltip=f"As it comes in. {conventions}"),
                io.Combo.Input("wanted", options=[OPENGL, DIRECTX], default=OPENGL, tooltip="As it goes out."),
                io.Combo.Input("space", options=[STAY, TO_WORLD, TO_CAMERA], default=STAY,
                               tooltip="Strata's normals are the camera's; Blender's and Nuke's relight want the "
                                       "world's, for which the camera's rotation is needed."),
                *(io.Float.Input(name, default=0.0, min=-360.0, max=360.0, step=0.5, advanced=True,
                                 tooltip=f"The camera's rotation in degrees, {way} (its rotate {axis}, order ZXY).")
                  for name, way, axis in (("pan", "to the left", "Y"), ("tilt", "upwards", "X"),
                                          ("roll", "against the clock", "Z"))),
                *(io.Int.Input(side, default=0, min=0, max=16384, advanced=True,
                               tooltip="Pixels of the result; 0 keeps the size.") for side in ("width", "height")),
            ],
            outputs=[io.Image.Output("normal", tooltip="Unit normals as colours. Data: no colour transform.")],
        )

    @classmethod
    def execute(cls, normal, given: str, wanted: str, space: str, pan: float, tilt: float, roll: float, width: int,
                height: int) -> io.NodeOutput:
        normal = normal[..., :3]
        check_pixels("The normal map", normal, (3,))
        turn = rotation(pan, tilt, roll)

        def convert(bands, frame, rows):
            vectors = decode_normals(bands["normal"])
            if given == DIRECTX:
                vectors = turn_green(vectors)
            if space != STAY:
                vectors = rotate_normals(vectors, turn if space == TO_WORLD else turn.T)
            return (encode_normals(turn_green(vectors) if wanted == DIRECTX else vectors),)

        (result,) = in_bands(convert, {"normal": normal}, steps(len(normal)))
        size = (height or normal.shape[1], width or normal.shape[2])
        if size != tuple(normal.shape[1:3]):
            result = torch.cat([encode_normals(resize_normals(decode_normals(frame), *size))
                                for frame in result.split(1)])
        return io.NodeOutput(result)
