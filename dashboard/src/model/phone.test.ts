import { expect, it } from 'vitest';
import { formatNumber } from './phone';

const plain = (number: string) => formatNumber(number).replaceAll('\u00a0', ' ');

it('groups a number after its country code', () => {
  expect(plain('+447700900123')).toBe('+44 770 090 0123');
  expect(plain('+12025550123')).toBe('+1 202 555 0123');
  expect(plain('+35312345678')).toBe('+353 123 456 78');
  expect(plain('+4930123456')).toBe('+49 301 234 56');
});

it('loses no digit', () => {
  for (let length = 6; length <= 15; length += 1) {
    const number = '+' + '499876543210123'.slice(0, length);
    expect(plain(number).replaceAll(' ', '')).toBe(number);
  }
});

it('leaves anything else as it is', () => {
  for (const text of ['', '100', '+0123456789', 'sip:alice', '<b>', '+1234567890123456']) {
    expect(formatNumber(text)).toBe(text);
  }
});
