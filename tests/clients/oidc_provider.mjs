// A provider of OpenID Connect for tests: oidc-provider, which asks for no password, and signs in whom
// the header x-account names. Its argument is the folder where its packages are installed; the first
// line of its standard input has its settings, and with the end of that, it ends.
//
// POST /test changes it while it runs: `keys` makes new keys, `alg` signs ID tokens otherwise, `forge`
// says what becomes of the next ID tokens, and with a `token`, the answer is what becomes of that.

import { createHmac, createPrivateKey, createPublicKey, generateKeyPairSync, randomUUID } from "node:crypto";
import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import { createServer as createTlsServer } from "node:https";
import { createRequire } from "node:module";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";

const require = createRequire(join(process.argv[2], "package.json"));
const load = (name) => import(pathToFileURL(require.resolve(name)).href);
const { Provider } = await load("oidc-provider");
const { SignJWT, base64url, decodeJwt, decodeProtectedHeader } = await load("jose");

const input = createInterface({ input: process.stdin });
const lines = input[Symbol.asyncIterator]();
const settings = JSON.parse((await lines.next()).value);
input.on("close", () => process.exit());

const KINDS = {
  RS256: ["rsa", { modulusLength: 2048 }],
  PS256: ["rsa", { modulusLength: 2048 }],
  ES256: ["ec", { namedCurve: "P-256" }],
  ES384: ["ec", { namedCurve: "P-384" }],
  EdDSA: ["ed25519", {}],
};

let alg = settings.alg;
let forgery;
let first;
let keys;
let provider;
let answer;

function newKeys() {
  const { privateKey } = generateKeyPairSync(...KINDS[alg]);
  keys = [{ ...privateKey.export({ format: "jwk" }), kid: randomUUID(), use: "sig" }];
}

// With new keys or another algorithm, it is another instance with the same memory.
function start() {
  provider = new Provider(settings.issuer, {
    adapter: undefined,
    claims: { openid: ["sub"], email: ["email", "email_verified"] },
    clientAuthMethods: [settings.auth],
    clients: [
      {
        client_id: "patgate",
        ...(settings.auth === "none" ? {} : { client_secret: settings.secret }),
        token_endpoint_auth_method: settings.auth,
        redirect_uris: [settings.callback],
        id_token_signed_response_alg: alg,
      },
      ...(settings.auth === "none"
        ? []
        : [
            {
              client_id: "s-robot",
              client_secret: settings.secret,
              token_endpoint_auth_method: settings.auth,
              redirect_uris: [],
              response_types: [],
              grant_types: ["client_credentials"],
              id_token_signed_response_alg: alg,
            },
          ]),
    ],
    // As many providers do, and as it does by default, or in ID tokens, as many others do.
    conformIdTokenClaims: !settings.email_in_id_token,
    cookies: { keys: ["for tests"] },
    enabledJWA: { idTokenSigningAlgValues: Object.keys(KINDS) },
    features: {
      clientCredentials: { enabled: true },
      devInteractions: { enabled: false },
      resourceIndicators: {
        enabled: true,
        getResourceServerInfo: (_, audience) => ({
          scope: "api",
          audience,
          accessTokenFormat: "jwt",
          jwt: { sign: { alg } },
        }),
      },
    },
    findAccount: (_, id) => ({
      accountId: id,
      claims: () => ({ sub: id, ...settings.accounts[id] }),
    }),
    interactions: { url: (_, interaction) => `/interaction/${interaction.uid}` },
    jwks: { keys },
    async loadExistingGrant({ oidc }) {
      const { accountId } = oidc.session;
      const grant = new oidc.provider.Grant({ clientId: oidc.client.clientId, accountId });
      grant.addOIDCScope("openid email");
      await grant.save();
      return grant;
    },
  });
  provider.use(async (context, next) => {
    await next();
    if (context.path !== "/token" || !context.body?.id_token) return;
    first ??= context.body.id_token;
    if (forgery) context.body.id_token = await forged(context.body.id_token, forgery);
  });
  answer = provider.callback();
}

async function forged(token, { claims = {}, header = {}, by = "provider", replay }) {
  if (replay) return first;
  const all = { ...decodeJwt(token), ...claims };
  const head = { ...decodeProtectedHeader(token), ...header };
  const part = (value) => base64url.encode(JSON.stringify(value));
  switch (by) {
    case "nobody":
      return `${part({ ...head, alg: "none" })}.${part(all)}.`;
    case "public key": {
      const key = createPublicKey({ key: keys[0], format: "jwk" });
      const secret = key.export({ format: "pem", type: "spki" });
      const message = `${part({ ...head, alg: "HS256" })}.${part(all)}`;
      return `${message}.${createHmac("sha256", secret).update(message).digest("base64url")}`;
    }
    case "stranger":
      return sign(all, head, generateKeyPairSync(...KINDS[alg]).privateKey);
    default:
      return sign(all, head, createPrivateKey({ key: keys[0], format: "jwk" }));
  }
}

const sign = (claims, header, key) => new SignJWT(claims).setProtectedHeader(header).sign(key);

async function change(request, response) {
  const chunks = [];
  for await (const chunk of request) chunks.push(chunk);
  const wanted = JSON.parse(Buffer.concat(chunks).toString());
  if ("alg" in wanted) alg = wanted.alg;
  if ("forge" in wanted) forgery = wanted.forge;
  if (wanted.keys || "alg" in wanted) {
    newKeys();
    start();
  }
  const token = wanted.token && (await forged(wanted.token, wanted));
  const body = JSON.stringify({ token });
  response.writeHead(200, { "content-type": "application/json", "content-length": body.length });
  response.end(body);
}

async function signIn(request, response) {
  const account = request.headers["x-account"];
  const declined = { error: "access_denied", error_description: "<b>not shown</b>" };
  const result = account ? { login: { accountId: account } } : declined;
  await provider.interactionFinished(request, response, result, { mergeWithLastSubmission: false });
}

async function handle(request, response) {
  try {
    if (request.url === "/test") await change(request, response);
    else if (request.url.startsWith("/interaction/")) await signIn(request, response);
    else await answer(request, response);
  } catch (error) {
    response.writeHead(500).end(String(error));
  }
}

newKeys();
start();
const { certificate, key } = settings;
const server = certificate
  ? createTlsServer({ cert: readFileSync(certificate), key: readFileSync(key) }, handle)
  : createServer(handle);
server.listen(settings.port, "127.0.0.1", () => console.log("listening"));
