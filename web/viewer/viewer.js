// The layer viewer: what is on the node, and what keys and mouse do to it.

import { Cache, Layer } from "./frames.js";
import { FAULT_NAMES, FAULT, Tables, digits, paint, paintDifference, pick } from "./pixels.js";

const MODES = { A: "one layer", wipe: "A | B", difference: "|A - B|", grid: "all layers" };
const BACKDROPS = { none: null, checker: "checker", black: [0, 0, 0], gray: [118, 118, 118], green: [0, 177, 64] };
const HELP = [
  ["1 ... 9", "layer"], ["B", "A and B change places"], ["Space", "play, pause"], ["Left, Right", "frame"],
  ["Home, End", "first, last frame"], ["W", "wipe"], ["D", "difference"], ["G", "grid"], ["Q, E", "exposure"],
  ["F", "false colour"], ["N", "normals as a lit ball"], ["C", "over checkerboard, colours"], ["Esc", "plain"],
];

/** A viewer of the layers of a shot. `root` is the element to put on a node. */
export class Viewer {
  constructor(api) {
    this.api = api;
    this.tables = new Tables();
    this.layers = [];
    this.state = { a: 0, b: 1, mode: "A", frame: 0, playing: false, stops: 0, gain: 4, falseColour: false, ball: false,
                   backdrop: "none", wipe: 0.5 };
    this.build();
  }

  /** Show the layers of a run. What was chosen before stays, where it is there. */
  show(layers, rate) {
    const names = [this.layers[this.state.a]?.name, this.layers[this.state.b]?.name];
    const cache = new Cache();
    this.layers = layers.map((about) => new Layer(about, this.api, cache));
    const place = (name, other) => {
      const at = this.layers.findIndex((layer) => layer.name === name);
      return at < 0 ? Math.min(other, this.layers.length - 1) : at;
    };
    Object.assign(this.state, { a: place(names[0], 0), b: place(names[1], 1) });
    this.rate = rate;
    this.state.frame = Math.min(this.state.frame, this.length - 1);
    this.fillChoices();
    return this.draw();
  }

  get length() {
    return Math.max(1, ...this.layers.map((layer) => layer.frames));
  }

  // ---- what is on the node

  build() {
    this.root = element("div", { className: "strata-viewer", tabIndex: 0 });
    this.tabs = element("div", { className: "strata-tabs" });
    this.screen = element("canvas", { className: "strata-screen" });
    this.readout = element("div", { className: "strata-readout" });
    this.controls = element("div", { className: "strata-controls" });
    this.root.append(element("style", { textContent: STYLE }), this.tabs, this.screen, this.readout, this.controls);
    const set = (changes) => this.set(changes);
    this.inputs = {
      playing: button("Play", "Space", () => set({ playing: !this.state.playing })),
      frame: slider("frame", 0, 0, 1, (frame) => set({ frame, playing: false })),
      mode: choice("show", MODES, (mode) => set({ mode })),
      b: choice("B", {}, (b) => set({ b: Number(b) })),
      stops: slider("exposure", -6, 6, 0.25, (stops) => set({ stops })),
      gain: slider("gain", 1, 64, 1, (gain) => set({ gain })),
      backdrop: choice("over", BACKDROPS, (backdrop) => set({ backdrop })),
      falseColour: tick("false colour", (falseColour) => set({ falseColour })),
      ball: tick("normals lit", (ball) => set({ ball })),
    };
    for (const input of Object.values(this.inputs)) this.controls.append(input.box);
    this.controls.append(element("span", { className: "strata-help", textContent: "?",
                                           title: HELP.map((pair) => pair.join("\t")).join("\n") }));
    this.root.addEventListener("keydown", (event) => this.key(event));
    this.screen.addEventListener("pointerdown", (event) => this.press(event));
    this.screen.addEventListener("pointermove", (event) => this.point(event));
    this.screen.addEventListener("pointerleave", () => this.say(""));
    this.reflect();
  }

  fillChoices() {
    this.tabs.replaceChildren(...this.layers.map((layer, i) => element("button", {
      textContent: layer.name, title: i < 9 ? `key ${i + 1}` : "", onclick: () => this.set({ a: i, mode: this.flat() }),
    })));
    this.inputs.b.fill(Object.fromEntries(this.layers.map((layer, i) => [i, layer.name])));
    this.inputs.frame.range(0, this.length - 1);
    this.reflect();
  }

  /** Bring buttons and sliders to the state. */
  reflect() {
    const { state, inputs } = this;
    for (const [name, input] of Object.entries(inputs)) input.value = state[name];
    inputs.playing.label = state.playing ? "Pause" : "Play";
    inputs.gain.box.hidden = state.mode !== "difference";
    inputs.b.box.hidden = !["wipe", "difference"].includes(state.mode);
    [...this.tabs.children].forEach((tab, i) => {
      tab.classList.toggle("strata-a", i === state.a && state.mode !== "grid");
      tab.classList.toggle("strata-b", i === state.b && !inputs.b.box.hidden);
    });
  }

  /** Change the state and show it. */
  set(changes) {
    const started = changes.playing && !this.state.playing;
    Object.assign(this.state, changes);
    this.reflect();
    if (started) this.play();
    return this.draw();
  }

  /** The mode that a click on a layer leaves: a grid gives way to it. */
  flat() {
    return this.state.mode === "grid" ? "A" : this.state.mode;
  }

  // ---- time

  async play() {
    let due = performance.now();
    while (this.state.playing && this.root.isConnected) {
      due = Math.max(due + 1000 / this.rate, performance.now() - 1000 / this.rate);
      await Promise.all([this.draw(), wait(due - performance.now())]);
      if (this.state.playing) this.state.frame = (this.state.frame + 1) % this.length;
      this.inputs.frame.value = this.state.frame;
    }
    this.set({ playing: false });
  }

  // ---- pictures

  /** Paint the current frame; a later call wins over one whose frames are still under way. */
  async draw() {
    const turn = this.turn = (this.turn ?? 0) + 1;
    if (!this.layers.length) return;
    const { state } = this, a = this.layers[state.a], b = this.layers[state.b];
    try {
      const wanted = state.mode === "grid" ? this.layers : state.mode === "A" ? [a] : [a, b];
      const pictures = await Promise.all(wanted.map((layer) => this.picture(layer)));
      const frames = state.mode === "difference" && await Promise.all([a, b].map((l) => l.frame(state.frame)));
      if (turn !== this.turn) return;
      if (state.mode === "grid") this.paintGrid(pictures);
      else if (state.mode === "wipe") this.paintWipe(...pictures);
      else if (state.mode === "difference") this.paintBetween(a, b, frames);
      else this.paintOne(pictures[0]);
    } catch (error) {
      if (turn === this.turn) this.say(error.message);
    }
  }

  /** One layer's current frame as a canvas of its own size. */
  async picture(layer) {
    const { state } = this, backdrop = BACKDROPS[state.backdrop];
    const alpha = backdrop && layer.name === "fg" && this.layers.find((other) => other.name === "alpha"
      && other.width === layer.width && other.height === layer.height);
    const [frame, matte] = await Promise.all([layer.frame(state.frame), alpha && alpha.frame(state.frame)]);
    const pixels = new ImageData(layer.width, layer.height);
    const look = { ...state, backdrop, matte: matte && { frame: matte, channels: alpha.channels } };
    paint(pixels.data, layer, frame, look, this.tables);
    return canvasOf(pixels);
  }

  /** Make the screen as large as a picture, and return its context. */
  sized(width, height) {
    if (this.screen.width !== width || this.screen.height !== height) Object.assign(this.screen, { width, height });
    return this.screen.getContext("2d");
  }

  paintOne(picture) {
    this.sized(picture.width, picture.height).drawImage(picture, 0, 0);
  }

  paintWipe(left, right) {
    const { width, height } = left, context = this.sized(width, height), edge = Math.round(this.state.wipe * width);
    context.drawImage(right, 0, 0, width, height);
    context.drawImage(left, 0, 0, edge, height, 0, 0, edge, height);
    context.fillStyle = "#fff";
    context.fillRect(edge - 0.5, 0, Math.max(1, width / 400), height);
  }

  paintBetween(a, b, [frameA, frameB]) {
    if (a.width !== b.width || a.height !== b.height) {
      throw new Error(`${a.name} is ${a.width}x${a.height} and ${b.name} ${b.width}x${b.height}: only layers of one ` +
                      "size have a difference.");
    }
    const pixels = new ImageData(a.width, a.height);
    paintDifference(pixels.data, a, frameA, b, frameB, this.state.gain);
    this.sized(a.width, a.height).putImageData(pixels, 0, 0);
  }

  paintGrid(pictures) {
    const { width, height } = pictures[0], columns = Math.ceil(Math.sqrt(pictures.length));
    const rows = Math.ceil(pictures.length / columns), line = Math.max(14, Math.round(height / 9));
    const context = this.sized(columns * width, rows * (height + line));
    context.fillStyle = "#262626";
    context.fillRect(0, 0, this.screen.width, this.screen.height);
    context.font = `${Math.round(0.75 * line)}px sans-serif`;
    pictures.forEach((picture, i) => {
      const x = (i % columns) * width, y = Math.floor(i / columns) * (height + line);
      context.fillStyle = "#ebebeb";
      context.fillText(this.layers[i].name, x + 4, y + 0.8 * line);
      const scale = Math.min(width / picture.width, height / picture.height); // layers may differ in shape
      const size = [scale * picture.width, scale * picture.height];
      context.drawImage(picture, x + (width - size[0]) / 2, y + line + (height - size[1]) / 2, ...size);
    });
  }

  // ---- mouse and keys

  /** Where on layer A a pointer is, or null; the screen may be stretched. */
  place(event) {
    const layer = this.layers[this.state.a];
    if (!layer || this.state.mode === "grid") return null;
    const box = this.screen.getBoundingClientRect(), { width, height } = this.screen;
    const scale = Math.min(box.width / width, box.height / height); // the picture keeps its shape within the box
    const x = 0.5 + (event.clientX - box.left - box.width / 2) / (scale * width);
    const y = 0.5 + (event.clientY - box.top - box.height / 2) / (scale * height);
    return { x: Math.min(layer.width - 1, Math.max(0, Math.floor(x * layer.width))),
             y: Math.min(layer.height - 1, Math.max(0, Math.floor(y * layer.height))), across: x };
  }

  press(event) {
    this.root.focus({ preventScroll: true });
    event.stopPropagation(); // the graph would take it for a move of the node
    if (this.state.mode !== "wipe") return;
    this.screen.setPointerCapture(event.pointerId);
    this.point(event);
  }

  async point(event) {
    const at = this.place(event);
    if (!at) return;
    if (this.state.mode === "wipe" && event.buttons & 1) this.set({ wipe: Math.min(1, Math.max(0, at.across)) });
    const { state } = this, shown = this.inputs.b.box.hidden ? [state.a] : [state.a, state.b];
    const texts = await Promise.all(shown.map(async (i) => {
      const layer = this.layers[i], frame = await layer.frame(state.frame);
      if (at.x >= layer.width || at.y >= layer.height) return `${layer.name}: outside`;
      const values = pick(layer, frame, at.x, at.y);
      const start = (at.y * layer.width + at.x) * layer.channels;
      const fault = FAULT_NAMES[Math.max(...values.map((_, c) => FAULT[frame[start + c]]))];
      return `${layer.name}: ${values.map(digits).join("  ")}${fault && ` (${fault})`}`;
    })).catch((error) => [error.message]);
    this.say(`frame ${state.frame + 1} of ${this.length}, x ${at.x}, y ${at.y}   ${texts.join("   ")}`);
  }

  say(text) {
    this.readout.textContent = text;
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const { state } = this, step = (by) => ({ frame: (state.frame + by + this.length) % this.length, playing: false });
    const toggle = (mode) => ({ mode: state.mode === mode ? "A" : mode });
    const backdrops = Object.keys(BACKDROPS);
    const changes = {
      " ": () => ({ playing: !state.playing }), ArrowLeft: () => step(-1), ArrowRight: () => step(1),
      Home: () => ({ frame: 0, playing: false }), End: () => ({ frame: this.length - 1, playing: false }),
      w: () => toggle("wipe"), d: () => toggle("difference"), g: () => toggle("grid"),
      q: () => ({ stops: Math.max(-6, state.stops - 0.25) }), e: () => ({ stops: Math.min(6, state.stops + 0.25) }),
      f: () => ({ falseColour: !state.falseColour }), n: () => ({ ball: !state.ball }),
      c: () => ({ backdrop: backdrops[(backdrops.indexOf(state.backdrop) + 1) % backdrops.length] }),
      b: () => ({ a: state.b, b: state.a }),
      Escape: () => ({ mode: "A", stops: 0, falseColour: false, ball: false, backdrop: "none" }),
    }[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    const number = Number(event.key) - 1;
    const change = changes?.() ?? (number >= 0 && number < this.layers.length ? { a: number, mode: this.flat() } : null);
    if (!change) return;
    event.preventDefault();
    event.stopPropagation(); // ComfyUI has shortcuts of its own for most keys
    this.set(change);
  }
}

// ---- small parts

function element(kind, values) {
  return Object.assign(document.createElement(kind), values);
}

function wait(milliseconds) {
  return new Promise((done) => setTimeout(done, Math.max(0, milliseconds)));
}

function canvasOf(pixels) {
  const canvas = element("canvas", { width: pixels.width, height: pixels.height });
  canvas.getContext("2d").putImageData(pixels, 0, 0);
  return canvas;
}

function labelled(text, ...parts) {
  const box = element("label", {});
  box.append(text, ...parts);
  return box;
}

function button(text, key, pressed) {
  const box = element("button", { textContent: text, title: key, onclick: pressed });
  return { box, set label(words) { box.textContent = words; }, set value(_) {} };
}

function slider(text, least, most, step, moved) {
  const bar = element("input", { type: "range", min: least, max: most, step });
  const number = element("output", {});
  bar.addEventListener("input", () => moved(Number(bar.value)));
  return { box: labelled(text, bar, number), range(min, max) { Object.assign(bar, { min, max }); },
           set value(now) { bar.value = now; number.textContent = text === "frame" ? now + 1 : now; } };
}

function choice(text, options, chosen) {
  const list = element("select", {});
  list.addEventListener("change", () => chosen(list.value));
  const fill = (all) => list.replaceChildren(...Object.entries(all).map(([value, name]) => element("option", {
    value, textContent: typeof name === "string" && text !== "over" ? name : value })));
  fill(options);
  return { box: labelled(text, list), fill, set value(now) { list.value = now; } };
}

function tick(text, changed) {
  const box = element("input", { type: "checkbox" });
  box.addEventListener("change", () => changed(box.checked));
  return { box: labelled(text, box), set value(now) { box.checked = now; } };
}

const STYLE = `
.strata-viewer { display: flex; flex-direction: column; gap: 4px; height: 100%; padding: 4px; box-sizing: border-box;
  background: #1e1e1e; color: #ddd; font: 12px sans-serif; outline: none; overflow: hidden; }
.strata-viewer:focus-within { box-shadow: inset 0 0 0 1px #f0b45a; }
.strata-tabs, .strata-controls { display: flex; flex-wrap: wrap; gap: 4px 8px; align-items: center; flex: none; }
.strata-viewer button, .strata-viewer select { background: #333; color: #ddd; border: 1px solid #555; border-radius: 3px;
  font: inherit; padding: 1px 6px; cursor: pointer; }
.strata-viewer button.strata-a { border-color: #f0b45a; color: #f0b45a; }
.strata-viewer button.strata-b { border-style: dashed; border-color: #6ab0f0; }
.strata-screen { flex: 1 1 0; min-height: 0; max-width: 100%; object-fit: contain; align-self: center;
  image-rendering: pixelated; touch-action: none; cursor: crosshair; background: #000; }
.strata-readout { flex: none; min-height: 15px; white-space: pre; overflow: hidden; font-family: monospace; }
.strata-viewer label { display: flex; gap: 4px; align-items: center; }
.strata-viewer label[hidden] { display: none; }
.strata-viewer input[type=range] { width: 90px; }
.strata-viewer output { min-width: 30px; }
.strata-help { cursor: help; border: 1px solid #555; border-radius: 50%; padding: 0 5px; }
`;
