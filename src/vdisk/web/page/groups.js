// Group snapshots: several volumes at one moment.

import * as actions from "./actions.js";
import { get, part } from "./api.js";
import { badge, facts, fill, h, number, table, time } from "./dom.js";
import { button, fetched, link } from "./items.js";
import { listing } from "./pages.js";
import { shotHeads, shotRow } from "./snapshots.js";

const deletes = (here, item, again) => here.may("delete") && button("Delete", () => actions.remove("group", item, again), "danger");

export const groups = async (here) => {
  const { group_snapshots: possible } = await get("/status");
  if (!here.here()) return;
  await listing(here, {
    view: "groups", title: "Group snapshots", path: "/group", one: "group snapshot", heads: ["Group snapshot", "#Snapshots", "State", "-Created", "-"],
    note: possible ? "Several volumes at one moment." : "This release of Ceph can make none: its librbd does not clone snapshots of groups.",
    row: (item, again) => h("tr", {}, h("th", { scope: "row" }, link("group", item)), h("td", { class: "number" }, number(item.snapshots.length)),
      h("td", {}, badge(item.state)), h("td", { class: "time less" }, time(item.created_at)), h("td", { class: "actions less" }, deletes(here, item, again))),
    buttons: (place, again) => here.may("create") && possible
      && h("button", { type: "button", class: "main", onclick: () => actions.group(place, again) }, "Take group snapshot"),
  });
};

export async function group(here) {
  const handle = here.parts[0] ?? "";
  const draw = async () => {
    const item = await fetched(here, `/group/${part(handle)}`, "groups", "All group snapshots");
    if (item === null) return;
    if (!here.here()) return;
    const shots = item.snapshots.toSorted((one, other) => actions.called(one).localeCompare(actions.called(other), "en", { numeric: true }));
    fill(here.main, h("h1", {}, `Group snapshot ${item.name ?? item.uuid}`), h("div", { class: "bar" }, deletes(here, item, draw)),
      facts([["Handle", h("span", { class: "mono" }, item.handle)], ["State", badge(item.state)], ["Pool", actions.spec(item)],
        ["Created", time(item.created_at)]]),
      h("h2", {}, "Snapshots"), table(`Snapshots of ${item.name ?? item.uuid}`, shotHeads(true),
        shots.map((shot) => shotRow(here, shot, draw, true)), "None yet."));
  };
  await draw();
}
