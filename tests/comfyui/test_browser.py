"""ComfyUI's own page with our nodes in it, in a headless Chromium: every graph opens, the Condition Mask talks, the
viewer shows what was made."""

from __future__ import annotations

import json

import numpy as np
import pytest

from comfyui_strata.tests.comfyui.browser import Page, chromium, find_chromium
from comfyui_strata.tests.comfyui.graphs import NAMES, api_form, ui_form

WIDTH, HEIGHT, FRAMES = 32, 24, 3


@pytest.fixture(scope="module")
def browser():
    pytest.importorskip("playwright", reason="the page is driven by playwright (the dev extra brings it)")
    path = find_chromium()
    if path is None:
        pytest.skip("no Chromium on this machine")
    with chromium(path) as running:
        yield running


@pytest.fixture
def page(browser, comfy):
    opened = Page(browser.new_page(viewport={"width": 1600, "height": 1000}))
    opened.open(comfy.url)
    opened.errors.clear()  # what the page itself complains of at its start is not ours
    yield opened
    opened.page.close()


OVERLAPS = """() => {
  const boxes = app.graph._nodes.map(node => ({
    of: `${node.type} ${node.id}`, left: node.pos[0], right: node.pos[0] + node.size[0],
    top: node.pos[1] - LiteGraph.NODE_TITLE_HEIGHT, bottom: node.pos[1] + node.size[1] }));
  return boxes.flatMap((a, i) => boxes.slice(i + 1).filter(b => a.left < b.right && b.left < a.right
    && a.top < b.bottom && b.top < a.bottom).map(b => `${a.of} on ${b.of}`));
}"""


def computed(prompt: dict) -> dict:
    """What a queue's form computes: without titles, and without the page's own player of videos."""
    return {key: (node["class_type"], {name: it for name, it in node["inputs"].items() if name != "video-preview"})
            for key, node in prompt.items()}


def test_every_graph_opens_without_an_error(page):
    """Its nodes and wires are there, no node lies on another, and the page queues what the queue's form says."""
    for name in NAMES:
        graph = ui_form(name)
        page.load(graph)
        unknown = page.evaluate("() => app.graph._nodes.map(node => node.type).filter(type => "
                                "!(type in LiteGraph.registered_node_types))")
        assert not unknown, f"{name}: {unknown}"
        links = page.evaluate("() => [...app.graph.links.values()].length")
        assert links == len(graph["links"]), f"{name}: wires are lost"
        overlaps = page.evaluate(OVERLAPS)
        assert not overlaps, f"{name}: {overlaps}"
        queued = page.evaluate("async () => (await app.graphToPrompt()).output")
        assert computed(queued) == computed(api_form(name)), name
    assert not page.errors, page.errors


def test_the_condition_mask_says_what_is_given_and_made(page):
    page.load(ui_form("inverse_rendering"))
    text = "type => app.graph._nodes.find(node => node.type === type).strataTask?.innerText ?? ''"
    page.wait(f"type => ({text})(type).includes('R2AIN')", "StrataConditionMask")
    said = page.evaluate(text, "StrataConditionMask")
    assert "given: rgb" in said and "made: albedo, irradiance, normal" in said
    page.evaluate("""type => {
      const node = app.graph._nodes.find(node => node.type === type);
      node.disconnectInput(node.inputs.findIndex(input => input.name === 'family.rgb'));
    }""", "StrataConditionMask")
    page.wait(f"type => ({text})(type).includes('t2RAIN')", "StrataConditionMask")
    assert not page.errors, page.errors


@pytest.mark.parametrize("name", ["rgb_to_depth", "skeleton_to_video"])
def test_the_words_on_the_condition_mask_are_not_saved(page, name):
    """What a graph stores goes by the order of its widgets: ours must not be among them."""
    page.load(ui_form(name))
    saved = page.evaluate("""() => app.graph.serialize().nodes.filter(n => n.type === 'StrataConditionMask')
                                      .map(n => n.widgets_values)""")
    there = [node["widgets_values"] for node in ui_form(name)["nodes"] if node["type"] == "StrataConditionMask"]
    assert saved == there


def viewer_graph() -> dict:
    """Two flat clips into a viewer, in the queue's form."""
    def flat(colour):
        return {"class_type": "EmptyImage", "inputs": {"width": WIDTH, "height": HEIGHT, "batch_size": FRAMES,
                                                       "color": colour}}
    return {"a": flat(0xFF8000), "b": flat(0x204060), "viewer": {"class_type": "StrataLayerViewer", "inputs": {
        "rgb": ["a", 0], "pictures.picture0": ["b", 0], "frame_rate": 24.0, "width": "full"}}}


def test_the_viewer_shows_picks_and_compares(page, comfy, tmp_path):
    run = comfy.check(viewer_graph())
    shown = run.outputs["viewer"]
    assert [layer["name"] for layer in shown["strata_layers"]] == ["rgb", "picture0"]
    page.evaluate("""async output => {
      app.graph.clear();
      const node = LiteGraph.createNode('StrataLayerViewer');
      app.graph.add(node);
      node.onExecuted(output);
      window.viewer = node.strataViewer;
      await window.viewer.draw();
    }""", shown)
    corner = """() => [...window.viewer.screen.getContext('2d').getImageData(0, 0, 1, 1).data].slice(0, 3)"""
    right = f"""() => [...window.viewer.screen.getContext('2d').getImageData({WIDTH - 2}, 2, 1, 1).data].slice(0, 3)"""
    assert page.evaluate(corner) == [255, 128, 0]
    page.evaluate("async () => { await window.viewer.set({ mode: 'wipe' }); }")
    assert page.evaluate(corner) == [255, 128, 0] and page.evaluate(right) == [32, 64, 96]
    page.evaluate("async () => { await window.viewer.set({ mode: 'difference', gain: 1 }); }")
    assert np.abs(np.subtract(page.evaluate(corner), [223, 64, 96])).max() <= 1
    page.evaluate("async () => { await window.viewer.set({ mode: 'A', stops: -1 }); }")
    dimmed = page.evaluate(corner)
    assert dimmed[0] == 188 and dimmed[2] == 0  # half of full light, sRGB-encoded
    page.evaluate("async () => { await window.viewer.set({ mode: 'grid', stops: 0 }); }")
    assert page.evaluate("() => window.viewer.screen.width") == 2 * WIDTH
    page.screenshot(tmp_path / "viewer.png")
    assert not page.errors, page.errors


def test_the_browser_reads_half_floats_as_numpy_does(page, comfy):
    bits = np.arange(65536, dtype=np.uint16)
    module = next(path for path in comfy.get("/extensions") if path.endswith("/viewer/pixels.js"))
    theirs = page.page.evaluate("""async path => {
      const { HALF } = await import(path);
      return [...HALF].map(String);
    }""", module)
    ours = bits.view(np.float16).astype(np.float64)
    read = np.array([float(text.replace("Infinity", "inf")) for text in theirs])
    assert np.array_equal(ours, read, equal_nan=True)


def test_a_missing_file_is_said(page, comfy):
    shown = json.loads(json.dumps(comfy.check(viewer_graph()).outputs["viewer"]))
    for layer in shown["strata_layers"]:
        layer["filename"] = "gone.half"
    page.evaluate("""async output => {
      const node = LiteGraph.createNode('StrataLayerViewer');
      app.graph.add(node);
      node.onExecuted(output);
      window.viewer = node.strataViewer;
    }""", shown)
    page.page.wait_for_function("() => window.viewer.readout.innerText.includes('queue the graph again')")
