"""The MODEL as a guest of ComfyUI: nothing left behind, other patches stack, quantised weights, wrong use refused."""

from __future__ import annotations

import logging
from dataclasses import replace

import comfy.lora
import comfy.model_base
import comfy.model_management
import comfy.sd
import comfy.supported_models
import comfy.utils
import folder_paths
import torch
from comfy_extras import nodes_model_advanced
from torch import Tensor

import nodes

from ....comfy_host.attach import attach_layers, joint_model, with_settings
from ....joint.adapters import Gate
from ....joint.families import ALPHA, FAMILIES, INTRINSIC
from ....model_loaders.layer_files import PROMPTS_SUFFIX
from ....model_loaders.model_set import BUNDLED
from ....nodes.gated_lora import ALL, SHARED, GatedLora
from ....nodes.joint_sampler import JointSampler
from ....nodes.load_layers import LoadLayers, adapter_files
from . import tiny


def plain_video(model) -> Tensor:
    """One stock text-to-video sampling, as a MODEL without layers does it."""
    latent = {"samples": torch.zeros(1, 16, *tiny.GRID)}
    return tiny.ksampler(model, latent, cfg=5.0)


def weights(model) -> dict[str, Tensor]:
    """A copy of every weight and buffer of the base model."""
    return {name: tensor.clone() for name, tensor in model.model.state_dict().items()}


def is_stock(model) -> None:
    """Assert that nothing of ours is on the shared modules while a stock MODEL is loaded."""
    base = model.model
    assert "_forward" not in vars(base.diffusion_model), "a leftover _forward"
    for name in ("extra_conds", "process_timestep", "scale_latent_inpaint"):
        assert getattr(base, name).__func__ is getattr(type(base), name), f"a leftover {name}"
    assert base.model_sampling.shift == 8.0, "a leftover shift"


# --- nothing is left behind ---------------------------------------------------------------------------------------


def check_base_model_untouched():
    """A stock MODEL gives bit-equal pictures, state dict and LoRA keys before and after its clone sampled layers."""
    base = tiny.wan_model()
    before, state, keys = plain_video(base), weights(base), set(comfy.lora.model_lora_keys_unet(base.model, {}))
    size = base.model_size()
    model = tiny.layered(model=base)
    tiny.ksampler(model, tiny.latent(), cfg=5.0)
    after = plain_video(base)
    is_stock(base)
    assert state.keys() == base.model.state_dict().keys(), "the state dict has other keys"
    assert all(torch.equal(tensor, state[name]) for name, tensor in base.model.state_dict().items()), "weights changed"
    assert set(comfy.lora.model_lora_keys_unet(base.model, {})) == keys, "LoRA keys changed"
    assert base.model_size() == size, "the size changed"
    return tiny.equal("stock picture", after, before)


def check_alternating_families():
    """intrinsic, alpha and the plain MODEL by turns on the same loaded weights: every turn equals the first."""
    base = tiny.wan_model()
    runs = {
        "intrinsic": lambda m=tiny.layered(INTRINSIC, base): tiny.ksampler(m, tiny.latent(), cfg=5.0),
        "alpha": lambda m=tiny.layered(ALPHA, base, seed=1): tiny.ksampler(m, tiny.latent("R2PFB", ALPHA), cfg=5.0),
        "plain": lambda: plain_video(base),
    }
    first = {name: run() for name, run in runs.items()}
    tiny.differs("the family", first["alpha"], first["intrinsic"])
    for name in ("intrinsic", "plain", "alpha", "intrinsic", "alpha", "plain", "intrinsic"):
        tiny.equal(name, runs[name](), first[name])
    runs["plain"]()
    is_stock(base)
    return "7 turns bit-equal"


def check_attach_over_attach():
    """Strata Load Layers after Strata Load Layers: the second family alone counts, as on a fresh MODEL; also where the
    two round their times differently."""
    said = []
    exact = replace(ALPHA, flow=replace(ALPHA.flow, round_time=None, shift=3.0))
    for family in (ALPHA, exact):
        bank = tiny.layers(ALPHA)
        fresh = attach_layers(tiny.wan_model(), bank, family, {})
        again = attach_layers(tiny.layered(INTRINSIC), bank, family, {})
        latent = tiny.latent("R2PFB", ALPHA)
        said.append(tiny.equal(f"shift {family.flow.shift:g}", tiny.ksampler(again, latent),
                               tiny.ksampler(fresh, latent)))
    return "; ".join(said)


def check_interrupt():
    """An interrupt half-way raises, and leaves MODEL and base as they were."""
    base = tiny.wan_model()
    picture = plain_video(base)
    model, latent = tiny.layered(model=base), tiny.latent()
    noise = torch.randn(4, 16, *tiny.GRID, generator=torch.manual_seed(1))
    fresh = tiny.sample_noise(model, latent, noise)
    steps = []

    def stop(step, x0, x, total):
        steps.append(step)
        if step == 1:
            comfy.model_management.interrupt_current_processing()

    try:
        tiny.sample_noise(model, latent, noise, callback=stop)
        raise AssertionError("the sampling was not interrupted")
    except comfy.model_management.InterruptProcessingException:
        pass
    assert steps == [0, 1], f"interrupted after steps {steps}"
    said = tiny.equal("next sampling", tiny.sample_noise(model, latent, noise), fresh)
    said += "; " + tiny.equal("stock picture", plain_video(base), picture)
    is_stock(base)
    return said


def check_failing_step_leaves_nothing():
    """An error inside the network (a patch that raises) leaves MODEL and base usable, too."""
    base = tiny.wan_model()
    picture = plain_video(base)
    model, latent = tiny.layered(model=base), tiny.latent()
    fresh = tiny.ksampler(model, latent)
    broken = model.clone()
    broken.set_model_patch(lambda args: 1 / 0, "double_block")
    try:
        tiny.ksampler(broken, latent)
        raise AssertionError("the broken patch was not called")
    except ZeroDivisionError:
        pass
    said = tiny.equal("next sampling", tiny.ksampler(model, latent), fresh)
    return said + "; " + tiny.equal("stock picture", plain_video(base), picture)


# --- adapters -----------------------------------------------------------------------------------------------------


def check_gated_lora_node():
    """Strata Gated LoRA: off, half strength and 'always' change the result; 1.0 and 'targets only' restore it bit by
    bit; chains; the given MODEL is not changed; a layer of another family is refused."""
    model, latent = tiny.layered(), tiny.latent()

    def set_to(m, layer: str, strength: float = 1.0, gate: Gate = Gate.TARGETS):
        return GatedLora.execute(m, layer, strength, gate.value).result[0]

    def made(m) -> Tensor:
        return tiny.ksampler(m, latent, cfg=5.0)

    published = made(model)
    off = set_to(model, ALL, gate=Gate.OFF)
    bare = set_to(off, SHARED, gate=Gate.OFF)
    said = [
        tiny.differs("all off", made(off), published),
        tiny.differs("shared off", made(bare), made(off)),
        tiny.differs("albedo at 0.5", made(set_to(model, "albedo", 0.5)), published),
        tiny.differs("given rgb always", made(set_to(model, "rgb", gate=Gate.ALWAYS)), published),
        tiny.equal("given rgb off", made(set_to(model, "rgb", gate=Gate.OFF)), published),
        tiny.equal("strength 0 and off", made(set_to(model, "normal", 0.0)),
                   made(set_to(model, "normal", gate=Gate.OFF))),
        tiny.equal("restored", made(set_to(set_to(bare, ALL), SHARED)), published),
        tiny.equal("the given MODEL", made(model), published),
    ]
    # With every adapter off the layers still attend to each other, on the backbone alone: other adapters, same result.
    other = attach_layers(model.clone(), tiny.layers(seed=5), INTRINSIC, {})
    said.append(tiny.equal("bare backbone", made(set_to(set_to(other, ALL, gate=Gate.OFF), SHARED, gate=Gate.OFF)),
                           made(bare)))
    said.append(tiny.raises(ValueError, "fg", "albedo", call=lambda: set_to(model, "fg")))
    said.append(tiny.raises(ValueError, "Strata Load Layers", call=lambda: set_to(tiny.wan_model(), ALL)))
    return "; ".join(said)


def community_lora(seed: int = 3) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """A plain Wan LoRA file, and what it adds to each weight."""
    draw = torch.Generator().manual_seed(seed)
    sizes = {"self_attn.q": (tiny.DIM, tiny.DIM), "self_attn.v": (tiny.DIM, tiny.DIM), "ffn.0": (tiny.DIM, tiny.FFN),
             "ffn.2": (tiny.FFN, tiny.DIM), "cross_attn.k": (tiny.DIM, tiny.DIM)}
    file, added = {}, {}
    for block in range(tiny.LAYERS):
        for site, (n_in, n_out) in sizes.items():
            down, up = torch.randn(3, n_in, generator=draw) * n_in**-0.5, torch.randn(n_out, 3, generator=draw) * 0.3
            key = f"diffusion_model.blocks.{block}.{site}"
            file[f"{key}.lora_A.weight"], file[f"{key}.lora_B.weight"] = down, up
            added[f"blocks.{block}.{site}.weight"] = up @ down
    return file, added


def check_community_lora():
    """A plain Wan LoRA stacks: loaded before or after the layers gives bit-equal results, those of a backbone with the
    LoRA merged by hand (1e-5); its strength counts; without it all is as before."""
    file, added = community_lora()

    def with_lora(model, strength: float = 1.0):
        return comfy.sd.load_lora_for_models(model, None, dict(file), strength, 0)[0]

    base, latent = tiny.wan_model(), tiny.latent()
    without = tiny.ksampler(tiny.layered(model=base), latent, cfg=5.0)
    before = tiny.ksampler(tiny.layered(model=with_lora(base)), latent, cfg=5.0)
    after = tiny.ksampler(with_lora(tiny.layered(model=base)), latent, cfg=5.0)
    half = tiny.ksampler(with_lora(tiny.layered(model=base), 0.5), latent, cfg=5.0)
    state = {n: t + added.get(n, 0) for n, t in tiny.wan_model().model.diffusion_model.state_dict().items()}
    merged = tiny.ksampler(tiny.layered(model=tiny.wan_model(state=state)), latent, cfg=5.0)
    again = tiny.ksampler(tiny.layered(model=base), latent, cfg=5.0)
    return "; ".join((tiny.differs("the LoRA", after, without), tiny.differs("half of it", half, after),
                      tiny.equal("before or after", before, after), tiny.within("merged by hand", after, merged, 1e-5),
                      tiny.equal("taken off", again, without)))


def check_two_sets_of_settings_alive():
    """Two MODELs with other strengths on one backbone take turns without seeing each other."""
    model, latent = tiny.layered(), tiny.latent()
    weak = with_settings(model, joint_model(model).settings.with_stream(1, 0.25, Gate.TARGETS))
    first = tiny.ksampler(model, latent), tiny.ksampler(weak, latent)
    tiny.differs("strength", first[1], first[0])
    for _ in range(2):
        tiny.equal("full", tiny.ksampler(model, latent), first[0])
        tiny.equal("weak", tiny.ksampler(weak, latent), first[1])
    return "2 turns bit-equal"


# --- files --------------------------------------------------------------------------------------------------------


def load_layers(model, adapters: str = "intrinsic.safetensors", rounding: str = "as published"):
    """The Strata Load Layers node."""
    return LoadLayers.execute(model, adapters, rounding)


def check_load_layers_node():
    """UNETLoader -> Strata Load Layers from models/loras: family, rank and shift are said, the empty prompt is found;
    the choices hold both files and no embedding; a missing file names both folders."""
    bundled = {path.name for path in BUNDLED["tiny"].glob("loras/*") if not path.name.endswith(PROMPTS_SUFFIX)}
    ours = {f"{name}.safetensors" for name in FAMILIES}
    assert bundled and adapter_files() == sorted(ours | bundled), adapter_files()
    base = nodes.UNETLoader().load_unet("wan.safetensors", "default")[0]
    said = []
    for name, family in (("intrinsic", INTRINSIC), ("alpha", ALPHA)):
        node = load_layers(base, f"{name}.safetensors")
        model = node.result[0]
        shown = node.ui.as_dict()["text"][0]
        assert family.title in shown and "rank 4" in shown and "shift 5" in shown, shown
        assert joint_model(model).family is family and joint_model(model).prompts[""].shape == (1, 512, 4096)
        assert model.get_model_object("model_sampling").shift == 5.0
        latent = tiny.latent("R2AIN" if name == "intrinsic" else "R2PFB", family)
        said.append(tiny.keeps_given(name, tiny.ksampler(model, latent, tiny.text(dim=4096)), latent))
    exact = load_layers(base, rounding="exact").result[0]
    assert joint_model(exact).family.flow.round_time is None
    try:
        load_layers(base, "none.safetensors")
        raise AssertionError("a missing file was taken")
    except FileNotFoundError as error:
        assert "models/loras" in str(error) and "models/model_patches" in str(error), error
    return "; ".join(said)


def fp8_against_rounded(model, path: str, limit: float) -> str:
    """A MODEL whose weights are stored in 8 bits, against one whose weights were rounded to them and kept in float32,
    and against the file's own. The adapters stay as the file has them."""
    latent, prompt = tiny.latent(), tiny.text(dim=4096)
    stored = {t.dtype for n, t in model.model.diffusion_model.state_dict().items() if n.endswith("attn.q.weight")}
    assert torch.float8_e4m3fn in stored, f"the weights are stored as {stored}"
    layers = load_layers(model).result[0]
    out = tiny.ksampler(layers, latent, prompt)
    tiny.keeps_given("fp8", out, latent)
    bank, file = joint_model(layers).bank, joint_model(load_layers(tiny_file(path)).result[0]).bank
    for (name, ours), theirs in zip(bank.named_parameters(), file.parameters()):
        assert ours.dtype == torch.float16 and torch.equal(ours, theirs), f"{name} was touched"

    def rounded(name: str, tensor: Tensor) -> Tensor:
        if name.startswith("patch_embedding"):
            return tensor  # ComfyUI keeps it in float32
        return tensor.to(torch.float8_e4m3fn).to(tensor.dtype)

    twin = tiny.ksampler(load_layers(tiny_file(path, rounded)).result[0], latent, prompt)
    full = tiny.ksampler(load_layers(tiny_file(path)).result[0], latent, prompt)
    return "; ".join((tiny.within("rounded weights", out, twin, limit), tiny.within("float32", out, full, 0.1),
                      tiny.differs("fp8", out, full, 1e-3)))


def tiny_file(path: str, change=lambda name, tensor: tensor):
    """The tiny backbone in float32, each weight changed on the way."""
    state = {k: change(k, v.float()) for k, v in comfy.utils.load_torch_file(path).items()}
    return comfy.sd.load_diffusion_model_state_dict(state, {"dtype": torch.float32})


def check_fp8_storage():
    """UNETLoader with weight_dtype fp8_e4m3fn: equals float32 arithmetic on the rounded weights to 1e-4, float32
    weights to 0.1 (fp8 keeps 3 bits of mantissa); the adapters stay in the file's float16."""
    path = folder_paths.get_full_path_or_raise("diffusion_models", "wan.safetensors")
    model = nodes.UNETLoader().load_unet("wan.safetensors", "fp8_e4m3fn")[0]
    computes = model.model.get_dtype_inference()
    return f"computes in {computes}; " + fp8_against_rounded(model, path, 1e-4 if computes == torch.float32 else 3e-2)


def check_scaled_fp8_file():
    """A `fp8_scaled` checkpoint (a scale a weight, ComfyUI's quantised tensors) runs, near float32 (0.1), and its
    conditions are exact."""
    path = folder_paths.get_full_path_or_raise("diffusion_models", "wan.safetensors")
    state = {}
    for name, tensor in comfy.utils.load_torch_file(path).items():
        if name.startswith("blocks.") and name.endswith("weight") and tensor.ndim == 2:
            scale = tensor.float().abs().max() / 448  # the largest fp8_e4m3
            state[name] = (tensor.float() / scale).to(torch.float8_e4m3fn)
            state[name.removesuffix("weight") + "scale_weight"] = scale
        else:
            state[name] = tensor
    state["scaled_fp8"] = torch.zeros(2, dtype=torch.float8_e4m3fn)
    model = comfy.sd.load_diffusion_model_state_dict(state)
    kinds = {type(block.self_attn.q.weight.data).__name__ for block in model.model.diffusion_model.blocks}
    assert kinds == {"QuantizedTensor"}, f"the weights are {kinds}"
    latent, prompt = tiny.latent(), tiny.text(dim=4096)
    out = tiny.ksampler(load_layers(model).result[0], latent, prompt)
    full = tiny.ksampler(load_layers(tiny_file(path)).result[0], latent, prompt)
    return "; ".join((tiny.keeps_given("scaled fp8", out, latent), tiny.within("float32", out, full, 0.1),
                      tiny.differs("scaled fp8", out, full, 1e-3)))


def check_bf16_compute():
    """ModelComputeDtype bf16 runs, near float32 (0.02), conditions exact."""
    base = nodes.UNETLoader().load_unet("wan.safetensors", "default")[0]
    latent, prompt = tiny.latent(), tiny.text(dim=4096)
    full = load_layers(base).result[0]
    low = nodes_model_advanced.ModelComputeDtype().patch(full, "bf16")[0]
    spy = tiny.Spy(low)
    out = tiny.ksampler(spy.model, latent, prompt)
    assert spy["x"][0].dtype == torch.bfloat16, spy["x"][0].dtype
    return "; ".join((tiny.keeps_given("bf16", out, latent),
                      tiny.within("float32", out, tiny.ksampler(full, latent, prompt), 0.02)))


# --- settings -----------------------------------------------------------------------------------------------------


def first_sigmas(model, steps: int = 4) -> list[float]:
    """The sigmas a stock sampling visits, read off the network's times of a generated row (rounded to bfloat16)."""
    spy = tiny.Spy(model)
    tiny.ksampler(spy.model, tiny.latent(), steps=steps)
    return [float(times[1, 0]) / 1000 for times in spy["timestep"]]


def check_shift():
    """The family's shift is in force without a further node; a ModelSamplingSD3 node after it wins, one before does
    not."""
    def patch(model, shift: float):
        return nodes_model_advanced.ModelSamplingSD3().patch(model, shift)[0]

    said = []
    for name, model, shift in (("none", tiny.layered(), 5.0), ("after", patch(tiny.layered(), 3.0), 3.0),
                               ("before", tiny.layered(model=patch(tiny.wan_model(), 3.0)), 5.0)):
        expected = [shift * u / (1 + (shift - 1) * u) for u in (1.0, 0.75, 0.5, 0.25)]
        rounded = [float(torch.tensor(1000 * s).bfloat16()) / 1000 for s in expected]
        seen = first_sigmas(model)
        assert seen == rounded, f"ModelSamplingSD3 {name}: {seen}, expected {rounded}"
        said.append(f"{name}: shift {shift:g}")
    return "; ".join(said)


def check_joint_sampler():
    """Strata Joint Sampler equals the stock KSampler (euler, simple) where steps divide 1000, to 1e-5; the family's own
    steps and cfg at 0; a later shift counts."""
    said, latent, texts = [], tiny.latent(), (tiny.text(), tiny.text(2))

    def joint(model, steps: int, cfg: float):
        node = JointSampler.execute(model, latent, 7, steps, cfg, *texts)
        return node.result[0]["samples"], node.ui.as_dict()["text"][0]

    shifted = nodes_model_advanced.ModelSamplingSD3().patch(tiny.layered(), 3.0)[0]
    for model, shift in ((tiny.layered(), 5), (shifted, 3)):
        for steps, cfg in ((4, 1.0), (10, 5.0)):
            ours, shown = joint(model, steps, cfg)
            assert shown == f"{steps} steps, shift {shift}, cfg {cfg:g}", shown
            stock = tiny.ksampler(model, latent, *texts, steps=steps, cfg=cfg, seed=7)
            said.append(tiny.within(shown, ours, stock, 1e-5))
            tiny.keeps_given(shown, ours, latent)
    _, shown = joint(tiny.layered(), 0, 0.0)
    assert shown == "50 steps, shift 5, cfg 5", shown
    return "; ".join(said)


def check_joint_sampler_empty_prompt():
    """With an empty prompt cfg is 1 and the node says so: connected, or left open where its embedding is stored."""
    base, latent = nodes.UNETLoader().load_unet("wan.safetensors", "default")[0], tiny.latent()
    model = load_layers(base).result[0]
    stored = joint_model(model).prompts[""]
    spy = tiny.Spy(model)
    said = []
    for name, positive in (("connected", [[stored.clone(), {}]]), ("open", None)):
        node = JointSampler.execute(spy.model, latent, 7, 4, 5.0, positive, tiny.text(2, dim=4096))
        shown = node.ui.as_dict()["text"][0]
        assert shown == "4 steps, shift 5, cfg 1 (asked 5; the prompt is empty)", shown
        stock = tiny.ksampler(model, latent, [[stored, {}]], cfg=1.0, seed=7)
        said.append(f"{name}: " + tiny.within(shown, node.result[0]["samples"], stock, 1e-5))
    assert {len(x) for x in spy["x"]} == {4}, "the negative prompt was run all the same"
    said.append(tiny.raises(ValueError, "CLIP Text Encode",
                            call=lambda: JointSampler.execute(tiny.layered(), latent, 7, 4, 1.0)))
    said.append(tiny.raises(ValueError, "negative", "cfg 5",
                            call=lambda: JointSampler.execute(tiny.layered(), latent, 7, 4, 5.0, tiny.text())))
    said.append(tiny.raises(ValueError, "Strata Load Layers",
                            call=lambda: JointSampler.execute(base, latent, 7, 4, 1.0, tiny.text())))
    return "; ".join(said)


def check_preview():
    """With previews on, a picture of all layers side by side goes out at every step, after the stock one; samples are
    what they are without."""
    import comfy.cli_args
    import latent_preview

    model, latent = tiny.layered(), tiny.latent()
    plain, sizes = tiny.ksampler(model, latent), []
    method = comfy.cli_args.args.preview_method
    hook = comfy.utils.PROGRESS_BAR_HOOK
    try:
        comfy.cli_args.args.preview_method = latent_preview.LatentPreviewMethod.Latent2RGB
        comfy.utils.set_progress_bar_global_hook(
            lambda value, total, preview, node_id=None: sizes.append((value, preview[1].size if preview else None)))
        shown = tiny.ksampler(model, latent)
    finally:
        comfy.cli_args.args.preview_method = method
        comfy.utils.set_progress_bar_global_hook(hook)
    _, h, w = tiny.GRID
    assert sizes == [(n, size) for n in (1, 2, 3, 4) for size in ((w, h), (4 * w, h))], sizes
    return tiny.equal("samples", shown, plain)


# --- wrong use ----------------------------------------------------------------------------------------------------


def check_wrong_latents():
    """3 or 5 rows, 4 dimensions, and nothing left to generate are refused in one sentence each."""
    model, said = tiny.layered(), []
    for rows in (3, 5):
        wrong = {"samples": torch.randn(rows, 16, *tiny.GRID)}
        said.append(tiny.raises(ValueError, "multiple of 4", f"({rows}, 16, 2, 4, 6)", "Strata Condition Mask",
                                call=lambda wrong=wrong: tiny.ksampler(model, wrong)))
    flat = torch.randn(4, 16, 4, 6)
    said.append(tiny.raises(ValueError, "5 dimensions", "(4, 16, 4, 6)",
                            call=lambda: tiny.sample_noise(model, {"samples": flat}, flat)))
    full = {**tiny.latent(), "noise_mask": torch.zeros(4, 1, *tiny.GRID)}
    said.append(tiny.raises(ValueError, "nothing is left to generate", call=lambda: tiny.ksampler(model, full)))
    second = tiny.join(tiny.latent(), full)
    said.append(tiny.raises(ValueError, "clip 2", call=lambda: tiny.ksampler(model, second)))
    return " ".join(said)


def check_unmasked_latent():
    """A LATENT without a noise_mask generates every layer, as one whose mask is all ones."""
    model, latent = tiny.layered(), tiny.latent("t2RAIN")
    bare = tiny.ksampler(model, {"samples": latent["samples"]}, cfg=5.0)
    return tiny.within("no mask", bare, tiny.ksampler(model, latent, cfg=5.0), 1e-6)


def other_model(kind: str, **config):
    """A MODEL of another supported class, with random weights left as they are."""
    about = getattr(comfy.supported_models, kind)(config)
    about.set_inference_dtype(torch.float32, None)
    return comfy.model_patcher.CoreModelPatcher(about.get_model({}, device=tiny.CPU), load_device=tiny.CPU,
                                                offload_device=tiny.CPU)


def check_wrong_models():
    """Wan 2.2 (5B), Wan image-to-video, VACE, and a model that is no Wan are refused in one sentence that names them;
    so are adapters of another width, feed-forward width or depth."""
    wan = {"image_model": "wan2.1", "dim": tiny.DIM, "ffn_dim": tiny.FFN, "num_heads": tiny.HEADS,
           "num_layers": tiny.LAYERS, "text_dim": tiny.TEXT_DIM, "freq_dim": 32, "in_dim": 16, "out_dim": 16}
    flux = {"image_model": "flux", "in_channels": 16, "out_channels": 16, "patch_size": 2, "vec_in_dim": 32,
            "context_in_dim": 32, "hidden_size": 48, "mlp_ratio": 2.0, "num_heads": 2, "depth": 1,
            "depth_single_blocks": 1, "axes_dim": [8, 8, 8], "theta": 10000, "qkv_bias": True, "guidance_embed": False,
            "txt_ids_dims": []}
    loaded, said = tiny.layers(), []
    for words, model in (
        (("WAN22", "48"), other_model("WAN22_T2V", **wan | {"model_type": "t2v", "in_dim": 48, "out_dim": 48})),
        (("i2v",), other_model("WAN21_I2V", **wan | {"model_type": "i2v", "in_dim": 36})),
        (("Vace",), other_model("WAN21_Vace", **wan | {"model_type": "vace", "vace_layers": 1, "vace_in_dim": 96})),
        (("Flux",), other_model("Flux", **flux)),
    ):
        said.append(tiny.raises(ValueError, *words, "Wan2.1-T2V-14B",
                                call=lambda model=model: attach_layers(model, loaded, INTRINSIC, {})))
    for change in ({"dim": 192}, {"ffn": 256}, {"layers": 3}):
        said.append(tiny.raises(ValueError, "2", "96", "128", call=lambda change=change: attach_layers(
            tiny.wan_model(), tiny.layers(**change), INTRINSIC, None)))
    return " ".join(said)


def heard(run) -> list[str]:
    """What ComfyUI's log said in warnings while `run()` ran."""
    said = []

    class Ear(logging.Handler):
        def emit(self, record):
            said.append(record.getMessage())

    ear = Ear(logging.WARNING)
    logging.getLogger().addHandler(ear)
    try:
        run()
    finally:
        logging.getLogger().removeHandler(ear)
    return [line for line in said if "Strata" in line]


def check_warnings():
    """What a model with layers cannot do is named in one warning, once a MODEL and not once a step; what it can do
    passes in silence."""
    model, latent = tiny.layered(), tiny.latent()
    assert heard(lambda: tiny.ksampler(model, latent)) == []
    other = model.clone()
    other.set_model_patch_replace(lambda args, extra: extra["original_block"](args), "dit", "double_block", 0)
    other.set_model_patch(lambda args: args, "post_input")
    clip = [[tiny.text()[0][0], {"reference_latents": [torch.zeros(1, 16, *tiny.GRID)]}]]
    lines = heard(lambda: tiny.ksampler(other, latent, clip))
    assert len(lines) == 1, lines
    assert "replaced transformer blocks" in lines[0] and "post_input" in lines[0], lines
    return lines[0]
