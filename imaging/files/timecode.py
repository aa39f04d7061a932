"""Time as editors count it: exact frame rates and SMPTE timecode, drop-frame too (SMPTE ST 12-1)."""

import re
from dataclasses import dataclass
from fractions import Fraction

_TEXT = re.compile(r"(\d\d):([0-5]\d):([0-5]\d)([:;])(\d\d)")
_NTSC = (24, 30, 48, 60, 120)  # the rates that television runs slower by 1000/1001
_SAME = 3e-4  # of a rate: 23.98 is off by 1.7e-4 of itself, 24 by 1e-3


def exact_rate(rate: float) -> Fraction:
    """The frame rate that a decimal number means: 23.976, 23.98 and 24000/1001 as a float are all 24000/1001.

    rate: frames a second, above 0. Whole numbers stay; others take the television rate that they round, or the
    nearest thousandth. Raises ValueError for what is no rate.
    """
    if not 0 < rate < 1001:
        raise ValueError(f"A frame rate of {rate} was given, but frames a second above 0 are needed, such as 24.")
    if float(rate).is_integer():
        return Fraction(int(rate))
    nearest = min((Fraction(whole * 1000, 1001) for whole in _NTSC), key=lambda exact: abs(float(exact) - rate))
    if abs(float(nearest) - rate) <= _SAME * rate:
        return nearest
    return Fraction(round(rate * 1000), 1000)


@dataclass(frozen=True)
class Timecode:
    """The label of a frame, HH:MM:SS:FF, counted in whole frames at `rate`.

    frames: frames since 00:00:00:00, within a day. rate: exact frames a second; labels count its rounded value. drop:
    drop-frame labels, for 30000/1001 and 60000/1001: the first labels of each minute but every tenth are left out, so
    that labels keep up with the clock.
    """

    frames: int
    rate: Fraction
    drop: bool = False

    def __post_init__(self):
        if self.drop and self.rate not in (Fraction(30000, 1001), Fraction(60000, 1001)):
            raise ValueError(
                f"Drop-frame timecode was given at {float(self.rate):.5g} frames a second, but only 29.97 and 59.94 "
                "have it; write it with ':' before the frames."
            )

    @classmethod
    def parse(cls, text: str, rate: Fraction) -> "Timecode":
        """Read HH:MM:SS:FF, or HH:MM:SS;FF for drop-frame. Raises ValueError for what is no label at this rate."""
        match = _TEXT.fullmatch(text.strip())
        if match is None:
            raise ValueError(f"{text!r} is no timecode: HH:MM:SS:FF is needed, or HH:MM:SS;FF for drop-frame.")
        hours, minutes, seconds, frame = (int(match.group(i)) for i in (1, 2, 3, 5))
        nominal, drop = round(rate), match.group(4) == ";"
        left_out = nominal // 15 if drop else 0  # 2 labels at 29.97, 4 at 59.94
        if hours > 23 or frame >= nominal or (drop and seconds == 0 and minutes % 10 and frame < left_out):
            raise ValueError(
                f"{text} does not exist at {float(rate):.5g} frames a second"
                f"{' with drop-frame' if drop else ''}; check the timecode or the frame rate."
            )
        total_minutes = 60 * hours + minutes
        count = (60 * total_minutes + seconds) * nominal + frame
        return cls(count - left_out * (total_minutes - total_minutes // 10), rate, drop)

    def plus(self, frames: int) -> "Timecode":
        """The label that many frames later; after a day it starts again."""
        nominal = round(self.rate)
        day = 86400 * nominal - nominal // 15 * 1296 * self.drop  # 9 of 10 of its 1440 minutes leave labels out
        return Timecode((self.frames + frames) % day, self.rate, self.drop)

    def fields(self) -> tuple[int, int, int, int]:
        """Hours, minutes, seconds and frame as the label says them."""
        nominal, count = round(self.rate), self.frames
        if self.drop:
            left_out = nominal // 15
            minute = 60 * nominal - left_out
            ten = 10 * minute + left_out
            tens, rest = divmod(count, ten)
            # The first minute of ten keeps all its labels.
            count += left_out * (9 * tens + max(0, (rest - left_out) // minute))
        seconds, frame = divmod(count, nominal)
        return seconds // 3600, seconds // 60 % 60, seconds % 60, frame

    def __str__(self) -> str:
        hours, minutes, seconds, frame = self.fields()
        return f"{hours:02}:{minutes:02}:{seconds:02}{';' if self.drop else ':'}{frame:02}"
