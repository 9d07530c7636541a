// Volumes as logical disks with their snapshots under them, page by page, and one volume or snapshot by its handle.

import * as actions from "./actions.js";
import { get, part } from "./api.js";
import { badge, failure, fill, h, number, size, table, time } from "./dom.js";
import { choose } from "./places.js";

const PAGE = 50;
const HANDLE = /^0[01]01-/;
const link = (kind, item) => h("a", { class: "name", href: `#/${kind}/${encodeURIComponent(item.handle)}` }, item.name ?? item.image);

function button(text, onclick, extra = "") {
  return h("button", { class: `small ${extra}`, onclick }, text);
}

function volumeActions(here, item, again) {
  return [
    here.may("create") && button("Snapshot", () => actions.snapshot(item, again)),
    here.may("create") && button("Clone", () => actions.clone(item, again)),
    here.may("update") && button("Grow", () => actions.resize(item, again)),
    here.may("delete") && button("Delete", () => actions.remove("volume", item, again), "danger"),
  ];
}

function shotActions(here, item, again) {
  return [
    here.may("create") && button("Restore", () => actions.restore(item, again)),
    here.may("delete") && button("Delete", () => actions.remove("snapshot", item, again), "danger"),
  ];
}

function states(item) {
  return [badge(item.state), item.sealed === false && item.state === "ready" ? [" ", badge("not sealed yet", "")] : null];
}

async function shotTable(here, item, again) {
  const shots = await get("/snapshot", { image_spec: `${actions.spec(item)}/${item.image}`, limit: 1000 });
  return table(`Snapshots of ${item.name ?? item.image}`, ["Snapshot", "#Size", "State", "Created", ""], shots.map((shot) => h("tr", {},
    h("th", { scope: "row" }, link("snapshot", shot)), h("td", { class: "number" }, size(shot.size)), h("td", {}, states(shot)),
    h("td", { class: "time" }, time(shot.created_at)), h("td", { class: "actions" }, shotActions(here, shot, again)))), "No snapshots.");
}

function volumeRows(here, item, again) {
  const below = h("tr", { class: "below", hidden: true }, h("td", { colspan: 6 }));
  const toggle = h("button", { class: "toggle", "aria-expanded": "false", "aria-label": `Snapshots of ${item.name ?? item.image}` }, "▸");
  const show = async () => {
    try {
      fill(below.firstChild, await shotTable(here, item, async () => { again(); }));
    } catch (error) {
      fill(below.firstChild, failure(error));
    }
  };
  toggle.addEventListener("click", async () => {
    below.hidden = !below.hidden;
    toggle.setAttribute("aria-expanded", String(!below.hidden));
    toggle.textContent = below.hidden ? "▸" : "▾";
    if (!below.hidden) await show();
  });
  const from = item.source ? `${item.source.kind} ${item.source.name ?? ""}` : "–";
  return [h("tr", {}, h("th", { scope: "row" }, toggle, link("volume", item)), h("td", { class: "number" }, size(item.size)),
    h("td", {}, states(item)), h("td", {}, from), h("td", { class: "time" }, time(item.created_at)),
    h("td", { class: "actions" }, volumeActions(here, item, again))), below];
}

// One page: the names that begin with the search come right after its text in the order of names, but for itself.
async function page(place, search, marker) {
  const query = { pool_spec: place, limit: PAGE, marker: marker || search };
  const [exact, rest] = await Promise.all([
    search && !marker ? get(`/volume/${part(`${place}/${search}`)}`).catch(() => null) : null,
    get("/volume", query),
  ]);
  const found = rest.filter((item) => !search || (item.name ?? "").startsWith(search));
  if (exact && exact.name === search) found.unshift(exact);
  return { found, more: found.length >= PAGE && rest.length === PAGE, last: rest.at(-1)?.name };
}

export async function volumes(here) {
  const chosen = await choose("volumes", here, "Volumes");
  if (chosen === null) return;
  const [place, select] = chosen;
  const list = h("div", {});
  const pages = [""];
  let search = "";
  const draw = async () => {
    const asked = search;
    try {
      const { found, more, last } = await page(place, search, pages.at(-1));
      if (!here.here() || asked !== search) return;
      fill(list, table(`Volumes of ${place}`, ["Volume", "#Size", "State", "Source", "Created", ""],
        found.map((item) => volumeRows(here, item, draw)), search ? `No name begins with ${search}.` : `No volumes in ${place} yet.`),
      h("div", { class: "bar" }, h("span", { class: "soft" }, `Page ${pages.length}, ${found.length} volumes`), h("span", { class: "gap" }),
        h("button", { disabled: pages.length < 2, onclick: () => { pages.pop(); draw(); } }, "Previous"),
        h("button", { disabled: !more, onclick: () => { pages.push(last); draw(); } }, "Next")));
    } catch (error) {
      fill(list, failure(error));
    }
  };
  const find = h("input", { type: "search", placeholder: "beginning of a name, or a handle" });
  const submit = (event) => {
    event.preventDefault();
    const text = find.value.trim();
    if (HANDLE.test(text)) { location.hash = `#/volume/${encodeURIComponent(text)}`; return; }
    search = text;
    pages.splice(1);
    draw();
  };
  fill(here.main, h("h1", {}, "Volumes"), h("form", { class: "bar", role: "search", onsubmit: submit }, select,
    h("label", {}, "Find", find), h("button", {}, "Search"), h("span", { class: "gap" }),
    here.may("create") && h("button", { type: "button", class: "main", onclick: () => actions.create(place, draw) }, "Create volume")), list);
  await draw();
}

function facts(item) {
  const list = [
    ["Handle", h("span", { class: "mono" }, item.handle)], ["State", states(item)], ["Size", size(item.size)], ["Used", size(item.used)],
    ["Its own", size(item.exclusive)], ["Would be freed", size(item.frees)], ["Pool", actions.spec(item)],
    ["Image", h("span", { class: "mono" }, item.image)], ["Created", time(item.created_at)], ["Depth", number(item.depth)],
    ["Held by", item.held_by?.length ? item.held_by.map((text) => h("div", {}, text)) : "nothing"],
    ["Open by", item.watchers?.length ? item.watchers.map((who) => h("div", { class: "mono" }, who.address)) : "nobody"],
    ["Parents", item.parents?.length
      ? item.parents.map((above) => h("div", { class: "mono" }, above.image ?? "–", above.trashed ? " (in the trash)" : "")) : "none"],
  ];
  return h("div", { class: "sheet" }, h("dl", {}, list.map(([name, value]) => [h("dt", {}, name), h("dd", {}, value)])));
}

export async function volume(here) {
  const handle = here.parts[0] ?? "";
  const draw = async () => {
    let item;
    try {
      item = await get(`/volume/${part(handle)}`);
    } catch (error) {
      if (error.status !== 404) throw error;
      // A volume id and a snapshot id look alike, so that either can be pasted.
      item = await get(`/snapshot/${part(handle)}`).catch(() => null);
      if (item) { location.replace(`#/snapshot/${encodeURIComponent(handle)}`); return; }
      if (here.here()) fill(here.main, h("h1", {}, "Not found"), failure(error), h("p", {}, h("a", { href: "#/volumes" }, "All volumes")));
      return;
    }
    const shots = await shotTable(here, item, draw);
    if (!here.here()) return;
    fill(here.main, h("h1", {}, `Volume ${item.name ?? item.image}`), h("div", { class: "bar" }, volumeActions(here, item, draw),
      here.may("update") && item.depth > 0 && button("Flatten", () => actions.flatten(item, draw)),
      here.may("create") && here.has("schedule add") && button("Schedule", () => actions.schedule(item.handle)),
      h("a", { href: `#/lineage/${encodeURIComponent(item.handle)}` }, "Lineage")),
    facts(item), h("h2", {}, "Snapshots"), shots);
  };
  await draw();
}

export async function snapshot(here) {
  const handle = here.parts[0] ?? "";
  const draw = async () => {
    const item = await get(`/snapshot/${part(handle)}`);
    const source = item.source?.handle;
    let disk = null;
    if (source && here.may("update") && here.has("volume revert")) disk = await get(`/volume/${part(source)}`).catch(() => null);
    if (!here.here()) return;
    fill(here.main, h("h1", {}, `Snapshot ${item.name}`), h("div", { class: "bar" }, shotActions(here, item, draw),
      disk && button("Revert volume", () => actions.revert(disk, item, draw), "danger"),
      source && h("a", { href: `#/volume/${encodeURIComponent(source)}` }, "Its volume")), facts(item));
  };
  await draw();
}
