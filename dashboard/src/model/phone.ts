// ITU-T E.164 country codes of one and two digits; all others have three.
const ONE = new Set(['1', '7']);
const TWO = new Set(
  ('20 27 30 31 32 33 34 36 39 40 41 43 44 45 46 47 48 49 51 52 53 54 55 56 57 58 60 61 62 63 64 65 66 ' +
    '81 82 84 86 90 91 92 93 94 95 98').split(' '),
);

/**
 * "+44 770 090 0123": the country code, then groups of three with four at the end where one would be left over. Not each
 * country's own habit (that needs its whole numbering plan), but readable and the same everywhere. Anything that is not
 * E.164 comes back as it is.
 */
export function formatNumber(number: string): string {
  if (!/^\+[1-9]\d{5,14}$/.test(number)) return number;
  const digits = number.slice(1);
  const length = ONE.has(digits.slice(0, 1)) ? 1 : TWO.has(digits.slice(0, 2)) ? 2 : 3;
  const groups = digits.slice(length).match(/\d{3}(?=\d{2})|\d{1,4}/g) ?? [];
  return ['+' + digits.slice(0, length), ...groups].join('\u00a0');
}
