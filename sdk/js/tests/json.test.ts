/** JSON with exact integers. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { decode, encode } from "../src/index.js";

test("integers beyond 2^53 are BigInt, and go back as they came", () => {
  const text = '{"n":9007199254740993,"m":[-9223372036854775808,9007199254740991],"s":"9007199254740993"}';
  const value = decode(text);
  assert.deepEqual(value, { n: 9007199254740993n, m: [-9223372036854775808n, 9007199254740991], s: "9007199254740993" });
  assert.equal(encode(value), text);
});

test("text that looks like numbers, decimals and exponents stay what they are", () => {
  for (const text of ['"12345678901234567890"', '"a\\"12345678901234567890\\""', "0.12345678901234568", "1e+30", '{"12345678901234567890":1}']) {
    assert.equal(encode(decode(text)), text);
  }
});

test("what is no JSON is refused", () => {
  const loop: Record<string, unknown> = {};
  loop["self"] = loop;
  for (const value of [NaN, Infinity, undefined, () => 1, loop, { deep: [NaN] }]) assert.throws(() => encode(value), TypeError);
});
