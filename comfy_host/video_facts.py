"""What a VIDEO of ComfyUI carries beside its pictures: exact rate, sound and timecode."""

from __future__ import annotations

from fractions import Fraction

import torch
from comfy_api.latest import InputImpl

from ..imaging.files.alpha_video import Sound
from ..imaging.files.read_alpha_video import read_beside
from ..imaging.files.timecode import Timecode, exact_rate


def sound_of(audio: dict | None) -> Sound | None:
    """An AUDIO, {"waveform": [B, C, T], "sample_rate": Hz}, as sound: its first entry, None for no
    length."""
    if audio is None or audio["waveform"].shape[-1] == 0:
        return None
    return Sound(audio["waveform"][0], int(audio["sample_rate"]))


def audio_of(sound: Sound | None) -> dict:
    """Sound as an AUDIO; a silence of no length for None, since the socket must carry something."""
    sound = sound or Sound(torch.zeros(1, 0), 48000)
    return {"waveform": sound.samples[None], "sample_rate": sound.rate}


def video_facts(video) -> tuple[Fraction, Sound | None, Timecode | None]:
    """Rate, sound and first timecode of a VIDEO. Of a file they are read without decoding its pictures, within the
    trim that a node has set."""
    rate = exact_rate(float(video.get_frame_rate()))
    if not isinstance(video, InputImpl.VideoFromFile):
        return rate, sound_of(video.get_components().audio), None
    _, timecode, sound = read_beside(video.get_stream_source(), rate)
    start, duration = video.get_active_trim_window()
    if timecode is not None:
        timecode = timecode.plus(round(start * rate))
    if sound is not None:
        first = round(start * sound.rate)
        last = first + round(duration * sound.rate) if duration else None
        sound = Sound(sound.samples[:, first:last], sound.rate)
    return rate, sound, timecode
