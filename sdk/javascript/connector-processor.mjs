/**
 * Connector protocol 1 for processors in JavaScript (contract "acknowledged"). Copy this file beside your program.
 *
 *     import { Processor } from "./connector-processor.mjs";
 *
 *     new Processor().run(async function* (message) {   // what it throws is a nack: the message comes again
 *       yield message.text.toUpperCase();               // any number of outputs: a string or bytes, to stdout,
 *       yield ["errors", "..."];                        // or [port, string or bytes]; `return` does for a single one
 *     });
 *
 * The outputs of a message are committed together with it, or not at all. Handlers may be plain, async, or (async)
 * generators. Options: { stateful, atEnd, onCommitted }. With stateful, `processor.state` (a Buffer, or null) is what
 * was committed last; what is set while a message is handled is committed with it. atEnd() gives last outputs;
 * onCommitted(n): n states are safe. console.log() goes to stderr (not so what a child prints that inherits stdout).
 * Exit status: 0 after the last message, 143 after SIGTERM (what is at hand is finished first), 1 when the runner has
 * gone. Node 18 or newer.
 */

import { readFileSync } from "node:fs";

const [WRITE_BYTES, SETTLE] = [1 << 16, 250]; // SETTLE messages are acknowledged even if more wait
const TEXT = 4096; // the longest reason or log line that is sent
const EMPTY = Buffer.alloc(0);

/** What a source yields to commit everything that it yielded before: new State(bytes or string). */
export class State {
  constructor(payload) { this.payload = payload; }
}

/** A message. `id` is the same each time it comes, and never another's: what makes a sink idempotent. */
export class Message {
  constructor(processor, words, payload) {
    this._processor = processor;
    this.delivery = words[2];
    this.number = Number(words[3]); // counts the messages of its channel from 1
    this.attempt = Number(words[4]); // 1; more when it was given to a program before
    this.port = words[5];
    this.channel = words[6].split("@")[0];
    this.id = `${words[6]}:${words[3]}`;
    this.payload = payload;
  }
  get text() { return this.payload.toString(); }
  /** With runManual: any number of out(), then ack(), or nack(), which drops the outputs and gives it again. */
  out(payload, port = "stdout") { this._processor._output(this.delivery, [port, payload]); }
  ack() { this._processor._put(`ack 0 ${this.delivery}\n`); }
  nack(reason, delayMs = 0) {
    const text = Buffer.from(String(reason).slice(0, TEXT));
    this._processor._put(`nack ${text.length} ${this.delivery} delay=${Math.floor(delayMs)}\n`, text);
  }
}

/** One session with the runner, over this process's stdin and stdout. Each run... resolves when all is over. */
export class Processor {
  constructor({ stateful = false, atEnd = null, onCommitted = null } = {}) {
    Object.assign(this, { stateful, atEnd, onCommitted, state: null, _parts: [], _data: EMPTY, _start: 0 });
    this._size = this._states = this._confirmed = this._done = 0; // _done: handled, not yet acknowledged
    this._stopping = this._handling = this._scheduled = this._isSource = false;
  }

  /** Calls `handle(message)` for each message, one after the other. */
  run(handle) { return this._session(() => this._serve((batch) => this._try(handle, batch[0], batch), 1)); }

  /** Calls `handle(messages)` with what is there. When that fails, each is tried alone. */
  runBatches(handle, most = 1000) {
    return this._session(() => this._serve((batch) => this._try(handle, batch, batch), most));
  }

  /** Calls `handle(message)`; at any time message.out(), then message.ack() or message.nack(). */
  runManual(handle) { return this._session(() => this._serve((batch) => handle(batch[0]), 1)); }

  /** Writes what `generate(state)` yields; `state` is the one committed last, or null. */
  runSource(generate) {
    this._isSource = true;
    return this._session(async () => {
      this._handling = false;
      this._serve(() => {}, 1); // listens as long as the process lives
      for await (const output of generate(this.state)) {
        if (output instanceof State) this.commit(output.payload);
        else this._output(0, output);
        if (this._size > WRITE_BYTES) await this._flush().then(() => new Promise(setImmediate));
      }
      await this._flush();
      while (this._confirmed < this._states && this.onCommitted) await new Promise((done) => setTimeout(done, 1));
    });
  }

  /** Sends `state`: it covers all that was acknowledged, and all outputs in answer to nothing, so far. */
  commit(state) {
    this.state = Buffer.from(state);
    this._put(`state ${this.state.length} ${++this._states}\n`, this.state);
  }

  /** A line for the runner's log. Levels: debug, info, warning, error. */
  log(text, level = "info") {
    const data = Buffer.from(String(text).slice(0, TEXT));
    this._put(`log ${data.length} ${level}\n`, data);
  }

  _put(header, payload = EMPTY) {
    this._parts.push(header, payload);
    this._size += header.length + payload.length;
    if (!this._handling && !this._scheduled) {
      this._scheduled = true; // nobody else would send it soon
      setImmediate(() => this._flush());
    }
  }

  _output(delivery, output) {
    const [port, payload] = Array.isArray(output) ? output : ["stdout", output];
    const data = typeof payload === "string" ? Buffer.from(payload) : payload;
    if (!(data instanceof Uint8Array)) throw new TypeError("an output is a string or bytes, or [port, one of them]");
    this._put(`out ${data.length} ${delivery} ${port}\n`, data);
  }

  /** Between messages, so that the state covers exactly what is acknowledged. */
  _settle() {
    if (this._done) {
      this._put(`ack 0 ${this._first} ${this._last}\n`);
      this._done = 0;
      if (this.stateful) this.commit(this.state ?? EMPTY);
    }
    return this._flush();
  }

  /** Sends everything that waits; resolves when the pipe has taken it. */
  _flush() {
    this._scheduled = false;
    if (!this._size) return undefined;
    const data = Buffer.allocUnsafe(this._size);
    let at = 0; // headers are ASCII
    for (const part of this._parts) {
      at += typeof part === "string" ? data.latin1Write(part, at) : (data.set(part, at), part.length);
    }
    [this._parts, this._size] = [[], 0];
    return new Promise((done) => this._write(data, done));
  }

  async _session(serve) {
    this._write = process.stdout.write.bind(process.stdout);
    process.stdout.write = process.stderr.write.bind(process.stderr);
    process.stdout.on("error", () => process.exit(1)); // the runner has gone
    process.once("SIGTERM", () => ((this._stopping = true), this._handling || this._stop()));
    this._put(this.stateful ? "ready 0 1 stateful=yes\n" : "ready 0 1\n");
    this._input = process.stdin[Symbol.asyncIterator]();
    let opening = null;
    while (!(opening = this._frame())) await this._more();
    const [words, payload] = opening;
    if (!words.includes("state=none")) this.state = words.includes("state=here") ? payload : readFileSync(payload);
    await serve();
    for await (const output of (await this.atEnd?.()) ?? []) this._output(0, output);
    this._put("end 0\n");
    await this._flush();
    process.stdin.unref?.(); // a source may still listen
  }

  async _stop() {
    await this._settle();
    process.exit(143);
  }

  /** The next frame that is there as [words of the header, payload]; null when there is none yet. */
  _frame() {
    const stop = this._data.indexOf(10, this._start);
    this._missing = 1;
    if (stop < 0) return null;
    const words = this._data.latin1Slice(this._start, stop).split(" ");
    const end = stop + 1 + Number(words[1]);
    this._missing = end - this._data.length;
    if (this._missing > 0) return null;
    this._start = end;
    return [words, this._data.subarray(stop + 1, end)];
  }

  /** Waits for more input, at least what is missing of a frame. */
  async _more() {
    this._handling = false;
    const pieces = [this._data.subarray(this._start)];
    for (; this._missing > 0; this._missing -= pieces.at(-1).length) {
      const { value, done } = await this._input.next();
      if (done) process.exit(1); // the runner has gone
      pieces.push(value);
    }
    this._handling = !this._isSource;
    [this._data, this._start] = [Buffer.concat(pieces), 0];
  }

  async _serve(each, most) {
    let batch = [];
    for (;;) {
      const frame = this._frame();
      if (frame && frame[0][0] === "msg") {
        batch.push(new Message(this, frame[0], frame[1]));
        if (batch.length < most) continue;
      }
      if (batch.length) {
        const promise = each(batch);
        if (promise) await promise;
        batch = [];
        if (this._stopping) return this._stop();
      }
      if (!frame || this._done > SETTLE || this._size > WRITE_BYTES) await this._settle();
      if (!frame) await this._more();
      else if (frame[0][0] === "ping") this._put(`pong 0 ${frame[0][2]}\n`);
      else if (frame[0][0] === "ack-state") this.onCommitted?.((this._confirmed = Number(frame[0][2])));
      else if (frame[0][0] === "end" && frame[0].length === 2) return this._settle();
    }
  }

  /** Handles messages as one. Returns a promise only where the handler does. */
  _try(handle, given, batch) {
    const [state, last] = [this.state, batch.at(-1).delivery];
    const failed = (error) => {
      this.state = state;
      const alone = (before, each) => before.then(() => this._try(handle, [each], [each]));
      if (batch.length > 1) return batch.reduce(alone, Promise.resolve());
      this._settle(); // what was done before it
      batch[0].nack(error?.stack ? `${error.name}: ${error.message}` : error, error?.delayMs);
    };
    const done = (outputs) => {
      for (const output of outputs) this._output(last, output);
      if (!this._done) this._first = batch[0].delivery;
      this._last = last;
      this._done += batch.length;
    };
    try {
      const result = handle(given);
      if (result?.then || result?.[Symbol.asyncIterator]) return collected(result).then(done).catch(failed);
      done(listed(result));
    } catch (error) {
      return failed(error);
    }
  }
}

/** What a handler returned, as a list of outputs: [port, payload] is one. */
function listed(result) {
  if (result === undefined || result === null) return [];
  const isPair = Array.isArray(result) && result.length === 2 && typeof result[0] === "string";
  return isPair || typeof result === "string" || result instanceof Uint8Array ? [result] : [...result];
}

async function collected(result) {
  if (!result[Symbol.asyncIterator]) return listed(await result);
  const outputs = [];
  for await (const output of result) outputs.push(output);
  return outputs;
}
