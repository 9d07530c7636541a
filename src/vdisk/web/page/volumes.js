// Volumes as logical disks with their snapshots under them, and one volume by its handle.

import * as actions from "./actions.js";
import { get, part } from "./api.js";
import { badge, failure, fill, h, size, table, time } from "./dom.js";
import { button, fetched, identity, link } from "./items.js";
import { listing } from "./pages.js";
import { shotHeads, shotRow } from "./snapshots.js";

function volumeActions(here, item, again) {
  return [
    here.may("create") && button("Snapshot", () => actions.snapshot(item, again)),
    here.may("create") && button("Clone", () => actions.clone(item, again)),
    here.may("update") && button("Grow", () => actions.resize(item, again)),
    here.may("delete") && button("Delete", () => actions.remove("volume", item, again), "danger"),
  ];
}

async function shotTable(here, item, again) {
  const shots = await get("/snapshot", { image_spec: `${actions.spec(item)}/${item.image}`, limit: 1000 });
  return table(`Snapshots of ${actions.called(item)}`, shotHeads(false), shots.map((shot) => shotRow(here, shot, again, false)), "No snapshots.");
}

function volumeRows(here, item, again) {
  const below = h("tr", { class: "below", hidden: true }, h("td", { colspan: 6 }));
  const toggle = h("button", { class: "toggle", type: "button", "aria-expanded": "false", "aria-label": `Snapshots of ${actions.called(item)}` }, "▸");
  const show = async () => {
    try {
      fill(below.firstChild, await shotTable(here, item, again));
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
  return [h("tr", {}, h("th", { scope: "row" }, h("div", { class: "with" }, toggle, link("volume", item))), h("td", { class: "number" }, size(item.size)),
    h("td", {}, badge(item.state)), h("td", { class: "less" }, from), h("td", { class: "time less" }, time(item.created_at)),
    h("td", { class: "actions less" }, volumeActions(here, item, again))), below];
}

export const volumes = (here) => listing(here, {
  view: "volumes", title: "Volumes", path: "/volume", one: "volume",
  heads: ["Volume", "#Size", "State", "-Source", "-Created", "-"],
  row: (item, again) => volumeRows(here, item, again),
  buttons: (place, again) => here.may("create") && [
    h("button", { type: "button", onclick: () => actions.adopt(place, null, again) }, "Adopt image"),
    h("button", { type: "button", class: "main", onclick: () => actions.create(place, again) }, "Create volume")],
});

export async function volume(here) {
  const handle = here.parts[0] ?? "";
  const draw = async () => {
    // Ids of volumes, snapshots and group snapshots look alike, so that any can be pasted.
    const elsewhere = async () => {
      for (const kind of ["snapshot", "group"]) {
        if (await get(`/${kind}/${part(handle)}`).catch(() => null)) { location.replace(`#/${kind}/${encodeURIComponent(handle)}`); return true; }
      }
      return false;
    };
    const item = await fetched(here, `/volume/${part(handle)}`, "volumes", "All volumes", elsewhere);
    if (item === null) return;
    const shots = await shotTable(here, item, draw);
    if (!here.here()) return;
    const source = item.source?.handle && [["From", [`${item.source.kind} `,
      h("a", { href: `#/${item.source.kind}/${encodeURIComponent(item.source.handle)}` }, item.source.name ?? item.source.handle)]]];
    fill(here.main, h("h1", {}, `Volume ${actions.called(item)}`), h("div", { class: "bar" }, volumeActions(here, item, draw),
      here.may("update") && item.depth > 0 && button("Flatten", () => actions.flatten(item, draw)),
      here.may("create") && here.has("schedule add") && button("Schedule", () => actions.schedule(item.handle)),
      here.may("update") && button("Release", () => actions.release(item, draw), "danger"),
      h("a", { href: `#/lineage/${encodeURIComponent(item.handle)}` }, "Lineage")),
    identity(item, ...(source || [])), h("h2", {}, "Snapshots"), shots);
  };
  await draw();
}
