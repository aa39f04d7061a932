"""Schedules, times and noise of the continuous flow."""

from dataclasses import replace

import pytest
import torch

from comfyui_strata.joint.families import INTRINSIC
from comfyui_strata.joint.flow import condition_sigma, euler, network_time, noise_conditions, schedule, stream_times
from comfyui_strata.joint.streams import Role, Task

FLOW = INTRINSIC.flow
ROLES = (Role.TARGET, Role.CONDITION, Role.CONDITION, Role.TARGET)


def test_schedule_is_the_shifted_line():
    sigmas = schedule(50, 5.0)
    assert sigmas[0] == 1 and sigmas[-1] == 0 and len(sigmas) == 51
    published = [1000, 995.935, 991.735, 987.395, 982.906]
    assert torch.allclose(1000 * sigmas[:5], torch.tensor(published), atol=1e-3)
    assert torch.allclose(schedule(4, 1.0), torch.tensor([1.0, 0.75, 0.5, 0.25, 0.0]))


def test_no_step_is_refused():
    with pytest.raises(ValueError, match="at least 1 step"):
        schedule(0, 5.0)


def test_conditions_are_held_near_but_not_at_zero():
    assert condition_sigma(FLOW) == pytest.approx(0.005 / 1.004)


def test_times_are_rounded_as_the_family_says():
    assert network_time(torch.tensor(0.75125), FLOW) == 752  # bfloat16 has steps of 4 there
    assert network_time(torch.tensor(0.75125), replace(FLOW, round_time=None)) == pytest.approx(751.25)
    assert torch.cat(stream_times(Task(INTRINSIC, ROLES), 0.5)).flatten().tolist() == [500, 4.96875, 4.96875, 500]


@pytest.mark.parametrize(("whose", "source"), [("first", 0), ("own", 1)])
def test_conditions_take_the_noise_the_family_says(whose, source):
    clean, noise = torch.randn(2, 4, 3, 2), torch.randn(2, 4, 3, 2)
    x = noise_conditions(clean, noise, ROLES, replace(FLOW, condition_noise=whose))
    s = condition_sigma(FLOW)
    assert torch.equal(x[:, [0, 3]], noise[:, [0, 3]])
    assert torch.allclose(x[:, 1], (1 - s) * clean[:, 1] + s * noise[:, source])


def test_euler_ends_on_the_clean_picture_when_the_velocity_is_exact():
    clean, noise = torch.randn(3, 5, dtype=torch.float64), torch.randn(3, 5, dtype=torch.float64)
    seen = []
    out = euler(lambda x, sigma: noise - clean, noise, schedule(7, 5.0).double(), lambda i, x: seen.append((i, x)))
    assert torch.allclose(out, clean, atol=1e-6)
    assert [i for i, _ in seen] == list(range(7)) and torch.equal(seen[0][1], noise)
