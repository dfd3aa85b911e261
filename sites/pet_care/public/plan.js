// plan/: shows the week as the answers change, and keeps them in the address, so that it can be sent to somebody.
import { CHOICES, answersIn, complete, week } from "./week.js";

const form = document.querySelector("#ask");
const find = (id) => document.getElementById(id);

function restore() {
  const given = answersIn(new URLSearchParams(location.search));
  for (const name of Object.keys(CHOICES)) {
    if (given[name] !== null) form.elements[name].value = given[name];
  }
  if (given.pet_name) form.elements.pet_name.value = given.pet_name;
}

function dayItem({ day, icon, text }) {
  const item = document.createElement("li");
  item.className = `day ${icon}`;
  const title = document.createElement("h3");
  title.textContent = day;
  const picture = document.querySelector(".day .icon").cloneNode(true);
  picture.querySelector("use").setAttribute("href", `#i-${icon}`);
  const what = document.createElement("p");
  what.textContent = text;
  item.append(title, picture, what);
  return item;
}

function extraItem(text) {
  const item = document.createElement("li");
  item.textContent = text;
  return item;
}

function show(plan) {
  find("result-title").textContent = plan.title;
  find("result-why").textContent = plan.why;
  find("days").replaceChildren(...plan.days.map(dayItem));
  find("price").textContent = plan.price ? `£${plan.price}` : "nothing";
  find("extras").replaceChildren(...plan.extras.map(extraItem));
}

// One sentence, and only after a pause: a screen reader would read a whole week at every step otherwise.
let pause = 0;
function say(plan) {
  clearTimeout(pause);
  pause = setTimeout(() => {
    const busy = plan.days.filter(({ icon }) => icon !== "sofa");
    const days = busy.map(({ day, text }) => `${day}, ${text}`).join("; ");
    find("said").textContent = `${plan.title}: ${days || "nothing fixed"}. About £${plan.price} a week.`;
  }, 700);
}

function update() {
  const data = new FormData(form);
  const answers = answersIn(data);
  if (!complete(answers)) return;
  const plan = week(answers);
  show(plan);
  say(plan);
  if (!answers.pet_name) data.delete("pet_name");
  history.replaceState(null, "", `?${new URLSearchParams(data)}`);
}

restore();
if (location.search) show(week(answersIn(new FormData(form))));
form.addEventListener("input", update);
// Back from join/ the browser restores the answers after this script ran.
addEventListener("pageshow", (event) => {
  if (event.persisted) return;
  const answers = answersIn(new FormData(form));
  if (complete(answers)) show(week(answers));
});
