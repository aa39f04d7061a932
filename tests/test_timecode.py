"""Exact rates and SMPTE labels, against counting every label of the first two hours."""

from fractions import Fraction

import pytest

from comfyui_strata.imaging.files.timecode import Timecode, exact_rate

NTSC = Fraction(30000, 1001)


@pytest.mark.parametrize(("given", "exact"), [
    (24, Fraction(24)), (25.0, Fraction(25)), (23.976, Fraction(24000, 1001)), (23.98, Fraction(24000, 1001)),
    (24000 / 1001, Fraction(24000, 1001)), (29.97, NTSC), (59.94, Fraction(60000, 1001)), (12.5, Fraction(25, 2)),
    (23.5, Fraction(47, 2)),
])  # fmt: skip
def test_a_decimal_rate_is_the_fraction_it_rounds(given, exact):
    assert exact_rate(given) == exact


@pytest.mark.parametrize("given", [0, -24, float("nan"), float("inf")])
def test_what_is_no_rate_is_refused(given):
    with pytest.raises(ValueError, match="frames a second above 0 are needed"):
        exact_rate(given)


@pytest.mark.parametrize(("fps", "left_out"), [(30, 2), (60, 4)])
def test_drop_frame_leaves_out_the_first_labels_of_minutes(fps, left_out):
    rate, count = Fraction(fps * 1000, 1001), 0
    for minute in range(21):
        for second in range(60):
            for frame in range(fps):
                if second == 0 and minute % 10 and frame < left_out:
                    continue
                label = f"00:{minute:02}:{second:02};{frame:02}"
                assert str(Timecode(count, rate, True)) == label
                count += 1
    assert Timecode.parse("00:20:59;10", rate).frames == count - fps + 10


def test_labels_go_on_over_minutes_and_midnight():
    assert str(Timecode.parse("00:00:59;29", NTSC).plus(1)) == "00:01:00;02"
    assert str(Timecode.parse("23:59:59;29", NTSC).plus(1)) == "00:00:00;00"
    assert str(Timecode.parse("23:59:59:23", Fraction(24000, 1001)).plus(2)) == "00:00:00:01"
    # In an hour drop-frame labels lose 3.6 ms, others 3.6 s.
    assert str(Timecode.parse("00:00:00;00", NTSC).plus(round(3600 * NTSC))) == "01:00:00;00"


@pytest.mark.parametrize(("label", "rate", "why"), [
    ("00:01:00;01", NTSC, "does not exist"), ("00:00:00:24", Fraction(24), "does not exist"),
    ("24:00:00:00", Fraction(24), "does not exist"), ("1:2:3:4", Fraction(24), "HH:MM:SS:FF is needed"),
    ("00:00:00;00", Fraction(25), "only 29.97 and 59.94 have it"),
])  # fmt: skip
def test_labels_that_are_none(label, rate, why):
    with pytest.raises(ValueError, match=why):
        Timecode.parse(label, rate)
