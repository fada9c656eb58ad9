// A source that goes on where it was: node fetch.mjs URL, where URL answers {"rows": […], "next": URL or null}.
// CONNECTOR_WRITTEN says how many rows are in the channel already: so many are passed over.
import { once } from "node:events";
import { setTimeout as sleep } from "node:timers/promises";

const LONGEST_WAIT_MS = 5_000;

async function page(url) {
  for (let wait = 100; ; wait = Math.min(LONGEST_WAIT_MS, wait * 2)) {
    try {
      const response = await fetch(url);
      if (response.ok) return await response.json();
      if (response.status < 500) throw new Error(`${url}: ${response.status}`, { cause: "final" });
      console.error(`${url}: ${response.status}; trying again`);
    } catch (error) {
      if (error.cause === "final") throw error;
      console.error(`${url}: ${error.cause?.message ?? error.message}; trying again`);
    }
    await sleep(wait);
  }
}

process.stdout.on("error", () => process.exit(0)); // whoever reads has left

let behind = Number(process.env.CONNECTOR_WRITTEN ?? 0);
for (let url = process.argv[2]; url; ) {
  const { rows, next } = await page(url);
  const fresh = rows.slice(behind);
  behind -= rows.length - fresh.length;
  const lines = fresh.map((row) => JSON.stringify(row) + "\n").join("");
  if (!process.stdout.write(lines)) await once(process.stdout, "drain");
  url = next && new URL(next, url).href;
}
