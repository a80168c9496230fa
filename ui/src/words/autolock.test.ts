import { expect, it } from 'vitest';
import { choices } from './autolock';

it('offers what is set among the usual ones, once', () => {
  expect(choices(900).map((c) => c.word)).toEqual(['5 min', '15 min', '30 min', '1 h', '4 h', '8 h', '24 h']);
  expect(choices(70).map((c) => c.word).slice(0, 2)).toEqual(['1 min 10 s', '5 min']);
});
