// The keys of the whole window.

import { SCREENS, type ScreenName } from './place';

/** A key of the whole window, as the list of keys shows it. */
export const KEYS: readonly { keys: readonly string[]; does: string }[] = [
  { keys: ['Ctrl', '1…9'], does: 'Go to a screen' },
  { keys: ['/'], does: 'Search on this screen' },
  { keys: ['?'], does: 'Show these keys' },
  { keys: ['Esc'], does: 'Close what is open' },
];

/** What a pressed key asks for. */
export type Wish = { go: ScreenName } | 'search' | 'keys' | undefined;

/** Reads a key. A plain key inside a field types a letter and asks for nothing. */
export function wish(event: Pick<KeyboardEvent, 'key' | 'ctrlKey' | 'metaKey' | 'altKey'>, inField: boolean): Wish {
  const command = event.ctrlKey || event.metaKey;
  if (command && !event.altKey) {
    const screen = /^[1-9]$/.test(event.key) ? SCREENS[Number(event.key) - 1] : undefined;
    return screen && { go: screen };
  }
  if (inField || command || event.altKey) return undefined;
  if (event.key === '/') return 'search';
  if (event.key === '?') return 'keys';
  return undefined;
}
