// The pages of self-service in Chromium, as people use them: by mouse on a wide screen, by keyboard
// alone on a narrow one, and without JavaScript. Each page is given to axe in both colour schemes.
//
// Reads a job (see tests/integration/site/browser.rs) and prints a line of JSON for each step.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { request } from "node:https";
import { join } from "node:path";
import { chromium } from "playwright-core";

const JOB = JSON.parse(readFileSync(0, "utf8"));
const AXE = readFileSync(new URL("../node_modules/axe-core/axe.min.js", import.meta.url), "utf8");
const CA = readFileSync(JOB.ca);
const WIDE = { width: 1280, height: 900 };
const NARROW = { width: 380, height: 800 };

const say = (line) => console.log(JSON.stringify(line));
const pause = (time) => new Promise((resolve) => setTimeout(resolve, time));

// The status with which Envoy answers a call with a token.
function call(domain, token) {
  return new Promise((resolve, reject) => {
    const sent = request(
      `${JOB.gateway}/proxy/${domain}/v1/models`,
      { ca: CA, headers: { authorization: `Bearer ${token}` }, agent: false },
      (response) => response.resume().on("end", () => resolve(response.statusCode)),
    );
    sent.on("error", reject).end();
  });
}

// Asks until Envoy answers with this status; fails after `within` milliseconds.
async function answers(domain, token, status, within) {
  const begin = performance.now();
  for (;;) {
    const got = await call(domain, token);
    if (got === status) return;
    assert.ok(performance.now() - begin < within, `${got} instead of ${status}`);
    await pause(20);
  }
}

// How a person works a page. `by` is "mouse" or "keyboard".
class Person {
  constructor(page, by, { checks = true, width = WIDE.width } = {}) {
    Object.assign(this, { page, by, checks, width });
  }

  async open(path) {
    await this.page.goto(JOB.site + path);
    await this.look();
  }

  // What must hold for every page.
  async look() {
    const { page } = this;
    const wide = await page.evaluate(() => document.documentElement.scrollWidth);
    assert.ok(wide <= this.width, `${page.url()} is ${wide} pixels wide`);
    // What has the same title is the same page, with other names in it.
    const kind = `${await page.title()}, ${this.width}, ${await page.getByRole("alert").count()}`;
    if (!this.checks || looked.has(kind)) return;
    looked.add(kind);
    for (const colorScheme of ["light", "dark"]) {
      await page.emulateMedia({ colorScheme });
      // The page's own policy permits no foreign script; the debugger may run one.
      const { violations } = await page.evaluate(`${AXE}; axe.run(document)`);
      const found = violations.map(({ id, nodes }) => `${id}: ${nodes.map((n) => n.html)}`);
      assert.deepEqual(found, [], `axe on ${page.url()}, ${colorScheme}`);
    }
    await page.emulateMedia({ colorScheme: "light" });
  }

  // Goes on with Tab, from where the person is, until this is in focus.
  async reach(target) {
    for (let presses = 0; presses < 200; presses++) {
      if (await target.evaluate((node) => node === document.activeElement)) return;
      await this.page.keyboard.press("Tab");
    }
    assert.fail(`Tab does not reach ${target}`);
  }

  async fill(label, text) {
    const field = this.page.getByLabel(label, { exact: true });
    if (this.by === "mouse") return field.fill(text);
    await this.reach(field);
    await this.page.keyboard.press("Control+A");
    await this.page.keyboard.type(text);
  }

  async choose(label, value) {
    const select = this.page.getByLabel(label, { exact: true });
    if (this.by === "mouse") return select.selectOption(value);
    await this.reach(select);
    const at = await select.evaluate((node, value) => [...node.options].findIndex((o) => o.value === value), value);
    assert.notEqual(at, -1, `${label} offers no ${value}`);
    await this.page.keyboard.press("Home");
    for (let down = 0; down < at; down++) await this.page.keyboard.press("ArrowDown");
    assert.equal(await select.inputValue(), value);
  }

  async tick(label) {
    const box = this.page.getByLabel(label, { exact: true });
    if (this.by === "mouse") return box.check();
    await this.reach(box);
    await this.page.keyboard.press("Space");
  }

  // Presses a button or follows a link, and looks at the page to which it leads.
  async press(role, name) {
    // Some links are both in the frame and in the content.
    const target = this.page.getByRole(role, { name, exact: true }).first();
    if (this.by === "mouse") {
      await target.click();
    } else {
      await this.reach(target);
      await Promise.all([this.page.waitForEvent("load"), this.page.keyboard.press("Enter")]);
    }
    await this.page.waitForLoadState("load");
    await this.look();
  }

  async sees(text) {
    const body = await this.page.locator("main").innerText();
    assert.ok(body.includes(text), `no "${text}" in: ${body}`);
  }

  async signIn({ email, password }) {
    await this.open("/sign-in");
    await this.fill("Email address", email);
    await this.fill("Password", password);
    await this.press("button", "Sign in");
    await this.sees("Your tokens");
  }

  async picture(name) {
    if (!JOB.pictures) return;
    await this.page.evaluate(() => document.activeElement?.blur());
    await this.page.screenshot({ path: join(JOB.pictures, `${name}.png`) });
  }
}

const looked = new Set();

// A token is made, seen once, used, and revoked.
async function live(person, name) {
  await person.signIn(JOB.owner);
  await person.press("link", "New token");
  await person.fill("Name", name);
  await person.fill("What it is for", "the notebook on my desk");
  await person.choose("Works for", "90");
  const first = "The token may";
  const row = (number) => person.page.getByRole("group", { name: `Scope ${number}`, exact: true });
  assert.equal(await row(1).count(), 1);
  await choose(person, row(1), first, "acme:models:llm_read");
  await person.press("button", "Add another scope");
  await choose(person, row(2), first, "acme:models:llm_chat_completions");
  if (name === "laptop") await person.picture("new-token");
  await person.press("button", "Create the token");
  await person.sees("It is not shown again");
  const token = await person.page.locator("#secret").innerText();
  say({ minted: token });
  assert.equal(await call("acme", token), 200);
  say({ step: `${name}: used through Envoy` });

  person.page.once("dialog", (dialog) => dialog.accept());
  await person.page.reload();
  const again = await person.page.content();
  assert.ok(!again.includes(token), "a reload shows the token again");
  await person.sees("cannot be shown again");
  await person.look();
  say({ step: `${name}: not shown again` });

  await person.open(`/tokens?name=${name}`);
  await person.sees("in 90 days");
  assert.ok(!(await person.page.content()).includes(token));
  await person.press("link", name);
  await person.sees("chat completions: all models in acme");
  await person.press("link", "Revoke");
  await person.press("button", "Revoke the token");
  await answers("acme", token, 401, 1000);
  await person.sees("replicas obeyed");
  say({ step: `${name}: revoked` });
  await person.press("button", "Sign out");
  await person.open("/tokens");
  await person.sees("Sign in");
}

// A select of a row of scopes: each row has one with the same label.
async function choose(person, row, label, value) {
  const select = row.getByLabel(label, { exact: true });
  if (person.by === "mouse") return select.selectOption(value);
  await person.reach(select);
  await person.page.keyboard.press("Home");
  const at = await select.evaluate((node, value) => [...node.options].findIndex((o) => o.value === value), value);
  for (let down = 0; down < at; down++) await person.page.keyboard.press("ArrowDown");
  assert.equal(await select.inputValue(), value);
}

// Copying needs a script, and has one.
async function copies(person) {
  await person.signIn(JOB.owner);
  await person.open("/tokens/new");
  await person.fill("Name", "copied");
  await choose(person, person.page.getByRole("group", { name: "Scope 1" }), "The token may", "acme:models:llm_read");
  await person.press("button", "Create the token");
  const token = await person.page.locator("#secret").innerText();
  say({ minted: token });
  await person.page.getByRole("button", { name: "Copy the token" }).click();
  await person.page.getByRole("button", { name: "Copied" }).waitFor();
  assert.equal(await person.page.evaluate(() => navigator.clipboard.readText()), token);
  const commands = await person.page.locator("#curl").innerText();
  const program = await person.page.locator("#openai").innerText();
  say({ commands, program });
  await person.press("link", "Details of the token");
  await person.press("link", "Why was I refused?");
  await person.choose("Method", "POST");
  await person.fill("Path", "/proxy/acme/v1/chat/completions");
  await person.fill("Model, if the request names one", JOB.model);
  await person.press("button", "Ask");
  await person.sees("permission_denied");
  await person.picture("why");
  await person.press("link", "Details of the token");
  for (const [link, button] of [
    ["Rotate", "Rotate the token"],
    ["New secret", "Make a new secret"],
    ["Delete", "Delete the token"],
  ]) {
    await person.press("link", link);
    await person.page.getByRole("button", { name: button }).waitFor();
    await person.press("link", "Keep it as it is");
  }
  say({ step: "copied" });
}

// Mistakes are found by those who cannot see the page, too.
async function errs(person) {
  await person.open("/sign-in");
  await person.fill("Email address", JOB.owner.email);
  await person.fill("Password", "not the password");
  await person.press("button", "Sign in");
  await person.page.getByRole("alert").waitFor();
  const field = person.page.getByLabel("Email address");
  assert.equal(await field.getAttribute("aria-invalid"), "true");
  assert.ok((await field.getAttribute("aria-describedby")).includes("email-error"));
  for (const path of ["/invitation", "/nothing"]) await person.open(path);
  await person.signIn(JOB.owner);
  await person.open("/tokens/new");
  await person.fill("Name", "nothing chosen");
  await person.press("button", "Create the token");
  await person.page.getByRole("alert").getByRole("link").click();
  assert.equal(await person.page.evaluate(() => document.activeElement.id), "scopes");
  for (const path of ["/account", "/history", "/domains", "/users"]) await person.open(path);
  say({ step: "mistakes" });
}

// An administrator sets a domain up; a member's token works there.
async function administers(person, member) {
  await person.signIn(JOB.administrator);
  await person.open("/users");
  await person.sees("Confirm your password");
  await person.fill("Password", JOB.administrator.password);
  await person.press("button", "Confirm");
  await person.press("link", "Domains");
  await person.fill("Slug, as in the URL", "gamma");
  await person.fill("Name", "Gamma");
  await person.choose("Backend", "model-acme");
  await person.fill("Models that it sees, one per line", JOB.model);
  await person.press("button", "Create the domain");
  await person.sees("Domain gamma");
  await person.page.getByLabel("Name", { exact: true }).fill("readers");
  const boxes = person.page.getByRole("group", { name: "Operations", exact: true });
  await boxes.getByLabel("llm_read", { exact: true }).check();
  await person.press("button", "Create the role");
  await person.fill("Email address of the user", JOB.owner.email);
  await person.choose("Role", "readers");
  await person.press("button", "Add the member");
  await person.sees(JOB.owner.email);
  await person.picture("domain");
  for (const path of ["/domains", "/backends", "/users", "/audit", "/replicas", "/tokens?all=yes"]) {
    await person.open(path);
  }
  say({ step: "a domain is set up" });

  await member.signIn(JOB.owner);
  await member.open("/tokens/new");
  await member.fill("Name", "of gamma");
  await choose(member, member.page.getByRole("group", { name: "Scope 1" }), "The token may", "gamma:models:llm_read");
  await member.press("button", "Create the token");
  const token = await member.page.locator("#secret").innerText();
  say({ minted: token });
  await answers("gamma", token, 200, 5000);
  await member.open("/tokens");
  await member.picture("tokens");
  say({ step: "a member's token works" });
}

const browser = await chromium.launch({
  executablePath: JOB.chromium,
  args: ["--no-sandbox", "--disable-dev-shm-usage"],
});

// A browser of its own for each person.
async function person(by, viewport, options = {}) {
  const context = await browser.newContext({ viewport, ...options });
  await context.grantPermissions(["clipboard-read", "clipboard-write"], { origin: JOB.site });
  const page = await context.newPage();
  const faults = [];
  page.on("pageerror", (error) => faults.push(String(error)));
  // Such as what the policy of the page refuses. A refused form is no fault.
  page.on("console", (message) => {
    if (message.type() === "error" && !/status of 4\d\d/.test(message.text())) faults.push(message.text());
  });
  page.setDefaultTimeout(20_000);
  const checks = options.javaScriptEnabled !== false;
  return { faults, context, it: new Person(page, by, { checks, width: viewport.width }) };
}

async function as(setting, act) {
  const { faults, context, it } = await person(...setting);
  await act(it);
  assert.deepEqual(faults, []);
  await context.close();
}

try {
  await as(["mouse", WIDE], (it) => live(it, "laptop"));
  await as(["keyboard", NARROW], (it) => live(it, "phone"));
  await as(["mouse", WIDE, { javaScriptEnabled: false }], (it) => live(it, "reader"));
  await as(["mouse", WIDE], copies);
  await as(["mouse", NARROW], errs);
  await as(["mouse", WIDE], (root) => as(["mouse", WIDE], (member) => administers(root, member)));
  say({ step: "axe", looked: [...looked] });
} finally {
  await browser.close();
}
