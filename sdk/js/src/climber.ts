/**
 * Chooses the transport by the weather: from long polls up to a stream, back down when it breaks, and up again later.
 *
 * A pool starts with long polls. Once they are answered the climber opens a websocket, or else server-sent events, while
 * polling goes on; when the stream stands it takes over, and when it breaks polling goes on at once. A stream that held
 * is opened again soon; one that broke early or never opened is tried again after 5 s, 10 s, 20 s … up to 5 minutes.
 */

import { now } from "./api.js";
import { pause } from "./backoff.js";
import { CLAIMED_TASKS } from "./documents.js";
import { Refused } from "./errors.js";
import type { Pool } from "./pool.js";
import { Broken, sse, websocket, type Open } from "./stream.js";
import { sleep } from "./waiting.js";

export type Transport = "auto" | "long-poll" | "websocket" | "sse";
export type Rung = "long-poll" | "sse" | "websocket";
/** From the lowest up. */
export const RUNGS: readonly Rung[] = ["long-poll", "sse", "websocket"];

const OPENERS: Record<Exclude<Rung, "long-poll">, Open> = { websocket, sse };
const TRIED: Record<Transport, Exclude<Rung, "long-poll">[]> = {
  auto: ["websocket", "sse"],
  "long-poll": [],
  websocket: ["websocket"],
  sse: ["sse"],
};
const FIRST_TRY_SECONDS = 1;
const AGAIN_SECONDS = 5;
const AGAIN_LONGEST = 300;
/** A stream that stood so long has held. */
const HELD_SECONDS = 30;

export class Climber {
  now: Rung = "long-poll";

  constructor(
    private readonly pool: Pool,
    private readonly transport: Transport = "auto",
  ) {}

  async run(signal: AbortSignal): Promise<void> {
    const rungs = TRIED[this.transport];
    if (!rungs.length) return;
    await this.pool.polled.wait(signal);
    let failures = 0;
    await sleep(pause(0, FIRST_TRY_SECONDS), signal);
    while (!signal.aborted) {
      for (const rung of rungs) {
        const began = now();
        await this.standOn(rung, signal);
        if (signal.aborted) return;
        if (now() - began >= HELD_SECONDS) {
          failures = -1;
          break;
        }
      }
      failures++;
      await sleep(pause(Math.max(0, failures - 1), failures ? AGAIN_SECONDS : FIRST_TRY_SECONDS, AGAIN_LONGEST), signal);
    }
  }

  /** Resolves when the stream has broken, or has not opened. */
  private async standOn(rung: Exclude<Rung, "long-poll">, signal: AbortSignal): Promise<void> {
    const pool = this.pool;
    const wanted = {
      workerId: pool.workerId,
      channels: pool.channels,
      limit: pool.slots + pool.settings.prefetch,
      leaseSeconds: pool.settings.leaseSeconds,
      holding: [...pool.inHand].sort(),
    };
    const { logger } = pool.api;
    try {
      for await (const said of OPENERS[rung](pool.api, CLAIMED_TASKS, { input: wanted }, signal)) {
        if (!pool.streaming) {
          // The first payload comes at once: a proxy that holds streams back would not let it through.
          pool.streamStands();
          this.now = rung;
          logger.log("info", `tasks come by ${rung}`, { worker_id: pool.workerId });
        }
        pool.take(said["claimedTasks"].leases, true);
      }
    } catch (error) {
      if (!(error instanceof Broken || error instanceof Refused)) throw error;
      if (!signal.aborted) {
        logger.log(pool.streaming ? "info" : "debug", "tasks come by long poll", { worker_id: pool.workerId, reason: error.message });
      }
    } finally {
      this.now = "long-poll";
      pool.streamEnded();
    }
  }
}
