// What the page asks of its server. The token is here, and nowhere else.

let token = "";

export class Refused extends Error {
  constructor(status, code, message) {
    super(message);
    this.status = status;
    this.code = code;
  }
}

export function setToken(text) {
  token = text;
}

/** Ask a route; the answer is an object, or with `raw` the bytes. */
export async function ask(route, fields = {}, { signal, raw = false } = {}) {
  let reply;
  try {
    reply = await fetch(`explorer/${route}`, {
      method: "POST",
      headers: { "Content-Type": "application/json", Token: encodeToken(token) },
      body: JSON.stringify(fields),
      credentials: "omit",
      cache: "no-store",
      redirect: "error",
      signal,
    });
    if (reply.ok) return raw ? await reply.blob() : await reply.json();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused(0, "GONE", "The server does not answer. Is it still running?");
  }
  if (reply.status === 401) throw new Refused(401, "TOKEN", "This is not the token of this server.");
  const told = await reply.json().catch(() => ({}));
  throw new Refused(reply.status, told.error?.code ?? "", told.error?.message ?? `The server answered with HTTP ${reply.status}.`);
}

// A header takes Latin-1 only: the bytes of UTF-8, one character each.
function encodeToken(text) {
  return String.fromCharCode(...new TextEncoder().encode(text));
}
