/** What a handler may return instead of a bare value. */

import type { Draft } from "./draft.js";

export interface OutputOptions {
  /** Continuations, made together with the completion or not at all. */
  children?: readonly Draft<any>[];
  /** Seconds that every direct child of the task waits at least. */
  childrenDelay?: number;
  /** Seconds for which the task's workgroup is suspended. */
  workgroupDelay?: number;
}

export class Output {
  constructor(
    readonly value: unknown = null,
    readonly options: OutputOptions = {},
  ) {}
}
