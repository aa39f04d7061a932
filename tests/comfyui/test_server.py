"""What an artist and a render queue rely on, in a real ComfyUI: caching, interrupts, previews, errors, memory."""

from __future__ import annotations

import io
import json
import os
import shutil
import zlib
from pathlib import Path
from urllib.parse import quote
from urllib.request import urlopen

import numpy as np
import pytest
from PIL import Image

from comfyui_strata.tests.comfyui.conftest import ODD_NAME
from comfyui_strata.tests.comfyui.graphs import (
    NAMES,
    WORKFLOWS,
    api_form,
    made_small,
    nodes_of,
    read_pictures,
    read_video,
    saved_files,
    ui_form,
)

SNAPSHOT = Path(__file__).with_name("object_info.json")
CLIPS = Path(__file__).parents[3] / "shared" / "clips"  # the authors' own, where they lie beside the checkout


@pytest.fixture
def seed(request) -> int:
    """A seed of the test's own, so that no other test's results are found in the cache."""
    return zlib.crc32(request.node.nodeid.encode())


def small(name: str, seed: int, **inputs) -> dict:
    """A small example graph with this seed, and with `inputs` set wherever a node has an input of that name."""
    prompt = made_small(api_form(name))
    for node in prompt.values():
        node["inputs"] |= {key: value for key, value in {"seed": seed, **inputs}.items() if key in node["inputs"]}
    return prompt


def only(prompt: dict, kind: str) -> tuple[str, dict]:
    """The id and inputs of the only node of a class."""
    (found,) = nodes_of(prompt, kind).items()
    return found


def without_savers(prompt: dict) -> dict:
    """The prompt without what shows or saves."""
    return {key: node for key, node in prompt.items()
            if node["class_type"] not in ("SaveVideo", "SaveImage", "CreateVideo", "PreviewAny", "PreviewImage")}


def saving(prompt: dict, comfy, *layers: str) -> dict:
    """The prompt with nothing but these outputs of its Decode node saved, as pictures, by nodes of those names."""
    prompt, (decode, _) = without_savers(prompt), only(prompt, "StrataDecodeLayers")
    names = comfy.object_info["StrataDecodeLayers"]["output_name"]
    return prompt | {layer: {"class_type": "SaveImage", "inputs": {
        "images": [decode, names.index(layer)], "filename_prefix": f"layer/{layer}"}} for layer in layers}


def pictures(comfy, run, node: str) -> np.ndarray:
    """What a Save Image node saved, [F, H, W, 3] in 0..255."""
    return read_pictures([comfy.fetch(file) for file in run.files(node)])


# The nodes as ComfyUI shows them ------------------------------------------------------------------------------------


LISTS = {"StrataLoadLayers": "adapters", "StrataLoadWords": "encoder", "StrataLoadAlphaVideo": "file"}  # of files


def snapshot(object_info: dict) -> dict:
    """What /object_info says of our nodes, without what depends on the machine: lists of files, the folder's name."""
    ours = {}
    for name in sorted(name for name in object_info if name.startswith("Strata")):
        ours[name] = {key: value for key, value in object_info[name].items() if key != "python_module"}
    ours = json.loads(json.dumps(ours))
    for node, name in LISTS.items():
        ours[node]["input"]["required"][name][1]["options"] = ["(files)"]
    return ours


def input_names(node: dict) -> list[tuple[str, list]]:
    """Every list of names that graphs store by position: inputs by kind, inputs of each choice, outputs."""
    lists = [("outputs", node["output_name"])]
    for kind, inputs in node["input"].items():
        lists.append((kind, list(inputs)))
        for name, (_, *options) in inputs.items():
            for option in (options[0].get("options", ()) if options else ()):
                if isinstance(option, dict):
                    lists += [(f"{name}={option['key']} {part}", list(inner))
                              for part, inner in option["inputs"].items()]
    return lists


def test_nodes_are_what_graphs_rely_on(comfy):
    """Graphs store widgets and outputs by position and nodes by id: ids stay, inputs and outputs are only appended.

    After a change on purpose, run this test once with STRATA_UPDATE_SNAPSHOT=1 and commit object_info.json; it refuses
    to write anything that would break a saved graph.
    """
    now = snapshot(comfy.object_info)
    if not SNAPSHOT.exists() and os.environ.get("STRATA_UPDATE_SNAPSHOT"):
        SNAPSHOT.write_text("{}", "utf-8")
    before = json.loads(SNAPSHOT.read_text("utf-8"))
    assert not before.keys() - now.keys(), "a node is gone, and with it every graph that uses it"
    for name, node in before.items():
        current = dict(input_names(now[name]))
        for kind, names in input_names(node):
            assert current.get(kind, [])[:len(names)] == names, f"{name}, {kind}: append only, never rename or reorder"
    if os.environ.get("STRATA_UPDATE_SNAPSHOT"):
        SNAPSHOT.write_text(json.dumps(now, indent=1, ensure_ascii=False) + "\n", "utf-8")
    assert now == json.loads(SNAPSHOT.read_text("utf-8")), "changed on purpose? See this test's docstring."


def test_choices_of_sockets_alone_break_the_browser(comfy):
    """ComfyUI's frontend (1.49) fails to make a node whose dynamic choice holds sockets and no widget ("Failed to find
    input socket"), so every choice of ours must hold one."""
    widgets = ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO")
    for name in (name for name in comfy.object_info if name.startswith("Strata")):
        for inputs in comfy.object_info[name]["input"].values():
            for kind, *options in inputs.values():
                for option in (options[0]["options"] if kind == "COMFY_DYNAMICCOMBO_V3" else ()):
                    inner = [spec[0] for part in option["inputs"].values() for spec in part.values()]
                    assert not inner or any(of in widgets for of in inner), f"{name}: {option['key']}"


def test_template_browser_lists_the_graphs(comfy):
    """Every example is listed and served, and the API twins are not in the artist's way."""
    assert sorted(comfy.get("/workflow_templates")[ODD_NAME]) == NAMES
    with urlopen(f"{comfy.url}/api/workflow_templates/{quote(ODD_NAME)}/{NAMES[0]}.json", timeout=30) as answer:
        assert json.load(answer) == ui_form(NAMES[0])


def test_nodes_say_what_they_do(comfy, seed):
    """Family, task and settings are shown on the nodes themselves, and stay in the history for users of the API."""
    # A file and a length of its own, so that no node's answer comes from the cache of another test.
    loras = comfy.base / "models" / "loras"
    shutil.copy(loras / "univid_intrinsic.safetensors", loras / "said.safetensors")
    prompt = small("inverse_rendering", seed, adapters="said.safetensors")
    only(prompt, "StrataConditionMask")[1]["family.length"] = 7
    run = comfy.check(prompt)
    shown = dict(run.texts)
    for kind, words in {"StrataLoadLayers": "UniVidX intrinsic", "StrataJointSampler": "2 steps, shift 5, cfg 1",
                        "StrataConditionMask": "R2AIN: given rgb; generated albedo, irradiance, normal"}.items():
        node, _ = only(prompt, kind)
        assert words in shown[node], kind
        assert words in run.outputs[node]["text"][0], kind


# Only what is connected ---------------------------------------------------------------------------------------------


def test_only_connected_outputs_are_decoded_and_new_connections_arrive(comfy, seed):
    """The decoded layers follow the wires, whatever the cache holds."""
    prompt = small("inverse_rendering", seed)
    decode, inputs = only(prompt, "StrataDecodeLayers")
    sampler, _ = only(prompt, "StrataJointSampler")
    prompt["told"] = {"class_type": "TellDecodes", "inputs": {"vae": inputs["vae"]}}
    inputs["vae"] = ["told", 0]

    def decodes(*layers: str):
        before = comfy.log_text().count("TellingVAE decodes")
        run = comfy.check(saving(prompt, comfy, *layers))
        return run, comfy.log_text().count("TellingVAE decodes") - before

    one, count = decodes("albedo")
    assert count == 1
    two, count = decodes("normal")
    assert count == 1, "the newly connected layer is decoded, and no other"
    assert sampler in two.cached, "nothing is sampled again"
    assert pictures(comfy, two, "normal").std() > 4
    assert not np.array_equal(pictures(comfy, one, "albedo"), pictures(comfy, two, "normal"))
    assert decodes("albedo", "irradiance", "normal")[1] == 3
    given, count = decodes("rgb")
    assert count == 0, "a given layer is passed through"
    assert pictures(comfy, given, "rgb").std() > 4
    back, count = decodes("albedo")
    assert np.array_equal(pictures(comfy, one, "albedo"), pictures(comfy, back, "albedo"))
    assert count <= 1


def test_output_of_another_family(comfy, seed):
    """A wire at an output that this family does not have stops with a sentence that names what there is."""
    run = comfy.run(saving(small("inverse_rendering", seed), comfy, "fg"))
    assert run.ending == "execution_error"
    said = run.error["exception_message"]
    assert "fg" in said and "intrinsic" in said and "albedo" in said and "irradiance" in said


def test_cached_rerun_does_no_work(comfy, seed):
    prompt = small("inverse_rendering", seed)
    first, again = comfy.check(prompt), comfy.check(prompt)
    assert first.executed and not again.executed
    assert set(again.cached) == set(prompt)
    assert saved_files(comfy, again) == saved_files(comfy, first)


# Errors -------------------------------------------------------------------------------------------------------------


def test_wrong_batch(comfy, seed):
    """A LATENT whose rows are no whole clips is refused in words, by our sampler and by the stock one."""
    for name, kind, wire in (("inverse_rendering", "StrataJointSampler", "latent"),
                             ("matting", "KSampler", "latent_image")):
        prompt = small(name, seed)
        _, inputs = only(prompt, kind)
        prompt["cut"] = {"class_type": "LatentFromBatch", "inputs": {
            "samples": inputs[wire], "batch_index": 0, "length": 3}}
        inputs[wire] = ["cut", 0]
        run = comfy.run(prompt)
        assert run.ending == "execution_error"
        assert "needs a multiple of 4 rows" in run.error["exception_message"]
        assert "Strata Condition Mask" in run.error["exception_message"]


def test_file_that_holds_no_adapters(comfy, seed):
    models = comfy.base / "models"
    shutil.copy(models / "vae" / "wan_2.1_vae.safetensors", models / "loras" / "a_vae.safetensors")
    run = comfy.run(small("inverse_rendering", seed, adapters="a_vae.safetensors"))
    assert run.ending == "execution_error" and run.error["node_type"] == "StrataLoadLayers"
    assert "'a_vae.safetensors' holds no layers" in run.error["exception_message"]


def test_latent_of_another_family(comfy, seed):
    """Both families have four layers, so only their names tell that these do not belong together."""
    run = comfy.run(small("inverse_rendering", seed, adapters="univid_alpha.safetensors"))
    assert run.ending == "execution_error" and run.error["node_type"] == "StrataJointSampler"
    assert "intrinsic" in run.error["exception_message"] and "alpha" in run.error["exception_message"]


# The queue ----------------------------------------------------------------------------------------------------------


def test_interrupt_leaves_the_model_usable(comfy, seed):
    """Stopped half-way, the same prompt then runs to the result that it has without an interrupt."""
    prompt = saving(small("inverse_rendering", seed, steps=30), comfy, "albedo", "rgb")
    whole = comfy.check(prompt)
    comfy.post("/free", {"free_memory": True, "unload_models": False})  # empties the cache, keeps the patched model

    def stop(kind, data):
        if kind == "progress" and data["value"] == 15:
            comfy.post("/interrupt", {"prompt_id": data["prompt_id"]})

    stopped = comfy.run(prompt, stop)
    assert stopped.ending == "execution_interrupted"
    again = comfy.check(prompt)
    assert only(prompt, "StrataJointSampler")[0] in again.executed
    for layer in ("albedo", "rgb"):
        assert np.array_equal(pictures(comfy, whole, layer), pictures(comfy, again, layer))


def test_previews_show_all_layers_side_by_side(comfy, seed):
    """While sampling, pictures four times as wide as the clip arrive, from our sampler and from the stock one."""
    for name, aspect in (("inverse_rendering", 64 / 48), ("matting", 64 / 48)):  # 64x36 is worked on as 64x48
        run = comfy.check(small(name, seed, steps=4))
        shapes = [Image.open(io.BytesIO(preview)).size for preview in run.previews]
        wide = [index for index, (width, height) in enumerate(shapes) if abs(width / height / aspect - 4) < 0.2]
        assert len(wide) >= 3, f"{name}: previews of {shapes}"
        last = np.asarray(Image.open(io.BytesIO(run.previews[wide[-1]])).convert("RGB"))
        for part in np.array_split(last, 4, axis=1):
            assert part.std() > 4, f"{name}: a layer is missing in the preview"
        (comfy.base / f"preview_{name}.jpg").write_bytes(run.previews[wide[-1]])


def test_twenty_queued_runs_keep_memory_level(comfy, seed):
    """A queue of runs, each sampled and decoded anew."""

    def run_all(seeds):
        for prompt_id in [comfy.queue(small("inverse_rendering", s, steps=1)) for s in seeds]:
            assert comfy.outputs(prompt_id)

    run_all(range(seed, seed + 5))
    before = comfy.memory()
    run_all(range(seed + 5, seed + 25))
    grown = (comfy.memory() - before) / 20 / 2**20
    # Measured alone: 0.03 MB a run over 60 runs. The pictures of one run are 0.6 MB, so keeping those would show.
    assert grown < 0.5, f"{grown:.2f} MB more with every run"


# Real clips ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name, clip, asset", [("inverse_rendering", "R2AIN/rgb.mp4", "room.mp4"),
                                               ("matting", "R2PFB/bl.mp4", "person.mp4")])
def test_real_clip_end_to_end(comfy, seed, name, clip, asset):
    """A whole clip of odd length, scaled down by a stock node: frames, size and rate are kept, given stays given."""
    source = CLIPS / clip if (CLIPS / clip).exists() else WORKFLOWS / "assets" / asset
    shutil.copy(source, comfy.base / "input" / f"real_{asset}")
    frames, rate = read_video(source)
    width, height = 80, 80 * frames.shape[1] // frames.shape[2] // 2 * 2  # h264 takes even sizes
    prompt = small(name, seed, file=f"real_{asset}")
    _, inputs = only(prompt, "StrataConditionMask")
    prompt["scaled"] = {"class_type": "ImageScale", "inputs": {
        "image": inputs["family.rgb"], "width": width, "height": height, "upscale_method": "area", "crop": "disabled"}}
    inputs["family.rgb"] = ["scaled", 0]
    decode, _ = only(prompt, "StrataDecodeLayers")
    for node, link in (("went in", ["scaled", 0]), ("came out", [decode, 0])):
        prompt[node] = {"class_type": "SaveImage", "inputs": {"images": link, "filename_prefix": f"real/{node}"}}
    run = comfy.check(prompt)
    videos = {key: paths for key, paths in saved_files(comfy, run).items() if paths[0].suffix == ".mp4"}
    assert len(videos) == 3
    for layer, (path,) in videos.items():
        made, made_rate = read_video(path)
        assert made.shape == (len(frames), height, width, 3) and made_rate == rate, layer
        assert made.std() > 4, layer
    assert np.array_equal(pictures(comfy, run, "went in"), pictures(comfy, run, "came out"))


@pytest.mark.parametrize("name, asset", [("inverse_rendering", "room.mp4"), ("matting", "person.mp4")])
def test_bundled_clips_in_their_own_size(comfy, seed, name, asset):
    """What an artist does first: the example graph with its example clip."""
    shutil.copy(WORKFLOWS / "assets" / asset, comfy.base / "input" / f"full_{asset}")
    frames, rate = read_video(WORKFLOWS / "assets" / asset)
    run = comfy.check(small(name, seed, file=f"full_{asset}"))
    for layer, (path,) in saved_files(comfy, run).items():
        made, made_rate = read_video(path)
        assert made.shape == frames.shape and made_rate == rate, layer
