import type { CallFieldsFragment, LiveCallFieldsFragment } from '../../generated/graphql';
import { formatNumber } from './phone';

export type Call = CallFieldsFragment;
export type LiveCall = LiveCallFieldsFragment;

/** How good or bad something is; `live` for what is going on now. */
export type Tone = 'good' | 'bad' | 'neutral' | 'live';

/** A call that will not change any more, also in a state newer than this page. */
export function isFinished(call: { state: string; endedAt: string | null }): boolean {
  return call.state === 'ENDED' || call.state === 'REFUSED' || call.endedAt !== null;
}

const STATES: Record<string, string> = {
  AUTHORIZING: 'Checking',
  ROUTING: 'Finding a route',
  RINGING_CALLER: 'Ringing your phone',
  RINGING: 'Ringing',
  ANSWERED: 'In call',
  ENDING: 'Hanging up',
  ENDED: 'Ended',
  REFUSED: 'Refused',
};

export function stateLabel(state: string): string {
  return STATES[state] ?? humanize(state);
}

export function stateTone(state: string): Tone {
  return state === 'ANSWERED' ? 'good' : state === 'ENDING' ? 'neutral' : 'live';
}

/** "SOME_NEW_VALUE", "some_reason" or a SIP phrase such as "Busy Here" as words; a sentence stays a sentence. */
export function humanize(text: string): string {
  const isCodeOrPhrase = /^\S*$|^[A-Z][a-z]+( [A-Z][a-z]+)+$/.test(text);
  const words = isCodeOrPhrase ? text.replaceAll('_', ' ').toLowerCase() : text;
  return words.charAt(0).toUpperCase() + words.slice(1);
}

/** Whom the call is to: the number, else what the phone sent, else that it was erased. */
export function calledParty(call: { destination: string | null; dialled: string | null }): string {
  if (call.destination !== null) return formatNumber(call.destination);
  return call.dialled ?? 'Number erased';
}

/** The caller ID the person called sees. */
export function shownNumber(call: { presentedNumber: string | null; withheld: boolean }): string {
  if (call.withheld) return 'no number (withheld)';
  return call.presentedNumber === null ? 'no number' : formatNumber(call.presentedNumber);
}

/** How a finished call came out, in a word or two, and why. */
export interface Outcome {
  label: string;
  tone: Tone;
  detail: string;
}

export function outcome(call: Call): Outcome {
  const { refusal } = call.explanation;
  if (call.state === 'REFUSED' || refusal) {
    return { label: 'Refused', tone: 'bad', detail: refusal ? humanize(refusal.message) : '' };
  }
  const reason = call.hangup ? humanize(call.hangup.reason) : '';
  if (call.answeredAt !== null) return { label: 'Answered', tone: 'good', detail: endedBy(call.hangup?.side, reason) };
  return { label: unanswered(call), tone: 'neutral', detail: reason };
}

function endedBy(side: string | undefined, reason: string): string {
  switch (side) {
    case 'CALLER':
      return 'You hung up';
    case 'CALLEE':
      return 'They hung up';
    default:
      return reason; // we or the carrier: the reason says why
  }
}

// RFC 3261 §21 and RFC 8197, in the words a phone would use.
function unanswered(call: Call): string {
  switch (call.hangup?.sipCode) {
    case 486:
    case 600:
      return 'Busy';
    case 408:
    case 480:
      return 'No answer';
    case 487:
      return 'Cancelled';
    case 603:
    case 607:
    case 608:
      return 'Declined';
    case 404:
    case 410:
    case 484:
    case 604:
      return 'Not in service';
    default:
      return call.hangup?.side === 'CALLER' ? 'Cancelled' : 'Not answered';
  }
}

/** Seconds from answer to end; null when the call was never answered. */
export function talkSeconds(call: { answeredAt: string | null; endedAt: string | null }): number | null {
  if (call.answeredAt === null || call.endedAt === null) return null;
  return Math.max(0, Math.ceil((Date.parse(call.endedAt) - Date.parse(call.answeredAt)) / 1000));
}
