import { describe, expect, it } from 'vitest';
import { calledParty, humanize, isFinished, outcome, shownNumber, stateLabel, talkSeconds, type Call } from './call';

const call = (fields: Partial<Call>): Call => ({
  id: '1',
  state: 'ENDED',
  dialled: '07700900123',
  destination: '+447700900123',
  startedAt: '2026-01-01T12:00:00Z',
  answeredAt: null,
  endedAt: '2026-01-01T12:01:00Z',
  cost: { amount: '0', currency: 'EUR' },
  hangup: null,
  explanation: { refusal: null },
  ...fields,
});
const hangup = (side: string, sipCode: number | null, reason = 'normal_clearing') =>
  ({ side, sipCode, reason }) as NonNullable<Call['hangup']>;

describe('a call\'s outcome', () => {
  it('is refused with the server\'s message', () => {
    const refusal = { code: 'INSUFFICIENT_BALANCE', message: 'the balance is too low for this call' } as const;
    expect(outcome(call({ state: 'REFUSED', explanation: { refusal } }))).toEqual({
      label: 'Refused',
      tone: 'bad',
      detail: 'The balance is too low for this call',
    });
  });

  it('says who hung up an answered call', () => {
    const answeredAt = '2026-01-01T12:00:10Z';
    const detail = (side: string) => outcome(call({ answeredAt, hangup: hangup(side, null, 'money_ran_out') })).detail;
    expect(['CALLER', 'CALLEE', 'SERVICE', 'SOMEONE_NEW'].map(detail)).toEqual([
      'You hung up', 'They hung up', 'Money ran out', 'Money ran out',
    ]);
  });

  it('says why a call was not answered', () => {
    const label = (code: number | null) => outcome(call({ hangup: hangup('CALLEE', code) })).label;
    expect([486, 480, 487, 603, 404, 500, null].map(label)).toEqual([
      'Busy', 'No answer', 'Cancelled', 'Declined', 'Not in service', 'Not answered', 'Not answered',
    ]);
    expect(outcome(call({})).label).toBe('Not answered');
  });
});

describe('enum values from a newer server', () => {
  it('are shown as words', () => {
    expect(stateLabel('ON_HOLD')).toBe('On hold');
    expect(humanize('A sentence stays.')).toBe('A sentence stays.');
    expect(humanize('Blocked by Some Carrier')).toBe('Blocked by Some Carrier');
    expect(humanize('Does Not Exist Anywhere')).toBe('Does not exist anywhere');
    expect(humanize('')).toBe('');
  });

  it('finish a call once it has an end', () => {
    expect(isFinished({ state: 'ON_HOLD', endedAt: null })).toBe(false);
    expect(isFinished({ state: 'TRANSFERRED', endedAt: '2026-01-01T12:00:00Z' })).toBe(true);
    expect(isFinished({ state: 'REFUSED', endedAt: null })).toBe(true);
  });
});

it('names the called party by the best that is left', () => {
  expect(calledParty({ destination: '+12025550123', dialled: '2025550123' })).toBe('+1\u00a0202\u00a0555\u00a00123');
  expect(calledParty({ destination: null, dialled: '100' })).toBe('100');
  expect(calledParty({ destination: null, dialled: null })).toBe('Number erased');
});

it('shows a withheld number as withheld', () => {
  expect(shownNumber({ presentedNumber: '+12025550123', withheld: true })).toBe('no number (withheld)');
  expect(shownNumber({ presentedNumber: null, withheld: false })).toBe('no number');
});

it('rounds talk time up, as the bill does', () => {
  expect(talkSeconds(call({ answeredAt: '2026-01-01T12:00:00.500Z', endedAt: '2026-01-01T12:00:02Z' }))).toBe(2);
  expect(talkSeconds(call({}))).toBeNull();
});
