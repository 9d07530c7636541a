// All views but volumes: overview, lineage, operations, trash, findings, schedules.

import * as actions from "./actions.js";
import { call, get, part, soon } from "./api.js";
import { badge, failure, fill, h, notice, number, plan, size, table, time } from "./dom.js";
import { form } from "./forms.js";
import { choose } from "./places.js";

const card = (value, text, href) => h(href ? "a" : "div", { class: "card", href }, h("b", {}, value), h("span", {}, text));

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
      h("h2", {}, "Operations"), h("div", { class: "cards" },
        card(number(status.running), "running", "#/operations"), card(number(status.queued), "queued", "#/operations"),
        card(number(status.waiting), "waiting", "#/operations"), card(number(status.stuck), "stuck", "#/operations"),
        card(number(status.workers_busy), "workers busy"), card(number(status.background_busy + status.background_queued), "behind answers")),
      h("h2", {}, "Reclaiming"), h("div", { class: "cards" },
        card(number(reaper.backlog), "images to reclaim", "#/trash"), card(size(reaper.backlog_bytes), "of them, as provisioned"),
        card(number(reaper.removed), "reclaimed since the start"), card(number(reaper.given_to_rbd_support), "tasks of rbd_support")),
      h("h2", {}, "As the last checks saw it"), h("div", { class: "cards" },
        card(number(status.images), "images"), card(size(status.image_bytes), "provisioned"),
        card(number(status.snapshots_max), "snapshots on one image at most"), card(number(status.findings), "findings", "#/findings")),
      h("h2", {}, "Pools"), table("Pools", ["Pool", "Namespaces", "#Used", "#Available"], pools.map((found) => h("tr", {},
        h("th", { scope: "row" }, h("a", { href: `#/volumes/${encodeURIComponent(found.pool)}` }, found.pool)),
        h("td", {}, found.namespaces.length ? found.namespaces.map((name, at) => [at ? ", " : "",
          h("a", { href: `#/volumes/${encodeURIComponent(`${found.pool}/${name}`)}` }, name)]) : "–"),
        h("td", { class: "number" }, size(found.used)), h("td", { class: "number" }, size(found.available)))),
      "No pool may hold volumes yet."));
  });
}

function node(item) {
  if (item.pool === null) return h("li", {}, h("div", { class: "node" }, "An image that you may not see"));
  const kind = item.handle && !item.trashed ? (item.kind === "snapshot" ? "snapshot" : "volume") : null;
  const label = item.name ?? item.image;
  // That it is what it is holds every volume: no news.
  const holders = item.held_by.filter((reason) => !reason.startsWith("it is "));
  const about = [size(item.size), item.used === null ? null : `used ${size(item.used)}`, item.frees ? `frees ${size(item.frees)}` : null];
  return h("li", {},
    h("div", { class: `node ${item.kind} ${item.trashed ? "trashed" : ""}` }, badge(item.kind), " ",
      kind ? h("a", { href: `#/${kind}/${encodeURIComponent(item.handle)}` }, label) : h("b", {}, label),
      item.trashed ? [" ", badge("in the trash", "bad")] : null, h("div", { class: "soft" }, about.filter(Boolean).join(", ")),
      holders.length ? h("div", { class: "soft" }, `held: ${holders.join("; ")}`) : null),
    item.children.length ? h("ul", {}, item.children.map(node)) : null);
}

export async function lineage(here) {
  const chosen = await choose("lineage", here, "Lineage");
  if (chosen === null) return;
  const [place, select] = chosen;
  fill(here.main, h("h1", {}, "Lineage"), h("div", { class: "bar" }, select), h("p", { class: "empty", "aria-busy": "true" }, "Reading …"));
  const trees = await get("/tree", { pool_spec: place });
  if (!here.here()) return;
  fill(here.main, h("h1", {}, "Lineage"), h("div", { class: "bar" }, select),
    trees.length ? h("ul", { class: "tree", "aria-label": `Lineage in ${place}` }, trees.slice(0, 500).map(node))
      : h("p", { class: "empty" }, `Nothing in ${place} yet.`),
    trees.length > 500 ? h("p", { class: "soft" }, `${number(trees.length - 500)} more families; open a volume to see its own.`) : null);
}

const open = (item) => !["done", "failed"].includes(item.state);

function act(here, item, verb, again) {
  return h("button", { class: "small", onclick: () => form({
    title: `${verb} ${item.kind} of ${item.target}?`, submit: verb, confirmed: again,
    text: verb === "Cancel" ? "What it did is undone." : "It is run again now.",
    action: (values) => call("POST", `/operation/${part(item.id)}/${verb.toLowerCase()}`, { ...values, wait: 5 }),
    done: () => `${verb}: done.`,
  }) }, verb);
}

function operationActions(here, item, again) {
  if (!here.may("update")) return [];
  return [open(item) && item.step !== "await-children" && act(here, item, "Cancel", again),
    (item.state === "waiting" || item.state === "failed") && item.kind !== "check" && act(here, item, "Retry", again)];
}

export async function operations(here) {
  const list = h("div", {});
  let all = false;
  const draw = async () => {
    let found;
    try {
      found = await get("/operation");
    } catch (error) {
      if (error.status === 401) throw error;
      if (here.here()) fill(list, failure(error));
      return;
    }
    if (!here.here() || document.querySelector("dialog[open]")) return;
    const shown = found.filter((item) => all || open(item)).reverse();
    fill(list, table("Operations", ["Operation", "Of", "State", "Progress", "Waits for", "Started", ""], shown.slice(0, 200).map((item) => h("tr", {},
      h("th", { scope: "row" }, h("a", { href: `#/operation/${encodeURIComponent(item.id)}`, "data-key": item.id }, item.kind ?? "unreadable")),
      h("td", {}, item.target), h("td", {}, badge(item.state)),
      h("td", {}, h("progress", { max: 1, value: item.progress, "aria-label": "progress" }), " ", item.step ?? ""),
      h("td", {}, item.error?.message ?? (item.waiting_for.length ? item.waiting_for.slice(0, 3).join(", ") : "–")),
      h("td", { class: "time" }, time(item.started_at)), h("td", { class: "actions" }, operationActions(here, item, draw)))),
    all ? "No operations lately." : "Nothing is under way."),
    shown.length > 200 ? h("p", { class: "soft" }, `${number(shown.length - 200)} more.`) : null);
  };
  fill(here.main, h("h1", {}, "Operations"), h("div", { class: "bar" }, h("label", {}, "Show", h("select", {
    onchange: (event) => { all = event.target.value === "all"; draw(); },
  }, h("option", { value: "open" }, "under way"), h("option", { value: "all" }, "those that ended too")))), list);
  await here.every(2, draw);
}

export async function operation(here) {
  await here.every(2, async () => {
    const item = await get(`/operation/${part(here.parts[0] ?? "")}`);
    if (!here.here() || document.querySelector("dialog[open]")) return;
    const list = [["Id", h("span", { class: "mono" }, item.id)], ["Of", item.target], ["State", badge(item.state)],
      ["Progress", [h("progress", { max: 1, value: item.progress, "aria-label": "progress" }), " ", item.step ?? ""]],
      ["Started", time(item.started_at)], ["Ended", time(item.finished_at)],
      ["Waits for", item.waiting_for.length ? item.waiting_for.map((text) => h("div", {}, text)) : "nothing"],
      ["Error", item.error ? `${item.error.code}: ${item.error.message}` : "none"]];
    fill(here.main, h("h1", {}, `Operation: ${item.kind}`), h("div", { class: "bar" }, operationActions(here, item)),
      h("div", { class: "sheet" }, h("dl", {}, list.map(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]))),
      h("h2", {}, "Steps"), table("Steps", ["Step", "#Seconds"], (item.steps ?? []).map((step) => h("tr", {},
        h("th", { scope: "row" }, step.name), h("td", { class: "number" }, step.seconds.toFixed(3)))), "No steps yet."));
  });
}

export async function trash(here) {
  const chosen = await choose("trash", here, "Trash");
  if (chosen === null) return;
  const [place, select] = chosen;
  const list = h("div", {});
  const draw = async () => {
    try {
      const rows = await get("/trash", { pool_spec: place });
      if (!here.here()) return;
      fill(list, table(`Trash of ${place}`, ["Name", "Kind", "#Size", "Deleted", "Kept until", ""], rows.slice(0, 500).map((row) => h("tr", {},
        h("th", { scope: "row" }, row.name ?? row.image), h("td", {}, row.kind), h("td", { class: "number" }, size(row.size)),
        h("td", { class: "time" }, time(row.deleted_at)), h("td", { class: "time" }, row.expires_at ? time(row.expires_at)
          : row.removal ? h("a", { href: `#/operation/${encodeURIComponent(row.removal)}` }, "being removed") : "–"),
        h("td", { class: "actions" }, here.may("create") && !row.removal
          && h("button", { class: "small", onclick: () => actions.undelete(row, draw) }, "Undelete")))),
      `The trash of ${place} is empty.`),
      rows.length > 500 ? h("p", { class: "soft" }, `${number(rows.length - 500)} more.`) : null);
    } catch (error) {
      fill(list, failure(error));
    }
  };
  fill(here.main, h("h1", {}, "Trash"), h("div", { class: "bar" }, select, h("span", { class: "gap" }),
    here.may("delete") && h("button", { class: "danger", onclick: () => actions.purge(place, draw) }, "Empty trash")), list);
  await draw();
}

function repair(place, found, again) {
  const messages = h("div", {});
  const ask = (more) => soon(() => call("POST", "/check", { pool_spec: place, repair: true, finding: found.id, wait: 10, ...more }), () => box.open);
  const go = h("button", { class: "main", disabled: true, onclick: async () => {
    go.disabled = true;
    try {
      const answer = await ask({});
      const left = answer.findings.find((item) => item.id === found.id);
      if (left?.error) throw new Error(left.error.message);
      box.close();
      notice(answer.left ? "The repair goes on in the background." : "It is repaired.");
      again();
    } catch (error) {
      fill(messages, failure(error));
    }
  } }, "Repair");
  const box = h("dialog", { "aria-labelledby": "repair-title", onclose: () => box.remove() }, h("h2", { id: "repair-title" }, "Repair"),
    h("p", {}, found.repair ?? ""), h("p", {}, h("b", {}, "Risk: "), found.risk), messages,
    h("div", { class: "buttons" }, h("button", { onclick: () => box.close() }, "Cancel"), go));
  document.body.append(box);
  box.showModal();
  ask({ dry_run: true }).then((answer) => {
    const steps = answer.findings.find((item) => item.id === found.id)?.steps;
    fill(messages, h("h3", {}, "Plan"), steps?.length ? plan(steps) : h("p", {}, "It is gone by now: nothing is left to do."));
    go.disabled = !steps?.length;
  }, (error) => fill(messages, failure(error)));
}

function finding(here, place, found, again) {
  const evidence = Object.entries(found.evidence).filter(([, value]) => value !== null).map(([name, value]) => [h("dt", {}, name), h("dd", { class: "mono" },
    typeof value === "string" ? value : JSON.stringify(value))]);
  return h("article", { class: "sheet finding" }, h("h3", {}, badge(found.class, "warn"), " ", found.cause),
    h("dl", {}, h("dt", {}, "Objects"), h("dd", { class: "mono" }, found.objects.map((name) => h("div", {}, name))), evidence,
      h("dt", {}, "Repair"), h("dd", {}, found.repair ?? "–", " ", found.automatic ? badge("loses no data", "good") : badge("only by hand", "warn"))),
    here.may("update") && found.repair && h("p", {}, h("button", { onclick: () => repair(place, found, again) }, "Repair …")));
}

export async function findings(here) {
  const chosen = await choose("findings", here, "Findings");
  if (chosen === null) return;
  const [place, select] = chosen;
  const list = h("div", { "aria-live": "polite" });
  const button = h("button", { class: "main", onclick: () => check() }, "Check now");
  const check = async () => {
    button.disabled = true;
    fill(list, h("p", { class: "empty", "aria-busy": "true" }, "Checking …"));
    try {
      const answer = await soon(() => get("/check", { pool_spec: place, wait: 10 }), here.here);
      if (!here.here()) return;
      const counts = Object.entries(answer.checked).map(([name, count]) => `${name}: ${number(count)}`).join(", ");
      fill(list, h("p", {}, counts ? `Looked at ${counts}. ` : "The pool is empty. ", answer.findings.length
        ? badge(answer.findings.length === 1 ? "1 finding" : `${number(answer.findings.length)} findings`, "warn") : badge("all agrees", "good")),
      answer.findings.slice(0, 200).map((found) => finding(here, place, found, check)));
    } catch (error) {
      fill(list, failure(error));
    }
    button.disabled = false;
  };
  fill(here.main, h("h1", {}, "Findings"), h("p", { class: "soft" },
    "What disagrees between journal, images, snapshots, trash, tasks and operations. A check only reads."),
  h("div", { class: "bar" }, select, button), list);
}

export async function schedules(here) {
  if (!here.has("schedule ls")) {
    fill(here.main, h("h1", {}, "Schedules"), h("p", { class: "empty" }, "This version of vdisk has no schedules."));
    return;
  }
  const draw = async () => {
    const rows = await get(here.has("schedule status") ? "/schedule/status" : "/schedule");
    const kept = await get("/schedule");
    if (!here.here()) return;
    const rule = (row) => kept.find((item) => item.target === row.target && item.interval === row.interval) ?? row;
    fill(here.main, h("h1", {}, "Schedules"), h("div", { class: "bar" }, h("span", { class: "gap" }),
      here.may("create") && h("button", { class: "main", onclick: () => actions.schedule("", draw) }, "Add schedule")),
    table("Schedules", ["Of", "Every", "Keep", "State", "Last", "Next", ""], rows.map((row) => h("tr", {},
      h("th", { scope: "row" }, row.target), h("td", {}, row.interval), h("td", {}, rule(row).keep ?? "everything"),
      h("td", {}, row.state ? badge(row.state) : "–", row.error ? [" ", row.error.message ?? String(row.error)] : null),
      h("td", { class: "time" }, time(row.last_run)), h("td", { class: "time" }, time(row.next_run)),
      h("td", { class: "actions" }, here.may("delete") && h("button", { class: "small danger", onclick: () => form({
        title: `Remove the schedule of ${row.target}?`, text: "The snapshots stay.", danger: true, submit: "Remove", confirmed: draw,
        action: (values) => call("DELETE", "/schedule", { pool_spec: row.target, interval: row.interval, ...values, wait: 5 }),
        done: () => "The schedule is removed.",
      }) }, "Remove")))), "No snapshots are scheduled."));
  };
  await draw();
}
