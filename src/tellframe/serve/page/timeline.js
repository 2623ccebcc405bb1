// P(fake) of one person over the seconds of the video; a slider that seeks.

import { el, svg } from "./dom.js";
import { labelOf } from "./player.js";
import { clock, percent } from "./words.js";

const TOP = 8;
const BOTTOM = 64;
const HEIGHT = 72;
const MOST_MARKS = 400;
const MARKS = { FAKE: "high", INCONCLUSIVE: "mid", REAL: "low" };

export class Timeline {
  /** `seek` is called with seconds; `limits` are those of the model, and colour the marks. */
  constructor(person, duration, seek, limits) {
    this.person = person;
    this.limits = limits;
    this.span = Math.max(duration, person.end, 0.001);
    this.seek = seek;
    this.now = el("div", { class: "now" });
    this.node = el(
      "div",
      {
        class: `strip-plot ${person.label}`,
        role: "slider",
        tabindex: 0,
        "aria-label": `Timeline of person ${person.person}: the arrow keys go from judged frame to judged frame`,
        "aria-valuemin": 0,
        "aria-valuemax": this.span.toFixed(2),
        onpointerdown: (event) => this.#point(event),
        onpointermove: (event) => event.buttons && this.#point(event),
        onkeydown: (event) => this.#key(event),
      },
      this.#drawing(),
      this.now,
    );
    this.setTime(0);
  }

  setTime(time) {
    this.time = time;
    this.now.style.left = this.#x(time);
    const nearest = this.#nearest(time);
    this.node.setAttribute("aria-valuenow", time.toFixed(2));
    this.node.setAttribute(
      "aria-valuetext",
      nearest
        ? `${clock(time)}; nearest judged frame ${clock(nearest.time)}, P(fake) ${percent(nearest.probability)}`
        : clock(time),
    );
  }

  #drawing() {
    const { start, end, probability } = this.person;
    const x1 = this.#x(start);
    const width = `${Math.max(1, (100 * (end - start)) / this.span).toFixed(2)}%`;
    const parts = [
      svg("rect", { class: "ground", width: "100%", height: HEIGHT, rx: 6 }),
      svg("rect", { class: "presence", x: x1, width, height: HEIGHT, rx: 6 }),
    ];
    for (const limit of [this.limits.fake_from, this.limits.real_to]) {
      const y = this.#y(limit);
      parts.push(svg("line", { class: "grid", x1: 0, x2: "100%", y1: y, y2: y }));
    }
    if (probability !== null) {
      const y = this.#y(probability);
      parts.push(svg("line", { class: "overall", x1, x2: this.#x(end), y1: y, y2: y }));
    }
    const every = Math.ceil(this.person.moments.length / MOST_MARKS);
    const shown = this.person.moments.filter((_, i) => i % every === 0);
    for (const moment of shown) {
      const [x, y] = [this.#x(moment.time), this.#y(moment.probability)];
      const kind = MARKS[labelOf(moment.probability, this.limits)];
      parts.push(
        svg("line", { class: "stem", x1: x, x2: x, y1: BOTTOM, y2: y }),
        svg("use", { class: `mark ${kind}`, href: `#mark-${kind}`, x, y }),
      );
    }
    return svg("svg", { "aria-hidden": "true" }, ...parts);
  }

  #x(time) {
    return `${(100 * Math.min(1, Math.max(0, time / this.span))).toFixed(2)}%`;
  }

  #y(probability) {
    return BOTTOM - (BOTTOM - TOP) * probability;
  }

  #nearest(time) {
    return this.person.moments.reduce(
      (best, moment) =>
        best && Math.abs(best.time - time) <= Math.abs(moment.time - time) ? best : moment,
      null,
    );
  }

  #point(event) {
    const { left, width } = this.node.getBoundingClientRect();
    this.seek(this.span * Math.min(1, Math.max(0, (event.clientX - left) / width)));
  }

  #key(event) {
    const times = this.person.moments.map((moment) => moment.time);
    const later = times.find((time) => time > this.time + 0.01);
    const earlier = times.findLast((time) => time < this.time - 0.01);
    const target = {
      ArrowRight: later,
      ArrowUp: later,
      ArrowLeft: earlier,
      ArrowDown: earlier,
      Home: times[0],
      End: times.at(-1),
    }[event.key];
    if (target === undefined) return;
    event.preventDefault();
    this.seek(target);
  }
}
