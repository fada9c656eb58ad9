// Each number in, its square out.
import { createInterface } from "node:readline";

for await (const line of createInterface({ input: process.stdin })) {
  console.log(String(Number(line) ** 2));
}
