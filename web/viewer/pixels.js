// Half floats as they lie in a viewer file, and what is seen of them. No DOM in here.
//
// A layer's frame is a Uint16Array of H * W * C half floats, C 1, 3 or 4, rows from the top. Colour is sRGB-encoded, 0..1
// shown as it is; data (normals, mattes, codes) has no curve.

/** The value of each of the 65536 half floats. */
export const HALF = halfTable();

function halfTable() {
  const table = new Float32Array(65536);
  for (let bits = 0; bits < 65536; bits++) {
    const sign = bits & 0x8000 ? -1 : 1, exponent = (bits >> 10) & 31, fraction = bits & 1023;
    table[bits] = sign * (exponent === 0 ? fraction * 2 ** -24
      : exponent === 31 ? (fraction ? NaN : Infinity) : (1 + fraction / 1024) * 2 ** (exponent - 15));
  }
  return table;
}

/** sRGB-encoded to linear light, odd, unclamped: IEC 61966-2-1. */
export function toLinear(x) {
  const size = Math.abs(x);
  return size <= 0.04045 ? x / 12.92 : Math.sign(x) * ((size + 0.055) / 1.055) ** 2.4;
}

/** Linear light to sRGB-encoded; the inverse of `toLinear`. */
export function toEncoded(x) {
  const size = Math.abs(x);
  return size <= 0.0031308 ? x * 12.92 : Math.sign(x) * (1.055 * size ** (1 / 2.4) - 0.055);
}

/** What the screen shows, 0..255, for each half float: `stops` of exposure in linear light where `colour`. */
export function displayTable(stops, colour) {
  const table = new Uint8ClampedArray(65536), gain = 2 ** stops;
  for (let bits = 0; bits < 65536; bits++) {
    const value = HALF[bits];
    // A clamped array turns NaN to 0 and rounds.
    table[bits] = 255 * (colour && stops ? toEncoded(gain * toLinear(value)) : value);
  }
  return table;
}

/** Why a value is no honest 0..1, as a number of `FALSE_COLOURS`, for each half float; 0 where it is one. */
export const FAULT = Uint8Array.from(HALF, (value) => Number.isNaN(value) ? 1 : !Number.isFinite(value) ? 2
  : value > 1 ? 3 : value < 0 ? 4 : 0);

/** NaN, infinite, above 1, below 0: the colour each is painted in, and its name. */
export const FALSE_COLOURS = [null, [255, 0, 255], [0, 255, 255], [255, 60, 30], [40, 90, 255]];
export const FAULT_NAMES = ["", "NaN", "infinite", "above 1", "below 0"];

const CHECKER = [102, 153], CHECK = 8; // display values, pixels
const LIGHT = normalise([-0.45, 0.55, 0.7]); // of the matte ball: from the upper left

function normalise([x, y, z]) {
  const length = Math.hypot(x, y, z) || 1;
  return [x / length, y / length, z / length];
}

/** How a matte ball in the same light would look with this normal, 0..255. Components as stored, 0.5 n + 0.5. */
export function ballShade(r, g, b) {
  const [x, y, z] = normalise([2 * r - 1, 2 * g - 1, 2 * b - 1]);
  const light = Math.max(0, x * LIGHT[0] + y * LIGHT[1] + z * LIGHT[2]);
  return 255 * toEncoded(0.04 + 0.8 * light);
}

/**
 * One layer's frame as screen pixels, RGBA bytes into `out`.
 *
 * layer: {width, height, channels, kind}; kind is "colour", "normal", "mask" or "data".
 * look: {stops, falseColour, ball, backdrop, matte}: `backdrop` is null, "checker" or [r, g, b] in 0..255, and `matte`
 * the frame of an alpha, [H * W * channels], that lays the layer over it.
 */
export function paint(out, layer, frame, look, tables) {
  const { width, height, channels } = layer, count = width * height;
  const table = layer.kind === "colour" ? tables.colour(look.stops) : tables.data();
  const ball = look.ball && layer.kind === "normal";
  for (let i = 0, at = 0, to = 0; i < count; i++, at += channels, to += 4) {
    const r = frame[at], g = channels < 3 ? r : frame[at + 1], b = channels < 3 ? r : frame[at + 2];
    const fault = look.falseColour ? FAULT[r] || FAULT[g] || FAULT[b] : 0;
    if (fault) {
      [out[to], out[to + 1], out[to + 2]] = FALSE_COLOURS[fault];
    } else if (ball) {
      out[to] = out[to + 1] = out[to + 2] = ballShade(HALF[r], HALF[g], HALF[b]);
    } else {
      out[to] = table[r];
      out[to + 1] = table[g];
      out[to + 2] = table[b];
    }
    out[to + 3] = 255;
  }
  const alpha = look.backdrop && (look.matte ?? (channels === 4 ? { frame, channels, offset: 3 } : null));
  if (alpha) layOver(out, width, height, alpha, look.backdrop);
}

/** What is painted, straight, over a checkerboard or a colour, in linear light. */
function layOver(out, width, height, alpha, backdrop) {
  const linear = LINEAR_OF_BYTE, offset = alpha.offset ?? 0;
  for (let y = 0, i = 0; y < height; y++) {
    for (let x = 0; x < width; x++, i++) {
      const a = Math.min(1, Math.max(0, HALF[alpha.frame[i * alpha.channels + offset]] || 0));
      const check = CHECKER[((x / CHECK) ^ (y / CHECK)) & 1];
      for (let c = 0; c < 3; c++) {
        const behind = backdrop === "checker" ? check : backdrop[c];
        out[4 * i + c] = 255 * toEncoded(a * linear[out[4 * i + c]] + (1 - a) * linear[behind]);
      }
    }
  }
}

const LINEAR_OF_BYTE = Float32Array.from({ length: 256 }, (_, byte) => toLinear(byte / 255));

/** |a - b| x gain of two frames of one size, as stored, as screen pixels into `out`. */
export function paintDifference(out, a, frameA, b, frameB, gain) {
  const count = a.width * a.height;
  for (let i = 0, to = 0; i < count; i++, to += 4) {
    for (let c = 0; c < 3; c++) {
      const one = HALF[frameA[i * a.channels + (a.channels < 3 ? 0 : c)]];
      const other = HALF[frameB[i * b.channels + (b.channels < 3 ? 0 : c)]];
      out[to + c] = 255 * gain * Math.abs(one - other);
    }
    out[to + 3] = 255;
  }
}

/** Display tables, made once each. */
export class Tables {
  #known = new Map();

  colour(stops) {
    return this.#get(`colour ${stops}`, () => displayTable(stops, true));
  }

  data() {
    return this.#get("data", () => displayTable(0, false));
  }

  #get(key, make) {
    if (!this.#known.has(key)) {
      if (this.#known.size > 8) this.#known.clear(); // an exposure slider passes through many
      this.#known.set(key, make());
    }
    return this.#known.get(key);
  }
}

/** The values of a pixel as a file would hold them, to the last digit that a half float carries. */
export function pick(layer, frame, x, y) {
  const at = (y * layer.width + x) * layer.channels;
  return Array.from({ length: layer.channels }, (_, c) => HALF[frame[at + c]]);
}

/** A picked value in as many digits as tell half floats apart. */
export function digits(value) {
  return Number.isFinite(value) ? String(Number(value.toPrecision(5))) : String(value);
}
