// The result of one video: verdict, timelines, moments, facts.

import * as api from "./api.js";
import { badge, el, icon, svg } from "./dom.js";
import { Timeline } from "./timeline.js";
import { clock, count, percent, period, size } from "./words.js";

/** The verdict in words, beside the video. */
export function verdictPanel(job, limits) {
  const { verdict, explanation } = job;
  const parts = [
    el("h3", { class: "title" }, icon(verdict.label), el("span", {}, explanation.title)),
    el("p", { class: "lead" }, explanation.lead),
  ];
  if (explanation.reasons.length) parts.push(list("reasons", explanation.reasons));
  if (verdict.probability !== null) {
    parts.push(
      el(
        "div",
        { class: "score" },
        el("p", { class: "big" }, percent(verdict.probability)),
        el("p", { class: "what" }, explanation.subject),
        scale(verdict.probability, limits),
        el("p", { class: "meaning" }, explanation.meaning),
      ),
    );
  }
  if (explanation.help.length) {
    parts.push(el("h4", {}, "What would help"), list("helps", explanation.help));
  }
  return el("div", { class: `verdict ${verdict.label}` }, ...parts);
}

function list(name, texts) {
  return el("ul", { class: name }, ...texts.map((text) => el("li", {}, text)));
}

function scale(probability, limits) {
  const [x, real, fake] = [probability, limits.real_to, limits.fake_from].map(
    (share) => `${(100 * share).toFixed(1)}%`,
  );
  const words = [`REAL up to ${percent(limits.real_to)}`, `FAKE from ${percent(limits.fake_from)}`];
  const name = `${percent(probability)} on a scale from 0 to 100 %: ${words.join(", ")}`;
  return svg(
    "svg",
    { class: "scale", role: "img", height: 64, "aria-label": name },
    svg("rect", { class: "track", y: 16, width: "100%", height: 8, rx: 4 }),
    svg("rect", { class: "value", y: 16, width: x, height: 8, rx: 4 }),
    svg("line", { class: "zone REAL", x1: 0, x2: real, y1: 28, y2: 28 }),
    svg("line", { class: "zone FAKE", x1: fake, x2: "100%", y1: 28, y2: 28 }),
    ...[real, fake].map((at) => svg("line", { class: "tick", x1: at, x2: at, y1: 14, y2: 26 })),
    svg("svg", { x, y: 12, overflow: "visible" }, svg("path", { class: "pointer", d: "M0 0L6 -9H-6Z" })),
    svg("text", { x: 0, y: 45 }, "0 %"),
    svg("text", { x: "100%", y: 45, class: "end" }, "100 %"),
    svg("text", { x: 0, y: 61 }, words[0]),
    svg("text", { x: "100%", y: 61, class: "end" }, words[1]),
  );
}

/** The timelines of all people; returns the element and what to tell the time. */
export function timelines(job, seek, limits) {
  const { verdict } = job;
  const duration = verdict.media?.duration ?? 0;
  const drawn = verdict.people.map((person) => new Timeline(person, duration, seek, limits));
  const lines = drawn.map(({ person, node }) => {
    const words = job.people.find((entry) => entry.person === person.person);
    return el(
      "div",
      { class: "line" },
      el(
        "p",
        {},
        el("b", {}, `Person ${person.person}`),
        badge(person.label),
        el("span", {}, percent(person.probability)),
        el("span", { class: "seen-when" }, `seen ${period(person.start, person.end)}`),
      ),
      node,
      ...(words?.reasons ?? []).map((text, i) =>
        el("p", { class: "under" }, `${text} What would help: ${words.help[i]}`),
      ),
    );
  });
  const span = drawn.length ? drawn[0].span : 0;
  const axis = el(
    "div",
    { class: "axis", "aria-hidden": "true" },
    ...[0, 0.25, 0.5, 0.75, 1].map((share) => el("span", {}, clock(share * span))),
  );
  const key = el(
    "ul",
    { class: "key" },
    keyEntry("high", `judged frame from ${percent(limits.fake_from)} on`),
    keyEntry("mid", "in between"),
    keyEntry("low", `up to ${percent(limits.real_to)}`),
    el("li", {}, dashes(), "over all frames"),
  );
  const node = el("div", { class: "lines" }, ...lines, ...(drawn.length ? [axis, key] : []));
  return { node, setTime: (time) => drawn.forEach((line) => line.setTime(time)) };
}

function keyEntry(kind, text) {
  const mark = svg("use", { class: `mark ${kind}`, href: `#mark-${kind}` });
  const box = { width: 14, height: 14, viewBox: "-7 -7 14 14", "aria-hidden": "true" };
  return el("li", {}, svg("svg", box, mark), text);
}

function dashes() {
  const line = svg("line", { class: "overall INCONCLUSIVE", x1: 0, x2: 24, y1: 6, y2: 6 });
  return svg("svg", { width: 24, height: 12, "aria-hidden": "true" }, line);
}

/** The most and least suspicious moments; a click seeks, a switch shows the heat maps. */
export function gallery(job, { moments, scale: tops }, seek) {
  const images = [];
  const legend = el(
    "div",
    { class: "legend", hidden: true },
    el("span", {}, "none"),
    el("span", {
      class: "ramp",
      role: "img",
      "aria-label": "Colour scale from dark purple to pale yellow",
    }),
    el("span", {}, "most"),
    el(
      "p",
      {},
      "Where the detector sees evidence for a fake. One scale for all pictures of a person; " +
        "evidence for real is not drawn. A map shows what moved the score, not the outline of a " +
        "manipulation.",
    ),
  );
  const show = (heat) => {
    images.forEach((change) => change(heat));
    legend.hidden = !heat;
  };
  const worstFirst = [...job.verdict.people].sort((a, b) => b.probability - a.probability);
  const shown = worstFirst.map((person) => String(person.person)).filter((key) => key in tops);
  const people = shown.map((number) => {
    const own = moments.filter((moment) => moment.person === Number(number));
    return el(
      "div",
      { class: "gallery" },
      ...[["most", "Most suspicious"], ["least", "Least suspicious"]].map(([kind, words]) => {
        const chosen = own.filter((moment) => moment.kind === kind);
        const title = job.verdict.people.length > 1 ? `Person ${number}: ${words.toLowerCase()}` : words;
        return chosen.length
          ? el(
              "div",
              {},
              el("h4", {}, title),
              el("div", { class: "thumbs" }, ...chosen.map((m) => thumb(m, seek, images))),
            )
          : null;
      }),
    );
  });
  return el(
    "section",
    {},
    el(
      "div",
      { class: "shots-head" },
      el("h3", {}, "Moments to look at"),
      el(
        "label",
        { class: "switch" },
        el("input", {
          type: "checkbox",
          role: "switch",
          onchange: (event) => show(event.target.checked),
        }),
        "Heat map",
      ),
    ),
    ...people,
    legend,
  );
}

function thumb(moment, seek, images) {
  const { person, time, probability, place } = moment;
  const words = `${percent(probability)} at ${clock(time)}`; // as is to be seen
  const found = place ? `most speaks for fake in the ${place}` : "hardly anything speaks for fake";
  const image = el("img", { alt: "", width: 224, height: 224 });
  const button = el(
    "button",
    { type: "button", class: "thumb", onclick: () => seek(time) },
    image,
    el("span", {}, el("b", {}, percent(probability)), ` at ${clock(time)}`),
  );
  const change = (heat) => {
    image.src = heat ? moment.heat : moment.crop;
    const seen = `face of person ${person}${heat ? `, heat map: ${found}` : ""}`;
    button.setAttribute("aria-label", `${words}: ${seen}. Go there.`);
  };
  change(false);
  images.push(change);
  return button;
}

/** File and method, folded; `card` is the address of the model card, or null. */
export function facts(job, card) {
  const { verdict } = job;
  const { media, model } = verdict;
  const rows = [["File", job.name], ["Size", `${size(job.bytes)} (${count(job.bytes, "byte")})`]];
  rows.push(["SHA-256", el("code", {}, job.sha256)]);
  if (media) {
    rows.push(
      ["Picture", `${media.width} × ${media.height}, ${media.codec} in ${media.container}`],
      ["Duration", `${clock(media.duration)}, ${count(media.num_frames, "picture")}`],
      ["Decoded", media.partial ? "only a part of it" : "without a gap"],
    );
  }
  rows.push(["Analysed in", `${verdict.seconds.toFixed(1)} s`]);
  if (model) {
    rows.push(
      ["Model", el(
        "span",
        {},
        `${model.name} ${model.version}`,
        ...(card ? [" · ", el("a", { href: card }, "model card")] : []),
      )],
      ["Its weights", el("code", {}, model.sha256)],
    );
  }
  return el(
    "details",
    {},
    el("summary", {}, "File, method, SHA-256"),
    el(
      "table",
      { class: "facts" },
      el("tbody", {}, ...rows.map(([name, value]) =>
        el("tr", {}, el("th", { scope: "row" }, name), el("td", {}, value)))),
    ),
  );
}

/** What a file of the report is called when it is saved. */
export function fileName(job, suffix) {
  const last = job.name.replace(/\?\[.*$/, "").split("/").pop(); // of a link, its last part
  return `${last.replace(/\.[^.]*$/, "") || "video"}-tellframe.${suffix}`;
}

export async function loadPictures(job) {
  return job.verdict.people.length ? api.moments(job.id) : null;
}
