// Dialogs: a form with its error where it happens, and the plan before anything is changed.

import { fill, failure, h, notice, plan } from "./dom.js";

export function form({ title, text, fields = [], action, submit, danger, done, confirmed, planned = true }) {
  return new Promise((resolve) => {
    const messages = h("div", {});
    const inputs = fields.map((field) => {
      const input = field.options
        ? h("select", { name: field.name }, field.options.map((item) => h("option", { value: item }, item)))
        : h("input", {
          name: field.name, type: field.type ?? "text", required: field.required, value: field.value ?? "",
          autocomplete: "off", spellcheck: "false", readonly: field.readonly,
        });
      return h("label", {}, field.label, input, field.hint && h("span", { class: "hint" }, field.hint));
    });
    const values = () => Object.fromEntries(new FormData(box.querySelector("form")));
    const run = async (dry) => {
      const buttons = [...box.querySelectorAll("button")];
      buttons.forEach((button) => { button.disabled = true; });
      fill(messages);
      try {
        const answer = await action({ ...values(), ...(dry ? { dry_run: true } : {}) });
        if (dry) {
          const steps = answer.steps ?? [];
          fill(messages, h("h3", {}, "Plan"), steps.length ? plan(steps) : h("p", { class: "soft" }, "Nothing would be done."));
        } else {
          box.close();
          notice(done(answer));
          confirmed?.(answer);
          resolve(answer);
        }
      } catch (error) {
        fill(messages, failure(error));
      }
      buttons.forEach((button) => { button.disabled = false; });
    };
    const box = h("dialog", { "aria-labelledby": "dialog-title", onclose: () => { box.remove(); resolve(null); } },
      h("form", { onsubmit: (event) => { event.preventDefault(); run(false); } },
        h("h2", { id: "dialog-title" }, title),
        text && h("p", {}, text), inputs, messages,
        h("div", { class: "buttons" },
          h("button", { type: "button", onclick: () => box.close() }, "Cancel"),
          planned && h("button", { type: "button", onclick: () => box.querySelector("form").reportValidity() && run(true) }, "Show plan"),
          h("button", { type: "submit", class: danger ? "danger" : "main" }, submit))));
    document.body.append(box);
    box.showModal();
  });
}
