import { svelte } from '@sveltejs/vite-plugin-svelte';
import { fileURLToPath } from 'node:url';
import { defineConfig } from 'vitest/config';

// The host is chosen here and nowhere else, so that a bundle holds exactly one of them.
export default defineConfig(({ mode }) => {
  const devhost = mode === 'devhost';
  return {
    base: './',
    plugins: [svelte()],
    resolve: {
      alias: {
        '#link': fileURLToPath(new URL(devhost ? 'src/host/devhost.ts' : 'src/host/tauri.ts', import.meta.url)),
        '#ui': fileURLToPath(new URL('src', import.meta.url)),
      },
    },
    build: {
      outDir: devhost ? 'dist-devhost' : 'dist',
      emptyOutDir: true,
      target: 'es2023',
      // The policy of the web view allows no data: addresses.
      assetsInlineLimit: 0,
      modulePreload: { polyfill: false },
      reportCompressedSize: true,
      // The card is a page of its own, which loads little.
      rolldownOptions: { input: ['index.html', 'card.html'].map((page) => fileURLToPath(new URL(page, import.meta.url))) },
    },
    test: { include: ['src/**/*.test.ts'] },
  };
});
