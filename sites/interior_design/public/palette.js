// The palette room: the choice stands in the address, from there in the room, and from there in the letter.
// Colours live in style.css alone; what the room looks like is read back from it.
(() => {
  "use strict";

  const CHOICES = {
    walls: ["chalk", "dove", "lichen", "plaster", "quince", "harbour", "bottle", "ink"],
    floor: ["ash", "oak", "walnut", "limestone", "slate", "terracotta"],
    sofa: ["linen", "moss", "harbour", "rosehip", "tobacco", "heather", "charcoal"],
    light: ["morning", "noon", "late", "lamps"],
  };
  const PARTS = Object.keys(CHOICES);
  const WORDS = {
    walls: (id) => `${id} walls`,
    floor: (id) => `${id} floor`,
    sofa: (id) => `${id} sofa`,
    light: (id) => ({ morning: "morning light", noon: "grey noon", late: "late sun", lamps: "lamplight" })[id],
  };
  const NAMED = {
    "chalk ash harbour morning": "North light",
    "lichen oak linen morning": "Lichen",
    "quince walnut moss late": "Quince",
    "ink oak tobacco lamps": "Ink and oak",
    "plaster limestone rosehip late": "Rosehip",
    "dove slate heather noon": "Slow dusk",
  };

  const query = new URLSearchParams(location.search);
  const capital = (text) => text[0].toUpperCase() + text.slice(1);

  function words(choice) {
    const all = capital(PARTS.map((part) => WORDS[part](choice[part])).join(", "));
    const name = NAMED[PARTS.map((part) => choice[part]).join(" ")];
    return name ? `${name}: ${all[0].toLowerCase()}${all.slice(1)}` : all;
  }

  // How much of the light a colour sends back, 0 to 100: its relative luminance (WCAG 2).
  function reflectance(hex) {
    const [r, g, b] = [1, 3, 5].map((at) => {
      const part = parseInt(hex.slice(at, at + 2), 16) / 255;
      return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
    });
    return 100 * (0.2126 * r + 0.7152 * g + 0.0722 * b);
  }

  function edge(one, other, points) {
    const apart = `${one} and ${other}: ${points} ${points === 1 ? "point" : "points"} apart.`;
    if (points >= 30) return `${apart} A clear edge, also in poor light.`;
    if (points >= 12) return `${apart} A soft edge, clear enough by day.`;
    return `${apart} They melt together; let a texture or a third tone part them.`;
  }

  function bright(walls, light) {
    if (light === "lamps" && walls < 25) return "Dark walls under lamps: four small lamps do more than one large.";
    if (light === "lamps") return "Under lamps the walls turn warm and the blues go grey.";
    if (walls < 25) return "The walls swallow three quarters of the light. Good for evenings; plan twice the lamps.";
    if (walls > 70) return "The walls send most of the light on, deep into the room.";
    return "The walls keep some of the light to themselves, which makes a room calm.";
  }

  function tool(form) {
    const room = form.querySelector(".room");
    const hints = form.querySelector("[data-hints]");
    const said = form.querySelector("[data-said]");
    const chosen = () => Object.fromEntries(new FormData(form));

    function show() {
      const style = getComputedStyle(room);
      const tone = {};
      for (const [part, colour] of [["walls", "--wall"], ["floor", "--floor"], ["sofa", "--sofa"]]) {
        tone[part] = Math.round(reflectance(style.getPropertyValue(colour).trim()));
        const mark = form.querySelector(`[data-tone="${part}"]`);
        mark.style.setProperty("--v", tone[part]);
        mark.classList.toggle("end", tone[part] > 60);
        mark.firstElementChild.textContent = `${capital(part)} ${tone[part]}`;
      }
      // The label furthest left stands highest, so that it passes above the lines of the others.
      Object.keys(tone)
        .sort((one, other) => tone[other] - tone[one])
        .forEach((part, k) => form.querySelector(`[data-tone="${part}"]`).style.setProperty("--k", k));
      const lines = [
        edge("Walls", "floor", Math.abs(tone.walls - tone.floor)),
        edge("Sofa", "walls", Math.abs(tone.sofa - tone.walls)),
        edge("Sofa", "floor", Math.abs(tone.sofa - tone.floor)),
        bright(tone.walls, chosen().light),
      ];
      hints.replaceChildren(...lines.map((line) => Object.assign(document.createElement("p"), { textContent: line })));
    }

    for (const part of PARTS) {
      const asked = query.get(part);
      for (const radio of form.elements[part]) if (radio.value === asked) radio.checked = true;
    }
    form.addEventListener("change", () => {
      history.replaceState(null, "", `?${new URLSearchParams(chosen())}`);
      said.textContent = "";
      show();
    });
    form.querySelector("[data-copy]").addEventListener("click", async () => {
      const address = new URL(`?${new URLSearchParams(chosen())}`, location.href).href;
      try {
        await navigator.clipboard.writeText(address);
        said.textContent = "Copied. It opens this very room.";
      } catch {
        history.replaceState(null, "", address);
        said.textContent = "Copy it from the address bar: it holds this very room.";
      }
    });
    // After the first picture: asking for styles before it would make everything wait for them.
    requestAnimationFrame(() => setTimeout(show));
  }

  function letter(form) {
    const choice = Object.fromEntries(PARTS.map((part) => [part, query.get(part)]));
    // Whatever the address says, only our own words go into the letter.
    if (!PARTS.every((part) => CHOICES[part].includes(choice[part]))) return;
    document.querySelector(".yours .room").classList.add(...PARTS.map((part) => `${part}-${choice[part]}`));
    const text = words(choice);
    form.querySelector("input[name=palette]").value = text;
    document.querySelector("[data-yours]").textContent = `${text}.`;
    const change = document.querySelector("[data-change]");
    change.textContent = "Change it";
    change.search = `?${new URLSearchParams(choice)}`;
  }

  const room = document.querySelector("form.tool");
  if (room) tool(room);
  const form = document.querySelector("form.letter");
  if (form) letter(form);
})();
