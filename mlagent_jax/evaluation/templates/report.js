"use strict";
// The trajectory browser, the theme and the charts' read-outs. What agents and scripts wrote only becomes text nodes.
(() => {
  const find = (selector, root = document) => root.querySelector(selector);
  const { episodes, tasks, agents } = JSON.parse(find("#index").textContent);

  /** An element with attributes and children; strings become text nodes. */
  function make(tag, attributes = {}, ...children) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
      else if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value);
    }
    element.append(...children.filter((child) => child !== null && child !== undefined));
    return element;
  }
  function draw(tag, attributes, ...children) {
    const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    element.append(...children);
    return element;
  }

  // Numbers. Those that JSON cannot hold arrive as text ("nan").
  const isNumber = (value) => typeof value === "number";
  const score = (value) => (isNumber(value) ? String(Number(value.toPrecision(4))).replace("-", "−") : value ?? "–");
  function withSign(value, digits) {
    const text = Math.abs(value).toFixed(digits);
    return (Number(text) === 0 ? "" : value < 0 ? "−" : "+") + text;
  }
  const signed = (value) => (isNumber(value) ? withSign(value, 3) : value ?? "–");
  const percent = (value) => (isNumber(value) ? withSign(100 * value, 1) + " %" : "–");
  const agentTitle = (name) => agents[name] ?? name;
  const direction = (task) => (tasks[task] ? (tasks[task].higher_is_better ? 1 : -1) : 0);
  function gain(episode) {
    if (!direction(episode.task) || !isNumber(episode.private) || !episode.init_private) return null;
    return (direction(episode.task) * (episode.private - episode.init_private)) / Math.abs(episode.init_private);
  }

  // ---- theme ----
  const THEMES = { auto: "◐ auto", light: "○ light", dark: "● dark" };
  const themeButton = find("#theme");
  function remembered(value) {
    try {
      if (value !== undefined) localStorage.setItem("theme", value);
      return localStorage.getItem("theme");
    } catch {
      return null; // a page opened from a file may have no storage
    }
  }
  function setTheme(name) {
    if (name === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = name;
    themeButton.textContent = THEMES[name];
    themeButton.value = name;
  }
  themeButton.addEventListener("click", () => {
    const names = Object.keys(THEMES);
    const next = names[(names.indexOf(themeButton.value) + 1) % names.length];
    setTheme(next);
    remembered(next);
  });
  setTheme(Object.hasOwn(THEMES, remembered() ?? "") ? remembered() : "auto");

  // ---- charts: the values nearest to the pointer ----
  for (const svg of document.querySelectorAll("svg[data-readout]")) {
    const { x, series } = JSON.parse(svg.dataset.readout);
    const line = find(".rule", svg);
    const text = find(".readout", svg.closest("figure"));
    const note = text.textContent;
    svg.addEventListener("pointermove", (event) => {
      const box = svg.getBoundingClientRect();
      const at = ((event.clientX - box.left) / box.width) * svg.viewBox.baseVal.width;
      const nearest = series.map(({ points }) =>
        points.reduce((best, point) => (Math.abs(point[0] - at) < Math.abs(best[0] - at) ? point : best), points[0]));
      const lead = nearest.reduce((best, point) => (Math.abs(point[0] - at) < Math.abs(best[0] - at) ? point : best));
      line.setAttribute("x1", lead[0]);
      line.setAttribute("x2", lead[0]);
      line.setAttribute("visibility", "visible");
      const values = series.flatMap(({ label }, place) =>
        Math.abs(nearest[place][0] - lead[0]) < 6 ? [`${label} ${score(nearest[place][2])}`] : []);
      text.textContent = `${x} ${score(lead[1])}: ${values.join(" · ")}`;
    });
    svg.addEventListener("pointerleave", () => {
      line.setAttribute("visibility", "hidden");
      text.textContent = note;
    });
  }

  const form = find("#filters");
  if (!form) return;
  const viewer = find("#viewer");
  const list = find("#episodes");
  const more = find("#more");
  const PAGE = 200;

  // ---- filters ----
  const OUTCOMES = ["success", "neutral", "corner", "error", "malformed", "infrastructure"];
  const ORDERS = { stored: "as stored", best: "largest gain first", worst: "smallest gain first", long: "longest first" };
  const FILTERS = ["stage", "task", "agent", "outcome", "ended"];
  const distinct = (name) => [...new Set(episodes.map((episode) => episode[name]))];
  const choices = {
    stage: distinct("stage").map((name) => [name, name]),
    task: distinct("task").map((name) => [name, name]),
    agent: distinct("agent").map((name) => [name, agentTitle(name)]),
    outcome: OUTCOMES.filter((name) => episodes.some(({ outcomes }) => outcomes.includes(name))).map((name) => [name, name]),
    ended: distinct("ended").filter((name) => name !== undefined).map((name) => [name, name.replaceAll("_", " ")]),
  };
  for (const name of FILTERS) {
    const options = [["", "all"], ...choices[name]].map(([value, label]) => make("option", { value }, label));
    form.elements[name].append(...options);
  }
  form.elements.order.append(...Object.entries(ORDERS).map(([value, label]) => make("option", { value }, label)));

  let shown = []; // numbers of the episodes that pass the filters, in order
  let current = { number: null, step: 0, steps: [] };

  function applyFilters() {
    const chosen = Object.fromEntries(FILTERS.map((name) => [name, form.elements[name].value]));
    shown = [...episodes.keys()].filter((number) => {
      const episode = episodes[number];
      return FILTERS.every((name) => !chosen[name] ||
        (name === "outcome" ? episode.outcomes.includes(chosen[name]) : episode[name] === chosen[name]));
    });
    const order = form.elements.order.value;
    const key = { best: (e) => -(gain(e) ?? -Infinity), worst: (e) => gain(e) ?? Infinity, long: (e) => -e.outcomes.length }[order];
    if (key) shown.sort((a, b) => key(episodes[a]) - key(episodes[b]) || a - b);
    find("#count").textContent = `${shown.length} of ${episodes.length} trajectories`;
    list.replaceChildren();
    extendList();
  }
  function extendList() {
    const from = list.childElementCount;
    list.append(...shown.slice(from, from + PAGE).map(listItem));
    more.hidden = list.childElementCount >= shown.length;
    markCurrent();
  }
  function listItem(number) {
    const episode = episodes[number];
    return make("li", {}, make("button", { type: "button", "data-number": number, onclick: () => open(number, 0, "push") },
      make("span", {}, `${agentTitle(episode.agent)} · ${episode.task} · ${episode.stage === "ppo" ? "update " : ""}${episode.index}`),
      make("span", { class: "gain", title: "relative gain, private score" }, isNumber(episode.private) ? percent(gain(episode)) : ""),
      make("span", { class: "minis", title: `${episode.stage}: ${episode.outcomes.join(", ") || "no steps"}` },
        ...episode.outcomes.map((outcome) => make("i", { class: `mini ${outcome}` })))));
  }
  function markCurrent() {
    for (const button of list.querySelectorAll("button")) {
      const here = Number(button.dataset.number) === current.number;
      button.setAttribute("aria-current", here);
      if (here) {
        const item = button.parentElement;
        if (item.offsetTop < list.scrollTop + list.offsetTop) list.scrollTop = item.offsetTop - list.offsetTop;
        const below = item.offsetTop - list.offsetTop + item.offsetHeight - list.clientHeight;
        if (below > list.scrollTop) list.scrollTop = below;
      }
    }
  }
  form.addEventListener("change", applyFilters);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => setTimeout(applyFilters));
  more.addEventListener("click", extendList);

  // ---- one trajectory ----
  const opened = new Map();
  function unpack(chunk) {
    if (!opened.has(chunk)) {
      const bytes = Uint8Array.from(atob(find(`#chunk-${chunk}`).textContent), (character) => character.charCodeAt(0));
      const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
      opened.set(chunk, new Response(stream).json());
    }
    return opened.get(chunk);
  }

  let openings = 0;
  async function open(number, step, history) {
    const opening = ++openings;
    const episode = episodes[number];
    const steps = (await unpack(episode.chunk))[episode.at];
    if (opening !== openings) return; // another one has been requested meanwhile
    current = { number, steps, step: Math.max(0, Math.min(step, steps.length - 1)) };
    show(history);
    markCurrent();
  }
  function show(history = "replace") {
    const episode = episodes[current.number];
    const sampled = episode.stage === "ppo"; // actions of one update, from states of many trajectories
    const facts = sampled ? [["mean reward", signed(episode.reward)], ["actions", String(current.steps.length)]] : [
      ["private score", `${score(episode.init_private)} → ${score(episode.private)}`],
      ["relative gain", percent(gain(episode))],
      ["public score", `${score(episode.init_public)} → ${score(episode.public)}`],
      ["ended by", episode.ended.replaceAll("_", " ") || "–"],
      ["own submission", episode.valid ? "yes" : "no"],
      ["mean step reward", signed(episode.reward)],
      ["seed", String(episode.seed)],
    ];
    const title = sampled ? `Actions sampled for update ${episode.index} on ${episode.task}` :
      `${agentTitle(episode.agent)} on ${episode.task}, episode ${episode.index}`;
    const head = [
      make("h3", {}, title, make("small", {}, episode.stage)),
      definitions(facts),
    ];
    if (episode.ideas?.length) {
      head.push(make("h4", {}, "Primed with"), make("ul", { class: "ideas" }, ...episode.ideas.map((idea) => make("li", {}, idea))));
    }
    if (current.steps.length) {
      if (!sampled) head.push(scoreCurve(episode));
      head.push(stepBar(), ...stepPanel(current.steps[current.step], episode));
    } else {
      head.push(make("p", { class: "note" }, "This episode has no steps: the starter's own submission was scored."));
    }
    viewer.replaceChildren(...head);
    if (history !== "none") {
      window.history[history === "push" ? "pushState" : "replaceState"](null, "", link(episode, current.step));
    }
  }
  function link(episode, step) {
    const name = [episode.agent, episode.task, episode.index].map(encodeURIComponent).join("/");
    const stage = episode.stage === "evaluate" ? "" : `&stage=${encodeURIComponent(episode.stage)}`;
    return `#trajectory=${name}${stage}&step=${step + 1}`;
  }
  const definitions = (pairs) => make("dl", { class: "facts" },
    ...pairs.map(([name, value]) => make("div", {}, make("dt", {}, name), make("dd", {}, value))));

  function scoreCurve(episode) {
    const values = [episode.init_public, ...episode.curve].filter(isNumber);
    const low = Math.min(...values);
    const span = Math.max(...values) - low;
    const depth = (value) => (span === 0 ? 0.5 : (direction(episode.task) < 0 ? value - low : low + span - value) / span);
    const y = (value) => (8 + 54 * depth(value)).toFixed(1);
    const x = (place) => (values.length > 1 ? (100 * place) / (values.length - 1) : 50).toFixed(2);
    const start = y(values[0]);
    const label = "Public score after each step, better is up; dashed: the starter's";
    return draw("svg", { class: "curve", viewBox: "0 0 100 70", preserveAspectRatio: "none", role: "img", "aria-label": label },
      draw("title", {}, label),
      draw("line", { class: "start", x1: 0, x2: 100, y1: start, y2: start }),
      draw("polyline", { points: values.map((value, place) => `${x(place)},${y(value)}`).join(" ") }));
  }
  function stepBar() {
    return make("div", { class: "steps", role: "group", "aria-label": "Steps" }, ...current.steps.map((step, place) =>
      make("button", {
        type: "button", class: step.outcome, "aria-current": place === current.step, "data-step": place,
        title: `${step.tool ?? (step.origin ? "action" : "no action")}: ${step.outcome}, reward ${signed(step.reward)}`,
        onclick: () => goTo(place),
      }, String(place + 1))));
  }
  function goTo(place) {
    if (current.number === null || place < 0 || place >= current.steps.length) return;
    const hadFocus = find(".steps", viewer)?.contains(document.activeElement);
    current.step = place;
    show();
    if (hadFocus) find(`[data-step="${place}"]`, viewer).focus();
  }

  function change(before, after, task) {
    if (before === after) return score(after);
    const better = isNumber(before) && isNumber(after) ? direction(task) * Math.sign(after - before) : 0;
    return `${score(before)} → ${score(after)}${better ? (better > 0 ? " better" : " worse") : ""}`;
  }
  function stepPanel(step, episode) {
    const facts = [
      ["reward", signed(step.reward)],
      ["public score", change(step.m_before, step.m_after, episode.task)],
    ];
    if ("private_after" in step) facts.push(["private score", change(step.private_before, step.private_after, episode.task)]);
    if (step.origin) facts.push(["from", origin(step.origin)]);
    if (step.status) facts.push(["execution", step.status.replaceAll("_", " ") + (step.cached ? ", cached" : "")]);
    if (step.seconds) facts.push(["time", `${score(step.seconds)} s`]);
    if (isNumber(step.tokens)) facts.push(["tokens", String(step.tokens)]);
    if (isNumber(step.logprob)) facts.push(["mean log-prob", score(step.logprob)]);
    const parts = [
      make("div", { class: "step-head" },
        make("span", {}, `${step.origin ? "Action" : "Step"} ${current.step + 1} of ${current.steps.length}`),
        make("span", { class: "tool" }, step.origin ? null : step.tool ?? "no action"),
        make("span", { class: `badge ${step.outcome}` }, step.outcome),
        make("span", { class: "nav-steps" },
          make("button", { type: "button", "aria-label": "previous step", onclick: () => goTo(current.step - 1) }, "←"),
          make("button", { type: "button", "aria-label": "next step", onclick: () => goTo(current.step + 1) }, "→")),
        definitions(facts)),
    ];
    // A parsed action is shown as parsed, not again as the agent wrote it.
    const said = step.fields.filter(([name]) => !step.tool || !name.startsWith("Action"));
    if (said.length) {
      parts.push(make("h4", {}, "Response"), make("dl", { class: "fields" }, ...said.flatMap(([name, text]) =>
        [make("dt", {}, name || "(no field)"), make("dd", {}, text || "–")])));
    }
    if (step.tool) {
      parts.push(make("h4", {}, "Action"), make("dl", { class: "fields action" },
        make("dt", {}, "tool"), make("dd", {}, step.tool),
        ...step.arguments.flatMap(([name, text]) => [make("dt", {}, name), make("dd", {}, text)])));
    }
    if (step.diff) parts.push(make("h4", {}, "Diff"), diff(step.diff));
    if (step.output) parts.push(make("h4", {}, "Output"), make("pre", { class: "output", tabindex: 0 }, step.output));
    if ("feedback" in step) parts.push(make("h4", {}, "Feedback"), make("pre", { class: "feedback", tabindex: 0 }, step.feedback || "(none)"));
    parts.push(make("details", {}, make("summary", {}, "Raw response and snapshots"),
      make("pre", { class: "raw", tabindex: 0 }, step.response),
      make("p", { class: "note" }, `Workspace ${step.snapshots[0]} → ${step.snapshots[1]}`)));
    return parts;
  }
  function origin([key, place]) {
    const [agent, task, index] = key.split("/");
    const number = episodes.findIndex((each) => each.stage === "collect" && each.agent === agent && each.task === task &&
      String(each.index) === index);
    const text = `${key}, step ${place + 1}`;
    return number < 0 ? text : make("a", { href: link(episodes[number], place) }, text);
  }
  function diff(text) {
    let inHunk = false; // only the lines before the first hunk are file names: a changed line may begin with "--" too
    const lines = text.replace(/\n$/, "").split("\n").map((line) => {
      if (line.startsWith("@@")) inHunk = true;
      const kind = line.startsWith("@@") ? "hunk" : !inHunk ? "file" : { "+": "add", "-": "del" }[line[0]] ?? "same";
      return make("span", { class: kind }, line);
    });
    return make("pre", { class: "diff", tabindex: 0 }, make("span", { class: "lines" }, ...lines));
  }

  // ---- addresses: #trajectory=AGENT/TASK/INDEX&step=3[&stage=collect], #trajectories&agent=AGENT&task=TASK ----
  function decoded(text) {
    try {
      return decodeURIComponent(text);
    } catch {
      return text;
    }
  }
  function address() {
    const parts = location.hash.slice(1).split("&").map((part) => part.split(/=(.*)/s));
    return Object.fromEntries(parts.map(([name, value = ""]) => [name, value]));
  }
  async function route() {
    const parameters = address();
    if ("trajectory" in parameters) {
      const [agent, task, index] = parameters.trajectory.split("/").map(decoded);
      const stage = decoded(parameters.stage ?? "evaluate");
      const number = episodes.findIndex((episode) => episode.stage === stage && episode.agent === agent &&
        episode.task === task && String(episode.index) === index);
      if (number < 0) {
        viewer.replaceChildren(make("p", { class: "missing" }, `There is no trajectory ${agent}/${task}/${index} of stage ${stage} in this report.`));
      } else {
        if (!shown.includes(number)) {
          form.reset();
          applyFilters();
        }
        while (shown.indexOf(number) >= list.childElementCount && !more.hidden) extendList();
        await open(number, (Number.parseInt(parameters.step, 10) || 1) - 1, "none");
      }
      find("#trajectories").scrollIntoView();
    } else if ("trajectories" in parameters && Object.keys(parameters).length > 1) {
      form.reset();
      for (const name of FILTERS) form.elements[name].value = name in parameters ? decoded(parameters[name]) : "";
      applyFilters();
      find("#trajectories").scrollIntoView();
      if (shown.length) await open(shown[0], 0, "none");
    }
  }
  addEventListener("hashchange", route);

  addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("select, input, textarea, pre, summary")) return;
    const place = shown.indexOf(current.number);
    const actions = {
      ArrowRight: () => goTo(current.step + 1), j: () => goTo(current.step + 1),
      ArrowLeft: () => goTo(current.step - 1), k: () => goTo(current.step - 1),
      Home: () => goTo(0), End: () => goTo(current.steps.length - 1),
      n: () => place + 1 < shown.length && moveTo(place + 1), p: () => place > 0 && moveTo(place - 1),
      f: () => form.elements.stage.focus(),
    };
    const inView = find("#trajectories").getBoundingClientRect();
    if (!Object.hasOwn(actions, event.key) || inView.top > innerHeight || inView.bottom < 0) return;
    event.preventDefault();
    actions[event.key]();
  });
  function moveTo(place) {
    while (place >= list.childElementCount && !more.hidden) extendList();
    open(shown[place], 0, "push");
  }

  applyFilters();
  route().then(() => current.number === null && shown.length && !("trajectory" in address()) && open(shown[0], 0, "none"));
})();
