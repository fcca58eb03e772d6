"use strict";
document.documentElement.classList.add("js");

// A link to something inside a closed part opens it.
function openTarget() {
  const target = document.getElementById(location.hash.slice(1));
  for (let part = target; part; part = part.parentElement) {
    if (part.tagName === "DETAILS") part.open = true;
  }
  if (target) target.scrollIntoView();
}
addEventListener("hashchange", openTarget);
openTarget();

// On paper everything is open.
let closed = [];
addEventListener("beforeprint", () => {
  closed = [...document.querySelectorAll("details:not([open])")];
  for (const part of closed) part.open = true;
});
addEventListener("afterprint", () => {
  for (const part of closed) part.open = false;
});

function button(text, act) {
  const made = document.createElement("button");
  made.type = "button";
  made.textContent = text;
  made.addEventListener("click", act);
  return made;
}

// One of several, as buttons; `names` maps a value to what the button says.
function choice(title, names, chosen, act) {
  const group = document.createElement("fieldset");
  const legend = document.createElement("legend");
  legend.textContent = title;
  group.append(legend);
  const buttons = new Map();
  for (const value of Object.keys(names)) {
    const made = button(names[value], () => select(value));
    buttons.set(value, made);
    group.append(made);
  }
  function select(value) {
    for (const [other, made] of buttons) made.setAttribute("aria-pressed", other === value);
    act(value);
  }
  buttons.get(chosen).setAttribute("aria-pressed", true);
  for (const [other, made] of buttons) {
    if (other !== chosen) made.setAttribute("aria-pressed", false);
  }
  return { group, buttons };
}

function enhance(viewer) {
  const samples = [...viewer.querySelectorAll(".sample")];
  const view = (sample, protocol) => sample.querySelector(`[data-protocol="${protocol}"]`);
  const protocols = [...samples[0].querySelectorAll(".view")].map((v) => v.dataset.protocol);
  let protocol = protocols.includes("fixed") ? "fixed" : protocols[0];
  let wanted = "all";
  let place = 0;

  const kinds = { all: "all", fooled: "fooled", right: "right", wrong: "wrong before" };
  const asked = choice("Protocol", Object.fromEntries(protocols.map((p) => [p, p])), protocol, (p) => {
    const now = shown()[place];
    protocol = p;
    show(shown().indexOf(now));
  });
  const filter = choice("Show", kinds, wanted, (kind) => {
    const now = shown()[place];
    wanted = kind;
    show(shown().indexOf(now));
  });
  const back = button("← Previous", () => show(place - 1));
  const on = button("Next →", () => show(place + 1));
  const count = document.createElement("output");
  count.className = "count";
  const pages = document.createElement("fieldset");
  pages.append(back, count, on);
  const controls = document.createElement("div");
  controls.className = "controls";
  controls.append(pages, asked.group, filter.group);
  viewer.prepend(controls);

  const is = (sample, kind) => kind === "all" || view(sample, protocol).dataset.outcome === kind;
  const shown = () => samples.filter((sample) => is(sample, wanted));

  function show(at) {
    const found = shown();
    place = Math.min(Math.max(at, 0), Math.max(found.length - 1, 0));
    for (const sample of samples) {
      sample.hidden = !found.includes(sample);
      sample.classList.toggle("away", sample !== found[place]);
      for (const each of sample.querySelectorAll(".view")) {
        each.hidden = each.dataset.protocol !== protocol;
      }
    }
    for (const [kind, made] of filter.buttons) {
      made.textContent = `${kinds[kind]} (${samples.filter((s) => is(s, kind)).length})`;
    }
    // Not `disabled`, which would take the focus away.
    back.setAttribute("aria-disabled", place === 0);
    on.setAttribute("aria-disabled", place >= found.length - 1);
    count.textContent = found.length ? `image ${place + 1} of ${found.length}` : "no such image";
  }

  viewer.addEventListener("keydown", (event) => {
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    const to = { ArrowLeft: place - 1, ArrowRight: place + 1, Home: 0, End: samples.length }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    show(to);
  });
  viewer.tabIndex = 0;
  show(0);
}
document.querySelectorAll(".viewer").forEach(enhance);
