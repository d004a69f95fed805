// What the page knows of the account, and how each event changes it: a pure function, so that a replay after a lost
// connection ends where an unbroken stream would have.

import type { AccountEventsSubscription, DashboardQuery } from '../../generated/graphql';
import { isFinished, type Call } from './call';
import { addSample, type Sample } from './history';

export type Account = NonNullable<NonNullable<DashboardQuery['viewer']>['account']>;
export type AccountEvent = AccountEventsSubscription['accountEvents'];
export type Balance = Account['balance'];
export type SipCredential = Account['sipCredentials'][number];

/** How many finished calls are kept. */
export const RECENT_CALLS = 25;

export interface AccountState {
  status: string;
  currency: string;
  /** The last event seen; the next connection continues after it. */
  cursor: string;
  /** Finished calls, newest first. */
  recent: Call[];
  /** Seconds left at the last warning, by call. */
  warnings: Record<string, number>;
  history: Sample[];
  /** The server no longer has the events that were missed: everything must be read again. */
  outdated: boolean;
}

/** The state after a snapshot. What `before` knew and the snapshot does not tell (the chart) is kept. */
export function fromSnapshot(account: Account, before: AccountState | null, now: number): AccountState {
  const calls = account.calls.edges.map((edge) => edge.node);
  const sample = { at: now, micros: BigInt(account.balance.remaining.micros) };
  return {
    status: account.status,
    currency: account.currency,
    cursor: account.eventCursor,
    recent: [...(before?.recent ?? []), ...calls].reduce(withCall, []),
    warnings: {},
    history: addSample(before?.history ?? [], sample, now),
    outdated: false,
  };
}

/** The state after an event. Kinds of events that this page does not know only move the cursor. */
export function applyEvent(state: AccountState, event: AccountEvent, now: number): AccountState {
  const next = { ...state, cursor: event.cursor };
  switch (event.__typename) {
    case 'CallChanged':
      next.recent = withCall(state.recent, event.call);
      if (isFinished(event.call)) next.warnings = withWarning(state.warnings, event.call.id, null);
      break;
    case 'CallWarning':
      next.warnings = withWarning(state.warnings, event.call.id, event.secondsLeft);
      break;
    case 'BalanceChanged': {
      const sample = { at: Date.parse(event.at), micros: BigInt(event.balance.remaining.micros) };
      next.history = addSample(state.history, sample, now);
      break;
    }
    case 'AccountChanged':
      next.status = event.account.status;
      break;
    case 'SnapshotRequired':
      next.outdated = true;
      break;
  }
  return next;
}

/** The state after a figure of the balance subscription. */
export function applyBalance(state: AccountState, balance: Balance, now: number): AccountState {
  return { ...state, history: addSample(state.history, { at: now, micros: BigInt(balance.remaining.micros) }, now) };
}

// A finished call never changes, so the order in which snapshots and events bring it does not matter.
function withCall(recent: Call[], call: Call): Call[] {
  if (!isFinished(call)) return recent;
  return [...recent.filter((one) => one.id !== call.id), call].sort(newestFirst).slice(0, RECENT_CALLS);
}

function newestFirst(a: Call, b: Call): number {
  return Date.parse(b.startedAt) - Date.parse(a.startedAt) || (a.id < b.id ? 1 : -1);
}

function withWarning(warnings: Record<string, number>, id: string, secondsLeft: number | null): Record<string, number> {
  const { [id]: _, ...others } = warnings;
  return secondsLeft === null ? others : { ...others, [id]: secondsLeft };
}
