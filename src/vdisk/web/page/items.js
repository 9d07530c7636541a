// What volumes, snapshots and group snapshots look like wherever they are shown.

import { called, spec } from "./actions.js";
import { get } from "./api.js";
import { badge, facts, fill, h, number, size, time } from "./dom.js";

export const link = (kind, item) => h("a", { class: "name", href: `#/${kind}/${encodeURIComponent(item.handle)}` }, called(item));

export function button(text, onclick, extra = "") {
  return h("button", { class: `small ${extra}`, type: "button", onclick }, text);
}

export function states(item) {
  return [badge(item.state), item.sealed === false && item.state === "ready" ? [" ", badge("not sealed yet", "")] : null];
}

const lines = (found, shown, none) => (found?.length ? found.map((item) => h("div", {}, shown(item))) : none);

// The facts of a volume or a snapshot, with `more` of its own among them.
export function identity(item, ...more) {
  return facts([
    ["Handle", h("span", { class: "mono" }, item.handle)], ["State", states(item)],
    ["Size", size(item.size)], ["Used", size(item.used)], ["Its own", size(item.exclusive)], ["Would be freed", size(item.frees)],
    ["Pool", spec(item)], ["Image", h("span", { class: "mono" }, item.image)], ["Created", time(item.created_at)], ...more,
    ["Depth", number(item.depth)], ["Held by", lines(item.held_by, String, "nothing")],
    ["Open by", lines(item.watchers, (who) => h("span", { class: "mono" }, `${who.address} (client.${who.client})`), "nobody")],
    ["Parents", lines(item.parents, (above) => [h("span", { class: "mono" }, above.image ?? "–"), above.trashed ? " (in the trash)" : ""], "none")],
  ]);
}

// Shows that what a handle names does not exist, and where the others are.
function missing(error, kind, all) {
  return [h("h1", {}, "Not found"), h("div", { class: "error", role: "alert" }, h("p", {}, error.message)),
    h("p", {}, h("a", { href: `#/${kind}` }, all))];
}

// Gives what a handle names, or null: then that is shown, unless `elsewhere` led to it or the reader has left.
export async function fetched(here, path, kind, all, elsewhere = async () => false) {
  try {
    return await get(path);
  } catch (error) {
    if (error.status !== 404) throw error;
    if (!await elsewhere() && here.here()) fill(here.main, missing(error, kind, all));
    return null;
  }
}
