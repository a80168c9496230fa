// Requests that wait for a person, and their answers, in words. No DOM.

import type { Msg } from '#ui/host/contract';
import { count } from './text';
import { span } from './time';

type Approval = Msg<'ApprovalMsg'>;
type Decision = Msg<'Decision'>;

/** Seconds for which `project` allows. */
export const PROJECT_S = 3600;

/** The word on the button of an answer, with the time for which it allows. */
export function choice(approval: Approval, decision: Exclude<Decision, 'deny'>): string {
  if (approval.kind === 'fence') return FENCE[decision];
  if (approval.kind === 'extend') return 'Let it keep them, for 24 h at most';
  switch (decision) {
    case 'once': {
      const longest = Math.max(0, ...approval.wanted.map((wanted) => wanted.ttl_s));
      return longest > 0 ? `Allow once, for ${span(longest * 1000)} at most` : 'Allow once';
    }
    case 'run':
      return 'Allow this run, for 24 h at most';
    default:
      return `Allow this project for ${span(PROJECT_S * 1000)}`;
  }
}

const FENCE: Readonly<Record<Exclude<Decision, 'deny'>, string>> = {
  once: 'Allow what it asks for',
  run: 'Allow it for the rest of this run',
  project: 'Allow it for this project for 1 h',
};

/** The answers that a card has buttons for, narrowest first. */
export function choices(approval: Approval): Exclude<Decision, 'deny'>[] {
  return (['once', 'run', 'project'] as const).filter((decision) => approval.choices.includes(decision));
}

/** The requester said this field, and the kernel did not. */
export function said(approval: Approval, field: string): boolean {
  return approval.said.includes(field);
}

/** The asking process and its parents, nearest first: `codex 4312 ‹ zsh 3300`. */
export function chain(approval: Approval): { name: string; pid: number }[] {
  return approval.chain.map(({ name, pid }) => ({ name: name || '?', pid }));
}

/** What was decided about the same before. */
export function before(wanted: Msg<'WantedMsg'>): string {
  const { allowed_before: yes, denied_before: no } = wanted;
  if (yes === 0 && no === 0) return 'Never asked before for this app and project';
  const times = (n: number): string => (n === 1 ? 'once' : count(n, 'time'));
  if (no === 0) return `Allowed ${times(yes)} before, never denied`;
  if (yes === 0) return `Denied ${times(no)} before, never allowed`;
  return `Allowed ${times(yes)} before, denied ${times(no)}`;
}

/** Where a request stands: which way it leans and its word. */
export function standing(state: Msg<'ApprovalState'>): { lean: 'good' | 'warn' | 'bad' | 'idle'; word: string } {
  return STATES[state];
}

const STATES: Readonly<Record<Msg<'ApprovalState'>, { lean: 'good' | 'warn' | 'bad' | 'idle'; word: string }>> = {
  open: { lean: 'warn', word: 'Waits for you' },
  allowed: { lean: 'good', word: 'Allowed' },
  denied: { lean: 'bad', word: 'Denied' },
  unanswered: { lean: 'idle', word: 'Not answered' },
  withdrawn: { lean: 'idle', word: 'Withdrawn' },
};

/** A line of a difference: added, removed, or as it was. */
export function changed(line: string): { way: 'added' | 'removed' | 'kept'; text: string } {
  const way = line.startsWith('+') ? 'added' : line.startsWith('-') ? 'removed' : 'kept';
  return { way, text: line.slice(1) };
}
