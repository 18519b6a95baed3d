// What comes from npm, out of the folder that ./check has filled.

import { createRequire } from "node:module";
import { readFileSync } from "node:fs";
import { join } from "node:path";

const need = createRequire(join(process.env.BROWSER_TOOLS, "package.json"));

export const { chromium } = need("playwright-core");

// Run as text by the debugger, so that the pages' policy has no say in it.
export const AXE = readFileSync(need.resolve("axe-core/axe.min.js"), "utf8");
