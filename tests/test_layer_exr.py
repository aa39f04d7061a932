"""Multilayer EXR frames: what the OpenEXR library finds in them, what comes back, and what is refused."""

from fractions import Fraction

import numpy as np
import pytest
import torch

from comfyui_strata.imaging.colour import srgb_to_linear
from comfyui_strata.imaging.encodings.depth import warmth_to_colours
from comfyui_strata.imaging.encodings.flow import flow_to_colours
from comfyui_strata.imaging.files.exr_file import Part, exr_bytes, read_parts
from comfyui_strata.imaging.files.layer_exr import (
    COMPRESSIONS,
    Delivery,
    Window,
    check_layers,
    layer_frame,
    too_bright_for_half,
)
from comfyui_strata.imaging.files.layer_names import DELIVERED, PRESETS, channel_names, find_layers
from comfyui_strata.imaging.files.read_layer_exr import read_layers
from comfyui_strata.imaging.files.timecode import Timecode

OpenEXR = pytest.importorskip("OpenEXR")
F, H, W = 2, 9, 13
NTSC = Fraction(30000, 1001)
COLOUR = [layer for layer, encoding in DELIVERED.items() if encoding == "colour"]


def shot() -> dict[str, torch.Tensor]:
    """Every layer, with values that its encoding can hold."""
    draw = torch.Generator().manual_seed(0)
    layers = {layer: torch.rand(F, H, W, 3, generator=draw) for layer in DELIVERED}
    normal = torch.nn.functional.normalize(layers["normal"] - 0.5, dim=-1)
    layers["normal"] = 0.5 * normal + 0.5
    layers["alpha"] = layers["alpha"][..., :1]
    layers["fg"] = torch.rand(F, H, W, 4, generator=draw)
    layers["depth"] = warmth_to_colours(layers["depth"][..., :1])
    layers["flow"] = flow_to_colours(torch.randn(F, H, W, 2, generator=draw))[0]
    layers["depth_metres"] = 100 * layers["depth_metres"][..., :1].expand(F, H, W, 3)
    layers["residual"] = layers["residual"] - 0.5
    return layers


def write(folder, layers, delivery, wide=frozenset()):
    """The frames of layers as files."""
    paths = [folder / f"shot.{1001 + i}.exr" for i in range(F)]
    for i, path in enumerate(paths):
        path.write_bytes(layer_frame({name: images[i] for name, images in layers.items()}, delivery, i, set(wide)))
    return paths


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("split", [False, True])
@pytest.mark.parametrize("compression", ["zip", "dwaa"])
def test_every_layer_comes_back(tmp_path, preset, split, compression):
    layers = shot()
    clip = read_layers(write(tmp_path, layers, Delivery(preset, compression, split)))
    assert set(clip.layers) == set(DELIVERED)
    for name, images in clip.layers.items():
        wanted = layers[name][..., :3].expand(F, H, W, 3)
        # Half rounds to 2^-11 of a linear value; as sRGB, at worst, that is 0.0002. Pictures this small are not worth
        # losing anything for dwaa.
        limit = 3e-4 if DELIVERED[name] == "colour" else 3e-6
        assert (images - wanted).abs().max() <= limit, name


def test_float_data_is_bit_exact_and_colour_is_the_nearest_half(tmp_path):
    layers = shot()
    paths = write(tmp_path, layers, Delivery())
    stored = {**(parts := read_parts(paths[1]))[0].channels, **parts[1].channels}
    assert np.array_equal(stored["alpha.A"], layers["alpha"][1, ..., 0].numpy())
    assert np.array_equal(stored["depth.Z"], layers["depth_metres"][1, ..., 0].numpy())
    assert np.array_equal(stored["N.Y"], (2 * layers["normal"][1, ..., 1] - 1).numpy())
    assert np.array_equal(stored["skeleton.G"], layers["skeleton"][1, ..., 1].numpy())
    linear = srgb_to_linear(layers["albedo"][1, ..., 2]).numpy()
    assert stored["albedo.B"].dtype == np.float16 and np.array_equal(stored["albedo.B"], linear.astype(np.float16))
    linear_in = write(tmp_path, {"albedo": layers["albedo"]}, Delivery(encoded=False), {"albedo"})
    assert np.array_equal(read_parts(linear_in[0])[0].channels["albedo.R"], layers["albedo"][0, ..., 0].numpy())


def test_the_channel_names_are_those_of_each_program():
    assert channel_names("nuke", "normal") == ("N.X", "N.Y", "N.Z")
    assert channel_names("nuke", "rgb", alpha=True) == ("R", "G", "B", "A")
    assert channel_names("blender", "albedo") == tuple(f"ViewLayer.DiffCol.{c}" for c in "RGB")
    assert channel_names("blender", "depth_metres") == ("ViewLayer.Depth.Z",)
    assert channel_names("arnold", "depth_metres") == ("Z",)
    for layer in DELIVERED:  # what Nuke's reader keeps of a name
        for name in (*channel_names("nuke", layer), *channel_names("arnold", layer)):
            assert name.count(".") <= 1 and name.replace(".", "").replace("_", "").isalnum() and name[0].isalpha()
    with pytest.raises(ValueError, match="use one of nuke, blender, arnold"):
        channel_names("maya", "rgb")


@pytest.mark.parametrize("preset", PRESETS)
def test_no_two_layers_share_a_channel(preset):
    names = [name for layer in DELIVERED for name in channel_names(preset, layer)]
    assert len(set(names)) == len(names)


def test_only_channels_named_rgb_are_tagged_as_colour(tmp_path):
    for split in (False, True):
        for part in read_parts(write(tmp_path, shot(), Delivery(split=split, space="lin_ap1_scene"))[0]):
            if part.header["colorInteropID"] == "data":
                assert {str(p.dtype) for p in part.channels.values()} == {"float32"}
            else:
                assert part.header["colorInteropID"] == "lin_ap1_scene"
                known = {name for layer in COLOUR for name in channel_names("nuke", layer, alpha=True)}
                assert all(name in known for name in part.channels if name.endswith(("R", "G", "B")))
            assert "chromaticities" not in part.header
    alone = read_parts(write(tmp_path, {"normal": shot()["normal"]}, Delivery())[0])
    assert [part.header["colorInteropID"] for part in alone] == ["data"]


def test_dwaa_never_touches_data(tmp_path):
    for part in read_parts(write(tmp_path, shot(), Delivery(compression="dwaa"))[0]):
        lossy = part.header["compression"] == OpenEXR.DWAA_COMPRESSION
        assert lossy == (part.header["colorInteropID"] != "data")


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_the_compression_is_the_one_asked_for(tmp_path, compression):
    path = write(tmp_path, {"rgb": shot()["rgb"]}, Delivery(compression=compression))[0]
    assert read_parts(path)[0].header["compression"] == getattr(OpenEXR, f"{compression.upper()}_COMPRESSION")


@pytest.mark.parametrize(("rate", "first", "second"), [
    (Fraction(24000, 1001), "01:00:00:23", "01:00:01:00"), (Fraction(25), "10:00:00:00", "10:00:00:01"),
    (NTSC, "00:00:59;29", "00:01:00;02"), (Fraction(50), "00:00:00:48", "00:00:00:49"),
    (Fraction(60000, 1001), "00:00:59;59", "00:01:00;04"),
])  # fmt: skip
def test_rate_and_timecode_count_on(tmp_path, rate, first, second):
    delivery = Delivery(rate=rate, timecode=Timecode.parse(first, rate))
    paths = write(tmp_path, {"rgb": shot()["rgb"]}, delivery)
    clips = [read_layers([path]) for path in paths]
    assert [clip.rate for clip in clips] == [rate, rate]
    assert [str(clip.timecode) for clip in clips] == [first, second]
    if rate < 31:
        label = read_parts(paths[1])[0].header["timeCode"]
        assert f"{label.hours:02}:{label.minutes:02}:{label.seconds:02}" == second[:8]
        assert (label.frame, bool(label.dropFrame)) == (int(second[-2:]), ";" in second)


def test_comments_and_the_graph_are_stored(tmp_path):
    delivery = Delivery(comments="für Ää 東京", attributes={"workflow": '{"nodes": []}'})
    header = read_parts(write(tmp_path, {"rgb": shot()["rgb"]}, delivery)[0])[0].header
    assert header["comments"] == "für Ää 東京" and header["strata/workflow"] == '{"nodes": []}'


def test_windows_restore_the_plate(tmp_path):
    layers = shot()
    part = Window(width=20, height=16, left=3, top=4)
    paths = write(tmp_path, layers, Delivery(window=part))
    header = read_parts(paths[0])[0].header
    assert [tuple(map(int, corner)) for corner in header["dataWindow"]] == [(3, 4), (3 + W - 1, 4 + H - 1)]
    assert [tuple(map(int, corner)) for corner in header["displayWindow"]] == [(0, 0), (19, 15)]
    alpha = read_layers(paths, ["alpha"]).layers["alpha"]
    assert alpha.shape == (F, 16, 20, 3)
    assert torch.equal(alpha[:, 4 : 4 + H, 3 : 3 + W, :1], layers["alpha"])
    assert alpha.sum() == pytest.approx(3 * layers["alpha"].sum())  # nothing but zeros outside
    overscan = write(tmp_path, layers, Delivery(window=Window(width=7, height=5, left=-3, top=-2)))
    inner = read_layers(overscan, ["alpha"]).layers["alpha"]
    assert torch.equal(inner[..., :1], layers["alpha"][:, 2:7, 3:10])


def test_premultiplied_colour_is_stored_so_and_comes_back_straight(tmp_path):
    layers = {"fg": shot()["fg"]}
    paths = write(tmp_path, layers, Delivery(premultiplied=True), {"fg"})
    channels = read_parts(paths[0])[0].channels
    linear = srgb_to_linear(layers["fg"][0, ..., 0]) * layers["fg"][0, ..., 3]
    assert np.abs(channels["fg.R"] - linear.numpy()).max() < 1e-6
    clip = read_layers(paths)
    assert (clip.layers["fg"] - layers["fg"][..., :3]).abs().max() < 1e-4
    assert torch.equal(clip.layers["alpha"][..., 0], layers["fg"][..., 3])  # its alpha is the shot's, if there is none


def test_highlights_beyond_half_go_as_float_and_the_rest_as_half(tmp_path):
    layers = {"rgb": shot()["rgb"], "bg": shot()["bg"]}
    layers["rgb"][1, 2, 3, 0] = 70000.0
    delivery = Delivery(encoded=False)
    wide = too_bright_for_half(layers, delivery)
    assert wide == {"rgb"}
    channels = read_parts(write(tmp_path, layers, delivery, wide)[1])[0].channels
    assert channels["R"][2, 3] == 70000.0 and channels["bg.R"].dtype == np.float16
    assert too_bright_for_half(layers, Delivery(encoded=True)) == {"rgb"}  # 70000 as sRGB is far beyond


def test_flow_in_pixels_and_in_units_of_its_reach(tmp_path):
    motion = torch.zeros(F, H, W, 2)
    motion[..., 0], motion[..., 1] = 3.0, 4.0  # right and down
    colours, reach = flow_to_colours(motion, 10.0)
    channels = read_parts(write(tmp_path, {"flow": colours}, Delivery(reach=reach))[0])[0].channels
    assert channels["forward.u"][0, 0] == pytest.approx(3, abs=1e-4)
    assert channels["forward.v"][0, 0] == pytest.approx(-4, abs=1e-4)  # Nuke counts up


# what others write


def foreign(path, channels, **header):
    """A single-part file with constant channels."""
    pixels = {name: np.full((4, 6), value, np.float32) for name, value in channels.items()}
    path.write_bytes(exr_bytes([Part("", header, pixels)]))
    return path


def test_blender_and_arnold_files_are_understood(tmp_path):
    blender = foreign(tmp_path / "b.exr", {
        **{f"Scene.Combined.{c}": 0.5 for c in "RGBA"}, **{f"Scene.DiffCol.{c}": 0.2 for c in "RGB"},
        "Scene.Normal.X": 0.0, "Scene.Normal.Y": 1.0, "Scene.Normal.Z": 0.0, "Scene.Depth.V": 7.0,
    })  # fmt: skip
    layers = read_layers([blender], display=False).layers
    assert set(layers) == {"rgb", "albedo", "normal", "alpha", "depth_metres"}
    assert layers["normal"][0, 0, 0].tolist() == [0.5, 1.0, 0.5] and layers["depth_metres"].max() == 7
    assert layers["rgb"].max() == 0.5 and layers["alpha"].max() == 0.5
    arnold = foreign(tmp_path / "a.exr", {"R": 1, "G": 2, "B": 3, "A": 1, "Z": 9, "N.X": 0, "N.Y": 0, "N.Z": 1,
                                          **{f"diffuse_albedo.{c}": 0.3 for c in "RGB"},
                                          **{f"specular.{c}": 4 for c in "RGB"}})  # fmt: skip
    clip = read_layers([arnold], ["rgb"], other="specular", display=False)
    assert set(clip.channels) == {"rgb", "albedo", "normal", "alpha", "depth_metres"}
    assert clip.layers["rgb"][0, 0, 0].tolist() == [1, 2, 3] and clip.layers["other"].min() == 4
    with pytest.raises(ValueError, match="no layer 'coat' in the file: it holds N, diffuse_albedo, specular"):
        read_layers([arnold], [], other="coat")


def test_a_name_of_ours_wins_over_a_likeness():
    found = find_layers([{"R", "G", "B", "A", "alpha.A", "Z", "depth.Z"}])
    assert found["alpha"].names == ("alpha.A",) and found["depth_metres"].names == ("depth.Z",)


def test_flow_of_others_is_in_pixels_and_gets_the_clips_own_reach(tmp_path):
    clip = read_layers([foreign(tmp_path / "m.exr", {"forward.u": 6.0, "forward.v": 8.0})])
    assert clip.reach == pytest.approx(10)


def test_colour_with_other_primaries_is_not_shown_as_srgb(tmp_path):
    path = foreign(tmp_path / "aces.exr", {"R": 1, "G": 1, "B": 1}, colorInteropID="lin_ap1_scene")
    with pytest.raises(ValueError, match="rgb of .*aces.exr is in lin_ap1_scene, .* read it linear"):
        read_layers([path])
    assert read_layers([path], display=False).layers["rgb"].max() == 1


# refusals


def test_broken_pixels_come_through_for_the_viewer_but_have_no_code(tmp_path):
    path = foreign(tmp_path / "a.exr", {"R": np.nan, "G": np.inf, "B": -1})
    broken = read_layers([path]).layers["rgb"]
    assert broken[..., 0].isnan().all() and broken[..., 1].isinf().all() and (broken[..., 2] < 0).all()
    with pytest.raises(ValueError, match="b.exr: The depth has NaN or infinite pixels"):
        read_layers([foreign(tmp_path / "b.exr", {"inverse_depth.Z": np.nan})])
    with pytest.raises(ValueError, match="The flow has NaN or infinite pixels"):
        read_layers([foreign(tmp_path / "c.exr", {"forward.u": np.nan, "forward.v": 0})])


@pytest.mark.parametrize("split", [False, True])
@pytest.mark.parametrize("keep", [0.0, 0.2, 0.5, 0.9, 0.99])
def test_a_truncated_frame_is_refused(tmp_path, split, keep):
    path = write(tmp_path, shot(), Delivery(split=split))[0]
    path.write_bytes(path.read_bytes()[: int(keep * path.stat().st_size)])
    with pytest.raises(ValueError, match="could not be read as an EXR") as caught:
        read_layers([path])
    assert "\n" not in str(caught.value)


def test_frames_that_differ(tmp_path):
    first, second = write(tmp_path, {"rgb": shot()["rgb"]}, Delivery())
    foreign(second, {"Z": 1})
    with pytest.raises(ValueError, match="1002.exr lacks the channels R, G, B"):
        read_layers([first, second])
    foreign(second, {"R": 1, "G": 1, "B": 1})
    with pytest.raises(ValueError, match="1002.exr is 6x4 pixels, but .* is 13x9"):
        read_layers([first, second])


def test_layers_that_do_not_go_together():
    clip = torch.zeros(3, 4, 6, 3)
    assert check_layers({"rgb": clip, "bg": clip[:1]}) == (3, 4, 6)
    with pytest.raises(ValueError, match="rgb 6x4, bg 4x4"):
        check_layers({"rgb": clip, "bg": clip[:, :, :4]})
    with pytest.raises(ValueError, match="rgb 3, bg 2 frames"):
        check_layers({"rgb": clip, "bg": clip[:2]})
    with pytest.raises(ValueError, match="connect at least one"):
        check_layers({})
    clip[1, 0, 0, 0] = torch.nan
    with pytest.raises(ValueError, match="rgb layer has NaN or infinite pixels in 1 of 3 frames"):
        check_layers({"rgb": clip})


def test_settings_that_are_none():
    with pytest.raises(ValueError, match="'lzw': use one of zip"):
        Delivery(compression="lzw")
    with pytest.raises(ValueError, match="'sRGB': use one of lin_rec709_scene"):
        Delivery(space="sRGB")
