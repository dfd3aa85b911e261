// Doorbell's form script: sends every <form data-doorbell> with fetch and shows the answer in place.
// Without it the same form is a plain POST that the server answers with a page.
//
// Hooks for a site:
//   data-success="..." on the form         the text shown when the signup is accepted
//   [data-doorbell-status] in the form     gets the result; its value becomes "success" or "error"
//   .doorbell-error, id "<name>-error"     a message beside a field; [data-error-for="<name>"] is used instead if there is one
//   "doorbell:accepted"                    event on the form, bubbles
(() => {
  "use strict";

  // What is said here, in other languages: {"zh-Hans": {"English": "…"}}. The server fills this in, from its catalogues.
  const TRANSLATIONS = {};
  const TIMEOUT_MS = 30_000;

  // A control named "action", "reset" or even "elements" hides the form's own property of that name,
  // so everything on a form is reached through the prototype.
  const proto = HTMLFormElement.prototype;
  const read = (form, key) => Reflect.get(proto, key, form);
  const call = (form, key, ...args) => proto[key].apply(form, args);
  const controlsOf = (form) => Array.from(read(form, "elements"));

  // What a form post would send, each name once (the last wins), without what is empty.
  function valuesOf(form, submitter) {
    const values = new Map();
    for (const [name, value] of new FormData(form, submitter)) {
      if (typeof value === "string") values.set(name, value);
    }
    // fromEntries defines own properties, so a field named "__proto__" is only a field.
    return Object.fromEntries([...values].filter(([, value]) => value !== ""));
  }

  async function problemOf(response) {
    if (!/\bjson\b/i.test(response.headers.get("Content-Type") ?? "")) return {};
    try {
      const body = await response.json();
      return body !== null && typeof body === "object" ? body : {};
    } catch {
      return {};
    }
  }

  function localeOf(form) {
    try {
      return new Intl.Locale(call(form, "closest", "[lang]").lang);
    } catch {
      return null; // no language, or not a tag of one
    }
  }

  // The words of a form's language. Texts are in English here; {name} in them stands for a value.
  function wordsIn(locale) {
    const { language, script } = locale?.maximize() ?? {};
    const table = TRANSLATIONS[`${language}-${script}`] ?? {};
    const fill = (text, values) => text.replace(/\{(\w+)\}/g, (_, name) => values[name]);
    return {
      gettext: (text, values = {}) => fill(table[text] ?? text, values),
      ngettext(one, many, count, values = {}) {
        const forms = table[one] ?? { one, other: many };
        const category = new Intl.PluralRules(table[one] ? locale : "en").select(count);
        return fill(forms[category] ?? forms.other, { count, ...values });
      },
    };
  }

  function enhance(form, index) {
    const locale = localeOf(form);
    const { gettext, ngettext } = wordsIn(locale);
    const shown = new Map(); // field name -> undo what showing its error did
    let busy = false;

    Reflect.set(proto, "noValidate", true, form); // the browser's bubbles would come before "submit"

    function statusOf() {
      let status = call(form, "querySelector", "[data-doorbell-status]");
      if (!status) {
        status = document.createElement("p");
        status.setAttribute("role", "status");
        call(form, "append", status);
      }
      return status;
    }

    function say(text, kind = "") {
      const status = statusOf();
      status.dataset.doorbellStatus = kind;
      status.textContent = text;
      return status;
    }

    // Buttons and hidden inputs have names too, but nobody can mend an error there.
    function fieldsNamed(name) {
      return controlsOf(form).filter(
        (control) => control.name === name && !["hidden", "submit", "button", "reset"].includes(control.type),
      );
    }

    function clearError(name) {
      shown.get(name)?.();
      shown.delete(name);
    }

    function clearErrors() {
      for (const name of [...shown.keys()]) clearError(name);
    }

    function showError(name, message) {
      clearError(name);
      const controls = fieldsNamed(name);
      if (controls.length === 0) return false;

      const own = call(form, "querySelector", `[data-error-for="${CSS.escape(name)}"]`);
      const box = own ?? document.createElement("p");
      box.id ||= index === 0 ? `${name}-error` : `${name}-error-${index + 1}`;
      box.classList.add("doorbell-error");
      box.textContent = message;
      if (!own) {
        const last = controls.at(-1); // of a group of radio buttons
        (last.closest("label") ?? last).after(box);
      }

      const before = controls.map((control) => control.getAttribute("aria-describedby"));
      controls.forEach((control, i) => {
        control.setAttribute("aria-invalid", "true");
        control.setAttribute("aria-describedby", before[i] ? `${before[i]} ${box.id}` : box.id);
      });

      shown.set(name, () => {
        if (own) own.textContent = "";
        else box.remove();
        controls.forEach((control, i) => {
          control.removeAttribute("aria-invalid");
          if (before[i]) control.setAttribute("aria-describedby", before[i]);
          else control.removeAttribute("aria-describedby");
        });
      });
      return true;
    }

    // errors: [{field, message}]. What has no field to stand beside goes to the status.
    function showErrors(errors, fallback) {
      const byField = new Map();
      const rest = [];
      for (const { field, message } of errors) {
        if (!byField.has(field)) byField.set(field, []);
        byField.get(field).push(message);
      }
      for (const [field, messages] of byField) {
        if (!showError(field, messages.join(" "))) rest.push(...messages);
      }
      if (rest.length > 0) say(rest.join(" "), "error");
      else if (shown.size === 0) say(fallback, "error");
      const first = controlsOf(form).find((control) => shown.has(control.name) && !control.disabled);
      if (first) first.focus();
    }

    function browserErrors() {
      const errors = new Map(); // by name: every radio button of a group complains
      for (const control of controlsOf(form)) {
        if (control.willValidate && !control.checkValidity() && !errors.has(control.name)) {
          errors.set(control.name, control.validationMessage);
        }
      }
      return [...errors].map(([field, message]) => ({ field, message }));
    }

    function accepted(unchanged) {
      const status = say(read(form, "dataset").success || gettext("Thank you! We have your message and will write to you by e-mail."), "success");
      if (unchanged) call(form, "reset"); // else the visitor went on typing: not ours to wipe
      status.tabIndex = -1;
      status.focus();
      call(form, "dispatchEvent", new CustomEvent("doorbell:accepted", { bubbles: true }));
    }

    function tryAgain(response, why) {
      const minutes = Math.ceil(Number(response.headers.get("Retry-After")) / 60);
      if (minutes > 2) {
        return ngettext(
          "{why} What you typed is still here; please try again in about {count} minute.",
          "{why} What you typed is still here; please try again in about {count} minutes.",
          minutes,
          { why },
        );
      }
      return gettext("{why} What you typed is still here; please try again in a moment.", { why });
    }

    async function refused(response) {
      const problem = await problemOf(response);
      const failed = gettext("Something went wrong on our side.");
      const text = [problem.detail, problem.title].find((part) => part && typeof part === "string");
      if (response.status === 422) {
        const errors = Array.isArray(problem.errors) ? problem.errors : [];
        showErrors(
          errors.filter((error) => error && typeof error.field === "string" && typeof error.message === "string"),
          text || gettext("Please check what you typed."),
        );
      } else if (response.status === 429 || response.status === 503) {
        const why = (text || failed).replace(/\P{Sentence_Terminal}$/u, "$&.");
        say(tryAgain(response, why), "error");
      } else {
        say(text || gettext("{why} What you typed is still here; please try again.", { why: failed }), "error");
      }
    }

    async function send(submitter) {
      busy = true;
      const body = JSON.stringify(valuesOf(form, submitter)); // before the button is disabled: it may have a value
      const buttons = controlsOf(form).filter((control) => control.type === "submit" && !control.disabled);
      const focused = document.activeElement;
      for (const button of buttons) {
        button.setAttribute("autocomplete", "off"); // or Firefox keeps it disabled over a reload
        button.disabled = true;
      }
      call(form, "setAttribute", "aria-busy", "true");

      let response = null;
      try {
        response = await fetch(call(form, "getAttribute", "action") || "", {
          method: "POST",
          headers: {
            "Content-Type": "application/json",
            Accept: "application/json",
            ...(locale && { "Accept-Language": locale.baseName }),
          },
          body,
          signal: AbortSignal.timeout?.(TIMEOUT_MS),
        });
      } catch {
        // response stays null
      }

      // Before anything is said: a screen reader keeps silent about what changes in a busy region.
      call(form, "removeAttribute", "aria-busy");
      for (const button of buttons) button.disabled = false;
      busy = false;
      // A disabled button loses the focus; the answer may move it on from here.
      if (document.activeElement === document.body) focused?.focus?.({ preventScroll: true });

      if (response === null) {
        say(gettext("We could not reach the server. What you typed is still here; please try again."), "error");
      }
      // Only 202 is a yes: a captive portal or a proxy's page answers 200.
      else if (response.status === 202) accepted(JSON.stringify(valuesOf(form, submitter)) === body);
      else await refused(response);
    }

    call(form, "addEventListener", "submit", (event) => {
      event.preventDefault();
      if (busy) return;
      clearErrors();
      say("");
      const errors = browserErrors();
      if (errors.length > 0) showErrors(errors, gettext("Please check what you typed."));
      else void send(event.submitter);
    });

    // On the document, for a control may stand outside its form (form="...").
    document.addEventListener("input", ({ target }) => {
      if (target.form === form) clearError(target.name);
    });
  }

  function start() {
    document.querySelectorAll("form[data-doorbell]").forEach(enhance);
  }

  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", start);
  else start();
})();
