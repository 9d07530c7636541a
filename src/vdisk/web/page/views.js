// Overview, operations, trash, schedules.

import * as actions from "./actions.js";
import { get, part } from "./api.js";
import { badge, facts, failure, fill, h, number, size, table, time } from "./dom.js";
import { button } from "./items.js";
import { listing } from "./pages.js";

const card = (value, text, href) => h(href ? "a" : "div", { class: "card", href }, h("b", {}, value), h("span", {}, text));

// How full a pool is. The figures beside it say the same to those who do not see.
function fullness(found) {
  const all = found.used + found.available;
  return all ? h("meter", { min: 0, max: 1, low: 0.75, high: 0.9, optimum: 0, value: found.used / all, "aria-hidden": "true" }) : null;
}

export async function overview(here) {
  await here.every(5, async () => {
    const [status, pools] = await Promise.all([get("/status"), get("/pool")]);
    if (!here.here()) return;
    const reaper = status.reaper;
    const troubles = [
      status.stuck && `${number(status.stuck)} operations stopped with an error and need you.`,
      status.findings && `The last checks left ${number(status.findings)} findings.`,
      status.unreadable_intents && `${number(status.unreadable_intents)} operations of another version can not be read.`,
      status.recovering && `The intents of ${number(status.recovering)} pools or namespaces are still to be read.`,
    ].filter(Boolean);
    fill(here.main, h("h1", {}, "Overview"),
      h("p", {}, troubles.length ? badge("needs attention", "warn") : badge("all is well", "good"), " ", troubles.join(" ")),
      h("h2", {}, "Pools"), table("Pools", ["Pool", "-Namespaces", "#Used", "#Available", "-Full"], pools.map((found) => h("tr", {},
        h("th", { scope: "row" }, h("a", { href: `#/volumes/${encodeURIComponent(found.pool)}` }, found.pool)),
        h("td", { class: "less" }, found.namespaces.length ? found.namespaces.map((name, at) => [at ? ", " : "",
          h("a", { href: `#/volumes/${encodeURIComponent(`${found.pool}/${name}`)}` }, name)]) : "–"),
        h("td", { class: "number" }, size(found.used)), h("td", { class: "number" }, size(found.available)), h("td", { class: "less" }, fullness(found)))),
      "No pool may hold volumes yet."),
      h("h2", {}, "Operations"), h("div", { class: "cards" },
        card(number(status.running), "running", "#/operations"), card(number(status.queued), "queued", "#/operations"),
        card(number(status.waiting), "waiting", "#/operations"), card(number(status.stuck), "stuck", "#/operations"),
        card(number(status.workers_busy), "workers busy"), card(number(status.background_busy + status.background_queued), "behind answers")),
      h("h2", {}, "Reclaiming"), h("div", { class: "cards" },
        card(number(reaper.backlog), "images to reclaim", "#/trash"), card(size(reaper.backlog_bytes), "of them, as provisioned"),
        card(number(reaper.removed), "reclaimed since the start"), card(number(reaper.given_to_rbd_support), "tasks of rbd_support")),
      h("h2", {}, "As the last checks saw it"), h("div", { class: "cards" },
        card(number(status.images), "images"), card(size(status.image_bytes), "provisioned"),
        card(number(status.snapshots_max), "snapshots on one image at most"), card(number(status.findings), "findings", "#/findings")));
  });
}

const open = (item) => !["done", "failed"].includes(item.state);

function operationActions(here, item, again) {
  if (!here.may("update")) return [];
  const act = (verb) => button(verb, () => actions.operate(item, verb, again));
  return [open(item) && item.step !== "await-children" && act("Cancel"),
    (item.state === "waiting" || item.state === "failed") && item.kind !== "check" && act("Retry")];
}

const progress = (item) => [h("progress", { max: 1, value: item.progress, "aria-label": "progress" }), h("div", { class: "step" }, item.step ?? "")];

export async function operations(here) {
  const list = h("div", {});
  let all = false;
  const draw = async () => {
    const found = await get("/operation");
    if (!here.here() || document.querySelector("dialog[open]")) return;
    const shown = found.filter((item) => all || open(item)).reverse();
    fill(list, table("Operations", ["Operation", "Of", "State", "Progress", "-Waits for", "-Started", "-"], shown.slice(0, 200).map((item) => h("tr", {},
      h("th", { scope: "row" }, h("a", { href: `#/operation/${encodeURIComponent(item.id)}`, "data-key": item.id }, item.kind ?? "unreadable")),
      h("td", {}, item.target), h("td", {}, badge(item.state)), h("td", {}, progress(item)),
      h("td", { class: "less" }, item.error?.message ?? (item.waiting_for.length ? item.waiting_for.slice(0, 3).join(", ") : "–")),
      h("td", { class: "time less" }, time(item.started_at)), h("td", { class: "actions less" }, operationActions(here, item, draw)))),
    all ? "No operations lately." : "Nothing is under way."),
    shown.length > 200 ? h("p", { class: "soft" }, `${number(shown.length - 200)} more.`) : null);
  };
  fill(here.main, h("h1", {}, "Operations"), h("div", { class: "bar" }, h("label", {}, "Show", h("select", {
    onchange: (event) => { all = event.target.value === "all"; draw(); },
  }, h("option", { value: "open" }, "under way"), h("option", { value: "all" }, "those that ended too")))), list);
  await here.every(2, draw);
}

export async function operation(here) {
  const draw = async () => {
    const item = await get(`/operation/${part(here.parts[0] ?? "")}`);
    if (!here.here() || document.querySelector("dialog[open]")) return;
    fill(here.main, h("h1", {}, `Operation: ${item.kind}`), h("div", { class: "bar" }, operationActions(here, item, draw)),
      facts([["Id", h("span", { class: "mono" }, item.id)], ["Of", item.target], ["State", badge(item.state)], ["Progress", progress(item)],
        ["Started", time(item.started_at)], ["Ended", time(item.finished_at)],
        ["Waits for", item.waiting_for.length ? item.waiting_for.map((text) => h("div", {}, text)) : "nothing"],
        ["Error", item.error ? `${item.error.code}: ${item.error.message}` : "none"]]),
      h("h2", {}, "Steps"), table("Steps", ["Step", "#Seconds"], (item.steps ?? []).map((step) => h("tr", {},
        h("th", { scope: "row" }, step.name), h("td", { class: "number" }, step.seconds.toFixed(3)))), "No steps yet."));
  };
  await here.every(2, draw);
}

export const trash = (here) => listing(here, {
  view: "trash", title: "Trash", path: "/trash", one: "image", key: "id", heads: ["Name", "-Kind", "#Size", "-Deleted", "Kept until", ""],
  empty: (place) => `The trash of ${place} is empty.`,
  row: (row, again) => h("tr", {},
    h("th", { scope: "row" }, actions.called(row)), h("td", { class: "less" }, row.kind), h("td", { class: "number" }, size(row.size)),
    h("td", { class: "time less" }, time(row.deleted_at)), h("td", { class: "time" }, row.expires_at ? time(row.expires_at)
      : row.removal ? h("a", { href: `#/operation/${encodeURIComponent(row.removal)}` }, "being removed") : "–"),
    h("td", { class: "actions" }, here.may("create") && !row.removal && button("Undelete", () => actions.undelete(row, again)))),
  buttons: (place, again) => here.may("delete")
    && h("button", { type: "button", class: "danger", onclick: () => actions.purge(place, again) }, "Empty trash"),
});

export async function schedules(here) {
  if (!here.has("schedule ls")) {
    fill(here.main, h("h1", {}, "Schedules"), h("p", { class: "empty" }, "This version of vdisk has no schedules."));
    return;
  }
  const draw = async () => {
    const rows = await get("/schedule/status");
    if (!here.here()) return;
    fill(here.main, h("h1", {}, "Schedules"), h("div", { class: "bar" }, h("span", { class: "gap" }),
      here.may("create") && h("button", { class: "main", onclick: () => actions.schedule("", draw) }, "Add schedule")),
    table("Schedules", ["Of", "Every", "Keep", "State", "-#Held", "-Last", "Next", ""], rows.map((row) => h("tr", {},
      h("th", { scope: "row" }, row.target), h("td", {}, row.interval ?? "–", row.start_time && h("div", { class: "soft" }, `from ${row.start_time.replace(/:00Z?$/, "")} UTC`)),
      h("td", {}, row.keep ?? "everything"), h("td", {}, row.state ? badge(row.state, { failing: "bad", unreadable: "bad" }[row.state] ?? "") : "–", row.error ? h("div", { class: "soft" }, row.error) : null),
      h("td", { class: "number less" }, number(row.kept)), h("td", { class: "time less" }, time(row.last_run)), h("td", { class: "time" }, time(row.next_run)),
      h("td", { class: "actions" }, here.may("delete") && row.interval && button("Remove", () => actions.unschedule(row, draw), "danger")))),
    "No snapshots are scheduled."));
  };
  await draw();
}
