/** A function that does the tasks of one channel. */

import type { Task } from "./task.js";

export type Handle<Input = any> = (task: Task<Input>) => unknown;

export interface Handler {
  channel: string;
  handle: Handle;
  /** At most so many at once in this worker; without it the channel shares the worker's own number with others. */
  concurrency?: number;
}
