/** How long to wait before a call is sent again. */

const FIRST_SECONDS = 0.1;
const LONGEST_SECONDS = 10;

/** Seconds before try number `tries` + 1, doubling, jittered so that workers do not come in step. */
export function pause(tries: number, first = FIRST_SECONDS, longest = LONGEST_SECONDS): number {
  return (0.5 + Math.random() / 2) * Math.min(longest, first * 2 ** Math.min(tries, 30));
}
