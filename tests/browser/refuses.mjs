// A page that is broken on purpose, in ways that the eye misses: each must be noticed, or this whole check proves nothing.

import { look } from "./looks.mjs";

const BREAKS = [
  ["an inline script", "<script>document.title = 'x'</script>", /policy was breached|inline/],
  ["an inline style", '<p style="width:1px">x</p>', /policy was breached|inline/],
  ["words too pale", '<p class="pale">hard to read</p>', /axe color-contrast/],
  ["a field without a label", '<input name="x">', /field x has no label/],
  ["a picture without words", '<img src="/assets/icon-1.svg">', /axe image-alt/],
  ["a heading that skips levels", "<h5>x</h5>", /skips a level/],
  ["something wider than the screen", '<table><tr><th class="n">' + "x".repeat(300) + "</th></tr></table>", /is wider than a screen/],
  ["a picture from elsewhere", '<img src="http://127.0.0.1:9/x.png" alt="">', /request to|policy was breached/],
  ["a dialog", '<a href="/" id="x">x</a><script src="/assets/alert.js"></script>', /dialog opened/],
];
const PALE = ".pale{color:#c4c8c6!important}.n{overflow-wrap:normal!important}";

// What was not noticed. `watched` makes a context that writes into what it is given.
export async function refuses(watched, base) {
  const noted = { requests: 0, faults: [] };
  const context = await watched(noted);
  await context.route(`${base}/login`, async (route) => {
    const answer = await route.fetch();
    const body = (await answer.text()).replace("</main>", `${BREAKS.map(([, html]) => html).join("")}</main>`);
    await route.fulfill({ response: answer, body });
  });
  await context.route(`${base}/assets/alert.js`, (route) => route.fulfill({ contentType: "text/javascript", body: "alert(1)" }));
  await context.route(`${base}/assets/style-*.css`, async (route) => {
    const answer = await route.fetch();
    await route.fulfill({ response: answer, body: (await answer.text()) + PALE });
  });
  const tab = await context.newPage();
  const { faults } = await look(tab, { name: "broken", path: "/login", status: 200 }, { base });
  await context.close();
  const all = [...faults, ...noted.faults];
  return BREAKS.filter(([, , pattern]) => !all.some((fault) => pattern.test(fault))).map(([name]) => `${name} was not noticed on a broken page`);
}
