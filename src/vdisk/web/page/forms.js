// Dialogs: a form with its error where it happens, and the plan before anything is changed.

import { failure, fill, h, notice, plan } from "./dom.js";

function field(given) {
  const input = given.options
    ? h("select", { name: given.name }, given.options.map((item) => h("option", { value: item }, item)))
    : h("input", {
      name: given.name, type: "text", required: given.required, value: given.value ?? "", autocomplete: "off", spellcheck: "false",
      "aria-describedby": given.hint && `hint-${given.name}`,
    });
  return h("div", { class: "field" }, h("label", {}, given.label, input),
    given.hint && h("span", { class: "hint", id: `hint-${given.name}` }, given.hint));
}

const steps = (answer) => (answer.steps?.length ? plan(answer.steps) : h("p", { class: "soft" }, "Nothing would be done."));

// `fields` are shown, `more` is [title, fields] that few need. `action` gets the values and sends the request; what it is
// answered is given to `done`, which returns a line for everybody, then to `confirmed`. `planned` draws a plan.
export function form({ title, text, fields = [], more, action, submit, danger, done, confirmed, planned = steps }) {
  const messages = h("div", {});
  const values = () => Object.fromEntries([...new FormData(box.querySelector("form"))].map(([name, value]) => [name, value.trim()]));
  // An error that begins with the name of a field is about it.
  const blame = (error) => {
    const about = box.querySelector(`[name="${CSS.escape(error.message.split(" ")[0])}"]`);
    about?.setAttribute("aria-invalid", "true");
    about?.closest("details")?.setAttribute("open", "");
    return about;
  };
  const over = (text) => {
    box.close();
    notice(text);
    confirmed?.();
  };
  const run = async (dry) => {
    let held = document.activeElement;
    const buttons = [...box.querySelectorAll("button:not(.cancel)")];
    buttons.forEach((button) => { button.disabled = true; });
    box.querySelectorAll("[aria-invalid]").forEach((input) => input.removeAttribute("aria-invalid"));
    fill(messages, h("p", { class: "soft", "aria-busy": "true" }, "Working …"));
    try {
      const answer = await action({ ...values(), ...(dry ? { dry_run: true } : {}) });
      if (!box.open) return;
      if (dry) fill(messages, h("h3", {}, "Plan"), planned(answer));
      else over(done(answer));
    } catch (error) {
      // What was begun goes on whether anybody waits or not.
      if (error.code === "pending" && !dry && box.open) {
        over("It takes longer and goes on in the background: see Operations.");
        return;
      }
      fill(messages, failure(error));
      held = blame(error) ?? held;
    }
    buttons.forEach((button) => { button.disabled = false; });
    if (box.open) held?.focus();
  };
  const box = h("dialog", { "aria-labelledby": "dialog-title", onclose: () => box.remove() },
    h("form", { onsubmit: (event) => { event.preventDefault(); run(false); } },
      h("h2", { id: "dialog-title" }, title), text && h("p", {}, text), fields.map(field),
      more && h("details", {}, h("summary", {}, more[0]), more[1].map(field)),
      h("div", { "aria-live": "polite" }, messages),
      h("div", { class: "buttons" },
        h("button", { type: "button", class: "cancel", onclick: () => box.close() }, "Cancel"),
        planned && h("button", { type: "button", onclick: () => box.querySelector("form").reportValidity() && run(true) }, "Show plan"),
        h("button", { type: "submit", class: danger ? "danger" : "main" }, submit))));
  document.body.append(box);
  box.showModal();
}
