import { describe, expect, it } from 'vitest';
import { applyBalance, applyEvent, fromSnapshot, RECENT_CALLS, type Account, type AccountEvent } from './account';
import type { Call } from './call';

const now = Date.parse('2026-01-01T12:00:00Z');
const money = (amount: string) => ({ amount, currency: 'EUR' });
const balance = (micros: bigint): Account['balance'] => ({
  remaining: { ...money('0'), micros: String(micros) },
  available: money('0'),
  reserved: money('0'),
  accrued: money('0'),
  burnPerMinute: money('0'),
  exhaustsAt: null,
});
const call = (id: string, state: Call['state'], minute = 0): Call => ({
  id,
  state,
  dialled: null,
  destination: '+447700900123',
  startedAt: new Date(now - 3_600_000 + minute * 60_000).toISOString(),
  answeredAt: null,
  endedAt: state === 'ENDED' ? new Date(now).toISOString() : null,
  cost: money('0'),
  hangup: null,
  explanation: { refusal: null },
});
const account = (calls: Call[]): Account => ({
  id: 'account',
  status: 'ACTIVE',
  currency: 'EUR',
  eventCursor: 'c0',
  balance: balance(10_000_000n),
  liveCalls: [],
  calls: { edges: calls.map((node) => ({ node })) },
  sipCredentials: [],
});
let counter = 0;
const event = (fields: object): AccountEvent =>
  ({ cursor: `c${(counter += 1)}`, at: new Date(now).toISOString(), ...fields }) as AccountEvent;
const ids = (calls: Call[]) => calls.map((one) => one.id);

describe('a snapshot', () => {
  it('gives finished calls only, newest first', () => {
    const state = fromSnapshot(account([call('a', 'ENDED', 1), call('live', 'ANSWERED', 2), call('b', 'REFUSED', 3)]), null, now);
    expect(ids(state.recent)).toEqual(['b', 'a']);
    expect(state.cursor).toBe('c0');
  });

  it('keeps the chart of the page it replaces', () => {
    const before = applyBalance(fromSnapshot(account([]), null, now - 5000), balance(9_000_000n), now - 1000);
    const after = fromSnapshot({ ...account([]), balance: balance(8_000_000n) }, before, now);
    expect(after.history.map((one) => one.micros)).toEqual([10_000_000n, 9_000_000n, 8_000_000n]);
  });
});

describe('an event', () => {
  const start = fromSnapshot(account([call('a', 'ENDED', 1)]), null, now);

  it('of a finished call puts it first, once', () => {
    const changed = event({ __typename: 'CallChanged', call: call('b', 'ENDED', 2) });
    const state = applyEvent(applyEvent(start, changed, now), changed, now);
    expect(ids(state.recent)).toEqual(['b', 'a']);
  });

  it('replayed from before the end does not bring a finished call back to life', () => {
    const state = applyEvent(start, event({ __typename: 'CallChanged', call: call('a', 'ANSWERED', 1) }), now);
    expect(state.recent).toEqual(start.recent);
  });

  it('moves the cursor, whatever its kind', () => {
    const changed = event({ __typename: 'SomethingNew' });
    expect(applyEvent(start, changed, now)).toEqual({ ...start, cursor: changed.cursor });
  });

  it('warns of a call, withdraws the warning, and forgets it when the call ends', () => {
    const warn = (id: string, secondsLeft: number | null) => event({ __typename: 'CallWarning', call: { id }, secondsLeft });
    const warned = applyEvent(applyEvent(start, warn('x', 30), now), warn('y', 60), now);
    expect(warned.warnings).toEqual({ x: 30, y: 60 });
    expect(applyEvent(warned, warn('x', null), now).warnings).toEqual({ y: 60 });
    expect(applyEvent(warned, event({ __typename: 'CallChanged', call: call('y', 'ENDED') }), now).warnings).toEqual({ x: 30 });
  });

  it('of the balance goes to its place in the chart', () => {
    const at = new Date(now - 60_000).toISOString();
    const state = applyEvent(start, event({ __typename: 'BalanceChanged', at, balance: balance(11_000_000n) }), now);
    expect(state.history.map((one) => one.micros)).toEqual([11_000_000n, 10_000_000n]);
  });

  it('of the account changes its status', () => {
    const changed = event({ __typename: 'AccountChanged', account: { id: 'account', status: 'SUSPENDED' } });
    expect(applyEvent(start, changed, now).status).toBe('SUSPENDED');
  });

  it('that a snapshot is required asks for one, and the snapshot answers it', () => {
    const outdated = applyEvent(start, event({ __typename: 'SnapshotRequired' }), now);
    expect(outdated.outdated).toBe(true);
    expect(fromSnapshot(account([]), outdated, now).outdated).toBe(false);
  });
});

it('keeps the newest calls only', () => {
  const many = Array.from({ length: 40 }, (_, index) => call(`n${index}`, 'ENDED', index));
  const state = fromSnapshot(account(many), null, now);
  expect(state.recent).toHaveLength(RECENT_CALLS);
  expect(state.recent[0]?.id).toBe('n39');
});
