/** A piece of a text: as it is, or a character that would not be seen or would change what is seen. */
export interface Piece {
  text: string;
  /** It stands for such a character: `U+202E`. */
  hidden?: true;
}

// Control, format (bidirectional marks, joiners, tags), surrogate, private and line-breaking characters.
const HIDDEN = /[\p{Cc}\p{Cf}\p{Cs}\p{Co}\p{Zl}\p{Zp}\u115F\u1160\u3164\uFFA0\u2800\u034F\u180B-\u180D\uFE00-\uFE0F]/u;

/** Cuts a text so that each unseen character stands alone as its number. */
export function pieces(text: string): Piece[] {
  const out: Piece[] = [];
  let plain = '';
  for (const character of text) {
    if (!HIDDEN.test(character)) {
      plain += character;
      continue;
    }
    if (plain) out.push({ text: plain });
    plain = '';
    const point = character.codePointAt(0) ?? 0;
    out.push({ text: `U+${point.toString(16).toUpperCase().padStart(4, '0')}`, hidden: true });
  }
  if (plain) out.push({ text: plain });
  return out;
}

/** A stretch of a text of Keyward itself: what is said, or what is literal in it, such as a command. */
export interface Stretch {
  pieces: Piece[];
  /** It stood between two backticks, which are gone. */
  code?: true;
}

/** Cuts a text of Keyward itself at its pairs of backticks. A backtick without another, and a pair around nothing, stay. */
export function stretches(text: string): Stretch[] {
  const out: Stretch[] = [];
  let rest = 0;
  for (const { 0: whole, 1: inside, index } of text.matchAll(/`([^`]*)`/gu)) {
    if (!inside) continue;
    if (index > rest) out.push({ pieces: pieces(text.slice(rest, index)) });
    out.push({ pieces: pieces(inside), code: true });
    rest = index + whole.length;
  }
  if (rest < text.length) out.push({ pieces: pieces(text.slice(rest)) });
  return out;
}

/** The pieces of a text as one string, for titles and labels. */
export function visible(text: string): string {
  return pieces(text)
    .map((piece) => piece.text)
    .join('');
}

/** A count with its noun: `1 run`, `2 runs`. */
export function count(n: number, one: string, many = `${one}s`): string {
  return `${n.toLocaleString('en-GB')} ${n === 1 ? one : many}`;
}

/** A list in words: `a`, `a and b`, `a, b and c`. */
export function list(words: readonly string[]): string {
  if (words.length < 2) return words[0] ?? '';
  return `${words.slice(0, -1).join(', ')} and ${words.at(-1)}`;
}

/** The first letter as a capital one, for an error's message that begins a line. */
export function sentence(text: string): string {
  return text.charAt(0).toLocaleUpperCase('en-GB') + text.slice(1);
}
