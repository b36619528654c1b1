/** Keeps leases for as long as their handlers run, and hears which are lost and which may go back. */

import { KEY_CODES, now, requestBody, type Api, type Json } from "./api.js";
import { mutation } from "./documents.js";
import { CrewError, Refused } from "./errors.js";
import { encode } from "./json.js";
import type { Progress, Task } from "./task.js";
import { Flag } from "./waiting.js";

/** A beat comes when a third of the lease is over; those due soon after go along. */
const BEAT = 1 / 3;
const ALONG = 1 / 6;
/** A pushed lease is an offer until a call names it. */
const CONFIRM_SECONDS = 1;
const PROGRESS_SECONDS = 0.5;
const BATCH = 1000;
export const GONE = new Set(["LOST", "CANCELLED", "UNKNOWN"]);

/** A lease in hand: `giveUp` is called when it is lost, `giveBack` when it is unstarted and may go. */
export interface Held {
  task: Task;
  due: number;
  started: boolean;
  giveUp(code: string): void;
  giveBack(): void;
}

export class LeaseKeeper {
  private readonly held = new Map<string, Held>();
  private readonly woken = new Flag();

  constructor(
    private readonly api: Api,
    private readonly seconds: number,
  ) {}

  keep(held: Held): void {
    this.held.set(held.task.leaseId, held);
    this.woken.set();
  }

  drop(lease: string): void {
    this.held.delete(lease);
  }

  holds(lease: string): boolean {
    return this.held.has(lease);
  }

  dueFor(pushed: boolean): number {
    return now() + (pushed ? Math.min(CONFIRM_SECONDS, this.seconds * BEAT) : this.seconds * BEAT);
  }

  progressed(): void {
    this.woken.set();
  }

  async run(signal: AbortSignal): Promise<void> {
    let last = 0;
    while (!signal.aborted) {
      const began = now();
      let due = began + 3600;
      for (const held of this.held.values()) {
        due = Math.min(due, held.due, held.task.lastProgress.news ? last + PROGRESS_SECONDS : Infinity);
      }
      if (due > began) {
        this.woken.clear();
        await this.woken.waitFor(due - began, signal);
        continue;
      }
      last = began;
      const until = began + this.seconds * ALONG;
      const beat = [...this.held.values()].filter((held) => held.due <= until || held.task.lastProgress.news);
      for (let start = 0; start < beat.length; start += BATCH) await this.extend(beat.slice(start, start + BATCH), signal);
    }
  }

  private async extend(beat: Held[], signal: AbortSignal, withProgress = true): Promise<void> {
    const told = new Map<string, Progress>();
    for (const { task } of beat) if (task.lastProgress.news) told.set(task.leaseId, task.lastProgress);
    const wanted: Json = { leases: beat.map((held) => held.task.leaseId), leaseSeconds: this.seconds };
    if (told.size && withProgress) {
      wanted["progress"] = [...told].map(([lease, { fraction, message }]) => ({ lease, fraction, message }));
    }
    const body = requestBody(mutation("extendLeases"), { extendLeases: encode(wanted) });
    let answer: Json;
    try {
      answer = (await this.api.call(body, { patience: this.seconds * BEAT, signal })).get("extendLeases");
    } catch (error) {
      if (error instanceof Refused) await this.refused(beat, error, signal, withProgress);
      else if (error instanceof CrewError) this.api.logger.log("warn", "leases could not be extended", { reason: error.message });
      else throw error;
      return;
    }
    this.beaten(beat, told);
    for (const lost of answer["errors"]) if (GONE.has(lost.code)) this.held.get(lost.lease)?.giveUp(lost.code);
    for (const lease of answer["suspended"]) {
      const held = this.held.get(lease);
      if (held && !held.started) held.giveBack();
    }
  }

  /** Refused as a whole: sent again in halves, at last one by one and without what it says. */
  private async refused(beat: Held[], why: Refused, signal: AbortSignal, withProgress: boolean): Promise<void> {
    if (KEY_CODES.has(why.code) || (beat.length === 1 && !withProgress)) {
      this.api.logger.log("error", "leases were not extended", { reason: why.message });
      this.beaten(beat, new Map());
    } else if (beat.length === 1) {
      beat[0]!.task.lastProgress.news = false;
      await this.extend(beat, signal, false);
    } else {
      const half = beat.length >> 1;
      await this.extend(beat.slice(0, half), signal, withProgress);
      await this.extend(beat.slice(half), signal, withProgress);
    }
  }

  private beaten(beat: Held[], told: Map<string, Progress>): void {
    const due = now() + this.seconds * BEAT;
    for (const held of beat) {
      held.due = due;
      const said = told.get(held.task.leaseId);
      if (said && held.task.lastProgress === said) said.news = false;
    }
  }
}
