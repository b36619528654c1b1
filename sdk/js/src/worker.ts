/** A worker: pools of slots, the keeper of their leases, and an end that loses nothing. */

import { randomBytes } from "node:crypto";
import { hostname } from "node:os";

import type { Api } from "./api.js";
import { Climber, RUNGS, type Rung, type Transport } from "./climber.js";
import type { Counters } from "./counters.js";
import { CrewError } from "./errors.js";
import type { Handler } from "./handler.js";
import { serveHealth, type HealthOptions } from "./health.js";
import { LeaseKeeper } from "./lease_keeper.js";
import { COURIERS, Pool } from "./pool.js";
import { Aborted, Flag } from "./waiting.js";

/** How a worker works. Times are in seconds. */
export interface Options {
  /** The worker's name for itself; made of the host and the process where none is given. */
  workerId?: string;
  /** Shared by the channels that name none of their own. 10 */
  concurrency?: number;
  /** How long a lease lasts unless it is extended: how soon others take over when this worker dies. 60 */
  leaseSeconds?: number;
  /** The longest long poll. 20 */
  waitSeconds?: number;
  /** Tasks claimed beyond the free slots, to be at hand when one is free. 0 */
  prefetch?: number;
  /** How long handlers may go on after SIGTERM. 30 */
  stopSeconds?: number;
  /** How long the last results may take to be delivered. 10 */
  deliverSeconds?: number;
  /** How long an answer may be overdue before the call is sent again. 10 */
  silenceSeconds?: number;
  /** auto climbs to streams when they hold; long-poll, websocket or sse stays with one. auto */
  transport?: Transport;
  /** An HTTP endpoint with /healthz and /metrics. None */
  health?: HealthOptions;
}

const DEFAULTS = {
  concurrency: 10,
  leaseSeconds: 60,
  waitSeconds: 20,
  prefetch: 0,
  stopSeconds: 30,
  deliverSeconds: 10,
  transport: "auto" as Transport,
};

/** Runs until `stop` is called. */
export class Worker {
  readonly id: string;
  private readonly options: Options & typeof DEFAULTS;
  private readonly stop_ = new Flag();
  private readonly cancelling = new Flag();
  private pools: Pool[] = [];
  private climbers: Climber[] = [];
  private error: unknown;

  constructor(
    private readonly api: Api,
    private readonly handlers: readonly Handler[],
    options: Options,
    readonly counters: Counters,
  ) {
    this.options = { ...DEFAULTS, ...options };
    this.id = options.workerId ?? `${hostname()}-${process.pid}-${randomBytes(3).toString("hex")}`;
  }

  /** How tasks come now; of several pools' transports the lowest. */
  get transport(): Rung {
    return RUNGS.find((rung) => this.climbers.some((climber) => climber.now === rung)) ?? "long-poll";
  }

  get running(): number {
    return this.pools.reduce((sum, pool) => sum + pool.running.size, 0);
  }

  get undelivered(): number {
    return this.pools.reduce((sum, pool) => sum + pool.outbox.length, 0);
  }

  get repeats(): number {
    return this.api.repeats;
  }

  get stopping(): boolean {
    return this.stop_.isSet;
  }

  /** Claim nothing more, finish what runs. Called again: cut that off too. */
  stop(): void {
    if (this.stop_.isSet) this.cancelling.set();
    this.stop_.set();
  }

  /** Works until it is stopped. Rejects with Refused when the server will not have its claims. */
  async run(): Promise<void> {
    if (!this.handlers.length) throw new CrewError("no task is registered: call crew.task(channel, handler)");
    const { leaseSeconds, transport, health } = this.options;
    const keeper = new LeaseKeeper(this.api, leaseSeconds);
    const shares = this.shares();
    this.pools = shares.map(([handlers, slots]) => this.pool(handlers, slots, keeper, shares.length));
    this.climbers = this.pools.map((pool) => new Climber(pool, transport));
    const server = health && (await serveHealth(this, health));
    const climbing = new AbortController();
    const working = new AbortController();
    const climbs = this.climbers.map((climber) => this.loop(climber.run(climbing.signal)));
    const loops = [keeper.run(working.signal), ...this.pools.flatMap((pool) => couriers(pool, working.signal))].map((run) => this.loop(run));
    for (const pool of this.pools) pool.startPolling();
    this.api.logger.log("info", "the worker works", { worker_id: this.id, channels: this.handlers.map((h) => h.channel) });
    try {
      await this.stop_.wait();
      for (const pool of this.pools) pool.stopping = true;
      climbing.abort();
      await Promise.all(climbs);
      await Promise.all(this.pools.map((pool) => pool.stop()));
      await this.finish();
    } finally {
      climbing.abort();
      working.abort();
      await Promise.all([...climbs, ...loops]);
      server?.close();
    }
    if (this.error) throw this.error;
  }

  /** A loop that ends by itself ends well, unless it throws: then the worker stops. */
  private async loop(run: Promise<void>): Promise<void> {
    try {
      await run;
    } catch (error) {
      if (error instanceof Aborted) return;
      this.fail(error);
    }
  }

  private fail(error: unknown): void {
    this.error ??= error;
    this.stop_.set();
  }

  /** Channels with slots of their own, and those that share the worker's. */
  private shares(): [Handler[], number][] {
    const own: [Handler[], number][] = [];
    const shared: Handler[] = [];
    for (const handler of this.handlers) {
      if (handler.concurrency === undefined) shared.push(handler);
      else own.push([[handler], handler.concurrency]);
    }
    return shared.length ? [...own, [shared, this.options.concurrency]] : own;
  }

  private pool(handlers: Handler[], slots: number, keeper: LeaseKeeper, pools: number): Pool {
    // A stream of a worker ends its older one, so each pool is a worker of its own to the server.
    const name = pools === 1 ? this.id : `${this.id}/${handlers.map((handler) => handler.channel).join("+")}`;
    const { leaseSeconds, waitSeconds, prefetch } = this.options;
    const byChannel = new Map(handlers.map((handler) => [handler.channel, handler]));
    const settings = { leaseSeconds, waitSeconds, prefetch };
    const pool: Pool = new Pool(name.slice(0, 255), byChannel, slots, this.api, keeper, settings, this.counters, () => this.fail(pool.pollError));
    return pool;
  }

  /** Wait for handlers, then for their results to be delivered. */
  private async finish(): Promise<void> {
    const { stopSeconds, deliverSeconds } = this.options;
    const { logger } = this.api;
    logger.log("info", "the worker stops", { worker_id: this.id, running: this.running });
    const done = new Flag();
    void Promise.all(this.pools.flatMap((pool) => pool.works)).then(() => done.set());
    await Promise.race([done.waitFor(stopSeconds), this.cancelling.wait()]);
    if (!done.isSet) {
      logger.log("warn", "handlers are cut off", { worker_id: this.id, running: this.running });
      for (const pool of this.pools) pool.cancel();
      await done.waitFor(deliverSeconds);
    }
    await Promise.all(this.pools.map((pool) => pool.outbox.atRest.waitFor(deliverSeconds)));
    if (this.undelivered || this.pools.some((pool) => !pool.outbox.atRest.isSet)) {
      logger.log("error", "results could not be delivered: their leases run out", { worker_id: this.id, undelivered: this.undelivered });
    }
  }
}

function couriers(pool: Pool, signal: AbortSignal): Promise<void>[] {
  return Array.from({ length: COURIERS }, () => pool.deliver(signal));
}

/** SIGTERM and SIGINT stop it; a second one cuts it off. Call what it answers to have them as before. */
export function onSignals(worker: Worker): () => void {
  const stop = () => worker.stop();
  process.on("SIGTERM", stop).on("SIGINT", stop);
  return () => process.off("SIGTERM", stop).off("SIGINT", stop);
}
