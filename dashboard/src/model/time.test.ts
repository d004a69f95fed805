import { describe, expect, it } from 'vitest';
import { clockOffset, describeDuration, formatComing, formatDuration, formatWhen, isoDuration, roughDuration, secondsSince, secondsUntil } from './time';

describe('durations', () => {
  it('are clocked in minutes and seconds, with hours when there are any', () => {
    expect([0, 7, 59, 60, 750, 3599, 3600, 3723, 90000].map(formatDuration)).toEqual([
      '0:00', '0:07', '0:59', '1:00', '12:30', '59:59', '1:00:00', '1:02:03', '25:00:00',
    ]);
  });

  it('are described in words without zero parts', () => {
    expect([0, 7, 60, 750, 3600, 11_105].map(describeDuration)).toEqual([
      '0 s', '7 s', '1 min', '12 min 30 s', '1 h', '3 h 5 min',
    ]);
  });

  it('are never negative', () => {
    expect(formatDuration(-3)).toBe('0:00');
    expect(describeDuration(-3)).toBe('0 s');
    expect(isoDuration(-3)).toBe('PT0S');
    expect(secondsSince('2026-01-01T00:00:10Z', Date.parse('2026-01-01T00:00:00Z'))).toBe(0);
    expect(secondsUntil('2026-01-01T00:00:00Z', Date.parse('2026-01-01T00:00:10Z'))).toBe(0);
  });

  it('count whole seconds that have passed, or are left', () => {
    expect(secondsSince('2026-01-01T00:00:00.000Z', Date.parse('2026-01-01T00:00:01.999Z'))).toBe(1);
    expect(secondsUntil('2026-01-01T00:00:01.999Z', Date.parse('2026-01-01T00:00:00.000Z'))).toBe(1);
  });
});

describe('the time of a call', () => {
  const now = new Date(2026, 2, 5, 18, 0).getTime();

  it('leaves out the day when it is today', () => {
    expect(formatWhen(new Date(2026, 2, 5, 9, 5).toISOString(), now, 'en-GB')).toBe('09:05');
    expect(formatWhen(new Date(2026, 2, 4, 9, 5).toISOString(), now, 'en-GB')).toBe('4 Mar 2026, 09:05');
    expect(formatWhen(new Date(2026, 2, 5, 9, 5).toISOString(), now, 'en-US')).toMatch(/^9:05\sAM$/);
  });

  it('to come is told to the second when it is close, and with its day when it is not today', () => {
    expect(formatComing(new Date(2026, 2, 5, 18, 59, 30).toISOString(), now, 'en-GB')).toBe('18:59:30');
    expect(formatComing(new Date(2026, 2, 5, 19, 0, 30).toISOString(), now, 'en-GB')).toBe('19:00');
    expect(formatComing(new Date(2026, 2, 7, 9, 5).toISOString(), now, 'en-GB')).toBe('7 Mar 2026, 09:05');
  });

  it('shows what it cannot read as it came', () => {
    expect(formatWhen('soon', now)).toBe('soon');
    expect(formatComing('soon', now)).toBe('soon');
  });
});

describe('the server\'s clock', () => {
  const at = Date.parse('2026-01-01T12:00:00Z');
  const header = new Date(at).toUTCString();

  it('is taken to be ours when the header and the way explain the difference', () => {
    expect(clockOffset(header, at + 100, at + 900)).toBe(0);
    expect(clockOffset(header, at - 400, at + 200)).toBe(0);
  });

  it('corrects a clock that is minutes off', () => {
    expect(clockOffset(header, at - 120_000, at - 120_000)).toBe(120_500);
    expect(clockOffset(header, at + 60_500, at + 60_500)).toBe(-60_000);
  });

  it('is ours when the header is absent or unreadable', () => {
    expect(clockOffset(null, 0, 0)).toBe(0);
    expect(clockOffset('yesterday', 0, 0)).toBe(0);
  });
});

it('tells how long ago in one unit', () => {
  expect([15_400, 89_000, 95_000, 600_000].map(roughDuration)).toEqual(['15 s', '89 s', '2 min', '10 min']);
});
