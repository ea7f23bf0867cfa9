// The page's script: sends frames, shows views, and reads the flow under the pointer out of the very file that can be saved.

const $ = (id) => document.getElementById(id);
const files = { frame1: null, frame2: null, truth: null, clip: null };
const UNSET = Object.fromEntries(Object.keys(files).map((kind) => [kind, $(`tile-${kind}`).querySelector("small").textContent]));
let result = null; // the server's answer, with `flow` and `truth` as { width, height, values }
let probe = null; // { x, y } of the pixel that is read
let running = null; // AbortController of the request under way

const CAPTIONS = {
  colour: "Hue is the direction, saturation the length.",
  arrows: "Arrows over frame 1, each exact at its tail; their lengths are scaled alike.",
  overlay: "Frame 1, tinted where it moves.",
  compare: "Frame 2 moved back by the flow. Where the flow is right, it equals frame 1, except where frame 2 does not show the scene.",
  occlusion: "Orange: pixels of frame 1 that frame 2 does not show, by the disagreement of the flows there and back.",
  confidence: "Grey: the flow can be trusted. Yellow is even odds that it is off by more than 1 px and 5 % of its length, red is sure.",
  truth: "The true flow, in the same colours; black is unknown.",
  error: "End-point error against KITTI's threshold (3 px, or 5 % of the length): blue is within it, yellow to dark red beyond, black unknown.",
};

// Files ---------------------------------------------------------------------------------------------------------------

function put(kind, file) {
  files[kind] = file;
  const tile = $(`tile-${kind}`), picture = tile.querySelector("img"), small = tile.querySelector("small");
  tile.classList.add("full");
  small.textContent = file.name;
  if (picture) {
    URL.revokeObjectURL(picture.src);
    picture.onload = () => { tile.classList.add("pictured"); picture.hidden = false; };
    picture.onerror = () => { tile.classList.remove("pictured"); picture.hidden = true; }; // a format browsers do not show
    picture.src = URL.createObjectURL(file);
  }
  if (kind === "clip") ["frame1", "frame2", "truth"].forEach(remove);
  else remove("clip");
  update();
  complain("");
}

function remove(kind) {
  files[kind] = null;
  const tile = $(`tile-${kind}`), picture = tile.querySelector("img");
  tile.classList.remove("full", "pictured");
  tile.querySelector("small").textContent = UNSET[kind];
  if (picture) picture.hidden = true;
  update();
}

function update() {
  $("run").disabled = !(files.clip || (files.frame1 && files.frame2));
  $("remove-truth").hidden = !files.truth;
  $("clip-view").hidden = !files.clip;
  $("refining").hidden = Boolean(files.clip);
}

$("remove-truth").addEventListener("click", (event) => { event.preventDefault(); remove("truth"); });

const isClip = (file) => file.type.startsWith("video/") || /\.(mp4|m4v|mov|mkv|webm|avi)$/i.test(file.name);

function takeDropped(dropped) {
  const sorted = [...dropped].sort((a, b) => a.name.localeCompare(b.name, undefined, { numeric: true }));
  const clip = sorted.find(isClip);
  if (clip) return sorted.length > 1 ? complain("A clip goes alone; drop it without other files.") : put("clip", clip);
  const truth = sorted.find((file) => /\.(flo|pfm)$/i.test(file.name));
  const frames = sorted.filter((file) => file !== truth);
  if (truth) put("truth", truth);
  if (frames.length > 2) return complain(`That is ${frames.length} files; drop two frames, and the true flow if you have it.`);
  if (frames.length === 2) { put("frame1", frames[0]); put("frame2", frames[1]); }
  if (frames.length === 1) put(files.frame1 && !files.frame2 ? "frame2" : "frame1", frames[0]);
}

for (const kind of Object.keys(files)) {
  const tile = $(`tile-${kind}`), input = tile.querySelector("input");
  input.addEventListener("change", () => { if (input.files.length) put(kind, input.files[0]); input.value = ""; });
  tile.addEventListener("drop", (event) => {
    const dropped = event.dataTransfer.files;
    if (dropped.length !== 1) return; // several are shared out by the page
    event.preventDefault(); event.stopPropagation();
    $("drop").hidden = true;
    put(isClip(dropped[0]) ? "clip" : kind, dropped[0]);
  });
}

let entered = 0;
addEventListener("dragenter", (event) => { if (event.dataTransfer.types.includes("Files")) { entered++; $("drop").hidden = false; } });
addEventListener("dragleave", () => { if (--entered <= 0) { entered = 0; $("drop").hidden = true; } });
addEventListener("dragover", (event) => event.preventDefault());
addEventListener("drop", (event) => {
  event.preventDefault();
  entered = 0;
  $("drop").hidden = true;
  takeDropped(event.dataTransfer.files);
}, false);

// Estimating ----------------------------------------------------------------------------------------------------------

function complain(sentence) {
  $("alert").textContent = sentence;
  $("alert").hidden = !sentence;
}

async function listModels() {
  const models = await (await fetch("v1/models")).json();
  const groups = { network: "Networks", classical: "Classical methods" };
  for (const [kind, title] of Object.entries(groups)) {
    const group = document.createElement("optgroup");
    group.label = title;
    for (const model of models.filter((model) => model.kind === kind)) {
      const option = new Option(model.default ? `${model.name} (default)` : model.name, model.name, model.default, model.default);
      option.dataset.summary = `${model.summary[0].toUpperCase()}${model.summary.slice(1)}. ${model.paper}.`;
      group.append(option);
    }
    if (group.children.length) $("model").append(group);
  }
  const summarize = () => { $("summary").textContent = $("model").selectedOptions[0]?.dataset.summary ?? ""; };
  $("model").addEventListener("change", summarize);
  summarize();
}

async function estimate() {
  running?.abort();
  running = new AbortController();
  const { signal } = running;
  const form = new FormData();
  for (const [kind, file] of Object.entries(files)) if (file) form.append(kind, file, file.name);
  const query = new URLSearchParams({ model: $("model").value });
  if ($("refine").checked) query.set("refine", 3);
  busy("Estimating...");
  try {
    const answer = await fetch(`page/flow?${query}`, { method: "POST", body: form, signal });
    const content = await answer.json().catch(() => ({ error: "The service gave no readable answer." }));
    if (!answer.ok) return complain(content.error);
    content.flow = await readFlow(content.id, "flow.flo");
    content.truth = content.errors ? await readFlow(content.id, "truth.flo") : null;
    show(content);
  } catch (error) {
    if (error.name !== "AbortError") complain(SILENT);
  } finally {
    if (running?.signal === signal) { running = null; $("busy").hidden = true; }
  }
}

const SILENT = "The service does not answer; is it still running?";

function busy(what, done = null, total = null) {
  complain("");
  const bar = $("busy").querySelector("progress");
  $("doing").textContent = what;
  bar.hidden = !total;
  if (total) { bar.value = done; bar.max = total; }
  $("stop").hidden = done === null;
  $("busy").hidden = false;
}

async function follow() {
  running?.abort();
  running = new AbortController();
  const { signal } = running;
  const query = new URLSearchParams({ model: $("model").value, view: $("clip-view").querySelector("select").value, name: files.clip.name });
  busy("Sending the clip...");
  try {
    const answer = await fetch(`page/clip?${query}`, { method: "POST", body: files.clip, signal });
    const content = await answer.json().catch(() => ({ error: "The service gave no readable answer." }));
    if (!answer.ok) return complain(content.error);
    const address = `page/clip/${content.id}`;
    $("stop").onclick = () => fetch(address, { method: "DELETE" });
    for (;;) {
      const job = await (await fetch(address, { signal })).json();
      if (job.state === "failed" || job.error) return complain(job.error);
      if (job.state === "stopped") return complain("Stopped.");
      if (job.state === "done") return showFilm(`${address}/flow.mp4`, job.sentence);
      busy(job.done ? `Frame ${job.done}${job.total ? ` of about ${job.total}` : ""}` : "Looking at the whole clip...", job.done, job.total);
      await new Promise((resolve) => setTimeout(resolve, 400));
    }
  } catch (error) {
    if (error.name !== "AbortError") complain(SILENT);
  } finally {
    if (running?.signal === signal) { running = null; $("busy").hidden = true; }
  }
}

function showFilm(address, sentence) {
  for (const part of [$("empty"), $("shown")]) part.hidden = true;
  $("film").hidden = false;
  $("film").querySelector("video").src = address;
  $("film").querySelector("a").href = address;
  $("film").querySelector("p").textContent = sentence;
  toResult();
}

async function readFlow(id, name) {
  const data = await (await fetch(`page/results/${id}/${name}`)).arrayBuffer();
  const [width, height] = new Int32Array(data, 4, 2);
  return { width, height, values: new Float32Array(data, 12) };
}

$("form").addEventListener("submit", (event) => { event.preventDefault(); files.clip ? follow() : estimate(); });

$("example").addEventListener("click", async () => {
  for (const [kind, name] of [["frame1", "frame1.png"], ["frame2", "frame2.png"], ["truth", "flow.png"]]) {
    const blob = await (await fetch(`page/example/${name}`)).blob();
    put(kind, new File([blob], name, { type: blob.type }));
  }
  estimate();
});

// Showing -------------------------------------------------------------------------------------------------------------

function show(content) {
  result = content;
  probe = null;
  for (const part of [$("empty"), $("film")]) part.hidden = true;
  $("shown").hidden = false;
  $("views").classList.toggle("truth", Boolean(result.errors));
  const chosen = document.querySelector('input[name="view"]:checked');
  if (!result.errors && ["truth", "error"].includes(chosen.value)) document.querySelector('input[value="colour"]').checked = true;
  $("stage").style.setProperty("--ratio", result.width / result.height);
  $("scale").textContent = `Full colour is ${number(result.scale)} px.`;
  const figures = [["Method", result.model], ["Size", `${result.width} x ${result.height}`], ["Time, both ways", `${result.seconds.toFixed(2)} s`],
    ["Mean length", `${number(result.mean)} px`], ["Longest", `${number(result.longest)} px`]];
  if (result.errors) figures.push(["EPE, mean over pixels", `${result.errors.epe.toFixed(3)} px`], ["Fl outliers", `${result.errors.fl.toFixed(2)} %`]);
  $("figures").replaceChildren(...figures.map(([term, text]) => {
    const pair = document.createElement("div"), dt = document.createElement("dt"), dd = document.createElement("dd");
    dt.textContent = term; dd.textContent = text;
    pair.append(dt, dd);
    return pair;
  }));
  for (const link of document.querySelectorAll(".save a[data-name]")) link.href = `page/results/${result.id}/${link.dataset.name}`;
  showView();
  toResult();
}

function toResult() {
  if (matchMedia("(max-width: 820px)").matches) $("result").scrollIntoView({ behavior: "smooth" });
}

function showView() {
  const view = document.querySelector('input[name="view"]:checked').value;
  const comparing = view === "compare";
  const address = (name) => `page/results/${result.id}/${name}.png`;
  $("picture").src = address(comparing ? "frame1" : view);
  $("picture").alt = CAPTIONS[view];
  if (comparing) $("after").src = address("warped");
  for (const part of [$("after"), $("divider"), $("slider"), ...document.querySelectorAll(".side")]) part.hidden = !comparing;
  $("stage").classList.toggle("comparing", comparing);
  $("caption").textContent = CAPTIONS[view];
  $("save-view").href = address(comparing ? "warped" : view);
  $("save-view").download = `${comparing ? "warped" : view}.png`;
  read();
}

for (const radio of document.querySelectorAll('input[name="view"]')) radio.addEventListener("change", showView);

// Reading under the pointer -------------------------------------------------------------------------------------------

const number = (value) => (Math.abs(value) >= 100 ? value.toFixed(1) : value.toFixed(2));
const signed = (value) => (value < 0 ? "\u2212" : "+") + number(Math.abs(value));

function at(field, x, y) {
  const place = 2 * (y * field.width + x);
  const [u, v] = [field.values[place], field.values[place + 1]];
  return Math.abs(u) > 1e9 || Math.abs(v) > 1e9 ? null : { u, v };
}

function read() {
  $("probe").toggleAttribute("hidden", !probe);
  if (!probe) return $("reading").replaceChildren("Point at the picture to read the flow.");
  const { x, y } = probe;
  const flow = at(result.flow, x, y), truth = result.truth && at(result.truth, x, y);
  const parts = [["x, y", `${x}, ${y}`], ["u", `${signed(flow.u)} px`], ["v", `${signed(flow.v)} px`], ["length", `${number(Math.hypot(flow.u, flow.v))} px`]];
  if (result.truth) parts.push(["error", truth ? `${number(Math.hypot(flow.u - truth.u, flow.v - truth.v))} px` : "unknown"]);
  $("reading").replaceChildren(...parts.map(([name, text]) => {
    const part = document.createElement("span"), value = document.createElement("b");
    part.append(`${name} `, value);
    value.textContent = text;
    return part;
  }));
  const box = $("stage").getBoundingClientRect(), scale = box.width / result.width;
  const from = [(x + 0.5) * scale, (y + 0.5) * scale], to = [from[0] + flow.u * scale, from[1] + flow.v * scale];
  for (const line of $("probe").querySelectorAll("line")) ["x1", "y1", "x2", "y2"].forEach((name, i) => line.setAttribute(name, [...from, ...to][i]));
  for (const circle of $("probe").querySelectorAll("circle")) { circle.setAttribute("cx", from[0]); circle.setAttribute("cy", from[1]); }
}

function point(event) {
  const box = $("stage").getBoundingClientRect();
  const inside = (value, length) => Math.min(Math.max(Math.floor(value), 0), length - 1);
  probe = {
    x: inside(((event.clientX - box.left) / box.width) * result.width, result.width),
    y: inside(((event.clientY - box.top) / box.height) * result.height, result.height),
  };
  if ($("stage").classList.contains("comparing") && event.buttons) cut(((event.clientX - box.left) / box.width) * 100);
  read();
}

function cut(percent) {
  $("slider").querySelector("input").value = percent;
  $("stage").style.setProperty("--cut", `${Math.min(Math.max(percent, 0), 100)}%`);
}

$("stage").addEventListener("pointermove", point);
$("stage").addEventListener("pointerdown", (event) => { $("stage").setPointerCapture(event.pointerId); point(event); });
$("stage").addEventListener("keydown", (event) => {
  const [dx, dy] = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key] ?? [0, 0];
  if (!dx && !dy) return;
  event.preventDefault();
  const step = event.shiftKey ? 10 : 1, { x, y } = probe ?? { x: result.width >> 1, y: result.height >> 1 };
  probe = { x: Math.min(Math.max(x + dx * step, 0), result.width - 1), y: Math.min(Math.max(y + dy * step, 0), result.height - 1) };
  read();
});
$("slider").querySelector("input").addEventListener("input", (event) => cut(Number(event.target.value)));
addEventListener("resize", () => { if (result) read(); });

listModels().catch(() => complain(SILENT));
