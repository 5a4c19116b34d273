// The tree of findings: probabilities, operating points, calls, what the chain rule changed, uncertainty.

/** An element with attributes and children; text is never read as HTML. */
export function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (value !== undefined && value !== false) made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined && child !== ""));
  return made;
}

const known = (value) => value !== null && value !== undefined;
const places = (value) => (value < 0.0995 && value > 0 ? 3 : 2);
export const number = (value) => (known(value) ? value.toFixed(places(value)) : "unknown");
const between = (low, high) => (known(low) ? ` (${low.toFixed(2)}–${high.toFixed(2)})` : "");
const rate = (point, name) => `${known(point[name]) ? point[name].toFixed(2) : "unknown"}${between(point[`${name}_low`], point[`${name}_high`])}`;

/** A finding's numbers out of the answer's columns. */
function of(values, place) {
  const found = Object.fromEntries(Object.entries(values).map(([name, column]) => [name, column[place]]));
  return { ...found, probability: found.probabilities };
}

/** Whether the product down the tree changed a finding's number by anything to be seen. */
const changed = (found) => known(found.conditional) && Math.abs(found.conditional - found.probability) > 0.0005;

/** The tree as nested lists of buttons. `choose` is told the label that was pressed; `chosen` is pressed already; `look` shows the film. */
export function tree(model, values, { chosen, choose, look, films = null }) {
  const root = element("ul", { "aria-label": "Findings, each below its parent" });
  const lists = [root];
  for (const { label, depth, parents } of model.tree) {
    const found = of(values, model.labels.indexOf(label));
    const item = element("li", {}, row(model, label, found, chosen === label, choose));
    if (chosen === label) item.append(detail(model, label, parents, found, values, films, look));
    while (lists.length > depth + 1) lists.pop();
    if (lists.length === depth) { // the first child opens a list inside its parent's item
      const inner = element("ul");
      lists[depth - 1].lastElementChild.append(inner);
      lists.push(inner);
    }
    lists[depth].append(item);
  }
  root.addEventListener("keydown", walk);
  return root;
}

/** Up and down arrows go from finding to finding. */
function walk(event) {
  const by = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  const all = [...event.currentTarget.querySelectorAll(".finding")];
  const at = all.indexOf(document.activeElement);
  if (!by || at < 0) return;
  event.preventDefault();
  all[Math.min(Math.max(at + by, 0), all.length - 1)].focus();
}

function row(model, label, found, pressed, choose) {
  const point = model.points[label] ?? {};
  const call = known(found.present) ? (found.present ? "present" : "absent") : "no call";
  const before = changed(found) ? `${number(found.conditional)} → ` : "";
  const spread = known(found.spread) ? ` ±${found.spread.toFixed(2)}` : "";
  const words = `${label}: probability ${number(found.probability)}, ${call}`
    + (before ? `; before the chain rule ${number(found.conditional)}` : "")
    + (spread ? `; standard deviation between models ${found.spread.toFixed(2)}` : "");
  return element("button", {
    type: "button", class: `finding${found.present ? " present" : ""}`, "aria-pressed": String(pressed),
    "aria-label": words, "data-label": label, onclick: () => choose(pressed ? null : label),
  },
  element("span", { class: "name" }, label), bar(found, point.threshold),
  element("span", { class: "number" }, element("small", {}, before), element("b", {}, number(found.probability)),
    element("small", {}, spread)),
  element("span", { class: "call" }, call),
  known(point.threshold) ? element("span", { class: "point" },
    `from ${number(point.threshold)} on: sensitivity ${rate(point, "sensitivity")}, specificity ${rate(point, "specificity")}`) : null);
}

/** Probability, operating point, the value before the chain rule, the spread between models, on one scale from 0 to 1. */
function bar(found, threshold) {
  const share = (value) => `${100 * Math.min(Math.max(value, 0), 1)}%`;
  const part = (name, style) => Object.assign(element("i", { class: name }), { part: name, placed: style });
  const parts = [];
  if (changed(found)) parts.push(part("before", { left: "0", width: share(found.conditional) }));
  parts.push(part("fill", { left: "0", width: share(found.probability) }));
  if (known(found.spread)) {
    const low = Math.max(found.probability - found.spread, 0);
    parts.push(part("spread", { left: share(low), width: share(found.probability + found.spread - low) }));
  }
  if (known(threshold)) parts.push(part("limit", { left: share(threshold) }));
  for (const one of parts) Object.assign(one.style, one.placed);
  return element("span", { class: "bar", "aria-hidden": "true" }, ...parts);
}

function detail(model, label, parents, found, values, films, look) {
  const lines = [];
  const calibrated = known(found.calibrated) ? `; calibrated on the validation films ${number(found.calibrated)}` : "";
  lines.push(`Probability ${found.probability.toFixed(4)}${calibrated}.`);
  if (changed(found)) lines.push(chain(model, parents, found, values));
  else if (known(found.conditional)) lines.push("The chain rule changes nothing here: the finding has no parent.");
  lines.push(operatingPoint(model, model.points[label]));
  if (known(found.entropy)) {
    lines.push(`${model.models} models: standard deviation ${found.spread.toFixed(3)}, entropy ${found.entropy.toFixed(3)}, `
      + `of which disagreement (mutual information) ${found.mutual_information.toFixed(3)} nats.`);
  } else if (known(found.spread)) {
    lines.push(`${model.models} models: standard deviation ${found.spread.toFixed(3)}.`);
  }
  if (films) lines.push(`Film by film: ${films.map(({ name, values: own }) => `${name} ${number(own.probabilities[model.labels.indexOf(label)])}`).join("; ")}.`);
  return element("div", { class: "detail" }, ...lines.map((line) => element("p", {}, line)),
    model.maps ? element("button", { type: "button", class: "look", onclick: look }, "See the map on the film") : null);
}

function chain(model, parents, found, values) {
  const above = parents.map((parent) => `${parent} (${number(values.probabilities[model.labels.indexOf(parent)])})`).join(" and ");
  return `Before the chain rule ${number(found.conditional)}: that is given ${above}. `
    + `Multiplied down the tree it becomes ${number(found.probability)}, so that no finding is likelier than its parent.`;
}

function operatingPoint(model, point) {
  if (!point || !known(point.threshold)) return "No operating point: the validation films did not allow one.";
  const { films, patients, rule } = model.validation;
  const count = (value) => value.toLocaleString("en");
  return `Called present from ${point.threshold.toFixed(3)} on (${rule}). On ${count(films)} validation films of ${count(patients)} patients that `
    + `had sensitivity ${rate(point, "sensitivity")} and specificity ${rate(point, "specificity")}, with 95 % intervals; `
    + `AUROC ${rate(point, "auroc")}, ${count(point.positives)} positives${point.few_positives ? " (few: little is known)" : ""}.`;
}

/** What the marks of the bars mean, for the marks that this model has. */
export function legend(model, values) {
  const line = (found, threshold, text) => element("span", {}, bar(found, threshold), text);
  const lines = [line({ probability: 0.6 }, undefined, "probability")];
  if (model.validation) lines.push(line({ probability: 0.3 }, 0.5, "operating point: from here on the finding is called present"));
  if (model.chain && values.conditional) lines.push(line({ probability: 0.35, conditional: 0.8 }, undefined, "dashed: before the chain rule, given the parents"));
  if (values.spread) lines.push(line({ probability: 0.6, spread: 0.2 }, undefined, "± one standard deviation between the models"));
  return lines;
}
