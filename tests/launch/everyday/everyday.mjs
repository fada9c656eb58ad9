// What Node programs do every day, so far as system calls go; prints "fine".
import assert from "node:assert";
import { execFileSync, spawn } from "node:child_process";
import { randomBytes, scryptSync } from "node:crypto";
import dns from "node:dns/promises";
import { once } from "node:events";
import fs from "node:fs";
import net from "node:net";
import os from "node:os";
import path from "node:path";
import { Worker } from "node:worker_threads";
import { gunzipSync, gzipSync } from "node:zlib";

const folder = fs.mkdtempSync(path.join(os.tmpdir(), "everyday-"));
const file = path.join(folder, "file");
fs.writeFileSync(file, "x".repeat(10_000));
fs.copyFileSync(file, file + "-copy");
fs.cpSync(folder, folder + "-tree", { recursive: true });
await fs.promises.appendFile(file, "y");
fs.utimesSync(file, 1, 1);
fs.symlinkSync("file", path.join(folder, "link"));
assert.equal(fs.statSync(file).size, 10_001);
const watcher = fs.watch(folder);
fs.renameSync(file, file + "-renamed");
await once(watcher, "change");
watcher.close();
fs.rmSync(folder, { recursive: true });

for (const at of [{ host: "127.0.0.1", port: 0 }, { path: path.join(os.tmpdir(), `everyday-${process.pid}.sock`) }]) {
  const server = net.createServer((socket) => socket.pipe(socket)).listen(at);
  await once(server, "listening");
  const socket = net.connect(at.path ?? server.address().port, at.path ? undefined : "127.0.0.1");
  socket.end("hello");
  assert.equal(String((await once(socket, "data"))[0]), "hello");
  server.close();
}

assert(Object.keys(os.networkInterfaces()).includes("lo"));
assert((await dns.lookup("127.0.0.1")).address);
assert.equal(String(execFileSync("echo", ["hi"])), "hi\n");
const child = spawn(process.execPath, ["-e", "process.stdin.pipe(process.stdout)"]);
child.stdin.end("through");
assert.equal(String((await once(child.stdout, "data"))[0]), "through");
await once(child, "exit");
const worker = new Worker("require('node:worker_threads').parentPort.postMessage(1 + 1)", { eval: true });
assert.deepEqual(await once(worker, "message"), [2]);
assert.equal(gunzipSync(gzipSync(randomBytes(1000))).length, 1000);
assert.equal(scryptSync("a", "b", 8).length, 8);
os.setPriority(1);
process.umask(0o22);
console.log("fine");
