"""Specular reflection of rough surfaces: GGX microfacets.

f = D F G / (4 (n.l) (n.v)), with D the GGX distribution and G = G1(l) G1(v) Smith's shadowing (Walter et al. 2007,
"Microfacet Models for Refraction through Rough Surfaces", eq. 33 and 34), F Fresnel by Schlick 1994, and alpha the
square of the roughness (Burley 2012). One bounce only, so rough surfaces lose a little energy, as in most renderers.
"""

import math

import torch
from torch import Tensor

_SMOOTHEST = 0.04  # a mirror's highlight of a light without size is infinitely bright


def ggx(normals: Tensor, towards: Tensor, views: Tensor, roughness: float, reflectance: float) -> Tensor:
    """The reflection f in 1/sr, [..., 1], of light from `towards` seen from `views`, 0 where either is behind.

    normals, towards, views: unit, [..., 3], from the surface. roughness: 0..1, taken as at least 0.04. reflectance: of
    light that falls in straight, 0..1: 0.04 of most materials, 0.5 and more of metals.
    """
    alpha2 = max(roughness, _SMOOTHEST) ** 4
    half = torch.nn.functional.normalize(towards + views, dim=-1)
    n_l, n_v, n_h, v_h = (
        (a * b).sum(-1, keepdim=True) for a, b in ((normals, towards), (normals, views), (normals, half), (views, half))
    )
    seen = (n_l > 0) & (n_v > 0)
    n_l, n_v = n_l.clamp(1e-4, 1), n_v.clamp(1e-4, 1)
    # 1 - (n.h)^2 by the cross product: the difference itself drowns in rounding where highlights are
    sine2 = torch.linalg.cross(normals, half).square().sum(-1, keepdim=True)
    distribution = alpha2 / (math.pi * (sine2 + alpha2 * n_h.square()).square())
    fresnel = reflectance + (1 - reflectance) * (1 - v_h.clamp(0, 1)) ** 5
    # G1(c) / (2 c), so that nothing is divided by a cosine near 0
    shadow = [1 / (c + (alpha2 + (1 - alpha2) * c.square()).sqrt()) for c in (n_l, n_v)]
    return torch.where(seen, distribution * fresnel * shadow[0] * shadow[1], 0.0)
