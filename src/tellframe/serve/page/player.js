// The video with the boxes of its people. It plays the browser's own copy: the server keeps none.

import { el } from "./dom.js";
import { percent } from "./words.js";

/** The label of one score, by the model's limits. */
export function labelOf(probability, limits) {
  if (probability >= limits.fake_from) return "FAKE";
  return probability <= limits.real_to ? "REAL" : "INCONCLUSIVE";
}

/** Where a person is at a time, between the two judged frames around it; null where not seen. */
export function sighting(person, time, gap) {
  const { moments } = person;
  if (!moments.length || time < person.start - gap || time > person.end + gap) return null;
  let after = moments.findIndex((moment) => moment.time >= time);
  if (after === -1) after = moments.length - 1;
  const before = Math.max(0, after - 1);
  const [a, b] = [moments[before], moments[after]];
  if (b.time - a.time > 4 * gap && time - a.time > gap && b.time - time > gap) return null;
  const span = b.time - a.time;
  const share = span > 0 ? Math.min(1, Math.max(0, (time - a.time) / span)) : 1;
  const box = a.box.map((value, i) => value + share * (b.box[i] - value));
  return { box, probability: (share < 0.5 ? a : b).probability };
}

/** Half the usual time between two judged frames: how far a box is believed beyond them. */
export function believedGap(people) {
  const steps = people.flatMap(({ moments }) =>
    moments.slice(1).map((moment, i) => moment.time - moments[i].time),
  );
  steps.sort((a, b) => a - b);
  return steps.length ? 0.55 * steps[Math.floor(steps.length / 2)] : 0.25;
}

export class Player {
  constructor(onchange) {
    this.onchange = onchange;
    this.boxes = el("div", { class: "boxes", "aria-hidden": "true" });
    this.node = el("div", { class: "stage" }, this.boxes);
    this.video = null;
    this.people = [];
    this.wanted = 0;
    this.setShape(16, 9);
  }

  /** Show a file of this browser. */
  show(file) {
    this.close();
    this.url = URL.createObjectURL(file);
    const redraw = () => this.draw();
    this.video = el("video", {
      src: this.url,
      controls: true,
      playsinline: true,
      preload: "auto",
      "aria-label": `Video ${file.name}`,
      onloadedmetadata: () => {
        if (this.video.videoWidth) this.setShape(this.video.videoWidth, this.video.videoHeight);
        if (this.wanted) this.video.currentTime = this.wanted;
      },
      onplay: () => this.run(),
      onseeking: redraw,
      onseeked: redraw,
      ontimeupdate: redraw,
      onerror: () => this.#cannotPlay(),
    });
    this.node.replaceChildren(this.video, this.boxes);
    this.draw();
  }

  /** Say why there is nothing to see, with an element or none. */
  explain(text, ...more) {
    this.close();
    this.node.replaceChildren(el("div", { class: "absent" }, el("p", {}, text), ...more), this.boxes);
  }

  /** Draw these people, by the result of the analysis. */
  setPeople(verdict, limits) {
    this.people = verdict.people;
    this.limits = limits;
    this.gap = believedGap(this.people);
    const { media } = verdict;
    if (media) {
      const turned = media.rotation % 180 !== 0;
      this.width = turned ? media.height : media.width;
      this.height = turned ? media.width : media.height;
      // A picture that is there has the better shape: the one in which the browser shows it.
      if (!this.video?.videoWidth) this.setShape(this.width, this.height);
    }
    this.draw();
  }

  get time() {
    return this.video ? this.video.currentTime : this.wanted;
  }

  seek(time) {
    this.wanted = time;
    if (this.video) this.video.currentTime = time;
    this.draw();
  }

  run() {
    this.draw();
    if (this.video && !this.video.paused) requestAnimationFrame(() => this.run());
  }

  draw() {
    const found = this.people.map((person) => [person, sighting(person, this.time, this.gap)]);
    this.boxes.replaceChildren(
      ...(this.video ? found.filter(([, seen]) => seen).map((pair) => this.#box(...pair)) : []),
    );
    this.onchange(this.time);
  }

  #box(person, { box, probability }) {
    const [left, top, right, bottom] = box;
    const doubtful = person.label === "INCONCLUSIVE" && !person.reasons.includes("uncertain");
    const label = doubtful ? "INCONCLUSIVE" : labelOf(probability, this.limits);
    const node = el(
      "div",
      { class: ["box", label, ...this.#places(box)].join(" ") },
      el("span", {}, el("i", {}, "Person "), `${person.person} · ${percent(probability)}`),
    );
    // One by one: a style attribute would need a weaker content security policy.
    node.style.left = `${(100 * left) / this.width}%`;
    node.style.top = `${(100 * top) / this.height}%`;
    node.style.width = `${(100 * (right - left)) / this.width}%`;
    node.style.height = `${(100 * (bottom - top)) / this.height}%`;
    return node;
  }

  /** Where the words of a box have room: below it at the top, leftwards at the right. */
  #places([left, top]) {
    return [top < 0.12 * this.height ? "low" : "", left > 0.6 * this.width ? "right" : ""];
  }

  setShape(width, height) {
    this.node.style.aspectRatio = `${width} / ${height}`;
    this.node.style.maxWidth = `calc(62vh * ${width / height})`;
  }

  #cannotPlay() {
    this.explain(
      "This browser cannot play the format of this video. The analysis is not affected: use the " +
        "moments and the report.",
    );
  }

  close() {
    if (this.url) URL.revokeObjectURL(this.url);
    this.url = this.video = null;
  }
}
