"""Reading and writing clips: what goes in comes out, and nothing half-written stays."""

import struct
import sys
import tempfile
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from comfyui_strata.imaging.colour import linear_to_srgb, srgb_to_linear
from comfyui_strata.imaging.encodings.depth import warmth_to_colours
from comfyui_strata.imaging.encodings.flow import flow_to_colours
from comfyui_strata.imaging.encodings.layers import decode
from comfyui_strata.imaging.files import clips
from comfyui_strata.imaging.files.clips import count_frames, read_clip, write_clip
from comfyui_strata.tests.disks import disk_of

RATE = Fraction(24000, 1001)
SIZES = [(1, 16, 16), (1, 1, 1), (2, 17, 31), (7, 32, 48), (12, 33, 20)]


def noise(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(sum(shape)))


def gradient(frames: int, height: int, width: int) -> torch.Tensor:
    """A smooth moving picture, as h264 is made for smooth pictures: [F, H, W, 3] in 0.1..0.9 for sizes up to 51."""
    t, y, x = torch.meshgrid(*(torch.arange(n) / 64 for n in (frames, height, width)), indexing="ij")
    return torch.stack([x, y, t], dim=-1) + 0.1


def files_under(folder: Path) -> list[str]:
    return sorted(str(file.relative_to(folder)) for file in folder.rglob("*"))


def write_video(path: Path, frames: int = 24, codec: str = "libx264", pixel_format: str = "yuv420p", **options) -> Path:
    """An incompressible video, so that a cut anywhere loses pictures."""
    pictures = (noise(frames, 64, 96, 3) * 255).byte().numpy()
    with av.open(str(path), "w", container_options=options) as container:
        stream = container.add_stream(codec, rate=24)
        stream.width, stream.height, stream.pix_fmt = 96, 64, pixel_format
        for picture in pictures:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture)))
        container.mux(stream.encode())
    return path


# round trips


@pytest.mark.parametrize("size", SIZES)
def test_png_round_trip_is_exact_to_16_bits(tmp_path, size):
    images = noise(*size, 3)
    written = write_clip(images, tmp_path / "albedo", RATE, "png")
    assert files_under(written) == [f"albedo.{1001 + i}.png" for i in range(size[0])]
    clip = read_clip(written)
    assert clip.images.shape == (*size, 3) and clip.images.dtype == torch.float32
    assert (clip.images - images).abs().max() <= 0.5 / 65535 + 1e-7


@pytest.mark.parametrize("size", SIZES)
def test_mp4_keeps_frame_count_size_rate_and_colour(tmp_path, size):
    images = gradient(*size)
    clip = read_clip(write_clip(images, tmp_path / "rgb", RATE, "mp4"))
    assert clip.images.shape == (*size, 3)
    assert clip.rate == RATE
    # 8-bit video levels, half-size chroma and crf 12
    assert (clip.images - images).abs().mean() < 0.012


def test_mp4_states_its_colour(tmp_path):
    flat = torch.tensor([0.9, 0.1, 0.2]).expand(3, 32, 32, 3)  # saturated, so that the matrix matters
    path = write_clip(flat, tmp_path / "rgb.mp4", RATE, "mp4")
    assert path.name == "rgb.mp4"
    with av.open(str(path)) as container:
        context = container.streams.video[0].codec_context
        assert (context.colorspace, context.color_primaries, context.color_trc, context.color_range) == (1, 1, 1, 1)
        assert context.pix_fmt == "yuv420p"
    assert (read_clip(path).images - flat).abs().max() < 0.012


@pytest.mark.parametrize("size", SIZES)
def test_exr_colour_is_scene_linear_half_and_comes_back(tmp_path, size):
    openexr = pytest.importorskip("OpenEXR")
    images = noise(*size, 3) * 2  # highlights too
    written = write_clip(images, tmp_path / "rgb", RATE, "exr")
    stored = openexr.File(str(written / "rgb.1001.exr"), separate_channels=True)
    red = stored.channels()["R"].pixels
    assert red.dtype == np.float16
    assert np.allclose(red, srgb_to_linear(images[0, ..., 0]).numpy(), rtol=1e-3, atol=1e-6)
    assert stored.header()["colorInteropID"] == "lin_rec709_scene"
    clip = read_clip(written)
    assert clip.rate == RATE and clip.images.shape == (*size, 3)
    assert (clip.images - images).abs().max() < 1e-3  # half keeps 11 bits of a value up to 2
    assert (read_clip(written, data=True).images - srgb_to_linear(images)).abs().max() < 3e-3


def test_exr_normal_is_float_xyz_in_minus_one_to_one(tmp_path):
    openexr = pytest.importorskip("OpenEXR")
    images = decode("normal", noise(2, 17, 9, 3))
    written = write_clip(images, tmp_path / "normal", RATE, "exr", "normal")
    stored = openexr.File(str(written / "normal.1002.exr"), separate_channels=True)
    vectors = np.stack([stored.channels()[name].pixels for name in "XYZ"], axis=-1)
    assert vectors.dtype == np.float32 and stored.header()["colorInteropID"] == "data"
    assert np.allclose(np.linalg.norm(vectors, axis=-1), 1, atol=1e-4)
    assert (read_clip(written).images - images).abs().max() < 1e-6


def test_exr_mask_is_float_alpha_without_a_curve(tmp_path):
    openexr = pytest.importorskip("OpenEXR")
    images = decode("mask", noise(2, 17, 9, 3))
    written = write_clip(images, tmp_path / "alpha", RATE, "exr", "mask")
    stored = openexr.File(str(written / "alpha.1001.exr"), separate_channels=True)
    assert list(stored.channels()) == ["A"] and stored.channels()["A"].pixels.dtype == np.float32
    assert (read_clip(written).images - images).abs().max() < 1e-6


def test_exr_depth_is_inverse_depth_and_comes_back_in_its_colours(tmp_path):
    openexr = pytest.importorskip("OpenEXR")
    warmth = torch.linspace(0, 1, 2 * 17 * 9).reshape(2, 17, 9, 1)
    images = warmth_to_colours(warmth)
    written = write_clip(images, tmp_path / "depth", RATE, "exr", "depth")
    stored = openexr.File(str(written / "depth.1002.exr"), separate_channels=True)
    assert list(stored.channels()) == ["inverse_depth.Z"] and stored.header()["colorInteropID"] == "data"
    pixels = stored.channels()["inverse_depth.Z"].pixels
    assert pixels.dtype == np.float32 and np.abs(pixels - warmth[1, ..., 0].numpy()).max() < 1e-6
    assert (read_clip(written, data=True).images - images).abs().max() < 1e-5


def test_exr_flow_is_forward_motion_with_v_up_and_comes_back_in_its_colours(tmp_path):
    openexr = pytest.importorskip("OpenEXR")
    angle = torch.linspace(0, 6.28, 17 * 9).reshape(1, 17, 9)
    length = torch.linspace(1, 0, 17 * 9).reshape(1, 17, 9, 1).sqrt()  # from the very reach on
    flow = torch.stack([angle.cos(), angle.sin()], -1) * length
    images, _ = flow_to_colours(8 * flow, 8)
    written = write_clip(images, tmp_path / "flow", RATE, "exr", "flow")
    stored = openexr.File(str(written / "flow.1001.exr"), separate_channels=True).channels()
    assert sorted(stored) == ["forward.u", "forward.v"]
    assert np.abs(stored["forward.u"].pixels - flow[0, ..., 0].numpy()).max() < 1e-5
    assert np.abs(stored["forward.v"].pixels + flow[0, ..., 1].numpy()).max() < 1e-5
    assert (read_clip(written, data=True).images - images).abs().max() < 1e-4


@pytest.mark.parametrize("encoding", ["segmentation", "skeleton", "densepose"])
def test_exr_codes_are_float_colours_without_a_curve(tmp_path, encoding):
    openexr = pytest.importorskip("OpenEXR")
    images = noise(1, 17, 9, 3)
    written = write_clip(images, tmp_path / "code", RATE, "exr", encoding)
    stored = openexr.File(str(written / "code.1001.exr"), separate_channels=True)
    assert stored.header()["colorInteropID"] == "data"
    pixels = np.stack([stored.channels()[name].pixels for name in "RGB"], axis=-1)
    assert pixels.dtype == np.float32 and np.array_equal(pixels, images[0].numpy())
    assert torch.equal(read_clip(written, data=True).images, images)


def test_exr_beyond_half_is_stored_as_float_not_infinity(tmp_path):
    pytest.importorskip("OpenEXR")
    images = torch.full((1, 4, 4, 3), float(linear_to_srgb(torch.tensor(100_000.0))))
    back = read_clip(write_clip(images, tmp_path / "sun", RATE, "exr"), data=True).images
    assert back.mean().item() == pytest.approx(100_000, rel=1e-4)


def test_exr_is_read_in_its_display_window(tmp_path):
    openexr = pytest.importorskip("OpenEXR")
    pixels = np.arange(12, dtype=np.float32).reshape(3, 4)
    header = {
        "type": openexr.scanlineimage,
        "compression": openexr.ZIP_COMPRESSION,
        "displayWindow": (np.array([10, 10], np.int32), np.array([14, 15], np.int32)),
        "dataWindow": (np.array([8, 12], np.int32), np.array([11, 14], np.int32)),  # sticks out on the left
    }
    openexr.File(header, {"Y": pixels}).write(str(tmp_path / "crop.exr"))
    images = read_clip(tmp_path / "crop.exr", data=True).images
    expected = torch.zeros(6, 5)
    expected[2:5, 0:2] = torch.from_numpy(pixels[:, 2:])
    assert torch.equal(images, expected[None, ..., None].expand(1, 6, 5, 3))


# reading what others wrote


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv", ".webm"])
def test_videos_are_read_to_the_last_frame(tmp_path, suffix):
    codec = "libvpx-vp9" if suffix == ".webm" else "libx264"
    clip = read_clip(write_video(tmp_path / f"clip{suffix}", 13, codec))
    assert clip.images.shape == (13, 64, 96, 3)
    assert clip.rate == 24
    assert read_clip(tmp_path / f"clip{suffix}", frames=5).images.shape[0] == 5


def test_ten_bit_video_keeps_its_precision(tmp_path):
    images = read_clip(write_video(tmp_path / "deep.mkv", 1, "ffv1", "yuv420p10le")).images
    codes = images * 255
    assert (codes - codes.round()).abs().max() > 0.2


def test_a_phone_clip_is_turned_upright(tmp_path):
    path = write_video(tmp_path / "phone.mp4", 2)
    straight = read_clip(path).images
    content = bytearray(path.read_bytes())
    matrix = content.find(b"tkhd") + 4 + 40  # ISO/IEC 14496-12, 8.3.2: the track header's transformation
    content[matrix : matrix + 36] = struct.pack(">9i", 0, 1 << 16, 0, -(1 << 16), 0, 0, 64 << 16, 0, 1 << 30)
    path.write_bytes(content)
    # That matrix maps x to y: a quarter turn clockwise.
    assert torch.equal(read_clip(path).images, straight.rot90(-1, (1, 2)))


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tiff", ".webp"])
def test_stills_are_one_frame(tmp_path, suffix):
    picture = (gradient(1, 31, 17)[0] * 255).byte().numpy()
    Image.fromarray(picture).save(tmp_path / f"still{suffix}", quality=95)
    clip = read_clip(tmp_path / f"still{suffix}")
    assert clip.images.shape == (1, 31, 17, 3)
    assert (clip.images[0] - torch.from_numpy(picture) / 255).abs().mean() < 0.02  # jpg and webp are lossy


@pytest.mark.parametrize("suffix", [".png", ".tiff"])
def test_sixteen_bit_stills_keep_16_bits(tmp_path, suffix):
    codes = np.arange(60000, 60000 + 48, dtype=np.uint16).reshape(4, 4, 3)
    cv2.imwrite(str(tmp_path / f"deep{suffix}"), codes[..., ::-1])
    assert torch.equal(
        (read_clip(tmp_path / f"deep{suffix}").images[0] * 65535).round().int(), torch.tensor(codes.astype(int)).int()
    )


def test_gray_and_transparent_stills_are_three_channels(tmp_path):
    gray = Image.fromarray(np.arange(0, 250, 10, dtype=np.uint8).reshape(5, 5))
    gray.save(tmp_path / "gray.png")
    clear = Image.new("RGBA", (5, 5), (10, 20, 30, 0))
    clear.save(tmp_path / "clear.png")
    assert torch.equal(*read_clip(tmp_path / "gray.png").images[..., :2].unbind(-1))
    assert (read_clip(tmp_path / "clear.png").images[0, 0, 0] * 255).tolist() == pytest.approx([10, 20, 30])


def test_frames_are_read_in_the_order_of_their_numbers_whatever_their_depth(tmp_path):
    folder = tmp_path / "naïve plate – 東京"
    folder.mkdir()
    for number in (2, 9, 10, 11):
        deep = number == 10
        codes = np.full((4, 6, 3), number * (257 if deep else 1), np.uint16 if deep else np.uint8)
        (folder / f"my plate{number}.png").write_bytes(cv2.imencode(".png", codes)[1].tobytes())
    (folder / "notes.txt").write_text("not a frame")
    (folder / "._my plate2.png").write_bytes(b"what macOS leaves on shared disks")
    images = read_clip(folder).images
    assert (images[:, 0, 0, 0] * 255).tolist() == pytest.approx([2, 9, 10, 11])
    assert len(read_clip(folder, frames=2).images) == 2


# refusals


@pytest.mark.parametrize("name", ["nothing.mp4", "no folder/plate.png"])
def test_missing_file(tmp_path, name):
    with pytest.raises(FileNotFoundError, match="does not exist"):
        read_clip(tmp_path / name)


@pytest.mark.parametrize("name", ["a.mp4", "a.mov", "a.webm", "a.mkv", "a.png", "a.jpg", "a.tiff", "a.webp"])
@pytest.mark.parametrize("content", [b"", b"this is no picture\n" * 50])
def test_files_that_are_not_what_they_are_called(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match="could not be read as a") as caught:
        read_clip(tmp_path / name)
    assert str(tmp_path / name) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("keep", [0.02, 0.5, 0.97])
@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("index last.mp4", "libx264", {}),
        ("index first.mp4", "libx264", {"movflags": "faststart"}),
        ("a.mkv", "libx264", {}),
        ("a.webm", "libvpx-vp9", {}),
    ],
)
def test_truncated_videos_are_refused(tmp_path, name, codec, options, keep):
    path = write_video(tmp_path / name, codec=codec, **options)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep)])
    with pytest.raises(ValueError, match="a whole file is needed"):
        read_clip(path)


def test_an_mp4_cut_between_two_frames_is_refused(tmp_path):
    path = write_video(tmp_path / "a.mp4", movflags="faststart")
    with av.open(str(path)) as container:
        starts = sorted(packet.pos for packet in container.demux(video=0) if packet.size)
    path.write_bytes(path.read_bytes()[: starts[12]])
    with pytest.raises(ValueError, match="ends after 0.50 of"):
        read_clip(path)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tiff", ".webp"])
def test_truncated_stills_are_refused(tmp_path, suffix):
    path = tmp_path / f"still{suffix}"
    Image.fromarray((noise(64, 64, 3) * 255).byte().numpy()).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 3 // 5])
    with pytest.raises(ValueError, match="could not be read as a picture"):
        read_clip(path)


@pytest.mark.parametrize("keep", [0.0, 0.3, 0.9])
def test_truncated_exr_is_refused(tmp_path, keep):
    pytest.importorskip("OpenEXR")
    path = write_clip(noise(1, 64, 64, 3), tmp_path / "rgb", RATE, "exr") / "rgb.1001.exr"
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * keep)])
    with pytest.raises(ValueError, match="could not be read as an EXR"):
        read_clip(path)


def test_exr_with_other_channels_names_them(tmp_path):
    openexr = pytest.importorskip("OpenEXR")
    header = {"type": openexr.scanlineimage, "compression": openexr.ZIP_COMPRESSION}
    openexr.File(header, {"depth.Z": np.zeros((4, 4), np.float32)}).write(str(tmp_path / "a.exr"))
    with pytest.raises(ValueError, match="holds the channels depth.Z"):
        read_clip(tmp_path / "a.exr")


def test_sound_without_pictures_is_refused(tmp_path):
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=48000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 48000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    with pytest.raises(ValueError, match="holds no video stream"):
        read_clip(tmp_path / "a.mp4")


def test_folders_that_are_not_one_sequence(tmp_path):
    with pytest.raises(ValueError, match="holds no frames"):
        read_clip(tmp_path)
    Image.new("RGB", (8, 4)).save(tmp_path / "rgb.1.png")
    Image.new("RGB", (8, 6)).save(tmp_path / "rgb.2.png")
    with pytest.raises(ValueError, match="mixes frames of 8x4, 8x6 pixels"):
        read_clip(tmp_path)
    Image.new("RGB", (8, 4)).save(tmp_path / "albedo.1.png")
    with pytest.raises(ValueError, match="holds 2 sequences"):
        read_clip(tmp_path)


def test_a_clip_that_is_too_short(tmp_path):
    write_clip(noise(3, 8, 8, 3), tmp_path / "rgb", RATE, "png")
    write_clip(noise(3, 8, 8, 3), tmp_path / "rgb", RATE, "mp4")
    for path in (tmp_path / "rgb", tmp_path / "rgb.mp4"):
        with pytest.raises(ValueError, match="holds 3 frames, but 4 are needed"):
            read_clip(path, frames=4)
        with pytest.raises(ValueError, match="at least 1 is needed"):
            read_clip(path, frames=0)


def test_unknown_kinds_name_the_known_ones(tmp_path):
    (tmp_path / "plate.psd").write_bytes(b"8BPS")
    with pytest.raises(ValueError, match="mp4, mov, webm, mkv, png"):
        read_clip(tmp_path / "plate.psd")
    with pytest.raises(ValueError, match="'gif': use one of png, exr, mp4"):
        write_clip(noise(1, 8, 8, 3), tmp_path / "a", RATE, "gif")
    with pytest.raises(ValueError, match="'sound': use one of"):
        write_clip(noise(1, 8, 8, 3), tmp_path / "a", RATE, "png", "sound")


@pytest.mark.parametrize("format", ["png", "mp4", "exr"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_broken_pixels_are_never_written(tmp_path, format, value):
    images = noise(2, 8, 8, 3)
    images[1, 3, 3, 2] = value
    with pytest.raises(ValueError, match="NaN or infinite"):
        write_clip(images, tmp_path / "rgb", RATE, format)
    assert files_under(tmp_path) == []


def test_exr_without_the_library(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "OpenEXR", None)  # what an import finds when the extra is not installed
    with pytest.raises(ImportError, match="pip install OpenEXR"):
        write_clip(noise(1, 8, 8, 3), tmp_path / "rgb", RATE, "exr")
    assert files_under(tmp_path) == []
    (tmp_path / "a.exr").write_bytes(b"any")
    with pytest.raises(ImportError, match="pip install OpenEXR"):
        read_clip(tmp_path / "a.exr")


# writing whole or not at all


def test_names_with_spaces_and_unicode(tmp_path):
    images = noise(2, 16, 16, 3)
    for format in ("png", "mp4", "exr"):
        if format == "exr":
            pytest.importorskip("OpenEXR")
        written = write_clip(images, tmp_path / format / "Straße – 東京 v1.2 [a]", RATE, format)
        assert read_clip(written).images.shape == (2, 16, 16, 3)


@pytest.mark.parametrize("format", ["png", "exr"])
def test_a_shorter_clip_leaves_no_frames_of_the_longer_one(tmp_path, format):
    if format == "exr":
        pytest.importorskip("OpenEXR")
    write_clip(noise(5, 8, 8, 3), tmp_path / "rgb", RATE, format)
    (tmp_path / "rgb" / "notes.txt").write_text("kept")
    written = write_clip(torch.zeros(2, 8, 8, 3), tmp_path / "rgb", RATE, format)
    assert files_under(written) == ["notes.txt", f"rgb.1001.{format}", f"rgb.1002.{format}"]
    assert read_clip(written).images.max() == 0


@pytest.mark.parametrize("format", ["png", "mp4", "exr"])
def test_a_full_disk_is_one_sentence_and_leaves_the_old_clip(tmp_path, format):
    if format == "exr":
        pytest.importorskip("OpenEXR")
    old = torch.zeros(2, 96, 96, 3)
    written = write_clip(old, tmp_path / "rgb", RATE, format)
    before = files_under(tmp_path)
    images = old.clone()
    images[1] = noise(96, 96, 3)  # the first frame still fits
    with disk_of(6000), pytest.raises(OSError, match="Could not write .*rgb.* too large; free some space") as caught:
        write_clip(images, tmp_path / "rgb", RATE, format)
    assert "\n" not in str(caught.value)
    assert files_under(tmp_path) == before
    assert read_clip(written).images.max() < 0.01


def test_a_folder_on_another_disk_than_its_parent(tmp_path):
    other = Path("/dev/shm")
    if not other.is_dir() or other.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("no second disk here")
    with tempfile.TemporaryDirectory(dir=other) as folder:
        (tmp_path / "rgb").symlink_to(folder, target_is_directory=True)
        assert read_clip(write_clip(torch.zeros(2, 8, 8, 3), tmp_path / "rgb", RATE)).images.shape == (2, 8, 8, 3)
        assert files_under(Path(folder)) == ["rgb.1001.png", "rgb.1002.png"]


def test_an_interrupt_between_two_frames_leaves_nothing(tmp_path, monkeypatch):
    real = cv2.imencode

    def interrupted(suffix, picture):
        if picture.any():
            raise KeyboardInterrupt
        return real(suffix, picture)

    monkeypatch.setattr(clips.cv2, "imencode", interrupted)
    images = torch.zeros(3, 8, 8, 3)
    images[1] = 1
    with pytest.raises(KeyboardInterrupt):
        write_clip(images, tmp_path / "rgb", RATE, "png")
    assert files_under(tmp_path) == []


def test_a_file_in_the_way_of_a_folder(tmp_path):
    (tmp_path / "rgb").write_text("mine")
    with pytest.raises(OSError, match="Could not write"):
        write_clip(noise(1, 8, 8, 3), tmp_path / "rgb", RATE, "png")
    assert files_under(tmp_path) == ["rgb"] and (tmp_path / "rgb").read_text() == "mine"


@pytest.mark.parametrize("format", ["mp4", "png"])
def test_some_frames_of_a_clip_and_how_many_there_are(tmp_path, format):
    images = torch.linspace(0, 1, 9).view(9, 1, 1, 1).expand(9, 16, 16, 3)
    path = write_clip(images, tmp_path / "clip", Fraction(25), format)
    assert count_frames(path) == 9
    whole = read_clip(path)
    some = read_clip(path, keep={7, 0, 3})
    assert torch.equal(some.images, whole.images[[0, 3, 7]]) and some.rate == whole.rate
    with pytest.raises(ValueError, match="holds 1 frames, but 2 are needed"):
        read_clip(path, keep={0, 9})


def test_a_still_is_one_frame_and_nothing_is_no_clip(tmp_path):
    frames = write_clip(torch.zeros(1, 16, 16, 3), tmp_path / "still", Fraction(25), "png")
    assert count_frames(next(frames.iterdir())) == 1
    with pytest.raises(FileNotFoundError, match="does not exist"):
        count_frames(tmp_path / "nowhere.mp4")


def test_counting_sees_that_a_video_is_cut_short(tmp_path):
    path = write_clip(torch.rand(9, 64, 64, 3), tmp_path / "clip", Fraction(25), "mp4")
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(ValueError, match="a whole file is needed"):
        count_frames(path)


def test_frames_as_comfyui_saves_them_are_one_sequence(tmp_path):
    for number, level in ((10, 0.75), (2, 0.25), (1, 0.0)):
        picture = np.full((4, 6, 3), round(255 * level), np.uint8)
        Image.fromarray(picture).save(tmp_path / f"shot_{number:05}_.png")
    levels = read_clip(tmp_path).images.mean((1, 2, 3)).tolist()
    assert levels == pytest.approx([0.0, 0.25, 0.75], abs=3e-3)
