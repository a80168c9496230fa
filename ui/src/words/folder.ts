/**
 * A folder as people write it: below the home folder of the user as `~`. `near` is a path that lies in it, such as the folder of
 * the broker; where that tells no home folder the path stays as it is.
 */
export function folder(path: string, near: string | undefined): string {
  const home = near && /^(?:\/home\/[^/]+|\/Users\/[^/]+|\/root)(?=\/|$)/.exec(near)?.[0];
  if (!home || (path !== home && !path.startsWith(`${home}/`))) return path;
  return `~${path.slice(home.length)}`;
}
