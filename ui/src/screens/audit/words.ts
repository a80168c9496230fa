// Every kind of audit entry in words: the only table of them. A test compares it with the broker's list of kinds.

import { folder } from '#ui/words/folder';
import { count, list } from '#ui/words/text';
import { span } from '#ui/words/time';
import { number, text, texts, usesOf, type Entry } from './entry';

/** A piece of a sentence: our own words, or a name or path that came from the entry and is shown apart. */
export type Part = string | { name: string } | { path: string };

interface Words {
  /** What the kind is called in menus. */
  title: string;
  /** The entry in a sentence, without time. */
  say: (entry: Entry) => Part[];
}

const name = (value: string | undefined, otherwise: string): Part => (value ? { name: value } : otherwise);

const app = (e: Entry): Part => name(e.app, 'an app');
const profile = (e: Entry): Part => name(e.profile, 'a profile');
const detail = (e: Entry, field: string): string | undefined => text(e.detail[field]);

/** ` · ` and a name, where there is one. */
const also = (value: string | undefined): Part[] => (value ? [' · ', { name: value }] : []);

/** Why the broker does not vouch for the program, in its own words: it ended before a look, or is another than was named. */
const unverified = (why: string | undefined): Part[] => (why ? [`, unverified: ${why}`] : []);

/** ` · ` and the project folder. */
const where = (e: Entry): Part[] => (e.project ? [' · ', { path: e.project }] : []);

const pathOf = (e: Entry, field: string): Part[] => {
  const path = detail(e, field);
  return path ? [' · ', { path }] : [];
};

/** `: name of the error`. */
const because = (e: Entry, field = 'code'): Part[] => {
  const why = detail(e, field);
  return why ? [': ', { name: why }] : [];
};

const names = (values: string[], otherwise: string): Part[] => {
  const known = values.slice(0, 4);
  if (known.length === 0) return [otherwise];
  const parts: Part[] = known.flatMap((value, n) => (n ? [', ', { name: value }] : [{ name: value }]));
  return values.length > known.length ? [...parts, ` and ${values.length - known.length} more`] : parts;
};

const fileRemains = (e: Entry): Part[] => (e.detail['file_removed'] === false ? [' · its file could not be removed'] : []);
const remains = (e: Entry): Part[] => (detail(e, 'remains') ? [' · some of it could not be taken back'] : []);

const slot = (e: Entry): Part => {
  const known: Record<string, string> = {
    passphrase: 'the passphrase',
    keyring: 'the keyring of the system',
    recovery: 'the recovery key',
  };
  const word = detail(e, 'slot');
  return word === undefined ? 'a way' : (known[word] ?? { name: word });
};

const opener = (e: Entry): string => {
  const by: Record<string, string> = {
    passphrase: ' with the passphrase',
    recovery: ' with the recovery key',
    keyring: ' by the keyring of the system',
  };
  return by[detail(e, 'by') ?? ''] ?? '';
};

const life = (e: Entry): Part[] => {
  const seconds = number(e.detail['expires_in_s']);
  return seconds === undefined ? [] : [` · lives ${span(seconds * 1000)}`];
};

const refusedReasons = (e: Entry): Part[] => {
  const refused = Array.isArray(e.detail['refused']) ? (e.detail['refused'] as unknown[]) : [];
  const rows = refused.map((row) => (typeof row === 'object' && row !== null ? (row as Record<string, unknown>) : {}));
  const total = rows.reduce((sum, row) => sum + (number(row['count']) ?? 1), 0);
  const first = rows[0];
  const reason = text(first?.['reason']);
  const exe = text(first?.['exe']);
  return [
    total > 1 ? `${count(total, 'request')} refused` : 'A request was refused',
    ...(reason ? [': ', { name: reason }] : []),
    ...(exe ? [' · asked by ', { name: exe.split('/').pop() || exe }] : []),
    ...(rows.length > 1 ? [` and ${count(rows.length - 1, 'other')}`] : []),
  ];
};

const ending = (e: Entry): Part[] => {
  const signal = number(e.detail['signal']);
  const exit = number(e.detail['exit']);
  if (detail(e, 'code')) return [' did not start', ...because(e)];
  if (signal !== undefined) return [` was ended by signal ${signal}`];
  if (exit !== undefined && exit !== 0) return [` ended with exit code ${exit}`];
  return e.detail['unseen'] === true ? [' ended unseen'] : [' ended'];
};

const after = (e: Entry): Part[] => {
  const seconds = number(e.detail['seconds']);
  return seconds === undefined ? [] : [` after ${span(seconds * 1000)}`];
};

/** Calls as a count with its noun: `a call`, `12 calls`. */
const calls = (e: Entry): string => {
  const times = Math.trunc(number(e.detail['count']) ?? 1);
  return times > 1 ? count(times, 'call') : 'a call';
};

/** What the calls of an entry were: the one call, or the host that they went to. */
const called = (e: Entry): Part[] => {
  const uses = usesOf(e);
  const [first] = uses;
  if (!first) return [];
  if (uses.length > 1) {
    const hosts = [...new Set(uses.flatMap((use) => use.host ?? []))];
    return hosts.length > 0 ? [' · ', ...names(hosts, '')] : [];
  }
  const place = [first.method, `${first.host ?? ''}${first.path ?? ''}`].filter(Boolean).join(' ');
  return [...also(place), ...(first.status ? [` · ${first.status}`] : [])];
};

/** ` · by ` and the program, where another one than the app made the calls. */
const caller = (e: Entry): Part[] => {
  if (detail(e, 'process') === 'unknown') return [' · by a process that is not known'];
  const program = e.peer?.exe?.split('/').pop();
  return program && program !== e.app ? [' · by ', { name: program }] : [];
};

/** The table: kind → words. */
export const WORDS: Readonly<Record<string, Words>> = {
  'broker.started': {
    title: 'Broker started',
    say: (e) => ['The broker started', ...(detail(e, 'version') ? [` · version ${detail(e, 'version')}`] : [])],
  },
  'vault.initialised': { title: 'Vault made', say: () => ['The vault was made'] },
  'vault.unlocked': {
    title: 'Vault unlocked',
    say: (e) => [e.detail['was_open'] === true ? `The person proved themself${opener(e)}` : `The vault was unlocked${opener(e)}`],
  },
  'vault.unlock_failed': {
    title: 'Unlock failed',
    say: (e) => {
      const times = number(e.detail['count']) ?? 1;
      return times > 1
        ? [`${times.toLocaleString('en-GB')} attempts to open the vault failed`]
        : ['An attempt to open the vault failed', ...because(e)];
    },
  },
  'vault.locked': {
    title: 'Vault locked',
    say: (e) => {
      const runs = number(e.detail['runs']) ?? 0;
      return ['The vault was locked', ...(runs > 0 ? [` · taken back from ${count(runs, 'run')}`] : [])];
    },
  },
  'vault.auto_locked': { title: 'Vault locked itself', say: (e) => ['The vault locked itself', ...because(e, 'why')] },
  'vault.rekeyed': { title: 'Vault key replaced', say: () => ['The vault has a new key and passphrase'] },
  'vault.slot_added': { title: 'Unlock method added', say: (e) => ['The vault opens from then on also with ', slot(e)] },
  'vault.slot_removed': { title: 'Unlock method removed', say: (e) => ['The vault does not open any more with ', slot(e)] },
  'vault.backed_up': {
    title: 'Vault backed up',
    say: (e) => ['A backup of the vault was written', ...pathOf(e, 'file')],
  },
  'vault.restored': { title: 'Vault restored', say: () => ['The vault was restored from a backup'] },
  'secret.set': {
    title: 'Secret stored',
    say: (e) => [
      'The secret ',
      name(detail(e, 'secret'), 'of an unknown name'),
      (number(e.detail['generation']) ?? 1) > 1 ? ' was replaced' : ' was stored',
    ],
  },
  'secret.revealed': {
    title: 'Secret shown',
    say: (e) => ['The secret ', name(detail(e, 'secret'), 'of an unknown name'), ' was shown'],
  },
  'secret.removed': {
    title: 'Secret removed',
    say: (e) => ['The secret ', name(detail(e, 'secret'), 'of an unknown name'), ' was removed'],
  },
  'profile.added': {
    title: 'Profile added',
    say: (e) => ['The profile ', profile(e), ' was added', ...also(detail(e, 'issuer'))],
  },
  'profile.changed': {
    title: 'Profile changed',
    say: (e) => ['The profile ', profile(e), ' was changed', ...also(detail(e, 'issuer'))],
  },
  'profile.removed': { title: 'Profile removed', say: (e) => ['The profile ', profile(e), ' was removed'] },
  'profile.tested': {
    title: 'Profile tested',
    say: (e) => (e.outcome === 'ok' ? ['The test of ', profile(e), ' made a credential'] : ['The test of ', profile(e), ' failed', ...because(e)]),
  },
  'run.requested': {
    title: 'Run asked for',
    say: (e) => [app(e), ' asked for ', ...names(texts(e.detail['profiles']), 'credentials'), ...where(e)],
  },
  'run.decided': {
    title: 'Run decided',
    say: (e) =>
      e.outcome === 'ok'
        ? [app(e), ' may have ', ...names(texts(e.detail['profiles']), 'what it asked for'), ...where(e)]
        : [app(e), ' may not have ', ...names(texts(e.detail['profiles']), 'what it asked for'), ...where(e)],
  },
  'run.started': {
    title: 'Run started',
    say: (e) => [app(e), ' started', ...unverified(detail(e, 'unverified')), ...where(e)],
  },
  'run.ended': { title: 'Run ended', say: (e) => [app(e), ...ending(e), ...after(e), ...where(e)] },
  'run.unwatched': { title: 'Run not watched', say: (e) => [app(e), ' cannot be watched any longer', ...where(e)] },
  'approval.asked': {
    title: 'Approval asked for',
    say: (e) => [app(e), ' asked a person for ', ...names(texts(e.detail['profiles']), e.profile ?? 'a credential'), ...where(e)],
  },
  'approval.answered': {
    title: 'Approval answered',
    say: (e) => [
      e.outcome === 'ok' ? 'A person allowed ' : 'Nobody allowed ',
      app(e),
      ' to have ',
      ...names(texts(e.detail['profiles']), e.profile ?? 'what it asked for'),
      ...also(detail(e, 'decision')),
      ...where(e),
    ],
  },
  'approval.withdrawn': {
    title: 'Approval withdrawn',
    say: (e) => ['A request of ', app(e), ' was withdrawn before an answer', ...where(e)],
  },
  'operator.proven': { title: 'Person proven', say: (e) => [`A person proved to be there${opener(e)}`] },
  'grant.added': { title: 'Grant given', say: (e) => [profile(e), ' may be given without asking', ...(e.app ? [' to ', app(e)] : []), ...where(e)] },
  'grant.changed': { title: 'Grant changed', say: (e) => ['The grant of ', profile(e), ' was changed', ...(e.app ? [' for ', app(e)] : []), ...where(e)] },
  'grant.revoked': { title: 'Grant taken back', say: (e) => ['The grant of ', profile(e), ' was taken back', ...because(e, 'why')] },
  'grant.expired': { title: 'Grant ended', say: (e) => ['The grant of ', profile(e), ' reached its end'] },
  'fence.reached': {
    title: 'Fence reached',
    say: (e) => [app(e), ' came to a fence of ', profile(e), ...also(detail(e, 'told') ?? detail(e, 'fence')), ...where(e)],
  },
  'project.reviewed': {
    title: 'Project file reviewed',
    say: (e) => ['A keyward.toml was looked at and counts from then on', ...pathOf(e, 'path'), ...where(e)],
  },
  'assertion.presented': {
    title: 'Assertion presented',
    say: (e) => ['A one-time assertion was about to be presented for ', profile(e)],
  },
  'assertion.withdrawn': {
    title: 'Assertion withdrawn',
    say: (e) => ['The assertion for ', profile(e), ' was not sent: there was no connection'],
  },
  'exchange.made': {
    title: 'Credential made',
    say: (e) => ['A credential of ', profile(e), ' was made', ...life(e), ...also(detail(e, 'scope'))],
  },
  'exchange.failed': { title: 'Exchange failed', say: (e) => ['No credential of ', profile(e), ' could be made', ...because(e)] },
  'lease.issued': { title: 'Lease issued', say: (e) => [app(e), ' got a lease on ', profile(e), ...where(e)] },
  'lease.renewed': { title: 'Lease renewed', say: (e) => ['The credential of ', profile(e), ' was renewed for ', app(e), ...where(e)] },
  'lease.renew_failed': {
    title: 'Renewal failed',
    say: (e) => ['The credential of ', profile(e), ' could not be renewed for ', app(e), ...because(e)],
  },
  'lease.lapsed': {
    title: 'Credential lapsed',
    say: (e) => [app(e), ' was left without ', profile(e), ': it ended before there was another one', ...fileRemains(e)],
  },
  'lease.expired': {
    title: 'Lease expired',
    say: (e) => [app(e), ' lost ', profile(e), ' at the end of its lease', ...remains(e), ...fileRemains(e)],
  },
  'lease.released': { title: 'Lease released', say: (e) => [app(e), ' gave ', profile(e), ' back at its end', ...fileRemains(e)] },
  'lease.revoked': {
    title: 'Lease revoked',
    say: (e) => [profile(e), ' was taken back from ', app(e), ...remains(e), ...fileRemains(e)],
  },
  'credential.delivered': {
    title: 'Credential delivered',
    say: (e) => [app(e), ' was given ', profile(e), ...also(detail(e, 'delivery')), ...where(e)],
  },
  'gateway.opened': {
    title: 'Gateway opened',
    say: (e) => [app(e), ' may call with ', profile(e), ' through the gateway', ...also(detail(e, 'host')), ...where(e)],
  },
  'credential.used': {
    title: 'Credential used',
    say: (e) => [app(e), ` made ${calls(e)} with `, profile(e), ...called(e), ...caller(e)],
  },
  'credential.use_ended': {
    title: 'Call ended',
    say: (e) => [`${calls(e)} of `, app(e), ' with ', profile(e), ' ended', ...called(e), ...caller(e)],
  },
  'gateway.refused': {
    title: 'Call refused',
    say: (e) => [
      calls(e),
      ...(e.app ? [' of ', app(e)] : []),
      ...(e.profile ? [' with ', profile(e)] : []),
      (number(e.detail['count']) ?? 1) > 1 ? ' were refused' : ' was refused',
      ...because(e),
      ...also(detail(e, 'what')),
    ],
  },
  'credential.revoked': {
    title: 'Ended at the issuer',
    say: (e) =>
      e.outcome === 'ok'
        ? ['The issuer ended the credential of ', profile(e), ' before its time']
        : ['The issuer did not end the credential of ', profile(e), ' before its time', ...because(e, detail(e, 'why') ? 'why' : 'code')],
  },
  'credential.revealed': { title: 'Credential shown', say: (e) => ['The credential of ', profile(e), ' was shown'] },
  'token.delivered': {
    title: 'Token handed out',
    say: (e) => [name(e.app ?? e.peer?.exe?.split('/').pop(), 'a program'), ' asked for a token of ', profile(e), ' and got it', ...where(e)],
  },
  'request.refused': { title: 'Request refused', say: refusedReasons },
  'launcher.added': { title: 'Launcher added', say: (e) => ['The launcher ', launcher(e), ' was added'] },
  'launcher.changed': { title: 'Launcher changed', say: (e) => ['The launcher ', launcher(e), ' was changed'] },
  'launcher.removed': { title: 'Launcher removed', say: (e) => ['The launcher ', launcher(e), ' was removed'] },
  'settings.changed': { title: 'Settings changed', say: () => ['The settings were changed'] },
  'audit.archived': { title: 'Log archived', say: () => ['Old entries were moved into an archive segment'] },
  'audit.exported': {
    title: 'Log exported',
    say: (e) => [e.detail['filtered'] === true ? 'A part of the log was exported' : 'The log was exported'],
  },
  'audit.break_accepted': { title: 'Break accepted', say: (e) => ['A break of the log was accepted', ...because(e, 'reason')] },
};

function launcher(e: Entry): Part {
  return name(detail(e, 'launcher') ?? detail(e, 'name'), 'of an unknown name');
}

/** What a kind is called; a kind of a newer broker by its own name. */
export function title(kind: string): string {
  return WORDS[kind]?.title ?? kind;
}

/** What the kinds of a family are about, for menus: the first part of their names. */
export const FAMILIES: Readonly<Record<string, string>> = {
  broker: 'Broker',
  vault: 'Vault',
  secret: 'Secrets',
  profile: 'Profiles',
  run: 'Runs',
  approval: 'Approvals',
  operator: 'The operator',
  grant: 'Grants',
  fence: 'Fences',
  project: 'Projects',
  assertion: 'Assertions',
  exchange: 'Exchanges',
  lease: 'Leases',
  credential: 'Credentials',
  token: 'Tokens',
  gateway: 'The gateway',
  request: 'Refused requests',
  launcher: 'Launchers',
  settings: 'Settings',
  audit: 'The log itself',
};

/** An entry in a sentence. */
export function say(entry: Entry): Part[] {
  const words = WORDS[entry.kind];
  if (!words) return [{ name: entry.kind || 'an entry that cannot be read' }];
  const [first, ...rest] = words.say(entry);
  return typeof first === 'string' ? [first.charAt(0).toUpperCase() + first.slice(1), ...rest] : first ? [first, ...rest] : rest;
}

/** A sentence as plain text; folders below the home folder that `near` lies in are shortened. */
export function plain(parts: readonly Part[], near?: string): string {
  return parts
    .map((part) => (typeof part === 'string' ? part : 'path' in part ? folder(part.path, near) : part.name))
    .join('');
}

/** How an entry ended, in one word for people. */
export function outcomeWord(outcome: string): string {
  return { ok: 'OK', refused: 'Refused', failed: 'Failed' }[outcome] ?? (outcome || 'Unknown');
}

const PROBLEMS: Readonly<Record<string, string>> = {
  mac_mismatch: 'was changed: its code does not belong to it',
  body_invalid: 'is not what Keyward writes',
  prev_mismatch: 'is not linked to the entry before it',
  gap: 'is missing, and perhaps some after it',
  duplicate: 'stands twice or out of order',
  head_behind_anchor: 'is the last one, but the anchor names a later one: the end was cut off',
  anchor_missing: 'has no anchor beside it',
  anchor_other_mac: 'is not the one that the anchor names',
  anchor_damaged: 'is there, but the anchor does not verify',
  anchor_other_epoch: 'belongs to another epoch of the vault than its anchor',
  database_replaced: 'is in a database file that is not the one that was opened',
  database_damaged: 'lies in a page of the database that does not verify',
  index_mismatch: 'is not counted rightly in the index of this review',
  archive_missing: 'begins an archive segment whose file is missing',
  archive_mismatch: 'begins a part of the archive that is not what was moved there',
};

/** What is wrong at an entry, as the rest of a sentence that begins with the entry. */
export function problem(kind: string): string {
  return PROBLEMS[kind] ?? kind;
}

/** The kinds of problems that have words. */
export const PROBLEM_KINDS: readonly string[] = Object.keys(PROBLEMS);

/** What the anchor says, in words. */
export function anchorWords(anchor: { state: string; seen: readonly string[] }): string {
  const where = anchor.seen.map((kind) => ({ file: 'the anchor file', keyring: 'the keyring of the system' })[kind] ?? kind);
  switch (anchor.state) {
    case 'ok':
      return `The end of the log is the one that ${list(where)} ${where.length === 1 ? 'names' : 'name'}`;
    case 'anchor_missing':
      return 'There is no anchor: whether the end was cut off cannot be seen';
    case 'anchor_damaged':
      return 'The anchor does not verify';
    case 'anchor_other_mac':
      return 'The anchor names another entry: the log was replaced';
    case 'anchor_other_epoch':
      return 'The anchor belongs to another epoch of the vault';
    case 'head_behind_anchor':
      return 'The anchor names a later entry: the end of the log was cut off';
    default:
      return problem(anchor.state);
  }
}
