"""People as joints, as OpenPose-style drawings and as the JSON that ComfyUI's pose nodes exchange.

F frames, S people, 18 joints in OpenPose's COCO-18 order. Joints are [F, S, 18, 2] in pixels: x to the right, y down,
the centre of the top left pixel at (0.5, 0.5). visible is [F, S, 18]; where it is False, the numbers mean nothing.
"""

import colorsys
import math

import torch
from torch import Tensor

from ..checks import check_pixels

# nose, neck, right arm (shoulder, elbow, wrist), left arm, right leg (hip, knee, ankle), left leg, right and left eye,
# right and left ear. The order of the limbs is ControlNet's: limb i has the colour of joint i, darker.
JOINTS = 18
LIMBS = (
    (1, 2), (1, 5), (2, 3), (3, 4), (5, 6), (6, 7), (1, 8), (8, 9), (9, 10), (1, 11), (11, 12), (12, 13),
    (1, 0), (0, 14), (14, 16), (0, 15), (15, 17),
)  # fmt: skip
# OpenPose's table is the hue circle in steps of 20 degrees: (255, 0, 0), (255, 85, 0), (255, 170, 0), ...
COLOURS = torch.tensor([colorsys.hsv_to_rgb(i / JOINTS, 1.0, 1.0) for i in range(JOINTS)])
_LIMB_BRIGHTNESS = 0.6
_UNSEEN = {"face": 70, "hand_left": 21, "hand_right": 21}  # OpenPose's points that are no joints
# Neighbours in the table are 1/3 apart and limbs at least 0.4 from every joint's colour: half of that is a joint's own.
_NEAR = 0.16


def draw_skeletons(joints: Tensor, visible: Tensor, height: int, width: int) -> Tensor:
    """Draw people on black as ControlNet's OpenPose drawing: [F, height, width, 3] in 0..1.

    Limbs with two visible ends are ellipses at 0.6 brightness, visible joints are dots over all limbs; what is later in
    the order, then what belongs to a later person, lies on top. At 512 pixels a limb is 8 thick and a dot has radius 4;
    both follow the shorter side, down to 2 and 1.5. Limbs have soft edges and dots hard ones, so that no mixture passes
    for another joint. Raises ValueError for wrong shapes, a size below 1, and visible joints that are not finite.
    """
    _check(joints, visible, height, width)
    joints = joints.float().where(visible[..., None], 0.0)
    rows, columns = torch.arange(height) + 0.5, torch.arange(width) + 0.5
    grid = torch.stack(torch.meshgrid(columns, rows, indexing="xy"), -1).to(joints.device)  # [H, W, 2]
    colours = COLOURS.to(joints.device)
    images = torch.zeros(len(joints), height, width, 3, device=joints.device)
    half, radius = max(1.0, min(height, width) / 128), dot_radius(height, width)
    for image, places, seen in zip(images, joints, visible, strict=True):
        for limb, ends in enumerate(LIMBS):
            for person in seen[:, ends].all(dim=1).nonzero().flatten().tolist():
                window = _window(places[person, ends], half + 1, height, width)
                inside = _ellipse(grid[window], *places[person, ends], half)[..., None]
                image[window] = torch.lerp(image[window], _LIMB_BRIGHTNESS * colours[limb], inside)
        for joint in range(JOINTS):
            for person in seen[:, joint].nonzero().flatten().tolist():
                window = _window(places[person, joint, None], radius + 1, height, width)
                image[window][(grid[window] - places[person, joint]).norm(dim=-1) <= radius] = colours[joint]
    return images


def read_joints(images: Tensor) -> tuple[Tensor, Tensor]:
    """The joints of ONE person from a clean drawing [F, H, W, 3|4] in 0..1: joints [F, 1, 18, 2], visible [F, 1, 18].

    A joint lies at the mean of the pixels of its colour (within 0.16 in every channel) and is not visible, at (0, 0),
    where there are none. For what `draw_skeletons` drew, a whole dot is read within 0.6 pixels, 0.2 on average, at
    64x64 to 256x256, also after 8 bits. A dot that another covers in part, or that the picture's edge cuts, is read
    within its radius (`dot_radius`: 1.5 pixels at 64x64, 2 at 256x256); one covered wholly is lost, as on a small face
    eyes and nose can be. Not for several people (it finds a point between them), nor for drawings that were blurred or
    resized, whose edges have colours of other joints. Raises ValueError for what `check_pixels` refuses and for one
    channel.
    """
    check_pixels("The skeleton drawing", images)
    if images.shape[-1] == 1:
        raise ValueError("The skeleton drawing has 1 channel, but 3 (RGB) are needed; give it in colour.")
    height, width = images.shape[1:3]
    images = images[..., :3].float()
    x, y = (torch.arange(size, device=images.device) + 0.5 for size in (width, height))
    joints, visible = [], []
    for colour in COLOURS.to(images.device):
        near = ((images - colour).abs().amax(dim=-1) <= _NEAR).float()  # [F, H, W]
        count = near.sum(dim=(1, 2))
        place = torch.stack([(near.sum(dim=1) * x).sum(dim=-1), (near.sum(dim=2) * y).sum(dim=-1)], -1)
        joints.append(place / count.clamp_min(1)[:, None])
        visible.append(count > 0)
    return torch.stack(joints, 1)[:, None], torch.stack(visible, 1)[:, None]


def joints_to_pose_json(joints: Tensor, visible: Tensor, height: int, width: int) -> list[dict]:
    """One POSE_KEYPOINT dict a frame, ready for json.dumps: every person, x, y in pixels, c = 1 where visible.

    A joint that is not visible is 0, 0, 0, and so are all points of face and hands: ComfyUI's own SDPose Draw Keypoints
    fails where they are null. Raises ValueError like `draw_skeletons`.
    """
    _check(joints, visible, height, width)
    numbers = torch.cat([joints.where(visible[..., None], 0.0), visible[..., None].to(joints)], -1)
    none = {f"{part}_keypoints_2d": [0.0] * 3 * count for part, count in _UNSEEN.items()}
    return [
        {
            "people": [{"pose_keypoints_2d": person.flatten().tolist()} | none for person in frame],
            "canvas_height": height,
            "canvas_width": width,
        }
        for frame in numbers
    ]


def pose_json_to_joints(frames: list[dict], confidence: float = 0.0) -> tuple[Tensor, Tensor, int, int]:
    """joints [F, S, 18, 2] in pixels, visible [F, S, 18], height and width, from a POSE_KEYPOINT list.

    S is the most people of a frame; others have invisible ones added at the end. A joint with c > 0 is visible if c is
    at least `confidence`: detectors that look for every joint give each a place, and those not there a low c. A clip
    whose visible coordinates all lie within -1..1 is taken as normalised, as pose nodes do, and scaled to the canvas.
    A body of null or no numbers is a person with no visible joint. Raises ValueError, in one sentence, for anything
    else than such a list.
    """
    if not isinstance(frames, list) or not frames or not all(isinstance(frame, dict) for frame in frames):
        raise ValueError(
            f"The poses are {_describe(frames)}, but a list with one POSE_KEYPOINT dict per frame is needed; "
            "put a single frame into a list."
        )
    height, width = _canvas(frames)
    bodies = [[_body(person, number) for person in _people(frame, number)] for number, frame in enumerate(frames)]
    numbers = torch.zeros(len(frames), max(map(len, bodies)), JOINTS, 3)
    for frame, people in enumerate(bodies):
        for person, body in enumerate(people):
            numbers[frame, person] = body
    visible = (numbers[..., 2] > 0) & (numbers[..., 2] >= confidence)
    joints = numbers[..., :2].where(visible[..., None], 0.0)
    if visible.any() and joints.abs().max() <= 1:
        joints = joints * torch.tensor([width, height])
    return joints, visible, height, width


def dot_radius(height: int, width: int) -> float:
    """The radius in pixels of a drawn joint."""
    return max(1.5, min(height, width) / 128)


def _window(places: Tensor, reach: float, height: int, width: int) -> tuple[slice, slice]:
    """The rows and columns within `reach` of places [N, 2]; only there is anything to draw."""
    (left, top), (right, bottom) = (places.amin(0) - reach).tolist(), (places.amax(0) + reach).tolist()
    rows = slice(max(0, math.floor(top)), max(0, min(height, math.ceil(bottom))))
    return rows, slice(max(0, math.floor(left)), max(0, min(width, math.ceil(right))))


def _ellipse(grid: Tensor, start: Tensor, end: Tensor, half: float) -> Tensor:
    """How far pixels [H, W, 2] are inside an ellipse from start to end [2], 2 half thick: [H, W] in 0..1."""
    edge, offset = end - start, grid - (start + end) / 2
    length = edge.norm().clamp_min(1.0)
    along = (offset * edge).sum(-1) / length
    across = (offset[..., 0] * edge[1] - offset[..., 1] * edge[0]) / length
    # Distance to the rim to first order, k0 (k0 - 1) / k1. The small number keeps it defined in the very middle.
    along, across = along.abs().clamp_min(1e-3), across.abs().clamp_min(1e-3)
    k0 = torch.hypot(along / (length / 2), across / half)
    k1 = torch.hypot(along / (length / 2) ** 2, across / half**2)
    return (0.5 - k0 * (k0 - 1) / k1).clamp(0, 1)


def _check(joints: Tensor, visible: Tensor, height: int, width: int):
    if joints.ndim != 4 or joints.shape[2:] != (JOINTS, 2):
        raise ValueError(f"The joints have shape {list(joints.shape)}, but [frames, people, {JOINTS}, 2] is needed.")
    if visible.shape != joints.shape[:3] or visible.dtype != torch.bool:
        raise ValueError(
            f"The joints' visibility is {visible.dtype} of shape {list(visible.shape)}, but torch.bool of shape "
            f"{list(joints.shape[:3])} is needed."
        )
    if height < 1 or width < 1:
        raise ValueError(f"The canvas is {width}x{height}, but a width and a height of at least 1 are needed.")
    if not torch.isfinite(joints[visible]).all():
        raise ValueError("Some visible joints are NaN or infinite, but finite ones are needed; mark them invisible.")


def _canvas(frames: list[dict]) -> tuple[int, int]:
    sizes = [(frame.get("canvas_height"), frame.get("canvas_width")) for frame in frames]
    for number, size in enumerate(sizes):
        if not all(_is_number(side) and side >= 1 and side == int(side) for side in size):
            raise ValueError(
                f"Frame {number} of the poses has canvas_height {size[0]!r} and canvas_width {size[1]!r}, but whole "
                "numbers of at least 1 are needed; add them."
            )
        if size != sizes[0]:
            raise ValueError(
                f"Frame {number} of the poses has a canvas of {size[1]}x{size[0]} and frame 0 one of "
                f"{sizes[0][1]}x{sizes[0][0]}, but one size is needed; split the clip or bring them to one size."
            )
    return int(sizes[0][0]), int(sizes[0][1])


def _people(frame: dict, number: int) -> list[dict]:
    people = frame.get("people")
    if not isinstance(people, list) or not all(isinstance(person, dict) for person in people):
        raise ValueError(
            f'Frame {number} of the poses has {_describe(people)} as "people", but a list of dicts is needed; give an '
            "empty list where nobody is."
        )
    return people


def _body(person: dict, number: int) -> Tensor:
    values = person.get("pose_keypoints_2d") or [0.0] * 3 * JOINTS
    if not isinstance(values, list) or len(values) != 3 * JOINTS:
        raise ValueError(
            f"A person in frame {number} of the poses has {_describe(values)} as pose_keypoints_2d, but {3 * JOINTS} "
            f"numbers are needed: x, y, c of {JOINTS} joints in COCO-18 order."
        )
    if not all(_is_number(value) for value in values):
        raise ValueError(
            f"A person in frame {number} of the poses has pose_keypoints_2d that are not finite numbers, but x, y, c "
            "are needed; give 0, 0, 0 for a joint that was not found."
        )
    return torch.tensor(values, dtype=torch.float32).view(JOINTS, 3)


def _is_number(value) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _describe(value) -> str:
    if value is None:
        return "nothing"
    return f"a list of {len(value)}" if isinstance(value, list) else f"a {type(value).__name__}"
