// Keeps a page up to date: fetches it again and puts in what changed, unless somebody is about to use it.
"use strict";
const main = document.getElementById("main");
const every = Number(main.dataset.live) * 1000;
const shown = document.getElementById("live");

document.addEventListener("submit", (event) => {
  const sure = event.target.dataset.sure;
  if (sure && !window.confirm(sure)) event.preventDefault();
});

const inUse = () => {
  const focus = document.activeElement;
  return (focus && main.contains(focus)) || main.querySelector("details[open]") || document.hidden;
};

async function refresh() {
  if (inUse()) return;
  try {
    const answer = await fetch(location.href, { headers: { "x-live": "1" } });
    if (answer.redirected || !answer.ok) throw new Error(String(answer.status));
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    if (inUse()) return;
    const scrolled = window.scrollY;
    main.replaceChildren(...page.getElementById("main").childNodes);
    document.title = page.title;
    document.querySelector("footer time").replaceWith(page.querySelector("footer time"));
    window.scrollTo(0, scrolled);
    shown.textContent = " · live";
  } catch {
    shown.textContent = " · cannot be reached; what you see is old";
  }
}

if (every) setInterval(refresh, every);
