// Looks at every page of the demo in a real browser; ends with 1 if anything is wrong. See ./check.

import { mkdirSync, rmSync } from "node:fs";
import { join, resolve } from "node:path";
import * as demos from "./demo.mjs";
import { FLOWS, setBase } from "./flows.mjs";
import { keys } from "./keys.mjs";
import { LOOKS, fetched, look, weigh } from "./looks.mjs";
import { refuses } from "./refuses.mjs";
import { report } from "./report.mjs";
import { signIn } from "./signin.mjs";
import { chromium } from "./tools.mjs";

const SHOTS = resolve("../../target/browser");
const STEP_MILLIS_MAX = 15_000;

// A context that notes what must never happen: a request elsewhere, a fault in the console, a breach of the policy, a dialog.
async function watched(browser, base, options, noted) {
  const context = await browser.newContext({ locale: "en-GB", timezoneId: "UTC", acceptDownloads: true, ...options });
  context.setDefaultTimeout(STEP_MILLIS_MAX);
  context.on("request", (request) => {
    const url = new URL(request.url());
    noted.requests += 1;
    if (url.origin !== base && url.protocol !== "data:") noted.faults.push(`a request to ${url.origin}`);
  });
  context.on("console", (message) => {
    // A page that rightly answers so is told as a fault to load it.
    const status = /the server responded with a status of (\d+)/.exec(message.text())?.[1];
    const isAnswer = (noted.answers ?? ["400", "404"]).includes(status);
    if (message.type() === "error" && !isAnswer) noted.faults.push(`the console says: ${message.text()}`);
  });
  context.on("weberror", (error) => noted.faults.push(`a script failed: ${error.error().message}`));
  context.on("dialog", (dialog) => {
    noted.faults.push(`a dialog opened: ${dialog.message()}`);
    return dialog.dismiss();
  });
  if (options.javaScriptEnabled !== false) {
    await context.exposeFunction("breach", (what) => noted.faults.push(`the policy was breached: ${what}`));
    await context.addInitScript(() =>
      document.addEventListener("securitypolicyviolation", (event) =>
        window.breach(`${event.violatedDirective} ${event.blockedURI}`),
      ),
    );
  }
  return context;
}

// Each page once, with the addresses that only this demo knows.
async function places(tab, base) {
  const path = async (search, selector) => {
    await tab.goto(`${base}/events?q=${encodeURIComponent(search)}`);
    await tab.locator(".lines .said a").first().click();
    const link = selector ? await tab.locator(selector).first().getAttribute("href") : new URL(tab.url()).pathname;
    return link;
  };
  const day = new Date(Date.now() - 40 * 86_400_000).toISOString().slice(0, 10);
  const all = [
    { name: "overview", path: "/" },
    { name: "overview-past", path: `/?at=${day}&days=30` },
    { name: "overview-years", path: "/?days=1825" },
    { name: "events", path: "/events" },
    { name: "events-failed", path: "/events?q=success%3Afalse" },
    { name: "events-none", path: "/events?q=subject%3Anobody-at-all" },
    { name: "events-misread", path: "/events?q=colour%3Ared", status: 400 },
    { name: "event", path: await path("type:project_created") },
    { name: "event-failed", path: await path("success:false") },
    { name: "user", path: "/users/wrenn" },
    { name: "organization", path: "/organizations/quillnet" },
    { name: "project", path: "/projects/latencymap" },
    { name: "experiment", path: await path("type:experiment_created", 'dl.facts a[href^="/experiments/"]') },
    { name: "pipeline", path: "/pipeline" },
    { name: "missing", path: "/users/nobody-at-all", status: 404 },
  ];
  const { status } = await tab.goto(`${base}/facilities`).then((answer) => ({ status: answer.status() }));
  if (status === 200) {
    const one = await tab.locator('main table a[href^="/facilities/"]').first().getAttribute("href");
    all.push({ name: "facilities", path: "/facilities" }, { name: "facility", path: one });
  }
  return all.map((place) => ({ status: 200, ...place }));
}

async function looks(browser, base, all, noted) {
  const rows = new Map(all.map((place) => [place.name, { place, looks: {}, faults: [], lesser: new Set() }]));
  const links = new Map();
  for (const { name, width, height, colorScheme } of LOOKS) {
    const context = await watched(browser, base, { viewport: { width, height }, colorScheme, reducedMotion: "reduce" }, noted);
    const tab = await context.newPage();
    for (const place of all) {
      const row = rows.get(place.name);
      const shot = join(SHOTS, `${place.name}.${name}.png`);
      const { faults, lesser } = await look(tab, place, { shot, base }).catch((error) => ({ faults: [error.message], lesser: [] }));
      row.looks[name] = faults.length;
      row.faults.push(...faults.map((fault) => `${place.name}, ${name}: ${fault}`));
      for (const finding of lesser) row.lesser.add(finding);
      if (name === "light")
        for (const href of await tab.evaluate(() => [...document.links].map((link) => link.href).filter((href) => !href.includes("#") && !href.includes("/events/export"))))
          if (!links.has(href)) links.set(href, place.name);
    }
    await context.close();
  }
  const assets = (await (await fetch(base)).text()).match(/\/assets\/[\w.-]+/g);
  for (const row of rows.values()) {
    const { bytes, millis, faults } = await weigh(base, row.place, [...new Set(assets)].map((path) => base + path));
    Object.assign(row, { bytes, millis });
    row.faults.push(...faults.map((fault) => `${row.place.name}: ${fault}`));
  }
  return { rows: [...rows.values()], links };
}

// Every link of every page leads to something.
async function follow(base, links, hasFacilities) {
  const faults = [];
  for (const [href, from] of links) {
    const { origin, pathname } = new URL(href);
    if (origin !== base) faults.push(`${from}: a link leads away: ${href}`);
    else if (hasFacilities || !pathname.startsWith("/facilities")) {
      const { status } = await fetched(href);
      if (status >= 400) faults.push(`${from}: a link to ${pathname} answers ${status}`);
    }
  }
  return faults;
}

async function flows(browser, base, isScripted, noted) {
  const context = await watched(browser, base, { javaScriptEnabled: isScripted, viewport: { width: 1280, height: 1000 } }, noted);
  const tab = await context.newPage();
  const results = {};
  let fault = 0;
  for (const [name, flow] of Object.entries(FLOWS)) {
    let skipped = "";
    try {
      await flow(tab, { skip: (why) => (skipped = why) });
      results[name] = { verdict: skipped ? "–" : "✓", said: skipped };
    } catch (error) {
      fault += 1;
      const shot = `fault-${fault}${isScripted ? "" : "-without-javascript"}.png`;
      await tab.screenshot({ path: join(SHOTS, shot), fullPage: true }).catch(() => {});
      results[name] = { verdict: "✗", said: error.message.split("\n").slice(0, 4).join(" "), place: tab.url() };
    }
  }
  await context.close();
  return results;
}

async function main() {
  const begun = Date.now();
  rmSync(SHOTS, { recursive: true, force: true });
  mkdirSync(SHOTS, { recursive: true });
  const url = process.env.BROWSER_URL;
  const demo = url ? { url: new URL(url).origin, stop: async () => null, end: async () => {} } : await demos.start(process.env.BROWSER_PROGRAM);
  // Nobody leaves a demo behind.
  for (const signal of ["SIGINT", "SIGTERM"]) process.once(signal, () => demo.end().then(() => process.exit(1)));
  const base = demo.url;
  setBase(base);
  const browser = await chromium.launch({ executablePath: process.env.BROWSER, args: ["--no-sandbox", "--disable-gpu"] });
  try {
    const noted = { requests: 0, faults: [] };
    const context = await watched(browser, base, { viewport: { width: 1280, height: 1000 } }, noted);
    const tab = await context.newPage();
    const all = await places(tab, base);
    const [{ rows, links }, scripted, [plain, keyboard]] = await Promise.all([
      looks(browser, base, all, noted),
      flows(browser, base, true, noted),
      flows(browser, base, false, noted).then(async (plain) => [plain, await keys(tab, base)]),
    ]);
    const lost = await follow(base, links, all.some(({ name }) => name === "facilities"));
    const narrow = { viewport: { width: 390, height: 844 } };
    const unnoticed = await refuses((noted) => watched(browser, base, narrow, noted), base);
    const signing = url ? null : await signIn(process.env.BROWSER_PROGRAM, demo.socket, (base, options, noted) => watched(browser, base, options, noted), SHOTS);
    const version = browser.version();
    await browser.close();
    const ended = await demo.stop();
    return report({ base, version, rows, scripted, plain, keyboard, links, lost, noted, unnoticed, signing, ended, shots: SHOTS, millis: Date.now() - begun });
  } finally {
    await browser.close();
    await demo.end();
  }
}

try {
  process.exitCode = await main();
} catch (error) {
  console.error(`x browser: ${error.stack}`);
  process.exitCode = 1;
}
