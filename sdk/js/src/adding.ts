/** Tasks that many callers add to one group, each for itself: those that come while calls are on the way share the next. */

import { setImmediate as nextTurn } from "node:timers/promises";

import type { Json } from "./api.js";
import { Refused } from "./errors.js";

/** So many calls are on the way at once, each of so many tasks at most. */
const [AT_ONCE, MOST] = [2, 200];

/** A NewTask, and whoever waits until it is created. */
interface Added {
  task: Json;
  created: () => void;
  failed: (error: unknown) => void;
}

/** A task is sent at once while fewer than two calls are on the way. Each fares as if it had been sent alone. */
export class Adding {
  private waiting: Added[] = [];
  private couriers = 0;

  constructor(private readonly create: (tasks: Json[]) => Promise<unknown>) {}

  /** Until it is created. Rejects as its call does. */
  add(task: Json): Promise<void> {
    return new Promise((created, failed) => {
      this.waiting.push({ task, created, failed });
      if (this.couriers < AT_ONCE) void this.carry();
    });
  }

  private async carry(): Promise<void> {
    this.couriers++;
    // What is added in the same breath, and by those who were just answered, goes along.
    for (await nextTurn(); this.waiting.length; await nextTurn()) await this.send(this.waiting.splice(0, MOST));
    this.couriers--;
  }

  private async send(piece: Added[]): Promise<void> {
    const pieces = [piece];
    for (let next = pieces.pop(); next; next = pieces.pop()) {
      try {
        await this.create(next.map((added) => added.task));
        for (const added of next) added.created();
      } catch (error) {
        const parts = apart(next, error);
        pieces.push(...parts);
        if (!parts.length) for (const added of next) added.failed(error);
      }
    }
  }
}

/**
 * A call creates all or nothing. What to send instead of a call that was refused, the last first: the task that the refusal names by
 * itself, after the others; or halves.
 */
function apart(piece: Added[], error: unknown): Added[][] {
  if (piece.length === 1 || !(error instanceof Refused)) return [];
  const n = error.path.includes("tasks") ? error.path[error.path.indexOf("tasks") + 1] : undefined;
  const named = typeof n === "number" && piece[n];
  if (named) return [[named], piece.filter((added) => added !== named)];
  const half = Math.floor(piece.length / 2);
  return error.code === "TOO_LARGE" ? [piece.slice(half), piece.slice(0, half)] : [];
}
