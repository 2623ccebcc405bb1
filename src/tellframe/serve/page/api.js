// The client of the API: what the page does, any program can do.

const BASE = new URL(".", document.baseURI);
const RETRY_MILLISECONDS = 2000;
let token = sessionStorage.getItem("token") ?? "";

/** What the API calls a problem; `code` is for the program and `detail` for people. */
export class Problem extends Error {
  constructor({ code, title, detail, status }, retryAfter = 0) {
    super(detail);
    Object.assign(this, { code, title, detail, status, retryAfter });
  }
}

const UNREACHABLE = {
  code: "unreachable",
  title: "The server does not answer",
  detail: "It may be restarting, or the connection was lost.",
  status: 0,
};

export function setToken(value) {
  token = value;
  sessionStorage.setItem("token", value);
}

function authorization() {
  return token ? { Authorization: `Bearer ${token}` } : {};
}

async function request(path, options = {}) {
  let response;
  try {
    response = await fetch(new URL(path, BASE), {
      ...options,
      headers: { ...authorization(), ...options.headers },
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem(UNREACHABLE);
  }
  if (!response.ok) {
    const problem = await response.json().catch(() => ({ ...UNREACHABLE, status: response.status }));
    throw new Problem(problem, Number(response.headers.get("Retry-After") ?? 0));
  }
  return response;
}

const json = async (path) => (await request(path)).json();
export const models = () => json("v1/models");
export const jobs = async () => (await json("v1/jobs")).jobs;
export const job = (id) => json(`v1/jobs/${id}`);
export const moments = (id) => json(`v1/jobs/${id}/moments`);
export const remove = (id) => request(`v1/jobs/${id}`, { method: "DELETE" });

/** Save a file of the API under a name; by fetching it, because a link cannot carry a token. */
export async function save(path, name) {
  const blob = await (await request(path)).blob();
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
}

/** Have the server fetch the file behind a link. */
export const fetchLink = async (url) =>
  (
    await request("v1/jobs", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ url }),
    })
  ).json();

/** Upload a file; `onprogress` gets a share from 0 to 1. Returns the promise and a way to stop. */
export function upload(file, onprogress) {
  const call = new XMLHttpRequest(); // fetch does not say how much was sent
  const promise = new Promise((resolve, reject) => {
    call.open("POST", new URL(`v1/jobs?name=${encodeURIComponent(file.name)}`, BASE));
    call.setRequestHeader("Content-Type", "application/octet-stream");
    for (const [name, value] of Object.entries(authorization())) call.setRequestHeader(name, value);
    call.upload.onprogress = (event) => onprogress(event.loaded / Math.max(event.total, 1));
    call.onerror = () => reject(new Problem(UNREACHABLE));
    call.onabort = () => reject(new DOMException("", "AbortError"));
    call.onload = () => {
      let body = UNREACHABLE;
      try {
        body = JSON.parse(call.responseText);
      } catch {
        // Not from the service, but from something in between.
      }
      if (call.status === 202) resolve(body);
      else reject(new Problem(body, Number(call.getResponseHeader("Retry-After") ?? 0)));
    };
    call.send(file);
  });
  return { promise, abort: () => call.abort() };
}

/**
 * Follow a job until it has ended; `onjob` gets it whenever it has changed, `ontrouble` a problem
 * while the server does not answer. Returns its last state, or null where it was deleted.
 */
export async function follow(id, signal, onjob, ontrouble) {
  for (;;) {
    try {
      const response = await request(`v1/jobs/${id}/events`, { signal });
      for await (const event of events(response.body)) {
        if (event.name === "gone") return null;
        const found = JSON.parse(event.data);
        onjob(found);
        if (found.state === "done" || found.state === "failed") return found;
      }
    } catch (error) {
      if (signal.aborted) throw error;
      if (error instanceof Problem && error.status === 404) return null;
      if (error instanceof Problem && error.status === 401) throw error;
      ontrouble(error instanceof Problem ? error : new Problem(UNREACHABLE));
    }
    // EventSource would do the same, but cannot send a token.
    await new Promise((resolve) => setTimeout(resolve, RETRY_MILLISECONDS));
  }
}

async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    text += value;
    const blocks = text.split("\n\n");
    text = blocks.pop();
    for (const block of blocks) {
      const fields = Object.fromEntries(
        block.split("\n").map((line) => [line.split(":", 1)[0], line.slice(line.indexOf(":") + 2)]),
      );
      if (fields.data !== undefined) yield { name: fields.event, data: fields.data };
    }
  }
}
