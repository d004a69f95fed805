import {
  DashboardDocument,
  HangUpDocument,
  SignedInDocument,
  SignInDocument,
  SignOutDocument,
  SipCredentialsDocument,
} from '../generated/graphql';
import { ApiError, describeError, describeSignInError, request, watchServerClock } from './api/http';
import { openLive, retryDelay } from './api/live';
import { clock } from './clock.svelte';
import {
  applyBalance,
  applyEvent,
  fromSnapshot,
  type AccountState,
  type Balance,
  type SipCredential,
} from './model/account';
import type { LiveCall } from './model/call';

/** `starting`: not known yet whether anyone is signed in. */
export type Phase = 'starting' | 'signedOut' | 'signedIn';
/** `connecting`: for the first time; `lost`: it was there, or could not be had. */
export type Link = 'connecting' | 'live' | 'lost';

export interface Person {
  email: string;
  username: string;
}

/** All state of the page. Components read it and call its methods; it is the only one to talk to the server. */
export class Session {
  phase = $state<Phase>('starting');
  link = $state<Link>('connecting');
  /** Why the last attempt to load failed; null when it did not. */
  problem = $state<string | null>(null);
  /** What the sign-in form says first, such as that the session has ended. */
  notice = $state<string | null>(null);
  person = $state.raw<Person | null>(null);
  account = $state.raw<AccountState | null>(null);
  balance = $state.raw<Balance | null>(null);
  credentials = $state.raw<SipCredential[]>([]);
  #live = $state.raw<LiveCall[]>([]);

  #close: () => void = () => undefined;
  #retry: ReturnType<typeof setTimeout> | undefined;
  #failures = 0;
  /** Counts sign-ins and sign-outs: an answer to the one before is dropped. */
  #generation = 0;

  constructor() {
    watchServerClock((offset) => clock.setOffset(offset));
  }

  /** Live calls without those whose end an event has told already. */
  get liveCalls(): LiveCall[] {
    const finished = new Set(this.account?.recent.map((call) => call.id));
    return this.#live.filter((call) => !finished.has(call.id));
  }

  /** Reads everything and goes live. Repeats itself until the server can be reached. */
  async load(): Promise<void> {
    this.#stop();
    const generation = this.#generation;
    try {
      const { viewer } = await request(DashboardDocument, {});
      if (generation !== this.#generation) return;
      this.problem = null;
      if (!viewer) return this.#signedOut(this.phase === 'signedIn' ? SESSION_ENDED : null);
      this.person = viewer;
      this.phase = 'signedIn';
      if (viewer.account) this.#show(viewer.account);
    } catch (error) {
      if (generation !== this.#generation) return;
      this.#loadFailed(error);
    }
  }

  /** Signs in and loads. Returns what went wrong, to show at the form; null when nothing did. */
  async signIn(email: string, password: string): Promise<string | null> {
    try {
      const { signIn } = await request(SignInDocument, { input: { email, password } });
      if (signIn.challenge) return 'This account asks for a second step, which this page does not offer. Use the app.';
    } catch (error) {
      return describeSignInError(error);
    }
    this.#generation += 1;
    this.notice = null;
    await this.load();
    return null;
  }

  async signOut(): Promise<void> {
    try {
      await request(SignOutDocument, {});
    } catch (error) {
      if (!(error instanceof ApiError && error.code === 'UNAUTHENTICATED')) {
        this.problem = `You are still signed in. ${describeError(error)}`;
        return;
      }
    }
    this.#signedOut('You have signed out.');
  }

  /** Asks to end a call. Returns what went wrong, to show beside it; null when nothing did. */
  async hangUp(callId: string): Promise<string | null> {
    try {
      await request(HangUpDocument, { input: { callId } });
      return null;
    } catch (error) {
      if (error instanceof ApiError && error.code === 'UNAUTHENTICATED') this.#signedOut(SESSION_ENDED);
      return describeError(error);
    }
  }

  /** Reads which phones are registered: there is no event for that. */
  async refreshCredentials(): Promise<void> {
    const generation = this.#generation;
    try {
      const { viewer } = await request(SipCredentialsDocument, {});
      if (generation === this.#generation && viewer?.account) this.credentials = viewer.account.sipCredentials;
    } catch {
      // what is shown stays; the connection's own state says that there is a problem
    }
  }

  #show(account: Parameters<typeof fromSnapshot>[0]): void {
    this.account = fromSnapshot(account, this.account, clock.peek());
    this.balance = account.balance;
    this.#live = account.liveCalls;
    this.credentials = account.sipCredentials;
    this.#close = openLive({
      balance: (balance) => {
        this.#failures = 0; // not before: a server may answer the query and yet end the subscriptions at once
        this.balance = balance;
        this.account = this.account && applyBalance(this.account, balance, clock.peek());
      },
      liveCalls: (calls) => (this.#live = calls),
      event: (event) => {
        this.account = this.account && applyEvent(this.account, event, clock.peek());
        if (this.account?.outdated) void this.load();
      },
      cursor: () => this.account?.cursor ?? account.eventCursor,
      connected: (up) => (this.link = up ? 'live' : 'lost'),
      beforeRetry: () => this.#checkSignedIn(),
      ended: () => this.#loadLater(),
    });
  }

  async #checkSignedIn(): Promise<void> {
    try {
      const { viewer } = await request(SignedInDocument, {});
      if (!viewer) this.#signedOut(SESSION_ENDED);
    } catch {
      // not reachable either: the socket's own attempts go on
    }
  }

  #loadFailed(error: unknown): void {
    if (error instanceof ApiError && error.code === 'UNAUTHENTICATED') {
      this.#signedOut(this.phase === 'signedIn' ? SESSION_ENDED : null);
      return;
    }
    this.problem = describeError(error);
    this.#loadLater();
  }

  #loadLater(): void {
    this.link = 'lost';
    clearTimeout(this.#retry);
    this.#retry = setTimeout(() => void this.load(), retryDelay(this.#failures, Math.random()));
    this.#failures += 1;
  }

  #stop(): void {
    clearTimeout(this.#retry);
    this.#close();
    this.#close = () => undefined;
  }

  #signedOut(notice: string | null): void {
    this.#stop();
    this.#generation += 1;
    this.#failures = 0;
    this.phase = 'signedOut';
    this.link = 'connecting';
    this.notice = notice;
    this.problem = null;
    this.person = this.account = this.balance = null;
    this.#live = this.credentials = [];
  }
}

const SESSION_ENDED = 'Your session has ended. Sign in again.';
