// The film on its canvas: window, zoom, inversion, a map over it; by mouse, fingers and keys.

const WHOLE = { zoom: 1, x: 0, y: 0, level: 127.5, width: 255, invert: false };

export class Viewer {
  /** `canvas` to draw on; `changed` is told when window, zoom or inversion are others. */
  constructor(canvas, changed) {
    this.canvas = canvas;
    this.changed = changed;
    this.film = null; // { grey: Uint8ClampedArray, width, height } as shown
    this.map = null; // { canvas, frame: [x, y, side] as shares of the film }
    this.opacity = 0.6; // as overlays.STRENGTH
    this.tool = matchMedia("(pointer: coarse)").matches ? "move" : "window";
    this.state = { ...WHOLE };
    this.fingers = new Map();
    new ResizeObserver(() => this.draw()).observe(canvas);
    this.listen();
  }

  /** Show a film, whole and unwindowed, or none. */
  show(film) {
    this.film = film;
    this.map = null;
    this.reset();
  }

  reset() {
    this.change(WHOLE);
  }

  /** Take over what is given of zoom, x, y (the film's centre from the middle, in CSS pixels), level, width, invert. */
  change(parts) {
    const windowed = ["level", "width", "invert"].some((name) => name in parts);
    Object.assign(this.state, parts);
    this.state.zoom = Math.min(Math.max(this.state.zoom, 0.5), 40);
    this.state.width = Math.min(Math.max(this.state.width, 4), 510);
    this.state.level = Math.min(Math.max(this.state.level, 0), 255);
    if (windowed) this.paint();
    this.canvas.style.touchAction = this.tool === "window" || this.state.zoom > 1.01 ? "none" : "pan-y";
    this.draw();
    this.changed(this.state);
  }

  /** The shade, 0 to 255, in which a level of the film is shown. */
  shade(value) {
    const { level, width, invert } = this.state;
    const shown = Math.min(Math.max(255 * ((value - level) / width + 0.5), 0), 255);
    return invert ? 255 - shown : shown;
  }

  /** The film through its window, on a canvas of its own. */
  paint() {
    if (!this.film) return;
    const { grey, width, height } = this.film;
    this.painted ??= document.createElement("canvas");
    Object.assign(this.painted, { width, height });
    const context = this.painted.getContext("2d");
    const image = context.createImageData(width, height);
    const pixels = new Uint32Array(image.data.buffer);
    const table = Uint32Array.from({ length: 256 }, (_, value) => 0xff000000 | (Math.round(this.shade(value)) * 0x010101));
    for (let k = 0; k < grey.length; k++) pixels[k] = table[grey[k]];
    context.putImageData(image, 0, 0);
  }

  /** CSS pixels per film pixel when the whole film is seen. */
  get fit() {
    return Math.min(this.canvas.clientWidth / this.film.width, this.canvas.clientHeight / this.film.height);
  }

  draw() {
    const { canvas } = this;
    const dense = window.devicePixelRatio || 1;
    canvas.width = Math.round(canvas.clientWidth * dense);
    canvas.height = Math.round(canvas.clientHeight * dense);
    if (!this.film || !canvas.width) return;
    const scale = this.fit * this.state.zoom * dense;
    const [width, height] = [this.film.width * scale, this.film.height * scale];
    const left = (canvas.width - width) / 2 + this.state.x * dense;
    const upper = (canvas.height - height) / 2 + this.state.y * dense;
    this.compose(canvas.getContext("2d"), left, upper, width, height);
  }

  /** Film, map and the frame of what the network saw. */
  compose(context, left, upper, width, height) {
    context.imageSmoothingQuality = "high";
    context.imageSmoothingEnabled = width < 6 * this.film.width;
    context.drawImage(this.painted, left, upper, width, height);
    if (!this.map) return;
    context.imageSmoothingEnabled = true;
    context.globalAlpha = this.opacity;
    context.drawImage(this.map.canvas, left, upper, width, height);
    context.globalAlpha = 1;
    const [x, y, side] = this.map.frame;
    context.setLineDash([6, 6]);
    context.strokeStyle = "rgb(160 215 235 / 70%)";
    context.lineWidth = Math.max(1, width / 700);
    context.strokeRect(left + x * width, upper + y * height, side * width, side * height);
    context.setLineDash([]);
  }

  /** The picture as it is shown (window, inversion, map), whole, with lines of text below: a PNG Blob. */
  async picture(lines) {
    const { width, height } = this.film;
    const size = Math.max(13, Math.round(width / 45));
    const canvas = document.createElement("canvas");
    Object.assign(canvas, { width, height: height + Math.round(size * (1.5 * lines.length + 0.8)) });
    const context = canvas.getContext("2d");
    context.fillRect(0, 0, canvas.width, canvas.height);
    this.compose(context, 0, 0, width, height);
    context.fillStyle = "#fff";
    context.font = `${size}px system-ui, sans-serif`;
    lines.forEach((line, k) => context.fillText(line, size * 0.7, height + size * 1.5 * (k + 1), width - 1.4 * size));
    return new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
  }

  /** Zoom by a factor and keep what is under a point (from the canvas' middle, CSS pixels) where it is. */
  zoom(factor, x = 0, y = 0) {
    const zoom = Math.min(Math.max(this.state.zoom * factor, 0.5), 40);
    const by = zoom / this.state.zoom;
    this.change({ zoom, x: x - by * (x - this.state.x), y: y - by * (y - this.state.y) });
  }

  move(x, y) {
    this.change({ x: this.state.x + x, y: this.state.y + y });
  }

  /** As on a light box: right for more contrast, up for brighter. */
  window(right, down) {
    this.change({ width: this.state.width - right, level: this.state.level + down / 2 });
  }

  listen() {
    const { canvas, fingers } = this;
    const middle = (event) => [event.offsetX - canvas.clientWidth / 2, event.offsetY - canvas.clientHeight / 2];
    canvas.addEventListener("wheel", (event) => {
      event.preventDefault();
      if (this.film) this.zoom(Math.exp(-event.deltaY * (event.ctrlKey ? 0.01 : 0.0015)), ...middle(event));
    }, { passive: false });
    canvas.addEventListener("dblclick", () => this.change({ zoom: 1, x: 0, y: 0 }));
    canvas.addEventListener("contextmenu", (event) => event.preventDefault());
    canvas.addEventListener("pointerdown", (event) => {
      fingers.set(event.pointerId, event);
      canvas.setPointerCapture(event.pointerId);
    });
    for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, (event) => fingers.delete(event.pointerId));
    canvas.addEventListener("pointermove", (event) => this.drag(event, middle));
    canvas.addEventListener("keydown", (event) => this.key(event));
  }

  drag(event, middle) {
    const before = this.fingers.get(event.pointerId);
    if (!before || !this.film) return;
    this.fingers.set(event.pointerId, event);
    const [x, y] = [event.clientX - before.clientX, event.clientY - before.clientY];
    if (this.fingers.size === 2) {
      const other = [...this.fingers.values()].find((finger) => finger.pointerId !== event.pointerId);
      const apart = (finger) => Math.hypot(finger.clientX - other.clientX, finger.clientY - other.clientY) || 1;
      this.zoom(apart(event) / apart(before), ...middle(event));
      this.move(x / 2, y / 2);
    } else if ((this.tool === "window") === (event.buttons <= 1)) {
      this.window(x, y);
    } else if (event.pointerType !== "touch" || this.state.zoom > 1.01) {
      this.move(x, y);
    }
  }

  key(event) {
    const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (!this.film || event.ctrlKey || event.metaKey || event.altKey) return;
    if (step) event.shiftKey ? this.window(8 * step[0], 8 * step[1]) : this.move(-40 * step[0], -40 * step[1]);
    else if (event.key === "+" || event.key === "=") this.zoom(1.25);
    else if (event.key === "-") this.zoom(0.8);
    else if (event.key === "0") this.reset();
    else if (event.key === "1") this.change({ zoom: 1 / this.fit });
    else return;
    event.preventDefault();
  }
}
