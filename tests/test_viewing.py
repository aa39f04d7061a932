"""What is made for looking at: the viewer's files, a wipe, a sheet."""

import numpy as np
import pytest
import torch

from comfyui_strata.imaging.viewing.contact_sheet import draw_sheet
from comfyui_strata.imaging.viewing.viewer_file import KINDS, viewer_name, write_viewer_file
from comfyui_strata.imaging.viewing.wipe import SWEEPS, wipe
from comfyui_strata.joint.families import FAMILIES


def clip(frames=3, height=4, width=6, channels=3) -> torch.Tensor:
    return torch.rand(frames, height, width, channels, generator=torch.Generator().manual_seed(0))


class TestViewerFile:
    def test_every_layer_has_its_kind(self):
        assert set(KINDS) == {layer for family in FAMILIES.values() for layer in family.pictures}

    @pytest.mark.parametrize("channels", [1, 3, 4])
    def test_frames_lie_one_after_the_other(self, tmp_path, channels):
        images = clip(channels=channels)
        about = write_viewer_file(images, tmp_path / "x.half", "rgb")
        stored = np.fromfile(tmp_path / "x.half", "<f2").reshape(3, 4, 6, channels)
        assert np.array_equal(stored, images.half().numpy())
        assert about == {"name": "rgb", "kind": "colour", "frames": 3, "height": 4, "width": 6, "channels": channels,
                         "filename": "x.half", "subfolder": "", "type": "temp"}

    def test_what_is_broken_is_kept_to_be_seen(self, tmp_path):
        images = clip(1)
        images[0, 0, 0] = torch.tensor([float("nan"), float("inf"), -2.0])
        write_viewer_file(images, tmp_path / "x.half", "rgb")
        first = np.fromfile(tmp_path / "x.half", "<f2")[:3]
        assert np.isnan(first[0]) and np.isinf(first[1]) and first[2] == -2

    def test_wide_pictures_are_scaled_by_their_means(self, tmp_path):
        images = clip(2, 8, 12)
        about = write_viewer_file(images, tmp_path / "x.half", "normal", most=6)
        assert (about["height"], about["width"], about["kind"]) == (4, 6, "normal")
        stored = torch.from_numpy(np.fromfile(tmp_path / "x.half", "<f2").reshape(2, 4, 6, 3)).float()
        means = images.view(2, 4, 2, 6, 2, 3).mean(dim=(2, 4))
        assert (stored - means).abs().max() < 1e-3

    def test_masks_are_taken_and_other_shapes_refused(self, tmp_path):
        assert write_viewer_file(clip()[..., 0], tmp_path / "m.half", "alpha")["channels"] == 1
        for broken in (torch.zeros(0, 4, 6, 3), torch.zeros(4, 6), torch.zeros(1, 4, 6, 2)):
            with pytest.raises(ValueError, match="The layer 'rgb' has shape"):
                write_viewer_file(broken, tmp_path / "y.half", "rgb")
        assert [path.name for path in tmp_path.iterdir()] == ["m.half"]

    def test_names_are_never_the_same_and_always_files(self, tmp_path):
        names = {viewer_name(tmp_path, "../ä b") for _ in range(3)}
        assert len(names) == 3 and all(name.parent == tmp_path for name in names)


class TestWipe:
    def test_a_still_edge(self):
        a, b = torch.zeros(2, 4, 10, 3), torch.full((1, 4, 10, 4), 0.5)
        out = wipe(a, b, "still", 0.4)
        assert out.shape == (2, 4, 10, 3)
        assert (out[:, :, :4] == 0).all() and (out[:, :, 4] == 1).all() and (out[:, :, 5:] == 0.5).all()

    @pytest.mark.parametrize(("sweep", "first", "last"), [(SWEEPS[0], 0.5, 0.5), (SWEEPS[1], 0.5, 0.0)])
    def test_a_moving_edge_begins_with_b_and_ends_where_it_says(self, sweep, first, last):
        out = wipe(torch.zeros(5, 4, 10, 1), torch.full((5, 4, 10, 1), 0.5), sweep)
        assert out[0, 0, 5, 0] == first and out[-1, 0, 5, 0] == last
        assert sorted({float(value) for value in out.unique()}) == [0.0, 0.5, 1.0]

    def test_highlights_pass(self):
        assert wipe(torch.full((1, 2, 8, 3), 7.0), torch.zeros(1, 2, 8, 3), "still", 1.0).max() == 7

    def test_refusals(self):
        with pytest.raises(ValueError, match="Clip A is 10x4 and clip B 8x4"):
            wipe(torch.zeros(1, 4, 10, 3), torch.zeros(1, 4, 8, 3))
        with pytest.raises(ValueError, match="There is no sweep 'up'"):
            wipe(torch.zeros(1, 4, 8, 3), torch.zeros(1, 4, 8, 3), "up")


def test_a_sheet_without_roles_has_names_alone():
    layers = {"rgb": 0 * clip(), "alpha": 0 * clip(channels=1)}  # black: what is bright is a word
    plain, told = (np.asarray(draw_sheet(layers, 2, roles)) for roles in (None, {"rgb": "given"}))
    assert plain.shape == told.shape and plain.shape[2] == 3
    assert plain.max() > 200 and (plain != told).any()
