// Writes the numbers up to TO: node count.mjs TO PAUSE_MS. CONNECTOR_WRITTEN says how many are written already.
import { setTimeout as sleep } from "node:timers/promises";

const [to, pause] = process.argv.slice(2).map(Number);
for (let number = Number(process.env.CONNECTOR_WRITTEN ?? 0) + 1; number <= to; number++) {
  process.stdout.write(`${number}\n`);
  await sleep(pause);
}
