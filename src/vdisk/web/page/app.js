// The page: who is signed in, which view the address names, and drawing it anew when that changes.

import { get } from "./api.js";
import { failure, fill, h } from "./dom.js";
import { findings } from "./findings.js";
import { group, groups } from "./groups.js";
import { lineage } from "./lineage.js";
import { snapshot, snapshots } from "./snapshots.js";
import { operation, operations, overview, schedules, trash } from "./views.js";
import { volume, volumes } from "./volumes.js";

const VIEWS = {
  overview, volumes, volume, snapshots, snapshot, groups, group, operations, operation, trash, lineage, findings, schedules,
};
const LINKS = [["overview", "Overview"], ["volumes", "Volumes"], ["snapshots", "Snapshots"], ["groups", "Groups"], ["lineage", "Lineage"],
  ["operations", "Operations"], ["trash", "Trash"], ["findings", "Findings"], ["schedules", "Schedules"]];
const NEEDS = { schedules: "schedule ls", groups: "group snap ls" };
const UNDER = { volume: "volumes", snapshot: "snapshots", group: "groups", operation: "operations" };
const main = document.getElementById("main");
const trouble = document.getElementById("trouble");
let session = null;
let drawn = 0;

function decoded(text) {
  try { return decodeURIComponent(text); } catch { return text; /* not a link of this page: taken as it is */ }
}

// What a view gets. `may` and `has` say what the user and this version of vdisk can do; `here` is true until another
// view is drawn; `every` repeats something while the view is shown, also after it failed: the manager may be changing.
function context(parts) {
  const mine = ++drawn;
  const here = () => mine === drawn;
  const once = async (draw) => {
    try {
      await draw();
      if (here()) fill(trouble);
    } catch (error) {
      if (!here()) return;
      if (error.status >= 400 && error.status < 500) throw error;
      fill(trouble, failure(error));
    }
  };
  return {
    main, parts, here,
    may: (permission) => session.permissions.includes(permission),
    has: (words) => session.commands.includes(words),
    every: async (seconds, draw) => {
      while (here()) {
        // Not while somebody marks a text to copy it.
        if (!document.hidden && getSelection().isCollapsed) await once(draw);
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
  const [view, ...parts] = location.hash.replace(/^#\/?/, "").split("/").map(decoded);
  const name = view in VIEWS ? view : "overview";
  const links = LINKS.filter(([link]) => !NEEDS[link] || session.commands.includes(NEEDS[link]));
  fill(document.getElementById("views"), links.map(([link, text]) => h("a", {
    href: `#/${link}`, "aria-current": link === (UNDER[name] ?? name) ? "page" : null,
  }, text)));
  document.title = `${links.find(([link]) => link === (UNDER[name] ?? name))?.[1] ?? "vdisk"} – vdisk`;
  const here = context(parts);
  fill(trouble);
  fill(main, h("p", { class: "empty", "aria-busy": "true" }, "Loading …"));
  try {
    await VIEWS[name](here);
  } catch (error) {
    if (!here.here()) return;
    if (error.status === 401 || error.status === 403) blocked(error);
    else fill(main, h("h1", {}, error.status === 404 ? "Not found" : "This did not work"), failure(error), h("p", {}, h("button", { onclick: start }, "Try again")));
  }
}

addEventListener("hashchange", () => { route(); main.focus(); });
start();
