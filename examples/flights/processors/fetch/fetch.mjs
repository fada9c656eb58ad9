// A source: pages through an HTTP API and writes each row as one JSON line.
//
//   node fetch.mjs URL        where URL answers {"rows": […], "next": "URL of the next page" or null}
//
// Needs Node 18 or later and nothing else.

import { once } from "node:events";
import { setTimeout as sleep } from "node:timers/promises";

const TRIES = 5;
const FIRST_WAIT_MS = 200;
const TIMEOUT_MS = 30_000;

class Refused extends Error {} // an answer that trying again does not change

async function page(url) {
  const response = await fetch(url, { signal: AbortSignal.timeout(TIMEOUT_MS) });
  if (!response.ok) {
    const text = `${response.status} ${response.statusText}: ${(await response.text()).slice(0, 200)}`;
    throw response.status >= 500 || response.status === 429 ? new Error(text) : new Refused(text);
  }
  const content = await response.json();
  if (!Array.isArray(content.rows)) throw new Refused("its answer has no list of rows");
  return content;
}

async function pageWithRetries(url) {
  for (let tried = 1; ; tried++) {
    try {
      return await page(url);
    } catch (error) {
      const why = error.cause?.message ?? error.message;
      if (error instanceof Refused || tried === TRIES) throw new Error(`${url}: ${why} (tried ${tried} times)`);
      console.error(`${url}: ${why}; trying again`);
      await sleep(FIRST_WAIT_MS * 2 ** (tried - 1));
    }
  }
}

async function main(first) {
  for (let url = first; url; ) {
    const { rows, next } = await pageWithRetries(url);
    const lines = rows.map((row) => JSON.stringify(row) + "\n").join("");
    // false: the reader is behind. The next page is asked for when it has caught up.
    if (!process.stdout.write(lines)) await once(process.stdout, "drain");
    url = next && new URL(next, url).href;
  }
}

process.stdout.on("error", (error) => {
  if (error.code === "EPIPE") process.exit(0); // whoever reads has left (`| head`)
  console.error(`fetch.mjs: cannot write: ${error.message}`);
  process.exit(1);
});

const [url, ...more] = process.argv.slice(2);
if (!url || more.length > 0) {
  console.error("usage: node fetch.mjs URL");
  process.exitCode = 2;
} else {
  try {
    await main(url);
  } catch (error) {
    console.error(`fetch.mjs: ${error.message}`);
    process.exitCode = 1;
  }
}
