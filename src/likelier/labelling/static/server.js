// Requests to the server. An answer that could not be sent is kept here and sent again, under the same key, so that
// it is saved once whatever happens to the server or to this page.

const KEPT = "likelier-unsent-";

export class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

export function newKey() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

export function tabName() {
  const name = sessionStorage.getItem("likelier-tab") ?? newKey();
  sessionStorage.setItem("likelier-tab", name);
  return name;
}

const AGAIN = [0, 500, 502, 503]; // what may be better the next time

export async function post(path, body) {
  const response = await fetch(path, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body),
  }).catch(() => null);
  if (response === null) throw new Refused(0, "The server does not answer. Does it still run in its terminal?");
  const told = await response.json().catch(() => ({ message: `The server answers nonsense (${response.status}).` }));
  if (!response.ok) throw new Refused(response.status, told.message);
  return told;
}

// Says that this page shows nothing any more; the browser sends it even while the page goes away.
export function leave(body) {
  navigator.sendBeacon("/api/leave", new Blob([JSON.stringify(body)], { type: "application/json" }));
}

// Sends until the server says that it is saved, or why it will not be. `waiting(true)` is called when it must be
// sent again.
export async function postUntilSaved(path, body, waiting) {
  localStorage.setItem(KEPT + body.key, JSON.stringify({ path, body }));
  for (let pause = 500; ; pause = Math.min(2000, pause * 2)) {
    try {
      const told = await post(path, body);
      localStorage.removeItem(KEPT + body.key);
      waiting(false);
      return told;
    } catch (error) {
      if (!AGAIN.includes(error.status)) {
        if (error.status !== 401) localStorage.removeItem(KEPT + body.key);
        throw error;
      }
      waiting(true);
      await new Promise((done) => setTimeout(done, pause));
    }
  }
}

// Sends what an earlier page could not; gives how many were saved.
export async function sendUnsent(tab, waiting) {
  let sent = 0;
  for (const name of Object.keys(localStorage).filter((name) => name.startsWith(KEPT))) {
    const { path, body } = JSON.parse(localStorage.getItem(name));
    try {
      await postUntilSaved(path, "tab" in body ? { ...body, tab } : body, waiting);
      sent += 1;
    } catch (error) {
      if (error.status === 401) throw error;
    }
  }
  return sent;
}
