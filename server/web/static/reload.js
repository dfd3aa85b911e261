// `serve --reload` only: loads the page again when the sites have changed, and shows why an edit is not served.
// It is put into each page with the version that the page is of.
(() => {
  "use strict";

  const version = document.currentScript.dataset.version;
  const TRIED = "doorbell-reload";
  // Plain properties, set one by one: a strict policy (default-src 'self') forbids style attributes and elements.
  // "important", and from "all: initial" on, so that the site's own styles change nothing.
  const BOX = {
    all: "initial", position: "fixed", inset: "auto 0 0 0", "z-index": "2147483647", "box-sizing": "border-box",
    "max-height": "50vh", overflow: "auto", padding: "16px 20px", background: "#7d1a12", color: "#ffffff",
    "border-top": "3px solid #ffb4a8", font: "16px/1.5 system-ui, sans-serif", "overflow-wrap": "anywhere",
    "color-scheme": "dark", outline: "0 solid #ffffff", "outline-offset": "-6px",
  };
  const TITLE = { all: "initial", display: "block", color: "#ffffff", font: "bold 16px/1.5 system-ui, sans-serif" };
  const LINE = {
    all: "initial", display: "block", "margin-top": "8px", color: "#ffffff", "overflow-wrap": "anywhere",
    font: "14px/1.5 ui-monospace, monospace",
  };

  let stream = null;
  let banner = null;

  function element(parent, style, text) {
    const made = parent.appendChild(document.createElement("div"));
    for (const [name, value] of Object.entries(style)) made.style.setProperty(name, value, "important");
    made.textContent = text;
    return made;
  }

  function show(problems) {
    if (banner) banner.remove();
    banner = null;
    if (problems.length === 0) return;
    banner = element(document.body, BOX, "");
    banner.setAttribute("role", "alert");
    banner.lang = "en";
    banner.dir = "ltr";
    banner.tabIndex = 0; // to scroll it by keyboard
    const { style } = banner;
    banner.onfocus = () => style.setProperty("outline-width", "3px", "important");
    banner.onblur = () => style.setProperty("outline-width", "0", "important");
    element(banner, TITLE, "This edit is not shown: something in it is wrong. The page is as it was before.");
    for (const problem of problems) element(banner, LINE, problem);
  }

  // Once for each version: a page that comes from somewhere else (a service worker) would reload for ever.
  function reload(wanted) {
    try {
      if (sessionStorage.getItem(TRIED) === wanted) return;
      sessionStorage.setItem(TRIED, wanted);
    } catch {
      return; // storage is forbidden here
    }
    location.reload();
  }

  function forget() {
    try {
      sessionStorage.removeItem(TRIED);
    } catch {
      // nothing was kept
    }
  }

  function listen() {
    if (stream) stream.close();
    stream = null;
    // A browser has six connections to a server for all tabs: one that nobody sees keeps none.
    if (document.visibilityState === "hidden") return;
    stream = new EventSource("/_doorbell/reload");
    stream.onmessage = (event) => {
      const state = JSON.parse(event.data);
      if (state.version !== version) return reload(state.version);
      forget();
      show(state.problems);
    };
  }

  document.addEventListener("visibilitychange", listen);
  listen();
})();
