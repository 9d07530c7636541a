// Snapshots: of a volume, of a whole pool (also those whose volume is gone), and one by its handle.

import * as actions from "./actions.js";
import { get, part } from "./api.js";
import { fill, h, size, time } from "./dom.js";
import { button, fetched, identity, link, states } from "./items.js";
import { listing } from "./pages.js";

function shotActions(here, item, again) {
  return [
    here.may("create") && button("Restore", () => actions.restore(item, again)),
    // What belongs to a group snapshot is deleted with that.
    here.may("delete") && !item.group && button("Delete", () => actions.remove("snapshot", item, again), "danger"),
  ];
}

// `whole` is for lists that are not of one volume.
export const shotHeads = (whole) => ["Snapshot", "#Size", "State", whole && "-Of", "-Created", "-"].filter((head) => head !== false);

export function shotRow(here, shot, again, whole) {
  const of = shot.source.handle ? h("a", { href: `#/volume/${encodeURIComponent(shot.source.handle)}` }, shot.source.image) : shot.source.image ?? "–";
  return h("tr", {}, h("th", { scope: "row" }, link("snapshot", shot)), h("td", { class: "number" }, size(shot.size)),
    h("td", {}, states(shot)),
    whole && h("td", { class: "mono less" }, of),
    h("td", { class: "time less" }, time(shot.created_at)), h("td", { class: "actions less" }, shotActions(here, shot, again)));
}

export const snapshots = (here) => listing(here, {
  view: "snapshots", title: "Snapshots", path: "/snapshot", one: "snapshot", heads: shotHeads(true),
  row: (item, again) => shotRow(here, item, again, true),
  note: "All of a pool, those whose volume is deleted and those of other images too.",
});

export async function snapshot(here) {
  const handle = here.parts[0] ?? "";
  const draw = async () => {
    const item = await fetched(here, `/snapshot/${part(handle)}`, "snapshots", "All snapshots");
    if (item === null) return;
    const source = item.source?.handle;
    const disk = source ? await get(`/volume/${part(source)}`).catch(() => null) : null;
    if (!here.here()) return;
    const of = disk ? h("a", { href: `#/volume/${encodeURIComponent(source)}` }, actions.called(disk))
      : [h("span", { class: "mono" }, item.source?.image ?? "–"), source ? " (deleted)" : ""];
    const group = item.group && [["Group snapshot", h("a", { class: "mono", href: `#/group/${encodeURIComponent(item.group)}` }, item.group)]];
    fill(here.main, h("h1", {}, `Snapshot ${actions.called(item)}`), h("div", { class: "bar" }, shotActions(here, item, draw),
      disk && here.may("update") && here.has("volume revert") && button("Revert volume", () => actions.revert(disk, item, draw), "danger")),
    identity(item, ["Of", of], ...(group || [])));
  };
  await draw();
}
