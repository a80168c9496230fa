// A command as one line: read into its parts and written back, with the quoting of POSIX shells and nothing else of them. Pure.

/** A line that was read. */
export interface Command {
  parts: string[];
  /** Why the line cannot be read to its end. */
  error?: string;
  /** What a shell would do with it and a launcher does not. */
  notes: string[];
}

const SHELL_WORDS: readonly [RegExp, string][] = [
  [/^~/u, '`~` is not replaced by the home folder'],
  [/\$[\w{(]/u, 'variables are not replaced'],
  [/`/u, 'commands inside are not run'],
  [/[*?[]/u, 'patterns of file names are not replaced'],
];
const OPERATORS = /^(?:\|\|?|&&?|;|[0-9]?>>?|<)/u;

/** Reads a line. Quotes and backslashes hold parts together; nothing is expanded and nothing is run. */
export function readCommand(line: string): Command {
  const parts: string[] = [];
  const notes = new Set<string>();
  let part = '';
  /** The beginning of the part as it was typed outside of quotes, for the notes. */
  let bare = '';
  let open = false;
  let quote = '';
  const end = (): void => {
    if (!open) return;
    parts.push(part);
    if (OPERATORS.test(bare)) notes.add('`|`, `&`, `;`, `<` and `>` go to the program as they are: no shell reads the line');
    for (const [pattern, note] of SHELL_WORDS) if (pattern.test(bare)) notes.add(note);
    part = '';
    bare = '';
    open = false;
  };
  const characters = [...line];
  for (let i = 0; i < characters.length; i += 1) {
    const c = characters[i] ?? '';
    if (quote) {
      const next = characters[i + 1] ?? '';
      if (c === quote) quote = '';
      else if (quote === '"' && c === '\\' && '"\\$`'.includes(next) && next) {
        part += next;
        i += 1;
      } else part += c;
      continue;
    }
    if (c === "'" || c === '"') {
      quote = c;
      open = true;
    } else if (c === '\\') {
      const next = characters[i + 1];
      if (next === undefined) return { parts, error: 'the line ends with a backslash', notes: [...notes] };
      part += next;
      open = true;
      i += 1;
    } else if (/\s/u.test(c)) end();
    else {
      part += c;
      bare += c;
      open = true;
    }
  }
  if (quote) return { parts, error: `a ${quote === '"' ? 'double' : 'single'} quote is not closed`, notes: [...notes] };
  end();
  return { parts, notes: [...notes] };
}

/** Writes parts as a line that {@link readCommand} reads to the same parts. */
export function writeCommand(parts: readonly string[]): string {
  return parts.map((part) => (/^[\w@%+=:,./-]+$/u.test(part) ? part : `'${part.replaceAll("'", "'\\''")}'`)).join(' ');
}

/** The profiles that an agent of these providers takes, where exactly one profile fits a provider. */
export function fitting(
  providers: readonly string[],
  tiles: readonly { id: string; methods: readonly { issuer: string; preset: Readonly<Record<string, unknown>> }[] }[],
  profiles: readonly { name: string; issuer: string; toml: string }[],
): string[] {
  const out = new Set<string>();
  for (const id of providers) {
    const methods = tiles.find((tile) => tile.id === id)?.methods ?? [];
    const fit = profiles.filter((profile) =>
      methods.some((method) => {
        const provider = method.preset['provider'];
        if (method.issuer !== profile.issuer) return false;
        // Kinds that serve many providers say in the profile which one it is.
        if (typeof provider === 'string') return profile.toml.includes(`provider = ${JSON.stringify(provider)}`);
        return method.issuer !== 'static' && method.issuer !== 'command';
      }),
    );
    if (fit.length === 1 && fit[0]) out.add(fit[0].name);
  }
  return [...out];
}
