/** Whole seconds from an RFC 3339 time to `now` in milliseconds, never negative. */
export function secondsSince(at: string, now: number): number {
  return Math.max(0, Math.floor((now - Date.parse(at)) / 1000));
}

/** Whole seconds from `now` to an RFC 3339 time, never negative. */
export function secondsUntil(at: string, now: number): number {
  return Math.max(0, Math.floor((Date.parse(at) - now) / 1000));
}

/** "0:07", "12:30", "1:02:03". */
export function formatDuration(seconds: number): string {
  const whole = Math.max(0, Math.floor(seconds));
  const two = (n: number) => String(n).padStart(2, '0');
  const [h, m, s] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  return h > 0 ? `${h}:${two(m)}:${two(s)}` : `${m}:${two(s)}`;
}

/** "7 s", "12 min 30 s", "3 h 5 min": for reading, with seconds only below an hour. */
export function describeDuration(seconds: number): string {
  const whole = Math.max(0, Math.floor(seconds));
  const [h, m, s] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  const parts = h > 0 ? [`${h} h`, m > 0 && `${m} min`] : [m > 0 && `${m} min`, (s > 0 || m === 0) && `${s} s`];
  return parts.filter(Boolean).join(' ');
}

/** The same for machines, as `<time datetime>` wants it: "PT12M30S". */
export function isoDuration(seconds: number): string {
  return `PT${Math.max(0, Math.floor(seconds))}S`;
}

/** "20 s", "10 min": one unit, rounded. */
export function roughDuration(milliseconds: number): string {
  const seconds = Math.round(milliseconds / 1000);
  return seconds < 90 ? `${seconds} s` : `${Math.round(seconds / 60)} min`;
}

/** The time of day; with the day before it when that is not today. */
export function formatWhen(at: string, now: number, locale?: string): string {
  const date = new Date(at);
  if (Number.isNaN(date.getTime())) return at;
  const today = date.toDateString() === new Date(now).toDateString();
  return new Intl.DateTimeFormat(locale, { dateStyle: today ? undefined : 'medium', timeStyle: 'short' }).format(date);
}

/** The same for a moment to come, to the second when it is less than an hour away. */
export function formatComing(at: string, now: number, locale?: string): string {
  const date = new Date(at);
  if (Number.isNaN(date.getTime()) || date.getTime() - now >= 3_600_000) return formatWhen(at, now, locale);
  return new Intl.DateTimeFormat(locale, { timeStyle: 'medium' }).format(date);
}

/** Date, time and time zone in full. */
export function formatInFull(at: string, locale?: string): string {
  const date = new Date(at);
  if (Number.isNaN(date.getTime())) return at;
  return new Intl.DateTimeFormat(locale, { dateStyle: 'long', timeStyle: 'long' }).format(date);
}

/**
 * Milliseconds to add to this machine's clock to have the server's, from the Date header of an answer. Many clocks are
 * minutes off, and a call's duration would be too. The header has whole seconds and the answer took time, so a difference
 * that these explain counts as none.
 */
export function clockOffset(dateHeader: string | null, sentAt: number, receivedAt: number): number {
  const server = dateHeader === null ? NaN : Date.parse(dateHeader);
  if (Number.isNaN(server)) return 0;
  const offset = server + 500 - (sentAt + receivedAt) / 2;
  return Math.abs(offset) <= 1000 + (receivedAt - sentAt) / 2 ? 0 : Math.round(offset);
}
