import { expect, it } from 'vitest';
import { present, type Facts } from './steps';

const NONE: Facts = { vault: false, looked: false, profile: false, launched: false, verified: false };

it('goes on after the last step that is done', () => {
  expect(present(NONE)).toBe('vault');
  expect(present({ ...NONE, vault: true })).toBe('looked');
  expect(present({ ...NONE, vault: true, looked: true })).toBe('profile');
  // Whoever ran a program from a terminal needs no launch.
  expect(present({ ...NONE, vault: true, launched: true })).toBe('verified');
  expect(present({ vault: true, looked: true, profile: true, launched: true, verified: true })).toBeUndefined();
});

it('begins with the vault whatever else is there', () => {
  expect(present({ ...NONE, looked: true, profile: true })).toBe('vault');
});
