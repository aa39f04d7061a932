"""Our EXR files in another library than wrote them: what OpenImageIO, which studios build on, finds in them."""

from fractions import Fraction

import numpy as np
import pytest

from comfyui_strata.imaging.files.exr_file import read_parts
from comfyui_strata.imaging.files.layer_exr import COMPRESSIONS, Delivery, Window, layer_frame
from comfyui_strata.imaging.files.layer_names import DELIVERED, PRESETS, channel_names
from comfyui_strata.imaging.files.timecode import Timecode
from comfyui_strata.tests.test_layer_exr import H, W, shot

oiio = pytest.importorskip("OpenImageIO", reason="OpenImageIO is not installed: pip install OpenImageIO")
FRAME = {layer: images[1] for layer, images in shot().items()}
NAMES = {preset: {layer: channel_names(preset, layer, alpha=layer == "fg") for layer in DELIVERED}
         for preset in PRESETS}  # fmt: skip


def opened(folder, delivery, number=0, wide=frozenset()):
    """The path of one frame of every layer, and of each of its parts the header and the pixels, [h, w] by channel."""
    path = folder / "shot.1001.exr"
    path.write_bytes(layer_frame(FRAME, delivery, number, set(wide)))
    file, parts = oiio.ImageInput.open(str(path)), []
    assert file, oiio.geterror()
    while file.seek_subimage(len(parts), 0):
        spec = file.spec()
        pixels = file.read_image(len(parts), 0, 0, spec.nchannels, oiio.FLOAT)
        parts.append((spec, {name: pixels[..., i] for i, name in enumerate(spec.channelnames)}))
    return path, parts


def formats(spec) -> dict[str, str]:
    """The type of each channel; OpenImageIO says it once where all are of one."""
    types = spec.channelformats or (spec.format,) * spec.nchannels
    return dict(zip(spec.channelnames, map(str, types), strict=True))


@pytest.mark.parametrize("split", [False, True])
@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("preset", PRESETS)
def test_every_channel_with_its_type_space_and_pixels(tmp_path, preset, compression, split):
    path, parts = opened(tmp_path, Delivery(preset, compression, split, space="lin_ap1_scene"), wide={"bg"})
    names = NAMES[preset]
    colour, data = parts  # skeleton and segmentation, named R, G, B, always lie apart
    apart = split or compression == "dwaa"
    in_data = [layer for layer, kind in DELIVERED.items()
               if (kind != "colour" if apart else layer in ("skeleton", "segmentation"))]  # fmt: skip
    assert sorted(data[1]) == sorted(name for layer in in_data for name in names[layer])
    assert sorted([*colour[1], *data[1]]) == sorted(name for layer in names for name in names[layer])
    found = formats(colour[0]) | formats(data[0])
    for layer, kind in DELIVERED.items():
        wanted = "half" if kind == "colour" and layer != "bg" else "float"
        assert {found[name] for name in names[layer]} == {wanted}, layer
    for (spec, pixels), space, how in zip(
            parts, ("lin_ap1_scene", "data"), (compression, "zip" if compression == "dwaa" else compression)):
        assert spec.getattribute("colorInteropID") == spec.getattribute("oiio:ColorSpace") == space
        assert spec.getattribute("compression").split(":")[0] == how
        assert spec.getattribute("chromaticities") is None
        written = next(part for part in read_parts(path) if set(part.channels) == set(pixels))
        for name, plane in pixels.items():
            assert np.array_equal(plane, written.channels[name].astype(np.float32)), name


@pytest.mark.parametrize(("rate", "first", "bits"), [
    (Fraction(24000, 1001), "01:02:03:04", 0x01020304), (Fraction(25), "23:59:59:24", 0x23595924),
    (Fraction(30000, 1001), "00:01:00;02", 0x00010042), (Fraction(50), "10:00:00:47", 0x1000_8023),
])  # fmt: skip
def test_rate_and_timecode(tmp_path, rate, first, bits):
    """bits: SMPTE's packed label, two decimal digits a byte from hours to frames; 0x40 is drop-frame, 0x8000 the second
    frame of a pair beyond 30 a second."""
    for spec, _ in opened(tmp_path, Delivery(rate=rate, timecode=Timecode.parse(first, rate)))[1]:
        assert spec.getattribute("framesPerSecond") == (rate.numerator, rate.denominator)
        assert spec.getattribute("smpte:TimeCode")[0] == bits
    for spec, _ in opened(tmp_path, Delivery(rate=rate))[1]:
        assert spec.getattribute("smpte:TimeCode") is None


def test_windows_comments_and_tags(tmp_path):
    delivery = Delivery(comments="graded, Ä", attributes={"workflow": '{"a": "ü"}'}, premultiplied=True, reach=7.5,
                        window=Window(20, 15, 3, -2))
    for spec, _ in opened(tmp_path, delivery)[1]:
        assert (spec.x, spec.y, spec.width, spec.height) == (3, -2, W, H)
        assert (spec.full_x, spec.full_y, spec.full_width, spec.full_height) == (0, 0, 20, 15)
        assert spec.getattribute("ImageDescription") == "graded, Ä"  # where OpenImageIO keeps an EXR's comments
        assert spec.getattribute("strata/workflow") == '{"a": "ü"}'
        assert spec.getattribute("strata/alpha") == "premultiplied"
        assert spec.getattribute("strata/flow_reach") == 7.5
    for spec, _ in opened(tmp_path, Delivery())[1]:
        assert (spec.x, spec.y, spec.width, spec.height) == (0, 0, W, H) == (
            spec.full_x, spec.full_y, spec.full_width, spec.full_height)
