"""Gamuts, highlights and OpenColorIO: published numbers, round trips, refusals."""

import sys

import pytest
import torch

from comfyui_strata.imaging.colour import (
    GAMUTS,
    LINEAR,
    SPACES,
    convert_colours,
    gamut_matrix,
    linear_to_srgb,
    luminance,
    srgb_to_linear,
)
from comfyui_strata.imaging.highlights import (
    compress,
    compress_clip,
    compress_plate,
    expand,
    restore_clip,
    restore_highlights,
)
from comfyui_strata.imaging.ocio import BUILT_IN, convert_with_ocio


def colours(*shape: int) -> torch.Tensor:
    """HDR and negative colours."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(5)) * 2


# AP0 to AP1: Academy S-2014-004. AP1 and AP0 to Rec.709: ACES's own CTL (Bradford). Rec.2020: ITU-R BT.2087.
PUBLISHED = {
    ("ap0", "ap1"): ([[1.4514393161, -0.2365107469, -0.2149285693],
                      [-0.0765537734, 1.1762296998, -0.0996759264],
                      [0.0083161484, -0.0060324498, 0.9977163014]], 1e-10),
    ("ap1", "rec709"): ([[1.70505, -0.62179, -0.08326], [-0.13026, 1.14080, -0.01055], [-0.02400, -0.12897, 1.15297]],
                        6e-6),
    ("rec709", "ap1"): ([[0.61310, 0.33952, 0.04738], [0.07019, 0.91635, 0.01345], [0.02062, 0.10957, 0.86981]], 1e-5),
    ("ap0", "rec709"): ([[2.52169, -1.13413, -0.38756], [-0.27648, 1.37272, -0.09624], [-0.01538, -0.15298, 1.16835]],
                        6e-6),
    ("rec2020", "rec709"): ([[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]], 6e-5),
    ("rec709", "rec2020"): ([[0.6274, 0.3293, 0.0433], [0.0691, 0.9195, 0.0114], [0.0164, 0.0880, 0.8956]], 6e-5),
    ("p3d65", "rec709"): ([[1.2249, -0.2249, 0.0], [-0.0421, 1.0421, 0.0], [-0.0196, -0.0786, 1.0983]], 6e-5),
}  # fmt: skip


@pytest.mark.parametrize("pair", PUBLISHED, ids="-".join)
def test_gamut_matrices_have_the_published_numbers(pair):
    expected, limit = PUBLISHED[pair]
    matrix = gamut_matrix(*pair)
    assert matrix.dtype == torch.float64
    assert (matrix - torch.tensor(expected, dtype=torch.float64)).abs().max() < limit


@pytest.mark.parametrize("target", GAMUTS)
@pytest.mark.parametrize("source", GAMUTS)
def test_gamut_matrices_keep_white_and_undo_each_other(source, target):
    there, back = gamut_matrix(source, target), gamut_matrix(target, source)
    assert (there.sum(1) - 1).abs().max() < 1e-14
    assert (there @ back - torch.eye(3, dtype=torch.float64)).abs().max() < 1e-13
    assert (gamut_matrix("ap0", target) @ gamut_matrix(source, "ap0") - there).abs().max() < 1e-13


def test_luminance_has_the_weights_of_bt709():
    weights = luminance(torch.eye(3, dtype=torch.float64))[:, 0]
    assert weights.tolist() == pytest.approx([0.2126, 0.7152, 0.0722], abs=5e-5)
    assert float(weights.sum()) == pytest.approx(1, abs=1e-15)


@pytest.mark.parametrize("target", SPACES)
@pytest.mark.parametrize("source", SPACES)
def test_conversions_come_back_with_highlights_negatives_and_alpha(source, target):
    images = colours(2, 3, 5, 4)
    there = convert_colours(images, source, target)
    assert there.shape == images.shape and there.dtype == images.dtype
    assert torch.equal(there[..., 3], images[..., 3])
    assert (convert_colours(there, target, source) - images).abs().max() < 3e-5
    if source == target:
        assert torch.equal(there, images)


def test_conversion_is_curve_matrix_curve():
    images = colours(1, 2, 3, 3).double()
    linear = srgb_to_linear(images)
    slow = torch.stack([gamut_matrix("rec709", "p3d65") @ pixel for pixel in linear.reshape(-1, 3)]).view_as(images)
    assert (convert_colours(images, "sRGB", "Display P3") - linear_to_srgb(slow)).abs().max() < 1e-12
    assert torch.equal(convert_colours(images, "sRGB", LINEAR), linear)


def test_unknown_spaces_and_gamuts_are_named():
    with pytest.raises(ValueError, match="'ACES'.*ACEScg"):
        convert_colours(colours(1, 1, 1, 3), "ACES", "sRGB")
    with pytest.raises(ValueError, match="'p3'.*p3d65"):
        gamut_matrix("p3", "ap1")


# highlights


@pytest.mark.parametrize("knee", [0.0, 0.5, 0.8])
def test_shoulder_is_identity_below_the_knee_smooth_rising_and_below_one(knee):
    x = torch.linspace(-2, 20, 22001, dtype=torch.float64)
    y = compress(x, knee)
    assert torch.equal(y[x <= knee], x[x <= knee]) and y.max() < 1
    slope = y.diff() / x.diff()
    assert slope.min() > 0 and slope.diff().abs().max() < 3 * (x[1] - x[0]) / (1 - knee)  # no corner
    assert (expand(y, knee) - x).abs().max() < 1e-10


def test_shoulder_stays_below_one_for_any_float():
    largest = torch.tensor([1e6, 65504.0, torch.finfo(torch.float32).max])
    assert compress(largest, 0.8).max() < 1
    assert torch.isfinite(expand(compress(largest, 0.8), 0.8)).all()


def test_highlights_come_back_as_closely_as_the_docstring_says():
    for value, share in ((100.0, 1e-4), (1e4, 1e-2)):
        assert expand(compress(torch.tensor(value), 0.8), 0.8).item() == pytest.approx(value, rel=share)


def test_restored_compressed_plate_is_the_plate():
    plate = torch.cat([colours(1, 8, 8, 3).abs() * 50, colours(1, 8, 8, 3)], dim=1)
    compressed = compress_plate(plate, 0.8)
    assert compressed.max() < 1 and plate.max() > 100
    light = srgb_to_linear(compressed)
    restored = restore_highlights(light, plate, 0.8)
    assert ((restored - plate).abs() <= 1e-6 * plate.abs() + 1e-7).all()
    calm = linear_to_srgb(plate) <= 0.8
    assert torch.equal(restored[calm], light[calm]) and 0 < calm.float().mean() < 1


def test_a_layer_gets_the_plates_highlights_in_proportion():
    plate = torch.full((1, 2, 2, 3), 8.0)
    light = srgb_to_linear(compress_plate(plate, 0.8))
    assert torch.allclose(restore_highlights(0.25 * light, plate, 0.8), 0.25 * plate)


def test_highlight_clips_take_stills_spaces_and_four_channels():
    plate = colours(3, 4, 5, 4).abs()
    made = compress_clip(plate, 0.8, LINEAR)
    assert made.shape == (3, 4, 5, 3) and torch.equal(made[1], compress_plate(plate[1, ..., :3], 0.8))
    back = restore_clip(made, plate, 0.8, LINEAR)
    assert torch.allclose(back, plate[..., :3], rtol=1e-5)
    encoded = convert_colours(plate, LINEAR, "sRGB")
    assert torch.allclose(restore_clip(made, encoded, 0.8, "sRGB"), encoded[..., :3], rtol=1e-5)
    assert restore_clip(made[:1], plate, 0.8, LINEAR).shape == back.shape
    with pytest.raises(ValueError, match="layer 5x4, plate 5x3"):
        restore_clip(made, plate[:, :3], 0.8, LINEAR)
    with pytest.raises(ValueError, match="layer 2, plate 3"):
        restore_clip(made[:2], plate, 0.8, LINEAR)
    with pytest.raises(ValueError, match="The plate has NaN"):
        compress_clip((-plate).log(), 0.8, LINEAR)


def test_wrong_knees_and_values_of_one_are_refused():
    with pytest.raises(ValueError, match="knee is 1.0"):
        compress(torch.ones(1), 1.0)
    with pytest.raises(ValueError, match="values below 1"):
        expand(torch.ones(1), 0.8)


# OpenColorIO


def test_ocio_without_the_library_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "PyOpenColorIO", None)
    with pytest.raises(ImportError, match="pip install opencolorio"):
        convert_with_ocio(colours(1, 1, 1, 3), "ACEScg", "ACES2065-1")


# Names in the library's built-in ACES configs.
OCIO_NAMES = {
    "sRGB": "sRGB Encoded Rec.709 (sRGB)", LINEAR: "Linear Rec.709 (sRGB)", "ACEScg (AP1)": "ACEScg",
    "ACES2065-1 (AP0)": "ACES2065-1", "linear P3-D65": "Linear P3-D65", "Display P3": "sRGB Encoded P3-D65",
    "linear Rec.2020": "Linear Rec.2020",
}  # fmt: skip


@pytest.mark.parametrize("target", SPACES)
@pytest.mark.parametrize("source", [LINEAR, "ACEScg (AP1)", "Display P3"])
def test_built_in_spaces_agree_with_ocio(source, target):
    pytest.importorskip("PyOpenColorIO", reason="the ocio extra is not installed")
    # Pale enough to be in every gamut: below 0 OpenColorIO goes on with the toe's straight line, where ours is odd.
    images = 0.8 + 0.2 * torch.rand(2, 4, 5, 4, generator=torch.Generator().manual_seed(1))
    images = images * torch.tensor([0.1, 3.0]).view(2, 1, 1, 1)
    theirs = convert_with_ocio(images, OCIO_NAMES[source], OCIO_NAMES[target], BUILT_IN[0])
    assert theirs.shape == images.shape and torch.equal(theirs[..., 3], images[..., 3])
    assert (convert_colours(images, source, target) - theirs).abs().max() < 2e-5


def test_ocio_refuses_unknown_spaces_and_configs_in_a_sentence(monkeypatch, tmp_path):
    pytest.importorskip("PyOpenColorIO", reason="the ocio extra is not installed")
    with pytest.raises(ValueError, match="no colour space 'ACESgc'.*ACEScg"):
        convert_with_ocio(colours(1, 1, 1, 3), "ACESgc", "ACEScg", BUILT_IN[0])
    monkeypatch.setenv("OCIO", str(tmp_path / "none.ocio"))
    with pytest.raises(ValueError, match="none.ocio could not be read.*variable OCIO"):
        convert_with_ocio(colours(1, 1, 1, 3), "ACEScg", "ACES2065-1")
