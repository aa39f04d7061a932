"""Several clips in one LATENT, and several prompts in one call: rows [branches * clips * M] that never mix."""

from __future__ import annotations

import torch

from . import masks, tiny


def noise(clips: int, grid=tiny.GRID, seed: int = 9) -> torch.Tensor:
    """Noise of whole clips, [clips * M, 16, T, h, w]."""
    return torch.randn(4 * clips, 16, *grid, generator=torch.Generator().manual_seed(seed))


def compare(first: dict, second: dict, grid, cfg: float) -> str:
    """Two clips in one batch against each on its own."""
    model, both = tiny.layered(), noise(2, grid)
    joined = tiny.sample_noise(model, tiny.join(first, second), both, cfg=cfg)
    tiny.keeps_given("two clips", joined, tiny.join(first, second))
    alone = [tiny.sample_noise(model, clip, part, cfg=cfg) for clip, part in zip((first, second), both.chunk(2))]
    return tiny.within(f"cfg {cfg:g}", joined, torch.cat(alone), 1e-5)


def check_two_clips():
    """Two clips of one task in a batch equal two runs, to 1e-5, with and without CFG."""
    clips = tiny.latent(seed=1), tiny.latent(seed=2)
    return "; ".join(compare(*clips, tiny.GRID, cfg) for cfg in (1.0, 5.0))


def check_two_tasks():
    """Two clips of different tasks in a batch equal two runs, to 1e-5."""
    said = []
    for first, second in (("R2AIN", "AIN2R"), ("t2RAIN", "RA2IN")):
        clips = tiny.latent(first, seed=1), tiny.latent(second, seed=2)
        said += [f"{first} + {second}", *(compare(*clips, tiny.GRID, cfg) for cfg in (1.0, 5.0))]
    return "; ".join(said)


def check_two_granularities():
    """A clip masked by row beside one masked by frame or region equals two runs, to 1e-5."""
    whole = tiny.latent("AIN2R", grid=masks.GRID, seed=3)
    return "; ".join(compare(whole, other, masks.GRID, 5.0) for other in (masks.frame_mask(), masks.region_mask()))


def check_clips_never_mix():
    """Changing the second clip, its noise and its given layers, leaves the first unchanged to the bit."""
    model, drawn = tiny.layered(), noise(2)
    other = drawn.clone()
    other[4:] = noise(1, seed=77)
    latents = (tiny.join(tiny.latent(seed=1), tiny.latent(seed=s)) for s in (2, 3))
    one, two = (tiny.sample_noise(model, latent, n, cfg=5.0) for latent, n in zip(latents, (drawn, other)))
    return "; ".join((tiny.equal("first clip", one[:4], two[:4]), tiny.differs("second clip", one[4:], two[4:])))


def check_layers_do_mix():
    """Layers of one clip see each other: another plate makes another albedo."""
    model = tiny.layered()
    one, two = (tiny.sample_noise(model, tiny.latent(seed=s), noise(1)) for s in (1, 2))
    return tiny.differs("another plate", one[1:], two[1:], 1e-2)


def check_texts_of_other_lengths():
    """CFG with prompts of 8 and 12 tokens (one call, ComfyUI repeats tokens to fit) and of 8 and 100 (two calls) equals
    separate calls, to 1e-5."""
    model, latent, said = tiny.layered(), tiny.latent(), []
    for tokens, calls in ((12, 4), (100, 8)):
        texts, spy = (tiny.text(), tiny.text(2, tokens)), tiny.Spy(model)
        together = tiny.ksampler(spy.model, latent, *texts, cfg=5.0)
        assert len(spy.calls) == calls, f"8 and {tokens} tokens took {len(spy.calls)} calls, {calls} were expected"
        apart = tiny.ksampler(tiny.separate_calls(model), latent, *texts, cfg=5.0)
        said.append(tiny.within(f"8 and {tokens} tokens", together, apart, 1e-5))
    return "; ".join(said)


def check_prompt_a_layer():
    """A CONDITIONING of four texts gives each layer its own: equal texts are the one-prompt case (1e-5), a text only
    matters to the layer it stands for and through it, and CFG works with one or four negative texts."""
    model, latent = tiny.layered(), tiny.latent("t2RAIN")
    one, four = tiny.text(1), tiny.text(1, texts=4)
    same = [[one[0][0].expand(4, -1, -1), {}]]
    negative, negatives = tiny.text(2), [[tiny.text(2)[0][0].expand(4, -1, -1), {}]]
    plain = tiny.ksampler(model, latent, one, negative, cfg=5.0)
    said = [tiny.within("four equal prompts", tiny.ksampler(model, latent, same, negatives, cfg=5.0), plain, 1e-5)]
    mixed = tiny.ksampler(model, latent, four, negatives, cfg=5.0)
    said.append(tiny.differs("four prompts", mixed, plain))
    said.append(tiny.within("one negative prompt", tiny.ksampler(model, latent, four, negative, cfg=5.0), mixed, 1e-5))
    # Which row a text belongs to: swapping two layers' texts is not the same as swapping two others'.
    swapped = [[four[0][0][[1, 0, 2, 3]], {}]]
    said.append(tiny.differs("swapped prompts", tiny.ksampler(model, latent, swapped, negatives, cfg=5.0), mixed))
    return "; ".join(said)


def check_prompt_a_layer_reaches_its_layer():
    """Only the layer whose prompt changed moves in the first cross-attention: with one block, no layer but it and
    those that attend to it later can; so with one block and no self-attention to come, the others stay."""
    from ....comfy_host.attach import attach_layers
    from ....joint.families import INTRINSIC

    model = attach_layers(tiny.wan_model(num_layers=1), tiny.layers(layers=1), INTRINSIC, {})
    x, sigma = noise(1), torch.tensor(0.7)
    texts = tiny.text(1, texts=4)[0][0]
    other = texts.clone()
    other[2] = tiny.text(5)[0][0]
    mask = torch.ones(4, 1, *tiny.GRID)
    one, two = (tiny.network(model, x, sigma, context, mask)["out"] for context in (texts, other))
    unchanged = [0, 1, 3]
    return "; ".join((tiny.within("other layers", two[unchanged], one[unchanged], 1e-6),
                      tiny.differs("its layer", two[2], one[2])))


def check_prompts_with_two_clips():
    """With two clips: four texts serve the layers of both, eight texts each row; both equal two runs, to 1e-5."""
    model, drawn = tiny.layered(), noise(2)
    clips = tiny.latent(seed=1), tiny.latent(seed=2)
    eight, negative = tiny.text(3, texts=8), tiny.text(4, texts=8)
    said = []
    for name, texts in (("eight", (eight, negative)), ("four", tuple([[t[0][0][:4], {}]] for t in (eight, negative)))):
        joined = tiny.sample_noise(model, tiny.join(*clips), drawn, *texts, cfg=5.0)
        alone = [
            tiny.sample_noise(model, clip, drawn[4 * n:4 * n + 4],
                              *([[t[0][0][4 * n:4 * n + 4] if name == "eight" else t[0][0], {}]] for t in texts),
                              cfg=5.0) for n, clip in enumerate(clips)]
        said.append(tiny.within(f"{name} texts", joined, torch.cat(alone), 1e-5))
    return "; ".join(said)


def check_combined_prompts():
    """ConditioningCombine runs two positive prompts in one call; the same prompt twice is that prompt once (1e-5)."""
    model, latent, one = tiny.layered(), tiny.latent(), tiny.text()
    spy = tiny.Spy(model)
    twice = tiny.ksampler(spy.model, latent, one + tiny.text(), cfg=5.0)
    assert [len(x) for x in spy["x"]] == [12] * 4, "the three prompts did not share a call"
    plain = tiny.ksampler(model, latent, one, cfg=5.0)
    both = tiny.ksampler(model, latent, one + tiny.text(7), cfg=5.0)
    return "; ".join((tiny.within("twice the prompt", twice, plain, 1e-5), tiny.differs("two prompts", both, plain)))
