import { describe, expect, it } from 'vitest';
import { formatCost, formatHeld, formatRate, isZero, splitHeld } from './money';

const eur = (amount: string) => ({ amount, currency: 'EUR' });
const en = { locale: 'en-US' };

describe('money', () => {
  it('shows what is held rounded towards zero', () => {
    expect(formatHeld(eur('9.999999'), en)).toBe('€9.99');
    expect(formatHeld(eur('0.009'), en)).toBe('€0.00');
    expect(formatHeld(eur('10'), en)).toBe('€10.00');
  });

  it('shows every digit of a cost, and at least the currency\'s own', () => {
    expect(formatCost(eur('0.012345'), en)).toBe('€0.012345');
    expect(formatCost(eur('0.5'), en)).toBe('€0.50');
    expect(formatCost(eur('0'), en)).toBe('€0.00');
  });

  it('shows a rate to the nano-unit', () => {
    expect(formatRate(eur('0.012345678'), en)).toBe('€0.012345678');
    expect(formatRate(eur('0.02'), en)).toBe('€0.02');
  });

  it('never passes through a floating-point number', () => {
    expect(formatHeld(eur('9223372036854.775807'), { ...en, minimumDigits: 6 })).toBe('€9,223,372,036,854.775807');
    expect(formatCost(eur('9007199254740993.000001'), en)).toBe('€9,007,199,254,740,993.000001');
  });

  it('follows the currency and the language', () => {
    expect(formatHeld({ amount: '1234.5', currency: 'JPY' }, en)).toBe('¥1,234');
    expect(formatHeld(eur('1234.5'), { locale: 'de-DE' })).toBe('1.234,50\u00a0€');
  });

  it('shows what it cannot read as it came', () => {
    expect(formatHeld({ amount: 'unknown', currency: 'EUR' }, en)).toBe('unknown EUR');
    expect(formatCost({ amount: '1.5', currency: '?' }, en)).toBe('1.5 ?');
    expect(splitHeld({ amount: '', currency: 'EUR' }, true, 'en-US')).toEqual([{ text: ' EUR', fine: false }]);
  });

  it('sets the digits below a cent apart', () => {
    expect(splitHeld(eur('9.876599'), true, 'en-US')).toEqual([
      { text: '€9.87', fine: false },
      { text: '65', fine: true },
    ]);
    expect(splitHeld(eur('9.876599'), true, 'de-DE')).toEqual([
      { text: '9,87', fine: false },
      { text: '65', fine: true },
      { text: '\u00a0€', fine: false },
    ]);
    expect(splitHeld({ amount: '12', currency: 'JPY' }, true, 'en-US')).toEqual([
      { text: '¥12', fine: false },
      { text: '.0000', fine: true },
    ]);
  });

  it('leaves out those that are zero while nothing moves', () => {
    const text = (amount: string) => splitHeld(eur(amount), false, 'en-US').map((part) => part.text);
    expect([text('10'), text('9.528'), text('9.876599')]).toEqual([['€10.00'], ['€9.52', '8'], ['€9.87', '65']]);
  });

  it('knows zero in every spelling', () => {
    expect(['0', '0.00', '0.000000', '-0.0'].map((amount) => isZero(eur(amount)))).toEqual([true, true, true, true]);
    expect(isZero(eur('0.000001'))).toBe(false);
  });
});
