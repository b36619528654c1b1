/** Waiting: for a time, for a flag, and for no longer than an AbortSignal allows. */

export class Aborted extends Error {
  constructor() {
    super("aborted");
    this.name = "Aborted";
  }
}

/** Resolves after `seconds`; rejects with Aborted when the signal is. */
export function sleep(seconds: number, signal?: AbortSignal): Promise<void> {
  return unlessAborted(
    (done) => {
      const timer = setTimeout(done, seconds * 1000);
      return () => clearTimeout(timer);
    },
    signal,
  );
}

/** Starts something that calls `done`; gives it up, and rejects with Aborted, when the signal is aborted. */
function unlessAborted(start: (done: () => void) => () => void, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    if (signal?.aborted) return reject(new Aborted());
    const abort = () => {
      giveUp();
      reject(new Aborted());
    };
    const giveUp = start(() => {
      signal?.removeEventListener("abort", abort);
      resolve();
    });
    signal?.addEventListener("abort", abort, { once: true });
  });
}

/** A flag that can be waited for. */
export class Flag {
  isSet = false;
  private waiters = new Set<() => void>();

  set(): void {
    this.isSet = true;
    for (const wake of this.waiters) wake();
    this.waiters.clear();
  }

  clear(): void {
    this.isSet = false;
  }

  wait(signal?: AbortSignal): Promise<void> {
    if (this.isSet) return Promise.resolve();
    return unlessAborted((done) => {
      this.waiters.add(done);
      return () => this.waiters.delete(done);
    }, signal);
  }

  /** Whether it was set within `seconds`. */
  async waitFor(seconds: number, signal?: AbortSignal): Promise<boolean> {
    let timer: NodeJS.Timeout | undefined;
    const timeUp = new Promise<void>((resolve) => (timer = setTimeout(resolve, seconds * 1000)));
    const waiting = new AbortController();
    const stop = () => waiting.abort();
    signal?.addEventListener("abort", stop, { once: true });
    try {
      await Promise.race([this.wait(waiting.signal), timeUp]);
      return this.isSet;
    } finally {
      clearTimeout(timer);
      signal?.removeEventListener("abort", stop);
      waiting.abort();
    }
  }
}
