import { clockOffset } from '../model/time';
import type { TypedDocumentString } from '../../generated/graphql';

const TIMEOUT_MS = 15_000;

/** `code`: errors[].extensions.code, or UNREACHABLE when no answer of the API came back. */
export class ApiError extends Error {
  constructor(
    readonly code: string,
    message: string,
  ) {
    super(message);
    this.name = 'ApiError';
  }
}

/** Called with each answer's clock offset in milliseconds (see `clockOffset`). */
export type OnClock = (offset: number) => void;

let onClock: OnClock = () => undefined;
export function watchServerClock(callback: OnClock): void {
  onClock = callback;
}

/** Sends one operation with the session cookie. Throws `ApiError` and nothing else. */
export async function request<R, V>(document: TypedDocumentString<R, V>, variables: V): Promise<R> {
  const answer = await post(JSON.stringify({ query: document.toString(), variables }));
  const error = answer.errors?.[0];
  if (error) throw new ApiError(error.extensions?.code ?? 'INTERNAL', error.message);
  if (!answer.data) throw new ApiError('INTERNAL', 'The server sent an empty answer.');
  return answer.data as R;
}

interface Answer {
  data?: unknown;
  errors?: { message: string; extensions?: { code?: string } }[];
}

async function post(body: string): Promise<Answer> {
  const sentAt = Date.now();
  let response: Response;
  try {
    response = await fetch('/graphql', {
      method: 'POST',
      credentials: 'same-origin',
      redirect: 'error',
      headers: {
        Accept: 'application/graphql-response+json, application/json',
        'Content-Type': 'application/json',
        'X-CSRF': '1',
      },
      body,
      signal: AbortSignal.timeout(TIMEOUT_MS),
    });
  } catch {
    throw new ApiError('UNREACHABLE', 'The server cannot be reached.');
  }
  onClock(clockOffset(response.headers.get('Date'), sentAt, Date.now()));
  return read(response);
}

async function read(response: Response): Promise<Answer> {
  // A GraphQL error may come with any status; what is not JSON came from something in between.
  const isJson = /[/+]json\b/.test(response.headers.get('Content-Type') ?? '');
  try {
    if (isJson) return (await response.json()) as Answer;
  } catch {
    // cut off on the way
  }
  if (response.status === 429) throw new ApiError('RATE_LIMITED', 'too many requests: wait a little and try again');
  throw new ApiError('UNREACHABLE', `The server cannot answer at the moment (HTTP ${response.status}).`);
}

/** An error as something to show. */
export function describeError(error: unknown): string {
  if (!(error instanceof ApiError)) return 'Something went wrong on this page. Reload it and try again.';
  switch (error.code) {
    case 'UNREACHABLE':
      return `${error.message} Check your connection.`;
    case 'UNAVAILABLE':
    case 'INTERNAL':
      return 'The server has a problem at the moment. Try again soon.';
    default:
      return sentence(error.message);
  }
}

/** Why nobody was signed in. FORBIDDEN is about the page, not the password: see `http.public_url`. */
export function describeSignInError(error: unknown): string {
  switch (error instanceof ApiError ? error.code : '') {
    case 'UNAUTHENTICATED':
    case 'NOT_FOUND':
      return 'This e-mail address and password do not match.';
    case 'FORBIDDEN':
      return 'The server does not know the address at which you opened this page as its own. Use the one you were given.';
    case 'MFA_REQUIRED':
      return 'This account asks for a second step, which this page does not offer. Use the app.';
    default:
      return describeError(error);
  }
}

/** Messages of the API are lower case without a full stop; a page's are not. */
export function sentence(message: string): string {
  const text = message.trim();
  if (text === '') return text;
  return text.charAt(0).toUpperCase() + text.slice(1) + (/[.!?]$/.test(text) ? '' : '.');
}
