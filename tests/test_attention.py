"""The attention backends: one meaning, chosen by name."""

import sys
import types

import pytest
import torch
import torch.nn.functional as F

from comfyui_strata.joint import attention
from comfyui_strata.joint.attention import get_attention, sdpa

HEADS = 2


def inputs():
    torch.manual_seed(0)
    return torch.randn(3, 5, 16), torch.randn(3, 7, 16), torch.randn(3, 7, 16)


def test_sdpa_is_softmax_attention():
    q, k, v = inputs()
    split = [t.unflatten(-1, (HEADS, -1)).transpose(1, 2) for t in (q, k, v)]
    weight = (split[0] @ split[1].transpose(-1, -2) / 8**0.5).softmax(-1)
    expected = (weight @ split[2]).transpose(1, 2).flatten(2)
    torch.testing.assert_close(sdpa(q, k, v, HEADS), expected)


def test_an_unknown_backend_names_the_known_ones():
    with pytest.raises(ValueError, match="choose one of sdpa, flash3, sage"):
        get_attention("xformers")


@pytest.mark.parametrize("name", ["flash3", "sage"])
def test_an_absent_backend_names_its_package(name, monkeypatch):
    monkeypatch.setattr(attention, "find_spec", lambda package: None)
    with pytest.raises(RuntimeError, match=f"'{name}' needs the Python package '{attention.BACKENDS[name][1]}'"):
        get_attention(name)


def stand_in(monkeypatch, package: str, **functions) -> None:
    """Put a module of the backend's shape in place of the GPU package."""
    module = types.ModuleType(package)
    module.__dict__.update(functions)
    monkeypatch.setitem(sys.modules, package, module)


def nhd_attention(q, k, v):
    return F.scaled_dot_product_attention(*(t.transpose(1, 2) for t in (q, k, v))).transpose(1, 2)


@pytest.mark.parametrize("extra", [False, True])
def test_flash3_passes_its_own_layout(monkeypatch, extra):
    def flash_attn_func(q, k, v):
        out = nhd_attention(q, k, v)
        return (out, None) if extra else out

    stand_in(monkeypatch, "flash_attn_interface", flash_attn_func=flash_attn_func)
    q, k, v = inputs()
    torch.testing.assert_close(attention.flash3(q, k, v, HEADS), sdpa(q, k, v, HEADS))


def test_sage_leaves_keys_alone_and_means_the_same(monkeypatch):
    def sageattn(q, k, v, tensor_layout, smooth_k):
        assert tensor_layout == "NHD"
        assert not smooth_k  # with it on, Sage would subtract the mean in place
        k -= 0.0  # what it gets is its own to write to
        assert k.mean(dim=1).abs().max() < 1e-6
        k.mul_(1.0)
        return nhd_attention(q, k, v)

    stand_in(monkeypatch, "sageattention", sageattn=sageattn)
    q, k, v = inputs()
    before = k.clone()
    torch.testing.assert_close(attention.sage(q, k, v, HEADS), sdpa(q, k, v, HEADS))
    assert torch.equal(k, before)
