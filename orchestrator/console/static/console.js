// The console's script: shows what a decision would do and what will be signed, asks the passkey, sends it. No library, nothing from elsewhere.
"use strict";

const token = document.querySelector('meta[name="sluice-session"]')?.content ?? "";

class Refused extends Error {}

async function call(path, body) {
  const answer = await fetch(path, {
    method: "POST",
    headers: { "Content-Type": "application/json", "X-Sluice-Session": token },
    body: JSON.stringify(body),
  });
  const text = await answer.text();
  let found = {};
  try { found = text ? JSON.parse(text) : {}; } catch { found = { detail: "the service answered nothing that can be read" }; }
  if (answer.status === 401) { location.assign("/console/sign-in?next=" + encodeURIComponent(location.pathname)); throw new Refused("sign in again"); }
  if (!answer.ok) {
    const reasons = (found.reasons ?? []).map((r) => r.message).filter((m) => m !== found.detail);
    throw new Refused([found.detail ?? "refused", ...reasons].join(" — "));
  }
  return found;
}

const bytes = (text) => Uint8Array.from(atob(text.replaceAll("-", "+").replaceAll("_", "/")), (c) => c.charCodeAt(0));
const base64url = (buffer) => btoa(String.fromCharCode(...new Uint8Array(buffer))).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");

function element(name, text, className) {
  const made = document.createElement(name);
  if (text) made.textContent = text;
  if (className) made.className = className;
  return made;
}

function list(lines, className) {
  const made = element("ul", "", className);
  for (const line of lines) {
    const item = element("li");
    line.split("`").forEach((part, i) => item.append(i % 2 ? element("code", part) : part));
    made.append(item);
  }
  return made;
}

// --- deciding

const dialog = document.getElementById("confirm");
const go = document.getElementById("confirm-go");
const problem = document.getElementById("confirm-problem");

function show(prepared, title) {
  document.getElementById("confirm-title").textContent = title;
  const body = document.getElementById("confirm-body");
  body.replaceChildren();
  problem.hidden = true;
  const { preview, sign, elsewhere } = prepared;
  if (!preview.accepted) {
    body.append(element("p", "This would be refused:", "problem"), list(preview.reasons.map((r) => r.message)));
    go.hidden = true;
  } else {
    body.append(element("p", "What it does:"), list(preview.consequences.length ? preview.consequences : ["it is recorded"]));
    if (preview.irreversible) body.append(element("p", "This cannot be undone.", "problem"));
    if (sign) body.append(element("p", "Your passkey signs exactly this:"), list(sign.words, "signed"));
    if (elsewhere) { body.append(element("p", "Not here: " + elsewhere, "banner warn")); }
    go.hidden = Boolean(elsewhere);
    go.textContent = sign ? "Sign with my passkey" : "Confirm";
    go.className = preview.irreversible ? "danger" : "primary";
  }
  go.disabled = false;
  if (!dialog.open) dialog.showModal();
}

async function assertion(sign) {
  const credential = await navigator.credentials.get({
    publicKey: { challenge: bytes(sign.challenge), rpId: sign.relying_party, userVerification: "required", timeout: 120000 },
  });
  const { response } = credential;
  return {
    id: credential.id,
    response: {
      authenticatorData: base64url(response.authenticatorData),
      clientDataJSON: base64url(response.clientDataJSON),
      signature: base64url(response.signature),
    },
  };
}

function commandOf(form, button) {
  const command = { type: form.dataset.command };
  for (const [name, value] of new FormData(form)) if (value !== "") command[name] = value;
  if (button?.name) command[button.name] = button.value;
  if (form.dataset.name) command[form.dataset.name] = "inc-" + Date.now().toString(36) + Math.random().toString(36).slice(2, 6);
  return command;
}

document.addEventListener("submit", async (event) => {
  const form = event.target;
  if (!form.dataset.command) return;
  event.preventDefault();
  const release = form.dataset.release;
  const button = event.submitter;
  if (button) button.disabled = true;
  try {
    const prepared = await call("/console/prepare", { release, command: commandOf(form, button) });
    show(prepared, form.dataset.title);
    go.onclick = async () => {
      go.disabled = true;
      problem.hidden = true;
      try {
        const decided = { release, command: prepared.command, key: prepared.key };
        if (prepared.etag) decided.etag = prepared.etag;
        if (prepared.sign) { decided.payload = prepared.sign.payload; decided.assertion = await assertion(prepared.sign); }
        await call("/console/decide", decided);
        dialog.close();
        await refresh();
      } catch (error) {
        problem.textContent = error instanceof Refused ? error.message : "Nothing was sent: " + error.message;
        problem.hidden = false;
        go.disabled = false;
      }
    };
  } catch (error) {
    show({ preview: { accepted: false, reasons: [{ message: error.message }] } }, form.dataset.title);
  } finally {
    if (button) button.disabled = false;
  }
});

dialog?.querySelector("[data-cancel]").addEventListener("click", () => dialog.close());

// --- the page follows the release

async function refresh() {
  const answer = await fetch(location.href, { headers: { Accept: "text/html" } });
  if (!answer.ok || answer.redirected) { location.reload(); return; }
  const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
  const main = document.querySelector("main");
  const writing = main.contains(document.activeElement) && document.activeElement.matches("input, select");
  if (!writing) main.replaceWith(fresh.querySelector("main"));
}

const watched = document.querySelector("main[data-release]");

async function follow(release, seq) {
  const leaving = new AbortController();
  addEventListener("pagehide", () => leaving.abort());
  let waiting;
  for (;;) {
    try {
      const path = `/v1/releases/${encodeURIComponent(release)}/events/stream?after=${seq}`;
      const answer = await fetch(path, { headers: { Accept: "text/event-stream" }, signal: leaving.signal });
      if (!answer.ok) { if (answer.status === 401) location.assign("/console/sign-in?next=" + encodeURIComponent(location.pathname)); return; }
      const reader = answer.body.getReader();
      const decoder = new TextDecoder();
      for (;;) {
        const { done, value } = await reader.read();
        if (done) break;
        for (const [, id] of decoder.decode(value, { stream: true }).matchAll(/^id: ?(\d+)/gm)) {
          seq = id;
          clearTimeout(waiting);
          waiting = setTimeout(() => { if (!dialog.open) refresh(); }, 300);
        }
      }
    } catch (error) {
      if (leaving.signal.aborted) return;
    }
    await new Promise((resolve) => setTimeout(resolve, 5000));
  }
}

if (watched) follow(watched.dataset.release, watched.dataset.seq);

// --- out, and passkeys

document.querySelector("[data-sign-out]")?.addEventListener("click", async () => {
  await call("/sign-in/out", {});
  location.assign("/console/sign-in");
});

document.querySelector("[data-make-passkey]")?.addEventListener("click", async (event) => {
  const told = document.getElementById("passkey-problem");
  told.hidden = true;
  event.target.disabled = true;
  try {
    const options = await call("/console/passkey/options", {});
    const credential = await navigator.credentials.create({
      publicKey: {
        challenge: bytes(options.challenge),
        rp: { id: options.relying_party, name: "Sluice" },
        user: { id: new TextEncoder().encode(options.user), name: options.user, displayName: options.user },
        pubKeyCredParams: [{ type: "public-key", alg: -7 }, { type: "public-key", alg: -8 }],
        authenticatorSelection: { residentKey: "required", userVerification: "required" },
        attestation: "none",
      },
    });
    const made = {
      id: credential.id,
      rawId: credential.id,
      type: credential.type,
      response: {
        clientDataJSON: base64url(credential.response.clientDataJSON),
        attestationObject: base64url(credential.response.attestationObject),
      },
    };
    const line = await call("/console/passkey", { challenge: options.challenge, credential: made });
    document.querySelector("#passkey-line code").textContent = line.key;
    document.getElementById("passkey-id").textContent = line.key_id;
    document.getElementById("passkey-line").hidden = false;
  } catch (error) {
    told.textContent = error.message;
    told.hidden = false;
  } finally {
    event.target.disabled = false;
  }
});
