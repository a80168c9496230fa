// Which screen is shown, kept in the fragment of the address: `#/audit?app=codex&profile=pg-prod`.

import { parseHash, writeHash, type Place } from './place';

export { SCREENS, type Place, type ScreenName } from './place';

let place = $state.raw<Place>(parseHash(location.hash));

addEventListener('hashchange', () => {
  place = parseHash(location.hash);
});

/** Where the person is. */
export const route = {
  /** Name of the screen. */
  get screen() {
    return place.screen;
  },
  /** What the screen was asked to show. */
  get query(): Readonly<Record<string, string>> {
    return place.query;
  },
};

/** Goes to a screen; empty query fields are left out. A step back leads to where the person was. */
export function go(screen: Place['screen'], query: Record<string, string | undefined> = {}): void {
  location.hash = writeHash(screen, query);
  place = parseHash(location.hash);
}

/** Goes to a screen in the place of this one. */
export function replace(screen: Place['screen'], query: Record<string, string | undefined> = {}): void {
  history.replaceState(null, '', writeHash(screen, query));
  place = parseHash(location.hash);
}

/** Changes the query without a step of its own in the history. */
export function replaceQuery(query: Record<string, string | undefined>): void {
  replace(place.screen, query);
}

/** The address of a screen, for a link. */
export const href = writeHash;
