/** Every case of sdk/conformance.json against the server at CREW_URL, through the fault proxy told of at CREW_FAULTS. */

import { describe, test } from "node:test";

import { CASES, Run, served } from "./case.js";

const url = process.env["CREW_URL"];
const control = process.env["CREW_FAULTS"];
const skip = url && control ? false : "tests/sdk/test_conformance_js.py starts the server and the proxy for it";

describe("conformance", { concurrency: 6, skip }, () => {
  for (const given of CASES) {
    test(given["name"], async () => {
      await new Run(given, served(url!, control!)).run();
    });
  }
});
