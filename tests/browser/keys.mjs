// With the keyboard alone: a way past the head, an order that follows the page, a focus that is seen.

// Runs in the page: what has the focus, and whether that is seen.
function focused() {
  const element = document.activeElement;
  if (!element || element === document.body) return null;
  const style = getComputedStyle(element);
  const box = element.getBoundingClientRect();
  const inside = box.width > 0 && box.right > 0 && box.left < innerWidth && box.bottom > 0 && box.top < innerHeight;
  const outline = style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2;
  const said = element.getAttribute("href") ?? element.id ?? "";
  return { name: `${element.tagName.toLowerCase()} ${said || element.textContent.trim()}`, seen: inside && outline, top: box.top + scrollY };
}

export async function keys(tab, base) {
  const faults = [];
  const seen = async () => {
    await tab.keyboard.press("Tab");
    const now = await tab.evaluate(focused);
    if (now && !now.seen) faults.push(`the focus on ${now.name} is not seen`);
    return now;
  };
  for (const [path, needed] of [
    ["/", ["a #main", "a /events", "input find", "input at", "a /events?q=type%3Auser_%2A", "summary"]],
    ["/events", ["a #main", "a /", "a /pipeline", "input find", "input q", "a /events?q=type%3Alogin_%2A"]],
  ]) {
    await tab.goto(base + path);
    const order = [];
    for (let now = await seen(); now && order.length < 300; now = await seen()) order.push(now);
    const names = order.map(({ name }) => name);
    let at = -1;
    for (const name of needed) {
      const place = names.findIndex((found) => found.startsWith(name));
      if (place <= at) faults.push(`${name} is ${place < 0 ? "not reached" : "reached too early"} on ${path}`);
      at = Math.max(at, place);
    }
    if (names.length > 0 && names[0] !== "a #main") faults.push(`the first on ${path} is ${names[0]}, not the way past the head`);
  }
  // The way past the head.
  await tab.goto(`${base}/events`);
  await tab.keyboard.press("Tab");
  await tab.keyboard.press("Enter");
  const place = await tab.evaluate(() => document.activeElement.id);
  if (place !== "main") faults.push(`the way past the head leads to ${place || "nothing"}`);
  await tab.keyboard.press("Tab");
  const next = await tab.evaluate(focused);
  if (next?.name !== "input q") faults.push(`after the head comes ${next?.name}, not the filter`);
  await tab.keyboard.type("type:org_created");
  await Promise.all([tab.waitForEvent("load"), tab.keyboard.press("Enter")]);
  if (!tab.url().includes("q=type")) faults.push("Enter in the filter does nothing");
  return faults;
}
