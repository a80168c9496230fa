// Chromium in front of the development host: started the same way everywhere, watched, and held still for a picture.

import { createHash } from 'node:crypto';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { chromium } from 'playwright-core';

const AXE = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');
const TAGS = ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'best-practice'];

/** The fonts of the pictures, of Debian's package fonts-dejavu-core; the page sees no others. */
const FONTS = ['DejaVuSans.ttf', 'DejaVuSans-Bold.ttf', 'DejaVuSansMono.ttf', 'DejaVuSansMono-Bold.ttf'];
const FONT_FOLDER = '/usr/share/fonts/truetype/dejavu';

const FLAGS = [
  '--no-sandbox',
  '--disable-gpu',
  '--disable-dev-shm-usage',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
  '--font-render-hinting=none',
];

/** Size of the window, in pixels. */
export const WINDOW = { width: 1200, height: 800 };

/** Starts Chromium with a profile of its own; `folder` takes its font list. Gives it, and what it draws with. */
export async function launch(folder) {
  const missing = ['/usr/bin/chromium', ...FONTS.map((font) => join(FONT_FOLDER, font))].filter((file) => !existsSync(file));
  if (missing.length > 0) throw new Error(`missing: ${missing.join(', ')}; install Debian's packages chromium and fonts-dejavu-core`);
  const list = join(folder, 'fonts.conf');
  writeFileSync(list, fontList(join(folder, 'fonts')));
  const browser = await chromium.launch({
    executablePath: '/usr/bin/chromium',
    args: FLAGS,
    // The tests end all that they started themselves.
    handleSIGINT: false,
    handleSIGTERM: false,
    handleSIGHUP: false,
    env: { ...process.env, FONTCONFIG_FILE: list, DBUS_SESSION_BUS_ADDRESS: 'disabled:', LANG: 'C.UTF-8' },
  });
  const fonts = createHash('sha256');
  for (const font of FONTS) fonts.update(readFileSync(join(FONT_FOLDER, font)));
  return { browser, made: { chromium: Number(browser.version().split('.')[0]), fonts: fonts.digest('hex').slice(0, 16) } };
}

function fontList(cache) {
  const accepted = FONTS.map((font) => `<glob>${join(FONT_FOLDER, font)}</glob>`).join('');
  const is = (generic, family) => `<alias binding="same"><family>${generic}</family><prefer><family>${family}</family></prefer></alias>`;
  return `<?xml version="1.0"?><!DOCTYPE fontconfig SYSTEM "fonts.dtd"><fontconfig><dir>${FONT_FOLDER}</dir><cachedir>${cache}</cachedir>
<selectfont><rejectfont><glob>*</glob></rejectfont><acceptfont>${accepted}</acceptfont></selectfont>
${is('sans-serif', 'DejaVu Sans')}${is('system-ui', 'DejaVu Sans')}${is('monospace', 'DejaVu Sans Mono')}</fontconfig>`;
}

/** A page of the UI, with a record of what went wrong and of all that came to it. */
export class View {
  /** Errors that are part of what is tested: patterns of console messages. */
  expected = [];
  /** What went wrong since {@link View.errors} was last asked. */
  #wrong = [];
  /** All that was answered to the page, and all events. */
  received = [];
  #held = [];
  #intercepted = [];
  #theme = 'light';

  /** Opens the page; `scale` is the zoom that a person would choose. */
  static async open(browser, home, { width = WINDOW.width, height = WINDOW.height, scale = 1 } = {}) {
    const view = new View();
    view.home = home;
    view.context = await browser.newContext({
      viewport: { width: width / scale, height: height / scale },
      deviceScaleFactor: scale,
      locale: 'en-GB',
      timezoneId: 'UTC',
      reducedMotion: 'reduce',
      colorScheme: 'light',
    });
    const page = (view.page = await view.context.newPage());
    page.setDefaultTimeout(10_000);
    page.on('pageerror', (error) => view.#wrong.push(`page: ${error.stack ?? error}`));
    page.on('console', (message) => {
      if (message.type() !== 'error' && message.type() !== 'warning') return;
      const text = `${message.text()} (${message.location().url})`;
      if (!view.expected.some((pattern) => pattern.test(text))) view.#wrong.push(`console: ${text}`);
    });
    page.on('response', (response) => {
      const told = response.headers()['content-type']?.startsWith('text/event-stream')
        ? undefined
        : response.text().catch(() => '');
      if (told) view.received.push(told);
    });
    const session = await view.context.newCDPSession(page);
    await session.send('Network.enable');
    session.on('Network.eventSourceMessageReceived', ({ data }) => view.received.push(data));
    // What else is installed here is no part of the pictures.
    await page.route('**/command/agents', async (route) => {
      const answer = await route.fetch();
      const found = await answer.json();
      await route.fulfill({ response: answer, json: Array.isArray(found) ? found.filter((agent) => agent.path.startsWith(home.programs)) : found });
    });
    await page.goto(home.url);
    return view;
  }

  /** Errors since the last time. */
  errors() {
    return this.#wrong.splice(0);
  }

  /** All that the page was told so far. */
  async told() {
    return (await Promise.all(this.received)).join('\n');
  }

  /** Shows a screen anew, as its address does; a reload takes everything that an earlier picture has painted over. */
  async show(hash, { fresh = false } = {}) {
    if (fresh) await this.page.goto('about:blank');
    await this.page.goto(`${this.home.origin}/#/${hash}`);
  }

  /** Shows the card of a request. */
  async card(id) {
    await this.page.goto('about:blank');
    await this.page.goto(`${this.home.origin}/card.html#${id}`);
  }

  /** Answers commands with this fault until {@link View.clear}. */
  async fail(names, fault) {
    await this.#intercept(names, (route) => route.fulfill({ status: 503, json: fault }));
    this.expected.push(/Failed to load resource/);
  }

  /** Leaves commands without an answer until {@link View.clear}. */
  async hold(names) {
    await this.#intercept(names, (route) => void this.#held.push(route));
  }

  async #intercept(names, act) {
    for (const name of names) {
      const pattern = `**/command/${name}`;
      await this.page.route(pattern, act);
      this.#intercepted.push([pattern, act]);
    }
  }

  /** Leaves the page, and lets commands through again. */
  async clear() {
    await this.page.goto('about:blank');
    for (const [pattern, act] of this.#intercepted.splice(0)) await this.page.unroute(pattern, act);
    // Most of them went with the page.
    for (const route of this.#held.splice(0)) await route.abort().catch(() => undefined);
    this.expected = [];
  }

  /** Shows the colours of a theme. */
  async theme(colorScheme) {
    if (colorScheme === this.#theme) return;
    this.#theme = colorScheme;
    await this.page.emulateMedia({ colorScheme });
    // Colours change by transitions, which take a frame even where motion is reduced.
    await this.page.evaluate(async () => {
      const frame = () => new Promise((resolve) => requestAnimationFrame(resolve));
      await frame();
      for (const one of document.getAnimations()) if (one.effect?.getComputedTiming().iterations !== Infinity) one.finish();
      await frame();
    });
  }

  /** What axe finds. `contrast` looks at the colours alone: all else is the same in both themes. */
  async axe({ contrast = false } = {}) {
    if (!(await this.page.evaluate(() => 'axe' in window))) await this.page.evaluate(AXE);
    const options = { runOnly: contrast ? { type: 'rule', values: ['color-contrast'] } : { type: 'tag', values: TAGS }, resultTypes: ['violations'] };
    const { violations } = await this.page.evaluate((chosen) => globalThis.axe.run(document, chosen), options);
    return violations.map(({ id, help, nodes }) => `${id}: ${help}: ${nodes.slice(0, 3).map((node) => `${node.target.join(' ')} (${node.any[0]?.message ?? ''})`).join('; ')}`);
  }

  /** Waits until nothing on the page has changed for a while. */
  quiet() {
    return this.page.evaluate(
      () =>
        new Promise((resolve) => {
          let timer = setTimeout(resolve, 150);
          const observer = new MutationObserver(() => {
            clearTimeout(timer);
            timer = setTimeout(resolve, 150);
          });
          observer.observe(document.body, { subtree: true, childList: true, attributes: true, characterData: true });
        }),
    );
  }

  /** Stops the clocks of the page, and puts fixed words in the place of what is never twice the same. */
  still() {
    return this.page.evaluate(hold, { root: this.home.root });
  }

  /** Lets the clocks of the page run again. What was painted over stays so until it is shown anew. */
  release() {
    return this.page.evaluate(() => {
      Reflect.deleteProperty(document, 'visibilityState');
      document.dispatchEvent(new Event('visibilitychange'));
    });
  }

  /** A picture of the window. */
  picture() {
    return this.page.screenshot({ animations: 'disabled', caret: 'hide' });
  }

  /** What a person would have to scroll sideways for, and controls that lie on each other. */
  crowded() {
    return this.page.evaluate(measure);
  }
}

/** Runs in the page. A hidden page ticks not, and reads nothing anew. */
async function hold({ root }) {
  await document.fonts.ready;
  if (document.visibilityState === 'visible') {
    Object.defineProperty(document, 'visibilityState', { get: () => 'hidden', configurable: true });
    document.dispatchEvent(new Event('visibilitychange'));
  }
  // What Svelte changes of its own accord, it changes in a microtask or two.
  await new Promise((resolve) => setTimeout(resolve, 20));
  const month = 'Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sept?|Oct|Nov|Dec';
  const fixed = [
    [/\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z/g, '2026-01-01T12:00:00Z'],
    [new RegExp(`((Mon|Tue|Wed|Thu|Fri|Sat|Sun), )?\\b\\d{1,2} (${month})( \\d{4},?)?`, 'g'), '1 Jan'],
    [/\b\d\d:\d\d:\d\d\b/g, '12:00:00'],
    [/\b\d\d:\d\d\b/g, '12:00'],
    [/\b(tomorrow|yesterday) 12:00\b/g, '12:00'],
    [/\banchor (fresh|.* old)/g, 'anchor 5 min old'],
    [/\b(\d+ d( \d+ h)?|\d+ h( \d+ min)?|\d+ min( \d\d s)?|\d+ s)\b/g, '5 min'],
    [/just now/g, '5 min ago'],
    [/\b\d+ ms\b/g, '12 ms'],
    [/"ms":\d+/g, '"ms":12'],
    [/"number":\d+/g, '"number":1'],
    [/"port":\d+/g, '"port":1'],
    [/\bpid \d+/g, 'pid 1000'],
    [/"pid":\d+/g, '"pid":1000'],
    [/\b[\d,]+ entries/g, '60 entries'],
    [/\b(Entry|entry) [\d,]+/g, '$1 60'],
    [/"seq":\d+/g, '"seq":60'],
    [/\d+\.\d MB/g, '10.0 MB'],
    [/^\d+\.\d+\.\d+$|(?<=version )\d+\.\d+\.\d+/g, '0.0.0'],
    [/"version":"[^"]*"/g, '"version":"0.0.0"'],
    [/127\.0\.0\.1:\d+/g, '127.0.0.1:1'],
    [/\b(fdrl|svac|wrkspc|req)_[0-9a-f]+/g, '$1_0'],
    [/\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b/g, '00000000-0000-0000-0000-000000000000'],
    [/\b[0-9a-f]{8}…[0-9a-f]{4}\b/g, '00000000…0000'],
    [/\b[0-9a-f]{16,}\b/g, (hex) => '0'.repeat(hex.length)],
  ];
  const words = (text) => fixed.reduce((said, [pattern, word]) => said.replace(pattern, word), text.replaceAll(root, '/tmp/home'));
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    const said = words(node.data);
    if (said !== node.data) node.data = said;
  }
  for (const input of document.querySelectorAll('input:not([type="checkbox"], [type="radio"])')) {
    if (input.type === 'datetime-local') input.style.visibility = 'hidden';
    else if (input.value) input.value = words(input.value);
  }
  for (const chain of document.querySelectorAll('.chain')) chain.textContent = 'keyward 1000 ‹ sh 1000';
  for (const cell of document.querySelectorAll('.entry .seq')) cell.textContent = '60';
  for (const term of document.querySelectorAll('dt')) if (term.textContent === 'pid') term.nextElementSibling.textContent = '1000';
  if (!document.getElementById('held-still')) {
    const style = document.createElement('style');
    style.id = 'held-still';
    // The life that is left, and the bars over time.
    style.textContent = `.life .fill { transform: scaleX(.6) !important } .life .renew { inset-inline-start: 20% !important }
      .chart > * { visibility: hidden !important } * { scrollbar-width: none !important }`;
    document.head.append(style);
  }
  await new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve)));
}

/** Runs in the page. */
function measure() {
  const found = [];
  const wide = [document.documentElement, document.querySelector('.scroll')].filter((one) => one && one.scrollWidth > one.clientWidth + 1);
  for (const one of wide) found.push(`${one.className || one.tagName} is ${one.scrollWidth} px wide in ${one.clientWidth}`);
  const inside = (element) => {
    let { left, top, right, bottom } = element.getBoundingClientRect();
    for (let at = element.parentElement; at; at = at.parentElement) {
      const { overflowX, overflowY } = getComputedStyle(at);
      if (overflowX === 'visible' && overflowY === 'visible') continue;
      const box = at.getBoundingClientRect();
      [left, top, right, bottom] = [Math.max(left, box.left), Math.max(top, box.top), Math.min(right, box.right), Math.min(bottom, box.bottom)];
    }
    return { left, top, right: Math.min(right, innerWidth), bottom: Math.min(bottom, innerHeight) };
  };
  const controls = [...document.querySelectorAll('a[href], button, input, select, summary, h1, h2, h3, p, dd, dt, th, .life')]
    .filter((element) => element.checkVisibility({ visibilityProperty: true }) && !element.closest('.sr-only, .skip, .label'))
    .map((element) => ({ element, box: inside(element) }))
    .filter(({ box }) => box.right - box.left > 1 && box.bottom - box.top > 1);
  controls.forEach((one, i) => {
    for (const other of controls.slice(i + 1)) {
      if (one.element.contains(other.element) || other.element.contains(one.element)) continue;
      const across = Math.min(one.box.right, other.box.right) - Math.max(one.box.left, other.box.left);
      const down = Math.min(one.box.bottom, other.box.bottom) - Math.max(one.box.top, other.box.top);
      const name = ({ element }) => `${element.tagName.toLowerCase()} "${element.textContent.trim().slice(0, 30)}"`;
      if (across > 2 && down > 2) found.push(`${name(one)} lies on ${name(other)}`);
    }
  });
  return found;
}
