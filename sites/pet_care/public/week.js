// The care plan: answers about an animal in, a suggested week out. Knows nothing of pages.
//
// answers: {pet_kind, age, energy, alone, coat, pet_name}, the fields of the form on plan/ (a URL's query has them too).
// The table is the one that is printed on that page; the prices are those of services/.

const DAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];

export const CHOICES = {
  pet_kind: ["Dog", "Cat", "Rabbit", "Guinea pig or hamster", "Bird", "Somebody else"],
  age: ["young", "grown", "old"],
  energy: ["low", "mid", "high"],
  alone: ["hardly", "half", "whole"],
  coat: ["short", "middling", "long"],
};

const WORDS = {
  age: { young: "Young", grown: "Grown", old: "Getting on" },
  energy: { low: "a stroller", mid: "a trotter", high: "a rocket" },
  alone: { hardly: "hardly ever alone", half: "alone half the day", whole: "alone all day" },
};

const SERVICES = {
  full: { icon: "care", text: "A full day with us", price: 28 },
  half: { icon: "care", text: "Half a day with us", price: 18 },
  quiet: { icon: "care", text: "A day in the quiet room", price: 16 },
  puppy: { icon: "care", text: "Puppy hour", price: 10 },
  short: { icon: "walk", text: "Walk with friends, half an hour", price: 11 },
  long: { icon: "walk", text: "Walk with friends, an hour", price: 16 },
  alone: { icon: "walk", text: "Walk alone, half an hour", price: 15 },
  visit: { icon: "visit", text: "Visit at home, half an hour", price: 12 },
  sofa: { icon: "sofa", text: "Sofa day", price: 0 },
};

const FIVE_DAYS = 125;

// Monday to Friday: F full day, H half day, W walk, V visit at home, Q quiet room, - nothing.
const DOG = {
  low: { hardly: "--W--", half: "-HWH-", whole: "FWFWF" },
  mid: { hardly: "-WFW-", half: "HWHWH", whole: "FFWFF" },
  high: { hardly: "WFWFW", half: "FWFWF", whole: "FFFFF" },
};
const CAGE = { hardly: "--V--", half: "-V-V-", whole: "V-V-V" };
const SHY = { hardly: "--V--", half: "-V-V-", whole: "VQV-V" };
const OTHER = { hardly: "-----", half: "--V--", whole: "-V-V-" };
const WEEKS = { Cat: SHY, Bird: SHY, Rabbit: CAGE, "Guinea pig or hamster": CAGE, "Somebody else": OTHER };

const NEEDS = { care: "Day care", walk: "Walks", visit: "Visits at home" };

/** The answers in a form's data or a URL's query; what is missing or unknown is null. */
export function answersIn(source) {
  const answers = Object.fromEntries(
    Object.entries(CHOICES).map(([name, known]) => [name, known.find((value) => value === source.get(name)) ?? null]),
  );
  return { ...answers, pet_name: (source.get("pet_name") ?? "").trim().slice(0, 60) };
}

export const complete = (answers) => Object.keys(CHOICES).every((name) => answers[name] !== null);

/** {title, why, days: [{day, icon, text}], price, extras, needs}; price in pounds a week. */
export function week(answers) {
  const codes = [...row(answers), "-"];
  const services = codes.map((code) => SERVICES[serviceOf(code, answers)]);
  if (answers.pet_kind === "Dog" && answers.age === "young") services[5] = SERVICES.puppy;
  return {
    title: `A week for ${answers.pet_name || `your ${noun(answers.pet_kind)}`}`,
    why: `${WORDS.age[answers.age]}, ${WORDS.energy[answers.energy]}, ${WORDS.alone[answers.alone]}.`,
    days: services.map(({ icon, text }, i) => ({ day: DAYS[i], icon, text })),
    price: price(services),
    extras: extras(answers),
    needs: needs(services),
  };
}

/** The same as plain text, for the form and the mail. */
export function written(plan) {
  return [
    `${plan.title}. ${plan.why}`,
    ...plan.days.map(({ day, text }) => `${day}: ${text}`),
    `Each week about £${plan.price}`,
    ...plan.extras,
  ].join("\n");
}

const row = ({ pet_kind, energy, alone }) => (pet_kind === "Dog" ? DOG[energy] : WEEKS[pet_kind])[alone];

function serviceOf(code, { age, energy }) {
  if (code === "F") return age === "young" ? "half" : "full"; // a whole day is long for a puppy
  if (code === "W") {
    if (age === "old") return "alone";
    return age === "young" || energy === "low" ? "short" : "long";
  }
  return { H: "half", V: "visit", Q: "quiet", "-": "sofa" }[code];
}

function price(services) {
  const full = services.filter((service) => service === SERVICES.full).length;
  const sum = services.reduce((total, service) => total + service.price, 0);
  return full === 5 ? sum - 5 * SERVICES.full.price + FIVE_DAYS : sum;
}

function noun(kind) {
  return { "Guinea pig or hamster": "small friend", "Somebody else": "somebody" }[kind] ?? kind.toLowerCase();
}

function needs(services) {
  const used = [...new Set(services.map(({ icon }) => NEEDS[icon]).filter(Boolean))];
  if (used.length > 1) return "A bit of everything";
  return used[0] ?? "A check-up";
}

function extras({ pet_kind, age, coat }) {
  const small = !["Dog", "Cat"].includes(pet_kind);
  const often = { young: "every three months", grown: "once a year", old: "twice a year" }[age];
  const check = small ? "£24" : age === "old" ? "£58" : "£32";
  const list = [grooming(pet_kind, coat), `Check-up with the vet ${often}, ${check}`];
  return pet_kind === "Somebody else" ? ["A chat first: nobody is the same", ...list] : list;
}

function grooming(kind, coat) {
  const weeks = { short: "twelve", middling: "eight", long: "six" }[coat];
  if (kind === "Dog") {
    return coat === "long" ? `Wash, brush and trim every ${weeks} weeks, from £42` : `Wash and brush every ${weeks} weeks, from £26`;
  }
  if (kind === "Cat") return coat === "short" ? "Claws when they click on the floor, £9" : `Brush-out every ${weeks} weeks, £28`;
  if (kind === "Rabbit" || kind.startsWith("Guinea")) return `Coat and claws every ${weeks} weeks, £14`;
  return "Claws when they need it, £9";
}
