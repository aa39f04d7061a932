"""Normal maps: unit vectors as pictures, and what is done to them between tools.

Ours are in camera space, +X right, +Y up, +Z to the camera (OpenGL, Blender, Nuke), stored as 0.5 n + 0.5. DirectX and
Unreal count Y downwards: their green is turned over. Data: no transfer curve, ever. A vector of length 0 (the code 0.5)
means "no surface" and stays one.
"""

import torch
from torch import Tensor

_GRAY = 0.007  # of a vector's components: 8 bits cannot store the code 0.5, and miss a vector of 0 by 0.004


def decode_normals(images: Tensor) -> Tensor:
    """Pictures [..., 3] in 0..1 to unit vectors [..., 3]; middle gray, also of 8 bits, to vectors of length 0."""
    vectors = 2 * images - 1
    return renormalise(torch.where(vectors.abs().amax(-1, keepdim=True) <= _GRAY, 0.0, vectors))


def encode_normals(normals: Tensor) -> Tensor:
    """Unit vectors [..., 3] to pictures [..., 3] in 0..1; the inverse of `decode_normals`."""
    return 0.5 * normals + 0.5


def renormalise(normals: Tensor) -> Tensor:
    """Vectors [..., 3] at length 1, as any mean or resize of normals needs; those of length 0 stay so."""
    return torch.nn.functional.normalize(normals, dim=-1)


def turn_green(normals: Tensor) -> Tensor:
    """OpenGL's vectors [..., 3] to DirectX's, or back: Y changes its sign."""
    return normals * normals.new_tensor([1.0, -1.0, 1.0])


def rotate_normals(normals: Tensor, rotation: Tensor) -> Tensor:
    """Vectors [..., 3] times a rotation [3, 3] (`camera.rotation`: camera to world; its transpose: world to camera)."""
    return normals @ rotation.to(normals).T


def resize_normals(normals: Tensor, height: int, width: int) -> Tensor:
    """Vectors [F, H, W, 3] at another size, [F, height, width, 3], smoothed when shrunk, bilinear, at length 1."""
    resized = torch.nn.functional.interpolate(
        normals.movedim(-1, 1), size=(height, width), mode="bilinear", antialias=True
    )
    return renormalise(resized.movedim(1, -1))
