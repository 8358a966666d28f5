// Signs in to self-service by a provider in Chromium, with JavaScript and without, and out again. The
// provider is another site than self-service, as it mostly is, so that cookies count as they do there.
// Its argument is the folder where playwright is installed; the job is on its standard input.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";

const require = createRequire(join(process.argv[2], "package.json"));
const { chromium } = require("playwright-core");
const { site, issuer, account, email, chromium: executablePath } = JSON.parse(readFileSync(0, "utf8"));

const args = ["--no-sandbox", "--disable-dev-shm-usage"];
const browser = await chromium.launch({ executablePath, args });
try {
  for (const javaScriptEnabled of [true, false]) {
    const extraHTTPHeaders = { "x-account": account };
    const context = await browser.newContext({ javaScriptEnabled, extraHTTPHeaders });
    const page = await context.newPage();
    page.setDefaultTimeout(20_000);
    const faults = [];
    page.on("console", (message) => message.type() === "error" && faults.push(message.text()));
    await page.goto(`${site}/tokens`);
    assert.equal(page.url(), `${site}/sign-in`);
    await page.getByRole("link", { name: "Sign in with " }).click();
    await page.waitForURL(`${site}/tokens`);
    await page.getByText(email).waitFor();
    const cookies = await context.cookies(site);
    const [session, ...others] = cookies.filter(({ name }) => name.startsWith("patgate"));
    assert.equal(session.name, "patgate-session");
    assert.equal(session.sameSite, "Strict");
    assert.deepEqual(others, []);
    await page.getByRole("button", { name: "Sign out" }).click();
    await page.waitForURL((url) => url.href.startsWith(`${site}/sign-in`));
    await page.goto(`${site}/tokens`);
    assert.equal(page.url(), `${site}/sign-in`);
    assert.deepEqual(faults, []);
    await page.getByRole("link", { name: "Sign out of " }).click();
    await page.waitForURL((url) => url.href.startsWith(`${issuer}/session/end?`));
    await context.close();
  }
  console.log("done");
} finally {
  await browser.close();
}
