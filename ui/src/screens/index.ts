// Which component shows a screen.

import type { Component } from 'svelte';
import type { ScreenName } from '#ui/state/place';
import Approvals from './approvals/Approvals.svelte';
import Apps from './apps/Apps.svelte';
import Audit from './audit/Audit.svelte';
import Grants from './grants/Grants.svelte';
import Launchers from './launchers/Launchers.svelte';
import Now from './now/Now.svelte';
import Profiles from './profiles/Profiles.svelte';
import Runs from './runs/Runs.svelte';
import Settings from './settings/Settings.svelte';
import Welcome from './welcome/Welcome.svelte';

/** The screens. */
export const screens: Record<ScreenName, Component> = {
  welcome: Welcome,
  now: Now,
  runs: Runs,
  apps: Apps,
  audit: Audit,
  approvals: Approvals,
  profiles: Profiles,
  grants: Grants,
  launchers: Launchers,
  settings: Settings,
};

/** Their names on screen. */
export const TITLES: Record<ScreenName, string> = {
  welcome: 'Welcome',
  now: 'Now',
  runs: 'Runs',
  apps: 'Apps',
  audit: 'Audit',
  approvals: 'Approvals',
  profiles: 'Profiles',
  grants: 'Grants',
  launchers: 'Launchers',
  settings: 'Settings',
};
