// Requests to /api/vdisk with the session of the dashboard. An error is an Error with what vdisk said of it.

const ROOT = location.pathname.replace(/\/vdisk$/, "");

export class Failure extends Error {
  constructor(status, code, message, details = {}) {
    super(message);
    this.status = status;
    this.code = code;
    this.details = details;
  }
}

export async function call(method, path, parameters = {}) {
  const given = Object.entries(parameters).filter(([, value]) => value !== undefined && value !== "");
  const headers = { Accept: "application/vnd.ceph.api.v1.0+json" };
  let url = `${ROOT}/api/vdisk${path}`;
  let body;
  if (method === "GET" || method === "DELETE") {
    const query = new URLSearchParams(given.map(([name, value]) => [name, encodeURIComponent(value)])).toString();
    if (query) url += `?${query}`;
  } else {
    headers["Content-Type"] = "application/json";
    body = JSON.stringify(Object.fromEntries(given));
  }
  let reply;
  try {
    reply = await fetch(url, { method, headers, body, credentials: "same-origin" });
  } catch {
    throw new Failure(0, "unreachable", "The dashboard does not answer. The manager may just be changing.");
  }
  const text = await reply.text();
  let data = null;
  try { data = JSON.parse(text); } catch { /* not JSON: the text itself is the message */ }
  if (!reply.ok) {
    throw new Failure(reply.status, data?.code ?? String(reply.status), data?.detail ?? (text.slice(0, 500) || reply.statusText),
      data?.error?.details);
  }
  return data;
}

export const get = (path, query) => call("GET", path, query);

// The dashboard decodes paths and queries twice, as its own pages know.
export const part = (text) => encodeURIComponent(encodeURIComponent(text));

export async function soon(request, until) {
  // Repeat what is still under way: vdisk joins the repeat to the first.
  for (;;) {
    try {
      return await request();
    } catch (error) {
      if (error.code !== "pending" || !until()) throw error;
    }
  }
}
