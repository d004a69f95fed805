// Money stays a decimal string from the server to the screen. Intl formats decimal strings exactly (ES2023), so no amount
// is ever a floating-point number here.

export interface Money {
  /** A decimal number: "12.345678". */
  amount: string;
  /** ISO 4217: "EUR". */
  currency: string;
}

export interface MoneyFormat {
  /** BCP 47; the browser's when absent. */
  locale?: string | undefined;
  /** Digits after the decimal point at least, and at most. The currency's own number when absent. */
  minimumDigits?: number | undefined;
  maximumDigits?: number;
}

type Rounding = 'trunc' | 'ceil';

const DECIMAL = /^-?\d+(\.\d+)?$/;

function formatter(currency: string, rounding: Rounding, format: MoneyFormat): Intl.NumberFormat | null {
  const options: Intl.NumberFormatOptions = { style: 'currency', currency, roundingMode: rounding };
  try {
    const own = new Intl.NumberFormat(format.locale, options).resolvedOptions().maximumFractionDigits ?? 2;
    options.minimumFractionDigits = format.minimumDigits ?? own;
    options.maximumFractionDigits = Math.max(format.maximumDigits ?? own, options.minimumFractionDigits);
    return new Intl.NumberFormat(format.locale, options);
  } catch {
    return null; // not a currency code that this browser accepts
  }
}

function exact(amount: string): Intl.StringNumericLiteral {
  return amount as Intl.StringNumericLiteral;
}

/** What someone has: rounded towards zero, so that it never shows more than is there. */
export function formatHeld(money: Money, format: MoneyFormat = {}): string {
  return formatRounded(money, 'trunc', format);
}

/** What something costs: every digit the server sent, up to six, and at least the currency's own. */
export function formatCost(money: Money, format: MoneyFormat = {}): string {
  return formatRounded(money, 'ceil', { maximumDigits: 6, ...format });
}

/** A rate per minute: up to nine digits, as rates are kept in nano-units. */
export function formatRate(rate: Money, format: MoneyFormat = {}): string {
  return formatRounded(rate, 'ceil', { maximumDigits: 9, ...format });
}

function formatRounded(money: Money, rounding: Rounding, format: MoneyFormat): string {
  const number = DECIMAL.test(money.amount) ? formatter(money.currency, rounding, format) : null;
  return number ? number.format(exact(money.amount)) : `${money.amount} ${money.currency}`;
}

/** A run of characters of an amount; `fine` for the digits below the currency's smallest coin. */
export interface AmountPart {
  text: string;
  fine: boolean;
}

/**
 * An amount with up to four digits after the point, rounded towards zero, cut where the currency's own digits end: the big
 * figure of the page sets the rest smaller. While it is `moving` there are always four, so that it does not jump.
 */
export function splitHeld(money: Money, moving: boolean, locale?: string): AmountPart[] {
  const plain = formatter(money.currency, 'trunc', { locale });
  const fine = formatter(money.currency, 'trunc', { locale, minimumDigits: moving ? 4 : undefined, maximumDigits: 4 });
  if (!plain || !fine || !DECIMAL.test(money.amount)) {
    return [{ text: `${money.amount} ${money.currency}`, fine: false }];
  }
  const own = plain.resolvedOptions().maximumFractionDigits ?? 2;
  const parts: AmountPart[] = [];
  const add = (text: string, fine: boolean) => {
    const last = parts.at(-1);
    if (last?.fine === fine) last.text += text;
    else if (text !== '') parts.push({ text, fine });
  };
  for (const { type, value } of fine.formatToParts(exact(money.amount))) {
    const coarse = type === 'fraction' ? own : type === 'decimal' && own === 0 ? 0 : value.length;
    add(value.slice(0, coarse), false);
    add(value.slice(coarse), true);
  }
  return parts;
}

export function isZero(money: Money): boolean {
  return /^-?0+(\.0+)?$/.test(money.amount);
}
