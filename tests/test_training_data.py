"""A user's clips on the way to the trainer: how they are found, what is wrong with them, and their cached latents."""

import os
import pickle
import shutil
import threading
from fractions import Fraction
from pathlib import Path

import pytest
import torch

from comfyui_strata.imaging.colour import linear_to_srgb
from comfyui_strata.imaging.files.clips import read_clip, write_clip
from comfyui_strata.joint.families import ALPHA, INTRINSIC
from comfyui_strata.model_loaders.vae import load_vae
from comfyui_strata.tests.tiny_files import write_tiny_vae
from comfyui_strata.training import latents as latents_module
from comfyui_strata.training.clips import OwnClips, SyntheticShots
from comfyui_strata.training.latents import Bad, LatentCache, file_key
from comfyui_strata.training.shot_folder import ShotFolder
from comfyui_strata.training.shots import FIRST_TRAINING_SEED, Example, synthetic_example

RATE = Fraction(24)


def ramp(frames: int = 5, height: int = 16, width: int = 16, phase: float = 0.0) -> torch.Tensor:
    """A smooth moving picture [F, H, W, 3] in 0.1..0.9."""
    t, y, x = torch.meshgrid(*(torch.linspace(0, 1, n) for n in (frames, height, width)), indexing="ij")
    return 0.1 + 0.8 * torch.stack([x, y, (t + x + phase) % 1], dim=-1)


def phase(layer: str) -> float:
    """Layers look different."""
    return sum(map(ord, layer)) % 7 / 7


def add(folder: Path, *layers: str, format: str = "png", **size) -> Path:
    """A clip as a folder with these layers."""
    for layer in layers:
        encoding = "normal" if layer == "normal" else "colour"
        write_clip(ramp(phase=phase(layer), **size), folder / layer, RATE, format, encoding)
    return folder


def own(where, family=INTRINSIC, frames=5, height=16, width=16, say=None):
    heard = []
    source = OwnClips(family, where, frames, height, width, say=say or heard.append)
    source.heard = heard
    return source


def sentence(call, kind=ValueError) -> str:
    """What a call complains of: one line with an end."""
    with pytest.raises(kind) as caught:
        call()
    text = str(caught.value)
    assert "\n" not in text and text[-1] in ".?"
    return text


# finding clips


def test_a_folder_by_clip_takes_videos_sequences_stills_and_names_of_any_kind(tmp_path):
    pytest.importorskip("OpenEXR")
    clip = add(tmp_path / "Büro 窓 1", "rgb", format="mp4")
    add(clip, "albedo")
    add(clip, "normal", format="exr")
    (clip / "prompt.txt").write_text("ein Büro\n", encoding="utf-8-sig")
    (clip / ".hidden").touch()
    add(tmp_path / "b", "irradiance")
    source = own(tmp_path)
    assert len(source) == 2 and source.heard == []
    office, b = source.read(0), source.read(1)
    assert (office.name, office.prompt, source.name(0)) == ("Büro 窓 1", "ein Büro", "Büro 窓 1")
    assert set(office.layers) == {"rgb", "albedo", "normal"} and set(b.layers) == {"irradiance"} and b.prompt == ""
    assert torch.equal(office.layers["rgb"], read_clip(clip / "rgb.mp4").images)
    torch.testing.assert_close(office.layers["albedo"], ramp(phase=phase("albedo")), atol=1e-5, rtol=0)
    torch.testing.assert_close(office.layers["normal"], ramp(phase=phase("normal")), atol=1e-5, rtol=0)


def test_linear_exr_is_encoded_for_colour_layers_only_and_clipped(tmp_path):
    pytest.importorskip("OpenEXR")
    linear = torch.full((1, 16, 16, 3), 0.25)
    for layer in ("rgb", "alpha"):  # written alike, as R, G, B; the value is 0.25 in both files
        write_clip(linear_to_srgb(linear), tmp_path / "a" / layer, RATE, "exr")
    write_clip(torch.full((1, 16, 16, 3), 1.5), tmp_path / "a" / "fg", RATE, "exr")
    layers = own(tmp_path, ALPHA, frames=1).read(0).layers
    torch.testing.assert_close(layers["rgb"], linear_to_srgb(linear), atol=1e-3, rtol=0)
    torch.testing.assert_close(layers["alpha"], linear, atol=1e-3, rtol=0)
    assert (layers["fg"] == 1).all()


def test_a_folder_by_layer_joins_what_has_one_name(tmp_path):
    add(tmp_path / "rgb", "one shot", "two", format="mp4")
    add(tmp_path / "normal", "two", "three")
    (tmp_path / "prompt").mkdir()
    (tmp_path / "prompt" / "two.txt").write_text("a cup", encoding="utf-8")
    (tmp_path / "prompt" / "four.txt").touch()
    (tmp_path / "prompt" / "one shot.md").touch()
    (tmp_path / "nomral").mkdir()
    source = own(tmp_path)
    examples = [source.read(i) for i in range(len(source))]
    assert [(e.name, sorted(e.layers), e.prompt) for e in examples] == [
        ("one shot", ["rgb"], ""), ("three", ["normal"], ""), ("two", ["normal", "rgb"], "a cup"),
    ]  # fmt: skip
    assert len(source.heard) == 2
    assert "'nomral'" in source.heard[0] and "did you mean 'normal'?" in source.heard[0]
    assert "four.txt, one shot.md" in source.heard[1]


def test_a_table_takes_paths_relative_to_itself(tmp_path):
    add(tmp_path / "shots/a b", "x", "y")
    table = tmp_path / "clips.csv"
    table.write_text('rgb, normal ,prompt,name\nshots/a b/x,shots/a b/y,"a cup, red",Tasse ü\n,shots/a b/y,,\n'
                     f"{tmp_path / 'shots/a b/x'}\n\n", encoding="utf-8-sig")
    source = own(table)
    examples = [source.read(i) for i in range(len(source))]
    assert [(e.name, sorted(e.layers), e.prompt) for e in examples] == [
        ("Tasse ü", ["normal", "rgb"], "a cup, red"), ("line 3", ["normal"], ""), ("line 4", ["rgb"], ""),
    ]  # fmt: skip


def test_what_looks_like_a_misspelt_layer_is_named_and_the_rest_summed_up(tmp_path):
    for name in ("a", "b"):
        clip = add(tmp_path / name, "rgb")
        for file in ("nomral.mp4", "depth.mp4", "albedo.avi"):
            (clip / file).touch()
    heard = own(tmp_path).heard
    assert len(heard) == 3 and all(text.startswith("Warning: ") and "\n" not in text for text in heard)
    typo = next(text for text in heard if "nomral" in text)
    assert "a/nomral.mp4" in typo and "1 more" in typo and "did you mean 'normal'?" in typo
    assert "did you mean" not in next(text for text in heard if "albedo.avi" in text)
    assert "depth.mp4" in next(text for text in heard if "depth" in text)


def test_nothing_to_train_on_is_one_sentence(tmp_path):
    def folder(name: str) -> Path:
        (tmp_path / name).mkdir()
        return tmp_path / name

    def table(content: str | bytes) -> Path:
        path = tmp_path / "t.csv"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    assert "nowhere" in sentence(lambda: own(tmp_path / "nowhere"), FileNotFoundError)
    assert "holds no clip" in sentence(lambda: own(folder("empty")))
    single = folder("single")
    write_clip(ramp(), single / "rgb", RATE, "mp4")
    assert "folder for each" in sentence(lambda: own(single))
    assert "neither" in sentence(lambda: own(single / "rgb.mp4"))
    mixed = add(folder("mixed") / "rgb", "one").parent
    add(mixed / "clip 2", "rgb")
    assert "(rgb)" in sentence(lambda: own(mixed)) and "(clip 2)" in sentence(lambda: own(mixed))
    assert "holds no clip" in sentence(lambda: own(table("")))
    assert "holds no clip" in sentence(lambda: own(table("rgb,normal\n")))
    assert "UTF-8" in sentence(lambda: own(table("rgb,prompt\na.mp4,Büro".encode("latin-1"))))
    unknown = sentence(lambda: own(table("rgb,nomral,prompt\na,b,c")))
    assert "'nomral'" in unknown and "rgb, albedo, irradiance, normal, prompt and name" in unknown
    assert "commas" in sentence(lambda: own(table("rgb;normal\na;b")))
    assert "no column of a layer" in sentence(lambda: own(table("prompt\na cup")))
    assert "two columns" in sentence(lambda: own(table("rgb,rgb\na,b")))
    assert "Line 3" in sentence(lambda: own(table("rgb,prompt\na,b\na,a cup, red")))
    assert "read as a table" in sentence(lambda: own(table('rgb,prompt\na,"open')))


@pytest.mark.parametrize(
    ("frames", "height", "width"), [(4, 16, 16), (0, 16, 16), (-3, 16, 16), (5, 24, 16), (5, 16, 0)]
)
def test_sizes_the_vae_cannot_take_are_refused_at_once(tmp_path, frames, height, width):
    add(tmp_path / "a", "rgb")
    number = str(frames) if frames != 5 else f"{width}x{height}"
    assert number in sentence(lambda: own(tmp_path, frames=frames, height=height, width=width))
    assert number in sentence(lambda: SyntheticShots(INTRINSIC, 2, frames, height, width))


# reading clips


def bad_clip(tmp_path, kind=ValueError, frames=5) -> str:
    """What reading the clip "b" of a folder complains of, which also names it."""
    source = own(tmp_path, frames=frames)
    text = sentence(lambda: source.read(0), kind)
    assert text.startswith("Clip 'b': ")
    return text


def test_a_clip_that_is_too_short_names_the_layer(tmp_path):
    add(add(tmp_path / "b", "rgb"), "normal", format="mp4", frames=3)
    text = bad_clip(tmp_path)
    assert "normal.mp4" in text and "3 frames" in text and "5 are needed" in text


def test_longer_layers_are_cut_and_need_not_be_equally_long(tmp_path):
    add(add(tmp_path / "b", "rgb", frames=9), "normal", frames=6)
    layers = own(tmp_path).read(0).layers
    assert {image.shape for image in layers.values()} == {(5, 16, 16, 3)}
    torch.testing.assert_close(layers["rgb"], ramp(9, phase=phase("rgb"))[:5], atol=1e-5, rtol=0)


def test_layers_of_two_sizes_are_refused(tmp_path):
    add(add(tmp_path / "b", "rgb"), "normal", width=32)
    assert "rgb 16x16" in bad_clip(tmp_path) and "normal 32x16" in bad_clip(tmp_path)


def test_two_files_of_one_layer_are_refused(tmp_path):
    add(add(tmp_path / "b", "rgb"), "rgb", format="mp4")
    assert "rgb and rgb.mp4 both" in bad_clip(tmp_path)


def test_a_clip_without_any_layer_is_refused(tmp_path):
    (tmp_path / "b").mkdir()
    assert "no layer" in bad_clip(tmp_path)


@pytest.mark.parametrize("keep", [0, 1000])
def test_a_truncated_video_is_refused(tmp_path, keep):
    file = add(tmp_path / "b", "rgb", format="mp4") / "rgb.mp4"
    file.write_bytes(file.read_bytes()[:keep])
    assert "rgb.mp4" in bad_clip(tmp_path)


def test_an_empty_picture_and_an_empty_folder_are_refused(tmp_path):
    clip = add(tmp_path / "b", "rgb")
    (clip / "rgb" / "rgb.1003.png").write_bytes(b"")
    assert "rgb.1003.png" in bad_clip(tmp_path)
    shutil.rmtree(clip / "rgb")
    (clip / "rgb").mkdir()
    assert "no frames" in bad_clip(tmp_path)


def test_nan_is_refused(tmp_path):
    OpenEXR = pytest.importorskip("OpenEXR")
    pixels = ramp(1)[0].numpy().copy()
    pixels[3, 4, 1] = float("nan")
    (tmp_path / "b").mkdir()
    OpenEXR.File({"type": OpenEXR.scanlineimage}, {"RGB": pixels}).write(str(tmp_path / "b" / "rgb.exr"))
    text = bad_clip(tmp_path, frames=1)
    assert "rgb.exr" in text and "NaN" in text


def test_a_prompt_that_is_not_utf8_is_refused(tmp_path):
    (add(tmp_path / "b", "rgb") / "prompt.txt").write_bytes("Büro".encode("latin-1"))
    assert "prompt.txt is not UTF-8" in bad_clip(tmp_path)


def test_a_file_that_a_table_names_and_is_not_there(tmp_path):
    long = "a red cup on a table " * 30  # a text in the wrong column is a name that no file can have
    (tmp_path / "t.csv").write_text(f"name,rgb\nb,no where.mp4\nb,{long}\n")
    source = own(tmp_path / "t.csv")
    assert source.key(0) != source.key(1)
    assert "no where.mp4 does not exist" in sentence(lambda: source.read(0), OSError)
    with pytest.raises(OSError, match="Clip 'b': "):
        source.read(1)


def test_a_single_picture_stands_still_beside_longer_layers_but_not_alone(tmp_path):
    clip = add(tmp_path / "b", "rgb")
    shutil.copy(clip / "rgb" / "rgb.1001.png", clip / "albedo.png")
    layers = own(tmp_path).read(0).layers
    assert layers["albedo"].shape == (5, 16, 16, 3)
    assert all(torch.equal(frame, layers["rgb"][0]) for frame in layers["albedo"])
    shutil.rmtree(clip / "rgb")
    assert "single pictures only" in bad_clip(tmp_path)
    assert own(tmp_path, frames=1).read(0).layers["albedo"].shape == (1, 16, 16, 3)


@pytest.mark.parametrize(("tall", "wide"), [(40, 80), (80, 40), (8, 12), (33, 47), (1, 100)])
def test_pictures_cover_the_size_and_keep_their_centre(tmp_path, tall, wide):
    """Ramps through 0.5 in the middle, as steep as they are to be after scaling by one factor both ways."""
    y, x = torch.meshgrid(torch.arange(tall) - (tall - 1) / 2, torch.arange(wide) - (wide - 1) / 2, indexing="ij")
    unit = max(16 / tall, 32 / wide)
    images = torch.stack([0.5 + y * unit / 100, 0.5 + x * unit / 100, torch.zeros_like(x)], -1)[None]
    write_clip(images, tmp_path / "a" / "rgb", RATE)
    image = own(tmp_path, frames=1, height=16, width=32).read(0).layers["rgb"]
    assert image.shape == (1, 16, 32, 3)
    if tall > 1:  # of a line so thin two pixels are left, which say nothing of a ramp
        # Within 2 pixels: the kernel at the rim, and half a pixel of cropping.
        assert (image[0, :, :, 1] - (0.5 + (torch.arange(32) - 15.5) / 100)).abs().max() < 0.02
        assert (image[0, :, :, 0] - (0.5 + (torch.arange(16) - 7.5) / 100)[:, None]).abs().max() < 0.02


def test_resizing_is_antialiased_and_stays_in_range(tmp_path):
    stripes = (torch.arange(72) % 2).float().expand(1, 72, 72)[..., None].expand(-1, -1, -1, 3)
    step = (torch.arange(24) >= 12).float().expand(1, 24, 24)[..., None].expand(-1, -1, -1, 3)
    for name, images in (("a", stripes), ("b", step)):
        write_clip(images, tmp_path / name / "rgb", RATE)
    source = own(tmp_path, frames=1)
    assert (source.read(0).layers["rgb"][:, 2:-2, 2:-2] - 0.5).abs().max() < 0.02  # not stripes of another width
    image = source.read(1).layers["rgb"]
    assert image.min() >= 0 and image.max() <= 1  # bicubic overshoots at a step


def test_normals_are_unit_vectors_again_after_resizing(tmp_path):
    angles = torch.linspace(-1.4, 1.4, 64).expand(64, 64)
    normal = torch.stack([angles.sin(), torch.zeros(64, 64), angles.cos()], -1)
    normal[:, ::2, 0] *= -1  # neighbours that nearly cancel out
    write_clip(0.5 + 0.5 * normal[None], tmp_path / "a" / "normal", RATE, "png", "normal")
    image = own(tmp_path, frames=1).read(0).layers["normal"]
    assert ((2 * image - 1).norm(dim=-1) - 1).abs().max() < 1e-4


# keys


def test_a_key_follows_everything_that_decides_a_clip_and_nothing_else(tmp_path):
    clip = add(tmp_path / "data" / "a", "rgb", frames=9)
    (clip / "albedo").mkdir()
    key = own(tmp_path / "data").key(0)
    assert own(tmp_path / "data").key(0) == key
    others = [own(tmp_path / "data", frames=9).key(0), own(tmp_path / "data", height=32).key(0),
              own(tmp_path / "data", width=32).key(0), own(tmp_path / "data", ALPHA).key(0)]
    (clip / "prompt.txt").write_text("a cup")
    others.append(own(tmp_path / "data").key(0))
    (clip / "prompt.txt").unlink()
    shutil.copytree(tmp_path / "data", tmp_path / "elsewhere")  # keeps times
    assert own(tmp_path / "elsewhere").key(0) == key
    frame = clip / "rgb" / "rgb.1004.png"
    time = frame.stat().st_mtime_ns
    os.utime(frame, ns=(time, time + 1_000_000))
    others.append(own(tmp_path / "data").key(0))
    shutil.move(clip / "rgb", clip / "normal")
    others.append(own(tmp_path / "data").key(0))
    assert len({key, *others}) == 8
    source = own(tmp_path / "data", say=print)
    assert pickle.loads(pickle.dumps(source)).key(0) == source.key(0)  # as a data loader's workers get it


def test_synthetic_shots_are_a_source():
    source = SyntheticShots(INTRINSIC, 3, 1, 16, 32, first_seed=100_007)
    example, same = source.read(1), synthetic_example(INTRINSIC, 100_008, 1, 16, 32)
    assert len(source) == 3 and example.name == source.name(1) == same.name and example.prompt == same.prompt
    assert all(torch.equal(example.layers[layer], same.layers[layer]) for layer in INTRINSIC.layers)
    keys = {source.key(i) for i in range(3)} | {SyntheticShots(ALPHA, 3, 1, 16, 32, 100_007).key(1)}
    keys.add(SyntheticShots(INTRINSIC, 3, 1, 32, 32, 100_007).key(1))
    assert len(keys) == 5 and SyntheticShots(INTRINSIC, 1, 1, 16, 32, 100_008).key(0) == source.key(1)
    with pytest.raises(IndexError):
        source.read(3)
    assert "0 synthetic shots" in sentence(lambda: SyntheticShots(INTRINSIC, 0, 1, 16, 16))


def test_a_folder_of_renderings_serves_every_family(tmp_path):
    size = (2, 5, 32, 32)
    for family in (INTRINSIC, ALPHA):
        source = SyntheticShots(family, *size, framing="close", folder=tmp_path)
        exact = SyntheticShots(family, *size, framing="close")
        for i in range(2):
            stored, rendered = source.read(i), exact.read(i)
            assert (stored.name, stored.prompt, stored.texts) == (rendered.name, rendered.prompt, rendered.texts)
            assert stored.layers.keys() == rendered.layers.keys() == set(family.layers)
            for layer, image in stored.layers.items():
                torch.testing.assert_close(image, rendered.layers[layer], atol=0.5 / 255 + 1e-6, rtol=0)
        assert source.key(0) != exact.key(0) != SyntheticShots(family, *size).key(0)
    files = sorted(tmp_path.iterdir())
    assert len(files) == 2  # both families, one file a shot
    folder = ShotFolder(tmp_path, 5, 32, 32, "close")
    layers, *said = folder.shot(FIRST_TRAINING_SEED)
    layers = {name: layer.clone() for name, layer in layers.items()}  # they are mapped from the file
    files[0].write_bytes(files[0].read_bytes()[:1000])  # a copy that was cut off
    for layers_again, *said_again in (folder.shot(FIRST_TRAINING_SEED), folder.shot(FIRST_TRAINING_SEED)):
        assert said_again == said and list(layers_again) == list(layers)
        assert all(torch.equal(layers_again[name], layers[name]) for name in layers)


def test_a_folder_is_filled_by_several_processes(tmp_path):
    folder = ShotFolder(tmp_path, 1, 16, 16)
    folder.fill(range(100_000, 100_003), processes=2)
    assert len(list(tmp_path.glob("*.safetensors"))) == 3
    layers, caption, summary = folder.shot(100_001)
    assert layers["rgb"].shape == (1, 16, 16, 3) and len(caption) > len(summary) > 0


# cached latents


@pytest.fixture(scope="module")
def vae_file(tmp_path_factory):
    pytest.importorskip("diffusers", reason="the VAE outside ComfyUI needs diffusers")
    return write_tiny_vae(tmp_path_factory.mktemp("vae") / "vae.safetensors", base_dim=2)


@pytest.fixture(scope="module")
def vae(vae_file):
    return load_vae(vae_file)


class Counted:
    """A source of clips from memory that counts what is read; "bad" and "away" cannot be."""

    def __init__(self, *names: str):
        self.names, self.reads, self.faulty = names, [], {"bad": ValueError, "away": OSError}

    def __len__(self):
        return len(self.names)

    def name(self, i):
        return self.names[i]

    def key(self, i):
        return self.names[i]

    def read(self, i):
        self.reads.append(self.names[i])
        if kind := self.faulty.get(self.names[i]):
            raise kind(f"Clip '{self.names[i]}': it is no good.")
        return Example(self.names[i], {"rgb": ramp(phase=i / 5), "normal": ramp(phase=i / 3)}, f"Prompt ü of {i}")


def cached(source, vae, folder, key="vae 1"):
    heard = []
    cache = LatentCache(source, vae, key, folder, say=heard.append)
    cache.heard = heard
    return cache


def test_latents_are_the_vaes_to_half_precision_and_come_from_disk_the_second_time(tmp_path, vae):
    source = Counted("a", "b")
    fresh = cached(source, vae, tmp_path / "new folder").get(1)
    stored = cached(source, vae, tmp_path / "new folder").get(1)
    assert source.reads == ["b"]
    for clip in (fresh, stored):
        assert (clip.name, clip.prompt, set(clip.latents)) == ("b", "Prompt ü of 1", {"rgb", "normal"})
    for layer, images in source.read(1).layers.items():
        encoded = vae.encode(images)
        assert stored.latents[layer].dtype == torch.float32 and stored.latents[layer].shape == (16, 2, 2, 2)
        assert torch.equal(fresh.latents[layer], stored.latents[layer])
        torch.testing.assert_close(stored.latents[layer], encoded, rtol=2**-11, atol=1e-6)


def test_another_vae_or_another_clip_is_another_file(tmp_path, vae, vae_file):
    source = Counted("a")
    cached(source, vae, tmp_path).prepare()
    cached(source, vae, tmp_path, key="vae 2").prepare()
    cached(Counted("c"), vae, tmp_path).prepare()
    assert source.reads == ["a", "a"] and len(list(tmp_path.glob("*.safetensors"))) == 3
    other = write_tiny_vae(tmp_path / "vae", base_dim=2, seed=1)
    assert file_key(vae_file) == file_key(vae_file) != file_key(other)


def test_bad_clips_are_named_skipped_and_tried_again(tmp_path, vae):
    source = Counted("a", "bad", "b", "away")
    cache = cached(source, vae, tmp_path)
    bad = cache.prepare()
    assert bad == [Bad("bad", "Clip 'bad': it is no good."), Bad("away", "Clip 'away': it is no good.")]
    assert cache.heard == [f"Skipped: {b.reason}" for b in bad]
    assert cache.usable == [0, 2] and cache.get(1) is None
    source.faulty, source.reads = {}, []
    again = cached(source, vae, tmp_path)
    assert again.prepare() == [] and again.heard == []
    assert again.usable == [0, 1, 2, 3] and source.reads == ["bad", "away"]
    assert list(tmp_path.glob("*.json")) == []


def test_no_usable_clip_at_all_is_one_sentence(tmp_path, vae):
    cache = cached(Counted("away", "bad"), vae, tmp_path)
    assert len(cache.prepare()) == 2
    text = sentence(lambda: cache.usable)
    assert text == "None of the 2 clips can be used, first: Clip 'away': it is no good."


def test_processes_that_share_the_work_agree_on_what_is_usable(tmp_path, vae):
    source = Counted("a", "bad", "b", "c", "away")
    ranks = [cached(source, vae, tmp_path) for _ in range(3)]
    bad = [cache.prepare(rank, 3) for rank, cache in enumerate(ranks)]
    assert sorted(source.reads) == sorted(source.names)  # each clip once
    assert [[b.name for b in share] for share in bad] == [[], ["bad", "away"], []]
    assert [cache.usable for cache in ranks] == [[0, 2, 3]] * 3
    everything_bad = [cached(Counted("bad", "away"), vae, tmp_path / "2") for _ in range(2)]
    for rank, cache in enumerate(everything_bad):
        cache.prepare(rank, 2)
    for cache in everything_bad:
        with pytest.raises(ValueError, match="None of the 2 clips can be used, first: Clip 'bad': it is no good."):
            _ = cache.usable


@pytest.mark.parametrize("keep", [0, 100, -10])
def test_a_damaged_file_is_made_again_with_one_warning(tmp_path, vae, keep):
    source = Counted("a")
    whole = cached(source, vae, tmp_path).get(0)
    file, = tmp_path.iterdir()
    for use in (LatentCache.prepare, lambda cache: cache.get(0)):
        file.write_bytes(file.read_bytes()[:keep])
        cache = cached(source, vae, tmp_path)
        use(cache)
        assert cache.heard == ["Warning: the cached latents of 'a' are damaged and are made again."]
        assert torch.equal(cache.get(0).latents["rgb"], whole.latents["rgb"]) and len(cache.heard) == 1
    assert len(source.reads) == 3


def test_a_damaged_file_of_a_clip_that_is_bad_by_now(tmp_path, vae):
    source = Counted("a", "b")
    cached(source, vae, tmp_path).get(0)
    file, = tmp_path.iterdir()
    file.write_bytes(b"")
    source.faulty = {"a": ValueError}
    cache = cached(source, vae, tmp_path)
    cache.prepare()
    assert cache.usable == [1]


def test_a_full_disk_is_told_once_and_training_goes_on(tmp_path, vae, monkeypatch):
    source = Counted("a", "bad", "b")

    def full(path, data):
        raise OSError(f"Could not write {path}: No space left on device.")

    monkeypatch.setattr(latents_module, "replace_file", full)
    cache = cached(source, vae, tmp_path)
    cache.prepare()
    assert cache.usable == [0, 2]
    first, second = cache.get(0), cache.get(0)
    assert torch.equal(first.latents["rgb"], second.latents["rgb"])
    warnings = [text for text in cache.heard if "No space left" in text]
    assert len(warnings) == 1 and "\n" not in warnings[0] and list(tmp_path.iterdir()) == []


def test_what_a_killed_process_left_does_no_harm(tmp_path, vae):
    source = Counted("a")
    (tmp_path / ".0123.tmp").write_bytes(b"half a file")
    cache = cached(source, vae, tmp_path)
    cache.prepare()
    assert cache.usable == [0] and cache.get(0) is not None and cache.heard == []
    # Killed after the latents were stored and while an older note of failure was still there:
    latents, = tmp_path.glob("*.safetensors")
    latents.with_suffix(".bad.json").write_text('{"name": "a", "reason": "It was away."}')
    after = cached(source, vae, tmp_path)
    after.prepare()
    assert after.usable == [0] and source.reads == ["a"]
    # A note of failure that is no JSON:
    latents.unlink()
    latents.with_suffix(".bad.json").write_text("{")
    assert cached(source, vae, tmp_path).usable == [0]


def test_two_threads_that_cache_one_clip_both_succeed(tmp_path, vae_file, monkeypatch):
    meet, store = threading.Barrier(2, timeout=20), latents_module.replace_file

    def together(path, data):
        meet.wait()  # both have encoded, and neither has stored
        store(path, data)

    monkeypatch.setattr(latents_module, "replace_file", together)
    caches = [cached(Counted("a"), load_vae(vae_file), tmp_path) for _ in range(2)]
    clips = [None, None]

    def work(i):
        clips[i] = caches[i].get(0)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert torch.equal(clips[0].latents["rgb"], clips[1].latents["rgb"])
    assert caches[0].heard == caches[1].heard == []
    assert [file.suffix for file in tmp_path.iterdir()] == [".safetensors"]


def test_latents_that_are_not_finite_are_refused(tmp_path, vae_file):
    broken = load_vae(vae_file)
    broken._std = broken._std * 0  # as a VAE in float16 may overflow
    cache = cached(Counted("a"), broken, tmp_path)
    assert "not finite" in cache.prepare()[0].reason and list(tmp_path.glob("*.safetensors")) == []


def test_a_name_that_is_no_unicode_can_be_stored_and_said(tmp_path, vae, capsys):
    folder = os.fsencode(tmp_path / "data") + b"/B\xfcro"
    try:
        os.makedirs(folder)
    except OSError:
        pytest.skip("this file system takes unicode names only")
    add(Path(os.fsdecode(folder)), "rgb")  # five frames, too few for nine
    (Path(os.fsdecode(folder)) / "nomral.mp4").touch()
    source = OwnClips(INTRINSIC, tmp_path / "data", 5, 16, 16)
    assert LatentCache(source, vae, "vae", tmp_path / "cache").get(0).name == "B?ro"
    again = LatentCache(OwnClips(INTRINSIC, tmp_path / "data", 9, 16, 16), vae, "vae", tmp_path / "cache")
    assert again.get(0) is None
    out, error = capsys.readouterr()
    assert out == "" and "nomral.mp4" in error and "Skipped: Clip 'B?ro'" in error


def test_own_clips_go_all_the_way(tmp_path, vae):
    clip = add(tmp_path / "data" / "Büro 窓", "rgb", "normal", format="mp4")
    (clip / "prompt.txt").write_text("ein Büro", encoding="utf-8")
    add(tmp_path / "data" / "kurz", "rgb", frames=2)
    cache = cached(own(tmp_path / "data"), vae, tmp_path / "cache")
    bad, = cache.prepare()
    assert bad.name == "kurz" and "2 frames" in bad.reason and cache.usable == [0]
    clip = cached(own(tmp_path / "data"), vae, tmp_path / "cache").get(0)
    assert (clip.name, clip.prompt, sorted(clip.latents)) == ("Büro 窓", "ein Büro", ["normal", "rgb"])
