/**
 * The GraphQL endpoint, and what may go wrong on the way: a call is sent again until the server has answered it.
 *
 * Weather (no answer, half an answer, 5xx, 429, UNAVAILABLE) is waited out. What the server says about the call itself is
 * an answer, good or bad. Every call of this package may be repeated: it carries a claimId, leases, or ids of its own.
 */

import { pause } from "./backoff.js";
import { NotCrew, Refused, Unavailable, retryAfter, type HeadersLike } from "./errors.js";
import { decode, encode } from "./json.js";
import { lines, type Logger } from "./log.js";
import { Aborted, sleep } from "./waiting.js";

export type Json = Record<string, any>;

const WEATHER_STATUSES = new Set([408, 421, 425, 429]);
export const KEY_CODES = new Set(["UNAUTHENTICATED", "FORBIDDEN"]);
/** How often a call that the server stumbles over is sent again before that counts as its answer. */
const STUMBLES = 3;
const ACCEPT = "application/graphql-response+json, application/json";

/** There is no answer to go by; it may come when the call is sent again. */
export class Weather extends Error {
  constructor(
    reason: string,
    readonly wait = 0,
    readonly code = "",
  ) {
    super(reason);
  }
}

/** What the server said: the data of each field, and why a field, or all of it (`whole`), was refused. */
export class Answer {
  constructor(
    readonly data: Json,
    readonly refused: Record<string, Refused> = {},
    readonly whole?: Refused,
  ) {}

  /** The data of a field. Throws Refused. */
  get(name: string): any {
    const refused = this.whole ?? this.refused[name];
    if (refused) throw refused;
    return this.data[name];
  }
}

export interface CallOptions {
  /** Seconds after which Unavailable is thrown; without it, never. */
  patience?: number;
  /** How long the server may take on purpose. */
  wait?: number;
  signal?: AbortSignal;
}

/** A request whose variables are JSON already, so that a result is encoded once however often it is sent. */
export function requestBody(document: string, variables: Record<string, string>): string {
  const inside = Object.entries(variables).map(([name, text]) => `${JSON.stringify(name)}:${text}`);
  return `{"query":${JSON.stringify(document)},"variables":{${inside.join()}}}`;
}

/** The GraphQL endpoint of a server's URL, which may name it already. */
export function endpoint(url: string): string {
  const bare = url.replace(/\/+$/, "");
  return bare.endsWith("/graphql") ? bare : `${bare}/graphql`;
}

export class Api {
  readonly url: string;
  readonly headers: Record<string, string>;
  answered = false;
  repeats = 0;

  constructor(
    url: string,
    readonly key?: string,
    namespace?: string,
    readonly silence = 10,
    readonly logger: Logger = lines(),
  ) {
    this.url = endpoint(url);
    this.headers = { "content-type": "application/json", accept: ACCEPT };
    if (key) this.headers["authorization"] = `Bearer ${key}`;
    if (namespace) this.headers["crew-namespace"] = namespace;
  }

  /** The data of one operation. Throws Refused; Unavailable after `patience` seconds. */
  async ask(document: string, variables: Json, options: CallOptions = {}): Promise<Json> {
    const encoded = Object.fromEntries(Object.entries(variables).map(([name, value]) => [name, encode(value ?? null)]));
    const answer = await this.call(requestBody(document, encoded), options);
    const refused = answer.whole ?? Object.values(answer.refused)[0];
    if (refused) throw refused;
    return answer.data;
  }

  /** Sends it, and sends it again until it is answered. */
  async call(body: string, options: CallOptions = {}): Promise<Answer> {
    const giveUp = options.patience === undefined ? Infinity : now() + options.patience;
    let stumbled = 0;
    for (let tries = 0; ; tries++) {
      try {
        return await this.once(body, options, stumbled >= STUMBLES);
      } catch (error) {
        if (!(error instanceof Weather)) throw error;
        stumbled += Number(error.code === "INTERNAL");
        const seconds = Math.max(pause(tries), error.wait);
        if (now() + seconds > giveUp) {
          throw new Unavailable(`no answer from ${this.url} in ${options.patience} s: ${error.message}`, { cause: error });
        }
        this.logger.log(tries === 5 ? "warn" : "debug", "no answer", { url: this.url, reason: error.message });
        this.repeats++;
        await sleep(seconds, options.signal);
      }
    }
  }

  /** One try. Throws Weather; with `last`, INTERNAL is an answer. */
  async once(body: string, options: CallOptions = {}, last = false): Promise<Answer> {
    const cut = new AbortController();
    const stop = () => cut.abort();
    const overdue = setTimeout(stop, ((options.wait ?? 0) + this.silence) * 1000);
    options.signal?.addEventListener("abort", stop, { once: true });
    try {
      if (options.signal?.aborted) throw new Aborted();
      const response = await fetch(this.url, { method: "POST", headers: this.headers, body, signal: cut.signal });
      return this.read(response.status, await response.text(), response.headers, last);
    } catch (error) {
      if (options.signal?.aborted) throw new Aborted();
      if (error instanceof TypeError || (error as Error).name === "AbortError") throw new Weather(reasonOf(error as Error));
      throw error;
    } finally {
      clearTimeout(overdue);
      options.signal?.removeEventListener("abort", stop);
    }
  }

  private read(status: number, text: string, headers: HeadersLike, last: boolean): Answer {
    const said = graphqlAnswer(text);
    if (!said) throw this.strange(status, headers);
    this.answered = true;
    const errors: Json[] = said["errors"] ?? [];
    for (const error of errors) {
      const code: string | undefined = error["extensions"]?.code;
      if (code === "UNAVAILABLE" || (code === "INTERNAL" && !last)) {
        throw new Weather(error["message"] ?? code, retryAfter(headers, 0), code);
      }
    }
    if (WEATHER_STATUSES.has(status) || status >= 500) throw new Weather(`status ${status}`, retryAfter(headers, 0));
    if (!isObject(said["data"])) return new Answer({}, {}, refusal(errors[0] ?? {}));
    const refused = errors.filter((error) => error["path"]?.length).map((error) => [String(error["path"][0]), refusal(error)]);
    return new Answer(said["data"], Object.fromEntries(refused));
  }

  /** No GraphQL: the weather, if this server was seen before or the status says so. */
  private strange(status: number, headers: HeadersLike): Error {
    if (status === 413) return new Refused("the request is larger than something on the way allows", "TOO_LARGE");
    if (this.answered || status === 200 || status >= 500 || WEATHER_STATUSES.has(status)) {
      return new Weather(`status ${status} and no GraphQL`, retryAfter(headers, 0));
    }
    return new NotCrew(`${this.url} answered ${status} and no GraphQL: is it a Crew server?`);
  }
}

function graphqlAnswer(text: string): Json | undefined {
  try {
    const said: unknown = decode(text);
    return isObject(said) && (said["errors"]?.length || isObject(said["data"])) ? said : undefined;
  } catch {
    return undefined;
  }
}

export function refusal(error: Json): Refused {
  return new Refused(error["message"] ?? "", error["extensions"]?.code ?? "BAD_INPUT", error["extensions"]?.path ?? []);
}

export function isObject(value: unknown): value is Json {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** Seconds on a clock that only goes forward. */
export function now(): number {
  return performance.now() / 1000;
}

function reasonOf(error: Error): string {
  return error.cause instanceof Error ? `${error.message}: ${error.cause.message}` : error.message;
}
