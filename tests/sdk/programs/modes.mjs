// One processor on the JavaScript SDK per mode; see modes.py.
import { Processor, State } from "../../../sdk/javascript/connector-processor.mjs";

function checked(message) {
  if (message.text === "bad") {
    throw new TypeError(`attempt ${message.attempt} of ${message.id} on ${message.port} from ${message.channel}`);
  }
  return message.payload;
}

const seen = [];
const modes = {
  echo: () => new Processor().run(checked),
  async: () => new Processor().run(async (message) => checked(message)),
  batches: () => new Processor().runBatches((messages) => messages.map(checked)),
  manual: () =>
    new Processor().runManual((message) => {
      setTimeout(() => {
        if (message.text === "bad") return message.nack("no", 250);
        message.out(message.payload);
        message.ack();
      }, 1);
    }),
  count: () => {
    const processor = new Processor({ stateful: true });
    return processor.run(function* (message) {
      processor.state = String(Number(processor.state ?? 0) + 1);
      yield processor.state;
      checked(message);
    });
  },
  source: () => {
    const committed = [];
    const generate = function* (state) {
      for (let number = Number(state ?? 0) + 1; number <= 1000; number++) {
        yield String(number);
        if (number % 10 === 0) yield new State(String(number));
      }
    };
    return new Processor({ stateful: true, onCommitted: (number) => committed.push(number) }).runSource(generate);
  },
  live: () =>
    new Processor().runSource(async function* () {
      yield "one";
      await new Promise((done) => setTimeout(done, 60_000));
    }),
  noise: () =>
    new Processor().run((message) => {
      console.log("out 1 1 stdout");
      process.stdout.write("noise\n");
      return ["errors", message.payload];
    }),
  total: () => new Processor({ atEnd: () => [String(seen.length)] }).run((message) => void seen.push(message)),
};

await modes[process.argv[2]]();
