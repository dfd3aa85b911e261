// join/: fills in what the care plan helper passed on in the address. The plan is worked out anew from the answers,
// so that a link can carry choices but nobody's words, apart from the pet's name.
import { answersIn, complete, week, written } from "./week.js";

const form = document.querySelector("form[data-doorbell]");
const answers = answersIn(new URLSearchParams(location.search));

function fill(name, value) {
  const field = form.elements[name];
  if (value && !field.value) field.value = value;
}

fill("pet_name", answers.pet_name);
fill("pet_kind", answers.pet_kind);
if (complete(answers)) {
  const plan = week(answers);
  fill("needs", plan.needs);
  fill("plan", written(plan));
  form.elements.plan.rows = form.elements.plan.value.split("\n").length + 1;
  const back = document.createElement("a");
  back.href = `../plan/${location.search}`;
  back.textContent = "Change the answers";
  document.querySelector("#plan-hint").replaceChildren("Your week is in here; change what you like. ", back, ".");
}
