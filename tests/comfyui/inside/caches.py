"""ComfyUI's caches and compiler around a MODEL with layers."""

from __future__ import annotations

import torch
import torch._dynamo
from comfy_extras import nodes_easycache, nodes_torch_compile

from ....comfy_host.captions import TextJob, caption_clip
from ....joint.families import UNITY, VIGU
from . import latents, tiny

STEPS = 8


class Forwards:
    """Counts how often the joint forward itself runs."""

    def __init__(self, model):
        self.model, self.calls = model.clone(), 0
        self.model.set_model_patch(self, "double_block")

    def __call__(self, args):
        self.calls += args["block_index"] == 0
        return args


def check_easycache():
    """EasyCache with threshold 0 is no cache, bit by bit; with a larger one steps are skipped, the result is
    finite, and what is given is exact."""
    count = Forwards(tiny.layered())
    latent = tiny.latent()

    def cached(threshold: float):
        count.calls = 0
        model = nodes_easycache.EasyCacheNode.execute(count.model, threshold, 0.0, 1.0, False).result[0]
        return tiny.ksampler(model, latent, steps=STEPS, cfg=5.0), count.calls

    plain = tiny.ksampler(count.model, latent, steps=STEPS, cfg=5.0)
    zero, all_calls = cached(0.0)
    more, fewer_calls = cached(3.0)
    assert all_calls == STEPS and fewer_calls < STEPS, f"{all_calls} and {fewer_calls} calls of {STEPS}"
    return "; ".join((tiny.equal("threshold 0", zero, plain), f"threshold 3 ran {fewer_calls} of {STEPS} steps",
                      tiny.keeps_given("threshold 3", more, latent), tiny.differs("the cache", more, plain)))


def check_lazycache():
    """The same for LazyCache, which skips whole predictions."""
    count = Forwards(tiny.layered())
    latent = tiny.latent()

    def cached(threshold: float):
        count.calls = 0
        model = nodes_easycache.LazyCacheNode.execute(count.model, threshold, 0.0, 1.0, False).result[0]
        return tiny.ksampler(model, latent, steps=STEPS), count.calls

    plain = tiny.ksampler(count.model, latent, steps=STEPS)
    zero, all_calls = cached(0.0)
    more, fewer_calls = cached(0.5)
    assert all_calls == STEPS and fewer_calls < STEPS, f"{all_calls} and {fewer_calls} calls of {STEPS}"
    return "; ".join((tiny.equal("threshold 0", zero, plain), f"threshold 0.5 ran {fewer_calls} of {STEPS} steps",
                      tiny.keeps_given("threshold 0.5", more, latent)))


def check_torch_compile():
    """TorchCompileModel, backend eager, equals the model itself to 1e-5: for two tasks in turn, and the joint forward
    is what runs. The plain MODEL and the uncompiled one are unchanged afterwards."""
    base, empty = tiny.wan_model(), {"samples": torch.zeros(1, 16, *tiny.GRID)}
    picture = tiny.ksampler(base, empty, steps=2)
    model, said = tiny.layered(model=base), []
    compiled = nodes_torch_compile.TorchCompileModel.execute(model, "eager").result[0]
    for task in ("R2AIN", "t2RAIN"):
        latent = tiny.latent(task)
        plain = tiny.ksampler(model, latent, steps=2)
        said.append(tiny.within(task, tiny.ksampler(compiled, latent, steps=2), plain, 1e-5))
        said.append(tiny.equal("uncompiled", tiny.ksampler(model, latent, steps=2), plain))
    said.append(tiny.equal("plain MODEL", tiny.ksampler(base, empty, steps=2), picture))
    return "; ".join(said)


def check_torch_compile_of_other_families():
    """So do streams with parts of their own: a layer beside rgb (1e-5), and a caption, word for word."""
    unity, latent = tiny.layered(UNITY), tiny.latent("R2D", UNITY)
    compiled = nodes_torch_compile.TorchCompileModel.execute(unity, "eager").result[0]
    said = [tiny.within("R2D", tiny.ksampler(compiled, latent, steps=2), tiny.ksampler(unity, latent, steps=2), 1e-5)]
    vigu, clip, job = tiny.layered(VIGU), latents.clip(5, (48, 64)), TextJob(steps=6, length=12)
    compiled = nodes_torch_compile.TorchCompileModel.execute(vigu, "eager").result[0]
    texts = [caption_clip(model, latents.tiny_vae(), clip, job) for model in (compiled, vigu)]
    assert texts[0] == texts[1], texts
    return "; ".join([*said, texts[0].text])


def check_torch_compile_of_deep_models():
    """A model of 12 blocks is compiled into as many graphs as one of 3: blocks share theirs, as stock Wan's do. With a
    graph a block, dynamo would give up after 8 and leave most of a 14B's 40 blocks uncompiled."""
    graphs = []
    for blocks in (3, 12):
        torch._dynamo.reset()
        torch._dynamo.utils.counters.clear()
        model = tiny.layered(model=tiny.wan_model(num_layers=blocks))
        compiled = nodes_torch_compile.TorchCompileModel.execute(model, "eager").result[0]
        tiny.ksampler(compiled, tiny.latent(), steps=2)
        graphs.append(torch._dynamo.utils.counters["stats"]["unique_graphs"])
    assert 0 < graphs[1] <= graphs[0], f"{graphs[0]} graphs for 3 blocks, {graphs[1]} for 12"
    return f"{graphs[0]} graphs for 3 blocks, {graphs[1]} for 12"
