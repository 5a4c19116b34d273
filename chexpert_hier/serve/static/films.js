// The films that were chosen: asked about two at a time, kept in this page's memory, shown as a list.

import { ask } from "./server.js";
import { element } from "./findings.js";

export const MOST = 100; // films in the list; more at once are a job for `predict`
const AT_ONCE = 2;

/** A film's answer: `found` of the server, `shown` = { grey, width, height } to draw; or `error` in words. */
export class Film {
  /** `names` are taken already, and get this film's. */
  constructor(file, names) {
    this.file = file;
    const [, stem, ending] = /^(.*?)(\.[^.]*)?$/.exec(file.webkitRelativePath || file.name);
    this.name = stem + (ending ?? "");
    for (let count = 2; names.has(this.name); count++) this.name = `${stem} (${count})${ending ?? ""}`;
    names.add(this.name);
    this.view = /lateral/i.test(file.name) ? "lateral" : ""; // as `predict` takes it from a file's name
    this.state = "waiting"; // "reading", "read", "bad"
    this.ticked = false;
  }

  /** Send the film and take in the answer; never throws. */
  async read(model) {
    this.state = "reading";
    this.found = this.shown = this.error = null;
    try {
      if (this.file.size > model.most_bytes) {
        throw new Error(`too large: ${Math.ceil(this.file.size / 2 ** 20)} MB; this server takes films of up to ${Math.floor(model.most_bytes / 2 ** 20)} MB`);
      }
      if (!this.file.size) throw new Error("the file is empty");
      this.found = await ask(`/page/film?view=${this.view}`, this.file);
      this.shown = await pixels(this.found.picture.png);
      this.thumbnail = small(this.shown);
      this.found.picture.png = null; // the pixels are enough
      this.state = "read";
    } catch (error) {
      this.state = "bad";
      this.error = error.message;
    }
  }
}

/** Grey levels of a PNG in base64. */
async function pixels(png) {
  const bytes = Uint8Array.from(atob(png), (letter) => letter.charCodeAt(0));
  const picture = await createImageBitmap(new Blob([bytes], { type: "image/png" }), { colorSpaceConversion: "none" });
  const { width, height } = picture;
  const canvas = Object.assign(document.createElement("canvas"), { width, height });
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(picture, 0, 0);
  const { data } = context.getImageData(0, 0, width, height);
  const grey = new Uint8ClampedArray(width * height);
  for (let k = 0; k < grey.length; k++) grey[k] = data[4 * k];
  return { grey, width, height, picture };
}

/** A thumbnail's canvas; the bitmap is let go. */
function small(shown) {
  const canvas = Object.assign(document.createElement("canvas"), { width: 92, height: 92, ariaHidden: "true" });
  const scale = Math.max(92 / shown.width, 92 / shown.height);
  const [width, height] = [shown.width * scale, shown.height * scale];
  canvas.getContext("2d").drawImage(shown.picture, (92 - width) / 2, (92 - height) / 2, width, height);
  shown.picture.close();
  delete shown.picture;
  return canvas;
}

/** Read all that wait, some at a time; `after` is called whenever one's state changes. */
export async function readAll(films, model, after) {
  const workers = Array.from({ length: AT_ONCE }, async () => {
    for (let film; (film = films.find((one) => one.state === "waiting"));) {
      const reading = film.read(model);
      after(film);
      await reading;
      after(film);
    }
  });
  await Promise.all(workers);
}

/** The files of a drop, folders searched; of anything else dropped nothing. */
export async function filesOf(transfer) {
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  if (!entries.some((entry) => entry.isDirectory)) return [...transfer.files];
  const files = [];
  const visit = async (entry) => {
    if (files.length > MOST) return;
    if (entry.isFile) files.push(await new Promise((resolve, reject) => entry.file(resolve, reject)));
    else {
      const reader = entry.createReader();
      for (let part; (part = await new Promise((resolve, reject) => reader.readEntries(resolve, reject))).length;) {
        for (const inner of part) await visit(inner);
      }
    }
  };
  for (const entry of entries) await visit(entry);
  return files;
}

/** One film's line in the list. */
export function line(film, { current, several, words, choose, remove, tick }) {
  const bad = film.state === "bad";
  const head = film.thumbnail && !bad ? film.thumbnail
    : element("span", { class: bad ? "blank bad" : "blank", "aria-hidden": "true" }, bad ? "!" : "…");
  return element("li", {},
    several && film.state === "read" ? element("input", {
      type: "checkbox", checked: film.ticked, "aria-label": `${film.name} belongs to the study`, onchange: tick,
    }) : null,
    element("button", { type: "button", class: "film", "aria-current": String(current), title: film.name, onclick: choose },
      head, element("span", {}, element("b", {}, film.name), element("small", { class: bad ? "bad" : "" }, words))),
    element("button", { type: "button", class: "remove", "aria-label": `Remove ${film.name}`, title: "Remove", onclick: remove }, "×"));
}
