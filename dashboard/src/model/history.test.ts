import { describe, expect, it } from 'vitest';
import { addSample, chart, microsToDecimal, span, WINDOW_MS, type Sample } from './history';

const now = 1_000_000_000;
const sample = (secondsAgo: number, micros: bigint): Sample => ({ at: now - secondsAgo * 1000, micros });
const collect = (...samples: Sample[]) => samples.reduce<Sample[]>((all, one) => addSample(all, one, now), []);

describe('the balance history', () => {
  it('is in order of time, also when a missed event comes late', () => {
    const history = collect(sample(30, 9n), sample(10, 7n), sample(20, 8n));
    expect(history.map((one) => one.micros)).toEqual([9n, 8n, 7n]);
  });

  it('keeps one sample from before the window, where the line starts', () => {
    const history = collect(sample(900, 12n), sample(700, 11n), sample(10, 10n));
    expect(history.map((one) => one.micros)).toEqual([11n, 10n]);
  });

  it('does not grow while nothing changes', () => {
    const history = collect(...Array.from({ length: 500 }, (_, index) => sample(500 - index, 5n)));
    expect(history.length).toBeLessThanOrEqual(2);
  });
});

describe('the chart', () => {
  it('is empty before the first sample', () => {
    expect(chart([], now, 100, 50)).toBeNull();
  });

  it('draws a steady balance in the middle', () => {
    expect(chart([sample(120, 5n)], now, 100, 50)?.line).toBe('M0 25H100V25');
  });

  it('goes back to the first sample, by some seconds at least and the window at most', () => {
    expect([[], [sample(5, 1n)], [sample(200, 1n)], [sample(5000, 1n)]].map((history) => span(history, now))).toEqual([
      15_000, 15_000, 200_000, WINDOW_MS,
    ]);
    expect(chart([sample(6, 5n)], now, 100, 50)?.line).toBe('M60 25H100V25');
  });

  it('steps down from left to right', () => {
    const drawn = chart([sample(WINDOW_MS / 1000, 10n), sample(300, 6n), sample(60, 0n)], now, 100, 50);
    expect(drawn?.line).toBe('M0 0H50V20H90V50H100V50');
    expect([drawn?.low, drawn?.high]).toEqual([0n, 10n]);
  });
});

it('writes micro-units as a decimal number', () => {
  expect([0n, 1n, 12345678n, -1500000n].map(microsToDecimal)).toEqual(['0.000000', '0.000001', '12.345678', '-1.500000']);
});
