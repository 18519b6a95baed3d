// What was seen, as tables for a person; and 1 if anything is wrong.

const isTerminal = process.stdout.isTTY && !process.env.NO_COLOR;
const painted = (code) => (text) => (isTerminal ? `\x1b[${code}m${text}\x1b[0m` : text);
const [bold, dim, red, green] = [1, 2, 31, 32].map(painted);
const mark = (faults) => (faults ? red(`✗ ${faults}`.padEnd(6)) : green("✓".padEnd(6)));

export function report({ base, version, rows, scripted, plain, keyboard, links, lost, noted, unnoticed, signing, ended, shots, millis }) {
  const faults = [];
  const out = (line = "") => console.log(line);
  out(bold(`\nThe pages of ${base} in Chromium ${version}\n`));
  out(dim(`  ${"page".padEnd(15)}${"kB".padStart(6)}${"ms".padStart(6)}   light   dark    narrow`));
  for (const { place, bytes, millis, looks, faults: found, lesser } of rows) {
    const size = (bytes / 1000).toFixed(1).padStart(6);
    const cells = Object.values(looks).map(mark).join("  ");
    const minor = lesser.size ? dim(`minor: ${[...lesser].join(", ")}`) : "";
    out(`  ${place.name.padEnd(15)}${size}${millis.toFixed(0).padStart(6)}   ${cells}  ${minor}`);
    faults.push(...found);
  }
  out(dim("\n  kB: the page with style and icon, compressed. A look: WCAG 2.2 AA by axe, headings, labels, no scrolling sideways.\n"));
  out(dim(`  ${"what people do".padEnd(62)}as it is   without JavaScript`));
  for (const [name, { verdict, said, place }] of Object.entries(scripted)) {
    const other = plain[name];
    out(`  ${name.padEnd(62)}${painted(verdict === "✗" ? 31 : 32)(verdict.padEnd(11))}${painted(other.verdict === "✗" ? 31 : 32)(other.verdict)}${verdict === "–" ? dim(`   ${said}`) : ""}`);
    if (verdict === "✗") faults.push(`${name}: ${said} (at ${place})`);
    if (other.verdict === "✗") faults.push(`${name}, without JavaScript: ${other.said} (at ${other.place})`);
  }
  faults.push(...keyboard.map((fault) => `keyboard: ${fault}`), ...lost, ...new Set(noted.faults), ...unnoticed, ...(signing ?? []));
  if (ended) faults.push(ended);
  const line = (name, isFine, said) => out(`  ${name.padEnd(62)}${isFine ? green("✓") : red("✗")}          ${dim(said)}`);
  out();
  line("keyboard: order, focus that is seen, way past the head", !keyboard.length, "");
  line("every link leads to something", !lost.length, `${links.size} links`);
  line("no other site is asked, console and policy are silent", !noted.faults.length, `${noted.requests} requests`);
  line("a page broken on purpose is refused", !unnoticed.length, "");
  if (signing) line("people sign in by a token, and by a signed one", !signing.length, "as it is, and without JavaScript");
  line("the demo lost and doubled nothing meanwhile", !ended, "");
  out(`\n  ${dim(`screenshots: ${shots}/*.png`)}`);
  if (faults.length) out(`\n${faults.map((fault) => `${red("✗")} ${fault}`).join("\n")}`);
  const seconds = (millis / 1000).toFixed(0);
  out(`\n${faults.length ? red(`${faults.length} faults`) : green("no fault")} in ${seconds} s`);
  return faults.length ? 1 : 0;
}
