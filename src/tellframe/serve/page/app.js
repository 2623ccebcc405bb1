// The page: takes files, keeps the cards.

import * as api from "./api.js";
import { Card } from "./card.js";
import { duration, size } from "./words.js";

const AT_ONCE = 2; // uploads; more would only slow each other down
const find = (id) => document.getElementById(id);
const cards = new Set();
const waiting = [];
let uploading = 0;
let service = null;

function add(card, first) {
  cards.add(card);
  find("videos")[first ? "prepend" : "append"](card.node);
  find("main").classList.toggle("several", cards.size > 1);
}

function forget(card) {
  cards.delete(card);
  const next = cards.values().next().value;
  find("main").classList.toggle("several", cards.size > 1);
  (next?.heading ?? find("pick")).focus();
}

function take(files) {
  const added = [...files].map((file) => new Card({ file, service, onremove: forget }));
  added.toReversed().forEach((card) => add(card, true)); // so that the first is on top
  waiting.push(...added);
  send();
}

/** Have the server fetch a link; what it refuses at once is shown beside the field. */
async function takeLink(event) {
  event.preventDefault();
  const field = find("url");
  try {
    resume(await api.fetchLink(field.value.trim()), true);
    field.value = "";
    find("trouble").hidden = true;
  } catch (error) {
    complain(error);
    field.focus();
  }
}

function complain(error) {
  find("trouble").textContent = `${error.title ?? "The page failed"}. ${error.detail ?? error}`;
  find("trouble").hidden = false;
}

async function send() {
  while (uploading < AT_ONCE && waiting.length) {
    const card = waiting.shift();
    if (!cards.has(card)) continue;
    uploading += 1;
    card.upload().finally(() => {
      uploading -= 1;
      send();
    });
  }
}

function listen() {
  const input = find("files");
  find("pick").addEventListener("click", () => input.click());
  input.addEventListener("change", () => {
    take(input.files);
    input.value = "";
  });
  let depth = 0;
  const mark = (change) => {
    depth += change;
    document.body.classList.toggle("dragging", depth > 0);
  };
  addEventListener("dragenter", () => mark(1));
  addEventListener("dragleave", () => mark(-1));
  addEventListener("dragover", (event) => event.preventDefault());
  addEventListener("drop", (event) => {
    event.preventDefault();
    mark(-depth);
    if (service) take(event.dataTransfer.files);
  });
  find("link").addEventListener("submit", takeLink);
  find("access").addEventListener("submit", (event) => {
    event.preventDefault();
    api.setToken(find("token").value.trim());
    begin();
  });
}

async function begin() {
  try {
    service = await api.models();
    const known = await api.jobs();
    find("access").hidden = true;
    find("trouble").hidden = true;
    find("drop").hidden = false;
    find("link").hidden = !service.accepts_urls;
    find("card").hidden = !service.models.find((model) => model.active).card;
    find("rules").textContent = rules();
    for (const job of known) if (![...cards].some((card) => card.job?.id === job.id)) resume(job);
  } catch (error) {
    if (error.status === 401) {
      find("access-trouble").textContent = find("token").value ? "This token is not valid." : "";
      find("access").hidden = false;
      find("drop").hidden = true;
      find("token").focus();
      return;
    }
    complain(error);
    setTimeout(begin, 3000);
  }
}

function rules() {
  const after = service.keeps_uploads
    ? `Videos and results are deleted after ${duration(service.keep_seconds)}.`
    : `Videos are deleted after the analysis, results after ${duration(service.keep_seconds)}.`;
  return `MP4, MOV, MKV, WebM, AVI and more, up to ${size(service.max_bytes)} each. Videos go to this server alone. ${after}`;
}

/** Show a job that the server has: one of before this page was loaded, or of a link. */
function resume(job, first = false) {
  const card = new Card({ job, service, onremove: forget });
  add(card, first);
  if (job.state === "done") card.fold();
  else if (job.state === "failed") card.finish();
  else card.follow();
}

find("drop").hidden = true; // until the server has said what it takes
listen();
begin();
