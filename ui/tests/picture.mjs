// Pictures and their references: small PNG files of few colours, compared so that only what a person sees counts.

import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { crc32, deflateSync } from 'node:zlib';
import pixelmatch from 'pixelmatch';
import { PNG } from 'pngjs';

/** How much may differ. `threshold` is the distance of two colours that counts, 0 to 1; `part` the share of pixels. */
export const SAME = { threshold: 0.1, part: 0.00005 };

/** The same where Chromium or the fonts are others than those of the references. */
export const OTHER = { threshold: 0.25, part: 0.02 };

/** Reads, compares and writes the references of a folder. */
export class References {
  #seen = new Set();

  /** `results` takes what a person needs to see after a difference; `made` is what draws here, noted beside the references. */
  constructor({ folder, results, made, update }) {
    Object.assign(this, { folder, results, update });
    const note = join(folder, 'made-with.json');
    this.made = existsSync(note) ? JSON.parse(readFileSync(note, 'utf8')) : undefined;
    if (update) {
      mkdirSync(folder, { recursive: true });
      writeFileSync(note, `${JSON.stringify(made, undefined, 2)}\n`);
      this.made = made;
    }
    this.other = JSON.stringify(this.made) !== JSON.stringify(made);
    this.tolerance = this.other ? OTHER : SAME;
    rmSync(results, { recursive: true, force: true });
  }

  /**
   * Compares a screenshot with its reference, or writes the reference. Gives nothing when they are alike, else what differs and
   * where to look.
   */
  differs(name, bytes) {
    this.#seen.add(`${name}.png`);
    const file = join(this.folder, `${name}.png`);
    const actual = PNG.sync.read(bytes);
    const known = existsSync(file) ? PNG.sync.read(readFileSync(file)) : undefined;
    const diff = new PNG({ width: actual.width, height: actual.height });
    let count;
    if (known?.width === actual.width && known.height === actual.height) {
      count = pixelmatch(known.data, actual.data, diff.data, actual.width, actual.height, { threshold: this.tolerance.threshold });
      if (count <= this.tolerance.part * actual.width * actual.height) return undefined;
    }
    if (this.update) {
      const bytes = small(actual);
      const lost = pixelmatch(PNG.sync.read(bytes).data, actual.data, undefined, actual.width, actual.height, { threshold: SAME.threshold });
      writeFileSync(file, bytes);
      return lost > 0 ? `${file} does not hold the picture: ${lost} pixels` : undefined;
    }
    mkdirSync(this.results, { recursive: true });
    const to = (what) => join(this.results, `${name}.${what}.png`);
    writeFileSync(to('actual'), bytes);
    if (!known) return `there is no reference ${file}; seen: ${to('actual')}`;
    if (count === undefined) return `${known.width}×${known.height} expected, ${actual.width}×${actual.height} seen: ${to('actual')}`;
    writeFileSync(to('diff'), PNG.sync.write(diff));
    return `${count} pixels differ from ${file}: ${to('actual')}, ${to('diff')}`;
  }

  /** References that nothing was compared with; an update takes them away. */
  unused() {
    const rest = readdirSync(this.folder).filter((file) => file.endsWith('.png') && !this.#seen.has(file));
    if (!this.update) return rest;
    for (const file of rest) rmSync(join(this.folder, file));
    return [];
  }
}

/** The most frequent colours of a picture that a reference keeps as they are, and how far off the others may come out. */
const COMMON = 32;
const NEAR = 24 ** 2;

/** A PNG with a palette: the most frequent colours, and of the others as many as it takes that each is near to one. */
export function small({ width, height, data }) {
  const counts = new Map();
  const colours = new Uint32Array(width * height);
  for (let i = 0; i < colours.length; i++) {
    const colour = (data[4 * i] << 16) | (data[4 * i + 1] << 8) | data[4 * i + 2];
    colours[i] = colour;
    counts.set(colour, (counts.get(colour) ?? 0) + 1);
  }
  const distance = (a, b) => [16, 8, 0].reduce((sum, shift) => sum + (((a >> shift) & 255) - ((b >> shift) & 255)) ** 2, 0);
  const kept = [];
  const places = new Map();
  for (const [colour] of [...counts].sort((a, b) => b[1] - a[1])) {
    const near = kept.reduce((least, other, place) => (distance(colour, other) < distance(colour, kept[least]) ? place : least), 0);
    const own = kept.length < COMMON || (kept.length < 256 && distance(colour, kept[near]) > NEAR);
    places.set(colour, own ? kept.push(colour) - 1 : near);
  }
  const rows = Buffer.alloc((width + 1) * height);
  for (let y = 0; y < height; y++) for (let x = 0; x < width; x++) rows[y * (width + 1) + x + 1] = places.get(colours[y * width + x]);
  const header = Buffer.alloc(13);
  header.writeUInt32BE(width, 0);
  header.writeUInt32BE(height, 4);
  // Eight bits a pixel, by palette.
  header.set([8, 3, 0, 0, 0], 8);
  const palette = Buffer.from(kept.flatMap((colour) => [colour >> 16, (colour >> 8) & 255, colour & 255]));
  const signature = Buffer.from([0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a]);
  return Buffer.concat([signature, chunk('IHDR', header), chunk('PLTE', palette), chunk('IDAT', deflateSync(rows, { level: 9 })), chunk('IEND', Buffer.alloc(0))]);
}

function chunk(type, data) {
  const typed = Buffer.concat([Buffer.from(type, 'latin1'), data]);
  const out = Buffer.alloc(8 + typed.length);
  out.writeUInt32BE(data.length, 0);
  typed.copy(out, 4);
  out.writeUInt32BE(crc32(typed), 4 + typed.length);
  return out;
}
