// One video from the drop to the verdict.

import * as api from "./api.js";
import { announce, badge, el } from "./dom.js";
import { Player } from "./player.js";
import { facts, fileName, gallery, loadPictures, timelines, verdictPanel } from "./result.js";
import { count, percent, size } from "./words.js";

const STAGES = {
  starting: () => "Starting",
  fetching: ({ done, total }) =>
    `Fetching the video: ${size(done)}${total ? ` of ${size(total)}` : ""}`,
  reading: () => "Reading the video",
  faces: ({ done, total }) => `Looking for faces: picture ${done} of ${total}`,
  judging: () => "Judging the faces",
};

export class Card {
  /**
   * A card of a file that was dropped, or of a job that the server has; either may be null.
   * `service` is what /v1/models says, and `onremove` is called when the card is gone.
   */
  constructor({ file = null, job = null, service, onremove }) {
    Object.assign(this, { file, job, service, onremove });
    this.stop = new AbortController();
    this.name = file?.name ?? job.name;
    this.player = new Player((time) => this.lines?.setTime(time));
    this.heading = el("h2", { tabindex: -1 }, this.name);
    this.facts = el("span", { class: "facts-line" });
    this.actions = el("div", { class: "actions" });
    this.refusal = el("p", { class: "hint", role: "alert", hidden: true });
    this.side = el("div", { class: "work" });
    this.left = el("div", {}, this.player.node);
    this.inside = el("div", { class: "inside" }, el("div", { class: "sides" }, this.left, this.side));
    this.node = el(
      "article",
      { class: "video open", "aria-label": this.name },
      el("header", { class: "bar" }, this.heading, this.facts, this.actions, this.refusal),
      this.inside,
    );
    if (file) {
      this.player.show(file);
      this.#work("Waiting to be uploaded", "", null);
    } else this.#askForFile();
  }

  /** Upload the file; its job is followed after the return, so that the next one can be sent. */
  async upload() {
    this.left.hidden = false;
    try {
      this.job = await this.#send();
    } catch (error) {
      if (error.name !== "AbortError") this.#fail(error);
      return;
    }
    this.follow();
  }

  async #send() {
    const most = this.service.max_bytes;
    if (this.file.size > most) {
      throw new api.Problem({
        code: "too_large",
        title: "The video is too large",
        detail: `It has ${size(this.file.size)}, and this server takes ${size(most)} at most. Cut the video, or use a smaller copy.`,
      });
    }
    for (;;) {
      this.#work("Uploading", `0 % of ${size(this.file.size)}`, 0);
      const { promise, abort } = api.upload(this.file, (share) => {
        const text = `${Math.floor(100 * share)} % of ${size(this.file.size)}`;
        this.#work(share < 1 ? "Uploading" : "Arriving", text, share);
      });
      this.stop.signal.addEventListener("abort", abort, { once: true });
      try {
        return await promise;
      } catch (error) {
        if (error.status !== 429) throw error;
        await this.#waitForPlace(error);
      }
    }
  }

  /** Wait as long as the server says, in view of whoever waits. */
  async #waitForPlace(problem) {
    announce(`${this.name}: ${problem.title}.`);
    for (let left = Math.max(1, problem.retryAfter); left > 0; left -= 1) {
      this.#work(problem.title, `${problem.detail} Trying again in ${count(left, "second")}.`, null);
      await new Promise((resolve) => setTimeout(resolve, 1000));
      if (this.stop.signal.aborted) throw new DOMException("", "AbortError");
    }
  }

  /** Follow the job until there is a result, or it is cancelled. */
  async follow() {
    try {
      await this.#follow();
    } catch (error) {
      if (error.name !== "AbortError") this.#fail(error);
    }
  }

  async #follow() {
    const last = await api.follow(
      this.job.id,
      this.stop.signal,
      (job) => this.#show(job),
      (problem) => this.#work(problem.title, `${problem.detail} Trying again; nothing is lost.`, null),
    );
    if (last !== null) await this.finish();
    else if (!this.removing) {
      this.#fail(new api.Problem({ title: "Deleted", detail: "The server no longer has it." }));
    }
  }

  #show(job) {
    this.job = job;
    if (job.state === "queued") {
      const ahead = job.position - 1;
      const text = ahead ? `${count(ahead, "video")} before this one.` : "It is the next one.";
      this.#work(`Waiting: place ${job.position} in the queue`, text, null);
    } else if (job.state === "running") {
      const { stage, done, total } = job.progress;
      this.#work(STAGES[stage](job.progress), "", total ? done / total : null);
    }
  }

  #work(step, text, share) {
    if (!this.progress) {
      this.step = el("p", { class: "step" });
      this.progress = el("progress", { max: 1, "aria-label": `Progress of ${this.name}` });
      this.text = el("p", { class: "hint" });
      this.side.replaceChildren(this.step, this.progress, this.text);
      this.#setActions(this.#removal("Cancel"));
    }
    this.step.textContent = step;
    this.text.textContent = text;
    if (share === null) this.progress.removeAttribute("value");
    else this.progress.value = share;
  }

  #fail(problem) {
    this.progress = null;
    this.left.hidden = true;
    this.side.replaceChildren(
      el("div", { role: "alert" },
        el("p", { class: "step" }, problem.title),
        el("p", {}, problem.detail ?? String(problem))),
    );
    const again = this.file && !this.job && problem.code !== "too_large" && problem.code !== "not_a_video";
    this.#setActions(
      again ? el("button", { type: "button", onclick: () => this.upload() }, "Try again") : null,
      this.#removal("Remove"),
      this.toggle, // shown again, it asks again
    );
  }

  /** Show the result. */
  async finish() {
    const job = await api.job(this.job.id);
    this.job = job;
    this.progress = null;
    if (job.state === "failed") {
      this.#fail(job.problem);
      announce(`${this.name}: ${job.problem.title}.`);
      return;
    }
    this.left.hidden = false;
    this.node.classList.add(job.verdict.label);
    this.facts.replaceChildren(...summary(job));
    this.#setActions(
      this.#saving("Report", job.links.report, "html"),
      this.#saving("JSON", job.links.json, "json"),
      this.#removal("Delete"),
      this.toggle,
    );
    const seek = (time) => this.player.seek(time);
    const limits = this.service.models.find((model) => model.active);
    this.lines = timelines(job, seek, limits);
    const judged = Math.max(0, ...job.verdict.people.map((person) => person.frames));
    const note = judged
      ? `Faces were judged in ${count(judged, "frame")} of the video. In between, boxes are where the faces probably are.`
      : "";
    this.left.replaceChildren(this.player.node, el("p", { class: "under" }, note), this.lines.node);
    this.side.replaceWith((this.side = verdictPanel(job, limits)));
    this.player.setPeople(job.verdict, limits);
    this.inside.replaceChildren(
      this.inside.firstElementChild,
      ...(await this.#pictures(seek)),
      facts(job, limits.card),
    );
    const first = job.verdict.people.flatMap((person) => person.moments);
    if (first.length) seek(first.reduce((a, b) => (b.probability > a.probability ? b : a)).time);
    announce(`${this.name}: ${job.explanation.title}.`);
  }

  /** The gallery, or why it is missing: the verdict holds without it. */
  async #pictures(seek) {
    try {
      const pictures = await loadPictures(this.job);
      return pictures ? [gallery(this.job, pictures, seek)] : [];
    } catch (error) {
      const why = error.title ?? error;
      const text = `The pictures of the moments could not be loaded: ${why}. Load the page again to see them.`;
      return [el("p", { class: "hint" }, text)];
    }
  }

  /** Fold the card to its first line; a click unfolds it, and loads the result. */
  fold() {
    this.node.classList.remove("open");
    this.inside.hidden = true;
    this.facts.replaceChildren(
      ...summary(this.job),
      el("span", { class: "when" }, `${new Date(this.job.created).toLocaleString()}`),
    );
    this.toggle = el("button", { type: "button", "aria-expanded": "false", onclick: () => this.#unfold() }, "Show");
    this.#setActions(this.#removal("Delete"), this.toggle);
  }

  async #unfold() {
    const open = this.node.classList.toggle("open");
    this.inside.hidden = !open;
    this.toggle.setAttribute("aria-expanded", String(open));
    this.toggle.textContent = open ? "Hide" : "Show";
    if (open && !this.lines) await this.finish().catch((error) => this.#fail(error));
    else if (!open) this.player.video?.pause();
  }

  #askForFile() {
    const input = el("input", { type: "file", class: "hidden", onchange: () => this.#attach(input.files[0]) });
    this.notice = el("p", {});
    const why = this.service.keeps_uploads
      ? "The server keeps videos, but does not play them."
      : "The server deletes videos after the analysis.";
    this.player.explain(
      `${why} Choose the file to see it play.`,
      el("button", { type: "button", onclick: () => input.click() }, "Choose the file"),
      input,
      this.notice,
    );
  }

  async #attach(file) {
    if (!file) return;
    if (file.size !== this.job.bytes || !(await hasDigest(file, this.job.sha256))) {
      this.notice.textContent = "This is another file.";
      return;
    }
    this.file = file;
    this.player.show(file);
  }

  #saving(words, path, suffix) {
    const save = () =>
      api.save(path, fileName(this.job, suffix)).catch((error) => announce(`${error.title}. ${error.detail}`));
    return el("button", { type: "button", onclick: save, "aria-label": `Download ${words} of ${this.name}` }, words);
  }

  /** A button that asks once more before a result is lost. */
  #removal(words) {
    const button = el("button", { type: "button", class: "danger", "aria-label": `${words}: ${this.name}` }, words);
    const reset = () => {
      button.classList.remove("sure");
      button.textContent = words;
    };
    button.addEventListener("blur", reset);
    button.addEventListener("click", () => {
      if (this.job?.state !== "done" || button.classList.contains("sure")) {
        reset();
        return this.remove();
      }
      button.classList.add("sure");
      button.textContent = "Delete for good?";
      announce("Press again to delete the result from the server.");
      return null;
    });
    return button;
  }

  #setActions(...buttons) {
    this.actions.replaceChildren(...buttons.filter(Boolean));
  }

  async remove() {
    this.removing = true;
    this.refusal.hidden = true;
    try {
      if (this.job) await api.remove(this.job.id);
    } catch (error) {
      if (error.status !== 404) {
        this.removing = false;
        this.refusal.textContent = `Not deleted: ${error.title}. ${error.detail}`;
        this.refusal.hidden = false;
        return null;
      }
    }
    this.stop.abort(); // only now: what could not be deleted is still followed
    this.player.close();
    this.node.remove();
    this.onremove(this);
    announce(`${this.name}: removed.`);
    return null;
  }
}

function summary({ label, probability }) {
  return probability === null ? [badge(label)] : [badge(label), percent(probability)];
}

const MOST_HASHED = 512 * 2 ** 20;

/** Whether a file has a SHA-256; taken for given where it is too large to be read at once. */
async function hasDigest(file, sha256) {
  if (!globalThis.crypto?.subtle || file.size > MOST_HASHED) return true;
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", await file.arrayBuffer()));
  return Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("") === sha256;
}
