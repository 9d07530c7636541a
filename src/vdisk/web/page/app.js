// The page: who is signed in, which view the address names, and drawing it anew when that changes.

import { get } from "./api.js";
import { failure, fill, h } from "./dom.js";
import { findings, lineage, operation, operations, overview, schedules, trash } from "./views.js";
import { snapshot, volume, volumes } from "./volumes.js";

const VIEWS = { overview, volumes, volume, snapshot, operations, operation, trash, lineage, findings, schedules };
const LINKS = [["overview", "Overview"], ["volumes", "Volumes"], ["lineage", "Lineage"], ["operations", "Operations"],
  ["trash", "Trash"], ["findings", "Findings"], ["schedules", "Schedules"]];
const UNDER = { volume: "volumes", snapshot: "volumes", operation: "operations" };
const main = document.getElementById("main");
let session = null;
let drawn = 0;

// What a view gets. `may` and `has` say what the user and this version of vdisk can do; `here` is true until another
// view is drawn; `every` repeats something while the view is shown.
function context(parts) {
  const mine = ++drawn;
  const here = () => mine === drawn;
  return {
    main, parts, here,
    may: (permission) => session.permissions.includes(permission),
    has: (words) => session.commands.includes(words),
    every: async (seconds, draw) => {
      while (here()) {
        if (!document.hidden) await draw();
        await new Promise((resolve) => setTimeout(resolve, seconds * 1000));
      }
    },
  };
}

function blocked(error) {
  const texts = {
    401: ["You are signed out", "Sign in to the Ceph dashboard, then come back to this page."],
    403: ["No permission", "Your role in the dashboard does not include reading RBD images (scope rbd-image)."],
    503: ["vdisk does not answer", error.message],
  };
  const [title, text] = texts[error.status] ?? ["This did not work", error.message];
  fill(main, h("h1", {}, title), h("p", { role: "alert" }, text), h("p", {},
    error.status === 401 ? h("a", { class: "button", href: "./#/login" }, "Sign in") : h("button", { onclick: start }, "Try again")));
}

async function start() {
  try {
    session = await get("/session");
    // Whether vdisk itself works is known only by asking it.
    await get("/status");
  } catch (error) {
    blocked(error);
    return;
  }
  document.getElementById("rights").textContent = session.permissions.length > 1 ? "" : "You may look, but not act.";
  route();
}

async function route() {
  if (session === null) return;
  const [view, ...parts] = location.hash.replace(/^#\/?/, "").split("/").map(decodeURIComponent);
  const name = view in VIEWS ? view : "overview";
  const links = LINKS.filter(([link]) => link !== "schedules" || session.commands.includes("schedule ls"));
  fill(document.getElementById("views"), links.map(([link, text]) => h("a", {
    href: `#/${link}`, "aria-current": link === (UNDER[name] ?? name) ? "page" : null,
  }, text)));
  document.title = `${links.find(([link]) => link === (UNDER[name] ?? name))?.[1] ?? "vdisk"} – vdisk`;
  const here = context(parts);
  fill(main, h("p", { class: "empty", "aria-busy": "true" }, "Loading …"));
  try {
    await VIEWS[name](here);
  } catch (error) {
    if (!here.here()) return;
    if (error.status === 401 || error.status === 403) blocked(error);
    else fill(main, failure(error), h("p", {}, h("button", { onclick: start }, "Try again")));
  }
}

addEventListener("hashchange", () => { route(); main.focus(); });
start();
