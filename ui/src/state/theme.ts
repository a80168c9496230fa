import { call, type Msg } from '#ui/host';

/** Shows the colours of a theme. */
export function applyTheme(theme: Msg<'Theme'>): void {
  if (theme === 'system') delete document.documentElement.dataset['theme'];
  else document.documentElement.dataset['theme'] = theme;
}

/** Reads the theme and shows it. Never rejects: without settings the colours are those of the system. */
export async function loadTheme(): Promise<void> {
  try {
    applyTheme((await call('settings')).theme);
  } catch {
    applyTheme('system');
  }
}
