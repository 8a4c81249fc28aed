// Sends pictures to the server and shows what the model says. Every name is put in as text, never as HTML.
"use strict";

const SHOWN = 5; // classes of a label before "more"; all that are detected
const AT_A_TIME = 3; // pictures that are sent at a time
const TRIES = 6; // while the server is full

const byId = (id) => document.getElementById(id);
const whole = new Intl.NumberFormat("en-US");
const known = (value) => value !== null && value !== undefined;
// One decimal near 0 and near 1, where rounding would say "none" or "all".
const percent = (value) => `${(100 * value).toFixed(value === 0 || value === 1 || (value >= 0.0995 && value < 0.995) ? 0 : 1)}\u00a0%`;
const decimal = (value) => (known(value) ? value.toFixed(2) : "–");
const scoreText = (value) => (!known(value) ? "–" : value > 0 && value < 0.0005 ? "<0.001" : value.toFixed(3));

let model = null;
let waiting = [];
let running = 0;
let done = 0;
let failed = 0;
let total = 0;
let answers = []; // of the pictures that could be read, in the order of the answers
let round = 0; // rises when all pictures are removed, so that late answers are dropped

/** An element with classes, text and children. */
function element(tag, classes = "", text = null, children = []) {
  const made = document.createElement(tag);
  if (classes) made.className = classes;
  if (text !== null) made.textContent = text;
  made.append(...children);
  return made;
}

function showModel() {
  const { name, about, test, calibration } = model;
  document.title = `${name} – crl_tf`;
  byId("title").textContent = name;
  const parts = [about.program, about.dataset && `data: ${about.dataset}`, about.model && `network: ${about.model}`];
  parts.push(about.method && `method: ${about.method}`, known(about.epochs) && `${about.epochs} ${about.epochs === 1 ? "epoch" : "epochs"}`);
  parts.push(`images: ${model.image_size[0]} × ${model.image_size[1]}`);
  byId("about").textContent = parts.filter(Boolean).join(" · ");

  const names = {
    balanced_accuracy: "Balanced accuracy",
    rarest_third: "Recall, rarest third of the classes",
    most_frequent_third: "Recall, most frequent third",
    accuracy: "Accuracy",
  };
  for (const [key, words] of Object.entries(names)) {
    if (known(test[key])) byId("numbers").append(element("div", "", null, [element("dt", "", words), element("dd", "", percent(test[key]))]));
  }
  byId("calibration").textContent = sentences(calibration).join(" ");
  showRare();

  const legend = [];
  if (model.detects) {
    legend.push("Beside each class: its score / its threshold, which is the mark on the bar. Where the score reaches it, the class is detected.");
  }
  legend.push(`The decision is made by ${model.decision}.`);
  if (Object.keys(model.test).length) {
    legend.push("Under each class: how many images it has, and what the model reaches on those for test (AP: average precision).");
  }
  byId("legend").textContent = legend.join(" ");
}

/** What is said under the numbers: on what they were measured, how far scores are to be trusted, what thresholds are for. */
function sentences(calibration) {
  const said = [Object.keys(model.test).length ? `Measured on test images, deciding by ${model.decision}.` : "The export holds no test numbers."];
  const latest = calibration && (calibration.calibrated || calibration.as_trained);
  if (latest && known(latest.rarest_third)) {
    const kind = calibration.calibrated ? "calibrated scores" : "scores";
    said.push(`The ${kind} are off by ${percent(latest.rarest_third)} on average for the rarest classes`);
    said.push(`and by ${percent(latest.most_frequent_third)} for the most frequent.`);
  }
  if (model.goal) said.push(`Thresholds were chosen on validation images for ${model.goal}.`);
  return said;
}

function showRare() {
  const rare = model.labels.flatMap((label) => label.classes.filter((row) => row.rare).map((row) => [label.name, row]));
  if (!rare.length) return;
  rare.sort((a, b) => a[1].train_count - b[1].train_count);
  const table = byId("rare");
  table.hidden = false;
  table.querySelector("summary").textContent = `The ${rare.length} rare classes, one by one`;
  for (const heading of table.querySelectorAll(".of-detection")) heading.hidden = !model.detects;
  const count = (value) => (known(value) ? whole.format(value) : "–");
  const share = (value) => (known(value) ? percent(value) : "–");
  for (const [label, row] of rare) {
    const numbers = [count(row.train_count), count(row.test_images), share(row.recall), decimal(row.average_precision)];
    if (model.detects) numbers.push(share(row.detection_recall), share(row.detection_precision));
    const cells = [element("td", "", label), element("td", "", row.name), ...numbers.map((text) => element("td", "number", text))];
    table.querySelector("tbody").append(element("tr", "", null, cells));
  }
}

/** Takes chosen files: each is shown at once, and sent when its turn comes. */
function take(files) {
  for (const file of files) {
    const card = cardOf(file);
    byId("results").append(card.root);
    waiting.push({ file, card });
    total += 1;
  }
  byId("clear").hidden = total === 0;
  report();
  work();
}

function cardOf(file) {
  const heading = element("h3", "", file.name);
  const body = element("div", "body", null, [element("p", "quiet", "waiting …")]);
  const preview = element("div", "preview");
  const image = element("img");
  const url = URL.createObjectURL(file);
  image.alt = "";
  image.addEventListener("load", () => {
    if (image.naturalWidth < 128 && image.naturalHeight < 128) image.classList.add("small");
    URL.revokeObjectURL(url);
  });
  image.addEventListener("error", () => {
    preview.replaceChildren(element("span", "", "no preview"));
    URL.revokeObjectURL(url);
  });
  image.src = url;
  preview.append(image);
  const root = element("article", "picture", null, [preview, heading, body]);
  root.setAttribute("aria-label", file.name);
  return { root, body };
}

function work() {
  while (running < AT_A_TIME && waiting.length) {
    const { file, card } = waiting.shift();
    const mine = round;
    running += 1;
    card.body.replaceChildren(element("p", "quiet", "looking …"));
    look(file)
      .then((said) => {
        card.body.replaceChildren(...bodyOf(said));
        if (mine === round) answers.push({ picture: file.name, ...namedAnswer(said) });
      })
      .catch((error) => {
        card.body.replaceChildren(element("p", "problem", error.message));
        if (mine === round) failed += 1;
      })
      .finally(() => {
        running -= 1;
        if (mine === round) done += 1;
        report();
        work();
      });
  }
}

async function look(file) {
  const most = model.limits.body_bytes;
  if (file.size > most) throw new Error(`The file has ${whole.format(file.size)} bytes; the server takes at most ${whole.format(most)}.`);
  if (file.size === 0) throw new Error("The file is empty.");
  for (let turn = 1; ; turn += 1) {
    let answer;
    try {
      answer = await fetch("api/look", { method: "POST", body: file, headers: { "Content-Type": "application/octet-stream" } });
    } catch {
      throw new Error("The server does not answer, or the file can no longer be read.");
    }
    const said = await answer.json().catch(() => ({ error: `the server answered with the status ${answer.status}` }));
    if (answer.ok) return said;
    if (answer.status !== 503 || turn === TRIES) throw new Error(said.error);
    await new Promise((resolve) => setTimeout(resolve, 500 * turn));
  }
}

function report() {
  let text = "";
  if (total) {
    const read = done - failed;
    text = `${read} of ${total} ${total === 1 ? "picture" : "pictures"} read`;
    if (failed) text += `, ${failed} not`;
  }
  byId("progress").textContent = text;
  byId("download").hidden = answers.length === 0;
  byId("legend").hidden = done - failed === 0 || !byId("legend").textContent;
}

/** An answer with the names of labels and classes, as it is downloaded. */
function namedAnswer(said) {
  const labels = said.labels.map((of, place) => {
    const names = model.labels[place].classes.map((row) => row.name);
    const named = { decision: known(of.decided) ? names[of.decided] : null };
    if (of.detected) named.detected = names.filter((name, index) => of.detected[index]);
    named.scores = Object.fromEntries(names.map((name, index) => [name, of.scores[index]]));
    return [of.name, named];
  });
  return { labels: Object.fromEntries(labels) };
}

function download() {
  const link = element("a");
  link.href = URL.createObjectURL(new Blob([`${JSON.stringify(answers, null, 2)}\n`], { type: "application/json" }));
  link.download = `${model.name}-answers.json`;
  link.click();
  URL.revokeObjectURL(link.href);
}

function bodyOf(said) {
  const labels = element("div", "labels", null, said.labels.map((of, place) => labelOf(model.labels[place], of)));
  return said.neighbours.length ? [labels, nearestOf(said.neighbours)] : [labels];
}

function labelOf(label, of) {
  const order = of.scores.map((score, place) => place).sort((a, b) => (of.scores[b] ?? -1) - (of.scores[a] ?? -1));
  // The decided class may not have the largest score; it stands first, and then what is detected.
  const rank = (place) => (place === of.decided ? 0 : of.detected && of.detected[place] ? 1 : 2);
  const rows = [...order].sort((a, b) => rank(a) - rank(b)); // stable: by score among those of a rank
  const first = Math.max(SHOWN, rows.filter((place) => rank(place) < 2).length);
  const decision = known(of.decided) ? label.classes[of.decided].name : "–";
  const head = element("div", "label-head", null, [element("h4", "", label.name), element("strong", "", decision)]);
  const marks = label.classes.map((row) => row.threshold ?? 0);
  const shown = rows.slice(0, first);
  const largest = Math.max(...shown.map((place) => Math.max(of.scores[place] ?? 0, marks[place])));
  // Of many classes the scores are small: bars end at a round number that all of them stay below.
  const end = [0.05, 0.1, 0.2, 0.5].find((value) => largest <= value) ?? 1;
  const list = element("ol", "classes", null, shown.map((place) => classOf(label.classes[place], place, of, end)));
  const parts = [head, list];
  if (end < 1) parts.push(element("p", "facts", `bars end at ${end}`));
  if (rows.length > first) {
    const more = element("button", "more", `Show all ${rows.length} classes`);
    more.type = "button";
    more.addEventListener("click", () => {
      const others = rows.slice(first).map((place) => classOf(label.classes[place], place, of, end));
      others[0].tabIndex = -1;
      list.append(...others);
      more.remove();
      others[0].focus();
    });
    parts.push(more);
  }
  const section = element("section", "label", null, parts);
  section.setAttribute("aria-label", `${label.name}: ${decision}`);
  return section;
}

function classOf(row, place, of, end) {
  const score = of.scores[place];
  const chips = [];
  if (place === of.decided) chips.push(element("span", "chip decision", "decision"));
  if (of.detected && of.detected[place]) chips.push(element("span", "chip detected", "detected"));
  if (row.rare) chips.push(element("span", "chip rare", "rare"));
  const line = element("div", "class-line", null, [
    element("span", "class-name", null, [element("span", "", row.name), ...chips]),
    element("span", "score", scoreText(score), known(row.threshold) ? [element("span", "facts", ` / ${scoreText(row.threshold)}`)] : []),
  ]);
  const fill = element("div", "fill");
  fill.style.width = `${100 * Math.min(1, (score ?? 0) / end)}%`;
  const track = element("div", "track", null, [fill]);
  track.setAttribute("aria-hidden", "true");
  if (known(row.threshold)) {
    const mark = element("div", "mark");
    mark.style.left = `${100 * Math.min(1, row.threshold / end)}%`;
    track.append(mark);
  }
  return element("li", place === of.decided ? "decided" : "", null, [line, track, ...factsOf(row)]);
}

/** How often the class was trained, and what the model reaches on it: by detection where there are thresholds. */
function factsOf(row) {
  const images = [];
  if (known(row.train_count)) images.push(`${whole.format(row.train_count)} training images (${percent(row.train_share ?? 0)})`);
  if (known(row.test_images)) images.push(`${whole.format(row.test_images)} test images`);
  const reached = [];
  if (known(row.detection_recall)) {
    reached.push(`recall ${percent(row.detection_recall)}`);
    if (known(row.detection_precision)) reached.push(`precision ${percent(row.detection_precision)}`);
  } else if (known(row.recall)) reached.push(`recall ${percent(row.recall)}`);
  if (known(row.average_precision)) reached.push(`AP ${decimal(row.average_precision)}`);
  return [images.join(" · "), reached.join(" · ")].filter(Boolean).map((text) => element("div", "facts", text));
}

function nearestOf(neighbours) {
  const items = neighbours.map((near) => {
    const image = element("img");
    image.src = near.image;
    image.alt = `training image ${near.caption}`;
    image.loading = "lazy";
    const annotated = Object.entries(near.labels).map(([label, name]) => `${label}: ${name}`);
    const parts = [image, element("div", "", near.caption), element("div", "facts", `similarity ${decimal(near.similarity)}`)];
    parts.push(element("div", "facts", annotated.slice(0, 5).join(", ")));
    if (annotated.length > 5) {
      parts.push(element("details", "facts", null, [element("summary", "", "all labels"), element("div", "", annotated.slice(5).join(", "))]));
    }
    return element("li", "", null, parts);
  });
  const heading = element("h4", "", "Nearest training images, by the model's features");
  const section = element("section", "nearest", null, [heading, element("ul", "", null, items)]);
  section.setAttribute("aria-label", "nearest training images");
  return section;
}

function clear() {
  round += 1;
  waiting = [];
  answers = [];
  done = failed = total = 0;
  byId("results").replaceChildren();
  byId("clear").hidden = true;
  report();
  byId("files").focus();
}

function listen() {
  const drop = byId("drop");
  const files = byId("files");
  files.addEventListener("change", () => {
    take(files.files);
    files.value = ""; // the same file can be chosen again
  });
  byId("clear").addEventListener("click", clear);
  byId("download").addEventListener("click", download);
  for (const kind of ["dragenter", "dragover"]) {
    document.addEventListener(kind, (event) => {
      event.preventDefault();
      drop.classList.add("over");
    });
  }
  document.addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) drop.classList.remove("over");
  });
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    drop.classList.remove("over");
    take(event.dataTransfer.files);
  });
  document.addEventListener("paste", (event) => {
    if (event.clipboardData && event.clipboardData.files.length) take(event.clipboardData.files);
  });
}

async function start() {
  try {
    const answer = await fetch("api/model");
    if (!answer.ok) throw new Error(`status ${answer.status}`);
    model = await answer.json();
  } catch (error) {
    byId("failure").textContent = `The server does not say what it serves (${error.message}). Load the page again.`;
    byId("failure").hidden = false;
    return;
  }
  showModel();
  listen();
}

start();
