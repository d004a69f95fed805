// The remaining balance over the last minutes, for the chart. Amounts are micro-units as bigint; only the distance from
// the lowest one, in pixels, becomes a number.

export const WINDOW_MS = 10 * 60 * 1000;

export interface Sample {
  /** Milliseconds since 1970. */
  at: number;
  micros: bigint;
}

/**
 * `history` with `sample` in its place by time. What is older than the window goes, but for the last one before it: that
 * is the level the line starts from. A sample between two equal ones says nothing and is left out.
 */
export function addSample(history: readonly Sample[], sample: Sample, now: number): Sample[] {
  const sorted = [...history.filter((one) => one.at !== sample.at), sample].sort((a, b) => a.at - b.at);
  const start = sorted.findLastIndex((one) => one.at <= now - WINDOW_MS);
  return sorted.slice(Math.max(0, start)).filter((one, index, all) => {
    const [before, after] = [all[index - 1], all[index + 1]];
    return before?.micros !== one.micros || after?.micros !== one.micros;
  });
}

export interface Chart {
  /** SVG path of the line, and of the area below it. */
  line: string;
  area: string;
  /** The amounts at the bottom and the top of the line. */
  low: bigint;
  high: bigint;
}

/** The least the chart shows: a call that has just begun is to be seen, not a sliver at the edge. */
const LEAST_MS = 15_000;

/** How far back the chart goes: to the first sample, within these bounds. */
export function span(history: readonly Sample[], now: number): number {
  return Math.min(WINDOW_MS, Math.max(LEAST_MS, now - (history[0]?.at ?? now)));
}

/** The chart in a box of `width` by `height`: time runs to the right and ends now. Null before the first sample. */
export function chart(history: readonly Sample[], now: number, width: number, height: number): Chart | null {
  const first = history[0];
  const last = history.at(-1);
  if (!first || !last) return null;
  const amounts = history.map((one) => one.micros);
  const low = amounts.reduce((a, b) => (b < a ? b : a));
  const high = amounts.reduce((a, b) => (b > a ? b : a));
  const back = span(history, now);
  const x = (at: number) => pixel(width * Math.min(1, Math.max(0, 1 - (now - at) / back)));
  const y = (micros: bigint) =>
    high === low ? height / 2 : pixel(height * (1 - Number(micros - low) / Number(high - low)));
  const points = [...history, { at: now, micros: last.micros }];
  // A balance holds its value until it changes: steps, no slopes.
  const line = `M${x(first.at)} ${y(first.micros)}` + points.slice(1).map((p) => `H${x(p.at)}V${y(p.micros)}`).join('');
  return { line, area: `${line}V${height}H${x(first.at)}Z`, low, high };
}

function pixel(value: number): number {
  return Math.round(value * 10) / 10;
}

/** Micro-units as a decimal string: 12345678n is "12.345678". */
export function microsToDecimal(micros: bigint): string {
  const digits = (micros < 0n ? -micros : micros).toString().padStart(7, '0');
  return `${micros < 0n ? '-' : ''}${digits.slice(0, -6)}.${digits.slice(-6)}`;
}
