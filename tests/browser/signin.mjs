// Signing in by a token of ours and by a signed one, in a browser, with and without JavaScript: a second portal-audit serves the pages of
// the demo's audit database in each of the two ways. It follows no source: the only one that it is told of is not there.

import { spawn } from "node:child_process";
import { createHash, generateKeyPairSync, sign } from "node:crypto";
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";

const START_MILLIS_MAX = 60_000;
const USERS = { "token-of-maple": "maple", "token-of-opsduty": "opsduty" };
const ISSUER = "https://id.example/";
const COOKIE = "portal_token";

const b64 = (bytes) => Buffer.from(bytes).toString("base64url");

// A token as the portal's identity server would sign it.
function issue(key, claims) {
  const head = { alg: "ES256", kid: "browser" };
  const seconds = Math.floor(Date.now() / 1000);
  const body = { iss: ISSUER, aud: "portal-audit", exp: seconds + 600, nbf: seconds - 5, ...claims };
  const text = `${b64(JSON.stringify(head))}.${b64(JSON.stringify(body))}`;
  return `${text}.${b64(sign("sha256", Buffer.from(text), { key, dsaEncoding: "ieee-p1363" }))}`;
}

async function serve(program, folder, name, socket, access) {
  const port = readdirSync(socket).map((file) => /^\.s\.PGSQL\.(\d+)$/.exec(file)?.[1]).find(Boolean);
  const dsn = (user) => `host=${socket} port=${port} dbname=portal-audit user=${user}`;
  const settings = `
[audit]
dsn = "${dsn("portal_audit_sidecar")}"
[[source]]
name = "elsewhere"
dsn = "host=${folder} dbname=nowhere user=nobody"
mapping = "merge-reference"
[serve]
listen = "127.0.0.1:0"
[pages]
dsn = "${dsn("portal_audit_pages")}"
admins = ["opsduty"]
${access}
[limits]
spool_folder = "${folder}"
`;
  const file = join(folder, `${name}.toml`);
  writeFileSync(file, settings);
  const child = spawn(program, ["run", "--config", file], { stdio: ["ignore", "ignore", "pipe"] });
  let said = "";
  child.stderr.setEncoding("utf8").on("data", (text) => (said += text));
  const ended = new Promise((resolve) => child.on("exit", resolve));
  const deadline = Date.now() + START_MILLIS_MAX;
  let url;
  while (!(url = /url="?(http:\/\/[\d.:]+)/.exec(said)?.[1])) {
    if (child.exitCode !== null || Date.now() > deadline) {
      child.kill("SIGKILL");
      throw new Error(`the pages by ${name} are not served: ${said}`);
    }
    await sleep(50);
  }
  return { url, stop: () => (child.kill("SIGTERM"), Promise.race([ended, sleep(10_000, undefined, { ref: false })]).then(() => child.kill("SIGKILL"))) };
}

function holds(condition, message) {
  if (!condition) throw new Error(message);
}

const who = (tab) => tab.locator(".who").innerText();
const heading = (tab) => tab.locator("h1").first().innerText();

async function byToken(context, url, shoot) {
  const tab = await context.newPage();
  await tab.goto(`${url}/events`);
  holds(new URL(tab.url()).pathname === "/login", `a stranger is at ${tab.url()}`);
  await shoot(tab, "login");
  await tab.getByLabel("Token").fill("a guess");
  await tab.getByRole("button", { name: "Sign in" }).click();
  holds((await tab.getByRole("alert").innerText()).includes("Nobody has this token"), "a wrong token is not told");
  await shoot(tab, "login-wrong");
  await tab.getByLabel("Token").fill("token-of-maple");
  await tab.getByRole("button", { name: "Sign in" }).click();
  holds((await who(tab)) === "maple", `signed in is ${await who(tab)}`);
  const [cookie, ...others] = await context.cookies();
  holds(others.length === 0 && cookie.httpOnly && cookie.secure && cookie.sameSite === "Strict" && cookie.name.startsWith("__Host-"), `the cookie is ${JSON.stringify(cookie)}`);
  await tab.goto(`${url}/users/maple`);
  holds((await heading(tab)).includes("maple"), "maple does not see their own page");
  await shoot(tab, "own");
  // What is for those who see all is not for maple, and nobody else's page is there.
  for (const [path, status] of [["/pipeline", 403], ["/users/opsnight", 404]]) {
    const answer = await tab.goto(url + path);
    holds(answer.status() === status, `${path} answers maple with ${answer.status()}`);
  }
  await tab.goto(`${url}/`);
  await tab.getByRole("button", { name: "Sign out" }).click();
  holds(new URL(tab.url()).pathname === "/login", `signed out, one is at ${tab.url()}`);
  holds((await context.cookies()).length === 0, "signing out leaves a cookie");
  // Who sees all.
  await tab.getByLabel("Token").fill("token-of-opsduty");
  await tab.getByRole("button", { name: "Sign in" }).click();
  holds((await who(tab)).includes("sees all"), `signed in is ${await who(tab)}`);
  holds((await tab.goto(`${url}/pipeline`)).status() === 200, "opsduty does not see the pipeline");
}

async function byJwt(context, url, key, shoot) {
  const tab = await context.newPage();
  const bring = (claims) => context.addCookies([{ name: COOKIE, value: issue(key, claims), url, httpOnly: true, secure: true, sameSite: "Lax" }]);
  const stranger = await tab.goto(`${url}/events`);
  holds(stranger.status() === 401 && (await tab.locator("main").innerText()).includes("Sign in to the portal"), "a stranger is not sent to the portal");
  await shoot(tab, "jwt-stranger");
  await bring({ username: "maple" });
  await tab.goto(`${url}/`);
  holds((await who(tab)) === "maple", `signed in is ${await who(tab)}`);
  holds((await tab.getByRole("button", { name: "Sign out" }).count()) === 0, "the portal's session can be ended here");
  holds((await tab.goto(`${url}/pipeline`)).status() === 403, "maple sees the pipeline");
  await bring({ username: "maple", realm_access: { roles: ["auditor"] } });
  holds((await tab.goto(`${url}/pipeline`)).status() === 200, "an auditor does not see the pipeline");
  await bring({ username: "maple", exp: Math.floor(Date.now() / 1000) - 300 });
  const expired = await tab.goto(`${url}/`);
  holds(expired.status() === 401 && (await tab.locator("main").innerText()).includes("expired"), "an expired token is not told");
  await shoot(tab, "jwt-expired");
}

// `watched` makes a context that notes faults; `shot` is the folder of screenshots.
export async function signIn(program, socket, watched, shots) {
  const folder = mkdtempSync(join(tmpdir(), "portal-audit-browser-"));
  const faults = [];
  const servers = [];
  try {
    const lines = Object.entries(USERS).map(([token, name]) => `${createHash("sha256").update(token).digest("hex")} ${name}`);
    writeFileSync(join(folder, "tokens"), lines.join("\n"));
    const { publicKey, privateKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
    writeFileSync(join(folder, "jwks.json"), JSON.stringify({ keys: [{ ...publicKey.export({ format: "jwk" }), kid: "browser" }] }));
    const jwt = `access = "jwt"\n[pages.jwt]\njwks_file = "jwks.json"\nissuer = "${ISSUER}"\naudience = "portal-audit"\nname = "$.username"\ncookie = "${COOKIE}"\nadmin = { claim = "$.realm_access.roles", value = "auditor" }`;
    const ways = [
      ["token", 'access = "token"\ntoken_file = "tokens"', byToken],
      ["jwt", jwt, (context, url, shoot) => byJwt(context, url, privateKey, shoot)],
    ];
    for (const [name, access, flow] of ways) {
      const server = await serve(program, folder, name, socket, access);
      servers.push(server);
      for (const scripted of [true, false]) {
        const noted = { requests: 0, faults: [], answers: ["401", "403", "404"] };
        const context = await watched(server.url, { javaScriptEnabled: scripted, viewport: { width: 1280, height: 800 } }, noted);
        const shoot = (tab, what) => (scripted ? tab.screenshot({ path: join(shots, `signin-${what}.png`), fullPage: true }) : null);
        const where = `signing in by ${name}${scripted ? "" : ", without JavaScript"}`;
        await flow(context, server.url, shoot).catch((error) => faults.push(`${where}: ${error.message.split("\n")[0]}`));
        faults.push(...noted.faults.map((fault) => `${where}: ${fault}`));
        await context.close();
      }
    }
  } finally {
    await Promise.all(servers.map((server) => server.stop()));
    rmSync(folder, { recursive: true, force: true });
  }
  return faults;
}
