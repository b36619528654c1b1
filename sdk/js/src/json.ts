/**
 * JSON with exact integers: those beyond 2^53 are read as BigInt, and BigInt is written as an integer.
 *
 * (Node 20 has neither JSON.rawJSON nor the source text in revivers: such integers travel through JSON.parse and
 * JSON.stringify as strings with a mark that nobody else can know.)
 */

import { randomUUID } from "node:crypto";

const MARK = `crew-integer-${randomUUID()}:`;
const MARKED = new RegExp(`"${MARK}(-?\\d+)"`, "g");
const LONG = /\d{16}/;
const STRING_OR_NUMBER = /"[^"\\]*(?:\\.[^"\\]*)*"|-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?/g;
const LONG_INTEGER = /^-?\d{16,}$/;

/** As JSON. Throws TypeError for what is none: NaN, a function, an object that contains itself. */
export function encode(value: unknown): string {
  let marked = false;
  const text = JSON.stringify(value, (_key, part: unknown) => {
    if (typeof part === "bigint") {
      marked = true;
      return MARK + part;
    }
    if (typeof part === "number" && !Number.isFinite(part)) throw new TypeError(`${part} is no JSON`);
    return part;
  }) as string | undefined;
  if (text === undefined) throw new TypeError(`a ${typeof value} is no JSON`);
  return marked ? text.replace(MARKED, "$1") : text;
}

/** The value of a JSON text. Throws SyntaxError. */
export function decode(text: string): any {
  const exact = marked(text);
  return exact === text ? JSON.parse(text) : JSON.parse(exact, unmarked);
}

/** The same JSON with integers beyond 2^53 as strings that `unmarked`, a reviver, makes BigInt of. */
export function marked(text: string): string {
  if (!LONG.test(text)) return text;
  return text.replace(STRING_OR_NUMBER, (token) => {
    if (token.startsWith('"') || !LONG_INTEGER.test(token) || Number.isSafeInteger(Number(token))) return token;
    return `"${MARK}${token}"`;
  });
}

export function unmarked(_key: string, part: unknown): unknown {
  return typeof part === "string" && part.startsWith(MARK) ? BigInt(part.slice(MARK.length)) : part;
}
