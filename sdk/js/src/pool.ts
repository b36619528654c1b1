/**
 * The slots of some channels: what runs in them, what fetches their tasks, and what hands in their results.
 *
 * Loops of two kinds, so that no result ever waits behind a long poll:
 *
 *     couriers  send what has ended and, in the same document, claim for the slots that are free now (without waiting); there
 *               are two, so that in a large pool one half works while the other half's results are on their way
 *     poller    waits for tasks with a long poll while there are free slots and nothing to send; a stream takes its place
 *               while one holds (climber.ts). The poll that is out then is left to end by itself: cut off, it might be
 *               claimed for by a proxy that has not noticed
 */

import { setImmediate as nextTurn } from "node:timers/promises";

import { KEY_CODES, now, requestBody, type Answer, type Api, type Json } from "./api.js";
import { pause } from "./backoff.js";
import type { Counters } from "./counters.js";
import { mutation, type Field } from "./documents.js";
import { CrewError, RateLimited, Refused } from "./errors.js";
import type { Handler } from "./handler.js";
import { newId } from "./ids.js";
import { encode } from "./json.js";
import { GONE, type Held, type LeaseKeeper } from "./lease_keeper.js";
import { Outbox, RESULT_FIELDS, completed, failed, released, variables, type Result, type ResultField } from "./outbox.js";
import { Cancelled, Task } from "./task.js";
import { attempt } from "./tracing.js";
import { brief, completion, failure, stopped } from "./verdict.js";
import { Aborted, Flag, sleep } from "./waiting.js";

export const COURIERS = 2;
/** What a courier leaves to the other: no fewer results than these are worth a request of their own. */
const SMALL_BATCH = 50;
/** How long a claim that was cut off may take to tell what came of it. */
const COLLECT_SECONDS = 5;
/** How long a handler may take to heed its signal when the worker is cut off. */
const HEED_SECONDS = 1;

/** What all pools of a worker share. */
export interface Settings {
  leaseSeconds: number;
  waitSeconds: number;
  prefetch: number;
}

/** A lease in hand, and what is done about it. */
interface Run {
  task: Task;
  held: Held;
  lost?: string;
  stopped: boolean;
  /** Set when the worker waits for the handler no longer. */
  abandoned: Flag;
  work?: Promise<void>;
}

export class Pool {
  readonly channels: string[];
  readonly outbox: Outbox;
  readonly running = new Map<string, Run>();
  /** The leases that came, their results not yet answered. */
  readonly inHand = new Set<string>();
  /** A poll was answered: the server is there. */
  readonly polled = new Flag();
  streaming = false;
  stopping = false;
  /** Why the poller ended, if it did not end well. */
  pollError: unknown;
  private polling: Promise<void> | undefined;
  private pollCut = new AbortController();
  private waiting: Run[] = [];
  private reserved = 0;
  private readonly share: number;
  private readonly changed = new Flag();

  constructor(
    readonly workerId: string,
    private readonly handlers: ReadonlyMap<string, Handler>,
    readonly slots: number,
    readonly api: Api,
    private readonly keeper: LeaseKeeper,
    readonly settings: Settings,
    private readonly counters: Counters,
    private readonly onPollError: () => void,
  ) {
    this.channels = [...handlers.keys()];
    this.share = Math.max(SMALL_BATCH, Math.ceil((slots + settings.prefetch) / COURIERS));
    this.outbox = new Outbox(Math.min(1000, this.share));
  }

  // -- slots

  /** Slots that nothing runs in, waits for or was claimed for. */
  get free(): number {
    if (this.stopping || this.outbox.full) return 0;
    return this.slots + this.settings.prefetch - this.running.size - this.waiting.length - this.reserved;
  }

  /** Start the leases that came. Those for which there is no room go back untouched. */
  take(leases: readonly Json[], pushed = false): void {
    for (const lease of leases) {
      if (this.keeper.holds(lease["id"])) continue;
      const run = this.hold(lease, pushed);
      if (this.stopping) this.giveBack(run);
      else if (this.running.size < this.slots) this.start(run);
      else if (pushed || this.waiting.length < this.settings.prefetch) this.waiting.push(run);
      else this.giveBack(run);
    }
  }

  private hold(lease: Json, pushed: boolean): Run {
    const task = new Task(lease, this.workerId, this.api.logger, () => this.keeper.progressed());
    const held: Held = {
      task,
      due: this.keeper.dueFor(pushed),
      started: false,
      giveUp: (code) => this.lose(run, code),
      giveBack: () => this.giveBack(run),
    };
    const run: Run = { task, held, stopped: false, abandoned: new Flag() };
    this.inHand.add(task.leaseId);
    this.keeper.keep(held);
    return run;
  }

  private start(run: Run): void {
    run.held.started = true;
    this.running.set(run.task.leaseId, run);
    run.work = this.work(run);
  }

  /** Its result would count for nothing: stop the handler. */
  private lose(run: Run, code: string): void {
    run.lost = code;
    this.keeper.drop(run.task.leaseId);
    this.inHand.delete(run.task.leaseId);
    run.task.cut();
    if (run.held.started) {
      run.task.log.warn("the lease is gone: the handler is stopped", { code });
    } else if (this.unqueue(run)) {
      this.note(run, "lost");
      this.turn();
    }
  }

  /** Unstarted, so nothing happened to it. */
  private giveBack(run: Run): void {
    this.unqueue(run);
    this.keeper.drop(run.task.leaseId);
    this.note(run, "released");
    this.outbox.put(released(run.task.leaseId));
    this.turn();
  }

  private unqueue(run: Run): boolean {
    const place = this.waiting.indexOf(run);
    if (place >= 0) this.waiting.splice(place, 1);
    return place >= 0;
  }

  /** A slot was freed: the next in line, and whoever waits for a change. */
  private turn(): void {
    while (this.waiting.length && this.running.size < this.slots && !this.stopping) this.start(this.waiting.shift()!);
    this.changed.set();
  }

  // -- handlers

  private async work(run: Run): Promise<void> {
    const { task } = run;
    const began = now();
    const result = await this.attempt(run);
    this.keeper.drop(task.leaseId);
    this.running.delete(task.leaseId);
    this.counters.add("crew_worker_seconds_total", { channel: task.channel }, now() - began);
    this.turn();
    if (result) this.outbox.put(result);
  }

  /** The result to hand in; nothing when the lease is lost. */
  private async attempt(run: Run): Promise<Result | undefined> {
    const { task } = run;
    let result: Result | undefined;
    let outcome: string;
    try {
      const handling = attempt(task, () => this.handlers.get(task.channel)!.handle(task));
      const returned = await Promise.race([handling, run.abandoned.wait().then(() => Promise.reject(new Cancelled()))]);
      result = completed(completion(task, returned));
      outcome = "completed";
    } catch (error) {
      if (run.stopped && isCancellation(error)) {
        result = failed(stopped(task));
        outcome = "stopped";
      } else {
        if (!run.lost) result = this.failed(task, error);
        outcome = "failed";
      }
    }
    if (run.lost) {
      result = undefined;
      outcome = "lost";
    }
    this.note(run, outcome);
    return result;
  }

  private failed(task: Task, error: unknown): Result {
    if (error instanceof RateLimited) {
      task.log.info("rate limited", { seconds: error.seconds });
      this.shutOut(task.workgroup);
    } else {
      task.log.warn("failed", { reason: brief(error) });
    }
    return failed(failure(task, error));
  }

  /** What waits here for a workgroup that is rate-limited goes back. */
  private shutOut(workgroup: string | null): void {
    for (const run of this.waiting.filter((run) => workgroup && run.task.workgroup === workgroup)) this.giveBack(run);
  }

  private note(run: Run, outcome: string): void {
    this.counters.add("crew_worker_tasks_total", { channel: run.task.channel, outcome });
  }

  // -- claims

  private claim(limit: number, wait: number): Json {
    return {
      workerId: this.workerId,
      channels: this.channels,
      limit,
      leaseSeconds: this.settings.leaseSeconds,
      waitSeconds: wait,
      claimId: newId(),
    };
  }

  private async poll(signal: AbortSignal): Promise<void> {
    for (;;) {
      while (!this.over && !(this.free > 0 && this.outbox.atRest.isSet)) {
        this.changed.clear();
        await this.changed.wait(signal);
      }
      if (this.over) return;
      const limit = this.free;
      this.reserved += limit;
      let leases: Json[];
      try {
        // The first one only asks whether the server is there.
        leases = await this.claimed(this.claim(limit, this.polled.isSet ? this.settings.waitSeconds : 0), signal);
      } finally {
        this.reserved -= limit;
      }
      this.polled.set();
      this.take(leases);
      // Handlers first: what those that do not wait return is handed in, and more claimed, by one request.
      await nextTurn();
    }
  }

  private get over(): boolean {
    return this.stopping || this.streaming;
  }

  /** The leases of a claim. Cut off while it waits, it asks once more what came of it. */
  private async claimed(claim: Json, signal: AbortSignal): Promise<Json[]> {
    try {
      return await this.sendClaim(claim, { signal });
    } catch (error) {
      if (!(error instanceof Aborted)) throw error;
      return this.sendClaim({ ...claim, waitSeconds: 0 }, { patience: COLLECT_SECONDS });
    }
  }

  private async sendClaim(claim: Json, options: { patience?: number; signal?: AbortSignal }): Promise<Json[]> {
    const body = requestBody(mutation("claimTasks"), { claimTasks: encode(claim) });
    return leasesOf(await this.api.call(body, { ...options, wait: claim["waitSeconds"] }));
  }

  // -- results

  /** One courier. */
  async deliver(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      await this.outbox.arrival(signal);
      const results = this.outbox.take();
      if (!results.length) continue;
      const limit = this.streaming ? 0 : Math.max(0, Math.min(this.free, this.share));
      this.reserved += limit;
      try {
        await this.exchange(results, signal, limit ? this.claim(limit, 0) : undefined);
      } finally {
        this.reserved -= limit;
      }
      this.outbox.answered();
      this.changed.set();
    }
  }

  /** Hand in results and, in the same document, claim. What is refused as a whole goes in halves, at last alone. */
  private async exchange(results: readonly Result[], signal: AbortSignal, claim?: Json): Promise<void> {
    const inputs: Partial<Record<Field, string>> = { ...variables(results), ...(claim && { claimTasks: encode(claim) }) };
    const body = requestBody(mutation(...(Object.keys(inputs) as Field[])), inputs as Record<string, string>);
    let answer: Answer;
    for (let tries = 0; ; tries++) {
      answer = await this.api.call(body, { signal });
      const refused = [answer.whole, ...Object.values(answer.refused)].find((r) => r && KEY_CODES.has(r.code));
      if (!refused) break;
      this.api.logger.log("error", "results are kept until the server takes the key", { reason: refused.message });
      await sleep(pause(tries, 1, 30), signal);
    }
    for (const field of RESULT_FIELDS) {
      const sent = results.filter((result) => result.field === field);
      if (sent.length) await this.read(sent, field, answer, signal, results.length === 1 && !claim);
    }
    if (claim && !answer.whole) this.take(leasesOf(answer));
  }

  /** What the server said to the results of one field. */
  private async read(sent: readonly Result[], field: ResultField, answer: Answer, signal: AbortSignal, alone: boolean): Promise<void> {
    const refused = answer.whole ?? answer.refused[field];
    if (refused && (alone || (sent.length === 1 && !answer.whole))) {
      this.refused(sent[0]!, refused);
    } else if (refused) {
      const half = (sent.length + 1) >> 1;
      for (const part of [sent.slice(0, half), sent.slice(half)]) if (part.length) await this.exchange(part, signal);
    } else {
      const errors = new Map<string, Json>(answer.data[field].errors.map((error: Json) => [error["lease"], error]));
      for (const result of sent) {
        const error = errors.get(result.lease);
        if (!error || GONE.has(error["code"])) this.answered(result, error);
        else this.refused(result, new Refused(error["message"], error["code"], error["path"] ?? []));
      }
    }
  }

  private answered(result: Result, error?: Json): void {
    this.inHand.delete(result.lease);
    if (error && result.field !== "releaseLeases") {
      this.api.logger.log("warn", "a result came too late", { lease_id: result.lease, code: error["code"], reason: error["message"] });
    }
  }

  /** The lease still stands: the attempt fails with the server's own words. */
  private refused(result: Result, why: Refused): void {
    this.api.logger.log("error", "a result was refused", { field: result.field, lease_id: result.lease, reason: why.message });
    if (result.field === "releaseLeases" || (result.fallback && result.field === "failTasks")) {
      this.inHand.delete(result.lease);
      return;
    }
    const told = { code: why.code, message: why.reason, path: why.path.map(String) };
    this.outbox.put(failed({ lease: result.lease, error: told }, true));
  }

  // -- streams

  /** Tasks come by a stream from now on. */
  streamStands(): void {
    this.streaming = true;
    this.changed.set();
  }

  streamEnded(): void {
    this.streaming = false;
    this.startPolling();
  }

  // -- the end

  startPolling(): void {
    if (this.stopping || this.polling) return;
    this.pollCut = new AbortController();
    this.polling = this.poll(this.pollCut.signal)
      .catch((error: unknown) => {
        if (error instanceof Aborted) return;
        if (this.stopping && error instanceof CrewError) {
          this.api.logger.log("warn", "what the last claim got is unknown", { reason: error.message });
          return;
        }
        this.pollError = error;
        this.onPollError();
      })
      .finally(() => (this.polling = undefined));
  }

  /** No more claims; what has not started goes back. */
  async stop(): Promise<void> {
    this.stopping = true;
    this.changed.set();
    this.pollCut.abort();
    await this.polling;
    for (const run of [...this.waiting]) this.giveBack(run);
  }

  /** Cut the handlers off. */
  cancel(): void {
    for (const run of this.running.values()) {
      run.stopped = true;
      run.task.cut();
      setTimeout(() => run.abandoned.set(), HEED_SECONDS * 1000).unref();
    }
  }

  get works(): Promise<void>[] {
    return [...this.running.values()].map((run) => run.work!);
  }
}

function isCancellation(error: unknown): boolean {
  return error instanceof Cancelled || (error instanceof Error && error.name === "AbortError");
}

/** Throws Refused. */
function leasesOf(answer: Answer): Json[] {
  return answer.get("claimTasks").leases;
}
