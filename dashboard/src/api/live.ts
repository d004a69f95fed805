import { createClient, type Client } from 'graphql-ws/client';
import type { AccountEvent, Balance } from '../model/account';
import type { LiveCall } from '../model/call';
import {
  AccountEventsDocument,
  BalanceUpdatesDocument,
  LiveCallUpdatesDocument,
  type TypedDocumentString,
} from '../../generated/graphql';

export interface LiveHandlers {
  balance(balance: Balance): void;
  liveCalls(calls: LiveCall[]): void;
  event(event: AccountEvent): void;
  /** The cursor to continue after; asked for at each (re)connection. */
  cursor(): string;
  /** The socket is up, or down and being opened again. */
  connected(up: boolean): void;
  /** Awaited before each new attempt to connect. */
  beforeRetry(): Promise<void>;
  /** The subscriptions are over and will not come back by themselves. */
  ended(): void;
}

const KEEP_ALIVE_MS = 20_000;
const PONG_WAIT_MS = 10_000;
const LONGEST_WAIT_MS = 15_000;

/** Opens one socket with the three subscriptions and keeps it open. Returns what closes it. */
export function openLive(handlers: LiveHandlers): () => void {
  let closed = false;
  const ended = () => {
    if (!closed) {
      close();
      handlers.ended();
    }
  };
  const client = connect({ ...handlers, connected: (up) => closed || handlers.connected(up) });
  const subscribe = <R, V extends Record<string, unknown>>(
    document: TypedDocumentString<R, V>,
    variables: V,
    next: (data: R) => void,
  ) =>
    client.subscribe<R>(
      { query: document.toString(), variables },
      {
        next: ({ data, errors }) => {
          if (closed) return;
          if (errors || !data) ended();
          else next(data);
        },
        error: ended,
        complete: ended,
      },
    );
  const stops = [
    subscribe(BalanceUpdatesDocument, {}, (data) => handlers.balance(data.balance)),
    subscribe(LiveCallUpdatesDocument, {}, (data) => handlers.liveCalls(data.liveCalls)),
    // Serialized anew at each reconnection, when the getter gives the cursor as it is then.
    subscribe(
      AccountEventsDocument,
      {
        get after() {
          return handlers.cursor();
        },
      },
      (data) => handlers.event(data.accountEvents),
    ),
  ];
  function close(): void {
    closed = true;
    for (const stop of stops) stop();
    void client.dispose();
  }
  return close;
}

function connect(handlers: LiveHandlers): Client {
  let pong: ReturnType<typeof setTimeout> | undefined;
  const client = createClient({
    url: socketUrl(location.href),
    keepAlive: KEEP_ALIVE_MS,
    connectionAckWaitTimeout: PONG_WAIT_MS,
    retryAttempts: Infinity,
    // Revoked sessions (4401, 4403) are not retried: the page asks who is signed in instead.
    shouldRetry: (reason) => !isForbidden(reason),
    retryWait: async (retries) => {
      await new Promise((resolve) => setTimeout(resolve, retryDelay(retries, Math.random())));
      await handlers.beforeRetry();
    },
    on: {
      connected: () => handlers.connected(true),
      closed: () => {
        clearTimeout(pong);
        handlers.connected(false);
      },
      ping: (received) => {
        // A socket whose network has gone looks open for minutes.
        if (!received) pong = setTimeout(() => client.terminate(), PONG_WAIT_MS);
      },
      pong: (received) => {
        if (received) clearTimeout(pong);
      },
    },
  });
  return client;
}

/** Milliseconds before attempt number `retries`: doubling from half a second, with up to as much again by chance. */
export function retryDelay(retries: number, chance: number): number {
  const base = Math.min(LONGEST_WAIT_MS, 500 * 2 ** Math.min(retries, 10));
  return base * (0.5 + chance / 2);
}

export function socketUrl(page: string): string {
  const url = new URL('/graphql/ws', page);
  url.protocol = url.protocol === 'https:' ? 'wss:' : 'ws:';
  return url.href;
}

function isForbidden(reason: unknown): boolean {
  const code = typeof reason === 'object' && reason !== null && 'code' in reason ? reason.code : null;
  return code === 4401 || code === 4403;
}
