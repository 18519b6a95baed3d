// What people do on the pages, said once and done twice: in a browser as it is, and in one without JavaScript.

export const FLOWS = {};
let base = "";
export const setBase = (url) => (base = url);

class Fault extends Error {}
function holds(condition, message) {
  if (!condition) throw new Fault(message);
}
function same(found, wanted, what) {
  holds(JSON.stringify(found) === JSON.stringify(wanted), `${what} is ${JSON.stringify(found)}, not ${JSON.stringify(wanted)}`);
}

const open = (tab, path) => tab.goto(base + path);
const text = async (tab, selector) => (await tab.locator(selector).first().innerText()).trim();
const texts = async (tab, selector) => (await tab.locator(selector).allInnerTexts()).map((words) => words.trim());
const query = (tab) => new URL(tab.url()).searchParams.get("q");
const heading = (tab) => text(tab, "h1");
async function go(tab, locator) {
  holds((await locator.count()) > 0, `${locator} is not there`);
  await Promise.all([tab.waitForEvent("load"), locator.first().click()]);
}
const day = (before) => new Date(Date.now() - before * 86_400_000).toISOString().slice(0, 10);

// Events of a list: id, time, type, whether it failed, and its words.
function lines(tab) {
  return tab.locator(".lines > li").evaluateAll((all) =>
    all.map((line) => ({
      id: line.querySelector(".said a").getAttribute("href").split("/").at(-1),
      time: line.querySelector("time").textContent,
      type: line.querySelector("code").textContent.trim(),
      failed: line.className === "failed",
      words: line.querySelector(".said a").textContent,
    })),
  );
}

async function search(tab, words) {
  await open(tab, "/events");
  await tab.locator("#q").fill(words);
  await go(tab, tab.locator("form.search button"));
  same(query(tab), words, "the search in the address");
  same(await tab.locator("#q").inputValue(), words, "the search in its field");
  return lines(tab);
}

FLOWS["overview: numbers, now and on a past date"] = async (tab) => {
  await open(tab, "/");
  same(await heading(tab), "Now", "the heading");
  const number = async (name) => {
    const card = tab.locator(".card", { has: tab.locator(`.name:text-is("${name}")`) });
    return Number((await card.locator(".number").innerText()).replace(/\D/g, ""));
  };
  const users = await number("Users");
  for (const name of ["Projects", "Organizations", "Experiments"]) holds((await number(name)) > 0, `there are no ${name}`);
  const date = day(40);
  await tab.locator("#at").fill(date);
  await go(tab, tab.getByRole("button", { name: "Show" }));
  same(await heading(tab), `At the end of ${date}`, "the heading");
  same(await tab.locator("#at").inputValue(), date, "the date in its field");
  const before = await number("Users");
  holds(before > 0 && before < users, `there were ${before} users, and now there are ${users}`);
  for (const { time } of await lines(tab)) holds(time.slice(0, 10) <= date, `an event of ${time} is shown as before the end of ${date}`);
  await go(tab, tab.locator("main").getByRole("link", { name: "Now", exact: true }));
  same(await heading(tab), "Now", "the heading");
};

FLOWS["overview: ranges, and the chart as a table"] = async (tab) => {
  await open(tab, "/");
  for (const range of ["30 days", "90 days", "1 year", "5 years"]) {
    await go(tab, tab.locator(".chips").getByRole("link", { name: range, exact: true }));
    same(await texts(tab, ".chips [aria-current]"), [range], "the chosen range");
    holds((await tab.locator("svg.chart rect.well").count()) > 0, `there is no bar within ${range}`);
  }
  const table = tab.locator("details table");
  holds(!(await table.isVisible()), "the table is open at once");
  await tab.locator("summary").click();
  await table.waitFor({ state: "visible" });
  const months = await table.locator("tbody tr").count();
  holds(months >= 3, `the table has ${months} months`);
};

FLOWS["overview: each number leads to its events"] = async (tab) => {
  await open(tab, "/");
  const names = await texts(tab, "a.card .name");
  holds(names.length >= 6, `there are ${names.length} cards`);
  for (const name of names) {
    await open(tab, "/");
    await go(tab, tab.locator("a.card", { has: tab.locator(`.name:text-is("${name}")`) }));
    same(await heading(tab), "Events", `the heading behind ${name}`);
    holds(query(tab), `${name} leads to no search`);
    same(await tab.locator("#misread").count(), 0, `faults in the search behind ${name}`);
  }
};

FLOWS["events: the chips"] = async (tab) => {
  await open(tab, "/events");
  const names = await texts(tab, ".chips a:not([download])");
  const beginnings = { Logins: ["login_"], Memberships: ["org_member_", "project_member_"], Experiments: ["experiment_"] };
  for (const name of names) {
    await open(tab, "/events");
    await go(tab, tab.locator(".chips").getByRole("link", { name, exact: true }));
    same(await tab.locator("#q").inputValue(), query(tab), "the search in its field");
    const found = await lines(tab);
    const isEmpty = (await tab.locator(".empty").count()) === 1;
    holds(found.length > 0 !== isEmpty, `${name} shows ${found.length} events and says ${isEmpty ? "" : "not "}that there are none`);
    if (name === "Failures") holds(found.length > 0 && found.every(({ failed }) => failed), "Failures shows none, or what succeeded");
    for (const { type } of beginnings[name] ? found : [])
      holds(beginnings[name].some((beginning) => type.startsWith(beginning)), `${name} shows ${type}`);
  }
};

FLOWS["events: typed qualifiers"] = async (tab) => {
  let found = await search(tab, "type:experiment_created");
  holds(found.length > 0 && found.every(({ type }) => type === "experiment_created"), "type: finds other types, or nothing");
  found = await search(tab, "type:login_* payload.method:oidc");
  holds(found.length > 0 && found.every(({ type }) => type.startsWith("login_")), "payload.method: finds other types, or nothing");
  found = await search(tab, "actor:opsduty since:200d");
  holds(found.length > 0, "actor: finds nothing");
  await go(tab, tab.locator(".lines .said a"));
  same(await tab.locator('dl.facts a[href="/users/opsduty"]').count() > 0, true, "the caller of what actor:opsduty finds");
  found = await search(tab, `until:${day(30)}`);
  holds(found.length > 0 && found.every(({ time }) => time < day(29)), "until: finds what came later, or nothing");
  found = await search(tab, "success:false since:7d");
  holds(found.length > 0 && found.every(({ failed }) => failed), "success:false finds what succeeded, or nothing");
  found = await search(tab, "wrenn");
  holds(found.length > 0, "a name finds nothing");
};

FLOWS["events: what is misread, unknown or hostile"] = async (tab) => {
  const asked = "colour:red";
  await search(tab, asked);
  holds((await text(tab, "#misread")).includes("colour"), "the fault of a search does not name it");
  same(await tab.locator("#q").getAttribute("aria-invalid"), "true", "the mark of the field");
  same(await tab.locator("#q").getAttribute("aria-describedby"), "misread", "what describes the field");
  same(await search(tab, "subject:nobody-at-all"), [], "what nobody did");
  holds((await text(tab, ".empty")).includes("No event fits"), "an empty list does not say so");
  const hostile = `"><script>document.title='x'</script>\u202egpj.exe <img src=x onerror=alert(1)>`;
  await open(tab, `/events?q=${encodeURIComponent(hostile)}`);
  same(await tab.locator("main script, main img").count(), 0, "elements that a search made");
  same(await tab.title(), "Events · portal-audit", "the title");
};

FLOWS["events: older and newer pages"] = async (tab) => {
  // Nothing arrives any more before today.
  await search(tab, `until:${day(1)}`);
  const pages = [await lines(tab)];
  same(await tab.getByRole("link", { name: "Newer" }).count(), 0, "links to newer than the newest");
  for (let page = 0; page < 3; page += 1) {
    await go(tab, tab.getByRole("link", { name: "Older" }));
    pages.push(await lines(tab));
  }
  const ids = pages.flat().map(({ id }) => id);
  same(new Set(ids).size, ids.length, "the number of different events");
  const times = pages.flat().map(({ time }) => time);
  same(times, [...times].sort().reverse(), "the order of times");
  for (let page = 2; page >= 0; page -= 1) {
    await go(tab, tab.getByRole("link", { name: "Newer" }));
    same((await lines(tab)).map(({ id }) => id), pages[page].map(({ id }) => id), `page ${page + 1} on the way back`);
  }
  same(await tab.getByRole("link", { name: "Newer" }).count(), 0, "links to newer than the newest");
};

FLOWS["events: one event, its subject, its caller, its type"] = async (tab) => {
  const [first] = await search(tab, "type:experiment_created");
  await go(tab, tab.locator(".lines .said a"));
  const detail = tab.url();
  holds(detail.endsWith(first.id), "a line leads to another event");
  same(await heading(tab), first.words, "the heading of an event");
  holds(typeof JSON.parse(await text(tab, "pre.payload")) === "object", "the payload is no object");
  same((await texts(tab, "dl.facts dt")).includes("Id"), true, "that the id is said");
  await go(tab, tab.locator('dl.facts a[href^="/events?q=type"]'));
  same(query(tab), "type:experiment_created", "the search of the type");
  await tab.goBack();
  const subject = tab.locator('dl.facts a[href^="/experiments/"]');
  const name = await subject.innerText();
  await go(tab, subject);
  holds((await heading(tab)).endsWith(name), "the page of the subject has another name");
  holds((await lines(tab)).some(({ id }) => id === first.id), "the subject's history lacks the event");
};

FLOWS["subjects: a user, an organization, a project, an experiment"] = async (tab) => {
  for (const [search_, path] of [
    ["type:user_created", "/users/"],
    ["type:org_created", "/organizations/"],
    ["type:project_created", "/projects/"],
    ["type:experiment_created", "/experiments/"],
  ]) {
    await search(tab, search_);
    await go(tab, tab.locator(".lines .said a"));
    await go(tab, tab.locator(`dl.facts a[href^="${path}"]`));
    const name = await heading(tab);
    const found = await lines(tab);
    holds(found.length > 0, `${name} has no history`);
    const times = found.map(({ time }) => time);
    same(times, [...times].sort().reverse(), `the order of the history of ${name}`);
    await go(tab, tab.getByRole("link", { name: "As a filter of all events" }));
    same(await tab.locator("#misread").count(), 0, `faults in the filter of ${name}`);
    holds((await lines(tab)).length > 0, `the filter of ${name} finds nothing`);
  }
  const missing = await open(tab, "/users/nobody-at-all");
  same(missing.status(), 404, "the answer for nobody");
};

FLOWS["pipeline: the source is followed"] = async (tab) => {
  await open(tab, "/pipeline");
  holds((await texts(tab, ".card h2"))[0].includes("following"), "the source is not followed");
  same(await tab.locator("footer .complete").count() > 0, true, "that the foot says up to when the record is complete");
};

FLOWS["every page: the search in the head"] = async (tab) => {
  for (const path of ["/", "/events", "/pipeline"]) {
    await open(tab, path);
    await tab.locator("#find").fill("type:org_created");
    await Promise.all([tab.waitForEvent("load"), tab.locator("#find").press("Enter")]);
    same(query(tab), "type:org_created", `the search from ${path}`);
    holds((await lines(tab)).length > 0, `the search from ${path} finds nothing`);
  }
};

FLOWS["export: what the page offers"] = async (tab, { skip }) => {
  await search(tab, "type:org_created");
  const links = tab.locator('main a[href*="/export"]');
  if (!(await links.count())) return skip("no export on the page yet");
  for (const link of await links.all()) {
    const [download] = await Promise.all([tab.waitForEvent("download"), link.click()]);
    const bytes = Buffer.concat(await (await download.createReadStream()).toArray());
    holds(bytes.length > 100, `${download.suggestedFilename()} has ${bytes.length} bytes`);
    holds(/\.(csv|jsonl|json|parquet)$/.test(download.suggestedFilename()), `an export is called ${download.suggestedFilename()}`);
  }
};

FLOWS["facilities: the map, the table, a click"] = async (tab, { skip }) => {
  const answer = await open(tab, "/facilities");
  if (answer.status() === 404) return skip("no facilities in this build");
  const marks = tab.locator('main svg a[href^="/facilities/"]');
  const rows = tab.locator('main table a[href^="/facilities/"]');
  holds((await rows.count()) > 0, "the table has no facility");
  holds((await marks.count()) > 0, "the map has no facility");
  const path = (link) => link.getAttribute("href").then(decodeURIComponent);
  for (const mark of await marks.all())
    holds((await tab.locator(`main table a[href="${await mark.getAttribute("href")}"]`).count()) > 0, "a mark has no row");
  const target = await path(marks.first());
  await go(tab, marks);
  same(decodeURIComponent(new URL(tab.url()).pathname), target, "where a click on the map leads");
  holds((await heading(tab)).includes(target.split("/").at(-1)), "the facility's page has another name");
};
