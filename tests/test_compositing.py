"""Operators, stacks, transforms, decontamination, despill: identities, slow versions, edge cases."""

import math
from fractions import Fraction

import pytest
import torch
import torch.nn.functional

from comfyui_strata.imaging.colour import LINEAR, linear_to_srgb, luminance, srgb_to_linear
from comfyui_strata.imaging.compositing.composite import (
    OPERATORS,
    PREMULTIPLIED,
    STRAIGHT,
    over,
    premultiply,
    unpremultiply,
)
from comfyui_strata.imaging.compositing.decontaminate import decontaminate, decontaminated, extended
from comfyui_strata.imaging.compositing.despill import SCREENS, despill, despill_clip, spill
from comfyui_strata.imaging.compositing.layer_stack import Layer, composite
from comfyui_strata.imaging.compositing.transform import Move, place
from comfyui_strata.imaging.files.alpha_video import write_alpha_video
from comfyui_strata.imaging.files.read_alpha_video import read_alpha_video
from comfyui_strata.training.scenes import render


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed + sum(shape)))


def rgba(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Straight colours with highlights and negatives, alpha with its ends."""
    alpha = (noise(40, 1, seed=seed) * 1.4 - 0.2).clamp(0, 1)
    return noise(40, 3, seed=seed) * 4 - 0.5, alpha


# operators


def slow_operator(name: str, cs: float, a: float, cb: float, b: float) -> tuple[float, float]:
    """Premultiplied colour and alpha of one channel, by the areas of Porter and Duff: A only, B only, both."""
    only_a, only_b, both = a * (1 - b), b * (1 - a), a * b
    parts = {
        "over": (cs, cb, cs), "under": (cs, cb, cb), "in": (None, None, cs), "out": (cs, None, None),
        "atop": (None, cb, cs), "screen": (cs, cb, cs + cb - cs * cb), "multiply": (cs, cb, cs * cb),
    }  # fmt: skip
    if name == "plus":
        return cs * a + cb * b, min(1.0, a + b)
    pairs = [(area, colour) for area, colour in zip((only_a, only_b, both), parts[name]) if colour is not None]
    return sum(area * colour for area, colour in pairs), sum(area for area, _ in pairs)


@pytest.mark.parametrize("name", OPERATORS)
def test_operators_are_the_areas_of_porter_and_duff(name):
    (A, a), (B, b) = rgba(1), rgba(2)
    if name == "screen":
        A, B = A.clamp(0, 1), B.clamp(0, 1)
    colours, alpha = OPERATORS[name](premultiply(A, a), a, premultiply(B, b), b)
    for i in range(len(A)):
        for channel in range(3):
            colour, cover = slow_operator(name, A[i, channel].item(), a[i].item(), B[i, channel].item(), b[i].item())
            assert colours[i, channel].item() == pytest.approx(colour, abs=1e-5)
            assert alpha[i].item() == pytest.approx(cover, abs=1e-6)


@pytest.mark.parametrize("name", ["over", "under", "atop", "plus", "screen", "multiply"])
def test_an_empty_layer_changes_nothing(name):
    B, b = rgba(2)
    colours, alpha = OPERATORS[name](torch.zeros_like(B), torch.zeros_like(b), B, b)
    assert torch.equal(colours, B) and torch.equal(alpha, b)


def test_screen_never_darkens_highlights():
    A, B = noise(200, 3, seed=1) * 4, noise(200, 3, seed=2) * 4
    one = torch.ones(200, 1)
    colours, _ = OPERATORS["screen"](A, one, B, one)
    assert (colours >= torch.maximum(A, B) - 1e-6).all()


def test_under_is_over_with_the_layers_swapped():
    (A, a), (B, b) = rgba(1), rgba(2)
    for one, other in zip(OPERATORS["under"](A, a, B, b), OPERATORS["over"](B, b, A, a)):
        assert torch.allclose(one, other, atol=1e-6)


def test_unpremultiply_undoes_premultiply_and_leaves_no_light_without_cover():
    colours, alpha = rgba(3)
    back = unpremultiply(premultiply(colours, alpha), alpha)
    assert torch.allclose(back[alpha[:, 0] > 0], colours[alpha[:, 0] > 0], atol=1e-5)
    assert not unpremultiply(colours, torch.zeros_like(alpha)).any()


# the stack


@pytest.fixture(scope="module")
def plate():
    """A film exposure: plate = alpha * fg + (1 - alpha) * bg exactly, linear."""
    return render(3, 3, 32, 40, film_samples=4, framing="close").plate


def test_the_layers_of_a_shot_give_its_plate_and_no_residual(plate):
    alpha = plate.alpha[..., 0]
    assert 0 < alpha.mean() < 1
    made, cover, residual = composite([Layer(plate.fg, alpha)], plate.bg, original=plate.plate)
    assert (made - plate.plate).abs().max() < 2e-6 and srgb_to_linear(residual).abs().max() < 2e-6
    assert torch.equal(cover, torch.ones_like(alpha))
    exact, _, residual = composite([Layer(plate.fg_linear, alpha)], plate.bg_linear,
                                   original=plate.plate_linear, space=LINEAR)
    assert (exact - plate.plate_linear).abs().max() < 2e-7
    assert torch.allclose(exact + residual, plate.plate_linear, atol=1e-7)


def test_residual_makes_any_composite_the_original(plate):
    made, _, residual = composite([Layer(plate.fg, 0.7 * plate.alpha[..., 0], opacity=0.5)], plate.bg,
                                  original=plate.plate)
    assert residual.abs().max() > 0.01
    assert (srgb_to_linear(made) + srgb_to_linear(residual) - plate.plate_linear).abs().max() < 1e-6


def test_premultiplied_and_straight_layers_give_the_same(plate):
    alpha = plate.alpha[..., 0]
    straight = composite([Layer(plate.fg, alpha)], plate.bg)[0]
    ready = linear_to_srgb(plate.fg_linear * plate.alpha)
    assert torch.allclose(composite([Layer(ready, alpha, premultiplied=True)], plate.bg)[0], straight, atol=2e-6)
    four = torch.cat((plate.fg, plate.alpha), dim=-1)
    assert torch.equal(composite([Layer(four)], plate.bg)[0], straight)
    assert torch.equal(composite([Layer(four, torch.zeros_like(alpha))], plate.bg)[0],
                       composite([], plate.bg)[0])  # a given alpha counts


def test_over_nothing_a_premultiplied_plate_is_over_black(plate):
    alpha = plate.alpha[..., 0]
    made, cover = composite([Layer(plate.fg_linear, alpha)], space=LINEAR, alpha_mode=PREMULTIPLIED)
    assert torch.equal(cover, alpha) and torch.equal(made, plate.fg_linear * plate.alpha)
    again = composite([Layer(made, cover, premultiplied=True)], plate.bg_linear, space=LINEAR)[0]
    assert torch.allclose(again, plate.plate_linear, atol=1e-6)


@pytest.fixture
def over_nothing() -> list[Layer]:
    """Two layers that lie partly beside each other, in sRGB 0..1, with alpha of every kind."""
    alpha = [(noise(2, 12, 16, seed=seed) * 1.6 - 0.3).clamp(0, 1) for seed in (1, 2)]
    return [Layer(noise(2, 12, 16, 3, seed=3), alpha[0], move=Move(x=-3)),
            Layer(noise(1, 12, 16, 3, seed=4), alpha[1], opacity=0.7, move=Move(x=4.5, y=2))]


def test_a_straight_plate_over_nothing_composites_later_as_the_stack_would_at_once(over_nothing):
    new = noise(1, 12, 16, 3, seed=5)
    direct = composite(over_nothing, new)[0]
    for mode in (STRAIGHT, PREMULTIPLIED):
        made, cover = composite(over_nothing, alpha_mode=mode)
        assert 0 < cover.mean() < 1 and not made[cover == 0].any()
        later = composite([Layer(made, cover, premultiplied=mode == PREMULTIPLIED)], new)[0]
        assert torch.allclose(later, direct, atol=2e-6)


def test_a_straight_plate_over_nothing_comes_back_from_an_alpha_video(over_nothing, tmp_path):
    """Premultiplied, it would be darkened twice: the file holds straight colours."""
    made, cover = composite(over_nothing)
    write_alpha_video(tmp_path / "stack.mkv", made, cover, "ffv1", Fraction(24))
    clip = read_alpha_video(tmp_path / "stack.mkv")
    new = noise(1, 12, 16, 3, seed=5)
    # Codes of 16 bits are half a step off, in colour and alpha; where it is dark sRGB is 12.92 times as steep as light.
    assert torch.allclose(composite([Layer(clip.images, clip.alpha)], new)[0], composite(over_nothing, new)[0],
                          atol=1.5e-4)


def test_an_opaque_background_makes_both_alpha_modes_one(over_nothing):
    new = noise(1, 12, 16, 3, seed=5)
    straight, ready = (composite(over_nothing, new, original=new, alpha_mode=mode)
                       for mode in (STRAIGHT, PREMULTIPLIED))
    assert all(torch.allclose(one, other, rtol=1e-6, atol=1e-6) for one, other in zip(straight, ready))


def test_the_residual_is_left_by_the_premultiplied_plate(over_nothing):
    original = noise(1, 12, 16, 3, seed=6)
    (straight, cover, residual), (ready, _, same) = (
        composite(over_nothing, original=original, space=LINEAR, alpha_mode=mode) for mode in (STRAIGHT, PREMULTIPLIED))
    assert torch.equal(residual, same) and torch.allclose(ready + residual, original.expand_as(ready), atol=1e-6)
    assert torch.allclose(straight * cover[..., None], ready, atol=1e-6)


def test_light_without_alpha_needs_a_premultiplied_plate():
    fire = torch.cat((noise(1, 3, 4, 3) * 9, torch.zeros(1, 3, 4, 1)), dim=-1)
    glow = [Layer(fire, operator="plus", premultiplied=True)]
    assert torch.equal(composite(glow, space=LINEAR, alpha_mode=PREMULTIPLIED)[0], fire[..., :3])
    assert not composite(glow, space=LINEAR)[0].any()


def test_a_stack_is_built_from_the_bottom_with_opacity_and_operators():
    bg, one, two = noise(1, 4, 5, 3, seed=1), noise(2, 4, 5, 3, seed=2), noise(2, 4, 5, 3, seed=3)
    a, b = noise(2, 4, 5, seed=4), noise(1, 4, 5, seed=5)
    made, cover = composite([Layer(one, a, opacity=0.5), Layer(two, b, "plus")], bg, space=LINEAR)
    expected = two * b[..., None] + over(one, 0.5 * a[..., None], bg)
    assert torch.allclose(made, expected, atol=1e-6) and made.shape == (2, 4, 5, 3)
    assert torch.equal(cover, torch.ones(2, 4, 5))


def test_a_background_with_alpha_and_an_opaque_element():
    bg, fire = noise(1, 3, 3, 4, seed=1), noise(1, 3, 3, 3, seed=2) * 9 - 0.2
    made, cover = composite([Layer(fire, operator="in")], bg, space=LINEAR)
    assert torch.allclose(made, fire) and torch.allclose(cover, bg[..., 3])
    made, _ = composite([Layer(fire, operator="in")], bg, space=LINEAR, alpha_mode=PREMULTIPLIED)
    assert torch.allclose(made, fire * bg[..., 3:])


def test_values_beyond_white_and_below_black_pass():
    bg, fg = noise(1, 3, 3, 3, seed=1) * 100 - 50, noise(1, 3, 3, 3, seed=2) * 100 - 50
    alpha = noise(1, 3, 3)
    made = composite([Layer(fg, alpha)], bg, space=LINEAR)[0]
    assert torch.allclose(made, over(fg, alpha[..., None], bg), atol=1e-5)
    assert made.max() > 1 and made.min() < 0
    assert torch.allclose(composite([], bg)[0], bg, rtol=1e-5, atol=1e-5)


def test_every_frame_is_told_and_can_stop_the_work():
    seen = []

    def stop_after_two():
        seen.append(1)
        if len(seen) == 2:
            raise InterruptedError

    composite([], noise(4, 2, 2, 3), after_frame=lambda: seen.append(1))
    assert len(seen) == 4
    seen.clear()
    with pytest.raises(InterruptedError):
        composite([], noise(4, 2, 2, 3), after_frame=stop_after_two)
    assert len(seen) == 2


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: composite([]), "nothing to composite"),
        (lambda: composite([], noise(1, 3, 3, 3), alpha_mode="linear"), "use straight or premultiplied"),
        (lambda: composite([Layer(noise(2, 3, 3, 3))], noise(3, 3, 3, 3)), "background 3, layer 1 2"),
        (lambda: composite([], noise(1, 3, 3, 3), original=noise(1, 3, 4, 3)), "original plate 4x3"),
        (lambda: composite([], noise(1, 3, 3, 1)), "background has 1 channels"),
        (lambda: composite([], noise(2, 3, 3, 3).log() * torch.inf), "background has NaN or infinite"),
        (lambda: Layer(noise(1, 3, 3, 3), noise(1, 3, 4)), "layer 3x3, alpha 4x3"),
        (lambda: Layer(noise(3, 3, 3, 3), noise(2, 3, 3)), "layer 3, alpha 2"),
        (lambda: Layer(noise(1, 3, 3, 3), noise(1, 3, 3) * 255), "alpha goes from .* 0 to 1 is needed"),
        (lambda: Layer(noise(1, 3, 3, 4) - 0.5), "fourth channel goes from -0"),
        (lambda: Layer(noise(1, 3, 3, 3), noise(3, 3)), r"alpha has shape \[3, 3\]"),
        (lambda: Layer(noise(1, 3, 3, 3), torch.full((1, 3, 3), torch.nan)), "alpha has NaN"),
        (lambda: Layer(noise(3, 3, 3)), r"shape \[3, 3, 3\]"),
        (lambda: Layer(noise(1, 3, 3, 3), operator="xor"), "'xor'.*over"),
        (lambda: Layer(noise(1, 3, 3, 3), opacity=1.5), "opacity is 1.5"),
        (lambda: Move(scale=0), "scale above 0"),
        (lambda: decontaminate(noise(1, 3, 3, 3), noise(1, 3, 3), noise(1, 3, 4, 3), hold=0), "background 4x3"),
        (lambda: decontaminate(noise(2, 3, 3, 3), noise(3, 3, 3), noise(1, 3, 3, 3), hold=0), "plate 2.*alpha 3"),
        (lambda: decontaminate(noise(1, 3, 3, 3), noise(1, 3, 3), noise(1, 3, 3, 3), hold=-1), "hold is -1"),
        (lambda: spill(noise(1, 3), "red", "average"), "'red'.*green or blue"),
        (lambda: despill_clip(noise(1, 3, 3, 2), "green", "average", 1, 1, "sRGB"), "2 channels"),
    ],
)  # fmt: skip
def test_what_does_not_go_together_is_refused_in_one_sentence(make, sentence):
    with pytest.raises(ValueError, match=sentence) as refusal:
        make()
    assert str(refusal.value).endswith(".") and "\n" not in str(refusal.value)


# transforms


def test_no_move_and_whole_pixels_copy_bit_by_bit():
    picture = noise(6, 8, 4)
    assert torch.equal(place(picture, 6, 8, Move()), picture)
    moved = place(picture, 6, 8, Move(x=2, y=-1, rotation=360))
    assert torch.equal(moved[:5, 2:], picture[1:, :6]) and not moved[5:].any() and not moved[:, :2].any()
    centred = place(picture, 10, 10, Move())
    assert torch.equal(centred[2:8, 1:9], picture) and centred.sum() == pytest.approx(picture.sum().item())
    assert torch.equal(place(picture, 2, 4, Move()), picture[2:4, 2:6])
    assert not place(picture, 6, 8, Move(x=100)).any()


def slow_place(picture: torch.Tensor, height: int, width: int, move: Move) -> torch.Tensor:
    """Pixel by pixel: the canvas's place turned back into the picture, bilinear, nothing outside."""
    h, w, channels = picture.shape
    canvas = torch.zeros(height, width, channels)
    angle = math.radians(move.rotation)
    for row in range(height):
        for column in range(width):
            right, up = column + 0.5 - width / 2 - move.x, -(row + 0.5 - height / 2 - move.y)
            # A counter-clockwise turn undone: clockwise.
            right, up = (math.cos(angle) * right + math.sin(angle) * up,
                         -math.sin(angle) * right + math.cos(angle) * up)
            x, y = right / move.scale + w / 2 - 0.5, -up / move.scale + h / 2 - 0.5
            for i in (math.floor(y), math.floor(y) + 1):
                for j in (math.floor(x), math.floor(x) + 1):
                    if 0 <= i < h and 0 <= j < w:
                        canvas[row, column] += (1 - abs(y - i)) * (1 - abs(x - j)) * picture[i, j]
    return canvas


@pytest.mark.parametrize("move", [Move(x=0.25, y=-1.5), Move(rotation=30), Move(x=3, scale=1.7, rotation=-100)])
def test_moves_are_those_of_the_slow_version(move):
    picture = noise(7, 9, 4)
    assert torch.allclose(place(picture, 8, 11, move), slow_place(picture, 8, 11, move), atol=1e-5)


def test_a_quarter_turn_goes_counter_clockwise():
    picture = noise(5, 5, 1)
    assert torch.allclose(place(picture, 5, 5, Move(rotation=90)), picture.rot90(), atol=1e-5)


def test_a_smaller_picture_keeps_its_mean_and_does_not_alias():
    lines = torch.zeros(64, 64, 1)
    lines[::2] = 1
    small = place(lines, 32, 32, Move(scale=0.25))[9:23, 9:23]
    assert (small - 0.5).abs().max() < 0.02
    assert place(noise(64, 64, 1), 64, 64, Move(scale=0.5)).sum().item() == pytest.approx(
        noise(64, 64, 1).sum().item() / 4, rel=0.01)


def test_a_moved_layer_leaves_no_dark_fringe():
    """Straight colours would be mixed with the black outside; what is white stays white however it lies."""
    white = Layer(torch.ones(1, 9, 9, 3), move=Move(x=0.5, y=0.3, rotation=20))
    made = composite([white], torch.ones(1, 15, 15, 3))[0]
    assert (made - 1).abs().max() < 1e-5


# decontamination


def test_decontaminated_foreground_composites_to_the_plate_exactly():
    C, B, F, a = (noise(50, 3, seed=i).double() * 3 - 0.5 for i in range(3)), noise(50, 1).double(), None, None
    C, B, F = C
    a = noise(50, 1).double() * 0.99 + 0.01
    clean = decontaminated(C, a, B, F, 0.0)
    assert (over(clean, a, B) - C).abs().max() < 1e-12
    assert torch.equal(decontaminated(C, torch.zeros_like(a), B, F, 0.0), F)
    solid = decontaminated(C, torch.ones_like(a), B, F, 0.0)
    assert torch.allclose(solid, C)


@pytest.mark.parametrize("hold", [1e-3, 0.1, 2.0])
def test_decontaminated_foreground_is_the_minimum(hold):
    C, B, F = (noise(30, 3, seed=i).double() for i in range(3))
    a = noise(30, 1).double()
    clean = decontaminated(C, a, B, F, hold).requires_grad_()
    (((over(clean, a, B) - C) ** 2).sum() + hold * ((clean - F) ** 2).sum()).backward()
    assert clean.grad.abs().max() < 1e-12
    guessed = over(F, a, B) - C
    assert torch.allclose(over(clean, a, B) - C, hold / (hold + a**2) * guessed, atol=1e-12)


def test_decontaminated_clips_say_what_is_left(plate):
    alpha = plate.alpha[..., 0]
    clean, residual = decontaminate(plate.plate, alpha, plate.bg[:1], hold=0.01)
    assert clean.shape == plate.plate.shape
    made = composite([Layer(clean, alpha)], plate.bg[:1])[0]
    assert (srgb_to_linear(made) + srgb_to_linear(residual) - plate.plate_linear).abs().max() < 1e-5
    clean, residual = decontaminate(plate.plate, alpha, plate.bg, hold=0)
    assert srgb_to_linear(residual).abs().max() < 2e-6
    seen = alpha > 0.05
    assert (srgb_to_linear(clean) - plate.fg_linear)[seen].abs().max() < 1e-4


def test_solid_colours_are_drawn_outwards():
    colours, alpha = noise(37, 50, 3) * 4, torch.zeros(37, 50, 1)
    alpha[5:30, 5:20], alpha[5:30, 30:45], alpha[2:5, 5:45] = 1, 1, 0.5
    colours[5:30, 5:20], colours[5:30, 30:45] = torch.tensor([4.0, 0.5, 0.0]), torch.tensor([0.0, 1.0, 2.0])
    drawn = extended(colours, alpha)
    assert torch.allclose(drawn[5:30, 5:20], colours[5:30, 5:20]) and torch.allclose(drawn[6, 30:45], colours[6, 30:45])
    assert (drawn[15, 4] - colours[15, 5]).abs().max() < 0.5 and (drawn[15, 45] - colours[15, 44]).abs().max() < 1
    assert drawn.min() >= 0 and drawn.max() <= 4 + 1e-5  # means of the two, so nothing of the noise around
    assert (drawn[..., 0] / 4 + drawn[..., 2] / 2 - 1).abs().max() < 1e-5
    assert torch.equal(extended(colours, 0.5 * alpha), colours)


def test_positive_keeps_colours_out_of_the_dark_and_nothing_else():
    C, B, F = (noise(1, 9, 9, 3, seed=i) for i in range(3))
    a = noise(1, 9, 9) * 0.6 + 0.2
    free = decontaminate(C, a, B, F, hold=0.01, space=LINEAR)[0]
    held, residual = decontaminate(C, a, B, F, hold=0.01, positive=True, space=LINEAR)
    assert free.min() < 0 and torch.equal(held, free.clamp_min(0))
    assert (over(held, a[..., None], B) + residual - C).abs().max() < 1e-6
    dark = decontaminate(C - 1, a, B - 1, F - 1, hold=0.01, positive=True, space=LINEAR)[0]
    assert (dark >= torch.minimum(C, F) - 1).all()  # colours that were negative may stay so


def blurred(images: torch.Tensor, sigma: float) -> torch.Tensor:
    """[F, H, W, C], a Gaussian of that many pixels."""
    reach = math.ceil(3 * sigma)
    weights = torch.exp(-0.5 * (torch.arange(-reach, reach + 1.0) / sigma) ** 2)
    weights = (weights / weights.sum())[None, :] * (weights / weights.sum())[:, None]
    planes = torch.nn.functional.pad(images.permute(3, 0, 1, 2), (reach,) * 4, mode="replicate").flatten(0, 1)
    done = torch.nn.functional.conv2d(planes.unsqueeze(1), weights[None, None])
    return done.view(images.shape[-1], -1, *images.shape[1:3]).permute(1, 2, 3, 0)


@pytest.mark.parametrize("guess", ["plate", "predicted foreground"])
def test_decontamination_halves_the_composite_error_on_a_new_background(guess):
    """Predictions are simulated on exact shots: alpha with noise of 0.02 in its soft band, else right; bg (and fg) lit
    3 % wrongly in smooth blotches, out of focus by 0.8 pixels, with noise of 0.005. The error is the RMSE of the
    composite on another background, sRGB, whole frame, the median over shots; the straight composites use the same
    predicted alpha. What alpha is wrong by stays in any foreground: blurred by half a pixel, it is most of the error.
    """
    random = torch.Generator().manual_seed(4)
    errors = {"straight": [], "clean": []}
    for seed in range(5):
        shot = render(seed, 1, 64, 64, film_samples=8, framing="close").plate
        C, a, F, B = shot.plate_linear, shot.alpha, shot.fg_linear, shot.bg_linear
        new = render(seed + 100, 1, 64, 64, film_samples=0).rgb_linear

        def predicted(light):
            blotches = blurred(torch.randn(light.shape, generator=random), 10)
            wrong = blurred(light, 0.8) * (1 + 0.03 * blotches / blotches.std())
            return (wrong + 0.005 * torch.randn(light.shape, generator=random)).clamp_min(0)

        soft = (a > 0) & (a < 1)
        alpha = (a + 0.02 * torch.randn(a.shape, generator=random) * soft).clamp(0, 1)
        start = C if guess == "plate" else predicted(torch.where(a > 0, F, C))
        given = None if guess == "plate" else start
        clean = decontaminate(C, alpha[..., 0], predicted(B), given, hold=0.03, positive=True, space=LINEAR)[0]
        truth = linear_to_srgb(over(F, a, new))
        for name, foreground in (("straight", start), ("clean", clean)):
            made = linear_to_srgb(over(foreground, alpha, new))
            errors[name].append(((made - truth) ** 2).mean().sqrt())
    straight, clean = (torch.stack(found).median().item() for found in errors.values())
    print(f"straight {straight:.4f}, decontaminated {clean:.4f}")
    assert clean < 0.5 * straight


# despill


@pytest.mark.parametrize("limit", ["average", "maximum"])
@pytest.mark.parametrize("screen", SCREENS)
def test_despill_obeys_the_limit_and_keeps_luminance(screen, limit):
    images = noise(200, 3) * 3 - 0.3
    clean, taken = despill(images, screen, limit)
    channel = SCREENS[screen]
    others = [clean[:, i] for i in range(3) if i != channel]
    most = torch.maximum(*others) if limit == "maximum" else sum(others) / 2
    assert (clean[:, channel] - most).max() < 1e-6
    assert torch.allclose(luminance(clean), luminance(images), atol=1e-6)
    untouched = taken[:, 0] == 0
    assert torch.equal(clean[untouched], images[untouched]) and 0 < untouched.float().mean() < 1
    assert taken.min() == 0


def test_despill_of_one_green_pixel_by_hand():
    green = torch.tensor([[0.2, 0.8, 0.4]])
    assert torch.allclose(despill(green, keep_luminance=0)[0], torch.tensor([[0.2, 0.3, 0.4]]))
    assert torch.allclose(despill(green, limit="maximum", keep_luminance=0)[0], torch.tensor([[0.2, 0.4, 0.4]]))
    half, taken = despill(green, strength=0.5, keep_luminance=0)
    assert torch.allclose(half, torch.tensor([[0.2, 0.55, 0.4]])) and taken.item() == pytest.approx(0.25)
    assert torch.equal(despill(green, "blue")[0], green)


def test_despill_goes_with_premultiplication_and_keeps_a_fourth_channel():
    images = noise(2, 4, 5, 4)
    alpha = images[..., 3:]
    straight = despill(images[..., :3])[0] * alpha
    assert torch.allclose(straight, despill(images[..., :3] * alpha)[0], atol=1e-6)
    clean, taken = despill_clip(images, "green", "average", 1.0, 1.0, "sRGB")
    assert torch.equal(clean[..., 3], images[..., 3]) and taken.shape == (2, 4, 5)
    expected = linear_to_srgb(despill(srgb_to_linear(images[..., :3]))[0])
    assert torch.allclose(clean[..., :3], expected)
