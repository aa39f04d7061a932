"""Videos with alpha: errors, counts, rates, sound and timecode there and back, and what is refused."""

from fractions import Fraction

import av
import numpy as np
import pytest
import torch

from comfyui_strata.imaging.files.alpha_video import CODECS, Sound, save_alpha_video, write_alpha_video
from comfyui_strata.imaging.files.read_alpha_video import read_alpha_video
from comfyui_strata.imaging.files.timecode import Timecode
from comfyui_strata.imaging.files.video import mp4_bytes
from comfyui_strata.tests.disks import disk_of, files_in

# The largest error of colour and of alpha. ProRes: 10 bits of each and a fine quantiser. VP9: 8 bits, colour at half
# size, and at this quality some codes off.
LIMITS = {"prores 4444": (0.0035, 0.0008), "ffv1": (0.51 / 65535, 0.51 / 65535), "vp9": (0.05, 3.1 / 255)}
RATES = [(Fraction(24000, 1001), "01:00:00:00"), (Fraction(25), "10:59:59:24"), (Fraction(30000, 1001), "00:00:59;28")]


def rgba(frames: int = 5, height: int = 48, width: int = 66) -> torch.Tensor:
    """Smooth moving colours, [F, H, W, 4], with an alpha from 0 over a ramp to 1."""
    t = torch.arange(float(frames)).view(-1, 1, 1)
    y, x = torch.arange(float(height)).view(1, -1, 1), torch.arange(float(width)).view(1, 1, -1)
    red, green = 0.5 + 0.5 * torch.sin(x / 20 + t / 5 + 0 * y), 0.5 + 0.5 * torch.cos(y / 15 + 0 * (x + t))
    blue, alpha = (x + y + 0 * t) / (height + width), ((x - 20 + t + 0 * y) / 20).clamp(0, 1)
    return torch.stack([red, green, blue, alpha], dim=-1)


def there_and_back(tmp_path, codec, images, alpha=None, rate=Fraction(25), **how):
    path = tmp_path / f"a{CODECS[codec].suffix}"
    write_alpha_video(path, images, alpha, codec, rate, **how)
    return read_alpha_video(path)


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize(("rate", "label"), RATES, ids=["23.976", "25", "29.97"])
def test_alpha_colour_count_rate_and_timecode_come_back(tmp_path, codec, rate, label):
    images = rgba(7)
    clip = there_and_back(tmp_path, codec, images, rate=rate, timecode=Timecode.parse(label, rate))
    colour, alpha = LIMITS[codec]
    assert clip.images.shape == (7, 48, 66, 3) and clip.rate == rate and str(clip.timecode) == label
    assert (clip.images - images[..., :3]).abs().max() <= colour
    assert (clip.alpha - images[..., 3]).abs().max() <= alpha
    assert clip.stated == "straight" and clip.sound is None


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("size", [(37, 51), (38, 51), (40, 34)])
def test_sizes_that_no_encoder_likes(tmp_path, codec, size):
    # swscale leaves the last columns of some of them out, or shifts the colours of odd heights.
    images = rgba(2, *size)
    clip = there_and_back(tmp_path, codec, images)
    assert (clip.images - images[..., :3]).abs().max() <= LIMITS[codec][0]
    assert (clip.alpha - images[..., 3]).abs().max() <= LIMITS[codec][1]


def test_pixels_are_converted_by_one_thread(tmp_path):
    # Several wrote over the starts of each other's rows: about one in ten frames of this size had a block of noise.
    images = rgba(20)
    clip = there_and_back(tmp_path, "prores 4444", images)
    assert (clip.images - images[..., :3]).abs().amax() <= LIMITS["prores 4444"][0]


@pytest.mark.parametrize("codec", CODECS)
def test_an_alpha_of_one_stays_one_and_of_nothing_nothing(tmp_path, codec):
    images = torch.full((2, 16, 34, 3), 0.5)
    mask = torch.zeros(1, 16, 34)
    mask[:, :, 16:] = 1
    clip = there_and_back(tmp_path, codec, images, mask)
    assert clip.alpha[:, :, :8].max() == 0 and clip.alpha[:, :, 24:].min() == 1
    assert there_and_back(tmp_path, codec, images).alpha.min() == 1  # none given: opaque


def test_premultiplied_is_over_black_and_comes_back_straight(tmp_path):
    images = rgba(2)
    path = tmp_path / "a.mkv"
    write_alpha_video(path, images, None, "ffv1", Fraction(25), premultiplied=True)
    stored = read_alpha_video(path, "straight").images  # the file's own numbers
    assert (stored - images[..., :3] * images[..., 3:]).abs().max() <= 0.51 / 65535
    clip = read_alpha_video(path)
    assert clip.stated == "premultiplied"
    seen = images[..., 3] > 0.04
    assert (clip.images - images[..., :3])[seen].abs().max() < 5e-4
    with av.open(str(path)) as container:
        assert container.metadata["COMMENT"] == "alpha: premultiplied, matte black"


@pytest.mark.parametrize("codec", CODECS)
def test_sound_is_kept_and_cut_to_the_pictures(tmp_path, codec):
    time = torch.arange(44100) / 44100
    tone = Sound(torch.stack([0.5 * torch.sin(6.2832 * 440 * time), 0.25 * torch.sin(6.2832 * 440 * time)]), 44100)
    clip = there_and_back(tmp_path, codec, rgba(5), rate=Fraction(30000, 1001), sound=tone)
    seconds = clip.sound.samples.shape[1] / clip.sound.rate
    assert clip.sound.samples.shape[0] == 2 and seconds == pytest.approx(5 * 1001 / 30000, abs=1e-4)
    loudness = clip.sound.samples[:, 1000:6000].square().mean(dim=1).sqrt().tolist()
    assert loudness == pytest.approx([0.5 / 2**0.5, 0.25 / 2**0.5], rel=0.05)
    if codec != "vp9":  # 24 bits, not Opus
        heard = clip.sound.samples
        assert (heard - tone.samples[:, : heard.shape[1]]).abs().max() < 2**-22


def test_files_of_others(tmp_path):
    images = rgba(3)
    path = tmp_path / "a.mov"
    with av.open(str(path), "w") as container:  # QuickTime Animation, packed, 8 bits
        stream = container.add_stream("qtrle", rate=24)
        stream.height, stream.width, stream.pix_fmt = 48, 66, "argb"
        for picture in images:
            codes = (picture * 255).round().byte().numpy()
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(codes[..., [3, 0, 1, 2]]), format="argb")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    clip = read_alpha_video(path)
    assert clip.stated == "" and clip.timecode is None
    assert (clip.alpha - images[..., 3]).abs().max() <= 0.51 / 255
    assert (clip.images - images[..., :3]).abs().max() <= 0.51 / 255
    plain = tmp_path / "b.mp4"
    plain.write_bytes(mp4_bytes(images[..., :3], Fraction(24)))
    clip = read_alpha_video(plain)
    assert clip.stated is None and clip.alpha.min() == 1 and len(clip.images) == 3


def test_metadata_and_values_outside(tmp_path):
    images = rgba(1)
    saved = save_alpha_video(tmp_path, "Ä b", images, None, "prores 4444", Fraction(24), texts={"workflow": '{"ü": 1}'})
    assert saved.path.name == "Ä b_v001.mov" and not saved.clamped
    with av.open(str(saved.path)) as container:
        assert container.metadata["workflow"] == '{"ü": 1}'
        assert container.metadata["comment"] == "alpha: straight, no matte colour"
    again = save_alpha_video(tmp_path, "Ä b", 2 * images, images[..., 3], "vp9", Fraction(24))
    assert again.path.name == "Ä b_v002.webm" and again.clamped
    assert files_in(tmp_path) == ["Ä b_v001.mov", "Ä b_v002.webm"]


def test_a_still_of_either_goes_with_a_clip_of_the_other(tmp_path):
    images, alpha = rgba(3)[..., :3], torch.rand(3, 48, 66)
    for name, still, clip in (("matte", images, alpha[:1]), ("picture", images[:1], alpha)):
        made = read_alpha_video(save_alpha_video(tmp_path, name, still, clip, "ffv1", Fraction(24)).path)
        assert (made.images - still).abs().max() < 1e-4 and (made.alpha - clip).abs().max() < 1e-4
        assert len(made.images) == 3


def test_an_alpha_outside_0_to_1_is_clamped_and_said(tmp_path):
    alpha = torch.tensor([-0.5, 0.5, 1.5]).view(1, 1, 3).expand(1, 48, 3)
    saved = save_alpha_video(tmp_path, "a", torch.full((1, 48, 3, 3), 0.5), alpha, "ffv1", Fraction(24))
    assert saved.clamped and (read_alpha_video(saved.path).alpha - alpha.clamp(0, 1)).abs().max() < 1e-4


# refusals


@pytest.mark.parametrize("codec", CODECS)
def test_a_full_disk_leaves_nothing(tmp_path, codec):
    images = torch.rand(8, 64, 64, 4)
    with disk_of(4000), pytest.raises(OSError, match="Could not write .*shot: .*; free some space") as caught:
        save_alpha_video(tmp_path, "shot", images, None, codec, Fraction(24))
    assert "\n" not in str(caught.value) and files_in(tmp_path) == []


def test_an_interruption_leaves_nothing(tmp_path):
    def cancel():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        save_alpha_video(tmp_path, "shot", rgba(3), None, "ffv1", Fraction(24), after_frame=cancel)
    assert files_in(tmp_path) == []


@pytest.mark.parametrize("codec", CODECS)
def test_a_truncated_file_is_refused(tmp_path, codec):
    path = tmp_path / f"a{CODECS[codec].suffix}"
    write_alpha_video(path, rgba(12), None, codec, Fraction(24))
    path.write_bytes(path.read_bytes()[: int(0.6 * path.stat().st_size)])
    with pytest.raises(ValueError, match="a whole file is needed"):
        read_alpha_video(path)


def test_what_does_not_go_together(tmp_path):
    images, rate = rgba(3), Fraction(24)
    with pytest.raises(ValueError, match="images 3, alpha 2 frames"):
        save_alpha_video(tmp_path, "a", images, torch.zeros(2, 48, 66), "ffv1", rate)
    with pytest.raises(ValueError, match="images 66x48, alpha 64x48"):
        save_alpha_video(tmp_path, "a", images, torch.zeros(3, 48, 64), "ffv1", rate)
    with pytest.raises(ValueError, match="The alpha has NaN or infinite pixels"):
        save_alpha_video(tmp_path, "a", images, torch.full((3, 48, 66), torch.nan), "ffv1", rate)
    with pytest.raises(ValueError, match="'h264': use one of prores 4444, ffv1, vp9"):
        save_alpha_video(tmp_path, "a", images, None, "h264", rate)
    with pytest.raises(ValueError, match="The sound has 3 channels, but 1, 2 or 6"):
        save_alpha_video(tmp_path, "a", images, None, "ffv1", rate, sound=Sound(torch.zeros(3, 9), 48000))
    assert files_in(tmp_path) == []
