// What the page says beside the item: announcements, notices, progress.

export const $ = (id) => document.getElementById(id);

export function say(text) {
  $("live").textContent = text;
}

export function notify(text) {
  $("notice").textContent = text;
  $("notice").hidden = !text;
}

export function waiting(yes) {
  if (yes) notify("Not saved yet: the server does not answer. Your answer is kept here and sent again.");
  else if ($("notice").textContent.startsWith("Not saved yet")) notify("");
}

function minutes(seconds) {
  if (seconds < 90) return "about a minute";
  return seconds < 5400 ? `about ${Math.round(seconds / 60)} min` : `about ${(seconds / 3600).toFixed(1)} h`;
}

export function showProgress({ done, left, seconds }) {
  const rate = seconds ? `${Math.max(1, Math.round(3600 / Math.max(seconds, 0.1)))} an hour` : null;
  const rest = seconds && left ? minutes(left * seconds) : null;
  const parts = [`${done} done`, `${left} to go`, rate, rest && `${rest} left`];
  $("progress").textContent = parts.filter(Boolean).join(" · ");
  const share = done + left ? Math.round((100 * done) / (done + left)) : 100;
  $("bar").setAttribute("aria-valuenow", share);
  $("bar").firstElementChild.style.setProperty("inline-size", `${share}%`);
}
