// The page: what is chosen, and who shows it.

import { ask } from "./server.js";
import { Film, MOST, filesOf, line, readAll } from "./films.js";
import { element, legend, number, tree } from "./findings.js";
import { drawn, top } from "./maps.js";
import { Viewer } from "./viewer.js";

const part = (id) => document.getElementById(id);
const fill = (id, ...children) => part(id).replaceChildren(...children);
const page = { model: null, films: [], film: null, study: null, label: null, mapShown: true };
const viewer = new Viewer(part("canvas"), windowed);

// ------------------------------------------------------------------------------------------ start

async function start() {
  theme(matchMedia("(prefers-color-scheme: dark)").matches);
  listen();
  try {
    page.model = await ask("/page/model");
  } catch (error) {
    fill("model", `${error.message}`);
    return;
  }
  const { model } = page;
  const several = model.models > 1 ? `ensemble of ${model.models} networks` : "one network";
  fill("model", `${model.arch}, recipe ${model.recipe}, ${several}; trained on ${model.data}`);
  part("synthetic").hidden = !model.synthetic;
  fill("about", `The findings' order and parents, thresholds and intervals are the model's own. ${model.maps ? "" : "This kind of model holds no maps; start the server with the run folder for them. "}`
    + `A study's score is ${model.study_words}.`);
  show();
}

function listen() {
  part("file").addEventListener("change", (event) => {
    add([...event.target.files]);
    event.target.value = ""; // so that the same film can be chosen again
  });
  for (const kind of ["dragenter", "dragover"]) {
    document.addEventListener(kind, (event) => {
      event.preventDefault();
      document.body.classList.add("dropping");
    });
  }
  document.addEventListener("dragleave", (event) => event.relatedTarget ?? document.body.classList.remove("dropping"));
  document.addEventListener("drop", async (event) => {
    event.preventDefault();
    document.body.classList.remove("dropping");
    add(await filesOf(event.dataTransfer));
  });
  part("study").addEventListener("click", readStudy);
  part("view").addEventListener("change", (event) => readAgain(event.target.value));
  part("csv").addEventListener("click", downloadTable);
  part("save").addEventListener("click", downloadPicture);
  part("theme").addEventListener("click", () => theme(document.documentElement.dataset.theme !== "dark"));
  listenToTools();
}

function listenToTools() {
  const actions = {
    in: () => viewer.zoom(1.25), out: () => viewer.zoom(0.8), whole: () => viewer.change({ zoom: 1 / viewer.fit }),
    reset: () => viewer.reset(), invert: () => viewer.change({ invert: !viewer.state.invert }), full: fullScreen,
  };
  for (const button of document.querySelectorAll("[data-do]")) {
    button.addEventListener("click", () => (viewer.film || button.dataset.do === "full") && actions[button.dataset.do]());
  }
  for (const button of document.querySelectorAll("[data-tool]")) button.addEventListener("click", () => tool(button.dataset.tool));
  tool(viewer.tool);
  part("level").addEventListener("input", (event) => viewer.change({ level: 255 - event.target.value }));
  part("width").addEventListener("input", (event) => viewer.change({ width: 514 - event.target.value }));
  part("opacity").addEventListener("input", (event) => {
    viewer.opacity = event.target.value / 100;
    viewer.draw();
  });
  part("viewer").addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.type === "range") return;
    if (event.key === "f") fullScreen();
    if (event.key === "Escape" && part("viewer").classList.contains("full")) fullScreen();
    if (event.key === "i" && viewer.film) actions.invert();
    if (event.key === "m") {
      page.mapShown = !page.mapShown;
      showMap();
    }
  });
  document.addEventListener("fullscreenchange", () => pressed("[data-do=full]", Boolean(document.fullscreenElement)));
}

const pressed = (selector, on) => document.querySelector(selector).setAttribute("aria-pressed", String(on));

function tool(name) {
  viewer.tool = part("canvas").dataset.tool = name;
  for (const one of ["window", "move"]) pressed(`[data-tool=${one}]`, one === name);
  viewer.change({});
}

function theme(dark) {
  document.documentElement.dataset.theme = dark ? "dark" : "light";
}

function fullScreen() {
  const whole = part("viewer");
  if (document.fullscreenElement) document.exitFullscreen();
  else if (whole.requestFullscreen) whole.requestFullscreen();
  else pressed("[data-do=full]", whole.classList.toggle("full")); // a telephone's browser may have none
}

// ------------------------------------------------------------------------------------------ films

async function add(files) {
  if (!page.model || !files.length) return;
  const room = MOST - page.films.length;
  if (files.length > room) say(`Only the first ${room} of ${files.length} films: this page holds ${MOST}; use the command predict for more.`);
  const names = new Set(page.films.map((film) => film.name));
  const films = files.slice(0, Math.max(room, 0)).map((file) => new Film(file, names));
  page.films.push(...films);
  if (films.length) choose(films[0]);
  await readAll(page.films, page.model, changed);
}

function changed(film) {
  showList();
  if (film !== page.film || page.study) return;
  page.film = null;
  choose(film);
  if (film.state === "read") say(`${film.name} was read. ${summary(film.found.values)}`);
}

function choose(film) {
  page.study = null;
  const other = film !== page.film;
  page.film = film;
  if (other || film?.state !== "read") viewer.show(film?.shown ?? null);
  show();
}

function readAgain(view) {
  page.film.view = view;
  page.film.state = "waiting";
  readAll(page.films, page.model, changed);
}

function remove(film) {
  const place = page.films.indexOf(film);
  page.films.splice(place, 1);
  if (page.study?.films.includes(film)) page.study = null;
  if (film === page.film) page.film = null;
  choose(page.film ?? page.films[Math.min(place, page.films.length - 1)] ?? null);
  (document.querySelector("#list .film[aria-current=true]") ?? part("file")).focus();
}

async function readStudy() {
  const films = page.films.filter((film) => film.ticked && film.state === "read");
  try {
    const rows = films.map((film) => film.found.values.probabilities);
    const { values } = await ask("/page/study", JSON.stringify({ probabilities: rows }));
    if (films.some((film) => film.found.values.present?.every((call) => call === null))) {
      values.present &&= values.present.map(() => null); // what a film was not called, its study is not either
    }
    page.study = { films, values };
    if (!films.includes(page.film)) {
      page.film = films[0];
      viewer.show(page.film.shown);
    }
    show();
    say(`Study of ${films.length} films. ${summary(values)}`);
  } catch (error) {
    say(error.message);
  }
}

// ------------------------------------------------------------------------------------------ what is seen

function say(text) {
  fill("status", text);
}

function summary(values) {
  if (!values.present) return "";
  if (page.model.synthetic && values.present.every((call) => call === null)) {
    return "No calls: the model was trained on synthetic films, and this one does not say that it is one.";
  }
  const called = page.model.labels.filter((_, k) => values.present[k]);
  return called.length ? `Called present: ${called.join(", ")}.` : "Nothing is called present.";
}

function show() {
  showList();
  showFilm();
  showFindings();
  showMap();
}

function showList() {
  const several = page.films.filter((film) => film.state === "read").length > 1;
  const ticked = page.films.filter((film) => film.ticked && film.state === "read");
  fill("list", ...page.films.map((film) => line(film, {
    several, current: film === page.film, words: stateOf(film), choose: () => choose(film), remove: () => remove(film),
    tick: (event) => {
      film.ticked = event.target.checked;
      if (page.study) choose(page.film);
      else showList();
    },
  })));
  part("study-line").hidden = ticked.length < 2;
}

function stateOf(film) {
  if (film.state !== "read") return { waiting: "waiting", reading: "being read …", bad: film.error }[film.state];
  if (film.found.flag) return "read; see the warning";
  const calls = film.found.values.present?.filter((call) => call !== null) ?? [];
  return calls.length ? `${calls.filter((call) => call).length} called present` : "read";
}

function showFilm() {
  const { film } = page;
  const message = part("message");
  message.classList.toggle("bad", film?.state === "bad");
  if (!film) fill("message", element("strong", {}, "Drop films here"), "JPEG, PNG, TIFF, WebP or DICOM, several at once; two films of one patient can be read as a study");
  else if (film.state === "bad") fill("message", element("strong", {}, `${film.name} cannot be used`), film.error);
  else if (film.state !== "read") fill("message", element("span", { class: "turning" }), `${film.name} is being read`);
  else fill("message");
  let label = film ? film.name : "No film chosen";
  if (film?.state === "read") {
    const { width, height, scale } = film.found.picture;
    label = `${film.name}, ${width} × ${height} pixels${scale < 1 ? `, shown at ${Math.round(100 * scale)} %` : ""}`;
  }
  fill("caption", film?.state === "read" ? label : "");
  part("canvas").setAttribute("aria-label", label);
}

function showFindings() {
  const { film, study, model } = page;
  const read = film?.state === "read";
  const values = study ? study.values : film?.found?.values;
  fill("findings-title", study ? `Study of ${study.films.length} films` : film ? film.name : "Findings");
  part("view-line").hidden = !film || Boolean(study) || film.state === "reading" || film.state === "waiting";
  part("view").value = film?.view ?? "";
  fill("flags", ...flags());
  fill("lead", lead(read));
  part("downloads").hidden = part("legend").hidden = !read;
  const focused = document.activeElement?.dataset?.label;
  if (!read) return void fill("tree");
  fill("tree", tree(model, values, { chosen: page.label, choose: chooseLabel, look: () => part("stage").scrollIntoView({ block: "center" }), films: study && study.films.map(({ name, found }) => ({ name, values: found.values })) }));
  fill("legend", ...legend(model, values));
  if (focused) document.querySelector(`[data-label="${focused}"]`)?.focus();
}

function lead(read) {
  const { film, study, model } = page;
  if (study) {
    return `Each finding is ${model.study_words} (the study rule of the recipe): ${study.films.map((one) => one.name).join(", ")}. The operating points were chosen on single films; take the calls with care.`;
  }
  if (read) return `${summary(film.found.values)} Press a finding for ${model.maps ? "its map and " : ""}what is behind its number.`;
  if (film?.state === "bad") return "No findings: the film could not be used.";
  return film ? "" : "No film yet. Choose or drop one; its findings stand here as a tree, each child below its parent.";
}

function flags() {
  const { film, study } = page;
  const found = [];
  for (const one of study ? study.films : film ? [film] : []) {
    const name = study ? `${one.name}: ` : "";
    if (one.state === "bad") found.push(element("p", { class: "bad" }, element("strong", {}, "This film cannot be used: "), one.error));
    if (one.found?.flag) found.push(element("p", {}, element("strong", {}, `${name}Is this film what it should be? `), inWords(one.found.flag)));
  }
  return found;
}

/** A flag as a sentence, with what follows from it. */
function inWords(flag) {
  const knows = page.model.lateral ? "upright chest films" : "upright frontal chest films";
  return `${flag[0].toUpperCase()}${flag.slice(1)}${/[.?]$/.test(flag) ? "" : "."} The model knows ${knows} only: its numbers may mean nothing here.`;
}

function chooseLabel(label) {
  page.label = label;
  page.mapShown = true;
  showFindings();
  showMap();
}

function showMap() {
  const { film, label, model } = page;
  const maps = film?.state === "read" ? film.found.maps : null;
  viewer.map = null;
  if (maps && label && page.mapShown) {
    const heat = maps.heat[model.labels.indexOf(label)];
    const { place: [row, column], crop, rescaled } = maps;
    viewer.map = { canvas: drawn(heat, maps), frame: [column / rescaled, row / rescaled, crop / rescaled] };
    const words = top(heat) > 0 ? `map of ${label}, scaled to its own largest value` : `map of ${label}: nothing speaks for it`;
    showFilm();
    part("caption").append(`; ${words}; dashed: what the model saw`);
    part("canvas").setAttribute("aria-label", part("caption").textContent);
  } else showFilm();
  viewer.draw();
}

function windowed(state) {
  part("level").value = 255 - state.level;
  part("width").value = 514 - state.width;
  pressed("[data-do=invert]", state.invert);
}

// ------------------------------------------------------------------------------------------ downloads

/** A field as Python's csv module writes it. */
const field = (value) => (/[",\r\n]/.test(value) ? `"${value.replaceAll('"', '""')}"` : value);

/** All films that were read, as `predict --out` writes them. */
function table() {
  const films = page.films.filter((film) => film.state === "read");
  const names = Object.keys(films[0].found.row);
  const rows = films.map((film) => [film.name, ...names.map((name) => film.found.row[name])]);
  return [["Path", ...names], ...rows].map((row) => `${row.map(field).join(",")}\n`).join("");
}

function download(blob, name) {
  const address = URL.createObjectURL(blob);
  element("a", { href: address, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(address), 10_000);
}

function downloadTable() {
  download(new Blob([table()], { type: "text/csv" }), "predictions.csv");
}

async function downloadPicture() {
  const { film, label, model } = page;
  const value = label && film.found.values.probabilities[model.labels.indexOf(label)];
  const lines = [label ? `${label}: ${number(value)}${viewer.map ? " (map scaled to its own largest value)" : ""}` : summary(film.found.values),
    `Research use only; not a medical device.${model.synthetic ? " Trained on synthetic films." : ""}`];
  download(await viewer.picture(lines.filter(Boolean)), `${film.name.replace(/\.\w{1,5}$/, "")}${label ? ` ${label}` : ""}.png`);
}

start();
