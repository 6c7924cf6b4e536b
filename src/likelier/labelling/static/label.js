// The labelling page: one item at a time; what is answered is saved before the next is shown.

import { ask, listen } from "./keys.js";
import { Ranking, element, showAnswers, showPrompt, showVotes } from "./item.js";
import { Refused, leave, newKey, post, postUntilSaved, sendUnsent, tabName } from "./server.js";
import { $, notify, say, showProgress, waiting } from "./words.js";

const SETTLING = 250; // milliseconds in which keys do not yet answer a new item: a key pressed twice answers once
const tab = tabName();
const decides = new URLSearchParams(location.search).get("item");
const strengthAsked = document.body.dataset.strength === "true";

let annotator = sessionStorage.getItem("likelier-annotator");
let turn = null;
let ranking = null;
let shownAt = 0;
let busy = false;

// What is shown

function show(told, announcement = "") {
  turn = told;
  if (told.annotator) annotator = told.annotator;
  sessionStorage.setItem("likelier-annotator", annotator);
  localStorage.setItem("likelier-annotator", annotator);
  showProgress(told.progress);
  $("who").textContent = annotator;
  $("who").setAttribute("aria-label", `${annotator}: change the name`);
  $("who").hidden = false;
  $("sign-in").hidden = true;
  $("undo").disabled = $("rest-undo").disabled = told.undo === null;
  const item = told.item;
  $("work").hidden = $("actions").hidden = item === null;
  $("rest").hidden = item !== null;
  if (item === null) showRest(announcement);
  else showItem(item, announcement);
  shownAt = performance.now();
}

function showRest(announcement) {
  const decided = decides !== null;
  $("rest-heading").textContent = decided ? "Decided" : turn.waiting ? "Nothing for you just now" : "All done, thank you";
  $("rest-text").textContent = decided
    ? "Your decision is saved. The results list what else is to be decided."
    : turn.waiting
      ? "The last items are before other annotators. Some may still come to you."
      : "There is nothing left to label. Everything is saved.";
  $("look").hidden = decided || !turn.waiting;
  say(`${announcement} ${$("rest-heading").textContent}.`);
  $("rest-heading").focus();
}

function showItem(item, announcement) {
  ranking = item.answers.length > 2 ? new Ranking(item.answers.length) : null;
  $("question").textContent = ranking ? "Rank the answers, best first" : "Which answer is better?";
  showPrompt($("prompt"), item);
  showAnswers($("answers"), item, choosePlace);
  showVotes($("votes"), item.votes);
  showVerdicts(item.answers.length);
  showStarts(item.answers);
  restore(item);
  window.scrollTo(0, 0);
  $("question").focus({ preventScroll: true });
  say(`${announcement} ${$("question").textContent} ${turn.progress.left} to go.`);
}

function verdictButton(key, words, action, className = "") {
  const button = element("button", { type: "button", className, onclick: action });
  button.append(element("kbd", { textContent: key }), ` ${words}`);
  return button;
}

function showVerdicts(count) {
  $("ranking").hidden = ranking === null;
  $("verdicts").className = `verdicts ${ranking ? "of-ranking" : "of-pair"}`;
  $("verdicts").replaceChildren(
    ...(ranking
      ? [
          verdictButton("t", "Tie with next", tieNext),
          verdictButton("⌫", "Take one off", takeOff),
          verdictButton("b", "All bad", () => judge("both_bad", [places(count)])),
          verdictButton("Enter", "Save", saveRanking, "primary"),
        ]
      : [
          verdictButton("1", "Answer 1", () => choosePlace(0), "side"),
          verdictButton("t", "Tie", () => judge("tie", [[0, 1]])),
          verdictButton("b", "Both bad", () => judge("both_bad", [[0, 1]])),
          verdictButton("2", "Answer 2", () => choosePlace(1), "side"),
        ]),
  );
  if (ranking) showRanking();
}

function showStarts(answers) {
  const start = (answer, at) => {
    const use = () => {
      $("edit").value = answer.text;
      $("edit").focus();
      keepDraft();
    };
    return element("button", { type: "button", onclick: use, textContent: `Start from answer ${at + 1}` });
  };
  $("starts").replaceChildren(...answers.map(start));
}

// A page that is loaded again keeps what was being written; an answer that was taken back is there to be changed.
function restore(item) {
  const draft = JSON.parse(sessionStorage.getItem(`likelier-draft-${item.showing}`) ?? "null");
  const kept = draft ?? item.previous ?? {};
  $("reason").value = kept.reason ?? "";
  $("edit").value = kept.edit ?? "";
  $("more").open = Boolean($("reason").value || $("edit").value);
}

function keepDraft() {
  const draft = { reason: $("reason").value, edit: $("edit").value };
  sessionStorage.setItem(`likelier-draft-${turn.item.showing}`, JSON.stringify(draft));
}

// Answers

const places = (count) => [...Array(count).keys()];

async function choosePlace(at) {
  if (ranking) {
    if (ranking.add(at)) showRanking();
    return;
  }
  const answer = [[at], [1 - at]];
  if (!strengthAsked) return judge("preference", answer);
  if (busy || settling()) return;
  const told = await ask($("strength-dialog"));
  if (told !== "cancel") submit("preference", answer, { strength: told === "none" ? null : Number(told) });
}

function showRanking() {
  ranking.show($("answers"));
  $("ranking").textContent = ranking.words;
  $("verdicts").lastElementChild.disabled = !ranking.complete;
  say(ranking.words);
}

function tieNext() {
  ranking.tieNext = ranking.groups.length > 0 && !ranking.complete;
  showRanking();
}

function takeOff() {
  ranking.remove();
  showRanking();
}

function saveRanking() {
  if (ranking.complete) judge(ranking.groups.length === 1 ? "tie" : "preference", ranking.groups);
  else say("Not all answers are ranked yet.");
}

const settling = () => performance.now() - shownAt < SETTLING;

// A verdict by a single key or button; what a dialog asked for is not hasty.
function judge(verdict, groups) {
  if (!settling()) submit(verdict, groups);
}

async function submit(verdict, groups, more = {}) {
  if (busy) return;
  const { showing, version } = turn.item;
  const written = { reason: $("reason").value, edit: $("edit").value };
  const said = { showing, version, verdict, ranking: groups, ...written, ...more };
  await change("/api/answer", said, verdict === "skip" ? "Skipped." : "Saved.", () =>
    sessionStorage.removeItem(`likelier-draft-${showing}`),
  );
}

async function skip() {
  if (busy || !turn?.item) return;
  $("skip-note").value = "";
  if ((await ask($("skip-dialog"))) !== "skip") return;
  const why = document.querySelector("input[name=why]:checked").value;
  const note = $("skip-note").value.trim();
  submit("skip", [], { reason: note ? `${why}: ${note}` : why, edit: "" });
}

async function undo() {
  if (turn?.undo != null) await change("/api/undo", { event: turn.undo }, "Taken back.");
}

async function flag() {
  if (busy || !turn?.item) return;
  $("flag-note").value = "";
  if ((await ask($("flag-dialog"))) !== "flag") return;
  const reason = $("flag-note").value.trim();
  await guarded(async () => {
    const body = { annotator, key: newKey(), showing: turn.item.showing, reason };
    say((await postUntilSaved("/api/flag", body, waiting)).message);
    notify("");
  });
}

async function change(path, body, announcement, afterwards = () => {}) {
  await guarded(async () => {
    const told = await postUntilSaved(path, { annotator, tab, key: newKey(), ...body }, waiting);
    afterwards();
    notify("");
    show(told, announcement);
  });
}

// One request at a time; where the page is stale it is told, and shows what is current.
async function guarded(work) {
  if (busy) return;
  busy = true;
  document.body.classList.add("busy");
  try {
    await work();
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    notify(error.message);
    if (error.status === 409) await current().catch((again) => notify(again.message));
  } finally {
    busy = false;
    document.body.classList.remove("busy");
  }
}

async function current() {
  show(await post("/api/next", { annotator, tab, item: decides }));
}

// The rest of the page

async function guidelines() {
  await ask($("guidelines"));
}

function plain() {
  const on = document.body.classList.toggle("as-plain");
  $("plain").setAttribute("aria-pressed", on);
}

function openMore() {
  $("more").open = true;
  $("reason").focus({ preventScroll: true });
  $("more").scrollIntoView({ block: "end" });
}

function signIn() {
  $("work").hidden = $("actions").hidden = $("rest").hidden = true;
  $("sign-in").hidden = false;
  const field = $("name");
  if (field) field.value = localStorage.getItem("likelier-annotator") ?? "";
  (field ?? $("sign-in").querySelector("button")).focus();
}

async function begin(name) {
  annotator = name;
  await guarded(async () => {
    const sent = await sendUnsent(tab, waiting);
    await current();
    notify(sent ? "An answer that had not reached the server was sent." : "");
  });
}

$("sign-in").addEventListener("submit", (event) => {
  event.preventDefault();
  begin(event.submitter?.value || $("name").value);
});
for (const [id, action] of Object.entries({
  skip,
  undo,
  flag,
  plain,
  look: () => begin(annotator),
  who: signIn,
  "rest-undo": undo,
  "open-guidelines": guidelines,
})) {
  $(id).addEventListener("click", action);
}
for (const id of ["reason", "edit"]) {
  $(id).addEventListener("input", keepDraft);
  // Back to where keys answer.
  $(id).addEventListener("keydown", (event) => {
    if (event.key === "Escape" && !event.isComposing) $("question").focus();
  });
}

listen(() => {
  const always = { h: guidelines, m: plain };
  if (!$("rest").hidden) return { ...always, u: undo };
  if (!turn?.item || !$("sign-in").hidden) return always;
  const shared = { ...always, s: skip, u: undo, f: flag, e: openMore };
  const count = turn.item.answers.length;
  const digits = Object.fromEntries(places(count).map((at) => [at + 1, () => choosePlace(at)]));
  if (ranking) {
    const bad = () => judge("both_bad", [places(count)]);
    return { ...shared, ...digits, t: tieNext, Backspace: takeOff, b: bad, Enter: saveRanking };
  }
  return {
    ...shared,
    ...digits,
    ArrowLeft: () => choosePlace(0),
    ArrowRight: () => choosePlace(1),
    t: () => judge("tie", [[0, 1]]),
    b: () => judge("both_bad", [[0, 1]]),
  };
});

// What this page had before it may go to another at once.
window.addEventListener("pagehide", () => {
  if (turn?.item) leave({ tab, showing: turn.item.showing });
});
window.addEventListener("pageshow", (event) => {
  if (event.persisted) location.reload();
});

if (annotator) begin(annotator).then(() => turn ?? signIn());
else signIn();
