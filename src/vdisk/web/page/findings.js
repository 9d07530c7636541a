// Checks: what disagrees, with its evidence, and repairs that show their plan before anything is done.

import { call, get, soon } from "./api.js";
import { badge, count, failure, fill, h, notice, number, plan } from "./dom.js";
import { choose } from "./places.js";

// Repairs one finding, or with null all that lose no data. Its plan comes first; nothing is done until that is confirmed.
function repair(place, found, again) {
  const messages = h("div", { "aria-live": "polite" });
  const ask = (more) => soon(() => call("POST", "/check", { pool_spec: place, repair: true, finding: found?.id, wait: 10, ...more }), () => box.open);
  const go = h("button", { class: "main", disabled: true, onclick: async () => {
    go.disabled = true;
    try {
      const answer = await ask({});
      const left = answer.findings.find((item) => (found ? item.id === found.id : item.error));
      if (left?.error) throw new Error(left.error.message);
      box.close();
      notice(answer.left && found ? "The repair goes on in the background." : "It is repaired.");
      again();
    } catch (error) {
      fill(messages, failure(error));
    }
  } }, "Repair");
  const box = h("dialog", { "aria-labelledby": "repair-title", onclose: () => box.remove() },
    h("h2", { id: "repair-title" }, found ? "Repair" : "Repair what loses no data"),
    found && [h("p", {}, found.repair ?? ""), h("p", {}, h("b", {}, "Risk: "), found.risk)], messages,
    h("div", { class: "buttons" }, h("button", { onclick: () => box.close() }, "Cancel"), go));
  document.body.append(box);
  box.showModal();
  fill(messages, h("p", { class: "soft", "aria-busy": "true" }, "Planning …"));
  ask({ dry_run: true }).then((answer) => {
    const steps = answer.findings.filter((item) => !found || item.id === found.id).flatMap((item) => item.steps ?? []);
    fill(messages, h("h3", {}, "Plan"), steps.length ? plan(steps) : h("p", {}, "It is gone by now: nothing is left to do."));
    go.disabled = !steps.length;
    if (steps.length) go.focus();
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
      const seen = Object.entries(answer.checked).map(([name, value]) => `${name}: ${number(value)}`).join(", ");
      fill(list, h("p", {}, seen ? `Looked at ${seen}. ` : "The pool is empty. ", answer.findings.length
        ? badge(count(answer.findings.length, "finding"), "warn") : badge("all agrees", "good")),
      here.may("update") && answer.findings.filter((found) => found.automatic).length > 1
        && h("p", {}, h("button", { onclick: () => repair(place, null, check) }, "Repair all that lose no data …")),
      answer.findings.slice(0, 200).map((found) => finding(here, place, found, check)),
      answer.findings.length > 200 && h("p", { class: "soft" }, `${number(answer.findings.length - 200)} more.`));
    } catch (error) {
      fill(list, failure(error));
    }
    button.disabled = false;
  };
  const { findings: left } = await get("/status");
  if (!here.here()) return;
  fill(list, h("div", { class: "wide" }, h("p", { class: "empty" }, `The last checks of all pools left ${count(left, "finding")}. Check now to see those of ${place}.`)));
  fill(here.main, h("h1", {}, "Findings"), h("p", { class: "soft" },
    "What disagrees between journal, images, snapshots, trash, tasks and operations. A check only reads."),
  h("div", { class: "bar" }, select, button), list);
}
