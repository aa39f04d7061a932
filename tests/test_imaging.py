"""Colour, sizes, layer encodings and the contact sheet."""

import os

import pytest
import torch
from PIL import Image

from comfyui_strata.imaging.atomic import replace_file
from comfyui_strata.imaging.checks import check_pixels
from comfyui_strata.imaging.colour import linear_to_srgb, srgb_to_linear
from comfyui_strata.imaging.encodings.layers import as_mask, decode, encode
from comfyui_strata.imaging.sizes.fit import Fit, common_fit
from comfyui_strata.imaging.viewing.contact_sheet import contact_sheet

SIZES = [(1, 16, 16), (1, 1, 1), (2, 17, 31), (4, 33, 16), (5, 16, 48), (6, 15, 50), (21, 40, 24)]
CELLS = [8, 16]  # pixels: Wan 2.1's, Wan 2.2's


def noise(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(sum(shape)))


# colour


@pytest.mark.parametrize(
    ("encoded", "linear"),
    [
        (0.0, 0.0),
        (0.04045, 0.04045 / 12.92),
        (0.5, 0.21404114),
        (1.0, 1.0),
        (188 / 255, 0.50288646),
        (-0.5, -0.21404114),
    ],
)
def test_srgb_curve_has_the_values_of_the_standard(encoded, linear):
    assert srgb_to_linear(torch.tensor(encoded, dtype=torch.float64)).item() == pytest.approx(linear, abs=1e-8)
    assert linear_to_srgb(torch.tensor(linear, dtype=torch.float64)).item() == pytest.approx(encoded, abs=1e-7)


def test_srgb_round_trip_keeps_highlights_and_negatives():
    x = torch.linspace(-4, 4, 20001)
    assert (linear_to_srgb(srgb_to_linear(x)) - x).abs().max() < 2e-6
    assert (srgb_to_linear(linear_to_srgb(x)) - x).abs().max() < 2e-6
    assert srgb_to_linear(x).diff().min() > 0


@pytest.mark.parametrize("curve", [srgb_to_linear, linear_to_srgb])
def test_srgb_gradients_are_finite_and_positive_everywhere(curve):
    x = torch.tensor([-1.0, -0.001, 0.0, 0.001, 0.5, 2.0], requires_grad=True)
    curve(x).sum().backward()
    assert torch.isfinite(x.grad).all()
    assert (x.grad > 0).all()


# sizes


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("size", SIZES)
def test_padded_size_is_the_smallest_the_network_takes(size, cell):
    frames, height, width = Fit(*size, cell).padded
    step = 2 * cell
    assert frames % 4 == 1 and height % step == 0 and width % step == 0
    assert 0 <= frames - size[0] < 4 and 0 <= height - size[1] < step and 0 <= width - size[2] < step


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("channels", [1, 3])
def test_pad_repeats_edges_and_crop_undoes_it(size, channels, cell):
    fit, images = Fit(*size, cell), noise(*size, channels)
    padded = fit.pad(images)
    assert padded.shape == (*fit.padded, channels)
    assert torch.equal(fit.crop(padded), images)
    frame, row, column = (torch.arange(p).clamp_max(s - 1) for p, s in zip(fit.padded, size, strict=True))
    assert torch.equal(padded, images[frame][:, row][:, :, column])


@pytest.mark.parametrize(
    ("size", "latent"),
    [
        ((1, 16, 16, 8), (1, 2, 2)), ((21, 480, 640, 8), (6, 60, 80)), ((6, 15, 50, 8), (3, 2, 8)),
        ((1, 16, 16, 16), (1, 2, 2)), ((33, 256, 256, 16), (9, 16, 16)), ((6, 15, 50, 16), (3, 2, 4)),
    ],
)  # fmt: skip
def test_latent_size(size, latent):
    assert Fit(*size).latent == latent


def covered(t: int, y: int, x: int, cell: int) -> tuple[slice, slice, slice]:
    """The pixels under a latent cell, by the definition of the VAE's strides."""
    frames = slice(0, 1) if t == 0 else slice(4 * t - 3, 4 * t + 1)
    return frames, slice(cell * y, cell * y + cell), slice(cell * x, cell * x + cell)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("size", SIZES)
def test_pool_mask_marks_a_cell_when_any_pixel_under_it_is_marked(size, cell):
    fit = Fit(*size, cell)
    mask = noise(*size) * (noise(*size, 2)[..., 0] > 0.995)
    latent = fit.pool_mask(mask)
    assert latent.shape == (1, *fit.latent) and latent.dtype == torch.float32
    padded = fit.pad(mask[..., None])[..., 0]
    for t, y, x in torch.cartesian_prod(*(torch.arange(n) for n in fit.latent)).reshape(-1, 3).tolist():
        assert latent[0, t, y, x].item() == float((padded[covered(t, y, x, cell)] > 0).any())


@pytest.mark.parametrize(("frame", "cell"), [(0, 0), (1, 1), (4, 1), (5, 2), (8, 2)])
def test_one_faint_pixel_marks_one_cell(frame, cell):
    mask = torch.zeros(9, 32, 48)
    mask[frame, 31, 8] = 1e-4  # an average over the cell would be lost to rounding
    assert Fit(9, 32, 48).pool_mask(mask).nonzero().tolist() == [[0, cell, 3, 1]]
    assert Fit(9, 32, 48, 16).pool_mask(mask).nonzero().tolist() == [[0, cell, 1, 0]]


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("size", SIZES)
def test_expand_mask_marks_exactly_the_pixels_under_marked_cells(size, cell):
    fit = Fit(*size, cell)
    latent = (noise(*fit.latent) > 0.5).float()
    expected = torch.zeros(fit.padded, dtype=torch.bool)
    for t, y, x in latent.nonzero().tolist():
        expected[covered(t, y, x, cell)] = True
    pixels = fit.expand_mask(latent)
    assert pixels.dtype == torch.bool
    assert torch.equal(pixels, expected[: size[0], : size[1], : size[2]])


def test_fit_refuses_other_sizes_and_empty_clips():
    fit = Fit(5, 20, 30)
    for use, wrong in [
        (fit.pad, noise(5, 20, 31, 3)),
        (fit.crop, noise(5, 20, 30, 3)),
        (fit.pool_mask, noise(4, 20, 30)),
        (fit.expand_mask, noise(2, 3, 4)),
    ]:
        with pytest.raises(ValueError, match="5 frames of 30x20 pixels"):
            use(wrong)
    with pytest.raises(ValueError, match="0 frames"):
        Fit(0, 16, 16)


def test_common_fit_keeps_the_cell_and_lets_a_still_go_with_a_clip():
    images = {"rgb": noise(6, 15, 50, 3), "depth": noise(1, 15, 50, 3)}
    assert common_fit(images) == Fit(6, 15, 50) and common_fit(images, cell=16) == Fit(6, 15, 50, 16)
    with pytest.raises(ValueError, match="rgb 50x15, depth 50x16"):
        common_fit({**images, "depth": noise(1, 16, 50, 3)}, cell=16)


# layers


@pytest.mark.parametrize("encoding", ["colour", "normal", "mask"])
def test_encode_makes_three_channels_and_changes_no_value(encoding):
    gray, rgb, rgba = noise(2, 3, 5, 1) * 3 - 1, noise(2, 3, 5, 3) * 3 - 1, noise(2, 3, 5, 4)
    assert torch.equal(encode(encoding, gray), torch.cat([gray] * 3, dim=-1))
    assert torch.equal(encode(encoding, rgb), rgb)
    assert torch.equal(encode(encoding, rgba), rgba[..., :3])


def test_decode_colour_clamps():
    assert decode("colour", torch.tensor([[[[-0.2, 0.4, 1.7]]]])).flatten().tolist() == pytest.approx([0, 0.4, 1])


def test_decode_normal_makes_unit_vectors_of_the_same_direction():
    images = noise(3, 9, 7, 3)
    before, after = 2 * images - 1, 2 * decode("normal", images) - 1
    assert (after.norm(dim=-1) - 1).abs().max() < 1e-4
    assert (torch.cosine_similarity(before, after, dim=-1) - 1).abs().max() < 1e-5
    assert torch.equal(decode("normal", torch.full((1, 1, 1, 3), 0.5)), torch.full((1, 1, 1, 3), 0.5))


def test_decode_mask_is_the_mean_in_all_channels():
    images = torch.tensor([[[[0.1, 0.2, 0.6], [1.0, 1.0, 1.6]]]])
    decoded = decode("mask", images)
    assert decoded.shape == (1, 1, 2, 3)
    assert decoded[0, 0].flatten().tolist() == pytest.approx([0.3] * 3 + [1.0] * 3)
    assert torch.equal(as_mask(images), decoded[..., 0])


def test_as_mask_ignores_the_alpha_channel():
    assert as_mask(torch.tensor([[[[0.25, 0.25, 0.25, 1.0]]]])).tolist() == [[[0.25]]]


@pytest.mark.parametrize("use", [encode, decode])
def test_unknown_encoding_names_the_known_ones(use):
    with pytest.raises(ValueError, match="'sound': use one of colour, normal, mask, depth"):
        use("sound", noise(1, 2, 2, 3))


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.zeros(0, 4, 4, 3), "is empty"),
        (torch.zeros(1, 0, 4, 3), "is empty"),
        (torch.zeros(4, 4, 3), "has shape"),
        (torch.zeros(1, 4, 4, 2), "has 2 channels"),
        (torch.tensor([0.0, float("nan"), 0.0]).reshape(3, 1, 1, 1), r"1 of 3 frames \(the first is frame 1\)"),
        (torch.tensor([0.0, 1.0, float("-inf")]).reshape(3, 1, 1, 1), r"1 of 3 frames \(the first is frame 2\)"),
    ],
)
def test_check_pixels_refuses_in_one_sentence(images, message):
    with pytest.raises(ValueError, match=f"^The plate .*{message}") as caught:
        check_pixels("The plate", images)
    assert "\n" not in str(caught.value) and str(caught.value).count(". ") == 0


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_check_pixels_accepts_pictures(channels):
    check_pixels("The plate", noise(1, 1, 1, channels) * 100 - 50)


# files


def test_a_folder_that_is_a_file_is_named_in_one_sentence(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=r"Could not write .*numbers\.json: .*; free some space or choose a folder"):
        replace_file(tmp_path / "file" / "numbers.json", b"{}")
    assert os.listdir(tmp_path) == ["file"]


# contact sheet


def test_contact_sheet_shows_every_layer_with_its_frames_and_label(tmp_path):
    red, green = torch.zeros(9, 32, 48, 3), torch.zeros(1, 33, 17, 3)
    red[..., 0], green[..., 1] = torch.linspace(0.2, 1, 9).reshape(9, 1, 1), 1
    path = contact_sheet({"rgb": red, "normal": green}, tmp_path / "naïve sheet.png", frames=3, given=["rgb"])
    sheet = Image.open(path).convert("RGB")
    colours = {colour for _, colour in sheet.getcolors(1 << 20)}
    # First, middle and last frame of the first layer; the only frame of the second.
    assert {(51, 0, 0), (153, 0, 0), (255, 0, 0), (0, 255, 0)} <= colours
    row = sheet.height // 2
    labels = [sheet.crop((0, top, 110, top + row)) for top in (0, row)]
    assert all(len(label.getcolors(1 << 20)) > 20 for label in labels)  # anti-aliased text on one background
    assert labels[0].tobytes() != labels[1].tobytes()
    assert os.listdir(tmp_path) == ["naïve sheet.png"]


def test_contact_sheet_tells_given_generated_and_exact_apart(tmp_path):
    sheets = {
        contact_sheet({"rgb": noise(2, 8, 8, 3)}, tmp_path / f"{i}.png", **role).read_bytes()
        for i, role in enumerate([{}, {"given": ["rgb"]}, {"exact": ["rgb"]}])
    }
    assert len(sheets) == 3


@pytest.mark.parametrize(
    ("layers", "frames", "message"),
    [
        ({}, 4, "0 layers"),
        ({"rgb": torch.zeros(1, 4, 4, 3)}, 0, "0 frames"),
        ({"rgb": torch.full((1, 4, 4, 3), float("nan"))}, 4, "The layer rgb has NaN"),
    ],
)
def test_contact_sheet_refuses_and_leaves_nothing(tmp_path, layers, frames, message):
    with pytest.raises(ValueError, match=message):
        contact_sheet(layers, tmp_path / "sheet.png", frames)
    assert os.listdir(tmp_path) == []
