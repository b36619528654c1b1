/** Results on their way to the server: kept until it has answered for each. */

import { encode } from "./json.js";
import type { Json } from "./api.js";
import { Flag } from "./waiting.js";

/** Past so many undelivered results a worker claims nothing more. */
const LIMIT = 10_000;
export const LIST_NAMES = { completeTasks: "results", failTasks: "failures", releaseLeases: "leases" } as const;
export type ResultField = keyof typeof LIST_NAMES;
export const RESULT_FIELDS = Object.keys(LIST_NAMES) as ResultField[];

/** One item of one field of Mutation, as JSON text. `fallback`: it says already that something was refused. */
export interface Result {
  lease: string;
  field: ResultField;
  text: string;
  fallback?: boolean;
}

/** Throws TypeError where the output is no JSON. */
export function completed(item: Json): Result {
  return { lease: item["lease"], field: "completeTasks", text: encode(item) };
}

/** An error that is no JSON is told as text: the attempt fails all the same. */
export function failed(item: Json, fallback = false): Result {
  let text: string;
  try {
    text = encode(item);
  } catch {
    text = encode({ ...item, error: String(item["error"]) });
  }
  return { lease: item["lease"], field: "failTasks", text, fallback };
}

export function released(lease: string): Result {
  return { lease, field: "releaseLeases", text: encode(lease) };
}

/** Field → its input as JSON. */
export function variables(results: readonly Result[]): Partial<Record<ResultField, string>> {
  const made: Partial<Record<ResultField, string>> = {};
  for (const field of RESULT_FIELDS) {
    const texts = results.filter((result) => result.field === field).map((result) => result.text);
    if (texts.length) made[field] = `{"${LIST_NAMES[field]}":[${texts.join()}]}`;
  }
  return made;
}

/** First in, first out, to several couriers. `atRest` is set while nothing is in it and nothing is on its way. */
export class Outbox {
  readonly atRest = new Flag();
  private readonly arrived = new Flag();
  private results: Result[] = [];
  private onWay = 0;

  constructor(
    private readonly batch = 1000,
    private readonly batchCharacters = 4_000_000,
  ) {
    this.atRest.set();
  }

  get length(): number {
    return this.results.length;
  }

  get full(): boolean {
    return this.results.length >= LIMIT;
  }

  put(result: Result): void {
    this.results.push(result);
    this.atRest.clear();
    this.arrived.set();
  }

  /** Resolves when there is something to send. */
  async arrival(signal: AbortSignal): Promise<void> {
    await this.arrived.wait(signal);
    // What ends in the same turn of the loop goes in the same request.
    await new Promise((resolve) => setImmediate(resolve));
  }

  /** The next batch, none where another courier was first. `answered` is to be called when all of it is answered. */
  take(): Result[] {
    let size = 0;
    let n = 0;
    for (; n < this.results.length && n < this.batch; n++) {
      size += this.results[n]!.text.length;
      if (n > 0 && size > this.batchCharacters) break;
    }
    const taken = this.results.splice(0, n);
    if (!this.results.length) this.arrived.clear();
    this.onWay += Number(taken.length > 0);
    return taken;
  }

  /** One batch is. */
  answered(): void {
    this.onWay--;
    if (!this.results.length && !this.onWay) this.atRest.set();
  }
}
