"""Variants of a family: each is another network, each trains, and each is run because its file says so."""

import json
from dataclasses import fields, replace

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.utils.checkpoint import checkpoint

from comfyui_strata.joint.adapters import AdapterSettings, Gate
from comfyui_strata.joint.attention import sdpa
from comfyui_strata.joint.channels import backbone_channels, check_channels, join_channels, split_channels
from comfyui_strata.joint.families import ALPHA, INTRINSIC, parse_task, vary
from comfyui_strata.joint.sampling import Engine, Texts, initial_noise, sample
from comfyui_strata.joint.streams import Task
from comfyui_strata.joint.transformer import Host
from comfyui_strata.joint.variants import CHOICES, SHARED, Variant
from comfyui_strata.joint.wan import WanConfig
from comfyui_strata.model_loaders.adapter_names import ATTENTION, FEED_FORWARD, AdapterKey, parse_key
from comfyui_strata.model_loaders.adapter_stack import stack_adapters
from comfyui_strata.model_loaders.adapters import load_adapters, read_adapters
from comfyui_strata.model_loaders.backbone import load_backbone
from comfyui_strata.model_loaders.detect import detect
from comfyui_strata.model_loaders.layer_files import check_fits, load_layers
from comfyui_strata.model_loaders.layer_metadata import layer_metadata
from comfyui_strata.model_loaders.model_set import find_models
from comfyui_strata.tests.tiny_wan import write_tiny_adapters, write_tiny_backbone
from comfyui_strata.tests.toys import (
    CONFIG,
    GRID,
    LATENT,
    A,
    C,
    T,
    forward,
    toy_bank,
    toy_context,
    toy_latents,
    toy_model,
    written,
)
from comfyui_strata.training.objective import Draw, Lesson, training_levels, training_loss

CHANNELS = Variant(gating="always", adapters="shared", joint="channel_concat")
ON_STOCK_WAN = (Variant(gating="always"), Variant(adapters="shared"), Variant(ffn="per_stream"),
                Variant(condition_attention="conditions"))
ALL = (*ON_STOCK_WAN, CHANNELS)
EVERY = [(family, variant) for family in (INTRINSIC, ALPHA) for variant in ALL] + [(ALPHA, Variant(plate="own"))]
SMALL = WanConfig(dim=128, ffn_dim=64, num_layers=2, num_heads=1, text_dim=32)
ROLES = (C, T, C, T)


def network(family):
    """A toy backbone with the channels that the family needs, and random adapters for it."""
    in_dim, out_dim = backbone_channels(family, CONFIG.in_dim)
    return toy_model(config=replace(CONFIG, in_dim=in_dim, out_dim=out_dim)), toy_bank(family)


# ---- choices ---------------------------------------------------------------------------------------------------------


def test_the_published_choices_are_the_defaults_and_change_nothing():
    assert {f.name: f.default for f in fields(Variant)} == {name: values[0] for name, values in CHOICES.items()}
    assert vary(INTRINSIC, Variant()) == INTRINSIC and str(Variant()) == "as published"


@pytest.mark.parametrize("name", CHOICES)
def test_a_choice_that_there_is_not(name):
    with pytest.raises(ValueError, match=f"^A variant's {name} is one of .*, not 'some'.$"):
        Variant(**{name: "some"})


@pytest.mark.parametrize("other", [{"gating": "targets"}, {"adapters": "per_stream"}, {"ffn": "per_stream"},
                                   {"condition_attention": "conditions"}])
def test_joined_channels_leave_no_choice(other):
    with pytest.raises(ValueError, match="goes with gating = always, adapters = shared"):
        replace(CHANNELS, **other)


def test_a_variant_of_a_variant():
    with pytest.raises(ValueError, match=r"is a variant already \(gating = always\)"):
        vary(vary(INTRINSIC, Variant(gating="always")), Variant())


# ---- the network -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", ON_STOCK_WAN, ids=str)
def test_every_variant_is_another_network(variant):
    family, latents, model = vary(INTRINSIC, variant), toy_latents(), toy_model()
    varied = forward(model, toy_bank(family), latents, ROLES, family=family)
    published = forward(model, toy_bank(), latents, ROLES)
    assert all((varied[row] - published[row]).abs().max() > 1e-3 for row in (1, 3))


@pytest.mark.parametrize("variant", ON_STOCK_WAN[-2:], ids=str)
def test_a_variant_of_the_same_adapters_is_another_network(variant):
    family, latents, model = vary(INTRINSIC, variant), toy_latents(), toy_model()
    weights = published_tensors(INTRINSIC)
    a, b = (forward(model, stack_adapters(weights.__getitem__, f, CONFIG.num_layers), latents, ROLES, family=f)
            for f in (INTRINSIC, family))
    assert all((a[row] - b[row]).abs().max() > 1e-3 for row in (1, 3))


def test_gating_always_is_the_gate_always_on_every_layer():
    family, latents, model, bank = vary(INTRINSIC, Variant(gating="always")), toy_latents(), toy_model(), toy_bank()
    always = AdapterSettings((1.0,) * 4, (Gate.ALWAYS,) * 4)
    ours = forward(model, bank, latents, ROLES, family=family)
    for row, velocity in forward(model, bank, latents, ROLES, settings=always).items():
        assert torch.equal(ours[row], velocity)


@pytest.mark.parametrize("gating", CHOICES["gating"])
@pytest.mark.parametrize("ffn", CHOICES["ffn"])
def test_one_shared_adapter_is_four_equal_ones(gating, ffn):
    own, shared = (vary(INTRINSIC, Variant(gating=gating, adapters=adapters, ffn=ffn))
                   for adapters in ("per_stream", "shared"))
    model, latents, one, four = toy_model(), toy_latents(), toy_bank(shared), toy_bank(own)
    for a, b in zip(one.parameters(), four.parameters()):
        b.copy_(a.expand_as(b))
    ours = forward(model, one, latents, ROLES, family=shared)
    for row, velocity in forward(model, four, latents, ROLES, family=own).items():
        torch.testing.assert_close(ours[row], velocity, rtol=1e-6, atol=1e-6)


def test_equal_feed_forward_adapters_of_targets_are_the_last_one():
    family, roles = vary(INTRINSIC, Variant(ffn="per_stream")), (T,) * 4
    model, latents, last, own = toy_model(), toy_latents(), toy_bank(), toy_bank(family)
    for a, b in zip(last.parameters(), own.parameters()):
        b.copy_(a.expand_as(b))
    settings = replace(AdapterSettings.published(INTRINSIC), ffn_strength=0.5)
    ours = forward(model, own, latents, roles, family=family, settings=settings)
    for row, velocity in forward(model, last, latents, roles, settings=settings).items():
        torch.testing.assert_close(ours[row], velocity, rtol=1e-6, atol=1e-6)


class Recorder(Host):
    """Keeps the queries' and keys' lengths, keys and values of every self-attention call."""

    def __init__(self):
        super().__init__(self.record)
        self.calls = []

    def record(self, q, k, v, heads):
        if k.shape[1] != 5:  # 5 words of text
            self.calls.append((q.shape[1], k.clone(), v.clone()))
        return sdpa(q, k, v, heads)


def keys_and_values_of_conditions(variant, latents, times):
    """The keys and values of the leading streams of ROLES, rows 0 and 2, in every block."""
    family, host = vary(INTRINSIC, variant), Recorder()
    forward(toy_model(), toy_bank(family), latents, ROLES, family=family, host=host, times=times)
    given = 2 * GRID[0] * GRID[1] * GRID[2]
    return [part[:, :given] for _, k, v in host.calls for part in (k, v)]


@pytest.mark.parametrize("closed", [True, False])
def test_keys_and_values_of_closed_conditions_do_not_depend_on_the_targets(closed):
    variant = Variant(condition_attention="conditions" if closed else "all")
    later = toy_latents()
    later[:, [1, 3]] += 1.0
    early, late = (torch.tensor([[[4.98], [t], [4.98], [t]]]) for t in (700.0, 300.0))
    one = keys_and_values_of_conditions(variant, toy_latents(), early)
    two = keys_and_values_of_conditions(variant, later, late)
    assert len(one) == len(two) and all(torch.equal(a, b) for a, b in zip(one[:2], two[:2]))  # the first block's
    if closed:
        assert all(torch.equal(a, b) for a, b in zip(one, two))
    else:
        assert all((a - b).abs().max() > 1e-3 for a, b in zip(one[-2:], two[-2:]))


@pytest.mark.parametrize(("roles", "calls"), [
    ((C, T, C, T), [(2, 2), (2, 4), (2, 4)]),
    ((T, T, T, T), [(4, 4), (4, 4)]),
    ((A, T, C, C), [(2, 2), (1, 3), (1, 3)]),
])
def test_closed_conditions_take_two_calls_and_no_mask(roles, calls):
    family, host = vary(INTRINSIC, Variant(condition_attention="conditions")), Recorder()
    length = GRID[0] * GRID[1] * GRID[2]
    forward(toy_model(), toy_bank(family), toy_latents(), roles, family=family, host=host)
    assert [(q // length, k.shape[1] // length) for q, k, _ in host.calls] == calls


# ---- streams along the channels --------------------------------------------------------------------------------------


def test_channels_tell_the_roles_and_absent_streams_are_zero():
    latents = toy_latents(2)
    latents[:, 2] = float("nan")
    x = join_channels(latents, (C, T, A, T))
    c = LATENT[0]
    assert x.shape == (2, 4 * (c + 1), *LATENT[1:])
    parts = x.unflatten(1, (4, c + 1))
    for row, (role, told) in enumerate(((C, 1), (T, 0), (A, -1), (T, 0))):
        assert torch.equal(parts[:, row, :c], torch.zeros_like(latents[:, row]) if role is A else latents[:, row])
        assert (parts[:, row, c] == told).all()
    velocity = torch.arange(4.0 * c).view(1, 4 * c, 1, 1, 1)
    assert torch.cat(split_channels(velocity, 4, (3, 1))).flatten().tolist() == [*range(3 * c, 4 * c), *range(c, 2 * c)]


def test_joined_channels_give_the_targets_in_the_tokens_of_one_stream():
    family, host = vary(INTRINSIC, CHANNELS), Recorder()
    model, bank = network(family)
    out = forward(model, bank, toy_latents(2), (C, T, T, C), family=family, host=host)
    assert set(out) == {1, 2} and all(v.shape == (2, *LATENT) for v in out.values())
    length = GRID[0] * GRID[1] * GRID[2]
    assert {(q, k.shape[1]) for q, k, _ in host.calls} == {(length, length)}
    everything = forward(model, bank, toy_latents(2), (C, T, T, C), family=family, all_outputs=True)
    assert set(everything) == {0, 1, 2, 3} and torch.equal(everything[2], out[2])


def test_joined_channels_show_roles_streams_and_adapters():
    family, latents = vary(INTRINSIC, CHANNELS), toy_latents()
    model, bank = network(family)
    times = torch.full((1, 4, 1), 700.0)
    base = forward(model, bank, latents, (C, T, T, T), family=family, times=times)
    role = forward(model, bank, latents, (T, T, T, T), family=family, times=times)
    other = latents.clone()
    other[:, 0] += 1
    given = forward(model, bank, other, (C, T, T, T), family=family, times=times)
    bare = forward(model, None, latents, (C, T, T, T), family=family, times=times)
    for changed in (role, given, bare):
        assert (base[1] - changed[1]).abs().max() > 1e-3


def test_joined_channels_sample():
    family = vary(INTRINSIC, CHANNELS)
    model, bank = network(family)
    task = Task(family, (C, T, T, T))
    noise = initial_noise(task, LATENT[1:], LATENT[0], 0).double()
    clean = toy_latents()
    engine = Engine(model, bank, AdapterSettings.published(family), Host())
    out = sample(engine, task, clean, noise, Texts(toy_context()), steps=2)
    assert torch.equal(out[:, 0], clean[:, 0]) and out.isfinite().all()


def test_a_backbone_of_other_channels():
    family = vary(ALPHA, CHANNELS)
    assert backbone_channels(family, 16) == (68, 64) and backbone_channels(ALPHA, 16) == (16, 16)
    check_channels(family, 16, 68, 64)
    check_channels(ALPHA, 16, 16, 16)
    with pytest.raises(ValueError, match="16 channels in and 16 out, .* joint = channel_concat needs 68 and 64"):
        check_channels(family, 16, 16, 16)
    with pytest.raises(ValueError, match="68 channels in and 64 out, .* joint = attention needs 16 and 16"):
        check_channels(ALPHA, 16, 68, 64)


# ---- training --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", ALL, ids=str)
def test_every_variant_learns_a_fixed_batch(variant):
    family = vary(INTRINSIC, variant)
    model, bank = network(family)
    engine = Engine(model, bank.requires_grad_(True), AdapterSettings.published(family), Host())
    drawn, levels = Draw(parse_task(family, "R2AIN"), (400,)), training_levels(family.flow)
    optimiser = torch.optim.AdamW(bank.parameters(), lr=1e-2)
    losses = []
    for _ in range(20):
        optimiser.zero_grad()
        loss = training_loss(engine, drawn, Lesson(toy_latents(seed=1), toy_latents(seed=2), toy_context()), levels)
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.8 * losses[0]


class Checkpointed(Host):
    """A training's host: a block's activations are made again in the backward pass."""

    def run_block(self, block, *args):
        return checkpoint(block, *args, use_reentrant=False)


def published_tensors(family) -> dict[AdapterKey, torch.Tensor]:
    """Random adapters under published keys, as a training holds them: leaves of the graph."""
    draw, tensors = torch.Generator().manual_seed(5), {}
    for block in range(CONFIG.num_layers):
        for site in ATTENTION + FEED_FORWARD:
            for adapter in family.file_adapters:
                shapes = {"A": (3, CONFIG.ffn_dim if site == "ffn.2" else CONFIG.dim),
                          "B": (CONFIG.ffn_dim if site == "ffn.0" else CONFIG.dim, 3)}
                for matrix, shape in shapes.items():
                    value = torch.randn(shape, generator=draw, dtype=torch.float64) * shape[1] ** -0.5
                    tensors[AdapterKey(block, site, matrix, adapter)] = value.requires_grad_(True)
    return tensors


def gradients(family, host) -> dict[AdapterKey, torch.Tensor | None]:
    """Those of one step on adapters under published keys."""
    tensors = published_tensors(family)
    bank = stack_adapters(tensors.__getitem__, family, CONFIG.num_layers)
    engine = Engine(network(family)[0], bank, AdapterSettings.published(family), host)
    drawn, levels = Draw(parse_task(family, "RI2AN"), (400,)), training_levels(family.flow)
    training_loss(engine, drawn, Lesson(toy_latents(seed=1), toy_latents(seed=2), toy_context()), levels).backward()
    return {key: tensor.grad for key, tensor in tensors.items()}


@pytest.mark.parametrize("variant", [Variant(), *ALL], ids=str)
def test_gradients_under_a_checkpoint_are_the_same_and_reach_the_files_own_tensors(variant):
    family = vary(INTRINSIC, variant)
    plain, made_again = gradients(family, Host()), gradients(family, Checkpointed())
    for key, gradient in plain.items():
        assert gradient is None if made_again[key] is None else torch.equal(gradient, made_again[key]), key
    learnt = {(key.adapter, key.site in FEED_FORWARD) for key, gradient in plain.items()
              if gradient is not None and gradient.abs().max() > 0}
    open_, own = {"albedo", "normal"}, set(INTRINSIC.file_adapters)
    attention = {SHARED} if variant.adapters == "shared" else own if variant.gating == "always" else open_
    feed_forward = {SHARED} if variant.adapters == "shared" else open_ if variant.ffn == "per_stream" else {"normal"}
    assert learnt == {(a, False) for a in attention} | {(a, True) for a in feed_forward}


@pytest.mark.parametrize(("published", "variant"), [(INTRINSIC, Variant()), (ALPHA, Variant()), *EVERY], ids=written)
def test_a_training_runs_what_its_file_will_hold(published, variant):
    family = vary(published, variant)
    tensors, (model, _) = {k: v.detach() for k, v in published_tensors(family).items()}, network(family)
    loaded = read_adapters({str(k): v for k, v in tensors.items()}, "file", layer_metadata(family))
    assert loaded.family == family
    stack = stack_adapters(tensors.__getitem__, family, CONFIG.num_layers)
    ours = forward(model, stack, toy_latents(), ROLES, family=family)
    for row, velocity in forward(model, loaded.bank, toy_latents(), ROLES, family=family).items():
        assert torch.equal(ours[row], velocity)


# ---- files -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("published", "variant"), EVERY, ids=written)
def test_a_file_says_its_variant(tmp_path, published, variant):
    family = vary(published, variant)
    path = write_tiny_adapters(tmp_path / "a.safetensors", family, SMALL)
    assert json.loads(layer_metadata(family)["variant"]) == variant.changes()
    found, loaded = detect(path), load_adapters(path, family=published)
    assert found.family == loaded.family == family and loaded.warnings == ()
    assert f"of the {family.name} family with {variant} (" in found.line
    check_fits(load_layers(path), 2, 128, 64)
    vae = str(write_tiny_backbone(tmp_path / "b.safetensors", SMALL))
    assert find_models(str(tmp_path), published, vae=vae).adapters == path


def test_published_files_say_nothing():
    assert layer_metadata(INTRINSIC) == {}


def test_dead_weights_follow_the_variant(tmp_path):
    path = write_tiny_adapters(tmp_path / "a.safetensors", vary(ALPHA, Variant(ffn="per_stream")), SMALL, alive=True)
    assert [w.split("LoRA of ")[1].split()[0] for w in load_adapters(path).warnings] == ["'com'", "'com'"]
    path = write_tiny_adapters(tmp_path / "b.safetensors", vary(ALPHA, Variant(adapters="shared")), SMALL, alive=True)
    assert load_adapters(path).warnings == ()
    path = write_tiny_adapters(tmp_path / "c.safetensors", vary(ALPHA, Variant(plate="own")), SMALL, alive=True)
    said = [w.split("the ", 1)[1].split(" should")[0] for w in load_adapters(path).warnings]
    assert said == [f"feed-forward LoRA of '{name}'" for name in ("com", "fgr", "pha")]


@pytest.mark.parametrize(("metadata", "sentence"), [
    ({}, "one adapter for all layers, but its metadata does not say of which 'family' and 'variant'"),
    ({"variant": '{"adapters": "shared"}'}, r"a variant \(adapters = shared\) of the family None, but"),
    ({"family": "depth", "variant": '{"adapters": "shared"}'}, "of the family 'depth', but the families are"),
    ({"family": "alpha", "variant": '{"gating": "always"}'}, "adapters are com, pha, fgr, bgr, but it holds shared"),
    ({"family": "alpha", "variant": '{"gating": "never"}'}, "cannot be run: A variant's gating is one of"),
    ({"family": "alpha", "variant": '{"colour": "red"}'}, "this Strata knows a JSON object of gating, adapters"),
    ({"family": "alpha", "variant": "shared"}, "gives its variant as shared, but"),
    ({"family": "alpha", "variant": "[]"}, "gives its variant as .., but"),
])
def test_metadata_that_cannot_be(tmp_path, metadata, sentence):
    path = write_tiny_adapters(tmp_path / "a.safetensors", vary(ALPHA, Variant(adapters="shared")), SMALL)
    save_file(load_file(path), path, metadata=metadata)
    for read in (detect, load_adapters):
        with pytest.raises(ValueError, match=sentence):
            read(path)


def test_the_wrong_family_of_a_variant(tmp_path):
    path = write_tiny_adapters(tmp_path / "a.safetensors", vary(ALPHA, Variant(adapters="shared")), SMALL)
    with pytest.raises(ValueError, match="belongs to the alpha family .* but the intrinsic family is asked for"):
        load_adapters(path, family=INTRINSIC)


def test_a_backbone_of_joined_channels_is_read(tmp_path):
    in_dim, out_dim = backbone_channels(vary(INTRINSIC, CHANNELS), 16)
    path = write_tiny_backbone(tmp_path / "b.safetensors", replace(SMALL, in_dim=in_dim, out_dim=out_dim))
    assert "68 channels in and 64 out" in detect(path).line
    model = load_backbone(path)
    assert (model.config.in_dim, model.config.out_dim) == (68, 64)


def test_a_published_file_has_no_variant_key(tmp_path):
    path = write_tiny_adapters(tmp_path / "a.safetensors", INTRINSIC, SMALL)
    assert all(parse_key(key) for key in load_file(path)) and detect(path).family is INTRINSIC
