/** The screens in the order of the sidebar. `welcome` is the first run and stands in no sidebar. */
export const SCREENS = ['now', 'runs', 'apps', 'audit', 'approvals', 'profiles', 'grants', 'launchers', 'settings'] as const;

/** Name of a screen. */
export type ScreenName = (typeof SCREENS)[number] | 'welcome';

/** A screen and what it was asked to show. */
export interface Place {
  screen: ScreenName;
  query: Readonly<Record<string, string>>;
}

/** Reads the fragment of an address; what is no screen is Now. */
export function parseHash(hash: string): Place {
  const [path = '', search = ''] = hash.replace(/^#\/?/, '').split('?', 2);
  const screen = path === 'welcome' ? path : (SCREENS.find((s) => s === path) ?? 'now');
  return { screen, query: Object.fromEntries(new URLSearchParams(search)) };
}

/** Writes the fragment of an address. */
export function writeHash(screen: ScreenName, query: Record<string, string | undefined> = {}): string {
  const kept = Object.entries(query).filter((field): field is [string, string] => Boolean(field[1]));
  const search = new URLSearchParams(kept).toString();
  return search ? `#/${screen}?${search}` : `#/${screen}`;
}
