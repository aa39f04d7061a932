"""Frames on disk: numbering, versions that never overwrite, going on after an interruption, and disks that refuse."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from comfyui_strata.imaging.files import exr_file, versions
from comfyui_strata.imaging.files.deep_stills import SUFFIXES, still_bytes, still_shape
from comfyui_strata.imaging.files.layer_delivery import save_exr, save_stills
from comfyui_strata.imaging.files.layer_exr import Delivery
from comfyui_strata.imaging.files.read_layer_exr import read_layers
from comfyui_strata.imaging.files.versions import first_number, frames_at
from comfyui_strata.tests.disks import disk_of, files_in


def layers(frames: int = 3, size: int = 8) -> dict[str, torch.Tensor]:
    """An rgb and an alpha clip."""
    draw = torch.Generator().manual_seed(frames)
    return {"rgb": torch.rand(frames, size, size, 3, generator=draw),
            "alpha": torch.rand(frames, size, size, 1, generator=draw)}  # fmt: skip


def exr(parent, given=None, **how):
    pytest.importorskip("OpenEXR")
    return save_exr(given or layers(), Delivery(), parent, "sh010", **how)


# numbers and versions


def test_frames_start_at_1001_and_versions_stand_side_by_side(tmp_path):
    first, second = exr(tmp_path), exr(tmp_path)
    assert (first.version, second.version) == (1, 2) and (first.written, first.kept) == (3, 0)
    names = [f"sh010_v00{v}/sh010_v00{v}.{n}.exr" for v in (1, 2) for n in (1001, 1002, 1003)]
    assert files_in(tmp_path) == names
    other = exr(tmp_path, first=990)
    assert other.folder.name == "sh010_v003" and first_number(frames_at(other.folder, ".exr")[0]) == 990


def test_a_version_that_lies_there_as_a_file_counts_too(tmp_path):
    (tmp_path / "sh010_v041.mov").touch()
    (tmp_path / "sh010_extra_v050").mkdir()
    assert exr(tmp_path).version == 42


def test_a_version_someone_else_takes_first_is_not_touched(tmp_path, monkeypatch):
    real, asked = versions.next_version, []

    def slow(parent, name):
        number = real(parent, name)
        if not asked:
            asked.append(number)
            (parent / f"{name}_v{number:03}").mkdir()  # another machine, in between
        return number

    monkeypatch.setattr(versions, "next_version", slow)
    assert exr(tmp_path).version == 2 and list((tmp_path / "sh010_v001").iterdir()) == []


def test_going_on_keeps_whole_frames_and_writes_the_others(tmp_path):
    done = exr(tmp_path)
    frames = frames_at(done.folder, ".exr")
    kept = frames[0].read_bytes()
    frames[1].write_bytes(frames[1].read_bytes()[:-40])
    frames[2].unlink()
    again = exr(tmp_path, version=1)
    assert (again.written, again.kept) == (2, 1) and frames[0].read_bytes() == kept
    clip = read_layers(frames_at(again.folder, ".exr"))
    assert torch.equal(clip.layers["alpha"][..., :1], layers()["alpha"])


@pytest.mark.parametrize("other", [{"rgb": layers()["rgb"]}, layers(size=6)], ids=["layers", "size"])
def test_another_clip_is_not_written_over_a_version(tmp_path, other):
    frames = frames_at(exr(tmp_path).folder, ".exr")
    before = [frame.read_bytes() for frame in frames]
    with pytest.raises(ValueError, match="sh010_v001.1001.exr is there already, with other layers or of another size"):
        exr(tmp_path, other, version=1)
    assert [frame.read_bytes() for frame in frames] == before


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_nor_are_stills(tmp_path, suffix):
    done = save_stills({"rgb": layers()["rgb"]}, suffix, tmp_path, "sh010")
    before = {path: path.read_bytes() for path in done.folder.rglob(f"*{suffix}")}
    assert save_stills({"rgb": layers()["rgb"]}, suffix, tmp_path, "sh010", version=1).kept == len(before) == 3
    with pytest.raises(ValueError, match="is there already, with other layers or of another size"):
        save_stills({"rgb": layers(size=6)["rgb"]}, suffix, tmp_path, "sh010", version=1)
    assert {path: path.read_bytes() for path in done.folder.rglob(f"*{suffix}")} == before


def test_going_on_with_a_longer_version_is_refused(tmp_path):
    exr(tmp_path)
    before = files_in(tmp_path)
    with pytest.raises(ValueError, match="already holds sh010_v001.1003.exr, which is no frame of this clip"):
        exr(tmp_path, layers(2), version=1)
    assert files_in(tmp_path) == before


def test_an_interruption_leaves_whole_frames_that_are_gone_on_with(tmp_path):
    pytest.importorskip("OpenEXR")
    steps = iter([None, KeyboardInterrupt])

    def cancel():
        if next(steps):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        exr(tmp_path, after_frame=cancel)
    assert files_in(tmp_path) == ["sh010_v001/sh010_v001.1001.exr", "sh010_v001/sh010_v001.1002.exr"]
    assert exr(tmp_path, version=1).kept == 2


def test_a_still_goes_with_every_frame(tmp_path):
    given = layers()
    given["bg"] = given["rgb"][:1]
    clip = read_layers(frames_at(exr(tmp_path, given).folder, ".exr"), ["bg"], display=False)
    assert torch.equal(clip.layers["bg"][0], clip.layers["bg"][2]) and len(clip.layers["bg"]) == 3


def test_names_with_blanks_and_unicode(tmp_path):
    pytest.importorskip("OpenEXR")
    done = save_exr(layers(), Delivery(), tmp_path / "Straße – 東京", "shot 1 [a]", version=0)
    assert len(frames_at(done.folder, ".exr")) == 3 and save_exr(
        layers(), Delivery(), tmp_path / "Straße – 東京", "shot 1 [a]").version == 2  # fmt: skip


# disks that refuse


def test_a_full_disk_is_one_sentence_and_leaves_whole_frames_only(tmp_path):
    pytest.importorskip("OpenEXR")
    given = {"rgb": torch.zeros(2, 96, 96, 3)}
    given["rgb"][1] = torch.rand(96, 96, 3)
    with disk_of(6000), pytest.raises(OSError, match="Could not write .*1002.exr: .* too large; free some") as caught:
        save_exr(given, Delivery(), tmp_path, "sh010")
    assert "\n" not in str(caught.value) and files_in(tmp_path) == ["sh010_v001/sh010_v001.1001.exr"]
    with disk_of(6000), pytest.raises(OSError, match="Could not write"):
        save_stills({"rgb": given["rgb"][1:]}, ".png", tmp_path, "still")
    assert not (tmp_path / "still_v001").exists()


def test_the_last_bytes_that_do_not_fit_are_noticed(tmp_path):
    # The OpenEXR library itself says nothing when they are still in its buffer.
    pytest.importorskip("OpenEXR")
    part = exr_file.Part("", {}, {"Y": np.zeros((4, 4), np.float32)})
    size = len(exr_file.exr_bytes([part]))
    with disk_of(size - 1), pytest.raises(OSError, match="too large"):
        save_exr({"depth_metres": torch.zeros(1, 4, 4, 1)}, Delivery(), tmp_path, "a")
    assert files_in(tmp_path) == []


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(OSError, match="Could not write .*Permission denied; free some space or choose a folder"):
        exr(tmp_path)


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="no folder here refuses even root")
def test_a_folder_that_takes_no_files():
    with pytest.raises(OSError, match="Could not write /proc/self/sh010: .*; free some space or choose a folder"):
        exr(Path("/proc/self"))


def test_a_file_in_the_way_of_a_folder(tmp_path):
    (tmp_path / "shots").write_text("mine")
    with pytest.raises(OSError, match="Could not write"):
        exr(tmp_path / "shots")
    with pytest.raises(OSError, match="Could not write"):
        exr(tmp_path / "shots", version=7)
    assert files_in(tmp_path) == ["shots"]


def test_nothing_is_made_for_layers_that_are_refused(tmp_path):
    broken = layers()
    broken["rgb"][1, 0, 0, 0] = torch.inf
    for save in (lambda: exr(tmp_path, broken), lambda: save_stills(broken, ".png", tmp_path, "a")):
        with pytest.raises(ValueError, match="rgb layer has NaN or infinite"):
            save()
    assert files_in(tmp_path) == []


# stills


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_stills_hold_16_bits(suffix, channels):
    cv2 = pytest.importorskip("cv2")
    picture = torch.rand(7, 11, channels)
    data = still_bytes(picture, suffix)
    codes = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    order = {1: [0], 3: [2, 1, 0], 4: [2, 1, 0, 3]}[channels]
    assert codes.dtype == np.uint16
    assert np.abs(codes.reshape(7, 11, -1)[..., order] / 65535 - picture.numpy()).max() <= 0.51 / 65535
    assert still_shape(data) == (7, 11, channels)
    assert still_shape(data[: len(data) // 2]) is None and still_shape(b"") is None


def test_every_layer_has_a_folder_and_png_holds_the_graph(tmp_path):
    done = save_stills(layers(2), ".png", tmp_path, "sh010", texts={"workflow": '{"a": "ü"}'})
    assert files_in(done.folder) == [
        f"{layer}/sh010_{layer}_v001.{n}.png" for layer in ("alpha", "rgb") for n in (1001, 1002)
    ]
    with Image.open(done.folder / "rgb/sh010_rgb_v001.1001.png") as picture:
        assert picture.info["workflow"] == '{"a": "ü"}' and picture.mode == "RGB"
    with Image.open(done.folder / "alpha/sh010_alpha_v001.1001.png") as picture:
        assert picture.mode == "I;16"
    assert done.notes == () and save_stills(layers(2), ".png", tmp_path, "sh010", version=1).kept == 4
    assert save_stills(layers(2), ".tiff", tmp_path, "sh010").folder.name == "sh010_v002"


def test_values_that_stills_cannot_hold_are_said(tmp_path):
    given = layers(2)
    given["rgb"][1, 0, 0, 0] = 1.5
    (note,) = save_stills(given, ".png", tmp_path, "a").notes
    assert note.startswith("rgb has values outside 0..1, which png cannot hold: they were clamped")


# finding frames


def test_frames_are_found_in_order_without_gaps(tmp_path):
    for number in (9, 10, 11):
        (tmp_path / f"a.{number}.exr").touch()
    (tmp_path / ".a.12.exr").touch()
    assert [path.name for path in frames_at(tmp_path, ".exr")] == ["a.9.exr", "a.10.exr", "a.11.exr"]
    assert frames_at(tmp_path / "a.10.exr", ".exr") == [tmp_path / "a.10.exr"]
    (tmp_path / "a.10.exr").unlink()
    with pytest.raises(ValueError, match="lacks frame 10"):
        frames_at(tmp_path, ".exr")
    (tmp_path / "b.1.exr").touch()
    with pytest.raises(ValueError, match=r"holds 2 sequences \(a\., b\.\)"):
        frames_at(tmp_path, ".exr")
    with pytest.raises(ValueError, match="holds no numbered .png frames"):
        frames_at(tmp_path, ".png")
    with pytest.raises(FileNotFoundError, match="does not exist"):
        frames_at(tmp_path / "no", ".exr")
