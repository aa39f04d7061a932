// Frames of a layer from the server, as they are asked for: a viewer file is all frames one after the other, and a range
// of its bytes is one of them.

const KEPT = 256 << 20; // bytes of frames held for all layers of a viewer

/** A layer of a shot. `about` is what Strata Layer Viewer says of it: name, kind, frames, height, width, channels, and
 * filename, subfolder and type as ComfyUI's /view takes them. */
export class Layer {
  constructor(about, api, cache) {
    Object.assign(this, about);
    this.api = api;
    this.cache = cache;
    this.bytes = 2 * this.height * this.width * this.channels;
  }

  /** Frame i, clamped to those there are, as a Uint16Array of half floats; rejects when the file is gone. */
  frame(i) {
    const number = Math.min(Math.max(i, 0), this.frames - 1);
    return this.cache.get(`${this.filename} ${number}`, this.bytes, () => this.#fetch(number));
  }

  async #fetch(number) {
    const where = new URLSearchParams({ filename: this.filename, subfolder: this.subfolder, type: this.type });
    const from = number * this.bytes;
    const answer = await this.api.fetchApi(`/view?${where}`, {
      headers: { Range: `bytes=${from}-${from + this.bytes - 1}` },
    });
    if (!answer.ok) throw new Error(`Frame ${number} of ${this.name} is gone: queue the graph again.`);
    const bytes = await answer.arrayBuffer();
    // A server between that ignores ranges sends the whole file.
    return new Uint16Array(bytes.byteLength > this.bytes ? bytes.slice(from, from + this.bytes) : bytes);
  }
}

/** Promises by key; the least lately used go when they hold too many bytes. */
export class Cache {
  #entries = new Map();
  #held = 0;

  get(key, bytes, make) {
    const entry = this.#entries.get(key) ?? { promise: make(), bytes };
    if (this.#entries.delete(key)) this.#held -= entry.bytes;
    else entry.promise.catch(() => this.#drop(key)); // what failed is asked for again
    this.#entries.set(key, entry);
    this.#held += entry.bytes;
    for (const oldest of this.#entries.keys()) {
      if (this.#held <= KEPT || oldest === key) break;
      this.#drop(oldest);
    }
    return entry.promise;
  }

  #drop(key) {
    this.#held -= this.#entries.get(key)?.bytes ?? 0;
    this.#entries.delete(key);
  }
}
