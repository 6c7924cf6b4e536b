// An item as elements. The HTML of texts was made safe by the server; everything else is set as text.

const policy = window.trustedTypes?.createPolicy("likelier", { createHTML: (html) => html });
const EARLIER = 4; // turns that stay open at the end of a long conversation

export function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

function safe(html, className) {
  const made = element("div", { className, dir: "auto" });
  made.innerHTML = policy ? policy.createHTML(html) : html;
  return made;
}

function turnElement(turn) {
  const texts = [safe(turn.html, "text formatted"), safe(turn.plain, "text unformatted")];
  const speaker = turn.speaker ? [element("h3", { className: "speaker", textContent: turn.speaker })] : [];
  return element("div", { className: `turn ${turn.speaker.toLowerCase()}` }, ...speaker, ...texts);
}

function folded(title, children, className = "") {
  const summary = element("summary", { textContent: title });
  return element("details", { className: `folded ${className}` }, summary, ...children);
}

export function showPrompt(place, item) {
  const single = item.prompt.length === 1 && item.prompt[0].speaker !== "System";
  const turns = item.prompt.map((turn) => turnElement(single ? { ...turn, speaker: "" } : turn));
  const early = turns.slice(0, Math.max(0, turns.length - EARLIER));
  const parts = [];
  if (item.tools) parts.push(folded("Tools", [safe(item.tools, "text")]));
  if (early.length > 1) {
    parts.push(folded(`${early.length} earlier turns`, early, "earlier"), ...turns.slice(early.length));
  } else {
    parts.push(...turns);
  }
  place.replaceChildren(...parts);
  // Of a long conversation the last turn is what is answered.
  const box = place.parentElement;
  box.scrollTop = single ? 0 : (turns.at(-1)?.offsetTop ?? 0) - box.offsetTop;
  document.getElementById("prompt-heading").textContent = single ? "Prompt" : "Conversation";
}

export function showAnswers(place, item, choose) {
  const ranked = item.answers.length > 2;
  place.classList.toggle("many", ranked);
  place.replaceChildren(
    ...item.answers.map((answer, at) => {
      const name = `Answer ${at + 1}`;
      const heading = element("h2", { id: `answer-${at}`, textContent: name });
      const rank = element("span", { className: "rank" });
      const button = element("button", { type: "button", className: "choose", onclick: () => choose(at) });
      button.append(element("kbd", { textContent: at + 1 }), ranked ? " Next best" : " Better");
      button.setAttribute("aria-describedby", heading.id);
      const head = element("header", {}, heading, rank, ...(ranked ? [button] : []));
      const article = element("article", { className: "answer" }, head, ...answer.turns.map(turnElement));
      article.setAttribute("aria-labelledby", heading.id);
      return article;
    }),
  );
}

export function showVotes(place, votes) {
  place.hidden = votes === null;
  if (votes === null) return;
  const said = votes.filter((vote) => vote.verdict).map((vote) => `${vote.count} × ${vote.verdict}`);
  const notes = votes.filter((vote) => vote.note).map((vote) => `“${vote.note}”`);
  place.textContent = `You decide. Labels so far: ${[said.join(", ") || "none", ...notes].join("; ")}`;
}

// Places in order, ties joined, as groups: [[2], [0, 1]].
export class Ranking {
  constructor(count) {
    this.count = count;
    this.groups = [];
    this.tieNext = false;
  }

  add(at) {
    if (at >= this.count || this.groups.flat().includes(at)) return false;
    if (this.tieNext && this.groups.length) this.groups.at(-1).push(at);
    else this.groups.push([at]);
    this.tieNext = false;
    return true;
  }

  remove() {
    this.tieNext = false;
    this.groups.at(-1)?.pop();
    if (this.groups.at(-1)?.length === 0) this.groups.pop();
  }

  get complete() {
    return this.groups.flat().length === this.count;
  }

  get words() {
    const said = this.groups.map((group) => group.map((at) => at + 1).join(" = ")).join(" > ");
    if (!said) return "Choose the best answer first, then the next best.";
    return this.complete ? `${said} · Enter saves` : `${said} ${this.tieNext ? "=" : ">"} …`;
  }

  show(place) {
    [...place.children].forEach((article, at) => {
      const rank = this.groups.findIndex((group) => group.includes(at));
      const tied = rank >= 0 && this.groups[rank].length > 1;
      const above = this.groups.slice(0, Math.max(0, rank)).flat().length;
      article.querySelector(".rank").textContent = rank < 0 ? "" : `${tied ? "tied " : ""}rank ${above + 1}`;
      article.classList.toggle("ranked", rank >= 0);
    });
  }
}
