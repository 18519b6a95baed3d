// The demo as a program beside this one.

import { spawn } from "node:child_process";
import { setTimeout as sleep } from "node:timers/promises";

const START_MILLIS_MAX = 120_000;

// Starts it and waits until its pages have numbers. A port that is taken makes it choose a free one, which it prints.
export async function start(program) {
  const demo = spawn(program, ["demo"], { stdio: ["ignore", "ignore", "pipe"] });
  let said = "";
  demo.stderr.setEncoding("utf8").on("data", (text) => (said += text));
  const ended = new Promise((resolve) => demo.on("exit", (code) => resolve(code ?? 1)));
  let hasEnded = false;
  ended.then(() => (hasEnded = true));
  const deadline = Date.now() + START_MILLIS_MAX;
  const until = async (what, found) => {
    for (;;) {
      const value = await found();
      if (value) return value;
      if (hasEnded || Date.now() > deadline) {
        demo.kill("SIGKILL");
        throw new Error(`the demo did not come to have ${what}; it said:\n${said}`);
      }
      await sleep(100);
    }
  };
  const url = await until("pages", () => /The pages: (http:\S+?)\/?\s/.exec(said)?.[1]);
  await until("numbers", () => hasNumbers(url));
  return {
    url,
    // Where its server listens, beside the pages.
    socket: /^PostgreSQL \S+ in (\S+)$/m.exec(said)[1],
    // Its last line compares what was written with what portal and identity server wrote down themselves.
    async stop() {
      demo.kill("SIGINT");
      const code = await ended;
      const exact = /\b0 lost, 0 doubled\b/.test(said);
      return code === 0 && exact ? null : `the demo ended with ${code} and said: ${said.trim().split("\n").at(-1)}`;
    },
    // For the case that something else went wrong: it leaves nothing behind if it may end by itself.
    async end() {
      demo.kill("SIGINT");
      await Promise.race([ended, sleep(20_000, undefined, { ref: false })]);
      demo.kill("SIGKILL");
    },
  };
}

async function hasNumbers(url) {
  const page = await fetch(`${url}/`).then((answer) => answer.text(), () => "");
  const numbers = [...page.matchAll(/class="number">([\d,. ]+)</g)].map(([, number]) => parseInt(number, 10));
  return numbers.length > 5 && numbers[0] > 0 && page.includes('class="well"');
}
