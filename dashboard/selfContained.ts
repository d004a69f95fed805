import type { Plugin } from 'vite';

/**
 * Keeps two promises: the page asks no third party for anything, and it runs under `Content-Security-Policy: default-src
 * 'self'`. The build fails when a file names a foreign host, or when the page has a script or a style inside it.
 */
export function selfContained(): Plugin {
  return {
    name: 'ringfence-self-contained',
    apply: 'build',
    enforce: 'post',
    // Svelte's errors point to its web site: their codes say as much.
    renderChunk: (code) => ({ code: code.replaceAll('https://svelte.dev/e/', 'Svelte error '), map: null }),
    generateBundle(_options, bundle) {
      for (const [name, file] of Object.entries(bundle)) {
        const text = file.type === 'chunk' ? file.code : String(file.source);
        const fault = foreignHost(text) ?? (name.endsWith('.html') ? inlined(text) : null);
        if (fault) this.error(`${name} is not self-contained: ${fault}`);
      }
    },
  };
}

// The names of XML vocabularies look like addresses, but nothing is ever fetched from them.
function foreignHost(text: string): string | null {
  const hosts = text.matchAll(/\b(?:https?|wss?):\/\/([\w-]+(?:\.[\w-]+)+)/g);
  return [...hosts].find(([, host]) => host !== 'www.w3.org')?.[0] ?? null;
}

function inlined(html: string): string | null {
  return /<style|<script(?![^>]*\ssrc=)|\s(?:style|on\w+)=|\bdata:/i.exec(html)?.[0] ?? null;
}
