"""Families and task names."""

import json
from pathlib import Path

import pytest

from comfyui_strata.joint.families import ALPHA, FAMILIES, INTRINSIC, UNITY, VIGU, get_family, parse_task, tasks, vary
from comfyui_strata.joint.streams import Role
from comfyui_strata.joint.variants import Variant

MANIFEST = json.loads((Path(__file__).parent / "fixtures/unividx/manifest.json").read_text())


@pytest.mark.parametrize("name", ["intrinsic", "alpha"])
def test_every_published_mode_is_a_task_and_no_other(name):
    assert {str(task) for task in tasks(FAMILIES[name])} == set(MANIFEST["families"][name]["modes"])
    assert len(tasks(FAMILIES[name])) == 15


@pytest.mark.parametrize("name", FAMILIES)
def test_names_parse_back_to_the_same_task(name):
    for task in tasks(FAMILIES[name]):
        assert parse_task(FAMILIES[name], str(task)) == task


@pytest.mark.parametrize(("written", "means"), [
    ("r2nia", "R2AIN"), ("NIA2R", "AIN2R"), ("t2NIAR", "t2RAIN"), (" 2rain ", "t2RAIN"), ("T2rain", "t2RAIN"),
])
def test_letters_may_come_in_any_order_and_case(written, means):
    assert str(parse_task(INTRINSIC, written)) == means


@pytest.mark.parametrize(("written", "nearest"), [
    ("R2AI", "R2AIN"), ("R2PFB", "R2AIN"), ("AIN", "AIN2R"), ("RR2AIN", "R2AIN"), ("depth", "RAIN"),
])
def test_a_wrong_name_gets_the_nearest_right_ones(written, nearest):
    with pytest.raises(ValueError, match=nearest):
        parse_task(INTRINSIC, written)


@pytest.mark.parametrize("written", ["", "2", "RAIN2", "R2AIN2", "R2AINN", "R2RAIN", "X2RAI"])
def test_names_that_leave_a_layer_out_or_use_it_twice_are_refused(written):
    with pytest.raises(ValueError, match="no task of the intrinsic family"):
        parse_task(INTRINSIC, written)


def test_roles_and_layers_of_a_task():
    task = parse_task(ALPHA, "RP2FB")
    assert task.roles == (Role.CONDITION, Role.CONDITION, Role.TARGET, Role.TARGET)
    assert task.conditions == ("rgb", "alpha")
    assert task.targets == ("fg", "bg")
    assert ALPHA.task(["bg", "fg"]) == task


def test_tasks_trained_with_text_follow_the_published_rule():
    # Text where rgb is generated, but not when all others are given, nor (an exception of the published alpha) FB2RP.
    for family in (INTRINSIC, ALPHA):
        for task in tasks(family):
            rule = task.roles[0] is Role.TARGET and len(task.conditions) < 3 and str(task) != "FB2RP"
            assert task.uses_text == rule, str(task)


def test_nothing_to_generate_and_unknown_names_are_refused():
    with pytest.raises(ValueError, match="nothing is left to generate"):
        INTRINSIC.task([])
    with pytest.raises(ValueError, match="no layer 'depth'"):
        INTRINSIC.task(["depth"])
    with pytest.raises(ValueError, match="no family 'depth'"):
        get_family("depth")
    with pytest.raises(ValueError, match="rgb is to be given and generated at once"):
        UNITY.task(["rgb"], ["rgb"])


def test_unity_joins_rgb_with_one_other_layer():
    wanted = {pattern.format(x) for pattern in ("t2R{}", "R2{}", "{}2R") for x in "DFPKS"}
    assert {str(task) for task in tasks(UNITY)} == wanted and len(tasks(UNITY)) == 15
    estimate = parse_task(UNITY, "R2K")
    assert estimate.conditions == ("rgb",) and estimate.targets == ("skeleton",)
    assert estimate.roles.count(Role.ABSENT) == 4 and UNITY.task(["skeleton"], ["rgb"]) == estimate
    for wrong in ("R2DF", "D2F", "t2D", "t2R"):
        with pytest.raises(ValueError, match="joins rgb with one other"):
            parse_task(UNITY, wrong)
    several = vary(UNITY, Variant(together="all"))
    assert parse_task(several, "RD2FS").targets == ("flow", "segmentation")
    assert [stream.columns for stream in several.streams] == [0, 1, 2, 3, 4, 5]
    with pytest.raises(ValueError, match="one to 5 others"):
        parse_task(several, "D2F")


def test_unity_may_ride_on_wan_21():
    small = vary(UNITY, Variant(latents="wan2.1"))
    assert (small.latents, small.backbone) == (INTRINSIC.latents, VIGU.backbone)
    assert small.streams == UNITY.streams and small.flow == UNITY.flow


def test_unitys_layers_may_read_the_users_prompt():
    silent = vary(UNITY, Variant(sentences="none"))
    assert not any(stream.prompt for stream in silent.streams) and all(stream.prompt for stream in UNITY.streams[1:])


def test_vigu_has_three_tasks():
    assert [str(task) for task in tasks(VIGU)] == ["t2RC", "R2C", "C2R"]
    assert VIGU.pictures == ("rgb",) and VIGU.texts == ("caption",)
    with pytest.raises(ValueError, match="caption is missing"):
        VIGU.task(["rgb"], [])


def test_choices_belong_to_their_families():
    with pytest.raises(ValueError, match="unity family has no gating to choose; its choices are condition_time"):
        vary(UNITY, Variant(gating="always"))
    with pytest.raises(ValueError, match="intrinsic family has no plate to choose; its choices are gating, adapters"):
        vary(INTRINSIC, Variant(plate="own"))
    with pytest.raises(ValueError, match="plate = own goes with adapters = per_stream"):
        Variant(plate="own", adapters="shared")
    assert vary(ALPHA, Variant(plate="own")).stream("rgb").adapter == "com"
    with pytest.raises(ValueError, match="intrinsic family has no together"):
        vary(INTRINSIC, Variant(together="all"))
    with pytest.raises(ValueError, match="vigu family has no ffn to choose"):
        vary(VIGU, Variant(ffn="per_stream"))
