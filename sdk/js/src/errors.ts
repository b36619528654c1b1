/**
 * What a handler throws to say how its attempt ended, and what a caller of Crew may have to catch.
 *
 *     Thrown by handlers                    Thrown to callers
 *     TaskError     fails the attempt       CrewError
 *     ├── Retry     … and says when next    ├── Refused      the server will not take it: BAD_INPUT, NOT_FOUND, …
 *     ├── Discard   … and there is no next  ├── Unavailable  no answer in the time that was given
 *     └── RateLimited  the workgroup waits  ├── NotCrew      what answers there is no Crew server
 *                                           ├── TaskFailed   the task whose result was waited for has not succeeded
 *                                           ├── GroupStuck   nothing in the group goes on by itself
 *                                           └── TimeoutError not finished in the time that was given
 */

const RATE_LIMIT_SECONDS = 30;

/** Fails the attempt with `data`, any JSON value; the task's own retry policy says what follows. */
export class TaskError extends Error {
  constructor(readonly data: unknown = "") {
    super(typeof data === "string" ? data : "the attempt failed");
    this.name = new.target.name;
  }
}

/** Fails the attempt and asks for the next one in `after` seconds; `count: false` does not count this attempt. */
export class Retry extends TaskError {
  readonly after: number | undefined;
  readonly count: boolean;

  constructor(options: { after?: number; count?: boolean; data?: unknown } = {}) {
    super(options.data ?? "retry");
    this.after = options.after;
    this.count = options.count ?? true;
  }
}

/** Fails the task for good, whatever attempts remain. */
export class Discard extends TaskError {}

/** Headers of fetch, or a plain object. */
export type HeadersLike = { get(name: string): string | null } | Record<string, string | string[] | undefined>;

/** The service behind this task's workgroup wants quiet for `seconds`: all of the workgroup waits, no attempt is counted. */
export class RateLimited extends TaskError {
  constructor(
    readonly seconds: number = RATE_LIMIT_SECONDS,
    data: unknown = "rate limited",
  ) {
    super(data);
  }

  /** As the response's Retry-After says (seconds or a date), else `fallback` seconds. */
  static fromResponse(response: { status?: number; headers: HeadersLike }, fallback = RATE_LIMIT_SECONDS): RateLimited {
    const seconds = retryAfter(response.headers, fallback);
    return new RateLimited(seconds, { status: response.status ?? null, message: `rate limited for ${seconds} s` });
  }
}

/** Seconds to stay away, by the Retry-After header. */
export function retryAfter(headers: HeadersLike, fallback: number): number {
  const said = header(headers, "retry-after").trim();
  if (/^\d+(\.\d+)?$/.test(said)) return Number(said);
  const at = said ? Date.parse(said) : NaN;
  return Number.isNaN(at) ? fallback : Math.max(0, (at - Date.now()) / 1000);
}

function header(headers: HeadersLike, name: string): string {
  if (typeof headers.get === "function") return headers.get(name) ?? "";
  const found = Object.entries(headers).find(([key]) => key.toLowerCase() === name)?.[1];
  return String(found ?? "");
}

/** Anything this package throws to its callers. */
export class CrewError extends Error {
  constructor(message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = new.target.name;
  }
}

/** The server answered that it will not take a call: sending it again would not help. */
export class Refused extends CrewError {
  constructor(
    readonly reason: string,
    readonly code: string = "BAD_INPUT",
    readonly path: readonly (string | number)[] = [],
  ) {
    super(`${code}: ${reason}` + (path.length ? ` (at ${path.join(".")})` : ""));
  }
}

/** No answer in the time that was given. The call may have been taken all the same: repeat it with its ids. */
export class Unavailable extends CrewError {}

/** Something answers at the URL, but it is no Crew server. */
export class NotCrew extends CrewError {}

/** Not finished in the time that was given. */
export class TimeoutError extends CrewError {}

/** A task whose result was waited for is FAILED or CANCELLED. */
export class TaskFailed extends CrewError {
  constructor(
    readonly taskName: string,
    readonly state: string,
    readonly errors: readonly unknown[] = [],
  ) {
    super(`${taskName} is ${state}` + (errors.length ? `: ${told(errors.at(-1))}` : ""));
  }
}

/** Nothing in the group goes on by itself: tasks are FAILED, or BLOCKED below one that is. */
export class GroupStuck extends CrewError {
  constructor(
    readonly groupName: string,
    readonly failed: readonly TaskFailed[],
  ) {
    super(`${groupName} waits for people: ${failed.map((failure) => failure.message).join("; ")}`);
  }
}

function told(error: unknown): string {
  return typeof error === "string" ? error : JSON.stringify(error, (_key, part) => (typeof part === "bigint" ? String(part) : part));
}
