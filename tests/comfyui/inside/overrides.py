"""What other nodes hang into a Wan model: attention overrides and backends, additive patches, rotary options."""

from __future__ import annotations

import comfy.ldm.modules.attention
import torch
from comfy_extras import nodes_model_advanced, nodes_rope

from ....comfy_host.forward import rope_options
from ....joint.rope import grid_rope
from . import tiny

TOKENS = tiny.GRID[0] * tiny.GRID[1] * tiny.GRID[2] // 4  # of one layer


class Override:
    """An optimized_attention_override that keeps the shapes it saw and halves what attention gives."""

    def __init__(self):
        self.seen: list[tuple] = []

    def __call__(self, func, q, k, v, heads, *args, **kwargs):
        self.seen.append((tuple(q.shape), tuple(k.shape), tuple(v.shape), heads, kwargs.get("mask")))
        return func(q, k, v, heads, *args, **kwargs) * 0.5

    def on(self, model):
        """A clone of a MODEL with this override, set as packs set it."""
        model = model.clone()
        model.model_options["transformer_options"]["optimized_attention_override"] = self
        return model


def check_override_before_and_after():
    """An attention override set before or after the layers is called alike, with all layers packed into one sequence a
    clip and no mask, and its effect is seen, the same both times."""
    base, latent = tiny.wan_model(), tiny.latent()
    plain = tiny.ksampler(tiny.layered(model=base), latent)
    before, after = Override(), Override()
    one = tiny.ksampler(tiny.layered(model=before.on(base)), latent)
    two = tiny.ksampler(after.on(tiny.layered(model=base)), latent)
    assert before.seen == after.seen and len(before.seen) == 4 * 2 * tiny.LAYERS, len(before.seen)
    packed = (1, 4 * TOKENS, tiny.DIM)
    assert before.seen[0] == (packed, packed, packed, tiny.HEADS, None), before.seen[0]
    # The last block asks only for what leaves the network: three layers of four.
    last = before.seen[2 * tiny.LAYERS - 2]
    assert last == ((1, 3 * TOKENS, tiny.DIM), packed, packed, tiny.HEADS, None), last
    return "; ".join((tiny.equal("before or after", one, two), tiny.differs("the override", one, plain)))


def check_override_with_guidance_and_clips():
    """With CFG and two clips the override sees four sequences, one a request; cross-attention reads each text once."""
    override = Override()
    model = override.on(tiny.layered())
    tiny.sample_noise(model, tiny.join(tiny.latent(), tiny.latent(seed=1)), torch.randn(8, 16, *tiny.GRID), steps=1,
                      cfg=5.0)
    own, cross = override.seen[:2]
    assert own[0] == (4, 4 * TOKENS, tiny.DIM), own
    assert cross[1] == (2, 8, tiny.DIM) and cross[0] == (2, 8 * TOKENS, tiny.DIM), cross
    return f"self {own[0]}, cross {cross[0]} on {cross[1]}"


def check_attention_backends():
    """The ModelAttentionBackend node on either side of the layers, and every backend that runs on a CPU, give the
    default's result to 1e-5."""
    base, latent = tiny.wan_model(), tiny.latent()
    plain, said = tiny.ksampler(tiny.layered(model=base), latent, cfg=5.0), []

    def node(model):
        return nodes_model_advanced.ModelAttentionBackend().patch(model, "pytorch attention")[0]

    for name, model in (("before", tiny.layered(model=node(base))), ("after", node(tiny.layered(model=base)))):
        said.append(tiny.within(f"node {name}", tiny.ksampler(model, latent, cfg=5.0), plain, 1e-5))
    for name in ("pytorch", "sub_quad", "split"):
        model = tiny.layered(model=base)
        backend = comfy.ldm.modules.attention.get_attention_function(name)
        model.set_model_optimized_attention(backend)
        said.append(tiny.within(name, tiny.ksampler(model, latent, cfg=5.0), plain, 1e-5))
    return "; ".join(said)


def check_additive_patches():
    """attn1_patch, attn2_patch and double_block are called once a block and their effect is seen, whether set before
    or after the layers; patches that return what they got change nothing."""
    base, latent, said = tiny.wan_model(), tiny.latent(), []
    plain = tiny.ksampler(tiny.layered(model=base), latent)

    def result(name: str, args: dict):
        return args if name == "double_block" else args["x"]

    for name, key in (("attn1_patch", "x"), ("attn2_patch", "x"), ("double_block", "img")):
        calls = []

        def nothing(args, calls=calls, name=name, key=key):
            options = args["transformer_options"]
            calls.append((options["block_index"], tuple(args[key].shape), tuple(options["grid_sizes"])))
            return result(name, args)

        def louder(args, name=name, key=key):
            return result(name, {**args, key: args[key] * 1.5})

        model = tiny.layered(model=base)
        model.set_model_patch(nothing, name)
        said.append(tiny.equal(f"{name} that does nothing", tiny.ksampler(model, latent), plain))
        assert [call[0] for call in calls] == [0, 1] * 4, calls
        packed = [call[1] for call in calls[:2]]
        assert packed == [(1, 4 * TOKENS, tiny.DIM), (1, 3 * TOKENS, tiny.DIM)], packed
        assert calls[0][2] == (2, 2, 3), calls[0]
        after = tiny.layered(model=base)
        after.set_model_patch(louder, name)
        before = base.clone()
        before.set_model_patch(louder, name)
        loud = tiny.ksampler(after, latent)
        said.append(tiny.differs(name, loud, plain))
        said.append(tiny.equal("set before", tiny.ksampler(tiny.layered(model=before), latent), loud))
    return "; ".join(said)


def check_attention_of_queries():
    """attn1_patch gets rotated q and k with heads apart, [N, T, H, d], so that attention can be redone from them."""
    model, seen = tiny.layered(), []

    def patch(args):
        seen.append((tuple(args["q"].shape), tuple(args["k"].shape)))
        return args["x"]

    model.set_model_patch(patch, "attn1_patch")
    tiny.ksampler(model, tiny.latent(), steps=1)
    head = tiny.DIM // tiny.HEADS
    assert seen == [((1, n * TOKENS, tiny.HEADS, head), (1, 4 * TOKENS, tiny.HEADS, head)) for n in (4, 3)], seen
    return str(seen)


def check_scale_rope():
    """The ScaleROPE node reaches our positions on either side of the layers: results change, neutral values do not,
    and the angles are those of WanModel.rope_encode to 1e-6."""
    base, latent = tiny.wan_model(), tiny.latent(grid=(3, 4, 6))
    plain, said = tiny.ksampler(tiny.layered(model=base), latent), []

    def node(model, sx=1.0, dx=0.0, sy=1.0, dy=0.0, st=1.0, dt=0.0):
        return nodes_rope.ScaleROPE.execute(model, sx, dx, sy, dy, st, dt).result[0]

    said.append(tiny.equal("neutral", tiny.ksampler(node(tiny.layered(model=base)), latent), plain))
    wan = base.model.diffusion_model
    for name, values in (("scale x", {"sx": 2.0}), ("scale y", {"sy": 0.5}), ("scale t", {"st": 3.0}),
                         ("all", {"sx": 1.5, "dx": 1.0, "sy": 0.5, "dy": -2.0, "st": 2.0, "dt": 4.0})):
        after = tiny.ksampler(node(tiny.layered(model=base), **values), latent)
        before = tiny.ksampler(tiny.layered(model=node(base, **values)), latent)
        said.append(tiny.differs(name, after, plain, 1e-4))
        said.append(tiny.equal("before or after", before, after))
        options = node(base, **values).model_options["transformer_options"]
        stock = wan.rope_encode(3, 4, 6, transformer_options=options, device=tiny.CPU, dtype=torch.float32)
        stock = stock.flatten(0, 2)[..., 0].movedim(-1, 0)  # [..., L, d/2, 2, 2] -> (cos, sin) [2, L, d/2]
        ours = grid_rope((3, 2, 3), tiny.DIM // tiny.HEADS, options=rope_options(options["rope_options"]))
        said.append(tiny.within("angles", ours, stock, 1e-6))
    return "; ".join(said)
