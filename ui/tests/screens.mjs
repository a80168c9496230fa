// The UI in headless Chromium against a real broker: every screen in every state and both themes, with axe and with pictures
// that are compared with references; and what a person does with it. Run by `npm run screens`.

import assert from 'node:assert/strict';
import { readFile, rm } from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import { after, before, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { launch, View } from './browser.mjs';
import { forbidden, Home, PASSPHRASE, SECRETS } from './home.mjs';
import { References } from './picture.mjs';

const HERE = dirname(fileURLToPath(import.meta.url));
const { values: given } = parseArgs({
  options: { update: { type: 'boolean', default: false }, bin: { type: 'string' }, dist: { type: 'string' } },
});
const BIN = resolve(given.bin ?? join(HERE, '../../target/debug'));
const DIST = resolve(given.dist ?? join(HERE, '../dist-devhost'));

let home;
let browser;
let view;
let page;
let references;
/** Every page that was open. */
const views = [];
let sandbox;

before(async () => {
  home = await Home.open(BIN, DIST);
  const launched = await launch(home.root);
  browser = launched.browser;
  references = new References({
    folder: join(HERE, 'pictures'),
    results: join(HERE, '../test-results'),
    made: launched.made,
    update: given.update,
  });
  if (references.other) {
    console.log(
      `The references were made with ${JSON.stringify(references.made)}, here is ${JSON.stringify(launched.made)}: ` +
        `compared with the larger tolerance ${JSON.stringify(references.tolerance)}. \`npm run screens -- --update\` makes them anew.`,
    );
  }
  view = await View.open(browser, home);
  views.push(view);
  page = view.page;
});

after(close);
// Runs outlive those who started them.
for (const signal of ['SIGINT', 'SIGTERM']) process.once(signal, () => void close().finally(() => process.exit(1)));

async function close() {
  await browser?.close();
  await home?.close();
}

/** Time for one deed of a person. */
const DEED = { timeout: 60_000 };

// However much is broken, it ends.
setTimeout(() => {
  console.log('not done within 7 minutes');
  void close().finally(() => process.exit(1));
}, 420_000).unref();

/** Waits until it is true. */
async function until(what, is, seconds = 20) {
  const end = performance.now() + 1000 * seconds;
  for (;;) {
    const now = await is();
    if (now) return now;
    assert.ok(performance.now() < end, `${what}: not within ${seconds} s`);
    await new Promise((go) => setTimeout(go, 25));
  }
}

/** Looks at what the page shows in both themes: errors, axe, crowding, and the pictures of this name. */
async function look(name, on = view, { tight = false } = {}) {
  const wrong = [];
  await on.theme('light');
  await on.quiet();
  wrong.push(...(await on.axe()));
  if (tight) wrong.push(...(await on.crowded()));
  await on.still();
  for (const theme of ['light', 'dark']) {
    await on.theme(theme);
    if (theme === 'dark') wrong.push(...(await on.axe({ contrast: true })).map((found) => `dark: ${found}`));
    wrong.push(references.differs(`${name}-${theme}`, await on.picture()));
  }
  await on.release();
  wrong.push(...on.errors());
  const said = wrong.filter(Boolean);
  if (said.length > 0) throw new Error(`${name}:\n${said.join('\n')}`);
}

const button = (name, on = page) => on.getByRole('button', { name, exact: true });
const heading = (name) => page.getByRole('heading', { name, exact: true });
const says = (text) => page.getByText(text).first();

/** Shows each screen of the list, waits for what it shows, and looks at it as `screen-state`. */
async function each(t, state, list) {
  for (const [screen, ready, { hash = screen.split('+')[0], act } = {}] of list) {
    await t.test(`${screen}, ${state}`, async () => {
      await view.show(hash, { fresh: true });
      await ready().waitFor();
      await act?.();
      await look(`${screen.replace('+', '-')}-${state}`);
    });
  }
}

test('first run', async (t) => {
  await each(t, 'absent', [
    ['welcome', () => button('Make the vault…')],
    ['settings', () => says('There is no vault yet.')],
  ]);
  await t.test('the vault is made in native prompts', async () => {
    await view.show('now');
    await home.prompts({ text: PASSPHRASE }, 'confirm');
    await button('Make the vault…').click();
    await says('Vault open').waitFor();
    const { asked, left } = await home.asked();
    assert.deepEqual([asked.map(({ prompt }) => prompt), left], [['new_passphrase', 'recovery_key'], 0]);
    // What these tests start from here on is started by a person.
    await home.keyward(['unlock', '--passphrase-stdin'], { input: PASSPHRASE });
  });
});

test('an empty vault', async (t) => {
  await each(t, 'empty', [
    ['welcome', () => heading('Agents')],
    ['now', () => heading('Nothing is running')],
    ['runs', () => heading('No run yet')],
    ['apps', () => heading('No app has been given anything yet')],
    ['audit', () => says('The log begins here.')],
    ['approvals', () => heading('Nothing waits for you')],
    ['profiles', () => heading('No profile yet')],
    ['grants', () => heading('Nothing is granted')],
    ['launchers', () => heading('No launcher yet')],
    ['settings', () => heading('About')],
  ]);
});


test('a profile by the editor, tested against the issuer', async (t) => {
  sandbox = await home.sandbox();
  await t.test('tiles, then the form of a federation', async (t) => {
    await view.show('profiles?add=1', { fresh: true });
    await heading('What is the credential for?').waitFor();
    await t.test('profiles-tiles', () => look('profiles-tiles'));
    await view.show('profiles?add=1', { fresh: true });
    await page.getByRole('button', { name: /^Anthropic/ }).click();
    await page.getByLabel('Name', { exact: true }).fill('claude-api');
    view.expected.push(/Failed to load resource/);
    await button('Save').click();
    await page.getByRole('alert').waitFor();
    await t.test('profiles-incomplete', () => look('profiles-incomplete'));
    view.expected = [];
    await page.getByLabel(/^Federation rule/).fill(sandbox.federation_rule_id);
    await page.getByLabel(/^Organization/).fill(sandbox.organization_id);
    await page.getByLabel(/^Service account/).fill(sandbox.service_account_id);
    await page.getByLabel(/^Workspace/).fill(sandbox.workspace_id);
    await page.getByRole('radio', { name: /^file /i }).first().check();
    await page.getByLabel('Path', { exact: true }).fill(sandbox.identity_token_file);
    await page.getByText(/^Variables, limits/).click();
    await page.getByLabel(/^Base URL/).fill(sandbox.base_url);
    await t.test('profiles-form', () => look('profiles-form'));
  });
  await t.test('a real exchange', async (t) => {
    await button('Save').click();
    await heading('claude-api').waitFor();
    await button('Test').click();
    await says('It works').waitFor();
    await t.test('profiles-tested', () => look('profiles-tested'));
    const stats = await fetch(`${sandbox.base_url}/sandbox/stats`, { headers: { 'x-keyward-sandbox': '1' } });
    assert.equal((await stats.json()).exchanges, 1);
  });
  await t.test('a refused one, with the reason', async (t) => {
    await fault('token', '401');
    view.expected.push(/Failed to load resource/);
    await view.show('profiles?about=claude-api', { fresh: true });
    await button('Test').click();
    await says('What helps:').waitFor();
    await t.test('profiles-refused', () => look('profiles-refused'));
    await fault();
    view.expected = [];
    await button('Retry').click();
    await says('It works').waitFor();
  });
  await t.test('a secret is typed in a native prompt', async () => {
    await view.show('profiles?add=1', { fresh: true });
    await page.getByRole('button', { name: /^GitHub/ }).click();
    await page.getByLabel('Name', { exact: true }).fill('github');
    await home.prompts({ text: SECRETS.github });
    await button('Set secret…').click();
    await until('the secret', async () => (await home.json('secret', 'list')).some(({ name }) => name === 'github'));
    await button('Save').click();
    await heading('github').waitFor();
  });
});

/** Makes the issuer fail, or serve again. */
async function fault(at, kind) {
  const said = await fetch(`${sandbox.base_url}/sandbox/${at ? 'fault' : 'clear'}`, {
    method: 'POST',
    headers: { 'x-keyward-sandbox': '1', 'content-type': 'application/json' },
    body: JSON.stringify(at ? { at, fault: kind, times: 0 } : {}),
  });
  assert.ok(said.ok, await said.text());
}

/** What stands for an agent does through the gateway: a call that is answered so late that its end has an entry of its own, one that
 * is not on the list of the API, and then nothing until it is ended. */
const CALLS = `
call() { curl -s -m 20 -H "authorization: Bearer $ANTHROPIC_AUTH_TOKEN" -H 'anthropic-version: 2023-06-01' -H 'content-type: application/json' "$@" > answer; }
call -d '{"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "wait 1"}]}' "$ANTHROPIC_BASE_URL/v1/messages"
call "$ANTHROPIC_BASE_URL/v1/organizations/api_keys"
mkfifo ends && read line < ends`;

/** Fills the vault: profiles, launchers, past runs of several programs, and runs that live. */
async function furnish() {
  await home.keyward(['secret', 'set', 'pg-prod'], { input: SECRETS['pg-prod'] });
  await home.profile('pg-prod', '[issuer]\nkind = "static"\nsecret = "secret:pg-prod"\n[delivery]\nmode = "env"\nenv = { DATABASE_URL = "token" }\n[limits]\nmax_ttl = "8h"\n');
  for (const name of ['shop', 'web', 'infra']) await home.folder(name);
  for (let i = 0; i < 6; i++) await past(['-p', 'pg-prod', '--', 'terraform', '0.5'], 'infra');
  for (let i = 0; i < 2; i++) await past(['-p', 'claude-api', '--', 'aider', '-c', 'sleep 0.5; exit 1'], 'web');
  await assert.rejects(home.keyward(['unlock', '--passphrase-stdin'], { input: 'a wrong passphrase for it' }));
  await past(['-p', 'pg-prod', '--', 'codex', '0.5'], 'shop');
  await home.keyward(['launcher', 'add', 'Claude Code', '-p', 'claude-api', '-p', 'github', '--terminal', '--folder', join(home.home, 'web'), '--', 'claude', '--model', 'opus']);
  await home.keyward(['launcher', 'add', 'Codex in shop', '-p', 'pg-prod', '--no-terminal', '--folder', join(home.home, 'shop'), '--', 'codex', '600']);
  for (const [folder, app, args] of [
    ['infra', 'deploy', ['-p', 'pg-prod', '--ttl', '6m', '--', 'deploy', '600']],
    ['web', 'claude', ['-p', 'claude-api', '-p', 'github', '--', 'claude', '-c', CALLS]],
  ]) {
    home.start(args, folder);
    await live(app);
  }
  const allow = (...args) => home.keyward(['grant', 'add', ...args, '--passphrase-stdin'], { input: PASSPHRASE });
  await allow('--profile', 'github', '--launcher', 'Claude Code', '--for', '8h');
  await allow('--profile', 'claude-api', '--app', join(home.programs, 'aider'), '--project', join(home.home, 'web'), '--deliver', 'gateway', '--uses', '20');
  const refused = await until('the refusal in the log', async () => {
    const entries = await home.json('audit', 'list', '--kind', 'gateway.refused');
    return entries.length > 0 && entries.map(({ entry }) => entry.detail.code);
  });
  assert.deepEqual(refused, ['gateway.not_allowed']);
}

/**
 * Runs a program to its end, and waits until the log tells of it, so that the next one comes after it. A program lives long enough
 * for the broker to look at it, since an entry of one that was never seen reads otherwise.
 */
async function past(args, folder) {
  const ended = async () => (await home.json('audit', 'list', '--kind', 'run.ended')).length;
  const before = await ended();
  await home.keyward(['run', ...args], { folder }).catch(() => undefined);
  await until('the end of the run', async () => (await ended()) > before);
}

/** Waits until the broker has seen the program and the log says so, and until the next one starts in another second: runs are told apart
 * by it. */
async function live(app) {
  const started = await until(`the run of ${app}`, async () => (await home.json('ps')).find((run) => run.app === app && run.app_verified)?.started_at);
  await until(`the start of ${app} in the log`, async () => (await home.json('audit', 'list', '--kind', 'run.started', '--app', app)).length > 0);
  await until('the next second', () => Math.round(Date.now() / 1000) * 1000 > Date.parse(started));
}

test('a full vault', async (t) => {
  await t.test('it is filled', furnish);
  await t.test('an agent is launched by a click', async () => {
    await view.show('now', { fresh: true });
    await button('Launch').click();
    await button('Codex in shop pg-prod').click();
    await page.locator('.lease', { hasText: 'Codex' }).waitFor();
  });
  await each(t, 'full', [
    ['now', () => page.locator('.lease').nth(3)],
    ['now+menu', () => page.locator('.lease').nth(3), { act: () => button('Launch').click() }],
    ['now+revoke', () => page.locator('.lease').nth(3), { act: () => page.locator('.lease', { hasText: 'claude-api' }).getByRole('button', { name: 'Revoke…' }).click() }],
    ['runs', () => says('all there are')],
    ['apps', () => page.locator('td .cell').first()],
    ['audit', () => says('The broker started').or(page.locator('.entry').nth(10))],
    ['audit+drawer', () => page.locator('.entry').nth(10), { act: openEntry }],
    ['audit+calls', () => page.locator('.entry').first(), { hash: 'audit?kind=credential.used', act: openCalls }],
    ['audit+refused', () => page.locator('.entry').first(), { hash: 'audit?kind=gateway.refused', act: openFirst }],
    ['audit+menu', () => page.locator('.entry').nth(10), { act: () => button('App').click() }],
    ['audit+answer', () => page.locator('.answer'), { hash: 'audit?app=codex&profile=pg-prod&range=7d' }],
    ['audit+nothing', () => heading('Nothing matches'), { hash: 'audit?text=no-such-text' }],
    ['audit+verified', () => page.locator('.entry').nth(10), { act: () => page.getByRole('button', { name: /^Verified/ }).click() }],
    ['profiles', () => heading('pg-prod'), { hash: 'profiles?about=pg-prod' }],
    ['profiles+edit', () => heading(/Edit|Change|claude-api/), { hash: 'profiles?edit=claude-api' }],
    ['grants', () => page.locator('.grant').nth(1)],
    ['grants+add', () => heading('New grant'), { hash: 'grants?add=1' }],
    ['grants+revoke', () => page.locator('.grant').nth(1), { act: () => page.getByRole('button', { name: /^Take back the grant of github/ }).click() }],
    ['profiles+guards', () => heading(/claude-api/), { hash: 'profiles?edit=claude-api', act: openFences }],
    ['launchers', () => heading('Codex in shop')],
    ['launchers+add', () => heading('New launcher'), { hash: 'launchers?add=1&agent=claude-code' }],
    ['launchers+edit', () => heading('Edit the launcher'), { hash: 'launchers?edit=Codex+in+shop' }],
    ['settings', () => heading('About')],
    ['welcome', () => says('verified')],
    ['keys', () => page.locator('.lease').nth(3), { hash: 'now', act: () => page.keyboard.press('?') }],
  ]);
});

/** Opens the fences of a profile. */
async function openFences() {
  await page.getByText('Fences of the gateway').click();
  await page.getByLabel('US dollars').fill('2.5');
  await page.getByLabel('US dollars').evaluate((one) => one.scrollIntoView({ block: 'center' }));
}

/** Opens the details of the first delivery in the list. */
async function openEntry() {
  await page.locator('.entry', { hasText: 'given' }).first().click();
  await heading('Its place in the chain').waitFor();
}

/** Opens the details of an entry as if it stood for many calls: how many one stands for depends on how fast they follow each other. */
async function openCalls() {
  const path = '**/command/audit_entry';
  await page.route(path, async (route) => {
    const response = await route.fetch();
    const json = await response.json();
    if (json.entry?.kind === 'credential.used') {
      const [use] = json.entry.detail.uses;
      const ended = { ...use, status: 200, sent: 1830, received: 48_213, ms: 912, request_id: 'req_0' };
      const uses = [ended, ended, { ...ended, status: 429, received: 311 }, { ...ended, status: 0, received: 0, ended: 'the upstream broke off' }, use];
      Object.assign(json.entry.detail, { uses, count: uses.length, process: 'one of 3' });
    }
    await route.fulfill({ response, json });
  });
  await openFirst();
  await page.getByRole('heading', { name: 'The 5 calls' }).evaluate((one) => one.scrollIntoView());
  await page.unroute(path);
}

/** Opens the details of the first entry in the list. */
async function openFirst() {
  await page.locator('.entry').first().click();
  await heading('Its place in the chain').waitFor();
}

test('what nobody has granted', async (t) => {
  const other = await View.open(browser, home, { width: 460, height: 720 });
  views.push(other);
  const card = other.page;
  const awake = () => card.locator('.allow button:not([disabled])').first().waitFor();
  const focused = () => card.evaluate(() => document.activeElement?.className ?? '');
  let asking;
  /** The request that waits. */
  const open = () => until('a request that waits', async () => (await home.json('approvals')).find(({ state }) => state === 'open'));

  await t.test('a card, and one that stands for two requests', async (t) => {
    asking = [home.ask(['-p', 'pg-prod', '--reason', 'add the column orders.note', '--', 'codex', '--full-auto', '600'], 'shop')];
    const { id } = await open();
    await other.card(id);
    await card.getByText('said by the requester').first().waitFor();
    assert.equal(await card.locator('.allow button:not([disabled])').count(), 0, 'what allows sleeps at first');
    assert.match(await focused(), /deny/);
    await awake();
    await t.test('card', () => look('card', other, { tight: true }));
    await other.card(id);
    await awake();
    await card.evaluate(() => {
      window.slept = false;
      const seen = () => (window.slept ||= document.querySelector('.allow button')?.disabled === true);
      new MutationObserver(seen).observe(document.body, { subtree: true, attributes: true, childList: true });
    });
    asking.push(home.ask(['-p', 'pg-prod', '--reason', 'add the column orders.note', '--', 'codex', '--full-auto', '600'], 'shop'));
    await card.getByText('Asked 2 times').waitFor();
    assert.ok(await card.evaluate(() => window.slept), 'it changed under the pointer');
    await awake();
    await t.test('card-merged', () => look('card-merged', other, { tight: true }));
  });
  await t.test('approvals, waiting', async () => {
    await view.show('approvals', { fresh: true });
    await heading('Waiting for you').waitFor();
    await page.getByText('What is asked').first().click();
    await look('approvals-waiting');
    await view.show('now', { fresh: true });
    await page.getByRole('link', { name: /^Approvals/ }).getByText('1 request that waits').waitFor({ state: 'attached' });
  });
  await t.test('Esc says no, and that is not asked again at once', DEED, async () => {
    const { id } = await open();
    await other.card(id);
    await awake();
    // Once it is over, its page is told no more.
    other.expected.push(/Failed to load resource/);
    await card.keyboard.press('Escape');
    for (const ended of asking) assert.equal(await ended(), 125);
    await card.getByRole('heading', { name: 'This request is over' }).waitFor();
    await assert.rejects(home.keyward(['approve', id, '--passphrase-stdin'], { input: PASSPHRASE }), /approval\.over/);
  });
  await t.test('the keyboard alone allows, without the passphrase where it was proven lately', DEED, async () => {
    const before = (await home.asked()).asked.length;
    asking = [home.ask(['-p', 'pg-prod', '--', 'deploy', '0.5'], 'infra')];
    const { id } = await open();
    await other.card(id);
    await awake();
    await card.keyboard.press('Tab');
    await card.keyboard.press('Space');
    assert.equal(await asking[0](), 0);
    const kinds = (await home.asked()).asked.slice(before).map(({ prompt }) => prompt);
    assert.ok(kinds.every((kind) => kind === 'card'), `${kinds}`);
  });
  await t.test('approvals, answered', async () => {
    await view.show('approvals', { fresh: true });
    await page.locator('.past summary').nth(1).waitFor();
    await look('approvals-answered');
  });
  await t.test('a card that waits, and one that cannot be read', async (t) => {
    other.expected.push(/Failed to load resource/);
    await other.hold(['card']);
    await other.card('AAAAAAAA');
    await card.locator('.loading').waitFor();
    await t.test('card-loading', () => look('card-loading', other));
    await other.clear();
    other.expected.push(/Failed to load resource/);
    await other.card('AAAAAAAA');
    await card.getByRole('heading', { name: 'This request is over' }).waitFor();
    await t.test('card-over', () => look('card-over', other));
    other.expected = [];
  });
  await other.page.close();
});

test('narrow windows and zoom', async (t) => {
  for (const [kind, size] of [
    ['narrow', { width: 640 }],
    ['zoomed', { scale: 2 }],
  ]) {
    const other = await View.open(browser, home, size);
    views.push(other);
    for (const [screen, ready] of [
      ['now', '.lease >> nth=3'],
      ['audit', '.entry >> nth=1'],
    ]) {
      await t.test(`${screen}, ${kind}`, async () => {
        await other.show(screen, { fresh: true });
        await other.page.locator(ready).waitFor({ state: 'attached' });
        await look(`${screen}-${kind}`, other, { tight: true });
      });
    }
    await other.page.close();
  }
});

test('what a person does', async (t) => {
  const list = () => page.locator('.entry').allInnerTexts();
  const shown = () => page.locator('.bar [role="status"]').innerText();

  await t.test('the countdown is that of the broker, to the second', DEED, async () => {
    await view.show('now', { fresh: true });
    const lease = page.locator('.lease', { hasText: 'deploy' });
    const wanted = (await home.json('ps')).find(({ app }) => app === 'deploy').leases[0].expires_at;
    for (let i = 0; i < 5; i++) {
      const { text, until: end, now } = await lease.locator('.left time').evaluate((time) => ({ text: time.textContent, until: time.dateTime, now: Date.now() }));
      assert.equal(Date.parse(end), Date.parse(wanted));
      const [, minutes, seconds] = /^(?:(\d+) min )?(\d+) s$/.exec(text) ?? assert.fail(text);
      const off = (Date.parse(wanted) - now) / 1000 - (60 * Number(minutes ?? 0) + Number(seconds));
      // Whole seconds are shown, and a new one each second.
      assert.ok(off > -0.5 && off < 2, `${text} shown with ${(Date.parse(wanted) - now) / 1000} s left`);
      await page.waitForTimeout(330);
    }
  });

  await t.test('a change is on screen at once', DEED, async (t) => {
    const seen = page.evaluate(
      () =>
        new Promise((resolve) => {
          const observer = new MutationObserver(() => {
            if (!document.body.innerText.includes('Stays in the process')) return;
            observer.disconnect();
            resolve(Date.now());
          });
          observer.observe(document.body, { subtree: true, childList: true, characterData: true });
        }),
    );
    await home.keyward(['revoke', 'github']);
    const [entry] = (await home.json('audit', 'list', '--kind', 'lease.revoked')).slice(-1);
    t.diagnostic(`from the entry of the broker to the screen: ${(await seen) - Date.parse(entry.entry.at)} ms`);
  });

  await t.test('every control can be reached by Tab, in the order of the page', DEED, async () => {
    for (const screen of ['now', 'audit']) {
      await view.show(screen, { fresh: true });
      await page.locator('.lease, .entry').nth(2).waitFor();
      await view.quiet();
      const count = await page.evaluate(() => {
        const all = [...document.querySelectorAll('a[href], button, input, select, summary, textarea, [tabindex="0"]')];
        window.controls = all.filter((one) => !one.disabled && one.checkVisibility({ visibilityProperty: true }));
        return window.controls.length;
      });
      assert.ok(count > 12, `${count} controls on ${screen}`);
      const order = [];
      for (let i = 0; i < count; i++) {
        await page.keyboard.press('Tab');
        order.push(await page.evaluate(() => window.controls.indexOf(document.activeElement)));
      }
      assert.deepEqual(order, [...order.keys()], screen);
    }
  });

  await t.test('keys: Ctrl+1 to Ctrl+9, /, ?, arrows, Enter, Esc', DEED, async () => {
    const names = ['Now', 'Runs', 'Apps', 'Audit', 'Approvals', 'Profiles', 'Grants', 'Launchers', 'Settings'];
    for (const [i, name] of names.entries()) {
      await page.keyboard.press(`Control+${i + 1}`);
      await page.getByRole('heading', { name, level: 1 }).waitFor();
      assert.equal(await page.evaluate(() => document.activeElement?.textContent), name);
    }
    for (const n of [3, 4]) {
      await page.keyboard.press(`Control+${n}`);
      await page.getByRole('searchbox').waitFor();
      await page.keyboard.press('/');
      assert.equal(await page.evaluate(() => document.activeElement?.getAttribute('type')), 'search');
    }
    await page.keyboard.press('Control+3');
    await page.keyboard.press('Control+4');
    await page.getByRole('grid').focus();
    for (const key of ['ArrowDown', 'ArrowDown', 'Enter']) await page.keyboard.press(key);
    await heading('Its place in the chain').waitFor();
    await page.keyboard.press('Escape');
    await heading('Its place in the chain').waitFor({ state: 'detached' });
    await page.keyboard.press('?');
    await page.getByRole('dialog', { name: 'Keys' }).waitFor();
    await page.keyboard.press('Escape');
    await page.getByRole('dialog', { name: 'Keys' }).waitFor({ state: 'hidden' });
  });

  await t.test('did Codex touch pg-prod last week? in three clicks from Audit, two from Apps', DEED, async () => {
    for (const [from, most] of [['audit', 3], ['apps', 2]]) {
      await view.show(from, { fresh: true });
      await page.evaluate(() => {
        window.clicks = 0;
        addEventListener('click', (event) => (window.clicks += Number(event.isTrusted)), true);
      });
      if (from === 'audit') await page.getByRole('link', { name: 'Apps' }).click();
      await button('7 days').click();
      await page.getByRole('link', { name: /^Codex was given pg-prod/ }).click();
      await page.locator('.answer.yes').waitFor();
      assert.match(await page.locator('.answer').innerText(), /^Yes: .?Codex.? was given .?pg-prod.? once in the last 7 days/u);
      await page.locator('.entry').first().waitFor();
      for (const row of await list()) assert.match(row, /Codex[^]*pg-prod/);
      assert.equal(await page.evaluate(() => window.clicks), most);
    }
  });

  await t.test('filters: a range drawn over the histogram, and Esc', DEED, async () => {
    await view.show('audit', { fresh: true });
    await page.locator('.entry').nth(5).waitFor();
    await view.quiet();
    const all = await shown();
    const drawn = await page.locator('.u-wrap canvas').evaluate((canvas) => {
      const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, Math.floor(canvas.height / 2));
      return data.filter((value, i) => i % 4 === 3 && value > 0).length;
    });
    assert.ok(drawn > 100, `${drawn} points of the histogram are drawn`);
    const box = await page.locator('.u-over').boundingBox();
    const asked = page.waitForRequest((request) => request.url().endsWith('/command/audit') && Boolean(request.postDataJSON()?.since));
    const y = box.y + box.height / 2;
    await page.mouse.move(box.x + box.width * 0.02, y);
    await page.mouse.down();
    await page.mouse.move(box.x + box.width * 0.5, y, { steps: 4 });
    await page.mouse.move(box.x + box.width * 0.98, y, { steps: 4 });
    await page.mouse.up();
    const { since, until: end } = (await asked).postDataJSON();
    assert.ok(Date.parse(since) < Date.now() && Date.parse(end) > Date.parse(since), `${since} ${end}`);
    await until('the range in the address', () => page.url().includes('since='));
    await page.keyboard.press('Escape');
    await until('no range in the address', () => !page.url().includes('since='));
    await until('all entries', async () => (await shown()) === all);
  });

  await t.test('filters: free text', DEED, async () => {
    await page.keyboard.press('/');
    await page.keyboard.type('terraform');
    await until('entries of terraform', async () => {
      const rows = await list();
      return page.url().includes('text=terraform') && rows.length > 5 && rows.every((row) => row.includes('terraform'));
    });
  });

  await t.test('the list follows the log', DEED, async (t) => {
    await view.show('audit', { fresh: true });
    await page.locator('.entry').first().waitFor();
    await view.quiet();
    const [before] = await list();
    const begin = performance.now();
    await home.keyward(['run', '-p', 'pg-prod', '--', 'terraform', '0'], { folder: 'infra' });
    await until('a new row', async () => (await list())[0] !== before);
    t.diagnostic(`from the start of a run to its row: ${Math.round(performance.now() - begin)} ms`);
    await until('the end of the run', async () => (await list()).slice(0, 3).some((row) => /terraform[^]*ended|exit/.test(row)));
  });

  await t.test('the log is verified without the file, and with it when asked', DEED, async () => {
    const next = async () => (await page.waitForRequest((request) => request.url().endsWith('/command/audit_verify'))).postDataJSON();
    const first = next();
    await view.show('audit', { fresh: true });
    assert.deepEqual(await first, { pages: false });
    await page.getByRole('button', { name: /^Verified/ }).click();
    await says('pages of the file that hold no entries were not checked').waitFor();
    const second = next();
    await button('Check the file too').click();
    assert.deepEqual(await second, { pages: true });
    await says(/, with every page of the file/).waitFor();
    assert.equal(await page.getByText('were not checked').count(), 0);
    assert.equal(await page.getByText(/^Each of the \d+ entries is as it was written/).count(), 1);
    const third = next();
    await button('Verify again').click();
    assert.deepEqual(await third, { pages: false });
    await says('were not checked').waitFor();
  });

  await t.test('what is filtered is exported, through native prompts', DEED, async () => {
    const file = join(home.root, 'export.jsonl');
    await view.show('audit?app=terraform', { fresh: true });
    await page.locator('.entry').first().waitFor();
    await home.prompts({ path: file }, { text: PASSPHRASE });
    await button('Export these…').click();
    const said = await page.getByText(/entries written to/).innerText();
    const lines = (await readFile(file, 'utf8')).trim().split('\n').map((line) => JSON.parse(line));
    const entries = lines.filter(({ entry }) => entry);
    assert.equal(entries.length, Number(/^\d+/.exec(said)?.[0]));
    assert.ok(entries.length > 30 && entries.every(({ entry }) => entry.app === 'terraform'), `${entries.length}`);
    await rm(file);
  });

  await t.test('a credential is shown and copied outside of the page', DEED, async () => {
    await view.show('profiles?about=pg-prod', { fresh: true });
    const before = (await home.asked()).asked.length;
    await home.prompts({ text: PASSPHRASE });
    await button('Show…').click();
    await until('the window that shows it', async () => (await home.asked()).asked.some(({ prompt }) => prompt === 'show_secret'));
    await home.prompts({ text: PASSPHRASE });
    await button('Copy…').click();
    await says('The credential is on the clipboard.').waitFor();
    const kinds = (await home.asked()).asked.slice(before).map(({ prompt }) => prompt);
    assert.deepEqual(kinds, ['passphrase', 'show_secret', 'passphrase', 'copy']);
  });

  await t.test('a broker that is killed comes back without a reload', DEED, async (t) => {
    await view.show('now', { fresh: true });
    await page.locator('.lease').first().waitFor();
    await page.evaluate(() => (window.sameDocument = true));
    view.expected.push(/Failed to load resource/);
    const { broker } = await home.json('status');
    const begin = performance.now();
    process.kill(broker.pid, 'SIGKILL');
    await says('The broker does not answer.').waitFor();
    t.diagnostic(`told after ${Math.round(performance.now() - begin)} ms`);
    await heading('The vault is locked').waitFor();
    t.diagnostic(`back after ${Math.round(performance.now() - begin)} ms`);
    await home.prompts({ text: 'a wrong passphrase for it' }, { text: PASSPHRASE });
    await button('Unlock…').click();
    await says('Vault open').waitFor();
    assert.ok(await page.evaluate(() => window.sameDocument));
    view.expected = [];
  });
});

/** Faults as the broker words them. */
const AWAY = { code: 'broker.unreachable', message: 'the broker cannot be reached', causes: ['its socket is there, and nobody listens'], help: 'see `keyward status`; start it anew with `keyward broker restart`' };
const FULL = { code: 'vault.disk_full', message: 'the disk is full', causes: ['no space is left on the device'], help: 'free some space, then try again; nothing was lost' };

/** What each screen reads, so that it can be held back or fail. */
const READS = {
  welcome: ['overview'],
  now: ['overview'],
  runs: ['runs_past'],
  apps: ['apps'],
  audit: ['audit', 'audit_summary', 'audit_verify'],
  approvals: ['approvals'],
  profiles: ['overview'],
  grants: ['grants'],
  'profiles-editor': ['providers'],
  launchers: ['overview'],
  settings: ['settings', 'slots'],
};

test('waiting for answers, and answers that are errors', async (t) => {
  for (const [name, commands] of Object.entries(READS)) {
    const hash = name === 'profiles-editor' ? 'profiles?add=1' : name;
    await t.test(`${name}, loading`, async () => {
      await view.hold(commands);
      await view.show(hash, { fresh: true });
      await page.locator('.loading').first().waitFor();
      await look(`${name}-loading`);
      await view.clear();
    });
    await t.test(`${name}, failed`, async () => {
      await view.fail(commands, commands.includes('overview') ? AWAY : FULL);
      await view.show(hash, { fresh: true });
      await page.getByRole('alert').first().waitFor();
      await look(`${name}-failed`);
      await view.clear();
    });
  }
  await t.test('now, with a broker that went away', async () => {
    const gone = { type: 'connection', up: false, fault: AWAY };
    const pattern = '**/events';
    await page.route(pattern, (route) => route.fulfill({ contentType: 'text/event-stream', body: `retry: 600000\ndata: ${JSON.stringify(gone)}\n\n` }));
    await view.show('now', { fresh: true });
    await says('The broker does not answer.').waitFor();
    await look('now-away');
    await page.unroute(pattern);
  });
});

test('a locked vault', async (t) => {
  await t.test('it is locked by a click, and says what could not be taken back', async () => {
    await view.show('now', { fresh: true });
    await page.locator('.lease').first().waitFor();
    await button('Lock now').click();
    await heading('What could not be taken back').waitFor();
    await look('now-remains');
  });
  const locked = () => heading('The vault is locked').first();
  await each(t, 'locked', ['welcome', 'now', 'runs', 'apps', 'audit', 'approvals', 'profiles', 'grants', 'launchers', 'settings'].map((screen) => [screen, locked]));
});

test('every reference belongs to a picture', () => assert.deepEqual(references.unused(), []));

test('no secret has come to a page', async () => {
  const told = (await Promise.all(views.map((one) => one.told()))).join('\n');
  assert.ok(told.length > 100_000 && told.includes('"pg-prod"') && told.includes('"type":"broker"'), 'what came is recorded');
  // The names of places, not the texts: a failure must not print them either.
  const found = forbidden().flatMap((text, i) => (told.includes(text) ? [i] : []));
  assert.deepEqual(found, []);
});
