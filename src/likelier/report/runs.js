"use strict";
// Without this script everything is shown; with it, runs can be brought forward and answers filtered.
(() => {
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const plain = (text) => text.normalize("NFKC").toLowerCase();

  // Highlighting: what is chosen stays, what is pointed at comes forward for as long as one points.
  const buttons = all(".legend button");
  const chosen = new Set();
  const numberOf = (element) => /(?:line|band)-(\d+)$/.exec(element.id)[1];
  const lines = all(".panels g[id]").filter((group) => /(?:line|band)-\d+$/.test(group.id));
  const paint = (pointed) => {
    const forward = pointed ? new Set([...chosen, pointed]) : chosen;
    for (const line of lines) line.classList.toggle("back", forward.size > 0 && !forward.has(numberOf(line)));
    for (const line of lines) line.classList.toggle("front", forward.has(numberOf(line)));
    for (const row of all("tr[data-run]")) row.classList.toggle("front", forward.has(row.dataset.run));
  };
  for (const button of buttons) {
    const run = button.dataset.run;
    button.disabled = false;
    button.addEventListener("click", () => {
      chosen.has(run) ? chosen.delete(run) : chosen.add(run);
      button.setAttribute("aria-pressed", String(chosen.has(run)));
      paint(null);
    });
    for (const [on, off] of [["pointerenter", "pointerleave"], ["focus", "blur"]]) {
      button.addEventListener(on, () => paint(run));
      button.addEventListener(off, () => paint(null));
    }
  }
  for (const hint of all(".needs-script")) hint.hidden = false;

  // Filters of the answers.
  const form = document.querySelector("#filters");
  if (!form) return;
  const [words, who, place] = ["#words", "#who", "#place"].map((id) => form.querySelector(id));
  const count = form.querySelector("output");
  const prompts = all(".asked").map((element) => ({
    element,
    text: plain(element.querySelector(".prompt").textContent),
    answers: all(".answer", element).map((own) => ({
      own,
      text: plain(own.querySelector(".text").textContent),
      who: JSON.parse(own.dataset.who),
      last: own.dataset.last === "true",
    })),
  }));
  const filter = () => {
    const wanted = plain(words.value.trim());
    let shown = 0;
    let left = 0;
    for (const prompt of prompts) {
      const inPrompt = prompt.text.includes(wanted);
      let any = 0;
      for (const answer of prompt.answers) {
        const keep =
          (inPrompt || answer.text.includes(wanted)) &&
          (!who.value || answer.who.includes(who.value)) &&
          (place.value === "all" || answer.last);
        answer.own.hidden = !keep;
        any += keep;
      }
      prompt.element.hidden = any === 0;
      shown += any;
      left += any > 0;
    }
    count.textContent = `answers: ${shown}, prompts: ${left} of ${prompts.length}`;
  };
  form.addEventListener("input", filter);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => setTimeout(filter));
  form.hidden = false;
  filter();
})();
