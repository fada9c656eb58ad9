// The Node program anybody would write: a line for each line.
import { createInterface } from "node:readline";

for await (const line of createInterface({ input: process.stdin, crlfDelay: Infinity })) {
  process.stdout.write(line + "\n");
}
