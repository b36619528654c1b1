/** Workers and producers for Crew, the task server. */

export { Crew, type CrewOptions } from "./client.js";
export { Draft, type OnDuplicate, type OnParentFailure, type RetryPolicy, type TaskOptions } from "./draft.js";
export {
  CrewError,
  Discard,
  GroupStuck,
  NotCrew,
  RateLimited,
  Refused,
  Retry,
  TaskError,
  TaskFailed,
  TimeoutError,
  Unavailable,
} from "./errors.js";
export { Group, type AddOptions, type GroupOptions } from "./group.js";
export type { Handle } from "./handler.js";
export { decode, encode } from "./json.js";
export { lines, silent, type Fields, type Level, type Logger } from "./log.js";
export { Output, type OutputOptions } from "./output.js";
export { Cancelled, Task, type Parent } from "./task.js";
export type { Rung, Transport } from "./climber.js";
export type { Options } from "./worker.js";
