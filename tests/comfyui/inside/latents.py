"""Strata Condition Mask and Strata Decode Layers with the tiny Wan VAE: sizes, lengths, masks, and wrong input."""

from __future__ import annotations

import comfy.model_management
import comfy.sd
import comfy.utils
import folder_paths
import torch
import torch.nn.functional as F
from comfy_api.latest import io
from torch import Tensor

import nodes

from ....joint.families import ALPHA, INTRINSIC, get_family
from ....nodes.condition_mask import ConditionMask
from ....nodes.decode_layers import OUTPUTS, DecodeLayers
from ....nodes.joint_sampler import JointSampler
from . import tiny

SIZE = (37, 50)  # no multiples of 16, nor of 8, nor even both


def tiny_vae():
    """The stock VAE object on the tiny file."""
    path = folder_paths.get_full_path_or_raise("vae", "vae.safetensors")
    return comfy.sd.VAE(sd=comfy.utils.load_torch_file(path))


def clip(frames: int, size: tuple[int, int] = SIZE, seed: int = 0, channels: int = 3) -> Tensor:
    """Smooth random pictures [F, H, W, C] in 0..1."""
    draw = torch.Generator().manual_seed(seed)
    coarse = torch.rand(frames, channels, 5, 7, generator=draw)
    return F.interpolate(coarse, size=size, mode="bilinear").movedim(1, -1).clamp(0, 1).contiguous()


def make(family: str, vae=None, width: int = 64, height: int = 48, length: int = 5, **layers):
    """The Strata Condition Mask node: its LATENT, task, and what it says."""
    node = ConditionMask.execute({"family": family, "width": width, "height": height, "length": length, **layers}, vae)
    return node.result[0], node.result[1], node.ui.as_dict()["text"][0]


def decode(latent: dict, vae, connected: tuple[str, ...] | None = None) -> dict[str, Tensor]:
    """The Strata Decode Layers node: layer to pictures, as in a graph where `connected` outputs are read (None: as a
    node that the prompt does not list)."""
    hidden = None
    if connected is not None:
        reader = {"class_type": "PreviewImage", "inputs": {name: ["7", OUTPUTS.index(name)] for name in connected}}
        prompt = {"7": {"class_type": "StrataDecodeLayers", "inputs": {}}, "8": reader}
        hidden = {"hidden_inputs": {io.Hidden.prompt: prompt, io.Hidden.unique_id: "7"}}
    out = DecodeLayers.PREPARE_CLASS_CLONE(hidden).execute(latent, vae).result
    return {name: image for name, image in zip(OUTPUTS, out) if image is not None}


def sampled(latent: dict, family: str) -> dict:
    """A LATENT after the stock KSampler."""
    model = tiny.layered(get_family(family))
    return nodes.KSampler().sample(model, 1, 2, 1.0, "euler", "simple", tiny.text(), tiny.text(2), latent)[0]


class CountedVAE:
    """A VAE that counts its decodes."""

    def __init__(self, vae):
        self.vae, self.decodes = vae, 0

    def encode(self, pixels):
        return self.vae.encode(pixels)

    def decode(self, samples):
        self.decodes += 1
        return self.vae.decode(samples)


# --- there and back -----------------------------------------------------------------------------------------------


def check_sizes_and_lengths():
    """1, 2, 20 and 21 frames of 50x37 come back in true size and count through a sampling; the given layer's pictures
    bit by bit; generated layers finite and in 0..1, not still pictures of nothing."""
    vae, said = tiny_vae(), []
    given = "rgb"
    for family, lengths in (("intrinsic", (1, 2, 20, 21)), ("alpha", (2, 20))):
        for frames in lengths:
            picture = clip(frames)
            latent, task, about = make(family, vae, **{given: picture})
            assert task == ("R2AIN" if family == "intrinsic" else "R2PFB"), task
            assert f"{frames} frames of 50x37" in about and "of 64x48" in about, about
            assert latent["samples"].shape == (4, 16, (frames + 2) // 4 + 1, 6, 8), latent["samples"].shape
            images = decode(sampled(latent, family), vae)
            assert set(images) == {*get_family(family).layers, *(["alpha_mask"] if family == "alpha" else [])}
            for layer, image in images.items():
                channels = () if layer == "alpha_mask" else (3,)
                assert image.shape == (frames, *SIZE, *channels), f"{layer} is {tuple(image.shape)}"
                assert torch.isfinite(image).all() and image.min() >= 0 and image.max() <= 1, layer
                assert layer == given or image.std() > 0.01, f"{layer} is flat"
            tiny.equal(given, images[given], picture)
        said.append(f"{family}: {lengths} frames")
    return "; ".join(said)


def check_rows_against_the_vae():
    """A given row is the VAE's latent of the picture padded by its edges; a generated layer is the VAE's decode of its
    row, cropped; both bit by bit. Normals come out with unit length, alpha with equal channels."""
    vae, picture = tiny_vae(), clip(6)
    latent, _, _ = make("intrinsic", vae, rgb=picture)
    padded = torch.cat([picture, picture[-1:].expand(3, -1, -1, -1)])  # 6 -> 9 frames
    padded = torch.cat([padded, padded[:, -1:].expand(-1, 11, -1, -1)], dim=1)  # 37 -> 48
    padded = torch.cat([padded, padded[:, :, -1:].expand(-1, -1, 14, -1)], dim=2)  # 50 -> 64
    said = [tiny.equal("given row", latent["samples"][:1], vae.encode(padded))]
    assert not latent["samples"][1:].any(), "generated rows do not start empty"
    done = sampled(latent, "intrinsic")
    images = decode(done, vae)
    raw = vae.decode(done["samples"][1:2])[0][:6, :37, :50]
    said.append(tiny.equal("albedo", images["albedo"], raw))
    length = (2 * images["normal"] - 1).norm(dim=-1)
    said.append(tiny.within("normals", length, torch.ones_like(length), 1e-4))
    alpha = decode(sampled(make("alpha", vae, rgb=picture)[0], "alpha"), vae)
    said.append(tiny.equal("alpha", alpha["alpha"], alpha["alpha"][..., :1].expand_as(alpha["alpha"])))
    said.append(tiny.within("mask", alpha["alpha_mask"], alpha["alpha"][..., 0], 1e-6))
    return "; ".join(said)


def check_text_only():
    """Nothing connected: the size and length of the widgets, every layer generated, no VAE needed before decoding."""
    latent, task, about = make("intrinsic", width=50, height=37, length=6)
    assert task == "t2RAIN" and "text only" in about and "6 frames of 50x37" in about, about
    assert bool(latent["noise_mask"].all())
    images = decode(sampled(latent, "intrinsic"), tiny_vae())
    assert {image.shape for image in images.values()} == {(6, 37, 50, 3)}
    return "6 frames of 50x37"


def check_stills():
    """A still beside a clip stands for all its frames; a still alone is one frame; both come back as given."""
    vae, still, moving = tiny_vae(), clip(1, seed=1), clip(20, seed=2)
    latent, task, _ = make("intrinsic", vae, albedo=still, normal=moving)
    assert task == "AN2RI", task
    said = [tiny.equal("still", latent["samples"][1:2],
                       make("intrinsic", vae, albedo=still.expand(20, -1, -1, -1))[0]["samples"][1:2])]
    images = decode(sampled(latent, "intrinsic"), vae)
    said.append(tiny.equal("still decoded", images["albedo"], still.expand(20, -1, -1, -1)))
    said.append(tiny.equal("clip decoded", images["normal"], moving))
    assert images["rgb"].shape == (20, *SIZE, 3)
    alone = decode(sampled(make("intrinsic", vae, albedo=still)[0], "intrinsic"), vae)
    assert alone["rgb"].shape == (1, *SIZE, 3)
    return "; ".join(said)


def check_alpha_as_mask():
    """A MASK given as alpha is that alpha: the same row as its picture, and back bit by bit."""
    vae, mask = tiny_vae(), clip(5, channels=1)[..., 0]
    latent, task, _ = make("alpha", vae, alpha=mask, rgb=clip(5))
    assert task == "RP2FB", task
    picture, _, _ = make("alpha", vae, alpha=mask[..., None].expand(-1, -1, -1, 3), rgb=clip(5))
    images = decode(sampled(latent, "alpha"), vae)
    return "; ".join((tiny.equal("row", latent["samples"], picture["samples"]),
                      tiny.equal("alpha", images["alpha"], mask[..., None].expand(-1, -1, -1, 3)),
                      tiny.within("alpha_mask", images["alpha_mask"], mask, 1e-6)))


def check_four_channels():
    """A picture with an alpha channel is taken by its colours."""
    vae, picture = tiny_vae(), clip(5, channels=4)
    latent, _, _ = make("intrinsic", vae, rgb=picture)
    said = tiny.equal("row", latent["samples"], make("intrinsic", vae, rgb=picture[..., :3])[0]["samples"])
    return said + "; " + tiny.equal("rgb", decode(sampled(latent, "intrinsic"), vae)["rgb"], picture[..., :3])


# --- masks --------------------------------------------------------------------------------------------------------


def check_region_mask():
    """A layer with a mask is given outside it and generated inside: the task names it as generated, kept pixels come
    back bit by bit, masked ones are new, and whole 16x16 tokens are generated, all that the mask touches."""
    vae, picture = tiny_vae(), clip(5)
    mask = torch.zeros(5, *SIZE)
    mask[:, 3:10, 20:30] = 0.7
    latent, task, _ = make("intrinsic", vae, rgb=clip(5, seed=3), albedo=picture, albedo_mask=mask)
    assert task == "R2AIN", task
    cells = torch.zeros(2, 6, 8)
    cells[:, 0:2, 2:4] = 1  # pixels 0-15 by 16-31
    tiny.equal("noise_mask", latent["noise_mask"][1, 0], cells)
    done = sampled(latent, "intrinsic")
    tiny.keeps_given("latent", done["samples"], latent)
    image = decode(done, vae)["albedo"]
    inside = torch.zeros(5, *SIZE, dtype=torch.bool)
    inside[:, :16, 16:32] = True
    changed = (image[inside] != picture[inside]).float().mean()
    assert changed > 0.9, f"only {changed:.2f} of the masked pixels are new"
    return tiny.equal("kept pixels", image[~inside], picture[~inside])


def check_frame_mask():
    """A mask by frame: every pixel frame that shares a latent frame with a masked one is generated, the others come
    back bit by bit. A still mask counts for all frames, an all-black one for none."""
    vae, picture = tiny_vae(), clip(9)
    mask = torch.zeros(9, *SIZE)
    mask[6] = 1  # latent frame 2: pixel frames 5-8
    latent, task, _ = make("intrinsic", vae, rgb=clip(9, seed=3), albedo=picture, albedo_mask=mask)
    assert latent["noise_mask"][1, 0, :, 0, 0].tolist() == [0, 0, 1] and task == "R2AIN"
    image = decode(sampled(latent, "intrinsic"), vae)["albedo"]
    said = [tiny.equal("kept frames", image[:5], picture[:5])]
    assert (image[5:] != picture[5:]).float().mean() > 0.9
    white, black = torch.ones(1, *SIZE), torch.zeros(1, *SIZE)
    latent, task, _ = make("intrinsic", vae, rgb=picture, albedo=picture, albedo_mask=black)
    assert task == "RA2IN" and not latent["noise_mask"][1].any()
    latent, task, _ = make("intrinsic", vae, rgb=picture, albedo=picture, albedo_mask=white)
    assert task == "R2AIN" and latent["noise_mask"][1].all()
    said.append("still masks count for all frames")
    return "; ".join(said)


# --- latents given, moved, repeated -------------------------------------------------------------------------------


def check_latents_as_layers():
    """Layers of one sampling feed the next as a LATENT (R2AIN, then AIN2R): rows bit by bit, true size and length kept.
    So does one row cut out by the stock LatentFromBatch."""
    vae = tiny_vae()
    first = sampled(make("intrinsic", vae, rgb=clip(6))[0], "intrinsic")
    second, task, about = make("intrinsic", albedo=first, irradiance=first, normal=first)
    assert task == "AIN2R" and "6 frames of 50x37" in about, about
    said = [tiny.equal("rows", second["samples"][1:], first["samples"][1:])]
    images = decode(sampled(second, "intrinsic"), vae)
    assert {image.shape for image in images.values()} == {(6, *SIZE, 3)}
    row = nodes.LatentFromBatch().frombatch(first, 1, 1)[0]
    third, task, _ = make("intrinsic", vae, rgb=clip(6), albedo=row)
    assert task == "RA2IN", task
    said.append(tiny.equal("one row", third["samples"][1], first["samples"][1]))
    plate = {"samples": vae.encode(clip(5, (48, 64)))}
    fourth, task, about = make("alpha", rgb=plate)
    assert task == "R2PFB" and "5 frames of 64x48" in about, about
    said.append(tiny.equal("stock latent", fourth["samples"][:1], plate["samples"]))
    return "; ".join(said)


def check_repeated_latent():
    """The stock RepeatLatentBatch makes two clips of one: both are sampled, and every output holds both in turn."""
    vae, picture = tiny_vae(), clip(5)
    latent = nodes.RepeatLatentBatch().repeat(make("intrinsic", vae, rgb=picture)[0], 2)[0]
    done = sampled(latent, "intrinsic")
    tiny.keeps_given("two clips", done["samples"], latent)
    tiny.differs("the second noise", done["samples"][5], done["samples"][1])
    images = decode(done, vae)
    assert {image.shape for image in images.values()} == {(10, *SIZE, 3)}, {k: v.shape for k, v in images.items()}
    mask = torch.zeros(5, *SIZE)
    mask[:, :10, :10] = 1
    masked = make("intrinsic", vae, rgb=picture, albedo=picture, albedo_mask=mask)[0]
    twice = decode(sampled(nodes.RepeatLatentBatch().repeat(masked, 2)[0], "intrinsic"), vae)["albedo"]
    return "; ".join((tiny.equal("given", images["rgb"], picture.repeat(2, 1, 1, 1)),
                      tiny.equal("kept pixels", twice[:, 20:], picture.repeat(2, 1, 1, 1)[:, 20:])))


def check_only_connected_is_decoded():
    """A graph that reads albedo and rgb costs one decode (rgb was given), one that reads alpha and its mask one, one
    that reads nothing none; unread outputs are empty."""
    vae = CountedVAE(tiny_vae())
    done = sampled(make("intrinsic", vae, rgb=clip(5))[0], "intrinsic")
    matte = sampled(make("alpha", vae, rgb=clip(5))[0], "alpha")
    for latent, connected, decodes in ((done, ("rgb", "albedo"), 1), (done, ("normal",), 1), (done, (), 0),
                                       (matte, ("alpha", "alpha_mask"), 1), (matte, ("alpha_mask",), 1),
                                       (done, ("rgb",), 0)):
        vae.decodes = 0
        assert set(decode(latent, vae, connected)) == set(connected)
        assert vae.decodes == decodes, f"{connected} took {vae.decodes} decodes"
    return "6 graphs"


# --- wrong input --------------------------------------------------------------------------------------------------


def check_wrong_input():
    """Each wrong input is refused in one sentence that names the layer and what is needed."""
    vae, good, said = tiny_vae(), clip(5), []

    class OtherVAE:
        """Makes latents of four channels, as an image VAE."""

        def encode(self, pixels):
            return torch.zeros(1, 4, 1, 6, 8)

    broken = good.clone()
    broken[3, 5, 5, 1] = float("nan")
    endless = good.clone()
    endless[0, 0, 0, 0] = float("inf")
    row = {"samples": torch.randn(1, 16, 2, 6, 8)}
    cases = (
        (("differ in size", "rgb 50x37", "albedo 64x48"), {"rgb": good, "albedo": clip(5, (48, 64))}),
        (("differ in length", "rgb 5", "albedo 9"), {"rgb": good, "albedo": clip(9)}),
        (("'albedo' has a mask but no picture",), {"rgb": good, "albedo_mask": torch.ones(5, *SIZE)}),
        (("rgb", "NaN", "frame 3"), {"rgb": broken}),
        (("rgb", "infinite", "frame 0"), {"rgb": endless}),
        (("albedo", "2 channels"), {"albedo": good[..., :2]}),
        (("rgb", "empty"), {"rgb": good[:0]}),
        (("nothing is left to generate",), dict.fromkeys(INTRINSIC.layers, good)),
        (("rgb", "(2, 6, 8)", "(3, 6, 8)"), {"rgb": row, "albedo": clip(9, (48, 64))}),
        (("rgb", "(1, 4, 8, 8)"), {"rgb": {"samples": torch.zeros(1, 4, 8, 8)}}),
        (("rgb", "3 rows"), {"rgb": {"samples": torch.zeros(3, 16, 2, 6, 8)}}),
        (("mask",), {"rgb": good, "albedo": good, "albedo_mask": torch.ones(5, 10, 10)}),
        (("mask",), {"rgb": good, "albedo": good, "albedo_mask": torch.ones(3, *SIZE)}),
        (("mask", "NaN"), {"rgb": good, "albedo": good, "albedo_mask": torch.full((5, *SIZE), float("nan"))}),
    )
    for words, layers in cases:
        said.append(tiny.raises(ValueError, *words, call=lambda layers=layers: make("intrinsic", vae, **layers)))
    said.append(tiny.raises(ValueError, "rgb", "VAE", call=lambda: make("intrinsic", None, rgb=good)))
    said.append(tiny.raises(ValueError, "wan_2.1_vae", call=lambda: make("intrinsic", OtherVAE(), rgb=good)))
    return " ".join(said)


def check_wrong_latents_to_decode():
    """A LATENT that does not know its layers, or was resized or split after it was made, is refused."""
    vae = tiny_vae()
    latent = make("intrinsic", vae, rgb=clip(5))[0]
    small = nodes.LatentUpscale().upscale(latent, "nearest-exact", 32, 32, "disabled")[0]
    row = nodes.LatentFromBatch().frombatch(latent, 1, 1)[0]
    bare = {"samples": latent["samples"]}
    said = [tiny.raises(ValueError, "Strata Condition Mask", call=lambda: decode(bare, vae)),
            tiny.raises(ValueError, "5 frames of 50x37", call=lambda: decode(small, vae)),
            tiny.raises(ValueError, "(1, 16, 2, 6, 8)", call=lambda: decode(row, vae))]
    return " ".join(said)


def check_wrong_family():
    """A LATENT of one family on a MODEL of another is refused, before any step."""
    latent = make("alpha", tiny_vae(), rgb=clip(5))[0]
    return tiny.raises(ValueError, "alpha", "intrinsic",
                       call=lambda: JointSampler.execute(tiny.layered(INTRINSIC), latent, 1, 2, 1.0, tiny.text()))


def check_interrupt_between_layers():
    """An interrupt while layers are encoded or decoded is heard between them."""
    vae = tiny_vae()
    done = sampled(make("alpha", vae, rgb=clip(5))[0], "alpha")
    for work in (lambda: make("alpha", vae, rgb=clip(5)), lambda: decode(done, vae)):
        comfy.model_management.interrupt_current_processing()
        try:
            work()
            raise AssertionError("the interrupt was not heard")
        except comfy.model_management.InterruptProcessingException:
            pass
    assert decode(done, vae)["fg"].shape == (5, *SIZE, 3)
    return f"both; {ALPHA.name} decodes afterwards"
