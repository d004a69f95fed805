import { svelte } from '@sveltejs/vite-plugin-svelte';
import { loadEnv } from 'vite';
import { defineConfig } from 'vitest/config';
import { selfContained } from './selfContained.ts';

// In development (npm run dev) the API of a running server, by default at its own default address.
const server = loadEnv('development', '.', 'RINGFENCE_')['RINGFENCE_URL'] ?? 'http://127.0.0.1:8080';

export default defineConfig({
  plugins: [svelte(), selfContained()],
  build: {
    target: ['chrome111', 'firefox121', 'safari17'],
    // The page runs under `default-src 'self'`: nothing may become a data: address or an inline script.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    cssCodeSplit: false,
    sourcemap: false,
  },
  server: {
    proxy: {
      // The server accepts requests from its own origin only.
      '/graphql': { target: server, ws: true, changeOrigin: true, headers: { origin: server } },
    },
  },
  test: {
    include: ['src/**/*.test.ts'],
  },
});
