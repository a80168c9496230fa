// A throw-away home with the development host, a broker, the sandbox, and programs that stand for agents.

import { spawn } from 'node:child_process';
import { chmod, copyFile, mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';

/** Passphrase of the vault. */
export const PASSPHRASE = 'seven quiet herons cross the weir';

/** Static secrets of the vault; none of them may ever reach the page. */
export const SECRETS = { 'pg-prod': 'pg://owner:Wr9xTq5LmZ@db.prod/shop', github: 'ghp_0a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R' };

/** What the page must not see although the tests hand it over in prompts, and how it could be written. */
export function forbidden() {
  const kept = [PASSPHRASE, ...Object.values(SECRETS)];
  return kept.flatMap((text) => {
    const bytes = Buffer.from(text);
    // A part without escapes and padding, so that the place inside a longer text does not matter.
    return [text, encodeURIComponent(text), bytes.toString('hex'), bytes.toString('base64').slice(0, -4), bytes.toString('base64url').slice(0, -4)];
  });
}

/** Runs a program to its end; rejects with what it said when it fails. */
function run(program, args, { input = '', ...options }) {
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, { stdio: ['pipe', 'pipe', 'pipe'], ...options });
    let [out, err] = ['', ''];
    child.stdout.on('data', (bytes) => (out += bytes));
    child.stderr.on('data', (bytes) => (err += bytes));
    child.on('error', reject);
    child.on('close', (code) => (code === 0 ? resolve(out) : reject(new Error(`${program} ${args.join(' ')}: ${code}\n${out}${err}`))));
    child.stdin.on('error', () => undefined);
    child.stdin.end(input);
  });
}

/** Starts a program that prints one line of JSON when it is ready; gives the line and the process. */
function serve(program, args, options) {
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, { stdio: ['pipe', 'pipe', 'pipe'], ...options });
    let said = '';
    child.stderr.on('data', (bytes) => (said += bytes));
    child.on('error', reject);
    child.on('exit', (code) => reject(new Error(`${program} ${args.join(' ')} ended: ${code}\n${said}`)));
    createInterface(child.stdout).once('line', (line) => {
      child.stdout.resume();
      try {
        resolve({ child, ready: JSON.parse(line) });
      } catch {
        reject(new Error(`${program} ${args.join(' ')}: JSON expected, seen: ${line}`));
      }
    });
  });
}

function kill(pid) {
  try {
    process.kill(pid);
  } catch {
    // It has ended.
  }
}

/** Closes what ends with its standard input, and waits for its end. */
function finish(child) {
  if (child.exitCode !== null || child.signalCode !== null) return Promise.resolve();
  return new Promise((resolve) => {
    child.once('close', resolve);
    child.stdin.end();
  });
}

/** The home. Everything that it starts ends with {@link Home.close}. */
export class Home {
  #children = [];
  #shell;
  #asked = [];

  /** Starts the host on an absent vault. `bin` holds the debug binaries, `dist` the UI. */
  static async open(bin, dist) {
    const home = new Home();
    home.bin = bin;
    home.root = await mkdtemp(join(tmpdir(), 'keyward-screens-'));
    home.programs = join(home.root, 'programs');
    await mkdir(home.programs);
    // Programs of these names that wait, and two that do what they are told.
    for (const [name, like] of [['claude', 'dash'], ['codex', 'sleep'], ['deploy', 'sleep'], ['terraform', 'sleep'], ['aider', 'dash']]) {
      await copyFile(`/usr/bin/${like}`, join(home.programs, name));
      await chmod(join(home.programs, name), 0o755);
    }
    const env = { ...process.env, PATH: `${home.programs}:${process.env.PATH}` };
    const args = ['devhost', '--no-build', '--until-eof', '--home', join(home.root, 'own'), '--dist', dist];
    home.host = await serve(join(bin, 'xtask'), args, { env });
    Object.assign(home, home.host.ready);
    return home;
  }

  /** Runs `keyward`; gives what it printed. */
  keyward(args, { input, folder = 'project' } = {}) {
    return run(join(this.bin, 'keyward'), args, { input, env: this.variables, cwd: join(this.home, folder) });
  }

  /** Runs `keyward … --json`; gives what it printed as a value. */
  async json(...args) {
    return JSON.parse(await this.keyward([...args, '--json']));
  }

  /** Makes a folder in the home for a run. */
  folder(name) {
    return mkdir(join(this.home, name), { recursive: true });
  }

  /** Starts a run that lives until the end of the tests; gives its process. */
  start(args, folder = 'project') {
    const child = spawn(join(this.bin, 'keyward'), ['run', ...args], { stdio: 'ignore', env: this.variables, cwd: join(this.home, folder) });
    this.#children.push(child);
    return child;
  }

  /** Starts a run below a shell that has unlocked nothing, the same each time, so that a person is asked; gives what waits for its
   * exit code. */
  ask(args, folder = 'project') {
    if (!this.#shell) {
      this.#shell = spawn('sh', [], { stdio: ['pipe', 'pipe', 'ignore'], env: this.variables });
      this.#children.push(this.#shell);
      createInterface(this.#shell.stdout).on('line', (line) => {
        const [number, code] = line.split(' ').map(Number);
        this.#asked[number]?.(code);
      });
    }
    const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;
    const words = [join(this.bin, 'keyward'), 'run', '--wait', ...args].map(quoted).join(' ');
    const number = this.#asked.length;
    const ended = new Promise((resolve) => this.#asked.push(resolve));
    this.#shell.stdin.write(`cd ${quoted(join(this.home, folder))}\n${words} >/dev/null & p${number}=$!\n`);
    return () => {
      this.#shell.stdin.write(`wait $p${number}; echo ${number} $?\n`);
      return ended;
    };
  }

  /** Stores a profile. */
  async profile(name, toml) {
    const file = join(this.root, `${name}.toml`);
    await writeFile(file, toml);
    return this.keyward(['profile', 'add', name, '--from', file]);
  }

  /** Starts the sandbox; gives what it printed. */
  async sandbox() {
    const folder = join(this.root, 'sandbox');
    const lives = ['--life', '1h', '--assertion-life', '1h'];
    this.issuer = await serve(join(this.bin, 'keyward-sandbox'), ['serve', '--folder', folder, ...lives, '--until-eof'], { env: this.variables });
    return this.issuer.ready;
  }

  /** Lays answers ready for the prompts that stand for native ones. */
  async prompts(...answers) {
    const said = await this.#ask('PUT', answers);
    if (!said.ok) throw new Error(`prompts: ${said.status} ${await said.text()}`);
  }

  /** What the prompts asked and showed so far, without secrets. */
  async asked() {
    return (await this.#ask('GET')).json();
  }

  #ask(method, body) {
    return fetch(`${this.origin}/prompts`, {
      method,
      headers: { 'keyward-devhost': this.token, 'content-type': 'application/json' },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    });
  }

  /** Ends everything and takes the folder away. */
  async close() {
    for (const child of this.#children) child.kill();
    // What a launcher started is no child of ours.
    for (const { pid } of await this.json('ps').catch(() => [])) kill(pid);
    if (this.issuer) await finish(this.issuer.child);
    if (this.host) await finish(this.host.child);
    await rm(this.root, { recursive: true, force: true });
  }
}
