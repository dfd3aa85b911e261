// Doorbell's form script: sends every <form data-doorbell> with fetch and shows the answer in place.
// Without it the same form is a plain POST that the server answers with a page.
//
// Hooks for a site:
//   data-success="..." on the form         the text shown when the signup is accepted
//   [data-doorbell-status] in the form     gets the result; its value becomes "success" or "error"
//   .doorbell-error, id "<name>-error"     a message beside a field; [data-error-for="<name>"] is used instead if there is one
//   "doorbell:accepted"                    event on the form, bubbles
//
// It also shows that a page was open (a token) and, where the server asks for it, that work was done (a proof).
(() => {
  "use strict";

  // What is said here, in other languages: {"zh-Hans": {"English": "…"}}. The server fills this in, from its catalogues.
  const TRANSLATIONS = {};
  const TIMEOUT_MS = 30_000;
  const ASKING_MS = 5_000; // for a token or a puzzle; without one the form is sent all the same
  const TOO_FAST_MS = 2_100; // after which a post is no longer taken for a machine's
  const STALE_MS = 3_600_000;
  const SLICE_MS = 12; // of work at a time, so that the page stays quick

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

  const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

  // On the server that the action names, which may be another than the page's.
  function endpoint(form, name) {
    const action = new URL(call(form, "getAttribute", "action") || "", document.baseURI);
    return new URL(`_doorbell/${name}/${encodeURIComponent(valuesOf(form).site ?? "")}`, action).href;
  }

  async function ask(url) {
    try {
      const signal = AbortSignal.timeout?.(ASKING_MS);
      const response = await fetch(url, { headers: { Accept: "application/json" }, signal });
      return response.ok ? await response.json() : null;
    } catch {
      return null;
    }
  }

  const tokens = new Map(); // address -> promise of {token, proof, at}, or of null

  async function tokenFor(form) {
    const url = endpoint(form, "token");
    const known = await tokens.get(url);
    if (known && Date.now() - known.at < STALE_MS) return known;
    const fresh = ask(url).then((answer) => answer && { ...answer, at: Date.now() });
    tokens.set(url, fresh);
    return fresh;
  }

  // SHA-256 (FIPS 180-4). Our own: crypto.subtle is missing on plain http, and a promise for each hash takes longer than
  // the hash. Its constants are the first bits behind the point of the roots of primes.
  const primes = [];
  for (let n = 2; primes.length < 64; n++) if (primes.every((prime) => n % prime)) primes.push(n);
  const bits = (root) => ((root % 1) * 2 ** 32) | 0;
  const ROUNDS = primes.map((prime) => bits(prime ** (1 / 3)));
  const BEGIN = primes.slice(0, 8).map((prime) => bits(Math.sqrt(prime)));
  const turn = (word, by) => (word >>> by) | (word << (32 - by));

  // The state after another block; `words` has its 16, and room for 48 more.
  function digest(state, words) {
    for (let i = 16; i < 64; i++) {
      const early = words[i - 15];
      const late = words[i - 2];
      const mixed = (turn(early, 7) ^ turn(early, 18) ^ (early >>> 3)) + (turn(late, 17) ^ turn(late, 19) ^ (late >>> 10));
      words[i] = (words[i - 16] + words[i - 7] + mixed) | 0;
    }
    let [a, b, c, d, e, f, g, h] = state;
    for (let i = 0; i < 64; i++) {
      const choice = (turn(e, 6) ^ turn(e, 11) ^ turn(e, 25)) + ((e & f) ^ (~e & g));
      const majority = (turn(a, 2) ^ turn(a, 13) ^ turn(a, 22)) + ((a & b) ^ (a & c) ^ (b & c));
      const one = (h + choice + ROUNDS[i] + words[i]) | 0;
      [h, g, f, e, d, c, b, a] = [g, f, e, (d + one) | 0, c, b, a, (one + majority) | 0];
    }
    return [a, b, c, d, e, f, g, h].map((word, i) => (word + state[i]) | 0);
  }

  // The last blocks of a message of `length` bytes, of which `rest` (ASCII) is not hashed yet.
  function finish(state, rest, length, words) {
    const blocks = Math.ceil((rest.length + 9) / 64);
    for (let block = 0; block < blocks; block++) {
      words.fill(0);
      for (let at = 0; at < 64; at++) {
        const from = block * 64 + at;
        const byte = from < rest.length ? rest.charCodeAt(from) : from === rest.length ? 0x80 : 0;
        words[at >> 2] |= byte << (24 - 8 * (at & 3));
      }
      if (block === blocks - 1) words[15] = length * 8;
      state = digest(state, words);
    }
    return state;
  }

  // The number that a puzzle of ALTCHA asks for. In slices, not in a worker: a site's policy may allow none, and no page
  // may start one from another origin. A message, not a timer: a page in the background gets one a second.
  async function solve({ algorithm, challenge, salt, maxnumber }) {
    if (algorithm !== "SHA-256") return null;
    const wanted = challenge.match(/.{8}/g).map((word) => Number.parseInt(word, 16) | 0);
    const words = new Int32Array(64);
    const whole = salt.length - (salt.length % 64);
    let state = BEGIN;
    for (let at = 0; at < whole; at += 64) {
      for (let i = 0; i < 64; i++) words[i >> 2] = (words[i >> 2] << 8) | salt.charCodeAt(at + i);
      state = digest(state, words);
    }
    const rest = salt.slice(whole);
    const { port1, port2 } = new MessageChannel();
    let until = performance.now() + SLICE_MS;
    for (let number = 0; number <= maxnumber; number++) {
      const digits = String(number);
      const found = finish(state, rest + digits, salt.length + digits.length, words);
      if (found.every((word, i) => word === wanted[i])) return number;
      if (number % 64 === 0 && performance.now() > until) {
        await new Promise((resolve) => {
          port1.onmessage = resolve;
          port2.postMessage(null);
        });
        until = performance.now() + SLICE_MS;
      }
    }
    return null;
  }

  // The field `altcha`; null where there is no puzzle to be had.
  async function proofFor(url) {
    const puzzle = await ask(url);
    const number = puzzle && (await solve(puzzle));
    if (number === null) return null;
    const { algorithm, challenge, salt, signature } = puzzle;
    return btoa(JSON.stringify({ algorithm, challenge, number, salt, signature }));
  }

  function randomKey() {
    return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
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
    let unanswered = { text: "", key: "" }; // sent again, it is the same signup

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

    function refused(response, problem) {
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

    async function post(values, key) {
      const response = await fetch(call(form, "getAttribute", "action") || "", {
        method: "POST",
        headers: {
          "Content-Type": "application/json",
          Accept: "application/json",
          "Idempotency-Key": `"${key}"`,
          ...(locale && { "Accept-Language": locale.baseName }),
        },
        body: JSON.stringify(values),
        signal: AbortSignal.timeout?.(TIMEOUT_MS),
      });
      return { response, problem: response.ok ? {} : await problemOf(response) };
    }

    // What the server says to these values, with token and proof; null where it cannot be reached.
    async function deliver(values, key) {
      const token = await tokenFor(form);
      if (token) {
        values._token = token.token;
        await pause(Math.min(token.at + TOO_FAST_MS - Date.now(), TOO_FAST_MS));
      }
      if (token?.proof) values.altcha = await proofFor(endpoint(form, "challenge"));
      try {
        const answer = await post(values, key);
        if (answer.response.status !== 429 || typeof answer.problem.challenge !== "string") return answer;
        values.altcha = await proofFor(new URL(answer.problem.challenge, answer.response.url).href);
        return values.altcha ? await post(values, key) : answer;
      } catch {
        return null;
      }
    }

    async function send(submitter) {
      busy = true;
      const values = valuesOf(form, submitter); // before the button is disabled: it may have a value
      const text = JSON.stringify(values);
      if (text !== unanswered.text) unanswered = { text, key: randomKey() };
      const buttons = controlsOf(form).filter((control) => control.type === "submit" && !control.disabled);
      const focused = document.activeElement;
      for (const button of buttons) {
        button.setAttribute("autocomplete", "off"); // or Firefox keeps it disabled over a reload
        button.disabled = true;
      }
      call(form, "setAttribute", "aria-busy", "true");

      const answer = await deliver(values, unanswered.key);

      // Before anything is said: a screen reader keeps silent about what changes in a busy region.
      call(form, "removeAttribute", "aria-busy");
      for (const button of buttons) button.disabled = false;
      busy = false;
      // A disabled button loses the focus; the answer may move it on from here.
      if (document.activeElement === document.body) focused?.focus?.({ preventScroll: true });

      if (answer === null) {
        say(gettext("We could not reach the server. What you typed is still here; please try again."), "error");
        return;
      }
      // Only 202 is a yes: a captive portal or a proxy's page answers 200.
      if (answer.response.status !== 202) return refused(answer.response, answer.problem);
      unanswered = { text: "", key: "" };
      accepted(JSON.stringify(valuesOf(form, submitter)) === text);
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

    void tokenFor(form);

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
