// How each page looks and is built: in light, dark and narrow; for a screen reader; in bytes.

import http from "node:http";
import { AXE } from "./tools.mjs";

// A phone is 390 wide; 320 is what WCAG 2.2 (1.4.10, reflow) asks for.
export const LOOKS = [
  { name: "light", colorScheme: "light", width: 1280, height: 1000 },
  { name: "dark", colorScheme: "dark", width: 1280, height: 1000 },
  { name: "narrow", colorScheme: "light", width: 390, height: 844 },
];
const REFLOW_WIDTH = 320;

const PAGE_BYTES_MAX = 60_000;
const FACILITIES_BYTES_MAX = 150_000;

const POLICY = ["default-src 'none'", "frame-ancestors 'none'", "base-uri 'none'", "form-action 'self'"];

const AXE_OPTIONS = {
  resultTypes: ["violations"],
  runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"],
};

// The faults of a page in one look, and how many findings of axe are too small to be faults.
export async function look(tab, place, { shot, base }) {
  const faults = [];
  const answer = await tab.goto(base + place.path, { waitUntil: "load" });
  if (answer.status() !== place.status) faults.push(`answers ${answer.status()}, not ${place.status}`);
  const headers = answer.headers();
  for (const part of POLICY)
    if (!headers["content-security-policy"]?.includes(part)) faults.push(`its policy lacks ${part}`);
  if (/unsafe|https?:|\*/.test(headers["content-security-policy"])) faults.push("its policy lets in what is not its own");
  faults.push(...(await tab.evaluate(structure)));
  const { width: own, height } = tab.viewportSize();
  const widths = own < 1000 ? [own, REFLOW_WIDTH] : [own];
  if (shot) await tab.screenshot({ path: shot, fullPage: true });
  const found = await tab.evaluate(`${AXE};axe.run(document, ${JSON.stringify(AXE_OPTIONS)})`);
  for (const { id, impact, nodes, help } of found.violations) {
    if (impact !== "serious" && impact !== "critical") continue;
    const where = nodes.slice(0, 3).map((node) => `${node.target.join(" ")} (${node.any[0]?.message ?? help})`);
    faults.push(`axe ${id}, ${impact}, ${nodes.length} times: ${where.join("; ")}`);
  }
  for (const width of widths) {
    await tab.setViewportSize({ width, height });
    const wide = await tab.evaluate(overflowing);
    if (wide) faults.push(`is wider than a screen of ${width}: ${wide}`);
  }
  await tab.setViewportSize({ width: own, height });
  const lesser = found.violations.filter(({ impact }) => impact !== "serious" && impact !== "critical");
  return { faults, lesser: lesser.map(({ id }) => id) };
}

// Runs in the page: what a screen reader needs to find its way.
function structure() {
  const faults = [];
  const all = (selector) => [...document.querySelectorAll(selector)];
  if (document.documentElement.lang !== "en") faults.push("has no language");
  if (!/\S.* · portal-audit$/.test(document.title)) faults.push(`has the title ${JSON.stringify(document.title)}`);
  if (all("h1").length !== 1) faults.push(`has ${all("h1").length} headings of the first level`);
  if (all("main").length !== 1) faults.push("has no main part, or two");
  const levels = all("h1,h2,h3,h4,h5,h6").map((heading) => Number(heading.tagName[1]));
  for (const [place, level] of levels.entries())
    if (level > (levels[place - 1] ?? 0) + 1) faults.push(`its heading ${place + 1} skips a level`);
  for (const heading of all("h1,h2,h3")) if (!heading.textContent.trim()) faults.push("has an empty heading");
  for (const input of all("input:not([type=hidden]),select,textarea"))
    if (!input.labels.length && !input.ariaLabel) faults.push(`its field ${input.name} has no label`);
  for (const cell of all("th,td,dt,dd,button,nav a")) {
    const words = document.createRange();
    words.selectNodeContents(cell);
    const lines = new Set([...words.getClientRects()].map(({ top }) => Math.round(top)));
    if (cell.textContent.trim().length < 24 && lines.size > 4) faults.push(`breaks ${JSON.stringify(cell.textContent.trim())} into ${lines.size} lines`);
  }
  for (const table of all("table")) if (!table.querySelector("th")) faults.push("has a table without headings");
  const ids = all("[id]").map(({ id }) => id);
  for (const id of new Set(ids.filter((id, place) => ids.indexOf(id) !== place))) faults.push(`has two ids ${id}`);
  if (all("[style],style,script:not([src])").length) faults.push("has something inline that its policy forbids");
  if (all("a:not([href])").length) faults.push("has a link to nowhere");
  return faults;
}

// Runs in the page: what makes it scroll sideways, outside of parts that scroll by themselves.
function overflowing() {
  const { clientWidth, scrollWidth } = document.documentElement;
  if (scrollWidth <= clientWidth) return null;
  const scrolls = (element) => element && (getComputedStyle(element).overflowX !== "visible" || scrolls(element.parentElement));
  const wide = [...document.body.querySelectorAll("*")].filter(
    (element) => element.getBoundingClientRect().right > clientWidth + 0.5 && !scrolls(element.parentElement),
  );
  const said = wide.slice(-3).map((element) => `<${element.tagName.toLowerCase()} class="${element.getAttribute("class") ?? ""}">`);
  return `${scrollWidth} (${said.join(", ")})`;
}

// Bytes on the wire, as a browser asks for them.
export function fetched(url) {
  return new Promise((resolve, reject) => {
    const begun = performance.now();
    const request = http.get(url, { headers: { "accept-encoding": "gzip", accept: "text/html" } }, (answer) => {
      let bytes = 0;
      answer.on("data", (chunk) => (bytes += chunk.length));
      answer.on("end", () => {
        const { statusCode: status, headers } = answer;
        resolve({ bytes, status, headers, millis: performance.now() - begun });
      });
    });
    request.on("error", reject);
  });
}

// The size of a page with what it needs besides, and the fault if it is too much.
export async function weigh(base, place, assets) {
  const page = await fetched(base + place.path);
  const beside = await Promise.all(assets.map(fetched));
  const bytes = beside.reduce((sum, asset) => sum + asset.bytes, page.bytes);
  const max = place.path.startsWith("/facilities") ? FACILITIES_BYTES_MAX : PAGE_BYTES_MAX;
  const faults = bytes > max ? [`has ${bytes} bytes with its style, more than ${max}`] : [];
  if (page.headers["content-encoding"] !== "gzip") faults.push("is not compressed");
  return { bytes, millis: page.millis, faults };
}
