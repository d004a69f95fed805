import { afterEach, describe, expect, it, vi } from 'vitest';
import { SignedInDocument, SignOutDocument } from '../../generated/graphql';
import { ApiError, describeError, describeSignInError, request, sentence, watchServerClock } from './http';
import { retryDelay, socketUrl } from './live';

const answer = (body: string, init: ResponseInit = {}) => {
  const fetch = vi.fn((_url: string, _init: RequestInit) => Promise.resolve(new Response(body, init)));
  vi.stubGlobal('fetch', fetch);
  return fetch;
};
const json = { headers: { 'Content-Type': 'application/graphql-response+json' } };
const failure = async () => {
  try {
    await request(SignedInDocument, {});
  } catch (error) {
    return error as ApiError;
  }
  throw new Error('it did not fail');
};

afterEach(() => vi.unstubAllGlobals());

describe('a request', () => {
  it('is a same-origin POST that a foreign page cannot send', async () => {
    const fetch = answer('{"data":{"signOut":{"ok":true}}}', json);
    expect(await request(SignOutDocument, {})).toEqual({ signOut: { ok: true } });
    const [url, init] = fetch.mock.calls[0]!;
    expect(url).toBe('/graphql');
    expect(init).toMatchObject({ method: 'POST', credentials: 'same-origin' });
    expect(init.headers).toMatchObject({ 'Content-Type': 'application/json', 'X-CSRF': '1' });
    expect(JSON.parse(init.body as string).query).toContain('mutation SignOut');
  });

  it('fails with the code of a GraphQL error, whatever the status', async () => {
    answer('{"errors":[{"message":"sign in first","extensions":{"code":"UNAUTHENTICATED"}}]}', { ...json, status: 401 });
    expect(await failure()).toMatchObject({ code: 'UNAUTHENTICATED', message: 'sign in first' });
  });

  it('fails as unreachable when something else answers, or nothing', async () => {
    answer('<h1>Bad gateway</h1>', { status: 502, headers: { 'Content-Type': 'text/html' } });
    expect(await failure()).toMatchObject({ code: 'UNREACHABLE' });
    answer('{"data":', json);
    expect(await failure()).toMatchObject({ code: 'UNREACHABLE' });
    vi.stubGlobal('fetch', () => Promise.reject(new TypeError('network')));
    expect(await failure()).toMatchObject({ code: 'UNREACHABLE' });
  });

  it('tells the server\'s clock', async () => {
    const clock = vi.fn();
    watchServerClock(clock);
    const headers = { ...json.headers, Date: new Date(Date.now() + 300_000).toUTCString() };
    answer('{"data":{"viewer":null}}', { headers });
    await request(SignedInDocument, {});
    expect(clock.mock.calls[0]![0]).toBeGreaterThan(298_000);
  });
});

it('does not call a page at a wrong address a wrong password', () => {
  const said = (code: string) => describeSignInError(new ApiError(code, 'not signed in'));
  expect(said('UNAUTHENTICATED')).toContain('password');
  expect(said('FORBIDDEN')).toContain('address');
  expect(said('FORBIDDEN')).not.toContain('password');
  expect(said('RATE_LIMITED')).toBe('Not signed in.');
});

it('shows errors as sentences', () => {
  expect(sentence('the number is not valid')).toBe('The number is not valid.');
  expect(sentence('Really?')).toBe('Really?');
  expect(describeError(new ApiError('INVALID_INPUT', 'destination: "abc" is no number'))).toBe('Destination: "abc" is no number.');
  expect(describeError(new TypeError('x is undefined'))).not.toContain('undefined');
});

describe('the socket', () => {
  it('is on the page\'s own host, as safe as the page', () => {
    expect(socketUrl('https://calls.example/x?y#z')).toBe('wss://calls.example/graphql/ws');
    expect(socketUrl('http://127.0.0.1:8080/')).toBe('ws://127.0.0.1:8080/graphql/ws');
  });

  it('is opened again after growing, bounded waits that differ between pages', () => {
    expect([0, 1, 2, 3].map((retries) => retryDelay(retries, 1))).toEqual([500, 1000, 2000, 4000]);
    expect(retryDelay(1000, 1)).toBe(15_000);
    expect(retryDelay(3, 0)).toBe(2000);
  });
});
