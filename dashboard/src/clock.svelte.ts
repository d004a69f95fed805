import { createSubscriber } from 'svelte/reactivity';

/** The server's time, ticking while something on the page shows it. */
class Clock {
  #offset = 0;
  #subscribe = createSubscriber((update) => {
    const timer = setInterval(update, 500);
    return () => clearInterval(timer);
  });

  /** Milliseconds since 1970. What reads it in a template or effect is updated twice a second. */
  get now(): number {
    this.#subscribe();
    return this.peek();
  }

  /** The same at this moment, without updates. */
  peek(): number {
    return Date.now() + this.#offset;
  }

  setOffset(milliseconds: number): void {
    this.#offset = milliseconds;
  }
}

export const clock = new Clock();
