"""A run of half a minute, from pictures in a folder to `strata caption`: it says what is to be seen in new ones."""

import random
from pathlib import Path

import pytest
from accelerate.state import AcceleratorState
from PIL import Image, ImageDraw

from comfyui_strata import model_loaders
from comfyui_strata.cli import main
from comfyui_strata.model_loaders.vocabulary import make_word_vocabulary
from comfyui_strata.training.config import Data, Model, NewBackbone, Optimiser, Run, Text, TrainConfig
from comfyui_strata.training.trainer import train

COLOURS = {"red": (200, 40, 35), "green": (60, 150, 65), "blue": (45, 85, 195), "yellow": (237, 205, 60),
           "white": (230, 228, 222), "black": (30, 30, 34)}
NUMBERS = ("one", "two", "three")
SHOWN = 45
VAE = Path(model_loaders.__file__).parent / "tiny" / "vae" / "strata_tiny_vae.safetensors"


def draw_balls(path: Path, rng: random.Random) -> tuple[str, str]:
    """A picture with some balls of one colour, anywhere; returns how many and which."""
    count, colour = rng.randint(1, len(NUMBERS)), rng.choice(list(COLOURS))
    image = Image.new("RGB", (32, 32), (128, 128, 128))
    for x, y in rng.sample([(x, y) for x in (1, 17) for y in (1, 17)], count):
        x, y = x + rng.randint(0, 3), y + rng.randint(0, 3)
        ImageDraw.Draw(image).ellipse((x, y, x + 11, y + 11), fill=COLOURS[colour])
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)
    return NUMBERS[count - 1], colour


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """The folder of a run on 240 pictures."""
    folder, rng = tmp_path_factory.mktemp("balls"), random.Random(0)
    for i in range(240):
        clip = folder / "clips" / f"{i:03}"
        (number, colour) = draw_balls(clip / "rgb.png", rng)
        (clip / "caption.txt").write_text(f"{number} {colour} balls")
    (folder / "words.json").write_bytes(make_word_vocabulary([*COLOURS, *NUMBERS, "balls"]))
    config = TrainConfig(
        "vigu", Model(vae=str(VAE), train="all"), Data(clips=str(folder / "clips"), frames=1, height=32, width=32),
        Optimiser(steps=240, batch=16, learning_rate=1e-3, final_learning_rate=1e-5, warmup=20, clip_norm=1.0),
        Run(save_every=1000, pictures_every=0), new_backbone=NewBackbone(128, 128, 2),
        text=Text(length=4, vocabulary=str(folder / "words.json")), tasks={"R2C": 1.0})
    try:
        train(config, folder / "run", cpu=True)
    finally:
        AcceleratorState._reset_state(reset_partial_state=True)
    return folder / "run"


def test_it_reads_number_and_colour_far_better_than_chance(trained, tmp_path, capsys):
    rng = random.Random(1)
    truth = [draw_balls(tmp_path / "new ones" / f"{i:02}.png", rng) for i in range(SHOWN)]
    paths = sorted(map(str, (tmp_path / "new ones").iterdir()))
    assert main(["caption", *paths, "--model", str(trained), "--vae", str(VAE), "--fit", "whole", "--steps", "16",
                 "--device", "cpu"]) == 0
    said = dict(line.split("\t") for line in capsys.readouterr().out.splitlines())
    captions = [said[path].split() for path in paths]
    numbers = sum(number in caption for caption, (number, _) in zip(captions, truth))
    colours = sum(colour in caption for caption, (_, colour) in zip(captions, truth))
    # By chance a third of the numbers and a sixth of the colours; so many are said by chance once in 2,000 times.
    assert numbers >= 26 and colours >= 18, (numbers, colours, captions[:5])
